//! What is made warm on purpose, or kept so, is what its files say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use tidelog::arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampSecondArray};
use tidelog::arrow::compute::cast;
use tidelog::arrow::datatypes::DataType;
use tidelog_core::{AsOf, ErrorKind, PathPattern, TimeRange};
use tidelog_oplog::SeriesOptions;
use tidelog_store::{Append, Engine, WarmKeep, WarmPlace};
use tidelog_testkit::generate::{RawRow, SeriesSpec, TimeKind, batches, specs};
use tidelog_testkit::{Row, rows_of};

use super::seen::{append, batch, cold, create, fetch, numbers, path, shared};
use crate::support::{Fallible, options_of, property, runtime, same, sorted};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(300);

fn all() -> PathPattern {
    PathPattern::parse("/**").unwrap()
}

/// Rows of the columns that segments hold, text as text.
fn plain(rows: &[RecordBatch], held: &[usize]) -> Vec<Row> {
    let mut all = Vec::new();
    for rows in rows {
        all.extend(rows_of(&rows.project(held).unwrap()).unwrap());
    }
    sorted(all)
}

async fn check_segments(spec: &SeriesSpec, versions: &[Vec<RawRow>]) -> Fallible {
    let engine = create(&shared()).await;
    engine.create_series(&path(), options_of(spec)).await.unwrap();
    for rows in versions.iter().filter(|rows| !rows.is_empty()) {
        append(&engine, spec.batch(rows).unwrap()).await;
    }
    let Ok(view) = engine.series(&path(), &AsOf::Head).await else { return Ok(()) };
    let filled = engine.fill_warm(&all(), TimeRange::ALL).await.unwrap();
    let (mut files, mut left) = (0, 0);
    for file in view.files(TimeRange::ALL) {
        let Some(warm) = engine.warm().find(file.file) else {
            left += 1;
            continue;
        };
        files += 1;
        same("rows", &file.rows, &(warm.segment.rows() as u64))?;
        let held: Vec<usize> =
            (0..warm.columns.len()).filter(|column| warm.columns[*column].is_some()).collect();
        let found = fetch(&engine, &warm).unwrap();
        let found = plain(&found, &(0..held.len()).collect::<Vec<_>>());
        same("rows of a file", &plain(&cold(&engine, &view, file).await, &held), &found)?;
    }
    same("files", &(files, left), &(filled.files, filled.left_out.iter().map(|l| l.files).sum()))?;
    if let TimeKind::Timestamp { .. } = spec.time {
        let is_left = |file: &Arc<_>| spec.dedup && !tidelog_oplog::FileRow::clone(file).unique;
        let expected = view.files(TimeRange::ALL).filter(|file| is_left(file)).count() as u64;
        same("files whose rows replace one another", &expected, &left)?;
    }
    Ok(())
}

#[test]
fn a_segment_has_the_rows_of_its_file() {
    let runtime = runtime();
    property(40, (specs(), vec(batches(), 1..6)), |(spec, versions)| {
        runtime.block_on(check_segments(&spec, &versions))
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_is_warm_and_told() {
    let engine = create(&shared()).await;
    for version in 0..4 {
        append(&engine, batch(version * 100, 100, version * 1_000)).await;
    }
    assert_eq!(engine.warm().stats().seals, 0, "a shared handle fills nothing by itself");
    // The times of the third and fourth version.
    let range = TimeRange::try_new(2_010_000_i64, 4_000_000_i64).unwrap();
    let filled = engine.fill_warm(&all(), range).await.unwrap();
    assert_eq!((filled.files, filled.rows, filled.already), (2, 200, 0));
    assert_eq!(filled.bytes, engine.warm().stats().used_bytes);
    assert!(filled.left_out.is_empty(), "{filled:?}");
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len(), tiers.warm, tiers.cold), (400, 200, 200));

    let again = engine.fill_warm(&all(), TimeRange::ALL).await.unwrap();
    assert_eq!((again.files, again.already), (2, 2));
    assert_eq!(numbers(&engine).await.1.warm, 400);
    let none = engine.fill_warm(&PathPattern::parse("/none/*").unwrap(), TimeRange::ALL).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_is_off_says_so() {
    let mut options = shared();
    options.warm.place = WarmPlace::Off;
    let engine = create(&options).await;
    append(&engine, batch(0, 100, 0)).await;
    let refused = engine.fill_warm(&all(), TimeRange::ALL).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("warm_backend"), "{refused}");
    assert!(!engine.warm().is_on());
    assert_eq!(engine.warm().stats().backend, "off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_files_are_warm_where_not_all_fit() {
    let mut options = shared();
    options.warm.bytes_max = Some(10_000);
    let engine = create(&options).await;
    for version in 0..8 {
        append(&engine, batch(version * 100, 100, version * 1_000)).await;
    }
    let filled = engine.fill_warm(&all(), TimeRange::ALL).await.unwrap();
    assert!((1..8).contains(&filled.files), "{filled:?}");
    assert_eq!(filled.left_out.iter().map(|left| left.files).sum::<u64>(), 8 - filled.files);
    assert!(filled.left_out[0].reason.contains("warm_max_bytes"), "{filled:?}");
    let view = engine.series(&path(), &AsOf::Head).await.unwrap();
    let mut files: Vec<_> = view.files(TimeRange::ALL).cloned().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.range.end()));
    let is_warm: Vec<bool> =
        files.iter().map(|file| engine.warm().find(file.file).is_some()).collect();
    let newest = usize::try_from(filled.files).unwrap();
    assert!(is_warm[..newest].iter().all(|warm| *warm), "{is_warm:?}");
    assert!(!is_warm[newest..].iter().any(|warm| *warm), "{is_warm:?}");
    // Nothing was taken that had to go at once.
    assert_eq!(engine.warm().stats().evictions, 0);
}

