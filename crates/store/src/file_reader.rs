//! Reading data files: footers in one request and cached, every byte checked before it is used.
//!
//! A file of at most 64 KiB is fetched whole in one request. Of a larger one the tail (page index
//! and footer, whose length the log knows) is fetched once and kept in a bounded cache, and data
//! pages as they are needed. Bytes that do not match the hashes in the log are an error that names
//! the file; they are never decoded.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tidelog_core::FileId;
use tidelog_oplog::{FileRow, Hash128};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Error, version_words};
use crate::pages::PageTable;

/// Files up to this size are fetched whole.
const WHOLE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Pages closer together than this are fetched in one go.
const GAP_BYTES_MAX: u64 = 64 * 1024;

/// The decoded tail of a data file.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    pub(crate) metadata: Arc<ParquetMetaData>,
    pub(crate) pages: Arc<PageTable>,
}

#[derive(Debug, Clone)]
struct FooterWeight;

impl Weighter<FileId, Footer> for FooterWeight {
    fn weight(&self, _: &FileId, footer: &Footer) -> u64 {
        (footer.metadata.memory_size() + footer.pages.memory_size()) as u64
    }
}

/// Opens data files of one store; footers are shared between all readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileReaders {
    store: Arc<dyn ObjectStore>,
    footers: Arc<Cache<FileId, Footer, FooterWeight>>,
}

impl FileReaders {
    /// Readers over `store` that keep at most about `cache_bytes_max` bytes of footers.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, cache_bytes_max: u64) -> Self {
        // An entry is a few KiB; the item count is only a hint for sizing the table.
        let items = usize::try_from(cache_bytes_max / 8192).unwrap_or(1024).max(16);
        let footers = Cache::with_weighter(items, cache_bytes_max, FooterWeight);
        Self { store, footers: Arc::new(footers) }
    }

    /// The store that holds the files.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// A reader of `file`. No request is made yet.
    #[must_use]
    pub fn reader(&self, file: Arc<FileRow>) -> FileReader {
        let path = Path::from(file.location.as_ref());
        FileReader { readers: self.clone(), file, path, whole: None, bytes_read: Arc::default() }
    }

    /// Keeps the footer of a file that was just written, so that reading it back costs no request.
    pub(crate) fn remember(&self, file: FileId, footer: Footer) {
        self.footers.insert(file, footer);
    }
}

/// Reads one data file and checks what it reads.
#[derive(Debug)]
pub struct FileReader {
    readers: FileReaders,
    file: Arc<FileRow>,
    path: Path,
    whole: Option<Bytes>,
    bytes_read: Arc<AtomicU64>,
}

impl FileReader {
    /// Counts the bytes fetched, also after the reader is gone.
    #[must_use]
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Error {
        Error::DamagedFile {
            object: self.file.location.to_string(),
            path: self.file.path.clone(),
            versions: version_words(self.file.min_version, self.file.max_version),
            reason: reason.to_string(),
        }
    }

    fn failed(&self, error: tidelog_storage::object_store::Error) -> Error {
        match error {
            tidelog_storage::object_store::Error::NotFound { .. } => {
                self.damaged("it is missing from the store")
            }
            error => Error::store("reading", &self.file.location, error),
        }
    }

    async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let fetched = self.readers.store.get_ranges(&self.path, ranges).await;
        let fetched = match fetched {
            Ok(fetched) => fetched,
            Err(error) => return Err(self.short_or_failed(error).await),
        };
        for (range, bytes) in ranges.iter().zip(&fetched) {
            if bytes.len() as u64 != range.end - range.start {
                return Err(self.damaged("it is shorter than the log says"));
            }
            self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(fetched)
    }

    /// Stores answer a range beyond the end in their own ways; the object's size tells for sure.
    async fn short_or_failed(&self, error: tidelog_storage::object_store::Error) -> Error {
        match self.readers.store.head(&self.path).await {
            Ok(meta) if meta.size != self.file.size => self.damaged(format!(
                "it has {} bytes where the log says {}",
                meta.size, self.file.size
            )),
            _ => self.failed(error),
        }
    }

