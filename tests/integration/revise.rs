//! Rows deleted and replaced, earlier versions restored: each is one version, whichever of its requests
//! fails and whoever writes beside it, and what was there before stays readable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use tidelog::arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use tidelog::object_store::path::Path;
use tidelog::object_store::{ObjectStore, ObjectStoreExt};
use tidelog::{
    AsOf, DeleteOptions, ErrorKind, ExpireRule, Mode, ReadOptions, RevisionReceipt, SeriesExt,
    SeriesOptions, Store, TimeRange, UpkeepMode, VacuumOptions, Version,
};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::Operation;
use tidelog_testkit::{Fault, FaultError, FaultStore, Row};

use crate::by_hand::{builder, memory};
use crate::support::{Context, Fallible, fail_each_request, rows, runtime, same, sql};

const PATH: &str = "/s.series";
const MICRO: i64 = 1_000;

/// A row at each of these microseconds, for two keys in turn.
fn batch(value: i64, times: impl IntoIterator<Item = i64>) -> RecordBatch {
    let times: Vec<i64> = times.into_iter().collect();
    let keys = times.iter().map(|time| if time % 2 == 0 { "a" } else { "b" });
    let columns: [(&str, ArrayRef); 3] = [
        ("key", Arc::new(StringArray::from_iter_values(keys))),
        ("value", Arc::new(Int64Array::from_iter_values(times.iter().map(|_| value)))),
        ("time", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, c)| (name, c, true))).unwrap()
}

async fn append(store: &Store, value: i64, times: impl IntoIterator<Item = i64>) -> Version {
    let rows = batch(value, times);
    store.root().append_series_data(PATH, &rows, None).await.unwrap().version.unwrap()
}

async fn delete(store: &Store, from: i64, to: i64) -> tidelog::Result<RevisionReceipt> {
    store.root().delete_series_data(PATH, from * MICRO, to * MICRO).await
}

async fn delete_where(store: &Store, sql: &str) -> tidelog::Result<RevisionReceipt> {
    let options = DeleteOptions::default().with_filter(sql);
    store.root().delete_series_data_with_options(PATH, &options).await
}

fn version(number: i64) -> AsOf {
    AsOf::Version(Version::new(number))
}

/// Event times and values as of a point, in order.
async fn seen(store: &Store, as_of: AsOf) -> Fallible<Vec<(i64, i64)>> {
    let options = ReadOptions::default().with_as_of(as_of);
    let found = rows(store.root().read_series_with_options(PATH, &options).await).await?;
    let pair = |row: &Row| Some((row[2].as_int()?, row[1].as_int()?));
    found.iter().map(|row| pair(row).ok_or_else(|| format!("{row:?}"))).collect()
}

async fn head(store: &Store) -> Vec<(i64, i64)> {
    seen(store, AsOf::Head).await.unwrap()
}

async fn data_files(store: &Arc<dyn ObjectStore>) -> BTreeSet<String> {
    let listed = store.list(Some(&Path::from("series"))).try_collect::<Vec<_>>().await.unwrap();
    listed.iter().map(|meta| meta.location.to_string()).collect()
}

async fn intact(store: &Arc<dyn ObjectStore>) -> Fallible {
    let report = builder(store).fsck(true).await.at("fsck")?;
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    same("damage", &Vec::<String>::new(), &damage)
}

fn at_once() -> VacuumOptions {
    VacuumOptions::default().with_apply(true).with_older_than(std::time::Duration::ZERO)
}

