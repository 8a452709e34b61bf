//! One writer alone: what it acknowledges is visible at once, kept, and committed in the end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tempfile::TempDir;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tidelog::{
    Durability, ErrorKind, Mode, SeriesAppend, SeriesExt, Store, StoreBuilder, TierOwner,
    TransactionId, WalDurability,
};
use tidelog_core::Clock;
use tidelog_storage::object_store::ObjectStore;
use tidelog_storage::object_store::memory::InMemory;
use tidelog_testkit::{Fault, FaultError, FaultFileSystem, FaultStore, FileFault, SimClock, env};

use crate::support::{rows, sql};

pub(crate) fn batch(from: i64, rows: i64) -> RecordBatch {
    let times: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
    RecordBatch::try_from_iter([("time", Arc::clone(&times)), ("value", times)]).unwrap()
}

pub(crate) fn append(path: &str, from: i64, rows: i64) -> SeriesAppend {
    SeriesAppend::new(path, batch(from, rows)).with_time_unit(tidelog::TimeUnit::Second)
}

pub(crate) fn builder(directory: &Path) -> StoreBuilder {
    Store::builder(directory.to_str().unwrap()).with_mode(Mode::Shared)
}

pub(crate) async fn alone(directory: &Path) -> Store {
    builder(directory).with_mode(Mode::Exclusive).open_or_create().await.unwrap()
}

/// Rows of `tidelog.tiers`.
async fn table_rows(store: &Store) -> usize {
    let rows = store.sql("SELECT * FROM tidelog.tiers").await.unwrap();
    let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    batches.iter().map(RecordBatch::num_rows).sum()
}

async fn logged_versions(store: &Store) -> usize {
    let statement = "SELECT version FROM tidelog.versions WHERE path = '/a.series'";
    sql(store, statement).await.unwrap().len()
}

