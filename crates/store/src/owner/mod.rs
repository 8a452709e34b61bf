//! One writer alone: appends are durable by a write-ahead log and visible at once from memory.
//!
//! | module | holds |
//! |---|---|
//! | `abandoned` | what a dead owner has left, for readers |
//! | `claim` | taking the store, and bringing in what a dead owner has left |
//! | `sequencer` | the thread that numbers versions and writes the log ahead |
//! | `record` | what the log ahead keeps of an append |
//! | `shared` | the hot state, limits, who waits for whom |
//! | `flush` | from memory to files and one commit |
//! | `limits` | when rows in memory are written to files |
//! | `gauge` | the numbers, for other processes |
//! | `pulse` | noticing that the process was stopped, during which the store may be taken over |
//!
//! ```text
//! append ─▶ record ─▶ synced ─▶ hot, acknowledged ─▶ sealed ─▶ files ─▶ one commit ─▶ record released
//! ```
//!
//! At every moment a version that was acknowledged is in the log ahead or in the log, and a reader
//! sees it exactly once: hot rows are dropped only after their commit is seen, and of a series that
//! is committed up to a version, hot rows up to that version are left out.

pub(crate) mod abandoned;
mod claim;
mod flush;
pub(crate) mod gauge;
mod limits;
mod pulse;
mod record;
mod sequencer;
mod shared;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use tidelog_core::{ErrorKind, Holder, MemoryBudget};
use tidelog_storage::{FileSystem, OsFileSystem};
use tidelog_wal::WalOptions;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use self::claim::Claimed;
use self::flush::Flusher;
pub(crate) use self::limits::LiveLimits;
pub use self::limits::TierLimits;
use self::pulse::Pulse;
pub(crate) use self::record::{SeriesRecord, decode as decode_record, encode_rows};
pub(crate) use self::sequencer::HotAppend;
use self::sequencer::{Message, Pending, Place, Sequencer};
use self::shared::Shared;
use crate::commit::{Landed, OwnEpoch, Rejected, Work, Writer};
use crate::engine::{Durability, Ground};
use crate::error::Error;
use crate::hot::{HotFile, HotState};
use crate::prepare::PreparedRows;
use crate::series_schema::SeriesSchema;

/// What an append that was acknowledged survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WalDurability {
    /// A crash of the process and of the machine: it is synced before the acknowledgement.
    #[default]
    Sync,
    /// A crash of the process; of the machine, but for what came in the last so long.
    Interval(Duration),
    /// A crash of the process.
    Memory,
}

/// Settings of one writer alone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TierOptions {
    /// Where the write-ahead log lies; beside a local store's files if absent.
    pub wal_directory: Option<PathBuf>,
    /// Where a writer of the same store has its write-ahead log that has named no directory: beside the
    /// files of a local store.
    pub usual_wal_directory: Option<PathBuf>,
    /// Whether the store may be taken from an owner that cannot be reached from here, or shows no sign of
    /// life. Once for each handle.
    pub take_over: bool,
    /// What an append that was acknowledged survives.
    pub durability: WalDurability,
    /// Rows of a generation; a full one is written to files.
    pub rows_max: u64,
    /// Bytes of memory of a generation; at most a quarter of the memory budget, whatever it says
    /// here. Two may be in memory.
    pub bytes_max: u64,
    /// The age at which a generation is written to files.
    pub age_max: Duration,
    /// Bytes of the write-ahead log beyond which a generation is written to files.
    pub wal_bytes_max: u64,
    /// Settings of the write-ahead log's files.
    pub wal: WalOptions,
    /// The file system of the write-ahead log.
    pub file_system: Arc<dyn FileSystem>,
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            wal_directory: None,
            usual_wal_directory: None,
            take_over: false,
            durability: WalDurability::default(),
            rows_max: 1_000_000,
            bytes_max: 256 * 1024 * 1024,
            age_max: Duration::from_secs(10),
            wal_bytes_max: 512 * 1024 * 1024,
            wal: WalOptions::default(),
            file_system: Arc::new(OsFileSystem),
        }
    }
}

/// How much is where, and what has been done, since the store was claimed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TierStatistics {
    /// Rows in memory that are not in files.
    pub hot_rows: u64,
    /// Versions that they belong to.
    pub hot_versions: u64,
    /// Bytes of memory that they take.
    pub hot_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Versions appended.
    pub appends: u64,
    /// Their rows.
    pub appended_rows: u64,
    /// Syncs of the write-ahead log.
    pub syncs: u64,
    /// Commits of hot rows.
    pub flushes: u64,
    /// Rows that they have written to files.
    pub flushed_rows: u64,
    /// How often appends had to wait for a flush.
    pub waits: u64,
    /// Bytes that all who share the memory budget hold: queries and caches too.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The memory budget.
    #[serde(default)]
    pub memory_bytes_max: u64,
}

