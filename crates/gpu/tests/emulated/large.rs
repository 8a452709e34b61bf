//! Segments of many tiles, against the backend in host memory: what goes on from tile to tile, which the
//! suite's sizes do not reach.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use tidelog_gpu::CudaSettings;
use tidelog_warm::{
    Aggregate, Comparison, FetchOrder, Function, Group, HostBackend, Op, Output, Predicate,
    Request, Segment, SortKey, TableSpec, TimeRange, Value, WarmBackend, WarmTable,
};

use crate::{device, small};

const TIME: usize = 0;
const HOST: usize = 1;
const RACK: usize = 2;
const VALUE: usize = 3;
const COUNT: usize = 4;
const LABEL: usize = 5;
const GOOD: usize = 6;

/// Numbers that look random, the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// How the rows of a table are made.
#[derive(Debug, Clone, Copy)]
struct World {
    rows: usize,
    hosts: u64,
    /// Whether rows arrive by key and time.
    in_order: bool,
    with_keys: bool,
}

fn schema() -> Arc<Schema> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    Arc::new(Schema::new(vec![
        Field::new("time", time, false),
        Field::new("host", DataType::Utf8, true),
        Field::new("rack", DataType::Int32, true),
        Field::new("value", DataType::Float64, true),
        Field::new("count", DataType::UInt64, true),
        Field::new("label", DataType::Utf8, true),
        Field::new("good", DataType::Boolean, true),
    ]))
}

impl World {
    fn batch(self, random: &mut Random, start: i64) -> RecordBatch {
        let rows = 0..self.rows as u64;
        let rack =
            |host: u64| (!host.is_multiple_of(5)).then_some(i32::try_from(host % 5).unwrap());
        let hosts: Vec<u64> = if self.in_order {
            // Of each host as many rows, after each other.
            rows.clone().map(|row| row * self.hosts / self.rows as u64).collect()
        } else {
            rows.clone().map(|_| random.below(self.hosts)).collect()
        };
        let time = |row: u64| {
            let step = if self.in_order { row } else { random.below(row + 1) };
            start + i64::try_from(step / 3 * 10).unwrap() - 5000
        };
        let times: Vec<i64> = rows.clone().map(time).collect();
        let name = |host: &u64| (!host.is_multiple_of(7)).then(|| format!("host{host}"));
        // Exact in sums, whatever their order.
        let mut value =
            |_| (!random.chance(9)).then(|| i32::try_from(random.below(4001)).unwrap() - 2000);
        let values: Vec<_> = rows.clone().map(&mut value).collect();
        let floats = values.iter().map(|value| value.map(|value| f64::from(value) / 4.0));
        let counts =
            rows.clone().map(|row| (!random.chance(50)).then_some(row.wrapping_mul(3 << 59)));
        let counts: UInt64Array = counts.collect();
        let labels =
            rows.clone().map(|_| (!random.chance(4)).then(|| random.below(300).to_string()));
        let labels: StringArray = labels.collect();
        let good: BooleanArray =
            rows.map(|_| (!random.chance(3)).then(|| random.chance(2))).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampNanosecondArray::from(times)),
            Arc::new(hosts.iter().map(name).collect::<StringArray>()),
            Arc::new(hosts.iter().map(|host| rack(*host)).collect::<Int32Array>()),
            Arc::new(floats.collect::<Float64Array>()),
            Arc::new(counts),
            Arc::new(labels),
            Arc::new(good),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    }
}

fn compare(column: usize, op: Comparison, value: Value) -> Predicate {
    Predicate::compare(column, op, value)
}

fn filters() -> Vec<Option<Predicate>> {
    let host = compare(HOST, Comparison::Greater, Value::Text("host3".into()));
    let value = Predicate::Between {
        column: VALUE,
        low: Value::Float64(-100.0),
        high: Value::Float64(250.0),
    };
    let label = Predicate::In {
        column: LABEL,
        values: (0..40).map(|label| Value::Text((label * 7).to_string().into())).collect(),
    };
    let count = Predicate::In { column: COUNT, values: vec![Value::UInt(0), Value::UInt(3 << 59)] };
    vec![
        None,
        Some(compare(GOOD, Comparison::Equal, Value::Boolean(true))),
        Some(Predicate::Not(Box::new(value.clone()))),
        Some(compare(VALUE, Comparison::NotEqual, Value::Float64(1.0))),
        Some(Predicate::Or(vec![host.clone(), value.clone(), Predicate::IsNull(LABEL)])),
        Some(Predicate::And(vec![value, Predicate::Or(vec![label, host, count])])),
        Some(compare(VALUE, Comparison::Greater, Value::Float64(499.5))),
    ]
}

