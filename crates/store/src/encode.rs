//! Prepared rows as an immutable Parquet file, with all that the log keeps of it.
//!
//! Encoding and codec of each column are chosen from a sample of its values: few distinct values
//! are kept as a dictionary under LZ4, other integers and times as deltas, other floats as split byte
//! streams, both under zstd. A zstd context is made for every column chunk that is read and costs more
//! than decompressing a small or dictionary-coded chunk, which zstd shrinks little beyond LZ4.
//!
//! Parquet has no checksum of its own, so the log row carries one short hash per page, one of the
//! tail (page index and footer) and one of the whole: a reader checks every byte it uses.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef, UInt8Type, UInt16Type,
    UInt32Type,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tidelog_core::{
    CommitVersion, EventTime, FileId, NodeId, TimeRange, TreePath, Version, WriteTime,
};
use tidelog_oplog::{ColumnStats, FileOp, FileOrder, FileRow, Hash128, StatValue, Until};

use crate::error::Error;
use crate::hot::memory_of;
use crate::names::DATA_DIRECTORY;
use crate::pages::PageTable;
use crate::prepare::PreparedRows;
use crate::series_schema::{SeriesSchema, UNTIL_COLUMN, VERSION_COLUMN, time_values};

const ZSTD_LEVEL: i32 = 3;
const ROW_GROUP_ROWS: usize = 131_072;
const PAGE_ROWS: usize = 16_384;
/// Files of an append are cut, at a change of event time, at about this many rows.
const FILE_ROWS_MAX: usize = 4 * 1024 * 1024;
/// Text bounds longer than this are left out of the log.
const TEXT_BOUND_BYTES_MAX: usize = 64;
const SAMPLE_VALUES: usize = 1024;
/// Below this many rows a column chunk is too small for zstd to pay.
const ZSTD_FROM_ROWS: usize = 8192;

/// A data file in memory and what the log will say of it.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    pub(crate) bytes: Bytes,
    pub(crate) metadata: Arc<ParquetMetaData>,
    pub(crate) pages: Arc<PageTable>,
    pub(crate) rows: u64,
    pub(crate) row_groups: u32,
    pub(crate) range: TimeRange,
    pub(crate) hash: Hash128,
    pub(crate) tail_length: u64,
    pub(crate) tail_hash: Hash128,
    pub(crate) page_hashes: Bytes,
    pub(crate) column_stats: Bytes,
    pub(crate) min_version: i64,
    pub(crate) max_version: i64,
    pub(crate) unique: bool,
    /// Of a file of replaced rows, the lowest and the highest version that replaced one.
    pub(crate) until: Option<(i64, i64)>,
}

impl EncodedFile {
    /// The log row of the file under a name of its own, of a series whose versions are counted from
    /// 0.
    pub(crate) fn row(&self, id: FileId, path: &TreePath, node: NodeId) -> FileRow {
        FileRow {
            op: FileOp::Add,
            file: id,
            node,
            path: path.clone(),
            timestamp: WriteTime::default(),
            location: format!("{DATA_DIRECTORY}/{node}/{id}.parquet").into(),
            size: self.bytes.len() as u64,
            rows: self.rows,
            row_groups: self.row_groups,
            tail_length: self.tail_length,
            hash: self.hash,
            tail_hash: self.tail_hash,
            page_hashes: self.page_hashes.clone(),
            range: self.range,
            min_version: Version::new(self.min_version),
            max_version: Version::new(self.max_version),
            version_base: 0,
            partition: None,
            order: FileOrder::Time,
            until: self.until.map(|(first, last)| Until::Each {
                first: Version::new(first),
                last: Version::new(last),
            }),
            unique: self.unique,
            column_stats: self.column_stats.clone(),
            commit: CommitVersion::default(),
        }
    }
}

/// Encodes prepared rows as one file, or several if there are very many.
pub(crate) fn encode(
    path: &TreePath,
    schema: &SeriesSchema,
    prepared: &PreparedRows,
) -> Result<Vec<EncodedFile>, Error> {
    let times = prepared.times.values();
    let mut files = Vec::new();
    let mut start = 0;
    while start < times.len() {
        let mut end = times.len().min(start + FILE_ROWS_MAX);
        // Rows of one event time stay together, so that ties are ordered inside one file.
        while end < times.len() && times[end] == times[end - 1] {
            end += 1;
        }
        let rows = PreparedRows {
            batch: prepared.batch.slice(start, end - start),
            times: prepared.times.slice(start, end - start),
            versions: Vec::new(),
            unique: prepared.unique,
        };
        let style = Style::of(rows.batch.columns(), std::slice::from_ref(&rows.batch));
        let mut file = FileWriter::try_new(path, schema, schema.stored_columns(), &style)?;
        file.write(&rows)?;
        files.push(file.finish()?);
        start = end;
    }
    Ok(files)
}

