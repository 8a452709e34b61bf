//! One memory budget for rows in memory, caches and queries.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::{StreamExt, TryStreamExt};
use tidelog::arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use tidelog::arrow::datatypes::Int64Type;
use tidelog::{ErrorKind, Holder, Mode, SeriesAppend, SeriesExt, Store};

const LIMIT: usize = 48 << 20;
const BATCH_ROWS: i64 = 5_000;
const PATH: &str = "/s";

/// Rows of 80 bytes, whose ranks are in no order.
fn batch(from: i64) -> Result<RecordBatch> {
    let numbers = || from..from + BATCH_ROWS;
    let ranks = numbers().map(|i| i * 7_919 % 1_000_003);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(numbers()));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers()));
    let ranks: ArrayRef = Arc::new(Int64Array::from_iter_values(ranks));
    let named = [("rank", ranks), ("number", Arc::clone(&numbers)), ("time", times)];
    let fill = ["a", "b", "c", "d", "e", "f"].map(|name| (name, Arc::clone(&numbers)));
    Ok(RecordBatch::try_from_iter(named.into_iter().chain(fill))?)
}

async fn open(directory: &std::path::Path) -> Result<Store> {
    let location = directory.to_str().context("a path that is text")?;
    let builder = Store::builder(location).with_mode(Mode::Exclusive).with_partitions(2);
    Ok(builder.with_memory_bytes_max(LIMIT).open_or_create().await?)
}

async fn append(store: &Store, batches: std::ops::Range<i64>) -> Result<()> {
    for index in batches {
        let rows = batch(index * BATCH_ROWS)?;
        store.root().append_series_data(PATH, &rows, Some("time")).await?;
    }
    Ok(())
}

async fn count_and_sum(store: &Store) -> Result<(i64, i64)> {
    let statement = format!("SELECT count(number), sum(number) FROM \"{PATH}\"");
    let rows: Vec<RecordBatch> = store.sql(&statement).await?.try_collect().await?;
    let value = |column: usize| rows[0].column(column).as_primitive::<Int64Type>().value(0);
    Ok((value(0), value(1)))
}

/// The number behind `name` in the metrics of a query, summed over its operators.
async fn metric(store: &Store, statement: &str, name: &str) -> Result<u64> {
    let explain = format!("EXPLAIN ANALYZE {statement}");
    let rows: Vec<RecordBatch> = store.sql(&explain).await?.try_collect().await?;
    let mut text = String::new();
    for row in &rows {
        row.column(1).as_string::<i32>().iter().flatten().for_each(|part| text.push_str(part));
    }
    let name = format!("{name}=");
    let counts = text.split(&name).skip(1);
    Ok(counts
        .filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<u64>().ok()
        })
        .sum())
}

/// How many rows the query yields, all in order of rank and number.
async fn check_sorted(store: &Store, statement: &str) -> Result<i64> {
    let mut rows = store.sql(statement).await?;
    let (mut count, mut last) = (0, (-1, -1));
    while let Some(batch) = rows.try_next().await? {
        let ranks = batch.column(0).as_primitive::<Int64Type>().values();
        let numbers = batch.column(1).as_primitive::<Int64Type>().values();
        for next in ranks.iter().copied().zip(numbers.iter().copied()) {
            assert!(last < next, "{last:?} {next:?}");
            last = next;
            count += 1;
        }
    }
    Ok(count)
}