#[test]
fn files_that_end_whole_are_not_written_anew_and_not_opened_at_head() {
    runtime().block_on(async {
        let counting = CountingStore::new(memory());
        let place: Arc<dyn ObjectStore> = Arc::new(counting.clone());
        let store = builder(&place).create().await.unwrap();
        for value in 0..4 {
            append(&store, value, value * 10..value * 10 + 10).await;
        }
        let objects = data_files(&place).await;
        drop(counting.take());
        let done = delete(&store, 10, 29).await.unwrap();
        assert_eq!((done.version, done.rows_ended), (Some(Version::new(5)), 20));
        assert_eq!(data_files(&place).await, objects, "nothing is written");
        let touched = |requests: Vec<tidelog_storage::counting::Request>| {
            let data = requests.into_iter().filter(|request| request.path.starts_with("series/"));
            data.map(|request| (request.operation, request.path)).collect::<Vec<_>>()
        };
        assert_eq!(touched(counting.take()), []);

        let fresh = builder(&place).open().await.unwrap();
        drop(counting.take());
        let left: Vec<(i64, i64)> =
            (0..10).map(|t| (t, 0)).chain((30..40).map(|t| (t, 3))).collect();
        assert_eq!(head(&fresh).await, left);
        let opened: BTreeSet<String> =
            touched(counting.take()).into_iter().map(|(_, path)| path).collect();
        assert_eq!(opened.len(), 2, "those that have ended are not opened");
        assert_eq!(seen(&fresh, version(4)).await.unwrap().len(), 40);
        delete(&fresh, 30, 100).await.unwrap();
        let range = fresh.describe(PATH).await.unwrap().range;
        assert_eq!(range, Some(TimeRange::try_new(0, 9 * MICRO).unwrap()));
        fresh.root().restore_series(PATH, &version(5)).await.unwrap();
        let versions = fresh.versions(PATH).await.unwrap();
        let detail = versions[4].detail.as_deref().unwrap();
        assert_eq!((versions[4].operation, versions[4].rows), ("delete", 0));
        assert!(detail.contains("\"rows_ended\":20"), "{detail}");
        intact(&place).await.unwrap();

        // The objects are needed as long as anything can read them, and no longer.
        let kept = fresh.vacuum(&at_once()).await.unwrap();
        assert_eq!((kept.total().files, kept.needed.files), (0, 5));
        fresh.compact(PATH).await.unwrap();
        assert_eq!(seen(&fresh, version(4)).await.unwrap().len(), 40);
        assert_eq!(head(&fresh).await, left);
        fresh.expire(PATH, ExpireRule::KeepVersions(1)).await.unwrap();
        fresh.vacuum(&at_once()).await.unwrap();
        assert_eq!(data_files(&place).await.len(), 1);
        assert_eq!(head(&builder(&place).open().await.unwrap()).await, left);
        intact(&place).await.unwrap();
    });
}

/// Of an object that is needed under another id its loss is damage, also to who reads an older state.
#[test]
fn an_object_that_has_ended_and_is_lost_is_damage() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        append(&store, 1, 0..10).await;
        append(&store, 2, 10..20).await;
        let hour = std::time::Duration::from_secs(3600);
        let stale = builder(&place).with_max_staleness(hour).open().await.unwrap();
        assert_eq!(stale.describe(PATH).await.unwrap().version, Version::new(2));
        let objects = data_files(&place).await;
        delete(&store, 0, 100).await.unwrap();
        for object in &objects {
            place.delete(&Path::from(object.as_str())).await.unwrap();
        }
        let found = stale.root().read_series_all(PATH).await;
        let error = match found {
            Ok(stream) => stream.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        let report = builder(&place).fsck(false).await.unwrap();
        assert_eq!(report.damage.len(), 2, "{:?}", report.damage);
    });
}

