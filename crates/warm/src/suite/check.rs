//! What is checked: that a backend answers as the oracle does, or refuses where it has to.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use super::chance::Chance;
use super::oracle::{self, Oracle, State};
use super::requests::Maker;
use super::world::{Row, TIME, World};
use super::{Failure, Outcome, arrays};
use crate::answer::{Answer, Output};
use crate::backend::WarmBackend;
use crate::error::WarmError;
use crate::request::{
    Aggregate, BATCH_ROWS, Comparison, FetchOrder, Function, Group, Op, PREDICATE_DEPTH_MAX,
    Predicate, Request,
};
use crate::segment::Segment;
use crate::spec::TableSpec;
use crate::table::WarmTable;
use crate::value::Value;

/// A world in a backend.
struct Setting<'a> {
    backend: &'a dyn WarmBackend,
    table: Arc<WarmTable>,
    segments: Vec<Arc<Segment>>,
    oracle: Oracle,
}

impl<'a> Setting<'a> {
    fn new(backend: &'a dyn WarmBackend, world: &World) -> Result<Self, Failure> {
        let spec = TableSpec::try_new(world.schema(), TIME, world.keys()).map_err(text)?;
        let table = WarmTable::new(spec);
        let rows = world.segments();
        let seal = |rows: &Vec<Row>| backend.seal(&table, &world.batches(rows)).map_err(text);
        let segments = rows.iter().map(seal).collect::<Result<_, _>>()?;
        Ok(Self { backend, table, segments, oracle: Oracle::new(world, &rows) })
    }

    fn maker<'b>(&'b self, world: &'b World, seed: u64) -> Maker<'b> {
        Maker { world, oracle: &self.oracle, chance: Chance::new(seed) }
    }

    fn run(&self, request: &Request) -> Result<Answer, WarmError> {
        self.backend.run(&self.table, &self.segments, request)
    }

    /// The answer to a request, or none if it is one to refuse, and is refused.
    fn answer(&self, request: &Request, refuse: bool) -> Result<Option<Output>, Failure> {
        let filter = request.filter.as_ref();
        let refuse = refuse || filter.is_some_and(|filter| self.oracle.refuses_predicate(filter));
        match (self.run(request), refuse) {
            (Ok(answer), false) => Ok(Some(answer.output)),
            (Err(WarmError::Unsupported { .. } | WarmError::Invalid { .. }), true) => Ok(None),
            (Ok(answer), true) => {
                Err(format!("was to be refused, got {:?}\n{request:#?}", answer.output))
            }
            (Err(error), refuse) => {
                let wanted = if refuse { "a refusal" } else { "an answer" };
                Err(format!("{error}, where {wanted} was expected\n{request:#?}"))
            }
        }
    }

    /// Compares rows with those of a request that gives rows.
    fn compare_rows(
        &self,
        request: &Request,
        columns: &[usize],
        refuse: bool,
        expected: impl FnOnce() -> Vec<Row>,
    ) -> Result<Outcome, Failure> {
        let refuse = refuse || columns.iter().any(|column| self.oracle.refuses_column(*column));
        let batches = match self.answer(request, refuse)? {
            None => return Ok(Outcome::Refused),
            Some(Output::Rows(batches)) => batches,
            Some(other) => return Err(format!("expected rows, got {other:?}\n{request:#?}")),
        };
        let types: Vec<_> = columns.iter().map(|column| self.data_type(*column)).collect();
        for batch in &batches {
            check_types(batch, &types)?;
            if batch.num_rows() == 0 || batch.num_rows() > BATCH_ROWS {
                return Err(format!("a batch of {} rows\n{request:#?}", batch.num_rows()));
            }
        }
        let found: Vec<Row> = batches.iter().flat_map(arrays::rows).collect();
        let expected = expected();
        if found == expected {
            return Ok(if found.is_empty() { Outcome::Empty } else { Outcome::Answered });
        }
        let row = (0..).find(|row| found.get(*row) != expected.get(*row)).unwrap_or(0);
        Err(format!(
            "{} rows, expected {}; row {row} is {:?}, expected {:?}\n{request:#?}",
            found.len(),
            expected.len(),
            found.get(row),
            expected.get(row)
        ))
    }

    fn data_type(&self, column: usize) -> DataType {
        self.oracle.schema.field(column).data_type().clone()
    }
}

/// Whether segments know rows, times, nulls, least and greatest values exactly.
pub(super) fn statistics(
    backend: &dyn WarmBackend,
    world: &World,
    _seed: u64,
) -> Result<Outcome, Failure> {
    let used = backend.stats().used_bytes;
    let setting = Setting::new(backend, world)?;
    for (segment, rows) in setting.segments.iter().zip(&setting.oracle.segments) {
        let stats = segment.stats();
        expect("rows", &stats.rows, &rows.len())?;
        let times = rows.iter().map(|row| row.time);
        expect("times", &stats.time, &times.clone().min().zip(times.max()))?;
        for (column, stats) in stats.columns.iter().enumerate() {
            let name = setting.oracle.schema.field(column).name();
            let Some(stats) = stats else {
                expect("column left out", &name.as_str(), &"decimal")?;
                continue;
            };
            let cells = rows.iter().map(|row| &row.cells[column]);
            let values: Vec<_> = cells.filter(|cell| **cell != Value::Null).collect();
            expect(name, &stats.null_count, &(rows.len() - values.len()))?;
            expect(name, &stats.has_nan, &values.iter().any(|value| oracle::is_nan(value)))?;
            let least = values.iter().copied().min_by(oracle::order);
            let greatest = values.iter().copied().max_by(oracle::order);
            let text = arrays::is_text(&setting.data_type(column));
            let ends = least.cloned().zip(greatest.cloned());
            expect(name, &stats.min_max(), &ends.filter(|_| !stats.has_nan && !text))?;
        }
    }
    let bytes: u64 = setting.segments.iter().map(|segment| segment.stats().bytes).sum();
    expect("bytes in use", &backend.stats().used_bytes, &(used + bytes))?;
    drop(setting);
    expect("bytes in use after dropping", &backend.stats().used_bytes, &used)?;
    Ok(Outcome::Answered)
}

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
                let ok = count == Value::UInt(total.values) && is_sum(&sum, total);
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
            Group::Key(column) => of(*column),
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

