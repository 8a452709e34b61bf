//! What is checked of requests: that a backend answers as the oracle does, or refuses where it has to.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use super::oracle::{self, State};
use super::setting::{Setting, answer_type, check_types};
use super::world::{TIME, World};
use super::{Failure, Outcome, arrays};
use crate::answer::Output;
use crate::backend::WarmBackend;
use crate::error::WarmError;
use crate::request::{
    Aggregate, Comparison, FetchOrder, Function, Group, Op, PREDICATE_DEPTH_MAX, Predicate, Request,
};
use crate::value::Value;

pub(super) fn count(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let request = setting.maker(world, seed).request(Op::Count);
    let expected = setting.oracle.matching(&request).len() as u64;
    match setting.answer(&request, false)? {
        None => Ok(Outcome::Refused),
        Some(Output::Count(0)) if expected == 0 => Ok(Outcome::Empty),
        Some(Output::Count(found)) if found == expected => Ok(Outcome::Answered),
        Some(other) => Err(format!("{other:?}, expected {expected}\n{request:#?}")),
    }
}

pub(super) fn fetch(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let mut maker = setting.maker(world, seed);
    let op = maker.fetch();
    let request = maker.request(op);
    let Op::Fetch { columns, order, limit } = &request.op else {
        return Ok(Outcome::Refused);
    };
    let expected = || setting.oracle.fetch(&request, columns, *order, *limit);
    setting.compare_rows(&request, columns, false, expected)
}

pub(super) fn top_k(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let mut maker = setting.maker(world, seed);
    let op = maker.top_k();
    let request = maker.request(op);
    let Op::TopK { order, k, columns } = &request.op else {
        return Ok(Outcome::Refused);
    };
    let refuse = setting.oracle.refuses_order(order, *k);
    let expected = || setting.oracle.top_k(&request, order, *k, columns);
    setting.compare_rows(&request, columns, refuse, expected)
}

pub(super) fn last_per_key(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let mut maker = setting.maker(world, seed);
    let op = maker.last_per_key();
    let request = maker.request(op);
    let Op::LastPerKey { columns, keys } = &request.op else {
        return Ok(Outcome::Refused);
    };
    let expected = || setting.oracle.last_per_key(&request, columns, keys.as_deref());
    setting.compare_rows(&request, columns, false, expected)
}

pub(super) fn aggregate(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let mut maker = setting.maker(world, seed);
    let op = maker.aggregate();
    let request = maker.request(op);
    let Op::Aggregate { group, aggregates } = &request.op else {
        return Ok(Outcome::Refused);
    };
    let refuse = setting.oracle.refuses_group(group)
        || aggregates.iter().any(|aggregate| setting.oracle.refuses_aggregate(*aggregate));
    let mut partials = Vec::new();
    for _ in 0..2 {
        match setting.answer(&request, refuse)? {
            None => return Ok(Outcome::Refused),
            Some(Output::Partial(partial)) => partials.push(partial),
            Some(other) => return Err(format!("expected states, got {other:?}\n{request:#?}")),
        }
    }
    let rows: Vec<_> = partials.iter().map(arrays::rows).collect();
    // NaN is the only value whose bits may differ from one time to the next.
    let same = rows[0].len() == rows[1].len()
        && rows[0]
            .iter()
            .flatten()
            .zip(rows[1].iter().flatten())
            .all(|(a, b)| a == b || (oracle::is_nan(a) && oracle::is_nan(b)));
    if !same {
        return Err(format!("not the same a second time: {rows:?}\n{request:#?}"));
    }
    check_types(&partials[0], &state_types(&setting.oracle.schema, group, aggregates))?;
    let mut expected = setting.oracle.aggregate(&request, group, aggregates);
    for row in &rows[0] {
        let (values, states) = row.split_at(group.len());
        let Some(wanted) = expected.remove(&format!("{:?}", values.to_vec())) else {
            return Err(format!("group {values:?} is not there, or not twice\n{request:#?}"));
        };
        check_states(&wanted, states)
            .map_err(|failure| format!("group {values:?}: {failure}\n{request:#?}"))?;
    }
    match expected.keys().next() {
        None if setting.oracle.matching(&request).is_empty() => Ok(Outcome::Empty),
        None => Ok(Outcome::Answered),
        Some(group) => Err(format!("group {group} is missing\n{request:#?}")),
    }
}