#[test]
fn objects_that_have_ended_are_deleted_only_once_nothing_reads_them() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        append(&store, 1, 0..10).await;
        append(&store, 2, 10..20).await;
        store.create_snapshot("before").await.unwrap();
        delete(&store, 0, 9).await.unwrap();
        store.expire(PATH, ExpireRule::KeepVersions(1)).await.unwrap();
        assert_eq!(store.vacuum(&at_once()).await.unwrap().total().files, 0);
        let named = AsOf::Snapshot("before".to_owned());
        assert_eq!(seen(&store, named.clone()).await.unwrap().len(), 20);
        // What only a snapshot shows can be restored.
        let done = store.root().restore_series(PATH, &named).await.unwrap();
        assert_eq!((done.version, done.rows_added), (Some(Version::new(4)), 10));
        assert_eq!(head(&store).await.len(), 20);
        store.drop_snapshot("before").await.unwrap();
        store.expire(PATH, ExpireRule::KeepVersions(1)).await.unwrap();
        assert_eq!(store.vacuum(&at_once()).await.unwrap().expired.files, 1);
        assert_eq!(head(&builder(&place).open().await.unwrap()).await.len(), 20);
        intact(&place).await.unwrap();
    });
}

#[test]
fn of_a_deduplicated_series_what_was_replaced_does_not_come_back() {
    runtime().block_on(async {
        for compacted in [false, true] {
            let place = memory();
            let store = builder(&place).create().await.unwrap();
            let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(true);
            store.root().create_series(PATH, options).await.unwrap();
            append(&store, 1, 0..6).await;
            append(&store, 2, 2..4).await;
            append(&store, 3, 3..5).await;
            if compacted {
                store.compact(PATH).await.unwrap();
            }
            let before = [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3), (5, 1)];
            assert_eq!(head(&store).await, before);
            // Of a row that is not shown nothing is said, nor ended.
            let none = delete_where(&store, "value = 1 AND time = to_timestamp_micros(3)").await;
            assert_eq!(none.unwrap().version, None);
            assert_eq!(store.describe(PATH).await.unwrap().version, Version::new(3));
            let done = delete_where(&store, "value >= 2").await.unwrap();
            assert_eq!((done.version, done.rows_ended), (Some(Version::new(4)), 3));
            assert_eq!(head(&store).await, [(0, 1), (1, 1), (5, 1)]);
            for (number, expected) in [(1, 1), (2, 2), (3, 3)] {
                let found = seen(&store, version(number)).await.unwrap();
                assert_eq!((found.len(), found[3]), (6, (3, expected)), "v{number}");
            }
            store.root().restore_series(PATH, &version(2)).await.unwrap();
            let second = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 1), (5, 1)];
            assert_eq!(head(&store).await, second);
            store.compact(PATH).await.unwrap();
            assert_eq!(head(&store).await, second);
            assert_eq!(seen(&store, version(3)).await.unwrap(), before);
            assert_eq!(seen(&store, version(4)).await.unwrap().len(), 3);
            intact(&place).await.unwrap();
        }
    });
}

/// The data objects that were asked for or written.
fn touched(counting: &CountingStore) -> BTreeSet<String> {
    let requests = counting.take().into_iter();
    requests.map(|request| request.path).filter(|path| path.starts_with("series/")).collect()
}

