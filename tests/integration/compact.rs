//! Compaction changes no answer: whichever of its requests fails, however many do it at once, and
//! whatever is written meanwhile. And files become few.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidelog::arrow::array::RecordBatch;
use tidelog::object_store::ObjectStore;
use tidelog::{
    AsOf, ErrorKind, Mode, ReadOptions, Reason, SeriesExt, SeriesOptions, Store, UpkeepMode,
    Version,
};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::Operation;
use tidelog_testkit::{Cell, Fault, FaultStore, Row};

use crate::by_hand::{builder, memory, version_of_few_keys};
use crate::support::{Context, Fallible, fail_each_request, rows, runtime, same, sql};

const PATH: &str = "/s.series";
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Rows of each version: event times from `start`, `step` apart, for three keys in turn.
fn batch(version: i64, start: i64, step: i64, count: i64) -> RecordBatch {
    let times = (0..count).map(|i| start + i * step);
    version_of_few_keys(version, times)
}

async fn filled(store: &Store, dedup: bool, versions: i64) -> Fallible {
    let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(dedup);
    store.root().create_series(PATH, options).await.at("create")?;
    for version in 1..=versions {
        // Most follow one another, some come late, and in part once more.
        let start = if version % 5 == 0 { 0 } else { version * 36 };
        let rows = batch(version, start, 3, 20);
        store.root().append_series_data(PATH, &rows, None).await.at("append")?;
    }
    Ok(())
}

/// All that can be asked: the rows as of several versions, with the versions that they are of.
async fn answers(store: &Store, versions: i64) -> Fallible<Vec<Vec<String>>> {
    let mut all = Vec::new();
    let text = |rows: Vec<Row>| rows.iter().map(|row| format!("{row:?}")).collect();
    for version in (1..=versions).step_by(1 + usize::try_from(versions / 8).unwrap()) {
        let options = ReadOptions::default().with_as_of(AsOf::Version(Version::new(version)));
        let read = store.root().read_series_with_options(PATH, &options).await;
        all.push(text(rows(read).await?));
        let statement = format!(
            "SELECT key, time, __version FROM series_versions('{PATH}', 'v{version}') \
             ORDER BY time, key, __version"
        );
        all.push(text(sql(store, &statement).await?));
    }
    all.push(text(rows(store.root().read_series_all(PATH).await).await?));
    for statement in ["count(*)", "min(time), max(time)", "count(*) FILTER (WHERE key = 'k1')"] {
        let statement = format!("SELECT {statement} FROM \"{PATH}\"");
        all.push(text(sql(store, &statement).await?));
    }
    Ok(all)
}

/// A check finds no damage; how many files are left that were merged into others.
async fn intact(store: &Arc<dyn ObjectStore>) -> Fallible<u64> {
    let report = builder(store).fsck(true).await.at("fsck")?;
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    same("damage", &Vec::<String>::new(), &damage)?;
    Ok(report.replaced_files)
}

#[test]
fn files_become_one_and_all_answers_stay() {
    runtime().block_on(async {
        for dedup in [false, true] {
            let place = memory();
            let store = builder(&place).create().await.unwrap();
            filled(&store, dedup, 30).await.unwrap();
            let before = answers(&store, 30).await.unwrap();
            let head = store.log_head();

            let planned = store.compact_dry_run(PATH).await.unwrap();
            assert_eq!(store.log_head(), head, "a dry run writes nothing");
            let merges = &planned.series[0].merges;
            assert!(merges.iter().map(|merge| merge.files).sum::<u64>() > 20, "{merges:?}");

            let done = store.compact("/**").await.unwrap();
            let series = &done.series[0];
            assert_eq!((series.files_before, series.given_up), (30, 0));
            assert_eq!(series.files_after, if dedup { 2 } else { 1 });
            assert!(matches!(series.merges[0].reason, Reason::Overlapping { .. }));
            assert_eq!(answers(&store, 30).await.unwrap(), before);
            let fresh = builder(&place).open().await.unwrap();
            assert_eq!(answers(&fresh, 30).await.unwrap(), before);
            assert!(intact(&place).await.unwrap() >= 30);

            let again = fresh.compact(PATH).await.unwrap();
            assert!(again.series[0].merges.is_empty(), "what is good is left alone");
            let counts = fresh.statistics().await.unwrap();
            assert!(counts.bytes_written > counts.bytes);

            // What comes afterwards is compacted with what is there, replaced rows included.
            for version in 31..=36 {
                let rows = batch(version, version * 36, 3, 40);
                fresh.root().append_series_data(PATH, &rows, None).await.unwrap();
            }
            let before = answers(&fresh, 36).await.unwrap();
            fresh.compact(PATH).await.unwrap();
            assert_eq!(answers(&fresh, 36).await.unwrap(), before);
            assert_eq!(fresh.describe(PATH).await.unwrap().files, if dedup { 2 } else { 1 });
            intact(&place).await.unwrap();
        }
    });
}