fn check_states(wanted: &[State], found: &[Value]) -> Result<(), Failure> {
    let mut found = found.iter();
    let mut next = || found.next().cloned().unwrap_or(Value::Null);
    for (number, state) in wanted.iter().enumerate() {
        let (found, ok) = match state {
            State::Value(value) => {
                let found = next();
                let ok = found == *value;
                (vec![found], ok)
            }
            State::Float(total) => {
                let found = next();
                let ok = is_sum(&found, total);
                (vec![found], ok)
            }
            State::Average(total) => {
                let (count, sum) = (next(), next());
                let values = match total.values {
                    0 => Value::Null,
                    values => Value::UInt(values),
                };
                let ok = count == values && is_sum(&sum, total);
                (vec![count, sum], ok)
            }
        };
        if !ok {
            return Err(format!("state {number} is {found:?}, expected {state:?}"));
        }
    }
    Ok(())
}

fn is_sum(found: &Value, total: &super::totals::Total) -> bool {
    match found {
        Value::Null => total.values == 0,
        Value::Float64(found) => total.values > 0 && total.admits(*found),
        _ => false,
    }
}

/// The types of the columns of partial states, as DataFusion has them.
fn state_types(schema: &SchemaRef, group: &[Group], aggregates: &[Aggregate]) -> Vec<DataType> {
    let of = |column: usize| schema.field(column).data_type().clone();
    let mut types: Vec<_> = group
        .iter()
        .map(|part| match part {
            Group::Key(column) => answer_type(&of(*column)),
            Group::TimeBucket { .. } => of(TIME),
        })
        .collect();
    for aggregate in aggregates {
        let column = aggregate.column.map(of);
        match (aggregate.function, column) {
            (Function::Count, _) | (_, None) => types.push(DataType::Int64),
            (Function::Avg, _) => types.extend([DataType::UInt64, DataType::Float64]),
            (Function::Min | Function::Max, Some(of)) => types.push(of),
            (Function::Sum, Some(of)) if of.is_floating() => types.push(DataType::Float64),
            (Function::Sum, Some(of)) if of.is_unsigned_integer() => types.push(DataType::UInt64),
            (Function::Sum, Some(_)) => types.push(DataType::Int64),
        }
    }
    types
}

/// Whether what cannot be answered is an error, not a panic and not an answer.
pub(super) fn impossible(
    backend: &dyn WarmBackend,
    world: &World,
    _seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let beyond = setting.oracle.schema.fields().len();
    let fetch = |column| Op::Fetch { columns: vec![column], order: FetchOrder::Time, limit: None };
    let aggregate =
        |group, aggregate| Op::Aggregate { group: vec![group], aggregates: vec![aggregate] };
    let bucket = |width| Group::TimeBucket { origin: 0, width };
    let sum = Aggregate { function: Function::Sum, column: None };
    let deep = (0..PREDICATE_DEPTH_MAX)
        .fold(Predicate::IsNull(TIME), |inner, _| Predicate::Not(Box::new(inner)));
    let beyond_filter = Predicate::compare(beyond, Comparison::Equal, Value::Int(0));
    let long_key = vec![vec![Value::Null; world.keys().len() + 1]];
    let requests = [
        Request::new(fetch(beyond)),
        Request::new(aggregate(Group::Key(beyond), Aggregate::ROWS)),
        Request::new(aggregate(bucket(0), Aggregate::ROWS)),
        Request::new(aggregate(bucket(-1), Aggregate::ROWS)),
        Request::new(aggregate(bucket(i64::MAX), sum)),
        Request::new(Op::LastPerKey { columns: vec![], keys: Some(long_key) }),
        Request::new(Op::Count).with_filter(beyond_filter),
        Request::new(Op::Count).with_filter(deep),
    ];
    for request in &requests {
        setting.answer(request, true)?;
    }
    let other = Setting::new(backend, world)?;
    if let Some(foreign) = other.segments.first() {
        let segments = [Arc::clone(foreign)];
        match backend.run(&setting.table, &segments, &Request::new(Op::Count)) {
            Err(WarmError::Invalid { .. }) => {}
            outcome => return Err(format!("a segment of another table: {outcome:?}")),
        }
    }
    let no_columns = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
    match backend.seal(&setting.table, &[no_columns]) {
        Err(WarmError::Invalid { .. }) => Ok(Outcome::Refused),
        outcome => Err(format!("a batch of another schema: {outcome:?}")),
    }
}
