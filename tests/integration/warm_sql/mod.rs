//! Statements over rows that lie in the warm tier, in files and in memory: whatever is moved to the
//! warm tier, answers are the same.
//!
//! Worlds have all of it: files from before the store was opened, which are cold; files that were
//! flushed since, which are warm; rows that wait for their flush. In some all is warm. Statements are
//! asked with every choice of push-downs.

mod failures;
mod latest;
mod plans;
mod random;
mod views;

use std::sync::Arc;

use futures::TryStreamExt;
use tempfile::TempDir;
use tidelog::arrow::array::{
    ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use tidelog::arrow::compute::cast;
use tidelog::arrow::datatypes::{DataType, Int32Type, TimeUnit};
use tidelog::arrow::util::display::{ArrayFormatter, FormatOptions};
use tidelog::{
    FileOrder, LayoutChange, Mode, SeriesAppend, SeriesExt, SeriesOptions, Store, StoreBuilder,
    WarmPushDowns,
};

use crate::support::{Context, Fallible, runtime, same};

const SERIES: &str = "/cpu";
const MINUTE: i64 = 60;

/// What a world differs by.
#[derive(Debug, Clone, Copy)]
struct World {
    unit: TimeUnit,
    keys: &'static [&'static str],
    dedup: bool,
    by_key: bool,
    partitions: usize,
    /// Whether no row is in a cold file or waits for its flush.
    all_warm: bool,
}

impl Default for World {
    fn default() -> Self {
        let (unit, keys) = (TimeUnit::Microsecond, ["host", "region"].as_slice());
        Self { unit, keys, dedup: false, by_key: false, partitions: 2, all_warm: false }
    }
}

/// One row of [`SERIES`]: seconds, and a number that all else follows from.
type Row = (i64, u32);

impl World {
    fn batch(&self, rows: &[Row]) -> Fallible<RecordBatch> {
        let of = |wanted: u32, choices: u32| move |row: &Row| (row.1 / wanted) % choices;
        let (host, region) = (of(1, 5), of(5, 3));
        let times = rows.iter().map(|row| row.0 * 1_000_000 + i64::from(row.1 % 2) * 500_000);
        let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
        let times =
            cast(&times, &DataType::Timestamp(self.unit, Some("UTC".into()))).at("times")?;
        let hosts = rows.iter().map(|row| (host(row) > 0).then(|| format!("h{}", host(row))));
        let regions: DictionaryArray<Int32Type> = rows
            .iter()
            .map(|row| ["north", "south", ""].get(region(row) as usize).copied())
            .collect();
        // Quarters, so that sums are exact in any order.
        let value = |row: &Row| f64::from(row.1 % 41) / 4.0 - 5.0;
        let usage = rows.iter().map(|row| (row.1 % 7 > 0).then(|| value(row)));
        let odd = |row: &Row| match row.1 % 6 {
            0 => None,
            1 => Some(f64::NAN),
            2 => Some(-0.0),
            3 => Some(0.0),
            4 => Some(f64::NEG_INFINITY),
            _ => Some(value(row)),
        };
        let large = |row: &Row| match row.1 % 9 {
            0 => None,
            1 => Some(i64::MAX),
            2 => Some(i64::MIN),
            _ => Some(i64::from(row.1) - 50),
        };
        let note = |row: &Row| (!row.1.is_multiple_of(4)).then(|| format!("note {}", row.1 % 11));
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("time", times, false),
            ("host", Arc::new(hosts.collect::<StringArray>()), true),
            ("region", Arc::new(regions), true),
            ("usage", Arc::new(usage.collect::<Float64Array>()), true),
            ("odd", Arc::new(rows.iter().map(odd).collect::<Float64Array>()), true),
            ("large", Arc::new(rows.iter().map(large).collect::<Int64Array>()), true),
            (
                "small",
                Arc::new(rows.iter().map(|r| (r.1 % 19) as i32 - 9).collect::<Int32Array>()),
                true,
            ),
            (
                "bytes",
                Arc::new(rows.iter().map(|r| u64::from(r.1 % 23)).collect::<UInt64Array>()),
                true,
            ),
            (
                "up",
                Arc::new(
                    rows.iter()
                        .map(|r| (r.1 % 5 > 0).then_some(r.1 % 2 == 0))
                        .collect::<BooleanArray>(),
                ),
                true,
            ),
            ("note", Arc::new(rows.iter().map(note).collect::<StringArray>()), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).at("a batch")
    }

