//! A store of very many versions over very many series: opening it, and reading the log rows of one series.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidelog::object_store::ObjectStore;
use tidelog::{Mode, SeriesExt, Store, UpkeepMode};
use tidelog_storage::counting::Operation;
use tidelog_storage::{CountingStore, DurableLocal};

use super::TIDELOG;
use crate::apart::apart;
use crate::generate::sensors::{self, Sensors};
use crate::machine::peak_resident_bytes;
use crate::options::{Built, Common, stored_bytes};
use crate::results::Document;
use crate::tidelog_side::version_of;

const OPEN_MS_AT_MOST: f64 = 100.0;
const OPEN_MB_AT_MOST: f64 = 150.0;
const SERIES_REQUESTS_AT_MOST: f64 = 2.0;
const SERIES_MIB_AT_MOST: f64 = 1.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct ManySeriesArgs {
    /// Series of the store
    #[arg(long, default_value_t = 10_000)]
    pub(crate) series: usize,
    /// Versions of each
    #[arg(long, default_value_t = 100)]
    pub(crate) versions: usize,
    /// Openings, each in a fresh process
    #[arg(long, default_value_t = 15)]
    pub(crate) rounds: usize,
}

const ABOUT: &str = "A store of very many series, with one row in each version, appended in one call per series, whose \
    log is then merged into one run and checkpointed (`tidelog maintain --full`). Fresh processes open it, with its \
    files in the page cache, and read the log rows of one series, each of another; requests are counted at the object \
    store. The peak is the process' resident high-water mark right after opening, everything included.";

/// What a process reports.
#[derive(Debug, Deserialize, Serialize)]
struct Opening {
    open_ms: f64,
    open_requests: usize,
    open_lists: usize,
    peak_bytes: u64,
    series_ms: f64,
    series_requests: usize,
    series_bytes: u64,
    versions: usize,
}

pub(crate) async fn run(args: &ManySeriesArgs, common: &Common) -> Result<()> {
    let folder = build(args, common).await?;
    let title = "A log of very many versions";
    let mut document = Document::new("many-series", title, ABOUT, common);
    document.parameter("series", args.series);
    document.parameter("versions of each", args.versions);
    document.parameter("openings", args.rounds);
    let mut openings = Vec::new();
    for round in 0..args.rounds {
        let series = round * args.series / args.rounds.max(1);
        let rest = ["--series".to_owned(), path_of(series)];
        openings.push(apart::<Opening>("open-one", &folder, &rest)?.0);
    }
    report(&mut document, &openings);
    let log = stored_bytes(&folder.join("_oplog"))? as f64 / 1e6;
    document.fact("log stored", TIDELOG, "MB", log);
    for opening in &openings {
        let passed = opening.versions == args.versions && opening.open_lists == 0;
        let detail = format!("{} versions, {} listings", opening.versions, opening.open_lists);
        document.check("versions of a series, and no listing", passed, detail);
    }
    document.finish(common)
}

fn report(document: &mut Document, openings: &[Opening]) {
    let each = |value: fn(&Opening) -> f64| openings.iter().map(value).collect::<Vec<_>>();
    let highest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let opening = each(|o| o.open_ms);
    let peaks = each(|o| o.peak_bytes as f64 / 1e6);
    document.measure("opening", TIDELOG, "ms", &opening);
    document.measure("peak resident memory after opening", TIDELOG, "MB", &peaks);
    document.measure("reading the log rows of one series", TIDELOG, "ms", &each(|o| o.series_ms));
    document.measure("requests of opening", TIDELOG, "requests", &each(|o| o.open_requests as f64));
    let requests = each(|o| o.series_requests as f64);
    let bytes = each(|o| o.series_bytes as f64 / 1_048_576.0);
    document.measure("log read for one series", TIDELOG, "MiB", &bytes);
    let median = crate::stats::Summary::of(&opening).map_or(f64::NAN, |summary| summary.p50);
    document.figure("p50 of opening", "ms", median, Some(OPEN_MS_AT_MOST));
    let what = "highest resident memory after opening";
    document.figure(what, "MB", highest(&peaks), Some(OPEN_MB_AT_MOST));
    let what = "most requests for the log rows of one series";
    document.figure(what, "requests", highest(&requests), Some(SERIES_REQUESTS_AT_MOST));
    let what = "most log read for one series";
    document.figure(what, "MiB", highest(&bytes), Some(SERIES_MIB_AT_MOST));
}

fn path_of(series: usize) -> String {
    format!("/site-{:03}/sensor-{series}.series", series / 100)
}

async fn build(args: &ManySeriesArgs, common: &Common) -> Result<PathBuf> {
    let parameters =
        json!({ "series": args.series, "versions": args.versions, "seed": common.seed });
    let (built, notes) = Built::find(common, "many-series", parameters)?;
    if notes.is_some() {
        return Ok(built.folder);
    }
    let place = built.folder.to_str().context("a folder that is not UTF-8")?;
    let store = Store::builder(place).with_mode(Mode::Shared).with_upkeep(UpkeepMode::OnRequest);
    let store = store.open_or_create().await?;
    let root = store.root();
    let mut sensors = Sensors::new(common.seed);
    let batches = (0..args.versions).map(|_| sensors.batch(1)).collect::<Result<Vec<_>>>()?;
    // Calls of several series at once share commits, as those of busy programs do.
    const TOGETHER: usize = 32;
    for first in (0..args.series).step_by(TOGETHER) {
        let calls = (first..args.series.min(first + TOGETHER)).map(|series| {
            let path = path_of(series);
            let version = |batch| version_of(&path, batch, sensors::TIME_COLUMN);
            root.append_many(batches.iter().map(version).collect())
        });
        for receipts in futures::future::try_join_all(calls).await? {
            receipts.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
    }
    store.maintain(true).await?;
    built.complete(&Value::Null)?;
    Ok(built.folder)
}

/// Opens a store, reads the log rows of one series, and reports as JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct OpenOneArgs {
    /// The store to open
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// The series
    #[arg(long)]
    pub(crate) series: String,
}

pub(crate) async fn run_open_one(args: &OpenOneArgs) -> Result<()> {
    println!("{}", serde_json::to_string(&open_one(&args.store, &args.series).await?)?);
    Ok(())
}

async fn open_one(folder: &Path, series: &str) -> Result<Opening> {
    let local: Arc<dyn ObjectStore> = Arc::new(DurableLocal::open(folder)?);
    let counting = CountingStore::new(local);
    let started = Instant::now();
    let store = Store::builder("memory://").with_object_store(Arc::new(counting.clone()));
    // The head is not asked for again: what is counted next is the series' own.
    let store = store.with_max_staleness(std::time::Duration::from_secs(60)).open().await?;
    let open_ms = started.elapsed().as_secs_f64() * 1e3;
    let opening = counting.take();
    let peak_bytes = peak_resident_bytes().context("no VmHWM in /proc/self/status")?;
    let started = Instant::now();
    let versions = store.versions(series).await?.len();
    let series_ms = started.elapsed().as_secs_f64() * 1e3;
    let reading = counting.take();
    Ok(Opening {
        open_ms,
        open_requests: opening.len(),
        open_lists: opening.iter().filter(|r| r.operation == Operation::List).count(),
        peak_bytes,
        series_ms,
        series_requests: reading.len(),
        series_bytes: reading.iter().map(|request| request.bytes).sum(),
        versions,
    })
}