impl TierStatistics {
    /// How many versions shared a sync of the write-ahead log, on average; `None` before the first.
    #[must_use]
    pub fn appends_per_sync(&self) -> Option<f64> {
        (self.syncs > 0).then(|| self.appends as f64 / self.syncs as f64)
    }
}

/// The store as its one writer has it. Dropped, it stops: what it has acknowledged is in the log
/// ahead, and whoever claims the store next brings it in.
#[derive(Debug)]
pub(crate) struct Owner {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
    memory: MemoryBudget,
    /// KiB of memory that more appends may take while they wait.
    queued: Arc<Semaphore>,
    flushing: AbortHandle,
    publishing: AbortHandle,
    beating: AbortHandle,
    /// Where the log ahead lies.
    directory: PathBuf,
    flusher: Flusher,
    own: OwnEpoch,
    pulse: Arc<Pulse>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.flushing.abort();
        self.publishing.abort();
        self.beating.abort();
        self.shared.fail(&Error::Closed);
        // The receiver is gone only if the thread is.
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.take_thread() {
            // The lock of the log ahead is free once its thread has ended, which has at most one
            // write to finish.
            let _ = thread.join();
        }
    }
}

/// While it lives, nothing is appended.
pub(crate) struct Paused {
    _resume: mpsc::Sender<()>,
}

impl Owner {
    /// Claims the store and begins to take appends.
    pub(crate) async fn claim(
        ground: &Ground,
        writer: Writer,
        own: &OwnEpoch,
        options: &TierOptions,
        limits: &Arc<LiveLimits>,
        directory: &std::path::Path,
    ) -> Result<Self, Error> {
        let Claimed { wal, flusher } =
            claim::claim(ground, writer, own, options, directory).await?;
        let memory = ground.memory.clone();
        let limits = Arc::clone(limits);
        let shared = Shared::new(options.clone(), limits, ground.env.clone(), &memory);
        let shared = Arc::new(shared);
        let (messages, queue) = mpsc::channel();
        let sequencer = Sequencer::new(wal, Arc::clone(&shared), ground.log.clone());
        let thread = std::thread::Builder::new()
            .name("tidelog-wal".to_owned())
            .spawn(move || sequencer.run(&queue))
            .map_err(|error| Error::Thread {
                purpose: "the write-ahead log",
                reason: error.to_string(),
            })?;
        let flushing = flusher.clone().run(Arc::clone(&shared), messages.clone());
        let flushing = tokio::spawn(flushing).abort_handle();
        let pulse = Arc::new(Pulse::new(ground.env.clone()));
        let beating = tokio::spawn(beat(Arc::clone(&pulse))).abort_handle();
        let (published, warm) = (Arc::clone(&shared), ground.warm.clone());
        let publishing = gauge::publish(published, warm, flusher.epoch, directory.to_owned());
        let publishing = tokio::spawn(publishing).abort_handle();
        let directory = directory.to_owned();
        let queued = Arc::new(Semaphore::new(queued_kib_max(&memory)));
        let (own, thread) = (own.clone(), Mutex::new(Some(thread)));
        Ok(Self {
            shared,
            messages,
            memory,
            queued,
            flushing,
            publishing,
            beating,
            directory,
            flusher,
            own,
            pulse,
            thread,
        })
    }

    /// All that is hot now.
    pub(crate) fn hot(&self) -> HotState {
        self.shared.hot()
    }