    /// A store with some rows in cold files, some in warm ones, some in memory.
    async fn store(
        &self,
        directory: &TempDir,
        cold: &[Vec<Row>],
        warm: &[Vec<Row>],
        hot: &[Vec<Row>],
    ) -> Fallible<Store> {
        self.store_of(|builder| builder, directory, cold, warm, hot).await
    }

    /// The same, opened as it is said.
    async fn store_of(
        &self,
        how: impl Fn(StoreBuilder) -> StoreBuilder,
        directory: &TempDir,
        cold: &[Vec<Row>],
        warm: &[Vec<Row>],
        hot: &[Vec<Row>],
    ) -> Fallible<Store> {
        let open = || {
            let path = directory.path().to_str().unwrap_or_default();
            let builder = Store::builder(path)
                .with_mode(Mode::Exclusive)
                .with_partitions(self.partitions)
                .with_compaction(false);
            how(builder).open_or_create()
        };
        let store = open().await.at("creating")?;
        let options = SeriesOptions::default()
            .with_time_column("time")
            .with_key_columns(self.keys.iter().copied())
            .with_dedup(self.dedup);
        store.root().create_series(SERIES, options).await.at("creating the series")?;
        for rows in cold {
            self.append(&store, rows).await?;
            store.flush().await.at("flushing")?;
        }
        if self.by_key {
            let change = LayoutChange::default().with_order(FileOrder::KeyTime);
            store.root().set_series_layout(SERIES, change).await.at("the layout")?;
            store.compact(SERIES).await.at("compacting")?;
        }
        store.close().await.at("closing")?;
        let store = open().await.at("opening")?;
        for rows in warm {
            self.append(&store, rows).await?;
            store.flush().await.at("flushing")?;
        }
        for rows in hot {
            self.append(&store, rows).await?;
        }
        Ok(store)
    }

    async fn append(&self, store: &Store, rows: &[Row]) -> Fallible {
        let append = SeriesAppend::new(SERIES, self.batch(rows)?);
        store.root().append_series_data_with_options(append).await.at("appending")?;
        Ok(())
    }
}

/// Rows of some minutes, one each `step` seconds.
fn minutes(from: i64, to: i64, step: i64, seed: u32) -> Vec<Row> {
    let seconds = (from * MINUTE..to * MINUTE).step_by(usize::try_from(step).unwrap_or(1));
    seconds.zip(seed..).map(|(second, number)| (second, number.wrapping_mul(13))).collect()
}

async fn lines(store: &Store, statement: &str) -> Fallible<Vec<String>> {
    let stream = store.sql(statement).await.at(statement)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.at(statement)?;
    let options = FormatOptions::default().with_null("null");
    let mut lines = Vec::new();
    for batch in &batches {
        let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().at("formatting")?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| column.value(row).to_string());
            lines.push(cells.collect::<Vec<_>>().join(" | "));
        }
    }
    lines.sort();
    Ok(lines)
}

async fn plan(store: &Store, statement: &str) -> Fallible<String> {
    let statement = format!("EXPLAIN {statement}");
    let stream = store.sql(&statement).await.at(&statement)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.at(&statement)?;
    let plan = cast(batches[0].column(1), &DataType::Utf8).at("a plan")?;
    Ok(plan.as_string::<i32>().value(plan.len() - 1).to_owned())
}

/// Every choice of push-downs.
fn switches() -> Vec<WarmPushDowns> {
    let of = |number: u8| {
        let is_on = |bit: u8| number & (1 << bit) > 0;
        let switches = WarmPushDowns::none().with_scan(is_on(0)).with_aggregate(is_on(1));
        switches.with_top_k(is_on(2)).with_last(is_on(3))
    };
    (0..16).map(of).collect()
}

