//! Answers of different systems, brought to one form and compared.
//!
//! Two answers are equal if they are the same multiset of rows, exact but for doubles, which may differ in
//! the last digits because sums are taken in another order; the columns of ORDER BY must come in the same sequence.

use std::cmp::Ordering;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::ipc::reader::FileReader;

/// Doubles may differ by this part of the larger.
const TOLERANCE: f64 = 1e-9;

#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Int(i64),
    /// Microseconds, UTC.
    Time(i64),
    Text(String),
    Float(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Answer {
    pub(crate) fn of(batches: &[RecordBatch]) -> Result<Self> {
        let mut answer = Self { columns: Vec::new(), rows: Vec::new() };
        for batch in batches {
            answer.columns = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
            let columns = batch.columns().iter().map(cells).collect::<Result<Vec<Vec<Cell>>>>()?;
            let row = |number: usize| columns.iter().map(|column| column[number].clone()).collect();
            answer.rows.extend((0..batch.num_rows()).map(row));
        }
        Ok(answer)
    }

    /// Of an Arrow IPC file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let batches = FileReader::try_new(file, None)?.collect::<Result<Vec<_>, _>>()?;
        Self::of(&batches)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// What distinguishes this answer from the one that is taken as right; `None` if they are equal.
    pub(crate) fn difference(&self, right: &Self, ordered_by: &[&str]) -> Option<String> {
        if self.rows.len() != right.rows.len() {
            return Some(format!("{} rows instead of {}", self.rows.len(), right.rows.len()));
        }
        if right.rows.is_empty() {
            return None;
        }
        let found = match self.arranged_like(right) {
            Ok(found) => found,
            Err(missing) => return Some(missing),
        };
        order_difference(&found, right, ordered_by)
            .or_else(|| row_difference(&sorted(found.rows), &sorted(right.rows.clone())))
    }

    /// The same rows with the other's columns, by name; whole seconds become times where the other has times.
    fn arranged_like(&self, right: &Self) -> Result<Self, String> {
        let mut places = Vec::new();
        for (place, name) in right.columns.iter().enumerate() {
            let from = self.columns.iter().position(|column| column == name);
            let from = from.ok_or_else(|| format!("no column {name} in {:?}", self.columns))?;
            let times = right.rows.iter().any(|row| matches!(row[place], Cell::Time(_)));
            places.push((from, times));
        }
        if self.columns.len() != right.columns.len() {
            return Err(format!("columns {:?} instead of {:?}", self.columns, right.columns));
        }
        let arrange = |row: &Vec<Cell>| {
            places.iter().map(|(from, times)| like_time(row[*from].clone(), *times)).collect()
        };
        Ok(Self { columns: right.columns.clone(), rows: self.rows.iter().map(arrange).collect() })
    }
}

fn like_time(cell: Cell, times: bool) -> Cell {
    match cell {
        Cell::Int(seconds) if times => Cell::Time(seconds.saturating_mul(1_000_000)),
        other => other,
    }
}

fn cells(column: &ArrayRef) -> Result<Vec<Cell>> {
    let to = |kind: &DataType| cast(column, kind);
    let kind = match column.data_type() {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        other => other.clone(),
    };
    Ok(match kind {
        DataType::Timestamp(_, zone) => {
            let times = to(&DataType::Timestamp(TimeUnit::Microsecond, zone))?;
            nullable(times.as_primitive::<TimestampMicrosecondType>().iter(), Cell::Time)
        }
        kind if kind.is_integer() => {
            nullable(to(&DataType::Int64)?.as_primitive::<Int64Type>().iter(), Cell::Int)
        }
        kind if kind.is_floating() => {
            nullable(to(&DataType::Float64)?.as_primitive::<Float64Type>().iter(), Cell::Float)
        }
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary => {
            let texts = to(&DataType::Utf8)?;
            nullable(texts.as_string::<i32>().iter(), |text: &str| Cell::Text(text.to_owned()))
        }
        other => bail!("no way to compare values of type {other}"),
    })
}

fn nullable<T>(values: impl Iterator<Item = Option<T>>, cell: impl Fn(T) -> Cell) -> Vec<Cell> {
    values.map(|value| value.map_or(Cell::Null, &cell)).collect()
}

fn order_difference(found: &Answer, right: &Answer, ordered_by: &[&str]) -> Option<String> {
    for name in ordered_by {
        let place = right.columns.iter().position(|column| column == name)?;
        let pairs = found.rows.iter().zip(&right.rows).enumerate();
        let differs = pairs.into_iter().find(|(_, (found, right))| found[place] != right[place]);
        if let Some((row, (found, right))) = differs {
            return Some(format!(
                "{name} of row {row} is {:?} instead of {:?}",
                found[place], right[place]
            ));
        }
    }
    None
}

fn row_difference(found: &[Vec<Cell>], right: &[Vec<Cell>]) -> Option<String> {
    let alike = |found: &[Cell], right: &[Cell]| found.iter().zip(right).all(|(a, b)| close(a, b));
    let differs = found.iter().zip(right).find(|(found, right)| !alike(found, right));
    differs.map(|(found, right)| format!("{found:?} instead of {right:?}"))
}

fn close(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Float(a), Cell::Float(b)) => {
            a == b
                || (a.is_nan() && b.is_nan())
                || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
        }
        (a, b) => a == b,
    }
}

