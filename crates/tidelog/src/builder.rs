//! How a store is opened: where, by whom it is written, with which limits.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidelog_core::{Env, ErrorKind};
use tidelog_query::{Queries, QueryOptions, WarmPushDowns};
use tidelog_storage::object_store::ObjectStore;
use tidelog_storage::{
    FileSystem, Location, OsFileSystem, Pins, ReadCache, StagedNames, StorageOptions, location,
};
use tidelog_store::{
    Engine, EngineOptions, FsckOptions, FsckReport, Mode, RecoverOptions, UpkeepMode,
    WalDurability, WalRecovery, WalRepair, WalReport, WarmDevices, WarmKeep, WarmPlace, fsck,
    inspect_wal, names, recover_wal, repair_wal,
};

use crate::error::{Error, Result};
use crate::settings::{Layers, LiveSettings, Loaded, Preset, Settings};
use crate::store::Store;

/// What is put between a store and the place where it lies.
type StoreLayer = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// How to open a store.
#[must_use]
pub struct StoreBuilder {
    location: String,
    storage: StorageOptions,
    object_store: Option<Arc<dyn ObjectStore>>,
    /// The files of a store in a directory.
    files: Arc<dyn FileSystem>,
    /// What stands between the store and its place.
    layer: Option<StoreLayer>,
    /// The directory, and how many bytes it may hold.
    read_cache: Option<(PathBuf, u64)>,
    env: Env,
    engine: EngineOptions,
    queries: QueryOptions,
    /// Where settings come from; calls of this builder among them.
    layers: Layers,
}

/// Secrets that somebody put into the location are not shown.
impl fmt::Debug for StoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBuilder")
            .field("location", &location::shown(&self.location))
            .field("storage", &self.storage)
            .field("object_store", &self.object_store)
            .field("files", &self.files)
            .field("layer", &self.layer.is_some())
            .field("read_cache", &self.read_cache)
            .field("env", &self.env)
            .field("engine", &self.engine)
            .field("queries", &self.queries)
            .field("layers", &self.layers)
            .finish()
    }
}

impl StoreBuilder {
    pub(crate) fn new(location: impl Into<String>) -> Self {
        let location = location.into();
        let mut layers = Layers::new();
        layers.called("store", &location);
        Self {
            location,
            layers,
            storage: StorageOptions::new(),
            object_store: None,
            files: Arc::new(OsFileSystem),
            layer: None,
            read_cache: None,
            env: Env::default(),
            engine: engine_options(),
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
        self.layers.of_given_store();
        self
    }

    /// Changes the files of a store in a directory through these, but for its write-ahead log. Default:
    /// the machine's. For tests of what is left when one of its calls fails.
    #[doc(hidden)]
    pub fn with_file_system(mut self, files: Arc<dyn FileSystem>) -> Self {
        self.files = files;
        self
    }

    /// Puts something between the store and its place. Default: nothing. For tests of what happens when
    /// requests take their time or fail.
    #[doc(hidden)]
    pub fn with_layer(
        mut self,
        layer: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync + 'static,
    ) -> Self {
        self.layer = Some(Arc::new(layer));
        self
    }

    /// Keeps what is read of a remote store's data files and log parts in a local directory, which
    /// holds at most so many bytes and lets go of what was read least recently. Stores and processes
    /// may share it, and it may be deleted at any time. It does nothing for a store that is local,
    /// unless that is given as an [object store](Self::with_object_store). Default: no cache.
    pub fn with_read_cache(mut self, directory: impl Into<PathBuf>, bytes_max: u64) -> Self {
        let directory = directory.into();
        self.read_cache = Some((directory.clone(), bytes_max));
        self.called("cache", |settings| settings.cache = Some(directory))
            .called("cache_size", |settings| settings.cache_size = bytes_max)
    }

    /// Takes clock and randomness from here. Default: the machine's.
    pub fn with_env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Says who may write to the store while the handle is open: any number of processes, or this
    /// handle alone, whose appends are durable by a write-ahead log, visible at once from memory, and
    /// written to files soon after. Such a handle claims the store at its first write; [`Store::close`]
    /// gives it back. Default: [`Mode::Exclusive`] for a store in a directory, [`Mode::Shared`] for
    /// others.
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.engine.mode = mode;
        self.called("mode", |settings| settings.mode = mode)
    }