/// A condition is asked only of files that may hold a row for which it holds: others are neither read nor
/// written.
#[test]
fn files_that_their_statistics_rule_out_are_not_touched() {
    runtime().block_on(async {
        for dedup in [false, true] {
            let counting = CountingStore::new(memory());
            let place: Arc<dyn ObjectStore> = Arc::new(counting.clone());
            let store = builder(&place).create().await.unwrap();
            let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(dedup);
            store.root().create_series(PATH, options).await.unwrap();
            for value in 0..6 {
                append(&store, value, value * 10..value * 10 + 10).await;
            }
            // One more lies over the third.
            append(&store, 7, 20..30).await;
            // No footer is known to the handle that asks.
            let fresh = || async { builder(&place).open().await.unwrap() };
            let store = fresh().await;
            for nothing in ["value = 6", "key = 'c'", "value > 0 AND value < 1", "value IS NULL"] {
                drop(counting.take());
                assert_eq!(delete_where(&store, nothing).await.unwrap().version, None, "{nothing}");
                assert_eq!(touched(&counting), BTreeSet::new(), "{nothing}");
            }
            // By time alone, and by time and value at once.
            drop(counting.take());
            let late = "time >= to_timestamp_micros(55)";
            assert_eq!(delete_where(&store, late).await.unwrap().rows_ended, 5);
            // One is read and written anew, as rows that stay and rows that end.
            assert_eq!(touched(&counting).len(), 3, "{late}");
            let store = fresh().await;
            drop(counting.take());
            let done = delete_where(&store, "value = 4 AND key = 'a'").await.unwrap();
            assert_eq!((done.rows_ended, touched(&counting).len()), (5, 3));
            // Where rows stand for others, what lies over a file is looked at with it.
            let store = fresh().await;
            drop(counting.take());
            let done = delete_where(&store, "value = 7 AND key = 'b'").await.unwrap();
            let objects = touched(&counting).len();
            let expected = if dedup { 4..=6 } else { 3..=3 };
            assert!(expected.contains(&objects), "dedup {dedup}: {objects} objects");
            assert!(done.rows_ended >= 5, "dedup {dedup}: {}", done.rows_ended);
            let mut left: Vec<i64> =
                head(&fresh().await).await.into_iter().map(|(time, _)| time).collect();
            left.dedup();
            let gone = |time: i64| match time {
                40..50 => time % 2 == 0,
                20..30 => dedup && time % 2 == 1,
                _ => time >= 55,
            };
            let expected: Vec<i64> = (0..60).filter(|time| !gone(*time)).collect();
            assert_eq!(left, expected, "dedup {dedup}");
            intact(&place).await.unwrap();
        }
    });
}

/// What of a file ends was decided for a range; a restore that loses to another change is about a wider one.
/// It took what it had decided before for true, and copied rows that it did not end.
#[test]
fn a_restore_that_loses_to_a_delete_doubles_no_row() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        append(&store, 1, 0..100).await;
        append(&store, 2, 40..45).await;
        append(&store, 3, 44..60).await;
        let before = head(&store).await;
        delete_where(&store, "value = 2").await.unwrap();
        let slow = FaultStore::new(Arc::clone(&place));
        let hold = slow.hold(Fault::new(FaultError::Generic).on(Operation::Put).at_path(".json"));
        let slow: Arc<dyn ObjectStore> = Arc::new(slow);
        let other = builder(&slow).open().await.unwrap();
        let restoring =
            tokio::spawn(async move { other.root().restore_series(PATH, &version(3)).await });
        hold.reached().await;
        delete_where(&store, "value = 3").await.unwrap();
        hold.release();
        let done = restoring.await.unwrap().unwrap();
        assert_eq!(done.version, Some(Version::new(6)));
        assert_eq!(head(&store).await, before);
        assert_eq!(seen(&store, version(5)).await.unwrap().len(), 100);
        intact(&place).await.unwrap();
    });
}

/// A file that came and went while a vacuum looked for what to delete is no orphan: it took it for one, and
/// asked nobody whether it is being read.
#[test]
fn a_file_that_comes_and_goes_during_a_vacuum_stays_for_who_reads_it() {
    runtime().block_on(async {
        let place = memory();
        let slow = FaultStore::new(Arc::clone(&place));
        let shared: Arc<dyn ObjectStore> = Arc::new(slow.clone());
        let store = builder(&shared).create().await.unwrap();
        append(&store, 1, 0..10).await;
        let looking = Fault::new(FaultError::Generic).on(Operation::List).at_path("series");
        let hold = slow.hold(looking);
        let vacuuming = tokio::spawn({
            let store = store.clone();
            async move { store.vacuum(&at_once()).await }
        });
        hold.reached().await;
        append(&store, 2, 10..20).await;
        let reading = store.root().read_series_all(PATH).await.unwrap();
        assert_eq!(store.compact(PATH).await.unwrap().series[0].merges.len(), 1);
        hold.release();
        let report = vacuuming.await.unwrap().unwrap();
        assert_eq!(report.total().files, 0, "{report:?}");
        let batches = reading.try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 20);
        drop(batches);
        assert_eq!(store.vacuum(&at_once()).await.unwrap().replaced.files, 2);
        intact(&place).await.unwrap();
    });
}

