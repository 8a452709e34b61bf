//! Every read yields what a naive in-memory store yields.
//!
//! A generated history of calls goes to a store through two handles and to the model; then whatever
//! can be asked is asked of both: by options, by SQL, over globs, at head and as of earlier points.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use picks::Picks;
use proptest::collection::vec;
use proptest::prelude::*;
use tidelog::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use tidelog::object_store::memory::InMemory;
use tidelog::{
    AppendReceipt, AsOf, Env, ErrorKind, EventTime, ReadOptions, SeriesAppend, SeriesExt,
    SeriesOptions, Store, TimeRange, TimeUnit, TransactionId, Version, WriteTime,
};
use tidelog_testkit::generate::{
    self, Batch, Condition, Lay, RawRow, SeriesSpec, Step, TimeKind, conditions, specs,
};
use tidelog_testkit::model::VersionedRow;
use tidelog_testkit::{Cell, FaultStore, Model, ModelAsOf, Row, SimClock, rows_of};

use crate::support::{
    self, Context, Fallible, PATHS, Pair, Place, kind_of, options_of, property, rows, runtime,
    same, sorted, sql,
};

/// Choices that need no more randomness than one number.
mod picks {
    pub(crate) struct Picks(u64);

    impl Picks {
        pub(crate) fn new(seed: u64) -> Self {
            Self(seed | 1)
        }

        pub(crate) fn below(&mut self, bound: usize) -> usize {
            // A linear congruential step (D. E. Knuth's MMIX constants).
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap_or_default() % bound.max(1)
        }

        pub(crate) fn some<T: Clone>(&mut self, of: &[T], at_most: usize) -> Vec<T> {
            if of.len() <= at_most {
                return of.to_vec();
            }
            (0..at_most).map(|_| of[self.below(of.len())].clone()).collect()
        }
    }
}

type History = (Vec<SeriesSpec>, Vec<Step>, u64);

fn histories(calls: std::ops::Range<usize>) -> impl Strategy<Value = History> {
    let paths = u8::try_from(PATHS.len()).unwrap();
    (vec(specs(), 3), generate::histories(paths, 3, calls), any::<u64>())
}

async fn play(place: Place, (specs, steps, seed): &History) -> Fallible<Pair> {
    let mut pair = Pair::create(place, specs.clone(), *seed).await?;
    for (number, step) in steps.iter().enumerate() {
        pair.step(step).await.map_err(|error| format!("step {number}: {error}"))?;
    }
    Ok(pair)
}

pub(crate) fn plain(rows: &[VersionedRow]) -> Vec<Row> {
    rows.iter().map(|row| row.row.clone()).collect()
}

fn store_as_of(as_of: ModelAsOf) -> AsOf {
    match as_of {
        ModelAsOf::Head => AsOf::Head,
        ModelAsOf::Version(version) => AsOf::Version(Version::new(version)),
        ModelAsOf::Time(time) => AsOf::Time(WriteTime::from_micros(time)),
    }
}

/// Ranges with bounds at, just before and just after times that occur, and the whole of time.
fn ranges(
    picks: &mut Picks,
    rows: &[Row],
    nanos: impl Fn(&Row) -> i64,
    count: usize,
) -> Vec<TimeRange> {
    let mut bounds = vec![i64::MIN, i64::MAX];
    for row in picks.some(rows, 6) {
        let at = nanos(&row);
        bounds.extend([at.saturating_sub(1), at, at.saturating_add(1)]);
    }
    let mut ranges = vec![TimeRange::ALL];
    for _ in 0..count {
        let (a, b) = (bounds[picks.below(bounds.len())], bounds[picks.below(bounds.len())]);
        let (start, end) = (EventTime::from_nanos(a.min(b)), EventTime::from_nanos(a.max(b)));
        ranges.push(TimeRange::try_new(start, end).unwrap());
    }
    ranges
}

/// Everything that can be asked of one series.
async fn check_series(pair: &Pair, store: &Store, path: &str, picks: &mut Picks) -> Fallible {
    let count = pair.model.versions(path).len() as i64;
    if count == 0 {
        let kind = store.root().read_series_all(path).await.err().map(|error| error.kind());
        return same("reading a series without a version", &Some(ErrorKind::InvalidInput), &kind);
    }
    check_versions(pair, store, path).await?;
    check_reads(pair, store, path, picks).await
}

/// Ranges of one series that has versions, at head and as of earlier points.
pub(crate) async fn check_reads(
    pair: &Pair,
    store: &Store,
    path: &str,
    picks: &mut Picks,
) -> Fallible {
    let count = pair.model.versions(path).len() as i64;
    let shape = pair.model.shape(path).unwrap().clone();
    let all: Vec<i64> = (1..=count).collect();
    let mut points = vec![ModelAsOf::Head];
    points.extend(picks.some(&all, 3).into_iter().map(ModelAsOf::Version));
    let times = pair.model.write_times();
    points.extend(picks.some(&times, 4).into_iter().map(ModelAsOf::Time));
    for as_of in points {
        let everything = match pair.model.read(path, as_of, TimeRange::ALL) {
            Ok(everything) => everything,
            Err(expected) => {
                let options = ReadOptions::default().with_as_of(store_as_of(as_of));
                let found = store.root().read_series_with_options(path, &options).await;
                let kind = found.err().map(|error| error.kind());
                same(format!("{path} as of {as_of:?}"), &Some(kind_of(&expected)), &kind)?;
                continue;
            }
        };
        for range in ranges(picks, &plain(&everything), |row| shape.nanos_of(row), 3) {
            check_read(pair, store, path, as_of, range).await?;
        }
    }
    for version in [0, count + 1] {
        let options = ReadOptions::default().with_as_of(AsOf::Version(Version::new(version)));
        let found = store.root().read_series_with_options(path, &options).await;
        let kind = found.err().map(|error| error.kind());
        same(format!("reading v{version}"), &Some(ErrorKind::NotFound), &kind)?;
    }
    Ok(())
}