/// Filters that the backend takes, those that it does not, and some on which the two may differ.
const FILTERS: [&str; 40] = [
    "",
    "WHERE time >= '1970-01-01T00:10:00Z' AND time < '1970-01-01T00:40:30Z'",
    "WHERE time > '1970-01-01T02:00:00Z'",
    "WHERE time < '1970-01-01T00:00:00Z'",
    "WHERE host = 'h1'",
    "WHERE host IN ('h1', 'h3', 'nobody') AND region = 'north'",
    "WHERE host IS NULL OR region IS NULL",
    "WHERE host > 'h1' AND region <> ''",
    "WHERE region NOT IN ('north')",
    "WHERE usage > 1.5",
    "WHERE usage BETWEEN -1.25 AND 2 AND time >= '1970-01-01T00:20:00Z'",
    "WHERE NOT (usage > 1.5)",
    "WHERE usage IS NULL",
    "WHERE odd > 0",
    "WHERE odd >= 0",
    "WHERE odd = 0",
    "WHERE odd < 0.0 OR odd = 'NaN'",
    "WHERE odd <> 'NaN'",
    "WHERE odd IN (0.0, 'NaN')",
    "WHERE odd NOT IN (0.0, 1.25)",
    "WHERE odd IN (-0.0, NULL)",
    "WHERE large = 9223372036854775807",
    "WHERE large < -9223372036854775807 OR large IN (1, 2, 3)",
    "WHERE large NOT IN (1, NULL)",
    "WHERE small <= -3 AND small <> -9",
    "WHERE bytes >= 20",
    "WHERE up",
    "WHERE NOT up AND usage < 3",
    "WHERE up IS NOT TRUE",
    "WHERE usage IS DISTINCT FROM 2.5",
    "WHERE NOT (usage IS NOT DISTINCT FROM 2.5)",
    "WHERE note LIKE '%1' OR note = 'note 3'",
    "WHERE usage > small",
    "WHERE usage > small AND host = 'h2' AND time < '1970-01-01T00:40:30Z'",
    "WHERE usage + 1 > 2 OR small = bytes",
    "WHERE host LIKE 'h%' AND host NOT LIKE '%3'",
    "WHERE NOT (note LIKE '%1' OR length(note) > 6)",
    "WHERE coalesce(region, 'none') IN ('none', 'south')",
    "WHERE (CASE WHEN note > 'note 5' THEN true END) OR upper(host) = 'H4'",
    "WHERE note LIKE 'nothing%' IS NOT TRUE",
];

/// What is asked of the rows that pass a filter. `{from}` is the series and the filter.
const QUESTIONS: [&str; 25] = [
    "SELECT count(*) {from}",
    "SELECT count(*), count(usage), sum(usage), min(usage), max(usage), avg(usage) {from}",
    "SELECT sum(large), min(large), max(large), sum(small), avg(small), min(small) {from}",
    "SELECT sum(bytes), avg(bytes), max(bytes), min(up), max(up), min(time), max(time) {from}",
    "SELECT max(odd), count(odd), min(note) {from}",
    "SELECT host, count(*), max(usage) {from} GROUP BY host",
    "SELECT region, host, sum(usage), avg(bytes) {from} GROUP BY region, host",
    "SELECT date_bin(INTERVAL '5 minutes', time) AS t, max(usage), count(*) {from} GROUP BY t",
    "SELECT date_trunc('hour', time) AS t, host, avg(usage) {from} GROUP BY t, host",
    "SELECT date_bin(INTERVAL '7 seconds', time, TIMESTAMP '2001-01-01 00:00:03') AS t, sum(small) \
     {from} GROUP BY t",
    "SELECT date_trunc('week', time), date_trunc('day', time), count(*) {from} GROUP BY 1, 2",
    "SELECT time, count(*) {from} GROUP BY time HAVING count(*) > 1",
    "SELECT note, count(*) {from} GROUP BY note",
    "SELECT count(DISTINCT host), sum(usage) FILTER (WHERE up) {from}",
    "SELECT usage, time {from} ORDER BY usage DESC, time LIMIT 7",
    "SELECT odd {from} ORDER BY odd NULLS FIRST LIMIT 9",
    "SELECT large + 1 AS more {from} ORDER BY large DESC NULLS LAST LIMIT 5",
    "SELECT time {from} ORDER BY time DESC LIMIT 6",
    "SELECT time, usage {from} ORDER BY time LIMIT 3",
    "SELECT * {from}",
    "SELECT count(*) FROM (SELECT usage, note {from} LIMIT 17) AS picked",
    "SELECT max(n) FROM (SELECT row_number() OVER (PARTITION BY host ORDER BY time) AS n {from}) AS numbered",
    "SELECT small, count(*) FROM (SELECT small {from} UNION ALL SELECT small + 1 {from}) AS twice \
     GROUP BY small",
    "SELECT host, max(time) {from} GROUP BY host",
    "SELECT DISTINCT ON (host, region) host, region, time, usage, large {from} \
     ORDER BY host, region, time DESC, usage, large, bytes, odd, note, up, small",
];

