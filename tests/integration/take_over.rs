//! A store is taken from a writer that cannot be reached or shows no sign of life; what that has left is
//! brought in later, once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tidelog::object_store::ObjectStore;
use tidelog::wal::{RecoverOptions, RecoveredSeries, Renumbered, WalRecovery};
use tidelog::{
    ErrorKind, Mode, SeriesExt, SeriesOptions, Store, StoreBuilder, TransactionId, TreePath,
    Version,
};
use tidelog_storage::DurableLocal;
use tidelog_testkit::{Fault, FaultError, FaultStore};

use crate::kill::{ALONE, Ack, MANY, Running, SERIES, versions_in};
use crate::owner::{alone, append, builder, count};

/// The builder of a writer alone that has its write-ahead log in `wal`.
fn with_log_in(directory: &Path, wal: &Path) -> StoreBuilder {
    builder(directory).with_mode(Mode::Exclusive).with_wal_directory(wal)
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn id(number: u128) -> TransactionId {
    TransactionId::from_uuid(uuid::Uuid::from_u128(number))
}

async fn add(store: &Store, to: &str, from: i64, rows: i64) -> i64 {
    let receipt = store.root().append_series_data_with_options(append(to, from, rows)).await;
    receipt.unwrap().version.unwrap().number()
}

async fn refused(store: &Store, to: &str) -> tidelog::Error {
    store.root().append_series_data_with_options(append(to, 0, 1)).await.unwrap_err()
}

/// The old and new numbers of the versions that were brought in of one series.
fn runs(of: &WalRecovery, from: &str) -> Vec<(i64, Option<i64>, u64)> {
    let numbers = |run: &Renumbered| (run.old.number(), run.new.map(Version::number), run.count);
    let found: Vec<&RecoveredSeries> =
        of.series.iter().filter(|series| series.from == path(from)).collect();
    assert_eq!(found.len(), 1, "{of:?}");
    found[0].versions.iter().map(numbers).collect()
}

/// A store whose one writer has its log ahead in another directory, with two committed versions of
/// `/a.series` and, in that log only, two more and one of a new series.
struct Left {
    store: TempDir,
    wal: TempDir,
    owner: Store,
}

impl Left {
    async fn new() -> Self {
        let (store, wal) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let owner = with_log_in(store.path(), wal.path()).open_or_create().await.unwrap();
        add(&owner, "/a.series", 0, 10).await;
        add(&owner, "/a.series", 10, 10).await;
        owner.flush().await.unwrap();
        for from in [20, 30] {
            let one =
                append("/a.series", from, 10).with_transaction(id(from.unsigned_abs().into()));
            owner.root().append_series_data_with_options(one).await.unwrap();
        }
        add(&owner, "/deep/new.series", 0, 5).await;
        Self { store, wal, owner }
    }

    /// Somebody who writes with others and may take the store.
    async fn taker(&self) -> Store {
        builder(self.store.path()).with_take_over(true).open().await.unwrap()
    }

    async fn recover(&self, options: RecoverOptions) -> tidelog::Result<WalRecovery> {
        builder(self.store.path()).with_wal_directory(self.wal.path()).recover_wal(&options).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_taken_from_a_writer_that_cannot_be_reached() {
    let left = Left::new().await;
    let bystander = builder(left.store.path()).open().await.unwrap();
    let error = refused(&bystander, "/a.series").await;
    assert!(error.to_string().contains("--take-over"), "{error}");
    assert!(bystander.taken_over().is_none());

    let taker = left.taker().await;
    assert_eq!(add(&taker, "/a.series", 100, 10).await, 3);
    let taken = taker.taken_over().unwrap();
    assert_eq!((taken.from.pid, taken.records_left), (std::process::id(), None));
    assert_eq!(add(&bystander, "/a.series", 110, 10).await, 4);
    assert_eq!(count(&bystander, "/a.series").await, 40);

    // The old owner commits nothing and says who has the store.
    let error = left.owner.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = refused(&left.owner, "/a.series").await;
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let by = format!("taken over by process {}", std::process::id());
    assert!(error.to_string().contains(&by), "{error}");
    assert!(left.owner.remove("/a.series", false).await.is_err());
    assert!(left.owner.close().await.is_err());
    let held = left.recover(RecoverOptions::default()).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict, "its process has the log open: {held}");
    let Left { store, wal, owner } = left;
    drop(owner);
    let left = Left { owner: bystander, store, wal };

    // Its numbers are others' now, so nobody goes on with its log before it is brought in.
    let next = with_log_in(left.store.path(), left.wal.path()).open().await.unwrap();
    let error = refused(&next, "/a.series").await;
    assert!(error.to_string().contains("wal recover"), "{error}");
    let dry = left.recover(RecoverOptions::default().with_dry_run(true)).await.unwrap();
    assert_eq!((dry.records, dry.version_count(), dry.row_count()), (3, 3, 25));
    assert_eq!(runs(&dry, "/a.series"), [(3, None, 2)]);
    assert_eq!(count(&left.owner, "/a.series").await, 40);

    let done = left.recover(RecoverOptions::default()).await.unwrap();
    assert_eq!(done.taken_over.as_ref().unwrap().pid, std::process::id());
    assert_eq!(runs(&done, "/a.series"), [(3, Some(5), 2)]);
    assert_eq!(runs(&done, "/deep/new.series"), [(1, Some(1), 1)]);
    assert_eq!(count(&left.owner, "/a.series").await, 60);
    assert_eq!(count(&left.owner, "/deep/new.series").await, 5);
    let again = left.recover(RecoverOptions::default()).await.unwrap();
    assert_eq!((again.records, again.version_count()), (0, 0));
    assert!(again.taken_over.is_none());
    assert_eq!(add(&next, "/a.series", 120, 10).await, 7);
    assert_eq!(count(&next, "/a.series").await, 70);
    next.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_what_a_writer_has_left() {
    let left = Left::new().await;
    let check = |with_log: bool| {
        let builder = builder(left.store.path());
        match with_log {
            true => builder.with_wal_directory(left.wal.path()),
            false => builder,
        }
        .fsck(true)
    };
    let living = check(true).await.unwrap();
    assert!(living.is_intact() && living.notes.is_empty(), "{living:?}");
    assert_eq!((living.wal_records, living.wal_uncovered), (5, 3));
    let unseen = check(false).await.unwrap();
    assert!(unseen.is_intact(), "{unseen:?}");
    assert!(unseen.notes[0].problem.contains("is not to be seen here"), "{unseen:?}");

    let taker = left.taker().await;
    add(&taker, "/a.series", 100, 10).await;
    for with_log in [true, false] {
        let taken = check(with_log).await.unwrap();
        assert!(taken.is_intact(), "{taken:?}");
        assert_eq!(taken.notes.len(), 1, "{taken:?}");
        assert!(taken.notes[0].problem.contains("taken over by process"), "{taken:?}");
        assert!(taken.notes[0].remedy.contains("tidelog wal recover"), "{taken:?}");
    }
    let Left { store, wal, owner } = left;
    drop((owner, taker));
    let recovered = builder(store.path()).with_wal_directory(wal.path());
    recovered.recover_wal(&RecoverOptions::default()).await.unwrap();
    let done = builder(store.path()).with_wal_directory(wal.path()).fsck(true).await.unwrap();
    assert!(done.is_intact() && done.notes.is_empty(), "{done:?}");
}

/// While a writer appends, flushes and lets go of segments, a check finds nothing wrong. A log that does
/// not go on where the store ends is damage.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_beside_a_writer_raises_no_alarm() {
    let directory = TempDir::new().unwrap();
    let builder_of = || {
        let builder = builder(directory.path()).with_mode(Mode::Exclusive);
        builder.with_hot_max(50, 1 << 20).with_wal_segment_bytes(4_000)
    };
    let owner = builder_of().open_or_create().await.unwrap();
    add(&owner, "/0.series", 0, 1).await;
    let (appended, done) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, stop, writer) = (Arc::clone(&appended), Arc::clone(&done), owner.clone());
    let writing = tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            let appends = count.load(Ordering::Relaxed);
            add(&writer, &format!("/{}.series", appends % 3), appends * 10, 10).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (mut uncovered, mut round) = (0, 0);
    while round < 15 || appended.load(Ordering::Relaxed) < 30 || uncovered == 0 {
        round += 1;
        assert!(!writing.is_finished(), "the writer has failed");
        let report = builder(directory.path()).fsck(round % 5 == 0).await.unwrap();
        assert!(report.is_intact(), "round {round}: {:?}", report.damage);
        assert!(report.notes.is_empty(), "round {round}: {:?}", report.notes);
        uncovered += report.wal_uncovered;
    }
    done.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    assert!(owner.tiers().unwrap().flushes > 2);
    owner.flush().await.unwrap();
    add(&owner, "/0.series", 0, 1).await;
    drop(owner);

    let dead = builder(directory.path()).fsck(false).await.unwrap();
    assert!(dead.is_intact(), "{dead:?}");
    assert!(dead.notes[0].problem.contains("has died"), "{dead:?}");
    // The store is put back to what it was some flushes ago; its log ahead is not.
    let commits = directory.path().join("_oplog/_delta_log");
    let mut names: Vec<_> =
        std::fs::read_dir(&commits).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|ending| ending == "json"));
    names.sort();
    names[names.len() - 6..].iter().for_each(|name| std::fs::remove_file(name).unwrap());
    let broken = builder(directory.path()).fsck(false).await.unwrap();
    assert!(
        broken.damage.iter().any(|finding| finding.problem.contains("goes on with")),
        "{broken:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_writer_alone_takes_the_store_from_another() {
    let left = Left::new().await;
    let own = TempDir::new().unwrap();
    let builder = with_log_in(left.store.path(), own.path()).with_take_over(true);
    let taker = builder.open().await.unwrap();
    assert_eq!(add(&taker, "/a.series", 100, 10).await, 3);
    assert!(taker.taken_over().is_some());
    // Until it looks at the log, which it does each second, the old one may acknowledge more.
    assert_eq!(left.owner.flush().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(refused(&left.owner, "/a.series").await.kind(), ErrorKind::Conflict);
    // What nobody has claimed here is refused to others while the new owner lives.
    let Left { store, wal, owner } = left;
    drop(owner);
    let left = Left { owner: taker, store, wal };
    let error = left.recover(RecoverOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    left.owner.close().await.unwrap();
    let done = left.recover(RecoverOptions::default()).await.unwrap();
    assert_eq!(runs(&done, "/a.series")[0].1, Some(4));
    assert_eq!(count(&left.owner, "/a.series").await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lives_is_not_robbed_and_who_died_here_is_brought_in() {
    let directory = TempDir::new().unwrap();
    let owner = alone(directory.path()).await;
    add(&owner, "/a.series", 0, 10).await;
    let taker = builder(directory.path()).with_take_over(true).open().await.unwrap();
    assert_eq!(refused(&taker, "/a.series").await.kind(), ErrorKind::Conflict);
    assert!(taker.taken_over().is_none());
    drop(owner);
    assert_eq!(add(&taker, "/a.series", 10, 10).await, 2);
    assert!(taker.taken_over().is_none(), "it was dead, and nothing of it is left behind");
    assert_eq!(count(&taker, "/a.series").await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_find_their_series_or_nothing_is_brought_in() {
    let left = Left::new().await;
    let taker = left.taker().await;
    // One of the appends was repeated where it counts.
    let again = append("/a.series", 20, 10).with_transaction(id(20));
    taker.root().append_series_data_with_options(again).await.unwrap();
    taker.rename("/a.series", "/b.series").await.unwrap();
    taker.create_directory("/deep/new.series").await.unwrap();
    let Left { store, wal, owner } = left;
    drop(owner);
    let left = Left { owner: taker, store, wal };

    let error = left.recover(RecoverOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("/deep/new.series is not a series"), "{error}");
    assert_eq!(count(&left.owner, "/b.series").await, 30, "nothing was brought in");
    let elsewhere = RecoverOptions::default()
        .with_destination(path("/deep/new.series"), path("/other/new.series"));
    let done = left.recover(elsewhere.clone()).await.unwrap();
    assert_eq!(runs(&done, "/a.series"), [(4, Some(4), 1)]);
    let of_a = done.series.iter().find(|series| series.from == path("/a.series")).unwrap();
    assert_eq!(of_a.to, path("/b.series"));
    assert_eq!((of_a.known[0].old.number(), of_a.known[0].new), (3, Some(Version::new(3))));
    assert_eq!(count(&left.owner, "/b.series").await, 40);
    assert_eq!(count(&left.owner, "/other/new.series").await, 5);
    assert_eq!(left.recover(elsewhere).await.unwrap().records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_series_that_was_removed_go_where_they_are_sent() {
    let left = Left::new().await;
    let taker = left.taker().await;
    taker.remove("/a.series", false).await.unwrap();
    // The same path is another series now.
    add(&taker, "/a.series", 500, 1).await;
    let Left { store, wal, owner } = left;
    drop(owner);
    let left = Left { owner: taker, store, wal };
    let error = left.recover(RecoverOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("/a.series has been removed"), "{error}");
    assert_eq!(count(&left.owner, "/a.series").await, 1);
    // Columns that do not fit are told, too.
    let options = SeriesOptions::default();
    left.owner.root().create_series("/other.series", options).await.unwrap();
    let batch = tidelog::arrow::array::RecordBatch::try_from_iter([(
        "ts",
        Arc::new(tidelog::arrow::array::TimestampSecondArray::from(vec![1]))
            as tidelog::arrow::array::ArrayRef,
    )]);
    left.owner.root().append_series_data("/other.series", &batch.unwrap(), None).await.unwrap();
    let to = |at: &str| RecoverOptions::default().with_destination(path("/a.series"), path(at));
    let error = left.recover(to("/other.series")).await.unwrap_err();
    assert!(error.to_string().contains("has no such column"), "{error}");
    let done = left.recover(to("/saved/a.series")).await.unwrap();
    assert_eq!(runs(&done, "/a.series"), [(3, Some(1), 2)]);
    assert_eq!(count(&left.owner, "/saved/a.series").await, 20);
    assert_eq!(count(&left.owner, "/deep/new.series").await, 5);
}

/// Each request of a recovery fails, before or after it takes effect; it is done again, and all is there
/// once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_is_cut_short_is_done_again() {
    for after in [false, true] {
        for nth in 1.. {
            let (store, wal) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            let owner = with_log_in(store.path(), wal.path()).open_or_create().await.unwrap();
            for i in 0..6 {
                add(&owner, &format!("/{}.series", i % 2), i * 10, 10).await;
            }
            let taker = builder(store.path()).with_take_over(true).open().await.unwrap();
            assert_eq!(add(&taker, "/0.series", 100, 10).await, 1);
            drop(owner);
            let place: Arc<dyn ObjectStore> = Arc::new(DurableLocal::open(store.path()).unwrap());
            let faulty = FaultStore::new(place);
            let fault = Fault::new(FaultError::Generic).nth(nth);
            faulty.inject(if after { fault.after() } else { fault });
            let recover = |faulty: &FaultStore| {
                let builder =
                    Store::builder("memory://").with_object_store(Arc::new(faulty.clone()));
                // Three commits.
                let builder = builder.with_wal_directory(wal.path()).with_hot_max(20, 1 << 20);
                async move { builder.recover_wal(&RecoverOptions::default()).await }
            };
            let mut brought = 0;
            if let Ok(report) = recover(&faulty).await {
                brought += report.version_count();
            } else {
                // Some of it may be in already, and is not told again.
                recover(&faulty).await.unwrap();
                brought = 6;
            }
            let what = format!("request {nth}, after {after}");
            assert_eq!(brought, 6, "{what}");
            assert_eq!(count(&taker, "/0.series").await, 40, "{what}");
            assert_eq!(count(&taker, "/1.series").await, 30, "{what}");
            let next = with_log_in(store.path(), wal.path()).open().await.unwrap();
            assert_eq!(add(&next, "/1.series", 100, 1).await, 4, "{what}");
            next.close().await.unwrap();
            if faulty.injected() == 0 {
                assert!(nth > 10, "{what}: too few requests");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_that_take_the_store_at_once_one_has_it() {
    let left = Left::new().await;
    let mut tasks = Vec::new();
    let logs: Vec<TempDir> = (0..4).map(|_| TempDir::new().unwrap()).collect();
    for log in &logs {
        let builder = with_log_in(left.store.path(), log.path()).with_take_over(true);
        tasks.push(tokio::spawn(async move {
            let store = builder.open().await.unwrap();
            let one = append("/a.series", 100, 10);
            let outcome = store.root().append_series_data_with_options(one).await;
            (store, outcome)
        }));
    }
    let (mut acked, mut stores) = (Vec::new(), Vec::new());
    for task in tasks {
        let (store, outcome) = task.await.unwrap();
        match outcome {
            Ok(receipt) => acked.push(receipt.version.unwrap().number()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
        stores.push(store);
    }
    assert!(!acked.is_empty());
    // Those that could not reach each other's logs may have taken the store from one another in turn;
    // what each of them acknowledged is in its log, and comes in.
    for store in stores {
        drop(store.close().await);
    }
    for log in &logs {
        let recovered = builder(left.store.path()).with_wal_directory(log.path());
        match recovered.recover_wal(&RecoverOptions::default()).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
    let reader = builder(left.store.path()).open().await.unwrap();
    assert_eq!(count(&reader, "/a.series").await, 20 + acked.len() * 10);
}

fn signal(running: &Running, name: &str) {
    let pid = running.child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// A process that is stopped loses its store; when it goes on it acknowledges nothing more.
#[test]
fn a_stopped_writer_acknowledges_nothing_once_its_store_is_taken() {
    let directory = TempDir::new().unwrap();
    let (store, wal) = (directory.path().join("store"), directory.path().join("other-wal"));
    let running = Running::start(&store, 1, &[(ALONE, "1".to_owned())]);
    let mut acks = BTreeSet::new();
    let take = |acks: &mut BTreeSet<Ack>| {
        while let Ok(line) = running.lines.recv_timeout(Duration::from_secs(2)) {
            acks.extend(Ack::parse(&line));
            if acks.len() == 40 {
                signal(&running, "-STOP");
            }
        }
    };
    take(&mut acks);
    assert!(acks.len() >= 40, "{}", acks.len());

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let taker = runtime.block_on(async {
        let taker = with_log_in(&store, &wal).with_take_over(true).open().await.unwrap();
        add(&taker, "/taker.series", 0, 10).await;
        assert!(taker.taken_over().unwrap().records_left.is_some());
        taker
    });
    signal(&running, "-CONT");
    let (late, status) = running.finish().unwrap();
    assert!(!status.success(), "its appends fail");
    // What it had decided before it was stopped, each of its three tasks with up to three lines.
    assert!(late.len() <= 9, "{} appends were acknowledged after the store was taken", late.len());
    acks.extend(late);
    runtime.block_on(async {
        taker.close().await.unwrap();
        let recovered = builder(&store).recover_wal(&RecoverOptions::default()).await.unwrap();
        assert!(recovered.taken_over.is_some());
        let mut found = BTreeSet::new();
        for path in SERIES.into_iter().chain([MANY]) {
            if !taker.list(path).await.unwrap().is_empty() {
                found.extend(versions_in(&taker, path).await.unwrap());
            }
        }
        let numbers = |acks: &BTreeSet<Ack>| -> BTreeSet<(String, i64)> {
            acks.iter().map(|ack| (ack.path.clone(), ack.number)).collect()
        };
        let (acked, found) = (numbers(&acks), numbers(&found));
        assert_eq!(acked.difference(&found).collect::<Vec<_>>(), Vec::<&(String, i64)>::new());
    });
}
