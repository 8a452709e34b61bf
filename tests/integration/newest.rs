//! Queries for the newest rows of each key: what the scan leaves out never shows.
//!
//! Random series with nulls in keys, ties, files that overlap, rows in memory and filters are asked twice, with and
//! without pruning by keys, and compared with what a loop over the rows finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use proptest::prelude::*;
use tidelog::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use tidelog::arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use tidelog::arrow::util::display::{ArrayFormatter, FormatOptions};
use tidelog::object_store::memory::InMemory;
use tidelog::{SeriesExt, Store, WriteTime};

use crate::support::{Context, Fallible, property, runtime, same};

/// Host, time, zone, value.
type Row = (Option<u8>, i64, u8, Option<i64>);

#[derive(Debug, Clone)]
struct Case {
    appends: Vec<(bool, Vec<Row>)>,
    partitions: usize,
    above: i64,
    until: i64,
    /// From which append on rows lie in memory.
    hot_from: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    // Few hosts, times and values, so that ties are many; each append around a time of its own, so
    // that some follow one another and some overlap.
    let row =
        (prop::option::weighted(0.9, 0..4_u8), 0..12_i64, 0..2_u8, prop::option::of(0..6_i64));
    let append = (any::<bool>(), 0..6_i64, prop::collection::vec(row, 1..30)).prop_map(
        |(other, start, rows)| {
            let late = |(host, time, zone, value)| (host, start * 8 + time, zone, value);
            (other, rows.into_iter().map(late).collect())
        },
    );
    (prop::collection::vec(append, 1..7), 1..4_usize, 0..6_i64, 0..60_i64, 1..8_usize).prop_map(
        |(appends, partitions, above, until, hot_from)| Case {
            appends,
            partitions,
            above,
            until,
            hot_from,
        },
    )
}

fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let host = |host: &Option<u8>| host.map(|host| format!("host {host}"));
    let hosts = StringArray::from_iter(rows.iter().map(|row| host(&row.0)));
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1));
    let zones = Int64Array::from_iter_values(rows.iter().map(|row| i64::from(row.2)));
    let values = Int64Array::from_iter(rows.iter().map(|row| row.3));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("host", Arc::new(hosts) as ArrayRef, true),
        ("time", Arc::new(times.with_timezone("UTC")), false),
        ("zone", Arc::new(zones), true),
        ("value", Arc::new(values), true),
    ])?)
}

async fn lines(store: &Store, statement: &str) -> Fallible<Vec<String>> {
    let stream = store.sql(statement).await.at(statement)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.at(statement)?;
    let options = FormatOptions::default().with_null("null");
    let mut lines = Vec::new();
    for batch in &batches {
        let columns =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().at("formatting")?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| column.value(row).to_string());
            lines.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    Ok(lines)
}

/// The store of a case as two handles: one that prunes by keys, one that does not.
async fn stores(case: &Case) -> Fallible<(Store, Store)> {
    let objects = Arc::new(InMemory::new());
    let builder = || {
        Store::builder("memory://")
            .with_object_store(Arc::<InMemory>::clone(&objects))
            .with_partitions(case.partitions)
    };
    let pruning = builder().create().await.at("creating")?;
    let (mut made, mut pieces) = ([false; 2], Vec::new());
    for (number, (other, rows)) in case.appends.iter().enumerate() {
        let path = if *other { "/other" } else { "/s" };
        let batch = batch(rows).at("making a batch")?;
        // Only what exists can have rows in memory.
        if std::mem::replace(&mut made[usize::from(*other)], true) && number >= case.hot_from {
            let time = WriteTime::from_micros(i64::MAX / 2 + i64::try_from(number).at("time")?);
            pieces.push((path.to_owned(), vec![(batch, time)]));
        } else {
            pruning.root().append_series_data(path, &batch, Some("time")).await.at("appending")?;
        }
    }
    let plain = builder().with_key_pruning(false).open().await.at("opening")?;
    let hot = async |store: Store| store.with_hot_versions(&pieces).await.at("hot rows");
    Ok((hot(pruning).await?, hot(plain).await?))
}

