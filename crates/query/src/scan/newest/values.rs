//! The values that a column can have within a row group, without decoding the column.
//!
//! A column that is constant over a file is known from the log; of others the dictionary page tells,
//! if all pages of the row group are coded by it.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use datafusion::arrow::array::{
    ArrayRef, Int32Array, Int64Array, StringArray, UInt32Array, new_null_array,
};
use datafusion::arrow::compute::{cast, concat, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::basic::{Encoding, PageType, Type as PhysicalType};
use datafusion::parquet::column::page::{Page, PageReader};
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use datafusion::parquet::file::reader::{ChunkReader, Length};
use datafusion::parquet::file::serialized_reader::SerializedPageReader;
use datafusion::scalar::ScalarValue;

use super::row_groups::RowGroup;

/// The value that all rows of `file` have in `column`, if the log knows that they have but one.
pub(super) fn constant(
    file: &PartitionedFile,
    table: &TableSchema,
    column: &str,
) -> Option<ScalarValue> {
    let partition = table.table_partition_cols().iter().position(|field| field.name() == column);
    if let Some(partition) = partition {
        return file.partition_values.get(partition).cloned();
    }
    let index = table.file_schema().index_of(column).ok()?;
    let data_type = table.file_schema().field(index).data_type();
    if file.arrow_schema.as_ref()?.index_of(column).is_err() {
        return ScalarValue::try_from(data_type).ok();
    }
    let statistics = file.statistics.as_ref()?.column_statistics.get(index)?;
    let exactly = |bound: &datafusion::common::stats::Precision<ScalarValue>| {
        bound.is_exact()?.then(|| bound.get_value().cloned())?
    };
    let (min, max) = (exactly(&statistics.min_value)?, exactly(&statistics.max_value)?);
    let nulls = statistics.null_count.get_value();
    // Zeros of both signs are equal and yet two values.
    let single = min == max && !data_type.is_floating() && nulls == Some(&0);
    single.then_some(min)
}

/// Every key that a row group can hold, as columns, and perhaps more; `None` if that is not known,
/// or they are more than `limit`.
pub(super) async fn keys(
    group: &mut RowGroup,
    reader: &mut (dyn AsyncFileReader + Send),
    table: &TableSchema,
    columns: impl Iterator<Item = (&String, &DataType)> + Send,
    limit: usize,
) -> Result<Option<Vec<ArrayRef>>> {
    let Some(metadata) = group.metadata.clone() else { return Ok(None) };
    let mut all = Vec::new();
    for (column, data_type) in columns {
        let values = match constant(&group.file.file, table, column) {
            Some(constant) => Some(constant.to_array()?),
            None => of_dictionary(reader, &metadata, group.index, column, data_type).await?,
        };
        let Some(values) = values else { return Ok(None) };
        all.push(values);
    }
    combinations(&all, limit)
}

/// All values of `column` in a row group, and perhaps more, as `data_type`; `None` if they can
/// only be learnt from its data pages.
async fn of_dictionary(
    reader: &mut (dyn AsyncFileReader + Send),
    metadata: &ParquetMetaData,
    group: usize,
    column: &str,
    data_type: &DataType,
) -> Result<Option<ArrayRef>> {
    let parquet = metadata.file_metadata().schema_descr();
    let is_it = |leaf: usize| parquet.column(leaf).path().parts() == [column];
    let Some(leaf) = (0..parquet.num_columns()).find(|leaf| is_it(*leaf)) else { return Ok(None) };
    let chunk = metadata.row_group(group).column(leaf);
    let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
    let offsets = metadata.offset_index().and_then(|index| index.get(group)?.get(leaf));
    let (Some(nulls), Some(offsets)) = (nulls, offsets) else { return Ok(None) };
    let (start, _) = chunk.byte_range();
    let first = offsets.page_locations().first().and_then(|page| u64::try_from(page.offset).ok());
    let Some(end) = first.filter(|end| start < *end && is_all_coded(chunk)) else {
        return Ok(None);
    };
    let bytes = Stretch { start, bytes: reader.get_bytes(start..end).await? };
    let locations = Some(offsets.page_locations().clone());
    let rows = usize::try_from(chunk.num_values()).unwrap_or(usize::MAX);
    let mut pages = SerializedPageReader::new(Arc::new(bytes), chunk, rows, locations)?;
    let values = match pages.get_next_page()? {
        Some(Page::DictionaryPage { buf, encoding: Encoding::PLAIN, .. }) => {
            plain(&buf, chunk.column_type(), data_type)
        }
        _ => None,
    };
    let Some(values) = values else { return Ok(None) };
    let values = cast(&values, data_type)?;
    if nulls == 0 {
        return Ok(Some(values));
    }
    Ok(Some(concat(&[&values, &new_null_array(data_type, 1)])?))
}

/// Every combination of values, one of each column; `None` if there are more than `limit`.
fn combinations(columns: &[ArrayRef], limit: usize) -> Result<Option<Vec<ArrayRef>>> {
    let total = columns.iter().try_fold(1_usize, |total, column| total.checked_mul(column.len()));
    let Some(total) = total.filter(|total| *total <= limit) else { return Ok(None) };
    let mut repeats = total;
    let combined = columns.iter().map(|column| {
        let length = column.len().max(1);
        repeats /= length;
        let indices = (0..total).map(|row| u32::try_from(row / repeats.max(1) % length));
        let indices = indices.collect::<std::result::Result<Vec<u32>, _>>();
        let indices = indices.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(take(column, &UInt32Array::from(indices), None)?)
    });
    combined.collect::<Result<Vec<_>>>().map(Some)
}

/// Whether all data pages of a chunk hold codes of its dictionary.
fn is_all_coded(chunk: &ColumnChunkMetaData) -> bool {
    let coded = [Encoding::RLE_DICTIONARY, Encoding::PLAIN_DICTIONARY];
    if let Some(mask) = chunk.page_encoding_stats_mask() {
        return coded.into_iter().any(|encoding| mask.is_only(encoding));
    }
    chunk.page_encoding_stats().is_some_and(|pages| {
        pages.iter().all(|page| {
            page.page_type == PageType::DICTIONARY_PAGE || coded.contains(&page.encoding)
        })
    })
}

/// Plainly encoded values, for the types whose encoding says all about them.
fn plain(bytes: &Bytes, physical: PhysicalType, wanted: &DataType) -> Option<ArrayRef> {
    use DataType as T;
    Some(match (physical, wanted) {
        (PhysicalType::BYTE_ARRAY, T::Utf8 | T::LargeUtf8 | T::Utf8View) => {
            Arc::new(StringArray::from_iter_values(texts(bytes)?))
        }
        (PhysicalType::INT32, T::Int8 | T::Int16 | T::Int32 | T::Int64) => {
            let (words, rest) = bytes.as_chunks::<4>();
            let values = words.iter().map(|word| i32::from_le_bytes(*word));
            rest.is_empty().then(|| Arc::new(Int32Array::from_iter_values(values)))?
        }
        (PhysicalType::INT64, T::Int64) => {
            let (words, rest) = bytes.as_chunks::<8>();
            let values = words.iter().map(|word| i64::from_le_bytes(*word));
            rest.is_empty().then(|| Arc::new(Int64Array::from_iter_values(values)))?
        }
        _ => return None,
    })
}

/// Texts, each behind its length.
fn texts(mut bytes: &[u8]) -> Option<Vec<&str>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (text, rest) = rest.split_at_checked(length)?;
        texts.push(std::str::from_utf8(text).ok()?);
        bytes = rest;
    }
    Some(texts)
}

/// A stretch of a file as a file of which the rest is not there.
struct Stretch {
    start: u64,
    bytes: Bytes,
}

impl Stretch {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let offset = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        match offset.filter(|offset| *offset <= self.bytes.len()) {
            Some(offset) => Ok(self.bytes.slice(offset..)),
            None => Err(ParquetError::General("a dictionary lies elsewhere".to_owned())),
        }
    }
}

impl Length for Stretch {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Stretch {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF("a dictionary is cut short".to_owned()));
        }
        Ok(bytes.split_to(length))
    }
}
