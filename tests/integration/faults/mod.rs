//! An acked append is kept, once, whatever fails underneath; an append that is not acked is not
//! there, unless its error said that nobody knows.
//!
//! A fixed script of calls runs over a store in which one operation, or all from one on, fail. Each
//! append carries a mark of its own, so that a fresh handle on the bare store can be judged by the
//! marks that it finds.

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tidelog::object_store::memory::InMemory;
use tidelog::object_store::{ObjectMeta, ObjectStore};
use tidelog::{
    AppendReceipt, AsOf, ErrorKind, ReadOptions, SeriesAppend, SeriesExt, SeriesOptions, Store,
    TransactionId, Version,
};
use tidelog_storage::DurableLocal;
use tidelog_storage::counting::Operation;
use tidelog_testkit::generate::{RawRow, SeriesSpec};
use tidelog_testkit::{Fault, FaultError, FaultStore};
use tokio::runtime::Runtime;

use self::random::Upkeep;
use crate::support::{Context, Fallible, append_of, rows, same};

/// A runtime in which waiting costs nothing.
fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

async fn open(store: &Arc<dyn ObjectStore>) -> Result<Store, tidelog::Error> {
    let builder = Store::builder("memory://").with_object_store(Arc::clone(store));
    builder.with_partitions(1).open().await
}

async fn create(store: &Arc<dyn ObjectStore>) -> Result<Store, tidelog::Error> {
    let builder = Store::builder("memory://").with_object_store(Arc::clone(store));
    builder.with_partitions(1).create().await
}

/// How many rows the append with this mark has.
fn rows_of_mark(mark: u8) -> usize {
    2 + usize::from(mark % 3)
}

/// An append whose rows all carry `mark`.
fn marked(path: &str, mark: u8) -> SeriesAppend {
    let row = |i: usize| RawRow {
        slot: (mark * 7 + u8::try_from(i).unwrap() * 3) % 48,
        key: None,
        part: None,
        value: None,
        count: Some(mark.into()),
    };
    let raw: Vec<RawRow> = (0..rows_of_mark(mark)).map(row).collect();
    append_of(&SeriesSpec::plain(), path, &raw).with_transaction(id_of(mark))
}

fn id_of(mark: u8) -> TransactionId {
    TransactionId::from_uuid(uuid::Uuid::from_u128(u128::from(mark) + 1))
}

/// The mark of the append with this id.
fn mark_of(id: TransactionId) -> Fallible<u8> {
    u8::try_from(id.as_uuid().as_u128() - 1).at("an id that is not of the script")
}

/// How one append ended, as its caller was told.
#[derive(Debug, Clone)]
enum Outcome {
    Acked(AppendReceipt),
    Unknown,
    Refused,
}

/// How a change of the tree ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Done,
    Unknown,
    Refused,
}

/// What the caller of the script was told.
#[derive(Debug)]
struct Told {
    appends: BTreeMap<u8, (String, Outcome)>,
    renamed: Change,
    removed: Change,
    kinds: Vec<ErrorKind>,
}

impl Default for Told {
    fn default() -> Self {
        let (renamed, removed) = (Change::Refused, Change::Refused);
        Self { appends: BTreeMap::new(), renamed, removed, kinds: Vec::new() }
    }
}

impl Told {
    fn append(&mut self, path: &str, mark: u8, result: Result<AppendReceipt, tidelog::Error>) {
        let outcome = match result {
            Ok(receipt) => Outcome::Acked(receipt),
            Err(error) => {
                self.kinds.push(error.kind());
                match error.kind() {
                    ErrorKind::OutcomeUnknown => Outcome::Unknown,
                    _ => Outcome::Refused,
                }
            }
        };
        self.appends.insert(mark, (path.to_owned(), outcome));
    }

    fn atomic(
        &mut self,
        members: &[(&str, u8)],
        result: Result<Vec<AppendReceipt>, tidelog::Error>,
    ) {
        for (i, (path, mark)) in members.iter().enumerate() {
            let one = result.as_ref().map(|receipts| receipts[i].clone());
            self.append(path, *mark, one.map_err(Clone::clone));
        }
    }

