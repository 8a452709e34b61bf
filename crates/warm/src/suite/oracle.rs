//! The right answers, row by row.

use std::cmp::Ordering;
use std::collections::HashMap;

use arrow::datatypes::{DataType, SchemaRef};

use super::arrays::is_text;
use super::totals::Total;
use super::world::{DECIMAL, Row, TIME, World};
use crate::request::{
    Aggregate, Comparison, FetchOrder, Function, Group, Predicate, Request, SortKey, TOP_K_MAX,
};
use crate::value::Value;

/// A row of a segment.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) cells: Row,
    pub(super) time: i64,
    /// The number of its key.
    pub(super) key: usize,
}

/// All that the oracle knows: the rows of each segment, in the order in which they have to lie.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) schema: SchemaRef,
    key_columns: &'static [usize],
    pub(super) segments: Vec<Vec<Stored>>,
    /// Keys in the order of their numbers.
    pub(super) keys: Vec<Row>,
}

/// What a partial state has to be.
#[derive(Debug, Clone)]
pub(super) enum State {
    Value(Value),
    Float(Total),
    Average(Total),
}

impl Oracle {
    pub(super) fn new(world: &World, segments: &[Vec<Row>]) -> Self {
        let mut keys: Vec<Row> = Vec::new();
        let mut of_key = HashMap::new();
        let mut stored = Vec::with_capacity(segments.len());
        for rows in segments {
            let mut segment = Vec::with_capacity(rows.len());
            for cells in rows {
                let values: Row =
                    world.keys().iter().map(|column| cells[*column].clone()).collect();
                let key = *of_key.entry(format!("{values:?}")).or_insert_with(|| {
                    keys.push(values);
                    keys.len() - 1
                });
                let time = match cells[TIME] {
                    Value::Int(time) => time,
                    _ => 0,
                };
                segment.push(Stored { cells: cells.clone(), time, key });
            }
            segment.sort_by_key(|row| (row.key, row.time));
            stored.push(segment);
        }
        Self { schema: world.schema(), key_columns: world.keys(), segments: stored, keys }
    }

    /// The rows that a request is about, segment by segment, as they lie.
    pub(super) fn matching(&self, request: &Request) -> Vec<&Stored> {
        let all = self.segments.iter().flatten();
        all.filter(|row| {
            request.time.start.is_none_or(|start| start <= row.time)
                && request.time.end.is_none_or(|end| row.time < end)
                && request
                    .filter
                    .as_ref()
                    .is_none_or(|filter| truth(filter, &row.cells) == Some(true))
        })
        .collect()
    }

    pub(super) fn fetch(
        &self,
        request: &Request,
        columns: &[usize],
        order: FetchOrder,
        limit: Option<usize>,
    ) -> Vec<Row> {
        let mut rows = self.matching(request);
        if order == FetchOrder::Time {
            rows.sort_by_key(|row| row.time);
        }
        rows.truncate(limit.unwrap_or(usize::MAX));
        projected(rows, columns)
    }

