//! The warm tier: copies of data files in fast memory, which answer requests where they lie.
//!
//! | module | holds |
//! |---|---|
//! | `options` | what a user may choose |
//! | `opening` | a backend opened at the first seal, and its place in the memory budget |
//! | `series` | the table of each series |
//! | `held` | which segment stands for which file |
//! | `ahead` | segments of files that are about to be committed |
//! | `gather` | the rows of a file on their way into a segment |
//! | `fill` | files made warm on purpose |
//! | `keep` | recent files kept warm |
//! | `statistics` | how much is warm, and what has been done |
//!
//! ```text
//! flush, compaction ─ rows ─▶ seal ─▶ segment of a file ◀─ find ─ a read, for each file of its view
//! fill ─ rows of cold files ──┘           └─ evicted for others, or dropped when the file has gone
//! ```
//!
//! Invariants:
//! 1. A segment stands for exactly one data file, whole, and is found by the file's id. Files never
//!    change, so it is right in every view that has the file, whatever happens to others.
//! 2. What is warm is a copy. A segment that is not there is read from its file.
//! 3. No failure here is one of a flush, an append or a read: it is counted, and told once.
//! 4. Nothing is opened, and no memory taken, before the first seal.

mod ahead;
mod fill;
mod gather;
mod held;
mod keep;
mod opening;
mod options;
mod series;
mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use tidelog_core::{FileId, MemoryBudget, NodeId};
use tidelog_oplog::Snapshot;
use tidelog_warm::{Answer, Request, Segment, WarmBackend, WarmError, WarmTable};

pub(crate) use self::ahead::Ahead;
pub use self::fill::{WarmFill, WarmLeftOut};
pub(crate) use self::gather::Keeping;
use self::held::{Held, HeldFile};
pub(crate) use self::keep::Keeper;
use self::opening::Opened;
pub use self::options::{WarmDevices, WarmKeep, WarmOptions, WarmPlace};
use self::series::SeriesTable;
pub use self::statistics::WarmStatistics;
use crate::series_schema::SeriesSchema;

/// The warm tier of an engine. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct WarmTier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: WarmOptions,
    memory: MemoryBudget,
    opened: OnceLock<Opened>,
    held: Mutex<Held>,
    /// How many files have a segment: where it is zero, nothing is locked.
    files: AtomicU64,
    dropped: AtomicU64,
    is_dead: AtomicBool,
    keep: Mutex<WarmKeep>,
    /// How many are at closing the handle.
    closing: AtomicU64,
    notes: Mutex<Notes>,
}

/// What was not done, and what of that was told.
#[derive(Debug, Default)]
struct Notes {
    fallbacks: BTreeMap<&'static str, u64>,
    told: BTreeSet<&'static str>,
}

/// A file that is warm.
#[derive(Debug, Clone)]
pub struct WarmFile {
    /// The table of the segment. Files of one series may have different tables, as a column may be left
    /// out from some point on; a request is about segments of one.
    pub table: Arc<WarmTable>,
    /// All rows of the file.
    pub segment: Arc<Segment>,
    /// Of each column of the series its number in the table; `None` if the segment does not hold it.
    pub columns: Arc<[Option<usize>]>,
}