fn operations(with_keys: bool) -> Vec<Op> {
    let key = |column, descending, nulls_first| SortKey { column, descending, nulls_first };
    let all = vec![TIME, HOST, RACK, VALUE, COUNT, LABEL, GOOD];
    let aggregates = vec![
        Aggregate::ROWS,
        Aggregate::of(Function::Sum, VALUE),
        Aggregate::of(Function::Min, VALUE),
        Aggregate::of(Function::Max, TIME),
        Aggregate::of(Function::Sum, COUNT),
        Aggregate::of(Function::Count, LABEL),
        Aggregate::of(Function::Avg, RACK),
        Aggregate::of(Function::Max, RACK),
    ];
    let bucket = |width| Group::TimeBucket { origin: 7, width };
    let mut groups = vec![vec![], vec![bucket(1000)], vec![bucket(10)]];
    if with_keys {
        groups.push(vec![Group::Key(HOST), Group::Key(RACK), bucket(2000)]);
        groups.push(vec![Group::Key(RACK)]);
    }
    let mut operations: Vec<Op> = groups
        .into_iter()
        .map(|group| Op::Aggregate { group, aggregates: aggregates.clone() })
        .collect();
    let group = vec![bucket(100)];
    operations.push(Op::Aggregate { group, aggregates: vec![Aggregate::ROWS] });
    operations.push(Op::Count);
    operations.push(Op::Fetch { columns: all.clone(), order: FetchOrder::Stored, limit: None });
    let columns = vec![VALUE, TIME];
    operations.push(Op::Fetch {
        columns: columns.clone(),
        order: FetchOrder::Time,
        limit: Some(3000),
    });
    operations.push(Op::Fetch { columns, order: FetchOrder::Stored, limit: Some(2500) });
    operations.push(Op::LastPerKey { columns: all.clone(), keys: None });
    for k in [1, 300] {
        let order = vec![key(VALUE, true, false), key(TIME, false, false)];
        operations.push(Op::TopK { order, k, columns: all.clone() });
        let order = vec![key(RACK, false, true), key(COUNT, true, true)];
        operations.push(Op::TopK { order, k, columns: vec![TIME, RACK, COUNT] });
    }
    operations
}

fn ranges(world: World) -> [TimeRange; 2] {
    let rows = i64::try_from(world.rows).unwrap();
    [TimeRange::ALL, TimeRange::new(-4990, rows - 4990)]
}

/// An answer as text, the rows of groups in an order of their own.
fn shown(output: &Output) -> Vec<String> {
    let (batches, sorted) = match output {
        Output::Count(count) => return vec![count.to_string()],
        Output::Rows(batches) => (batches.as_slice(), false),
        Output::Partial(batch) => (std::slice::from_ref(batch), true),
    };
    let Some(first) = batches.first() else { return vec![] };
    let batch = concat_batches(&first.schema(), batches).unwrap();
    let text = pretty_format_batches(&[batch]).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if sorted {
        lines.sort_unstable();
    }
    lines
}

/// Every operation, with every filter and range, gives on the device what it gives on the host; or only every
/// n-th of these.
fn agree(world: World, settings: &CudaSettings, seed: u64, every: usize) {
    let device = device(seed);
    let (host, cuda) = (HostBackend::new(256 << 20), device.open(settings));
    let keys = if world.with_keys { vec![HOST, RACK] } else { vec![] };
    let table = WarmTable::new(TableSpec::try_new(schema(), TIME, keys).unwrap());
    let mut random = Random(seed);
    let batches = [world.batch(&mut random, 0), world.batch(&mut random, 20_000)];
    let seal = |backend: &dyn WarmBackend| -> Vec<Arc<Segment>> {
        batches
            .iter()
            .map(|batch| {
                let half = batch.num_rows() / 2;
                let parts = [batch.slice(0, half), batch.slice(half, batch.num_rows() - half)];
                backend.seal(&table, &parts).unwrap()
            })
            .collect()
    };
    let (of_host, of_cuda) = (seal(&host), seal(&cuda));
    let mut number = 0;
    for op in operations(world.with_keys) {
        for filter in filters() {
            for time in ranges(world) {
                number += 1;
                if number % every != 0 {
                    continue;
                }
                let request = Request { time, filter: filter.clone(), ..Request::new(op.clone()) };
                let expected = host.run(&table, &of_host, &request).unwrap();
                let found = cuda.run(&table, &of_cuda, &request).unwrap();
                let (expected, found) = (shown(&expected.output), shown(&found.output));
                let differs = expected.iter().zip(&found).position(|(a, b)| a != b);
                assert!(
                    expected == found,
                    "{world:?} {request:?}: {} lines where {} are right, the first that differs is {differs:?}: \
                     {:?} where {:?} is right",
                    found.len(),
                    expected.len(),
                    differs.map(|line| &found[line]),
                    differs.map(|line| &expected[line]),
                );
            }
        }
    }
}

/// Also run by the tests of planted bugs.
#[test]
fn a_few_requests_agree_with_host_memory() {
    let world = World { rows: 7000, hosts: 4, in_order: false, with_keys: true };
    agree(world, &small().with_scratch_bytes(1 << 20), 7, 5);
}

#[test]
fn few_long_keys_in_order_agree_with_host_memory() {
    let world = World { rows: 20_000, hosts: 3, in_order: true, with_keys: true };
    agree(world, &small(), 3, 2);
}

#[test]
fn keys_out_of_order_agree_with_host_memory() {
    let world = World { rows: 6145, hosts: 40, in_order: false, with_keys: true };
    agree(world, &small().with_scratch_bytes(1 << 20), 4, 1);
}

#[test]
fn keys_of_one_row_each_agree_with_host_memory() {
    let world = World { rows: 4096, hosts: 4096, in_order: false, with_keys: true };
    agree(world, &small(), 5, 3);
}

#[test]
fn rows_without_keys_agree_with_host_memory() {
    let world = World { rows: 30_000, hosts: 9, in_order: false, with_keys: false };
    let settings = small().with_scratch_bytes(2 << 20).with_staging_bytes(1 << 20);
    agree(world, &settings, 6, 3);
}
