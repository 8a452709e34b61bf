//! Log rows as Parquet, and back.
//!
//! In between stands [`Record`], one wide row with a field per column: each family of rows fills
//! the fields that it has. A `kind` or `op` that is not known is a newer format and refused.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::{Buf, Bytes};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use tidelog_core::{
    CommitVersion, FileId, NodeId, TimeRange, TransactionId, TreePath, Version, WriteTime,
};

use crate::error::Error;
use crate::options::{FileOrder, SeriesOptions};
use crate::part::Extent;
use crate::row::{
    EntryType, FileOp, FileRow, Row, StoreOp, StoreRow, TreeOp, TreeRow, VersionOp, VersionRow,
};
use crate::schema::{column, log_schema};

/// The store operation that announces what is about to be deleted.
pub(crate) const VACUUM: &str = "vacuum";

/// Rows of a row group of a merged part: some hundred kilobytes, fetched whole.
pub(crate) const GROUP_ROWS: usize = 2048;

const BATCH_ROWS: usize = 8192;

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
}

/// Encodes rows as one batch of the log's schema.
pub(crate) fn to_batch(rows: &[Row]) -> Result<RecordBatch, Error> {
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
    ];
    RecordBatch::try_new(log_schema(), columns).map_err(Error::encode)
}

/// The settings of a part with sorted rows, in row groups of [`GROUP_ROWS`].
pub(crate) fn merged_properties() -> Result<WriterProperties, Error> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(Error::encode)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build())
}

/// Encodes a batch of the log's schema as a Parquet object.
pub(crate) fn to_parquet(batch: &RecordBatch) -> Result<Bytes, Error> {
    let compression = if batch.num_rows() < COMPRESS_FROM_ROWS {
        Compression::UNCOMPRESSED
    } else {
        Compression::ZSTD(ZstdLevel::try_new(3).map_err(Error::encode)?)
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

/// Decodes the batches of a part whose hash has been checked.
pub(crate) fn batches(object: &str, bytes: Bytes) -> Result<Vec<RecordBatch>, Error> {
    let fail = |error: &dyn std::fmt::Display| Error::part(object, error);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| fail(&e))?;
    let reader = reader.with_batch_size(BATCH_ROWS).build().map_err(|e| fail(&e))?;
    reader.collect::<Result<_, _>>().map_err(|e| fail(&e))
}

/// Decodes the rows of a part whose hash has been checked.
pub(crate) fn from_parquet(object: &str, bytes: Bytes) -> Result<Vec<Row>, Error> {
    rows_in(object, batches(object, bytes)?)
}

/// Decodes those rows of a part, whose hash has been checked, that are about the node.
pub(crate) fn from_parquet_of(object: &str, bytes: Bytes, node: &str) -> Result<Vec<Row>, Error> {
    let batches = batches(object, bytes)?.into_iter();
    let batches = batches.map(|batch| rows_about(object, &batch, node));
    rows_in(object, batches.collect::<Result<_, _>>()?)
}

/// Neighbouring row groups of a merged part.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The number of the first.
    pub(crate) from: usize,
    pub(crate) count: usize,
    /// Where the first begins in the part.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// Decodes those rows of some row groups that are about the node. `tail` is the end of the part.
pub(crate) fn groups_of(
    object: &str,
    tail: Extent,
    tail_bytes: Bytes,
    groups: Groups,
    node: &str,
) -> Result<Vec<Row>, Error> {
    let batches = read_groups(object, tail, tail_bytes, groups)?.into_iter();
    let batches = batches.map(|batch| rows_about(object, &batch, node));
    rows_in(object, batches.collect::<Result<_, _>>()?)
}

/// Decodes some row groups of a merged part.
pub(crate) fn read_groups(
    object: &str,
    tail: Extent,
    tail_bytes: Bytes,
    groups: Groups,
) -> Result<Vec<RecordBatch>, Error> {
    let fail = |error: &dyn std::fmt::Display| Error::part(object, error);
    let wanted = (groups.from..groups.from + groups.count).collect();
    let parts = [(groups.offset, groups.bytes), (tail.offset, tail_bytes)];
    let bytes = SparseBytes { length: tail.range().end, parts };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| fail(&e))?;
    let reader = reader.with_row_groups(wanted).with_batch_size(BATCH_ROWS);
    let reader = reader.build().map_err(|e| fail(&e))?;
    reader.collect::<Result<_, _>>().map_err(|e| fail(&e))
}