async fn check_read(
    pair: &Pair,
    store: &Store,
    path: &str,
    as_of: ModelAsOf,
    range: TimeRange,
) -> Fallible {
    let what = format!("{path} as of {as_of:?} in {range:?}");
    let expected = pair.model.read(path, as_of, range).at("model")?;
    let options = ReadOptions::default().with_as_of(store_as_of(as_of)).with_range(range);
    let stream = store.root().read_series_with_options(path, &options).await.at(&what)?;
    let (versions, covered) = pair.model.covered(path, as_of, range).at("model")?;
    same(format!("total_versions of {what}"), &versions, &stream.total_versions())?;
    let found = stream.time_range().map(|range| (range.start().nanos(), range.end().nanos()));
    same(format!("time_range of {what}"), &covered, &found)?;
    same(&what, &plain(&expected), &rows(Ok(stream)).await?)
}

/// The versions are dense and say what the appends stored.
async fn check_versions(pair: &Pair, store: &Store, path: &str) -> Fallible {
    let expected = pair.model.versions(path);
    let found = store.versions(path).await;
    let found = found.at("versions")?;
    same(format!("versions of {path}"), &expected.len(), &found.len())?;
    for (number, (expected, found)) in (1_i64..).zip(expected.iter().zip(&found)) {
        let range = found.range.map(|range| (range.start().nanos(), range.end().nanos()));
        same("number", &number, &found.version.number())?;
        same("path as it was", &expected.path, &found.path.to_string())?;
        same("operation", &expected.operation, &found.operation)?;
        if found.operation != "restore" {
            same("rows", &(expected.rows.len() as u64), &found.rows)?;
        }
        same("write time", &expected.write_time, &found.write_time.micros())?;
        same("range", &expected.range, &range)?;
    }
    Ok(())
}

/// The options of a read, alone and together.
pub(crate) async fn check_options(
    pair: &Pair,
    store: &Store,
    path: &str,
    picks: &mut Picks,
) -> Fallible {
    if pair.model.versions(path).is_empty() {
        return Ok(());
    }
    let shape = pair.model.shape(path).unwrap().clone();
    let expected = plain(&pair.model.read(path, ModelAsOf::Head, TimeRange::ALL).at("model")?);
    let root = store.root();
    let read = async |options: ReadOptions| {
        rows(root.read_series_with_options(path, &options).await).await
    };
    for limit in [0, 1, expected.len() / 2, expected.len() + 1] {
        let first: Vec<Row> = expected.iter().take(limit).cloned().collect();
        let options = ReadOptions::default().with_limit(limit).with_batch_size(3);
        same(format!("{path} limit {limit}"), &first, &read(options).await?)?;

        let newest = read(ReadOptions::default().with_descending(true).with_limit(limit)).await?;
        let times = |rows: &[Row]| rows.iter().map(|row| shape.time_of(row)).collect::<Vec<_>>();
        let mut backwards = times(&expected);
        backwards.reverse();
        backwards.truncate(limit);
        same(format!("{path} descending limit {limit}"), &backwards, &times(&newest))?;
        within(&format!("{path} descending limit {limit}"), &newest, &expected)?;
    }
    let columns: Vec<usize> = (0..1 + picks.below(4)).map(|_| picks.below(5)).collect();
    let mut columns: Vec<usize> = columns;
    columns.sort_unstable();
    columns.dedup();
    columns.reverse();
    let names = columns.iter().map(|column| generate::COLUMNS[*column]);
    let cut = |row: &Row| columns.iter().map(|column| row[*column].clone()).collect::<Row>();
    let projected: Vec<Row> = expected.iter().map(cut).collect();
    let options = ReadOptions::default().with_columns(names.clone());
    same(format!("{path} columns {columns:?}"), &projected, &read(options).await?)?;

    let by = picks.below(5);
    let options = ReadOptions::default().with_order_by(generate::COLUMNS[by], true);
    let ordered = read(options).await?;
    same(format!("{path} as a whole"), &sorted(expected), &sorted(ordered.clone()))?;
    let keys: Vec<_> = ordered.iter().map(|row| row[by].clone()).collect();
    let nulls = keys.iter().take_while(|cell| **cell == Cell::Null).count();
    if !keys[nulls..].is_sorted_by(|a, b| a >= b) {
        return Err(format!("{path} is not in descending order of column {by}: {keys:?}"));
    }
    Ok(())
}

/// All of `some` are in `all`, each at most as often.
fn within(what: &str, some: &[Row], all: &[Row]) -> Fallible {
    let mut left = all.to_vec();
    for row in some {
        match left.iter().position(|other| other == row) {
            Some(at) => drop(left.swap_remove(at)),
            None => return Err(format!("{what}: {row:?} should not be there")),
        }
    }
    Ok(())
}

/// All that there is, through a handle that has seen nothing of how it came to be.
async fn check_heads(pair: &Pair, store: &Store) -> Fallible {
    for path in pair.model.paths() {
        if !pair.model.versions(&path).is_empty() {
            check_versions(pair, store, &path).await?;
            check_read(pair, store, &path, ModelAsOf::Head, TimeRange::ALL).await?;
        }
    }
    Ok(())
}

