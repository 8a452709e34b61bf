//! One Parquet object of log rows, and its `add` action.
//!
//! A commit brings one part with its own rows. Upkeep merges many parts into a *run*: a few parts of
//! the same rows, sorted by node and commit, whose row groups are described in tags of the `add`, so
//! that a reader of one series fetches the groups of that series and the part's tail, no more.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use deltalake::kernel::Add;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidelog_core::{CommitVersion, NodeId, WriteTime};

use crate::error::Error;
use crate::hash::Hash128;
use crate::inline::Inline;
use crate::loaded::LoadedSeries;
use crate::row::Row;
use crate::schema::{STATS_COLUMNS, column};

const TAG_HASH: &str = "tidelog.hash";
const TAG_FAMILIES: &str = "tidelog.families";
const TAG_RUN: &str = "tidelog.run";
const TAG_GROUPS: &str = "tidelog.groups";
const TAG_TAIL: &str = "tidelog.tail";

/// Where log rows lie, and what can be skipped without reading them.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) object: String,
    pub(crate) size: u64,
    pub(crate) rows: u64,
    pub(crate) hash: Hash128,
    pub(crate) families: Families,
    /// The first and last commit that it has rows of.
    pub(crate) commits: (CommitVersion, CommitVersion),
    /// The run that it belongs to, if upkeep has made it, and its place there.
    pub(crate) run: Option<String>,
    pub(crate) place: usize,
    pub(crate) layout: Option<Layout>,
    /// Its rows, if they came inside their commit and are still likely to be merged.
    pub(crate) inline: Option<Inline>,
    nodes: Option<(String, String)>,
    paths: Option<(String, String)>,
    add: Arc<Add>,
}

/// The kinds of rows in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Families {
    /// Tree or store rows, which every reader needs.
    pub(crate) shared: bool,
    /// Version or file rows, which a reader of their series needs.
    pub(crate) series: bool,
    /// Rows that only a reader of the whole log needs.
    pub(crate) history: bool,
}

/// Where the row groups of a merged part lie.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) groups: Vec<Group>,
    pub(crate) tail: Extent,
}

/// One row group of a merged part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The first and last node that it has rows of.
    pub(crate) first: String,
    pub(crate) last: String,
    #[serde(flatten)]
    pub(crate) extent: Extent,
}

/// A stretch of an object, and the hash of its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) hash: String,
}

impl Extent {
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length
    }

    pub(crate) fn of(range: Range<u64>, object: &[u8]) -> Option<Self> {
        let start = usize::try_from(range.start).ok()?;
        let end = usize::try_from(range.end).ok()?;
        let hash = Hash128::of(object.get(start..end)?).to_string();
        Some(Self { offset: range.start, length: range.end - range.start, hash })
    }

    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.length && Hash128::of(bytes).to_string() == self.hash
    }
}

impl Part {
    /// Whether rows of the series `node` may be here.
    pub(crate) fn may_hold(&self, node: NodeId) -> bool {
        self.families.series && self.spans(node)
    }

    /// Whether rows of the series may be here, also those that only tell of what has gone.
    pub(crate) fn may_have_held(&self, node: NodeId) -> bool {
        (self.families.series || self.families.history) && self.spans(node)
    }

    /// Whether a merge has set its rows aside, which only tell of what has gone: they are no part of a run.
    pub(crate) fn is_aside(&self) -> bool {
        let Families { shared, series, history } = self.families;
        history && !shared && !series && self.run.is_some()
    }

    fn spans(&self, node: NodeId) -> bool {
        let node = node.to_string();
        self.nodes.as_ref().is_none_or(|(min, max)| *min <= node && node <= *max)
    }

    /// Whether there are rows that a state with these series in memory must apply at once.
    pub(crate) fn is_needed(&self, loaded: &LoadedSeries) -> bool {
        self.families.shared || loaded.nodes().any(|node| self.may_hold(node))
    }

    /// Whether rows with this path may be here.
    pub(crate) fn may_name(&self, path: &str) -> bool {
        self.paths.as_ref().is_none_or(|(min, max)| min.as_str() <= path && path <= max.as_str())
    }

    /// Whether its rows were in the log before it was.
    pub(crate) fn is_merged(&self) -> bool {
        !self.add.data_change
    }

    /// The action that made it part of the log.
    pub(crate) fn add(&self) -> &Add {
        &self.add
    }

    /// Whether both are told in the same words.
    pub(crate) fn has_same_add(&self, other: &Self) -> bool {
        let words = |part: &Self| serde_json::to_value(part.add()).unwrap_or_default();
        words(self) == words(other)
    }

    /// Reads an `add` action.
    pub(crate) fn from_add(add: Add) -> Result<Self, String> {
        let tag = |name: &str| add.tags.as_ref()?.get(name)?.as_deref();
        let hash = tag(TAG_HASH).ok_or("an add has no hash")?;
        let families = tag(TAG_FAMILIES).ok_or("an add does not tell its kinds of rows")?;
        let stats: Value = serde_json::from_str(add.stats.as_deref().unwrap_or("null"))
            .map_err(|error| format!("statistics are no JSON: {error}"))?;
        let bound = |which: &str, column: &str| Some(stats[which][column].as_str()?.to_owned());
        let range = |column| bound("minValues", column).zip(bound("maxValues", column));
        let commit = |which: &str| {
            let number = stats[which][column::COMMIT_VERSION].as_i64();
            number.map(CommitVersion::new).ok_or("an add does not tell the commits of its rows")
        };
        let run = tag(TAG_RUN).and_then(|run| run.split_once('/'));
        Ok(Self {
            object: add.path.clone(),
            size: u64::try_from(add.size).map_err(|_| "an add has a negative size")?,
            rows: stats["numRecords"].as_u64().ok_or("an add has no row count")?,
            hash: hash.parse().map_err(|_| format!("{hash:?} is no hash"))?,
            families: Families::parse(families),
            commits: (commit("minValues")?, commit("maxValues")?),
            run: run.map(|(run, _)| run.to_owned()),
            place: run.and_then(|(_, place)| place.parse().ok()).unwrap_or_default(),
            layout: Layout::from_tags(tag(TAG_GROUPS), tag(TAG_TAIL))?,
            inline: None,
            nodes: range(column::NODE_ID),
            paths: range(column::PATH),
            add: Arc::new(add),
        })
    }
}

