//! Reading data files: footers in one request and cached, every byte checked before it is used.
//!
//! A file of at most 64 KiB is fetched whole in one request and kept in a bounded cache. Of a larger
//! one the tail (page index and footer, whose length the log knows) is fetched once and kept, and
//! data pages are fetched as they are needed. Bytes that do not match the hashes in the log are an error that names
//! the file; they are never decoded.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tidelog_core::memory::Account;
use tidelog_core::{CommitVersion, FileId, Holder, MemoryBudget};
use tidelog_oplog::{FileRow, Hash128, Log};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{ObjectStore, ObjectStoreExt};
use tidelog_storage::{Pin, Pins};

use crate::error::{Error, version_words};
use crate::pages::PageTable;

/// Files up to this size are fetched whole.
const WHOLE_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Pages closer together than this are fetched in one go. What lies between is copied and checked in vain,
/// and a store to which each range is a request of its own joins them anyway.
const GAP_BYTES_MAX: u64 = 4 * 1024;

/// Pages are fetched before they are asked for up to so many bytes.
const AHEAD_BYTES_MAX: u64 = 1024 * 1024;

/// The decoded tail of a data file.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    pub(crate) metadata: Arc<ParquetMetaData>,
    pub(crate) pages: Arc<PageTable>,
    /// All bytes of a small file that was read, checked.
    pub(crate) whole: Option<Bytes>,
}

#[derive(Debug, Clone)]
struct FooterWeight;

impl Weighter<FileId, Footer> for FooterWeight {
    fn weight(&self, _: &FileId, footer: &Footer) -> u64 {
        let whole = footer.whole.as_ref().map_or(0, Bytes::len);
        (footer.metadata.memory_size() + footer.pages.memory_size() + whole) as u64
    }
}

/// Opens data files of one store; footers are shared between all readers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileReaders {
    store: Arc<dyn ObjectStore>,
    log: Log,
    pins: Pins,
    /// The state that is read.
    _pin: Option<Arc<Pin>>,
    footers: Arc<Cache<FileId, Footer, FooterWeight>>,
    /// What the footers take of the memory budget.
    memory: Arc<Mutex<Account>>,
}

impl FileReaders {
    /// Readers over `store`, whose `log` tells what has become of a file, that keep as many bytes of
    /// footers as `memory` has for them.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, log: Log, pins: Pins, memory: &MemoryBudget) -> Self {
        let cache_bytes_max = memory.share(Holder::Footers).ceiling;
        // An entry is a few KiB; the item count is only a hint for sizing the table.
        let items = usize::try_from(cache_bytes_max / 8192).unwrap_or(1024).max(16);
        let footers = Cache::with_weighter(items, cache_bytes_max, FooterWeight);
        let memory = Arc::new(Mutex::new(memory.account(Holder::Footers)));
        Self { store, log, pins, _pin: None, footers: Arc::new(footers), memory }
    }

    /// The same readers, of the state after `commit`: as long as any of them is there, a vacuum on this
    /// machine deletes nothing that the state needs.
    #[must_use]
    pub fn pinned_to(&self, commit: CommitVersion) -> Self {
        let pin = u64::try_from(commit.number()).ok().map(|state| Arc::new(self.pins.pin(state)));
        Self { _pin: pin, ..self.clone() }
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
        FileReader {
            readers: self.clone(),
            file,
            path,
            columns: Arc::default(),
            own: None,
            ahead: Vec::new(),
            bytes_read: Arc::default(),
        }
    }

    /// Whether the footer of a file is kept, as it was read or written not long ago.
    pub(crate) fn remembers(&self, file: FileId) -> bool {
        self.footers.contains_key(&file)
    }

    /// Keeps the footer of a file that was just written, so that reading it back costs no request.
    pub(crate) fn remember(&self, file: FileId, footer: Footer) {
        self.footers.insert(file, footer);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.set(self.footers.weight());
    }
}

/// Reads one data file and checks what it reads.
#[derive(Debug)]
pub struct FileReader {
    readers: FileReaders,
    file: Arc<FileRow>,
    path: Path,
    /// Columns that are wanted of whatever rows are.
    columns: Arc<[String]>,
    /// The footer, of a file that is read in passing.
    own: Option<OnceLock<Footer>>,
    /// Whole pages that were fetched with others and have been checked.
    ahead: Vec<(Range<u64>, Bytes)>,
    bytes_read: Arc<AtomicU64>,
}

