//! Which rows are the newest of their keys.

use std::collections::HashSet;
use std::ops::Range;

use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{SortOptions, interleave_record_batch, take_record_batch};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};

type Result<T> = std::result::Result<T, ArrowError>;

/// So many rows of a piece are looked at at once.
const BLOCK_ROWS: usize = 8192;

/// Candidates of several sources, in the same columns.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// The columns by which rows are told apart.
    pub(super) by: &'a [usize],
    /// The time column.
    pub(super) time: usize,
    /// Of each source at most a row of each key, of later versions from source to source.
    pub(super) batches: Vec<RecordBatch>,
}

impl Candidates<'_> {
    /// The newest row of each key, in order of the keys, nulls last. Of rows with equal times the one of
    /// the last source, and within one the last.
    pub(super) fn newest(&self, schema: &Schema) -> Result<Option<RecordBatch>> {
        // Without key columns there is nothing to compare rows by but their times.
        let mut converter = match self.by {
            [] => None,
            by => Some(converter(schema, by)?),
        };
        let mut keys = converter.as_ref().map(|converter| converter.empty_rows(0, 0));
        let (mut times, mut places) = (Vec::new(), Vec::new());
        for (number, batch) in self.batches.iter().enumerate() {
            if let (Some(converter), Some(keys)) = (&mut converter, &mut keys) {
                converter.append(keys, &columns(batch, self.by))?;
            }
            let Some(of_batch) = tidelog_store::time_values(batch.column(self.time)) else {
                return Ok(None);
            };
            times.extend_from_slice(of_batch.values());
            places.extend((0..batch.num_rows()).map(|row| (number, row)));
        }
        let key = |row: &usize| keys.as_ref().map(|keys| keys.row(*row));
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_unstable_by(|a, b| {
            key(a).cmp(&key(b)).then_with(|| (times[*a], *a).cmp(&(times[*b], *b)))
        });
        let last_of_key = |group: &[usize]| group.last().map(|row| places[*row]);
        let newest: Vec<(usize, usize)> =
            order.chunk_by(|a, b| key(a) == key(b)).filter_map(last_of_key).collect();
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        match batches.is_empty() {
            true => Ok(Some(RecordBatch::new_empty(schema.clone().into()))),
            false => interleave_record_batch(&batches, &newest).map(Some),
        }
    }
}

/// The last row of each key among some rows of a batch.
pub(super) fn last_rows(
    batch: &RecordBatch,
    by: &[usize],
    mut rows: Range<usize>,
) -> Result<RecordBatch> {
    let mut picked: Vec<u32> = Vec::new();
    if by.is_empty() {
        picked.extend(rows.last().and_then(|row| u32::try_from(row).ok()));
        return take_record_batch(batch, &UInt32Array::from(picked));
    }
    let converter = converter(&batch.schema(), by)?;
    let mut seen: HashSet<Box<[u8]>> = HashSet::new();
    while !rows.is_empty() {
        let start = rows.start.max(rows.end.saturating_sub(BLOCK_ROWS));
        let block = batch.slice(start, rows.end - start);
        let keys = converter.convert_columns(&columns(&block, by))?;
        for (row, key) in keys.iter().enumerate().rev() {
            if !seen.contains(key.as_ref()) {
                seen.insert(key.as_ref().into());
                picked.extend(u32::try_from(start + row));
            }
        }
        rows.end = start;
    }
    take_record_batch(batch, &UInt32Array::from(picked))
}

fn columns(batch: &RecordBatch, by: &[usize]) -> Vec<ArrayRef> {
    by.iter().map(|column| ArrayRef::clone(batch.column(*column))).collect()
}

fn converter(schema: &Schema, by: &[usize]) -> Result<RowConverter> {
    let options = SortOptions { descending: false, nulls_first: false };
    let field = |column: &usize| {
        SortField::new_with_options(schema.field(*column).data_type().clone(), options)
    };
    RowConverter::new(by.iter().map(field).collect())
}
