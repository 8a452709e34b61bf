//! The newest row of each key, read without SQL: from memory alone or by a plan, it is what a loop over
//! the rows finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use tidelog::arrow::array::{Array, AsArray, RecordBatch};
use tidelog::arrow::compute::{cast, concat_batches};
use tidelog::arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};
use tidelog::arrow::util::display::{ArrayFormatter, FormatOptions};
use tidelog::{
    AsOf, LatestOptions, SeriesExt, Store, TimeRange, Version, WarmDevices, WarmPlace,
    WarmPushDowns,
};
use tidelog_warm::{HostBackend, WarmBackend, WarmError};

use super::{Row, SERIES, World, minutes};
use crate::failing_backend::{FailingBackend, Failures};
use crate::support::{Context, Fallible, property, runtime, same};

/// What is asked for.
#[derive(Debug, Clone)]
struct Question {
    by: Option<Vec<&'static str>>,
    /// Seconds, both ends included.
    range: Option<(i64, i64)>,
    columns: Option<Vec<&'static str>>,
    filter: bool,
    /// As of how many of the appends.
    appends: Option<usize>,
}

impl Question {
    fn of_all() -> Self {
        Self { by: None, range: None, columns: None, filter: false, appends: None }
    }

    fn options(&self) -> Fallible<LatestOptions> {
        let mut options = LatestOptions::default();
        if let Some(by) = &self.by {
            options = options.with_by(by.iter().copied());
        }
        if let Some((first, last)) = self.range {
            let nanos = |seconds: i64| seconds * 1_000_000_000;
            options =
                options.with_range(TimeRange::try_new(nanos(first), nanos(last)).at("range")?);
        }
        if let Some(columns) = &self.columns {
            options = options.with_columns(columns.iter().copied());
        }
        if self.filter {
            options = options.with_filter("small > -5");
        }
        if let Some(appends) = self.appends {
            let version = Version::new(i64::try_from(appends).at("a version")?);
            options = options.with_as_of(AsOf::Version(version));
        }
        Ok(options)
    }
}

/// The cells of each row; a null is nothing.
fn cells(batch: &RecordBatch, columns: &[usize]) -> Fallible<Vec<Vec<Option<String>>>> {
    let options = FormatOptions::default();
    let mut rows = vec![Vec::new(); batch.num_rows()];
    for column in columns {
        let array = batch.column(*column);
        let array = match array.data_type() {
            // A null may be one of the texts, too.
            DataType::Dictionary(..) => &cast(array, &DataType::Utf8).at("texts")?,
            _ => array,
        };
        let shown = ArrayFormatter::try_new(array, &options).at("formatting")?;
        for (row, cells) in rows.iter_mut().enumerate() {
            cells.push(array.is_valid(row).then(|| shown.value(row).to_string()));
        }
    }
    Ok(rows)
}

/// Rows that may be the newest of a key, by the key, nulls last.
type Groups = BTreeMap<Vec<(bool, String)>, (i64, Vec<usize>)>;

/// What a loop over the rows of the appends finds.
struct Expected {
    all: RecordBatch,
    groups: Groups,
}

