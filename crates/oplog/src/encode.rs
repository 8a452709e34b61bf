//! Log rows as Parquet.
//!
//! In between stands [`Record`], one wide row with a field per column: each family of rows fills
//! the fields that it has.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::epoch;
use crate::error::Error;
use crate::row::{
    EntryType, FileOp, FileRow, Row, StoreOp, StoreRow, TreeOp, TreeRow, Until, VersionRow,
};
use crate::schema::{column, log_schema};

/// The operations on files.
pub(crate) const ADD: &str = "add";
pub(crate) const REMOVE: &str = "remove";
/// The store operation that announces what is about to be deleted.
pub(crate) const VACUUM: &str = "vacuum";
pub(crate) const CLAIM: &str = "claim";
pub(crate) const RELEASE: &str = "release";
pub(crate) const TAKE_OVER: &str = "take-over";
pub(crate) const SNAPSHOT: &str = "snapshot";
pub(crate) const DROP_SNAPSHOT: &str = "drop-snapshot";
pub(crate) const HORIZON: &str = "horizon";

/// Rows of a row group of a merged part: some hundred kilobytes, fetched whole.
pub(crate) const GROUP_ROWS: usize = 2048;

/// Below this many rows, compression costs more time than the bytes are worth.
const COMPRESS_FROM_ROWS: usize = 32;

/// One wide row of the log table.
#[derive(Debug, Default, Clone)]
struct Record {
    commit_version: i64,
    kind: String,
    op: String,
    entry_type: Option<String>,
    node_id: Option<String>,
    path: Option<String>,
    timestamp: i64,
    version: Option<i64>,
    min_event_time: Option<i64>,
    max_event_time: Option<i64>,
    event_time_column: Option<String>,
    rows: Option<i64>,
    transaction_id: Option<String>,
    schema: Option<Vec<u8>>,
    options: Option<String>,
    detail: Option<String>,
    file_id: Option<String>,
    location: Option<String>,
    size: Option<i64>,
    row_groups: Option<i64>,
    row_offset: Option<i64>,
    tail_length: Option<i64>,
    hash: Option<String>,
    tail_hash: Option<String>,
    page_hashes: Option<Vec<u8>>,
    min_version: Option<i64>,
    max_version: Option<i64>,
    version_base: Option<i64>,
    partition: Option<String>,
    file_order: Option<String>,
    superseded: Option<bool>,
    unique: Option<bool>,
    min_until: Option<i64>,
    max_until: Option<i64>,
    column_stats: Option<Vec<u8>>,
    codec: Option<String>,
    row_group_rows: Option<i64>,
    sorted_runs: Option<Vec<u8>>,
}

/// Encodes rows as one batch of the log's schema.
///
/// # Errors
/// [`Error::Encode`] if they do not fit it.
pub fn to_batch(rows: &[Row]) -> Result<RecordBatch, Error> {
    let records = rows.iter().map(Record::from_row).collect::<Result<Vec<_>, Error>>()?;
    let text = |get: fn(&Record) -> Option<&str>| -> ArrayRef {
        Arc::new(records.iter().map(get).collect::<StringArray>())
    };
    let long = |get: fn(&Record) -> Option<i64>| -> ArrayRef {
        Arc::new(records.iter().map(get).collect::<Int64Array>())
    };
    let binary = |get: fn(&Record) -> Option<&[u8]>| -> ArrayRef {
        Arc::new(records.iter().map(get).collect::<BinaryArray>())
    };
    let boolean = |get: fn(&Record) -> Option<bool>| -> ArrayRef {
        Arc::new(records.iter().map(get).collect::<BooleanArray>())
    };
    let times = records.iter().map(|r| r.timestamp).collect::<Vec<_>>();
    let columns: Vec<ArrayRef> = vec![
        long(|r| Some(r.commit_version)),
        text(|r| Some(&r.kind)),
        text(|r| Some(&r.op)),
        text(|r| r.entry_type.as_deref()),
        text(|r| r.node_id.as_deref()),
        text(|r| r.path.as_deref()),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        long(|r| r.version),
        long(|r| r.min_event_time),
        long(|r| r.max_event_time),
        text(|r| r.event_time_column.as_deref()),
        long(|r| r.rows),
        text(|r| r.transaction_id.as_deref()),
        binary(|r| r.schema.as_deref()),
        text(|r| r.options.as_deref()),
        text(|r| r.detail.as_deref()),
        text(|r| r.file_id.as_deref()),
        text(|r| r.location.as_deref()),
        long(|r| r.size),
        long(|r| r.row_groups),
        long(|r| r.row_offset),
        long(|r| r.tail_length),
        text(|r| r.hash.as_deref()),
        text(|r| r.tail_hash.as_deref()),
        binary(|r| r.page_hashes.as_deref()),
        long(|r| r.min_version),
        long(|r| r.max_version),
        long(|r| r.version_base),
        text(|r| r.partition.as_deref()),
        text(|r| r.file_order.as_deref()),
        boolean(|r| r.superseded),
        boolean(|r| r.unique),
        long(|r| r.min_until),
        long(|r| r.max_until),
        binary(|r| r.column_stats.as_deref()),
        text(|r| r.codec.as_deref()),
        long(|r| r.row_group_rows),
        binary(|r| r.sorted_runs.as_deref()),
    ];
    RecordBatch::try_new(log_schema(), columns).map_err(Error::encode)
}