fn rows_about(object: &str, batch: &RecordBatch, node: &str) -> Result<RecordBatch, Error> {
    let columns = Columns { object, batch };
    let nodes = columns.array::<StringArray>(column::NODE_ID)?;
    let about = eq(nodes, &StringArray::new_scalar(node)).map_err(|e| Error::part(object, e))?;
    filter_record_batch(batch, &about).map_err(|e| Error::part(object, e))
}

fn rows_in(object: &str, batches: Vec<RecordBatch>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    let mut shared = Shared::default();
    for batch in batches {
        let columns = Columns { object, batch: &batch };
        for record in columns.records()? {
            rows.push(record.into_row(object, &mut shared)?);
        }
    }
    Ok(rows)
}

/// Values that many rows have in common, decoded once.
#[derive(Debug, Default)]
struct Shared {
    schemas: HashMap<Vec<u8>, SchemaRef>,
    options: HashMap<String, Arc<SeriesOptions>>,
    texts: HashMap<String, Arc<str>>,
    path: Option<(String, TreePath)>,
}

impl Shared {
    fn schema(&mut self, object: &str, bytes: Vec<u8>) -> Result<SchemaRef, Error> {
        if let Some(known) = self.schemas.get(&bytes) {
            return Ok(Arc::clone(known));
        }
        let schema = decode_schema(object, &bytes)?;
        self.schemas.insert(bytes, Arc::clone(&schema));
        Ok(schema)
    }

    fn options(&mut self, text: String) -> Result<Arc<SeriesOptions>, Error> {
        if let Some(known) = self.options.get(&text) {
            return Ok(Arc::clone(known));
        }
        let options = decode_options(&text)?;
        self.options.insert(text, Arc::clone(&options));
        Ok(options)
    }

    fn text(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(&text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.as_str().into();
        self.texts.insert(text, Arc::clone(&shared));
        shared
    }

    /// Rows of one series follow one another, mostly with the same path.
    fn path(&mut self, object: &str, text: Option<&str>) -> Result<TreePath, Error> {
        match &self.path {
            Some((known, path)) if Some(known.as_str()) == text => Ok(path.clone()),
            _ => {
                let path = parsed(object, "path", text, TreePath::parse)?;
                self.path = text.map(|text| (text.to_owned(), path.clone()));
                Ok(path)
            }
        }
    }
}

/// Some stretches of an object, of which no other bytes are known.
struct SparseBytes {
    length: u64,
    parts: [(u64, Bytes); 2],
}

impl SparseBytes {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let found = self.parts.iter().find_map(|(offset, bytes)| {
            let at = usize::try_from(start.checked_sub(*offset)?).ok()?;
            (at < bytes.len()).then(|| bytes.slice(at..))
        });
        found.ok_or_else(|| ParquetError::EOF(format!("byte {start} was not fetched")))
    }
}

impl Length for SparseBytes {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for SparseBytes {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let rest = self.from(start)?;
        let short = || ParquetError::EOF(format!("{length} bytes at {start} were not fetched"));
        if rest.len() < length { Err(short()) } else { Ok(rest.slice(..length)) }
    }
}

struct Columns<'a> {
    object: &'a str,
    batch: &'a RecordBatch,
}

