//! A store beside its model, and property runs that can be repeated.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestError, TestRunner};
use tempfile::TempDir;
use tidelog::arrow::array::RecordBatch;
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::{
    AppendReceipt, AsOf, Clock, Codec, DeleteOptions, Env, ErrorKind, FileOrder, LayoutChange,
    Mode, Partition, RevisionReceipt, SeriesAppend, SeriesExt, SeriesOptions, SeriesStream,
    SqlStream, Store, StoreBuilder, TimeRange, TransactionId, Version, WriteTime,
};
use tidelog_testkit::generate::{Batch, Condition, Lay, Op, RawRow, SeriesSpec, Step, TimeKind};
use tidelog_testkit::model::VersionedRow;
use tidelog_testkit::{
    Fault, FaultError, Model, ModelAsOf, ModelError, Row, Shape, SimClock, rows_of,
};
use tokio::runtime::Runtime;

/// Files of a few thousand rows are large to the stores of these tests.
const COMPACTION_TARGET: u64 = 8_000;

/// What a check says: nothing, or what was wrong.
pub(crate) type Fallible<T = ()> = Result<T, String>;

/// The paths of generated histories. The first is a directory of others, and sometimes a series.
pub(crate) const PATHS: [&str; 6] =
    ["/a", "/a/one.series", "/a/two.series", "/b/c/three.series", "/four", "/a/moved.series"];

/// Runs a property over cases from a fixed seed. `TIDELOG_TEST_SEED` and `TIDELOG_TEST_CASES`
/// choose others; a failure prints both and the least input found that fails.
pub(crate) fn property<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Fallible) {
    let of_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = of_env("TIDELOG_TEST_SEED").unwrap_or(0x71DE_1065);
    let cases =
        of_env("TIDELOG_TEST_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(cases);
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 600,
        max_shrink_time: 30_000,
        ..ProptestConfig::default()
    };
    let outcome =
        TestRunner::new(config).run(&strategy, |case| test(case).map_err(TestCaseError::fail));
    let how = format!("TIDELOG_TEST_SEED={seed} TIDELOG_TEST_CASES={cases}");
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{how}\n{reason}\nleast input: {input:?}"),
        Err(TestError::Abort(reason)) => panic!("{how}\n{reason}"),
    }
}

/// A runtime of its own for each test.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Fails with both sides and where it happened.
pub(crate) fn same<T: PartialEq + Debug>(what: impl Display, expected: &T, found: &T) -> Fallible {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}\nexpected: {expected:?}\n   found: {found:?}"))
}

/// Adds where it happened.
pub(crate) trait Context<T> {
    fn at(self, what: impl Display) -> Fallible<T>;
}

impl<T, E: Debug + Display> Context<T> for Result<T, E> {
    fn at(self, what: impl Display) -> Fallible<T> {
        self.map_err(|error| format!("{what}: {error} ({error:?})"))
    }
}

/// All rows of a read.
pub(crate) async fn rows(stream: Result<SeriesStream, tidelog::Error>) -> Fallible<Vec<Row>> {
    let batches: Vec<RecordBatch> =
        stream.at("planning the read")?.try_collect().await.at("reading")?;
    all_rows(&batches)
}

/// All rows of a statement.
pub(crate) async fn sql(store: &Store, statement: &str) -> Fallible<Vec<Row>> {
    let stream: SqlStream = store.sql(statement).await.at(statement)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.at(statement)?;
    all_rows(&batches)
}

fn all_rows(batches: &[RecordBatch]) -> Fallible<Vec<Row>> {
    let mut all = Vec::new();
    for batch in batches {
        all.extend(rows_of(batch).at("turning a batch into rows")?);
    }
    Ok(all)
}

/// The rows in an order of their own.
pub(crate) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

