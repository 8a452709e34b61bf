//! Requests by chance, most of them possible.

use std::sync::Arc;

use super::chance::Chance;
use super::oracle::Oracle;
use super::world::{DECIMAL, Row, TIME, VARIOUS, World};
use crate::request::{
    Aggregate, Comparison, FetchOrder, Function, Group, Op, Predicate, Request, SortKey, TimeRange,
};
use crate::value::Value;

/// Makes requests about a world.
pub(super) struct Maker<'a> {
    pub(super) world: &'a World,
    pub(super) oracle: &'a Oracle,
    pub(super) chance: Chance,
}

impl Maker<'_> {
    /// A request with a range of time and a filter, or without. Mostly one that some rows match.
    pub(super) fn request(&mut self, op: Op) -> Request {
        let mut request = Request::new(op);
        if self.chance.percent(25) {
            return request;
        }
        for _ in 0..8 {
            self.narrow(&mut request);
            if self.chance.percent(5) || !self.oracle.matching(&request).is_empty() {
                break;
            }
        }
        request
    }

    fn narrow(&mut self, request: &mut Request) {
        (request.time, request.filter) = (TimeRange::ALL, None);
        if self.chance.percent(60) {
            let mut bounds = [self.time(), self.time()];
            if self.chance.percent(90) {
                bounds.sort_unstable();
            }
            let [start, end] = bounds.map(|bound| self.chance.percent(70).then_some(bound));
            request.time = TimeRange { start, end };
        }
        if self.chance.percent(70) {
            request.filter = Some(self.predicate(3));
        }
    }

    pub(super) fn fetch(&mut self) -> Op {
        let order = self.chance.pick(&[FetchOrder::Stored, FetchOrder::Time]);
        let limits = [None, None, Some(0), Some(1), Some(7), Some(1024)];
        Op::Fetch { columns: self.columns(), order, limit: self.chance.pick(&limits) }
    }

    pub(super) fn top_k(&mut self) -> Op {
        let order = (0..self.chance.below(4)).map(|_| {
            loop {
                let key = SortKey {
                    column: self.column(),
                    descending: self.chance.percent(50),
                    nulls_first: self.chance.percent(50),
                };
                // Otherwise nearly half of the requests would be refused.
                if !self.oracle.refuses_order(&[key], 1) || self.chance.percent(3) {
                    break key;
                }
            }
        });
        let order = order.collect::<Vec<_>>();
        let k = match self.chance.below(20) {
            0 => 0,
            1 => 1025,
            _ => self.chance.pick(&[1, 2, 10, 33, 100, 1024]),
        };
        Op::TopK { order, k, columns: self.columns() }
    }

    pub(super) fn last_per_key(&mut self) -> Op {
        let keys = self
            .chance
            .percent(50)
            .then(|| (0..self.chance.below(6)).map(|_| self.key()).collect::<Vec<_>>());
        let mut columns = self.columns();
        // Without values that differ, it does not show which of equal rows it is.
        columns.extend(VARIOUS);
        Op::LastPerKey { columns, keys }
    }

    pub(super) fn aggregate(&mut self) -> Op {
        let mut group = Vec::new();
        for &key in self.world.keys() {
            if self.chance.percent(50) {
                group.push(Group::Key(key));
            }
        }
        if self.chance.percent(60) {
            group.insert(self.chance.below(group.len() + 1), self.bucket());
        }
        if self.chance.percent(3) {
            let column = self.column();
            group.push(self.chance.pick(&[Group::Key(column), Group::Key(TIME)]));
        }
        let functions =
            [Function::Count, Function::Sum, Function::Min, Function::Max, Function::Avg];
        let aggregates = (0..self.chance.below(5))
            .map(|_| {
                if self.chance.percent(20) {
                    return Aggregate::ROWS;
                }
                loop {
                    let column = self.column();
                    let aggregate = Aggregate::of(self.chance.pick(&functions), column);
                    // Otherwise nearly every request would be refused.
                    if !self.oracle.refuses_aggregate(aggregate) || self.chance.percent(3) {
                        break aggregate;
                    }
                }
            })
            .collect();
        Op::Aggregate { group, aggregates }
    }

    fn bucket(&mut self) -> Group {
        let widths = [1, 2, 7, 100, 60_000, 1 << 40, i64::MAX];
        let width = if self.chance.percent(1) { 0 } else { self.chance.pick(&widths) };
        let origins = [0, 0, 0, -5, 3, 1_700_000_000_007, i64::MAX];
        Group::TimeBucket { origin: self.chance.pick(&origins), width }
    }

    /// The values of a key that the table has, or that it may have not.
    fn key(&mut self) -> Row {
        if self.chance.percent(70) && !self.oracle.keys.is_empty() {
            let keys = &self.oracle.keys;
            return keys[self.chance.below(keys.len())].clone();
        }
        self.world.keys().iter().map(|column| self.literal(*column)).collect()
    }

    fn columns(&mut self) -> Vec<usize> {
        (0..self.chance.below(6)).map(|_| self.column()).collect()
    }

    fn column(&mut self) -> usize {
        let columns = self.oracle.schema.fields().len();
        match self.chance.below(columns) {
            DECIMAL if self.chance.percent(90) => TIME,
            column => column,
        }
    }

    /// A time of a row, or one beside it.
    fn time(&mut self) -> i64 {
        let rows: usize = self.oracle.segments.iter().map(Vec::len).sum();
        let rows = self.oracle.segments.iter().flatten().nth(self.chance.below(rows));
        let time = rows.map_or(0, |row| row.time);
        let near = self.chance.pick(&[-1, 0, 0, 1]);
        self.chance.pick(&[time, time, time.saturating_add(near), i64::MIN, i64::MAX])
    }

    /// A literal for a column: mostly one that rows have, or may have; sometimes of another type.
    fn literal(&mut self, column: usize) -> Value {
        let segments = &self.oracle.segments;
        let rows: usize = segments.iter().map(Vec::len).sum();
        match self.chance.below(100) {
            0..4 => Value::Null,
            4 => Value::Text("of another type".into()),
            5 => Value::Float64(0.5),
            6..12 => match self.oracle.schema.field(column).data_type().is_integer() {
                true => self.chance.pick(&[
                    Value::Int(-1),
                    Value::UInt(300),
                    Value::UInt(u64::MAX),
                    Value::Int(i64::MIN),
                    Value::Int(70_000),
                ]),
                false => Value::Null,
            },
            12..50 if column == TIME => Value::Int(self.time()),
            12..70 => match segments.iter().flatten().nth(self.chance.below(rows)) {
                Some(row) => row.cells[column].clone(),
                None => Value::Null,
            },
            _ => {
                let data_type = self.oracle.schema.field(column).data_type().clone();
                let segment = self.chance.below(4);
                self.world.value(&data_type, segment, &mut self.chance)
            }
        }
    }

    pub(super) fn predicate(&mut self, depth: usize) -> Predicate {
        let parts = |maker: &mut Self| {
            (0..maker.chance.below(4)).map(|_| maker.predicate(depth - 1)).collect::<Vec<_>>()
        };
        match self.chance.below(if depth > 0 { 11 } else { 6 }) {
            0..3 => {
                let column = self.column();
                let op = self.chance.pick(&[
                    Comparison::Equal,
                    Comparison::NotEqual,
                    Comparison::Less,
                    Comparison::LessOrEqual,
                    Comparison::Greater,
                    Comparison::GreaterOrEqual,
                ]);
                Predicate::compare(column, op, self.literal(column))
            }
            3 => {
                let column = self.column();
                Predicate::Between { column, low: self.literal(column), high: self.literal(column) }
            }
            4 => {
                let column = self.column();
                let values = (0..self.chance.below(12)).map(|_| self.literal(column)).collect();
                Predicate::In { column, values }
            }
            5 if self.chance.percent(50) => Predicate::IsNull(self.column()),
            5 => Predicate::IsNotNull(self.column()),
            6..8 => Predicate::And(parts(self)),
            8..10 => Predicate::Or(parts(self)),
            _ => Predicate::Not(Box::new(self.predicate(depth - 1))),
        }
    }

    /// A flag that is set.
    pub(super) fn set_flag() -> Arc<std::sync::atomic::AtomicBool> {
        Arc::new(std::sync::atomic::AtomicBool::new(true))
    }
}
