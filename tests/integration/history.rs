//! What is kept of the history stays readable, what is let go is refused, and nothing that anything
//! can read is deleted: whatever is written, named, expired and vacuumed, in whatever order.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use proptest::collection::vec;
use proptest::prelude::*;
use tidelog::object_store::memory::InMemory;
use tidelog::object_store::path::Path;
use tidelog::object_store::{ObjectStore, ObjectStoreExt};
use tidelog::{
    AsOf, Env, ErrorKind, ExpireRule, Mode, ReadOptions, SeriesExt, Store, TimeRange, UpkeepMode,
    VacuumOptions, VacuumReason, VacuumReport, Version, WriteTime,
};
use tidelog_testkit::generate::{self, Op, RawRow, SeriesSpec, Step, specs};
use tidelog_testkit::{Cell, Fault, FaultStore, Model, ModelAsOf};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::model::plain;
use crate::support::{
    self, Context, Fallible, PATHS, Pair, Place, fail_each_request, kind_of, property, rows,
    runtime, same, sql,
};

/// A call that changes what is kept of the history, or any other.
#[derive(Debug, Clone)]
enum Call {
    Step(Step),
    Name(u8),
    Drop(u8),
    KeepVersions(Option<u8>, u8),
    /// Before the write time of some version.
    Before(Option<u8>, prop::sample::Index),
    BeforeVersion(u8, u8),
    Compact,
    Vacuum,
}

const NAMES: [&str; 3] = ["before", "release 1", "état"];

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let paths = u8::try_from(PATHS.len()).unwrap();
    let path = proptest::option::of(0..paths);
    let one = prop_oneof![
        8 => generate::histories(paths, 3, 1..2).prop_map(|mut steps| Call::Step(steps.remove(0))),
        2 => (0_u8..3).prop_map(Call::Name),
        1 => (0_u8..3).prop_map(Call::Drop),
        2 => (path.clone(), 0_u8..4).prop_map(|(path, count)| Call::KeepVersions(path, count)),
        2 => (path, any::<prop::sample::Index>()).prop_map(|(path, at)| Call::Before(path, at)),
        1 => (0..paths, 0_u8..5).prop_map(|(path, version)| Call::BeforeVersion(path, version)),
        2 => Just(Call::Compact),
        2 => Just(Call::Vacuum),
    ];
    vec(one, 5..40)
}

/// A store beside its model, and what is kept of the model's history.
struct Kept {
    pair: Pair,
    /// The model as it was when a name was given.
    named: BTreeMap<&'static str, Model>,
    /// Of each node the first version that can be read.
    first: HashMap<usize, usize>,
    /// Nodes that were removed, with the last write time before.
    removed: Vec<(usize, String, i64)>,
}

impl Kept {
    fn new(pair: Pair) -> Self {
        Self { pair, named: BTreeMap::new(), first: HashMap::new(), removed: Vec::new() }
    }

