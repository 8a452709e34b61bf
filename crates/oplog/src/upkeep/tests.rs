//! Upkeep changes nothing that a reader sees, in whatever order it is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use tidelog_core::env::{Clock, SystemRandomness};
use tidelog_core::{
    CommitVersion, Env, FileId, NodeId, TimeRange, TransactionId, TreePath, Version, WriteTime,
};
use tidelog_storage::object_store::memory::InMemory;
use tidelog_storage::object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::layout::{Codec, FileOrder};
use crate::options::SeriesOptions;
use crate::row::{EntryType, FileOp, FileRow, Row, TreeOp, TreeRow, VersionOp, VersionRow};
use crate::{CommitDraft, CommitOutcome, Hash128, LogOptions};

const EPOCH: i64 = 1_700_000_000_000_000;

/// What the log should hold: the versions of each series.
#[derive(Default)]
struct World {
    series: BTreeMap<NodeId, i64>,
    write: i64,
    seed: u64,
}

impl World {
    fn random(&mut self, below: u64) -> u64 {
        // Knuth's MMIX generator: the test needs any sequence that a seed fixes.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below.max(1)
    }

    fn now(&mut self) -> WriteTime {
        self.write += 1;
        WriteTime::from_micros(EPOCH + self.write)
    }

    /// Rows of one commit: a few versions of some series, new ones among them.
    fn rows(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for _ in 0..=self.random(3) {
            let known = self.series.len() as u64;
            let node = match self.random(known + 2) {
                pick if pick < known => {
                    *self.series.keys().nth(usize::try_from(pick).unwrap()).unwrap()
                }
                _ => {
                    let node = NodeId::random(&SystemRandomness);
                    rows.push(self.create(node));
                    self.series.insert(node, 0);
                    node
                }
            };
            for _ in 0..=self.random(4) {
                rows.extend(self.version(node));
            }
        }
        rows
    }

    fn create(&mut self, node: NodeId) -> Row {
        let schema = Schema::new(vec![Field::new("v", DataType::Int64, true)]);
        Row::Tree(TreeRow {
            op: TreeOp::Create,
            node,
            entry: EntryType::FileSeries,
            path: path_of(node),
            timestamp: self.now(),
            schema: Some(Arc::new(schema)),
            options: Some(Arc::new(SeriesOptions::default())),
            commit: CommitVersion::default(),
        })
    }

    fn version(&mut self, node: NodeId) -> [Row; 2] {
        let number = self.series[&node] + 1;
        self.series.insert(node, number);
        let version = Version::new(number);
        let range = TimeRange::try_new(number, number + 1).unwrap();
        let (path, timestamp) = (path_of(node), self.now());
        let (commit, file) = (CommitVersion::default(), FileId::random(&SystemRandomness));
        let row = VersionRow {
            op: VersionOp::Append,
            node,
            path: path.clone(),
            version,
            timestamp,
            rows: 1,
            range: Some(range),
            time_column: "time".into(),
            transaction: TransactionId::random(&SystemRandomness),
            detail: None,
            commit,
        };
        let file = FileRow {
            op: FileOp::Add,
            file,
            node,
            path,
            timestamp,
            location: format!("series/{node}/{file}.parquet").into(),
            size: 1,
            rows: 1,
            row_groups: 1,
            tail_length: 1,
            hash: Hash128::of(b"a"),
            tail_hash: Hash128::of(b"b"),
            page_hashes: vec![1, 2, 3, 4].into(),
            range,
            min_version: version,
            max_version: version,
            version_base: number,
            partition: None,
            order: FileOrder::Time,
            until: None,
            unique: true,
            column_stats: vec![0].into(),
            codec: Codec::Auto,
            row_group_rows: 0,
            runs: [].into(),
            commit,
        };
        [Row::Version(row), Row::File(file)]
    }
}

fn path_of(node: NodeId) -> TreePath {
    TreePath::parse(&format!("/s/{node}.series")).unwrap()
}

fn draft(rows: Vec<Row>, merged: &[Merged]) -> CommitDraft {
    CommitDraft { rows, merged: merged.to_vec(), ..CommitDraft::default() }
}

async fn commit(log: &Log, rows: Vec<Row>, merged: &[Merged]) -> bool {
    let staged = log.stage(&log.snapshot(), draft(rows, merged)).unwrap();
    log.put_part(&staged).await.unwrap();
    matches!(log.publish(staged).await.unwrap(), CommitOutcome::Committed(_))
}

