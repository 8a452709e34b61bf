//! A store: opening it, its tree, its history, SQL over it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidelog_core::{
    Env, ErrorKind, NodeId, PathPattern, TimeRange, TimeUnit, TransactionId, TreePath, Version,
    WriteTime,
};
use tidelog_oplog::{EntryType, Node, SeriesOptions, SeriesState, VersionRow};
use tidelog_query::{Queries, QueryOptions, SqlPolicy};
use tidelog_storage::object_store::ObjectStore;
use tidelog_storage::{
    FileSystem, Location, ReadCache, ReadCacheStatistics, StorageOptions, location,
};
use tidelog_store::{
    Engine, EngineOptions, FsckOptions, FsckReport, Head, Maintained, Mode, TierStatistics, Tiers,
    UpkeepMode, WalDurability, WalRepair, WalReport, fsck, inspect_wal, names, repair_wal,
};

use crate::directory::WorkingDirectory;
use crate::error::{Error, Result};
use crate::stream::SqlStream;

/// An open store. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Store {
    queries: Queries,
    read_cache: Option<ReadCache>,
}

/// How to open a store.
#[must_use]
pub struct StoreBuilder {
    location: String,
    storage: StorageOptions,
    object_store: Option<Arc<dyn ObjectStore>>,
    /// The directory, and how many bytes it may hold.
    read_cache: Option<(PathBuf, u64)>,
    env: Env,
    engine: EngineOptions,
    queries: QueryOptions,
}

/// Secrets that somebody put into the location are not shown.
impl fmt::Debug for StoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBuilder")
            .field("location", &location::shown(&self.location))
            .field("storage", &self.storage)
            .field("object_store", &self.object_store)
            .field("read_cache", &self.read_cache)
            .field("env", &self.env)
            .field("engine", &self.engine)
            .field("queries", &self.queries)
            .finish()
    }
}