async fn check_everything(pair: &Pair, store: &Store, picks: &mut Picks) -> Fallible {
    for path in pair.model.paths() {
        check_series(pair, store, &path, picks)
            .await
            .map_err(|error| format!("{path}: {error}"))?;
        check_options(pair, store, &path, picks).await?;
    }
    let listed = store.list("/**").await.at("listing")?;
    let series = listed.iter().filter(|entry| entry.entry == tidelog::EntryType::FileSeries);
    let series: Vec<String> = series.map(|entry| entry.path.to_string()).collect();
    same("series listed", &pair.model.paths(), &series)
}

#[test]
fn any_history_in_memory_reads_back_as_the_model_says() {
    let runtime = runtime();
    property(40, histories(1..20), |history| {
        runtime.block_on(async {
            let pair = play(Place::memory(), &history).await?;
            let mut picks = Picks::new(history.2);
            check_everything(&pair, pair.handle(false), &mut picks).await?;
            check_heads(&pair, &pair.fresh().await?).await
        })
    });
}

#[test]
fn any_history_in_a_directory_reads_back_as_the_model_says() {
    let runtime = runtime();
    property(6, histories(10..20), |history| {
        runtime.block_on(async {
            let pair = play(Place::directory(), &history).await?;
            let mut picks = Picks::new(history.2);
            check_heads(&pair, pair.handle(true)).await?;
            check_everything(&pair, &pair.fresh().await?, &mut picks).await
        })
    });
}

#[test]
fn any_history_of_one_writer_alone_reads_back_as_the_model_says() {
    let runtime = runtime();
    property(24, histories(10..28), |history| {
        runtime.block_on(async {
            let (specs, steps, seed) = &history;
            let mut pair = Pair::create_alone(Place::directory(), specs.clone(), *seed).await?;
            for (number, step) in steps.iter().enumerate() {
                pair.step(step).await.map_err(|error| format!("step {number}: {error}"))?;
            }
            let mut picks = Picks::new(*seed);
            check_heads(&pair, pair.handle(true)).await?;
            check_everything(&pair, pair.handle(false), &mut picks).await?;
            pair.abandon().await?;
            check_everything(&pair, pair.handle(false), &mut picks).await
        })
    });
}

/// Series of one kind of time at `/g/0.series`, `/g/1.series` …, with conditions to ask by.
pub(crate) type Questions = (SeriesSpec, Vec<(usize, bool)>, Vec<Batch>, Vec<Condition>, u64);

pub(crate) fn questions(
    series: std::ops::Range<usize>,
    versions: usize,
) -> impl Strategy<Value = Questions> {
    let batch =
        (0_u8..8, generate::batches()).prop_map(|(path, rows)| Batch { path, spec: 0, rows });
    let kinds = vec((0_usize..=2, any::<bool>()), series);
    (specs(), kinds, vec(batch, 2..versions), vec(conditions(), 5), any::<u64>())
}

pub(crate) fn question_path(index: usize) -> String {
    format!("/g/{index}.series")
}

/// The kinds of the series of the questions.
pub(crate) fn specs_of((base, kinds, ..): &Questions) -> Vec<SeriesSpec> {
    let spec_of =
        |(keys, dedup): &(usize, bool)| SeriesSpec { keys: *keys, dedup: *dedup, ..*base };
    kinds.iter().map(spec_of).collect()
}

/// A store with the series and versions of the questions; versions come in calls of one to three.
async fn ask(questions: &Questions) -> Fallible<(Pair, Vec<SeriesSpec>)> {
    let (.., batches, _, seed) = questions;
    let specs = specs_of(questions);
    let mut pair = Pair::create(Place::memory(), specs.clone(), *seed).await?;
    for index in 0..specs.len() {
        pair.create_series_at(&question_path(index), index).await?;
    }
    let mut picks = Picks::new(*seed);
    let mut left = batches.as_slice();
    while !left.is_empty() {
        let (now, later) = left.split_at((1 + picks.below(3)).min(left.len()));
        let calls = now.iter().map(|batch| {
            let index = usize::from(batch.path) % specs.len();
            (question_path(index), index, batch.rows.as_slice())
        });
        pair.append_all(calls.collect()).await?;
        left = later;
        if picks.below(4) == 0 {
            lay_out(&pair, specs.len(), &mut picks).await?;
        }
    }
    Ok((pair, specs))
}

/// Lays the files of all series out anew, each in some way.
async fn lay_out(pair: &Pair, series: usize, picks: &mut Picks) -> Fallible {
    let store = pair.handle(true);
    for index in 0..series {
        let path = question_path(index);
        let keys = &pair.model.shape(&path).unwrap().keys;
        let lay = Lay {
            by_key: Some(!keys.is_empty() && picks.below(3) > 0),
            partition: Some(u8::try_from(picks.below(5)).unwrap()),
            codec: Some(u8::try_from(picks.below(4)).unwrap()),
            row_group: None,
        };
        store.root().set_series_layout(&path, support::change_of(&lay)).await.at("laying")?;
    }
    store.compact("/g/*").await.map(drop).at("compacting")
}

fn passing(condition: &Condition, spec: &SeriesSpec, rows: &[VersionedRow]) -> Vec<VersionedRow> {
    rows.iter().filter(|row| condition.holds(spec, &row.row) == Some(true)).cloned().collect()
}

