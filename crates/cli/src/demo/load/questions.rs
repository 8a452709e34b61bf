//! What is asked of the rows, with the answers that must come.

use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use futures::TryStreamExt;
use tidelog::Store;

use super::PATH;
use super::generate::{
    Expected, GROUP, GROUPS, LARGE, Row, Shape, TOP, Total, range, sorted_range, time_us,
};
use crate::error::{Error, Result};

/// A query and what it must yield.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) name: &'static str,
    sql: String,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// One row: how many, and the sums.
    Total(Total),
    /// Rows of these sums, in ascending order of value and time.
    Sorted(Total),
    /// Exactly these rows, in this order.
    Rows(Vec<Row>),
}

/// How a question was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) name: &'static str,
    pub(super) found: Total,
    pub(super) took: Duration,
    pub(super) right: bool,
}

/// All that is asked.
pub(super) fn all(shape: Shape, rows: u64, expected: &Expected) -> Vec<Question> {
    let (group, value) = (shape.group_column(), shape.value_column());
    let groups: Vec<String> = GROUPS.iter().map(|group| shape.literal(*group)).collect();
    let between = |range: std::ops::Range<u64>| {
        let moment = |number| format!("to_timestamp_micros({})", time_us(number));
        let last = range.end.saturating_sub(1).max(range.start);
        format!("time BETWEEN {} AND {}", moment(range.start), moment(last))
    };
    let in_range = between(range(rows));
    let total = |name, condition: String, total| {
        let columns = format!("count(*), sum({}), sum({value})", shape.amount_column());
        let sql = format!("SELECT {columns} FROM \"{PATH}\" WHERE {condition}");
        Question { name, sql, answer: Answer::Total(total) }
    };
    let listed = |name, rest: String, answer| {
        let columns = format!("CAST(time AS BIGINT) AS us, {}, {value}", shape.amount_column());
        Question { name, sql: format!("SELECT {columns} FROM \"{PATH}\" {rest}"), answer }
    };
    let latest: Vec<Row> = (0..rows).rev().take(TOP).map(|number| shape.row(number)).collect();
    vec![
        total("all rows", "true".to_owned(), expected.all),
        total("filter", format!("{group} = {}", shape.literal(GROUP)), expected.of_group),
        total("IN", format!("{group} IN ({})", groups.join(", ")), expected.of_groups),
        total("range", in_range.clone(), expected.in_range),
        total(
            "range and filter",
            format!("{in_range} AND {value} > {LARGE}"),
            expected.large_in_range,
        ),
        listed(
            "sort",
            format!("WHERE {} ORDER BY {value}, time", between(sorted_range(rows))),
            Answer::Sorted(expected.sorted),
        ),
        listed(
            "top-k",
            format!("ORDER BY {value} DESC, time LIMIT {TOP}"),
            Answer::Rows(expected.top.clone()),
        ),
        listed("latest", format!("ORDER BY time DESC LIMIT {TOP}"), Answer::Rows(latest)),
    ]
}

impl Question {
    /// Asks, and compares the answer.
    pub(super) async fn ask(&self, store: &Store) -> Result<Answered> {
        let began = Instant::now();
        let mut found = Found::default();
        let mut rows = store.sql(&self.sql).await?;
        while let Some(batch) = rows.try_next().await? {
            found.take(&batch, matches!(self.answer, Answer::Rows(_)))?;
        }
        let took = began.elapsed();
        let (total, right) = match &self.answer {
            Answer::Total(expected) => {
                let (rows, amount, value) = found.last;
                let rows = u64::try_from(rows).unwrap_or_default();
                let total = Total { rows, amount, value };
                (total, found.total.rows == 1 && total == *expected)
            }
            Answer::Sorted(expected) => (found.total, found.ordered && found.total == *expected),
            Answer::Rows(expected) => {
                let row = |row: &Row| (row.time_us(), row.amount, row.value);
                let right = expected.iter().map(row).eq(found.rows.iter().copied());
                (found.total, right)
            }
        };
        Ok(Answered { name: self.name, found: total, took, right })
    }
}

/// What a query has yielded: three columns, of which the second and third are summed.
#[derive(Debug)]
struct Found {
    total: Total,
    last: (i64, i64, f64),
    /// Whether the third column, and the first where that is equal, ascend.
    ordered: bool,
    rows: Vec<(i64, i64, f64)>,
}

impl Default for Found {
    fn default() -> Self {
        let last = (i64::MIN, 0, f64::NEG_INFINITY);
        Self { total: Total::default(), last, ordered: true, rows: Vec::new() }
    }
}

impl Found {
    fn take(&mut self, batch: &RecordBatch, keep: bool) -> Result<()> {
        let unexpected = || Error::Internal {
            message: format!("a query yields other columns than it asks for: {}", batch.schema()),
        };
        let [first, amounts, values] = batch.columns() else { return Err(unexpected()) };
        let whole = |column: &dyn Array| column.as_primitive_opt::<Int64Type>().cloned();
        let first = whole(first).ok_or_else(unexpected)?;
        let amounts = whole(amounts).ok_or_else(unexpected)?;
        let values = values.as_primitive_opt::<Float64Type>().ok_or_else(unexpected)?;
        for index in 0..batch.num_rows() {
            // A sum of no rows is null, whose value here is 0.
            let row = (first.value(index), amounts.value(index), values.value(index));
            self.ordered &= (self.last.2, self.last.0) <= (row.2, row.0);
            self.total.add(row.1, row.2);
            self.last = row;
            if keep {
                self.rows.push(row);
            }
        }
        Ok(())
    }
}
