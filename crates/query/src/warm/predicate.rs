//! Filters of a scan as predicates of the backend.
//!
//! A filter is taken whole or not at all: comparisons of a column with a literal of its very type,
//! lists of such literals, tests for null, boolean columns, and these under `AND`, `OR`, `NOT`.
//!
//! A NaN is greater than all numbers and equal to itself, here and there. The zeros of a float are
//! one value to a comparison of the plan; to a list of literals they are two, as to the backend.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::scalar::ScalarValue;
use tidelog_warm::{Comparison, PREDICATE_DEPTH_MAX, Predicate, Value};

use super::held::{Held, is_text};
use super::why_not::WhyNot;
use crate::scan::facts::VISIBLE_COLUMN;

/// What a filter over the scan's table is to the backend; `None` if all rows pass.
///
/// What hides rows of other versions hides none of a file that is seen whole, and is left out.
pub(super) fn predicate(
    held: &Held,
    table: &Schema,
    filter: Option<&Arc<dyn PhysicalExpr>>,
) -> Result<Option<Predicate>, WhyNot> {
    let reader = Reader { held, table };
    let hides_versions = |part: &&Arc<dyn PhysicalExpr>| {
        collect_columns(part).iter().any(|column| column.name() == VISIBLE_COLUMN)
    };
    let parts = filter.into_iter().flat_map(split_conjunction);
    let parts = parts.filter(|part| !hides_versions(part)).map(|part| reader.read(part, 2));
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(Predicate::And(parts)),
    })
}

struct Reader<'a> {
    held: &'a Held,
    table: &'a Schema,
}

