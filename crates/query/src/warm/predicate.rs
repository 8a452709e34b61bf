//! Filters of a scan as predicates of the backend.
//!
//! What is taken: comparisons of a column with a literal of its very type, lists of such literals, tests
//! for null, boolean columns, and these under `AND`, `OR`, `NOT`. So is whatever is said of one text column
//! (`LIKE`, functions): it is evaluated once for each distinct text, and becomes a list of those for which
//! it holds.
//!
//! Where only rows are wanted, parts of a conjunction that are not taken are evaluated afterwards;
//! otherwise a filter is taken whole or not at all.
//!
//! A NaN is greater than all numbers and equal to itself, here and there. The zeros of a float are
//! one value to a comparison of the plan; to a list of literals they are two, as to the backend.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::scalar::ScalarValue;
use tidelog_warm::{Comparison, PREDICATE_DEPTH_MAX, Predicate, Value};

use super::held::{Held, Place, is_text};
use super::why_not::WhyNot;
use crate::scan::facts::VISIBLE_COLUMN;

/// A text column with more distinct texts than these is not looked through.
const TEXTS_MAX: usize = 1 << 14;

/// More keys than these are not looked up one by one.
const KEYS_MAX: usize = 1024;

/// A filter over the scan's table.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What of it the backend takes; `None` if all rows pass.
    pub(super) predicate: Option<Predicate>,
    /// The parts that are to hold besides.
    pub(super) rest: Vec<Arc<dyn PhysicalExpr>>,
    /// Why these are not taken.
    pub(super) why_not: Option<WhyNot>,
}

impl Taken {
    /// What the backend takes of a filter.
    ///
    /// What hides rows of other versions hides none of a file that is seen whole, and is left out.
    pub(super) fn of(held: &Held, table: &Schema, filter: Option<&Arc<dyn PhysicalExpr>>) -> Self {
        let reader = Reader { held, table };
        let hides_versions = |part: &&Arc<dyn PhysicalExpr>| {
            collect_columns(part).iter().any(|column| column.name() == VISIBLE_COLUMN)
        };
        let (mut taken, mut parts) = (Self::default(), Vec::new());
        let wanted = filter.into_iter().flat_map(split_conjunction);
        for part in wanted.filter(|part| !hides_versions(part)) {
            match reader.read(part, 2) {
                Ok(predicate) => parts.push(predicate),
                Err(why_not) => {
                    taken.rest.push(Arc::clone(part));
                    taken.why_not = Some(why_not);
                }
            }
        }
        taken.predicate = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Predicate::And(parts)),
        };
        taken
    }
}

struct Reader<'a> {
    held: &'a Held,
    table: &'a Schema,
}

