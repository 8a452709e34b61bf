//! A small range of a series of very many versions, each time by a process that begins from nothing.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::TIDELOG;
use crate::apart::apart;
use crate::generate::sensors::{self, Sensors, time_us};
use crate::machine::peak_resident_bytes;
use crate::options::{Built, Common};
use crate::results::Document;
use crate::staged;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
const MS_AT_MOST: f64 = 60.0;
const MB_ABOVE_AT_MOST: f64 = 64.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct ColdRangeArgs {
    /// Versions of the series, each of one append
    #[arg(long, default_value_t = 10_000)]
    pub(crate) versions: usize,
    /// Rows of each version
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// How many of a thousand rows are read
    #[arg(long, default_value_t = 5)]
    pub(crate) per_mille: usize,
    /// Processes
    #[arg(long, default_value_t = 15)]
    pub(crate) rounds: usize,
}

const ABOUT: &str = "Versions are appended one by one, each a file, and the log is merged (`tidelog maintain`). Then \
    fresh processes, with the files in the page cache, open the store and read a small range from the middle to its \
    last row. Times run from the start of the process to its end. Memory is the resident high-water mark, compared \
    with that of a process that opens the store and answers SELECT 1.";

/// What a process reports.
#[derive(Debug, Deserialize, Serialize)]
struct Reading {
    rows: usize,
    sum: f64,
    ms: f64,
    peak_bytes: u64,
}

pub(crate) async fn run(args: &ColdRangeArgs, common: &Common) -> Result<()> {
    let folder = build(args, common).await?;
    let title = "A small range, by a process that begins from nothing";
    let mut document = Document::new("cold-range", title, ABOUT, common);
    document.parameter("versions", args.versions);
    document.parameter("rows per version", args.rows);
    let first = args.versions * args.rows / 2;
    let count = (args.versions * args.rows * args.per_mille / 1_000).max(1);
    document.parameter("rows read", count);
    let range = [
        "--from".to_owned(),
        time_us(first)?.to_string(),
        "--to".to_owned(),
        time_us(first + count - 1)?.to_string(),
    ];
    let (mut whole, mut inside, mut peaks, mut idle) = (vec![], vec![], vec![], vec![]);
    for _ in 0..args.rounds {
        let (reading, ms) = apart::<Reading>("read-range", &folder, &range)?;
        let detail = format!("{} rows", reading.rows);
        document.check("rows of the range", reading.rows == count, detail);
        whole.push(ms);
        inside.push(reading.ms);
        peaks.push(reading.peak_bytes as f64 / 1e6);
        idle.push(apart::<Reading>("read-range", &folder, &[])?.0.peak_bytes as f64 / 1e6);
    }
    document.measure("opening and reading, process and all", TIDELOG, "ms", &whole);
    document.measure("opening and reading, inside the process", TIDELOG, "ms", &inside);
    document.measure("peak resident memory", TIDELOG, "MB", &peaks);
    document.measure("peak resident memory of SELECT 1", TIDELOG, "MB", &idle);
    let median = |samples: &[f64]| Summary::of(samples).map_or(f64::NAN, |summary| summary.p50);
    let what = "p50 of opening and reading, process and all";
    document.figure(what, "ms", median(&whole), Some(MS_AT_MOST));
    let above = median(&peaks) - median(&idle);
    document.figure("p50 of memory above SELECT 1", "MB", above, Some(MB_ABOVE_AT_MOST));
    document.finish(common)
}

async fn build(args: &ColdRangeArgs, common: &Common) -> Result<PathBuf> {
    let parameters = json!({ "versions": args.versions, "rows": args.rows, "seed": common.seed });
    let (built, notes) = Built::find(common, "cold-range", parameters)?;
    if notes.is_none() {
        let tidelog = Tidelog::open_or_create(&built.folder).await?;
        let mut sensors = Sensors::new(common.seed);
        for _ in 0..args.versions {
            tidelog.append(SERIES, &sensors.batch(args.rows)?, sensors::TIME_COLUMN).await?;
        }
        tidelog.maintain(false).await?;
        built.complete(&Value::Null)?;
    }
    Ok(built.folder)
}

/// Opens a store, reads a range or only says 1, and reports as JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReadRangeArgs {
    /// The store to read
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The first event time, in microseconds; without it SELECT 1 is asked
    #[arg(long)]
    pub(crate) from: Option<i64>,
    /// The last event time, in microseconds
    #[arg(long, default_value_t = i64::MAX)]
    pub(crate) to: i64,
}

pub(crate) async fn run_read_range(args: &ReadRangeArgs) -> Result<()> {
    let started = Instant::now();
    let tidelog = Tidelog::open(&args.store).await?;
    let (rows, sum) = match args.from {
        Some(from) => {
            let batches = tidelog.range(SERIES, from, args.to).await?;
            (staged::rows(&batches), staged::sum(&batches))
        }
        None => (staged::rows(&tidelog.sql("SELECT 1").await?), 0.0),
    };
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let peak_bytes = peak_resident_bytes().context("no VmHWM in /proc/self/status")?;
    println!("{}", serde_json::to_string(&Reading { rows, sum, ms, peak_bytes })?);
    Ok(())
}