impl StoreBuilder {
    fn new(location: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            storage: StorageOptions::new(),
            object_store: None,
            read_cache: None,
            env: Env::default(),
            engine: EngineOptions::default(),
            queries: QueryOptions::default(),
        }
    }

    /// Sets an option of the remote store that the location names, such as `region`, `endpoint` or
    /// `aws_secret_access_key`; it wins over the location's query and the environment. Default:
    /// none.
    pub fn with_storage_option(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        self.storage = self.storage.with(name, value);
        self
    }

    /// Uses this object store instead of opening the location. Its puts must be durable when they
    /// return, its conditional puts atomic and never repeated by the client itself, as they would
    /// then take themselves for another writer's. Default: opened from the location.
    pub fn with_object_store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        self.object_store = Some(store);
        self
    }

    /// Keeps what is read of a remote store's data files and log parts in a local directory, which
    /// holds at most so many bytes and lets go of what was read least recently. Stores and processes
    /// may share it, and it may be deleted at any time. It does nothing for a store that is local,
    /// unless that is given as an [object store](Self::with_object_store). Default: no cache.
    pub fn with_read_cache(mut self, directory: impl Into<PathBuf>, bytes_max: u64) -> Self {
        self.read_cache = Some((directory.into(), bytes_max));
        self
    }

    /// Takes clock and randomness from here. Default: the machine's.
    pub fn with_env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Says who may write to the store while the handle is open: any number of processes, or this
    /// handle alone, whose appends are durable by a write-ahead log, visible at once from memory, and
    /// written to files soon after. Default: [`Mode::Shared`].
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.engine.mode = mode;
        self
    }

    /// Puts the write-ahead log of one writer alone into this directory, which must be on a local
    /// disk. Default: beside the files of a local store; a remote one needs it named.
    pub fn with_wal_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.engine.tier.wal_directory = Some(directory.into());
        self
    }

    /// Takes the files of the write-ahead log from here. Default: the machine's. For tests of what
    /// is left when one of its calls fails.
    #[doc(hidden)]
    pub fn with_wal_file_system(mut self, files: Arc<dyn FileSystem>) -> Self {
        self.engine.tier.file_system = files;
        self
    }

    /// Says what an append survives that one writer alone has acknowledged. Default:
    /// [`WalDurability::Sync`], a crash of the machine.
    pub fn with_wal_durability(mut self, durability: WalDurability) -> Self {
        self.engine.tier.durability = durability;
        self
    }

    /// Sets how many rows, and how many bytes of memory, one writer alone gathers before they are
    /// written to files; twice as much may be in memory. Default: 1,000,000 rows, 256 MiB.
    pub fn with_hot_max(mut self, rows: u64, bytes: u64) -> Self {
        (self.engine.tier.rows_max, self.engine.tier.bytes_max) = (rows, bytes);
        self
    }

    /// Sets after what time one writer alone writes its rows to files, though they are few. Default:
    /// 10 seconds.
    pub fn with_hot_age_max(mut self, age: Duration) -> Self {
        self.engine.tier.age_max = age;
        self
    }

    /// Sets beyond how many bytes of its write-ahead log one writer alone writes its rows to files.
    /// Default: 512 MiB.
    pub fn with_wal_bytes_max(mut self, bytes: u64) -> Self {
        self.engine.tier.wal_bytes_max = bytes;
        self
    }

    /// Limits the memory of queries, in bytes; what needs more spills to disk or fails. Default: a
    /// quarter of the machine's.
    pub fn with_memory_bytes_max(mut self, bytes: usize) -> Self {
        self.queries = self.queries.with_memory_bytes_max(bytes);
        self
    }

    /// Sets how many partitions of a query run at once. Default: the number of cores.
    pub fn with_partitions(mut self, partitions: usize) -> Self {
        self.queries = self.queries.with_partitions(partitions);
        self
    }

    /// Says who keeps the log short: a task of this handle, or nobody but [`Store::maintain`].
    /// Default: a task, from the first write on.
    pub fn with_upkeep(mut self, mode: UpkeepMode) -> Self {
        self.engine.upkeep = mode;
        self
    }

    /// Lets reads take the newest state that this handle has seen for the newest there is, for so
    /// long after it was, which saves a request a read. The handle's own writes are seen at once.
    /// Default: zero, every read asks.
    pub fn with_max_staleness(mut self, staleness: Duration) -> Self {
        self.engine.max_staleness = staleness;
        self
    }

    /// For a store that is made: how long objects of its log are kept after they have ceased to be
    /// part of it. A reader or writer that pauses for longer begins anew. Whole seconds. Default: a
    /// day.
    pub fn with_log_retention(mut self, retention: Duration) -> Self {
        self.engine.log.retention = retention;
        self
    }

    /// Sets whether queries for the newest rows of each key leave out older rows while they read;
    /// the answers are the same either way. Default: true.
    pub fn with_key_pruning(mut self, key_pruning: bool) -> Self {
        self.queries = self.queries.with_key_pruning(key_pruning);
        self
    }

    /// Opens a store that exists; writes nothing.
    ///
    /// # Errors
    /// If there is none, its format is newer, it is damaged, or it cannot be read.
    pub async fn open(self) -> Result<Store> {
        let (place, cache) = self.place(Location::open)?;
        let engine = Engine::open(place, self.env.clone(), &self.settled()).await?;
        self.finish(engine, cache)
    }

    /// Makes an empty store.
    ///
    /// # Errors
    /// If there is one already, or the place cannot hold one.
    pub async fn create(self) -> Result<Store> {
        let (place, cache) = self.place(Location::create)?;
        let engine = Engine::create(place, self.env.clone(), &self.settled()).await?;
        self.finish(engine, cache)
    }

    /// Opens a store, making it if there is none.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub async fn open_or_create(self) -> Result<Store> {
        let (place, cache) = self.place(Location::create)?;
        let options = self.settled();
        let opened = Engine::open(Arc::clone(&place), self.env.clone(), &options).await;
        let engine = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let created = Engine::create(Arc::clone(&place), self.env.clone(), &options);
                match created.await {
                    // Somebody else was faster: then it is there to be opened.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        Engine::open(place, self.env.clone(), &options).await?
                    }
                    created => created?,
                }
            }
            opened => opened?,
        };
        self.finish(engine, cache)
    }

    /// Checks all that is stored, also if it is too damaged to be opened, and writes nothing: the
    /// log, the versions of each series, and that every data file is there with its size; if `deep`,
    /// every byte of it. Writers may go on meanwhile.
    ///
    /// # Errors
    /// If there is no store, its format is newer, or it cannot be read. Damage is no error: it is in
    /// the report.
    pub async fn fsck(self, deep: bool) -> Result<FsckReport> {
        self.fsck_with_options(&FsckOptions::default().with_deep(deep)).await
    }

    /// Checks all that is stored, with options.
    ///
    /// # Errors
    /// As [`fsck`](Self::fsck).
    pub async fn fsck_with_options(self, options: &FsckOptions) -> Result<FsckReport> {
        // What a cache holds says nothing about what is stored.
        let uncached = Self { read_cache: None, ..self };
        let (place, _) = uncached.place(Location::open)?;
        Ok(fsck(place, &uncached.env, options).await?)
    }

    /// Says what the write-ahead log of one writer alone holds and in what state it is, also if the
    /// store is too damaged to be opened. Writes nothing; the writer may go on meanwhile.
    ///
    /// # Errors
    /// If there is no store or no log, not even the log's id can be read, its format is newer, or it
    /// cannot be read. Other damage is no error: it is in the report.
    pub async fn inspect_wal(self) -> Result<WalReport> {
        let (tier, opened) = (self.settled().tier, self.engine_only().await);
        let snapshot = opened.as_ref().ok().map(|engine| engine.log().snapshot());
        let outcome = inspect_wal(tier, snapshot).await;
        outcome.map_err(|error| missing(error, opened))
    }

    /// Cuts the write-ahead log of one writer alone at its first damage, so that the store can be
    /// written again. What is cut is put aside in files that end in `.cut`, beside the log. A log
    /// that is whole is left as it is.
    ///
    /// # Errors
    /// If there is no store or no log, its owner lives, its format is newer, or it cannot be read or
    /// written.
    pub async fn repair_wal(self) -> Result<WalRepair> {
        let (tier, opened) = (self.settled().tier, self.engine_only().await);
        let snapshot = opened.as_ref().ok().map(|engine| engine.log().snapshot());
        let outcome = repair_wal(tier, self.env.clone(), snapshot).await;
        outcome.map_err(|error| missing(error, opened))
    }

    /// The store without SQL and cache.
    async fn engine_only(&self) -> Result<Engine> {
        let (place, _) = self.place(Location::open)?;
        Ok(Engine::open(place, self.env.clone(), &self.settled()).await?)
    }

    /// The object store, and the cache in front of it that it may have become.
    fn place(
        &self,
        connect: impl Fn(
            &Location,
            &StorageOptions,
            &Env,
        ) -> Result<Arc<dyn ObjectStore>, tidelog_storage::Error>,
    ) -> Result<(Arc<dyn ObjectStore>, Option<ReadCache>)> {
        let (place, identity) = match &self.object_store {
            Some(store) => (Arc::clone(store), Some(location::shown(&self.location))),
            None => {
                let location: Location = self.location.parse()?;
                let identity = location.is_remote().then(|| location.to_string());
                (connect(&location, &self.storage, &self.env)?, identity)
            }
        };
        let (Some((directory, bytes_max)), Some(identity)) = (&self.read_cache, identity) else {
            return Ok((place, None));
        };
        let cache =
            ReadCache::new(place, &identity, names::is_immutable, directory, *bytes_max, &self.env);
        Ok((Arc::new(cache.clone()), Some(cache)))
    }

    /// The engine's options, with the place of the write-ahead log if it follows from the location.
    fn settled(&self) -> EngineOptions {
        let mut options = self.engine.clone();
        let tier = &mut options.tier;
        if tier.wal_directory.is_none() && self.object_store.is_none() {
            let location = self.location.parse::<Location>().ok();
            let local = location.as_ref().and_then(Location::local_path);
            tier.wal_directory = local.map(|root| root.join(names::WAL_DIRECTORY));
        }
        options
    }

    fn finish(self, engine: Engine, read_cache: Option<ReadCache>) -> Result<Store> {
        Ok(Store { queries: Queries::try_new(engine, &self.queries)?, read_cache })
    }
}

