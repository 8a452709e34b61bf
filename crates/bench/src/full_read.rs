//! One ordered read of a series much larger than memory allows to collect: how fast, and within what memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::generate::sensors::{self, Sensors};
use crate::machine::peak_resident_bytes;
use crate::options::{Built, Common, stored_bytes};
use crate::results::Document;
use crate::staged;
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
const TIDELOG: &str = "tidelog";
/// The reading process may reside in so many megabytes (of a million bytes).
const MEMORY_MB_AT_MOST: f64 = 256.0;
/// Operators that an ordered read of a series in time order must not need.
const FORBIDDEN: [&str; 2] = ["SortExec", "SortPreservingMergeExec"];

#[derive(Args, Clone, Debug)]
pub(crate) struct FullReadArgs {
    /// Rows of the series
    #[arg(long, default_value_t = 100_000_000)]
    pub(crate) rows: usize,
    /// Rows of each append
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) batch_rows: usize,
    /// Reads, each in a fresh process
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
}

/// What a reading process reports.
#[derive(Debug, Deserialize, Serialize)]
struct Reading {
    rows: usize,
    sum: f64,
    seconds: f64,
    peak_bytes: u64,
    in_order: bool,
    operators: Vec<String>,
}

const ABOUT: &str = "A generated series is read once from its first row to its last, in order of event time, through \
    the streaming interface, each time in a fresh process. The reader checks the order of every row and sums up one \
    column; the peak is the process' resident high-water mark, everything included.";

pub(crate) async fn run(args: &FullReadArgs, common: &Common) -> Result<()> {
    let (store, expected_sum) = build(args, common).await?;
    let mut document = Document::new("full-read", "One ordered read of everything", ABOUT, common);
    document.parameter("rows", args.rows);
    document.parameter("rows per version", args.batch_rows);
    document.parameter("rounds", args.rounds);
    let readings = (0..args.rounds).map(|_| read_apart(&store)).collect::<Result<Vec<_>>>()?;
    report(&mut document, &readings);
    document.fact("stored", TIDELOG, "MB", stored_bytes(&store)? as f64 / 1e6);
    check(&mut document, args, expected_sum, &readings);
    document.finish(common)
}

/// The store, and the sum that its rows must have.
async fn build(args: &FullReadArgs, common: &Common) -> Result<(PathBuf, f64)> {
    let parameters =
        json!({ "rows": args.rows, "batch_rows": args.batch_rows, "seed": common.seed });
    let (built, notes) = Built::find(common, "full-read", parameters)?;
    if let Some(sum) = notes.as_ref().and_then(Value::as_f64) {
        return Ok((built.folder, sum));
    }
    let tidelog = Tidelog::open_or_create(&built.folder).await?;
    let mut sensors = Sensors::new(common.seed);
    let (mut left, mut sum) = (args.rows, 0.0);
    while left > 0 {
        let batch = sensors.batch(left.min(args.batch_rows.max(1)))?;
        left -= batch.num_rows();
        tidelog.append(SERIES, &batch, sensors::TIME_COLUMN).await?;
        sum += staged::sum(&[batch]);
    }
    built.complete(&json!(sum))?;
    Ok((built.folder, sum))
}

/// Reads in a fresh process, whose memory is the reader's alone.
fn read_apart(store: &Path) -> Result<Reading> {
    let output = Command::new(std::env::current_exe()?)
        .arg("read-all")
        .arg("--store")
        .arg(store)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the reading process failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the reading process' report")
}

fn report(document: &mut Document, readings: &[Reading]) {
    let series = |value: fn(&Reading) -> f64| readings.iter().map(value).collect::<Vec<_>>();
    let speeds = series(|reading| reading.rows as f64 / reading.seconds / 1e6);
    let peaks = series(|reading| reading.peak_bytes as f64 / 1e6);
    document.measure("ordered full read", TIDELOG, "s", &series(|reading| reading.seconds));
    document.measure("speed of the read", TIDELOG, "million rows/s", &speeds);
    document.measure("peak resident memory", TIDELOG, "MB", &peaks);
    let highest = peaks.into_iter().fold(0.0, f64::max);
    document.figure(
        "highest resident memory of any reader",
        "MB",
        highest,
        Some(MEMORY_MB_AT_MOST),
    );
}

