//! The stream of changes tells every version once, in order, whoever writes and whatever upkeep
//! does, and asks for little.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::{
    Change, ChangeOptions, ChangeStream, CommitVersion, ErrorKind, SeriesAppend, SeriesExt, Store,
    StoreBuilder, UpkeepMode,
};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::Operation;
use tokio::time::timeout;

const SOON: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);
const START: CommitVersion = CommitVersion::new(0);

fn builder(objects: &Arc<dyn ObjectStore>) -> StoreBuilder {
    Store::builder("memory://").with_object_store(Arc::clone(objects))
}

fn options() -> ChangeOptions {
    ChangeOptions::default().with_poll_interval(SOON)
}

fn append(path: &str, start: i64, rows: i64) -> Result<SeriesAppend> {
    let times = TimestampMicrosecondArray::from_iter_values(start..start + rows);
    let numbers = Int64Array::from_iter_values(0..rows);
    let columns: [(&str, ArrayRef); 2] = [("time", Arc::new(times)), ("n", Arc::new(numbers))];
    Ok(SeriesAppend::new(path, RecordBatch::try_from_iter(columns)?))
}

async fn next(changes: &mut ChangeStream) -> Result<Change> {
    timeout(LONG, changes.try_next()).await??.context("a change")
}

async fn is_quiet(changes: &mut ChangeStream) -> bool {
    timeout(SOON * 8, changes.try_next()).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_of_several_writers_is_told_once_while_the_log_is_merged() -> Result<()> {
    const WRITERS: usize = 3;
    const ROUNDS: usize = 30;
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let reader = builder(&objects).create().await?;
    let all = reader.changes(options()).await?;
    let mut some = reader.changes(options().with_path("/w/*/shared.series")).await?;
    let done = Arc::new(AtomicBool::new(false));
    let keeper = tokio::spawn(keep(
        builder(&objects).with_upkeep(UpkeepMode::OnRequest).open().await?,
        Arc::clone(&done),
    ));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = builder(&objects).open().await?;
        writers.push(tokio::spawn(write(store, writer, ROUNDS)));
    }
    let count = WRITERS * ROUNDS * 3;
    let teller = tokio::spawn(take(all, count));
    for writer in writers {
        writer.await??;
    }
    let told = timeout(LONG, teller).await???;
    done.store(true, Ordering::SeqCst);
    let merges = keeper.await??;
    ensure!(merges > 2, "{merges} merges");
    check_against(&reader, &told).await?;
    // From the beginning, by a handle that saw nothing of it.
    let late = builder(&objects).open().await?;
    let mut again = late.changes(options().with_since(START)).await?;
    for change in &told {
        assert_eq!(next(&mut again).await?, *change);
    }
    ensure!(is_quiet(&mut again).await);
    // From the middle, and of some series only.
    let middle = told[count / 2].commit;
    let mut rest = late.changes(options().with_since(middle)).await?;
    for change in told.iter().filter(|change| change.commit > middle) {
        assert_eq!(next(&mut rest).await?, *change);
    }
    for change in told.iter().filter(|change| change.path.as_str().ends_with("shared.series")) {
        assert_eq!(next(&mut some).await?, *change);
    }
    ensure!(is_quiet(&mut rest).await && is_quiet(&mut some).await);
    Ok(())
}

/// Each round makes a version of a series of the writer's own, and two of one that others write
/// too. Whoever is overtaken too often has stored nothing and tries again.
async fn write(store: Store, writer: usize, rounds: usize) -> Result<()> {
    for round in 0..rounds {
        let start = i64::try_from(round)? * 100;
        let shared = "/w/x/shared.series";
        let own = vec![append(&format!("/w/{writer}.series"), start, 2)?];
        let both = vec![append(shared, start, 1)?, append(shared, start + 50, 3)?];
        for appends in [own, both] {
            while let Err(error) = store.root().append_atomic(appends.clone()).await {
                ensure!(error.kind() == ErrorKind::Conflict, "{error}");
            }
        }
    }
    Ok(())
}