pub(crate) async fn count(store: &Store, path: &str) -> usize {
    rows(store.root().read_series_all(path).await).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_visible_at_once_and_committed_later() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path()).await;
    for i in 0..40 {
        let receipt = store
            .root()
            .append_series_data_with_options(append("/a.series", i * 10, 10))
            .await
            .unwrap();
        assert_eq!(receipt.version.unwrap().number(), i + 1);
        assert_eq!(receipt.durability, Durability::Synced);
        assert_eq!(count(&store, "/a.series").await as i64, (i + 1) * 10);
    }
    let described = store.describe("/a.series").await.unwrap();
    assert_eq!(described.files, 0, "all of it is hot");
    assert_eq!(described.range.unwrap().end().nanos(), 399 * 1_000_000_000);
    assert_eq!(logged_versions(&store).await, 40);
    let tiers = store.tiers().unwrap();
    assert_eq!((tiers.hot_rows, tiers.hot_versions, tiers.appends), (400, 40, 40));
    store.flush().await.unwrap();
    assert_eq!(store.describe("/a.series").await.unwrap().files, 1);
    assert_eq!(store.tiers().unwrap().hot_rows, 0);
    assert_eq!(logged_versions(&store).await, 40);
    assert_eq!(count(&store, "/a.series").await, 400);
    let versions = store.versions("/a.series").await.unwrap();
    assert_eq!(versions.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_that_is_dropped_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    store.flush().await.unwrap();
    store.root().append_series_data_with_options(append("/a.series", 10, 10)).await.unwrap();
    store.root().append_series_data_with_options(append("/deep/new.series", 0, 5)).await.unwrap();
    drop(store);

    // A reader sees it in the log ahead, the next writer brings it in.
    let reader = builder(directory.path()).open().await.unwrap();
    assert_eq!(count(&reader, "/a.series").await, 20);
    assert_eq!(count(&reader, "/deep/new.series").await, 5);
    let receipt =
        reader.root().append_series_data_with_options(append("/a.series", 20, 10)).await.unwrap();
    assert_eq!(receipt.version.unwrap().number(), 3);
    assert_eq!(receipt.durability, Durability::Committed);
    assert_eq!(count(&reader, "/a.series").await, 30);

    let store = alone(directory.path()).await;
    let receipt = store
        .root()
        .append_series_data_with_options(append("/deep/new.series", 5, 5))
        .await
        .unwrap();
    assert_eq!(receipt.version.unwrap().number(), 2);
    assert_eq!(count(&store, "/deep/new.series").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_refused_while_the_owner_lives_and_read_what_is_committed() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    store.flush().await.unwrap();
    store.root().append_series_data_with_options(append("/a.series", 10, 10)).await.unwrap();

    let other = builder(directory.path()).open().await.unwrap();
    assert_eq!(count(&other, "/a.series").await, 10);
    let refused = other
        .root()
        .append_series_data_with_options(append("/a.series", 20, 10))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    assert_eq!(other.remove("/a.series", false).await.unwrap_err().kind(), ErrorKind::Conflict);
    let second = alone(directory.path()).await;
    let refused = second
        .root()
        .append_series_data_with_options(append("/a.series", 20, 10))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");

    store.close().await.unwrap();
    assert_eq!(store.tiers(), None);
    let receipt =
        other.root().append_series_data_with_options(append("/a.series", 20, 10)).await.unwrap();
    assert_eq!(receipt.version.unwrap().number(), 3);
    let receipt =
        second.root().append_series_data_with_options(append("/a.series", 30, 10)).await.unwrap();
    assert_eq!(receipt.version.unwrap().number(), 4);
    assert_eq!(count(&second, "/a.series").await, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_tree_comes_after_what_was_acknowledged_before() {
    let directory = TempDir::new().unwrap();
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    store.rename("/a.series", "/b.series").await.unwrap();
    let receipt =
        store.root().append_series_data_with_options(append("/b.series", 10, 10)).await.unwrap();
    assert_eq!(receipt.version.unwrap().number(), 2);
    let receipt =
        store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    assert_eq!(receipt.version.unwrap().number(), 1);
    store.remove("/b.series", false).await.unwrap();
    assert_eq!(store.describe("/b.series").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(count(&store, "/a.series").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_too_many_for_memory_go_to_files_after_those_before() {
    let directory = TempDir::new().unwrap();
    let store = builder(directory.path()).with_mode(Mode::Exclusive).with_hot_max(100, 1 << 20);
    let store = store.open_or_create().await.unwrap();
    store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    let receipt =
        store.root().append_series_data_with_options(append("/a.series", 10, 1_000)).await.unwrap();
    assert_eq!(receipt.durability, Durability::Committed);
    assert_eq!(receipt.version.unwrap().number(), 2);
    let receipt =
        store.root().append_series_data_with_options(append("/a.series", 1_010, 10)).await.unwrap();
    assert_eq!((receipt.durability, receipt.version.unwrap().number()), (Durability::Synced, 3));
    assert_eq!(count(&store, "/a.series").await, 1_020);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_append_while_generations_are_flushed() {
    let directory = TempDir::new().unwrap();
    let store = builder(directory.path()).with_mode(Mode::Exclusive).with_hot_max(500, 1 << 20);
    let store = store.open_or_create().await.unwrap();
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for i in 0..50_i64 {
                let path = format!("/s/{}.series", (task + i) % 3);
                let id = TransactionId::from_uuid(uuid::Uuid::from_u64_pair(
                    task.unsigned_abs(),
                    i.unsigned_abs(),
                ));
                let one = append(&path, i * 100, 10).with_transaction(id);
                let receipt =
                    store.root().append_series_data_with_options(one.clone()).await.unwrap();
                let again = store.root().append_series_data_with_options(one).await.unwrap();
                assert_eq!(again.version, receipt.version, "an id is written once");
                versions.push((path, receipt.version.unwrap().number()));
            }
            versions
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 400, "no version is given twice");
    let mut total = 0;
    for series in 0..3 {
        let path = format!("/s/{series}.series");
        let numbers = all.iter().filter(|(of, _)| *of == path).map(|(_, number)| *number);
        let dense: Vec<i64> = numbers.collect();
        assert_eq!(dense, (1..=dense.len() as i64).collect::<Vec<_>>());
        total += count(&store, &path).await;
    }
    assert_eq!(total, 4_000);
    assert!(store.tiers().unwrap().flushes > 1);
    store.close().await.unwrap();
    assert_eq!(store.statistics().await.unwrap().rows, 4_000);
}

/// Each change of the files of the log ahead fails, once or for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fails_loses_nothing_that_it_has_acknowledged() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    for (errno, for_good) in [(EIO, false), (EIO, true), (ENOSPC, false), (ENOSPC, true)] {
        for nth in 1.. {
            let what = format!("errno {errno}, for good {for_good}, change {nth}");
            if !fails_at(nth, FileFault::Errno { errno, for_good }, &what).await {
                assert!(nth > 15, "{what}: the log made too few changes");
                break;
            }
        }
    }
}

/// Whether the log came to its n-th change.
async fn fails_at(nth: u64, fault: FileFault, what: &str) -> bool {
    let directory = TempDir::new().unwrap();
    builder(directory.path()).create().await.unwrap();
    let files = FaultFileSystem::new(nth, fault);
    let store = builder(directory.path())
        .with_mode(Mode::Exclusive)
        .with_hot_max(30, 1 << 20)
        .with_wal_file_system(Arc::new(files.clone()));
    let store = store.open().await.unwrap();
    let (mut acked, mut unknown) = (Vec::new(), Vec::new());
    for i in 0..12_i64 {
        let id = TransactionId::from_uuid(uuid::Uuid::from_u128(i.unsigned_abs().into()));
        let one = append("/a.series", i * 100, 10).with_transaction(id);
        match store.root().append_series_data_with_options(one).await {
            Ok(_) => acked.push(id),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => unknown.push(id),
            Err(_) => {}
        }
        if i == 6 {
            // What fails here stays in the log ahead.
            let _ = store.flush().await;
        }
    }
    // It stays readable, whatever has become of its log.
    if !acked.is_empty() {
        let seen = store.versions("/a.series").await.unwrap();
        assert!(acked.iter().all(|id| seen.iter().any(|v| v.transaction == *id)), "{what}");
    }
    drop(store);
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/b.series", 0, 1)).await.unwrap();
    let found = match store.versions("/a.series").await {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{what}: {error}");
            Vec::new()
        }
    };
    for id in &acked {
        assert_eq!(
            found.iter().filter(|v| v.transaction == *id).count(),
            1,
            "{what}: {id} is lost"
        );
    }
    for version in &found {
        let id = version.transaction;
        assert!(acked.contains(&id) || unknown.contains(&id), "{what}: {id} was refused");
    }
    assert_eq!(count_or_none(&store, "/a.series").await, found.len() * 10, "{what}");
    files.changes() >= nth
}

async fn count_or_none(store: &Store, path: &str) -> usize {
    if store.list(path).await.unwrap().is_empty() { 0 } else { count(store, path).await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_ahead_that_is_elsewhere_hides_nothing_that_is_committed() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let wal = elsewhere.path().join("wal");
    let store = builder(directory.path()).with_mode(Mode::Exclusive).with_wal_directory(&wal);
    let store = store.open_or_create().await.unwrap();
    store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    store.flush().await.unwrap();
    store.root().append_series_data_with_options(append("/a.series", 10, 10)).await.unwrap();
    drop(store);

    let reader = builder(directory.path()).open().await.unwrap();
    assert_eq!(count(&reader, "/a.series").await, 10);
    assert!(matches!(reader.tiers_seen().await.unwrap().owner, TierOwner::Elsewhere(_)));
    let refused = reader
        .root()
        .append_series_data_with_options(append("/a.series", 20, 10))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    let reader = builder(directory.path()).with_wal_directory(&wal).open().await.unwrap();
    assert_eq!(count(&reader, "/a.series").await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_publishes_its_numbers() {
    let directory = TempDir::new().unwrap();
    let other = alone(directory.path()).await;
    assert_eq!(other.tiers_seen().await.unwrap().owner, TierOwner::Nobody);
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/a.series", 0, 10)).await.unwrap();
    assert_eq!(store.tiers_seen().await.unwrap().owner, TierOwner::ThisHandle);
    let mut seen = other.tiers_seen().await.unwrap();
    while seen.statistics.is_none_or(|known| known.hot_rows != 10) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen = other.tiers_seen().await.unwrap();
    }
    assert!(matches!(seen.owner, TierOwner::Living(_)), "{seen:?}");
    for store in [&store, &other] {
        // What is hot, and what is warm.
        assert_eq!(table_rows(store).await, 2);
    }
    drop(store);
    let seen = other.tiers_seen().await.unwrap();
    assert!(matches!(seen.owner, TierOwner::Dead(_)), "{seen:?}");
    assert_eq!(seen.statistics.unwrap().hot_rows, 10);

    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/a.series", 10, 10)).await.unwrap();
    store.close().await.unwrap();
    let seen = other.tiers_seen().await.unwrap();
    assert_eq!((seen.owner, seen.statistics), (TierOwner::Nobody, None));
    assert_eq!(table_rows(&other).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_ahead_is_found_refused_and_cut() {
    let directory = TempDir::new().unwrap();
    let missing = builder(directory.path()).inspect_wal().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let store = alone(directory.path()).await;
    for i in 0..4 {
        let one = append("/a.series", i * 10, 10);
        store.root().append_series_data_with_options(one).await.unwrap();
    }
    let living = builder(directory.path()).repair_wal().await.unwrap_err();
    assert_eq!(living.kind(), ErrorKind::Conflict);
    drop(store);

    let report = builder(directory.path()).inspect_wal().await.unwrap();
    assert_eq!((report.uncovered_records(), report.owner.is_none()), (Some(4), true));
    let segment = report.log.segments[0].file.clone();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    let report = builder(directory.path()).inspect_wal().await.unwrap();
    assert!(matches!(report.log.tail, tidelog::wal::Tail::Damaged(_)), "{report:?}");
    let reader = builder(directory.path()).open().await.unwrap();
    let refused = reader.list("/**").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption);

    let repair = builder(directory.path()).repair_wal().await.unwrap();
    let (first, last) = repair.lost.unwrap();
    assert_eq!((last, repair.covered), (4, Some(0)));
    assert!(repair.cut.iter().all(|(file, bytes)| file.exists() && *bytes > 0), "{repair:?}");
    let kept = usize::try_from(first - 1).unwrap() * 10;
    assert_eq!(count(&reader, "/a.series").await, kept);
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/b.series", 0, 10)).await.unwrap();
    assert_eq!(count(&store, "/a.series").await, kept);
    assert!(builder(directory.path()).repair_wal().await.is_err(), "its owner lives");
}

/// After a failed sync nothing is acknowledged any more, whatever was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_the_end_of_a_log_also_where_syncs_are_spaced() {
    for durability in [WalDurability::Sync, WalDurability::Interval(Duration::ZERO)] {
        let directory = TempDir::new().unwrap();
        builder(directory.path()).create().await.unwrap();
        let nth = 4;
        let files = FaultFileSystem::new(nth, FileFault::Sync { errno: 5 });
        let store = builder(directory.path())
            .with_mode(Mode::Exclusive)
            .with_wal_durability(durability)
            .with_wal_file_system(Arc::new(files.clone()));
        let store = store.open().await.unwrap();
        let mut failed = 0;
        for i in 0..8 {
            match store.root().append_series_data_with_options(append("/a.series", i * 10, 1)).await
            {
                Ok(_) => {
                    assert!(files.syncs() < nth, "{durability:?}: append {i} was acknowledged")
                }
                Err(error) if failed == 0 => {
                    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{durability:?}: {error}");
                    failed += 1;
                }
                Err(_) => failed += 1,
            }
        }
        assert!((2..8).contains(&failed), "{durability:?}: {failed} appends failed");
    }
}

/// The disk of the log ahead is full for a while: appends fail and leave nothing, reads go on, and once
/// there is room the same handle takes appends again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_appends_until_there_is_room() {
    let directory = TempDir::new().unwrap();
    builder(directory.path()).create().await.unwrap();
    let files = FaultFileSystem::sound();
    let store = builder(directory.path())
        .with_mode(Mode::Exclusive)
        .with_hot_max(100, 1 << 20)
        .with_wal_segment_bytes(3_000)
        .with_wal_file_system(Arc::new(files.clone()));
    let store = store.open().await.unwrap();
    let (mut acked, mut refused) = (Vec::new(), 0);
    for i in 0..60_i64 {
        files.set_full((20..40).contains(&i));
        match store.root().append_series_data_with_options(append("/a.series", i * 10, 10)).await {
            Ok(receipt) => acked.push((receipt.version.unwrap(), i * 10)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "append {i}: {error}");
                assert!((20..40).contains(&i), "append {i}: {error}");
                refused += 1;
            }
        }
        assert_eq!(count(&store, "/a.series").await, acked.len() * 10);
    }
    assert_eq!((acked.len(), refused), (40, 20));
    drop(store);
    let store = alone(directory.path()).await;
    store.root().append_series_data_with_options(append("/b.series", 0, 1)).await.unwrap();
    assert_eq!(count(&store, "/a.series").await, 400);
    let dense = store.versions("/a.series").await.unwrap();
    assert_eq!(dense.len(), 40);
}

/// A real disk is full, for files and log alike: what is acknowledged stays readable meanwhile, and once there is
/// room the same handle goes on.
#[test]
#[ignore = "run by tests/power/run.sh"]
fn a_file_system_that_is_full_for_a_while_loses_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let place = std::env::var("TIDELOG_FULL_DISK").expect("names a directory on a small disk");
    runtime.block_on(fill_and_free(Path::new(&place)));
}

async fn fill_and_free(place: &Path) {
    let (directory, ballast) = (place.join("store"), place.join("ballast"));
    std::fs::write(&ballast, vec![7; 32 << 20]).unwrap();
    // A generation is flushed every few appends, so that files find no room either.
    let builder_of = || {
        let builder = builder(&directory).with_mode(Mode::Exclusive);
        builder.with_hot_max(20_000, 16 << 20).with_wal_segment_bytes(1 << 20)
    };
    let store = builder_of().create().await.unwrap();
    let (mut acked, mut refused, mut waited, mut freed_at) = (0, 0, 0, None);
    for i in 0_i64.. {
        let batch = append("/a.series", i * 5_000, 5_000);
        let root = store.root();
        let append = root.append_series_data_with_options(batch);
        match tokio::time::timeout(Duration::from_secs(5), append).await {
            Ok(Ok(_)) => acked += 1,
            Ok(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "append {i}: {error}");
                refused += 1;
            }
            // Both generations are full, and no file can be written.
            Err(_) => waited += 1,
        }
        match freed_at {
            None if refused == 20 || waited == 1 => {
                assert_eq!(count(&store, "/a.series").await, acked * 5_000);
                std::fs::remove_file(&ballast).unwrap();
                freed_at = Some(acked);
            }
            Some(before) if acked == before + 20 => break,
            _ => assert!(i < 20_000, "{acked} appends, {refused} refused, freed at {freed_at:?}"),
        }
    }
    store.flush().await.unwrap();
    drop(store);
    let store = builder_of().open().await.unwrap();
    let stored = store.versions("/a.series").await.unwrap().len();
    // Whoever does not wait for the answer does not know it.
    assert!((acked..=acked + waited).contains(&stored), "{acked} acked, {stored} stored");
    assert_eq!(count(&store, "/a.series").await, stored * 5_000);
    drop(store);
    let report = builder(&directory).fsck(true).await.unwrap();
    assert!(report.is_intact(), "{report:?}");
    println!("{acked} appends kept; on a full disk {refused} were refused and {waited} waited");
}

/// Where a wall clock jumps, write times go on in order, also over a crash, and nothing is let go of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_changes_no_order() {
    const YEAR_US: i64 = 365 * 24 * 3_600 * 1_000_000;
    let directory = TempDir::new().unwrap();
    let clock = Arc::new(SimClock::at(1_700_000_000_000_000));
    let env = env::env(&clock, 7);
    let open = || {
        let builder = builder(directory.path()).with_mode(Mode::Exclusive).with_env(env.clone());
        builder.with_hot_max(40, 1 << 20).open_or_create()
    };
    let mut store = open().await.unwrap();
    let mut times = Vec::new();
    for (i, jump) in [0, 10, -10, -10, 30, -1, 0, -30].into_iter().enumerate() {
        clock.advance(jump * YEAR_US);
        for more in 0..3 {
            let from = (i as i64 * 3 + more) * 10;
            let one = append("/a.series", from, 10);
            let receipt = store.root().append_series_data_with_options(one).await.unwrap();
            times.push(receipt.write_time.unwrap());
        }
        if i % 3 == 2 {
            drop(store);
            store = open().await.unwrap();
        }
        store.maintain(false).await.unwrap();
    }
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    assert!(times.last().unwrap() > &clock.now(), "the clock is behind");
    store.close().await.unwrap();
    let logged = store.versions("/a.series").await.unwrap();
    assert_eq!(logged.iter().map(|row| row.write_time).collect::<Vec<_>>(), times);
    for (seen, time) in times.iter().enumerate() {
        let as_of = tidelog::ReadOptions::default().with_as_of(tidelog::AsOf::Time(*time));
        let read = store.root().read_series_with_options("/a.series", &as_of).await;
        assert_eq!(rows(read).await.unwrap().len(), (seen + 1) * 10);
    }
    let report = builder(directory.path()).fsck(true).await.unwrap();
    assert!(report.is_intact(), "{report:?}");
}

