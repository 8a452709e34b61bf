//! The suite on the host, and what only the host promises.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int8Array, Int32Array, RecordBatch,
    StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Schema, SchemaRef, TimeUnit};

use super::HostBackend;
use crate::{
    Aggregate, Answer, Bound, Comparison, FetchOrder, Function, Group, Op, Output, Predicate,
    Request, Segment, TableSpec, TimeRange, Unsupported, Value, WarmBackend, WarmError, WarmTable,
    suite,
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

#[test]
fn host_memory_passes_the_suite() {
    let report = suite::run(&HostBackend::new(256 << 20), 1, 150);
    println!("{report}");
    assert!(report.passed(), "{report}");
}

fn schema() -> SchemaRef {
    let host = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("host", host, true),
        Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        Field::new("value", DataType::Float64, true),
    ]))
}

fn table() -> Result<Arc<WarmTable>, WarmError> {
    Ok(WarmTable::new(TableSpec::try_new(schema(), 1, vec![0])?))
}

/// Rows of these hosts at each of these times; the value is the time.
fn rows(hosts: std::ops::Range<i32>, times: std::ops::Range<i64>) -> RecordBatch {
    let names: StringArray = (0..hosts.end).map(|host| Some(format!("host_{host}"))).collect();
    let each = times.flat_map(|time| hosts.clone().map(move |host| (host, time)));
    let (hosts, times): (Vec<i32>, Vec<i64>) = each.unzip();
    let values = Float64Array::from_iter_values(times.iter().map(|time| *time as f64));
    let hosts = DictionaryArray::<Int32Type>::new(Int32Array::from(hosts), Arc::new(names));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(hosts), Arc::new(TimestampNanosecondArray::from(times)), Arc::new(values)];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn names(hosts: std::ops::Range<i32>) -> Vec<Vec<Value>> {
    hosts.map(|host| vec![Value::Text(format!("host_{host}").into())]).collect()
}

fn row_count(answer: &Answer) -> usize {
    match &answer.output {
        Output::Rows(batches) => batches.iter().map(RecordBatch::num_rows).sum(),
        _ => 0,
    }
}

#[test]
fn a_last_row_costs_a_look_at_one_row_however_long_its_host_is_silent() -> TestResult {
    let backend = HostBackend::new(64 << 20);
    let table = table()?;
    let mut segments = vec![backend.seal(&table, &[rows(0..100, 0..50)])?];
    for segment in 1..10 {
        let times = segment * 50..(segment + 1) * 50;
        segments.push(backend.seal(&table, &[rows(0..90, times)])?);
    }
    for keys in [Some(names(0..100)), None] {
        let request = Request::new(Op::LastPerKey { columns: vec![0, 1, 2], keys });
        let answer = backend.run(&table, &segments, &request)?;
        assert_eq!(row_count(&answer), 100);
        assert_eq!(answer.work.rows_read, 100);
    }
    Ok(())
}

#[test]
fn only_rows_of_the_keys_and_times_wanted_are_looked_at() -> TestResult {
    let backend = HostBackend::new(64 << 20);
    let table = table()?;
    let segments = [
        backend.seal(&table, &[rows(0..10, 0..1000)])?,
        backend.seal(&table, &[rows(0..10, 1000..2000)])?,
    ];
    let wanted =
        Predicate::In { column: 0, values: names(3..5).into_iter().flatten().collect::<Vec<_>>() };
    let request =
        Request::new(Op::Count).with_time(TimeRange::new(100, 200)).with_filter(Predicate::And(
            vec![wanted, Predicate::compare(2, Comparison::Less, Value::Float64(150.0))],
        ));
    let answer = backend.run(&table, &segments, &request)?;
    assert!(matches!(answer.output, Output::Count(100)), "{answer:?}");
    assert_eq!((answer.work.segments_read, answer.work.segments_skipped), (1, 1));
    assert_eq!(answer.work.rows_read, 200);

    let beyond = Predicate::compare(2, Comparison::Greater, Value::Float64(5000.0));
    let answer = backend.run(&table, &segments, &Request::new(Op::Count).with_filter(beyond))?;
    assert_eq!((answer.work.segments_read, answer.work.rows_read), (0, 0));
    Ok(())
}

