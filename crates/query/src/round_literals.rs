//! Comparisons of a time column with a finer literal.
//!
//! DataFusion brings both sides of `ts < literal` to one unit, and on the way cuts off what the
//! column's unit cannot hold, whatever the comparison. So the row at 21 s would not be before 21.5 s.
//! This rule comes before type coercion, while a text is still a text, and rounds the literal in the
//! direction that keeps every row on its side.

use std::sync::Arc;

use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use datafusion::arrow::datatypes::{DataType, TimeUnit as ArrowUnit};
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, lit,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;

/// Rounds literals in filters to the unit of the column that they are compared with.
#[derive(Debug)]
pub(crate) struct RoundLiterals;

impl AnalyzerRule for RoundLiterals {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rounded = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) => {
                let schema = Arc::clone(filter.input.schema());
                let predicate = round_all(filter.predicate, &schema)?;
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

/// A condition over columns of `schema`, with its literals rounded.
pub(crate) fn rounded(condition: Expr, schema: &DFSchemaRef) -> Result<Expr> {
    Ok(round_all(condition, schema)?.data)
}

fn round_all(condition: Expr, schema: &DFSchemaRef) -> Result<Transformed<Expr>> {
    condition.transform_up(|expr| Ok(round(expr, schema)))
}

fn round(expr: Expr, schema: &DFSchemaRef) -> Transformed<Expr> {
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

/// `side op constant` with the constant rounded to the unit of `side`, a timestamp.
fn compared(side: &Expr, op: Operator, other: &Expr, schema: &DFSchemaRef) -> Option<Expr> {
    let Expr::Column(_) = side else { return None };
    let DataType::Timestamp(unit, zone) = side.get_type(schema.as_ref()).ok()? else { return None };
    let nanos = nanos(&constant(other, schema)?)?;
    let step = step(unit);
    let (floor, exact) = (nanos.div_euclid(step), nanos.rem_euclid(step) == 0);
    let value = match op {
        _ if exact => floor,
        Operator::Lt | Operator::GtEq => floor + 1,
        Operator::LtEq | Operator::Gt => floor,
        // No value of the column is equal, so this is false, and null for null.
        Operator::Eq => return Some(side.clone().not_eq(side.clone())),
        Operator::NotEq => return Some(side.clone().eq(side.clone())),
        _ => return None,
    };
    if !is_comparison(op) {
        return None;
    }
    let value = i64::try_from(value).ok()?;
    let rounded = match unit {
        ArrowUnit::Second => ScalarValue::TimestampSecond(Some(value), zone),
        ArrowUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(value), zone),
        ArrowUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(value), zone),
        ArrowUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(value), zone),
    };
    let (left, right) = (Box::new(side.clone()), Box::new(lit(rounded)));
    Some(Expr::BinaryExpr(BinaryExpr { left, op, right }))
}

const fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::Eq
            | Operator::NotEq
    )
}

/// The value of an expression without columns.
fn constant(expr: &Expr, schema: &DFSchemaRef) -> Option<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Some(value.clone());
    }
    if !expr.column_refs().is_empty() {
        return None;
    }
    let context = SimplifyContext::builder().with_schema(Arc::clone(schema)).build();
    let simplifier = ExprSimplifier::new(context);
    let coerced = simplifier.coerce(expr.clone(), schema.as_ref()).ok()?;
    match simplifier.simplify(coerced).ok()? {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
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
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            return string_to_timestamp_nanos(text).ok().map(i128::from);
        }
        _ => return None,
    };
    value.map(|value| i128::from(value) * step(unit))
}