fn check(document: &mut Document, args: &FullReadArgs, sum: f64, readings: &[Reading]) {
    for reading in readings {
        let passed = reading.rows == args.rows && reading.sum == sum && reading.in_order;
        let order = if reading.in_order { "in order" } else { "out of order" };
        let detail = format!("{} of {} rows, {order}", reading.rows, args.rows);
        document.check("rows, sum and order of a read", passed, detail);
    }
    let Some(reading) = readings.first() else { return };
    for operator in FORBIDDEN {
        let what =
            format!("no {operator} in the plan of SELECT * … ORDER BY {}", sensors::TIME_COLUMN);
        let passed = !reading.operators.iter().any(|found| found == operator);
        document.check(&what, passed, reading.operators.join(", "));
    }
}

/// Reads a whole series and reports as JSON: the program of a fresh process.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReadAllArgs {
    /// The store to read
    #[arg(long)]
    pub(crate) store: PathBuf,
}

pub(crate) async fn run_read_all(args: &ReadAllArgs) -> Result<()> {
    println!("{}", serde_json::to_string(&read_all(&args.store).await?)?);
    Ok(())
}

async fn read_all(store: &Path) -> Result<Reading> {
    let started = Instant::now();
    let tidelog = Tidelog::open(store).await?;
    let (mut rows, mut sum, mut order) = (0, 0.0, Order::default());
    tidelog
        .for_each_batch(SERIES, |batch| {
            rows += batch.num_rows();
            sum += staged::sum(std::slice::from_ref(batch));
            order.see(batch)
        })
        .await?;
    let seconds = started.elapsed().as_secs_f64();
    let peak_bytes = peak_resident_bytes().context("no VmHWM in /proc/self/status")?;
    let operators = operators(&explain(&tidelog).await?);
    ensure!(!operators.is_empty(), "EXPLAIN shows no physical plan");
    Ok(Reading { rows, sum, seconds, peak_bytes, in_order: !order.broken, operators })
}

/// Whether event times never went back, within and between batches.
#[derive(Debug, Default)]
struct Order {
    last: Option<i64>,
    broken: bool,
}

impl Order {
    fn see(&mut self, batch: &RecordBatch) -> Result<()> {
        let times = batch.column_by_name(sensors::TIME_COLUMN).context("no time column")?;
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        let starts_before = self.last > times.first().copied() && !times.is_empty();
        self.broken |= starts_before || !times.is_sorted();
        self.last = times.last().copied().or(self.last);
        Ok(())
    }
}

async fn explain(tidelog: &Tidelog) -> Result<String> {
    let time = sensors::TIME_COLUMN;
    let statement = format!("EXPLAIN SELECT * FROM \"{SERIES}\" ORDER BY {time}");
    let answer = tidelog.sql(&statement).await?;
    Ok(arrow::util::pretty::pretty_format_batches(&answer)?.to_string())
}

/// The names of a plan's operators: what they read, paths of this machine among it, is left out.
fn operators(plan: &str) -> Vec<String> {
    let words = plan.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| word.ends_with("Exec")).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_reduced_to_its_operators() {
        let plan = "| physical_plan | SortPreservingMergeExec: [t@0 ASC] |\n| | DataSourceExec: x/y.parquet |";
        assert_eq!(operators(plan), ["SortPreservingMergeExec", "DataSourceExec"]);
    }

    #[test]
    fn event_times_that_go_back_are_noticed_within_and_between_batches() -> Result<()> {
        let mut sensors = Sensors::new(1);
        let (first, second) = (sensors.batch(3)?, sensors.batch(3)?);
        let broken = |batches: [&RecordBatch; 2]| -> Result<bool> {
            let mut order = Order::default();
            batches.into_iter().try_for_each(|batch| order.see(batch))?;
            Ok(order.broken)
        };
        assert!(!broken([&first, &second])?);
        assert!(broken([&second, &first])?);
        Ok(())
    }
}
