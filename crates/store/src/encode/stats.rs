//! Null counts and exact bounds of columns, for the log.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type,
};
use tidelog_oplog::{ColumnStats, StatValue};
use tidelog_warm::{Form, f32_of_image, f64_of_image, image_ends};

use crate::series_schema::time_values;

/// Text bounds longer than this are left out of the log.
const TEXT_BOUND_BYTES_MAX: usize = 64;

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
pub(super) struct GatheredStats {
    nulls: u64,
    bounds: Option<(StatValue, StatValue)>,
    /// Whether a part with values had no bounds.
    doubtful: bool,
}

impl GatheredStats {
    pub(super) fn add(&mut self, column: &ArrayRef) {
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

    pub(super) fn finish(self) -> ColumnStats {
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
        let (min, max) = image_ends(Form::Int64, &(Arc::new(values) as ArrayRef))?;
        return Some((StatValue::Int(min), StatValue::Int(max)));
    }
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            let min = arrow::compute::min_boolean(values)?;
            let max = arrow::compute::max_boolean(values)?;
            Some((StatValue::Int(i64::from(min)), StatValue::Int(i64::from(max))))
        }
        DataType::Float64 => {
            let (min, max) = image_ends(Form::Float64, column)?;
            float_bounds(f64_of_image(min), f64_of_image(max))
        }
        DataType::Float32 => {
            let (min, max) = image_ends(Form::Float32, column)?;
            float_bounds(f32_of_image(min).into(), f32_of_image(max).into())
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

/// Bounds by IEEE total order, at whose ends are the NaNs; none if there is one, whose place engines
/// disagree about.
fn float_bounds(min: f64, max: f64) -> Option<(StatValue, StatValue)> {
    let has_nan = min.is_nan() || max.is_nan();
    (!has_nan).then_some((StatValue::Float(min), StatValue::Float(max)))
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