/// Where there is no store either, that is what is told.
fn missing(error: tidelog_store::Error, opened: Result<Engine>) -> Error {
    match opened {
        Err(no_store)
            if error.kind() == ErrorKind::NotFound && no_store.kind() == ErrorKind::NotFound =>
        {
            no_store
        }
        _ => error.into(),
    }
}

/// What is at a path.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The path.
    pub path: TreePath,
    /// What it is.
    pub entry: EntryType,
    /// When it was created.
    pub created: WriteTime,
}

/// One version of a series.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VersionInfo {
    /// The path that the series had.
    pub path: TreePath,
    /// Its number.
    pub version: Version,
    /// What it did: `append`, `delete`, `replace` or `restore`.
    pub operation: &'static str,
    /// When it was recorded.
    pub write_time: WriteTime,
    /// Rows that it added.
    pub rows: u64,
    /// Their event times.
    pub range: Option<TimeRange>,
    /// The id of the write.
    pub transaction: TransactionId,
}

impl From<&VersionRow> for VersionInfo {
    fn from(row: &VersionRow) -> Self {
        Self {
            path: row.path.clone(),
            version: row.version,
            operation: row.op.name(),
            write_time: row.timestamp,
            rows: row.rows,
            range: row.range,
            transaction: row.transaction,
        }
    }
}

