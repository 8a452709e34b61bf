//! What plans look like and what they open.
//!
//! Snapshots pin the plans, so that one cannot silently get worse; the counting store shows that
//! the plan's promise is kept. A plan that changes on purpose is reviewed like code: run the tests
//! with `INSTA_UPDATE=always` and read the difference.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use insta::assert_snapshot;
use tidelog::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use tidelog::arrow::datatypes::Int64Type;
use tidelog::arrow::util::pretty::pretty_format_batches;
use tidelog::object_store::memory::InMemory;
use tidelog::{
    AsOf, ReadOptions, SeriesAppend, SeriesExt, SeriesOptions, Store, Version, WriteTime,
};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::Operation;

const HOUR: i64 = 3_600_000_000;

struct Fixture {
    store: Store,
    counting: CountingStore,
}

impl Fixture {
    async fn new() -> Result<Self> {
        let counting = CountingStore::new(Arc::new(InMemory::new()));
        let store = Store::builder("memory://")
            .with_object_store(Arc::new(counting.clone()))
            .with_partitions(2)
            .with_compaction(false)
            .create()
            .await?;
        Ok(Self { store, counting })
    }

    /// Ten files of an hour each, one version each, 60 rows a file.
    async fn hourly() -> Result<Self> {
        let fixture = Self::new().await?;
        for hour in 0..10 {
            fixture.append("/s", &rows(hour * HOUR, 60, HOUR / 60)?).await?;
        }
        Ok(fixture)
    }

    /// The same, of which only the first hours lie in files, and each later one in a piece in memory.
    async fn hourly_but_hot_from(hot: i64) -> Result<Self> {
        let fixture = Self::new().await?;
        let mut pieces = Vec::new();
        for hour in 0..10 {
            let batch = rows(hour * HOUR, 60, HOUR / 60)?;
            if hour < hot {
                fixture.append("/s", &batch).await?;
            } else {
                let time = WriteTime::from_micros(i64::MAX / 2 + hour);
                pieces.push(("/s".to_owned(), vec![(batch, time)]));
            }
        }
        let store = fixture.store.with_hot_versions(&pieces).await?;
        Ok(Self { store, ..fixture })
    }

    async fn append(&self, path: &str, batch: &RecordBatch) -> Result<()> {
        self.store.root().append_series_data(path, batch, None).await?;
        Ok(())
    }

    async fn sql(&self, statement: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.store.sql(statement).await?.try_collect().await?)
    }

    async fn plan(&self, statement: &str) -> Result<String> {
        let rows = self.sql(&format!("EXPLAIN {statement}")).await?;
        let text = rows.last().and_then(|batch| {
            let kinds = batch.column(0).as_string_view_opt()?;
            let plans = batch.column(1).as_string_view_opt()?;
            let row = (0..kinds.len()).find(|row| kinds.value(*row) == "physical_plan")?;
            Some(plans.value(row).to_owned())
        });
        match text {
            Some(text) => Ok(text),
            None => {
                let batch = &rows[0];
                let plans = batch.column(1).as_string::<i32>();
                Ok(plans.value(batch.num_rows() - 1).to_owned())
            }
        }
    }

    /// Data files that were read since the last call, and in how many requests.
    fn opened(&self) -> (usize, usize) {
        let requests = self.counting.take();
        let data: Vec<_> = requests
            .into_iter()
            .filter(|r| r.operation == Operation::Get && r.path.starts_with("series/"))
            .collect();
        let files: BTreeSet<_> = data.iter().map(|r| r.path.clone()).collect();
        (files.len(), data.len())
    }
}

fn rows(start: i64, count: i64, step: i64) -> Result<RecordBatch> {
    let times = (0..count).map(|i| start + i * step);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let values = Float64Array::from_iter_values((0..count).map(|i| i as f64));
    let hosts = StringArray::from_iter_values((0..count).map(|i| format!("h{}", i % 3)));
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(times) as ArrayRef),
        ("host", Arc::new(hosts)),
        ("value", Arc::new(values)),
    ])?)
}

