//! What a read cache has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a read cache has done since it was opened. Blocks have 64 KiB; an object's last has fewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadCacheStatistics {
    /// Blocks that were wanted and found.
    pub hits: u64,
    /// Blocks that were wanted and had to be fetched.
    pub misses: u64,
    /// Bytes of the blocks that were found.
    pub bytes_served: u64,
    /// Bytes of the blocks that were put into the cache.
    pub bytes_stored: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    bytes_served: AtomicU64,
    bytes_stored: AtomicU64,
}

impl Counters {
    pub(super) fn found(&self, bytes: usize) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.bytes_served.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn missed(&self, blocks: usize) {
        self.misses.fetch_add(blocks as u64, Ordering::Relaxed);
    }

    pub(super) fn stored(&self, bytes: usize) {
        self.bytes_stored.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> ReadCacheStatistics {
        ReadCacheStatistics {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes_served: self.bytes_served.load(Ordering::Relaxed),
            bytes_stored: self.bytes_stored.load(Ordering::Relaxed),
        }
    }
}