impl Expected {
    fn of(world: &World, appends: &[Vec<Row>], question: &Question) -> Fallible<Self> {
        let appends = &appends[..question.appends.unwrap_or(appends.len())];
        let batches = appends.iter().map(|rows| world.batch(rows)).collect::<Fallible<Vec<_>>>()?;
        let schema = world.batch(&[])?.schema();
        let all = concat_batches(&schema, &batches).at("all rows")?;
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let times =
            cast(&cast(all.column(0), &nanos).at("times")?, &DataType::Int64).at("times")?;
        let times = times.as_primitive::<Int64Type>();
        let small = all.column_by_name("small").ok_or("small")?;
        let small = small.as_primitive::<Int32Type>();
        let place = |name: &&str| schema.index_of(name).at(name);
        let own = world.keys.iter().map(place).collect::<Fallible<Vec<_>>>()?;
        let own = cells(&all, &own)?;
        let by = question.by.clone().unwrap_or_else(|| world.keys.to_vec());
        let by = by.iter().map(place).collect::<Fallible<Vec<_>>>()?;
        let by = cells(&all, &by)?;
        let range = question.range.unwrap_or((i64::MIN / 2_000_000_000, i64::MAX / 2_000_000_000));
        let range = range.0 * 1_000_000_000..=range.1 * 1_000_000_000;
        // Of rows with the same key and time the last one stands.
        let mut stands = BTreeMap::new();
        for (row, key) in own.into_iter().enumerate() {
            let place = (key, times.value(row), if world.dedup { 0 } else { row });
            stands.insert(place, row);
        }
        let mut groups = Groups::new();
        for row in stands.into_values() {
            let time = times.value(row);
            if !range.contains(&time) || question.filter && small.value(row) <= -5 {
                continue;
            }
            let key = by[row].iter().map(|c| (c.is_none(), c.clone().unwrap_or_default()));
            let (newest, rows) = groups.entry(key.collect()).or_insert((time, Vec::new()));
            if time > *newest {
                (*newest, *rows) = (time, Vec::new());
            }
            if time == *newest {
                rows.push(row);
            }
        }
        Ok(Self { all, groups })
    }

    fn check(&self, what: &str, question: &Question, found: &RecordBatch) -> Fallible {
        let schema = self.all.schema();
        let columns: Vec<usize> = match &question.columns {
            Some(names) => {
                names.iter().map(|n| schema.index_of(n).at(n)).collect::<Fallible<_>>()?
            }
            None => (0..schema.fields().len()).collect(),
        };
        let expected = schema.project(&columns).at("columns")?;
        same(format!("{what}: columns"), expected.fields(), found.schema().fields())?;
        let all = cells(&self.all, &columns)?;
        let found = cells(found, &(0..columns.len()).collect::<Vec<_>>())?;
        same(format!("{what}: rows"), &self.groups.len(), &found.len())?;
        for ((key, (_, rows)), found) in self.groups.iter().zip(&found) {
            let may_be: Vec<_> = rows.iter().map(|row| &all[*row]).collect();
            same(
                format!("{what}: {key:?}: {found:?} of {may_be:?}"),
                &true,
                &may_be.contains(&found),
            )?;
        }
        Ok(())
    }
}

async fn in_memory(store: &Store, question: &Question) -> Fallible<Option<RecordBatch>> {
    let options = question.options()?;
    store.root().read_series_latest_in_memory(SERIES, &options).await.at("reading in memory")
}

/// Asked with the warm tier and without, and of memory alone if that has it; whether it had.
async fn answers_are_right(
    world: &World,
    store: &Store,
    appends: &[Vec<Row>],
    question: &Question,
) -> Fallible<bool> {
    let expected = Expected::of(world, appends, question)?;
    let options = question.options()?;
    let files = store.with_warm_push_downs(&WarmPushDowns::none());
    for (store, what) in [(store, "all tiers"), (&files, "nothing moved")] {
        let found = store.root().read_series_latest(SERIES, &options).await.at(what)?;
        expected.check(&format!("{what}: {question:?}"), question, &found)?;
    }
    let found = in_memory(store, question).await?;
    if let Some(found) = &found {
        expected.check(&format!("memory: {question:?}"), question, found)?;
    }
    Ok(found.is_some())
}

#[derive(Debug, Clone)]
struct Case {
    cold: Vec<Vec<Row>>,
    warm: Vec<Vec<Row>>,
    hot: Vec<Vec<Row>>,
    keys: &'static [&'static str],
    dedup: bool,
    unit: TimeUnit,
    questions: Vec<Question>,
}