    async fn call(&mut self, call: &Call) -> Fallible {
        match call {
            Call::Step(step) => self.step(step).await,
            Call::Name(index) => self.name(NAMES[usize::from(*index)]).await,
            Call::Drop(index) => {
                let name = NAMES[usize::from(*index)];
                let dropped = self.pair.handle(false).drop_snapshot(name).await;
                let expected = self.named.remove(name).is_none().then_some(ErrorKind::NotFound);
                same("dropping", &expected, &dropped.err().map(|error| error.kind()))
            }
            Call::KeepVersions(path, count) => self.keep_versions(*path, usize::from(*count)).await,
            Call::Before(path, index) => self.before(*path, index).await,
            Call::BeforeVersion(path, version) => {
                self.before_version(PATHS[usize::from(*path)], usize::from(*version)).await
            }
            Call::Compact => match self.pair.handle(true).compact("/**").await {
                // Nothing may be there.
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error.to_string()),
                _ => Ok(()),
            },
            Call::Vacuum => self.vacuum().await.map(drop),
        }
    }

    async fn step(&mut self, step: &Step) -> Fallible {
        if let Op::Restore(path, to) = &step.op
            && self.is_let_go(PATHS[usize::from(*path)], to)
        {
            let to = AsOf::Version(Version::new(self.version_of(PATHS[usize::from(*path)], to)));
            let path = PATHS[usize::from(*path)];
            let kind = self.pair.handle(step.second).root().restore_series(path, &to).await;
            let kind = kind.err().map(|error| error.kind());
            return same("restoring what was let go", &Some(ErrorKind::NotFound), &kind);
        }
        let before = self.pair.model.clone();
        let last_write = before.write_times().last().copied().unwrap_or(i64::MIN);
        self.pair.step(step).await?;
        if let Op::Remove(..) = step.op {
            let still = self.pair.model.paths();
            for path in before.paths().into_iter().filter(|path| !still.contains(path)) {
                if let Some((node, _)) = before.node(&path, ModelAsOf::Head) {
                    self.removed.push((node, path, last_write));
                }
            }
        }
        Ok(())
    }

    /// The version that a step brings back.
    fn version_of(&self, path: &str, to: &prop::sample::Index) -> i64 {
        to.index(self.pair.model.versions(path).len() + 2) as i64
    }

    fn is_let_go(&self, path: &str, to: &prop::sample::Index) -> bool {
        let version = self.version_of(path, to);
        let node = self.pair.model.node(path, ModelAsOf::Version(version));
        node.is_some_and(|(node, visible)| visible < self.first_of(node))
    }

    async fn name(&mut self, name: &'static str) -> Fallible {
        let made = self.pair.handle(true).create_snapshot(name).await;
        if self.named.contains_key(name) {
            let kind = made.err().map(|error| error.kind());
            return same("naming twice", &Some(ErrorKind::AlreadyExists), &kind);
        }
        made.at("naming")?;
        self.named.insert(name, self.pair.model.clone());
        Ok(())
    }

    /// Series with versions that a path, or a glob of all, names at head.
    fn heads(&self, path: Option<u8>) -> Vec<(usize, usize)> {
        let model = &self.pair.model;
        let wanted = path.map(|path| PATHS[usize::from(path)]);
        let paths = model.paths().into_iter();
        let paths = paths.filter(|path| wanted.is_none_or(|wanted| wanted == path.as_str()));
        paths.filter_map(|path| model.node(&path, ModelAsOf::Head)).collect()
    }

    async fn expire(&self, path: Option<u8>, rule: ExpireRule) -> Result<usize, ErrorKind> {
        let pattern = path.map_or("/**", |path| PATHS[usize::from(path)]);
        let done = self.pair.handle(false).expire(pattern, rule).await;
        done.map(|expired| expired.len()).map_err(|error| error.kind())
    }

    fn advance(&mut self, firsts: Vec<(usize, usize)>) -> usize {
        let mut moved = 0;
        for (node, first) in firsts {
            let known = self.first.entry(node).or_insert(1);
            if first > *known {
                *known = first;
                moved += 1;
            }
        }
        moved
    }

    async fn keep_versions(&mut self, path: Option<u8>, count: usize) -> Fallible {
        let done = self.expire(path, ExpireRule::KeepVersions(count as u64)).await;
        if count == 0 {
            return same("keeping none", &Err(ErrorKind::InvalidInput), &done);
        }
        let firsts = self.heads(path).into_iter();
        let firsts = firsts.map(|(node, newest)| (node, (newest + 1).saturating_sub(count)));
        let moved = self.advance(firsts.collect());
        match done {
            Ok(found) => same("series let go of", &moved, &found),
            // Nothing is there, or a directory.
            Err(ErrorKind::NotFound | ErrorKind::InvalidInput) => same("moved", &0, &moved),
            Err(kind) => Err(format!("expire: {kind}")),
        }
    }

    async fn before(&mut self, path: Option<u8>, index: &prop::sample::Index) -> Fallible {
        let times = self.pair.model.write_times();
        if times.is_empty() {
            return Ok(());
        }
        let time = times[index.index(times.len())];
        let done = self.expire(path, ExpireRule::BeforeTime(WriteTime::from_micros(time))).await;
        let model = &self.pair.model;
        let until = |node: usize| model.times_of(node).iter().filter(|at| **at <= time).count();
        let live = self.heads(path).into_iter().map(|(node, _)| (node, until(node)));
        let wanted = path.map(|path| PATHS[usize::from(path)]);
        let gone = self.removed.iter().filter(|(_, at, _)| wanted.is_none_or(|path| path == at));
        let gone = gone.map(|(node, _, last_write)| match time > *last_write {
            true => (*node, model.times_of(*node).len() + 1),
            false => (*node, until(*node)),
        });
        let firsts: Vec<(usize, usize)> = live.chain(gone).collect();
        let moved = self.advance(firsts);
        match done {
            Ok(found) => same("series let go of", &moved, &found),
            Err(ErrorKind::NotFound | ErrorKind::InvalidInput) => same("moved", &0, &moved),
            Err(kind) => Err(format!("expire: {kind}")),
        }
    }

    async fn before_version(&mut self, path: &str, version: usize) -> Fallible {
        let rule = ExpireRule::BeforeVersion(Version::new(i64::try_from(version).unwrap()));
        let done = self.pair.handle(true).expire(path, rule).await;
        let head = self.pair.model.node(path, ModelAsOf::Head);
        match head.filter(|(_, newest)| (1..=*newest).contains(&version)) {
            Some((node, _)) => {
                let moved = self.advance(vec![(node, version)]);
                same("series let go of", &moved, &done.at("expire")?.len())
            }
            None => same("a version that is not there", &true, &done.is_err()),
        }
    }

    async fn vacuum(&self) -> Fallible<VacuumReport> {
        let options = VacuumOptions::default().with_older_than(Duration::ZERO);
        let store = self.pair.handle(true);
        // What is on its way to a file is an orphan until its commit.
        store.flush().await.at("flushing")?;
        let planned = store.vacuum(&options).await.at("a dry vacuum")?;
        let done = store.vacuum(&options.with_apply(true)).await.at("a vacuum")?;
        same("what was planned", &planned.total(), &done.total())?;
        same("readers", &0, &done.pinned.files)?;
        Ok(done)
    }

    fn first_of(&self, node: usize) -> usize {
        self.first.get(&node).copied().unwrap_or(1)
    }

    /// All that can be read, and all that cannot.
    async fn check(&self, store: &Store) -> Fallible {
        for path in PATHS {
            self.check_path(store, path).await?;
        }
        for name in NAMES {
            self.check_name(store, name).await?;
        }
        self.check_told(store).await
    }

    async fn check_path(&self, store: &Store, path: &str) -> Fallible {
        let model = &self.pair.model;
        let versions = (1..=model.versions(path).len()).map(|n| ModelAsOf::Version(n as i64));
        let times = model.write_times().into_iter().map(ModelAsOf::Time);
        for point in versions.chain(times).chain([ModelAsOf::Head]) {
            let as_of = match point {
                ModelAsOf::Head => AsOf::Head,
                ModelAsOf::Version(number) => AsOf::Version(Version::new(number)),
                ModelAsOf::Time(time) => AsOf::Time(WriteTime::from_micros(time)),
            };
            let found = read(store, path, as_of).await;
            let what = format!("{path} as of {point:?}");
            let node = model.node(path, point);
            let is_lost = node.is_some_and(|(node, visible)| {
                point != ModelAsOf::Head && visible < self.first_of(node)
            });
            match model.read(path, point, TimeRange::ALL) {
                _ if is_lost => same(what, &Some(ErrorKind::NotFound), &found.err())?,
                Ok(expected) => same(what, &Ok(plain(&expected)), &found)?,
                Err(expected) => same(what, &Some(kind_of(&expected)), &found.err())?,
            }
        }
        Ok(())
    }

    async fn check_name(&self, store: &Store, name: &str) -> Fallible {
        let Some(model) = self.named.get(name) else {
            let found = read(store, "/four", AsOf::Snapshot(name.to_owned())).await;
            return same(format!("as of {name}"), &Some(ErrorKind::NotFound), &found.err());
        };
        for path in model.paths().into_iter().filter(|path| !model.versions(path).is_empty()) {
            let expected = model.read(&path, ModelAsOf::Head, TimeRange::ALL).at("model")?;
            let found = read(store, &path, AsOf::Snapshot(name.to_owned())).await;
            same(format!("{path} as of {name}"), &Ok(plain(&expected)), &found)?;
            let statement = format!("SELECT count(*) FROM series('{path}', '{name}')");
            let count = vec![vec![Cell::Int(i64::try_from(expected.len()).unwrap())]];
            same(&statement, &count, &sql(store, &statement).await?)?;
        }
        Ok(())
    }

    /// What the store says is readable is so.
    async fn check_told(&self, store: &Store) -> Fallible {
        let names: Vec<String> =
            store.snapshots().await.at("snapshots")?.into_iter().map(|made| made.name).collect();
        let expected: Vec<String> = self.named.keys().map(|name| (*name).to_owned()).collect();
        same("snapshots", &expected, &names)?;
        let mut readable = 0;
        for path in self.pair.model.paths() {
            let Some((node, newest)) = self.pair.model.node(&path, ModelAsOf::Head) else {
                continue;
            };
            let first = self.first_of(node);
            let told = store.describe(&path).await.at("describe")?.first_readable;
            same(format!("first readable of {path}"), &(first as i64), &told.number())?;
            let versions = store.versions(&path).await.at("versions")?;
            let told = versions.iter().filter(|info| info.readable).count();
            same(format!("readable versions of {path}"), &(newest + 1 - first), &told)?;
            readable += told as u64;
        }
        let told = store.statistics().await.at("statistics")?;
        same("readable versions", &readable, &told.readable_versions)?;
        let all = self.pair.model.write_times().len();
        let lost = sql(store, "SELECT count(*) FROM tidelog.versions WHERE NOT readable").await?;
        let lost = lost[0][0].as_int().unwrap_or_default();
        let expected: usize = self
            .first
            .iter()
            .map(|(node, first)| (first - 1).min(self.pair.model.times_of(*node).len()))
            .sum();
        same("versions that are not readable", &(expected as i64), &lost)?;
        same("versions", &true, &(expected <= all))
    }
}

