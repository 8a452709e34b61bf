//! Fields of text into typed arrays.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Builder, Int64Array, Int64Builder, StringBuilder, make_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use tidelog::{EventTime, TimeUnit as EventUnit};

use crate::input::infer::{is_null, is_rounded_by_float, number};
use crate::input::time;

/// What nanoseconds can hold.
const EVENT_TIMES: &str = "1677-09-21 … 2262-04-11";

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// A column that is being read.
#[derive(Debug)]
pub(crate) struct Column {
    /// The type to end with: that of the values, or a dictionary of them.
    data_type: DataType,
    /// The type of the values.
    value_type: DataType,
    /// Every row needs an event time, and nanoseconds must hold it.
    is_event_time: bool,
    /// What a whole number of event time counts.
    unit: Option<EventUnit>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Float(Float64Builder),
    Int(Int64Builder),
    Time {
        builder: Int64Builder,
        nanos_per_unit: i128,
    },
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
    /// The empty time column.
    pub(crate) fn of_event_times(data_type: DataType, unit: Option<EventUnit>) -> Self {
        Self { is_event_time: true, unit, ..Self::new(data_type) }
    }

    /// Any other empty column.
    pub(crate) fn new(data_type: DataType) -> Self {
        let value_type = match &data_type {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        };
        let values = match &value_type {
            DataType::Float64 => Values::Float(Float64Builder::new()),
            DataType::Int64 => Values::Int(Int64Builder::new()),
            DataType::Timestamp(unit, _) => {
                Values::Time { builder: Int64Builder::new(), nanos_per_unit: nanos_per_unit(*unit) }
            }
            DataType::Date32 => {
                Values::Time { builder: Int64Builder::new(), nanos_per_unit: NANOS_PER_DAY }
            }
            DataType::Date64 => {
                let nanos_per_unit = nanos_per_unit(TimeUnit::Millisecond);
                Values::Time { builder: Int64Builder::new(), nanos_per_unit }
            }
            _ => Values::Text(StringBuilder::new()),
        };
        Self { data_type, value_type, is_event_time: false, unit: None, values }
    }

    /// Adds one field.
    pub(crate) fn add(&mut self, field: &str) -> Result<(), BadValue> {
        if is_null(field) {
            if self.is_event_time {
                return Err(BadValue::here("is null, but every row needs an event time"));
            }
            match &mut self.values {
                Values::Float(builder) => builder.append_null(),
                Values::Int(builder) | Values::Time { builder, .. } => builder.append_null(),
                Values::Text(builder) => builder.append_null(),
            }
            return Ok(());
        }
        let (is_event_time, unit) = (self.is_event_time, self.unit);
        match &mut self.values {
            Values::Float(builder) => builder.append_value(float(field.trim())?),
            Values::Int(builder) => {
                builder.append_value(whole(field, unit.filter(|_| is_event_time))?);
            }
            Values::Time { builder, nanos_per_unit } => {
                builder.append_value(instant(field, *nanos_per_unit, is_event_time)?);
            }
            Values::Text(builder) if is_text(&self.value_type) => builder.append_value(field),
            Values::Text(builder) => {
                check_exact(field.trim(), &self.value_type)?;
                builder.append_value(field.trim());
            }
        }
        Ok(())
    }

    /// The column's values.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, BadValue> {
        let values: ArrayRef = match &mut self.values {
            Values::Float(builder) => Arc::new(builder.finish()),
            Values::Int(builder) => Arc::new(builder.finish()),
            Values::Time { builder, .. } => times(&builder.finish(), &self.value_type)?,
            Values::Text(builder) => {
                cast_text(&(Arc::new(builder.finish()) as _), &self.value_type)?
            }
        };
        if self.value_type == self.data_type {
            return Ok(values);
        }
        cast(&values, &self.data_type).map_err(|_| BadValue::here(unreadable(&self.data_type)))
    }
}

/// Counts of a unit as the type that counts so.
fn times(counts: &Int64Array, to: &DataType) -> Result<ArrayRef, BadValue> {
    let failed = |error: ArrowError| BadValue::here(error.to_string());
    if *to == DataType::Date32 {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let days_of_32 = cast_with_options(counts, &DataType::Int32, &strict).map_err(failed)?;
        return cast(&days_of_32, to).map_err(failed);
    }
    let data = counts.to_data().into_builder().data_type(to.clone()).build();
    data.map(make_array).map_err(failed)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    )
}