/// Every question with the first filters and some others, not the same as its neighbours.
fn statements() -> Vec<String> {
    let mut statements = Vec::new();
    for (number, question) in QUESTIONS.iter().enumerate() {
        let others = FILTERS.iter().skip(2 + number % 6).step_by(6);
        for filter in FILTERS.iter().take(2).chain(others) {
            let from = format!("FROM \"{SERIES}\" {filter}");
            statements.push(question.replace("{from}", &from));
        }
    }
    statements
}

/// Asks with nothing moved, with all that can be, and in turn with the other combinations.
async fn answers_are_the_same(store: &Store, statements: &[String]) -> Fallible {
    let cold = store.with_warm_push_downs(&WarmPushDowns::none());
    let switches: Vec<_> =
        switches().into_iter().map(|warm| (store.with_warm_push_downs(&warm), warm)).collect();
    for (number, statement) in statements.iter().enumerate() {
        let expected = lines(&cold, statement).await?;
        let found = lines(store, statement).await?;
        same(statement, &expected, &found)?;
        let (store, warm) = &switches[number % switches.len()];
        let found = lines(store, statement).await?;
        same(format!("{statement}\n{warm:?}"), &expected, &found)?;
    }
    Ok(())
}

fn asked_of(world: World) {
    let asked = runtime().block_on(async {
        let directory = TempDir::new().at("a directory")?;
        let cold = if world.all_warm { vec![] } else { vec![minutes(0, 12, 5, 0)] };
        // The third overlaps the second, if rows need not be told apart.
        let overlaps = i64::from(!world.dedup) * 4;
        let warm = [
            minutes(12, 25, 3, 1_000),
            minutes(25, 41, 2, 2_000),
            minutes(41 - overlaps, 50, 4, 3_000),
        ];
        let hot = match world.all_warm {
            true => vec![],
            false => vec![minutes(50, 55, 6, 4_000), minutes(55, 58, 6, 5_000)],
        };
        let store = world.store(&directory, &cold, &warm, &hot).await?;
        same("files that are warm", &3, &warm_files(&store).await?)?;
        answers_are_the_same(&store, &statements()).await
    });
    asked.unwrap();
}

/// How many segments a scan of the whole series reads.
async fn warm_files(store: &Store) -> Fallible<usize> {
    let plan = plan(store, &format!("SELECT host, usage FROM \"{SERIES}\"")).await?;
    let (_, after) = plan.split_once("segments=").ok_or(plan.clone())?;
    let number = after.split(',').next().unwrap_or_default();
    number.parse().at(plan)
}

#[test]
fn statements_are_answered_alike_by_all_tiers() {
    asked_of(World::default());
}

#[test]
fn they_are_in_seconds_on_one_core_by_one_key() {
    asked_of(World { unit: TimeUnit::Second, keys: &["host"], partitions: 1, ..World::default() });
}

#[test]
fn they_are_in_nanoseconds_by_a_dictionary() {
    asked_of(World { unit: TimeUnit::Nanosecond, keys: &["region"], ..World::default() });
}

#[test]
fn they_are_in_milliseconds_without_keys() {
    asked_of(World { unit: TimeUnit::Millisecond, keys: &[], partitions: 3, ..World::default() });
}

#[test]
fn they_are_where_rows_are_deduplicated() {
    asked_of(World { dedup: true, ..World::default() });
}

#[test]
fn they_are_where_all_is_warm() {
    asked_of(World { all_warm: true, ..World::default() });
    asked_of(World { all_warm: true, keys: &["host"], partitions: 1, ..World::default() });
    asked_of(World { all_warm: true, dedup: true, ..World::default() });
}

#[test]
fn they_are_where_files_are_ordered_by_key() {
    asked_of(World { by_key: true, dedup: true, ..World::default() });
}