/// A handle that is being closed.
pub(crate) struct Closing {
    tier: WarmTier,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.tier.inner.closing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WarmTier {
    pub(crate) fn new(options: &WarmOptions, memory: &MemoryBudget) -> Self {
        let inner = Inner {
            options: options.clone(),
            memory: memory.clone(),
            opened: OnceLock::new(),
            held: Mutex::default(),
            files: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            keep: Mutex::new(options.keep),
            closing: AtomicU64::new(0),
            notes: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether files may be warm: the tier is not switched off, and has not failed for good.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.inner.options.is_off() && !self.inner.is_dead.load(Ordering::Relaxed)
    }

    /// Whether what is flushed is to be warm.
    pub(crate) fn takes_flushed(&self) -> bool {
        let is_closing = self.inner.closing.load(Ordering::Relaxed) > 0;
        self.is_on() && self.keep() != WarmKeep::Off && !is_closing
    }

    /// As long as the answer is there, nothing that is flushed becomes warm: the handle is being closed.
    pub(crate) fn close(&self) -> Closing {
        self.inner.closing.fetch_add(1, Ordering::Relaxed);
        Closing { tier: self.clone() }
    }

    /// Whether anything was ever to be warm.
    pub(crate) fn is_open(&self) -> bool {
        self.inner.opened.get().is_some()
    }

    /// What is kept warm without being asked for.
    #[must_use]
    pub fn keep(&self) -> WarmKeep {
        *self.inner.keep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is to be kept warm from now on. What is warm stays so until its room is needed.
    pub fn set_keep(&self, keep: WarmKeep) {
        *self.inner.keep.lock().unwrap_or_else(PoisonError::into_inner) = keep;
    }

    /// The segment of a file, if its rows are held now. Does not block.
    ///
    /// They may be let go before a request reads them: [`Self::run`] says so then.
    #[must_use]
    pub fn find(&self, file: FileId) -> Option<WarmFile> {
        if self.inner.files.load(Ordering::Relaxed) == 0 || !self.is_on() {
            return None;
        }
        self.held().find(file)
    }

    /// Makes a segment of all rows of a file, in the order of the file. Batches have the columns of the
    /// series first; others are left out. A file that has a segment already gets a new one.
    ///
    /// Blocks. Other segments may go to make room, and later files of the series may have another table.
    ///
    /// # Errors
    /// Why the file is not warm; it is counted, and reading the file is as it was.
    pub fn seal(
        &self,
        file: FileId,
        schema: &SeriesSchema,
        node: NodeId,
        batches: &[RecordBatch],
    ) -> Result<WarmFile, WarmError> {
        self.seal_as(file, schema, node, batches, true)
    }

    /// The same, of a file that need not be in the log yet.
    fn seal_as(
        &self,
        file: FileId,
        schema: &SeriesSchema,
        node: NodeId,
        batches: &[RecordBatch],
        is_committed: bool,
    ) -> Result<WarmFile, WarmError> {
        if !self.is_on() {
            return Err(self.out_of_use());
        }
        let backend = self.backend();
        loop {
            let series = self.table_of(node, schema)?;
            let segment = series
                .held(batches)
                .inspect_err(|error| self.note_fallback(error.reason()))
                .and_then(|rows| backend.seal(&series.table, &rows));
            series.count_memory();
            let segment = match segment {
                Ok(segment) => segment,
                Err(error) if self.leave_out(node, &series, schema, &error) => continue,
                Err(error) => {
                    self.tell(&error);
                    return Err(error);
                }
            };
            let warm = WarmFile {
                table: Arc::clone(&series.table),
                segment,
                columns: Arc::clone(&series.columns),
            };
            let held = HeldFile { node, file: warm.clone(), _series: series, is_committed };
            let mut files = self.held();
            files.insert(file, held);
            self.inner.files.store(files.len(), Ordering::Relaxed);
            return Ok(warm);
        }
    }

    /// Bytes that a file with so many rows would take as a segment, about, and that all may take. Blocks.
    fn size(
        &self,
        node: NodeId,
        schema: &SeriesSchema,
        rows: u64,
    ) -> Result<(u64, u64), WarmError> {
        let budget = self.backend().stats().budget_bytes;
        let bytes = self.table_of(node, schema)?.row_bytes().saturating_mul(rows);
        Ok((bytes, budget - budget / 20))
    }

    /// Whether any file of the series is warm.
    pub(crate) fn has_series(&self, node: NodeId) -> bool {
        self.is_on() && self.held().has_series(node)
    }

    /// Answers a request about segments of one table, in the order given.
    ///
    /// Blocks.
    ///
    /// # Errors
    /// Why they do not answer; it is counted. The same rows are in the files.
    pub fn run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        let Some(opened) = self.inner.opened.get() else { return Err(self.out_of_use()) };
        let answer = opened.backend.run(table, segments, request);
        match &answer {
            // Nobody waits for it.
            Ok(_) | Err(WarmError::Cancelled) => {}
            Err(error) => self.tell(error),
        }
        answer
    }

    /// Why there is no warm tier, for people.
    fn why_off(&self) -> String {
        match self.inner.options.is_off() {
            true => "it is switched off; set `warm_backend`".to_owned(),
            false => self.out_of_use().to_string(),
        }
    }

    /// Counts that something warm was read from its file instead, for a reason that [`Self::run`] was
    /// not asked about.
    pub(crate) fn note_fallback(&self, reason: &'static str) {
        *self.notes().fallbacks.entry(reason).or_default() += 1;
    }

    /// How much is warm, and what has been done. Does not block.
    #[must_use]
    pub fn stats(&self) -> WarmStatistics {
        let mut statistics = WarmStatistics {
            dropped: self.inner.dropped.load(Ordering::Relaxed),
            ..WarmStatistics::default()
        };
        let noted = self.notes().fallbacks.clone();
        statistics.fallbacks =
            noted.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect();
        let Some(opened) = self.inner.opened.get() else {
            let is_off = self.inner.options.is_off();
            let (word, bytes) = match is_off {
                true => ("off", 0),
                false => ("idle", self.inner.options.host_bytes_max(self.inner.memory.limit())),
            };
            (statistics.backend, statistics.budget_bytes) = (word.to_owned(), bytes);
            return statistics;
        };
        let of_backend = opened.backend.stats();
        for (reason, count) in of_backend.fallbacks {
            *statistics.fallbacks.entry(reason.to_owned()).or_default() += count;
        }
        WarmStatistics {
            backend: of_backend.backend.to_owned(),
            device: of_backend.device,
            budget_bytes: of_backend.budget_bytes,
            used_bytes: of_backend.used_bytes,
            segments: of_backend.segments,
            rows: of_backend.rows,
            seals: of_backend.seals,
            hits: of_backend.hits,
            evictions: of_backend.evictions,
            no_device: opened.no_device.clone(),
            dead: of_backend.dead,
            ..statistics
        }
    }

    /// Drops the segments of files that are not in the newest state any more. Where nothing is warm, or
    /// nothing has changed, it costs next to nothing.
    pub(crate) fn note(&self, snapshot: &Snapshot) {
        if self.inner.files.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut held = self.held();
        let dropped = held.drop_gone(snapshot);
        self.inner.files.store(held.len(), Ordering::Relaxed);
        drop(held);
        // Freed after the lock is given back: it may take long.
        self.inner.dropped.fetch_add(dropped.len() as u64, Ordering::Relaxed);
    }

    /// Opens the backend if it is not open. Blocks.
    fn backend(&self) -> Arc<dyn WarmBackend> {
        let Inner { opened, options, memory, .. } = self.inner.as_ref();
        Arc::clone(&opened.get_or_init(|| opening::open(options, memory)).backend)
    }

    /// The table of a series, made at its first seal.
    fn table_of(&self, node: NodeId, schema: &SeriesSchema) -> Result<Arc<SeriesTable>, WarmError> {
        let table = self.held().table(node, schema, &self.inner.memory);
        table.inspect_err(|error| {
            self.note_fallback(error.reason());
            self.tell(error);
        })
    }

    fn leave_out(
        &self,
        node: NodeId,
        tried: &Arc<SeriesTable>,
        schema: &SeriesSchema,
        error: &WarmError,
    ) -> bool {
        self.held().leave_out(node, tried, schema, &self.inner.memory, error)
    }

    /// Warns of a failure, the first time for each kind.
    fn tell(&self, error: &WarmError) {
        if matches!(error, WarmError::Dead { .. }) {
            self.inner.is_dead.store(true, Ordering::Relaxed);
        }
        if self.notes().told.insert(error.reason()) {
            tracing::warn!(%error, "the warm tier does not serve all that it could; files serve the rest");
        }
    }

    fn out_of_use(&self) -> WarmError {
        let dead = self.inner.opened.get().and_then(|opened| opened.backend.stats().dead);
        WarmError::Dead { reason: dead.unwrap_or_else(|| "it is switched off".to_owned()) }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.inner.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