impl Reader<'_> {
    fn read(&self, expr: &Arc<dyn PhysicalExpr>, depth: usize) -> Result<Predicate, WhyNot> {
        if depth > PREDICATE_DEPTH_MAX {
            return Err(WhyNot::new("a filter that is nested too deep"));
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            return match binary.op() {
                Operator::And => Ok(Predicate::And(self.all(expr, Operator::And, depth)?)),
                Operator::Or => Ok(Predicate::Or(self.all(expr, Operator::Or, depth)?)),
                _ => self.compare(binary),
            };
        }
        if let Some(not) = expr.downcast_ref::<NotExpr>() {
            return Ok(Predicate::Not(Box::new(self.read(not.arg(), depth + 1)?)));
        }
        if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
            return Ok(Predicate::IsNull(self.column(null.arg())?.0));
        }
        if let Some(value) = expr.downcast_ref::<IsNotNullExpr>() {
            return Ok(Predicate::IsNotNull(self.column(value.arg())?.0));
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            return self.one_of(list);
        }
        match expr.downcast_ref::<Literal>().map(Literal::value) {
            // Without parts, all are true and none is.
            Some(ScalarValue::Boolean(Some(true))) => Ok(Predicate::And(Vec::new())),
            Some(ScalarValue::Boolean(Some(false))) => Ok(Predicate::Or(Vec::new())),
            _ => self.flag(expr),
        }
    }

    /// A boolean column.
    fn flag(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Predicate, WhyNot> {
        let (column, data_type) = self.column(expr)?;
        match data_type {
            DataType::Boolean => {
                Ok(Predicate::compare(column, Comparison::Equal, Value::Boolean(true)))
            }
            _ => Err(self.cannot(expr)),
        }
    }

    /// The operands of a chain of `op`, however it is nested: chains may be long.
    fn all(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        op: Operator,
        depth: usize,
    ) -> Result<Vec<Predicate>, WhyNot> {
        let (mut left, mut parts) = (vec![expr], Vec::new());
        while let Some(expr) = left.pop() {
            match expr.downcast_ref::<BinaryExpr>().filter(|binary| *binary.op() == op) {
                Some(binary) => left.extend([binary.right(), binary.left()]),
                None => parts.push(self.read(expr, depth + 1)?),
            }
        }
        Ok(parts)
    }

    fn compare(&self, binary: &BinaryExpr) -> Result<Predicate, WhyNot> {
        let cannot = || WhyNot::new(format!("the filter {binary}"));
        let (expr, literal, op) = match (literal(binary.left()), literal(binary.right())) {
            (None, Some(literal)) => (binary.left(), literal, *binary.op()),
            (Some(literal), None) => {
                (binary.right(), literal, binary.op().swap().ok_or_else(cannot)?)
            }
            _ => return Err(cannot()),
        };
        let (column, data_type) = self.column(expr)?;
        let value = value(literal, data_type).ok_or_else(cannot)?;
        let compare = |op| compared(column, op, &value);
        Ok(match op {
            Operator::Eq => compare(Comparison::Equal),
            Operator::NotEq => compare(Comparison::NotEqual),
            Operator::Lt => compare(Comparison::Less),
            Operator::LtEq => compare(Comparison::LessOrEqual),
            Operator::Gt => compare(Comparison::Greater),
            Operator::GtEq => compare(Comparison::GreaterOrEqual),
            // These are never unknown.
            Operator::IsNotDistinctFrom if value == Value::Null => Predicate::IsNull(column),
            Operator::IsDistinctFrom if value == Value::Null => Predicate::IsNotNull(column),
            Operator::IsNotDistinctFrom => {
                Predicate::And(vec![compare(Comparison::Equal), Predicate::IsNotNull(column)])
            }
            Operator::IsDistinctFrom => {
                Predicate::Or(vec![compare(Comparison::NotEqual), Predicate::IsNull(column)])
            }
            _ => return Err(cannot()),
        })
    }

    fn one_of(&self, list: &InListExpr) -> Result<Predicate, WhyNot> {
        let cannot = || WhyNot::new(format!("the filter {list}"));
        let (column, data_type) = self.column(list.expr())?;
        let values = list.list().iter().map(|item| value(literal(item)?, data_type));
        let values = values.collect::<Option<Vec<_>>>().ok_or_else(cannot)?;
        let one_of = Predicate::In { column, values };
        Ok(if list.negated() { Predicate::Not(Box::new(one_of)) } else { one_of })
    }

    /// The number of a column, and its type in the scan.
    fn column(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<(usize, &DataType), WhyNot> {
        let column = expr.downcast_ref::<Column>().ok_or_else(|| self.cannot(expr))?;
        let number = self.held.column(self.table, column.name())?;
        let field = self.table.field_with_name(column.name()).map_err(|_| self.cannot(expr))?;
        Ok((number, field.data_type()))
    }

    fn cannot(&self, expr: &Arc<dyn PhysicalExpr>) -> WhyNot {
        WhyNot::new(format!("the filter {expr}"))
    }
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<&ScalarValue> {
    expr.downcast_ref::<Literal>().map(Literal::value)
}

/// A column against a literal. To the plan the two zeros of a float are equal, to the backend -0.0
/// is the lesser one.
fn compared(column: usize, op: Comparison, value: &Value) -> Predicate {
    let zeros = match value {
        Value::Float32(value) if *value == 0.0 => (Value::Float32(-0.0), Value::Float32(0.0)),
        Value::Float64(value) if *value == 0.0 => (Value::Float64(-0.0), Value::Float64(0.0)),
        value => return Predicate::compare(column, op, value.clone()),
    };
    let (low, high) = zeros;
    match op {
        Comparison::Equal => Predicate::Between { column, low, high },
        Comparison::NotEqual => Predicate::Not(Box::new(Predicate::Between { column, low, high })),
        Comparison::Less | Comparison::GreaterOrEqual => Predicate::compare(column, op, low),
        Comparison::LessOrEqual | Comparison::Greater => Predicate::compare(column, op, high),
    }
}

/// A literal that is compared with a column of this type; `None` if they are of different types.
fn value(scalar: &ScalarValue, column: &DataType) -> Option<Value> {
    if scalar.is_null() {
        return Some(Value::Null);
    }
    if let ScalarValue::Dictionary(_, inner) = scalar {
        return value(inner, column);
    }
    if is_text(column) {
        return scalar.try_as_str().flatten().map(|text| Value::Text(text.into()));
    }
    if scalar.data_type() != *column {
        return None;
    }
    Some(match scalar {
        ScalarValue::Boolean(Some(v)) => Value::Boolean(*v),
        ScalarValue::Int8(Some(v)) => Value::Int(i64::from(*v)),
        ScalarValue::Int16(Some(v)) => Value::Int(i64::from(*v)),
        ScalarValue::Int32(Some(v))
        | ScalarValue::Date32(Some(v))
        | ScalarValue::Time32Second(Some(v))
        | ScalarValue::Time32Millisecond(Some(v)) => Value::Int(i64::from(*v)),
        ScalarValue::Int64(Some(v))
        | ScalarValue::Date64(Some(v))
        | ScalarValue::Time64Microsecond(Some(v))
        | ScalarValue::Time64Nanosecond(Some(v))
        | ScalarValue::TimestampSecond(Some(v), _)
        | ScalarValue::TimestampMillisecond(Some(v), _)
        | ScalarValue::TimestampMicrosecond(Some(v), _)
        | ScalarValue::TimestampNanosecond(Some(v), _)
        | ScalarValue::DurationSecond(Some(v))
        | ScalarValue::DurationMillisecond(Some(v))
        | ScalarValue::DurationMicrosecond(Some(v))
        | ScalarValue::DurationNanosecond(Some(v)) => Value::Int(*v),
        ScalarValue::UInt8(Some(v)) => Value::UInt(u64::from(*v)),
        ScalarValue::UInt16(Some(v)) => Value::UInt(u64::from(*v)),
        ScalarValue::UInt32(Some(v)) => Value::UInt(u64::from(*v)),
        ScalarValue::UInt64(Some(v)) => Value::UInt(*v),
        ScalarValue::Float32(Some(v)) => Value::Float32(*v),
        ScalarValue::Float64(Some(v)) => Value::Float64(*v),
        _ => return None,
    })
}
