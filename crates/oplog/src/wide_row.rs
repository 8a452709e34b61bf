//! A row of the log table, with a field for each column that is read: what stands between batches,
//! or the JSON inside a commit, and [`Row`](crate::row::Row).

use std::borrow::Cow;

use arrow::array::{
    Array, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tidelog_core::WriteTime;

use crate::error::Error;
use crate::schema::column;

/// Text that is borrowed where it can be.
#[derive(Debug, Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One row. What a column holds is not looked at; the fields are named as the columns are.
#[derive(Debug, Deserialize)]
pub(crate) struct WideRow<'a> {
    pub(crate) commit_version: i64,
    #[serde(borrow)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    pub(crate) op: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) entry_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) node_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) path: Option<Text<'a>>,
    #[serde(deserialize_with = "micros")]
    pub(crate) timestamp: i64,
    pub(crate) version: Option<i64>,
    pub(crate) min_event_time: Option<i64>,
    pub(crate) max_event_time: Option<i64>,
    #[serde(borrow, default)]
    pub(crate) event_time_column: Option<Text<'a>>,
    pub(crate) rows: Option<i64>,
    #[serde(borrow, default)]
    pub(crate) transaction_id: Option<Text<'a>>,
    #[serde(default, deserialize_with = "hexadecimal")]
    pub(crate) schema: Option<Cow<'a, [u8]>>,
    #[serde(borrow, default)]
    pub(crate) options: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) detail: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) file_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) location: Option<Text<'a>>,
    pub(crate) size: Option<i64>,
    pub(crate) row_groups: Option<i64>,
    pub(crate) row_offset: Option<i64>,
    pub(crate) tail_length: Option<i64>,
    #[serde(borrow, default)]
    pub(crate) hash: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) tail_hash: Option<Text<'a>>,
    #[serde(default, deserialize_with = "hexadecimal")]
    pub(crate) page_hashes: Option<Cow<'a, [u8]>>,
    pub(crate) min_version: Option<i64>,
    pub(crate) max_version: Option<i64>,
    pub(crate) version_base: Option<i64>,
    #[serde(borrow, default)]
    pub(crate) partition: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) file_order: Option<Text<'a>>,
    pub(crate) superseded: Option<bool>,
    pub(crate) unique_rows: Option<bool>,
    pub(crate) min_until: Option<i64>,
    pub(crate) max_until: Option<i64>,
    #[serde(default, deserialize_with = "hexadecimal")]
    pub(crate) column_stats: Option<Cow<'a, [u8]>>,
    #[serde(borrow, default)]
    pub(crate) codec: Option<Text<'a>>,
    pub(crate) row_group_rows: Option<i64>,
    #[serde(default, deserialize_with = "hexadecimal")]
    pub(crate) sorted_runs: Option<Cow<'a, [u8]>>,
}

/// Microseconds since 1970 of a time as JSON has it.
fn micros<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = Text::deserialize(deserializer)?;
    WriteTime::parse(text.as_str()).map(WriteTime::micros).map_err(D::Error::custom)
}

/// Bytes that JSON has as hexadecimal digits.
fn hexadecimal<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'static, [u8]>>, D::Error> {
    let Some(text) = Option::<Text<'_>>::deserialize(deserializer)? else { return Ok(None) };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_str().as_bytes().chunks(2).map(pair).collect();
    let bytes = bytes.ok_or_else(|| D::Error::custom("bytes are not in hexadecimal digits"))?;
    Ok(Some(bytes.into()))
}

/// The columns of a batch, each of its type.
pub(crate) struct Columns<'a> {
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
    max_until: &'a Int64Array,
    column_stats: &'a BinaryArray,
    codec: &'a StringArray,
    row_group_rows: &'a Int64Array,
    sorted_runs: &'a BinaryArray,
}

pub(crate) fn array<'a, A: Array + 'static>(
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
    pub(crate) fn of(object: &str, batch: &'a RecordBatch) -> Result<Self, Error> {
        Ok(Self {
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
            max_until: array(object, batch, column::MAX_UNTIL)?,
            column_stats: array(object, batch, column::COLUMN_STATS)?,
            codec: array(object, batch, column::CODEC)?,
            row_group_rows: array(object, batch, column::ROW_GROUP_ROWS)?,
            sorted_runs: array(object, batch, column::SORTED_RUNS)?,
        })
    }

    pub(crate) fn row(&self, row: usize) -> WideRow<'a> {
        WideRow {
            commit_version: self.commit_version.value(row),
            kind: Text(self.kind.value(row).into()),
            op: Text(self.op.value(row).into()),
            entry_type: text(self.entry_type, row),
            node_id: text(self.node_id, row),
            path: text(self.path, row),
            timestamp: self.timestamp.value(row),
            version: long(self.version, row),
            min_event_time: long(self.min_event_time, row),
            max_event_time: long(self.max_event_time, row),
            event_time_column: text(self.event_time_column, row),
            rows: long(self.rows, row),
            transaction_id: text(self.transaction_id, row),
            schema: binary(self.schema, row),
            options: text(self.options, row),
            detail: text(self.detail, row),
            file_id: text(self.file_id, row),
            location: text(self.location, row),
            size: long(self.size, row),
            row_groups: long(self.row_groups, row),
            row_offset: long(self.row_offset, row),
            tail_length: long(self.tail_length, row),
            hash: text(self.hash, row),
            tail_hash: text(self.tail_hash, row),
            page_hashes: binary(self.page_hashes, row),
            min_version: long(self.min_version, row),
            max_version: long(self.max_version, row),
            version_base: long(self.version_base, row),
            partition: text(self.partition, row),
            file_order: text(self.file_order, row),
            superseded: boolean(self.superseded, row),
            unique_rows: boolean(self.unique, row),
            min_until: long(self.min_until, row),
            max_until: long(self.max_until, row),
            column_stats: binary(self.column_stats, row),
            codec: text(self.codec, row),
            row_group_rows: long(self.row_group_rows, row),
            sorted_runs: binary(self.sorted_runs, row),
        }
    }
}

fn text(values: &StringArray, row: usize) -> Option<Text<'_>> {
    values.is_valid(row).then(|| Text(values.value(row).into()))
}

fn long(values: &Int64Array, row: usize) -> Option<i64> {
    values.is_valid(row).then(|| values.value(row))
}

fn binary(values: &BinaryArray, row: usize) -> Option<Cow<'_, [u8]>> {
    values.is_valid(row).then(|| values.value(row).into())
}

fn boolean(values: &BooleanArray, row: usize) -> Option<bool> {
    values.is_valid(row).then(|| values.value(row))
}