    /// Why nothing is taken any more, if so.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.shared.failure()
    }

    pub(crate) fn durability(&self) -> Durability {
        match self.shared.options.durability {
            WalDurability::Sync => Durability::Synced,
            WalDurability::Interval(every) => Durability::Interval(every),
            WalDurability::Memory => Durability::Memory,
        }
    }

    /// Whether rows of so many bytes go through memory; others are written to files at once.
    pub(crate) fn takes(&self, bytes: usize, rows: usize) -> bool {
        let (limits, wal) = (self.shared.limits.get(), &self.shared.options.wal);
        let bytes = bytes as u64;
        bytes <= self.shared.bytes_max() / 4
            && bytes <= wal.frame_bytes_max / 2
            && bytes <= self.memory.share(Holder::Queue).ceiling / 2
            && rows as u64 <= limits.rows_max
    }

    /// The limits have changed: what is beyond them now is written to files.
    pub(crate) fn limits_changed(&self) {
        self.shared.limits_changed();
    }

    /// Makes appends durable, as the options say, and visible, all of them or none.
    pub(crate) async fn append(&self, appends: Vec<HotAppend>) -> Result<Landed, Rejected> {
        let bytes: usize = appends.iter().map(HotAppend::bytes).sum();
        let kib = (bytes / 1024 + 1).min(queued_kib_max(&self.memory));
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.queued).acquire_many_owned(permits);
        let permit = permit.await.map_err(|_| Error::Closed)?;
        let mut memory = self.memory.account(Holder::Queue);
        memory.set(bytes as u64);
        let (reply, answer) = oneshot::channel();
        let place = Place { _permit: permit, _memory: memory };
        let pending = Pending { appends, reply, place };
        self.messages.send(Message::Append(pending)).map_err(|_| Error::Closed)?;
        let landed =
            answer.await.map_err(|_| Rejected::from(self.failure().unwrap_or(Error::Closed)))??;
        self.confirm().await?;
        Ok(landed)
    }

    /// After this process was stopped for a while, waits until it is known that the store is still its
    /// own.
    async fn confirm(&self) -> Result<(), Error> {
        while self.pulse.has_stopped() {
            let began = self.pulse.begin_look();
            match self.flusher.tail().await {
                Ok(()) => self.pulse.end_look(began),
                Err(Error::Fenced { wal, by }) => {
                    self.shared.fail(&Error::Fenced { wal: wal.clone(), by: by.clone() });
                    return Err(Error::Overtaken { wal, by });
                }
                Err(error) => {
                    tracing::warn!(%error, "whether the store is still ours cannot be told");
                    tokio::time::sleep(pulse::BEAT).await;
                }
            }
        }
        Ok(())
    }

    /// Takes no appends until the answer is dropped, and writes to files what was acknowledged
    /// before: then a change of the tree, or rows that go past the log ahead, come after it.
    pub(crate) async fn pause(&self) -> Result<Paused, Error> {
        let (resume, resumed) = mpsc::channel();
        let (ready, is_ready) = oneshot::channel();
        self.messages.send(Message::Pause(ready, resumed)).map_err(|_| Error::Closed)?;
        is_ready.await.map_err(|_| self.failure().unwrap_or(Error::Closed))?;
        let paused = Paused { _resume: resume };
        self.shared.flush_all().await?;
        Ok(paused)
    }

    /// Takes nothing any more if an error says that a commit beside the log ahead, made while this was
    /// paused, may land yet: what it would number or change cannot be told.
    pub(crate) fn note_outcome(&self, error: &Error) {
        if error.kind() == ErrorKind::OutcomeUnknown {
            self.shared.fail(&Error::InDoubt { reason: error.to_string() });
        }
    }

    /// Waits until all that was acknowledged before the call is in files.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.shared.flush_all().await
    }

    pub(crate) fn statistics(&self) -> TierStatistics {
        self.shared.statistics()
    }

    fn take_thread(&self) -> Option<std::thread::JoinHandle<()>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Writes all to files and gives the store back.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        let paused = self.pause().await?;
        match self.flusher.writer.submit(Work::Release(self.flusher.epoch)).await {
            Ok(_) | Err(Rejected::Stale) => self.own.set(None),
            Err(Rejected::Failed(error)) => {
                self.note_outcome(&error);
                return Err(error);
            }
        }
        self.shared.fail(&Error::Closed);
        // The receiver is gone only if the thread is.
        let _ = self.messages.send(Message::Stop);
        drop(paused);
        self.flushing.abort();
        self.publishing.abort();
        self.beating.abort();
        let thread = self.take_thread();
        let (shared, directory) = (Arc::clone(&self.shared), self.directory.clone());
        // The lock of the log ahead is free once its thread has ended.
        let joined = tokio::task::spawn_blocking(move || {
            gauge::remove(shared.options.file_system.as_ref(), &directory);
            thread.map(std::thread::JoinHandle::join)
        });
        joined.await.map(|_| ()).map_err(|_| Error::Closed)
    }
}

/// What may be queued before appenders wait, in KiB.
fn queued_kib_max(memory: &MemoryBudget) -> usize {
    let kib = memory.share(Holder::Queue).ceiling / 1024;
    usize::try_from(kib).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

async fn beat(pulse: Arc<Pulse>) {
    loop {
        tokio::time::sleep(pulse::BEAT).await;
        pulse.beat();
    }
}

/// Rows of a record as a piece in memory.
fn recovered_file(
    series: &SeriesRecord,
    schema: &SeriesSchema,
    batch: RecordBatch,
) -> Result<HotFile, Error> {
    let reason = || Error::Encode {
        path: series.path.clone(),
        reason: "rows of a write-ahead log do not fit the series' columns".to_owned(),
    };
    let stored = schema.stored_columns();
    let batch = RecordBatch::try_new(stored, batch.columns().to_vec()).map_err(|_| reason())?;
    let times = schema.times(&series.path, &batch)?;
    let versions = series
        .versions
        .iter()
        .filter_map(|row| Some(crate::prepare::VersionFacts { rows: row.rows, range: row.range? }));
    let rows = PreparedRows { batch, times, versions: versions.collect(), unique: series.unique };
    let file = HotFile::new(&series.path, series.node, schema, &rows)?;
    Ok(file.numbered(series.base))
}