/// The rows of a series, or the kind of the error.
async fn read(
    store: &Store,
    path: &str,
    as_of: AsOf,
) -> Result<Vec<tidelog_testkit::Row>, ErrorKind> {
    let options = ReadOptions::default().with_as_of(as_of);
    let stream = store.root().read_series_with_options(path, &options).await;
    let stream = stream.map_err(|error| error.kind())?;
    rows(Ok(stream)).await.map_err(|_| ErrorKind::Internal)
}

async fn play(mut kept: Kept, calls: &[Call]) -> Fallible {
    for (number, call) in calls.iter().enumerate() {
        kept.call(call).await.map_err(|error| format!("call {number} {call:?}: {error}"))?;
    }
    let (first, fresh) = (kept.pair.handle(false).clone(), kept.pair.fresh().await?);
    kept.check(&first).await.map_err(|error| format!("before a vacuum: {error}"))?;
    kept.vacuum().await?;
    kept.check(&fresh).await.map_err(|error| format!("after a vacuum: {error}"))?;
    kept.check(&first).await?;
    // Whatever is left is needed, and whatever is needed is left.
    same("left for another vacuum", &0, &kept.vacuum().await?.total().files)?;
    Ok(())
}

type Case = (Vec<SeriesSpec>, Vec<Call>, u64);