impl Reader<'_> {
    fn read(&self, expr: &Arc<dyn PhysicalExpr>, depth: usize) -> Result<Predicate, WhyNot> {
        self.read_plain(expr, depth).or_else(|why_not| self.of_texts(expr)?.ok_or(why_not))
    }

    /// What is said of one text column, or of a column that is the same in all rows; `None` if it is
    /// something else.
    fn of_texts(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Predicate>, WhyNot> {
        let columns = collect_columns(expr);
        let mut columns = columns.iter();
        let (Some(column), None) = (columns.next(), columns.next()) else { return Ok(None) };
        let field = self.table.field_with_name(column.name()).map_err(|_| self.cannot(expr))?;
        let is_plain = is_text(field.data_type()) && !is_volatile(expr);
        let Ok(place) = self.held.place(self.table, column.name()) else { return Ok(None) };
        let texts = match &place {
            _ if !is_plain => return Ok(None),
            Place::Column(column) => self.held.table.texts(*column),
            Place::Constant(path) => path.to_array().map_err(|_| self.cannot(expr))?,
        };
        if texts.len() > TEXTS_MAX {
            return Ok(None);
        }
        let said = || -> DataFusionResult<ArrayRef> {
            let texts = cast(&texts, field.data_type())?;
            let null = new_null_array(field.data_type(), 1);
            let texts = concat(&[&texts, &null])?;
            let schema = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![texts])?;
            reassign_expr_columns(Arc::clone(expr), &schema)?
                .evaluate(&batch)?
                .into_array(batch.num_rows())
        };
        // What fails for a text may be about one that no row of these has.
        let Ok(said) = said() else { return Ok(None) };
        let Some(said) = said.as_boolean_opt() else { return Ok(None) };
        let of_null = (!said.is_null(texts.len())).then(|| said.value(texts.len()));
        let said = said.slice(0, texts.len());
        if said.null_count() > 0 {
            return Ok(None);
        }
        let holds = |row: usize| said.value(row);
        Ok(Some(match place {
            Place::Constant(_) if holds(0) => Predicate::And(Vec::new()),
            Place::Constant(_) => Predicate::Or(Vec::new()),
            Place::Column(column) => list(column, &texts, holds, of_null),
        }))
    }

    fn read_plain(&self, expr: &Arc<dyn PhysicalExpr>, depth: usize) -> Result<Predicate, WhyNot> {
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

/// The keys that a predicate leaves, if it names values of each key column: to look them up takes less
/// than to go through all. Some of them may not meet it.
pub(super) fn wanted_keys(predicate: &Predicate, columns: &[usize]) -> Option<Vec<Vec<Value>>> {
    let parts = match predicate {
        Predicate::And(parts) => parts.as_slice(),
        other => std::slice::from_ref(other),
    };
    let named = |wanted: &usize| {
        let values = parts.iter().filter_map(|part| match part {
            Predicate::Compare { column, op: Comparison::Equal, value } if column == wanted => {
                Some(std::slice::from_ref(value))
            }
            Predicate::In { column, values } if column == wanted => Some(values.as_slice()),
            _ => None,
        });
        values.min_by_key(|values| values.len())
    };
    let mut keys = vec![Vec::new()];
    for values in columns.iter().map(named) {
        let values = values?;
        if keys.len().saturating_mul(values.len()) > KEYS_MAX {
            return None;
        }
        let with = |key: &Vec<Value>, value: &Value| {
            [key.as_slice(), std::slice::from_ref(value)].concat()
        };
        keys = keys.iter().flat_map(|key| values.iter().map(move |v| with(key, v))).collect();
    }
    (!columns.is_empty()).then_some(keys)
}

/// The rows whose text holds; `of_null` is what is said of a null.
fn list(
    column: usize,
    texts: &ArrayRef,
    holds: impl Fn(usize) -> bool,
    of_null: Option<bool>,
) -> Predicate {
    let texts = texts.as_string_view();
    let (yes, no): (Vec<usize>, Vec<usize>) = (0..texts.len()).partition(|row| holds(*row));
    let is_short = yes.len() <= no.len() && !yes.is_empty() || no.is_empty();
    let rows = if is_short { yes } else { no };
    let values = rows.into_iter().map(|row| Value::Text(texts.value(row).into()));
    let values: Vec<Value> = values.collect();
    let among = match (is_short, values.is_empty()) {
        // Nothing is known of a null, and there is nothing else.
        (_, true) => Predicate::compare(column, Comparison::Equal, Value::Null),
        (true, false) => Predicate::In { column, values },
        (false, false) => Predicate::Not(Box::new(Predicate::In { column, values })),
    };
    match of_null {
        None => among,
        Some(true) => Predicate::Or(vec![among, Predicate::IsNull(column)]),
        Some(false) => Predicate::And(vec![among, Predicate::IsNotNull(column)]),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn among(column: usize, values: &[&str]) -> Predicate {
        Predicate::In { column, values: values.iter().map(|value| text(value)).collect() }
    }

    #[test]
    fn keys_are_looked_up_where_a_filter_names_them_all() {
        let north = Predicate::compare(4, Comparison::Equal, text("north"));
        let both = Predicate::And(vec![
            among(2, &["a", "b"]),
            Predicate::IsNotNull(7),
            north.clone(),
            among(4, &["north", "south"]),
        ]);
        let keys = |a, b| vec![text(a), text(b)];
        assert_eq!(wanted_keys(&both, &[4, 2]), Some(vec![keys("north", "a"), keys("north", "b")]));
        assert_eq!(wanted_keys(&north, &[4]), Some(vec![vec![text("north")]]));
        assert_eq!(wanted_keys(&among(4, &[]), &[4]), Some(vec![]));
        // Not all of a key is named, or by a range, or one of two conditions.
        assert_eq!(wanted_keys(&north, &[4, 2]), None);
        assert_eq!(wanted_keys(&Predicate::compare(4, Comparison::Less, text("x")), &[4]), None);
        assert_eq!(wanted_keys(&Predicate::Or(vec![north.clone(), north.clone()]), &[4]), None);
        assert_eq!(wanted_keys(&north, &[]), None);
        let many: Vec<Value> = (0..=1024).map(Value::Int).collect();
        assert_eq!(wanted_keys(&Predicate::In { column: 4, values: many }, &[4]), None);
    }
}