    fn change(&mut self, result: Result<(), tidelog::Error>) -> Change {
        match result {
            Ok(()) => Change::Done,
            Err(error) => {
                self.kinds.push(error.kind());
                if error.kind() == ErrorKind::OutcomeUnknown {
                    Change::Unknown
                } else {
                    Change::Refused
                }
            }
        }
    }
}

const MANY: [(&str, u8); 3] = [("/f/one", 3), ("/f/two", 4), ("/f/one", 5)];
const ATOMIC: [(&str, u8); 3] = [("/f/one", 6), ("/f/two", 7), ("/g/three", 8)];
/// The mark of the append that comes after the removal of its series.
const AFTER_REMOVAL: u8 = 10;

/// The script. A call that fails does not end it.
async fn script(store: &Store, mut upkeep: Upkeep) -> Fallible<Told> {
    let mut told = Told::default();
    let root = store.root();
    let created = root.create_series("/f/one", SeriesOptions::default()).await;
    told.change(created);
    for (path, mark) in [("/f/one", 1), ("/f/two", 2)] {
        let result = root.append_series_data_with_options(marked(path, mark)).await;
        told.append(path, mark, result);
        upkeep.perhaps(store, &mut told).await;
    }
    look(store).await?;
    let appends = MANY.map(|(path, mark)| marked(path, mark)).to_vec();
    match root.append_many(appends).await {
        Ok(results) => {
            for ((path, mark), result) in MANY.into_iter().zip(results) {
                told.append(path, mark, result);
            }
        }
        Err(error) => return Err(format!("append_many: {error}")),
    }
    upkeep.perhaps(store, &mut told).await;
    let appends = ATOMIC.map(|(path, mark)| marked(path, mark)).to_vec();
    told.atomic(&ATOMIC, root.append_atomic(appends).await);
    look(store).await?;
    let renamed = store.rename("/f/two", "/f/moved").await;
    told.renamed = told.change(renamed);
    upkeep.perhaps(store, &mut told).await;
    let result = root.append_series_data_with_options(marked("/f/moved", 9)).await;
    told.append("/f/moved", 9, result);
    let removed = store.remove("/g/three", false).await;
    told.removed = told.change(removed);
    upkeep.perhaps(store, &mut told).await;
    let result = root.append_series_data_with_options(marked("/g/three", AFTER_REMOVAL)).await;
    told.append("/g/three", AFTER_REMOVAL, result);
    look(store).await?;
    Ok(told)
}

/// Reads may fail, but what they yield is whole.
async fn look(store: &Store) -> Fallible {
    let Ok(stream) = store.root().read_series_all("/f/one").await else { return Ok(()) };
    let Ok(batches) = stream.try_collect::<Vec<_>>().await else { return Ok(()) };
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for batch in batches {
        for row in tidelog_testkit::rows_of(&batch).at("rows")? {
            *counts.entry(row[4].as_int().unwrap_or_default()).or_default() += 1;
        }
    }
    for (mark, count) in counts {
        same(format!("rows of mark {mark}"), &rows_of_mark(u8::try_from(mark).unwrap()), &count)?;
    }
    Ok(())
}

