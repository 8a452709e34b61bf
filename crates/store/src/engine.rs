//! One store: its log, its writer, its files.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidelog_core::{Env, MemoryBudget, PathPattern, TransactionId, TreePath, Version, WriteTime};
use tidelog_oplog::{
    EntryType, FileRow, LayoutChange, LayoutError, Log, LogOptions, Node, SeriesOptions, Snapshot,
};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{ObjectStore, ObjectStoreExt};
use tidelog_storage::{Pin, Pins, StagedNames};
use tokio::sync::Mutex as AsyncMutex;

use crate::commit::{Landed, OwnEpoch, Rejected, TreeChange, Work, Writer};
use crate::compact::{CompactionOptions, Touched};
use crate::encode::EncodedFile;
use crate::error::Error;
use crate::file_reader::{FileReaders, Footer};
use crate::free::TakenOver;
use crate::head::Head;
use crate::hot::HotState;
use crate::memory;
use crate::owner::abandoned::{self, Abandoned};
use crate::owner::{LiveLimits, Owner, TierLimits, TierOptions, TierStatistics};
use crate::right_of_way::RightOfWay;
use crate::series_schema::SeriesSchema;
use crate::upkeep::UpkeepMode;
use crate::warm::{Keeper, WarmOptions, WarmTier};

/// Who may write to a store while a handle is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mode {
    /// Any number of processes; an append is durable by its commit.
    #[default]
    Shared,
    /// This handle alone; an append is durable by a write-ahead log and visible from memory. The
    /// store is claimed at the first write and given back by [`Engine::close`].
    Exclusive,
}

/// Numbers that a store can be opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Bytes of memory that everything shares: what is hot, caches and queries. `None` is a quarter
    /// of the machine's.
    pub memory_bytes_max: Option<u64>,
    /// Bytes of decoded footers kept in memory, as far as the budget allows.
    pub footer_cache_bytes_max: u64,
    /// Who keeps the log short.
    pub upkeep: UpkeepMode,
    /// How files are kept few and large.
    pub compaction: CompactionOptions,
    /// For how long a read may take the newest state that the handle has seen for the newest there
    /// is. Zero asks the store at every read.
    pub max_staleness: Duration,
    /// Settings of the log, for a store that is made.
    pub log: LogOptions,
    /// Who may write while the handle is open.
    pub mode: Mode,
    /// Settings of one writer alone.
    pub tier: TierOptions,
    /// Settings of the warm tier.
    pub warm: WarmOptions,
    /// Who is known to read the store.
    pub pins: Pins,
    /// What local puts have left that never ended.
    pub staged: StagedNames,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: None,
            footer_cache_bytes_max: 64 * 1024 * 1024,
            upkeep: UpkeepMode::default(),
            compaction: CompactionOptions::default(),
            max_staleness: Duration::ZERO,
            log: LogOptions::default(),
            mode: Mode::default(),
            tier: TierOptions::default(),
            warm: WarmOptions::default(),
            pins: Pins::of_handle(),
            staged: StagedNames::none(),
        }
    }
}

/// An open store. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all parts of an engine stand on. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) log: Log,
    pub(crate) env: Env,
    pub(crate) files: FileReaders,
    pub(crate) memory: MemoryBudget,
    pub(crate) warm: WarmTier,
    pub(crate) way: RightOfWay,
}

impl Ground {
    /// Puts a data file where its row says, and keeps its footer for the next read of it.
    pub(crate) async fn put_file(&self, row: &FileRow, file: EncodedFile) -> Result<(), Error> {
        let EncodedFile { bytes, metadata, pages, .. } = file;
        self.put_bytes(row, bytes).await?;
        self.files.remember(row.file, Footer { metadata, pages, whole: None });
        Ok(())
    }

    /// The same of a file that stands for others. Its footer is kept only if one of theirs is, as they are
    /// read then: merges of more than memory would drive footers that are needed out of it. Gives the memory
    /// back that the file lay in, unless the store still holds on to it.
    pub(crate) async fn put_instead_of(
        &self,
        others: &[Arc<FileRow>],
        row: &FileRow,
        file: EncodedFile,
    ) -> Result<Option<Vec<u8>>, Error> {
        let EncodedFile { bytes, metadata, pages, .. } = file;
        self.put_bytes(row, bytes.clone()).await?;
        if others.iter().any(|other| self.files.remembers(other.file)) {
            self.files.remember(row.file, Footer { metadata, pages, whole: None });
        }
        let memory = bytes.try_into_mut().map(|mut memory| {
            memory.clear();
            Vec::from(memory)
        });
        Ok(memory.ok())
    }