impl Columns<'_> {
    fn array<'b, A: Array + 'static>(&'b self, name: &str) -> Result<&'b A, Error> {
        let array = self.batch.column_by_name(name);
        array.and_then(|array| array.as_any().downcast_ref()).ok_or_else(|| {
            Error::part(self.object, format!("column {name} is missing or of another type"))
        })
    }

    fn fill<T>(
        &self,
        records: &mut [Record],
        name: &str,
        get: impl Fn(&ArrayRef, usize) -> T,
        set: impl Fn(&mut Record, T),
    ) -> Result<(), Error> {
        let array = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| Error::part(self.object, format!("column {name} is missing")))?;
        for (index, record) in records.iter_mut().enumerate() {
            if array.is_valid(index) {
                set(record, get(array, index));
            }
        }
        Ok(())
    }

    fn texts(
        &self,
        records: &mut [Record],
        name: &str,
        set: fn(&mut Record, String),
    ) -> Result<(), Error> {
        self.array::<StringArray>(name)?;
        self.fill(records, name, |a, i| a.as_string::<i32>().value(i).to_owned(), set)
    }

    fn longs(
        &self,
        records: &mut [Record],
        name: &str,
        set: fn(&mut Record, i64),
    ) -> Result<(), Error> {
        self.array::<Int64Array>(name)?;
        self.fill(records, name, |a, i| a.as_primitive::<Int64Type>().value(i), set)
    }

    fn binaries(
        &self,
        records: &mut [Record],
        name: &str,
        set: fn(&mut Record, Vec<u8>),
    ) -> Result<(), Error> {
        self.array::<BinaryArray>(name)?;
        self.fill(records, name, |a, i| a.as_binary::<i32>().value(i).to_vec(), set)
    }

    fn booleans(
        &self,
        records: &mut [Record],
        name: &str,
        set: fn(&mut Record, bool),
    ) -> Result<(), Error> {
        self.array::<BooleanArray>(name)?;
        self.fill(records, name, |a, i| a.as_boolean().value(i), set)
    }

    fn records(&self) -> Result<Vec<Record>, Error> {
        let mut records = vec![Record::default(); self.batch.num_rows()];
        let r = records.as_mut_slice();
        self.array::<TimestampMicrosecondArray>(column::TIMESTAMP)?;
        self.fill(
            r,
            column::TIMESTAMP,
            |a, i| a.as_primitive::<TimestampMicrosecondType>().value(i),
            |r, v| r.timestamp = v,
        )?;
        self.longs(r, column::COMMIT_VERSION, |r, v| r.commit_version = v)?;
        self.texts(r, column::KIND, |r, v| r.kind = v)?;
        self.texts(r, column::OP, |r, v| r.op = v)?;
        self.texts(r, column::ENTRY_TYPE, |r, v| r.entry_type = Some(v))?;
        self.texts(r, column::NODE_ID, |r, v| r.node_id = Some(v))?;
        self.texts(r, column::PATH, |r, v| r.path = Some(v))?;
        self.longs(r, column::VERSION, |r, v| r.version = Some(v))?;
        self.longs(r, column::MIN_EVENT_TIME, |r, v| r.min_event_time = Some(v))?;
        self.longs(r, column::MAX_EVENT_TIME, |r, v| r.max_event_time = Some(v))?;
        self.texts(r, column::EVENT_TIME_COLUMN, |r, v| r.event_time_column = Some(v))?;
        self.longs(r, column::ROWS, |r, v| r.rows = Some(v))?;
        self.texts(r, column::TRANSACTION_ID, |r, v| r.transaction_id = Some(v))?;
        self.binaries(r, column::SCHEMA, |r, v| r.schema = Some(v))?;
        self.texts(r, column::OPTIONS, |r, v| r.options = Some(v))?;
        self.texts(r, column::DETAIL, |r, v| r.detail = Some(v))?;
        self.file_fields(r)?;
        Ok(records)
    }

    fn file_fields(&self, r: &mut [Record]) -> Result<(), Error> {
        self.texts(r, column::FILE_ID, |r, v| r.file_id = Some(v))?;
        self.texts(r, column::LOCATION, |r, v| r.location = Some(v))?;
        self.longs(r, column::SIZE, |r, v| r.size = Some(v))?;
        self.longs(r, column::ROW_GROUPS, |r, v| r.row_groups = Some(v))?;
        self.longs(r, column::ROW_OFFSET, |r, v| r.row_offset = Some(v))?;
        self.longs(r, column::TAIL_LENGTH, |r, v| r.tail_length = Some(v))?;
        self.texts(r, column::HASH, |r, v| r.hash = Some(v))?;
        self.texts(r, column::TAIL_HASH, |r, v| r.tail_hash = Some(v))?;
        self.binaries(r, column::PAGE_HASHES, |r, v| r.page_hashes = Some(v))?;
        self.longs(r, column::MIN_VERSION, |r, v| r.min_version = Some(v))?;
        self.longs(r, column::MAX_VERSION, |r, v| r.max_version = Some(v))?;
        self.longs(r, column::VERSION_BASE, |r, v| r.version_base = Some(v))?;
        self.texts(r, column::PARTITION, |r, v| r.partition = Some(v))?;
        self.texts(r, column::FILE_ORDER, |r, v| r.file_order = Some(v))?;
        self.booleans(r, column::SUPERSEDED, |r, v| r.superseded = Some(v))?;
        self.booleans(r, column::UNIQUE, |r, v| r.unique = Some(v))?;
        self.longs(r, column::MIN_UNTIL, |r, v| r.min_until = Some(v))?;
        self.longs(r, column::MAX_UNTIL, |r, v| r.max_until = Some(v))?;
        self.binaries(r, column::COLUMN_STATS, |r, v| r.column_stats = Some(v))
    }
}