#[test]
fn more_files_than_can_be_open_at_once_are_merged_first() {
    const FILES: i64 = 80;
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(true);
        store.root().create_series(PATH, options).await.unwrap();
        for value in 0..FILES {
            append(&store, value, [0, 1000 + value]).await;
        }
        let done = delete_where(&store, &format!("value = {} OR value % 2 = 0", FILES - 1)).await;
        assert!(done.unwrap().rows_ended > 0);
        let left = head(&store).await;
        assert!(left.iter().all(|(time, value)| *time >= 1000 && value % 2 == 1), "{left:?}");
        assert_eq!(left.len() as i64, FILES / 2 - 1);
        assert_eq!(seen(&store, version(FILES)).await.unwrap().len() as i64, FILES + 1);
        store.root().restore_series(PATH, &version(FILES / 2)).await.unwrap();
        let back = head(&store).await;
        assert_eq!((back.len() as i64, back[0]), (FILES / 2 + 1, (0, FILES / 2 - 1)));
        intact(&place).await.unwrap();
    });
}

#[test]
fn what_cannot_be_meant_is_refused_and_nothing_is_stored() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).create().await.unwrap();
        append(&store, 1, 0..10).await;
        append(&store, 2, 10..20).await;
        store.root().create_series("/empty", SeriesOptions::default()).await.unwrap();
        let (objects, commits) = (data_files(&place).await, store.log_head());
        let root = store.root();
        let of_path = async |path: &str| {
            let deleted = root.delete_series_data(path, 0, 1).await;
            let restored = root.restore_series(path, &version(1)).await;
            let replaced = root.replace_series_data(path, 0, MICRO, &batch(1, [0])).await;
            [deleted, restored, replaced].map(|outcome| outcome.unwrap_err().kind())
        };
        assert_eq!(of_path("/none").await, [ErrorKind::NotFound; 3]);
        assert_eq!(of_path("/").await, [ErrorKind::InvalidInput; 3]);
        assert_eq!(of_path("/empty").await, [ErrorKind::InvalidInput; 3]);
        for (condition, says) in [
            ("missing = 1", "missing"),
            ("value", "condition"),
            ("value + 1", "condition"),
            ("value >", ""),
            ("value > (SELECT 1)", "subquery"),
            ("value > max(value)", "aggregate"),
            ("random() < 0.5", "each call"),
            ("__version = 1", "__version"),
        ] {
            let error = delete_where(&store, condition).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{condition}: {error}");
            assert!(error.to_string().contains(says), "{condition}: {error}");
        }
        let stray = root.replace_series_data(PATH, 0, 9 * MICRO, &batch(1, [3, 9, 10])).await;
        let stray = stray.unwrap_err();
        assert_eq!(stray.kind(), ErrorKind::InvalidInput);
        assert!(stray.to_string().contains("row 2 of column \"time\""), "{stray}");
        assert!(root.delete_series_data(PATH, 2, 1).await.is_err(), "inverted");
        for to in [version(0), version(3), AsOf::Snapshot("none".to_owned())] {
            let error = root.restore_series(PATH, &to).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
        // Nothing to do is no error, and no version.
        for none in [
            delete(&store, 20, 30).await,
            delete_where(&store, "value > 2").await,
            delete_where(&store, "NULL").await,
            delete_where(&store, "value = NULL").await,
            delete_where(&store, "1 = 2").await,
            root.replace_series_data(PATH, 20 * MICRO, 30 * MICRO, &batch(1, [])).await,
            root.restore_series(PATH, &version(2)).await,
            root.restore_series(PATH, &AsOf::Head).await,
        ] {
            assert_eq!(none.unwrap().version, None);
        }
        assert_eq!(store.log_head(), commits);
        assert_eq!(data_files(&place).await, objects);
        store.expire(PATH, ExpireRule::BeforeVersion(Version::new(2))).await.unwrap();
        let error = root.restore_series(PATH, &version(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("v2"), "{error}");
        assert_eq!(delete_where(&store, "TRUE").await.unwrap().rows_ended, 20);
        assert_eq!(head(&store).await, []);
    });
}