/// Statements whose answers ties cannot change.
fn statements(case: &Case) -> Vec<String> {
    let mut statements = Vec::new();
    let filters = [
        String::new(),
        format!("WHERE value > {}", case.above),
        format!("WHERE time <= to_timestamp_micros({})", case.until),
        format!("WHERE zone = 1 AND value < {} AND time > to_timestamp_micros(9)", case.above),
        "WHERE host = 'host 1'".to_owned(),
    ];
    let tables = ["\"/s\"", "series('/s', 'v1')", "series('/*')"];
    for (table, filter) in tables.iter().flat_map(|table| filters.iter().map(move |f| (table, f))) {
        let from = format!("FROM {table} {filter}");
        statements.extend([
            format!(
                "SELECT DISTINCT ON (host) host, time, zone, value {from} \
                 ORDER BY host, time DESC, zone, value"
            ),
            format!("SELECT zone, host, max(time) {from} GROUP BY zone, host ORDER BY 1, 2"),
            format!(
                "SELECT host, last_value(value ORDER BY time, value NULLS FIRST) {from} \
                 GROUP BY host ORDER BY host"
            ),
            format!(
                "SELECT zone, first_value(value ORDER BY time DESC, value), max(time) {from} \
                 GROUP BY zone ORDER BY zone"
            ),
        ]);
    }
    statements.push(
        "SELECT _path, last_value(value ORDER BY time, value) FROM series('/*') \
         GROUP BY _path ORDER BY _path"
            .to_owned(),
    );
    statements
}

#[test]
fn pruning_by_keys_changes_no_answer() {
    property(12, cases(), |case| {
        runtime().block_on(async {
            let (pruning, plain) = stores(&case).await?;
            if !case.appends.iter().any(|(other, _)| !other) {
                return Ok(());
            }
            for statement in statements(&case) {
                let (found, expected) =
                    (lines(&pruning, &statement).await?, lines(&plain, &statement).await?);
                same(&statement, &expected, &found)?;
            }
            ties_are_settled_among_the_newest(&case, &pruning).await
        })
    });
}

/// Of rows that share the newest time, any may be the answer, but no other.
async fn ties_are_settled_among_the_newest(case: &Case, store: &Store) -> Fallible {
    let mut newest: BTreeMap<Option<u8>, Vec<Row>> = BTreeMap::new();
    let passing = |row: &&Row| row.3.is_some_and(|value| value > case.above);
    let rows = case.appends.iter().filter(|(other, _)| !other).flat_map(|(_, rows)| rows);
    for row in rows.filter(passing) {
        let rows = newest.entry(row.0).or_default();
        if rows.first().is_some_and(|first| first.1 < row.1) {
            rows.clear();
        }
        if rows.first().is_none_or(|first| first.1 == row.1) {
            rows.push(*row);
        }
    }
    let statement = format!(
        "SELECT DISTINCT ON (host) * FROM \"/s\" WHERE value > {} ORDER BY host, time DESC",
        case.above
    );
    let stream = store.sql(&statement).await.at(&statement)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.at(&statement)?;
    let mut answered = 0;
    for batch in &batches {
        let hosts = batch.column(0).as_string_view();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let (zones, values) = (
            batch.column(2).as_primitive::<Int64Type>(),
            batch.column(3).as_primitive::<Int64Type>(),
        );
        for row in 0..batch.num_rows() {
            let host = (!hosts.is_null(row)).then(|| hosts.value(row).as_bytes()[5] - b'0');
            let value = (!values.is_null(row)).then(|| values.value(row));
            let zone = u8::try_from(zones.value(row)).at("zone")?;
            let found = (host, times.value(row), zone, value);
            let among = newest.get(&host).is_some_and(|rows| rows.contains(&found));
            same(format!("{found:?} is among {newest:?}"), &true, &among)?;
            answered += 1;
        }
    }
    same("hosts answered for", &newest.len(), &answered)
}

#[test]
fn keys_beyond_what_is_worth_remembering_lose_no_row() -> Result<()> {
    runtime().block_on(async {
        let store = Store::builder("memory://")
            .with_object_store(Arc::new(InMemory::new()))
            .with_partitions(2)
            .create()
            .await?;
        // Every row a key of its own, in several row groups; then some of them once more, earlier.
        for (start, count) in [(1_000_000, 400_000), (0, 1_000)] {
            let keys = Int64Array::from_iter_values(0..count);
            let times = TimestampMicrosecondArray::from_iter_values(start..start + count);
            let batch = RecordBatch::try_from_iter([
                ("time", Arc::new(times) as ArrayRef),
                ("key", Arc::new(keys)),
            ])?;
            store.root().append_series_data("/s", &batch, None).await?;
        }
        let statement = "SELECT count(*) FROM (SELECT key, max(time) AS t FROM \"/s\" GROUP BY key) \
                         WHERE t = to_timestamp_micros(1000000 + key)";
        let answer = lines(&store, statement).await.map_err(anyhow::Error::msg)?;
        assert_eq!(answer, ["400000"]);
        Ok(())
    })
}