/// Every version that a store holds at head: its path, number and mark. Fails if a version is not
/// whole or the numbers are not dense.
async fn found_in(store: &Store) -> Fallible<Vec<(String, i64, u8)>> {
    let mut found = Vec::new();
    for entry in store.list("/**").await.at("listing")? {
        let path = entry.path.to_string();
        if entry.entry != tidelog::EntryType::FileSeries {
            continue;
        }
        let versions = store.versions(&path).await.at("versions")?;
        if versions.is_empty() {
            continue;
        }
        let mut rows_left: BTreeMap<i64, usize> = BTreeMap::new();
        for row in rows(store.root().read_series_all(&path).await).await? {
            *rows_left.entry(row[4].as_int().ok_or("a row without a mark")?).or_default() += 1;
        }
        for (number, version) in (1_i64..).zip(versions) {
            same(format!("{path}: dense versions"), &number, &version.version.number())?;
            let mark = mark_of(version.transaction)?;
            let whole = Some(rows_of_mark(mark));
            same(format!("{path} v{number}: rows"), &whole, &rows_left.remove(&mark.into()))?;
            same(
                format!("{path} v{number}: rows in the log"),
                &whole,
                &usize::try_from(version.rows).ok(),
            )?;
            found.push((path.clone(), number, mark));
        }
        same(format!("{path}: rows of no version"), &BTreeMap::new(), &rows_left)?;
    }
    Ok(found)
}

/// Judges a store by what the caller was told, its history included.
async fn judge(store: &Store, told: &Told) -> Fallible {
    judge_head(store, told).await?;
    for (mark, (path, outcome)) in &told.appends {
        // Of those that nothing happened to afterwards, one stands for all.
        let telling = [1, 4, 7, 8, AFTER_REMOVAL].contains(mark);
        if let Outcome::Acked(receipt) = outcome
            && telling
        {
            history_has(store, path, *mark, receipt).await?;
        }
    }
    Ok(())
}

async fn judge_head(store: &Store, told: &Told) -> Fallible {
    let found = found_in(store).await?;
    let at = |path: &str| found.iter().any(|(other, _, _)| other == path);
    match told.renamed {
        Change::Done => same("what was renamed", &false, &at("/f/two"))?,
        Change::Refused | Change::Unknown => {}
    }
    for (mark, (path, outcome)) in &told.appends {
        let here: Vec<_> = found.iter().filter(|(_, _, other)| other == mark).collect();
        // The removal takes the eighth append with it, if it happened.
        let removed = path == "/g/three" && *mark != AFTER_REMOVAL;
        match (outcome, here.as_slice()) {
            (Outcome::Acked(receipt), [(_, version, _)]) => {
                same(
                    format!("version of mark {mark}"),
                    &receipt.version,
                    &Some(Version::new(*version)),
                )?;
                if removed && told.removed == Change::Done {
                    return Err(format!("mark {mark} is there in spite of the removal"));
                }
            }
            (Outcome::Acked(_), []) if removed && told.removed != Change::Refused => {}
            (Outcome::Unknown, [] | [_]) | (Outcome::Refused, []) => {}
            (outcome, here) => return Err(format!("mark {mark} ({outcome:?}): {here:?}")),
        }
    }
    let atomic = ATOMIC.map(|(_, mark)| found.iter().any(|(_, _, other)| *other == mark));
    // The third was perhaps removed.
    same("an atomic append as a whole", &atomic[0], &atomic[1])?;
    if atomic[2] && !atomic[0] {
        return Err("an atomic append is there in part".to_owned());
    }
    Ok(())
}

/// The acked append was readable at its write time, whatever came later.
async fn history_has(store: &Store, path: &str, mark: u8, receipt: &AppendReceipt) -> Fallible {
    let time = receipt.write_time.ok_or("an ack without a write time")?;
    let options = ReadOptions::default().with_as_of(AsOf::Time(time));
    let then = rows(store.root().read_series_with_options(path, &options).await).await?;
    let count = then.iter().filter(|row| row[4].as_int() == Some(mark.into())).count();
    same(format!("rows of mark {mark} as of {time}"), &rows_of_mark(mark), &count)
}

/// Runs the script over a store with `fault` and judges it from everywhere; tells whether the fault
/// struck.
async fn run(fault: Fault) -> Fallible<bool> {
    let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    create(&bare).await.at("creating")?;
    let faulty = FaultStore::new(Arc::clone(&bare));
    faulty.inject(fault);
    run_on(&bare, &faulty, Upkeep::never()).await?;
    Ok(faulty.injected() > 0)
}