#[test]
fn a_series_made_again_is_not_restored_to_what_the_path_was_before() {
    runtime().block_on(async {
        let store = builder(&memory()).create().await.unwrap();
        append(&store, 1, 0..3).await;
        store.create_snapshot("first").await.unwrap();
        store.remove(PATH, false).await.unwrap();
        append(&store, 2, 0..3).await;
        let to = AsOf::Snapshot("first".to_owned());
        let error = store.root().restore_series(PATH, &to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("another series"), "{error}");
    });
}

/// What the series holds after each of its versions.
type Expected = BTreeMap<i64, Vec<(i64, i64)>>;

/// A delete of half files, one by a condition, a replace and a restore, each of which may fail once and is
/// then made again; whether there was such a request.
async fn with_fault(
    original: &Arc<dyn ObjectStore>,
    before: &Expected,
    fault: Fault,
) -> Fallible<bool> {
    let bare = copy(original).await?;
    let failing = FaultStore::new(Arc::clone(&bare));
    let shared: Arc<dyn ObjectStore> = Arc::new(failing.clone());
    let store = builder(&shared).open().await.at("open")?;
    failing.inject(fault);
    let mut expected = before.clone();
    for change in 0..4 {
        let newest = *expected.keys().next_back().unwrap();
        let (then, mut now) = (expected[&newest].clone(), expected[&newest].clone());
        let root = store.root();
        let done = match change {
            0 => {
                now.retain(|(time, _)| !(5..=24).contains(time));
                delete(&store, 5, 24).await
            }
            1 => {
                now.retain(|(time, value)| *value != 1 || time % 2 == 0);
                delete_where(&store, "value = 1 AND key = 'b'").await
            }
            2 => {
                now.retain(|(time, _)| !(28..=31).contains(time));
                now.extend([(29, 9), (30, 9)]);
                root.replace_series_data(PATH, 28 * MICRO, 31 * MICRO, &batch(9, [29, 30])).await
            }
            _ => {
                now = before[&4].clone();
                root.restore_series(PATH, &version(4)).await
            }
        };
        now.sort_unstable();
        let landed = match &done {
            Ok(done) => done.version.is_some(),
            Err(error) => {
                same(
                    format!("the kind of {error}"),
                    &false,
                    &(error.kind() == ErrorKind::Internal),
                )?;
                // What is in flight arrives.
                tokio::time::sleep(std::time::Duration::from_secs(60)).await;
                let fresh = builder(&bare).open().await.at("open again")?;
                let found = fresh.describe(PATH).await.at("describe")?.version.number();
                if error.kind() != ErrorKind::OutcomeUnknown {
                    same(format!("nothing is stored after {error}"), &newest, &found)?;
                }
                found > newest
            }
        };
        let state = if landed { now } else { then };
        if landed {
            expected.insert(newest + 1, state.clone());
        }
        let fresh = builder(&bare).open().await.at("open again")?;
        for (number, rows) in &expected {
            let found = seen(&fresh, version(*number)).await?;
            same(format!("v{number} after change {change}"), rows, &found)?;
        }
        same(format!("the head after change {change}"), &state, &seen(&fresh, AsOf::Head).await?)?;
        intact(&bare).await?;
    }
    let injected = failing.injected() > 0;
    failing.heal();
    Ok(injected)
}

async fn copy(of: &Arc<dyn ObjectStore>) -> Fallible<Arc<dyn ObjectStore>> {
    let to = memory();
    let objects: Vec<_> = of.list(None).try_collect().await.at("list")?;
    for meta in objects {
        let bytes = of.get(&meta.location).await.at("get")?.bytes().await.at("bytes")?;
        to.put(&meta.location, bytes.into()).await.at("put")?;
    }
    Ok(to)
}