fn cases() -> impl Strategy<Value = Case> {
    (vec(specs(), 3), calls(), any::<u64>())
}

#[test]
fn what_is_kept_is_readable_and_what_is_let_go_is_refused() {
    let runtime = runtime();
    property(40, cases(), |(specs, calls, seed)| {
        runtime.block_on(async {
            play(Kept::new(Pair::create(Place::memory(), specs, seed).await?), &calls).await
        })
    });
}

#[test]
fn one_writer_alone_keeps_and_lets_go_of_the_same() {
    let runtime = runtime();
    property(12, cases(), |(specs, calls, seed)| {
        runtime.block_on(async {
            let pair = Pair::create_alone(Place::directory(), specs, seed).await?;
            play(Kept::new(pair), &calls).await
        })
    });
}

fn row(slot: u8) -> Vec<RawRow> {
    vec![RawRow { slot, key: None, part: None, value: Some(f64::from(slot)), count: Some(1) }]
}

async fn append(store: &Store, path: &str, slot: u8) -> Fallible {
    let append = support::append_of(&SeriesSpec::plain(), path, &row(slot));
    store.root().append_series_data_with_options(append).await.map(drop).at("append")
}

fn builder(store: &Arc<dyn ObjectStore>) -> tidelog::StoreBuilder {
    let builder = Store::builder("memory://").with_object_store(Arc::clone(store));
    builder.with_partitions(1).with_upkeep(UpkeepMode::OnRequest)
}

async fn data_files(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let listed = store.list(Some(&Path::from("series"))).try_collect::<Vec<_>>().await.unwrap();
    let mut names: Vec<String> = listed.iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    names
}

fn at_once() -> VacuumOptions {
    VacuumOptions::default().with_apply(true).with_older_than(Duration::ZERO)
}

