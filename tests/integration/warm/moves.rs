//! Every row is seen once while rows move between memory, segments and files.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tidelog::arrow::array::AsArray;
use tidelog::arrow::datatypes::Int64Type;
use tidelog_core::{AsOf, EventTime, PathPattern, TimeRange};
use tidelog_oplog::SeriesOptions;
use tidelog_store::{Engine, VacuumOptions};
use tidelog_warm::{Op, Output, Request};

use super::seen::{Found, alone, append, batch, create, engine_alone, numbers, numbers_of, path};

/// What each version shows: how many rows, and the sum of their numbers.
type Expected = Arc<Mutex<BTreeMap<i64, (usize, i64)>>>;

fn times(first: i64, last: i64) -> TimeRange {
    let time = |micros: i64| EventTime::from_nanos(micros * 1000);
    TimeRange::try_new(time(first), time(last)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_fills_the_tier_and_a_reopened_store_is_cold() {
    let (engine, directory) = engine_alone().await;
    append(&engine, batch(0, 300, 0)).await;
    assert_eq!(engine.warm().stats().backend, "idle");
    assert_eq!(numbers(&engine).await.1, Found { hot: 300, warm: 0, cold: 0 });
    engine.flush().await.unwrap();
    append(&engine, batch(300, 100, 100)).await;
    let (found, tiers) = numbers(&engine).await;
    assert_eq!(found, (0..400).collect::<Vec<_>>());
    assert_eq!(tiers, Found { hot: 100, warm: 300, cold: 0 });
    let stats = engine.warm().stats();
    assert_eq!(
        (stats.backend.as_str(), stats.segments, stats.rows, stats.seals),
        ("host", 1, 300, 1)
    );

    let place = Arc::clone(engine.object_store());
    engine.close().await.unwrap();
    drop(engine);
    let options = alone(directory.path());
    let engine = Engine::open(place, tidelog_core::Env::default(), &options).await.unwrap();
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len(), tiers), (400, Found { hot: 0, warm: 0, cold: 400 }));
    assert_eq!(engine.warm().stats().backend, "idle");
}

/// Rows of one key and time come in the order of their versions, in which the last of a key is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_equal_rows_the_latest_version_is_last() {
    let (engine, _directory) = engine_alone().await;
    let keyed = SeriesOptions::default().with_key_columns(["key"]);
    engine.create_series(&path(), keyed).await.unwrap();
    for version in 0..40 {
        append(&engine, batch(version * 8, 8, 0)).await;
        if version == 19 {
            engine.flush().await.unwrap();
        }
    }
    engine.flush().await.unwrap();
    for is_compacted in [false, true] {
        let view = engine.series(&path(), &AsOf::Head).await.unwrap();
        let files: Vec<_> = view.files(TimeRange::ALL).collect();
        assert_eq!(files.len(), if is_compacted { 1 } else { 2 });
        let file = files[files.len() - 1];
        let warm = engine.warm().find(file.file).unwrap();
        let number = warm.columns[2].unwrap();
        let request = Request::new(Op::LastPerKey { columns: vec![number], keys: None });
        let segments = std::slice::from_ref(&warm.segment);
        let answer = engine.warm().run(&warm.table, segments, &request).unwrap();
        let Output::Rows(rows) = answer.output else { panic!("{:?}", answer.output) };
        let mut found: Vec<i64> = rows
            .iter()
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        found.sort_unstable();
        // Of each key the second of its rows in the last version.
        assert_eq!(found, [316, 317, 318, 319], "{is_compacted}");
        engine.compact(&PathPattern::parse("/**").unwrap()).await.unwrap();
    }
}

/// Reads tell them apart where they read the file, so a segment would serve nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_replace_one_another_are_not_warm() {
    let (engine, _directory) = engine_alone().await;
    let deduplicated = SeriesOptions::default().with_key_columns(["key"]).with_dedup(true);
    engine.create_series(&path(), deduplicated).await.unwrap();
    append(&engine, batch(0, 8, 0)).await;
    engine.flush().await.unwrap();
    append(&engine, batch(8, 8, 100)).await;
    append(&engine, batch(16, 8, 100)).await;
    engine.flush().await.unwrap();
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len(), tiers.warm, tiers.cold), (24, 8, 16));
    let stats = engine.warm().stats();
    assert_eq!((stats.seals, stats.fallbacks["not_unique"]), (1, 1));
}

/// A log ahead may hold more than all that is kept in memory otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dropped_writer_has_left_is_brought_in_cold() {
    let (engine, directory) = engine_alone().await;
    append(&engine, batch(0, 300, 0)).await;
    let place = Arc::clone(engine.object_store());
    drop(engine);
    let options = alone(directory.path());
    let engine = Engine::open(place, tidelog_core::Env::default(), &options).await.unwrap();
    append(&engine, batch(300, 10, 300)).await;
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len(), tiers), (310, Found { hot: 10, warm: 0, cold: 300 }));
    assert_eq!(engine.warm().stats().seals, 0);
    engine.flush().await.unwrap();
    assert_eq!(numbers(&engine).await.1, Found { hot: 0, warm: 10, cold: 300 });
}