/// Runs the script and judges it; what its caller was told.
async fn run_on(
    bare: &Arc<dyn ObjectStore>,
    faulty: &FaultStore,
    upkeep: Upkeep,
) -> Fallible<Told> {
    let over: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
    let (survivor, told) = match open(&over).await {
        Ok(store) => {
            let told = script(&store, upkeep).await?;
            (Some(store), told)
        }
        Err(_) => (None, Told::default()),
    };
    if told.kinds.contains(&ErrorKind::Internal) {
        return Err("an injected fault was called a bug".to_owned());
    }
    // What is still in flight arrives.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let fresh = open(bare).await.at("opening afterwards")?;
    judge(&fresh, &told).await.map_err(|error| format!("fresh handle: {error}"))?;

    faulty.heal();
    let survivor = match survivor {
        Some(store) => store,
        None => open(&over).await.at("opening again")?,
    };
    judge_head(&survivor, &told).await.map_err(|error| format!("surviving handle: {error}"))?;
    writes_go_on(&survivor, &fresh, &told).await?;
    Ok(told)
}

/// After the faults, appends work, and repeating those whose outcome was unknown stores each once.
async fn writes_go_on(survivor: &Store, fresh: &Store, told: &Told) -> Fallible {
    for (store, mark) in [(survivor, 20), (fresh, 21)] {
        let append = marked("/f/one", mark);
        store.root().append_series_data_with_options(append).await.at("appending afterwards")?;
    }
    for (mark, (path, outcome)) in &told.appends {
        let tree_is_known =
            told.renamed == Change::Done && told.removed == Change::Done || path == "/f/one";
        if matches!(outcome, Outcome::Unknown) && tree_is_known && *path != "/f/two" && *mark != 8 {
            let append = marked(path, *mark);
            let again = survivor.root().append_series_data_with_options(append).await;
            again.at(format!("repeating mark {mark}"))?;
        }
    }
    let found = found_in(fresh).await?;
    let mut marks: Vec<u8> = found.iter().map(|(_, _, mark)| *mark).collect();
    let count = marks.len();
    marks.sort_unstable();
    marks.dedup();
    same("marks, each once", &marks.len(), &count)?;
    for mark in [20, 21] {
        same(format!("mark {mark}"), &true, &marks.contains(&mark))?;
    }
    Ok(())
}

/// Makes the 1st, 2nd, 3rd … operation fail until there is none left.
fn fail_each(what: &str, fault: impl Fn() -> Fault) {
    let mut cases = 0;
    for n in 1.. {
        let struck = paused().block_on(run(fault().nth(n)));
        match struck.unwrap_or_else(|error| panic!("{what}, operation {n}: {error}")) {
            true => cases += 1,
            false => break,
        }
    }
    // The script makes at least this many requests of any kind that it makes at all.
    assert!(cases >= 15, "{what}: only {cases} operations failed");
    println!("{what}: {cases} operations");
}

#[test]
fn any_operation_fails_once_without_effect() {
    for error in FaultError::ALL {
        fail_each(&format!("{error:?} before, once"), || Fault::new(error));
    }
}

#[test]
fn any_operation_fails_from_some_point_on_without_effect() {
    for error in FaultError::ALL {
        fail_each(&format!("{error:?} before, for good"), || Fault::new(error).for_good());
    }
}

#[test]
fn any_put_takes_effect_but_its_answer_is_lost() {
    for error in FaultError::ALL {
        let fault = || Fault::new(error).on(Operation::Put).after();
        fail_each(&format!("{error:?} after, once"), fault);
        fail_each(&format!("{error:?} after, for good"), || fault().for_good());
    }
}

#[test]
fn any_operation_loses_its_answer_from_some_point_on() {
    let fault = || Fault::new(FaultError::Generic).after().for_good();
    fail_each("all answers lost", fault);
}