/// One condition on one series, asked in every way.
pub(crate) async fn check_condition(
    pair: &Pair,
    store: &Store,
    path: &str,
    spec: &SeriesSpec,
    condition: &Condition,
    picks: &mut Picks,
) -> Fallible {
    let shape = spec.shape();
    let sql_where = condition.sql(spec);
    let head = pair.model.read(path, ModelAsOf::Head, TimeRange::ALL).at("model")?;
    let passing_head = passing(condition, spec, &head);
    let expected = plain(&passing_head);

    let statement = format!("SELECT * FROM \"{path}\" WHERE {sql_where}");
    same(&statement, &sorted(expected.clone()), &sorted(sql(store, &statement).await?))?;

    let statement = format!("{statement} ORDER BY ts");
    let found = sql(store, &statement).await?;
    let times = |rows: &[Row]| rows.iter().map(|row| shape.time_of(row)).collect::<Vec<_>>();
    same(&statement, &times(&expected), &times(&found))?;
    same(&statement, &sorted(expected.clone()), &sorted(found))?;

    check_aggregates(store, path, spec, &sql_where, &expected).await?;

    let limit = 1 + picks.below(expected.len() + 2);
    let statement =
        format!("SELECT * FROM \"{path}\" WHERE {sql_where} ORDER BY ts DESC LIMIT {limit}");
    let found = sql(store, &statement).await?;
    let newest: Vec<i64> = times(&expected).into_iter().rev().take(limit).collect();
    same(&statement, &newest, &times(&found))?;
    within(&statement, &found, &expected)?;

    let statement = format!("SELECT key FROM \"{path}\" WHERE {sql_where} LIMIT {limit}");
    let found = sql(store, &statement).await?;
    same(&statement, &expected.len().min(limit), &found.len())?;
    let keys: Vec<Row> = expected.iter().map(|row| vec![row[2].clone()]).collect();
    within(&statement, &found, &keys)?;

    let versions = pair.model.versions(path).len();
    let version = 1 + picks.below(versions);
    let as_of = ModelAsOf::Version(i64::try_from(version).unwrap());
    let then = pair.model.read(path, as_of, TimeRange::ALL).at("model")?;
    let then = passing(condition, spec, &then);
    let statement = format!("SELECT * FROM series('{path}', 'v{version}') WHERE {sql_where}");
    same(&statement, &sorted(plain(&then)), &sorted(sql(store, &statement).await?))?;

    let with_version: Vec<Row> = then
        .iter()
        .map(|row| row.row.iter().cloned().chain([Cell::Int(row.version)]).collect())
        .collect();
    let statement =
        format!("SELECT * FROM series_versions('{path}', 'v{version}') WHERE {sql_where}");
    same(&statement, &sorted(with_version), &sorted(sql(store, &statement).await?))?;

    // The Rust reads promise more: the whole order.
    let rows_now = plain(&head);
    let range = ranges(picks, &rows_now, |row| shape.nanos_of(row), 1)[1];
    let inside = pair.model.read(path, as_of, range).at("model")?;
    let options = ReadOptions::default()
        .with_as_of(store_as_of(as_of))
        .with_range(range)
        .with_filter(sql_where.clone());
    let found = rows(store.root().read_series_with_options(path, &options).await).await?;
    let expected = plain(&passing(condition, spec, &inside));
    same(format!("{path} as of v{version} in {range:?} where {sql_where}"), &expected, &found)
}

pub(crate) async fn check_aggregates(
    store: &Store,
    path: &str,
    spec: &SeriesSpec,
    sql_where: &str,
    expected: &[Row],
) -> Fallible {
    let shape = spec.shape();
    let statement = format!(
        "SELECT count(*), min(ts), max(ts), count(value), sum(count), min(key) \
         FROM \"{path}\" WHERE {sql_where}"
    );
    let or_null = |value: Option<i64>| value.map_or(Cell::Null, Cell::Int);
    let times = || expected.iter().map(|row| shape.time_of(row));
    let counts: Vec<i64> = expected.iter().filter_map(|row| row[4].as_int()).collect();
    let values = expected.iter().filter(|row| row[0] != Cell::Null).count();
    let least_key = expected.iter().map(|row| &row[2]).filter(|key| **key != Cell::Null).min();
    let rows = i64::try_from(expected.len()).unwrap();
    let answer = vec![
        Cell::Int(rows),
        or_null(times().min()),
        or_null(times().max()),
        Cell::Int(i64::try_from(values).unwrap()),
        or_null((!counts.is_empty()).then(|| counts.iter().sum())),
        least_key.cloned().unwrap_or(Cell::Null),
    ];
    same(&statement, &vec![answer.clone()], &sql(store, &statement).await?)?;
    // These alone may be answered without opening a file.
    let statement = format!("SELECT count(*), min(ts), max(ts) FROM \"{path}\" WHERE {sql_where}");
    same(&statement, &vec![answer[..3].to_vec()], &sql(store, &statement).await?)?;
    let statement = format!("SELECT count(*) FROM \"{path}\" WHERE {sql_where}");
    same(&statement, &vec![answer[..1].to_vec()], &sql(store, &statement).await?)
}

#[test]
fn sql_answers_any_condition_as_the_model_does() {
    let runtime = runtime();
    property(30, questions(1..2, 8), |questions| {
        runtime.block_on(async {
            let (pair, specs) = ask(&questions).await?;
            let path = question_path(0);
            if pair.model.versions(&path).is_empty() {
                return Ok(());
            }
            let mut picks = Picks::new(questions.4);
            let all = pair.model.read(&path, ModelAsOf::Head, TimeRange::ALL).at("model")?;
            check_aggregates(pair.handle(true), &path, &specs[0], "true", &plain(&all)).await?;
            for condition in &questions.3 {
                check_condition(&pair, pair.handle(false), &path, &specs[0], condition, &mut picks)
                    .await?;
            }
            Ok(())
        })
    });
}

