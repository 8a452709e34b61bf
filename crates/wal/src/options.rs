//! Settings of a log.

/// The longest payload that the format can hold, in bytes.
pub(crate) const FRAME_BYTES_LIMIT: u64 = u32::MAX as u64;

/// Settings of a log. They may differ from one opening to the next.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WalOptions {
    /// Bytes of a segment after which the next one begins. A group of records never lies in two, so
    /// a segment may be longer.
    pub segment_bytes: u64,
    /// Bytes of the longest payload that is written, and read into memory.
    pub frame_bytes_max: u64,
    /// Bytes by which the file of a segment is made longer ahead of small groups of records.
    pub reserve_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 100 * 1000 * 1000, frame_bytes_max: 64 << 20, reserve_bytes: 1 << 20 }
    }
}

impl WalOptions {
    /// Sets the bytes of a segment after which the next one begins. Default: 100 MB.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets the bytes of the longest payload, at most 4 GiB - 1. Default: 64 MiB.
    #[must_use]
    pub fn with_frame_bytes_max(mut self, bytes: u64) -> Self {
        self.frame_bytes_max = bytes.min(FRAME_BYTES_LIMIT);
        self
    }

    /// Sets the bytes by which the file of a segment is made longer at a time, with zeros, ahead of groups of
    /// records of at most an eighth of that: syncing what was written over such zeros costs the disk less than
    /// syncing a file that has become longer. 0 makes no room. Default: 1 MiB.
    #[must_use]
    pub fn with_reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }
}
