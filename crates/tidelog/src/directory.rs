//! A working directory in a store, and what one does with series from there.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidelog_core::{AsOf, EventTime, PathPattern, TimeRange, TimeUnit, TransactionId, TreePath};
use tidelog_oplog::{LayoutChange, SeriesOptions};
use tidelog_query::{LatestOptions, ReadOptions};
use tidelog_store::{Append, AppendReceipt, RevisionReceipt};

use crate::error::Result;
use crate::store::Store;
use crate::stream::SeriesStream;

/// A directory of a store. Paths given to it may be absolute or relative to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkingDirectory {
    store: Store,
    path: TreePath,
}

/// One append of a call that makes several.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeriesAppend {
    path: String,
    batch: RecordBatch,
    time_column: Option<String>,
    time_unit: Option<TimeUnit>,
    transaction: Option<TransactionId>,
}

impl SeriesAppend {
    /// Rows for the series at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, batch: RecordBatch) -> Self {
        Self { path: path.into(), batch, time_column: None, time_unit: None, transaction: None }
    }

    /// Names the time column. Default: found by name and type at the first append.
    #[must_use]
    pub fn with_time_column(mut self, name: impl Into<String>) -> Self {
        self.time_column = Some(name.into());
        self
    }

    /// States the unit of an `Int64` time column. Default: none, which refuses such a column.
    #[must_use]
    pub fn with_time_unit(mut self, unit: TimeUnit) -> Self {
        self.time_unit = Some(unit);
        self
    }

    /// Gives the write an id: repeating it with the same id stores nothing twice. Default: a new
    /// id.
    #[must_use]
    pub fn with_transaction(mut self, id: TransactionId) -> Self {
        self.transaction = Some(id);
        self
    }
}

/// What became of each append of a call, in the order of the call.
pub type AppendResults = Vec<Result<AppendReceipt>>;

impl WorkingDirectory {
    pub(crate) fn new(store: Store, path: TreePath) -> Self {
        Self { store, path }
    }

    /// The store that it is in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// `path` as an absolute path.
    ///
    /// # Errors
    /// If the result is no path.
    pub fn resolve(&self, path: &str) -> Result<TreePath> {
        Ok(TreePath::parse(&self.absolute(path))?)
    }

    fn pattern(&self, path: &str) -> Result<PathPattern> {
        Ok(PathPattern::parse(&self.absolute(path))?)
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else if self.path.is_root() {
            format!("/{path}")
        } else {
            format!("{}/{path}", self.path)
        }
    }

    /// What [`SeriesExt::read_series_latest`] answers if it needs no plan for it: for tests of when that is
    /// so.
    ///
    /// # Errors
    /// As that.
    #[doc(hidden)]
    pub async fn read_series_latest_in_memory(
        &self,
        path: &str,
        options: &LatestOptions,
    ) -> Result<Option<RecordBatch>> {
        Ok(self.store.queries().read_latest_in_memory(&self.pattern(path)?, options).await?)
    }

    fn append_of(&self, append: SeriesAppend) -> Result<Append> {
        let mut engine = Append::new(self.resolve(&append.path)?, append.batch);
        engine.time_column = append.time_column;
        engine.time_unit = append.time_unit;
        engine.transaction = append.transaction;
        Ok(engine)
    }
}

/// What to delete of a series. The default is all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// Event times, both ends included; all if absent.
    pub range: Option<TimeRange>,
    /// A condition on rows, as SQL.
    pub filter: Option<String>,
}

impl DeleteOptions {
    /// Deletes only event times in `range`. Default: all.
    #[must_use]
    pub fn with_range(mut self, range: TimeRange) -> Self {
        self.range = Some(range);
        self
    }

    /// Deletes only rows for which the SQL condition holds; null is not true. It sees one row at a time,
    /// and of a deduplicated series only rows that are shown. Default: all.
    #[must_use]
    pub fn with_filter(mut self, sql: impl Into<String>) -> Self {
        self.filter = Some(sql.into());
        self
    }
}

/// Series from a working directory.
#[async_trait]
pub trait SeriesExt {
    /// Makes an empty series; its columns are fixed by its first version.
    ///
    /// # Errors
    /// If the path is taken or leads through something that is not a directory.
    async fn create_series(&self, path: &str, options: SeriesOptions) -> Result<()>;

    /// Changes how the files of a series are laid out. New files, and those that compaction writes, are
    /// laid out so; [`Store::compact`] brings all of them into the layout.
    ///
    /// # Errors
    /// If there is no series, or it cannot be laid out so: by key without key columns, say.
    async fn set_series_layout(&self, path: &str, change: LayoutChange) -> Result<()>;