#[test]
fn a_name_that_could_be_another_point_in_history_is_refused() {
    runtime().block_on(async {
        let store = Store::create("memory://").await.unwrap();
        for bad in ["", "v1", "V2", "head", "now", "2024-01-31", "-7d", "a/b", "__a", "a\n"] {
            let error = store.create_snapshot(bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert_eq!(store.snapshots().await.unwrap(), []);
        let error = store.drop_snapshot("missing").await.unwrap_err();
        assert!(error.to_string().contains("there is none"), "{error}");
        store.create_snapshot("one").await.unwrap();
        let error = store.drop_snapshot("missing").await.unwrap_err();
        assert!(error.to_string().contains("one"), "{error}");
    });
}

#[test]
fn an_error_says_what_is_still_readable() {
    runtime().block_on(async {
        let store = Store::create("memory://").await.unwrap();
        for slot in 0..5 {
            append(&store, "/s", slot).await.unwrap();
        }
        let second = store.versions("/s").await.unwrap()[1].write_time;
        store.create_snapshot("kept").await.unwrap();
        let rule = ExpireRule::BeforeVersion(Version::new(4));
        let expired = store.expire("/s", rule).await.unwrap();
        assert_eq!((expired[0].first_before.number(), expired[0].first.number()), (1, 4));
        for as_of in [AsOf::Version(Version::new(2)), AsOf::Time(second)] {
            let options = ReadOptions::default().with_as_of(as_of);
            let error = store.root().read_series_with_options("/s", &options).await.unwrap_err();
            let words = error.to_string();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(words.contains("v4 to v5") && words.contains("kept"), "{words}");
        }
        // It never goes back.
        let back = store.expire("/s", ExpireRule::BeforeVersion(Version::new(2))).await.unwrap();
        assert_eq!(back, []);
        assert_eq!(store.describe("/s").await.unwrap().first_readable.number(), 4);
        let glob = store.expire("/*", ExpireRule::BeforeVersion(Version::new(5))).await;
        assert_eq!(glob.unwrap_err().kind(), ErrorKind::InvalidInput);
        let error = store.expire("/none", ExpireRule::KeepVersions(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

/// Opens the store anew at each step, so that horizons and names come from checkpoints and merged parts.
#[test]
fn horizons_and_names_survive_merges_checkpoints_and_reopening() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let open = || async { builder(&memory).open().await.unwrap() };
        builder(&memory).with_log_retention(Duration::ZERO).create().await.unwrap();
        for slot in 0..6 {
            append(&open().await, "/s", slot).await.unwrap();
        }
        open().await.create_snapshot("gone").await.unwrap();
        open().await.create_snapshot("kept").await.unwrap();
        open().await.expire("/s", ExpireRule::KeepVersions(2)).await.unwrap();
        open().await.drop_snapshot("gone").await.unwrap();
        for slot in 6..20 {
            let store = open().await;
            append(&store, "/s", slot).await.unwrap();
            store.maintain(slot % 2 == 0).await.unwrap();
        }
        let store = open().await;
        let names: Vec<String> =
            store.snapshots().await.unwrap().into_iter().map(|made| made.name).collect();
        assert_eq!(names, ["kept"]);
        assert_eq!(store.describe("/s").await.unwrap().first_readable.number(), 5);
        let found = read(&store, "/s", AsOf::Snapshot("kept".to_owned())).await.unwrap();
        assert_eq!(found.len(), 6);
        let lost = read(&store, "/s", AsOf::Version(Version::new(4))).await;
        assert_eq!(lost, Err(ErrorKind::NotFound));
    });
}

#[test]
fn while_one_has_the_store_alone_others_neither_name_nor_expire() {
    runtime().block_on(async {
        let place = Place::directory();
        let env = Env::default();
        let alone = place.builder(&env, 1).with_mode(Mode::Exclusive).create().await.unwrap();
        append(&alone, "/s", 1).await.unwrap();
        append(&alone, "/s", 2).await.unwrap();
        alone.flush().await.unwrap();
        let other = place.builder(&env, 1).open().await.unwrap();
        let named = other.create_snapshot("mine").await.unwrap_err();
        let dropped = other.drop_snapshot("mine").await.unwrap_err();
        let expired = other.expire("/s", ExpireRule::KeepVersions(1)).await.unwrap_err();
        let pid = std::process::id().to_string();
        for refused in [named, dropped, expired] {
            let names_holder = refused.to_string().contains(&pid);
            assert!(refused.kind() == ErrorKind::Conflict && names_holder, "{refused}");
        }
        append(&alone, "/s", 3).await.unwrap();
        // The owner's snapshot has all that it acknowledged before, and nothing after.
        let made = alone.create_snapshot("mine").await.unwrap();
        append(&alone, "/s", 4).await.unwrap();
        for store in [&alone, &place.builder(&env, 1).open().await.unwrap()] {
            let found = read(store, "/s", AsOf::Snapshot("mine".to_owned())).await.unwrap();
            assert_eq!(found.len(), 3);
            let found = read(store, "/s", AsOf::Time(made.time)).await.unwrap();
            assert_eq!(found.len(), 3);
        }
        // Vacuums are anybody's.
        other.vacuum(&at_once()).await.unwrap();
        alone.close().await.unwrap();
        assert_eq!(other.describe("/s").await.unwrap().version.number(), 4);
    });
}

/// A store with a series that was removed, whose history is let go; what else there is stays.
async fn with_waste(memory: &Arc<dyn ObjectStore>) -> Store {
    let store = builder(memory).create().await.unwrap();
    for slot in 0..3 {
        append(&store, "/kept", slot).await.unwrap();
        append(&store, "/d/gone", slot).await.unwrap();
    }
    store.remove("/d", true).await.unwrap();
    append(&store, "/kept", 3).await.unwrap();
    store
}

fn later() -> ExpireRule {
    ExpireRule::BeforeTime(WriteTime::from_micros(i64::MAX / 2))
}

#[test]
fn files_go_when_nothing_can_read_them_and_not_before() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = with_waste(&memory).await;
        let all = data_files(&memory).await;
        assert_eq!(all.len(), 7);
        assert_eq!(store.vacuum(&at_once()).await.unwrap().total().files, 0);
        store.expire("/d/**", later()).await.unwrap();
        // A dry run and a vacuum that heeds the age delete nothing.
        let dry = VacuumOptions::default().with_older_than(Duration::ZERO);
        let told = store.vacuum(&dry).await.unwrap();
        assert_eq!((told.expired.files, told.applied), (3, false));
        assert!(told.files.iter().all(|file| file.reason == VacuumReason::Expired
            && file.path.as_ref().is_some_and(|path| path.as_str() == "/d/gone")));
        let young = store.vacuum(&VacuumOptions::default().with_apply(true)).await.unwrap();
        assert_eq!((young.total().files, young.young.files), (0, 3));
        assert_eq!(data_files(&memory).await, all);
        let done = store.vacuum(&at_once()).await.unwrap();
        assert_eq!((done.total(), done.needed.files), (told.total(), 4));
        assert_eq!(data_files(&memory).await.len(), 4);
        let report = builder(&memory).fsck(true).await.unwrap();
        assert!(report.is_intact() && report.orphan_count == 0, "{report:?}");
        assert_eq!(read(&store, "/kept", AsOf::Head).await.unwrap().len(), 4);
    });
}

#[test]
fn files_that_were_merged_go_and_replaced_rows_with_the_history_that_shows_them() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = builder(&memory).create().await.unwrap();
        let spec = SeriesSpec { dedup: true, ..SeriesSpec::plain() };
        store.root().create_series("/s", support::options_of(&spec)).await.unwrap();
        for slot in [1, 2, 1, 2] {
            append(&store, "/s", slot).await.unwrap();
        }
        store.compact("/s").await.unwrap();
        // Those that were merged on the way, too.
        assert!(store.vacuum(&at_once()).await.unwrap().replaced.files >= 4);
        let as_of = |version| read(&store, "/s", AsOf::Version(Version::new(version)));
        assert_eq!(as_of(2).await.unwrap().len(), 2);
        store.create_snapshot("second").await.unwrap();
        append(&store, "/s", 2).await.unwrap();
        // The rows of the first two versions are shown by nothing from the fourth version on.
        store.expire("/s", ExpireRule::BeforeVersion(Version::new(4))).await.unwrap();
        assert!(store.vacuum(&at_once()).await.unwrap().expired.files > 0);
        assert_eq!(store.vacuum(&at_once()).await.unwrap().total().files, 0);
        assert_eq!(as_of(4).await.unwrap().len(), 2);
        assert_eq!(read(&store, "/s", AsOf::Head).await.unwrap().len(), 2);
        let named = read(&store, "/s", AsOf::Snapshot("second".to_owned())).await.unwrap();
        assert_eq!(named.len(), 2);
        assert!(builder(&memory).fsck(true).await.unwrap().is_intact());
    });
}

