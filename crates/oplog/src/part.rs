//! One Parquet object of log rows, and its `add` action.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use deltalake::kernel::Add;
use serde_json::{Map, Value, json};
use tidelog_core::{NodeId, WriteTime};

use crate::error::Error;
use crate::hash::Hash128;
use crate::row::Row;
use crate::schema::{STATS_COLUMNS, column};
use crate::state::LoadedSeries;

const TAG_HASH: &str = "tidelog.hash";
const TAG_FAMILIES: &str = "tidelog.families";

/// Where log rows lie, and what can be skipped without reading them.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) object: String,
    pub(crate) size: u64,
    pub(crate) rows: u64,
    pub(crate) hash: Hash128,
    /// Whether there are tree or store rows, which every reader needs.
    pub(crate) shared: bool,
    nodes: Option<(String, String)>,
    paths: Option<(String, String)>,
}

impl Part {
    /// Whether rows of the series `node` may be here.
    pub(crate) fn may_hold(&self, node: NodeId) -> bool {
        let node = node.to_string();
        self.nodes.as_ref().is_none_or(|(min, max)| *min <= node && node <= *max)
    }

    /// Whether there are rows that a state with these series in memory must apply at once.
    pub(crate) fn is_needed(&self, loaded: &LoadedSeries) -> bool {
        self.shared || loaded.keys().any(|node| self.may_hold(*node))
    }

    /// Whether rows with this path may be here.
    pub(crate) fn may_name(&self, path: &str) -> bool {
        self.paths.as_ref().is_none_or(|(min, max)| min.as_str() <= path && path <= max.as_str())
    }

    /// Reads an `add` action.
    pub(crate) fn from_add(add: &Add) -> Result<Self, String> {
        let tag = |name: &str| add.tags.as_ref()?.get(name)?.as_deref();
        let hash = tag(TAG_HASH).ok_or("an add has no hash")?;
        let families = tag(TAG_FAMILIES).ok_or("an add does not tell its kinds of rows")?;
        let stats: Value = serde_json::from_str(add.stats.as_deref().unwrap_or("null"))
            .map_err(|error| format!("statistics are no JSON: {error}"))?;
        let bound = |which: &str, column: &str| Some(stats[which][column].as_str()?.to_owned());
        let range = |column| bound("minValues", column).zip(bound("maxValues", column));
        Ok(Self {
            object: add.path.clone(),
            size: u64::try_from(add.size).map_err(|_| "an add has a negative size")?,
            rows: stats["numRecords"].as_u64().ok_or("an add has no row count")?,
            hash: hash.parse().map_err(|_| format!("{hash:?} is no hash"))?,
            shared: families.split(',').any(|family| family == "tree" || family == "store"),
            nodes: range(column::NODE_ID),
            paths: range(column::PATH),
        })
    }
}

/// The `add` action for a part.
pub(crate) fn add_action(
    object: &str,
    bytes: &[u8],
    rows: &[Row],
    batch: &RecordBatch,
    now: WriteTime,
) -> Result<Add, Error> {
    let mut families: Vec<&str> = rows.iter().map(family).collect();
    families.sort_unstable();
    families.dedup();
    let tags = HashMap::from([
        (TAG_HASH.to_owned(), Some(Hash128::of(bytes).to_string())),
        (TAG_FAMILIES.to_owned(), Some(families.join(","))),
    ]);
    Ok(Add {
        path: object.to_owned(),
        size: i64::try_from(bytes.len()).map_err(Error::encode)?,
        modification_time: now.micros().div_euclid(1000),
        data_change: true,
        stats: Some(statistics(batch).to_string()),
        tags: Some(tags),
        ..Add::default()
    })
}

fn family(row: &Row) -> &'static str {
    match row {
        Row::Tree(_) => "tree",
        Row::Store(_) => "store",
        Row::Version(_) => "version",
        Row::File(_) => "file",
    }
}

fn statistics(batch: &RecordBatch) -> Value {
    let (mut mins, mut maxs, mut nulls) = (Map::new(), Map::new(), Map::new());
    for name in STATS_COLUMNS {
        let Some(array) = batch.column_by_name(name) else { continue };
        nulls.insert(name.to_owned(), json!(array.null_count()));
        if let Some((min, max)) = bounds(array) {
            mins.insert(name.to_owned(), min);
            maxs.insert(name.to_owned(), max);
        }
    }
    json!({
        "numRecords": batch.num_rows(),
        "minValues": mins,
        "maxValues": maxs,
        "nullCount": nulls,
    })
}

fn bounds(array: &ArrayRef) -> Option<(Value, Value)> {
    match array.data_type() {
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            Some((json!(min_string(array)?), json!(max_string(array)?)))
        }
        DataType::Int64 => {
            let array = array.as_primitive::<Int64Type>();
            Some((json!(min(array)?), json!(max(array)?)))
        }
        DataType::Timestamp(..) => {
            let array = array.as_primitive::<TimestampMicrosecondType>();
            // Delta statistics hold milliseconds: round outwards, so that nothing is skipped.
            let (min, max) = (min(array)?, max(array)?);
            let millis = |micros: i64| WriteTime::from_micros(micros * 1000).to_string();
            let max = max.div_euclid(1000) + i64::from(max.rem_euclid(1000) != 0);
            Some((json!(millis(min.div_euclid(1000))), json!(millis(max))))
        }
        _ => None,
    }
}
