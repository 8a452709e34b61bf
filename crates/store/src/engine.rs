//! One store: its log, its writer, its files.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidelog_core::{Env, PathPattern, TransactionId, TreePath, Version, WriteTime};
use tidelog_oplog::{EntryType, Log, LogOptions, Node, SeriesOptions};
use tidelog_storage::object_store::ObjectStore;

use crate::commit::{Landed, Rejected, TreeChange, Work, Writer};
use crate::error::Error;
use crate::file_reader::FileReaders;
use crate::head::Head;
use crate::hot::HotState;
use crate::series_schema::SeriesSchema;
use crate::upkeep::UpkeepMode;

/// Who may write to a store while a handle is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Any number of processes; an append is durable by its commit.
    #[default]
    Shared,
    /// This handle alone; an append is durable by a write-ahead log. Not in this build.
    Exclusive,
}

impl Mode {
    /// Checks that this build has the mode.
    ///
    /// # Errors
    /// [`Error::NoExclusiveMode`] if it has not.
    pub fn check(self) -> Result<(), Error> {
        match self {
            Self::Shared => Ok(()),
            Self::Exclusive => Err(Error::NoExclusiveMode),
        }
    }
}

/// Numbers that a store can be opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Bytes of decoded footers kept in memory.
    pub footer_cache_bytes_max: u64,
    /// Who keeps the log short.
    pub upkeep: UpkeepMode,
    /// For how long a read may take the newest state that the handle has seen for the newest there
    /// is. Zero asks the store at every read.
    pub max_staleness: Duration,
    /// Settings of the log, for a store that is made.
    pub log: LogOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            footer_cache_bytes_max: 64 * 1024 * 1024,
            upkeep: UpkeepMode::default(),
            max_staleness: Duration::ZERO,
            log: LogOptions::default(),
        }
    }
}

/// An open store. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    log: Log,
    env: Env,
    files: FileReaders,
    upkeep: UpkeepMode,
    max_staleness: Duration,
    writer: Mutex<Option<Writer>>,
}

impl Engine {
    /// Makes an empty store.
    ///
    /// # Errors
    /// If there is one already, or the object store cannot hold one.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        env: Env,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let log = Log::create(Arc::clone(&store), env.clone(), &options.log).await?;
        Ok(Self::with_log(store, log, env, options))
    }

    /// Opens a store that exists. Nothing is written.
    ///
    /// # Errors
    /// If there is none, its format is newer, it is damaged, or it cannot be read.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        env: Env,
        options: &EngineOptions,
    ) -> Result<Self, Error> {
        let log = Log::open(Arc::clone(&store), env.clone()).await?;
        Ok(Self::with_log(store, log, env, options))
    }

    fn with_log(store: Arc<dyn ObjectStore>, log: Log, env: Env, options: &EngineOptions) -> Self {
        let files = FileReaders::new(Arc::clone(&store), options.footer_cache_bytes_max);
        let (upkeep, max_staleness) = (options.upkeep, options.max_staleness);
        let writer = Mutex::default();
        Self { inner: Arc::new(Inner { store, log, env, files, upkeep, max_staleness, writer }) }
    }

    /// The object store underneath.
    #[must_use]
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// The operation log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Readers of data files.
    #[must_use]
    pub fn files(&self) -> &FileReaders {
        &self.inner.files
    }

    /// Clock and randomness.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// The newest committed state: one request, or none within the staleness that is allowed.
    ///
    /// # Errors
    /// If the log cannot be read or is damaged.
    pub async fn head(&self) -> Result<Head, Error> {
        let hot = HotState::default();
        Head::new(self.inner.log.refresh_after(self.inner.max_staleness).await?, hot)
    }

    pub(crate) fn new_transaction(&self) -> TransactionId {
        TransactionId::random(self.inner.env.randomness.as_ref())
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
                let (store, log, env) =
                    (Arc::clone(&inner.store), inner.log.clone(), inner.env.clone());
                writer.insert(Writer::spawn(store, log, env, inner.upkeep)).clone()
            }
        }
    }

    async fn change_tree(&self, change: TreeChange) -> Result<(), Error> {
        match self.submit(Work::Tree(change)).await {
            Ok(_) => Ok(()),
            Err(Rejected::Failed(error)) => Err(error),
            Err(Rejected::Stale) => Err(Error::Closed),
        }
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
        let options = Some(Arc::new(options));
        let entry = EntryType::FileSeries;
        self.change_tree(TreeChange::Create { path: path.clone(), entry, options }).await
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
}
