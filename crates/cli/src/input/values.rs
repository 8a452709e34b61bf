//! Fields of text into typed arrays.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Builder, Int64Builder, StringBuilder, make_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};

use crate::input::infer::{is_null, is_rounded_by_float, number};
use crate::input::time;

/// A column that is being read.
#[derive(Debug)]
pub(crate) struct Column {
    data_type: DataType,
    required: bool,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Float(Float64Builder),
    Int(Int64Builder),
    Time { builder: Int64Builder, nanos_per_unit: i128 },
    /// Text, also on its way to a type that arrow's cast reads.
    Text(StringBuilder),
}

/// A field or column that its type cannot hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// The row, if it is not the one being added.
    pub(crate) row: Option<usize>,
    /// What is wrong.
    pub(crate) reason: String,
}

impl BadValue {
    fn here(reason: impl Into<String>) -> Self {
        Self { row: None, reason: reason.into() }
    }
}

impl Column {
    /// An empty column; `required` is for the time column, which has no nulls and whose values
    /// nanoseconds must hold.
    pub(crate) fn new(data_type: DataType, required: bool) -> Self {
        let values = match &data_type {
            DataType::Float64 => Values::Float(Float64Builder::new()),
            DataType::Int64 => Values::Int(Int64Builder::new()),
            DataType::Timestamp(unit, _) => Values::Time {
                builder: Int64Builder::new(),
                nanos_per_unit: nanos_per_unit(*unit),
            },
            _ => Values::Text(StringBuilder::new()),
        };
        Self { data_type, required, values }
    }

    /// Adds one field.
    pub(crate) fn add(&mut self, field: &str) -> Result<(), BadValue> {
        if is_null(field) {
            if self.required {
                return Err(BadValue::here("is null, but every row needs an event time"));
            }
            match &mut self.values {
                Values::Float(builder) => builder.append_null(),
                Values::Int(builder) | Values::Time { builder, .. } => builder.append_null(),
                Values::Text(builder) => builder.append_null(),
            }
            return Ok(());
        }
        let required = self.required;
        match &mut self.values {
            Values::Float(builder) => builder.append_value(float(field.trim())?),
            Values::Int(builder) => {
                let value = field.trim().parse();
                builder.append_value(value.map_err(|_| {
                    BadValue::here(format!("{field:?} is not a whole number of 64 bits"))
                })?);
            }
            Values::Time { builder, nanos_per_unit } => {
                builder.append_value(instant(field, *nanos_per_unit, required)?);
            }
            Values::Text(builder) => builder.append_value(field),
        }
        Ok(())
    }

    /// The column's values.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, BadValue> {
        match &mut self.values {
            Values::Float(builder) => Ok(Arc::new(builder.finish())),
            Values::Int(builder) => Ok(Arc::new(builder.finish())),
            Values::Time { builder, .. } => {
                let data = builder.finish().into_data().into_builder();
                let data = data.data_type(self.data_type.clone()).build();
                data.map(make_array).map_err(|error| BadValue::here(error.to_string()))
            }
            Values::Text(builder) => {
                let text: ArrayRef = Arc::new(builder.finish());
                cast_text(&text, &self.data_type)
            }
        }
    }
}

fn nanos_per_unit(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn float(text: &str) -> Result<f64, BadValue> {
    if is_rounded_by_float(text) {
        return Err(BadValue::here(format!("{text} cannot be kept exactly as Float64")));
    }
    number(text).ok_or_else(|| BadValue::here(format!("{text:?} is not a number")))
}

fn instant(field: &str, nanos_per_unit: i128, event_time: bool) -> Result<i64, BadValue> {
    let text = field.trim();
    let nanos = time::parse(text).ok_or_else(|| {
        BadValue::here(format!("{text:?} is not a time; write it like 2024-01-31T12:00:00Z"))
    })?;
    if event_time && i64::try_from(nanos).is_err() {
        return Err(BadValue::here(format!("{text} lies outside 1677-09-21 … 2262-04-11")));
    }
    if nanos % nanos_per_unit != 0 {
        return Err(BadValue::here(format!("{text} is finer than the column's unit keeps")));
    }
    i64::try_from(nanos / nanos_per_unit)
        .map_err(|_| BadValue::here(format!("{text} is beyond what the column's unit can count")))
}

/// Reads text as any type that arrow reads it as; a value that becomes null was not of that type.
fn cast_text(text: &ArrayRef, to: &DataType) -> Result<ArrayRef, BadValue> {
    if let DataType::Dictionary(_, value) = to
        && !matches!(value.as_ref(), DataType::Utf8)
    {
        let values = cast_text(text, value)?;
        return arrow::compute::cast(&values, to)
            .map_err(|_| BadValue::here(unreadable(to)));
    }
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let cast =
        cast_with_options(text, to, &lenient).map_err(|_| BadValue::here(unreadable(to)))?;
    let failed = (0..text.len()).find(|row| cast.is_null(*row) && text.is_valid(*row));
    match failed {
        None => Ok(cast),
        Some(row) => {
            Err(BadValue { row: Some(row), reason: format!("holds no {to}, which the series needs") })
        }
    }
}

fn unreadable(to: &DataType) -> String {
    format!("is {to}, which text cannot hold; append Parquet")
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, BooleanArray};
    use arrow::datatypes::{Int64Type, TimestampMillisecondType};

    use super::*;

    fn column(data_type: DataType, fields: &[&str]) -> Result<ArrayRef, BadValue> {
        let mut column = Column::new(data_type, false);
        for field in fields {
            column.add(field)?;
        }
        column.finish()
    }

    #[test]
    fn fields_become_values_of_the_columns_type() {
        let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let times = column(millis.clone(), &["1970-01-01T00:00:01Z", "NA"]).unwrap();
        assert_eq!(times.data_type(), &millis);
        assert_eq!(times.as_primitive::<TimestampMillisecondType>().value(0), 1_000);
        assert!(times.is_null(1));
        let ints = column(DataType::Int64, &["9007199254740993"]).unwrap();
        assert_eq!(ints.as_primitive::<Int64Type>().value(0), 9_007_199_254_740_993);
        let flags = column(DataType::Boolean, &["true", "", "false"]).unwrap();
        assert_eq!(flags.as_boolean(), &BooleanArray::from(vec![Some(true), None, Some(false)]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        assert_eq!(column(dictionary.clone(), &["a"]).unwrap().data_type(), &dictionary);
        assert!(column(DataType::Date32, &["2024-01-31"]).is_ok());
    }

    #[test]
    fn nothing_is_rounded_or_guessed() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (data_type, bad) in [
            (DataType::Float64, "x"),
            (DataType::Float64, "9007199254740993"),
            (DataType::Int64, "1.0"),
            (micros.clone(), "1970-01-01T00:00:00.000000001Z"),
            (micros.clone(), "12"),
            (DataType::Boolean, "maybe"),
            (DataType::Int8, "300"),
        ] {
            assert!(column(data_type.clone(), &[bad]).is_err(), "{data_type} {bad}");
        }
        let mut time = Column::new(micros, true);
        assert!(time.add("NA").is_err());
        assert!(time.add("9999-12-31").is_err());
    }
}
