//! Checking a store, also one that is too damaged to open. Nothing is written.
//!
//! ```text
//! commits, checkpoints, pointer ─ live log parts, newest first ─┬─ series: versions, rows
//!                                                               └─ data files: size, or every byte
//! what is stored and named by nothing
//! the write-ahead log: frames, records, versions that follow those of the log
//! ```
//!
//! - `report` is what a check says.
//! - `series` keeps, for each series, which versions there are, and settles rows of versions against
//!   rows of files commit by commit.
//! - `history` looks whether snapshots and horizons hold together.
//! - `files` asks for data files, many at a time, or reads them, a few at a time.
//! - `leftovers` lists what is stored.
//! - `wal` reads write-ahead logs, of which the owner may live.
//!
//! A check goes on after damage. In memory are the tree, a few words for each series, an id for each
//! data file, and two log parts.

mod files;
mod history;
mod leftovers;
mod report;
mod series;
mod wal;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use futures::TryStreamExt;
use tidelog_core::Env;
use tidelog_oplog::{CheckedPart, FileRow, LogCheck, Row};
use tidelog_storage::object_store::ObjectStore;

use crate::error::Error;
use crate::owner::TierOptions;
use files::FileCheck;
use history::HistoryCheck;
use series::SeriesCheck;

pub use report::{FsckProgress, FsckReport, Orphan};

/// Data files that are gathered from log parts before they are asked for.
const FILES_AT_ONCE: usize = 1024;

type Tell = dyn Fn(&FsckProgress) + Send + Sync;

/// What to check, and whom to tell how far it is.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct FsckOptions {
    /// Whether to read every data file and compare it with its hash in the log. If not, it is only
    /// checked that each is there and has its size.
    pub deep: bool,
    progress: Option<Arc<Tell>>,
}

impl FsckOptions {
    /// Reads every byte of the data files. Default: `false`.
    #[must_use]
    pub fn with_deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }

    /// Calls this after each step. Default: nobody is told.
    #[must_use]
    pub fn with_progress(mut self, tell: impl Fn(&FsckProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(tell));
        self
    }

    fn tell(&self, progress: &FsckProgress) {
        if let Some(tell) = &self.progress {
            tell(progress);
        }
    }
}

impl fmt::Debug for FsckOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FsckOptions").field("deep", &self.deep).finish_non_exhaustive()
    }
}

/// Checks the store in `store`, and the write-ahead logs that `tier` names.
///
/// # Errors
/// If there is nothing of a store, it was written by a newer build, the object store fails, or
/// upkeep lets go of what is being checked. Damage is no error: it is in the report.
pub async fn fsck(
    store: Arc<dyn ObjectStore>,
    env: &Env,
    tier: &TierOptions,
    options: &FsckOptions,
) -> Result<FsckReport, Error> {
    let begun = env.clock.now();
    let mut log = LogCheck::begin(Arc::clone(&store), env).await?;
    let mut report = FsckReport {
        deep: options.deep,
        damage: std::mem::take(&mut log.damage),
        notes: std::mem::take(&mut log.notes),
        commits: log.commits,
        checkpoints: log.checkpoints,
        ..FsckReport::default()
    };
    let mut check = Check {
        series: SeriesCheck::new(log.is_whole),
        history: HistoryCheck::default(),
        files: FileCheck::new(Arc::clone(&store), options.deep),
        progress: FsckProgress { parts: log.part_count(), ..FsckProgress::default() },
        options,
    };
    check.read_parts(&log, &mut report).await?;
    let (series, history) = (check.series, check.history);
    history.finish(series.is_whole(), |node| series.newest(node), &mut report);
    let replaced = series.finish(&mut report);
    let known = leftovers::Known { live: check.files.into_known(&mut report), replaced };
    leftovers::list(store.as_ref(), begun, &log, &known, &mut report).await?;
    wal::check(store, env, tier, &mut report).await?;
    Ok(report)
}

struct Check<'a> {
    series: SeriesCheck,
    history: HistoryCheck,
    files: FileCheck,
    progress: FsckProgress,
    options: &'a FsckOptions,
}

impl Check<'_> {
    async fn read_parts(&mut self, log: &LogCheck, report: &mut FsckReport) -> Result<(), Error> {
        let mut parts = pin!(log.parts());
        let mut waiting = Vec::new();
        while let Some(part) = parts.try_next().await? {
            self.take_part(part, report, &mut waiting);
            if waiting.len() >= FILES_AT_ONCE {
                self.check_files(&mut waiting, report).await?;
            }
            self.progress.parts_done += 1;
            self.options.tell(&self.progress);
        }
        self.check_files(&mut waiting, report).await
    }

    /// Takes in the rows of a part; its live files are left in `waiting`.
    fn take_part(
        &mut self,
        part: CheckedPart,
        report: &mut FsckReport,
        waiting: &mut Vec<FileRow>,
    ) {
        report.parts += 1;
        report.damage.extend(part.damage);
        let Some(rows) = part.rows else {
            self.series.lose_part(part.has_tree, part.is_aside);
            return;
        };
        report.log_rows += rows.len() as u64;
        self.series.begin_part(&rows, part.continues, part.is_aside);
        for row in rows.into_iter().rev() {
            match row {
                Row::Tree(row) => self.series.take_tree(row),
                Row::Version(row) => self.series.take_version(&row, report),
                Row::File(row) => waiting.extend(self.series.take_file(row, report)),
                Row::Store(row) => self.history.take(row),
            }
        }
        self.series.end_part(report);
    }

    async fn check_files(
        &mut self,
        waiting: &mut Vec<FileRow>,
        report: &mut FsckReport,
    ) -> Result<(), Error> {
        let files = std::mem::take(waiting);
        let (progress, options) = (&mut self.progress, self.options);
        let told = |bytes: u64| {
            progress.files_done += 1;
            progress.bytes_done += bytes;
            options.tell(progress);
        };
        self.files.check(files, report, told).await
    }
}