impl FileReader {
    /// Counts the bytes fetched, also after the reader is gone.
    #[must_use]
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }

    /// Says which columns will be wanted of the rows of any page that is. Their pages are fetched with
    /// it, where they are not many bytes: a request costs more than those.
    #[must_use]
    pub fn with_columns(mut self, columns: Arc<[String]>) -> Self {
        self.columns = columns;
        self
    }

    /// Reads a file that is not likely to be read again: its footer is not kept beyond the reader.
    #[must_use]
    pub(crate) fn in_passing(mut self) -> Self {
        self.own = Some(OnceLock::new());
        self
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Error {
        Error::DamagedFile {
            object: self.file.location.to_string(),
            path: self.file.path.clone(),
            versions: version_words(self.file.min_version, self.file.max_version),
            reason: reason.to_string(),
        }
    }

    async fn failed(&self, error: tidelog_storage::object_store::Error) -> Error {
        match error {
            tidelog_storage::object_store::Error::NotFound { .. } => self.lost().await,
            error => Error::store("reading", &self.file.location, error),
        }
    }

    /// What the loss of the file means: if the newest state needs it, damage.
    async fn lost(&self) -> Error {
        let log = &self.readers.log;
        let is_live = async {
            let series = log.series(&log.refresh().await?, self.file.node).await?;
            // By now the log may speak of the object under another id.
            let object = &self.file.location;
            Ok::<bool, Error>(series.files().any(|file| file.location == *object))
        };
        match is_live.await {
            Ok(false) => Error::FileExpired {
                object: self.file.location.to_string(),
                path: self.file.path.clone(),
            },
            Ok(true) | Err(_) => self.damaged("it is missing from the store"),
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
            _ => self.failed(error).await,
        }
    }

    async fn fetch_whole(&self) -> Result<Bytes, Error> {
        let fetched = self.fetch(std::slice::from_ref(&(0..self.file.size))).await?;
        let bytes = fetched.into_iter().next().unwrap_or_default();
        if Hash128::of(&bytes) != self.file.hash {
            return Err(self.damaged("its bytes do not match the hash in the log"));
        }
        Ok(bytes)
    }

    /// The footer, from the cache or in one request.
    ///
    /// # Errors
    /// [`Error::DamagedFile`] if the bytes are not what was written, or the store's failure.
    pub(crate) async fn footer(&self) -> Result<Footer, Error> {
        if let Some(footer) = self.own.as_ref().and_then(OnceLock::get) {
            return Ok(footer.clone());
        }
        if let Some(footer) = self.readers.footers.get(&self.file.file) {
            return Ok(footer);
        }
        let size = self.file.size;
        let (whole, tail) = if size <= WHOLE_FILE_BYTES_MAX {
            let whole = self.fetch_whole().await?;
            let start = usize::try_from(size.saturating_sub(self.file.tail_length)).unwrap_or(0);
            (Some(whole.clone()), whole.slice(start..))
        } else {
            let range = size.saturating_sub(self.file.tail_length)..size;
            let fetched = self.fetch(std::slice::from_ref(&range)).await?;
            (None, fetched.into_iter().next().unwrap_or_default())
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
        let footer = Footer { metadata, pages: Arc::new(pages), whole };
        Ok(match &self.own {
            Some(own) => own.get_or_init(|| footer).clone(),
            None => {
                self.readers.remember(self.file.file, footer.clone());
                footer
            }
        })
    }

    /// Ranges of bytes, of whole pages that were checked.
    ///
    /// # Errors
    /// As [`Self::footer`].
    pub(crate) async fn ranges(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, Error> {
        let footer = self.footer().await?;
        if let Some(whole) = &footer.whole {
            return ranges.iter().map(|range| self.cut(whole, 0, range)).collect();
        }
        if ranges.iter().any(|range| held(&self.ahead, range).is_none()) {
            self.ahead = self.fetch_pages(&footer, &ranges).await?;
        }
        let found = ranges.iter().map(|range| match held(&self.ahead, range) {
            Some((whole, bytes)) => self.cut(bytes, whole.start, range),
            None => Err(self.damaged("it has no such page")),
        });
        let found = found.collect();
        if self.columns.is_empty() {
            self.ahead.clear();
        }
        found
    }

    /// The pages that the ranges touch, with those that will be wanted next, checked.
    async fn fetch_pages(
        &self,
        footer: &Footer,
        ranges: &[Range<u64>],
    ) -> Result<Vec<(Range<u64>, Bytes)>, Error> {
        let pages = &footer.pages;
        let mut wanted = ranges
            .iter()
            .map(|range| pages.widen(range).ok_or_else(|| self.damaged("it has no such page")))
            .collect::<Result<Vec<_>, _>>()?;
        if !self.columns.is_empty() {
            wanted.extend(pages_beside(&footer.metadata, &wanted, &self.columns));
        }
        let merged = merge(wanted);
        let fetched = self.fetch(&merged).await?;
        for (range, bytes) in merged.iter().zip(&fetched) {
            pages.verify(range, bytes).map_err(|page| {
                self.damaged(format!(
                    "bytes {}–{} do not match the hash in the log",
                    page.start, page.end
                ))
            })?;
        }
        Ok(merged.into_iter().zip(fetched).collect())
    }

    fn cut(&self, bytes: &Bytes, start: u64, range: &Range<u64>) -> Result<Bytes, Error> {
        let local = |at: u64| at.checked_sub(start).and_then(|at| usize::try_from(at).ok());
        match (local(range.start), local(range.end)) {
            (Some(from), Some(to)) if from <= to && to <= bytes.len() => Ok(bytes.slice(from..to)),
            _ => Err(self.damaged("a range beyond its end was asked for")),
        }
    }
}

/// The piece that covers `range`. Pieces are in order.
fn held<'a>(
    pieces: &'a [(Range<u64>, Bytes)],
    range: &Range<u64>,
) -> Option<&'a (Range<u64>, Bytes)> {
    let index = pieces.partition_point(|(whole, _)| whole.end < range.end);
    pieces.get(index).filter(|(whole, _)| whole.start <= range.start)
}