async fn merge(log: &Log, scope: MergeScope) -> bool {
    let Some(plan) = log.plan_merge(&log.snapshot(), scope) else { return false };
    let merged = log.merge(plan).await.unwrap();
    assert!(merged.is_live_in(&log.snapshot()));
    commit(log, Vec::new(), &[merged]).await
}

async fn check(log: &Log, world: &World) {
    let snapshot = log.snapshot();
    for (node, head) in &world.series {
        let series = log.series(&snapshot, *node).await.unwrap();
        assert_eq!(series.head(), Version::new(*head));
        assert_eq!(series.file_count() as i64, *head);
        let versions: Vec<i64> = series.versions().iter().map(|row| row.version.number()).collect();
        assert_eq!(versions, (1..=*head).collect::<Vec<_>>());
        assert!(snapshot.tree().resolve(&path_of(*node)).is_some());
    }
    assert_eq!(snapshot.last_write(), WriteTime::from_micros(EPOCH + world.write));
}

async fn new_log(retention: Duration) -> (Arc<InMemory>, Log, World) {
    let store = Arc::new(InMemory::new());
    let options = LogOptions { retention };
    let log = Log::create(Arc::clone(&store) as Arc<dyn ObjectStore>, Env::default(), &options);
    let log = log.await.unwrap();
    // Later than commit 0, which bears the wall clock's time.
    let write = log.snapshot().last_write().micros() - EPOCH;
    let mut world = World { write, ..World::default() };
    let directory = Row::Tree(TreeRow {
        op: TreeOp::Create,
        node: NodeId::random(&SystemRandomness),
        entry: EntryType::Directory,
        path: TreePath::parse("/s").unwrap(),
        timestamp: world.now(),
        schema: None,
        options: None,
        commit: CommitVersion::default(),
    });
    assert!(commit(&log, vec![directory], &[]).await);
    (store, log, world)
}

#[tokio::test]
async fn whatever_upkeep_does_a_new_reader_sees_the_same() {
    for seed in 0..12 {
        let (store, log, mut world) = new_log(Duration::from_secs(3600)).await;
        world.seed = seed;
        for _ in 0..120 {
            match world.random(10) {
                0 => drop(merge(&log, MergeScope::Tail(4)).await),
                1 => drop(merge(&log, MergeScope::Runs).await),
                2 if world.random(4) == 0 => drop(merge(&log, MergeScope::All).await),
                3 => drop(log.checkpoint(&log.snapshot(), 8).await.unwrap()),
                _ => {
                    let rows = world.rows();
                    assert!(commit(&log, rows, &[]).await);
                }
            }
        }
        check(&log, &world).await;
        let opened = Log::open(store, Env::default()).await.unwrap();
        check(&opened, &world).await;
        let (a, b) = (log.snapshot(), opened.snapshot());
        assert_eq!(a.head(), b.head());
        assert_eq!(a.tail_length(), b.tail_length());
        assert_eq!(a.tree_history().count(), b.tree_history().count());
        let objects = |s: &Snapshot| s.parts().map(|p| p.object.clone()).collect::<Vec<_>>();
        assert_eq!(objects(&a), objects(&b));
    }
}

#[tokio::test]
async fn two_upkeepers_do_not_merge_the_same_parts() {
    let (store, log, mut world) = new_log(Duration::from_secs(3600)).await;
    for _ in 0..20 {
        let rows = world.rows();
        assert!(commit(&log, rows, &[]).await);
    }
    let other = Log::open(store, Env::default()).await.unwrap();
    let plan = |log: &Log| log.plan_merge(&log.snapshot(), MergeScope::Tail(2)).unwrap();
    let (a, b) = (log.merge(plan(&log)).await.unwrap(), other.merge(plan(&other)).await.unwrap());
    assert!(commit(&log, Vec::new(), &[a]).await);
    let staged =
        other.stage(&other.snapshot(), draft(Vec::new(), std::slice::from_ref(&b))).unwrap();
    assert!(matches!(other.publish(staged).await.unwrap(), CommitOutcome::Conflict));
    other.refresh().await.unwrap();
    assert!(!b.is_live_in(&other.snapshot()));
    // Had it been committed nevertheless, no reader would take it.
    let staged = other.stage(&other.snapshot(), draft(Vec::new(), &[b])).unwrap();
    assert!(other.publish(staged).await.is_err());
    check(&log, &world).await;
}

