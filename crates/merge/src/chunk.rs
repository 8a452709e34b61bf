//! One input batch, prepared for comparing: times as `i64`, versions, key columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Date32Type, Int64Type};

use crate::repeated::is_repeated;
use crate::spec::MergeSpec;

/// An input batch with typed views of the columns that order its rows.
///
/// Both views share the batch's buffers, except for the times of a `Date32` column, which are
/// widened.
pub(crate) struct Chunk {
    /// Tells chunks of one merge apart.
    pub(crate) id: u64,
    pub(crate) batch: RecordBatch,
    pub(crate) times: ScalarBuffer<i64>,
    /// None where the spec names no version column.
    pub(crate) versions: Option<ScalarBuffer<i64>>,
    pub(crate) keys: Vec<ArrayRef>,
    /// Of each column whether one text repeats in it.
    pub(crate) repeats: Box<[bool]>,
    /// Memory that the chunk keeps alive.
    pub(crate) bytes: usize,
}

impl Chunk {
    /// Prepares a batch whose columns have the types of the spec's schema.
    pub(crate) fn new(id: u64, batch: RecordBatch, spec: &MergeSpec) -> Self {
        let time = batch.column(spec.time);
        let times = widen(time);
        let widened = match time.data_type() {
            DataType::Date32 => times.len() * size_of::<i64>(),
            _ => 0,
        };
        let version = |column| batch.column(column).as_primitive::<Int64Type>().values().clone();
        Self {
            id,
            times,
            versions: spec.version.map(version),
            keys: spec.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect(),
            repeats: batch.columns().iter().map(is_repeated).collect(),
            bytes: batch.get_array_memory_size() + widened,
            batch,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }
}

/// The values of a time column, in its own unit.
fn widen(column: &ArrayRef) -> ScalarBuffer<i64> {
    match column.data_type() {
        DataType::Date32 => {
            column.as_primitive::<Date32Type>().values().iter().copied().map(i64::from).collect()
        }
        _ => {
            let data = column.to_data();
            ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
        }
    }
}

/// How the times of a chunk are ordered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TimeOrder {
    /// Each is later than the one before.
    Rising,
    /// None is earlier than the one before.
    Level,
    /// The one at this place is earlier than the one before.
    Falling(usize),
}

/// Looks at all times once; the common case is a loop without branches.
pub(crate) fn time_order(times: &[i64]) -> TimeOrder {
    if times.windows(2).fold(true, |rising, pair| rising & (pair[0] < pair[1])) {
        return TimeOrder::Rising;
    }
    match times.windows(2).position(|pair| pair[0] > pair[1]) {
        Some(before) => TimeOrder::Falling(before + 1),
        None => TimeOrder::Level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_order_names_the_first_row_that_falls() {
        assert_eq!(time_order(&[]), TimeOrder::Rising);
        assert_eq!(time_order(&[7]), TimeOrder::Rising);
        assert_eq!(time_order(&[i64::MIN, 0, i64::MAX]), TimeOrder::Rising);
        assert_eq!(time_order(&[1, 2, 2, 3]), TimeOrder::Level);
        assert_eq!(time_order(&[1, 2, 2, 1, 0]), TimeOrder::Falling(3));
    }
}