#[test]
fn small_targets_cut_files_only_where_time_changes() {
    runtime().block_on(async {
        let place = memory();
        let store = builder(&place).with_compaction_target(3_000).create().await.unwrap();
        let options = SeriesOptions::default().with_key_columns(["key"]);
        store.root().create_series(PATH, options).await.unwrap();
        for version in 1..=4 {
            let rows = batch(version, version, 2, 5_000);
            store.root().append_series_data(PATH, &rows, None).await.unwrap();
        }
        // More rows at one instant than fit into a file.
        store.root().append_series_data(PATH, &batch(5, 500, 0, 20_000), None).await.unwrap();
        let before = answers(&store, 5).await.unwrap();
        store.compact(PATH).await.unwrap();
        assert!(store.describe(PATH).await.unwrap().files > 4);
        assert_eq!(answers(&store, 5).await.unwrap(), before);
        let statement = format!(
            "SELECT CAST(min_event_time AS BIGINT) AS first, CAST(max_event_time AS BIGINT) AS last \
             FROM tidelog.files f \
             WHERE op = 'add' AND NOT EXISTS (SELECT 1 FROM tidelog.files r WHERE r.op = 'remove' \
             AND r.file_id = f.file_id) AND path = '{PATH}' ORDER BY first, last"
        );
        let ranges = sql(&store, &statement).await.unwrap();
        let crossing = ranges.windows(2).filter(|pair| {
            let (end, start) = (pair[0][1].as_int(), pair[1][0].as_int());
            // An instant with too many rows may lie in several files, each of which ends there.
            start < end
        });
        assert_eq!(crossing.count(), 0, "{ranges:?}");
        intact(&place).await.unwrap();
    });
}

#[test]
fn a_compacted_deduplicated_series_is_counted_without_opening_a_file() {
    runtime().block_on(async {
        let counting = CountingStore::new(memory());
        let place: Arc<dyn ObjectStore> = Arc::new(counting.clone());
        let store = builder(&place).create().await.unwrap();
        filled(&store, true, 20).await.unwrap();
        let count = format!("SELECT count(*), min(time), max(time) FROM \"{PATH}\"");
        let expected = sql(&store, &count).await.unwrap();
        store.compact(PATH).await.unwrap();
        let opened = || {
            let gets = counting.take().into_iter().filter(|r| r.operation == Operation::Get);
            gets.filter(|r| r.path.starts_with("series/")).map(|r| r.path).collect::<BTreeSet<_>>()
        };
        let fresh = builder(&place).open().await.unwrap();
        opened();
        assert_eq!(sql(&fresh, &count).await.unwrap(), expected);
        assert_eq!(opened().len(), 0);
        // At head the replaced rows are not looked at; before, they are. A small file is kept in memory.
        sql(&fresh, &format!("SELECT sum(value) FROM \"{PATH}\"")).await.unwrap();
        let at_head = opened();
        sql(&fresh, &format!("SELECT sum(value) FROM series('{PATH}', 'v15')")).await.unwrap();
        let replaced = opened();
        assert_eq!((at_head.len(), replaced.len()), (1, 1));
        assert!(at_head.is_disjoint(&replaced));
    });
}

#[test]
fn what_cannot_be_compacted_is_told() {
    runtime().block_on(async {
        let store = builder(&memory()).create().await.unwrap();
        let kind = |outcome: tidelog::Result<_>| outcome.err().map(|error| error.kind());
        assert_eq!(kind(store.compact("/none").await), Some(ErrorKind::NotFound));
        assert_eq!(kind(store.compact_dry_run("/*").await), Some(ErrorKind::NotFound));
        assert_eq!(kind(store.compact("none").await), Some(ErrorKind::InvalidInput));
        store.create_directory("/d").await.unwrap();
        assert_eq!(kind(store.compact("/d").await), Some(ErrorKind::InvalidInput));
        store.root().create_series("/d/s", SeriesOptions::default()).await.unwrap();
        assert!(store.compact("/d/*").await.unwrap().series[0].merges.is_empty());
    });
}

