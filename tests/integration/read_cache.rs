//! The cache of a remote store: what it saves, and that it changes no answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog::arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::{ReadOptions, SeriesExt, Store, StoreBuilder, UpkeepMode};
use tidelog_testkit::{Row, TestS3};

use crate::support::{rows, runtime, sql};

const LARGE: &str = "/a/large.series";
const SMALL: &str = "/a/small.series";
const ROOM: u64 = 1 << 30;

fn builder(server: &TestS3) -> StoreBuilder {
    let builder = Store::builder(server.url("store")).with_upkeep(UpkeepMode::OnRequest);
    let add =
        |all: StoreBuilder, (name, value): (String, String)| all.with_storage_option(name, value);
    server.options().into_iter().fold(builder.with_partitions(2), add)
}

/// Values that no encoding makes small.
fn batch(start: i64, count: i64) -> RecordBatch {
    let times =
        TimestampMicrosecondArray::from_iter_values((start..start + count).map(|s| s * 1_000_000));
    let noise = |s: i64| (s.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64;
    let values = Float64Array::from_iter_values((start..start + count).map(noise));
    let columns: [(&str, ArrayRef); 2] =
        [("time", Arc::new(times.with_timezone("UTC"))), ("value", Arc::new(values))];
    RecordBatch::try_from_iter(columns).unwrap()
}

async fn append(store: &Store, versions: std::ops::Range<i64>) {
    for version in versions {
        for (path, count) in [(LARGE, 20_000), (SMALL, 10)] {
            let batch = batch(version * count, count);
            store.root().append_series_data(path, &batch, None).await.unwrap();
        }
    }
}

/// What several kinds of reads yield.
async fn answers(store: &Store) -> Vec<Vec<Row>> {
    let mut answers = Vec::new();
    for path in [LARGE, SMALL] {
        answers.push(rows(store.root().read_series_all(path).await).await.unwrap());
        let second = 1_000_000_000;
        let range = store.root().read_series_time_range(path, 15 * second, 20_005 * second).await;
        answers.push(rows(range).await.unwrap());
    }
    for statement in [
        format!("SELECT count(*), min(value), max(value) FROM \"{LARGE}\" WHERE value > 1e15"),
        format!("SELECT * FROM \"{SMALL}\" ORDER BY time DESC LIMIT 7"),
        format!("SELECT count(*) FROM series('{LARGE}', 'v2')"),
        "SELECT count(*) FROM tidelog.versions".to_owned(),
    ] {
        answers.push(sql(store, &statement).await.unwrap());
    }
    answers
}

/// The objects that were asked for since the last call.
fn asked(server: &TestS3) -> Vec<String> {
    server.take_requests().into_iter().map(|request| request.key).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below =
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] });
    below.collect()
}

#[test]
fn what_one_handle_has_read_costs_the_next_only_the_head() {
    for server in [TestS3::start().unwrap(), TestS3::start_gcs().unwrap()] {
        runtime().block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let cached = || builder(&server).with_read_cache(directory.path(), ROOM);
            let plain = builder(&server).create().await.unwrap();
            append(&plain, 0..8).await;
            plain.maintain(true).await.unwrap();
            append(&plain, 8..10).await;
            let expected = answers(&plain).await;

            let first = cached().open().await.unwrap();
            assert!(answers(&first).await == expected);
            let filled = first.read_cache_statistics().unwrap();
            assert!(filled.misses > 0 && filled.bytes_stored > 500_000, "{filled:?}");

            drop(asked(&server));
            let second = cached().open().await.unwrap();
            assert!(answers(&second).await == expected);
            let mut keys = asked(&server);
            keys.retain(|key| !key.contains("/_delta_log/"));
            assert!(keys.is_empty(), "{keys:?}");
            let used = second.read_cache_statistics().unwrap();
            assert_eq!((used.misses, used.bytes_stored), (0, 0), "{used:?}");
            assert!(used.hits > 0 && used.bytes_served > 500_000, "{used:?}");

            // What is new is seen, and only that is fetched.
            append(&plain, 10..11).await;
            drop(asked(&server));
            assert!(answers(&second).await == answers(&plain).await);
            let kept = second.read_cache_statistics().unwrap();
            assert!(kept.misses > 0 && kept.bytes_stored < 300_000, "{kept:?}");
        });
    }
}

#[test]
fn answers_are_the_same_whatever_happens_to_the_cache() {
    let server = TestS3::start().unwrap();
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("cache");
        let plain = builder(&server).create().await.unwrap();
        // Less room than the series needs, and a writer that reads through the cache too.
        let small = builder(&server).with_read_cache(&place, 1_000_000).open().await.unwrap();
        let large = builder(&server).with_read_cache(&place, ROOM).open().await.unwrap();
        for round in 0..4 {
            let writer = if round % 2 == 0 { &plain } else { &large };
            append(writer, round * 2..round * 2 + 2).await;
            if round == 3 {
                writer.maintain(true).await.unwrap();
            }
            for (number, file) in files_below(directory.path()).into_iter().enumerate() {
                match number % 3 {
                    0 => std::fs::remove_file(file).unwrap(),
                    1 => std::fs::write(file, [7; 100]).unwrap(),
                    _ => {}
                }
            }
            if round == 2 {
                std::fs::remove_dir_all(&place).unwrap();
            }
            let expected = answers(&plain).await;
            assert!(answers(&small).await == expected);
            assert!(answers(&large).await == expected);
        }
        let version = ReadOptions::default().with_as_of("v4".parse().unwrap());
        let read = async |store: &Store| {
            rows(store.root().read_series_with_options(LARGE, &version).await).await.unwrap()
        };
        assert!(read(&large).await == read(&plain).await);
        // A cache that never works.
        std::fs::write(directory.path().join("file"), "").unwrap();
        let broken = builder(&server).with_read_cache(directory.path().join("file"), ROOM);
        assert!(answers(&broken.open().await.unwrap()).await == answers(&plain).await);
    });
}

#[test]
fn local_stores_use_no_cache() {
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("cache");
        let local = directory.path().join("store");
        for location in ["memory://", local.to_str().unwrap()] {
            let store =
                Store::builder(location).with_read_cache(&place, ROOM).create().await.unwrap();
            append(&store, 0..1).await;
            rows(store.root().read_series_all(SMALL).await).await.unwrap();
            assert_eq!(store.read_cache_statistics(), None);
        }
        assert!(!place.exists());
    });
}
