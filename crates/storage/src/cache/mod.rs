//! A cache of a remote store's immutable objects on local disk.
//!
//! | module | holds |
//! |---|---|
//! | `block` | objects in blocks of 64 KiB, and how one lies in a file |
//! | `disk` | the files, the budget, what others do to them |
//! | `index` | which block was used least recently |
//! | `flights` | one request for a block, however many readers wait for it |
//! | `reads` | how a read is answered, and what is missing fetched |
//! | [`statistics`] | [`ReadCacheStatistics`] |
//!
//! Invariants:
//! 1. A read yields the bytes or the error that the store would give, for objects that never change.
//!    Only those whose names the caller vouches for are kept; all else passes through.
//! 2. The directory may be deleted, damaged, full or read-only at any time: that costs requests and
//!    never an answer. Each block is checked before it is served.
//! 3. The directory keeps within its budget, but for what other processes have added since it was
//!    looked through.
//!
//! What is *not* here: which names are immutable, and hashes of contents; its users check those
//! against the log, as the checksums here find damage and no malice.
//!
//! It must be used within a tokio runtime.

mod block;
mod disk;
mod flights;
mod index;
mod reads;
pub mod statistics;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidelog_core::Env;

use disk::Disk;
use flights::Flights;
use reads::{READ_BYTES_MAX, Reads, Whole};

pub use statistics::ReadCacheStatistics;

/// A store whose immutable objects are kept on local disk once they were read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadCache {
    inner: Arc<dyn ObjectStore>,
    is_immutable: fn(&Path) -> bool,
    reads: Arc<Reads>,
}

impl ReadCache {
    /// Keeps what is read of `inner` in `directory`, which is made when it is needed, and lets it
    /// hold at most `bytes_max` bytes.
    ///
    /// `identity` names the store, without secrets. Under one identity a name for which
    /// `is_immutable` says yes must stand for the same bytes for ever.
    #[must_use]
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        identity: &str,
        is_immutable: fn(&Path) -> bool,
        directory: impl Into<PathBuf>,
        bytes_max: u64,
        env: &Env,
    ) -> Self {
        let reads = Reads {
            inner: Arc::clone(&inner),
            disk: Arc::new(Disk::new(directory.into(), identity, bytes_max, env.clone())),
            flights: Flights::default(),
            counters: Arc::default(),
        };
        Self { inner, is_immutable, reads: Arc::new(reads) }
    }

    /// What it has done since it was made.
    #[must_use]
    pub fn statistics(&self) -> ReadCacheStatistics {
        self.reads.counters.read()
    }

    /// The answer to a get, if blocks can give it.
    async fn held(&self, location: &Path, options: &GetOptions) -> Result<Option<GetResult>> {
        if !(self.is_immutable)(location) || !is_plain(options) {
            return Ok(None);
        }
        match &options.range {
            None => Ok(match self.reads.whole(location).await? {
                Whole::Blocks(blocks) => blocks.answer(None),
                Whole::Large(answer) => Some(answer),
                Whole::Unknown => None,
            }),
            Some(GetRange::Bounded(range)) if are_small(std::slice::from_ref(range)) => {
                let blocks = self.reads.ranges(location, std::slice::from_ref(range)).await?;
                Ok(blocks.and_then(|blocks| blocks.answer(Some(range))))
            }
            // Where the range lies only the store knows.
            Some(_) => Ok(None),
        }
    }
}

/// Whether a get asks for bytes and nothing else.
fn is_plain(options: &GetOptions) -> bool {
    let conditions = options.if_match.is_some()
        || options.if_none_match.is_some()
        || options.if_modified_since.is_some()
        || options.if_unmodified_since.is_some();
    !conditions && options.version.is_none() && !options.head
}

/// Whether the ranges are neither empty nor too large to be collected.
fn are_small(ranges: &[Range<u64>]) -> bool {
    let length = |range: &Range<u64>| range.end.checked_sub(range.start).filter(|bytes| *bytes > 0);
    let sum = ranges.iter().try_fold(0_u64, |sum, range| sum.checked_add(length(range)?));
    sum.is_some_and(|bytes| 0 < bytes && bytes <= READ_BYTES_MAX)
}

impl fmt::Display for ReadCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadCache({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for ReadCache {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.held(location, &options).await? {
            Some(answer) => Ok(answer),
            None => self.inner.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if (self.is_immutable)(location)
            && are_small(ranges)
            && let Some(blocks) = self.reads.ranges(location, ranges).await?
            && let Some(bytes) = ranges.iter().map(|range| blocks.bytes(range)).collect()
        {
            return Ok(bytes);
        }
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = self.inner.delete_stream(locations).then(move |deleted| {
            let this = this.clone();
            async move {
                if let Ok(location) = &deleted
                    && (this.is_immutable)(location)
                {
                    this.reads.forget(location).await;
                }
                deleted
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