/// What a script of one writer alone was told, over a store that fails.
#[derive(Default)]
struct Told {
    acked: Vec<TransactionId>,
    refused: Vec<TransactionId>,
}

/// Appends, flushes, gives the store back and takes it again, whatever fails.
async fn script(store: &Store) -> Told {
    let mut told = Told::default();
    for i in 0..12_i64 {
        let id = TransactionId::from_uuid(uuid::Uuid::from_u128(i.unsigned_abs().into()));
        let path = format!("/{}.series", i % 3);
        let one = append(&path, i * 100, 10).with_transaction(id);
        match store.root().append_series_data_with_options(one).await {
            Ok(_) => told.acked.push(id),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
            Err(_) => told.refused.push(id),
        }
        // What fails here is tried again by the store itself, or by the next call.
        match i {
            4 => drop(store.flush().await),
            7 => drop(store.close().await),
            9 => drop(store.create_directory("/d").await),
            _ => {}
        }
    }
    drop(store.close().await);
    told
}

/// Runs the script over a store that fails, and then looks at what is there.
async fn runs_over(faults: &FaultStore, what: &str) {
    let wal = TempDir::new().unwrap();
    let open = |place: Arc<dyn ObjectStore>| {
        let builder = Store::builder("memory://").with_object_store(place);
        builder.with_mode(Mode::Exclusive).with_wal_directory(wal.path()).with_hot_max(40, 1 << 20)
    };
    open(Arc::clone(faults.inner())).create().await.unwrap();
    let told = match open(Arc::new(faults.clone())).open().await {
        Ok(store) => script(&store).await,
        Err(_) => Told::default(),
    };
    let store = open(Arc::clone(faults.inner())).open().await.unwrap();
    store.root().append_series_data_with_options(append("/last.series", 0, 1)).await.unwrap();
    let mut found = Vec::new();
    for series in 0..3 {
        let path = format!("/{series}.series");
        if store.list(&path).await.unwrap().is_empty() {
            continue;
        }
        let versions = store.versions(&path).await.unwrap();
        assert_eq!(count(&store, &path).await, versions.len() * 10, "{what}");
        found.extend(versions.into_iter().map(|version| version.transaction));
    }
    for id in &told.acked {
        let times = found.iter().filter(|known| *known == id).count();
        assert_eq!(times, 1, "{what}: {id} is there {times} times");
    }
    for id in &told.refused {
        assert!(!found.contains(id), "{what}: {id} was refused and is there");
    }
    store.close().await.unwrap();
}

/// Each request of claim, flush and release fails, before and after it takes effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_any_request_loses_and_doubles_nothing() {
    for moment in ["before", "after", "later"] {
        for nth in 1.. {
            let faults = FaultStore::new(Arc::new(InMemory::new()));
            let fault = Fault::new(FaultError::Generic).nth(nth);
            faults.inject(match moment {
                "before" => fault,
                "after" => fault.after(),
                _ => fault.later(Duration::from_millis(30)),
            });
            runs_over(&faults, &format!("request {nth}, {moment}")).await;
            if faults.injected() == 0 {
                assert!(nth > 30, "too few requests: {nth}");
                break;
            }
        }
    }
}

/// Many requests fail, as a seed chooses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_random_loses_and_doubles_nothing() {
    for seed in 0..12 {
        let faults = FaultStore::new(Arc::new(InMemory::new()));
        faults.inject_randomly(seed, 0.08);
        runs_over(&faults, &format!("seed {seed}")).await;
    }
}
