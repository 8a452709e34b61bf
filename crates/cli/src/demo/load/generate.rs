//! Rows made up from their numbers, and what is to be found of them later.
//!
//! The same number always makes the same row. Values are multiples of a quarter, so that their sums are
//! exact in any order.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

/// 1 January 2024, UTC, in microseconds.
const BEGIN_US: i64 = 1_704_067_200_000_000;
/// Event time from one row to the next, in microseconds.
const STEP_US: i64 = 1_000;
const SEED: u64 = 0x7469_6465_6c6f_6721;
const SENSORS: u32 = 100;
const SYMBOLS: [&str; 12] = [
    "AMBER", "BASALT", "CEDAR", "DELTA", "EMBER", "FJORD", "GRANIT", "HELIX", "IRIS", "JADE",
    "KELP", "LOTUS",
];
const VENUES: [&str; 4] = ["NORTH", "EAST", "SOUTH", "WEST"];
const SIDES: [&str; 2] = ["buy", "sell"];
/// How many of the greatest values are kept in mind.
pub(super) const TOP: usize = 10;

/// Which rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Four columns: time, sensor, value, count.
    Simple,
    /// Eight columns: time, symbol, side, venue, price, quantity, bid, ask.
    Trading,
}

impl Shape {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Trading => "trading",
        }
    }

    /// The column that says who a row is about.
    pub(super) const fn group_column(self) -> &'static str {
        match self {
            Self::Simple => "sensor",
            Self::Trading => "symbol",
        }
    }

    /// The column of floating-point numbers.
    pub(super) const fn value_column(self) -> &'static str {
        match self {
            Self::Simple => "value",
            Self::Trading => "price",
        }
    }

    /// The column of whole numbers.
    pub(super) const fn amount_column(self) -> &'static str {
        match self {
            Self::Simple => "count",
            Self::Trading => "quantity",
        }
    }

    const fn groups(self) -> u32 {
        match self {
            Self::Simple => SENSORS,
            Self::Trading => 12,
        }
    }

    /// A group as SQL writes it.
    pub(super) fn literal(self, group: u32) -> String {
        match self {
            Self::Simple => group.to_string(),
            Self::Trading => {
                let symbol = SYMBOLS.iter().cycle().nth(group as usize);
                format!("'{}'", symbol.copied().unwrap_or_default())
            }
        }
    }

    /// The row of this number.
    pub(super) fn row(self, number: u64) -> Row {
        let bits = scattered(number);
        let part = |shift: u32, of: u32| {
            u32::try_from((bits >> shift) % u64::from(of)).unwrap_or_default()
        };
        let group = part(0, self.groups());
        let level = match self {
            Self::Simple => 0,
            Self::Trading => group * 400,
        };
        Row {
            number,
            group,
            value: f64::from(level + part(16, 4_000)) * 0.25,
            amount: i64::from(part(32, 1_000)),
            spare: part(48, 1 << 12),
        }
    }

    /// The rows of these numbers.
    pub(super) fn batch(self, rows: &[Row]) -> Result<RecordBatch, ArrowError> {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(Row::time_us));
        let time: ArrayRef = Arc::new(times.with_timezone("UTC"));
        let floats = |of: fn(&Row) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(of)))
        };
        let amounts = Int64Array::from_iter_values(rows.iter().map(|row| row.amount));
        let columns = match self {
            Self::Simple => {
                let sensors = rows.iter().map(|row| i32::try_from(row.group).unwrap_or_default());
                vec![
                    ("time", time),
                    ("sensor", Arc::new(Int32Array::from_iter_values(sensors))),
                    ("value", floats(|row| row.value)),
                    ("count", Arc::new(amounts)),
                ]
            }
            Self::Trading => vec![
                ("time", time),
                ("symbol", words(&SYMBOLS, rows, |row| row.group)?),
                ("side", words(&SIDES, rows, |row| row.spare & 1)?),
                ("venue", words(&VENUES, rows, |row| (row.spare >> 1) & 3)?),
                ("price", floats(|row| row.value)),
                ("quantity", Arc::new(amounts)),
                ("bid", floats(|row| row.value - row.spread())),
                ("ask", floats(|row| row.value + row.spread())),
            ],
        };
        RecordBatch::try_from_iter(columns)
    }
}

/// A column of few words, as a dictionary.
fn words(words: &[&str], rows: &[Row], of: impl Fn(&Row) -> u32) -> Result<ArrayRef, ArrowError> {
    let keys = rows.iter().map(|row| i32::try_from(of(row)).unwrap_or_default());
    let values = Arc::new(StringArray::from_iter_values(words));
    let words = DictionaryArray::<Int32Type>::try_new(Int32Array::from_iter_values(keys), values)?;
    Ok(Arc::new(words))
}

/// A number's bits, scattered: the finaliser of SplitMix64.
fn scattered(number: u64) -> u64 {
    let mut bits = number.wrapping_add(SEED).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    number: u64,
    group: u32,
    pub(super) value: f64,
    pub(super) amount: i64,
    spare: u32,
}

impl Row {
    pub(super) fn time_us(&self) -> i64 {
        time_us(self.number)
    }

    fn spread(&self) -> f64 {
        f64::from(1 + (self.spare >> 3) % 8) * 0.25
    }
}

/// The event time of the row of this number, in microseconds.
pub(super) fn time_us(number: u64) -> i64 {
    BEGIN_US + i64::try_from(number).unwrap_or_default() * STEP_US
}

/// How many rows there are of a kind, and the sums of their columns.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Total {
    pub(super) rows: u64,
    pub(super) amount: i64,
    pub(super) value: f64,
}

impl Total {
    pub(super) fn add(&mut self, amount: i64, value: f64) {
        self.rows += 1;
        self.amount += amount;
        self.value += value;
    }
}