/// Whether what was evicted is told, gives its bytes back, and counts add up.
pub(super) fn eviction(
    backend: &dyn WarmBackend,
    world: &World,
    _seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let before = backend.stats();
    let Some(segment) = setting.segments.last() else {
        return Ok(Outcome::Answered);
    };
    expect("evicted", &backend.evict(segment), &true)?;
    expect("evicted twice", &backend.evict(segment), &false)?;
    let after = backend.stats();
    expect("bytes in use", &after.used_bytes, &(before.used_bytes - segment.stats().bytes))?;
    expect("segments", &after.segments, &(before.segments - 1))?;
    expect("rows", &after.rows, &(before.rows - segment.rows() as u64))?;
    expect("evictions", &after.evictions, &(before.evictions + 1))?;
    match setting.run(&Request::new(Op::Count)) {
        Err(WarmError::Evicted { segment: found }) if found == segment.id() => {}
        outcome => return Err(format!("after eviction: {outcome:?}")),
    }
    let rest = &setting.segments[..setting.segments.len() - 1];
    let rows: usize = rest.iter().map(|segment| segment.rows()).sum();
    match backend.run(&setting.table, rest, &Request::new(Op::Count)) {
        Ok(Answer { output: Output::Count(found), .. }) if found == rows as u64 => {}
        outcome => return Err(format!("{outcome:?}, expected {rows} rows")),
    }
    let last = backend.stats();
    expect("hits", &last.hits, &(before.hits + 1))?;
    let evicted =
        |stats: &crate::BackendStats| stats.fallbacks.get("evicted").copied().unwrap_or(0);
    expect("fallbacks", &evicted(&last), &(evicted(&before) + 1))?;
    Ok(Outcome::Answered)
}

/// Whether requests that race each other, seals and evictions are answered exactly, or told that a
/// segment is gone.
pub(super) fn races(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let used = backend.stats().used_bytes;
    let setting = Setting::new(backend, world)?;
    let request = setting.maker(world, seed).request(Op::Count);
    let filter = request.filter.as_ref();
    if filter.is_some_and(|filter| setting.oracle.refuses_predicate(filter)) {
        return Ok(Outcome::Refused);
    }
    let expected = setting.oracle.matching(&request).len() as u64;
    let ask = || {
        for _ in 0..4 {
            match setting.run(&request) {
                Ok(Answer { output: Output::Count(found), .. }) if found == expected => {}
                Err(WarmError::Evicted { .. }) => {}
                outcome => return Err(format!("{outcome:?}, expected {expected}\n{request:#?}")),
            }
        }
        Ok(())
    };
    let seal = || {
        let rows = world.segments();
        let batches = rows.first().map(|rows| world.batches(rows)).unwrap_or_default();
        backend.seal(&setting.table, &batches).map(|_| ()).map_err(text)
    };
    std::thread::scope(|scope| {
        let others = [scope.spawn(ask), scope.spawn(ask), scope.spawn(seal)];
        let mut outcomes = vec![ask()];
        for segment in &setting.segments {
            backend.evict(segment);
        }
        let joined = others
            .map(|other| other.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        outcomes.extend(joined);
        outcomes.into_iter().collect::<Result<(), _>>()
    })?;
    expect("bytes in use after all", &backend.stats().used_bytes, &used)?;
    Ok(if expected == 0 { Outcome::Empty } else { Outcome::Answered })
}

/// Whether a request that nobody waits for any more ends.
pub(super) fn cancel(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let mut maker = setting.maker(world, seed);
    let ops = [maker.fetch(), maker.last_per_key(), maker.aggregate(), maker.top_k(), Op::Count];
    for op in ops {
        let request = Request::new(op).with_cancel(Maker::set_flag());
        match setting.run(&request) {
            Err(WarmError::Cancelled) if !setting.segments.is_empty() => {}
            // Nothing to look at, or refused before looking.
            Ok(_) if setting.segments.is_empty() => {}
            Err(WarmError::Unsupported { .. } | WarmError::Invalid { .. }) => {}
            outcome => return Err(format!("cancelled: {outcome:?}\n{request:#?}")),
        }
    }
    Ok(Outcome::Answered)
}

fn check_types(batch: &RecordBatch, expected: &[DataType]) -> Result<(), Failure> {
    let schema = batch.schema();
    let found: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("columns of types {found:?}, expected {expected:?}"))
}

fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, expected {expected:?}"))
}

fn text(error: WarmError) -> Failure {
    error.to_string()
}
