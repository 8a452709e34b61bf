//! Rows as plain values: easy to compare, to order and to print.

use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use thiserror::Error;

/// One value. The order is the one of keys: null first, floats by total order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cell {
    /// No value.
    Null,
    /// An integer, a boolean, or a time in the unit of its column.
    Int(i64),
    /// A float, all NaNs alike; see [`Cell::float`].
    Float(i64),
    /// Text.
    Text(String),
}

/// The values of one row, in the order of the columns.
pub type Row = Vec<Cell>;

/// A batch holds what cells cannot tell apart.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CellError {
    /// A type that the oracle does not know.
    #[error("cells of {0} are not known to the oracle")]
    Type(DataType),
    /// A cast that failed.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

impl Cell {
    /// A float as a number that orders as IEEE 754 `totalOrder` does; all NaNs are the positive one.
    #[must_use]
    pub fn float(value: f64) -> Self {
        let value = if value.is_nan() { f64::NAN.copysign(1.0) } else { value };
        Self::Float(flip(value.to_bits().cast_signed()))
    }

    /// The float inside, if it is one.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(key) => Some(f64::from_bits(flip(*key).cast_unsigned())),
            _ => None,
        }
    }

    /// The integer inside, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The text inside, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Maps the bits of a float to an integer of the same order, and back.
const fn flip(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Int(value) => value.fmt(f),
            Self::Float(_) => self.as_float().unwrap_or_default().fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The rows of a batch.
///
/// # Errors
/// If a column is of a type that cells do not know.
pub fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>, CellError> {
    let columns = batch.columns().iter().map(cells).collect::<Result<Vec<_>, _>>()?;
    let rows = 0..batch.num_rows();
    Ok(rows.map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn cells(array: &ArrayRef) -> Result<Vec<Cell>, CellError> {
    fn each(array: &dyn Array, cell: impl Fn(usize) -> Cell) -> Vec<Cell> {
        let rows = 0..array.len();
        rows.map(|row| if array.is_null(row) { Cell::Null } else { cell(row) }).collect()
    }
    Ok(match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Dictionary(_, values) => cells(&cast(array, values)?)?,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let floats = cast(array, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>();
            each(floats, |row| Cell::float(floats.value(row)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(array, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            each(texts, |row| Cell::Text(texts.value(row).to_owned()))
        }
        data_type if data_type.is_integer() || data_type.is_temporal() || is_boolean(data_type) => {
            let ints = cast(array, &DataType::Int64)?;
            let ints = ints.as_primitive::<Int64Type>();
            each(ints, |row| Cell::Int(ints.value(row)))
        }
        other => return Err(CellError::Type(other.clone())),
    })
}

fn is_boolean(data_type: &DataType) -> bool {
    *data_type == DataType::Boolean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_order_as_total_order_does_and_come_back() {
        let values = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e300, f64::INFINITY, f64::NAN];
        for pair in values.windows(2) {
            assert!(Cell::float(pair[0]) < Cell::float(pair[1]), "{pair:?}");
        }
        for value in values {
            assert_eq!(Cell::float(value).as_float().map(f64::to_bits), Some(value.to_bits()));
        }
        assert!(Cell::Null < Cell::float(f64::NEG_INFINITY));
        assert_eq!(Cell::float(-f64::NAN), Cell::float(f64::NAN));
    }
}