    async fn put_bytes(&self, row: &FileRow, bytes: Bytes) -> Result<(), Error> {
        let put = self.store.put(&Path::from(row.location.as_ref()), bytes.into()).await;
        put.map(|_| ()).map_err(|error| Error::store("writing", &row.location, error))
    }
}

#[derive(Debug)]
struct Inner {
    ground: Ground,
    pins: Pins,
    staged: StagedNames,
    upkeep: UpkeepMode,
    compaction: CompactionOptions,
    touched: Touched,
    max_staleness_nanos: AtomicU64,
    mode: Mode,
    tier: TierOptions,
    limits: Arc<LiveLimits>,
    writer: Mutex<Option<Writer>>,
    own: OwnEpoch,
    owner: AsyncMutex<Option<Arc<Owner>>>,
    /// Held by whoever ends another writer's claim.
    freeing: AsyncMutex<()>,
    taken_over: Mutex<Option<TakenOver>>,
    /// The same, for those who cannot wait.
    hot: Mutex<Option<Weak<Owner>>>,
    abandoned: Mutex<Option<Abandoned>>,
    keeper: Keeper,
}

impl Engine {
    /// Makes an empty store.
    ///
    /// # Errors
    /// If there is one already, the object store cannot hold one, or the memory budget is too small.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        env: Env,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let memory = memory::budget(options)?;
        let log = Log::create(Arc::clone(&store), env.clone(), &options.log).await?;
        if let Err(error) = options.pins.make() {
            // The store is as good without: what readers need stays for a day.
            tracing::warn!(%error, "the pin file cannot be made");
        }
        Ok(Self::with_log(store, log, env, memory, options))
    }

    /// Opens a store that exists. Nothing is written.
    ///
    /// # Errors
    /// If there is none, its format is newer, it is damaged, it cannot be read, or the memory budget
    /// is too small.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        env: Env,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let memory = memory::budget(options)?;
        let log = Log::open(Arc::clone(&store), env.clone()).await?;
        Ok(Self::with_log(store, log, env, memory, options))
    }

    fn with_log(
        store: Arc<dyn ObjectStore>,
        log: Log,
        env: Env,
        memory: MemoryBudget,
        options: &EngineOptions,
    ) -> Self {
        log.keep_within(&memory);
        let pins = options.pins.clone();
        let files = FileReaders::new(Arc::clone(&store), log.clone(), pins.clone(), &memory);
        let warm = WarmTier::new(&options.warm, &memory);
        let inner = Inner {
            ground: Ground { store, log, env, files, memory, warm, way: RightOfWay::default() },
            pins,
            staged: options.staged.clone(),
            upkeep: options.upkeep,
            compaction: options.compaction.clone(),
            touched: Touched::default(),
            max_staleness_nanos: AtomicU64::new(nanos(options.max_staleness)),
            mode: options.mode,
            limits: Arc::new(LiveLimits::new(TierLimits::from(&options.tier))),
            tier: options.tier.clone(),
            writer: Mutex::default(),
            own: OwnEpoch::default(),
            owner: AsyncMutex::default(),
            freeing: AsyncMutex::default(),
            taken_over: Mutex::default(),
            hot: Mutex::default(),
            abandoned: Mutex::default(),
            keeper: Keeper::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The object store underneath.
    #[must_use]
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.ground.store
    }

    /// The operation log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.ground.log
    }

    /// Readers of data files.
    #[must_use]
    pub fn files(&self) -> &FileReaders {
        &self.inner.ground.files
    }

    /// The memory that this handle and its clones share: who holds how much of it.
    #[must_use]
    pub fn memory(&self) -> &MemoryBudget {
        &self.inner.ground.memory
    }

    /// The warm tier: which files are in fast memory, too.
    #[must_use]
    pub fn warm(&self) -> &WarmTier {
        &self.inner.ground.warm
    }

    /// What a read takes that merges and flushes are to give way to.
    #[must_use]
    pub fn right_of_way(&self) -> &RightOfWay {
        &self.inner.ground.way
    }

    /// Clock and randomness.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.ground.env
    }

    /// The newest committed state: one request, or none within the staleness that is allowed.
    ///
    /// # Errors
    /// If the log cannot be read or is damaged.
    pub async fn head(&self) -> Result<Head, Error> {
        // Others may let go of what the newest state needs as soon as there is a newer one; whoever asks for
        // readers after that finds this one, until the state that it has found is told of.
        let known = self.pin(&self.log().snapshot());
        let head = self.newest().await?;
        self.warm().note(head.snapshot());
        self.inner.keeper.seen(self.ground(), &head);
        let pin = self.pin(head.snapshot());
        drop(known);
        Ok(head.with_pin(pin))
    }

    fn pin(&self, snapshot: &Snapshot) -> Option<Pin> {
        let state = u64::try_from(snapshot.head().number()).ok()?;
        Some(self.pins().pin(state))
    }

    async fn newest(&self) -> Result<Head, Error> {
        match self.owner_now() {
            // Others commit upkeep only, which changes no answer.
            Some(_) => self.local_head(),
            None => {
                let snapshot = self.log().refresh_after(self.max_staleness()).await?;
                if snapshot.epoch().is_none() {
                    return Head::new(snapshot, HotState::default());
                }
                self.head_of_claimed(snapshot).await
            }
        }
    }

    fn max_staleness(&self) -> Duration {
        Duration::from_nanos(self.inner.max_staleness_nanos.load(Ordering::Relaxed))
    }

    /// Lets reads that begin from now on take a state for the newest that was so long ago.
    pub fn set_max_staleness(&self, staleness: Duration) {
        self.inner.max_staleness_nanos.store(nanos(staleness), Ordering::Relaxed);
    }

    /// When rows in memory are written to files.
    #[must_use]
    pub fn tier_limits(&self) -> TierLimits {
        self.inner.limits.get()
    }

    /// Sets when rows in memory are written to files. What is beyond the new limits is written now.
    pub fn set_tier_limits(&self, limits: TierLimits) {
        self.inner.limits.set(limits);
        if let Some(owner) = self.owner_now() {
            owner.limits_changed();
        }
    }

    /// The newest state of a store that another writer has for itself: with what that has left in its
    /// log ahead, if it is dead and that is on this machine.
    async fn head_of_claimed(&self, snapshot: Snapshot) -> Result<Head, Error> {
        let tier = &self.inner.tier;
        let Some(directory) = tier.wal_directory.as_deref() else {
            return Head::new(snapshot, HotState::default());
        };
        let known = self.abandoned().clone().filter(|known| known.is_of(&snapshot));
        if let (Some(known), Some(epoch)) = (known, snapshot.epoch())
            && abandoned::is_dead(tier, directory, epoch).await
        {
            return Head::new(snapshot, known.hot);
        }
        let ground = &self.inner.ground;
        let (snapshot, found) = abandoned::read(ground, tier, directory, &snapshot).await?;
        (*self.abandoned()).clone_from(&found);
        Head::new(snapshot, found.map(|found| found.hot).unwrap_or_default())
    }

    fn abandoned(&self) -> MutexGuard<'_, Option<Abandoned>> {
        self.inner.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest state that this handle has seen. No request is made.
    pub(crate) fn local_head(&self) -> Result<Head, Error> {
        // In this order: what has left the hot state is in the log.
        let hot = self.owner_now().map(|owner| owner.hot()).unwrap_or_default();
        Head::new(self.log().snapshot(), hot)
    }

    /// The owner, if this handle has claimed the store.
    fn owner_now(&self) -> Option<Arc<Owner>> {
        self.inner.hot.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
    }

    /// The owner through which this handle writes; `None` in shared mode. Claims the store at the
    /// first call.
    pub(crate) async fn owner(&self) -> Result<Option<Arc<Owner>>, Error> {
        if self.inner.mode == Mode::Shared {
            return Ok(None);
        }
        if let Some(owner) = self.owner_now() {
            return Ok(Some(owner));
        }
        let mut owner = self.inner.owner.lock().await;
        if let Some(owner) = owner.as_ref() {
            return Ok(Some(Arc::clone(owner)));
        }
        let tier = &self.inner.tier;
        let directory = tier.wal_directory.as_deref().ok_or(Error::NoWalDirectory)?;
        let (ground, own, limits) = (&self.inner.ground, &self.inner.own, &self.inner.limits);
        let claim = || Owner::claim(ground, self.writer(), own, tier, limits, directory);
        let claimed = match claim().await {
            Err(Error::Claimed { .. }) if self.free().await? => claim().await?,
            claimed => claimed?,
        };
        let claimed = Arc::new(claimed);
        *self.inner.hot.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::downgrade(&claimed));
        Ok(Some(Arc::clone(owner.insert(claimed))))
    }

    /// Writes to files what this handle has acknowledged from memory. Does nothing in shared mode.
    ///
    /// # Errors
    /// The store's failure; what was acknowledged stays in the write-ahead log.
    pub async fn flush(&self) -> Result<(), Error> {
        match self.owner_now() {
            Some(owner) => owner.flush().await,
            None => Ok(()),
        }
    }

    /// Writes to files what this handle has acknowledged from memory, and gives the store back, so
    /// that others may write. A later write claims it anew. Does nothing in shared mode.
    ///
    /// # Errors
    /// As [`Engine::flush`]; the store stays claimed.
    pub async fn close(&self) -> Result<(), Error> {
        let mut owner = self.inner.owner.lock().await;
        let Some(claimed) = owner.as_ref() else { return Ok(()) };
        let _closing = self.warm().close();
        claimed.close().await?;
        *owner = None;
        *self.inner.hot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// How much is in memory and in the write-ahead log; `None` if this handle has not claimed the
    /// store.
    #[must_use]
    pub fn tiers(&self) -> Option<TierStatistics> {
        self.owner_now().map(|owner| owner.statistics())
    }

    /// Whom this handle has taken the store from, if it has.
    #[must_use]
    pub fn taken_over(&self) -> Option<TakenOver> {
        self.inner.taken_over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note_taken_over(&self, from: TakenOver) {
        *self.inner.taken_over.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
    }

    pub(crate) fn freeing(&self) -> &AsyncMutex<()> {
        &self.inner.freeing
    }

    /// Who is known to read the store.
    pub(crate) fn pins(&self) -> &Pins {
        &self.inner.pins
    }

    pub(crate) fn staged(&self) -> &StagedNames {
        &self.inner.staged
    }

    pub(crate) fn ground(&self) -> &Ground {
        &self.inner.ground
    }

    pub(crate) fn compaction(&self) -> &CompactionOptions {
        &self.inner.compaction
    }

    /// The series to which this handle has added files.
    pub(crate) fn touched(&self) -> &Touched {
        &self.inner.touched
    }

    pub(crate) fn tier_options(&self) -> &TierOptions {
        &self.inner.tier
    }

    pub(crate) fn live_limits(&self) -> &Arc<LiveLimits> {
        &self.inner.limits
    }

    pub(crate) fn new_transaction(&self) -> TransactionId {
        TransactionId::random(self.env().randomness.as_ref())
    }

    pub(crate) async fn submit(&self, work: Work) -> Result<Landed, Rejected> {
        let writer = self.writer();
        writer.submit(work).await
    }

    /// The writer task, started at the first write, or anew if its runtime has gone.
    pub(crate) fn writer(&self) -> Writer {
        let inner = &self.inner;
        let mut writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.as_ref().filter(|writer| !writer.is_closed()) {
            Some(running) => running.clone(),
            None => {
                let (upkeep, own) = (inner.upkeep, inner.own.clone());
                let compaction = &inner.compaction;
                let started = Writer::spawn(&inner.ground, upkeep, compaction, &inner.touched, own);
                writer.insert(started).clone()
            }
        }
    }

    async fn change_tree(&self, change: TreeChange) -> Result<(), Error> {
        self.commit_in_order(|| Work::Tree(change.clone())).await.map(drop)
    }

    /// Commits a change that must come after all that was acknowledged before it. No other writer may
    /// have the store for itself.
    pub(crate) async fn commit_in_order(
        &self,
        work: impl Fn() -> Work + Send,
    ) -> Result<Landed, Error> {
        self.try_commit_in_order(work).await.map_err(Rejected::into_error)
    }

    /// As [`Self::commit_in_order`], for changes that may have become needless.
    pub(crate) async fn try_commit_in_order(
        &self,
        work: impl Fn() -> Work + Send,
    ) -> Result<Landed, Rejected> {
        let owner = self.owner().await?;
        let _paused = match &owner {
            Some(owner) => Some(owner.pause().await?),
            None => None,
        };
        let mut outcome = self.submit(work()).await;
        if matches!(outcome, Err(Rejected::Failed(Error::Claimed { .. }))) && self.free().await? {
            outcome = self.submit(work()).await;
        }
        if let (Some(owner), Err(Rejected::Failed(error))) = (&owner, &outcome) {
            owner.note_outcome(error);
        }
        outcome
    }

    /// Makes an empty series; its columns are fixed by its first version.
    ///
    /// # Errors
    /// If the path is taken or leads through something that is not a directory.
    pub async fn create_series(
        &self,
        path: &TreePath,
        options: SeriesOptions,
    ) -> Result<(), Error> {
        if let Some(twice) = first_repeated(&options.key_columns) {
            let reason = format!("key column {twice:?} is given twice; name it once");
            return Err(Error::Options { path: path.clone(), reason });
        }
        let refuse =
            |error: LayoutError| Error::Options { path: path.clone(), reason: error.to_string() };
        options.layout().check(!options.key_columns.is_empty()).map_err(refuse)?;
        let options = Some(Arc::new(options));
        let entry = EntryType::FileSeries;
        self.change_tree(TreeChange::Create { path: path.clone(), entry, options }).await
    }

    /// Changes how the files of a series are laid out. Files that are there stay as they are until they
    /// are merged or compacted.
    ///
    /// # Errors
    /// If there is no series, or it cannot be laid out so.
    pub async fn set_layout(&self, path: &TreePath, change: &LayoutChange) -> Result<(), Error> {
        self.change_tree(TreeChange::Lay { path: path.clone(), change: *change }).await
    }

    /// Makes a directory, with its parents.
    ///
    /// # Errors
    /// If the path is taken or leads through something that is not a directory.
    pub async fn create_directory(&self, path: &TreePath) -> Result<(), Error> {
        let entry = EntryType::Directory;
        self.change_tree(TreeChange::Create { path: path.clone(), entry, options: None }).await
    }

    /// Moves a node, with all below it. The series keep their versions.
    ///
    /// # Errors
    /// If nothing is at `from`, `to` is taken, or `to` lies inside `from`.
    pub async fn rename(&self, from: &TreePath, to: &TreePath) -> Result<(), Error> {
        self.change_tree(TreeChange::Rename { from: from.clone(), to: to.clone() }).await
    }

    /// Removes a node from head; its history stays readable `as_of` an earlier time.
    ///
    /// # Errors
    /// If nothing is there, or it is a directory that is not empty and `recursive` is not set.
    pub async fn remove(&self, path: &TreePath, recursive: bool) -> Result<(), Error> {
        self.change_tree(TreeChange::Remove { path: path.clone(), recursive }).await
    }

    /// The nodes that match, in order of their paths, in `head`.
    #[must_use]
    pub fn list(&self, head: &Head, pattern: &PathPattern) -> Vec<(TreePath, Arc<Node>)> {
        head.tree().matching(pattern)
    }
}

/// As many as fit; five hundred years and more are the same to a store.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn first_repeated(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name)
}

