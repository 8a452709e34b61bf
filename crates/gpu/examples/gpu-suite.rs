//! What a GPU gives: the suite that every backend passes, how fast the device copies, and how near to that
//! requests come. One program, to be copied to a machine with a GPU that has no Rust.
//!
//! ```text
//! cargo build -p tidelog-gpu --release --example gpu-suite
//! gpu-suite --rows 1000000 --rows 1000000000 --memory-mib 100000
//! ```
//!
//! Prints a short table; with `OUT` set, writes `$OUT/gpu-suite.json` too. Times are those of whole
//! requests, on the host's clock, the median of some. With `--emulated` it runs without a GPU, to see that it
//! runs; its times mean nothing then.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use clap::Parser;
use serde_json::{Value as Json, json};
use tidelog_gpu::{Ceilings, CudaBackend, CudaSettings};
use tidelog_gpu_emulator::Emulator;
use tidelog_warm::{
    Aggregate, Comparison, Function, Group, Op, Predicate, Request, Segment, SortKey, TableSpec,
    Value, WarmBackend, WarmTable, suite,
};

/// Runs the suite and measures requests on a GPU.
#[derive(Debug, Parser)]
struct Options {
    /// Rows of a table; may be given several times.
    #[arg(long, default_values_t = [1_000_000, 10_000_000])]
    rows: Vec<u64>,
    /// Memory of the device to take, in MiB.
    #[arg(long, default_value_t = 4096)]
    memory_mib: u64,
    /// Scratch of each lane, in MiB.
    #[arg(long, default_value_t = 512)]
    scratch_mib: u64,
    /// Cases of the suite for each check.
    #[arg(long, default_value_t = 200)]
    cases: u32,
    /// Times that each request is measured.
    #[arg(long, default_value_t = 9)]
    times: usize,
    /// The seed of the suite.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs on the emulated device.
    #[arg(long)]
    emulated: bool,
}

/// Rows that are sealed at once.
const SEGMENT_ROWS: u64 = 8_000_000;
/// Keys of a table, and nanoseconds between rows of one.
const KEYS: u64 = 1000;
const STEP_NS: i64 = 1_000_000_000;

fn main() -> Result<()> {
    let options = Options::parse();
    let _emulator = options.emulated.then(Emulator::load).transpose()?;
    let settings = CudaSettings::default()
        .with_memory_bytes(options.memory_mib << 20)
        .with_scratch_bytes(options.scratch_mib << 20)
        .with_staging_bytes(if options.emulated { 1 << 20 } else { 128 << 20 });
    let start = Instant::now();
    let backend = CudaBackend::open(&settings)?;
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    println!("{} opened in {open_ms:.1} ms", backend.stats().device);
    let report = suite::run(&backend, options.seed, options.cases);
    println!("{report}");
    ensure!(report.passed(), "the suite fails: nothing is measured");
    backend.evict_all();
    let ceilings = backend.ceilings(if options.emulated { 1 } else { 20 })?;
    let gb = |rate: f64| rate / 1e9;
    println!(
        "copies in GB/s: {:.0} on the device, {:.1} to it, {:.1} from it\n",
        gb(ceilings.device),
        gb(ceilings.to_device),
        gb(ceilings.from_device)
    );
    println!("{:>11} {:<22} {:>10} {:>9} {:>9}", "rows", "what", "ms", "Mrow/s", "of copy");
    let mut figures = Vec::new();
    for &rows in &options.rows {
        figures.extend(Bench { backend: &backend, rows, times: options.times, ceilings }.run()?);
        backend.evict_all();
    }
    let all = json!({
        "device": backend.stats().device,
        "emulated": options.emulated,
        "open_ms": open_ms,
        "copy_gb_s": {
            "device": gb(ceilings.device),
            "to_device": gb(ceilings.to_device),
            "from_device": gb(ceilings.from_device),
        },
        "figures": figures,
    });
    if let Some(out) = std::env::var_os("OUT") {
        let path = std::path::Path::new(&out).join("gpu-suite.json");
        std::fs::write(&path, format!("{all:#}\n")).context("writing the figures")?;
    }
    Ok(())
}

/// Measurements on a table of so many rows.
struct Bench<'a> {
    backend: &'a CudaBackend,
    rows: u64,
    times: usize,
    ceilings: Ceilings,
}