/// Columns of which each value is another: compressed, for hexadecimal digits take twice the room
/// that they need, and not worth a dictionary.
const UNIQUE_COLUMNS: [&str; 7] = [
    column::TRANSACTION_ID,
    column::FILE_ID,
    column::LOCATION,
    column::HASH,
    column::TAIL_HASH,
    column::PAGE_HASHES,
    column::COLUMN_STATS,
];

/// Columns that mostly grow from row to row.
const GROWING_COLUMNS: [&str; 8] = [
    column::COMMIT_VERSION,
    column::TIMESTAMP,
    column::VERSION,
    column::MIN_EVENT_TIME,
    column::MAX_EVENT_TIME,
    column::MIN_VERSION,
    column::MAX_VERSION,
    column::VERSION_BASE,
];

/// The settings of a part with sorted rows, in row groups of [`GROUP_ROWS`].
///
/// A dictionary or deltas make the other columns so small that a codec would only cost: every
/// column chunk that is read under zstd makes a context.
pub(crate) fn merged_properties() -> Result<WriterProperties, Error> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).map_err(Error::encode)?);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    for name in UNIQUE_COLUMNS {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_compression(path.clone(), zstd)
            .set_column_dictionary_enabled(path, false);
    }
    for name in GROWING_COLUMNS {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// Encodes a batch of the log's schema as a Parquet object: a part that is soon merged, and so rather quick
/// to read than small.
pub(crate) fn to_parquet(batch: &RecordBatch) -> Result<Bytes, Error> {
    let compression = if batch.num_rows() < COMPRESS_FROM_ROWS {
        Compression::UNCOMPRESSED
    } else {
        Compression::LZ4_RAW
    };
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(batch.num_rows() >= COMPRESS_FROM_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build();
    let mut bytes = Vec::with_capacity(8 * 1024);
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))
        .map_err(Error::encode)?;
    writer.write(batch).map_err(Error::encode)?;
    writer.close().map_err(Error::encode)?;
    Ok(bytes.into())
}

impl Record {
    fn from_row(row: &Row) -> Result<Self, Error> {
        match row {
            Row::Tree(row) => Self::from_tree(row),
            Row::Store(row) => Self::from_store(row),
            Row::Version(row) => Ok(Self::from_version(row)),
            Row::File(row) => Self::from_file(row),
        }
    }

    fn from_store(row: &StoreRow) -> Result<Self, Error> {
        let record = Self {
            commit_version: row.commit.number(),
            kind: "store".to_owned(),
            timestamp: row.timestamp.micros(),
            ..Self::default()
        };
        let (op, detail) = match &row.op {
            StoreOp::Vacuum { objects } => (VACUUM, serde_json::to_string(objects)),
            StoreOp::Claim(epoch) => (CLAIM, epoch::encode(epoch)),
            StoreOp::Release(epoch) => (RELEASE, Ok(epoch.to_string())),
            StoreOp::TakeOver(end) => (TAKE_OVER, epoch::encode_take_over(end)),
            StoreOp::Snapshot(name) => (SNAPSHOT, Ok(name.to_string())),
            StoreOp::DropSnapshot(name) => (DROP_SNAPSHOT, Ok(name.to_string())),
            StoreOp::Horizon(horizon) => {
                return Ok(Self {
                    op: HORIZON.to_owned(),
                    node_id: Some(horizon.node.to_string()),
                    path: Some(horizon.path.to_string()),
                    version: Some(horizon.first.number()),
                    ..record
                });
            }
        };
        let detail = Some(detail.map_err(Error::encode)?);
        Ok(Self { op: op.to_owned(), detail, ..record })
    }