#[test]
fn a_named_snapshot_keeps_files_until_its_name_is_taken_away() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = builder(&memory).create().await.unwrap();
        append(&store, "/gone", 1).await.unwrap();
        store.create_snapshot("one").await.unwrap();
        append(&store, "/gone", 2).await.unwrap();
        store.remove("/gone", false).await.unwrap();
        store.create_snapshot("after").await.unwrap();
        store.expire("/**", later()).await.unwrap();
        // The second version is in no snapshot.
        assert_eq!(store.vacuum(&at_once()).await.unwrap().expired.files, 1);
        let one = || read(&store, "/gone", AsOf::Snapshot("one".to_owned()));
        assert_eq!(one().await.unwrap().len(), 1);
        store.drop_snapshot("one").await.unwrap();
        let young = store.vacuum(&VacuumOptions::default().with_apply(true)).await.unwrap();
        assert_eq!(young.young.files, 1);
        assert_eq!(store.vacuum(&at_once()).await.unwrap().expired.files, 1);
        assert_eq!(data_files(&memory).await, [] as [String; 0]);
    });
}

#[test]
fn orphans_go_and_what_is_not_ours_stays() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = with_waste(&memory).await;
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let ours = format!("series/{id}/{id}.parquet");
        for name in [&ours, "series/readme.txt", "series/mine/data.parquet"] {
            memory.put(&Path::from(name), "bytes".into()).await.unwrap();
        }
        assert_eq!(store.vacuum(&VacuumOptions::default()).await.unwrap().young.files, 1);
        let done = store.vacuum(&at_once()).await.unwrap();
        assert_eq!((done.orphans.files, done.orphans.bytes), (1, 5));
        let left = data_files(&memory).await;
        assert!(!left.contains(&ours));
        assert_eq!(
            left.iter().filter(|name| name.contains("readme") || name.contains("mine")).count(),
            2
        );
    });
}

/// A read that began before goes on to its end, though nothing newer needs the files.
#[test]
fn readers_on_this_machine_keep_what_they_read() {
    runtime().block_on(async {
        for shared in [true, false] {
            let place = if shared { Place::directory() } else { Place::memory() };
            let env = Env::default();
            let store = place.builder(&env, 1).create().await.unwrap();
            for slot in 0..3 {
                append(&store, "/gone", slot).await.unwrap();
            }
            // Another handle, as another process would be.
            let reader =
                if shared { place.builder(&env, 1).open().await.unwrap() } else { store.clone() };
            let mut stream = reader.root().read_series_all("/gone").await.unwrap();
            store.remove("/gone", false).await.unwrap();
            store.expire("/**", later()).await.unwrap();
            let told = store.vacuum(&at_once()).await.unwrap();
            assert_eq!((told.total().files, told.pinned.files), (0, 3));
            let mut count = 0;
            while let Some(batch) = stream.try_next().await.unwrap() {
                count += batch.num_rows();
            }
            assert_eq!(count, 3);
            drop(stream);
            let told = store.vacuum(&at_once()).await.unwrap();
            assert_eq!((told.total().files, told.pinned.files), (3, 0));
        }
    });
}

