//! What is asked of the object store: how many requests, of which objects, and never a listing.

use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use tidelog::arrow::array::{
    ArrayRef, AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray,
};
use tidelog::arrow::datatypes::Int64Type;
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::{Mode, SeriesExt, Store, UpkeepMode};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::{Operation, Request};

const LARGE_ROWS: i64 = 20_000;
const SMALL_ROWS: i64 = 10;

/// A store with a series of large files and one of small ones, its log merged.
struct Bed {
    counting: CountingStore,
    store: Store,
}

impl Bed {
    async fn new(versions: i64) -> Result<Self> {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let filled = Store::builder("memory://").with_object_store(Arc::clone(&memory));
        let filled = filled.with_upkeep(UpkeepMode::OnRequest).create().await?;
        for version in 0..versions {
            for (path, rows) in [("/large.series", LARGE_ROWS), ("/small.series", SMALL_ROWS)] {
                filled.root().append_series_data(path, &batch(version * rows, rows)?, None).await?;
            }
        }
        filled.maintain(true).await?;
        let counting = CountingStore::new(memory);
        let store = Store::builder("memory://").with_object_store(Arc::new(counting.clone()));
        let store = store.with_upkeep(UpkeepMode::OnRequest).open().await?;
        Ok(Self { counting, store })
    }

    /// The requests of reading some rows of a version from the middle.
    async fn range(&self, path: &str, rows: i64, version: i64) -> Result<Vec<String>> {
        drop(self.counting.take());
        let from = (version * rows + rows / 2) * 1_000_000_000;
        let root = self.store.root();
        let stream = root.read_series_time_range(path, from, from + 3_000_000_000);
        let batches: Vec<RecordBatch> = stream.await?.try_collect().await?;
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
        Ok(self.counting.take().iter().map(words).collect())
    }
}

fn words(request: &Request) -> String {
    let object = match request.path.split_once('/') {
        Some(("series", _)) => "data",
        _ if request.path.ends_with(".json") => "commit",
        _ if request.path.ends_with(".checkpoint.parquet") => "checkpoint",
        _ if request.path.contains("part-") => "part",
        _ => request.path.as_str(),
    };
    format!("{:?} {object}", request.operation)
}

fn batch(start: i64, rows: i64) -> Result<RecordBatch> {
    let seconds = start..start + rows;
    let times = TimestampMicrosecondArray::from_iter_values(seconds.clone().map(|s| s * 1_000_000));
    // Fibonacci hashing: nothing that an encoding could make small.
    let noise =
        |second: i64| (second.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64;
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(times.with_timezone("UTC")) as ArrayRef),
        ("a", Arc::new(Float64Array::from_iter_values(seconds.clone().map(noise)))),
        ("b", Arc::new(Float64Array::from_iter_values(seconds.map(|s| noise(s + 1))))),
    ])?)
}

#[tokio::test]
async fn a_range_asks_for_the_head_the_log_rows_and_the_data() -> Result<()> {
    let bed = Bed::new(40).await?;
    let (head, part) = ("Get commit", "Get part");
    let first = bed.range("/large.series", LARGE_ROWS, 3).await?;
    assert_eq!(first, [head, part, "Get data", "Get data"]);
    let again = bed.range("/large.series", LARGE_ROWS, 5).await?;
    assert_eq!(again, [head, "Get data", "Get data"]);
    let cached = bed.range("/large.series", LARGE_ROWS, 5).await?;
    assert_eq!(cached, [head, "Get data"]);
    let first = bed.range("/small.series", SMALL_ROWS, 3).await?;
    assert_eq!(first, [head, part, "Get data"]);
    let again = bed.range("/small.series", SMALL_ROWS, 5).await?;
    assert_eq!(again, [head, "Get data"]);
    Ok(())
}