/// Encodes parts of one series that follow one another, no two of which share an event time, as one
/// file, or several if there are very many rows. A part is let go of before the next is asked for.
pub(crate) fn encode_parts(
    path: &TreePath,
    schema: &SeriesSchema,
    style: &Style,
    parts: impl Iterator<Item = Result<PreparedRows, Error>>,
) -> Result<Vec<EncodedFile>, Error> {
    let mut files = Vec::new();
    let mut open: Option<FileWriter> = None;
    for part in parts {
        let mut file = match open.take() {
            Some(file) => file,
            None => FileWriter::try_new(path, schema, schema.stored_columns(), style)?,
        };
        file.write(&part?)?;
        if file.rows >= FILE_ROWS_MAX as u64 {
            files.push(file.finish()?);
        } else {
            open = Some(file);
        }
    }
    files.extend(open.map(FileWriter::finish).transpose()?);
    Ok(files)
}

/// How the columns of a file are written: chosen before its rows are.
pub(crate) struct Style {
    properties: Result<WriterProperties, String>,
    /// Bytes that the file takes, about.
    estimate: usize,
}

impl Style {
    /// For the rows that `pieces` hold together; `sample` shows a selection of each column. None of
    /// a dictionary column is needed.
    pub(crate) fn of(sample: &[ArrayRef], pieces: &[RecordBatch]) -> Self {
        let rows = pieces.iter().map(RecordBatch::num_rows).sum();
        let schema = pieces.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let holds_nan = |column: usize| pieces.iter().any(|piece| holds_nan(piece.column(column)));
        let properties = properties(sample, &schema, rows, holds_nan);
        Self {
            properties: properties.map_err(|error| error.to_string()),
            estimate: pieces.iter().map(memory_of).sum::<usize>() / 2 + 16 * 1024,
        }
    }

    /// For about `rows` rows in `bytes` bytes of a file, which come one part after the other and have
    /// these `columns`; `may_hold_nan` tells the columns in which there may be a NaN.
    pub(crate) fn of_stream(
        sample: &[ArrayRef],
        columns: &Schema,
        rows: usize,
        bytes: usize,
        may_hold_nan: impl Fn(usize) -> bool,
    ) -> Self {
        let properties = properties(sample, columns, rows, may_hold_nan);
        Self {
            properties: properties.map_err(|error| error.to_string()),
            estimate: bytes + bytes / 8 + 16 * 1024,
        }
    }
}

/// A file that is being written, in memory.
pub(crate) struct FileWriter {
    path: TreePath,
    schema: SeriesSchema,
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    /// The first and last event time, and the first and last version.
    times: Option<(i64, i64)>,
    versions: Option<(i64, i64)>,
    until: Option<(i64, i64)>,
    stats: Vec<GatheredStats>,
    unique: bool,
}