#[tokio::test]
async fn a_gap_is_damage_and_a_lost_pointer_or_checkpoint_is_not() {
    let (store, log, mut world) = new_log(Duration::from_secs(3600)).await;
    for _ in 0..40 {
        let rows = world.rows();
        assert!(commit(&log, rows, &[]).await);
        merge(&log, MergeScope::Tail(8)).await;
        log.checkpoint(&log.snapshot(), 16).await.unwrap();
    }
    let reopened = || Log::open(Arc::clone(&store) as Arc<dyn ObjectStore>, Env::default());
    check(&reopened().await.unwrap(), &world).await;
    let objects = log.objects();
    let pointer = crate::open::pointer_path(objects);
    let saved = store.get(&pointer).await.unwrap().bytes().await.unwrap();
    store.delete(&pointer).await.unwrap();
    check(&reopened().await.unwrap(), &world).await;
    store.put(&pointer, "{\"version\":7,\"size\":3}".into()).await.unwrap();
    check(&reopened().await.unwrap(), &world).await;
    store.put(&pointer, saved.into()).await.unwrap();
    let checkpoint = log.checkpoint_known().unwrap();
    let path = crate::commit::checkpoint_of(&objects.prefix, checkpoint);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    store.delete(&path).await.unwrap();
    check(&reopened().await.unwrap(), &world).await;
    store.put(&path, bytes.into()).await.unwrap();
    assert!(log.snapshot().head() > checkpoint.next().next());
    let gap = crate::commit::object_of(&objects.prefix, checkpoint.next());
    store.delete(&gap).await.unwrap();
    let error = reopened().await.unwrap_err();
    assert!(matches!(error, Error::DamagedCommit { .. }), "{error}");
}

#[tokio::test]
async fn what_expired_is_let_go_and_the_rest_stays_readable() {
    let (store, log, mut world) = new_log(Duration::ZERO).await;
    for _ in 0..60 {
        let rows = world.rows();
        assert!(commit(&log, rows, &[]).await);
        merge(&log, MergeScope::Tail(8)).await;
        log.checkpoint(&log.snapshot(), 16).await.unwrap();
    }
    let count = || store.list(None).count();
    use futures::StreamExt;
    let before = count().await;
    let expired = log.expired(&log.snapshot()).await.unwrap();
    assert!(!expired.parts.is_empty() && expired.object_count() > expired.parts.len());
    log.delete_expired(&expired, &log.snapshot()).await.unwrap();
    assert!(count().await < before / 2, "{} of {before}", count().await);
    check(&log, &world).await;
    let opened =
        Log::open(Arc::clone(&store) as Arc<dyn ObjectStore>, Env::default()).await.unwrap();
    check(&opened, &world).await;
    // A handle that slept through all of it starts anew, to read and to write.
    let rows = world.rows();
    assert!(commit(&log, rows, &[]).await);
    opened.refresh().await.unwrap();
    check(&opened, &world).await;
}

/// A wall clock that stands until it is set.
#[derive(Debug, Default)]
struct Hands(std::sync::atomic::AtomicI64);