/// Symptom: "SanityCheckPlan … does not satisfy order requirements: [ts ASC, key ASC]" for a filtered
/// read of a keyed series through several partitions, with a range that the filter does not imply.
#[test]
fn a_filtered_read_of_a_keyed_series_is_planned_in_its_order() {
    runtime().block_on(async {
        let spec = SeriesSpec { keys: 1, ..SeriesSpec::plain() };
        let rows_of = |from: u8| -> Vec<RawRow> {
            let row =
                |slot| RawRow { key: Some(slot % 5), part: Some(1), ..one_row(slot).remove(0) };
            (from..from + 30).map(row).collect()
        };
        let store = Store::builder("memory://").with_partitions(4).create().await.unwrap();
        let root = store.root();
        root.create_series("/s", options_of(&spec)).await.unwrap();
        let appends = [0, 5, 10].map(|from| support::append_of(&spec, "/s", &rows_of(from)));
        for result in root.append_many(appends.to_vec()).await.unwrap() {
            result.unwrap();
        }
        let at = |slot| spec.typed_literal(spec.time_of(slot));
        let (a, b, c) = (at(14), at(19), at(11));
        let shape = spec.shape();
        let nanos = |slot| spec.time_of(slot) * shape.unit.nanos();
        for version in [1, 3] {
            for filter in [
                format!("ts BETWEEN {a} AND {b} OR part = 2"),
                format!("ts >= {c} OR part = 1"),
                "part = 1".to_owned(),
            ] {
                let range = TimeRange::try_new(nanos(14), nanos(30)).unwrap();
                let options = ReadOptions::default()
                    .with_as_of(AsOf::Version(Version::new(version)))
                    .with_range(range)
                    .with_filter(filter);
                let stream = root.read_series_with_options("/s", &options).await;
                let found = rows(stream).await.unwrap();
                let places: Vec<_> = found.iter().map(|row| shape.place_of(row)).collect();
                assert!(places.is_sorted() && !places.is_empty());
            }
        }
    });
}

/// The rows of all series of a glob, with their paths behind.
fn glob_rows(
    pair: &Pair,
    as_of: ModelAsOf,
    range: TimeRange,
    keep: impl Fn(&Row) -> bool,
) -> Fallible<Vec<Row>> {
    let mut all = Vec::new();
    for path in pair.model.matching(as_of, |path| path.starts_with("/g/")) {
        for row in pair.model.read(&path, as_of, range).at("model")? {
            if keep(&row.row) {
                let path = Cell::Text(path.clone());
                all.push(row.row.into_iter().chain([path]).collect());
            }
        }
    }
    Ok(all)
}

#[test]
fn a_glob_is_the_union_of_its_series() {
    let runtime = runtime();
    property(20, questions(2..4, 10), |questions| {
        runtime.block_on(async {
            let (pair, specs) = ask(&questions).await?;
            check_globs(&pair, pair.handle(true), &specs, &questions).await
        })
    });
}

/// The conditions, asked of all series together.
pub(crate) async fn check_globs(
    pair: &Pair,
    store: &Store,
    specs: &[SeriesSpec],
    questions: &Questions,
) -> Fallible {
    if pair.model.write_times().is_empty() {
        return Ok(());
    }
    // Keys and dedup differ from series to series; times and columns do not.
    let spec = specs[0];
    let shape = spec.shape();
    let times = |rows: &[Row]| rows.iter().map(|row| shape.time_of(row)).collect::<Vec<_>>();
    let mut picks = Picks::new(questions.4);
    for condition in &questions.3 {
        let holds = |row: &Row| condition.holds(&spec, row) == Some(true);
        let sql_where = condition.sql(&spec);
        let expected = glob_rows(pair, ModelAsOf::Head, TimeRange::ALL, holds)?;
        let statement =
            format!("SELECT * FROM series('/g/*.series') WHERE {sql_where} ORDER BY ts");
        let found = sql(store, &statement).await?;
        same(&statement, &sorted(expected.clone()), &sorted(found.clone()))?;
        if !times(&found).is_sorted() {
            return Err(format!("{statement}: {:?}", times(&found)));
        }
        let one = question_path(picks.below(specs.len()));
        let of_one = |row: &Row| row.last().and_then(Cell::as_text) == Some(&one);
        let count = expected.iter().filter(|row| of_one(row)).count();
        let statement =
            format!("SELECT count(*) FROM series('/g/*') WHERE _path = '{one}' AND ({sql_where})");
        let count = vec![vec![Cell::Int(i64::try_from(count).unwrap())]];
        same(&statement, &count, &sql(store, &statement).await?)?;

        let moments = pair.model.write_times();
        let moment = moments[picks.below(moments.len())];
        let as_of = ModelAsOf::Time(moment);
        let everything = glob_rows(pair, as_of, TimeRange::ALL, |_| true)?;
        let range = ranges(&mut picks, &everything, |row| shape.nanos_of(row), 1)[1];
        let expected = glob_rows(pair, as_of, range, |_| true)?;
        let options = ReadOptions::default().with_as_of(store_as_of(as_of)).with_range(range);
        let found = rows(store.root().read_series_with_options("/g/**", &options).await).await?;
        let what = format!("/g/** as of {moment} in {range:?}");
        same(&what, &sorted(expected), &sorted(found.clone()))?;
        if !times(&found).is_sorted() {
            return Err(format!("{what}: {:?}", times(&found)));
        }
    }
    Ok(())
}

#[test]
fn a_series_without_a_version_has_an_empty_list_of_versions() {
    runtime().block_on(async {
        let store = Store::create("memory://").await.unwrap();
        store.root().create_series("/s", SeriesOptions::default()).await.unwrap();
        let versions = store.versions("/s").await.unwrap();
        assert!(versions.is_empty());
        assert_eq!(store.describe("/s").await.unwrap().version.number(), 0);
    });
}

