//! What the write-ahead log keeps of an append: versions with the numbers and times that they are
//! acknowledged with, nodes that they make, and rows.
//!
//! ```text
//! length of the header u32 LE │ header (JSON) │ rows of each series (Arrow IPC streams)
//! ```
//!
//! All series of one atomic append are in one record. Rows are as a file would hold them: checked,
//! sorted, deduplicated, `__version` counted from the first version of the append.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidelog_core::{
    CommitVersion, EventTime, NodeId, TimeRange, TransactionId, TreePath, Version, WriteTime,
};
use tidelog_oplog::{TreeRow, VersionOp, VersionRow, tree_rows};

use crate::error::Error;
use crate::hot::memory_of;

const HEADER_FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Rows of the log that make nodes or fix columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
    appends: Vec<AppendHeader>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AppendHeader {
    node: String,
    path: String,
    time_column: String,
    /// The first version.
    base: i64,
    unique: bool,
    versions: Vec<VersionHeader>,
    /// Bytes of its rows.
    length: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct VersionHeader {
    rows: u64,
    /// Event times, nanoseconds.
    range: Option<(i64, i64)>,
    /// Write time, microseconds.
    time: i64,
    transaction: String,
}

/// The part of a record that is one series'.
#[derive(Debug)]
pub(crate) struct SeriesRecord {
    pub(crate) node: NodeId,
    pub(crate) path: TreePath,
    pub(crate) base: Version,
    pub(crate) unique: bool,
    pub(crate) versions: Vec<VersionRow>,
}

/// A record as read back.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) tree: Vec<TreeRow>,
    pub(crate) series: Vec<(SeriesRecord, RecordBatch)>,
}

/// Rows as an IPC stream.
pub(crate) fn encode_rows(path: &TreePath, batch: &RecordBatch) -> Result<Bytes, Error> {
    let fail = |error: arrow::error::ArrowError| Error::Encode {
        path: path.clone(),
        reason: error.to_string(),
    };
    let estimate = memory_of(batch) + 1024;
    let mut writer =
        StreamWriter::try_new(Vec::with_capacity(estimate), batch.schema_ref()).map_err(fail)?;
    writer.write(batch).map_err(fail)?;
    writer.into_inner().map(Bytes::from).map_err(fail)
}

/// The pieces of a record.
pub(crate) fn encode(
    tree: &[TreeRow],
    series: &[(SeriesRecord, Bytes)],
) -> Result<Vec<Bytes>, Error> {
    let tree = (!tree.is_empty()).then(|| tree_rows::to_json(tree)).transpose()?;
    let appends = series.iter().map(|(record, rows)| header_of(record, rows.len())).collect();
    let header = Header { format: HEADER_FORMAT, tree, appends };
    let mut head = vec![0; 4];
    serde_json::to_writer(&mut head, &header).map_err(|error| Error::Record {
        seq: 0,
        reason: format!("its header cannot be written: {error}"),
    })?;
    let length = u32::try_from(head.len() - 4).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&length.to_le_bytes());
    let rows = series.iter().map(|(_, rows)| rows.clone());
    Ok(std::iter::once(Bytes::from(head)).chain(rows).collect())
}

fn header_of(record: &SeriesRecord, length: usize) -> AppendHeader {
    let versions = record.versions.iter().map(|row| VersionHeader {
        rows: row.rows,
        range: row.range.map(|range| (range.start().nanos(), range.end().nanos())),
        time: row.timestamp.micros(),
        transaction: row.transaction.to_string(),
    });
    AppendHeader {
        node: record.node.to_string(),
        path: record.path.to_string(),
        time_column: record
            .versions
            .first()
            .map(|row| row.time_column.to_string())
            .unwrap_or_default(),
        base: record.base.number(),
        unique: record.unique,
        versions: versions.collect(),
        length,
    }
}

/// Reads a record, whose bytes have been checked.
pub(crate) fn decode(seq: u64, payload: &Bytes) -> Result<Recovered, Error> {
    let fail = |reason: String| Error::Record { seq, reason };
    let length = payload.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    let end = length.and_then(|length| usize::try_from(length).ok()?.checked_add(4));
    let end = end.filter(|end| *end <= payload.len());
    let end = end.ok_or_else(|| fail("it ends within its header".to_owned()))?;
    let header: Header = serde_json::from_slice(&payload[4..end])
        .map_err(|error| fail(format!("its header is none: {error}")))?;
    if header.format > HEADER_FORMAT {
        return Err(fail(format!("it is of format {}; use a newer build", header.format)));
    }
    let tree = header.tree.as_deref().map(tree_rows::from_json).transpose()?.unwrap_or_default();
    let mut series = Vec::with_capacity(header.appends.len());
    let mut at = end;
    for append in header.appends {
        let rows = at.checked_add(append.length).filter(|end| *end <= payload.len());
        let rows = rows.ok_or_else(|| fail("it ends within its rows".to_owned()))?;
        let batch = decode_rows(&payload.slice(at..rows)).map_err(fail)?;
        at = rows;
        series.push((series_of(append).map_err(fail)?, batch));
    }
    Ok(Recovered { tree, series })
}

/// The decoder of Arrow IPC panics on some bytes that are not what it wrote; these are, but for a
/// bug, and a bug must not end the process.
fn decode_rows(bytes: &Bytes) -> Result<RecordBatch, String> {
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut reader =
            StreamReader::try_new(bytes.as_ref(), None).map_err(|error| error.to_string())?;
        let batch = reader.next().ok_or("it has no rows")?.map_err(|error| error.to_string())?;
        if reader.next().is_some() {
            return Err("it has more than one batch of rows".to_owned());
        }
        Ok(batch)
    }));
    decoded.unwrap_or_else(|_| Err("its rows cannot be decoded".to_owned()))
}

fn series_of(append: AppendHeader) -> Result<SeriesRecord, String> {
    let node = NodeId::parse(&append.node).map_err(|error| error.to_string())?;
    let path = TreePath::parse(&append.path).map_err(|error| error.to_string())?;
    let time_column: Arc<str> = append.time_column.into();
    let base = Version::new(append.base);
    let mut version = Version::new(append.base - 1);
    let mut versions = Vec::with_capacity(append.versions.len());
    for header in append.versions {
        version = version.next();
        let range = header.range.map(|(start, end)| {
            TimeRange::try_new(EventTime::from_nanos(start), EventTime::from_nanos(end))
        });
        versions.push(VersionRow {
            op: VersionOp::Append,
            node,
            path: path.clone(),
            version,
            timestamp: WriteTime::from_micros(header.time),
            rows: header.rows,
            range: range.transpose().map_err(|error| error.to_string())?,
            time_column: Arc::clone(&time_column),
            transaction: TransactionId::parse(&header.transaction)
                .map_err(|error| error.to_string())?,
            detail: None,
            commit: CommitVersion::default(),
        });
    }
    Ok(SeriesRecord { node, path, base, unique: append.unique, versions })
}
