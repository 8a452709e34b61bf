//! Segments of files that are about to be committed: of a flush, a compaction, a change of data.
//!
//! They are there before the view changes, so that the files which it then has are warm. If the commit
//! does not come, nothing names the files, and the segments go.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use tidelog_core::{FileId, NodeId};
use tidelog_oplog::FileRow;
use tidelog_warm::WarmError;

use super::WarmTier;
use super::gather::Keeping;
use crate::series_schema::SeriesSchema;

/// Reasons why a file is not warm.
const NOT_UNIQUE: &str = "not_unique";
const ENDED: &str = "ended";

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

    /// Takes the rows of a file of about `rows` rows while it is written; `None` if its segment had no room
    /// even with all others let go. Blocks.
    pub(crate) fn keep(&self, schema: &SeriesSchema, node: NodeId, rows: u64) -> Option<Keeping> {
        let tier = &self.inner.tier;
        // Counted and told there.
        let (wanted, free) = tier.size(node, schema, rows).ok()?;
        if wanted > free {
            tier.note_fallback(WarmError::OutOfMemory { wanted, free }.reason());
            return None;
        }
        Some(Keeping::new(tier))
    }

    /// Makes a file warm that was written in the place of others, if that can be done, of the rows that were
    /// kept.
    pub(crate) async fn seal_kept(&self, schema: &SeriesSchema, row: &FileRow, kept: Keeping) {
        let (schema, row) = (schema.clone(), row.clone());
        let seal = move |ahead: &Self| {
            let tier = &ahead.inner.tier;
            if !is_worth_it(&schema, &row) {
                return tier.note_fallback(NOT_UNIQUE);
            }
            match kept.finish() {
                Ok(gathered) => ahead.seal(row.file, &schema, row.node, &gathered.rows),
                Err(error) => tier.note_fallback(error.reason()),
            }
        };
        self.off_the_runtime(seal).await;
    }

    /// Makes files of a series warm, as far as that can be done, of the rows that each was encoded from.
    pub(crate) async fn seal_encoded(
        &self,
        schema: &SeriesSchema,
        files: Vec<(FileRow, Vec<RecordBatch>)>,
    ) {
        let schema = schema.clone();
        let seal = move |ahead: &Self| {
            for (file, rows) in files {
                match is_worth_it(&schema, &file) {
                    true => ahead.seal(file.file, &schema, file.node, &rows),
                    false => ahead.inner.tier.note_fallback(NOT_UNIQUE),
                }
            }
        };
        self.off_the_runtime(seal).await;
    }

    /// Work that is no reason to fail, however it ends.
    async fn off_the_runtime(&self, work: impl FnOnce(&Self) + Send + 'static) {
        let ahead = self.clone();
        if tokio::task::spawn_blocking(move || work(&ahead)).await.is_err() {
            self.inner.tier.note_fallback(ENDED);
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