/// The options of a series of `spec`.
pub(crate) fn options_of(spec: &SeriesSpec) -> SeriesOptions {
    let options = SeriesOptions::default()
        .with_time_column("ts")
        .with_key_columns(spec.key_columns().iter().copied())
        .with_dedup(spec.dedup);
    match spec.time {
        TimeKind::Int64(unit) => options.with_time_unit(unit),
        _ => options,
    }
}

/// The change of a layout as the store takes it.
pub(crate) fn change_of(lay: &Lay) -> LayoutChange {
    const PARTITIONS: [Partition; 5] =
        [Partition::None, Partition::Day, Partition::Week, Partition::Month, Partition::Year];
    const CODECS: [Codec; 4] = [Codec::Auto, Codec::Zstd(1), Codec::Lz4, Codec::None];
    let mut change = LayoutChange::default();
    change.order =
        lay.by_key.map(|by_key| if by_key { FileOrder::KeyTime } else { FileOrder::Time });
    change.partition = lay.partition.map(|choice| PARTITIONS[usize::from(choice) % 5]);
    change.codec = lay.codec.map(|choice| CODECS[usize::from(choice) % 4]);
    change.row_group_rows = lay.row_group;
    change
}

/// An append of `raw` to `path`, which may have to make the series.
pub(crate) fn append_of(spec: &SeriesSpec, path: &str, raw: &[RawRow]) -> SeriesAppend {
    let append = SeriesAppend::new(path, spec.batch(raw).unwrap());
    match spec.time {
        TimeKind::Int64(unit) => append.with_time_unit(unit),
        _ => append,
    }
}

/// Where a store lies.
pub(crate) enum Place {
    Memory(Arc<dyn ObjectStore>),
    Directory(TempDir),
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self::Memory(Arc::new(InMemory::new()))
    }

    pub(crate) fn directory() -> Self {
        Self::Directory(tempfile::tempdir().unwrap())
    }

    /// How to open a store here, for more than one handle; `env` and `partitions` as the builder
    /// takes them.
    pub(crate) fn builder(&self, env: &Env, partitions: usize) -> StoreBuilder {
        match self {
            Self::Memory(store) => Store::builder("memory://").with_object_store(Arc::clone(store)),
            Self::Directory(directory) => Store::builder(directory.path().to_str().unwrap()),
        }
        .with_mode(Mode::Shared)
        .with_compaction_target(COMPACTION_TARGET)
        .with_env(env.clone())
        .with_partitions(partitions)
    }
}

/// A store with two handles, and the model of what it should hold.
pub(crate) struct Pair {
    place: Place,
    env: Env,
    partitions: usize,
    /// Whether the first handle writes alone, and the second is the same.
    alone: bool,
    clock: Arc<SimClock>,
    handles: [Store; 2],
    specs: Vec<SeriesSpec>,
    pub(crate) model: Model,
    last_write: i64,
    /// The last append that was acked, to be repeated.
    last: Option<(SeriesAppend, AppendReceipt)>,
    transactions: u128,
}

impl Pair {
    pub(crate) async fn create(place: Place, specs: Vec<SeriesSpec>, seed: u64) -> Fallible<Self> {
        let clock = Arc::new(SimClock::at(1_600_000_000_000_000));
        let env = tidelog_testkit::env::env(&clock, seed);
        let partitions = usize::try_from(seed % 4).unwrap() + 1;
        let first = place.builder(&env, partitions).create().await.at("creating the store")?;
        let second = place.builder(&env, partitions).open().await.at("opening the store")?;
        Ok(Self {
            place,
            env,
            partitions,
            alone: false,
            clock,
            handles: [first, second],
            specs,
            model: Model::new(),
            last_write: i64::MIN,
            last: None,
            transactions: 0,
        })
    }

    /// A store that one handle writes alone, with generations of a few rows.
    pub(crate) async fn create_alone(
        place: Place,
        specs: Vec<SeriesSpec>,
        seed: u64,
    ) -> Fallible<Self> {
        let mut pair = Self::create(place, specs, seed).await?;
        pair.alone = true;
        pair.reopen_alone().await?;
        Ok(pair)
    }

