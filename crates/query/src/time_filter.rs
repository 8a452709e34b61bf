//! Ranges of event time out of filter expressions.
//!
//! An expression is read only if all of it is a range of the time column: comparisons of the column
//! with a literal, `BETWEEN`, and conjunctions of those. Anything else tells nothing, and a
//! missing bound never drops data.

use datafusion::arrow::datatypes::{DataType, TimeUnit as Arrow};
use datafusion::logical_expr::expr::{Between, Cast};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::expressions as physical;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;
use tidelog_core::{EventTime, TimeRange, TimeUnit};

/// A time column as a filter sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeColumn<'a> {
    pub(crate) name: &'a str,
    pub(crate) unit: TimeUnit,
}

/// What a filter says about event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeBounds {
    /// Exactly the rows of this range pass.
    Range(TimeRange),
    /// No row passes.
    Nothing,
}

impl TimeBounds {
    /// The bounds of both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Range(a), Self::Range(b)) => a.intersect(&b).map_or(Self::Nothing, Self::Range),
            _ => Self::Nothing,
        }
    }
}

/// The bounds that a logical filter sets, if it is a range of the time column and nothing else.
pub(crate) fn logical_bounds(expr: &Expr, column: TimeColumn<'_>) -> Option<TimeBounds> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Some(logical_bounds(left, column)?.and(logical_bounds(right, column)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if is_column(left, column) {
                compare(*op, nanos(literal(right)?, column.unit)?, column.unit)
            } else if is_column(right, column) {
                compare(op.swap()?, nanos(literal(left)?, column.unit)?, column.unit)
            } else {
                None
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_column(expr, column) => {
            let low = nanos(literal(low)?, column.unit)?;
            let high = nanos(literal(high)?, column.unit)?;
            let from = compare(Operator::GtEq, low, column.unit)?;
            Some(from.and(compare(Operator::LtEq, high, column.unit)?))
        }
        _ => None,
    }
}

/// The bounds that a physical filter sets, if it is a range of the time column and nothing else.
pub(crate) fn physical_bounds(
    expr: &Arc<dyn PhysicalExpr>,
    column: TimeColumn<'_>,
) -> Option<TimeBounds> {
    let binary = expr.downcast_ref::<physical::BinaryExpr>()?;
    let (left, op, right) = (binary.left(), binary.op(), binary.right());
    if *op == Operator::And {
        return Some(physical_bounds(left, column)?.and(physical_bounds(right, column)?));
    }
    let is_time = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<physical::Column>().is_some_and(|c| c.name() == column.name)
    };
    let value = |expr: &Arc<dyn PhysicalExpr>| {
        nanos(expr.downcast_ref::<physical::Literal>()?.value(), column.unit)
    };
    if is_time(left) {
        compare(*op, value(right)?, column.unit)
    } else if is_time(right) {
        compare(op.swap()?, value(left)?, column.unit)
    } else {
        None
    }
}