impl Clock for Hands {
    fn now(&self) -> WriteTime {
        WriteTime::from_micros(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

/// Losing to a commit shows that it was there, not that it was the newest: those after it may be
/// deleted before they are looked for, and their absence must not be believed.
#[tokio::test]
async fn a_writer_that_lost_after_a_long_pause_does_not_take_the_winner_for_the_head() {
    let (store, busy, mut world) = new_log(Duration::from_secs(10)).await;
    let hands = Arc::new(Hands::default());
    let clock = Arc::clone(&hands) as Arc<dyn Clock>;
    let env = Env { clock, randomness: Arc::new(SystemRandomness) };
    let sleeper = Log::open(Arc::clone(&store) as Arc<dyn ObjectStore>, env).await.unwrap();
    let rows = world.rows();
    let staged = sleeper.stage(&sleeper.snapshot(), draft(rows, &[])).unwrap();
    for _ in 0..3 {
        let rows = world.rows();
        assert!(commit(&busy, rows, &[]).await);
    }
    busy.checkpoint(&busy.snapshot(), 1).await.unwrap();
    hands.0.store(100_000_000, std::sync::atomic::Ordering::SeqCst);
    sleeper.put_part(&staged).await.unwrap();
    assert!(matches!(sleeper.publish(staged).await.unwrap(), CommitOutcome::Conflict));
    let head = busy.snapshot().head();
    for version in (0..head.number()).map(CommitVersion::new) {
        store.delete(&crate::commit::object_of(&busy.objects().prefix, version)).await.unwrap();
    }
    assert_eq!(sleeper.refresh().await.unwrap().head(), head);
}

/// A remove of a file, as compaction and vacuum write it.
fn removal(row: &Row) -> Row {
    match row {
        Row::File(file) => Row::File(FileRow {
            op: FileOp::Remove,
            page_hashes: Bytes::new(),
            column_stats: Bytes::new(),
            ..file.clone()
        }),
        other => panic!("{other:?}"),
    }
}

/// However long a series is compacted, its rows lie in as many bytes: versions and the files that it has. The
/// others are still told of, aside.
#[tokio::test]
async fn rows_of_files_that_have_gone_are_set_aside() {
    let (store, log, mut world) = new_log(Duration::from_secs(3600)).await;
    let node = NodeId::random(&SystemRandomness);
    let create = world.create(node);
    world.series.insert(node, 0);
    assert!(commit(&log, vec![create], &[]).await);
    let (mut living, mut gone): (Vec<Row>, Vec<FileId>) = (Vec::new(), Vec::new());
    for round in 0..200 {
        let [version, file] = world.version(node);
        let mut rows = vec![version, file.clone()];
        living.push(file);
        // All files but the newest are replaced by it, now and then.
        if round % 5 == 4 {
            for file in living.drain(..living.len() - 1) {
                rows.push(removal(&file));
                gone.extend(if let Row::File(file) = &file { Some(file.file) } else { None });
            }
        }
        assert!(commit(&log, rows, &[]).await);
        match round % 40 {
            39 => assert!(merge(&log, MergeScope::All).await),
            _ => drop(merge(&log, MergeScope::Tail(8)).await),
        }
        if round % 50 == 20 {
            log.checkpoint(&log.snapshot(), 1).await.unwrap();
        }
    }
    let opened = Log::open(Arc::clone(&store) as Arc<dyn ObjectStore>, Env::default()).await;
    for log in [&log, &opened.unwrap()] {
        let snapshot = log.snapshot();
        let series = log.series(&snapshot, node).await.unwrap();
        assert_eq!(series.head(), Version::new(200));
        let files: Vec<FileId> = series.files().map(|file| file.file).collect();
        let expected = living.iter().map(|row| match row {
            Row::File(file) => file.file,
            other => panic!("{other:?}"),
        });
        assert_eq!(files, expected.collect::<Vec<_>>());
        let told = log.file_rows(&snapshot, node).await.unwrap();
        let removed = told.iter().filter(|row| row.op == FileOp::Remove).map(|row| row.file);
        let mut removed: Vec<FileId> = removed.collect();
        removed.sort_unstable();
        gone.sort_unstable();
        assert_eq!(removed, gone);
        assert_eq!(told.iter().filter(|row| row.op == FileOp::Add).count(), 200);
        // Of both rows of each file that has gone none is read with the series.
        let rows = |of: fn(&Part) -> bool| -> u64 {
            snapshot.parts().filter(|part| of(part)).map(|part| part.rows).sum()
        };
        assert_eq!(rows(|part| part.families.series), 200 + living.len() as u64);
        assert_eq!(rows(Part::is_aside), 2 * gone.len() as u64);
        let written = std::collections::HashSet::from([node]);
        assert_eq!(log.file_bytes_written(&snapshot, &written).await.unwrap(), 200);
    }
}

/// The two rows of a file may lie in parts that are merged in any order, or in one that has been merged with
/// others before.
#[tokio::test]
async fn a_file_goes_aside_once_both_its_rows_are_merged() {
    let (_, log, mut world) = new_log(Duration::from_secs(3600)).await;
    let nodes: Vec<NodeId> = (0..3).map(|_| NodeId::random(&SystemRandomness)).collect();
    let mut files = Vec::new();
    for node in &nodes {
        let create = world.create(*node);
        world.series.insert(*node, 0);
        let [version, file] = world.version(*node);
        files.push(file.clone());
        assert!(commit(&log, vec![create, version, file], &[]).await);
    }
    let aside = |log: &Log| -> u64 {
        let snapshot = log.snapshot();
        snapshot.parts().filter(|part| part.is_aside()).map(|part| part.rows).sum()
    };
    assert!(merge(&log, MergeScope::Tail(2)).await);
    for (file, number) in files.iter().zip(1..) {
        assert!(commit(&log, vec![removal(file)], &[]).await);
        assert_eq!(aside(&log), 2 * (number - 1), "a row alone stays where it is");
        assert!(merge(&log, MergeScope::All).await);
        assert_eq!(aside(&log), 2 * number);
    }
    let snapshot = log.snapshot();
    for node in nodes {
        assert_eq!(log.series(&snapshot, node).await.unwrap().file_count(), 0);
        assert_eq!(log.file_rows(&snapshot, node).await.unwrap().len(), 2);
    }
}