async fn copy(of: &Arc<dyn ObjectStore>) -> Fallible<Arc<dyn ObjectStore>> {
    use futures::TryStreamExt;
    use tidelog::object_store::ObjectStoreExt;
    let to = memory();
    let objects: Vec<_> = of.list(None).try_collect().await.at("list")?;
    for meta in objects {
        let bytes = of.get(&meta.location).await.at("get")?.bytes().await.at("bytes")?;
        to.put(&meta.location, bytes.into()).await.at("put")?;
    }
    Ok(to)
}

/// One compaction in which one request fails; whether there was such a request.
async fn with_fault(
    original: &Arc<dyn ObjectStore>,
    expected: &[Vec<String>],
    fault: Fault,
) -> Fallible<bool> {
    let bare = copy(original).await?;
    let failing = Arc::new(FaultStore::new(Arc::clone(&bare)));
    let shared: Arc<dyn ObjectStore> = Arc::clone(&failing) as Arc<dyn ObjectStore>;
    let store = builder(&shared).open().await.at("open")?;
    failing.inject(fault);
    let outcome = store.compact("/**").await;
    let injected = failing.injected() > 0;
    failing.heal();
    if let Err(error) = &outcome {
        same(format!("the kind of {error}"), &false, &(error.kind() == ErrorKind::Internal))?;
    }
    let fresh = builder(&bare).open().await.at("open again")?;
    same("answers after it", &expected.to_vec(), &answers(&fresh, 8).await?)?;
    intact(&bare).await?;
    store.compact("/**").await.at("again")?;
    same("answers through the same handle", &expected.to_vec(), &answers(&store, 8).await?)?;
    same("files", &2, &store.describe(PATH).await.at("describe")?.files)?;
    Ok(injected)
}

#[test]
fn whichever_request_of_a_compaction_fails_no_answer_changes() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let original = memory();
        let store = builder(&original).create().await.unwrap();
        filled(&store, true, 8).await.unwrap();
        let expected = answers(&store, 8).await.unwrap();
        let cases =
            fail_each_request(async |fault| with_fault(&original, &expected, fault).await).await;
        assert!(cases > 20, "{cases}");
    });
}

/// Two handles compact, one writes, two read: what has been seen never goes away, and nothing is lost.
#[test]
fn compactors_writers_and_readers_do_not_disturb_one_another() {
    const VERSIONS: i64 = 30;
    runtime().block_on(async {
        for dedup in [false, true] {
            let place = memory();
            let writer = builder(&place).create().await.unwrap();
            let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(dedup);
            writer.root().create_series(PATH, options).await.unwrap();
            let first = batch(1, 0, 1, 4);
            writer.root().append_series_data(PATH, &first, None).await.unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let mut tasks = Vec::new();
            for _ in 0..2 {
                let (place, done) = (Arc::clone(&place), Arc::clone(&done));
                tasks.push(tokio::spawn(async move {
                    let store = builder(&place).open().await.at("open")?;
                    while !done.load(Ordering::SeqCst) {
                        store.compact(PATH).await.at("compact")?;
                        // A store in memory never makes anybody wait, so nobody else would run.
                        tokio::task::yield_now().await;
                    }
                    Ok::<(), String>(())
                }));
            }
            for _ in 0..2 {
                let (place, done) = (Arc::clone(&place), Arc::clone(&done));
                tasks.push(tokio::spawn(async move {
                    let store = builder(&place).open().await.at("open")?;
                    let mut seen = 0;
                    while !done.load(Ordering::SeqCst) {
                        let statement = format!("SELECT count(*), count(value) FROM \"{PATH}\"");
                        let found = sql(&store, &statement).await?;
                        let count = found[0][0].as_int().unwrap_or_default();
                        same("rows counted and read", &found[0][0], &found[0][1])?;
                        if count < seen {
                            return Err(format!("{count} rows after {seen}"));
                        }
                        seen = count;
                        tokio::task::yield_now().await;
                    }
                    Ok(())
                }));
            }
            for version in 2..=VERSIONS {
                // Each row of a later version replaces one of the version before, or is new.
                let rows = batch(version, version * 2, 1, 4);
                writer.root().append_series_data(PATH, &rows, None).await.unwrap();
            }
            done.store(true, Ordering::SeqCst);
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            let fresh = builder(&place).open().await.unwrap();
            let versions = fresh.versions(PATH).await.unwrap();
            assert_eq!(versions.len() as i64, VERSIONS);
            let before = answers(&fresh, VERSIONS).await.unwrap();
            fresh.compact(PATH).await.unwrap();
            assert_eq!(answers(&fresh, VERSIONS).await.unwrap(), before);
            if !dedup {
                let count = sql(&fresh, &format!("SELECT count(*) FROM \"{PATH}\"")).await.unwrap();
                assert_eq!(count, [[Cell::Int(4 * VERSIONS)]]);
            }
            intact(&place).await.unwrap();
        }
    });
}