#[test]
fn any_put_takes_effect_when_nobody_waits_any_more() {
    for millis in [30, 30_000] {
        let fault = || {
            Fault::new(FaultError::Generic).on(Operation::Put).later(Duration::from_millis(millis))
        };
        fail_each(&format!("{millis} ms later, once"), fault);
        fail_each(&format!("{millis} ms later, for good"), || fault().for_good());
    }
}

/// A store whose creation fails at any point can be created or opened afterwards.
#[test]
fn creating_a_store_fails_at_any_operation() {
    for error in FaultError::ALL {
        for after in [false, true] {
            for n in 1.. {
                let struck: Fallible<bool> = paused().block_on(async {
                    let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                    let faulty = FaultStore::new(Arc::clone(&bare));
                    let fault = Fault::new(error).nth(n);
                    faulty.inject(if after { fault.after() } else { fault });
                    let over: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
                    let created = create(&over).await;
                    if faulty.injected() > 0 {
                        let kind = created.as_ref().err().map(|error| error.kind());
                        if matches!(kind, Some(ErrorKind::Internal | ErrorKind::Corruption)) {
                            return Err(format!("a fault was called {kind:?}"));
                        }
                    } else {
                        created.as_ref().map_err(|error| error.to_string())?;
                    }
                    let store = match open(&bare).await {
                        Ok(store) => store,
                        Err(missing)
                            if created.is_err() && missing.kind() == ErrorKind::NotFound =>
                        {
                            create(&bare).await.at("creating again")?
                        }
                        Err(other) => return Err(other.to_string()),
                    };
                    let append = marked("/f/one", 1);
                    store.root().append_series_data_with_options(append).await.at("appending")?;
                    same(
                        "versions",
                        &1,
                        &found_in(&open(&bare).await.at("opening")?).await?.len(),
                    )?;
                    Ok(faulty.injected() > 0)
                });
                let what = format!("{error:?}, after: {after}, operation {n}");
                if !struck.unwrap_or_else(|error| panic!("{what}: {error}")) {
                    break;
                }
            }
        }
    }
}

/// A reply to a commit that is lost, in each of the ways in which it can be, neither doubles nor
/// loses the version, and nobody is asked to repeat.
#[test]
fn a_lost_reply_to_a_commit_is_found_out() {
    for error in [
        FaultError::Generic,
        FaultError::AlreadyExists,
        FaultError::NotFound,
        FaultError::PermissionDenied,
    ] {
        paused().block_on(async {
            let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            create(&bare).await.unwrap();
            let faulty = FaultStore::new(Arc::clone(&bare));
            faulty.inject(Fault::new(error).on(Operation::Put).at_path("_delta_log/").after());
            let store = open(&(Arc::new(faulty.clone()) as Arc<dyn ObjectStore>)).await.unwrap();
            for mark in [1, 2] {
                let append = marked("/f/one", mark);
                let receipt = store.root().append_series_data_with_options(append).await.unwrap();
                assert_eq!(receipt.version, Some(Version::new(mark.into())), "{error:?}");
            }
            assert_eq!(faulty.injected(), 1);
            for store in [&store, &open(&bare).await.unwrap()] {
                let found = found_in(store).await.unwrap();
                assert_eq!(found, [("/f/one".to_owned(), 1, 1), ("/f/one".to_owned(), 2, 2)]);
            }
        });
    }
}

