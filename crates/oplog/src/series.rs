//! Version and file rows of one series, as of one commit, searchable by event time.
//!
//! Rows lie in chunks that are shared between states: pushing a row copies at most one chunk, and a
//! search skips a chunk whose range it does not touch. Rows arrive mostly in order of event time, so
//! chunks rarely overlap.

use std::collections::HashSet;
use std::sync::Arc;

use rpds::HashTrieMapSync;
use tidelog_core::{CommitVersion, FileId, NodeId, TimeRange, TransactionId, Version, WriteTime};

use crate::error::Error;
use crate::row::{FileOp, FileRow, Row, VersionRow};

const CHUNK_ROWS: usize = 256;
/// Rows of so many files that were removed are kept at least, so that letting go of them pays.
const REMOVED_MAX: usize = 64;
/// What a series takes without a row, about.
const OVERHEAD_BYTES: u64 = 512;
const POINTERS_BYTES: usize = 32;

/// Something that may cover a range of event time.
pub trait Ranged {
    /// The range; `None` covers nothing.
    fn range(&self) -> Option<TimeRange>;
}

impl Ranged for VersionRow {
    fn range(&self) -> Option<TimeRange> {
        self.range
    }
}

impl Ranged for FileRow {
    fn range(&self) -> Option<TimeRange> {
        Some(self.range)
    }
}

/// An append-only list of rows that clones cheaply and is searched by event time.
#[derive(Debug)]
pub struct RangeLog<T> {
    sealed: Arc<Vec<Arc<Chunk<T>>>>,
    open: Arc<Chunk<T>>,
}

#[derive(Debug)]
struct Chunk<T> {
    rows: Vec<Arc<T>>,
    range: Option<TimeRange>,
}

impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), range: self.range }
    }
}

impl<T> Clone for RangeLog<T> {
    fn clone(&self) -> Self {
        Self { sealed: Arc::clone(&self.sealed), open: Arc::clone(&self.open) }
    }
}

impl<T> Default for RangeLog<T> {
    fn default() -> Self {
        Self { sealed: Arc::default(), open: Arc::new(Chunk { rows: Vec::new(), range: None }) }
    }
}

impl<T: Ranged> RangeLog<T> {
    /// Adds a row at the end.
    pub fn push(&mut self, row: Arc<T>) {
        let open = Arc::make_mut(&mut self.open);
        open.range = match (open.range, row.range()) {
            (Some(a), Some(b)) => Some(a.union(&b)),
            (a, b) => a.or(b),
        };
        open.rows.push(row);
        if open.rows.len() >= CHUNK_ROWS {
            let full = std::mem::replace(
                &mut self.open,
                Arc::new(Chunk { rows: Vec::new(), range: None }),
            );
            Arc::make_mut(&mut self.sealed).push(full);
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sealed.len() * CHUNK_ROWS + self.open.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Arc<T>> {
        match self.sealed.get(index / CHUNK_ROWS) {
            Some(chunk) => chunk.rows.get(index % CHUNK_ROWS),
            None => self.open.rows.get(index.checked_sub(self.sealed.len() * CHUNK_ROWS)?),
        }
    }

    /// The newest row.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<T>> {
        self.open.rows.last().or_else(|| self.sealed.last()?.rows.last())
    }

    /// All rows, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<T>> {
        self.chunks().flat_map(|chunk| chunk.rows.iter())
    }

    /// The rows that touch `range`, oldest first.
    pub fn overlapping(&self, range: TimeRange) -> impl Iterator<Item = &Arc<T>> {
        let touches = move |of: Option<TimeRange>| of.is_some_and(|of| of.overlaps(&range));
        self.chunks()
            .filter(move |chunk| touches(chunk.range))
            .flat_map(|chunk| chunk.rows.iter())
            .filter(move |row| touches(row.range()))
    }

    fn chunks(&self) -> impl DoubleEndedIterator<Item = &Chunk<T>> {
        self.sealed.iter().map(Arc::as_ref).chain(std::iter::once(self.open.as_ref()))
    }
}