/// Whoever appends with the background on finds few files, soon.
#[test]
fn a_writer_keeps_its_files_few_in_the_background() {
    runtime().block_on(async {
        let place = memory();
        let store = Store::builder("memory://").with_object_store(Arc::clone(&place));
        let store = store.create().await.unwrap();
        filled(&store, false, 64).await.unwrap();
        let began = Instant::now();
        let mut version = 64;
        while store.describe(PATH).await.unwrap().files > 24 {
            assert!(began.elapsed() < PATIENCE, "files stay many");
            tokio::time::sleep(Duration::from_millis(20)).await;
            version += 1;
            let rows = batch(version, version * 36, 3, 20);
            store.root().append_series_data(PATH, &rows, None).await.unwrap();
        }
        let count = sql(&store, &format!("SELECT count(*) FROM \"{PATH}\"")).await.unwrap();
        assert_eq!(count, [[Cell::Int(20 * version)]]);
        drop(store);
        intact(&place).await.unwrap();
    });
}

/// So do several together, of which one at a time looks for files to merge.
#[test]
fn several_writers_keep_their_files_few_in_the_background() {
    runtime().block_on(async {
        let place = memory();
        let open = || Store::builder("memory://").with_object_store(Arc::clone(&place));
        let mut stores = vec![open().create().await.unwrap()];
        for _ in 0..2 {
            stores.push(open().open().await.unwrap());
        }
        let (began, mut version) = (Instant::now(), 0);
        // Each merge of eight leaves the rest, so a while after the last look there are some more.
        while version < 300 || stores[0].describe(PATH).await.unwrap().files > 100 {
            assert!(began.elapsed() < PATIENCE, "files stay many");
            version += 1;
            let rows = batch(version, version * 36, 3, 20);
            let store = &stores[usize::try_from(version).unwrap() % stores.len()];
            store.root().append_series_data(PATH, &rows, None).await.unwrap();
            tokio::task::yield_now().await;
        }
        let count = sql(&stores[1], &format!("SELECT count(*) FROM \"{PATH}\"")).await.unwrap();
        assert_eq!(count, [[Cell::Int(20 * version)]]);
        drop(stores);
        intact(&place).await.unwrap();
    });
}

/// A handle that has not claimed the store compacts beside the one that has it alone.
#[test]
fn others_compact_while_one_writer_has_the_store_alone() {
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let quiet = |mode| {
            let builder = Store::builder(place).with_mode(mode);
            builder.with_upkeep(UpkeepMode::OnRequest).with_compaction(false)
        };
        let owner = quiet(Mode::Exclusive).with_hot_max(64, 1 << 20).create().await.unwrap();
        filled(&owner, true, 20).await.unwrap();
        owner.flush().await.unwrap();
        let before = answers(&owner, 20).await.unwrap();
        let other = quiet(Mode::Shared).open().await.unwrap();
        let done = other.compact(PATH).await.unwrap();
        assert!(!done.series[0].merges.is_empty());
        assert_eq!(answers(&owner, 20).await.unwrap(), before);
        owner.root().append_series_data(PATH, &batch(21, 9, 3, 20), None).await.unwrap();
        owner.flush().await.unwrap();
        let before = answers(&owner, 21).await.unwrap();
        other.compact(PATH).await.unwrap();
        owner.compact(PATH).await.unwrap();
        assert_eq!(answers(&owner, 21).await.unwrap(), before);
        owner.close().await.unwrap();
        let report = quiet(Mode::Shared).fsck(true).await.unwrap();
        assert!(report.is_intact(), "{:?}", report.damage);
    });
}