impl FileWriter {
    /// A file with the columns of the series as stored, or those of replaced rows.
    pub(crate) fn try_new(
        path: &TreePath,
        schema: &SeriesSchema,
        columns: SchemaRef,
        style: &Style,
    ) -> Result<Self, Error> {
        let fail = |reason: String| Error::Encode { path: path.clone(), reason };
        let buffer = Vec::with_capacity(style.estimate);
        let properties = style.properties.clone().map_err(fail)?;
        let writer = ArrowWriter::try_new(buffer, columns, Some(properties));
        let writer = writer.map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            path: path.clone(),
            schema: schema.clone(),
            writer,
            rows: 0,
            times: None,
            versions: None,
            until: None,
            stats: Vec::new(),
            unique: true,
        })
    }

    /// Bytes that the file has already, about.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends a row group that has become so large.
    pub(crate) fn end_row_group_beyond(&mut self, bytes: usize) -> Result<(), Error> {
        if self.writer.in_progress_size() < bytes {
            return Ok(());
        }
        self.writer.flush().map_err(|error| self.fail(error))
    }

    fn fail(&self, reason: impl ToString) -> Error {
        Error::Encode { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Adds rows that follow those before.
    pub(crate) fn write(&mut self, part: &PreparedRows) -> Result<(), Error> {
        let batch = &part.batch;
        self.writer.write(batch).map_err(|error| self.fail(error))?;
        let times = part.times.values();
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
        let columns = self.schema.columns().fields().len();
        let Some((columns, hidden)) = batch.columns().split_at_checked(columns) else {
            return Err(self.fail("columns are missing"));
        };
        self.rows += batch.num_rows() as u64;
        self.times = Some((self.times.map_or(*first, |(first, _)| first), *last));
        if let Some(numbers) = hidden.first() {
            stretch(&mut self.versions, numbers);
        }
        if let Some(numbers) = hidden.get(1) {
            stretch(&mut self.until, numbers);
        }
        self.stats.resize_with(columns.len(), GatheredStats::default);
        for (stats, column) in self.stats.iter_mut().zip(columns) {
            stats.add(column);
        }
        self.unique &= part.unique;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<EncodedFile, Error> {
        let Self { path, schema, writer, rows, times, versions, until, stats, unique } = self;
        let fail = |reason: String| Error::Encode { path: path.clone(), reason };
        let bytes = writer.into_inner().map_err(|error| fail(error.to_string()))?;
        let (bytes, metadata) = parsed(bytes).map_err(|error| fail(error.to_string()))?;
        let pages = PageTable::of_file(&metadata, &bytes)
            .ok_or_else(|| fail("its page index is incomplete".to_owned()))?;
        let tail = bytes.slice(pages.data_end()..);
        let time = |value| {
            EventTime::from_unit(value, schema.time_unit())
                .ok_or_else(|| fail("an event time is out of range".to_owned()))
        };
        let (first, last) = times.unwrap_or_default();
        let (min_version, max_version) = versions.unwrap_or_default();
        let stats: Vec<ColumnStats> = stats.into_iter().map(GatheredStats::finish).collect();
        Ok(EncodedFile {
            rows,
            row_groups: u32::try_from(metadata.num_row_groups()).unwrap_or(u32::MAX),
            range: TimeRange::try_new(time(first)?, time(last)?).map_err(Error::Time)?,
            hash: Hash128::of(&bytes),
            tail_length: tail.len() as u64,
            tail_hash: Hash128::of(&tail),
            page_hashes: pages.encode_hashes(),
            column_stats: ColumnStats::encode_all(&stats).into(),
            min_version,
            max_version,
            unique,
            until,
            pages: Arc::new(pages),
            metadata: Arc::new(metadata),
            bytes,
        })
    }
}

/// Makes bounds hold the numbers of a column too.
fn stretch(bounds: &mut Option<(i64, i64)>, numbers: &ArrayRef) {
    let numbers = numbers.as_primitive::<Int64Type>();
    let least = arrow::compute::min(numbers).unwrap_or_default();
    let greatest = arrow::compute::max(numbers).unwrap_or_default();
    let (low, high) = bounds.unwrap_or((least, greatest));
    *bounds = Some((low.min(least), high.max(greatest)));
}

fn parsed(bytes: Vec<u8>) -> Result<(Bytes, ParquetMetaData), parquet::errors::ParquetError> {
    let bytes = Bytes::from(bytes);
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&bytes)?;
    Ok((bytes, reader.finish()?))
}

fn properties(
    sample: &[ArrayRef],
    schema: &Schema,
    rows: usize,
    holds_nan: impl Fn(usize) -> bool,
) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_created_by(concat!("tidelog ", env!("CARGO_PKG_VERSION")).to_owned());
    for (index, (field, column)) in schema.fields().iter().zip(sample).enumerate() {
        builder = choose_encoding(builder, field.name(), column, rows);
        if holds_nan(index) {
            // Parquet leaves NaN out of its bounds, but it compares as the greatest value: a page
            // would be skipped that has rows to show.
            let path = ColumnPath::from(field.name().as_str());
            builder = builder.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
    }
    Ok(builder.build())
}

fn holds_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float16 => {
            column.as_primitive::<Float16Type>().iter().flatten().any(|value| value.is_nan())
        }
        _ => false,
    }
}

fn choose_encoding(
    builder: WriterPropertiesBuilder,
    name: &str,
    column: &ArrayRef,
    rows: usize,
) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(name);
    let repeats = repeats(column);
    let builder = if repeats || rows < ZSTD_FROM_ROWS {
        builder.set_column_compression(path.clone(), Compression::LZ4_RAW)
    } else {
        builder
    };
    if [VERSION_COLUMN, UNTIL_COLUMN].contains(&name) {
        return builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    let plain = match column.data_type() {
        DataType::Float32 | DataType::Float64 => Encoding::BYTE_STREAM_SPLIT,
        data_type if data_type.is_integer() || time_values(column).is_some() => {
            Encoding::DELTA_BINARY_PACKED
        }
        _ => return builder,
    };
    if repeats {
        return builder;
    }
    builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, plain)
}

