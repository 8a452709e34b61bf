//! Tidelog as the workloads use it: the only module that calls its interface.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, RecordBatch};
use futures::{Stream, StreamExt};
use tidelog::{
    AsOf, FileOrder, LatestOptions, Mode, ReadOptions, SeriesAppend, SeriesExt, SeriesOptions,
    Store, StoreBuilder, StoreStatistics, TierStatistics, TimeRange, Version, WarmPushDowns,
    WorkingDirectory,
};

/// For so long nobody commits anything before the background is taken to be done.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(crate) struct Tidelog {
    store: Store,
    root: WorkingDirectory,
}

impl Tidelog {
    pub(crate) async fn open_or_create(folder: &Path) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Shared);
        Ok(Self::of(builder.open_or_create().await?))
    }

    pub(crate) async fn open(folder: &Path) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Shared);
        Ok(Self::of(builder.open().await?))
    }

    /// A store that this process has for itself.
    pub(crate) async fn open_alone(folder: &Path) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Exclusive);
        Ok(Self::of(builder.open_or_create().await?))
    }

    /// A store that this process has for itself, with other settings than the default.
    pub(crate) async fn open_alone_with(
        folder: &Path,
        set: impl FnOnce(StoreBuilder) -> StoreBuilder,
    ) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Exclusive);
        Ok(Self::of(set(builder).open_or_create().await?))
    }

    /// A store that others may write too, with other settings than the default.
    pub(crate) async fn open_with(
        folder: &Path,
        set: impl FnOnce(StoreBuilder) -> StoreBuilder,
    ) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Shared);
        Ok(Self::of(set(builder).open().await?))
    }

    /// Makes all files of a series warm; their rows, and the bytes that they take there.
    pub(crate) async fn warm(&self, path: &str) -> Result<(u64, u64)> {
        let filled = self.store.warm(path, TimeRange::ALL).await?;
        Ok((filled.rows, filled.bytes))
    }

    /// The same store, of which nothing is asked of the warm tier.
    pub(crate) fn without_warm(&self) -> Self {
        Self::of(self.store.with_warm_push_downs(&WarmPushDowns::none()))
    }

    /// A store whose files nobody merges unless asked to.
    pub(crate) async fn open_uncompacted(folder: &Path) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Shared).with_compaction(false);
        Ok(Self::of(builder.open_or_create().await?))
    }

    /// The same with limits so high that nothing is written to files.
    pub(crate) async fn open_alone_unflushed(folder: &Path) -> Result<Self> {
        let builder = Store::builder(text(folder)?).with_mode(Mode::Exclusive);
        let builder = builder.with_hot_max(u64::MAX, u64::MAX).with_wal_bytes_max(u64::MAX);
        Ok(Self::of(builder.with_hot_age_max(Duration::MAX).open_or_create().await?))
    }

    /// Writes to files what is in memory.
    pub(crate) async fn flush(&self) -> Result<()> {
        Ok(self.store.flush().await?)
    }

    /// The same, and gives the store back.
    pub(crate) async fn close(&self) -> Result<()> {
        Ok(self.store.close().await?)
    }

    pub(crate) fn tiers(&self) -> Option<TierStatistics> {
        self.store.tiers()
    }

    /// Bytes of the write-ahead log; none before the first write.
    pub(crate) fn wal_bytes(&self) -> Result<usize> {
        Ok(usize::try_from(self.tiers().map_or(0, |tiers| tiers.wal_bytes))?)
    }

    fn of(store: Store) -> Self {
        let root = store.root();
        Self { store, root }
    }

    /// A series of rows about `key`, as a user would declare the benchmark suite's data.
    pub(crate) async fn create_keyed(&self, path: &str, time: &str, key: &str) -> Result<()> {
        let options = SeriesOptions::default()
            .with_time_column(time)
            .with_key_columns([key])
            .with_dedup(false);
        self.root.create_series(path, options).await?;
        Ok(())
    }

    /// A series of rows about `key` whose files are ordered by time, or by key and time.
    pub(crate) async fn create_ordered(
        &self,
        path: &str,
        time: &str,
        key: &str,
        by_key: bool,
    ) -> Result<()> {
        let order = if by_key { FileOrder::KeyTime } else { FileOrder::Time };
        let options = SeriesOptions::default().with_time_column(time).with_key_columns([key]);
        self.root.create_series(path, options.with_order(order)).await?;
        Ok(())
    }

    /// A series of which a later row replaces the one before it at the same instant.
    pub(crate) async fn create_deduplicated(&self, path: &str, time: &str) -> Result<()> {
        let options = SeriesOptions::default().with_time_column(time).with_dedup(true);
        self.root.create_series(path, options).await?;
        Ok(())
    }

    /// Appends one version and waits until it is durable.
    pub(crate) async fn append(&self, path: &str, batch: &RecordBatch, time: &str) -> Result<()> {
        self.root.append_series_data(path, batch, Some(time)).await?;
        Ok(())
    }

    /// Appends one version per batch in one call; all of them must succeed.
    pub(crate) async fn append_many(&self, appends: Vec<SeriesAppend>) -> Result<()> {
        let receipts = self.root.append_many(appends).await?;
        receipts.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// All rows with event times between the two, both included, in order.
    pub(crate) async fn range(
        &self,
        path: &str,
        start_us: i64,
        end_us: i64,
    ) -> Result<Vec<RecordBatch>> {
        let (start, end) = (start_us * 1000, end_us * 1000);
        collect(self.root.read_series_time_range(path, start, end).await?).await
    }

    /// The same as of a version.
    pub(crate) async fn range_as_of(
        &self,
        path: &str,
        start_us: i64,
        end_us: i64,
        version: u64,
    ) -> Result<Vec<RecordBatch>> {
        let range = TimeRange::try_new(start_us * 1000, end_us * 1000)?;
        let as_of = AsOf::Version(Version::new(i64::try_from(version)?));
        let options = ReadOptions::default().with_range(range).with_as_of(as_of);
        collect(self.root.read_series_with_options(path, &options).await?).await
    }

    /// All rows, in order.
    pub(crate) async fn all(&self, path: &str) -> Result<Vec<RecordBatch>> {
        collect(self.root.read_series_all(path).await?).await
    }

    /// Merges the files of a series as far as that goes; bytes written.
    pub(crate) async fn compact(&self, path: &str) -> Result<u64> {
        let report = self.store.compact(path).await?;
        Ok(report.series.iter().map(|series| series.bytes_written).sum())
    }

    /// Waits until the background merges no more files.
    pub(crate) async fn settled(&self) -> Result<()> {
        let (mut head, mut since) = (self.commits(), Instant::now());
        while since.elapsed() < SETTLED_AFTER {
            tokio::time::sleep(SETTLED_AFTER / 10).await;
            if self.commits() != head {
                (head, since) = (self.commits(), Instant::now());
            }
        }
        Ok(())
    }

    /// How many files a series has.
    pub(crate) async fn files(&self, path: &str) -> Result<usize> {
        Ok(self.objects(path).await?.len())
    }

    /// The files of a series, relative to the store.
    pub(crate) async fn objects(&self, path: &str) -> Result<Vec<String>> {
        let layout = self.store.layout(path).await?;
        Ok(layout.files.into_iter().filter_map(|file| file.object).collect())
    }

    /// Bytes of the files of a series.
    pub(crate) async fn file_bytes(&self, path: &str) -> Result<u64> {
        Ok(self.store.layout(path).await?.file_bytes())
    }

    pub(crate) async fn statistics(&self) -> Result<StoreStatistics> {
        Ok(self.store.statistics().await?)
    }

    /// Shows every batch of the series, in order, and keeps none.
    pub(crate) async fn for_each_batch(
        &self,
        path: &str,
        mut show: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut stream = self.root.read_series_all(path).await?;
        while let Some(batch) = stream.next().await {
            show(&batch?)?;
        }
        Ok(())
    }

    /// The newest row of each key.
    pub(crate) async fn newest(&self, path: &str) -> Result<RecordBatch> {
        Ok(self.root.read_series_latest(path, &LatestOptions::default()).await?)
    }

    pub(crate) async fn sql(&self, statement: &str) -> Result<Vec<RecordBatch>> {
        collect(self.store.sql(statement).await?).await
    }

    /// Does all the upkeep that is due.
    pub(crate) async fn maintain(&self, full: bool) -> Result<()> {
        self.store.maintain(full).await?;
        Ok(())
    }

    /// How many commits at the end of the log no merge has taken in yet.
    pub(crate) fn tail_length(&self) -> usize {
        self.store.log_tail_length()
    }

    /// Commits of the log, as far as this handle has seen them.
    pub(crate) fn commits(&self) -> u64 {
        self.store.log_head()
    }

    /// The rows of a series, counted by SQL.
    pub(crate) async fn count(&self, path: &str) -> Result<usize> {
        self.count_in(&format!("\"{path}\"")).await
    }

    /// The rows of all series that match, counted by SQL.
    pub(crate) async fn count_all(&self, pattern: &str) -> Result<usize> {
        self.count_in(&format!("series('{pattern}')")).await
    }

    async fn count_in(&self, table: &str) -> Result<usize> {
        let answer = self.sql(&format!("SELECT count(*) FROM {table}")).await?;
        let counts = answer.first().context("a count without an answer")?;
        let count = counts.column(0).as_primitive::<arrow::datatypes::Int64Type>();
        ensure!(count.len() == 1, "a count of {} rows", count.len());
        Ok(usize::try_from(count.value(0))?)
    }
}

/// One version to append: a batch of a series with this time column.
pub(crate) fn version_of(path: &str, batch: &RecordBatch, time: &str) -> SeriesAppend {
    SeriesAppend::new(path, batch.clone()).with_time_column(time)
}

async fn collect<E>(stream: impl Stream<Item = Result<RecordBatch, E>>) -> Result<Vec<RecordBatch>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut stream = Box::pin(stream);
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}

fn text(folder: &Path) -> Result<&str> {
    folder.to_str().with_context(|| format!("{} is not UTF-8", folder.display()))
}