    fn from_tree(row: &TreeRow) -> Result<Self, Error> {
        let op = match row.op {
            TreeOp::Create => "create",
            TreeOp::Rename => "rename",
            TreeOp::Delete => "delete",
            TreeOp::Set => "set",
        };
        let options = row.options.as_deref().map(serde_json::to_string).transpose();
        Ok(Self {
            commit_version: row.commit.number(),
            kind: "tree".to_owned(),
            op: op.to_owned(),
            entry_type: Some(entry_name(row.entry).to_owned()),
            node_id: Some(row.node.to_string()),
            path: Some(row.path.to_string()),
            timestamp: row.timestamp.micros(),
            schema: row.schema.as_ref().map(encode_schema).transpose()?,
            options: options.map_err(Error::encode)?,
            ..Self::default()
        })
    }

    fn from_version(row: &VersionRow) -> Self {
        Self {
            commit_version: row.commit.number(),
            kind: "version".to_owned(),
            op: row.op.name().to_owned(),
            entry_type: Some(entry_name(EntryType::FileSeries).to_owned()),
            node_id: Some(row.node.to_string()),
            path: Some(row.path.to_string()),
            timestamp: row.timestamp.micros(),
            version: Some(row.version.number()),
            min_event_time: row.range.map(|range| range.start().nanos()),
            max_event_time: row.range.map(|range| range.end().nanos()),
            event_time_column: Some(row.time_column.to_string()),
            rows: i64::try_from(row.rows).ok(),
            transaction_id: Some(row.transaction.to_string()),
            detail: row.detail.as_deref().map(str::to_owned),
            ..Self::default()
        }
    }

    fn from_file(row: &FileRow) -> Result<Self, Error> {
        let signed = |value: u64| i64::try_from(value).map(Some).map_err(Error::encode);
        let op = match row.op {
            FileOp::Add => ADD,
            FileOp::Remove => REMOVE,
        };
        Ok(Self {
            commit_version: row.commit.number(),
            kind: "file".to_owned(),
            op: op.to_owned(),
            entry_type: Some(entry_name(EntryType::FileSeries).to_owned()),
            node_id: Some(row.node.to_string()),
            path: Some(row.path.to_string()),
            timestamp: row.timestamp.micros(),
            min_event_time: Some(row.range.start().nanos()),
            max_event_time: Some(row.range.end().nanos()),
            rows: signed(row.rows)?,
            file_id: Some(row.file.to_string()),
            location: Some(row.location.to_string()),
            size: signed(row.size)?,
            row_groups: Some(i64::from(row.row_groups)),
            tail_length: signed(row.tail_length)?,
            hash: Some(row.hash.to_string()),
            tail_hash: Some(row.tail_hash.to_string()),
            page_hashes: Some(row.page_hashes.to_vec()),
            min_version: Some(row.min_version.number()),
            max_version: Some(row.max_version.number()),
            version_base: Some(row.version_base),
            partition: row.partition.as_deref().map(str::to_owned),
            file_order: Some(row.order.name().to_owned()),
            superseded: Some(row.until.is_some_and(Until::is_of_each)),
            min_until: row.until.map(|until| until.first().number()),
            max_until: row.until.map(|until| until.last().number()),
            unique: Some(row.unique),
            column_stats: Some(row.column_stats.to_vec()),
            codec: Some(row.codec.to_string()),
            row_group_rows: Some(i64::from(row.row_group_rows)),
            sorted_runs: Some(row.runs.to_vec()).filter(|runs| !runs.is_empty()),
            ..Self::default()
        })
    }
}

const fn entry_name(entry: EntryType) -> &'static str {
    match entry {
        EntryType::Directory => "Directory",
        EntryType::FileSeries => "FileSeries",
        EntryType::FileData => "FileData",
    }
}

/// An Arrow schema as an IPC stream without batches.
fn encode_schema(schema: &SchemaRef) -> Result<Vec<u8>, Error> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(Error::encode)?;
    writer.finish().map_err(Error::encode)?;
    writer.into_inner().map_err(Error::encode)
}