    pub(super) fn top_k(
        &self,
        request: &Request,
        order: &[SortKey],
        k: usize,
        columns: &[usize],
    ) -> Vec<Row> {
        let mut rows = self.matching(request);
        rows.sort_by(|a, b| {
            let by = |key: &SortKey| by_key(&a.cells[key.column], &b.cells[key.column], *key);
            order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        rows.truncate(k);
        projected(rows, columns)
    }

    pub(super) fn last_per_key(
        &self,
        request: &Request,
        columns: &[usize],
        wanted: Option<&[Row]>,
    ) -> Vec<Row> {
        let mut last: Vec<Option<&Stored>> = vec![None; self.keys.len()];
        for row in self.matching(request) {
            let best = &mut last[row.key];
            if best.is_none_or(|best| best.time <= row.time) {
                *best = Some(row);
            }
        }
        let keys = last.into_iter().zip(&self.keys);
        let is_wanted = |key: &Row| wanted.is_none_or(|wanted| wanted.contains(key));
        projected(keys.filter_map(|(row, key)| row.filter(|_| is_wanted(key))).collect(), columns)
    }

    /// The states of each group, by the values of the group as text.
    pub(super) fn aggregate(
        &self,
        request: &Request,
        group: &[Group],
        aggregates: &[Aggregate],
    ) -> HashMap<String, Vec<State>> {
        let mut groups: HashMap<String, Vec<&Stored>> = HashMap::new();
        if group.is_empty() {
            groups.insert(format!("{:?}", Row::new()), Vec::new());
        }
        for row in self.matching(request) {
            let value = |part: &Group| match part {
                Group::Key(column) => row.cells[*column].clone(),
                Group::TimeBucket { origin, width } => {
                    let start = bucket_start(row.time, *origin, *width);
                    Value::Int(i64::try_from(start).unwrap_or(i64::MIN))
                }
            };
            let values: Row = group.iter().map(value).collect();
            groups.entry(format!("{values:?}")).or_default().push(row);
        }
        let states = |rows: Vec<&Stored>| {
            aggregates.iter().map(|aggregate| self.state(*aggregate, &rows)).collect()
        };
        groups.into_iter().map(|(group, rows)| (group, states(rows))).collect()
    }

    fn state(&self, aggregate: Aggregate, rows: &[&Stored]) -> State {
        let Some(column) = aggregate.column else {
            return State::Value(Value::Int(rows.len() as i64));
        };
        let values =
            rows.iter().map(|row| &row.cells[column]).filter(|value| **value != Value::Null);
        match aggregate.function {
            Function::Count => State::Value(Value::Int(values.count() as i64)),
            Function::Min => State::Value(values.min_by(order).cloned().unwrap_or(Value::Null)),
            Function::Max => State::Value(values.max_by(order).cloned().unwrap_or(Value::Null)),
            Function::Avg => State::Average(total(values)),
            Function::Sum => match self.schema.field(column).data_type() {
                DataType::Float32 | DataType::Float64 => State::Float(total(values)),
                _ => State::Value(values.cloned().reduce(plus).unwrap_or(Value::Null)),
            },
        }
    }

    /// Whether backends have to refuse a predicate.
    pub(super) fn refuses_predicate(&self, predicate: &Predicate) -> bool {
        let literals = |column: usize, values: &[&Value]| {
            let family = |value: &&Value| self.is_of_family(column, value);
            self.refuses_column(column) || !values.iter().all(family)
        };
        match predicate {
            Predicate::And(parts) | Predicate::Or(parts) => {
                parts.iter().any(|part| self.refuses_predicate(part))
            }
            Predicate::Not(part) => self.refuses_predicate(part),
            Predicate::Compare { column, value, .. } => literals(*column, &[value]),
            Predicate::Between { column, low, high } => literals(*column, &[low, high]),
            Predicate::In { column, values } => {
                literals(*column, &values.iter().collect::<Vec<_>>())
            }
            Predicate::IsNull(column) | Predicate::IsNotNull(column) => {
                self.refuses_column(*column)
            }
        }
    }

    pub(super) fn refuses_column(&self, column: usize) -> bool {
        column == DECIMAL || column >= self.schema.fields().len()
    }

    pub(super) fn refuses_group(&self, group: &[Group]) -> bool {
        let refuses = |part: &Group| match part {
            Group::Key(column) => !self.key_columns.contains(column),
            Group::TimeBucket { origin, width } => {
                let times = self.segments.iter().flatten().map(|row| row.time);
                let start = |time| bucket_start(time, *origin, (*width).max(1));
                *width < 1 || times.map(start).any(|start| start < i128::from(i64::MIN))
            }
        };
        let buckets = group.iter().filter(|part| matches!(part, Group::TimeBucket { .. })).count();
        let twice = group.iter().enumerate().any(|(at, part)| group[..at].contains(part));
        buckets > 1 || twice || group.iter().any(refuses)
    }

    pub(super) fn refuses_aggregate(&self, aggregate: Aggregate) -> bool {
        let Some(column) = aggregate.column else {
            return aggregate.function != Function::Count;
        };
        if self.refuses_column(column) {
            return true;
        }
        let data_type = self.schema.field(column).data_type();
        let numbers = data_type.is_integer() || data_type.is_floating();
        let mut cells = self.segments.iter().flatten().map(|row| &row.cells[column]);
        match aggregate.function {
            Function::Count => false,
            Function::Sum | Function::Avg => !numbers,
            Function::Min | Function::Max => is_text(data_type) || cells.any(is_nan),
        }
    }

    pub(super) fn refuses_order(&self, order: &[SortKey], k: usize) -> bool {
        let refuses = |key: &SortKey| {
            self.refuses_column(key.column) || is_text(self.schema.field(key.column).data_type())
        };
        k > TOP_K_MAX || order.iter().any(refuses)
    }

    fn is_of_family(&self, column: usize, value: &Value) -> bool {
        let data_type = self.schema.field(column).data_type();
        match value {
            Value::Null => true,
            Value::Boolean(_) => *data_type == DataType::Boolean,
            Value::Float32(_) => *data_type == DataType::Float32,
            Value::Float64(_) => *data_type == DataType::Float64,
            Value::Text(_) => is_text(data_type),
            Value::Int(_) | Value::UInt(_) => {
                data_type.is_integer()
                    || data_type.is_temporal()
                    || matches!(data_type, DataType::Duration(_))
            }
        }
    }
}

fn projected(rows: Vec<&Stored>, columns: &[usize]) -> Vec<Row> {
    let project = |row: &Stored| columns.iter().map(|column| row.cells[*column].clone()).collect();
    rows.into_iter().map(project).collect()
}

fn total<'a>(values: impl Iterator<Item = &'a Value>) -> Total {
    let mut total = Total::default();
    for value in values {
        total.add(match value {
            Value::Int(value) => *value as f64,
            Value::UInt(value) => *value as f64,
            Value::Float32(value) => f64::from(*value),
            Value::Float64(value) => *value,
            _ => 0.0,
        });
    }
    total
}

fn plus(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.wrapping_add(b)),
        (Value::UInt(a), Value::UInt(b)) => Value::UInt(a.wrapping_add(b)),
        (a, _) => a,
    }
}