    async fn whole(&mut self) -> Result<Bytes, Error> {
        if let Some(bytes) = &self.whole {
            return Ok(bytes.clone());
        }
        let fetched = self.fetch(std::slice::from_ref(&(0..self.file.size))).await?;
        let bytes = fetched.into_iter().next().unwrap_or_default();
        if Hash128::of(&bytes) != self.file.hash {
            return Err(self.damaged("its bytes do not match the hash in the log"));
        }
        self.whole = Some(bytes.clone());
        Ok(bytes)
    }

    /// The footer, from the cache or in one request.
    ///
    /// # Errors
    /// [`Error::DamagedFile`] if the bytes are not what was written, or the store's failure.
    async fn footer(&mut self) -> Result<Footer, Error> {
        if let Some(footer) = self.readers.footers.get(&self.file.file) {
            return Ok(footer);
        }
        let size = self.file.size;
        let tail = if size <= WHOLE_FILE_BYTES_MAX {
            let whole = self.whole().await?;
            let start = usize::try_from(size.saturating_sub(self.file.tail_length)).unwrap_or(0);
            whole.slice(start..)
        } else {
            let range = size.saturating_sub(self.file.tail_length)..size;
            self.fetch(std::slice::from_ref(&range)).await?.into_iter().next().unwrap_or_default()
        };
        if Hash128::of(&tail) != self.file.tail_hash {
            return Err(self.damaged("its footer does not match the hash in the log"));
        }
        let mut reader =
            ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
        reader.try_parse_sized(&tail, size).map_err(|error| self.damaged(error))?;
        let metadata = Arc::new(reader.finish().map_err(|error| self.damaged(error))?);
        let pages = PageTable::of_log(&metadata, &self.file.page_hashes)
            .ok_or_else(|| self.damaged("its pages do not fit the hashes in the log"))?;
        let footer = Footer { metadata, pages: Arc::new(pages) };
        self.readers.footers.insert(self.file.file, footer.clone());
        Ok(footer)
    }

    async fn ranges(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, Error> {
        if self.file.size <= WHOLE_FILE_BYTES_MAX {
            let whole = self.whole().await?;
            return ranges.iter().map(|range| self.cut(&whole, 0, range)).collect();
        }
        let pages = self.footer().await?.pages;
        let widened = ranges
            .iter()
            .map(|range| pages.widen(range).ok_or_else(|| self.damaged("it has no such page")))
            .collect::<Result<Vec<_>, _>>()?;
        let merged = merge(widened);
        let fetched = self.fetch(&merged).await?;
        for (range, bytes) in merged.iter().zip(&fetched) {
            pages.verify(range, bytes).map_err(|page| {
                self.damaged(format!(
                    "bytes {}–{} do not match the hash in the log",
                    page.start, page.end
                ))
            })?;
        }
        ranges
            .iter()
            .map(|range| {
                let index = merged.partition_point(|whole| whole.end < range.end);
                match (merged.get(index), fetched.get(index)) {
                    (Some(whole), Some(bytes)) => self.cut(bytes, whole.start, range),
                    _ => Err(self.damaged("it has no such page")),
                }
            })
            .collect()
    }

    fn cut(&self, bytes: &Bytes, start: u64, range: &Range<u64>) -> Result<Bytes, Error> {
        let local = |at: u64| at.checked_sub(start).and_then(|at| usize::try_from(at).ok());
        match (local(range.start), local(range.end)) {
            (Some(from), Some(to)) if from <= to && to <= bytes.len() => Ok(bytes.slice(from..to)),
            _ => Err(self.damaged("a range beyond its end was asked for")),
        }
    }
}

/// Joins ranges that touch or nearly touch.
fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            // A gap may lie between row groups; pages inside it are fetched and checked as well.
            Some(last) if range.start <= last.end + GAP_BYTES_MAX => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let fetched = self.ranges(vec![range]).await.map_err(external)?;
            Ok(fetched.into_iter().next().unwrap_or_default())
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.ranges(ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { Ok(self.footer().await.map_err(external)?.metadata) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_fetched_together() {
        let far = 10 * GAP_BYTES_MAX;
        assert_eq!(merge(vec![far..far + 5, 10..20, 0..10, 30..40]), [0..40, far..far + 5]);
    }
}
