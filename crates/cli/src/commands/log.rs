//! The history: of the store, or of one series.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use futures::{TryStreamExt, stream};
use serde_json::{Value, json};
use tidelog::{Change, ChangeOptions, SqlPolicy, TimeRange, VersionInfo};

use crate::args::{Globals, LogArgs};
use crate::commands::{open, range_json, range_words, tree_path};
use crate::error::{Error, Result};
use crate::output;
use crate::progress::grouped;

/// All that was done to the tree, to series and to what is kept of the history, in the order of the log.
/// A snapshot's name stands in the place of a path, the first version that can be read in that of a
/// version.
const OPERATIONS: &str = "
    SELECT commit_version AS commit, timestamp, op, entry_type AS type, path,
           NULL AS version, NULL AS rows, NULL AS min_event_time, NULL AS max_event_time,
           NULL AS detail, NULL AS readable
    FROM tidelog.tree
    UNION ALL
    SELECT commit_version, timestamp, op, 'FileSeries', path, version, rows,
           min_event_time, max_event_time, detail, readable
    FROM tidelog.versions
    UNION ALL
    SELECT commit_version, timestamp, op, NULL, coalesce(path, detail), version, NULL, NULL, NULL, NULL, NULL
    FROM tidelog.store WHERE op IN ('snapshot', 'drop-snapshot', 'horizon')
    ORDER BY timestamp";

pub(super) async fn log(globals: &Globals, args: &LogArgs) -> Result<()> {
    if args.follow {
        return follow(globals, args).await;
    }
    let store = open(globals).await?;
    let Some(path) = &args.path else {
        let rows = store.sql_with_policy(OPERATIONS, SqlPolicy::Restricted).await?;
        let schema = rows.schema();
        return output::write_listing(rows, schema, globals.json).await;
    };
    let batch = batch(&store.versions(tree_path(path)).await?)?;
    let schema = batch.schema();
    output::write_listing(stream::iter([Ok(batch)]), schema, globals.json).await
}

/// Shows versions as they land; ends with an error, or when the program does.
async fn follow(globals: &Globals, args: &LogArgs) -> Result<()> {
    let mut options = ChangeOptions::default();
    if let Some(path) = &args.path {
        options = options.with_path(tree_path(path));
    }
    if let Some(commit) = args.since {
        options = options.with_since(commit);
    }
    let mut changes = open(globals).await?.changes(options).await?;
    while let Some(change) = changes.try_next().await? {
        let line =
            if globals.json { change_json(&change).to_string() } else { change_words(&change) };
        output::print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn change_words(change: &Change) -> String {
    let rows = if change.rows == 1 { "row" } else { "rows" };
    let detail = change.detail.as_deref().map(|text| format!("  {text}")).unwrap_or_default();
    format!(
        "{}  commit {}  {}  {} {}, {} {rows}  {}{detail}",
        change.write_time,
        change.commit,
        change.path,
        change.operation,
        change.version,
        grouped(change.rows),
        range_words(change.range)
    )
}

fn change_json(change: &Change) -> Value {
    json!({
        "path": change.path.as_str(),
        "node": change.node.to_string(),
        "version": change.version.number(),
        "op": change.operation,
        "timestamp": change.write_time.to_string(),
        "rows": change.rows,
        "event_times": range_json(change.range),
        "detail": detail_json(change.detail.as_deref()),
        "commit": change.commit.number(),
    })
}

/// What was asked for as a document of its own.
fn detail_json(detail: Option<&str>) -> Value {
    detail.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn batch(versions: &[VersionInfo]) -> Result<RecordBatch> {
    let times = |end: fn(&TimeRange) -> i64| {
        let nanos = versions.iter().map(|info| info.range.as_ref().map(end));
        let times: TimestampNanosecondArray = nanos.collect();
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let numbers = versions.iter().map(|info| info.version.number());
    let written = versions.iter().map(|info| info.write_time.micros());
    let written = TimestampMicrosecondArray::from_iter_values(written).with_timezone("UTC");
    let rows = versions.iter().map(|info| info.rows);
    let ops = versions.iter().map(|info| info.operation);
    let details = versions.iter().map(|info| info.detail.as_deref());
    let readable = versions.iter().map(|info| Some(info.readable)).collect::<BooleanArray>();
    let transactions = versions.iter().map(|info| info.transaction.to_string());
    RecordBatch::try_from_iter([
        ("version", Arc::new(Int64Array::from_iter_values(numbers)) as ArrayRef),
        ("timestamp", Arc::new(written)),
        ("op", Arc::new(StringArray::from_iter_values(ops))),
        ("rows", Arc::new(UInt64Array::from_iter_values(rows))),
        ("min_event_time", times(|range| range.start().nanos())),
        ("max_event_time", times(|range| range.end().nanos())),
        ("detail", Arc::new(details.collect::<StringArray>())),
        ("readable", Arc::new(readable)),
        ("transaction_id", Arc::new(StringArray::from_iter_values(transactions))),
    ])
    .map_err(|error| Error::Internal { message: error.to_string() })
}