/// The local disk refused to sync the commit: it is there, but may go. Nobody may call that an ack,
/// and repeating the append settles it.
#[test]
fn a_commit_that_the_disk_does_not_promise_to_keep_is_not_acked() {
    paused().block_on(async {
        let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        create(&bare).await.unwrap();
        let faulty = FaultStore::new(Arc::clone(&bare));
        faulty.inject(
            Fault::new(FaultError::Os(5)).on(Operation::Put).at_path("_delta_log/").after(),
        );
        let store = open(&(Arc::new(faulty.clone()) as Arc<dyn ObjectStore>)).await.unwrap();
        let append = marked("/f/one", 1);
        let error = store.root().append_series_data_with_options(append.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        store.root().append_series_data_with_options(append).await.unwrap();
        assert_eq!(found_in(&open(&bare).await.unwrap()).await.unwrap().len(), 1);
    });
}

/// A commit whose outcome was unknown lands while the caller repeats it.
#[test]
fn repeating_while_the_first_try_is_still_in_flight_stores_once() {
    for in_flight in (0..1_200).step_by(25) {
        paused().block_on(async {
            let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let other = create(&bare).await.unwrap();
            let faulty = FaultStore::new(Arc::clone(&bare));
            let store = open(&(Arc::new(faulty.clone()) as Arc<dyn ObjectStore>)).await.unwrap();
            store.root().append_series_data_with_options(marked("/f/one", 1)).await.unwrap();
            faulty.set_latency(1, Duration::from_millis(40), Duration::from_millis(60));
            // About as long as the writer asks what became of its commit.
            let late = Duration::from_millis(5_900 + in_flight);
            let commits = |fault: Fault| fault.on(Operation::Put).at_path("_delta_log/").for_good();
            faulty.inject(commits(Fault::new(FaultError::Generic).later(late)));
            let append = marked("/f/one", 2);
            let error =
                store.root().append_series_data_with_options(append.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
            faulty.heal();
            faulty.set_latency(2, Duration::from_millis(40), Duration::from_millis(60));
            let over: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
            let repeating = if in_flight % 50 == 0 { open(&over).await.unwrap() } else { store };
            repeating.root().append_series_data_with_options(append).await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
            let found = found_in(&other).await.unwrap();
            let marks: Vec<u8> = found.iter().map(|(_, _, mark)| *mark).collect();
            assert_eq!(marks, [1, 2], "{in_flight} ms");
        });
    }
}

async fn objects(store: &Arc<dyn ObjectStore>) -> Vec<(String, u64)> {
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let mut objects: Vec<_> =
        objects.into_iter().map(|object| (object.location.to_string(), object.size)).collect();
    objects.sort();
    objects
}

/// The disk is full, over quota, broken or read-only: typed errors, everything stays readable and as
/// it was, and writing goes on when it is mended.
#[test]
fn a_store_that_cannot_be_written_stays_readable_and_recovers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let refusals = [28, 122, 5, 30].map(FaultError::Os);
    for error in refusals.into_iter().chain([FaultError::PermissionDenied]) {
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let bare: Arc<dyn ObjectStore> =
                Arc::new(DurableLocal::open(directory.path()).unwrap());
            create(&bare).await.unwrap();
            let faulty = FaultStore::new(Arc::clone(&bare));
            let store = open(&(Arc::new(faulty.clone()) as Arc<dyn ObjectStore>)).await.unwrap();
            let root = store.root();
            root.append_series_data_with_options(marked("/f/one", 1)).await.unwrap();
            let before = objects(&bare).await;

            for operation in [Operation::Put, Operation::Copy, Operation::Delete] {
                faulty.inject(Fault::new(error).on(operation).for_good());
            }
            let unavailable = |what: &str, kind: Option<ErrorKind>| {
                let expected = match error {
                    FaultError::PermissionDenied => ErrorKind::PermissionDenied,
                    _ => ErrorKind::Unavailable,
                };
                assert_eq!(kind, Some(expected), "{error:?}: {what}");
            };
            let one = root.append_series_data_with_options(marked("/f/one", 2)).await;
            unavailable("append", one.err().map(|error| error.kind()));
            let new = root.append_series_data_with_options(marked("/f/new", 3)).await;
            unavailable("first append", new.err().map(|error| error.kind()));
            let both = vec![marked("/f/one", 4), marked("/f/two", 5)];
            let atomic = root.append_atomic(both.clone()).await;
            unavailable("append_atomic", atomic.err().map(|error| error.kind()));
            for result in root.append_many(both).await.unwrap() {
                unavailable("append_many", result.err().map(|error| error.kind()));
            }
            let renamed = store.rename("/f/one", "/f/moved").await;
            unavailable("rename", renamed.err().map(|error| error.kind()));
            let removed = store.remove("/f/one", false).await;
            unavailable("remove", removed.err().map(|error| error.kind()));

            for store in [&store, &open(&bare).await.unwrap()] {
                let found = found_in(store).await.unwrap();
                assert_eq!(found, [("/f/one".to_owned(), 1, 1)], "{error:?}");
            }
            assert_eq!(objects(&bare).await, before, "{error:?}");

            faulty.heal();
            root.append_series_data_with_options(marked("/f/one", 6)).await.unwrap();
            let found = found_in(&open(&bare).await.unwrap()).await.unwrap();
            assert_eq!(found.iter().map(|(_, _, mark)| *mark).collect::<Vec<_>>(), [1, 6]);
        });
    }
}