    /// Appends `batch` as one version, durable when the call returns. The series is made if it does
    /// not exist; an empty batch stores nothing.
    ///
    /// The time column is `time_column`, or else the series' own, or else the first of `timestamp`,
    /// `Timestamp`, `event_time`, `time`, `ts`, `datetime`, or else the only timestamp column.
    ///
    /// # Errors
    /// If the batch does not fit the series or cannot be committed; nothing is stored then, unless
    /// the kind is [`OutcomeUnknown`](tidelog_core::ErrorKind::OutcomeUnknown).
    async fn append_series_data(
        &self,
        path: &str,
        batch: &RecordBatch,
        time_column: Option<&str>,
    ) -> Result<AppendReceipt>;

    /// Appends one batch with options.
    ///
    /// # Errors
    /// As [`append_series_data`](Self::append_series_data).
    async fn append_series_data_with_options(&self, append: SeriesAppend) -> Result<AppendReceipt>;

    /// Appends many batches, each a version of its own, in one commit. Each succeeds or fails
    /// alone.
    ///
    /// # Errors
    /// Only if a path is none; what became of each append is in the results.
    async fn append_many(&self, appends: Vec<SeriesAppend>) -> Result<AppendResults>;

    /// Appends many batches so that all versions become visible together, or none is stored.
    ///
    /// # Errors
    /// The first thing that stands in the way of any of them.
    async fn append_atomic(&self, appends: Vec<SeriesAppend>) -> Result<Vec<AppendReceipt>>;

    /// Deletes the rows with event times from `start` to `end`, both included, as one new version. As of
    /// the versions before they stay readable. Where there are none, nothing is stored. A bare `i64`
    /// counts nanoseconds since the epoch.
    ///
    /// # Errors
    /// If there is no such series, the range is inverted, or another writer has the store for itself;
    /// nothing is changed then, unless the kind is
    /// [`OutcomeUnknown`](tidelog_core::ErrorKind::OutcomeUnknown).
    async fn delete_series_data(
        &self,
        path: &str,
        start: impl Into<EventTime> + Send,
        end: impl Into<EventTime> + Send,
    ) -> Result<RevisionReceipt>;

    /// Deletes rows with options.
    ///
    /// # Errors
    /// As [`delete_series_data`](Self::delete_series_data), and if the condition names a column that is
    /// not there or cannot be told of a row by itself.
    async fn delete_series_data_with_options(
        &self,
        path: &str,
        options: &DeleteOptions,
    ) -> Result<RevisionReceipt>;

    /// Puts the rows of `batch` in the place of those with event times from `start` to `end`, both
    /// included, as one new version. An empty batch only deletes.
    ///
    /// # Errors
    /// As [`delete_series_data`](Self::delete_series_data), and if the batch does not fit the series or
    /// has a row outside the range.
    async fn replace_series_data(
        &self,
        path: &str,
        start: impl Into<EventTime> + Send,
        end: impl Into<EventTime> + Send,
        batch: &RecordBatch,
    ) -> Result<RevisionReceipt>;

    /// Makes the rows of a series those that are readable as of an earlier point, as one new version. What
    /// was done since stays readable as of its versions. Where nothing was done since, nothing is stored.
    ///
    /// # Errors
    /// As [`delete_series_data`](Self::delete_series_data), and if the series cannot be read as of that
    /// point.
    async fn restore_series(&self, path: &str, to: &AsOf) -> Result<RevisionReceipt>;

    /// Reads the rows with event times from `start` to `end`, both included, in order of event
    /// time. A bare `i64` counts nanoseconds since the epoch.
    ///
    /// # Errors
    /// If there is no such series, the range is inverted, or the log cannot be read.
    async fn read_series_time_range(
        &self,
        path: &str,
        start: impl Into<EventTime> + Send,
        end: impl Into<EventTime> + Send,
    ) -> Result<SeriesStream>;

    /// Reads all rows in order of event time.
    ///
    /// # Errors
    /// If there is no such series or the log cannot be read.
    async fn read_series_all(&self, path: &str) -> Result<SeriesStream>;

    /// Reads a series or a glob of series with options.
    ///
    /// # Errors
    /// If nothing matches, the point in history cannot be read, or an option names a column that is
    /// not there.
    async fn read_series_with_options(
        &self,
        path: &str,
        options: &ReadOptions,
    ) -> Result<SeriesStream>;

