//! The row groups of a file and the latest event time of each.

use std::cmp::Reverse;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::error::Result;
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::file::metadata::ParquetMetaData;

use crate::scan::files::ScanFile;

/// A row group that is to be read.
pub(super) struct RowGroup {
    pub(super) file: ScanFile,
    pub(super) index: usize,
    /// How many row groups its file has.
    pub(super) of: usize,
    /// No row is later, in units of the table's time column.
    pub(super) bound: i64,
    /// None of a piece in memory, which is one row group.
    pub(super) metadata: Option<Arc<ParquetMetaData>>,
    /// A reader that may hold bytes of the file already.
    pub(super) reader: Option<Box<dyn AsyncFileReader + Send>>,
}

/// The time column of a table.
pub(super) struct TimeOf<'a> {
    pub(super) table: &'a SchemaRef,
    pub(super) column: &'a str,
}

/// The row groups of a file, the newest first.
pub(super) async fn newest_first(
    file: &ScanFile,
    time: TimeOf<'_>,
    mut reader: Box<dyn AsyncFileReader + Send>,
) -> Result<Vec<RowGroup>> {
    let metadata = reader.get_metadata(None).await?;
    let bounds = bounds(file, &time, &metadata)?;
    let mut order: Vec<(usize, i64)> = bounds.into_iter().enumerate().collect();
    order.sort_by_key(|(index, bound)| Reverse((*bound, *index)));
    let (of, mut reader) = (order.len(), Some(reader));
    let groups = order.into_iter().map(|(index, bound)| RowGroup {
        file: file.clone(),
        index,
        of,
        bound,
        metadata: Some(Arc::clone(&metadata)),
        reader: reader.take(),
    });
    Ok(groups.collect())
}

/// A piece in memory as a row group.
pub(super) fn of_piece(file: ScanFile, time: &TimeOf<'_>) -> Result<RowGroup> {
    let bound = bound(&file, time)?;
    Ok(RowGroup { file, index: 0, of: 1, bound, metadata: None, reader: None })
}

/// No row of `file` is later, as the log knows.
pub(super) fn bound(file: &ScanFile, time: &TimeOf<'_>) -> Result<i64> {
    let index = time.table.index_of(time.column)?;
    let statistics = file.file.statistics.as_ref().map(|s| &s.column_statistics[index]);
    match statistics.and_then(|statistics| statistics.max_value.get_value()) {
        Some(max) => Ok(numbers(&max.to_array()?)?.iter().next().flatten().unwrap_or(i64::MAX)),
        None => Ok(i64::MAX),
    }
}

/// No row of each row group is later.
fn bounds(file: &ScanFile, time: &TimeOf<'_>, metadata: &ParquetMetaData) -> Result<Vec<i64>> {
    let (groups, bound) = (metadata.num_row_groups(), bound(file, time)?);
    let (Some(own), true) = (&file.file.arrow_schema, groups > 1) else {
        return Ok(vec![bound; groups]);
    };
    let parquet = metadata.file_metadata().schema_descr();
    let statistics = StatisticsConverter::try_new(time.column, own, parquet)?;
    let maxes = statistics.row_group_maxes(metadata.row_groups())?;
    let maxes = cast(&maxes, time.table.field_with_name(time.column)?.data_type())?;
    Ok(numbers(&maxes)?.iter().map(|max| max.unwrap_or(bound).min(bound)).collect())
}

/// Times as numbers of their unit.
pub(super) fn numbers(times: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}