fn check_peak(store: &Store) {
    let memory = store.memory();
    assert_eq!(memory.limit(), LIMIT as u64);
    assert!(memory.peak() <= memory.limit(), "{memory:?}");
    assert!(memory.held() <= memory.peak());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_memory_and_queries_share_a_small_budget() -> Result<()> {
    const BATCHES: i64 = 60;
    let directory = tempfile::tempdir()?;
    let store = open(directory.path()).await?;
    append(&store, 0..BATCHES / 2).await?;
    let sorted = format!("SELECT * FROM \"{PATH}\" ORDER BY rank, number");
    let asking = async {
        for _ in 0..3 {
            assert!(check_sorted(&store, &sorted).await? >= BATCHES / 2 * BATCH_ROWS);
        }
        anyhow::Ok(())
    };
    tokio::try_join!(asking, append(&store, BATCHES / 2..BATCHES))?;
    let rows = BATCHES * BATCH_ROWS;
    assert_eq!(count_and_sum(&store).await?, (rows, rows * (rows - 1) / 2));
    assert!(metric(&store, &sorted, "spill_count").await? > 0, "the sort fits the memory");
    assert!(store.tiers().context("tiers")?.flushes > 0, "all rows fit the memory");
    check_peak(&store);
    store.close().await?;
    let memory = store.memory();
    assert_eq!((memory.held_by(Holder::Hot), memory.held_by(Holder::Queue)), (0, 0));
    assert_eq!((memory.held_by(Holder::Flush), memory.held_by(Holder::Queries)), (0, 0));
    assert!(memory.held_by(Holder::Footers) > 0);
    Ok(())
}

/// A query that nobody reads on holds what it has. What is kept for appends is enough for them to go
/// on, in smaller generations.
#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_while_a_query_holds_its_memory() -> Result<()> {
    const BATCHES: i64 = 30;
    let directory = tempfile::tempdir()?;
    let store = open(directory.path()).await?;
    append(&store, 0..BATCHES).await?;
    store.flush().await?;
    let statement = format!("SELECT * FROM \"{PATH}\" ORDER BY rank, number");
    let mut held = store.sql(&statement).await?;
    let mut seen = held.next().await.context("rows")??.num_rows() as i64;
    assert!(store.memory().held_by(Holder::Queries) > 0);
    append(&store, BATCHES..3 * BATCHES).await?;
    check_peak(&store);
    while let Some(batch) = held.try_next().await? {
        seen += batch.num_rows() as i64;
    }
    assert_eq!(seen, BATCHES * BATCH_ROWS, "the query sees what was there when it began");
    drop(held);
    let rows = 3 * BATCHES * BATCH_ROWS;
    assert_eq!(count_and_sum(&store).await?, (rows, rows * (rows - 1) / 2));
    assert_eq!(store.memory().held_by(Holder::Queries), 0);
    check_peak(&store);
    Ok(store.close().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_too_small_makes_no_store() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let location = directory.path().join("store");
    let location = location.to_str().context("a path that is text")?;
    let builder = || Store::builder(location);
    let error = builder().with_memory_bytes_max(1 << 20).create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("--memory"), "{error}");
    builder().with_memory_bytes_max(32 << 20).create().await?;
    Ok(())
}

/// Rows of the log of series that nobody asks for go, and come back when somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn many_versions_of_many_series_take_little_memory() -> Result<()> {
    const SERIES: i64 = 24;
    const VERSIONS: i64 = 800;
    let store = Store::builder("memory://").with_memory_bytes_max(32 << 20).create().await?;
    let path = |series: i64| format!("/all/{series}");
    for series in 0..SERIES {
        let appends = (0..VERSIONS).map(|version| {
            let time = TimestampMicrosecondArray::from_iter_values([series + version]);
            let row = RecordBatch::try_from_iter([("time", Arc::new(time) as ArrayRef)])?;
            Ok(SeriesAppend::new(path(series), row))
        });
        let results = store.root().append_many(appends.collect::<Result<Vec<_>>>()?).await?;
        assert!(results.iter().all(std::result::Result::is_ok));
    }
    let most = store.memory().limit() / 16;
    for series in (0..SERIES).chain((0..SERIES).rev()) {
        let versions = store.versions(&path(series)).await?;
        let numbers: Vec<i64> = versions.iter().map(|version| version.version.number()).collect();
        assert_eq!(numbers, (1..=VERSIONS).collect::<Vec<_>>());
        let held = store.memory().held_by(Holder::Log);
        assert!(0 < held && held <= most, "{held} of {most}");
    }
    Ok(())
}

/// To merge files that nobody reads takes no footer out of memory and puts none there.
#[tokio::test(flavor = "multi_thread")]
async fn merges_keep_footers_only_where_those_of_their_files_were() -> Result<()> {
    for has_been_read in [false, true] {
        let directory = tempfile::tempdir()?;
        let location = directory.path().to_str().context("a path that is text")?;
        // An append is a file at once.
        let open = || Store::builder(location).with_mode(Mode::Shared).with_compaction(false);
        let writer = open().create().await?;
        for _ in 0..4 {
            append(&writer, 0..1).await?;
        }
        drop(writer);

        let store = open().open().await?;
        if has_been_read {
            assert_eq!(count_and_sum(&store).await?.0, 4 * BATCH_ROWS);
        }
        let before = store.memory().held_by(Holder::Footers);
        assert_eq!(before > 0, has_been_read);
        let done = store.compact(PATH).await?;
        assert_eq!((done.series[0].files_before, done.series[0].files_after), (4, 1));
        let after = store.memory().held_by(Holder::Footers);
        assert_eq!(after > before, has_been_read, "{before} bytes became {after}");
    }
    Ok(())
}
