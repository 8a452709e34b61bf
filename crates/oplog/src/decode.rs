//! Parquet, or the JSON inside commits, as log rows.
//!
//! A `kind` or `op` that is not known is a newer format and refused. All bytes have been checked
//! against their hash before they come here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tidelog_core::{
    CommitVersion, FileId, NodeId, PathError, SnapshotName, TimeRange, TransactionId, TreePath,
    Version, WriteTime,
};
use uuid::Uuid;

use crate::encode::{
    ADD, CLAIM, DROP_SNAPSHOT, HORIZON, RELEASE, REMOVE, SNAPSHOT, TAKE_OVER, VACUUM,
};
use crate::epoch;
use crate::error::Error;
use crate::history::Horizon;
use crate::layout::{Codec, FileOrder, ROW_GROUP_ROWS};
use crate::options::SeriesOptions;
use crate::part::Extent;
use crate::row::{
    EntryType, FileOp, FileRow, Row, StoreOp, StoreRow, TreeOp, TreeRow, Until, VersionOp,
    VersionRow,
};
use crate::schema::column;
use crate::wide_row::{Columns, Text, WideRow, array};

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

/// Nodes whose rows are wanted, as the log writes them, in order. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Wanted(Arc<[String]>);

impl Wanted {
    pub(crate) fn new(nodes: &[NodeId]) -> Self {
        let mut nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
        nodes.sort_unstable();
        Self(nodes.into())
    }

    /// Whether one of them is not before `first` and not after `last`.
    pub(crate) fn lie_within(&self, first: &str, last: &str) -> bool {
        let from = self.0.partition_point(|node| node.as_str() < first);
        self.0.get(from).is_some_and(|node| node.as_str() <= last)
    }

    fn contain(&self, node: &str) -> bool {
        self.0.binary_search_by(|wanted| wanted.as_str().cmp(node)).is_ok()
    }
}

