//! What a backend is asked: a range of time, a predicate, and one thing to do with the rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::WarmError;
use crate::value::Value;

/// The most rows of an [`Op::TopK`].
pub const TOP_K_MAX: usize = 1024;

/// How deep a predicate may be nested. A lone comparison has depth 1.
pub const PREDICATE_DEPTH_MAX: usize = 64;

/// The most rows of a batch of an answer.
pub const BATCH_ROWS: usize = 8192;

/// One question about the rows of some segments of one table.
///
/// Columns are named by their number in the table's schema.
#[derive(Debug, Clone)]
pub struct Request {
    /// Only rows in this range. Default: all.
    pub time: TimeRange,
    /// Only rows for which this is true. Default: all.
    pub filter: Option<Predicate>,
    /// What to do with these rows.
    pub op: Op,
    /// Who sets this wants no answer any more. It is looked at between segments. Default: none.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl Request {
    /// A request about all rows.
    #[must_use]
    pub const fn new(op: Op) -> Self {
        Self { time: TimeRange::ALL, filter: None, op, cancel: None }
    }

    /// Only rows in this range. Default: all.
    #[must_use]
    pub const fn with_time(mut self, time: TimeRange) -> Self {
        self.time = time;
        self
    }

    /// Only rows for which this is true. Default: all.
    #[must_use]
    pub fn with_filter(mut self, filter: Predicate) -> Self {
        self.filter = Some(filter);
        self
    }

    /// A flag that, once set, ends the request. Default: none.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Fails if the request was cancelled. Backends ask between segments.
    ///
    /// # Errors
    ///
    /// [`WarmError::Cancelled`].
    pub fn check_cancel(&self) -> Result<(), WarmError> {
        match &self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(WarmError::Cancelled),
            _ => Ok(()),
        }
    }
}

/// A half-open range of times, in the unit of the time column.
///
/// A range whose start is not before its end holds no time. Only a range without an end holds
/// `i64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first time, or none if there is no bound.
    pub start: Option<i64>,
    /// The first time that is not in the range any more, or none if there is no bound.
    pub end: Option<i64>,
}

impl TimeRange {
    /// Every time.
    pub const ALL: Self = Self { start: None, end: None };

    /// From `start` on, before `end`.
    #[must_use]
    pub const fn new(start: i64, end: i64) -> Self {
        Self { start: Some(start), end: Some(end) }
    }

    /// First and last time of the range, or none if it holds no time.
    #[must_use]
    pub fn inclusive(self) -> Option<(i64, i64)> {
        let first = self.start.unwrap_or(i64::MIN);
        let last = match self.end {
            Some(end) => end.checked_sub(1)?,
            None => i64::MAX,
        };
        (first <= last).then_some((first, last))
    }

    /// The range from the first to the last time, both within it.
    #[must_use]
    pub fn from_inclusive(first: i64, last: i64) -> Self {
        Self { start: Some(first), end: last.checked_add(1) }
    }
}

/// What is to be done with the rows of a request.
#[derive(Debug, Clone)]
pub enum Op {
    /// How many there are.
    Count,
    /// The rows themselves.
    Fetch {
        /// Which columns, in which order. None at all gives rows without columns.
        columns: Vec<usize>,
        /// In which order.
        order: FetchOrder,
        /// At most so many, the first in this order.
        limit: Option<usize>,
    },
    /// Partial states of aggregates, for each group that has a row.
    Aggregate {
        /// What rows are grouped by. Nothing means one group, which is there even without rows.
        group: Vec<Group>,
        /// What is said about each group.
        aggregates: Vec<Aggregate>,
    },
    /// The first rows by some columns.
    ///
    /// Rows that are equal in all of these come by segment, in the order given, then as they lie.
    /// Floats compare by `totalOrder`.
    TopK {
        /// The columns to order by, the first one first.
        order: Vec<SortKey>,
        /// How many rows, at most [`TOP_K_MAX`].
        k: usize,
        /// Which columns of these rows.
        columns: Vec<usize>,
    },
    /// Of each key its row of greatest time; of rows with equal times that of the latest segment, in
    /// the order given, and within one the last. One row in all where the table has no key columns.
    ///
    /// Keys come in the order of their numbers.
    LastPerKey {
        /// Which columns of these rows.
        columns: Vec<usize>,
        /// Only these keys, each with a value for each key column. A key that the table has never
        /// seen has no row. Default: all.
        keys: Option<Vec<Vec<Value>>>,
    },
}

/// The order in which rows are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOrder {
    /// By segment, in the order given, then as they lie: by number of the key, time, arrival.
    Stored,
    /// By time, then by segment, in the order given, then as they lie.
    Time,
}

