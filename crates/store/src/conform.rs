//! Input brought to a series' schema: matched by name, cast where nothing is lost, or refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field};
use tidelog_core::TreePath;

use crate::error::Error;
use crate::series_schema::SeriesSchema;

/// Brings `batch` to the columns of `schema`: matched by name, absent nullable columns null.
///
/// # Errors
/// [`Error::Column`] for a column that is extra, missing or of an incompatible type,
/// [`Error::Value`] for a null where none may be or a value that a cast would change.
pub(crate) fn conform(
    path: &TreePath,
    schema: &SeriesSchema,
    batch: &RecordBatch,
) -> Result<RecordBatch, Error> {
    let given = batch.schema_ref();
    for field in given.fields() {
        if schema.columns().index_of(field.name()).is_err() {
            return Err(Error::Column {
                path: path.clone(),
                column: field.name().clone(),
                reason: "the series has no such column; leave it out, or append to another series"
                    .to_owned(),
            });
        }
    }
    let columns = schema
        .columns()
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(array) => conform_column(path, field, array),
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
            None => Err(Error::Column {
                path: path.clone(),
                column: field.name().clone(),
                reason: "it is missing and may not be null; add it".to_owned(),
            }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema.columns()), columns)
        .map_err(|error| Error::Encode { path: path.clone(), reason: error.to_string() })
}

fn conform_column(path: &TreePath, field: &Field, array: &ArrayRef) -> Result<ArrayRef, Error> {
    if !field.is_nullable() && array.null_count() > 0 {
        let row = (0..array.len()).find(|row| array.is_null(*row)).unwrap_or_default();
        return Err(Error::Value {
            path: path.clone(),
            column: field.name().clone(),
            row,
            reason: "it is null and may not be; give it a value or leave the row out".to_owned(),
        });
    }
    if field.data_type() == array.data_type() {
        return Ok(Arc::clone(array));
    }
    if !castable(array.data_type(), field.data_type()) {
        return Err(incompatible(path, field, array));
    }
    cast_exactly(path, field, array)
}

fn incompatible(path: &TreePath, field: &Field, array: &ArrayRef) -> Error {
    Error::Column {
        path: path.clone(),
        column: field.name().clone(),
        reason: format!(
            "it is {}, where the series has {}; cast it first",
            array.data_type(),
            field.data_type()
        ),
    }
}

/// Casts there and back: a value that does not come back is one that the cast would change.
fn cast_exactly(path: &TreePath, field: &Field, array: &ArrayRef) -> Result<ArrayRef, Error> {
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let to = |array: &ArrayRef, data_type: &DataType| cast_with_options(array, data_type, &lenient);
    let there = to(array, field.data_type()).map_err(|_| incompatible(path, field, array))?;
    if lossless_by_type(array.data_type(), field.data_type()) {
        return Ok(there);
    }
    let back = to(&there, array.data_type()).map_err(|_| incompatible(path, field, array))?;
    let same: BooleanArray =
        not_distinct(array, &back).map_err(|_| incompatible(path, field, array))?;
    match (0..same.len()).find(|row| !same.value(*row)) {
        None => Ok(there),
        Some(row) => Err(Error::Value {
            path: path.clone(),
            column: field.name().clone(),
            row,
            reason: format!(
                "its value cannot be kept exactly as {}; round it first",
                field.data_type()
            ),
        }),
    }
}

/// Whether a value of `from` may have an equal in `to`.
fn castable(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Null, _) => true,
        (T::Timestamp(_, a), T::Timestamp(_, b)) => same_zone(a.as_deref(), b.as_deref()),
        (T::Dictionary(_, from), T::Dictionary(_, to)) => from == to || castable(from, to),
        (T::Dictionary(_, from), to) => from.as_ref() == to || castable(from, to),
        (from, T::Dictionary(_, to)) => from == to.as_ref() || castable(from, to),
        _ => is_text(from) && is_text(to) || is_binary(from) && is_binary(to) || widens(from, to),
    }
}