/// Texts that differ in each row, of a column that is a key or not.
fn texts(first: i64, count: i64) -> RecordBatch {
    let long = |i: i64| format!("{i:>64}");
    let text: StringArray = (first..first + count).map(|i| Some(long(i))).collect();
    let few: StringArray = (0..count).map(|i| Some(format!("{}", i % 3))).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("time", Arc::new(TimestampSecondArray::from_iter_values(first..first + count))),
        ("text", Arc::new(text)),
        ("few", cast(&(Arc::new(few) as ArrayRef), &dictionary()).unwrap()),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// An engine whose dictionaries may take 1 MiB, with texts that are longer together.
async fn with_texts(keys: &[&str]) -> Engine {
    let mut options = shared();
    options.memory_bytes_max = Some(32 << 20);
    let engine = create(&options).await;
    let series = SeriesOptions::default().with_key_columns(keys.iter().copied());
    engine.create_series(&path(), series).await.unwrap();
    for version in 0..3 {
        let rows = texts(version * 5_000, 5_000);
        engine.append(Append::new(path(), rows)).await.unwrap();
    }
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_of_too_many_texts_is_left_out_once_and_for_all() {
    let engine = with_texts(&["few"]).await;
    let filled = engine.fill_warm(&all(), TimeRange::ALL).await.unwrap();
    assert_eq!((filled.files, filled.rows), (3, 15_000), "{filled:?}");
    let view = engine.series(&path(), &AsOf::Head).await.unwrap();
    let held: Vec<_> = view
        .files(TimeRange::ALL)
        .map(|file| engine.warm().find(file.file).unwrap().columns.to_vec())
        .collect();
    // The newest file was first.
    assert_eq!(
        held,
        [[Some(0), None, Some(1)], [Some(0), None, Some(1)], [Some(0), Some(1), Some(2)]]
    );
    assert_eq!(engine.warm().stats().fallbacks, BTreeMap::from([("unsupported".to_owned(), 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_of_too_many_keys_is_not_tried_again() {
    let engine = with_texts(&["text"]).await;
    for _ in 0..2 {
        let filled = engine.fill_warm(&all(), TimeRange::ALL).await.unwrap();
        assert!(filled.left_out[0].reason.contains("distinct values"), "{filled:?}");
    }
    let stats = engine.warm().stats();
    assert_eq!((stats.segments, stats.seals), (1, 1), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recent_files_are_kept_warm() {
    let mut options = shared();
    // Two versions are 1,000 microseconds apart.
    options.warm.keep = WarmKeep::Recent(Duration::from_micros(1_500));
    let engine = create(&options).await;
    for version in 0..5 {
        append(&engine, batch(version * 100, 100, version * 1_000)).await;
    }
    let began = Instant::now();
    while numbers(&engine).await.1.warm < 200 {
        assert!(began.elapsed() < PATIENCE, "{:?}", engine.warm().stats());
        tokio::task::yield_now().await;
    }
    append(&engine, batch(500, 100, 5_000)).await;
    let newest = engine.series(&path(), &AsOf::Head).await.unwrap();
    let newest = newest.files(TimeRange::ALL).map(|file| file.file).last().unwrap();
    while engine.warm().find(newest).is_none() {
        assert!(began.elapsed() < PATIENCE, "{:?}", engine.warm().stats());
        engine.head().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(engine.warm().stats().rows < 600, "what is old stays cold");
    // No task keeps the store open.
    let place = Arc::downgrade(engine.object_store());
    drop(engine);
    while place.strong_count() > 0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
}
