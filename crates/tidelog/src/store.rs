//! A store: opening it, its tree, its history, SQL over it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidelog_core::{
    MemoryUsage, NodeId, PathPattern, TimeRange, TimeUnit, TransactionId, TreePath, Version,
    WriteTime,
};
use tidelog_oplog::{
    EntryType, FileOrder, Node, Partition, SeriesOptions, SeriesState, VersionRow,
};
use tidelog_query::{Queries, SqlPolicy, WarmPushDowns};
use tidelog_storage::{ReadCache, ReadCacheStatistics};
use tidelog_store::{
    CompactionReport, Engine, Head, Maintained, TakenOver, TierStatistics, Tiers, WarmFill,
    WarmStatistics,
};

use crate::builder::StoreBuilder;
use crate::directory::WorkingDirectory;
use crate::error::Result;
use crate::settings::{ConfigWatch, LiveSettings, Reloaded, Settings};
use crate::stream::SqlStream;

/// An open store. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Store {
    queries: Queries,
    read_cache: Option<ReadCache>,
    settings: Arc<LiveSettings>,
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
    /// The event times of what it changed: of the rows that it added, and of those that it ended.
    pub range: Option<TimeRange>,
    /// What was asked for, as JSON, if it was more than to add rows: such as `from`, `to` and `where` of
    /// a delete, and how many `rows_ended`.
    pub detail: Option<String>,
    /// The id of the write.
    pub transaction: TransactionId,
    /// Whether the series can be read as of it. If not, its history until then was
    /// [let go](Store::expire), and only a snapshot can show it.
    pub readable: bool,
}