fn lossless_by_type(from: &DataType, to: &DataType) -> bool {
    is_text(from) && is_text(to) || widens(from, to) || matches!(from, DataType::Null)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Whether every value of the number type `from` is a value of `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let bits = |t: &DataType| -> Option<(bool, u8)> {
        Some(match t {
            T::Int8 => (true, 8),
            T::Int16 => (true, 16),
            T::Int32 => (true, 32),
            T::Int64 => (true, 64),
            T::UInt8 => (false, 8),
            T::UInt16 => (false, 16),
            T::UInt32 => (false, 32),
            T::UInt64 => (false, 64),
            _ => return None,
        })
    };
    let mantissa = |t: &DataType| match t {
        T::Float32 => Some(24),
        T::Float64 => Some(53),
        _ => None,
    };
    match (bits(from), bits(to)) {
        (Some((a_signed, a)), Some((b_signed, b))) => {
            a_signed == b_signed && a <= b || !a_signed && b_signed && a < b
        }
        (Some((_, a)), None) => mantissa(to).is_some_and(|m| a <= m),
        (None, None) => mantissa(from).zip(mantissa(to)).is_some_and(|(a, b)| a <= b),
        (None, Some(_)) => false,
    }
}

fn same_zone(a: Option<&str>, b: Option<&str>) -> bool {
    let is_utc = |zone: &str| matches!(zone, "UTC" | "Etc/UTC" | "GMT" | "Z" | "+00:00" | "-00:00");
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a == b || is_utc(a) && is_utc(b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray, StringViewArray,
        TimestampMicrosecondArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::{Int32Type, Schema, TimeUnit};
    use tidelog_oplog::SeriesOptions;

    use super::*;

    fn series() -> SeriesSchema {
        let columns = Schema::new(vec![
            Field::new(
                "time",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                true,
            ),
            Field::new("who", DataType::Utf8, true),
            Field::new("value", DataType::Float64, true),
        ]);
        SeriesSchema::resolve(&path(), &columns, &SeriesOptions::default()).unwrap()
    }

    fn path() -> TreePath {
        TreePath::parse("/s").unwrap()
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn micros(values: Vec<i64>) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("+00:00"))
    }

    #[test]
    fn equal_values_of_other_types_are_taken() {
        let dictionary: DictionaryArray<Int32Type> = vec!["a", "b"].into_iter().collect();
        let nanos = TimestampNanosecondArray::from(vec![1_000, 2_000]).with_timezone("Etc/UTC");
        for who in
            [Arc::new(dictionary) as ArrayRef, Arc::new(StringViewArray::from(vec!["a", "b"]))]
        {
            let input = batch(vec![
                ("who", who),
                ("time", Arc::new(nanos.clone())),
                ("value", Arc::new(Int32Array::from(vec![1, 2]))),
            ]);
            let out = conform(&path(), &series(), &input).unwrap();
            assert_eq!(out.schema(), *series().columns());
            assert_eq!(out.column(1).as_ref(), &StringArray::from(vec!["a", "b"]) as &dyn Array);
        }
    }

    #[test]
    fn an_absent_nullable_column_is_null() {
        let out = conform(&path(), &series(), &batch(vec![("time", micros(vec![1]))])).unwrap();
        assert_eq!(out.column(2).null_count(), 1);
    }

    #[test]
    fn what_would_change_a_value_is_refused_by_row() {
        let nanos = TimestampNanosecondArray::from(vec![1_000, 2_001]).with_timezone("UTC");
        let error = conform(&path(), &series(), &batch(vec![("time", Arc::new(nanos))]));
        assert!(matches!(error, Err(Error::Value { row: 1, .. })), "{error:?}");
        for bad in [
            batch(vec![("time", micros(vec![1])), ("more", micros(vec![1]))]),
            batch(vec![("who", Arc::new(StringArray::from(vec!["a"])))]),
            batch(vec![
                ("time", micros(vec![1])),
                ("value", Arc::new(StringArray::from(vec!["a"]))),
            ]),
            batch(vec![("time", micros(vec![1])), ("value", Arc::new(Int64Array::from(vec![1])))]),
            batch(vec![("time", Arc::new(TimestampMicrosecondArray::from(vec![1])))]),
        ] {
            let error = conform(&path(), &series(), &bad);
            assert!(matches!(error, Err(Error::Column { .. })), "{error:?}");
        }
        let null = TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("UTC");
        let error = conform(&path(), &series(), &batch(vec![("time", Arc::new(null))]));
        assert!(matches!(error, Err(Error::Value { row: 1, .. })), "{error:?}");
    }

    #[test]
    fn a_float_column_is_matched_by_value() {
        let input = batch(vec![
            ("time", micros(vec![1])),
            ("value", Arc::new(Float64Array::from(vec![f64::NAN]))),
        ]);
        assert!(conform(&path(), &series(), &input).is_ok());
    }
}