/// A handle that plans from a state which it takes for the newest, and that a vacuum has passed by.
#[test]
fn a_reader_that_loses_a_file_is_told_so() {
    runtime().block_on(async {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = with_waste(&memory).await;
        append(&store, "/gone", 1).await.unwrap();
        let stale =
            builder(&memory).with_max_staleness(Duration::from_secs(3600)).open().await.unwrap();
        assert_eq!(stale.describe("/gone").await.unwrap().version.number(), 1);
        store.remove("/gone", false).await.unwrap();
        store.expire("/**", later()).await.unwrap();
        assert_eq!(store.vacuum(&at_once()).await.unwrap().expired.files, 4);
        let found = stale.root().read_series_all("/gone").await;
        let error = match found {
            Ok(stream) => stream.try_collect::<Vec<_>>().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}");
    });
}

async fn copy(of: &Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let to: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let listed = of.list(None).try_collect::<Vec<_>>().await.unwrap();
    for meta in listed {
        let bytes = of.get(&meta.location).await.unwrap().bytes().await.unwrap();
        to.put(&meta.location, bytes.into()).await.unwrap();
    }
    to
}

/// Names, expires and vacuums, each of which may fail once; then all of it again. Whether there was such
/// a request.
async fn with_fault(original: &Arc<dyn ObjectStore>, fault: Fault) -> Fallible<bool> {
    let bare = copy(original).await;
    let failing = FaultStore::new(Arc::clone(&bare));
    let shared: Arc<dyn ObjectStore> = Arc::new(failing.clone());
    let store = builder(&shared).open().await.at("open")?;
    failing.inject(fault);
    let mut kinds = Vec::new();
    let named = store.create_snapshot("again").await;
    kinds.extend(named.err().map(|error| error.kind()));
    let expired = store.expire("/**", later()).await;
    kinds.extend(expired.err().map(|error| error.kind()));
    let vacuumed = store.vacuum(&at_once()).await;
    kinds.extend(vacuumed.err().map(|error| error.kind()));
    let injected = failing.injected() > 0;
    failing.heal();
    same("a fault called a bug", &false, &kinds.contains(&ErrorKind::Internal))?;
    // What is still in flight arrives.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let fresh = builder(&bare).open().await.at("open again")?;
    let named = fresh.snapshots().await.at("snapshots")?;
    if !named.iter().any(|made| made.name == "again") {
        fresh.create_snapshot("again").await.at("naming again")?;
    }
    fresh.expire("/**", later()).await.at("expiring again")?;
    fresh.vacuum(&at_once()).await.at("a vacuum again")?;
    for store in [&store, &fresh] {
        let kept = read(store, "/kept", AsOf::Head).await;
        same("rows at head", &Ok(4), &kept.map(|rows| rows.len()))?;
        for name in ["before", "again"] {
            let kept = read(store, "/kept", AsOf::Snapshot(name.to_owned())).await;
            same(format!("rows as of {name}"), &Ok(4), &kept.map(|rows| rows.len()))?;
        }
        let old = read(store, "/kept", AsOf::Version(Version::FIRST)).await;
        same("the first version", &Some(ErrorKind::NotFound), &old.err())?;
    }
    same("files left", &4, &data_files(&bare).await.len())?;
    let report = builder(&bare).fsck(true).await.at("fsck")?;
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    same("damage", &Vec::new(), &damage)?;
    Ok(injected)
}

#[test]
fn whichever_request_of_a_vacuum_fails_nothing_that_is_needed_is_deleted() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let original: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        with_waste(&original).await.create_snapshot("before").await.unwrap();
        let cases = fail_each_request(async |fault| with_fault(&original, fault).await).await;
        assert!(cases > 60, "{cases} cases");
    });
}