impl Record {
    fn from_row(row: &Row) -> Result<Self, Error> {
        match row {
            Row::Tree(row) => Self::from_tree(row),
            Row::Store(row) => {
                let StoreOp::Vacuum { objects } = &row.op;
                let detail = serde_json::to_string(objects).map_err(Error::encode)?;
                Ok(Self {
                    commit_version: row.commit.number(),
                    kind: "store".to_owned(),
                    op: VACUUM.to_owned(),
                    timestamp: row.timestamp.micros(),
                    detail: Some(detail),
                    ..Self::default()
                })
            }
            Row::Version(row) => Ok(Self::from_version(row)),
            Row::File(row) => Self::from_file(row),
        }
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
            ..Self::default()
        }
    }

    fn from_file(row: &FileRow) -> Result<Self, Error> {
        let signed = |value: u64| i64::try_from(value).map(Some).map_err(Error::encode);
        let op = match row.op {
            FileOp::Add => "add",
            FileOp::Remove => "remove",
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
            file_order: Some(order_name(row.order).to_owned()),
            superseded: Some(row.superseded),
            unique: Some(row.unique),
            column_stats: Some(row.column_stats.to_vec()),
            ..Self::default()
        })
    }

    fn into_row(self, object: &str, shared: &mut Shared) -> Result<Row, Error> {
        let timestamp = WriteTime::from_micros(self.timestamp);
        let commit = CommitVersion::new(self.commit_version);
        match self.kind.as_str() {
            "tree" => self.into_tree(object, shared, timestamp, commit).map(Row::Tree),
            "store" if self.op == VACUUM => {
                let detail = present(object, "detail", self.detail)?;
                let objects = serde_json::from_str(&detail).map_err(|e| Error::part(object, e))?;
                Ok(Row::Store(StoreRow { op: StoreOp::Vacuum { objects }, timestamp, commit }))
            }
            "store" => Err(self.unknown_op()),
            "version" => self.into_version(object, shared, timestamp, commit).map(Row::Version),
            "file" => self.into_file(object, shared, timestamp, commit).map(Row::File),
            kind => Err(Error::NewerFormat { what: format!("rows of kind {kind:?}") }),
        }
    }

    fn unknown_op(&self) -> Error {
        Error::NewerFormat { what: format!("the {} operation {:?}", self.kind, self.op) }
    }

    fn into_tree(
        self,
        object: &str,
        shared: &mut Shared,
        timestamp: WriteTime,
        commit: CommitVersion,
    ) -> Result<TreeRow, Error> {
        let op = match self.op.as_str() {
            "create" => TreeOp::Create,
            "rename" => TreeOp::Rename,
            "delete" => TreeOp::Delete,
            "set" => TreeOp::Set,
            _ => return Err(self.unknown_op()),
        };
        let entry = match self.entry_type.as_deref() {
            Some("Directory") => EntryType::Directory,
            Some("FileSeries") => EntryType::FileSeries,
            Some("FileData") => EntryType::FileData,
            other => {
                return Err(Error::NewerFormat { what: format!("entries of type {other:?}") });
            }
        };
        let options = self.options.map(|text| shared.options(text)).transpose()?;
        Ok(TreeRow {
            op,
            node: parsed(object, "node_id", self.node_id.as_deref(), NodeId::parse)?,
            entry,
            path: shared.path(object, self.path.as_deref())?,
            timestamp,
            schema: self.schema.map(|bytes| shared.schema(object, bytes)).transpose()?,
            options,
            commit,
        })
    }

    fn into_version(
        self,
        object: &str,
        shared: &mut Shared,
        timestamp: WriteTime,
        commit: CommitVersion,
    ) -> Result<VersionRow, Error> {
        let op = match self.op.as_str() {
            "append" => VersionOp::Append,
            "delete" => VersionOp::Delete,
            "replace" => VersionOp::Replace,
            "restore" => VersionOp::Restore,
            _ => return Err(self.unknown_op()),
        };
        let range = match (self.min_event_time, self.max_event_time) {
            (Some(min), Some(max)) => {
                Some(TimeRange::try_new(min, max).map_err(|e| Error::part(object, e))?)
            }
            _ => None,
        };
        let transaction = self.transaction_id.as_deref();
        Ok(VersionRow {
            op,
            node: parsed(object, "node_id", self.node_id.as_deref(), NodeId::parse)?,
            path: shared.path(object, self.path.as_deref())?,
            version: Version::new(present(object, "version", self.version)?),
            timestamp,
            rows: unsigned(object, "rows", self.rows)?,
            range,
            time_column: shared.text(present(object, "event_time_column", self.event_time_column)?),
            transaction: parsed(object, "transaction_id", transaction, TransactionId::parse)?,
            commit,
        })
    }

    fn into_file(
        self,
        object: &str,
        shared: &mut Shared,
        timestamp: WriteTime,
        commit: CommitVersion,
    ) -> Result<FileRow, Error> {
        let op = match self.op.as_str() {
            "add" => FileOp::Add,
            "remove" => FileOp::Remove,
            _ => return Err(self.unknown_op()),
        };
        let order = match self.file_order.as_deref() {
            Some("time") => FileOrder::Time,
            other => return Err(Error::NewerFormat { what: format!("files in order {other:?}") }),
        };
        if self.row_offset.is_some() || self.min_until.is_some() || self.superseded == Some(true) {
            return Err(Error::NewerFormat { what: "shared or superseded files".to_owned() });
        }
        let min = present(object, "min_event_time", self.min_event_time)?;
        let max = present(object, "max_event_time", self.max_event_time)?;
        let row_groups = unsigned(object, "row_groups", self.row_groups)?;
        Ok(FileRow {
            op,
            file: parsed(object, "file_id", self.file_id.as_deref(), FileId::parse)?,
            node: parsed(object, "node_id", self.node_id.as_deref(), NodeId::parse)?,
            path: shared.path(object, self.path.as_deref())?,
            timestamp,
            location: present(object, "location", self.location)?.into(),
            size: unsigned(object, "size", self.size)?,
            rows: unsigned(object, "rows", self.rows)?,
            row_groups: u32::try_from(row_groups).map_err(|e| Error::part(object, e))?,
            tail_length: unsigned(object, "tail_length", self.tail_length)?,
            hash: parsed(object, "hash", self.hash.as_deref(), FromStr::from_str)?,
            tail_hash: parsed(object, "tail_hash", self.tail_hash.as_deref(), FromStr::from_str)?,
            page_hashes: self.page_hashes.unwrap_or_default().into(),
            range: TimeRange::try_new(min, max).map_err(|e| Error::part(object, e))?,
            min_version: Version::new(present(object, "min_version", self.min_version)?),
            max_version: Version::new(present(object, "max_version", self.max_version)?),
            version_base: present(object, "version_base", self.version_base)?,
            partition: self.partition.map(Into::into),
            order,
            superseded: false,
            unique: self.unique.unwrap_or(false),
            column_stats: self.column_stats.unwrap_or_default().into(),
            commit,
        })
    }
}