/// What is measured: its name, the request, and the bytes that it has to read of each row.
type Case = (&'static str, Request, f64);

impl Bench<'_> {
    fn run(&self) -> Result<Vec<Json>> {
        let table = table()?;
        let mut figures = Vec::new();
        let mut segments = Vec::new();
        let (mut seconds, mut first) = (0.0, 0);
        while first < self.rows {
            let rows = SEGMENT_ROWS.min(self.rows - first);
            let batch = batch(&table, first, rows, false)?;
            let start = Instant::now();
            segments.push(self.backend.seal(&table, &[batch])?);
            seconds += start.elapsed().as_secs_f64();
            first += rows;
        }
        ensure!(segments.iter().all(|segment| segment.is_resident()), "memory is too small");
        figures.push(self.figure("seal in order", seconds, 20.0, self.ceilings.to_device));
        for (name, request, bytes) in cases() {
            let seconds = self.measure(&table, &segments, &request)?;
            figures.push(self.figure(name, seconds, bytes, self.ceilings.device));
        }
        drop(segments);
        self.backend.evict_all();
        let rows = SEGMENT_ROWS.min(self.rows);
        let batch = batch(&table, 0, rows, true)?;
        let start = Instant::now();
        self.backend.seal(&table, &[batch])?;
        let sorted = Self { rows, ..*self };
        let seconds = start.elapsed().as_secs_f64();
        figures.push(sorted.figure("seal out of order", seconds, 200.0, self.ceilings.device));
        Ok(figures)
    }

    fn measure(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<f64> {
        self.backend.run(table, segments, request)?;
        let mut seconds = Vec::with_capacity(self.times);
        for _ in 0..self.times.max(1) {
            let start = Instant::now();
            self.backend.run(table, segments, request)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    /// Prints a line, and gives it.
    fn figure(&self, name: &str, seconds: f64, bytes: f64, ceiling: f64) -> Json {
        let rows = self.rows as f64 / seconds;
        let share = rows * bytes / ceiling;
        println!(
            "{:>11} {name:<22} {:>10.3} {:>9.0} {:>8.0}%",
            self.rows,
            seconds * 1e3,
            rows / 1e6,
            share * 100.0
        );
        json!({
            "rows": self.rows,
            "what": name,
            "ms": seconds * 1e3,
            "rows_per_second": rows,
            "share_of_copy": share,
        })
    }
}

fn table() -> Result<Arc<WarmTable>> {
    let schema = Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Nanosecond, None), false),
        Field::new("key", DataType::UInt32, false),
        Field::new("value", DataType::Float64, false),
    ]);
    Ok(WarmTable::new(TableSpec::try_new(Arc::new(schema), 0, [1])?))
}

/// Rows by key and time, or by time alone.
fn batch(table: &WarmTable, first: u64, rows: u64, by_time: bool) -> Result<RecordBatch> {
    let each = rows.div_ceil(KEYS);
    let start = i64::try_from(first / KEYS)? * STEP_NS;
    let (mut times, mut keys, mut values) = (vec![], vec![], vec![]);
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for row in 0..rows {
        let (key, step) = if by_time { (row % KEYS, row / KEYS) } else { (row / each, row % each) };
        times.push(start + i64::try_from(step)? * STEP_NS);
        keys.push(u32::try_from(key)?);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        values.push((random >> 11) as f64 / (1_u64 << 53) as f64);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from(times)),
        Arc::new(UInt32Array::from(keys)),
        Arc::new(Float64Array::from(values)),
    ];
    Ok(RecordBatch::try_new(Arc::clone(table.spec().schema()), columns)?)
}

fn cases() -> Vec<Case> {
    let below = |value: f64| Predicate::compare(2, Comparison::Less, Value::Float64(value));
    let group = vec![Group::Key(1), Group::TimeBucket { origin: 0, width: 3600 * STEP_NS }];
    let functions = [Function::Count, Function::Sum, Function::Min, Function::Max];
    let aggregates: Vec<_> =
        functions.into_iter().map(|function| Aggregate::of(function, 2)).collect();
    let all = Op::Aggregate { group: vec![], aggregates: aggregates.clone() };
    let order = vec![SortKey { column: 2, descending: true, nulls_first: false }];
    let fetch = |share: f64| {
        let order = tidelog_warm::FetchOrder::Stored;
        let op = Op::Fetch { columns: vec![0, 1, 2], order, limit: None };
        Request::new(op).with_filter(below(share))
    };
    vec![
        ("filter, count", Request::new(Op::Count).with_filter(below(0.5)), 8.0),
        ("key x hour", Request::new(Op::Aggregate { group, aggregates }), 16.0),
        ("all, filtered", Request::new(all).with_filter(below(0.5)), 8.0),
        ("fetch 0.1 %", fetch(0.001), 8.2),
        ("top 100", Request::new(Op::TopK { order, k: 100, columns: vec![0, 1, 2] }), 8.0),
        ("last of each key", Request::new(Op::LastPerKey { columns: vec![0, 2], keys: None }), 0.0),
    ]
}