/// Whether a sample of the column has few distinct values, so that a dictionary pays.
fn repeats(column: &ArrayRef) -> bool {
    fn distinct<T: ArrowPrimitiveType>(
        column: &ArrayRef,
        bits: impl Fn(T::Native) -> u64,
    ) -> usize {
        let values = column.as_primitive::<T>().values();
        let step = (values.len() / SAMPLE_VALUES).max(1);
        values.iter().step_by(step).map(|value| bits(*value)).collect::<HashSet<_>>().len()
    }
    let sampled = column.len().div_ceil((column.len() / SAMPLE_VALUES).max(1));
    let distinct = match column.data_type() {
        DataType::Float64 => distinct::<Float64Type>(column, f64::to_bits),
        DataType::Float32 => distinct::<Float32Type>(column, |v| u64::from(v.to_bits())),
        DataType::Utf8 => distinct_texts(column.as_string::<i32>().iter()),
        DataType::LargeUtf8 => distinct_texts(column.as_string::<i64>().iter()),
        DataType::Utf8View => distinct_texts(column.as_string_view().iter()),
        DataType::Dictionary(..) | DataType::Boolean => return true,
        _ => match integers(column) {
            Some(values) => {
                distinct::<Int64Type>(&(Arc::new(values) as ArrayRef), i64::cast_unsigned)
            }
            None => return false,
        },
    };
    distinct * 2 <= sampled
}

fn distinct_texts<'a>(
    values: impl DoubleEndedIterator<Item = Option<&'a str>> + ExactSizeIterator,
) -> usize {
    let step = (values.len() / SAMPLE_VALUES).max(1);
    values.step_by(step).collect::<HashSet<_>>().len()
}

/// An integer, date or time column as 64-bit integers.
fn integers(column: &ArrayRef) -> Option<arrow::array::Int64Array> {
    fn widen<T: ArrowPrimitiveType>(column: &ArrayRef) -> arrow::array::Int64Array
    where
        i64: From<T::Native>,
    {
        column.as_primitive::<T>().unary::<_, Int64Type>(i64::from)
    }
    match column.data_type() {
        DataType::Int8 => Some(widen::<Int8Type>(column)),
        DataType::Int16 => Some(widen::<Int16Type>(column)),
        DataType::Int32 => Some(widen::<Int32Type>(column)),
        DataType::UInt8 => Some(widen::<UInt8Type>(column)),
        DataType::UInt16 => Some(widen::<UInt16Type>(column)),
        DataType::UInt32 => Some(widen::<UInt32Type>(column)),
        DataType::Date32 => Some(widen::<Date32Type>(column)),
        DataType::Date64 => Some(widen::<Date64Type>(column)),
        _ => time_values(column),
    }
}

/// Statistics of a column that comes in parts.
#[derive(Debug, Default)]
struct GatheredStats {
    nulls: u64,
    bounds: Option<(StatValue, StatValue)>,
    /// Whether a part with values had no bounds.
    doubtful: bool,
}

impl GatheredStats {
    fn add(&mut self, column: &ArrayRef) {
        let ColumnStats { nulls, bounds } = column_stats(column);
        self.nulls += nulls;
        match (bounds, self.bounds.take()) {
            (None, known) => {
                self.doubtful |= nulls < column.len() as u64;
                self.bounds = known;
            }
            (new, None) => self.bounds = new,
            (Some((min, max)), Some((low, high))) => {
                let min = if is_less(&min, &low) { min } else { low };
                let max = if is_less(&high, &max) { max } else { high };
                self.bounds = Some((min, max));
            }
        }
    }

    fn finish(self) -> ColumnStats {
        ColumnStats { nulls: self.nulls, bounds: self.bounds.filter(|_| !self.doubtful) }
    }
}

/// Whether one bound of a column is less than another of it, floats in IEEE total order.
fn is_less(a: &StatValue, b: &StatValue) -> bool {
    match (a, b) {
        (StatValue::Int(a), StatValue::Int(b)) => a < b,
        (StatValue::Float(a), StatValue::Float(b)) => a.total_cmp(b).is_lt(),
        (StatValue::Text(a), StatValue::Text(b)) => a < b,
        _ => false,
    }
}