/// All about one series.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeriesDescription {
    /// Its path.
    pub path: TreePath,
    /// Its id, which survives renames.
    pub node: NodeId,
    /// When it was created.
    pub created: WriteTime,
    /// Its columns; `None` before the first version.
    pub schema: Option<SchemaRef>,
    /// Its options, with the time column once that is known.
    pub options: SeriesOptions,
    /// The unit in which its time column counts, once that is known.
    pub time_unit: Option<TimeUnit>,
    /// Its newest version; `v0` before the first.
    pub version: Version,
    /// Rows of all versions, before deduplication between them.
    pub rows: u64,
    /// Its data files at head.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The event times of its rows.
    pub range: Option<TimeRange>,
}

/// Counts over a whole store.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreStatistics {
    /// Commits of the log.
    pub commits: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Series.
    pub series: u64,
    /// Versions of all series.
    pub versions: u64,
    /// Rows of all versions.
    pub rows: u64,
    /// Data files at head.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Opens the store at a directory's path, `file:///path` or `memory://`; writes nothing.
    ///
    /// # Errors
    /// If there is none, its format is newer, it is damaged, or it cannot be read.
    pub async fn open(location: impl Into<String>) -> Result<Self> {
        Self::builder(location).open().await
    }

    /// Makes an empty store.
    ///
    /// # Errors
    /// If there is one already, or the place cannot hold one.
    pub async fn create(location: impl Into<String>) -> Result<Self> {
        Self::builder(location).create().await
    }

    /// Opens a store, making it if there is none.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub async fn open_or_create(location: impl Into<String>) -> Result<Self> {
        Self::builder(location).open_or_create().await
    }

    /// A builder, for more than the location.
    pub fn builder(location: impl Into<String>) -> StoreBuilder {
        StoreBuilder::new(location)
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.queries.engine()
    }

    pub(crate) fn queries(&self) -> &Queries {
        &self.queries
    }

    /// The same store, whose reads see these appends to series that exist as well, one piece in
    /// memory for each of the lists: for tests of what reads such pieces.
    ///
    /// # Errors
    /// As an append.
    #[doc(hidden)]
    pub async fn with_hot_versions(
        &self,
        pieces: &[(String, Vec<(RecordBatch, WriteTime)>)],
    ) -> Result<Self> {
        let mut head = self.engine().head().await?;
        for (path, appends) in pieces {
            let path = TreePath::parse(path)?;
            head = self.engine().with_hot_versions(&head, &path, appends).await?;
        }
        Ok(Self { queries: self.queries.pinned_to(head), ..self.clone() })
    }

    /// The root as a working directory.
    #[must_use]
    pub fn root(&self) -> WorkingDirectory {
        WorkingDirectory::new(self.clone(), TreePath::root())
    }

    /// The directory at `path` as a working directory. It need not exist: writing makes it.
    ///
    /// # Errors
    /// If `path` is no path.
    pub fn working_directory(&self, path: &str) -> Result<WorkingDirectory> {
        Ok(WorkingDirectory::new(self.clone(), TreePath::parse(path)?))
    }

    /// Runs one SQL statement under the restricted policy: queries, `EXPLAIN` and `INSERT INTO` a
    /// series. A series is a table by its quoted path; `series('/glob/*', 'as of')` and
    /// `series_versions('/path')` are table functions; the log is `tidelog.tree`,
    /// `tidelog.versions` and `tidelog.files`; `tidelog.tiers` says how much of it is in memory.
    ///
    /// # Errors
    /// If the statement is too large, not allowed, wrong, or names what is not there.
    pub async fn sql(&self, statement: &str) -> Result<SqlStream> {
        self.sql_with_policy(statement, SqlPolicy::Restricted).await
    }

    /// Runs one SQL statement under a policy.
    ///
    /// # Errors
    /// As [`sql`](Self::sql).
    pub async fn sql_with_policy(&self, statement: &str, policy: SqlPolicy) -> Result<SqlStream> {
        Ok(SqlStream::new(self.queries.sql(statement, policy).await?))
    }

    /// Does all the upkeep of the log that is due: merges it, into one sorted run if `full`, writes
    /// a checkpoint, and deletes log objects that nobody can want any more. It changes no answer,
    /// and may run beside readers, writers and other upkeep.
    ///
    /// # Errors
    /// If the log is damaged or the store fails; what was done until then stays done.
    pub async fn maintain(&self, full: bool) -> Result<Maintained> {
        Ok(self.engine().maintain(full).await?)
    }

    /// One step of upkeep, if the log's tail has grown beyond 32 commits: what a program does that
    /// writes once and ends, after its write is acknowledged.
    ///
    /// # Errors
    /// As [`maintain`](Self::maintain).
    pub async fn maintain_step(&self) -> Result<Maintained> {
        Ok(self.engine().upkeep_step().await?)
    }

    /// The number of the newest commit that this handle has seen. No request is made.
    #[must_use]
    pub fn log_head(&self) -> u64 {
        u64::try_from(self.engine().log().snapshot().head().number()).unwrap_or_default()
    }

    /// How many commits stand at the end of the log that upkeep has not merged yet, as far as this
    /// handle has seen. No request is made.
    #[must_use]
    pub fn log_tail_length(&self) -> usize {
        self.engine().log().snapshot().tail_length()
    }

    /// What the [cache of a remote store](StoreBuilder::with_read_cache) has done since this handle
    /// was opened; `None` without one.
    #[must_use]
    pub fn read_cache_statistics(&self) -> Option<ReadCacheStatistics> {
        self.read_cache.as_ref().map(ReadCache::statistics)
    }

    /// Makes a directory, with its parents.
    ///
    /// # Errors
    /// If the path is taken or leads through something that is not a directory.
    pub async fn create_directory(&self, path: &str) -> Result<()> {
        Ok(self.engine().create_directory(&TreePath::parse(path)?).await?)
    }

    /// Moves what is at `from`, with all below it; series keep their versions.
    ///
    /// # Errors
    /// If nothing is at `from`, `to` is taken, or `to` lies inside `from`.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(self.engine().rename(&TreePath::parse(from)?, &TreePath::parse(to)?).await?)
    }

    /// Removes what is at `path` from head; its history stays readable as of an earlier time.
    ///
    /// # Errors
    /// If nothing is there, or it is a directory that is not empty and `recursive` is not set.
    pub async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        Ok(self.engine().remove(&TreePath::parse(path)?, recursive).await?)
    }

    /// Writes to files what this handle has acknowledged from memory. Does nothing in shared mode.
    ///
    /// # Errors
    /// The store's failure; what was acknowledged stays in the write-ahead log.
    pub async fn flush(&self) -> Result<()> {
        Ok(self.engine().flush().await?)
    }

    /// Writes to files what this handle has acknowledged from memory, and gives the store back, so
    /// that others may write. A later write claims it anew. Does nothing in shared mode.
    ///
    /// A handle that is dropped without it loses nothing: whoever writes next brings in what the
    /// write-ahead log holds.
    ///
    /// # Errors
    /// As [`Store::flush`]; the store stays claimed.
    pub async fn close(&self) -> Result<()> {
        Ok(self.engine().close().await?)
    }

    /// How much is in memory and in the write-ahead log; `None` if this handle has not claimed the
    /// store for itself.
    #[must_use]
    pub fn tiers(&self) -> Option<TierStatistics> {
        self.engine().tiers()
    }

    /// How much is in memory and in the write-ahead log: of this handle at this moment, if it has
    /// claimed the store for itself, or else as the process says that has, once a second, as far as
    /// its write-ahead log's directory can be seen here. `tidelog.tiers` in SQL is the same.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn tiers_seen(&self) -> Result<Tiers> {
        Ok(self.engine().tiers_seen().await?)
    }

    /// What is at the paths that match, in order of path.
    ///
    /// # Errors
    /// If the pattern is none or the log cannot be read.
    pub async fn list(&self, pattern: &str) -> Result<Vec<Entry>> {
        let pattern = PathPattern::parse(pattern)?;
        let head = self.engine().head().await?;
        let found = self.engine().list(&head, &pattern);
        Ok(found
            .into_iter()
            .map(|(path, node)| Entry { path, entry: node.entry, created: node.created })
            .collect())
    }

    /// All about the series at `path`.
    ///
    /// # Errors
    /// If there is no such series or the log cannot be read.
    pub async fn describe(&self, path: &str) -> Result<SeriesDescription> {
        let path = TreePath::parse(path)?;
        let (head, node, series) = self.series_node(&path).await?;
        let schema = tidelog_store::schema_of(&path, &node)?;
        let ranges = series.files().map(|file| file.range).chain(head.hot_range(node.id));
        let range = ranges.reduce(|a, b| a.union(&b));
        Ok(SeriesDescription {
            path,
            node: node.id,
            created: node.created,
            time_unit: schema.as_ref().map(|s| s.time_unit()).or(node.options.time_unit),
            schema: schema.map(|schema| Arc::clone(schema.columns())),
            options: (*node.options).clone(),
            version: series.head(),
            rows: series.rows_appended(),
            files: series.file_count() as u64,
            bytes: series.files().map(|file| file.size).sum(),
            range,
        })
    }

    /// The versions of the series at `path`, oldest first.
    ///
    /// # Errors
    /// If there is no such series or the log cannot be read.
    pub async fn versions(&self, path: &str) -> Result<Vec<VersionInfo>> {
        let path = TreePath::parse(path)?;
        let (_, _, series) = self.series_node(&path).await?;
        Ok(series.versions().iter().map(|row| VersionInfo::from(row.as_ref())).collect())
    }

    /// The series at `path` at head, with or without versions.
    async fn series_node(&self, path: &TreePath) -> Result<(Head, Arc<Node>, Arc<SeriesState>)> {
        let head = self.engine().head().await?;
        let path = path.clone();
        let node = match head.tree().resolve(&path) {
            Some(node) if node.entry == EntryType::FileSeries => Arc::clone(node),
            Some(_) => {
                return Err(tidelog_store::Error::WrongEntry { path, expected: "series" }.into());
            }
            None => return Err(tidelog_store::Error::NotFound { path, at: None }.into()),
        };
        let series = head.series(self.engine().log(), node.id).await?;
        Ok((head, node, series))
    }

    /// Counts over the whole store. Reads the version and file rows of every series.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn statistics(&self) -> Result<StoreStatistics> {
        let head = self.engine().head().await?;
        let commits = u64::try_from(head.snapshot().next_commit().number()).unwrap_or_default();
        let mut counts = StoreStatistics { commits, ..StoreStatistics::default() };
        for (_, node) in head.tree().walk(&TreePath::root()) {
            match node.entry {
                EntryType::Directory => counts.directories += 1,
                EntryType::FileSeries => {
                    let series = head.series(self.engine().log(), node.id).await?;
                    counts.series += 1;
                    counts.versions += series.versions().len() as u64;
                    counts.rows += series.rows_appended();
                    counts.files += series.file_count() as u64;
                    counts.bytes += series.files().map(|file| file.size).sum::<u64>();
                }
                EntryType::FileData => {}
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_cheap_to_clone_and_shared_between_threads() {
        fn check<T: Clone + Send + Sync + 'static>() {}
        check::<Store>();
        check::<WorkingDirectory>();
    }
}
