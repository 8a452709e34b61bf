//! Random rows, filters and aggregates: with all moved that can be, and with nothing.

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Row, SERIES, World, answers_are_the_same};
use crate::support::{Context, property, runtime};

#[derive(Debug, Clone)]
struct Case {
    cold: Vec<Vec<Row>>,
    warm: Vec<Vec<Row>>,
    hot: Vec<Vec<Row>>,
    keys: &'static [&'static str],
    dedup: bool,
    partitions: usize,
    statements: Vec<String>,
}

fn cases() -> impl Strategy<Value = Case> {
    // Many rows share a time, some also a key.
    let rows = || prop::collection::vec((-40..90_i64, 0..400_u32), 1..60);
    let appends = |least, most| prop::collection::vec(rows(), least..most);
    let keys = prop::sample::select(vec![
        ["host", "region"].as_slice(),
        ["region"].as_slice(),
        ["host"].as_slice(),
        [].as_slice(),
    ]);
    let statements = prop::collection::vec(statements(), 12);
    (appends(0, 3), appends(1, 4), appends(0, 2), keys, any::<bool>(), 1..4_usize, statements)
        .prop_map(|(cold, warm, hot, keys, dedup, partitions, statements)| Case {
            cold,
            warm,
            hot,
            keys,
            // Rows without a key that share a time would be one.
            dedup: dedup && !keys.is_empty(),
            partitions,
            statements,
        })
}

fn statements() -> impl Strategy<Value = String> {
    let aggregates = prop::sample::subsequence(AGGREGATES.to_vec(), 1..5);
    let groups = prop::sample::subsequence(GROUPS.to_vec(), 0..3);
    (aggregates, groups, prop::option::of(filters())).prop_map(|(aggregates, groups, filter)| {
        let filter = filter.map(|filter| format!("WHERE {filter}")).unwrap_or_default();
        let shown = [groups.clone(), aggregates].concat().join(", ");
        let by = if groups.is_empty() {
            String::new()
        } else {
            format!("GROUP BY {}", groups.join(", "))
        };
        format!("SELECT {shown} FROM \"{SERIES}\" {filter} {by}")
    })
}

/// None whose answer depends on the order of rows, as that of extremes among NaN and both zeros does.
const AGGREGATES: [&str; 13] = [
    "count(*)",
    "count(usage)",
    "count(note)",
    "sum(usage)",
    "sum(large)",
    "sum(small)",
    "avg(usage)",
    "avg(bytes)",
    "min(large)",
    "max(usage)",
    "min(up)",
    "max(time)",
    "count(odd)",
];

const GROUPS: [&str; 6] = [
    "host",
    "region",
    "date_bin(INTERVAL '20 seconds', time)",
    "date_trunc('minute', time)",
    "time",
    "note",
];

fn filters() -> impl Strategy<Value = String> {
    let comparison = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let column = prop::sample::select(vec!["usage", "odd", "large", "small", "bytes"]);
    let list = prop::collection::vec(-3..24_i32, 4..7);
    let leaf = prop_oneof![
        (column.clone(), comparison.clone(), -20..24_i32)
            .prop_map(|(column, op, value)| format!("{column} {op} {value}")),
        (comparison.clone(), -40..90_i64)
            .prop_map(|(op, second)| format!("time {op} to_timestamp_seconds({second})")),
        (comparison, 0..6_u8).prop_map(|(op, host)| format!("host {op} 'h{host}'")),
        (column.clone(), list).prop_map(|(column, list)| {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            format!("{column} IN ({})", list.join(", "))
        }),
        column.prop_map(|column| format!("{column} IS NULL")),
        Just("region = 'north'".to_owned()),
        Just("odd > 'NaN'".to_owned()),
        Just("up".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let some = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            some.clone().prop_map(|parts| format!("({})", parts.join(" AND "))),
            some.prop_map(|parts| format!("({})", parts.join(" OR "))),
            inner.prop_map(|part| format!("NOT ({part})")),
        ]
    })
}

#[test]
fn random_statements_are_answered_alike() {
    property(24, cases(), |case| {
        let world = World {
            keys: case.keys,
            dedup: case.dedup,
            partitions: case.partitions,
            ..World::default()
        };
        runtime().block_on(async {
            let directory = TempDir::new().at("a directory")?;
            let store = world.store(&directory, &case.cold, &case.warm, &case.hot).await?;
            answers_are_the_same(&store, &case.statements).await
        })
    });
}