fn number(batches: &[RecordBatch], column: usize) -> i64 {
    batches[0].column(column).as_primitive::<Int64Type>().value(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_extremes_of_clean_files_open_none() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.opened();
    let answer = fixture.sql("SELECT count(*), min(time), max(time) FROM \"/s\"").await?;
    assert_eq!(number(&answer, 0), 600);
    let two_hours = "time >= '1970-01-01T03:00:00Z' AND time < '1970-01-01T05:00:00Z'";
    let answer = fixture.sql(&format!("SELECT count(*) FROM \"/s\" WHERE {two_hours}")).await?;
    assert_eq!(number(&answer, 0), 120);
    assert_eq!(fixture.opened(), (0, 0));
    assert_snapshot!(
        "count_without_filter",
        fixture.plan("SELECT count(*), max(time) FROM \"/s\"").await?
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_whose_filter_cuts_two_files_opens_those_two() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.opened();
    let filter = "time >= '1970-01-01T02:30:00Z' AND time <= '1970-01-01T07:29:00Z'";
    let statement = format!("SELECT count(*), min(time), max(time) FROM \"/s\" WHERE {filter}");
    let answer = fixture.sql(&statement).await?;
    assert_eq!(number(&answer, 0), 300);
    assert_eq!(fixture.opened().0, 2);
    assert_snapshot!("count_that_cuts_two_files", fixture.plan(&statement).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_opens_only_the_files_that_it_touches_and_each_once() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.opened();
    let (start, end) = (4 * HOUR * 1000, 5 * HOUR * 1000);
    let stream = fixture.store.root().read_series_time_range("/s", start, end).await?;
    assert_eq!(stream.total_versions(), 2);
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 61);
    assert_eq!(fixture.opened(), (2, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_costs_one_request_also_for_a_reader_that_never_saw_it() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    let reader = Store::builder("memory://")
        .with_object_store(Arc::new(fixture.counting.clone()))
        .open()
        .await?;
    fixture.opened();
    let rows = reader.sql("SELECT sum(value) FROM \"/s\" WHERE time < '1970-01-01T01:00:00Z'");
    let rows: Vec<RecordBatch> = rows.await?.try_collect().await?;
    assert_eq!(rows.len(), 1);
    assert_eq!(fixture.opened(), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_rows_come_from_the_newest_file() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.opened();
    let statement = "SELECT time, value FROM \"/s\" ORDER BY time DESC LIMIT 5";
    let batches = fixture.sql(statement).await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    assert_eq!(fixture.opened().0, 1);
    assert_snapshot!("newest_rows", fixture.plan(statement).await?);
    let filtered = "SELECT time FROM \"/s\" WHERE value > 10 ORDER BY time DESC LIMIT 5";
    fixture.sql(filtered).await?;
    assert_eq!(fixture.opened().0, 1);
    assert_snapshot!("newest_rows_filtered", fixture.plan(filtered).await?);
    Ok(())
}

/// Ten files that follow one another become one, which needs neither a merge nor a sort.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_series_is_read_from_one_file() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.store.compact("/s").await?;
    let statement = "SELECT time, value FROM \"/s\" ORDER BY time";
    assert_snapshot!("compacted", fixture.plan(statement).await?);
    fixture.opened();
    assert_eq!(fixture.sql(statement).await?.iter().map(RecordBatch::num_rows).sum::<usize>(), 600);
    assert!(fixture.opened().0 <= 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_deleted_rows_are_pruned_at_head_and_read_as_of_before() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    let root = fixture.store.root();
    // Two files whole and half of one.
    root.delete_series_data("/s", 2 * HOUR * 1000, (4 * HOUR + HOUR / 2) * 1000 - 1).await?;
    let statement = "SELECT time, value FROM \"/s\" ORDER BY time";
    assert_snapshot!("deleted_at_head", fixture.plan(statement).await?);
    fixture.opened();
    assert_eq!(fixture.sql(statement).await?.iter().map(RecordBatch::num_rows).sum::<usize>(), 450);
    assert!(fixture.opened().0 <= 8);
    let before = "SELECT time, value FROM series('/s', 'v10') ORDER BY time";
    assert_snapshot!("deleted_as_of_before", fixture.plan(before).await?);
    assert_eq!(fixture.sql(before).await?.iter().map(RecordBatch::num_rows).sum::<usize>(), 600);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_rows_come_from_the_oldest_file() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.opened();
    fixture.sql("SELECT time, value FROM \"/s\" ORDER BY time LIMIT 5").await?;
    assert_eq!(fixture.opened().0, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_row_of_each_key_is_looked_for_in_the_newest_file_first() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    let statement = "SELECT DISTINCT ON (host) * FROM \"/s\" ORDER BY host, time DESC";
    assert_snapshot!("newest_of_keys", fixture.plan(statement).await?);
    let filtered = "SELECT host, last_value(value ORDER BY time) FROM \"/s\" WHERE value < 50 \
                    GROUP BY host";
    assert_snapshot!("newest_of_keys_filtered", fixture.plan(filtered).await?);
    // What wants more than the newest rows reads all of them.
    for more in ["count(*)", "min(time)", "last_value(value)", "max(time) FILTER (WHERE value > 1)"]
    {
        let plan = fixture
            .plan(&format!("SELECT host, {more}, max(time) FROM \"/s\" GROUP BY host"))
            .await?;
        assert!(!plan.contains("newest of"), "{plan}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_keys_were_all_seen_later_are_not_decoded() -> Result<()> {
    let fixture = Fixture::new().await?;
    let store = Store::builder("memory://")
        .with_object_store(Arc::new(fixture.counting.clone()))
        .with_partitions(1)
        .open()
        .await?;
    // Two files of each host, one after the other, so that each file is of one host.
    for round in 0..4_i64 {
        let batch = rows(round * HOUR, 60, HOUR / 60)?;
        let host = format!("only {}", round % 2);
        let hosts = StringArray::from_iter_values(std::iter::repeat_n(host, 60));
        let mut columns = batch.columns().to_vec();
        columns[1] = Arc::new(hosts);
        fixture.append("/one", &RecordBatch::try_new(batch.schema(), columns)?).await?;
        fixture.append("/three", &batch).await?;
    }
    fixture.opened();
    let newest =
        |path: &str| format!("SELECT DISTINCT ON (host) * FROM {path} ORDER BY host, time DESC");
    let batches: Vec<RecordBatch> = store.sql(&newest("\"/one\"")).await?.try_collect().await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(fixture.opened(), (2, 2));
    let analyze = format!("EXPLAIN ANALYZE {}", newest("\"/three\""));
    let batches: Vec<RecordBatch> = store.sql(&analyze).await?.try_collect().await?;
    let plan = format!("{batches:?}");
    assert!(plan.contains("row_groups_outdone=3") && plan.contains("rows_outdone=57"), "{plan}");
    assert_eq!(fixture.opened(), (4, 4));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn disjoint_files_are_chained_without_sort_or_merge() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    let statement = "SELECT * FROM \"/s\" ORDER BY time";
    let plan = fixture.plan(statement).await?;
    assert!(!plan.contains("Sort"), "{plan}");
    assert_snapshot!("chain", plan);
    let filtered = "SELECT value FROM \"/s\" WHERE host = 'h1' AND time > '1970-01-01T08:10:00Z' \
                    ORDER BY time";
    assert_snapshot!("chain_filtered", fixture.plan(filtered).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_overlapping_files_are_merged() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.append("/s", &rows(5 * HOUR + HOUR / 2, 60, HOUR / 60)?).await?;
    let statement = "SELECT * FROM \"/s\" ORDER BY time";
    let plan = fixture.plan(statement).await?;
    assert!(!plan.contains("Sort") && plan.contains("merge=1x2"), "{plan}");
    assert_snapshot!("late_file", plan);
    let batches = fixture.sql(statement).await?;
    let times = batches.iter().flat_map(|batch| {
        let times = batch.column(0);
        let times = times.as_primitive::<tidelog::arrow::datatypes::TimestampMicrosecondType>();
        times.values().to_vec()
    });
    let times: Vec<i64> = times.collect();
    assert_eq!(times.len(), 660);
    assert!(times.is_sorted());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deduplication_happens_only_where_files_overlap() -> Result<()> {
    let fixture = Fixture::new().await?;
    let options = SeriesOptions::default().with_key_columns(["host"]).with_dedup(true);
    fixture.store.root().create_series("/d", options).await?;
    for hour in 0..4 {
        fixture.append("/d", &rows(hour * HOUR, 60, HOUR / 60)?).await?;
    }
    let count = "SELECT count(*) FROM \"/d\"";
    fixture.opened();
    assert_eq!(number(&fixture.sql(count).await?, 0), 240);
    assert_eq!(fixture.opened(), (0, 0));
    fixture.append("/d", &rows(2 * HOUR, 30, HOUR / 60)?).await?;
    assert_eq!(number(&fixture.sql(count).await?, 0), 240);
    assert_snapshot!("dedup", fixture.plan(count).await?);
    // A filter on a value must not bring a replaced row back, so it stays above.
    let filtered = "SELECT * FROM \"/d\" WHERE value > 29 AND host = 'h1'";
    assert_snapshot!("dedup_filtered", fixture.plan(filtered).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_inside_a_shared_file_hides_later_rows() -> Result<()> {
    let fixture = Fixture::new().await?;
    let appends = (0..4_i64)
        .map(|i| Ok(SeriesAppend::new("/g", rows(i * HOUR / 2, 60, HOUR / 60)?)))
        .collect::<Result<Vec<_>>>()?;
    for result in fixture.store.root().append_many(appends).await? {
        result?;
    }
    assert_eq!(number(&fixture.sql("SELECT count(*) FROM tidelog.files").await?, 0), 1);
    for (version, expected) in [(1, 60), (2, 120), (4, 240)] {
        let count = format!("SELECT count(*) FROM series('/g', 'v{version}')");
        assert_eq!(number(&fixture.sql(&count).await?, 0), expected, "v{version}");
        let options = ReadOptions::default().with_as_of(AsOf::Version(Version::new(version)));
        let stream = fixture.store.root().read_series_with_options("/g", &options).await?;
        let batches: Vec<RecordBatch> = stream.try_collect().await?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(i64::try_from(rows)?, expected, "v{version}");
    }
    assert_snapshot!(
        "as_of_inside_a_file",
        fixture.plan("SELECT * FROM series('/g', 'v2')").await?
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_glob_reads_several_series_in_one_order() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.append("/t", &rows(HOUR, 60, HOUR / 60)?).await?;
    let statement = "SELECT _path, time FROM series('/*') WHERE _path = '/t' ORDER BY time";
    fixture.opened();
    let batches = fixture.sql(statement).await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 60);
    assert_eq!(fixture.opened().0, 1);
    assert_snapshot!("glob", fixture.plan("SELECT * FROM series('/*') ORDER BY time").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_the_time_of_the_statement_and_chooses_files() -> Result<()> {
    let fixture = Fixture::hourly().await?;
    fixture.opened();
    let recent = "SELECT * FROM \"/s\" WHERE time > now() - INTERVAL '1 hour'";
    assert!(fixture.sql(recent).await?.is_empty());
    assert_eq!(fixture.opened(), (0, 0));
    let same = fixture.sql("SELECT CAST(now() = now() AS BIGINT)").await?;
    assert_eq!(number(&same, 0), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_over_files_and_memory_is_chained_without_sort_or_merge() -> Result<()> {
    let fixture = Fixture::hourly_but_hot_from(5).await?;
    fixture.opened();
    let range = "time >= '1970-01-01T03:30:00Z' AND time < '1970-01-01T06:30:00Z'";
    let statement = format!("SELECT * FROM \"/s\" WHERE {range} ORDER BY time");
    let batches = fixture.sql(&statement).await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 180);
    assert_eq!(fixture.opened(), (2, 2));
    let plan = fixture.plan(&statement).await?;
    assert!(!plan.contains("Sort") && !plan.contains("merge"), "{plan}");
    assert_snapshot!("half_hot_range", plan);
    // A piece that overlaps a file is merged with it as a file would be.
    let late = vec![(rows(2 * HOUR + HOUR / 2, 60, HOUR / 60)?, WriteTime::from_micros(i64::MAX))];
    let store = fixture.store.with_hot_versions(&[("/s".to_owned(), late)]).await?;
    let late = Fixture { store, ..fixture };
    let plan = late.plan("SELECT * FROM \"/s\" ORDER BY time").await?;
    assert!(!plan.contains("Sort") && plan.contains("merge=1x2"), "{plan}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_memory_costs_no_request() -> Result<()> {
    let cold = Fixture::hourly().await?;
    let fixture = Fixture::hourly_but_hot_from(5).await?;
    fixture.opened();
    let answer = fixture.sql("SELECT count(*), min(time), max(time) FROM \"/s\"").await?;
    assert_eq!(number(&answer, 0), 600);
    let filter = "time >= '1970-01-01T04:30:00Z' AND time <= '1970-01-01T07:29:00Z'";
    let count = format!("SELECT count(*), max(time) FROM \"/s\" WHERE {filter}");
    assert_eq!(number(&fixture.sql(&count).await?, 0), 180);
    assert_eq!(fixture.opened().0, 1);
    assert_snapshot!("half_hot_count", fixture.plan(&count).await?);
    for statement in [
        "SELECT time, value FROM \"/s\" ORDER BY time DESC LIMIT 5",
        "SELECT time FROM \"/s\" WHERE value > 10 ORDER BY time DESC LIMIT 5",
        "SELECT sum(value) FROM \"/s\" WHERE time > '1970-01-01T05:10:00Z'",
        "SELECT DISTINCT ON (host) * FROM \"/s\" WHERE time > '1970-01-01T05:10:00Z' \
         ORDER BY host, time DESC",
        "SELECT host, max(time) FROM \"/s\" WHERE time > '1970-01-01T05:10:00Z' \
         AND time < '1970-01-01T08:30:00Z' GROUP BY host ORDER BY host",
    ] {
        let found = pretty_format_batches(&fixture.sql(statement).await?)?.to_string();
        assert_eq!(fixture.opened().0, 0, "{statement}");
        let expected = pretty_format_batches(&cold.sql(statement).await?)?.to_string();
        assert_eq!(expected, found, "{statement}");
    }
    assert_snapshot!(
        "half_hot_newest_rows",
        fixture.plan("SELECT time, value FROM \"/s\" ORDER BY time DESC LIMIT 5").await?
    );
    let newest = "SELECT DISTINCT ON (host) * FROM \"/s\" ORDER BY host, time DESC";
    assert_snapshot!("half_hot_newest_of_keys", fixture.plan(newest).await?);
    let hot = "SELECT value FROM \"/s\" WHERE time > '1970-01-01T08:10:00Z'";
    assert_snapshot!("all_hot", fixture.plan(hot).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn analysis_counts_the_rows_that_come_from_memory() -> Result<()> {
    let fixture = Fixture::hourly_but_hot_from(5).await?;
    let statement = "EXPLAIN ANALYZE SELECT value FROM \"/s\" WHERE time >= '1970-01-01T09:30:00Z'";
    let plan = format!("{:?}", fixture.sql(statement).await?);
    assert!(plan.contains("output_rows=30") && plan.contains("hot_rows_scanned=30"), "{plan}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn column_statistics_of_the_log_rule_files_out() -> Result<()> {
    let fixture = Fixture::new().await?;
    for i in 0..5 {
        let times = TimestampMicrosecondArray::from_iter_values((0..10).map(|t| i * HOUR + t));
        let values = Int64Array::from_iter_values((0..10).map(|v| i * 100 + v));
        let batch = RecordBatch::try_from_iter([
            ("time", Arc::new(times) as ArrayRef),
            ("value", Arc::new(values)),
        ])?;
        fixture.append("/v", &batch).await?;
    }
    fixture.opened();
    let batches = fixture.sql("SELECT * FROM \"/v\" WHERE value = 203").await?;
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(fixture.opened().0, 1);
    Ok(())
}
