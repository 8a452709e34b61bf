//! Segments of files that are about to be committed.
//!
//! They are there before the view changes, so that the files which it then has are warm. If the commit
//! does not come, nothing names the files, and the segments go.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidelog_core::{FileId, NodeId};
use tidelog_oplog::FileRow;

use super::WarmTier;
use crate::hot::HotSeries;
use crate::series_schema::SeriesSchema;

/// Reasons why a file is not warm.
const NOT_UNIQUE: &str = "not_unique";
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
}

impl Ahead {
    /// Makes a file warm if that can be done. Blocks.
    pub(crate) fn seal(
        &self,
        file: FileId,
        schema: &SeriesSchema,
        node: NodeId,
        batches: &[RecordBatch],
    ) {
        // Counted and told there.
        if self.inner.tier.seal_as(file, schema, node, batches, false).is_ok() {
            self.inner.files().push(file);
        }
    }

    /// Makes the files of a flushed series warm, as far as that can be done. Blocks.
    pub(crate) fn seal_series(&self, series: &HotSeries, files: &[FileRow]) {
        let schema = series.schema();
        for file in files {
            // Rows that replace one another would be read from the file in any case.
            if schema.dedup() && !file.unique {
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