/// What is asked of the rows, and what must be found.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) all: Total,
    /// Rows of one group.
    pub(super) of_group: Total,
    /// Rows of several groups.
    pub(super) of_groups: Total,
    /// Rows of a range of time.
    pub(super) in_range: Total,
    /// Rows of the range with large values.
    pub(super) large_in_range: Total,
    /// Rows of the range that is sorted.
    pub(super) sorted: Total,
    /// The rows with the greatest values, the earlier of equal ones first.
    pub(super) top: Vec<Row>,
}

/// The group that is asked for alone.
pub(super) const GROUP: u32 = 7;
/// The groups that are asked for together.
pub(super) const GROUPS: [u32; 4] = [1, 4, 8, 11];
/// Values above this one are large.
pub(super) const LARGE: f64 = 900.0;
/// A range that is sorted has at most so many rows.
const SORTED_ROWS_MAX: u64 = 2_000_000;

/// The tenth of the rows, from a third on, that is asked for as a range of time.
pub(super) fn range(rows: u64) -> Range<u64> {
    let start = rows / 3;
    start..(start + rows.div_ceil(10)).min(rows)
}

/// The part of it that is sorted.
pub(super) fn sorted_range(rows: u64) -> Range<u64> {
    let Range { start, end } = range(rows);
    start..end.min(start + SORTED_ROWS_MAX)
}

/// Makes rows, in order of their numbers, and keeps in mind what must be found of them.
#[derive(Debug)]
pub(super) struct Generator {
    pub(super) shape: Shape,
    rows: u64,
    next: u64,
    pub(super) expected: Expected,
}

impl Generator {
    pub(super) fn new(shape: Shape, rows: u64) -> Self {
        let none = Total::default();
        let expected = Expected {
            all: none,
            of_group: none,
            of_groups: none,
            in_range: none,
            large_in_range: none,
            sorted: none,
            top: Vec::with_capacity(TOP + 1),
        };
        Self { shape, rows, next: 0, expected }
    }

    /// The next rows, at most so many; `None` after the last.
    pub(super) fn next_batch(&mut self, rows_max: u64) -> Result<Option<RecordBatch>, ArrowError> {
        let end = self.rows.min(self.next.saturating_add(rows_max));
        if self.next >= end {
            return Ok(None);
        }
        let rows: Vec<Row> = (self.next..end).map(|number| self.shape.row(number)).collect();
        self.next = end;
        rows.iter().for_each(|row| self.note(row));
        self.shape.batch(&rows).map(Some)
    }

    fn note(&mut self, row: &Row) {
        let (range, sorted) = (range(self.rows), sorted_range(self.rows));
        let expected = &mut self.expected;
        let count = |total: &mut Total, counts: bool| {
            if counts {
                total.add(row.amount, row.value);
            }
        };
        let in_range = range.contains(&row.number);
        count(&mut expected.all, true);
        count(&mut expected.of_group, row.group == GROUP);
        count(&mut expected.of_groups, GROUPS.contains(&row.group));
        count(&mut expected.in_range, in_range);
        count(&mut expected.large_in_range, in_range && row.value > LARGE);
        count(&mut expected.sorted, sorted.contains(&row.number));
        let top = &mut expected.top;
        let place = top.partition_point(|better| better.value >= row.value);
        if place < TOP {
            top.insert(place, *row);
            top.truncate(TOP);
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    fn batches(shape: Shape, rows: u64, of: u64) -> (Vec<RecordBatch>, Expected) {
        let mut generator = Generator::new(shape, rows);
        let next = || generator.next_batch(of).unwrap();
        let batches = std::iter::from_fn(next).collect();
        (batches, generator.expected)
    }

    #[test]
    fn the_size_of_batches_changes_no_row_and_no_expectation() {
        for (shape, columns) in [(Shape::Simple, 4), (Shape::Trading, 8)] {
            let (whole, expected) = batches(shape, 5_000, 5_000);
            let (parts, again) = batches(shape, 5_000, 700);
            assert_eq!((whole.len(), parts.len()), (1, 8));
            assert_eq!(whole[0].num_columns(), columns);
            let mut at = 0;
            for part in parts {
                assert_eq!(part, whole[0].slice(at, part.num_rows()));
                at += part.num_rows();
            }
            assert_eq!(at, 5_000);
            assert_eq!((expected.all, expected.top.len()), (again.all, TOP));
            assert_eq!(expected.top, again.top);
        }
    }

    #[test]
    fn expectations_are_what_a_look_at_the_columns_finds() {
        for shape in [Shape::Simple, Shape::Trading] {
            let (whole, expected) = batches(shape, 3_000, 3_000);
            let amounts = whole[0][shape.amount_column()].as_primitive::<Int64Type>().values();
            let values = whole[0][shape.value_column()].as_primitive::<Float64Type>().values();
            assert_eq!(expected.all.rows, 3_000);
            assert_eq!(expected.all.amount, amounts.iter().sum::<i64>());
            assert_eq!(expected.all.value, values.iter().sum::<f64>());
            let range = 1_000..1_300;
            assert_eq!(expected.in_range.rows, 300);
            assert_eq!(expected.in_range.amount, amounts[range.clone()].iter().sum::<i64>());
            let large = values[range].iter().filter(|value| **value > LARGE).count() as u64;
            assert!(large > 0 && expected.large_in_range.rows == large);
            let mut greatest = values.to_vec();
            greatest.sort_by(|a, b| b.total_cmp(a));
            let top: Vec<f64> = expected.top.iter().map(|row| row.value).collect();
            assert_eq!(top, greatest[..TOP]);
            for total in [expected.of_group, expected.of_groups] {
                assert!(total.rows > 0 && total.rows < 3_000);
            }
        }
    }
}