    /// Reads the newest row of each key of a series, as one batch with its columns, in order of the keys,
    /// nulls last. Of rows of a key that share the newest event time it is any one. `by` of the options
    /// names other columns than the keys; of a glob of series it is the newest row of each.
    ///
    /// Where all rows are [warm](crate::Store::warm) or wait for their flush, no query is planned for it.
    ///
    /// # Errors
    /// If nothing matches, the point in history cannot be read, an option names a column that is not
    /// there, several series have no time column in common, or the rows do not fit into memory.
    async fn read_series_latest(&self, path: &str, options: &LatestOptions) -> Result<RecordBatch>;
}

#[async_trait]
impl SeriesExt for WorkingDirectory {
    async fn create_series(&self, path: &str, options: SeriesOptions) -> Result<()> {
        Ok(self.store.engine().create_series(&self.resolve(path)?, options).await?)
    }

    async fn set_series_layout(&self, path: &str, change: LayoutChange) -> Result<()> {
        Ok(self.store.engine().set_layout(&self.resolve(path)?, &change).await?)
    }

    async fn append_series_data(
        &self,
        path: &str,
        batch: &RecordBatch,
        time_column: Option<&str>,
    ) -> Result<AppendReceipt> {
        let mut append = SeriesAppend::new(path, batch.clone());
        append.time_column = time_column.map(str::to_owned);
        self.append_series_data_with_options(append).await
    }

    async fn append_series_data_with_options(&self, append: SeriesAppend) -> Result<AppendReceipt> {
        Ok(self.store.engine().append(self.append_of(append)?).await?)
    }

    async fn append_many(&self, appends: Vec<SeriesAppend>) -> Result<AppendResults> {
        let appends =
            appends.into_iter().map(|append| self.append_of(append)).collect::<Result<Vec<_>>>()?;
        let results = self.store.engine().append_many(appends).await;
        Ok(results.into_iter().map(|result| result.map_err(Into::into)).collect())
    }

    async fn append_atomic(&self, appends: Vec<SeriesAppend>) -> Result<Vec<AppendReceipt>> {
        let appends =
            appends.into_iter().map(|append| self.append_of(append)).collect::<Result<Vec<_>>>()?;
        Ok(self.store.engine().append_atomic(appends).await?)
    }

    async fn delete_series_data(
        &self,
        path: &str,
        start: impl Into<EventTime> + Send,
        end: impl Into<EventTime> + Send,
    ) -> Result<RevisionReceipt> {
        let options = DeleteOptions::default().with_range(TimeRange::try_new(start, end)?);
        self.delete_series_data_with_options(path, &options).await
    }

    async fn delete_series_data_with_options(
        &self,
        path: &str,
        options: &DeleteOptions,
    ) -> Result<RevisionReceipt> {
        let path = self.resolve(path)?;
        let condition = match &options.filter {
            Some(sql) => Some(self.store.queries().row_condition(&path, sql).await?),
            None => None,
        };
        let range = options.range.unwrap_or(TimeRange::ALL);
        Ok(self.store.engine().delete_rows(&path, range, condition).await?)
    }

    async fn replace_series_data(
        &self,
        path: &str,
        start: impl Into<EventTime> + Send,
        end: impl Into<EventTime> + Send,
        batch: &RecordBatch,
    ) -> Result<RevisionReceipt> {
        let range = TimeRange::try_new(start, end)?;
        let path = self.resolve(path)?;
        Ok(self.store.engine().replace_rows(&path, range, batch.clone()).await?)
    }

    async fn restore_series(&self, path: &str, to: &AsOf) -> Result<RevisionReceipt> {
        Ok(self.store.engine().restore(&self.resolve(path)?, to).await?)
    }

    async fn read_series_time_range(
        &self,
        path: &str,
        start: impl Into<EventTime> + Send,
        end: impl Into<EventTime> + Send,
    ) -> Result<SeriesStream> {
        let range = TimeRange::try_new(start, end)?;
        self.read_series_with_options(path, &ReadOptions::default().with_range(range)).await
    }

    async fn read_series_all(&self, path: &str) -> Result<SeriesStream> {
        self.read_series_with_options(path, &ReadOptions::default()).await
    }

    async fn read_series_with_options(
        &self,
        path: &str,
        options: &ReadOptions,
    ) -> Result<SeriesStream> {
        let plan = self.store.queries().read(&self.pattern(path)?, options).await?;
        Ok(SeriesStream::new(plan.start()?, plan.total_versions(), plan.time_range()))
    }

    async fn read_series_latest(&self, path: &str, options: &LatestOptions) -> Result<RecordBatch> {
        Ok(self.store.queries().read_latest(&self.pattern(path)?, options).await?)
    }
}