/// Vacuums that heed no age run beside writers whose puts and commits take their time: files are deleted
/// under the writers, and nothing that is acknowledged is lost.
#[test]
fn vacuums_race_writers_readers_and_each_other_and_nothing_is_lost() {
    const ROUNDS: u8 = 24;
    runtime().block_on(async {
        let slow = FaultStore::new(Arc::new(InMemory::new()));
        let shared: Arc<dyn ObjectStore> = Arc::new(slow.clone());
        builder(&shared).create().await.unwrap();
        slow.set_latency(5, Duration::ZERO, Duration::from_millis(4));
        let writer = |path: &'static str| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let store = builder(&shared).open().await.at("open")?;
                for slot in 0..ROUNDS {
                    append(&store, path, slot).await?;
                    if slot % 8 == 7 {
                        let scratch = format!("/scratch{path}");
                        append(&store, &scratch, slot).await?;
                        store.remove(&scratch, false).await.at("remove")?;
                    }
                }
                Fallible::Ok(())
            })
        };
        let writers = [writer("/a"), writer("/b")];
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let vacuum = |expire: bool| {
            let (shared, done) = (Arc::clone(&shared), Arc::clone(&done));
            tokio::spawn(async move {
                let store = builder(&shared).open().await.at("open")?;
                let mut deleted = 0;
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    if expire {
                        // Nothing may be there yet.
                        drop(store.expire("/**", later()).await);
                    }
                    drop(store.compact("/**").await);
                    deleted += store.vacuum(&at_once()).await.at("vacuum")?.total().files;
                }
                Fallible::Ok(deleted)
            })
        };
        let vacuums = [vacuum(false), vacuum(true)];
        for written in futures::future::join_all(writers).await {
            written.unwrap().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        let mut deleted = 0;
        for one in futures::future::join_all(vacuums).await {
            deleted += one.unwrap().unwrap();
        }
        assert!(deleted > 0);
        let fresh = builder(&shared).open().await.unwrap();
        for path in ["/a", "/b"] {
            let found = read(&fresh, path, AsOf::Head).await.unwrap();
            assert_eq!(found.len(), usize::from(ROUNDS), "{path}");
        }
        let report = builder(&shared).fsck(true).await.unwrap();
        assert!(report.is_intact(), "{:?}", report.damage);
    });
}

/// Flushes write their files anew when a vacuum that heeds no age has deleted them before their commit.
#[test]
fn a_vacuum_races_flushes_of_one_writer_alone_and_nothing_is_lost() {
    const ROUNDS: u8 = 120;
    runtime().block_on(async {
        let slow = FaultStore::new(Arc::new(InMemory::new()));
        let shared: Arc<dyn ObjectStore> = Arc::new(slow.clone());
        builder(&shared).create().await.unwrap();
        slow.set_latency(3, Duration::ZERO, Duration::from_millis(4));
        let wal = tempfile::tempdir().unwrap();
        let alone = builder(&shared).with_mode(Mode::Exclusive).with_wal_directory(wal.path());
        let alone = alone.with_hot_max(5, 1 << 20).open().await.unwrap();
        append(&alone, "/s", 0).await.unwrap();
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (seen, shared_too) = (Arc::clone(&done), Arc::clone(&shared));
        let vacuum = tokio::spawn(async move {
            let store = builder(&shared_too).open().await.at("open")?;
            while !seen.load(std::sync::atomic::Ordering::SeqCst) {
                store.vacuum(&at_once()).await.at("vacuum")?;
            }
            Fallible::Ok(())
        });
        for slot in 1..ROUNDS {
            append(&alone, "/s", slot).await.unwrap();
        }
        alone.close().await.unwrap();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        vacuum.await.unwrap().unwrap();
        let fresh = builder(&shared).open().await.unwrap();
        assert_eq!(read(&fresh, "/s", AsOf::Head).await.unwrap().len(), usize::from(ROUNDS));
        let report = builder(&shared).fsck(true).await.unwrap();
        assert!(report.is_intact(), "{:?}", report.damage);
    });
}

const READER: &str = "TIDELOG_HISTORY_READER";

/// The process that reads. It does nothing unless a parent asked for it.
#[test]
#[ignore = "the process that another test of this module starts"]
fn reader() {
    let Ok(place) = std::env::var(READER) else { return };
    runtime().block_on(async {
        let store = Store::builder(place).with_mode(Mode::Shared).open().await.unwrap();
        let _stream = store.root().read_series_all("/gone").await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nreading").unwrap();
        out.flush().unwrap();
        drop(out);
        std::future::pending::<()>().await;
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_in_another_process_keeps_what_it_reads_until_it_dies() {
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("store").to_str().unwrap().to_owned();
        let store = Store::builder(&place).with_mode(Mode::Shared).create().await.unwrap();
        append(&store, "/gone", 1).await.unwrap();
        append(&store, "/gone", 2).await.unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["history::reader", "--exact", "--ignored", "--nocapture"])
            .env(READER, &place)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        while said.next_line().await.unwrap().expect("the reader has ended") != "reading" {}
        store.remove("/gone", false).await.unwrap();
        store.expire("/**", later()).await.unwrap();
        let told = store.vacuum(&at_once()).await.unwrap();
        assert_eq!((told.total().files, told.pinned.files), (0, 2));
        child.kill().await.unwrap();
        let told = store.vacuum(&at_once()).await.unwrap();
        assert_eq!((told.total().files, told.pinned.files), (2, 0));
    });
}
