//! Sensor readings: `timestamp`, `temperature`, `humidity`, `sensor`; one row a second, event time increasing.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::rng::Rng;

/// The time column.
pub(crate) const TIME_COLUMN: &str = "timestamp";
/// The column that is summed up to compare answers.
pub(crate) const SUM_COLUMN: &str = "sensor";

/// 2024-01-01T00:00:00Z in microseconds.
const START_US: i64 = 1_704_067_200_000_000;
const STEP_US: i64 = 1_000_000;
const SENSORS: u32 = 50;

/// The event time of the row with this number, in microseconds.
pub(crate) fn time_us(row: usize) -> Result<i64> {
    Ok(START_US + i64::try_from(row)? * STEP_US)
}

/// A stream of batches, each going on where the one before ended.
#[derive(Debug)]
pub(crate) struct Sensors {
    rng: Rng,
    schema: SchemaRef,
    next_row: usize,
}

impl Sensors {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), schema: schema(), next_row: 0 }
    }

    pub(crate) fn batch(&mut self, rows: usize) -> Result<RecordBatch> {
        let numbers = self.next_row..self.next_row + rows;
        self.next_row = numbers.end;
        let times = numbers.map(time_us).collect::<Result<Vec<_>>>()?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(self.readings(rows, 20.0, 5.0)),
            Arc::new(self.readings(rows, 50.0, 9.0)),
            Arc::new(Int64Array::from_iter_values(
                (0..rows).map(|_| i64::from(self.rng.below(SENSORS))),
            )),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Normal values with two decimals, the resolution of an ordinary sensor.
    fn readings(&mut self, rows: usize, mean: f64, deviation: f64) -> Float64Array {
        let mut reading = || ((mean + deviation * self.rng.normal()) * 100.0).round() / 100.0;
        Float64Array::from_iter_values((0..rows).map(|_| reading()))
    }
}

pub(crate) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new(TIME_COLUMN, time, false),
        Field::new("temperature", DataType::Float64, true),
        Field::new("humidity", DataType::Float64, true),
        Field::new(SUM_COLUMN, DataType::Int64, true),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;

    #[test]
    fn batches_go_on_where_the_one_before_ended() -> Result<()> {
        let mut sensors = Sensors::new(3);
        let (first, second) = (sensors.batch(10)?, sensors.batch(5)?);
        assert_eq!(second.num_rows(), 5);
        let times = |batch: &RecordBatch| {
            batch.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec()
        };
        assert_eq!(times(&first).first(), Some(&time_us(0)?));
        assert_eq!(times(&second).first(), Some(&time_us(10)?));
        Ok(())
    }
}