impl Families {
    fn parse(text: &str) -> Self {
        let has = |names: &[&str]| text.split(',').any(|family| names.contains(&family));
        Self {
            shared: has(&["tree", "store"]),
            series: has(&["version", "file"]),
            history: has(&["history"]),
        }
    }
}

impl Layout {
    fn from_tags(groups: Option<&str>, tail: Option<&str>) -> Result<Option<Self>, String> {
        let (Some(groups), Some(tail)) = (groups, tail) else { return Ok(None) };
        let fail = |error: serde_json::Error| format!("the row groups of an add: {error}");
        let groups = serde_json::from_str(groups).map_err(fail)?;
        Ok(Some(Self { groups, tail: serde_json::from_str(tail).map_err(fail)? }))
    }
}

/// What is told about a part in its `add` besides what its batch shows.
#[derive(Debug)]
pub(crate) struct Described<'a> {
    pub(crate) object: &'a str,
    pub(crate) bytes: &'a [u8],
    /// The kinds of rows, comma-separated.
    pub(crate) families: &'a str,
    pub(crate) statistics: Value,
    pub(crate) now: WriteTime,
    /// The run that it belongs to, and its place there, if it only holds rows that the log has.
    pub(crate) run: Option<(&'a str, usize)>,
    pub(crate) layout: Option<Layout>,
}

/// The `add` action for a part.
pub(crate) fn add_action(part: Described<'_>) -> Result<Add, Error> {
    let mut tags = HashMap::from([
        (TAG_HASH.to_owned(), Some(Hash128::of(part.bytes).to_string())),
        (TAG_FAMILIES.to_owned(), Some(part.families.to_owned())),
    ]);
    if let Some((run, place)) = part.run {
        tags.insert(TAG_RUN.to_owned(), Some(format!("{run}/{place}")));
    }
    if let Some(layout) = part.layout {
        let json = |value: serde_json::Result<String>| value.map(Some).map_err(Error::encode);
        tags.insert(TAG_GROUPS.to_owned(), json(serde_json::to_string(&layout.groups))?);
        tags.insert(TAG_TAIL.to_owned(), json(serde_json::to_string(&layout.tail))?);
    }
    Ok(Add {
        path: part.object.to_owned(),
        size: i64::try_from(part.bytes.len()).map_err(Error::encode)?,
        modification_time: part.now.micros().div_euclid(1000),
        data_change: part.run.is_none(),
        stats: Some(part.statistics.to_string()),
        tags: Some(tags),
        ..Add::default()
    })
}

/// The kinds of `rows`, comma-separated.
pub(crate) fn families(rows: &[Row]) -> String {
    let mut families: Vec<&str> = rows.iter().map(family).collect();
    families.sort_unstable();
    families.dedup();
    families.join(",")
}

pub(crate) fn family(row: &Row) -> &'static str {
    match row {
        Row::Tree(_) => "tree",
        Row::Store(_) => "store",
        Row::Version(_) => "version",
        Row::File(_) => "file",
    }
}

/// The statistics of a part that holds these batches.
pub(crate) fn statistics(batches: &[RecordBatch]) -> Value {
    let (mut mins, mut maxs, mut nulls) = (Map::new(), Map::new(), Map::new());
    for name in STATS_COLUMNS {
        let columns: Vec<&ArrayRef> =
            batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
        let null_count: usize = columns.iter().map(|column| column.null_count()).sum();
        nulls.insert(name.to_owned(), json!(null_count));
        let bounds = columns.into_iter().filter_map(bounds);
        if let Some((min, max)) = bounds.reduce(|(a, b), (c, d)| (a.min(c), b.max(d))) {
            mins.insert(name.to_owned(), min.json(false));
            maxs.insert(name.to_owned(), max.json(true));
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    json!({ "numRecords": rows, "minValues": mins, "maxValues": maxs, "nullCount": nulls })
}

/// A bound of a column, before it is rounded for Delta.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Text(String),
    Number(i64),
    Micros(i64),
}

impl Bound {
    /// Delta statistics hold milliseconds: rounded outwards, so that nothing is skipped.
    fn json(self, upper: bool) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Micros(micros) => {
                let up = i64::from(upper && micros.rem_euclid(1000) != 0);
                let millis = micros.div_euclid(1000) + up;
                json!(WriteTime::from_micros(millis * 1000).to_string())
            }
        }
    }
}

fn bounds(array: &ArrayRef) -> Option<(Bound, Bound)> {
    match array.data_type() {
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            let text = |text: &str| Bound::Text(text.to_owned());
            Some((text(min_string(array)?), text(max_string(array)?)))
        }
        DataType::Int64 => {
            let array = array.as_primitive::<Int64Type>();
            Some((Bound::Number(min(array)?), Bound::Number(max(array)?)))
        }
        DataType::Timestamp(..) => {
            let array = array.as_primitive::<TimestampMicrosecondType>();
            Some((Bound::Micros(min(array)?), Bound::Micros(max(array)?)))
        }
        _ => None,
    }
}