/// Decodes those rows of a part, whose hash has been checked, that are about the nodes.
pub(crate) fn from_parquet_of(
    object: &str,
    bytes: Bytes,
    nodes: &Wanted,
) -> Result<Vec<Row>, Error> {
    let batches = batches(object, bytes)?.into_iter();
    let batches = batches.map(|batch| rows_about(object, &batch, nodes));
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

/// Decodes those rows of some row groups that are about the nodes. `tail` is the end of the part.
pub(crate) fn groups_of(
    object: &str,
    tail: Extent,
    tail_bytes: Bytes,
    groups: Groups,
    nodes: &Wanted,
) -> Result<Vec<Row>, Error> {
    let batches = read_groups(object, tail, tail_bytes, groups)?.into_iter();
    let batches = batches.map(|batch| rows_about(object, &batch, nodes));
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

fn rows_about(object: &str, batch: &RecordBatch, wanted: &Wanted) -> Result<RecordBatch, Error> {
    let nodes = array::<StringArray>(object, batch, column::NODE_ID)?;
    let about = match &*wanted.0 {
        [node] => eq(nodes, &StringArray::new_scalar(node)).map_err(|e| Error::part(object, e))?,
        _ => nodes.iter().map(|node| Some(node.is_some_and(|node| wanted.contain(node)))).collect(),
    };
    filter_record_batch(batch, &about).map_err(|e| Error::part(object, e))
}

/// The rows of batches that have the log's schema.
pub(crate) fn rows_in(object: &str, batches: Vec<RecordBatch>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    let mut shared = Shared::default();
    for batch in batches {
        let columns = Columns::of(object, &batch)?;
        for row in 0..batch.num_rows() {
            rows.push(Decoder { object, wide: columns.row(row) }.row(&mut shared)?);
        }
    }
    Ok(rows)
}

/// The rows of lines of JSON, as Arrow writes a batch of the log's schema.
pub(crate) fn from_json_lines(object: &str, text: &str) -> Result<Vec<Row>, Error> {
    let mut shared = Shared::default();
    let mut row = |line: &str| {
        let wide = serde_json::from_str(line).map_err(|error| Error::part(object, error))?;
        Decoder { object, wide }.row(&mut shared)
    };
    text.lines().filter(|line| !line.is_empty()).map(&mut row).collect()
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

/// A row of the log that lies in an object.
struct Decoder<'a> {
    object: &'a str,
    wide: WideRow<'a>,
}

impl Decoder<'_> {
    fn row(&self, shared: &mut Shared) -> Result<Row, Error> {
        match self.wide.kind.as_str() {
            "tree" => self.tree(shared).map(Row::Tree),
            "store" => self.store(shared).map(Row::Store),
            "version" => self.version(shared).map(Row::Version),
            "file" => self.file(shared).map(Row::File),
            kind => Err(Error::NewerFormat { what: format!("rows of kind {kind:?}") }),
        }
    }

    fn store(&self, shared: &mut Shared) -> Result<StoreRow, Error> {
        let (timestamp, commit) = self.when();
        let detail = || self.present("detail", text(&self.wide.detail));
        let name = || SnapshotName::parse(detail()?).map_err(|e| self.damaged(e));
        let op = match self.wide.op.as_str() {
            VACUUM => StoreOp::Vacuum {
                objects: serde_json::from_str(detail()?).map_err(|e| self.damaged(e))?,
            },
            CLAIM => {
                StoreOp::Claim(epoch::decode(detail()?, timestamp).map_err(|e| self.damaged(e))?)
            }
            RELEASE => StoreOp::Release(Uuid::try_parse(detail()?).map_err(|e| self.damaged(e))?),
            TAKE_OVER => StoreOp::TakeOver(
                epoch::decode_take_over(detail()?, timestamp).map_err(|e| self.damaged(e))?,
            ),
            SNAPSHOT => StoreOp::Snapshot(name()?),
            DROP_SNAPSHOT => StoreOp::DropSnapshot(name()?),
            HORIZON => StoreOp::Horizon(Horizon {
                node: self.node()?,
                path: self.tree_path(shared)?,
                first: Version::new(self.number("version", self.wide.version)?),
            }),
            _ => return Err(self.unknown_op()),
        };
        Ok(StoreRow { op, timestamp, commit })
    }

    fn when(&self) -> (WriteTime, CommitVersion) {
        let timestamp = WriteTime::from_micros(self.wide.timestamp);
        (timestamp, CommitVersion::new(self.wide.commit_version))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> Error {
        Error::part(self.object, reason)
    }

    fn unknown_op(&self) -> Error {
        let (kind, op) = (self.wide.kind.as_str(), self.wide.op.as_str());
        Error::NewerFormat { what: format!("the {kind} operation {op:?}") }
    }

    fn present<T>(&self, name: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.damaged(format!("a row has no {name}")))
    }

    fn number(&self, name: &str, value: Option<i64>) -> Result<i64, Error> {
        self.present(name, value)
    }

    fn unsigned(&self, name: &str, value: Option<i64>) -> Result<u64, Error> {
        let value = self.number(name, value)?;
        u64::try_from(value).map_err(|_| self.damaged(format!("{name} {value} is negative")))
    }

    fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        value: &Option<Text<'_>>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Error> {
        let text = self.present(name, text(value))?;
        parse(text).map_err(|error| self.damaged(format!("{name} {text:?}: {error}")))
    }

    fn node(&self) -> Result<NodeId, Error> {
        self.parsed("node_id", &self.wide.node_id, NodeId::parse)
    }

    fn tree_path(&self, shared: &mut Shared) -> Result<TreePath, Error> {
        shared.path(self.present("path", text(&self.wide.path))?).map_err(|e| self.damaged(e))
    }

    fn range(&self) -> Result<Option<TimeRange>, Error> {
        let bounds = self.wide.min_event_time.zip(self.wide.max_event_time);
        let range = bounds.map(|(min, max)| TimeRange::try_new(min, max));
        range.transpose().map_err(|e| self.damaged(e))
    }

    fn tree(&self, shared: &mut Shared) -> Result<TreeRow, Error> {
        let op = match self.wide.op.as_str() {
            "create" => TreeOp::Create,
            "rename" => TreeOp::Rename,
            "delete" => TreeOp::Delete,
            "set" => TreeOp::Set,
            _ => return Err(self.unknown_op()),
        };
        let entry = match text(&self.wide.entry_type) {
            Some("Directory") => EntryType::Directory,
            Some("FileSeries") => EntryType::FileSeries,
            Some("FileData") => EntryType::FileData,
            other => {
                return Err(Error::NewerFormat { what: format!("entries of type {other:?}") });
            }
        };
        let (timestamp, commit) = self.when();
        let schema = self.wide.schema.as_deref();
        Ok(TreeRow {
            op,
            node: self.node()?,
            entry,
            path: self.tree_path(shared)?,
            timestamp,
            schema: schema.map(|bytes| shared.schema(self.object, bytes)).transpose()?,
            options: text(&self.wide.options).map(|text| shared.options(text)).transpose()?,
            commit,
        })
    }

    fn version(&self, shared: &mut Shared) -> Result<VersionRow, Error> {
        let op = match self.wide.op.as_str() {
            "append" => VersionOp::Append,
            "delete" => VersionOp::Delete,
            "replace" => VersionOp::Replace,
            "restore" => VersionOp::Restore,
            _ => return Err(self.unknown_op()),
        };
        let (timestamp, commit) = self.when();
        let time_column = text(&self.wide.event_time_column);
        Ok(VersionRow {
            op,
            node: self.node()?,
            path: self.tree_path(shared)?,
            version: Version::new(self.number("version", self.wide.version)?),
            timestamp,
            rows: self.unsigned("rows", self.wide.rows)?,
            range: self.range()?,
            time_column: shared.text(self.present("event_time_column", time_column)?),
            transaction: self.parsed(
                "transaction_id",
                &self.wide.transaction_id,
                TransactionId::parse,
            )?,
            detail: text(&self.wide.detail).map(Into::into),
            commit,
        })
    }

    fn file(&self, shared: &mut Shared) -> Result<FileRow, Error> {
        let op = match self.wide.op.as_str() {
            ADD => FileOp::Add,
            REMOVE => FileOp::Remove,
            _ => return Err(self.unknown_op()),
        };
        let order = match text(&self.wide.file_order) {
            Some(name) => name.parse::<FileOrder>().ok(),
            None => None,
        };
        let order = order.ok_or_else(|| {
            let found = text(&self.wide.file_order);
            Error::NewerFormat { what: format!("files in order {found:?}") }
        })?;
        let codec = match text(&self.wide.codec) {
            None => Codec::default(),
            Some(name) => name
                .parse()
                .map_err(|error| Error::NewerFormat { what: format!("a file ({error})") })?,
        };
        let row_group_rows = match self.wide.row_group_rows {
            None => ROW_GROUP_ROWS,
            Some(rows) => u32::try_from(rows).map_err(|e| self.damaged(e))?,
        };
        if self.wide.row_offset.is_some() {
            return Err(Error::NewerFormat { what: "files that series share".to_owned() });
        }
        let (timestamp, commit) = self.when();
        let row_groups = self.unsigned("row_groups", self.wide.row_groups)?;
        Ok(FileRow {
            op,
            file: self.parsed("file_id", &self.wide.file_id, FileId::parse)?,
            node: self.node()?,
            path: self.tree_path(shared)?,
            timestamp,
            location: self.present("location", text(&self.wide.location))?.into(),
            size: self.unsigned("size", self.wide.size)?,
            rows: self.unsigned("rows", self.wide.rows)?,
            row_groups: u32::try_from(row_groups).map_err(|e| self.damaged(e))?,
            tail_length: self.unsigned("tail_length", self.wide.tail_length)?,
            hash: self.parsed("hash", &self.wide.hash, FromStr::from_str)?,
            tail_hash: self.parsed("tail_hash", &self.wide.tail_hash, FromStr::from_str)?,
            page_hashes: bytes(&self.wide.page_hashes),
            range: self.present("range of event time", self.range()?)?,
            min_version: Version::new(self.number("min_version", self.wide.min_version)?),
            max_version: Version::new(self.number("max_version", self.wide.max_version)?),
            version_base: self.number("version_base", self.wide.version_base)?,
            partition: text(&self.wide.partition).map(Into::into),
            order,
            until: self.until()?,
            unique: self.wide.unique_rows == Some(true),
            column_stats: bytes(&self.wide.column_stats),
            codec,
            row_group_rows,
            runs: self.wide.sorted_runs.as_deref().unwrap_or_default().into(),
            commit,
        })
    }

    /// Which versions have replaced or deleted the rows of a file, if all of them are.
    fn until(&self) -> Result<Option<Until>, Error> {
        let is_of_each = self.wide.superseded == Some(true);
        if !is_of_each && self.wide.min_until.is_none() && self.wide.max_until.is_none() {
            return Ok(None);
        }
        let first = Version::new(self.number("min_until", self.wide.min_until)?);
        let last = Version::new(self.number("max_until", self.wide.max_until)?);
        match is_of_each {
            true => Ok(Some(Until::Each { first, last })),
            false if first == last => Ok(Some(Until::All(first))),
            false => Err(self.damaged(format!("its rows end with {first} and {last} at once"))),
        }
    }
}

fn text<'a>(value: &'a Option<Text<'_>>) -> Option<&'a str> {
    value.as_ref().map(Text::as_str)
}

fn bytes(value: &Option<Cow<'_, [u8]>>) -> Bytes {
    value.as_deref().map(Bytes::copy_from_slice).unwrap_or_default()
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