    /// Puts the write-ahead log of one writer alone into this directory, which must be on a local
    /// disk. Default: beside the files of a local store; a remote one needs it named.
    pub fn with_wal_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        self.engine.tier.wal_directory = Some(directory.clone());
        self.called("wal_dir", |settings| settings.wal_dir = Some(directory))
    }

    /// Lets a write take the store from a writer that has it alone and whose write-ahead log cannot be
    /// reached from here, or that shows no sign of life for five seconds. What that writer has
    /// acknowledged and not written to files is left in its write-ahead log, until
    /// [`recover_wal`](Self::recover_wal) brings it in; it can commit nothing any more. A writer that has
    /// died here is not taken over: what it left is brought in. [`Store::taken_over`] tells what was
    /// done. Default: false.
    pub fn with_take_over(mut self, take_over: bool) -> Self {
        self.engine.tier.take_over = take_over;
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
        self.called("durability", |settings| settings.durability = durability)
    }

    /// Sets how many rows, and how many bytes of memory, one writer alone gathers before they are
    /// written to files; twice as much may be in memory. A quarter of
    /// [the memory](Self::with_memory_bytes_max) is the most that gathers. Of each at least 1, or the
    /// store is not opened. Default: 1,000,000 rows, 256 MiB.
    pub fn with_hot_max(mut self, rows: u64, bytes: u64) -> Self {
        (self.engine.tier.rows_max, self.engine.tier.bytes_max) = (rows, bytes);
        self.called("hot_max_rows", |settings| settings.hot_max_rows = rows)
            .called("hot_max_bytes", |settings| settings.hot_max_bytes = bytes)
    }

    /// Sets after what time one writer alone writes its rows to files, though they are few. Default:
    /// 10 seconds.
    pub fn with_hot_age_max(mut self, age: Duration) -> Self {
        self.engine.tier.age_max = age;
        self.called("hot_max_age", |settings| settings.hot_max_age = age)
    }

    /// Sets beyond how many bytes of its write-ahead log one writer alone writes its rows to files.
    /// At least 1, or the store is not opened. Default: 512 MiB.
    pub fn with_wal_bytes_max(mut self, bytes: u64) -> Self {
        self.engine.tier.wal_bytes_max = bytes;
        self.called("wal_max_bytes", |settings| settings.wal_max_bytes = bytes)
    }

    /// Sets the bytes of a file of the write-ahead log, after which the next one begins. What is in files
    /// of the store is let go of in whole files. Default: 100 MB.
    pub fn with_wal_segment_bytes(mut self, bytes: u64) -> Self {
        self.engine.tier.wal.segment_bytes = bytes;
        self
    }

    /// Sets the memory, in bytes, that everything shares which grows with the work: rows in memory
    /// that are not in files yet, caches, and queries, which spill to disk or fail where they need
    /// more. [`Store::memory`] tells who holds how much. At least 32 MiB. Default: a quarter of what
    /// the machine, or the control group that the process is in, has.
    pub fn with_memory_bytes_max(mut self, bytes: usize) -> Self {
        self.engine.memory_bytes_max = Some(bytes as u64);
        self.called("memory", |settings| settings.memory = Some(bytes as u64))
    }

    /// Sets how many partitions of a query run at once. Default: the number of cores.
    pub fn with_partitions(mut self, partitions: usize) -> Self {
        self.queries = self.queries.with_partitions(partitions);
        self.called("partitions", |settings| settings.partitions = Some(partitions.max(1)))
    }

    /// Says who keeps the log short: a task of this handle, or nobody but [`Store::maintain`].
    /// Default: a task, from the first write on.
    pub fn with_upkeep(mut self, mode: UpkeepMode) -> Self {
        self.engine.upkeep = mode;
        self.called("upkeep", |settings| settings.upkeep = mode)
    }

    /// Whether files are merged along with the log: in the background, or by commands at their end.
    /// Default: true.
    pub fn with_compaction(mut self, compaction: bool) -> Self {
        self.engine.compaction.in_background = compaction;
        self.called("compaction", |settings| settings.compaction = compaction)
    }

    /// Sets the size, in bytes, that merging files aims at. Default: 128 MiB; less where the memory
    /// budget is small.
    pub fn with_compaction_target(mut self, bytes: u64) -> Self {
        self.engine.compaction.target_bytes = bytes;
        self.called("compaction_target", |settings| settings.compaction_target = bytes)
    }

    /// Sets how many bytes per second merging files in the background may read and write. Default: as
    /// many as it can.
    pub fn with_compaction_rate(mut self, bytes_per_second: u64) -> Self {
        self.engine.compaction.bytes_per_second = Some(bytes_per_second);
        self.called("compaction_rate", |s| s.compaction_rate = Some(bytes_per_second))
    }

    /// Says where the warm tier lies: copies of data files in fast memory, which serve reads
    /// (`docs/tiers.md`). Nothing is opened, and no memory taken, before something is to be warm. Default:
    /// [`WarmPlace::Auto`].
    pub fn with_warm(mut self, place: WarmPlace) -> Self {
        self.engine.warm.place = place;
        self.called("warm_backend", |settings| settings.warm_backend = place)
    }

    /// Sets the device of the warm tier, as `CUDA_VISIBLE_DEVICES` counts them. Default: 0.
    pub fn with_warm_device(mut self, device: usize) -> Self {
        self.engine.warm.device = device;
        self.called("warm_device", |settings| settings.warm_device = device)
    }

    /// Sets how many bytes the warm tier's segments may take, at least 1. In the host's memory they are part
    /// of [the memory](Self::with_memory_bytes_max), and at most half of it. Default: a quarter of that, or
    /// 2 GiB of a device.
    pub fn with_warm_bytes_max(mut self, bytes: u64) -> Self {
        self.engine.warm.bytes_max = Some(bytes);
        self.called("warm_max_bytes", |settings| settings.warm_max_bytes = Some(bytes))
    }

    /// Says what is kept warm without being asked for; [`Store::warm`] makes files warm in any case. Default:
    /// [`WarmKeep::Flushed`].
    pub fn with_warm_keep(mut self, keep: WarmKeep) -> Self {
        self.engine.warm.keep = keep;
        self.called("warm_keep", |settings| settings.warm_keep = keep)
    }

    /// Opens devices of the warm tier through these. Default: NVIDIA GPUs with the feature `gpu`, otherwise
    /// none. For tests of what happens when they fail.
    #[doc(hidden)]
    pub fn with_warm_devices(mut self, devices: Arc<dyn WarmDevices>) -> Self {
        self.engine.warm.devices = Some(devices);
        self
    }

    /// Lets reads take the newest state that this handle has seen for the newest there is, for so
    /// long after it was, which saves a request a read. The handle's own writes are seen at once.
    /// Default: zero, every read asks.
    pub fn with_max_staleness(mut self, staleness: Duration) -> Self {
        self.engine.max_staleness = staleness;
        self.called("max_staleness", |settings| settings.max_staleness = staleness)
    }

    /// For a store that is made: how long objects of its log are kept after they have ceased to be
    /// part of it. A reader or writer that pauses for longer begins anew. Whole seconds. Default: a
    /// day.
    pub fn with_log_retention(mut self, retention: Duration) -> Self {
        self.engine.log.retention = retention;
        self.called("log_retention", |settings| settings.log_retention = retention)
    }

    /// Sets whether queries for the newest rows of each key leave out older rows while they read;
    /// the answers are the same either way. Default: true.
    pub fn with_key_pruning(mut self, key_pruning: bool) -> Self {
        self.queries = self.queries.with_key_pruning(key_pruning);
        self.called("key_pruning", |settings| settings.key_pruning = key_pruning)
    }

    /// Sets what of a plan may be moved to the warm tier; the answers are the same whatever is set.
    /// Default: all that can be.
    pub fn with_warm_push_downs(mut self, warm: WarmPushDowns) -> Self {
        self.queries = self.queries.with_warm(warm);
        self
    }

    /// Chooses numbers that go together; they stand just above the defaults, so that whatever else is
    /// set wins. Default: none.
    pub fn with_preset(self, preset: Preset) -> Self {
        self.called("preset", |settings| settings.preset = Some(preset))
    }

    /// Reads settings from this file instead of the one in the store's directory. It must be there,
    /// and its name ends in `.toml` or `.json`. What the builder is told by calls wins. Default:
    /// `tidelog.toml` or `tidelog.json` in the directory of a local store, if it is there.
    pub fn with_config_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.layers = self.layers.with_config_file(file);
        self
    }

    /// Does not read the file of settings in the store's directory. Default: it is read.
    pub fn without_config_file(mut self) -> Self {
        self.layers = self.layers.without_own_file();
        self
    }

    /// Takes settings from variables that begin with `TIDELOG_`, such as those of
    /// [`std::env::vars_os`]; they win over files, and calls win over them. Default: the environment
    /// is not read.
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        self.layers = self.layers.with_environment(variables);
        self
    }

    /// Takes settings from these layers; what the builder is told by calls wins. Default: the file in
    /// the store's directory.
    pub fn with_layers(mut self, layers: Layers) -> Self {
        self.layers = self.layers.over(layers);
        self
    }

    /// Notes that a call has set a setting.
    fn called(mut self, name: &'static str, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        set(&mut settings);
        if let Some(text) = settings.value(name) {
            self.layers.called(name, &text);
        }
        self
    }

    /// With what files, environment and flags say.
    async fn loaded(self) -> Result<(Self, Loaded)> {
        let (layers, loaded) = (self.layers.clone(), self.layers.load().await?);
        let mut builder = self;
        for name in loaded.of_texts() {
            builder = builder.set(name, &loaded.settings);
        }
        builder.layers = layers;
        Ok((builder, loaded))
    }

    /// Sets one setting.
    fn set(self, name: &str, settings: &Settings) -> Self {
        let tier = &self.engine.tier;
        let (rows_max, bytes_max) = (tier.rows_max, tier.bytes_max);
        match name {
            "mode" => self.with_mode(settings.mode),
            "durability" => self.with_wal_durability(settings.durability),
            "hot_max_rows" => self.with_hot_max(settings.hot_max_rows, bytes_max),
            "hot_max_bytes" => self.with_hot_max(rows_max, settings.hot_max_bytes),
            "hot_max_age" => self.with_hot_age_max(settings.hot_max_age),
            "wal_max_bytes" => self.with_wal_bytes_max(settings.wal_max_bytes),
            "key_pruning" => self.with_key_pruning(settings.key_pruning),
            "max_staleness" => self.with_max_staleness(settings.max_staleness),
            "upkeep" => self.with_upkeep(settings.upkeep),
            "compaction" => self.with_compaction(settings.compaction),
            "compaction_target" => self.with_compaction_target(settings.compaction_target),
            "log_retention" => self.with_log_retention(settings.log_retention),
            "warm_backend" => self.with_warm(settings.warm_backend),
            "warm_device" => self.with_warm_device(settings.warm_device),
            "warm_keep" => self.with_warm_keep(settings.warm_keep),
            _ => self.set_optional(name, settings),
        }
    }

    /// Sets one of the settings that may be absent. Location and preset have had their effect.
    fn set_optional(self, name: &str, settings: &Settings) -> Self {
        match (name, settings) {
            ("wal_dir", Settings { wal_dir: Some(directory), .. }) => {
                self.with_wal_directory(directory)
            }
            ("memory", Settings { memory: Some(bytes), .. }) => {
                self.with_memory_bytes_max(usize::try_from(*bytes).unwrap_or(usize::MAX))
            }
            ("warm_max_bytes", Settings { warm_max_bytes: Some(bytes), .. }) => {
                self.with_warm_bytes_max(*bytes)
            }
            ("compaction_rate", Settings { compaction_rate: Some(bytes), .. }) => {
                self.with_compaction_rate(*bytes)
            }
            ("partitions", Settings { partitions: Some(count), .. }) => {
                self.with_partitions(*count)
            }
            ("cache" | "cache_size", Settings { cache: Some(directory), cache_size, .. }) => {
                self.with_read_cache(directory, *cache_size)
            }
            _ => self,
        }
    }

    /// Opens a store that exists; writes nothing.
    ///
    /// # Errors
    /// If there is none, its format is newer, it is damaged, or it cannot be read; or if settings are
    /// wrong.
    pub async fn open(self) -> Result<Store> {
        let (builder, loaded) = self.loaded().await?;
        let (place, cache) = builder.place(Location::open)?;
        let engine = Engine::open(place, builder.env.clone(), &builder.settled()).await?;
        builder.finish(engine, cache, loaded)
    }

    /// Makes an empty store.
    ///
    /// # Errors
    /// If there is one already, or the place cannot hold one; or if settings are wrong.
    pub async fn create(self) -> Result<Store> {
        let (builder, loaded) = self.loaded().await?;
        let (place, cache) = builder.place(Location::create)?;
        let engine = Engine::create(place, builder.env.clone(), &builder.settled()).await?;
        builder.finish(engine, cache, loaded)
    }

    /// Opens a store, making it if there is none.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub async fn open_or_create(self) -> Result<Store> {
        let (builder, loaded) = self.loaded().await?;
        let (place, cache) = builder.place(Location::create)?;
        let (env, options) = (builder.env.clone(), builder.settled());
        let opened = Engine::open(Arc::clone(&place), env.clone(), &options).await;
        let engine = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let created = Engine::create(Arc::clone(&place), env.clone(), &options);
                match created.await {
                    // Somebody else was faster: then it is there to be opened.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        Engine::open(place, env, &options).await?
                    }
                    created => created?,
                }
            }
            opened => opened?,
        };
        builder.finish(engine, cache, loaded)
    }

    /// Checks all that is stored, also if it is too damaged to be opened, and writes nothing: the
    /// log, the versions of each series, that every data file is there with its size (if `deep`, every
    /// byte of it), and the write-ahead log, if there is one here: that it is whole, and goes on where the
    /// log ends. Writers may go on meanwhile.
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
        let (builder, _) = self.loaded().await?;
        let uncached = Self { read_cache: None, ..builder };
        let (place, _) = uncached.place(Location::open)?;
        let tier = uncached.settled().tier;
        Ok(fsck(place, &uncached.env, &tier, options).await?)
    }

    /// Says what the write-ahead log of one writer alone holds and in what state it is, also if the
    /// store is too damaged to be opened. Writes nothing; the writer may go on meanwhile.
    ///
    /// # Errors
    /// If there is no store or no log, not even the log's id can be read, its format is newer, or it
    /// cannot be read. Other damage is no error: it is in the report.
    pub async fn inspect_wal(self) -> Result<WalReport> {
        let (builder, _) = self.loaded().await?;
        let (tier, opened) = (builder.settled().tier, builder.engine_only().await);
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
        let (builder, _) = self.loaded().await?;
        let (tier, opened) = (builder.settled().tier, builder.engine_only().await);
        let snapshot = opened.as_ref().ok().map(|engine| engine.log().snapshot());
        let outcome = repair_wal(tier, builder.env.clone(), snapshot).await;
        outcome.map_err(|error| missing(error, opened))
    }

    /// Brings in what a write-ahead log holds of a writer whose store was
    /// [taken over](Self::with_take_over): its rows become new versions, for their numbers may have been
    /// given to others since. They go to the series that they were acknowledged for, also if that was
    /// renamed. It may be cut short and repeated; nothing comes twice. Of a writer that died and was not
    /// taken over the versions keep their numbers, as if the next writer had brought them in.
    ///
    /// # Errors
    /// If there is no store or no log, its owner lives, or another writer has the store. If a series was
    /// removed, or its columns do not fit any more, nothing is brought in, and the error says what to do.
    pub async fn recover_wal(self, options: &RecoverOptions) -> Result<WalRecovery> {
        let (builder, _) = self.loaded().await?;
        let engine = builder.engine_only().await?;
        Ok(recover_wal(&engine, options).await?)
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
            &Arc<dyn FileSystem>,
        ) -> Result<Arc<dyn ObjectStore>, tidelog_storage::Error>,
    ) -> Result<(Arc<dyn ObjectStore>, Option<ReadCache>)> {
        let (place, identity) = match &self.object_store {
            Some(store) => (Arc::clone(store), Some(location::shown(&self.location))),
            None => {
                let location: Location = self.location.parse()?;
                let identity = location.is_remote().then(|| location.to_string());
                (connect(&location, &self.storage, &self.env, &self.files)?, identity)
            }
        };
        let place = match &self.layer {
            Some(layer) => layer(place),
            None => place,
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
        if self.object_store.is_none() {
            let location = self.location.parse::<Location>().ok();
            let local = location.as_ref().and_then(Location::local_path);
            tier.usual_wal_directory = local.map(|root| root.join(names::WAL_DIRECTORY));
            tier.wal_directory =
                tier.wal_directory.take().or_else(|| tier.usual_wal_directory.clone());
            if let Some(root) = local {
                options.pins = Pins::at(root.join(names::PIN_FILE));
                options.staged = StagedNames::on(root.to_owned(), Arc::clone(&self.files));
            }
        }
        options
    }

    fn finish(
        self,
        engine: Engine,
        read_cache: Option<ReadCache>,
        loaded: Loaded,
    ) -> Result<Store> {
        let queries = Queries::try_new(engine, &self.queries)?;
        Ok(Store::new(queries, read_cache, LiveSettings::new(self.layers, loaded.settings)))
    }
}

/// Defaults, with the devices that this build can use.
fn engine_options() -> EngineOptions {
    #[cfg_attr(not(feature = "gpu"), expect(unused_mut, reason = "a build without GPUs has none"))]
    let mut options = EngineOptions::default();
    #[cfg(feature = "gpu")]
    {
        options.warm.devices = Some(Arc::new(crate::gpu::Gpus));
    }
    options
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