    /// Drops the handle as a crash would, or but for what a crash leaves in memory, and opens the
    /// store anew.
    async fn reopen_alone(&mut self) -> Fallible {
        let idle = self.fresh().await?;
        self.handles = [idle.clone(), idle];
        let rows_max = self.clock.now().micros().unsigned_abs() % 24 + 1;
        let builder = self.place.builder(&self.env, self.partitions).with_mode(Mode::Exclusive);
        let builder = builder.with_hot_max(rows_max, 1 << 20);
        let store = builder.open().await.at("opening the store alone")?;
        self.handles = [store.clone(), store];
        Ok(())
    }

    /// Drops the handles: what is read afterwards is what a crash would leave.
    pub(crate) async fn abandon(&mut self) -> Fallible {
        let other = self.fresh().await?;
        self.handles = [other.clone(), other];
        Ok(())
    }

    /// A handle that was open all the time.
    pub(crate) fn handle(&self, second: bool) -> &Store {
        &self.handles[usize::from(second)]
    }

    /// A handle that knows only what the object store holds.
    pub(crate) async fn fresh(&self) -> Fallible<Store> {
        self.place.builder(&self.env, self.partitions).open().await.at("opening the store again")
    }

    /// Makes one call to the store and to the model and compares the answers.
    pub(crate) async fn step(&mut self, step: &Step) -> Fallible {
        let store = self.handle(step.second).clone();
        let done = match &step.op {
            Op::Create(path, spec) => self.create_series(&store, path_of(*path), *spec).await,
            Op::Append(batch) => self.append(&store, batch).await,
            Op::AppendMany(batches) => self.append_many(&store, batches).await,
            Op::AppendAtomic(batches) => self.append_atomic(&store, batches).await,
            Op::Repeat => self.repeat(&store).await,
            Op::Rename(from, to) => {
                let (from, to) = (path_of(*from), path_of(*to));
                let found = store.rename(from, to).await;
                let expected = self.model.rename(from, to);
                agree(&expected, &found).map(|_| ())
            }
            Op::Remove(path, recursive) => {
                let path = path_of(*path);
                let found = store.remove(path, *recursive).await;
                let expected = self.model.remove(path, *recursive);
                agree(&expected, &found).map(|_| ())
            }
            Op::Delete(path, slots, condition) => {
                self.delete(&store, path_of(*path), *slots, condition.as_ref()).await
            }
            Op::Replace(path, slots, rows) => {
                self.replace(&store, path_of(*path), *slots, rows).await
            }
            Op::Restore(path, to) => self.restore(&store, path_of(*path), to).await,
            Op::Compact => match store.compact("/**").await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                compacted => compacted.map(drop).at("compacting"),
            },
            Op::Lay(path, lay) => self.lay(&store, path_of(*path), lay).await,
            Op::Reopen if self.alone => self.reopen_alone().await,
            Op::Reopen => {
                self.handles[usize::from(step.second)] = self.fresh().await?;
                Ok(())
            }
            Op::Clock(micros) => {
                self.clock.advance(*micros);
                if self.alone { store.flush().await.at("flushing") } else { Ok(()) }
            }
        };
        done.map_err(|error| format!("{}: {error}", name_of(step)))?;
        self.other_handle_sees(step).await.map_err(|error| format!("{}: {error}", name_of(step)))
    }

    /// Changes a layout; no answer may change by that.
    async fn lay(&self, store: &Store, path: &str, lay: &Lay) -> Fallible {
        let change = change_of(lay);
        let found = store.root().set_series_layout(path, change).await;
        let expected = match self.model.shape(path) {
            None => None,
            Some(shape) if shape.keys.is_empty() && change.order == Some(FileOrder::KeyTime) => {
                Some(ErrorKind::InvalidInput)
            }
            Some(_) => return found.at("laying"),
        };
        match (expected, found.map_err(|error| error.kind())) {
            (Some(expected), Err(found)) => same("laying", &expected, &found),
            // Nothing is there, or a directory.
            (None, Err(ErrorKind::NotFound | ErrorKind::InvalidInput)) => Ok(()),
            (_, found) => Err(format!("laying {path}: {found:?}")),
        }
    }

    /// The handle that did not make the call sees what it did.
    async fn other_handle_sees(&self, step: &Step) -> Fallible {
        let (Op::Append(Batch { path, .. })
        | Op::Create(path, _)
        | Op::Rename(_, path)
        | Op::Delete(path, ..)
        | Op::Replace(path, ..)
        | Op::Restore(path, _)) = &step.op
        else {
            return Ok(());
        };
        let path = path_of(*path);
        if self.model.versions(path).is_empty() {
            return Ok(());
        }
        let expected = self.model.versions(path).len() as i64;
        let found = self.handle(!step.second).describe(path).await.at("describing")?;
        same("the other handle's newest version", &expected, &found.version.number())
    }

    async fn create_series(&mut self, store: &Store, path: &str, spec: u8) -> Fallible {
        let (tag, spec) = self.choose(spec);
        let mut shape = spec.shape();
        shape.tag = tag;
        let expected = self.model.create(path, shape);
        let found = store.root().create_series(path, options_of(&spec)).await;
        agree(&expected, &found).map(|_| ())
    }

    /// Makes a series of the kind with this index.
    pub(crate) async fn create_series_at(&mut self, path: &str, tag: usize) -> Fallible {
        let store = self.handle(false).clone();
        self.create_series(&store, path, u8::try_from(tag).unwrap()).await
    }

    /// Appends versions to series that exist, in one call.
    pub(crate) async fn append_all(&mut self, calls: Vec<(String, usize, &[RawRow])>) -> Fallible {
        let appends = calls.iter().map(|(path, tag, raw)| append_of(&self.specs[*tag], path, raw));
        let results = self.handle(false).root().append_many(appends.collect()).await;
        let results = results.at("append_many")?;
        self.settle_all(&calls, &results)
    }

    /// The store with the appends of each call in memory, as one piece, and not in files.
    pub(crate) async fn append_hot(
        &mut self,
        calls: Vec<Vec<(String, usize, &[RawRow])>>,
    ) -> Fallible<Store> {
        let mut pieces = Vec::new();
        for call in calls {
            let mut appends = Vec::new();
            for (path, tag, raw) in call.iter().filter(|(_, _, raw)| !raw.is_empty()) {
                let (spec, time) = (self.specs[*tag], self.last_write + 1);
                let shape = Shape { tag: *tag, ..spec.shape() };
                self.model.append(path, &shape, &spec.rows(raw), time).at("model")?;
                self.last_write = time;
                let batch = spec.batch(raw).at("making a batch")?;
                appends.push((batch, WriteTime::from_micros(time)));
            }
            if let Some((path, ..)) = call.first().filter(|_| !appends.is_empty()) {
                pieces.push((path.clone(), appends));
            }
        }
        self.handle(false).with_hot_versions(&pieces).await.at("hot rows")
    }

    /// Settles the results of one call in the order of their write times: series of one call may
    /// commit in any order.
    fn settle_all(
        &mut self,
        calls: &[(String, usize, &[RawRow])],
        results: &[Result<AppendReceipt, tidelog::Error>],
    ) -> Fallible {
        same("results", &calls.len(), &results.len())?;
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_by_key(|i| results[*i].as_ref().ok().and_then(|receipt| receipt.write_time));
        for i in order {
            let (path, tag, raw) = &calls[i];
            self.settle(path, *tag, raw, &results[i])?;
        }
        Ok(())
    }

    fn choose(&self, spec: u8) -> (usize, SeriesSpec) {
        let tag = usize::from(spec) % self.specs.len();
        (tag, self.specs[tag])
    }

    /// The kind of series that an append to `path` meets, which is made first if its first append
    /// could not make it.
    async fn prepare(&mut self, store: &Store, path: &str, spec: u8) -> Fallible<usize> {
        if let Some(shape) = self.model.shape(path) {
            return Ok(shape.tag);
        }
        let (tag, wanted) = self.choose(spec);
        if !wanted.can_be_implicit() {
            self.create_series(store, path, spec).await?;
        }
        Ok(tag)
    }

    fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        TransactionId::from_uuid(uuid::Uuid::from_u128(self.transactions))
    }

    async fn append(&mut self, store: &Store, batch: &Batch) -> Fallible {
        let path = path_of(batch.path);
        let tag = self.prepare(store, path, batch.spec).await?;
        let append =
            append_of(&self.specs[tag], path, &batch.rows).with_transaction(self.transaction());
        let found = store.root().append_series_data_with_options(append.clone()).await;
        let receipt = self.settle(path, tag, &batch.rows, &found)?;
        if let Some(receipt) = receipt.filter(|receipt| receipt.version.is_some()) {
            self.last = Some((append, receipt));
        }
        Ok(())
    }

    /// Makes the same append in the model and compares what came of it.
    fn settle(
        &mut self,
        path: &str,
        tag: usize,
        raw: &[RawRow],
        found: &Result<AppendReceipt, tidelog::Error>,
    ) -> Fallible<Option<AppendReceipt>> {
        let spec = self.specs[tag];
        let mut shape = spec.shape();
        shape.tag = tag;
        let time = found.as_ref().ok().and_then(|receipt| receipt.write_time);
        let time = time.map_or(self.last_write, WriteTime::micros);
        let expected = self.model.append(path, &shape, &spec.rows(raw), time);
        let Some(version) = agree(&expected, found)? else { return Ok(None) };
        let Ok(receipt) = found else { return Ok(None) };
        same("version", version, &receipt.version.map(Version::number))?;
        if version.is_some() {
            let stored = self.model.versions(path).last().map_or(0, |v| v.rows.len() as u64);
            same("rows stored", &stored, &receipt.rows)?;
            if time <= self.last_write {
                return Err(format!("write time {time} does not follow {}", self.last_write));
            }
            self.last_write = time;
        }
        Ok(Some(receipt.clone()))
    }

    /// The batches whose paths do not run through one another, and the kinds of their series.
    async fn members<'a>(
        &mut self,
        store: &Store,
        batches: &'a [Batch],
    ) -> Fallible<Vec<(&'a Batch, usize)>> {
        let mut members: Vec<(&Batch, usize)> = Vec::new();
        for batch in batches {
            let path = path_of(batch.path);
            let below = |a: &str, b: &str| a.starts_with(&format!("{b}/"));
            let clashes = |(other, _): &(&Batch, usize)| {
                below(path, path_of(other.path)) || below(path_of(other.path), path)
            };
            if members.iter().any(clashes) {
                continue;
            }
            let earlier = members.iter().find(|(other, _)| path_of(other.path) == path);
            let tag = match earlier {
                Some((_, tag)) => *tag,
                None => self.prepare(store, path, batch.spec).await?,
            };
            members.push((batch, tag));
        }
        Ok(members)
    }

    fn appends(&self, members: &[(&Batch, usize)]) -> Vec<SeriesAppend> {
        let append = |(batch, tag): &(&Batch, usize)| {
            append_of(&self.specs[*tag], path_of(batch.path), &batch.rows)
        };
        members.iter().map(append).collect()
    }

    async fn append_many(&mut self, store: &Store, batches: &[Batch]) -> Fallible {
        let members = self.members(store, batches).await?;
        let results = store.root().append_many(self.appends(&members)).await.at("append_many")?;
        self.settle_all(&calls_of(&members), &results)
    }

    async fn append_atomic(&mut self, store: &Store, batches: &[Batch]) -> Fallible {
        let members = self.members(store, batches).await?;
        match store.root().append_atomic(self.appends(&members)).await {
            Ok(receipts) => {
                let results: Vec<_> = receipts.into_iter().map(Ok).collect();
                self.settle_all(&calls_of(&members), &results)
            }
            Err(error) => {
                // One member at least must be refused by the model too, and nothing is stored.
                let mut model = self.model.clone();
                let mut refused = false;
                for (path, tag, raw) in calls_of(&members) {
                    let spec = self.specs[tag];
                    refused |= model.append(&path, &spec.shape(), &spec.rows(raw), 0).is_err();
                }
                if refused { Ok(()) } else { Err(format!("refused: {error}")) }
            }
        }
    }

    /// The kind of series at `path`, and a range between two slots of it.
    fn range_at(&self, path: &str, (first, last): (u8, u8)) -> (SeriesSpec, TimeRange) {
        let spec = self.specs[self.model.shape(path).map_or(0, |shape| shape.tag)];
        let nanos = |slot: u8| spec.time_of(slot).saturating_mul(spec.unit().nanos());
        (spec, TimeRange::try_new(nanos(first), nanos(last)).unwrap())
    }

    async fn delete(
        &mut self,
        store: &Store,
        path: &str,
        slots: (u8, u8),
        condition: Option<&Condition>,
    ) -> Fallible {
        let (spec, range) = self.range_at(path, slots);
        let holds = |condition: &Condition, row: &Row| condition.holds(&spec, row) == Some(true);
        let condition = condition
            .filter(|condition| !self.model.divides_equals(path, |row| holds(condition, row)));
        let mut options = DeleteOptions::default().with_range(range);
        options.filter = condition.map(|condition| condition.sql(&spec));
        let found = store.root().delete_series_data_with_options(path, &options).await;
        let ends = |row: &Row| condition.is_none_or(|condition| holds(condition, row));
        let expected = self.model.delete(path, range, ends, self.time_of(&found));
        self.settle_revision(&expected, &found)
    }

    async fn replace(
        &mut self,
        store: &Store,
        path: &str,
        slots: (u8, u8),
        raw: &[RawRow],
    ) -> Fallible {
        let (spec, range) = self.range_at(path, slots);
        let (batch, start, end) = (spec.batch(raw).unwrap(), range.start(), range.end());
        let found = store.root().replace_series_data(path, start, end, &batch).await;
        let expected = self.model.replace(path, range, &spec.rows(raw), self.time_of(&found));
        self.settle_revision(&expected, &found)?;
        if let (Ok(receipt), Ok(Some(_))) = (&found, &expected) {
            let stored = self.model.versions(path).last().map_or(0, |v| v.rows.len() as u64);
            same("rows added", &stored, &receipt.rows_added)?;
        }
        Ok(())
    }

    async fn restore(&mut self, store: &Store, path: &str, to: &prop::sample::Index) -> Fallible {
        let count = self.model.versions(path).len();
        let to = i64::try_from(to.index(count + 2)).unwrap();
        let found = store.root().restore_series(path, &AsOf::Version(Version::new(to))).await;
        if count == 0 && self.model.shape(path).is_some() {
            let kind = found.err().map(|error| error.kind());
            return same("a series without a version", &Some(ErrorKind::InvalidInput), &kind);
        }
        if let Ok(receipt) = &found
            && receipt.version.is_none()
        {
            // Whether files have to be changed for that only the store knows.
            let rows = |as_of| self.model.read(path, as_of, TimeRange::ALL).at("model");
            let (then, now) = (rows(ModelAsOf::Version(to))?, rows(ModelAsOf::Head)?);
            let plain = |rows: Vec<VersionedRow>| rows.into_iter().map(|row| row.row).collect();
            return same("rows that are there", &sorted(plain(then)), &sorted(plain(now)));
        }
        let expected = self.model.restore(path, to, self.time_of(&found));
        self.settle_revision(&expected, &found)
    }

    fn time_of(&self, found: &Result<RevisionReceipt, tidelog::Error>) -> i64 {
        let time = found.as_ref().ok().and_then(|receipt| receipt.write_time);
        time.map_or(self.last_write, WriteTime::micros)
    }

    fn settle_revision(
        &mut self,
        expected: &Result<Option<i64>, ModelError>,
        found: &Result<RevisionReceipt, tidelog::Error>,
    ) -> Fallible {
        let Some(version) = agree(expected, found)? else { return Ok(()) };
        let Ok(receipt) = found else { return Ok(()) };
        same("version", version, &receipt.version.map(Version::number))?;
        if let Some(time) = receipt.write_time.map(WriteTime::micros) {
            same("write times grow", &true, &(time > self.last_write))?;
            self.last_write = time;
        }
        Ok(())
    }

    async fn repeat(&mut self, store: &Store) -> Fallible {
        let Some((append, receipt)) = self.last.clone() else { return Ok(()) };
        let path = receipt.path.to_string();
        let time = receipt.write_time.map(WriteTime::micros);
        let still_there =
            self.model.versions(&path).iter().any(|version| Some(version.write_time) == time);
        if !still_there {
            return Ok(());
        }
        let again = store.root().append_series_data_with_options(append).await.at("repeating")?;
        same("version of the repeated append", &receipt.version, &again.version)?;
        same("its write time", &receipt.write_time, &again.write_time)?;
        same("its rows", &receipt.rows, &again.rows)
    }
}