fn questions() -> impl Strategy<Value = Question> {
    let by = prop::sample::select(vec![
        vec!["host", "region"],
        vec!["region"],
        vec!["host"],
        vec!["note", "host"],
        vec![],
    ]);
    let columns = prop::sample::subsequence(vec!["time", "host", "usage", "region", "note"], 1..5);
    let range = (-50..100_i64, 0..120_i64).prop_map(|(first, length)| (first, first + length));
    let parts = (
        prop::option::of(by),
        prop::option::of(range),
        prop::option::of(columns.prop_shuffle()),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, any::<prop::sample::Index>()),
    );
    parts.prop_map(|(by, range, columns, filter, appends)| Question {
        by,
        range,
        columns,
        filter,
        // Of how many there are, only the case can tell.
        appends: appends.map(|index| index.index(usize::MAX)),
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let rows = || prop::collection::vec((-40..90_i64, 0..400_u32), 1..60);
    let appends = |least, most| prop::collection::vec(rows(), least..most);
    let keys = prop::sample::select(vec![
        ["host", "region"].as_slice(),
        ["region"].as_slice(),
        ["host"].as_slice(),
        [].as_slice(),
    ]);
    let unit =
        prop::sample::select(vec![TimeUnit::Second, TimeUnit::Microsecond, TimeUnit::Nanosecond]);
    let questions = prop::collection::vec(questions(), 10);
    (appends(0, 2), appends(1, 4), appends(0, 3), keys, any::<bool>(), unit, questions).prop_map(
        |(cold, warm, hot, keys, dedup, unit, questions)| Case {
            cold,
            warm,
            hot,
            keys,
            // Rows without a key that share a time would be one.
            dedup: dedup && !keys.is_empty(),
            unit,
            questions,
        },
    )
}

#[test]
fn newest_rows_are_those_that_a_loop_finds() {
    property(48, cases(), |case| {
        let world =
            World { keys: case.keys, dedup: case.dedup, unit: case.unit, ..World::default() };
        runtime().block_on(async {
            let directory = TempDir::new().at("a directory")?;
            let store = world.store(&directory, &case.cold, &case.warm, &case.hot).await?;
            let appends = [case.cold, case.warm, case.hot].concat();
            for question in &case.questions {
                let mut question = question.clone();
                question.appends = question.appends.map(|any| 1 + any % appends.len());
                answers_are_right(&world, &store, &appends, &question).await?;
            }
            answers_are_right(&world, &store, &appends, &Question::of_all()).await.map(|_| ())
        })
    });
}

#[test]
fn what_lies_in_memory_whole_needs_no_plan() {
    let asked: Fallible = runtime().block_on(async {
        let world = World::default();
        let directory = TempDir::new().at("a directory")?;
        let warm = [minutes(10, 25, 3, 1_000), minutes(20, 31, 2, 2_000)];
        let hot = [minutes(31, 35, 6, 4_000), minutes(34, 38, 6, 5_000)];
        let store = world.store(&directory, &[], &warm, &hot).await?;
        let appends = [warm, hot].concat();
        let all = Question::of_all();
        let mut questions = vec![
            (true, all.clone()),
            (true, Question { by: Some(vec!["region"]), ..all.clone() }),
            (true, Question { by: Some(vec![]), ..all.clone() }),
            (true, Question { range: Some((700, 1_800)), ..all.clone() }),
            (true, Question { range: Some((0, 5)), ..all.clone() }),
            (true, Question { columns: Some(vec!["usage", "time"]), ..all.clone() }),
            // Of these a plan knows more.
            (false, Question { by: Some(vec!["note"]), ..all.clone() }),
            (false, Question { filter: true, ..all.clone() }),
        ];
        // All files with rows of these versions are seen whole.
        questions.push((true, Question { appends: Some(2), ..all.clone() }));
        for (is_in_memory, question) in questions {
            let found = answers_are_right(&world, &store, &appends, &question).await?;
            same(format!("in memory: {question:?}"), &is_in_memory, &found)?;
        }
        let off = store.with_warm_push_downs(&WarmPushDowns::default().with_last(false));
        same("switched off", &true, &in_memory(&off, &all).await?.is_none())?;
        store.flush().await.at("flushing")?;
        let inside = Question { appends: Some(3), ..all.clone() };
        let found = answers_are_right(&world, &store, &appends, &inside).await?;
        same("a file that is not seen whole", &false, &found)?;
        same("all is flushed", &true, &answers_are_right(&world, &store, &appends, &all).await?)?;
        cold_files_are_read(&world).await
    });
    asked.unwrap();
}

async fn cold_files_are_read(world: &World) -> Fallible {
    let directory = TempDir::new().at("a directory")?;
    let (cold, warm) = ([minutes(0, 5, 5, 0)], [minutes(5, 10, 5, 10)]);
    let store = world.store(&directory, &cold, &warm, &[]).await?;
    let appends = [cold, warm].concat();
    let all = Question::of_all();
    same("cold", &false, &answers_are_right(world, &store, &appends, &all).await?)?;
    let late = Question { range: Some((5 * 60, 600)), ..all };
    same("warm", &true, &answers_are_right(world, &store, &appends, &late).await?)
}

#[test]
fn rows_that_are_replaced_are_told_apart_by_version_or_by_a_plan() {
    let asked: Fallible = runtime().block_on(async {
        let world = World { dedup: true, ..World::default() };
        let directory = TempDir::new().at("a directory")?;
        // The same times and keys, with other values each time.
        let rows = |seed: u32| -> Vec<Row> {
            minutes(0, 4, 5, 0).into_iter().map(|(t, n)| (t, n % 15 + 15 * seed)).collect()
        };
        let appends = [rows(2), rows(7), rows(4), rows(11)];
        let store = world.store(&directory, &[], &appends[..2], &appends[2..]).await?;
        let all = Question::of_all();
        same("in memory", &true, &answers_are_right(&world, &store, &appends, &all).await?)
    });
    asked.unwrap();
}

/// Fails every request; counts them.
#[derive(Debug, Clone, Default)]
struct Evicting(Arc<AtomicU64>);

impl Failures for Evicting {
    fn run(&self) -> Result<(), WarmError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(WarmError::Evicted { segment: 1 })
    }
}