/// DataFusion brings a literal to the type of the column; where that loses digits, the comparison
/// must not change.
#[test]
fn a_literal_between_two_times_of_the_column_is_not_rounded() {
    runtime().block_on(async {
        let time = TimeKind::Timestamp { unit: TimeUnit::Second, utc: true };
        let spec = SeriesSpec { time, ..SeriesSpec::plain() };
        let rows: Vec<RawRow> = (0..4).flat_map(one_row).collect();
        let store = Store::create("memory://").await.unwrap();
        let append = support::append_of(&spec, "/s", &rows);
        store.root().append_series_data_with_options(append).await.unwrap();
        let between = (spec.time_of(1) * 1000 + 500) * 1_000_000;
        let text = EventTime::from_nanos(between).to_string();
        let literals = [
            format!(
                "arrow_cast(arrow_cast('{between}', 'Int64'), 'Timestamp(Nanosecond, Some(\"UTC\"))')"
            ),
            format!("TIMESTAMP '{text}'"),
            format!("to_timestamp('{text}')"),
            format!("'{text}'"),
        ];
        let mut wrong = Vec::new();
        for literal in literals {
            for (compare, expected) in [("<", 2), ("<=", 2), (">", 2), (">=", 2), ("=", 0), ("<>", 4)]
            {
                let statement =
                    format!("SELECT count(*) FROM \"/s\" WHERE ts {compare} {literal}");
                let found = sql(&store, &statement).await.unwrap();
                if found != [[Cell::Int(expected)]] {
                    wrong.push(format!("{statement}: {found:?}, not {expected}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

fn one_row(slot: u8) -> Vec<RawRow> {
    vec![RawRow { slot, key: None, part: None, value: Some(f64::from(slot)), count: Some(1) }]
}

fn append(path: &str, slot: u8) -> SeriesAppend {
    support::append_of(&SeriesSpec::plain(), path, &one_row(slot))
}

fn transaction(number: u128) -> TransactionId {
    TransactionId::from_uuid(uuid::Uuid::from_u128(number))
}

async fn two_handles(place: &Place) -> (Store, Store) {
    let first = place.builder(&Env::default(), 2).create().await.unwrap();
    let second = place.builder(&Env::default(), 2).open().await.unwrap();
    (first, second)
}

async fn head_of(store: &Store, path: &str) -> i64 {
    store.describe(path).await.unwrap().version.number()
}

#[test]
fn an_append_repeated_with_its_transaction_id_is_stored_once() {
    runtime().block_on(async {
        let (first, second) = two_handles(&Place::memory()).await;
        let mine = append("/s", 1).with_transaction(transaction(1));
        let receipt = first.root().append_series_data_with_options(mine.clone()).await.unwrap();
        first.root().append_series_data_with_options(append("/s", 2)).await.unwrap();
        for store in [&first, &second] {
            let again = store.root().append_series_data_with_options(mine.clone()).await.unwrap();
            assert_eq!((again.version, again.write_time), (receipt.version, receipt.write_time));
            let again = store.root().append_many(vec![mine.clone()]).await.unwrap();
            assert_eq!(again[0].as_ref().unwrap().version, receipt.version);
            let again = store.root().append_atomic(vec![mine.clone()]).await.unwrap();
            assert_eq!(again[0].version, receipt.version);
        }
        assert_eq!(head_of(&first, "/s").await, 2);
    });
}

#[test]
fn an_id_given_twice_in_one_call_is_stored_once_at_most() {
    runtime().block_on(async {
        let (store, _) = two_handles(&Place::memory()).await;
        let twice = append("/s", 1).with_transaction(transaction(1));
        let calls = vec![twice.clone(), twice];
        let error = store.root().append_atomic(calls.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(store.list("/s").await.unwrap().is_empty());

        let results = store.root().append_many(calls).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap().version, Some(Version::FIRST));
        assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(head_of(&store, "/s").await, 1);
    });
}

#[test]
fn one_id_through_many_tasks_and_handles_is_stored_once() {
    runtime().block_on(async {
        for round in 0..10 {
            let (first, second) = two_handles(&Place::memory()).await;
            let mine = append("/s", 1).with_transaction(transaction(round));
            let calls = (0..6).map(|i| {
                let root = if i % 2 == 0 { first.root() } else { second.root() };
                let mine = mine.clone();
                tokio::spawn(async move { root.append_series_data_with_options(mine).await })
            });
            for call in futures::future::join_all(calls).await {
                let receipt = call.unwrap().unwrap();
                assert_eq!(receipt.version, Some(Version::FIRST));
            }
            assert_eq!(head_of(&first, "/s").await, 1);
        }
    });
}

#[test]
fn write_times_increase_though_clocks_jump_back_and_differ() {
    runtime().block_on(async {
        let place = Place::memory();
        let clocks = [Arc::new(SimClock::at(2_000_000)), Arc::new(SimClock::at(1_000_000))];
        let env = |clock| tidelog_testkit::env::env(clock, 1);
        let mut handles = vec![place.builder(&env(&clocks[0]), 2).create().await.unwrap()];
        let other = Env { randomness: Env::default().randomness, ..env(&clocks[1]) };
        handles.push(place.builder(&other, 2).open().await.unwrap());
        let mut last = WriteTime::MIN;
        for round in 0..12_u8 {
            let root = handles[usize::from(round % 2)].root();
            let appends = vec![append("/s", round), append("/t", round), append("/s", round)];
            let receipts = root.append_atomic(appends).await.unwrap();
            let mut times: Vec<_> = receipts.iter().map(|r| r.write_time.unwrap()).collect();
            times.sort_unstable();
            for time in times {
                assert!(time > last, "{time} after {last}");
                last = time;
            }
            clocks[usize::from(round % 2)].advance(if round % 3 == 0 {
                5_000_000
            } else {
                -4_000_000
            });
        }
    });
}

/// Tasks append through two handles over a slow store; readers look on.
#[test]
fn concurrent_appends_through_two_handles_are_each_stored_once() {
    runtime().block_on(async {
        let slow = FaultStore::new(Arc::new(InMemory::new()));
        let place = Place::Memory(Arc::new(slow.clone()));
        let (first, second) = two_handles(&place).await;
        slow.set_latency(1, Duration::ZERO, Duration::from_millis(4));
        let writers = (0..6_u8).map(|writer| {
            let root = if writer % 2 == 0 { first.root() } else { second.root() };
            tokio::spawn(async move {
                let mut acked = Vec::new();
                for round in 0..8_u8 {
                    let slot = writer * 8 + round;
                    let (one, two) = (append("/c/one", slot), append("/c/two", slot));
                    match round % 3 {
                        0 => {
                            let receipt = root.append_series_data_with_options(one).await.unwrap();
                            acked.push((receipt, slot));
                        }
                        1 => {
                            let both = root.append_atomic(vec![one, two]).await.unwrap();
                            acked.extend(both.into_iter().map(|receipt| (receipt, slot)));
                        }
                        _ => {
                            let both = root.append_many(vec![one.clone(), two, one]).await.unwrap();
                            acked.extend(both.into_iter().map(|receipt| (receipt.unwrap(), slot)));
                        }
                    }
                }
                acked
            })
        });
        let done = Arc::new(AtomicBool::new(false));
        let reader = tokio::spawn(look_on(second.clone(), Arc::clone(&done)));
        let acked: Vec<(AppendReceipt, u8)> = futures::future::join_all(writers)
            .await
            .into_iter()
            .flat_map(|acked| acked.unwrap())
            .collect();
        done.store(true, Ordering::SeqCst);
        reader.await.unwrap().unwrap();
        let fresh = place.builder(&Env::default(), 2).open().await.unwrap();
        for store in [&first, &second, &fresh] {
            check_acked(store, &acked).await.unwrap();
        }
    });
}

/// Atomic appends are seen whole, and nothing that was seen goes away.
async fn look_on(store: Store, done: Arc<AtomicBool>) -> Fallible {
    let mut seen = 0;
    while !done.load(Ordering::SeqCst) {
        let statement = "SELECT _path, CAST(value AS BIGINT) FROM series('/c/*')";
        let found = match store.sql(statement).await {
            Ok(_) => sql(&store, statement).await?,
            // Nothing is there yet.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.to_string()),
        };
        if found.len() < seen {
            return Err(format!("{} rows after {seen}", found.len()));
        }
        seen = found.len();
        let slots = |path: &str| {
            let of = found.iter().filter(|row| row[0].as_text() == Some(path));
            let atomic = |slot: &i64| slot % 8 % 3 == 1;
            let mut slots: Vec<i64> = of.filter_map(|row| row[1].as_int()).filter(atomic).collect();
            slots.sort_unstable();
            slots
        };
        same("halves of atomic appends", &slots("/c/one"), &slots("/c/two"))?;
    }
    Ok(())
}

/// Versions are dense, and each ack's version holds its row.
async fn check_acked(store: &Store, acked: &[(AppendReceipt, u8)]) -> Fallible {
    for path in ["/c/one", "/c/two"] {
        let mut expected: Vec<(i64, i64)> = acked
            .iter()
            .filter(|(receipt, _)| receipt.path.as_str() == path)
            .map(|(receipt, slot)| (receipt.version.unwrap().number(), i64::from(*slot)))
            .collect();
        expected.sort_unstable();
        let versions: Vec<i64> = expected.iter().map(|(version, _)| *version).collect();
        let dense: Vec<i64> = (1..=i64::try_from(expected.len()).unwrap()).collect();
        same(format!("versions of {path}"), &dense, &versions)?;
        let statement = format!(
            "SELECT __version, CAST(value AS BIGINT) FROM series_versions('{path}') ORDER BY __version"
        );
        let found = sql(store, &statement).await?;
        let found: Vec<(i64, i64)> =
            found.iter().map(|row| (row[0].as_int().unwrap(), row[1].as_int().unwrap())).collect();
        same(path, &expected, &found)?;
    }
    Ok(())
}

/// A handle that first asks for a series while it learns of another's commits must not lose one.
#[test]
fn a_series_first_loaded_while_others_commit_misses_no_version() {
    runtime().block_on(async {
        let place = Place::memory();
        let (writer, _) = two_handles(&place).await;
        let mut head = 0;
        for round in 0..40 {
            let handle = place.builder(&Env::default(), 1).open().await.unwrap();
            if round == 0 {
                writer.root().append_series_data_with_options(append("/s", 0)).await.unwrap();
                head += 1;
            }
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let handle = handle.clone();
                    tokio::spawn(async move {
                        for _ in 0..6 {
                            handle.describe("/s").await.unwrap();
                        }
                    })
                })
                .collect();
            for slot in 0..3 {
                writer.root().append_series_data_with_options(append("/s", slot)).await.unwrap();
                head += 1;
            }
            for reader in readers {
                reader.await.unwrap();
            }
            assert_eq!(head_of(&handle, "/s").await, head, "round {round}");
        }
    });
}

/// Files of several row groups and many pages: pruning inside a file must not lose a row either.
#[test]
fn large_files_answer_ranges_and_conditions_as_the_model_does() {
    large_appends_answer_as_the_model_does(3);
}

/// Pieces in memory of many batches, which are cut into parts for several cores.
#[test]
fn large_hot_pieces_answer_ranges_and_conditions_as_the_model_does() {
    large_appends_answer_as_the_model_does(1);
}

/// The first `cold` appends lie in files, the others in memory.
fn large_appends_answer_as_the_model_does(cold: usize) {
    const ROWS: i64 = 150_000;
    let spec = SeriesSpec { keys: 1, dedup: true, ..SeriesSpec::plain() };
    let batch = |shift: i64, step: i64| {
        let times: Vec<i64> = (0..ROWS).map(|i| 1_700_000_000_000 + shift + i * step).collect();
        let keys = (0..ROWS).map(|i| (i % 7 != 0).then(|| format!("k{}", i % 5)));
        let columns: [(&str, ArrayRef); 5] = [
            (
                "value",
                Arc::new((0..ROWS).map(|i| Some((i % 1000) as f64)).collect::<Float64Array>()),
            ),
            ("ts", Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC"))),
            ("key", Arc::new(keys.collect::<StringArray>())),
            ("part", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| i / 10_000)))),
            ("count", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| i + shift)))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, c)| (name, c, true))).unwrap()
    };
    runtime().block_on(async {
        let store = Store::builder("memory://").with_partitions(4).create().await.unwrap();
        store.root().create_series("/s", options_of(&spec)).await.unwrap();
        let mut model = Model::new();
        let mut pieces = Vec::new();
        let mut time = WriteTime::MIN;
        for (number, (shift, step)) in [(0, 2), (100_001, 2), (60_000, 4)].into_iter().enumerate() {
            let batch = batch(shift, step);
            if number < cold {
                let receipt = store.root().append_series_data("/s", &batch, None).await.unwrap();
                time = receipt.write_time.unwrap();
            } else {
                time = WriteTime::from_micros(time.micros() + 1);
                pieces.push(("/s".to_owned(), vec![(batch.clone(), time)]));
            }
            let rows = rows_of(&batch).unwrap();
            // Every row of an append has a time of its own.
            model.append_unique("/s", &spec.shape(), &rows, time.micros()).unwrap();
        }
        let store = store.with_hot_versions(&pieces).await.unwrap();
        let root = store.root();
        let all = plain(&model.read("/s", ModelAsOf::Head, TimeRange::ALL).unwrap());
        for sql_where in [
            "part = 3",
            "count > 200000 AND key = 'k2'",
            "ts >= arrow_cast(arrow_cast('1700000150000', 'Int64'), 'Timestamp(Millisecond, Some(\"UTC\"))') AND part = 7",
            "key IS NULL AND value < 10",
        ] {
            let holds = |row: &Row| match sql_where {
                "part = 3" => row[3] == Cell::Int(3),
                "key IS NULL AND value < 10" => {
                    row[2] == Cell::Null && row[0].as_float().unwrap() < 10.0
                }
                text if text.starts_with("count") => {
                    row[4] > Cell::Int(200_000) && row[2].as_text() == Some("k2")
                }
                _ => row[1] >= Cell::Int(1_700_000_150_000) && row[3] == Cell::Int(7),
            };
            let expected: Vec<Row> = all.iter().filter(|row| holds(row)).cloned().collect();
            let statement = format!("SELECT * FROM \"/s\" WHERE {sql_where}");
            let found = sorted(sql(&store, &statement).await.unwrap());
            assert!(!expected.is_empty(), "{statement}");
            assert_eq!(expected.len(), found.len(), "{statement}");
            assert!(sorted(expected) == found, "{statement}");
        }
        let then = plain(&model.read("/s", ModelAsOf::Version(2), TimeRange::ALL).unwrap());
        let nanos = |millis: i64| (1_700_000_000_000 + millis) * 1_000_000;
        for (start, end) in [(99_990, 100_020), (0, 0), (1, 1), (299_998, 300_004), (59_999, 400_000)] {
            let range = TimeRange::try_new(nanos(start), nanos(end)).unwrap();
            let inside = |row: &&Row| {
                (nanos(start)..=nanos(end)).contains(&spec.shape().nanos_of(row))
            };
            let expected: Vec<Row> = then.iter().filter(inside).cloned().collect();
            let options = ReadOptions::default()
                .with_as_of(AsOf::Version(Version::new(2)))
                .with_range(range);
            let found = rows(root.read_series_with_options("/s", &options).await).await.unwrap();
            assert_eq!(expected.len(), found.len(), "{range:?}");
            assert!(expected == found, "{range:?}");
        }
    });
}