fn present<T>(object: &str, name: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::part(object, format!("a row has no {name}")))
}

fn unsigned(object: &str, name: &str, value: Option<i64>) -> Result<u64, Error> {
    let value = present(object, name, value)?;
    u64::try_from(value).map_err(|_| Error::part(object, format!("{name} {value} is negative")))
}

fn parsed<T, E: std::fmt::Display>(
    object: &str,
    name: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<T, Error> {
    let text = present(object, name, text)?;
    parse(text).map_err(|error| Error::part(object, format!("{name} {text:?}: {error}")))
}

fn decode_options(text: &str) -> Result<Arc<SeriesOptions>, Error> {
    serde_json::from_str(text)
        .map(Arc::new)
        .map_err(|error| Error::NewerFormat { what: format!("series options ({error})") })
}

const fn entry_name(entry: EntryType) -> &'static str {
    match entry {
        EntryType::Directory => "Directory",
        EntryType::FileSeries => "FileSeries",
        EntryType::FileData => "FileData",
    }
}

const fn order_name(order: FileOrder) -> &'static str {
    match order {
        FileOrder::Time => "time",
    }
}

/// An Arrow schema as an IPC stream without batches.
fn encode_schema(schema: &SchemaRef) -> Result<Vec<u8>, Error> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(Error::encode)?;
    writer.finish().map_err(Error::encode)?;
    writer.into_inner().map_err(Error::encode)
}

fn decode_schema(object: &str, bytes: &[u8]) -> Result<SchemaRef, Error> {
    let reader = StreamReader::try_new(bytes, None).map_err(|e| Error::part(object, e))?;
    Ok(reader.schema())
}
