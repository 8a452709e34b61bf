//! Comparisons of a time column with a finer literal.
//!
//! DataFusion compares `ts < literal` by casting `ts` to the literal's finer unit, and its optimizer
//! then moves the cast to the literal, where it cuts off what the column's unit cannot hold, whatever
//! the comparison. So the row at 21 s would not be before 21.5 s. This rule comes first and rounds the
//! literal in the direction that keeps every row on its side.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit as ArrowUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Cast};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

/// Rounds literals in filters to the unit of the column that they are compared with.
#[derive(Debug)]
pub(crate) struct RoundLiterals;

impl AnalyzerRule for RoundLiterals {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rounded = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) => {
                let schema = Arc::clone(filter.input.schema());
                let predicate =
                    filter.predicate.transform_up(|expr| Ok(round(expr, schema.as_ref())))?;
                let changed = predicate.transformed;
                let filter = Filter::try_new(predicate.data, filter.input)?;
                let plan = LogicalPlan::Filter(filter);
                Ok(if changed { Transformed::yes(plan) } else { Transformed::no(plan) })
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(rounded.data)
    }

    fn name(&self) -> &str {
        "round_literals"
    }
}

fn round(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let rounded = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            compared(left, *op, right, schema).or_else(|| compared(right, op.swap()?, left, schema))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let low = compared(expr, Operator::GtEq, low, schema);
            let high = compared(expr, Operator::LtEq, high, schema);
            low.zip(high).map(|(low, high)| {
                let both = low.and(high);
                if *negated { Expr::Not(Box::new(both)) } else { both }
            })
        }
        _ => None,
    };
    rounded.map_or_else(|| Transformed::no(expr), Transformed::yes)
}

/// `cast(column) op literal` as `column op rounded literal`.
fn compared(side: &Expr, op: Operator, other: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::Cast(Cast { expr, field }) = side else { return None };
    let DataType::Timestamp(..) = field.data_type() else { return None };
    let Expr::Literal(literal, _) = other else { return None };
    let coarse = expr.get_type(schema).ok()?;
    let (unit, zone) = match &coarse {
        DataType::Timestamp(unit, zone) => (*unit, zone.clone()),
        _ => return None,
    };
    let nanos = nanos(literal)?;
    let step = step(unit);
    if nanos.rem_euclid(step) == 0 {
        return None;
    }
    let (floor, ceil) = (nanos.div_euclid(step), nanos.div_euclid(step) + 1);
    let value = match op {
        Operator::Lt | Operator::GtEq => ceil,
        Operator::LtEq | Operator::Gt => floor,
        // No value of the column is equal, so this is false, and null for null.
        Operator::Eq => return Some(expr.as_ref().clone().not_eq(expr.as_ref().clone())),
        Operator::NotEq => return Some(expr.as_ref().clone().eq(expr.as_ref().clone())),
        _ => return None,
    };
    let value = i64::try_from(value).ok()?;
    let rounded = match unit {
        ArrowUnit::Second => ScalarValue::TimestampSecond(Some(value), zone),
        ArrowUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(value), zone),
        ArrowUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(value), zone),
        ArrowUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(value), zone),
    };
    let (left, right) = (Box::new(expr.as_ref().clone()), Box::new(lit(rounded)));
    Some(Expr::BinaryExpr(BinaryExpr { left, op, right }))
}

const fn step(unit: ArrowUnit) -> i128 {
    match unit {
        ArrowUnit::Second => 1_000_000_000,
        ArrowUnit::Millisecond => 1_000_000,
        ArrowUnit::Microsecond => 1_000,
        ArrowUnit::Nanosecond => 1,
    }
}

fn nanos(literal: &ScalarValue) -> Option<i128> {
    let (value, unit) = match literal {
        ScalarValue::TimestampSecond(value, _) => (*value, ArrowUnit::Second),
        ScalarValue::TimestampMillisecond(value, _) => (*value, ArrowUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(value, _) => (*value, ArrowUnit::Microsecond),
        ScalarValue::TimestampNanosecond(value, _) => (*value, ArrowUnit::Nanosecond),
        _ => return None,
    };
    value.map(|value| i128::from(value) * step(unit))
}