/// The oracle can fail: a store that forgets to deduplicate is noticed.
#[test]
fn a_wrong_answer_is_noticed() {
    runtime().block_on(async {
        let deduplicating = SeriesSpec { dedup: true, ..SeriesSpec::plain() };
        let mut pair = Pair::create(Place::memory(), vec![deduplicating], 0).await.unwrap();
        pair.create_series_at("/s", 0).await.unwrap();
        for _ in 0..2 {
            pair.append_all(vec![("/s".to_owned(), 0, one_row(1).as_slice())]).await.unwrap();
        }
        let picks = || Picks::new(1);
        check_everything(&pair, pair.handle(false), &mut picks()).await.unwrap();

        let mut forgetful = Model::new();
        let shape = SeriesSpec::plain().shape();
        for version in pair.model.versions("/s").to_vec() {
            forgetful.append("/s", &shape, &version.rows, version.write_time).unwrap();
        }
        let right = std::mem::replace(&mut pair.model, forgetful);
        check_everything(&pair, pair.handle(false), &mut picks()).await.unwrap_err();
        pair.model = right;
        pair.model.append("/s", &shape, &deduplicating.rows(&one_row(2)), i64::MAX).unwrap();
        check_heads(&pair, pair.handle(false)).await.unwrap_err();
    });
}