impl VersionInfo {
    fn new(row: &VersionRow, first_readable: Version) -> Self {
        Self {
            path: row.path.clone(),
            version: row.version,
            operation: row.op.name(),
            write_time: row.timestamp,
            rows: row.rows,
            range: row.range,
            detail: row.detail.as_deref().map(str::to_owned),
            transaction: row.transaction,
            readable: row.version >= first_readable,
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
    /// The first version as of which it can be read: the first of all, unless history was
    /// [let go](Store::expire).
    pub first_readable: Version,
    /// Rows of all versions, before deduplication between them.
    pub rows: u64,
    /// Its data files at head, those of replaced rows included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The event times of its rows at head.
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
    /// Those of them whose files are ordered by key.
    pub series_by_key: u64,
    /// Those of them whose files do not cross the borders of days, weeks, months or years.
    pub series_partitioned: u64,
    /// Versions of all series.
    pub versions: u64,
    /// Those of them as of which a series can be read: the history of the others was
    /// [let go](Store::expire).
    pub readable_versions: u64,
    /// Named snapshots.
    pub snapshots: u64,
    /// Rows of all versions.
    pub rows: u64,
    /// Data files at head, those of replaced rows included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of all data files that were ever written, those that compaction has replaced included:
    /// divided by `bytes` they tell how often a byte was written.
    pub bytes_written: u64,
}

impl Store {
    pub(crate) fn new(
        queries: Queries,
        read_cache: Option<ReadCache>,
        settings: LiveSettings,
    ) -> Self {
        Self { queries, read_cache, settings: Arc::new(settings) }
    }

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

    /// The same store, of whose queries only this is moved to the warm tier. The answers are the
    /// same whatever is.
    #[must_use]
    pub fn with_warm_push_downs(&self, warm: &WarmPushDowns) -> Self {
        Self { queries: self.queries.with_warm(warm), ..self.clone() }
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
    /// `tidelog.versions`, `tidelog.files` and `tidelog.store`; `tidelog.tiers` says how much of it is in
    /// memory.
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

    /// One step of upkeep, if the log's tail has grown beyond 32 commits, and one small merge of files
    /// where it is due: what a program does that writes once and ends, after its write is acknowledged.
    ///
    /// # Errors
    /// As [`maintain`](Self::maintain).
    pub async fn maintain_step(&self) -> Result<Maintained> {
        Ok(self.engine().upkeep_step().await?)
    }

    /// Merges the files of the series at a path, or of all that match a glob, until no two overlap and
    /// none is small beside another. It changes no answer, and may run beside readers, writers and
    /// others that do the same. The files that were merged are not deleted: readers may be at them.
    ///
    /// # Errors
    /// If nothing matches, a file is damaged or the store fails; what was done until then stays done.
    pub async fn compact(&self, pattern: &str) -> Result<CompactionReport> {
        Ok(self.engine().compact(&PathPattern::parse(pattern)?).await?)
    }

    /// What [`compact`](Self::compact) would do. Nothing is written.
    ///
    /// # Errors
    /// If nothing matches or the log cannot be read.
    pub async fn compact_dry_run(&self, pattern: &str) -> Result<CompactionReport> {
        Ok(self.engine().compact_dry_run(&PathPattern::parse(pattern)?).await?)
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

    /// The settings that hold now.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.current()
    }

    /// Reads the settings anew from where they came when the store was opened, and applies what may
    /// change while it is open: limits of what is gathered in memory, partitions of queries, how stale
    /// reads may be. Tells what was changed, what needs the store to be opened again, and what is never
    /// changed under way. The environment and calls of the builder are as they were then.
    ///
    /// # Errors
    /// If a file cannot be read or anything in it is wrong; then all stays as it was.
    pub async fn reload_config(&self) -> Result<Reloaded> {
        self.settings.reload(&self.queries).await
    }

    /// Looks at the file of settings each `interval`, and [reloads](Self::reload_config) it when it
    /// has changed (by time or size) and then been still for an interval. A file that comes or goes
    /// counts too. It has a task, which ends when the answer is dropped.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn watch_config(&self, interval: Duration) -> ConfigWatch {
        ConfigWatch::start(self.clone(), Arc::clone(&self.settings), interval)
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

    /// Who holds how much of [the memory budget](StoreBuilder::with_memory_bytes_max), at this moment
    /// and at most so far.
    #[must_use]
    pub fn memory(&self) -> MemoryUsage {
        self.engine().memory().usage()
    }

    /// Whom this handle has [taken the store from](StoreBuilder::with_take_over), if it has.
    #[must_use]
    pub fn taken_over(&self) -> Option<TakenOver> {
        self.engine().taken_over()
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

    /// Makes files warm that hold rows of `range` in the series that match `pattern`, the newest first, until
    /// the warm tier is full of what it has just taken; tells what it has taken, and what not and why. What is
    /// warm serves this handle and its clones from memory, until other files need the room.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tidelog::arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampSecondArray};
    /// # use tidelog::{SeriesExt, Store, TimeRange};
    /// # #[tokio::main(flavor = "multi_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let place = directory.path().to_str().ok_or("a path that is text")?;
    /// let store = Store::builder(place).with_mode(tidelog::Mode::Shared).create().await?;
    /// # let time: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1, 2, 3]));
    /// # let load: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 0.7, 0.2]));
    /// # let batch = RecordBatch::try_from_iter([("time", time), ("load", load)])?;
    /// store.root().append_series_data("/hosts/a.series", &batch, None).await?;
    ///
    /// let filled = store.warm("/hosts/*.series", TimeRange::ALL).await?;
    /// assert_eq!((filled.files, filled.rows), (1, 3));
    /// assert_eq!(store.warm_statistics().segments, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the warm tier is off, the pattern is none or nothing matches it, a file is damaged, or the store
    /// fails. That files do not fit is no error.
    pub async fn warm(&self, pattern: &str, range: TimeRange) -> Result<WarmFill> {
        let pattern = PathPattern::parse(pattern)?;
        Ok(self.engine().fill_warm(&pattern, range).await?)
    }

    /// How much is warm in this handle and its clones, and what was done.
    #[must_use]
    pub fn warm_statistics(&self) -> WarmStatistics {
        self.engine().warm().stats()
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
        let standing = series.files().filter(|file| file.until.is_none());
        let ranges = standing.map(|file| file.range).chain(head.hot_range(node.id));
        let range = ranges.reduce(|a, b| a.union(&b));
        Ok(SeriesDescription {
            path,
            node: node.id,
            created: node.created,
            time_unit: schema.as_ref().map(|s| s.time_unit()).or(node.options.time_unit),
            schema: schema.map(|schema| Arc::clone(schema.columns())),
            options: (*node.options).clone(),
            version: series.head(),
            first_readable: head.snapshot().history().first_readable(node.id),
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
        let (head, node, series) = self.series_node(&path).await?;
        let first = head.snapshot().history().first_readable(node.id);
        Ok(series.versions().iter().map(|row| VersionInfo::new(row, first)).collect())
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

    /// Counts over the whole store. Reads the whole log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn statistics(&self) -> Result<StoreStatistics> {
        let head = self.engine().head().await?;
        let commits = u64::try_from(head.snapshot().next_commit().number()).unwrap_or_default();
        let mut nodes = HashSet::new();
        let history = head.snapshot().history();
        let snapshots = history.snapshots().count() as u64;
        let mut counts = StoreStatistics { commits, snapshots, ..StoreStatistics::default() };
        for (_, node) in head.tree().walk(&TreePath::root()) {
            match node.entry {
                EntryType::Directory => counts.directories += 1,
                EntryType::FileSeries => {
                    let series = head.series(self.engine().log(), node.id).await?;
                    counts.series += 1;
                    let layout = node.options.layout();
                    counts.series_by_key += u64::from(layout.order == FileOrder::KeyTime);
                    counts.series_partitioned += u64::from(layout.partition != Partition::None);
                    let versions = series.versions().len() as u64;
                    let expired = history.first_readable(node.id).number().saturating_sub(1);
                    counts.versions += versions;
                    counts.readable_versions +=
                        versions.saturating_sub(u64::try_from(expired).unwrap_or_default());
                    counts.rows += series.rows_appended();
                    counts.files += series.file_count() as u64;
                    counts.bytes += series.files().map(|file| file.size).sum::<u64>();
                    nodes.insert(node.id);
                }
                EntryType::FileData => {}
            }
        }
        let written = self.engine().log().file_bytes_written(head.snapshot(), &nodes).await;
        counts.bytes_written = written.map_err(tidelog_store::Error::from)?;
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
