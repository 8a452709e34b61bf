//! One input batch, prepared for comparing: times as `i64`, versions, key columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Date32Type, Int64Type};

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
    /// Of each column whether it is text, has no null and the same value in all rows: as a key does, and
    /// what depends on it, where rows lie by key.
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
            repeats: batch.columns().iter().map(repeats).collect(),
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

/// Whether all values are the same text.
fn repeats(column: &ArrayRef) -> bool {
    match column.data_type() {
        _ if column.is_empty() || column.null_count() > 0 => false,
        DataType::Utf8 => repeats_bytes(column.as_string::<i32>()),
        DataType::LargeUtf8 => repeats_bytes(column.as_string::<i64>()),
        DataType::Utf8View => {
            let views = column.as_string_view().views();
            views.iter().all(|view| *view == views[0])
        }
        _ => false,
    }
}

fn repeats_bytes<O: OffsetSizeTrait>(texts: &GenericStringArray<O>) -> bool {
    let offsets = texts.value_offsets();
    let length = offsets[1] - offsets[0];
    let all = &texts.values()[offsets[0].as_usize()..offsets[texts.len()].as_usize()];
    // The texts follow one another, so they are the same if each byte is that of one text before.
    offsets.windows(2).all(|pair| pair[1] - pair[0] == length)
        && all[length.as_usize()..] == all[..all.len() - length.as_usize()]
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
    fn texts_repeat_if_all_are_the_same() {
        use arrow::array::{Int64Array, LargeStringArray, StringArray, StringViewArray};
        let cases: [(&[&str], bool); 7] = [
            (&["host"], true),
            (&["ab", "ab", "ab"], true),
            (&["", "", ""], true),
            (&["ab", "ab", "ac"], false),
            (&["aa", "a", "aaa"], false),
            (&["ab", "", "ab"], false),
            (&["a text of some length", "a text of some length"], true),
        ];
        for (texts, expected) in cases {
            let text: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            let large: ArrayRef = Arc::new(LargeStringArray::from_iter_values(texts));
            assert_eq!((repeats(&text), repeats(&large)), (expected, expected), "{texts:?}");
            if texts[0].len() <= 12 {
                let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
                assert_eq!(repeats(&views), expected, "{texts:?}");
            }
        }
        let parted: ArrayRef = Arc::new(StringArray::from_iter_values(["x", "ab", "ab", "y"]));
        assert!(repeats(&parted.slice(1, 2)) && !repeats(&parted.slice(1, 3)));
        let with_null: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let empty: ArrayRef = Arc::new(StringArray::from_iter_values([""; 0]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 1]));
        assert!(!repeats(&with_null) && !repeats(&empty) && !repeats(&numbers));
    }

    #[test]
    fn time_order_names_the_first_row_that_falls() {
        assert_eq!(time_order(&[]), TimeOrder::Rising);
        assert_eq!(time_order(&[7]), TimeOrder::Rising);
        assert_eq!(time_order(&[i64::MIN, 0, i64::MAX]), TimeOrder::Rising);
        assert_eq!(time_order(&[1, 2, 2, 3]), TimeOrder::Level);
        assert_eq!(time_order(&[1, 2, 2, 1, 0]), TimeOrder::Falling(3));
    }
}