async fn keep(store: Store, done: Arc<AtomicBool>) -> Result<u64> {
    let mut merges = 0;
    while !done.load(Ordering::SeqCst) {
        match store.maintain(merges % 3 == 2).await {
            Ok(maintained) => merges += maintained.merges,
            Err(error) => ensure!(error.kind() == ErrorKind::Conflict, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    Ok(merges)
}

async fn take(mut changes: ChangeStream, count: usize) -> Result<Vec<Change>> {
    let mut told = Vec::with_capacity(count);
    while told.len() < count {
        told.push(changes.try_next().await?.context("a change")?);
    }
    Ok(told)
}

/// What was told is what the store has, in order and once.
async fn check_against(store: &Store, told: &[Change]) -> Result<()> {
    ensure!(told.windows(2).all(|pair| pair[0].write_time < pair[1].write_time));
    ensure!(told.windows(2).all(|pair| pair[0].commit <= pair[1].commit));
    let mut series: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in told {
        series.entry(change.path.as_str()).or_default().push(change);
    }
    for (path, changes) in &series {
        let versions = store.versions(path).await?;
        assert_eq!(versions.len(), changes.len(), "{path}");
        for (version, change) in versions.iter().zip(changes) {
            assert_eq!(version.version, change.version, "{path}");
            assert_eq!(version.write_time, change.write_time, "{path}");
            assert_eq!((version.rows, version.range), (change.rows, change.range), "{path}");
            assert_eq!(version.operation, change.operation);
        }
    }
    let entries: BTreeSet<String> =
        store.list("/w/**/*.series").await?.iter().map(|entry| entry.path.to_string()).collect();
    ensure!(entries.iter().map(String::as_str).eq(series.keys().copied()), "{entries:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_now_on_means_from_the_call_on() -> Result<()> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (ours, theirs) = (builder(&objects).create().await?, builder(&objects).open().await?);
    theirs.root().append_series_data_with_options(append("/a", 0, 1)?).await?;
    // Not polled before something lands.
    let mut changes = ours.changes(options()).await?;
    theirs.root().append_series_data_with_options(append("/a", 10, 2)?).await?;
    ours.root().append_series_data_with_options(append("/b", 20, 3)?).await?;
    let (first, second) = (next(&mut changes).await?, next(&mut changes).await?);
    assert_eq!((first.path.as_str(), first.version.number(), first.rows), ("/a", 2, 2));
    assert_eq!((second.path.as_str(), second.version.number(), second.rows), ("/b", 1, 3));
    ensure!(first.node != second.node && first.commit < second.commit);
    // What changes the tree alone is no version; a rename shows in what is written after it.
    theirs.rename("/b", "/c").await?;
    theirs.root().append_series_data_with_options(append("/c", 30, 1)?).await?;
    let third = next(&mut changes).await?;
    assert_eq!((third.path.as_str(), third.node), ("/c", second.node));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused() -> Result<()> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = builder(&objects).create().await?;
    store.create_directory("/d").await?;
    for (options, kind) in [
        (options().with_path("/d"), ErrorKind::InvalidInput),
        (options().with_path("d"), ErrorKind::InvalidInput),
        (options().with_path("/d["), ErrorKind::InvalidInput),
        (options().with_since(CommitVersion::new(99)), ErrorKind::NotFound),
    ] {
        assert_eq!(store.changes(options).await.err().map(|error| error.kind()), Some(kind));
    }
    // What is not there yet may come.
    let mut changes = store.changes(options().with_path("/later")).await?;
    store.root().append_series_data_with_options(append("/later", 0, 1)?).await?;
    assert_eq!(next(&mut changes).await?.path.as_str(), "/later");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_finds_nothing_is_one_request_and_a_stream_that_rests_makes_none() -> Result<()>
{
    let counting = CountingStore::new(Arc::new(InMemory::new()));
    let objects: Arc<dyn ObjectStore> = Arc::new(counting.clone());
    let store = builder(&objects).create().await?;
    store.root().append_series_data_with_options(append("/a", 0, 1)?).await?;
    let mut changes = store.changes(options()).await?;
    drop(counting.take());
    tokio::time::sleep(SOON * 5).await;
    assert_eq!(counting.take(), []);
    ensure!(is_quiet(&mut changes).await);
    let asked = counting.take();
    ensure!((1..=8).contains(&asked.len()), "{asked:?}");
    let next_commit = "_oplog/_delta_log/00000000000000000002.json";
    ensure!(asked.iter().all(|r| r.operation == Operation::Get && r.path == next_commit));
    // A small commit that lands has its rows inside, a larger one costs its part too.
    for (versions, of_parts) in [(1, 0), (20, 1)] {
        let appends = (0..versions).map(|i| append("/a", i * 10, 1));
        store.root().append_many(appends.collect::<Result<_>>()?).await?;
        drop(counting.take());
        for _ in 0..versions {
            next(&mut changes).await?;
        }
        let asked = counting.take();
        let part = |path: &str| path.starts_with("_oplog/part-");
        assert_eq!(asked.iter().filter(|r| part(&r.path)).count(), of_parts, "{asked:?}");
        assert_eq!(asked.iter().filter(|r| !part(&r.path)).count(), 1, "{asked:?}");
    }
    drop(changes);
    tokio::time::sleep(SOON * 3).await;
    assert_eq!(counting.take(), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_said_and_never_skipped() -> Result<()> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let writer = builder(&objects)
        .with_log_retention(Duration::ZERO)
        .with_upkeep(UpkeepMode::OnRequest)
        .create()
        .await?;
    let sleeper = builder(&objects).open().await?;
    let mut slept = sleeper.changes(options()).await?;
    for i in 0..30 {
        writer.root().append_series_data_with_options(append("/a", i * 10, 1)?).await?;
        if i % 10 == 9 {
            writer.maintain(false).await?;
        }
    }
    let error = timeout(LONG, slept.try_next()).await?.err().context("an error")?;
    assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}");
    let mut early = writer.changes(options().with_since(CommitVersion::new(3))).await?;
    let error = timeout(LONG, early.try_next()).await?.err().context("an error")?;
    assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}");
    // From now on all is well.
    let mut fresh = sleeper.changes(options()).await?;
    writer.root().append_series_data_with_options(append("/a", 1000, 1)?).await?;
    assert_eq!(next(&mut fresh).await?.version.number(), 31);
    Ok(())
}
