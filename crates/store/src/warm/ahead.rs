//! Segments of files that are about to be committed: of a flush, a compaction, a change of data.
//!
//! They are there before the view changes, so that the files which it then has are warm. If the commit
//! does not come, nothing names the files, and the segments go.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidelog_core::{FileId, NodeId};
use tidelog_oplog::FileRow;

use super::WarmTier;
use super::gather::{self, Failure};
use crate::encode::EncodedFile;
use crate::hot::HotSeries;
use crate::series_schema::SeriesSchema;

/// Reasons why a file is not warm.
const NOT_UNIQUE: &str = "not_unique";
const UNREADABLE: &str = "unreadable";
const ENDED: &str = "ended";
const NO_TIMES: &str = "no_times";
const OTHER_ROWS: &str = "other_rows";

/// Segments that wait for a commit. Dropped before it, they go. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Ahead {
    inner: Arc<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    tier: WarmTier,
    files: Mutex<Vec<FileId>>,
}

impl WarmTier {
    /// Takes segments of files that are not committed yet.
    pub(crate) fn ahead(&self) -> Ahead {
        Ahead { inner: Arc::new(Waiting { tier: self.clone(), files: Mutex::default() }) }
    }

    /// Whether files that are written in the place of these are to be warm: most of their rows are.
    pub(crate) fn are_warm(&self, files: &[Arc<FileRow>]) -> bool {
        let rows = |is_counted: &dyn Fn(&FileRow) -> bool| -> u64 {
            files.iter().filter(|file| is_counted(file)).map(|file| file.rows).sum()
        };
        let warm = rows(&|file| self.find(file.file).is_some());
        warm > 0 && warm >= rows(&|file| file.until.is_none()) / 2
    }
}

impl Ahead {
    /// Makes a file warm if that can be done. Blocks.
    fn seal(&self, file: FileId, schema: &SeriesSchema, node: NodeId, batches: &[RecordBatch]) {
        // Counted and told there.
        if self.inner.tier.seal_as(file, schema, node, batches, false).is_ok() {
            self.inner.files().push(file);
        }
    }

    /// Makes a file warm that was written in the place of others, if that can be done.
    pub(crate) async fn seal_written(
        &self,
        schema: &SeriesSchema,
        row: &FileRow,
        file: &EncodedFile,
    ) {
        let (schema, row, file) = (schema.clone(), row.clone(), file.clone());
        self.off_the_runtime(move |ahead| ahead.seal_encoded(&schema, row, &file)).await;
    }

    /// Makes the files of a flushed series warm, as far as that can be done.
    pub(crate) async fn seal_series(&self, series: Arc<HotSeries>, files: Vec<FileRow>) {
        self.off_the_runtime(move |ahead| ahead.seal_flushed(&series, &files)).await;
    }

    /// Work that is no reason to fail, however it ends.
    async fn off_the_runtime(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let ahead = self.clone();
        if tokio::task::spawn_blocking(move || work(&ahead)).await.is_err() {
            self.inner.tier.note_fallback(ENDED);
        }
    }

    fn seal_encoded(&self, schema: &SeriesSchema, row: FileRow, file: &EncodedFile) {
        let row = Arc::new(row);
        let tier = &self.inner.tier;
        if !is_worth_it(schema, &row) {
            return tier.note_fallback(NOT_UNIQUE);
        }
        match gather::of_encoded(tier, schema, &row, file) {
            Ok(gathered) => self.seal(row.file, schema, row.node, &gathered.rows),
            Err(Failure::Warm(error)) => tier.note_fallback(error.reason()),
            Err(Failure::Read(_)) => tier.note_fallback(UNREADABLE),
        }
    }

    fn seal_flushed(&self, series: &HotSeries, files: &[FileRow]) {
        let schema = series.schema();
        for file in files {
            if !is_worth_it(schema, file) {
                self.inner.tier.note_fallback(NOT_UNIQUE);
                continue;
            }
            match rows_of(series, file) {
                Ok(rows) => self.seal(file.file, schema, file.node, &rows),
                Err(reason) => self.inner.tier.note_fallback(reason),
            }
        }
    }

    /// The log names the files.
    pub(crate) fn committed(&self) {
        let files = std::mem::take(&mut *self.inner.files());
        let mut held = self.inner.tier.held();
        for file in files {
            held.commit(file);
        }
    }
}

/// Whether a segment of the file could serve reads: rows that replace one another, or were replaced, are
/// told apart where files are read.
pub(super) fn is_worth_it(schema: &SeriesSchema, file: &FileRow) -> bool {
    file.until.is_none() && (file.unique || !schema.dedup())
}

/// The hot rows that a file has been made of, as slices. Files of one flush share no event time, and
/// pieces are given oldest first, so that rows of one key and time come in order of their versions.
fn rows_of(series: &HotSeries, file: &FileRow) -> Result<Vec<RecordBatch>, &'static str> {
    let schema = series.schema();
    let unit = schema.time_unit();
    let (first, last) = (file.range.start().ceil_to(unit), file.range.end().floor_to(unit));
    let mut rows = Vec::with_capacity(series.files().len());
    for piece in series.files() {
        let batch = piece.batch();
        let times = schema.times(&file.path, batch).map_err(|_| NO_TIMES)?;
        let times = times.values();
        let start = times.partition_point(|time| *time < first);
        let end = times.partition_point(|time| *time <= last);
        if start < end {
            rows.push(batch.slice(start, end - start));
        }
    }
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    if count as u64 == file.rows { Ok(rows) } else { Err(OTHER_ROWS) }
}

impl Waiting {
    fn files(&self) -> std::sync::MutexGuard<'_, Vec<FileId>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let files = std::mem::take(&mut *self.files());
        let gone: Vec<_> = {
            let mut held = self.tier.held();
            files.into_iter().filter_map(|file| held.remove(file)).collect()
        };
        drop(gone);
    }
}