#[test]
fn whichever_request_of_a_change_fails_it_is_made_whole_or_not_at_all() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let original = memory();
        let store = builder(&original).create().await.unwrap();
        let mut before = Expected::new();
        for value in 0..4 {
            let number = append(&store, value, value * 10..value * 10 + 10).await;
            before.insert(number.number(), head(&store).await);
        }
        let cases =
            fail_each_request(async |fault| with_fault(&original, &before, fault).await).await;
        assert!(cases > 60, "{cases} cases");
    });
}

/// What a version did, as its writer was told.
#[derive(Debug, Clone)]
enum Did {
    Appended(Vec<(i64, i64)>),
    Deleted(i64, i64),
    Restored(i64),
}

/// Writers append, delete and restore, others compact: read back, each version is what the ones before it
/// and its own call make it.
#[test]
fn changes_race_appends_and_compactions_and_each_other_and_nothing_is_lost() {
    const ROUNDS: i64 = 14;
    runtime().block_on(async {
        let slow = FaultStore::new(memory());
        let place: Arc<dyn ObjectStore> = Arc::new(slow.clone());
        let first = builder(&place).create().await.unwrap();
        append(&first, 0, 0..40).await;
        slow.set_latency(11, std::time::Duration::ZERO, std::time::Duration::from_millis(2));
        let mut tasks = Vec::new();
        for task in 0..4_i64 {
            let place = Arc::clone(&place);
            tasks.push(tokio::spawn(async move {
                let store = builder(&place).open().await.at("open")?;
                let mut done: Vec<(i64, Did)> = Vec::new();
                for round in 0..ROUNDS {
                    let from = (round * 13 + task * 29) % 50;
                    let (landed, did) = match (task, round % 4) {
                        (3, _) => {
                            store.compact(PATH).await.at("compact")?;
                            continue;
                        }
                        (2, 3) => {
                            let to = round / 4 + 1;
                            let done = store.root().restore_series(PATH, &version(to)).await;
                            (done.at("restore")?.version, Did::Restored(to))
                        }
                        (1 | 2, 0 | 2) => {
                            let done = delete(&store, from, from + 7).await.at("delete")?;
                            (done.version, Did::Deleted(from, from + 7))
                        }
                        _ => {
                            let value = 1000 * task + round;
                            let rows = batch(value, from..from + 9);
                            let done = store.root().append_series_data(PATH, &rows, None).await;
                            let rows = (from..from + 9).map(|time| (time, value)).collect();
                            (done.at("append")?.version, Did::Appended(rows))
                        }
                    };
                    done.extend(landed.map(|landed| (landed.number(), did)));
                }
                Fallible::Ok(done)
            }));
        }
        let mut did = BTreeMap::from([(1, Did::Appended((0..40).map(|t| (t, 0)).collect()))]);
        for task in tasks {
            did.extend(task.await.unwrap().unwrap());
        }
        let fresh = builder(&place).open().await.unwrap();
        let versions = fresh.versions(PATH).await.unwrap();
        assert_eq!(versions.len(), did.len(), "each version was told to somebody");
        let mut states: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::from([(0, Vec::new())]);
        for (number, did) in &did {
            let mut state = states[&(number - 1)].clone();
            match did {
                Did::Appended(rows) => state.extend(rows),
                Did::Deleted(from, to) => state.retain(|(time, _)| time < from || time > to),
                Did::Restored(to) => state.clone_from(&states[to]),
            }
            state.sort_unstable();
            let mut found = seen(&fresh, version(*number)).await.unwrap();
            found.sort_unstable();
            assert_eq!(found, state, "v{number} {did:?}");
            states.insert(*number, state);
        }
        fresh.compact(PATH).await.unwrap();
        let mut found = head(&fresh).await;
        found.sort_unstable();
        assert_eq!(Some(&found), states.values().next_back());
        intact(&place).await.unwrap();
    });
}