pub(super) fn is_nan(value: &Value) -> bool {
    match value {
        Value::Float32(value) => value.is_nan(),
        Value::Float64(value) => value.is_nan(),
        _ => false,
    }
}

fn bucket_start(time: i64, origin: i64, width: i64) -> i128 {
    let (origin, width) = (i128::from(origin), i128::from(width));
    let mut number = (i128::from(time) - origin) / width;
    if origin + number * width > i128::from(time) {
        number -= 1;
    }
    origin + number * width
}

fn by_key(a: &Value, b: &Value, key: SortKey) -> Ordering {
    let nulls = if key.nulls_first { Ordering::Less } else { Ordering::Greater };
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => nulls,
        (_, Value::Null) => nulls.reverse(),
        _ if key.descending => order(&b, &a),
        _ => order(&a, &b),
    }
}

/// How two values of one family compare, neither of them null.
pub(super) fn order(a: &&Value, b: &&Value) -> Ordering {
    let wide = |value: &Value| match value {
        Value::Int(value) => i128::from(*value),
        Value::UInt(value) => i128::from(*value),
        Value::Boolean(value) => i128::from(*value),
        _ => 0,
    };
    match (a, b) {
        (Value::Float32(a), Value::Float32(b)) => a.total_cmp(b),
        (Value::Float64(a), Value::Float64(b)) => a.total_cmp(b),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (a, b) => wide(a).cmp(&wide(b)),
    }
}

/// Whether a predicate is true for a row, false, or unknown.
fn truth(predicate: &Predicate, row: &Row) -> Option<bool> {
    let compare = |column: usize, value: &Value| match (&row[column], value) {
        (Value::Null, _) | (_, Value::Null) => None,
        (cell, value) => Some(order(&cell, &value)),
    };
    let and = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let or = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    };
    match predicate {
        Predicate::And(parts) => parts.iter().map(|part| truth(part, row)).fold(Some(true), and),
        Predicate::Or(parts) => parts.iter().map(|part| truth(part, row)).fold(Some(false), or),
        Predicate::Not(part) => truth(part, row).map(|truth| !truth),
        Predicate::Compare { column, op, value } => compare(*column, value).map(|order| match op {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }),
        Predicate::Between { column, low, high } => {
            let low = compare(*column, low).map(Ordering::is_ge);
            let high = compare(*column, high).map(Ordering::is_le);
            and(low, high)
        }
        Predicate::In { column, values } => {
            let equal = |value| compare(*column, value).map(Ordering::is_eq);
            values.iter().map(equal).fold(Some(false), or)
        }
        Predicate::IsNull(column) => Some(row[*column] == Value::Null),
        Predicate::IsNotNull(column) => Some(row[*column] != Value::Null),
    }
}