/// The roles of the columns of a series node; `None` before its first version.
///
/// # Errors
/// If the log's schema and options do not fit together.
pub fn schema_of(path: &TreePath, node: &Node) -> Result<Option<SeriesSchema>, Error> {
    node.schema
        .as_ref()
        .map(|columns| SeriesSchema::resolve(path, columns, &node.options))
        .transpose()
}

/// What a successful append tells.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppendReceipt {
    /// The series.
    pub path: TreePath,
    /// The version that the append became; `None` if it had no rows and stored nothing.
    pub version: Option<Version>,
    /// When it was recorded.
    pub write_time: Option<WriteTime>,
    /// Rows stored, after deduplication within the append.
    pub rows: u64,
    /// What was promised when the call returned.
    pub durability: Durability,
    /// The caller's or a generated id of the write.
    pub transaction: TransactionId,
}

/// What an acknowledged append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Data and commit were written through to the object store before the call returned.
    Committed,
    /// The write-ahead log was synced before the call returned: it survives a crash of the machine.
    Synced,
    /// It was written to the log ahead, which is synced this often: it survives a crash of the
    /// process, and one of the machine but for what came in the last so long.
    Interval(Duration),
    /// It was written to the log ahead, which is not synced: it survives a crash of the process.
    Memory,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => f.write_str("committed"),
            Self::Synced => f.write_str("sync"),
            Self::Interval(every) => write!(f, "interval({} ms)", every.as_millis()),
            Self::Memory => f.write_str("memory"),
        }
    }
}