impl WarmDevices for Evicting {
    fn open(&self, _: usize, _: u64) -> Result<Arc<dyn WarmBackend>, String> {
        let host = Arc::new(HostBackend::new(256 << 20));
        Ok(Arc::new(FailingBackend { host, failures: self.clone() }))
    }
}

#[test]
fn what_the_backend_does_not_answer_is_read_from_files() {
    let asked: Fallible = runtime().block_on(async {
        let world = World::default();
        let directory = TempDir::new().at("a directory")?;
        let evicting = Evicting::default();
        let how = |builder: tidelog::StoreBuilder| {
            builder.with_warm(WarmPlace::Cuda).with_warm_devices(Arc::new(evicting.clone()))
        };
        let warm = [minutes(0, 9, 5, 0)];
        let store = world.store_of(how, &directory, &[], &warm, &[]).await?;
        let all = Question::of_all();
        same("in memory", &false, &answers_are_right(&world, &store, &warm, &all).await?)?;
        same("it was asked", &true, &(evicting.0.load(Ordering::Relaxed) > 0))
    });
    asked.unwrap();
}

#[test]
fn of_several_series_it_is_the_newest_row_of_each() {
    let asked: Fallible = runtime().block_on(async {
        let world = World::default();
        let store = Store::builder("memory://").create().await.at("creating")?;
        for (path, to) in [("/g/a", 3), ("/g/b", 5)] {
            let batch = world.batch(&minutes(0, to, 7, 10))?;
            store.root().append_series_data(path, &batch, Some("time")).await.at("appending")?;
        }
        let options = LatestOptions::default().with_columns(["_path", "time"]);
        let found = store.root().read_series_latest("/g/*", &options).await.at("reading")?;
        let rows = cells(&found, &[0, 1])?;
        let paths: Vec<_> = rows.iter().map(|row| row[0].as_deref()).collect();
        same("paths", &vec![Some("/g/a"), Some("/g/b")], &paths)?;
        let second = |text: &str| Some(text.to_owned());
        same("a", &second("1970-01-01T00:02:55.500Z"), &rows[0][1])?;
        same("b", &second("1970-01-01T00:04:54Z"), &rows[1][1])?;
        for wrong in [
            LatestOptions::default().with_by(["nope"]),
            LatestOptions::default().with_columns(["nope"]),
            LatestOptions::default().with_filter("nope > 1"),
        ] {
            for path in ["/g/*", "/g/a"] {
                let error = store.root().read_series_latest(path, &wrong).await.unwrap_err();
                same(&error, &tidelog::ErrorKind::InvalidInput, &error.kind())?;
            }
        }
        Ok(())
    });
    asked.unwrap();
}