fn calls_of<'a>(members: &[(&'a Batch, usize)]) -> Vec<(String, usize, &'a [RawRow])> {
    let call = |(batch, tag): &(&'a Batch, usize)| {
        (path_of(batch.path).to_owned(), *tag, batch.rows.as_slice())
    };
    members.iter().map(call).collect()
}

fn path_of(index: u8) -> &'static str {
    PATHS[usize::from(index) % PATHS.len()]
}

fn name_of(step: &Step) -> String {
    let text = format!("{step:?}");
    text.chars().take(120).collect()
}

/// The kind of error by which the store says what the model says.
pub(crate) fn kind_of(error: &ModelError) -> ErrorKind {
    match error {
        ModelError::NotFound(_) => ErrorKind::NotFound,
        ModelError::Taken(_) => ErrorKind::AlreadyExists,
        _ => ErrorKind::InvalidInput,
    }
}

/// Both succeed, or both fail in the same way.
fn agree<'a, A: Debug, B: Debug>(
    expected: &'a Result<A, ModelError>,
    found: &Result<B, tidelog::Error>,
) -> Fallible<Option<&'a A>> {
    match (expected, found) {
        (Ok(expected), Ok(_)) => Ok(Some(expected)),
        (Err(expected), Err(found)) => {
            same(format!("{expected} / {found}"), &kind_of(expected), &found.kind()).map(|()| None)
        }
        _ => Err(format!("expected {expected:?}, found {found:?}")),
    }
}

/// Does something with each of its requests failing once, before and after taking effect, until there are no
/// more; `run` says whether the fault came about, or what is wrong. Returns how many did.
pub(crate) async fn fail_each_request(run: impl AsyncFn(Fault) -> Fallible<bool>) -> u64 {
    let mut cases = 0_u64;
    for error in FaultError::ALL {
        for after in [false, true] {
            // Of an error that tells nothing every request; of the others some each, in turn.
            let step = if error == FaultError::Generic { 1 } else { 5 };
            for nth in (1 + cases % step..).step_by(usize::try_from(step).unwrap()) {
                let fault = Fault::new(error).nth(nth);
                let fault = if after { fault.after() } else { fault };
                let injected = run(fault).await;
                if !injected.unwrap_or_else(|why| panic!("{error:?} {after} {nth}: {why}")) {
                    break;
                }
                cases += 1;
            }
        }
    }
    cases
}
