//! Hourly weather at three airports in 2013, part of the program so that it needs no files.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::input::{Expected, read_csv};

const NAME: &str = "nyc-weather-2013.csv";
const CSV: &[u8] = include_bytes!("../../../../examples/data/nyc-weather-2013.csv");

const FAULTY_ORIGIN: &str = "JFK";
/// Month and days, UTC.
const FAULTY_DAYS: (i8, std::ops::RangeInclusive<i8>) = (7, 4..=6);
const FAULT_FAHRENHEIT: f64 = 9.0;

/// The rows as they are published.
#[derive(Debug)]
pub(super) struct Weather {
    rows: RecordBatch,
    /// Month and day of each row, UTC.
    days: Vec<(i8, i8)>,
}

impl Weather {
    pub(super) fn load() -> Result<Self> {
        let expected = Expected {
            time_column: Some("time_hour".to_owned()),
            keys: vec!["origin".to_owned()],
            ..Expected::default()
        };
        let rows = read_csv(NAME, CSV, &expected)?;
        let days = times(&rows)?.values().iter().map(|micros| day(*micros)).collect();
        Ok(Self { rows, days })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// A month as it is first appended: with the faulty readings, if it has them.
    pub(super) fn month_as_it_came(&self, month: i8) -> Result<RecordBatch> {
        let faulty = self.faulty()?;
        let temp = column(&self.rows, "temp")?
            .as_primitive_opt::<Float64Type>()
            .ok_or_else(|| unexpected("temp"))?;
        let read = temp.iter().enumerate().map(|(row, value)| {
            value.map(|value| if faulty.value(row) { too_high(value) } else { value })
        });
        let read: ArrayRef = Arc::new(read.collect::<Float64Array>());
        let index = self.rows.schema().index_of("temp").map_err(|_| unexpected("temp"))?;
        let mut columns = self.rows.columns().to_vec();
        columns[index] = read;
        let came = RecordBatch::try_new(self.rows.schema(), columns);
        let came = came.map_err(|error| unexpected(&error.to_string()))?;
        let wanted: BooleanArray = self.days.iter().map(|(m, _)| Some(*m == month)).collect();
        filtered(&came, &wanted)
    }

    /// The true rows for the faulty ones.
    pub(super) fn correction(&self) -> Result<RecordBatch> {
        filtered(&self.rows, &self.faulty()?)
    }

    fn faulty(&self) -> Result<BooleanArray> {
        let origins: &StringArray =
            column(&self.rows, "origin")?.as_string_opt().ok_or_else(|| unexpected("origin"))?;
        let (month, days) = FAULTY_DAYS;
        let rows = self.days.iter().zip(origins);
        Ok(rows
            .map(|((m, d), origin)| {
                Some(*m == month && days.contains(d) && origin == Some(FAULTY_ORIGIN))
            })
            .collect())
    }
}

/// To the hundredth, as the readings are.
fn too_high(value: f64) -> f64 {
    ((value + FAULT_FAHRENHEIT) * 100.0).round() / 100.0
}

fn day(micros: i64) -> (i8, i8) {
    let time = Timestamp::from_microsecond(micros).unwrap_or_default().to_zoned(TimeZone::UTC);
    (time.month(), time.day())
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).ok_or_else(|| unexpected(name))
}

fn times(rows: &RecordBatch) -> Result<&TimestampMicrosecondArray> {
    let column = column(rows, "time_hour")?;
    column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| unexpected("time_hour"))
}

fn filtered(rows: &RecordBatch, wanted: &BooleanArray) -> Result<RecordBatch> {
    filter_record_batch(rows, wanted).map_err(|error| unexpected(&error.to_string()))
}

fn unexpected(what: &str) -> Error {
    Error::Internal { message: format!("the weather that comes with the program is odd: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_months_are_the_year_and_the_correction_is_three_days_at_one_airport() {
        let weather = Weather::load().unwrap();
        assert_eq!(weather.rows(), 26_115);
        let months = (1..=12).map(|m| weather.month_as_it_came(m).unwrap().num_rows());
        assert_eq!(months.sum::<usize>(), 26_115);
        assert_eq!(weather.correction().unwrap().num_rows(), 3 * 24);
    }

    #[test]
    fn only_the_faulty_rows_come_wrong() {
        let weather = Weather::load().unwrap();
        let july = weather.month_as_it_came(7).unwrap();
        let temp = |rows: &RecordBatch| -> f64 {
            column(rows, "temp").unwrap().as_primitive::<Float64Type>().iter().flatten().sum()
        };
        let wanted: BooleanArray = weather.days.iter().map(|(m, _)| Some(*m == 7)).collect();
        let truth = filtered(&weather.rows, &wanted).unwrap();
        assert!((temp(&july) - temp(&truth) - 72.0 * FAULT_FAHRENHEIT).abs() < 1e-6);
    }
}