/// The pages of `columns` with the rows of the `wanted` ranges; none if they are too many bytes.
fn pages_beside(
    metadata: &ParquetMetaData,
    wanted: &[Range<u64>],
    columns: &[String],
) -> Vec<Range<u64>> {
    let Some(index) = metadata.offset_index() else { return Vec::new() };
    let mut beside = Vec::new();
    for (group, offsets) in metadata.row_groups().iter().zip(index) {
        let bytes = group_bytes(group);
        if !wanted.iter().any(|range| range.start < bytes.end && bytes.start < range.end) {
            continue;
        }
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let span = |column: usize| page_spans(group.column(column), offsets.get(column)?, rows);
        let touched = |bytes: &Range<u64>| {
            wanted.iter().any(|range| range.start < bytes.end && bytes.start < range.end)
        };
        let rows_wanted = (0..group.num_columns())
            .filter_map(span)
            .flatten()
            .filter(|(bytes, _)| touched(bytes))
            .map(|(_, rows)| rows)
            .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
        let Some(rows_wanted) = rows_wanted else { continue };
        let is_wanted = |column: &usize| {
            let path = group.column(*column).column_path().parts();
            path.first().is_some_and(|root| columns.contains(root))
        };
        let pages = (0..group.num_columns()).filter(is_wanted).filter_map(span).flatten();
        let overlaps =
            |rows: &Range<usize>| rows.start < rows_wanted.end && rows_wanted.start < rows.end;
        beside.extend(pages.filter(|(_, rows)| overlaps(rows)).map(|(bytes, _)| bytes));
    }
    let bytes: u64 = beside.iter().map(|range| range.end - range.start).sum();
    if bytes <= AHEAD_BYTES_MAX { beside } else { Vec::new() }
}

/// The bytes of a row group, whose columns lie one behind the other.
fn group_bytes(group: &RowGroupMetaData) -> Range<u64> {
    let chunk = |chunk: Option<&ColumnChunkMetaData>| chunk.map_or((0, 0), |it| it.byte_range());
    let (first, last) = (chunk(group.columns().first()), chunk(group.columns().last()));
    first.0..last.0 + last.1
}

/// The bytes and rows of each page of a column chunk; the dictionary belongs to the first.
fn page_spans(
    chunk: &ColumnChunkMetaData,
    offsets: &OffsetIndexMetaData,
    rows: usize,
) -> Option<Vec<(Range<u64>, Range<usize>)>> {
    let (start, length) = chunk.byte_range();
    let pages = offsets.page_locations();
    let place = |index: usize| {
        let page = pages.get(index)?;
        Some((u64::try_from(page.offset).ok()?, usize::try_from(page.first_row_index).ok()?))
    };
    (0..pages.len())
        .map(|index| {
            let (offset, first) = place(index)?;
            let (end, last) = place(index + 1).unwrap_or((start + length, rows));
            let begin = if index == 0 { start } else { offset };
            Some((begin..end, first..last))
        })
        .collect()
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