/// The column itself, or widened to a finer timestamp, which changes no comparison.
fn is_column(expr: &Expr, column: TimeColumn<'_>) -> bool {
    match expr {
        Expr::Column(found) => found.name == column.name,
        Expr::Cast(Cast { expr, field }) => {
            let finer = match field.data_type() {
                DataType::Timestamp(unit, _) => unit_of(*unit).nanos() <= column.unit.nanos(),
                _ => false,
            };
            finer && column.unit != TimeUnit::Day && is_column(expr, column)
        }
        _ => false,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

const fn unit_of(unit: Arrow) -> TimeUnit {
    match unit {
        Arrow::Second => TimeUnit::Second,
        Arrow::Millisecond => TimeUnit::Millisecond,
        Arrow::Microsecond => TimeUnit::Microsecond,
        Arrow::Nanosecond => TimeUnit::Nanosecond,
    }
}

/// The instant of a literal, in nanoseconds; plain integers count in the column's unit.
fn nanos(value: &ScalarValue, unit: TimeUnit) -> Option<i128> {
    let scaled = |value: Option<i64>, unit: TimeUnit| {
        value.map(|value| i128::from(value) * i128::from(unit.nanos()))
    };
    match value {
        ScalarValue::TimestampSecond(v, _) => scaled(*v, TimeUnit::Second),
        ScalarValue::TimestampMillisecond(v, _) => scaled(*v, TimeUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(v, _) => scaled(*v, TimeUnit::Microsecond),
        ScalarValue::TimestampNanosecond(v, _) => scaled(*v, TimeUnit::Nanosecond),
        ScalarValue::Date32(v) => scaled(v.map(i64::from), TimeUnit::Day),
        ScalarValue::Date64(v) => scaled(*v, TimeUnit::Millisecond),
        ScalarValue::Int64(v) => scaled(*v, unit),
        _ => None,
    }
}

/// Rows whose time, a whole number of `unit`s, compares so with `value` nanoseconds.
fn compare(op: Operator, value: i128, unit: TimeUnit) -> Option<TimeBounds> {
    let step = i128::from(unit.nanos());
    let (floor, exact) = (value.div_euclid(step) * step, value.rem_euclid(step) == 0);
    let ceil = if exact { floor } else { floor + step };
    let (start, end) = match op {
        Operator::Eq if !exact => return Some(TimeBounds::Nothing),
        Operator::Eq => (floor, floor),
        Operator::Gt => (floor + step, i128::MAX),
        Operator::GtEq => (ceil, i128::MAX),
        Operator::Lt => (i128::MIN, ceil - step),
        Operator::LtEq => (i128::MIN, floor),
        _ => return None,
    };
    let (min, max) = (i128::from(i64::MIN), i128::from(i64::MAX));
    if start > max || end < min {
        return Some(TimeBounds::Nothing);
    }
    let clamp = |value: i128| i64::try_from(value.clamp(min, max)).ok().map(EventTime::from_nanos);
    let range = TimeRange::try_new(clamp(start)?, clamp(end)?).ok()?;
    Some(TimeBounds::Range(range))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    const MICROS: TimeColumn<'static> = TimeColumn { name: "t", unit: TimeUnit::Microsecond };

    fn us(value: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(value), None))
    }

    fn range(start: i64, end: i64) -> Option<TimeBounds> {
        Some(TimeBounds::Range(TimeRange::try_new(start, end).unwrap()))
    }

    #[test]
    fn comparisons_become_ranges_that_include_both_ends() {
        let bounds = |expr: Expr| logical_bounds(&expr, MICROS);
        assert_eq!(bounds(col("t").gt_eq(us(5))), range(5_000, i64::MAX));
        assert_eq!(bounds(col("t").gt(us(5))), range(6_000, i64::MAX));
        assert_eq!(bounds(us(5).gt(col("t"))), range(i64::MIN, 4_000));
        assert_eq!(bounds(col("t").between(us(1), us(2))), range(1_000, 2_000));
        assert_eq!(bounds(col("t").gt_eq(us(1)).and(col("t").lt(us(3)))), range(1_000, 2_000));
        assert_eq!(bounds(col("t").eq(us(7))), range(7_000, 7_000));
        assert_eq!(bounds(col("t").lt(us(1)).and(col("t").gt(us(1)))), Some(TimeBounds::Nothing));
    }

    #[test]
    fn a_finer_literal_is_rounded_so_that_no_row_changes_side() {
        let ns = |v| lit(ScalarValue::TimestampNanosecond(Some(v), None));
        let bounds = |expr: Expr| logical_bounds(&expr, MICROS);
        assert_eq!(bounds(col("t").gt_eq(ns(1_500))), range(2_000, i64::MAX));
        assert_eq!(bounds(col("t").lt(ns(1_500))), range(i64::MIN, 1_000));
        assert_eq!(bounds(col("t").eq(ns(1_500))), Some(TimeBounds::Nothing));
    }

    #[test]
    fn what_is_not_a_range_of_time_tells_nothing() {
        for expr in [
            col("t").gt(us(1)).or(col("t").lt(us(0))),
            col("x").gt(us(1)),
            col("t").gt(us(1)).and(col("x").gt(lit(1))),
            col("t").not_eq(us(1)),
            col("t").gt(lit(ScalarValue::TimestampMicrosecond(None, None))),
        ] {
            assert_eq!(logical_bounds(&expr, MICROS), None, "{expr}");
        }
    }
}