/// The judge can fail: a lost, a doubled and a ghostly append are noticed.
#[test]
fn a_lost_doubled_or_ghostly_append_is_noticed() {
    paused().block_on(async {
        let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = create(&bare).await.unwrap();
        let mut told = script(&store, Upkeep::never()).await.unwrap();
        judge(&store, &told).await.unwrap();

        let right = told.appends.insert(3, ("/f/one".to_owned(), Outcome::Refused)).unwrap();
        judge(&store, &told).await.unwrap_err();
        told.appends.insert(3, right.clone());
        told.appends.insert(30, right);
        judge(&store, &told).await.unwrap_err();
        told.appends.remove(&30);
        judge(&store, &told).await.unwrap();

        // The rows of one mark again, under the id of another.
        let doubled = marked("/f/one", 5).with_transaction(id_of(40));
        store.root().append_series_data_with_options(doubled).await.unwrap();
        judge(&store, &told).await.unwrap_err();
    });
}

/// The first put of a commit is still on its way when the second is refused for good.
#[test]
fn a_refusal_of_a_second_try_says_nothing_of_the_first() {
    paused().block_on(async {
        let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        create(&bare).await.unwrap();
        let faulty = FaultStore::new(Arc::clone(&bare));
        let commits = |error| Fault::new(error).on(Operation::Put).at_path("_delta_log/");
        faulty.inject(commits(FaultError::Generic).later(Duration::from_secs(30)));
        faulty.inject(commits(FaultError::PermissionDenied).nth(2).for_good());
        let store = open(&(Arc::new(faulty.clone()) as Arc<dyn ObjectStore>)).await.unwrap();
        let append = marked("/f/one", 1);
        let error = store.root().append_series_data_with_options(append.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        faulty.heal();
        store.root().append_series_data_with_options(append).await.unwrap();
        assert_eq!(found_in(&open(&bare).await.unwrap()).await.unwrap().len(), 1);
    });
}

/// Opening asks for commits ahead of the newest. That one of those requests fails says nothing of the store;
/// that one before it fails, does.
#[test]
fn requests_behind_the_newest_commit_may_fail_while_a_store_is_opened() {
    paused().block_on(async {
        let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = create(&bare).await.unwrap();
        for mark in [1, 2] {
            store.root().append_series_data_with_options(marked("/f/one", mark)).await.unwrap();
        }
        let objects = objects(&bare).await;
        let newest = objects.iter().filter(|(path, _)| path.ends_with(".json")).count() - 1;
        for number in 0..newest + 6 {
            let faulty = FaultStore::new(Arc::clone(&bare));
            let commit = format!("_delta_log/{number:020}.json");
            let denied = Fault::new(FaultError::PermissionDenied).on(Operation::Get);
            faulty.inject(denied.at_path(commit).for_good());
            let opened = open(&(Arc::new(faulty.clone()) as Arc<dyn ObjectStore>)).await;
            // The first commit after the newest is what says that there are no more.
            match opened.map_err(|error| error.kind()) {
                Ok(_) => assert!(number > newest + 1, "commit {number}"),
                Err(kind) => {
                    assert_eq!((kind, number <= newest + 1), (ErrorKind::PermissionDenied, true));
                }
            }
        }
    });
}