#[tokio::test]
async fn opening_and_appending_list_nothing() -> Result<()> {
    let bed = Bed::new(40).await?;
    let opened = bed.counting.take();
    assert!(opened.iter().all(|request| request.operation == Operation::Get), "{opened:?}");
    bed.store.root().append_series_data("/small.series", &batch(0, 3)?, None).await?;
    drop(bed.counting.take());
    bed.store.root().append_series_data("/small.series", &batch(3, 3)?, None).await?;
    let mut asked: Vec<String> = bed.counting.take().iter().map(words).collect();
    asked.sort();
    assert_eq!(asked, ["Put commit", "Put data", "Put part"]);
    Ok(())
}

#[tokio::test]
async fn a_glob_reads_the_log_rows_of_its_series_together() -> Result<()> {
    const SERIES: i64 = 40;
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let filled = Store::builder("memory://").with_object_store(Arc::clone(&memory));
    let filled = filled.with_upkeep(UpkeepMode::OnRequest).create().await?;
    for number in 0..SERIES {
        let path = format!("/{number}.series");
        filled.root().append_series_data(&path, &batch(number, 3)?, None).await?;
    }
    filled.maintain(true).await?;
    filled.root().append_series_data("/0.series", &batch(100, 1)?, None).await?;
    let counting = CountingStore::new(memory);
    let store = Store::builder("memory://").with_object_store(Arc::new(counting.clone()));
    let store = store.with_upkeep(UpkeepMode::OnRequest).open().await?;
    drop(counting.take());
    let counted = store.sql("SELECT count(*) FROM series('/*.series')").await?;
    let batches: Vec<RecordBatch> = counted.try_collect().await?;
    let rows = batches[0].column(0).as_primitive::<Int64Type>().value(0);
    assert_eq!(rows, 3 * SERIES + 1);
    let asked: Vec<String> = counting.take().iter().map(words).collect();
    let parts = asked.iter().filter(|asked| asked.contains("part")).count();
    assert!((1..=2).contains(&parts), "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn a_writer_alone_asks_nothing_about_a_series_that_it_makes() -> Result<()> {
    let counting = CountingStore::new(Arc::new(InMemory::new()));
    let (objects, directory) = (Arc::new(counting.clone()), tempfile::tempdir()?);
    let builder = Store::builder("memory://").with_object_store(objects);
    let builder = builder.with_upkeep(UpkeepMode::OnRequest).with_mode(Mode::Exclusive);
    let store = builder.with_wal_directory(directory.path()).create().await?;
    let (root, rows) = (store.root(), batch(0, 3)?);
    let append =
        async |number: i64| root.append_series_data(&format!("/{number}"), &rows, None).await;
    // So many series in one part of the log that the id of any other lies between theirs.
    for number in 0..200 {
        append(number).await?;
    }
    store.flush().await?;
    drop(counting.take());
    for number in 200..220 {
        append(number).await?;
    }
    let asked: Vec<String> = counting.take().iter().map(words).collect();
    // The head of the log may be looked at meanwhile.
    assert!(!asked.iter().any(|asked| asked.contains("part")), "{asked:?}");
    store.close().await?;
    Ok(())
}

#[tokio::test]
async fn what_others_append_is_seen_in_one_request_for_each_commit() -> Result<()> {
    let bed = Bed::new(3).await?;
    let before = bed.store.versions("/small.series").await?.len();
    let other = Store::builder("memory://").with_object_store(Arc::new(bed.counting.clone()));
    let other = other.with_upkeep(UpkeepMode::OnRequest).open().await?;
    for second in 0..2 {
        other.root().append_series_data("/small.series", &batch(second, 1)?, None).await?;
    }
    drop(bed.counting.take());
    assert_eq!(bed.store.versions("/small.series").await?.len(), before + 2);
    let asked: Vec<String> = bed.counting.take().iter().map(words).collect();
    assert_eq!(asked, ["Get commit", "Get commit", "Get commit"], "the last is not there yet");
    Ok(())
}