/// What the log knows of one series.
#[derive(Debug, Clone)]
pub struct SeriesState {
    node: NodeId,
    versions: RangeLog<VersionRow>,
    files: RangeLog<FileRow>,
    removed: HashTrieMapSync<FileId, CommitVersion>,
    /// How many of its files now hold rows that were replaced.
    superseded: usize,
    rows: u64,
    /// What the rows of the log take in memory, about.
    bytes: u64,
}

impl SeriesState {
    /// A series without a version.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            versions: RangeLog::default(),
            files: RangeLog::default(),
            removed: HashTrieMapSync::new_sync(),
            superseded: 0,
            rows: 0,
            bytes: OVERHEAD_BYTES,
        }
    }

    /// The state that these rows make, whatever order they come in.
    pub(crate) fn from_rows(node: NodeId, mut rows: Vec<Row>) -> Result<Self, Error> {
        // Parts overlap in commits once some of them are merged.
        rows.sort_by_key(|row| match row {
            Row::Version(row) => (row.commit, 0, row.version),
            Row::File(row) => (row.commit, 1, row.min_version),
            Row::Tree(_) | Row::Store(_) => (row.commit(), 2, Version::NONE),
        });
        let mut series = Self::new(node);
        for row in rows {
            match row {
                Row::Version(row) if row.node == node => {
                    let commit = row.commit;
                    series
                        .push_version(row)
                        .map_err(|reason| Error::Inconsistent { commit, reason })?;
                }
                Row::File(row) if row.node == node => series.push_file(row),
                _ => {}
            }
        }
        Ok(series)
    }

    /// Adds a version, which must follow the last; `Err` tells what was expected.
    pub(crate) fn push_version(&mut self, row: VersionRow) -> Result<(), String> {
        let expected = self.head().next();
        if row.version != expected {
            return Err(format!(
                "series {} has version {} where {expected} was expected",
                self.node, row.version
            ));
        }
        self.rows += row.rows;
        self.bytes += version_bytes(&row);
        self.versions.push(Arc::new(row));
        Ok(())
    }

    /// The series with versions that are not in the log yet; those that it has already are left out.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] if they do not follow its own.
    pub fn with_versions<'a>(
        &self,
        rows: impl Iterator<Item = &'a Arc<VersionRow>>,
    ) -> Result<Self, Error> {
        let mut next = self.clone();
        for row in rows.filter(|row| row.version > self.head()) {
            if row.version != next.head().next() {
                let reason = format!("series {} has no {}", self.node, next.head().next());
                return Err(Error::Inconsistent { commit: row.commit, reason });
            }
            next.rows += row.rows;
            next.bytes += version_bytes(row);
            next.versions.push(Arc::clone(row));
        }
        Ok(next)
    }

    pub(crate) fn push_file(&mut self, row: FileRow) {
        self.bytes += file_bytes(&row);
        let superseded = usize::from(row.until.is_some());
        match row.op {
            FileOp::Add => {
                self.superseded += superseded;
                self.files.push(Arc::new(row));
            }
            FileOp::Remove => {
                self.superseded = self.superseded.saturating_sub(superseded);
                self.removed.insert_mut(row.file, row.commit);
                self.forget_removed();
            }
        }
    }

    /// Lets go of the rows of files that were removed, once they are most: what is left is looked
    /// through at every read.
    fn forget_removed(&mut self) {
        if self.removed.size() < REMOVED_MAX || self.removed.size() * 2 < self.files.len() {
            return;
        }
        let mut left = RangeLog::default();
        for file in self.files() {
            left.push(Arc::clone(file));
        }
        let forgotten = self.files.iter().filter(|file| self.removed.contains_key(&file.file));
        let bytes: u64 = forgotten.map(|file| file_bytes(file)).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        self.files = left;
        self.removed = HashTrieMapSync::new_sync();
    }

    /// What it takes in memory, in bytes, about.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.bytes
    }

    /// The series.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The newest version; [`Version::NONE`] before the first.
    #[must_use]
    pub fn head(&self) -> Version {
        self.versions.last().map_or(Version::NONE, |row| row.version)
    }

    /// Its versions, in order.
    #[must_use]
    pub fn versions(&self) -> &RangeLog<VersionRow> {
        &self.versions
    }

    /// The row of `version`, if there is such a version.
    #[must_use]
    pub fn version(&self, version: Version) -> Option<&Arc<VersionRow>> {
        self.versions.get(usize::try_from(version.number().checked_sub(1)?).ok()?)
    }

    /// The newest version recorded at `time` or before; [`Version::NONE`] if none was.
    #[must_use]
    pub fn version_at(&self, time: WriteTime) -> Version {
        let (mut low, mut high) = (0, self.versions.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let written = self.versions.get(middle).map_or(WriteTime::MIN, |row| row.timestamp);
            if written <= time { low = middle + 1 } else { high = middle }
        }
        i64::try_from(low).map_or(Version::NONE, Version::new)
    }

    /// The newest version that was written under this id.
    #[must_use]
    pub fn find_transaction(&self, id: TransactionId) -> Option<&Arc<VersionRow>> {
        self.versions.iter().rev().find(|row| row.transaction == id)
    }

    /// Rows appended by all versions.
    #[must_use]
    pub fn rows_appended(&self) -> u64 {
        self.rows
    }

    /// The files that hold its rows now, in the order in which they were added; those of rows that were
    /// replaced included.
    pub fn files(&self) -> impl Iterator<Item = &Arc<FileRow>> {
        self.files.iter().filter(|file| !self.removed.contains_key(&file.file))
    }

    /// Whether all these files hold rows of it now.
    #[must_use]
    pub fn are_live(&self, files: impl Iterator<Item = FileId>) -> bool {
        let mut asked: HashSet<FileId> = files.collect();
        for file in self.files() {
            asked.remove(&file.file);
        }
        asked.is_empty()
    }

    /// The files now that touch `range`.
    pub fn files_overlapping(&self, range: TimeRange) -> impl Iterator<Item = &Arc<FileRow>> {
        self.files.overlapping(range).filter(|file| !self.removed.contains_key(&file.file))
    }

    /// How many files there are now.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.files.len() - self.removed.size()
    }

    /// How many of them hold rows that were not replaced.
    #[must_use]
    pub fn head_file_count(&self) -> usize {
        self.file_count() - self.superseded
    }
}