#[test]
fn who_writes_alone_changes_what_is_only_in_memory_and_others_are_refused() {
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let quiet = |mode| {
            let builder = Store::builder(place).with_mode(mode);
            builder.with_upkeep(UpkeepMode::OnRequest).with_compaction(false)
        };
        let owner = quiet(Mode::Exclusive).create().await.unwrap();
        append(&owner, 1, 0..10).await;
        append(&owner, 2, 5..15).await;
        let other = quiet(Mode::Shared).open().await.unwrap();
        let error = delete(&other, 0, 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        let done = delete(&owner, 8, 11).await.unwrap();
        assert_eq!((done.version, done.rows_ended), (Some(Version::new(3)), 6));
        assert_eq!(append(&owner, 3, 9..10).await, Version::new(4));
        let left: Vec<(i64, i64)> = (0..5)
            .map(|t| (t, 1))
            .chain((5..8).flat_map(|t| [(t, 1), (t, 2)]))
            .chain([(9, 3)])
            .chain((12..15).map(|t| (t, 2)))
            .collect();
        assert_eq!(head(&owner).await, left);
        let rows = batch(7, [5, 6]);
        let root = owner.root();
        root.replace_series_data(PATH, 0, 100 * MICRO, &rows).await.unwrap();
        assert_eq!(append(&owner, 8, [6]).await, Version::new(6));
        assert_eq!(head(&owner).await, [(5, 7), (6, 7), (6, 8)]);
        root.restore_series(PATH, &version(4)).await.unwrap();
        assert_eq!(head(&owner).await, left);
        assert_eq!(seen(&owner, version(2)).await.unwrap().len(), 20);
        drop((root, owner));
        // What it has left is brought in before, and then others may.
        let done = delete(&other, 0, 100).await.unwrap();
        assert_eq!(done.version, Some(Version::new(8)));
        assert_eq!(head(&other).await, []);
        assert_eq!(seen(&other, version(7)).await.unwrap(), left);
        let report = quiet(Mode::Shared).fsck(true).await.unwrap();
        assert!(report.is_intact(), "{:?}", report.damage);
    });
}

/// Counts, extremes and sums come out the same as from rows, and what has ended is not opened for them.
#[test]
fn answers_from_the_log_heed_what_has_ended() {
    runtime().block_on(async {
        let counting = CountingStore::new(memory());
        let place: Arc<dyn ObjectStore> = Arc::new(counting.clone());
        let store = builder(&place).create().await.unwrap();
        for value in 0..6 {
            append(&store, value, value * 10..value * 10 + 10).await;
        }
        delete(&store, 0, 14).await.unwrap();
        delete_where(&store, "value = 5").await.unwrap();
        let fresh = builder(&place).open().await.unwrap();
        drop(counting.take());
        let told = format!(
            "SELECT count(*), CAST(min(time) AS BIGINT), CAST(max(time) AS BIGINT) FROM \"{PATH}\""
        );
        let found = sql(&fresh, &told).await.unwrap();
        let numbers: Vec<Option<i64>> =
            found[0].iter().map(tidelog_testkit::Cell::as_int).collect();
        assert_eq!(numbers, [Some(35), Some(15), Some(49)]);
        let is_data = |r: &tidelog_storage::counting::Request| {
            r.operation == Operation::Get && r.path.starts_with("series/")
        };
        assert_eq!(counting.take().iter().filter(|r| is_data(r)).count(), 0);
        let counted = format!("SELECT count(*) FROM series('{PATH}', 'v6')");
        assert_eq!(sql(&fresh, &counted).await.unwrap()[0][0].as_int(), Some(60));
        let range = TimeRange::try_new(0, 12 * MICRO).unwrap();
        let options = ReadOptions::default().with_range(range);
        let read = fresh.root().read_series_with_options(PATH, &options).await;
        assert_eq!(rows(read).await.unwrap().len(), 0);
    });
}