/// Sorted by the exact columns first: doubles that differ slightly must not change the order of unlike rows.
fn sorted(mut rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    let exact = |row: &[Cell], other: &[Cell]| by(row, other, |a| !matches!(a, Cell::Float(_)));
    let doubles = |row: &[Cell], other: &[Cell]| by(row, other, |a| matches!(a, Cell::Float(_)));
    rows.sort_by(|a, b| exact(a, b).then_with(|| doubles(a, b)));
    rows
}

fn by(row: &[Cell], other: &[Cell], wanted: impl Fn(&Cell) -> bool) -> Ordering {
    let pairs = row.iter().zip(other).filter(|(a, b)| wanted(a) && wanted(b));
    pairs.map(|(a, b)| compare(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn compare(a: &Cell, b: &Cell) -> Ordering {
    match (a, b) {
        (Cell::Int(a), Cell::Int(b)) | (Cell::Time(a), Cell::Time(b)) => a.cmp(b),
        (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
        (Cell::Float(a), Cell::Float(b)) => a.total_cmp(b),
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn rank(cell: &Cell) -> u8 {
    match cell {
        Cell::Null => 0,
        Cell::Int(_) => 1,
        Cell::Time(_) => 2,
        Cell::Text(_) => 3,
        Cell::Float(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(columns: &[&str], rows: &[&[Cell]]) -> Answer {
        Answer {
            columns: columns.iter().map(ToString::to_string).collect(),
            rows: rows.iter().map(|row| row.to_vec()).collect(),
        }
    }

    #[test]
    fn order_counts_only_where_it_was_asked_for() {
        let right = answer(&["a"], &[&[Cell::Int(1)], &[Cell::Int(2)]]);
        let turned = answer(&["a"], &[&[Cell::Int(2)], &[Cell::Int(1)]]);
        assert_eq!(turned.difference(&right, &[]), None);
        assert!(turned.difference(&right, &["a"]).is_some());
    }

    #[test]
    fn columns_are_found_by_name_and_seconds_read_as_times() {
        let right = answer(&["t", "v"], &[&[Cell::Time(3_000_000), Cell::Float(1.0)]]);
        let found = answer(&["v", "t"], &[&[Cell::Float(1.0 + 1e-12), Cell::Int(3)]]);
        assert_eq!(found.difference(&right, &["t"]), None);
    }

    #[test]
    fn unlike_answers_differ() {
        let right = answer(&["a"], &[&[Cell::Float(1.0)], &[Cell::Float(1.0)]]);
        let other = |cell: Cell| answer(&["a"], &[&[Cell::Float(1.0)], &[cell]]);
        assert!(other(Cell::Float(1.0 + 1e-6)).difference(&right, &[]).is_some());
        assert!(other(Cell::Null).difference(&right, &[]).is_some());
        assert!(answer(&["a"], &[&[Cell::Float(1.0)]]).difference(&right, &[]).is_some());
        assert!(answer(&["b"], &[&[Cell::Null], &[Cell::Null]]).difference(&right, &[]).is_some());
    }
}