/// What is written while a handle is closed would be warm for nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_seals_nothing() {
    let (engine, _directory) = engine_alone().await;
    append(&engine, batch(0, 300, 0)).await;
    engine.close().await.unwrap();
    assert_eq!(engine.warm().stats().seals, 0);
    assert_eq!(numbers(&engine).await.0.len(), 300);
    // A handle that goes on fills it again.
    append(&engine, batch(300, 10, 0)).await;
    engine.flush().await.unwrap();
    assert_eq!(engine.warm().stats().seals, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replaces_warm_files_is_warm_and_what_they_were_is_dropped() {
    let (engine, _directory) = engine_alone().await;
    for version in 0..6 {
        append(&engine, batch(version * 100, 100, version * 20)).await;
        engine.flush().await.unwrap();
    }
    assert_eq!(engine.warm().stats().segments, 6);
    engine.compact(&PathPattern::parse("/**").unwrap()).await.unwrap();
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found, tiers.warm), ((0..600).collect::<Vec<_>>(), 600));
    let stats = engine.warm().stats();
    assert_eq!((stats.segments, stats.dropped, stats.evictions), (1, 6, 0));

    // Rows at times 0 to 19 go: the file is written anew, as one of those that stay and one of those that end.
    let receipt = engine.delete_rows(&path(), times(0, 19), None).await.unwrap();
    let left = 600 - receipt.rows_ended;
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len() as u64, tiers.warm as u64), (left, left));
    assert_eq!(engine.warm().stats().segments, 1);

    engine.replace_rows(&path(), times(0, 19), batch(1000, 30, 0)).await.unwrap();
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len() as u64, tiers.cold), (left + 30, 0));

    engine.restore(&path(), &AsOf::Version(tidelog_core::Version::new(6))).await.unwrap();
    assert_eq!(numbers(&engine).await.0, (0..600).collect::<Vec<_>>());

    engine.remove(&path(), false).await.unwrap();
    engine.head().await.unwrap();
    let stats = engine.warm().stats();
    assert_eq!(
        (stats.segments, stats.used_bytes),
        (0, 0),
        "nothing is kept of a series that was removed"
    );
}

/// A writer that appends, flushes, compacts, deletes, expires and vacuums.
async fn write(engine: &Engine, expected: &Expected) {
    let (mut rows, mut version) = (Vec::<(i64, i64)>::new(), 0);
    let expect = |version: i64, rows: &[(i64, i64)]| {
        let sum = rows.iter().map(|(number, _)| number).sum();
        expected.lock().unwrap().insert(version, (rows.len(), sum));
    };
    for round in 0..30_i64 {
        let (first, start) = (round * 100, round * 15 % 200);
        version += 1;
        rows.extend((0..60).map(|i| (first + i, start + i / 2)));
        expect(version, &rows);
        let receipt = append(engine, batch(first, 60, start)).await;
        assert_eq!(receipt.version.unwrap().number(), version);
        match round % 10 {
            2 | 5 => engine.flush().await.unwrap(),
            6 => {
                engine.compact(&PathPattern::parse("/**").unwrap()).await.unwrap();
            }
            8 => {
                let (from, to) = (round * 3 % 100, round * 3 % 100 + 12);
                rows.retain(|(_, time)| *time < from || *time > to);
                version += 1;
                expect(version, &rows);
                engine.delete_rows(&path(), times(from, to), None).await.unwrap();
            }
            9 => {
                engine.flush().await.unwrap();
                engine.vacuum(&VacuumOptions::default().with_apply(true)).await.unwrap();
            }
            _ => {}
        }
    }
}

async fn read(engine: Engine, expected: Expected, is_done: Arc<AtomicBool>) -> (u64, Found) {
    let (mut reads, mut all) = (0, Found::default());
    while !is_done.load(Ordering::Relaxed) || reads == 0 {
        // Nothing here ever waits.
        tokio::task::yield_now().await;
        let head = engine.head().await.unwrap();
        let Ok(view) = engine.series_in(&head, &path(), &AsOf::Head).await else { continue };
        let (found, tiers) = numbers_of(&engine, &head, &view).await;
        let version = view.version().number();
        let expected = expected.lock().unwrap()[&version];
        assert_eq!((found.len(), found.iter().sum::<i64>()), expected, "v{version}: {tiers:?}");
        reads += 1;
        all.hot += tiers.hot;
        all.warm += tiers.warm;
        all.cold += tiers.cold;
    }
    (reads, all)
}

/// Writes with two readers beside it; what they found.
async fn race(engine: &Engine) -> Found {
    let (expected, is_done) = (Expected::default(), Arc::new(AtomicBool::new(false)));
    let reader = || tokio::spawn(read(engine.clone(), Arc::clone(&expected), Arc::clone(&is_done)));
    let readers = [reader(), reader()];
    write(engine, &expected).await;
    is_done.store(true, Ordering::Relaxed);
    let mut all = Found::default();
    for reader in readers {
        let (_, found) = reader.await.unwrap();
        all.hot += found.hot;
        all.warm += found.warm;
        all.cold += found.cold;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_every_row_once_whatever_moves() {
    let (engine, _directory) = engine_alone().await;
    let found = race(&engine).await;
    assert!(found.hot > 0 && found.warm > 0, "{found:?}");
    let stats = engine.warm().stats();
    assert!(stats.seals > 6 && stats.dropped > 6, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn segments_that_are_let_go_under_readers_cost_no_row() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut options = alone(directory.path());
    // Enough for one or two of the segments.
    options.warm.bytes_max = Some(8_000);
    let engine = create(&options).await;
    let found = race(&engine).await;
    assert!(found.warm > 0 && found.cold > 0, "{found:?}");
    let stats = engine.warm().stats();
    assert!(stats.evictions > 0 && stats.used_bytes <= 8_000, "{stats:?}");
}