#[test]
fn the_segment_not_used_for_longest_goes_first() -> TestResult {
    let bytes = {
        let backend = HostBackend::new(64 << 20);
        backend.seal(&table()?, &[rows(0..10, 0..100)])?.stats().bytes
    };
    // Room for two, and not for three.
    let backend = HostBackend::new(bytes * 5 / 2);
    let table = table()?;
    let seal = || backend.seal(&table, &[rows(0..10, 0..100)]);
    let count = |segment: &Arc<Segment>| {
        backend.run(&table, &[Arc::clone(segment)], &Request::new(Op::Count))
    };
    let (first, second) = (seal()?, seal()?);
    count(&first)?;
    let third = seal()?;
    assert!(first.is_resident() && !second.is_resident() && third.is_resident());
    assert!(matches!(count(&second), Err(WarmError::Evicted { .. })));
    let stats = backend.stats();
    assert_eq!((stats.segments, stats.evictions, stats.used_bytes), (2, 1, 2 * bytes));

    // What is being read stays, and keeps its bytes even if it is evicted.
    let (reads_first, reads_third) = (first.data()?, third.data()?);
    assert!(matches!(seal(), Err(WarmError::OutOfMemory { .. })));
    assert!(first.is_resident() && third.is_resident());
    assert!(backend.evict(&first));
    assert_eq!(backend.stats().used_bytes, 2 * bytes);
    drop(reads_first);
    assert_eq!(backend.stats().used_bytes, bytes);
    drop(reads_third);
    seal()?;

    let large = backend.seal(&table, &[rows(0..10, 0..1000)]);
    assert!(matches!(large, Err(WarmError::OutOfMemory { .. })), "{large:?}");
    Ok(())
}

#[test]
fn segments_keep_no_batch_alive_and_know_their_bytes() -> TestResult {
    let backend = HostBackend::new(64 << 20);
    let batch = rows(0..1, 0..10_000);
    let segment = backend.seal(&table()?, &[batch.slice(5, 10)])?;
    // Times and values of ten rows, and one run.
    assert_eq!(segment.stats().bytes, 10 * 16 + 28);
    let data = segment.data()?.downcast::<super::HostData>().map_err(|_| "another backend")?;
    let arrays: usize =
        data.columns.iter().flatten().map(|array| array.get_buffer_memory_size()).sum();
    assert!(arrays < 1000, "{arrays} bytes for 10 rows");
    Ok(())
}

#[test]
fn too_many_texts_are_refused_and_those_before_stay() -> TestResult {
    let backend = HostBackend::new(64 << 20);
    let spec = TableSpec::try_new(schema(), 1, vec![0])?.with_dictionary_bytes_max(1000);
    let table = WarmTable::new(spec);
    let segment = backend.seal(&table, &[rows(0..5, 0..10)])?;
    let many = backend.seal(&table, &[rows(0..100, 0..1)]);
    let Err(WarmError::Unsupported { what: Unsupported::DictionaryFull { column, .. } }) = many
    else {
        return Err(format!("{many:?}").into());
    };
    assert_eq!(column, "host");
    let answer = backend.run(&table, &[segment], &Request::new(Op::Count))?;
    assert!(matches!(answer.output, Output::Count(50)));
    Ok(())
}

/// A table of one text column with keys of 8 bits, and rows of 200 texts in two segments.
fn many_states(backend: &HostBackend) -> Result<(Arc<WarmTable>, Vec<Arc<Segment>>), WarmError> {
    let state = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let schema = Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Second, None), false),
        Field::new("state", state, true),
    ]));
    let table = WarmTable::new(TableSpec::try_new(Arc::clone(&schema), 0, vec![])?);
    let segment = |from: i32| {
        let names: StringArray = (from..from + 100).map(|n| Some(format!("state {n}"))).collect();
        let keys = Int8Array::from_iter_values(0..100);
        let states = DictionaryArray::<Int8Type>::new(keys, Arc::new(names));
        let times: Vec<i64> = (0..100).map(|time| time + i64::from(from)).collect();
        let times = arrow::array::TimestampSecondArray::from(times);
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(times), Arc::new(states)]);
        backend.seal(&table, &[batch?])
    };
    let segments = vec![segment(0)?, segment(100)?];
    Ok((table, segments))
}

#[test]
fn codes_beyond_the_declared_keys_come_back_as_long_as_an_answer_has_few_texts() -> TestResult {
    let backend = HostBackend::new(64 << 20);
    let (table, segments) = many_states(&backend)?;
    let fetch = || Op::Fetch { columns: vec![1], order: FetchOrder::Time, limit: None };
    let some = Request::new(fetch()).with_time(TimeRange::new(150, 160));
    let Output::Rows(batches) = backend.run(&table, &segments, &some)?.output else {
        return Err("no rows".into());
    };
    let states = batches[0].column(0).as_dictionary::<Int8Type>();
    let states = states.downcast_dict::<StringArray>().ok_or("no texts")?;
    assert_eq!(states.into_iter().flatten().next(), Some("state 150"));

    let all = backend.run(&table, &segments, &Request::new(fetch()));
    let Err(WarmError::Unsupported { what: Unsupported::DictionaryCodes { .. } }) = all else {
        return Err(format!("{all:?}").into());
    };
    Ok(())
}

