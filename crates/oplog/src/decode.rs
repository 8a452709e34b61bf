//! Parquet as log rows.
//!
//! A `kind` or `op` that is not known is a newer format and refused. All bytes have been checked
//! against their hash before they come here.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tidelog_core::{
    CommitVersion, FileId, NodeId, PathError, TimeRange, TransactionId, TreePath, Version,
    WriteTime,
};
use uuid::Uuid;

use crate::encode::{CLAIM, RELEASE, VACUUM};
use crate::epoch;
use crate::error::Error;
use crate::options::{FileOrder, SeriesOptions};
use crate::part::Extent;
use crate::row::{
    EntryType, FileOp, FileRow, Row, StoreOp, StoreRow, TreeOp, TreeRow, VersionOp, VersionRow,
};
use crate::schema::column;

const BATCH_ROWS: usize = 8192;

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
    let nodes = array::<StringArray>(object, batch, column::NODE_ID)?;
    let about = eq(nodes, &StringArray::new_scalar(node)).map_err(|e| Error::part(object, e))?;
    filter_record_batch(batch, &about).map_err(|e| Error::part(object, e))
}

/// The rows of batches that have the log's schema.
pub(crate) fn rows_in(object: &str, batches: Vec<RecordBatch>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    let mut shared = Shared::default();
    for batch in batches {
        let columns = Columns::of(object, &batch)?;
        for row in 0..batch.num_rows() {
            rows.push(columns.row(row, &mut shared)?);
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
    path: Option<TreePath>,
}

impl Shared {
    fn schema(&mut self, object: &str, bytes: &[u8]) -> Result<SchemaRef, Error> {
        if let Some(known) = self.schemas.get(bytes) {
            return Ok(Arc::clone(known));
        }
        let schema = decode_schema(object, bytes)?;
        self.schemas.insert(bytes.to_vec(), Arc::clone(&schema));
        Ok(schema)
    }

    fn options(&mut self, text: &str) -> Result<Arc<SeriesOptions>, Error> {
        if let Some(known) = self.options.get(text) {
            return Ok(Arc::clone(known));
        }
        let options = decode_options(text)?;
        self.options.insert(text.to_owned(), Arc::clone(&options));
        Ok(options)
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }

    /// Rows of one series follow one another, mostly with the same path.
    fn path(&mut self, text: &str) -> Result<TreePath, PathError> {
        match &self.path {
            Some(known) if known.as_str() == text => Ok(known.clone()),
            _ => {
                let path = TreePath::parse(text)?;
                self.path = Some(path.clone());
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

/// The columns of a batch, each of its type.
struct Columns<'a> {
    object: &'a str,
    commit_version: &'a Int64Array,
    kind: &'a StringArray,
    op: &'a StringArray,
    entry_type: &'a StringArray,
    node_id: &'a StringArray,
    path: &'a StringArray,
    timestamp: &'a TimestampMicrosecondArray,
    version: &'a Int64Array,
    min_event_time: &'a Int64Array,
    max_event_time: &'a Int64Array,
    event_time_column: &'a StringArray,
    rows: &'a Int64Array,
    transaction_id: &'a StringArray,
    schema: &'a BinaryArray,
    options: &'a StringArray,
    detail: &'a StringArray,
    file: FileColumns<'a>,
}

/// The columns of file rows.
struct FileColumns<'a> {
    file_id: &'a StringArray,
    location: &'a StringArray,
    size: &'a Int64Array,
    row_groups: &'a Int64Array,
    row_offset: &'a Int64Array,
    tail_length: &'a Int64Array,
    hash: &'a StringArray,
    tail_hash: &'a StringArray,
    page_hashes: &'a BinaryArray,
    min_version: &'a Int64Array,
    max_version: &'a Int64Array,
    version_base: &'a Int64Array,
    partition: &'a StringArray,
    file_order: &'a StringArray,
    superseded: &'a BooleanArray,
    unique: &'a BooleanArray,
    min_until: &'a Int64Array,
    column_stats: &'a BinaryArray,
}

fn array<'a, A: Array + 'static>(
    object: &str,
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a A, Error> {
    let array = batch.column_by_name(name);
    array
        .and_then(|array| array.as_any().downcast_ref())
        .ok_or_else(|| Error::part(object, format!("column {name} is missing or of another type")))
}

impl<'a> Columns<'a> {
    fn of(object: &'a str, batch: &'a RecordBatch) -> Result<Self, Error> {
        Ok(Self {
            object,
            commit_version: array(object, batch, column::COMMIT_VERSION)?,
            kind: array(object, batch, column::KIND)?,
            op: array(object, batch, column::OP)?,
            entry_type: array(object, batch, column::ENTRY_TYPE)?,
            node_id: array(object, batch, column::NODE_ID)?,
            path: array(object, batch, column::PATH)?,
            timestamp: array(object, batch, column::TIMESTAMP)?,
            version: array(object, batch, column::VERSION)?,
            min_event_time: array(object, batch, column::MIN_EVENT_TIME)?,
            max_event_time: array(object, batch, column::MAX_EVENT_TIME)?,
            event_time_column: array(object, batch, column::EVENT_TIME_COLUMN)?,
            rows: array(object, batch, column::ROWS)?,
            transaction_id: array(object, batch, column::TRANSACTION_ID)?,
            schema: array(object, batch, column::SCHEMA)?,
            options: array(object, batch, column::OPTIONS)?,
            detail: array(object, batch, column::DETAIL)?,
            file: FileColumns::of(object, batch)?,
        })
    }

    fn row(&self, row: usize, shared: &mut Shared) -> Result<Row, Error> {
        match self.kind.value(row) {
            "tree" => self.tree(row, shared).map(Row::Tree),
            "store" => self.store(row).map(Row::Store),
            "version" => self.version(row, shared).map(Row::Version),
            "file" => self.file(row, shared).map(Row::File),
            kind => Err(Error::NewerFormat { what: format!("rows of kind {kind:?}") }),
        }
    }

    fn store(&self, row: usize) -> Result<StoreRow, Error> {
        let detail = self.present("detail", text(self.detail, row))?;
        let (timestamp, commit) = self.when(row);
        let op = match self.op.value(row) {
            VACUUM => StoreOp::Vacuum {
                objects: serde_json::from_str(detail).map_err(|e| self.damaged(e))?,
            },
            CLAIM => StoreOp::Claim(epoch::decode(detail, timestamp).map_err(|e| self.damaged(e))?),
            RELEASE => StoreOp::Release(Uuid::try_parse(detail).map_err(|e| self.damaged(e))?),
            _ => return Err(self.unknown_op(row)),
        };
        Ok(StoreRow { op, timestamp, commit })
    }

    fn when(&self, row: usize) -> (WriteTime, CommitVersion) {
        let timestamp = WriteTime::from_micros(self.timestamp.value(row));
        (timestamp, CommitVersion::new(self.commit_version.value(row)))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Error {
        Error::part(self.object, reason)
    }

    fn unknown_op(&self, row: usize) -> Error {
        let (kind, op) = (self.kind.value(row), self.op.value(row));
        Error::NewerFormat { what: format!("the {kind} operation {op:?}") }
    }

    fn present<T>(&self, name: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.damaged(format!("a row has no {name}")))
    }

    fn number(&self, name: &str, values: &Int64Array, row: usize) -> Result<i64, Error> {
        self.present(name, long(values, row))
    }

    fn unsigned(&self, name: &str, values: &Int64Array, row: usize) -> Result<u64, Error> {
        let value = self.number(name, values, row)?;
        u64::try_from(value).map_err(|_| self.damaged(format!("{name} {value} is negative")))
    }

    fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        values: &StringArray,
        row: usize,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Error> {
        let text = self.present(name, text(values, row))?;
        parse(text).map_err(|error| self.damaged(format!("{name} {text:?}: {error}")))
    }

    fn node(&self, row: usize) -> Result<NodeId, Error> {
        self.parsed("node_id", self.node_id, row, NodeId::parse)
    }

    fn tree_path(&self, row: usize, shared: &mut Shared) -> Result<TreePath, Error> {
        shared.path(self.present("path", text(self.path, row))?).map_err(|e| self.damaged(e))
    }

    fn range(&self, row: usize) -> Result<Option<TimeRange>, Error> {
        let bounds = long(self.min_event_time, row).zip(long(self.max_event_time, row));
        let range = bounds.map(|(min, max)| TimeRange::try_new(min, max));
        range.transpose().map_err(|e| self.damaged(e))
    }

    fn tree(&self, row: usize, shared: &mut Shared) -> Result<TreeRow, Error> {
        let op = match self.op.value(row) {
            "create" => TreeOp::Create,
            "rename" => TreeOp::Rename,
            "delete" => TreeOp::Delete,
            "set" => TreeOp::Set,
            _ => return Err(self.unknown_op(row)),
        };
        let entry = match text(self.entry_type, row) {
            Some("Directory") => EntryType::Directory,
            Some("FileSeries") => EntryType::FileSeries,
            Some("FileData") => EntryType::FileData,
            other => {
                return Err(Error::NewerFormat { what: format!("entries of type {other:?}") });
            }
        };
        let (timestamp, commit) = self.when(row);
        let schema = self.schema.is_valid(row).then(|| self.schema.value(row));
        Ok(TreeRow {
            op,
            node: self.node(row)?,
            entry,
            path: self.tree_path(row, shared)?,
            timestamp,
            schema: schema.map(|bytes| shared.schema(self.object, bytes)).transpose()?,
            options: text(self.options, row).map(|text| shared.options(text)).transpose()?,
            commit,
        })
    }

    fn version(&self, row: usize, shared: &mut Shared) -> Result<VersionRow, Error> {
        let op = match self.op.value(row) {
            "append" => VersionOp::Append,
            "delete" => VersionOp::Delete,
            "replace" => VersionOp::Replace,
            "restore" => VersionOp::Restore,
            _ => return Err(self.unknown_op(row)),
        };
        let (timestamp, commit) = self.when(row);
        let time_column = text(self.event_time_column, row);
        Ok(VersionRow {
            op,
            node: self.node(row)?,
            path: self.tree_path(row, shared)?,
            version: Version::new(self.number("version", self.version, row)?),
            timestamp,
            rows: self.unsigned("rows", self.rows, row)?,
            range: self.range(row)?,
            time_column: shared.text(self.present("event_time_column", time_column)?),
            transaction: self.parsed(
                "transaction_id",
                self.transaction_id,
                row,
                TransactionId::parse,
            )?,
            commit,
        })
    }

    fn file(&self, row: usize, shared: &mut Shared) -> Result<FileRow, Error> {
        let file = &self.file;
        let op = match self.op.value(row) {
            "add" => FileOp::Add,
            "remove" => FileOp::Remove,
            _ => return Err(self.unknown_op(row)),
        };
        let order = match text(file.file_order, row) {
            Some("time") => FileOrder::Time,
            other => return Err(Error::NewerFormat { what: format!("files in order {other:?}") }),
        };
        let superseded = file.superseded.is_valid(row) && file.superseded.value(row);
        if file.row_offset.is_valid(row) || file.min_until.is_valid(row) || superseded {
            return Err(Error::NewerFormat { what: "shared or superseded files".to_owned() });
        }
        let (timestamp, commit) = self.when(row);
        let row_groups = self.unsigned("row_groups", file.row_groups, row)?;
        Ok(FileRow {
            op,
            file: self.parsed("file_id", file.file_id, row, FileId::parse)?,
            node: self.node(row)?,
            path: self.tree_path(row, shared)?,
            timestamp,
            location: self.present("location", text(file.location, row))?.into(),
            size: self.unsigned("size", file.size, row)?,
            rows: self.unsigned("rows", self.rows, row)?,
            row_groups: u32::try_from(row_groups).map_err(|e| self.damaged(e))?,
            tail_length: self.unsigned("tail_length", file.tail_length, row)?,
            hash: self.parsed("hash", file.hash, row, FromStr::from_str)?,
            tail_hash: self.parsed("tail_hash", file.tail_hash, row, FromStr::from_str)?,
            page_hashes: binary(file.page_hashes, row),
            range: self.present("range of event time", self.range(row)?)?,
            min_version: Version::new(self.number("min_version", file.min_version, row)?),
            max_version: Version::new(self.number("max_version", file.max_version, row)?),
            version_base: self.number("version_base", file.version_base, row)?,
            partition: text(file.partition, row).map(Into::into),
            order,
            superseded: false,
            unique: file.unique.is_valid(row) && file.unique.value(row),
            column_stats: binary(file.column_stats, row),
            commit,
        })
    }
}

impl<'a> FileColumns<'a> {
    fn of(object: &str, batch: &'a RecordBatch) -> Result<Self, Error> {
        Ok(Self {
            file_id: array(object, batch, column::FILE_ID)?,
            location: array(object, batch, column::LOCATION)?,
            size: array(object, batch, column::SIZE)?,
            row_groups: array(object, batch, column::ROW_GROUPS)?,
            row_offset: array(object, batch, column::ROW_OFFSET)?,
            tail_length: array(object, batch, column::TAIL_LENGTH)?,
            hash: array(object, batch, column::HASH)?,
            tail_hash: array(object, batch, column::TAIL_HASH)?,
            page_hashes: array(object, batch, column::PAGE_HASHES)?,
            min_version: array(object, batch, column::MIN_VERSION)?,
            max_version: array(object, batch, column::MAX_VERSION)?,
            version_base: array(object, batch, column::VERSION_BASE)?,
            partition: array(object, batch, column::PARTITION)?,
            file_order: array(object, batch, column::FILE_ORDER)?,
            superseded: array(object, batch, column::SUPERSEDED)?,
            unique: array(object, batch, column::UNIQUE)?,
            min_until: array(object, batch, column::MIN_UNTIL)?,
            column_stats: array(object, batch, column::COLUMN_STATS)?,
        })
    }
}

fn text(values: &StringArray, row: usize) -> Option<&str> {
    values.is_valid(row).then(|| values.value(row))
}

fn long(values: &Int64Array, row: usize) -> Option<i64> {
    values.is_valid(row).then(|| values.value(row))
}

fn binary(values: &BinaryArray, row: usize) -> Bytes {
    if values.is_valid(row) { Bytes::copy_from_slice(values.value(row)) } else { Bytes::new() }
}

fn decode_options(text: &str) -> Result<Arc<SeriesOptions>, Error> {
    serde_json::from_str(text)
        .map(Arc::new)
        .map_err(|error| Error::NewerFormat { what: format!("series options ({error})") })
}

fn decode_schema(object: &str, bytes: &[u8]) -> Result<SchemaRef, Error> {
    let reader = StreamReader::try_new(bytes, None).map_err(|e| Error::part(object, e))?;
    Ok(reader.schema())
}