/// One thing that rows are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The value of this key column. Nulls are a group.
    Key(usize),
    /// The bucket of event time: the greatest `origin + n * width`, for whole `n`, that is not after
    /// the row's time. So the bucket of a time before the origin is rounded down too.
    ///
    /// The answer has the bucket's beginning, in the type of the time column. If that of the least
    /// time of a segment given is before `i64::MIN`, the request is not supported.
    TimeBucket {
        /// Where buckets are counted from, in the unit of the time column.
        origin: i64,
        /// The length of a bucket, in the same unit, at least 1.
        width: i64,
    },
}

/// One thing that is said about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aggregate {
    /// The function.
    pub function: Function,
    /// Its column. Only `count` does without, and then counts rows.
    pub column: Option<usize>,
}

impl Aggregate {
    /// `count(*)`.
    pub const ROWS: Self = Self { function: Function::Count, column: None };

    /// A function of a column.
    #[must_use]
    pub const fn of(function: Function, column: usize) -> Self {
        Self { function, column: Some(column) }
    }
}

/// A function of an aggregate, and the columns of its partial state.
///
/// Nulls are passed over. These are the states of DataFusion's partial aggregates; where its result
/// depends on the order of rows (least and greatest of the zeros, sums of floats) this crate fixes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// How many rows, or values: `Int64`, never null.
    Count,
    /// The sum of the values, null if there are none.
    ///
    /// Of signed integers an `Int64`, of unsigned ones a `UInt64`, both wrapping around. Of floats a
    /// `Float64`. Not of times, dates, durations, booleans and text.
    ///
    /// Of floats, the same segments and request give the same bits again, and the sum is within 2⁻⁵⁰
    /// times the sum of the magnitudes of the true value, for up to 2³² values. A NaN, or infinities of
    /// both signs, give some NaN; infinities of one sign give that. Where the magnitudes of the finite values
    /// add up to more than the greatest float, it is what some order of adding gives.
    Sum,
    /// The least value, in the column's type, null if there are none.
    ///
    /// Not of text. Not of floats if the column has a NaN in a segment given. Of the zeros -0.0 is
    /// less.
    Min,
    /// The greatest value, otherwise as [`Function::Min`].
    Max,
    /// The number of values as `UInt64`, and their sum as `Float64`, both null if there are none.
    ///
    /// Of integers and floats; integers are rounded to `Float64` one by one, and added up as floats.
    Avg,
}

impl Function {
    /// The name of the function in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
        }
    }
}

/// One column of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// The column. Not of text.
    pub column: usize,
    /// Greatest first.
    pub descending: bool,
    /// Nulls before all values, in either direction.
    pub nulls_first: bool,
}

/// A condition on a row, true, false or unknown as in SQL.
///
/// Comparing anything with a null is unknown. `Not` of unknown is unknown, an `And` with something
/// false is false, an `Or` with something true is true. Only rows for which the whole is true count.
///
/// Literals are of the family of their column: [`Value::Int`] or [`Value::UInt`] for integers, of
/// any width and sign, compared as numbers; `Int` for times, dates and durations, in the unit of the
/// column; floats of the very width. Others are not supported. Text orders by its bytes, floats as
/// the [crate](crate) says.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// All of them. Without any it is true.
    And(Vec<Self>),
    /// At least one of them. Without any it is false.
    Or(Vec<Self>),
    /// Not so.
    Not(Box<Self>),
    /// A column against a literal: `column op value`.
    Compare {
        /// The column.
        column: usize,
        /// How they compare.
        op: Comparison,
        /// The literal.
        value: Value,
    },
    /// A column within two literals, both included: `column >= low AND column <= high`.
    Between {
        /// The column.
        column: usize,
        /// The least value.
        low: Value,
        /// The greatest value.
        high: Value,
    },
    /// A column equal to one of some literals. Without any it is false, also for a null.
    In {
        /// The column.
        column: usize,
        /// The literals.
        values: Vec<Value>,
    },
    /// The column has no value. Never unknown.
    IsNull(usize),
    /// The column has a value. Never unknown.
    IsNotNull(usize),
}

impl Predicate {
    /// `column op value`.
    #[must_use]
    pub const fn compare(column: usize, op: Comparison, value: Value) -> Self {
        Self::Compare { column, op, value }
    }
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_without_end_holds_the_last_time_and_others_do_not() {
        assert_eq!(TimeRange::ALL.inclusive(), Some((i64::MIN, i64::MAX)));
        assert_eq!(TimeRange::new(0, i64::MAX).inclusive(), Some((0, i64::MAX - 1)));
        assert_eq!(TimeRange::new(3, 3).inclusive(), None);
        assert_eq!(TimeRange::new(4, 3).inclusive(), None);
        assert_eq!(TimeRange { start: None, end: Some(i64::MIN) }.inclusive(), None);
        assert_eq!(TimeRange::from_inclusive(1, i64::MAX).inclusive(), Some((1, i64::MAX)));
    }
}
