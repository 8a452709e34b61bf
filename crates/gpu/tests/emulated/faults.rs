//! A device that fails: the first error is for good, no answer is wrong, and nothing is left behind.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidelog_gpu::CudaBackend;
use tidelog_gpu_emulator::Call;
use tidelog_warm::{
    Aggregate, Comparison, FetchOrder, Function, Group, HostBackend, Op, Output, Predicate,
    Request, Segment, SortKey, TableSpec, Value, WarmBackend, WarmError, WarmTable,
};

use crate::{device, small};

fn table() -> Arc<WarmTable> {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Schema::new(vec![
        Field::new("time", time, false),
        Field::new("host", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
    ]);
    WarmTable::new(TableSpec::try_new(Arc::new(schema), 0, [1]).unwrap())
}

fn batch(table: &WarmTable, rows: i64) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values((0..rows).map(|row| row * 7 % rows))),
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("host{}", row % 5)))),
        Arc::new(
            (0..rows).map(|row| (row % 6 > 0).then_some(row as f64)).collect::<Float64Array>(),
        ),
    ];
    RecordBatch::try_new(Arc::clone(table.spec().schema()), columns).unwrap()
}

fn requests() -> Vec<Request> {
    let filter = Predicate::compare(2, Comparison::Greater, Value::Float64(99.0));
    let group = vec![Group::Key(1), Group::TimeBucket { origin: 0, width: 500 }];
    let aggregates = vec![Aggregate::of(Function::Sum, 2), Aggregate::ROWS];
    let order = vec![SortKey { column: 2, descending: true, nulls_first: false }];
    let ops = [
        Op::Count,
        Op::Fetch { columns: vec![0, 1, 2], order: FetchOrder::Stored, limit: None },
        Op::Aggregate { group, aggregates },
        Op::TopK { order, k: 10, columns: vec![0, 2] },
        Op::LastPerKey { columns: vec![0, 1, 2], keys: None },
    ];
    ops.into_iter().map(|op| Request::new(op).with_filter(filter.clone())).collect()
}

/// An answer that can be compared: groups in an order of their own.
fn shown(output: &Output) -> Vec<String> {
    let text = match output {
        Output::Partial(batch) => format!("{batch:?}"),
        other => format!("{other:?}"),
    };
    let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    words.sort_unstable();
    words
}

fn answers(
    backend: &dyn WarmBackend,
    table: &Arc<WarmTable>,
    segments: &[Arc<Segment>],
) -> Vec<Result<Vec<String>, WarmError>> {
    let answer = |request: &Request| backend.run(table, segments, request);
    requests().iter().map(|request| Ok(shown(&answer(request)?.output))).collect()
}

/// Everything that a backend does, with the n-th call of a kind failing; whether that call came.
fn run_with_fault(call: Call, nth: u64, for_good: bool) -> bool {
    let device = device(nth);
    let before = device.emulator.held().objects();
    let table = table();
    let batch = batch(&table, 3000);
    let host = HostBackend::new(64 << 20);
    let of_host = [host.seal(&table, std::slice::from_ref(&batch)).unwrap()];
    let expected = answers(&host, &table, &of_host);
    let backend = device.open(&small().with_memory_bytes(8 << 20));
    device.emulator.fail(call, nth, 719, for_good);
    let sealed = backend.seal(&table, std::slice::from_ref(&batch));
    let mut failed = false;
    match &sealed {
        Err(error) => {
            assert!(matches!(error, WarmError::Dead { .. }), "{error}");
            failed = true;
        }
        Ok(segment) => {
            let found = answers(&backend, &table, std::slice::from_ref(segment));
            for (found, expected) in found.iter().zip(&expected) {
                match found {
                    Ok(found) => assert!(!failed && Ok(found) == expected.as_ref().map_err(|_| ())),
                    Err(WarmError::Dead { .. }) => failed = true,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    if failed {
        stays_dead(&backend, &table, &batch);
    }
    drop(sealed);
    drop(backend);
    assert_eq!(device.emulator.held().objects(), before, "{call:?} {nth}");
    failed
}

fn stays_dead(backend: &CudaBackend, table: &Arc<WarmTable>, batch: &RecordBatch) {
    let sealed = backend.seal(table, std::slice::from_ref(batch));
    assert!(matches!(sealed, Err(WarmError::Dead { .. })));
    let counted = backend.run(table, &[], &Request::new(Op::Count));
    assert!(matches!(counted, Err(WarmError::Dead { .. })));
    let stats = backend.stats();
    assert!(stats.dead.is_some_and(|reason| reason.contains("LAUNCH_FAILED")));
    assert!(stats.fallbacks["dead"] >= 2);
}

#[test]
fn whichever_call_fails_the_backend_is_dead_and_no_answer_is_wrong() {
    for call in [Call::Copy, Call::Launch, Call::Wait] {
        let mut nth = 1;
        // Later calls are as earlier ones, so that a few of them will do.
        while nth < 1000 && run_with_fault(call, nth, nth % 2 == 0) {
            nth += 1 + nth / 5;
        }
        assert!(nth > 10, "{call:?} never failed");
        assert!(nth < 1000, "{call:?} always fails");
    }
}

#[test]
fn a_device_that_is_lost_between_requests_is_noticed_by_the_next() {
    let device = device(1);
    let table = table();
    let backend = device.open(&small());
    let segment = backend.seal(&table, &[batch(&table, 100)]).unwrap();
    let segments = [segment];
    let count = || backend.run(&table, &segments, &requests()[0]);
    assert!(count().is_ok());
    device.emulator.lose_device(719);
    assert!(matches!(count(), Err(WarmError::Dead { .. })));
    device.emulator.reset(1);
    // The driver works again; what lies on the device may not be what was put there.
    assert!(matches!(count(), Err(WarmError::Dead { .. })));
}

#[test]
fn segments_outlive_eviction_while_they_are_read_and_the_budget_is_kept() {
    let device = device(1);
    let table = table();
    let backend = device.open(&small());
    let budget = backend.stats().budget_bytes;
    let mut segments = Vec::new();
    while backend.stats().evictions < 3 {
        segments.push(backend.seal(&table, &[batch(&table, 200_000)]).unwrap());
        assert!(backend.stats().used_bytes <= budget);
        assert!(segments.len() < 1000);
    }
    assert!(!segments[0].is_resident());
    let request = Request::new(Op::Count);
    let evicted = backend.run(&table, &segments[..1], &request);
    assert!(matches!(evicted, Err(WarmError::Evicted { .. })));
    let last = backend.run(&table, &segments[segments.len() - 1..], &request).unwrap();
    assert!(matches!(last.output, Output::Count(200_000)));
}

#[test]
fn threads_seal_read_and_evict_at_the_same_time() {
    let device = device(7);
    let table = table();
    let backend = device.open(&small());
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let (backend, table) = (&backend, &table);
            scope.spawn(move || {
                for round in 0..6_i64 {
                    let rows = 100 * (thread + 1) + round;
                    let segment = backend.seal(table, &[batch(table, rows)]).unwrap();
                    let segments = [Arc::clone(&segment), Arc::clone(&segment)];
                    let answer = backend.run(table, &segments, &Request::new(Op::Count)).unwrap();
                    let twice = u64::try_from(rows * 2).unwrap();
                    assert!(matches!(answer.output, Output::Count(count) if count == twice));
                    assert!(backend.evict(&segment));
                    assert!(!backend.evict(&segment));
                }
            });
        }
    });
    assert_eq!(backend.stats().used_bytes, 0);
}