#[test]
fn sums_of_floats_do_not_lose_what_is_small() -> TestResult {
    let backend = HostBackend::new(64 << 20);
    let table = table()?;
    let mut batch = rows(0..1, 0..1000);
    let values = (0..1000).map(|row| if row == 0 { 1e16 } else { 1.0 });
    let mut columns = batch.columns().to_vec();
    columns[2] = Arc::new(Float64Array::from_iter_values(values));
    batch = RecordBatch::try_new(batch.schema(), columns)?;
    let segment = backend.seal(&table, &[batch])?;
    let sum = Aggregate::of(Function::Sum, 2);
    let request = Request::new(Op::Aggregate {
        group: vec![Group::TimeBucket { origin: 0, width: 2000 }],
        aggregates: vec![sum],
    });
    let Output::Partial(partial) = backend.run(&table, &[segment], &request)?.output else {
        return Err("no states".into());
    };
    let sums = partial.column(1).as_primitive::<arrow::datatypes::Float64Type>();
    // The float next to 1e16 + 999.
    assert_eq!(sums.value(0), 10_000_000_000_001_000.0);
    Ok(())
}

/// Memory of which others have taken some.
#[derive(Debug)]
struct Elsewhere {
    free: std::sync::atomic::AtomicU64,
}

impl crate::SharedMemory for Elsewhere {
    fn try_take(&self, bytes: u64) -> Result<(), u64> {
        use std::sync::atomic::Ordering::Relaxed;
        let take = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Relaxed, Relaxed, take).map(drop)
    }

    fn give_back(&self, bytes: u64) {
        self.free.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn memory_that_others_have_is_not_taken() -> TestResult {
    use std::sync::atomic::Ordering::Relaxed;
    let table = table()?;
    let alone = HostBackend::new(1 << 30).seal(&table, &[rows(0..4, 0..1000)])?.stats().bytes;
    let memory = Arc::new(Elsewhere { free: (alone * 5 / 2).into() });
    let shared: Arc<dyn crate::SharedMemory> = Arc::<Elsewhere>::clone(&memory);
    let backend = HostBackend::new(1 << 30).with_shared_memory(shared);
    let first = backend.seal(&table, &[rows(0..4, 0..1000)])?;
    let second = backend.seal(&table, &[rows(0..4, 0..1000)])?;
    assert!(first.is_resident() && memory.free.load(Relaxed) == alone / 2);
    // There is no room for a third, whatever the budget says.
    let third = backend.seal(&table, &[rows(0..4, 0..1000)])?;
    assert!(!first.is_resident() && second.is_resident() && third.is_resident());
    memory.free.fetch_sub(alone / 2, Relaxed);
    let large = backend.seal(&table, &[rows(0..4, 0..10_000)]);
    assert!(matches!(large, Err(WarmError::OutOfMemory { .. })), "{large:?}");
    assert_eq!((backend.stats().used_bytes, memory.free.load(Relaxed)), (0, alone * 2));
    Ok(())
}

#[test]
fn room_is_made_of_what_was_not_used_for_longest() -> TestResult {
    let (table, backend) = (table()?, HostBackend::new(1 << 30));
    let first = backend.seal(&table, &[rows(0..4, 0..1000)])?;
    let second = backend.seal(&table, &[rows(0..4, 0..1000)])?;
    backend.run(&table, &[Arc::clone(&first)], &Request::new(Op::Count))?;
    assert_eq!(backend.make_room(1), second.stats().bytes);
    assert!(first.is_resident() && !second.is_resident());
    let read = first.data()?;
    assert_eq!(backend.make_room(u64::MAX), 0, "what is read is not free before that has ended");
    drop(read);
    assert_eq!(backend.make_room(u64::MAX), first.stats().bytes);
    assert_eq!(backend.make_room(1), 0);
    Ok(())
}

#[test]
fn how_many_keys_a_filter_lets_through_is_known_or_estimated() -> TestResult {
    let (backend, table) = (HostBackend::new(64 << 20), table()?);
    let segment = backend.seal(&table, &[rows(0..5_000, 0..1)])?;
    let wanted = |filter: Option<Predicate>| -> Result<usize, WarmError> {
        let mut request = Request::new(Op::Count);
        request.filter = filter;
        let bound = Bound::try_new(&table, &[Arc::clone(&segment)], &request)?;
        let (wanted, all) = bound.part_of_keys(&table);
        assert_eq!(all, 5_000);
        Ok(wanted)
    };
    let host = |op, name: &str| Predicate::compare(0, op, Value::Text(name.into()));
    assert_eq!(wanted(None)?, 5_000);
    let value = Predicate::compare(2, Comparison::Less, Value::Float64(3.0));
    assert_eq!(wanted(Some(value))?, 5_000);
    assert!(wanted(Some(host(Comparison::Equal, "host_7")))? < 50);
    let half = wanted(Some(host(Comparison::Less, "host_3")))?;
    assert!((2_000..2_500).contains(&half), "{half}");
    Ok(())
}