/// Null count and exact bounds of a column; no bounds where they could be doubted.
pub(crate) fn column_stats(column: &ArrayRef) -> ColumnStats {
    ColumnStats { nulls: column.logical_null_count() as u64, bounds: column_bounds(column) }
}

fn column_bounds(column: &ArrayRef) -> Option<(StatValue, StatValue)> {
    if let Some(values) = integers(column) {
        let (min, max) = (arrow::compute::min(&values)?, arrow::compute::max(&values)?);
        return Some((StatValue::Int(min), StatValue::Int(max)));
    }
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            let min = arrow::compute::min_boolean(values)?;
            let max = arrow::compute::max_boolean(values)?;
            Some((StatValue::Int(i64::from(min)), StatValue::Int(i64::from(max))))
        }
        DataType::Float64 => float_bounds(column.as_primitive::<Float64Type>().iter().flatten()),
        DataType::Float32 => {
            float_bounds(column.as_primitive::<Float32Type>().iter().flatten().map(f64::from))
        }
        DataType::Utf8 => text_bounds(
            arrow::compute::min_string(column.as_string::<i32>())?,
            arrow::compute::max_string(column.as_string::<i32>())?,
        ),
        DataType::LargeUtf8 => text_bounds(
            arrow::compute::min_string(column.as_string::<i64>())?,
            arrow::compute::max_string(column.as_string::<i64>())?,
        ),
        DataType::Utf8View => text_bounds(
            arrow::compute::min_string_view(column.as_string_view())?,
            arrow::compute::max_string_view(column.as_string_view())?,
        ),
        _ => None,
    }
}

/// Bounds in IEEE total order; none if there is a NaN, whose place engines disagree about.
fn float_bounds(values: impl Iterator<Item = f64>) -> Option<(StatValue, StatValue)> {
    let mut bounds: Option<(f64, f64)> = None;
    for value in values {
        if value.is_nan() {
            return None;
        }
        let (min, max) = bounds.unwrap_or((value, value));
        bounds = Some((
            if value.total_cmp(&min).is_lt() { value } else { min },
            if value.total_cmp(&max).is_gt() { value } else { max },
        ));
    }
    bounds.map(|(min, max)| (StatValue::Float(min), StatValue::Float(max)))
}

fn text_bounds(min: &str, max: &str) -> Option<(StatValue, StatValue)> {
    (min.len() <= TEXT_BOUND_BYTES_MAX && max.len() <= TEXT_BOUND_BYTES_MAX)
        .then(|| (StatValue::Text(min.into()), StatValue::Text(max.into())))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use proptest::prelude::*;

    use super::*;

    fn columns() -> impl Strategy<Value = ArrayRef> {
        let ints = prop::collection::vec(prop::option::of(-5..5_i64), 0..40)
            .prop_map(|values| Arc::new(arrow::array::Int64Array::from(values)) as ArrayRef);
        let float = prop_oneof![8 => -2.0..2.0_f64, 1 => Just(-0.0), 1 => Just(f64::NAN)];
        let floats = prop::collection::vec(prop::option::of(float), 0..40)
            .prop_map(|values| Arc::new(arrow::array::Float64Array::from(values)) as ArrayRef);
        let text = prop_oneof![8 => "[a-c]{0,3}", 1 => Just("x".repeat(TEXT_BOUND_BYTES_MAX + 1))];
        let texts = prop::collection::vec(prop::option::of(text), 0..40)
            .prop_map(|values| Arc::new(StringArray::from(values)) as ArrayRef);
        prop_oneof![ints, floats, texts]
    }

    proptest! {
        /// A part may say less only where a long text lies between the bounds of all.
        #[test]
        fn statistics_of_parts_are_those_of_the_whole(column in columns(), cuts in prop::collection::vec(0..40_usize, 0..4)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(column.len())).collect();
            cuts.extend([0, column.len()]);
            cuts.sort_unstable();
            let mut gathered = GatheredStats::default();
            for pair in cuts.windows(2) {
                gathered.add(&column.slice(pair[0], pair[1] - pair[0]));
            }
            let (found, whole) = (gathered.finish(), column_stats(&column));
            prop_assert_eq!(found.nulls, whole.nulls);
            let said_less = found.bounds.is_none() && column.data_type() == &DataType::Utf8;
            let same = format!("{found:?}") == format!("{whole:?}");
            prop_assert!(said_less || same, "{:?} {:?}", found, whole);
        }
    }
}