/// A row behind two pointers, with the counts of an `Arc`.
fn version_bytes(row: &VersionRow) -> u64 {
    let texts = row.path.as_str().len() + row.detail.as_deref().map_or(0, str::len);
    (size_of::<VersionRow>() + texts + POINTERS_BYTES) as u64
}

fn file_bytes(row: &FileRow) -> u64 {
    let texts = row.path.as_str().len() + row.location.len();
    let facts = row.page_hashes.len() + row.column_stats.len() + row.runs.len();
    (size_of::<FileRow>() + texts + facts + POINTERS_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Span(Option<TimeRange>);
    impl Ranged for Span {
        fn range(&self) -> Option<TimeRange> {
            self.0
        }
    }

    #[test]
    fn a_range_log_finds_what_a_scan_finds() {
        let mut log = RangeLog::default();
        let spans: Vec<_> = (0..1000_i64)
            .map(|i| {
                let start = (i * 7919) % 1000;
                (i % 11 != 0).then(|| TimeRange::try_new(start, start + i % 13).unwrap())
            })
            .collect();
        for span in &spans {
            log.push(Arc::new(Span(*span)));
        }
        assert_eq!(log.len(), 1000);
        for i in [0, 255, 256, 511, 999] {
            assert_eq!(log.get(i).unwrap().0, spans[i]);
        }
        assert!(log.get(1000).is_none());
        for start in (0..1000).step_by(37) {
            let range = TimeRange::try_new(start, start + 5).unwrap();
            let found: Vec<_> = log.overlapping(range).map(|s| s.0).collect();
            let scanned: Vec<_> =
                spans.iter().filter(|s| s.is_some_and(|s| s.overlaps(&range))).copied().collect();
            assert_eq!(found, scanned);
        }
    }

    #[test]
    fn pushing_leaves_older_clones_as_they_were() {
        let mut log = RangeLog::default();
        for _ in 0..300 {
            log.push(Arc::new(Span(None)));
        }
        let before = log.clone();
        for _ in 0..300 {
            log.push(Arc::new(Span(None)));
        }
        assert_eq!((before.len(), before.iter().count()), (300, 300));
        assert_eq!((log.len(), log.iter().count()), (600, 600));
    }
}