/// Refuses what the cast would round without a word.
fn check_exact(text: &str, to: &DataType) -> Result<(), BadValue> {
    let rounded = match to {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
            let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
            let digits = fraction.trim_end_matches('0').len();
            i64::try_from(digits).is_ok_and(|digits| digits > i64::from(*scale).max(0))
        }
        DataType::Float32 => {
            let whole = text.parse::<i64>().is_ok().then(|| text.parse::<f64>().ok()).flatten();
            let single = text.parse::<f32>().ok().map(f64::from);
            whole.is_some_and(|whole| single.is_none_or(|single| single != whole))
        }
        _ => false,
    };
    if rounded {
        Err(BadValue::here(format!("{text} cannot be kept exactly as {to}")))
    } else {
        Ok(())
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

fn whole(field: &str, unit: Option<EventUnit>) -> Result<i64, BadValue> {
    let value = field.trim().parse::<i64>();
    let value =
        value.map_err(|_| BadValue::here(format!("{field:?} is not a whole number of 64 bits")))?;
    match unit {
        Some(unit) if EventTime::from_unit(value, unit).is_none() => {
            Err(BadValue::here(format!("{value} {unit} lies outside {EVENT_TIMES}")))
        }
        _ => Ok(value),
    }
}

fn instant(field: &str, nanos_per_unit: i128, event_time: bool) -> Result<i64, BadValue> {
    let text = field.trim();
    let nanos = time::parse(text).ok_or_else(|| {
        BadValue::here(format!("{text:?} is not a time; write it like 2024-01-31T12:00:00Z"))
    })?;
    if event_time && i64::try_from(nanos).is_err() {
        return Err(BadValue::here(format!("{text} lies outside {EVENT_TIMES}")));
    }
    if nanos % nanos_per_unit != 0 {
        return Err(BadValue::here(format!("{text} is finer than the column keeps")));
    }
    i64::try_from(nanos / nanos_per_unit)
        .map_err(|_| BadValue::here(format!("{text} is beyond what the column can count")))
}

/// Reads text as any type that has a text form; a value that becomes null was not of that type.
fn cast_text(text: &ArrayRef, to: &DataType) -> Result<ArrayRef, BadValue> {
    let has_text_form = is_text(to)
        || to.is_numeric()
        || matches!(to, DataType::Boolean | DataType::Time32(_) | DataType::Time64(_));
    if !has_text_form {
        return Err(BadValue::here(unreadable(to)));
    }
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let typed =
        cast_with_options(text, to, &lenient).map_err(|_| BadValue::here(unreadable(to)))?;
    let failed = (0..text.len()).find(|row| typed.is_null(*row) && text.is_valid(*row));
    match failed {
        None => Ok(typed),
        Some(row) => Err(BadValue {
            row: Some(row),
            reason: format!("holds no {to}, which the series needs"),
        }),
    }
}

fn unreadable(to: &DataType) -> String {
    format!("is {to}, which text cannot hold; append Parquet")
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, BooleanArray};
    use arrow::datatypes::{Decimal128Type, Field, Int64Type, TimestampMillisecondType};

    use super::*;

    fn column(data_type: DataType, fields: &[&str]) -> Result<ArrayRef, BadValue> {
        let mut column = Column::new(data_type);
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
        for data_type in [DataType::Date32, DataType::Date64] {
            let dates = column(data_type.clone(), &["1970-01-02", ""]).unwrap();
            assert_eq!(dates.data_type(), &data_type);
            assert_eq!(
                cast(&dates, &DataType::Utf8).unwrap().as_string::<i32>().value(0).get(..10),
                Some("1970-01-02")
            );
        }
        let decimal = column(DataType::Decimal128(10, 2), &[" 1.50", "-3"]).unwrap();
        assert_eq!(decimal.as_primitive::<Decimal128Type>().values(), &[150, -300]);
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
            (DataType::Date32, "2024-01-31T12:00"),
            (DataType::Decimal128(10, 2), "1.259"),
            (DataType::Float32, "16777217"),
            (DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), "[1]"),
        ] {
            assert!(column(data_type.clone(), &[bad]).is_err(), "{data_type} {bad}");
        }
        let mut time = Column::of_event_times(micros, None);
        assert!(time.add("NA").is_err());
        assert!(time.add("9999-12-31").is_err());
        let mut time = Column::of_event_times(DataType::Int64, Some(EventUnit::Second));
        assert!(time.add("1700000000").is_ok());
        assert!(time.add("99999999999").is_err());
    }
}
