//! One writer alone, behind its write-ahead log: single appends early and late, many appenders at once, large
//! batches through to files, and a range that is half in memory.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use clap::Args;
use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::json;

use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::peer::{Peer, PeerKind};
use crate::results::Document;
use crate::staged::Staged;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
const TIDELOG: &str = "tidelog";
const BARE: &str = "one write and fdatasync";
const ABOVE_BARE_MS_AT_MOST: f64 = 0.1;
const ABOVE_BARE_OF_DUCKDB_AT_MOST: f64 = 0.25;
const LATE_AT_MOST_OF_EARLY: f64 = 1.1;
const RATE_AT_LEAST_OF_DUCKDB: f64 = 15.0;
const INGEST_AT_LEAST_OF_DUCKDB: f64 = 1.0;
const HALF_HOT_AT_MOST_OF_COLD: f64 = 1.3;
/// Appends whose bytes are counted, to write as many.
const MEASURED: usize = 100;

#[derive(Args, Clone, Debug)]
pub(crate) struct HotArgs {
    /// Appends, one after the other
    #[arg(long, default_value_t = 100_000)]
    pub(crate) versions: usize,
    /// Rows of each append
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// Appends of the early and of the late window
    #[arg(long, default_value_t = 1_000)]
    pub(crate) window: usize,
    /// Appenders at once
    #[arg(long, default_value_t = 64)]
    pub(crate) appenders: usize,
    /// For how many seconds they append
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// For how many seconds each number of DuckDB's connections appends
    #[arg(long, default_value_t = 10)]
    pub(crate) peer_seconds: u64,
    /// Large batches
    #[arg(long, default_value_t = 200)]
    pub(crate) batches: usize,
    /// Rows of a large batch
    #[arg(long, default_value_t = 25_000)]
    pub(crate) batch_rows: usize,
}

const ABOUT: &str = "A store that this process has for itself, on the local disk, with default limits unless said. Single \
    appends are awaited one after the other; within the windows that are reported, each is followed by one write of \
    as many bytes at the end of a file and an fdatasync of it, and by the same append to DuckDB. Then many tasks \
    append to one series at once, each awaiting its own, until all is in files; DuckDB does so by threads with a \
    connection each, and its best number of connections counts. Then large batches are appended, each durable by \
    itself, until all is in files; DuckDB inserts the same, each its own transaction. A range of 5,000 rows is read \
    that lies half in memory, and again when it lies in files.";

pub(crate) async fn run(args: &HotArgs, common: &Common) -> Result<()> {
    ensure!(args.versions >= MEASURED + 2 * args.window, "the windows need more versions");
    let folder = common.fresh("hot")?;
    let mut document = Document::new("hot", "One writer alone, behind a log", ABOUT, common);
    document.parameter("versions", args.versions);
    document.parameter("rows per version", args.rows);
    document.parameter("appenders at once", args.appenders);
    document.parameter("seconds of many appenders", args.seconds);
    document.parameter("large batches", args.batches);
    document.parameter("rows of a large batch", args.batch_rows);
    single(args, common, &folder, &mut document).await?;
    many(args, common, &folder, &mut document).await?;
    large(args, common, &folder, &mut document).await?;
    half_hot(common, &folder, &mut document).await?;
    document.finish(common)
}

fn peer(common: &Common, folder: &Path, staged: &Staged, what: &str) -> Result<Option<Peer>> {
    let Some(mut peer) = common.peer(PeerKind::DuckDb)? else { return Ok(None) };
    peer.open(&folder.join(format!("duckdb-{what}")))?;
    peer.stage(&staged.file)?;
    Ok(Some(peer))
}

/// The same bytes at the end of a file, again and again.
struct Bare {
    file: std::fs::File,
    bytes: Vec<u8>,
}

impl Bare {
    fn new(path: &Path, bytes: usize) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, bytes: vec![0x5a; bytes] })
    }

    fn write(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.file.write_all(&self.bytes)?;
        self.file.sync_data()?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

async fn single(
    args: &HotArgs,
    common: &Common,
    folder: &Path,
    document: &mut Document,
) -> Result<()> {
    let count = args.window * 2;
    let staged = Staged::sensors(common.seed, count, args.rows, &folder.join("single.arrow"))?;
    let tidelog = Tidelog::open_alone(&folder.join("single")).await?;
    let mut peer = peer(common, folder, &staged, "single")?;
    if let Some(peer) = &mut peer {
        document.versions.insert(peer.name().to_owned(), peer.version()?);
    }
    let mut sensors = Sensors::new(common.seed);
    for _ in 0..MEASURED {
        tidelog.append(SERIES, &sensors.batch(args.rows)?, sensors::TIME_COLUMN).await?;
    }
    let bytes = tidelog.wal_bytes()? / MEASURED;
    document.fact("bytes of one record of the log", TIDELOG, "bytes", bytes as f64);
    let mut bare = Bare::new(&folder.join("bare"), bytes)?;
    let (mut early, mut late) = (Times::default(), Times::default());
    for version in MEASURED..args.versions {
        let batch = sensors.batch(args.rows)?;
        let started = Instant::now();
        tidelog.append(SERIES, &batch, sensors::TIME_COLUMN).await?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let of_window = if version < MEASURED + args.window {
            Some((&mut early, version - MEASURED))
        } else {
            let into = (version + args.window).checked_sub(args.versions);
            into.map(|into| (&mut late, args.window + into))
        };
        let Some((times, staged)) = of_window else { continue };
        times.tidelog.push(ms);
        times.bare.push(bare.write()?);
        if let Some(peer) = &mut peer {
            times.duckdb.extend(peer.append(staged, 1)?);
        }
    }
    report_single(args, document, &early, &late);
    tidelog.close().await?;
    let found = tidelog.count(SERIES).await?;
    let detail = format!("{found} of {}", args.versions * args.rows);
    document.check("rows of single appends", found == args.versions * args.rows, detail);
    Ok(())
}

#[derive(Default)]
struct Times {
    tidelog: Vec<f64>,
    bare: Vec<f64>,
    duckdb: Vec<f64>,
}

fn report_single(args: &HotArgs, document: &mut Document, early: &Times, late: &Times) {
    let p50 = |times: &[f64]| Summary::of(times).map(|summary| summary.p50);
    for (when, times) in [("early", early), ("late", late)] {
        let what = format!("append of {} rows, {when}", args.rows);
        document.measure(&what, TIDELOG, "ms", &times.tidelog);
        document.measure(&what, BARE, "ms", &times.bare);
        document.measure(&what, PeerKind::DuckDb.name(), "ms", &times.duckdb);
        let (Some(own), Some(bare)) = (p50(&times.tidelog), p50(&times.bare)) else { continue };
        let what = format!("p50 of an append above that of a bare sync, {when}");
        document.figure(&what, "ms", own - bare, Some(ABOVE_BARE_MS_AT_MOST));
        if let Some(duckdb) = p50(&times.duckdb) {
            let what = format!("time above the bare sync ÷ DuckDB's, {when}");
            let ratio = (own - bare) / (duckdb - bare).max(f64::MIN_POSITIVE);
            document.figure(&what, "×", ratio, Some(ABOVE_BARE_OF_DUCKDB_AT_MOST));
        }
    }
    let most = Some(LATE_AT_MOST_OF_EARLY);
    let what = "p50 of a late append ÷ p50 of an early append";
    document.ratio(what, p50(&late.tidelog), p50(&early.tidelog), most);
    let what = "the same of the bare sync: the disk's own drift";
    document.ratio(what, p50(&late.bare), p50(&early.bare), None);
}

async fn many(
    args: &HotArgs,
    common: &Common,
    folder: &Path,
    document: &mut Document,
) -> Result<()> {
    let tidelog = Tidelog::open_alone(&folder.join("many")).await?;
    let batch = Sensors::new(common.seed).batch(args.rows)?;
    tidelog.append(SERIES, &batch, sensors::TIME_COLUMN).await?;
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let tasks = (0..args.appenders).map(|_| {
        let (tidelog, batch) = (tidelog.clone(), batch.clone());
        tokio::spawn(async move {
            let mut appended = 0_u64;
            while Instant::now() < until {
                tidelog.append(SERIES, &batch, sensors::TIME_COLUMN).await?;
                appended += 1;
            }
            anyhow::Ok(appended)
        })
    });
    let appended = try_join_all(tasks.collect::<Vec<_>>()).await?;
    let appended: u64 = appended.into_iter().collect::<Result<Vec<_>>>()?.into_iter().sum();
    tidelog.flush().await?;
    let seconds = started.elapsed().as_secs_f64();
    let tiers = tidelog.tiers().context("a store alone has tiers")?;
    let rate = appended as f64 / seconds;
    document.fact("appends of all appenders", TIDELOG, "/s", rate);
    let each = tiers.appends as f64 / (tiers.syncs as f64).max(1.0);
    document.fact("appends per sync", TIDELOG, "appends", each);
    document.fact("flushes", TIDELOG, "commits", tiers.flushes as f64);
    tidelog.close().await?;
    let expected = usize::try_from(appended + 1)? * args.rows;
    let found = tidelog.count(SERIES).await?;
    let detail = format!("{found} of {expected}");
    document.check("rows of many appenders", found == expected, detail);
    let Some(best) = best_of_duckdb(args, common, folder, document)? else { return Ok(()) };
    let what = "DuckDB's best appends per second ÷ those of all appenders";
    document.figure(what, "×", best / rate, Some(1.0 / RATE_AT_LEAST_OF_DUCKDB));
    Ok(())
}

fn best_of_duckdb(
    args: &HotArgs,
    common: &Common,
    folder: &Path,
    document: &mut Document,
) -> Result<Option<f64>> {
    #[derive(Deserialize)]
    struct Reply {
        appended: u64,
        seconds: f64,
    }
    let staged = Staged::sensors(common.seed, 1, args.rows, &folder.join("many.arrow"))?;
    let mut best: Option<f64> = None;
    for connections in [1, 4, 16, 64] {
        let Some(mut peer) = peer(common, folder, &staged, &format!("many-{connections}"))? else {
            return Ok(None);
        };
        let call = json!({ "connections": connections, "seconds": args.peer_seconds });
        let reply: Reply = peer.call("append_for", call)?;
        let rate = reply.appended as f64 / reply.seconds;
        let what = format!("appends of {connections} connections");
        document.fact(&what, peer.name(), "/s", rate);
        best = Some(best.map_or(rate, |best| best.max(rate)));
        peer.close()?;
    }
    Ok(best)
}

async fn large(
    args: &HotArgs,
    common: &Common,
    folder: &Path,
    document: &mut Document,
) -> Result<()> {
    let file = folder.join("large.arrow");
    let staged = Staged::sensors(common.seed, args.batches, args.batch_rows, &file)?;
    let tidelog = Tidelog::open_alone(&folder.join("large")).await?;
    let started = Instant::now();
    for batch in &staged.batches {
        tidelog.append(SERIES, batch, sensors::TIME_COLUMN).await?;
    }
    tidelog.flush().await?;
    let rows = (args.batches * args.batch_rows) as f64;
    let own = rows / started.elapsed().as_secs_f64();
    document.fact("large batches through to files", TIDELOG, "rows/s", own);
    tidelog.close().await?;
    let found = tidelog.count(SERIES).await?;
    document.check("rows of large batches", found as f64 == rows, format!("{found} of {rows}"));
    let Some(mut peer) = peer(common, folder, &staged, "large")? else { return Ok(()) };
    let ms: f64 = peer.append(0, args.batches)?.iter().sum();
    let duckdb = rows / (ms / 1e3);
    document.fact("large batches through to files", peer.name(), "rows/s", duckdb);
    let what = "DuckDB's rows per second ÷ those of large batches";
    document.figure(what, "×", duckdb / own, Some(1.0 / INGEST_AT_LEAST_OF_DUCKDB));
    Ok(())
}

async fn half_hot(common: &Common, folder: &Path, document: &mut Document) -> Result<()> {
    const VERSIONS: usize = 200;
    const ROWS: usize = 100;
    const RANGE_ROWS: usize = 5_000;
    let tidelog = Tidelog::open_alone(&folder.join("half")).await?;
    let mut sensors = Sensors::new(common.seed);
    let mut append = async |count: usize| -> Result<()> {
        for _ in 0..count {
            tidelog.append(SERIES, &sensors.batch(ROWS)?, sensors::TIME_COLUMN).await?;
        }
        Ok(())
    };
    append(VERSIONS / 2).await?;
    tidelog.flush().await?;
    append(VERSIONS / 2).await?;
    let middle = VERSIONS * ROWS / 2;
    let (first, last) = (middle - RANGE_ROWS / 2, middle + RANGE_ROWS / 2 - 1);
    let range = (sensors::time_us(first)?, sensors::time_us(last)?);
    let read = async || -> Result<f64> {
        let started = Instant::now();
        let batches = tidelog.range(SERIES, range.0, range.1).await?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        ensure!(rows == RANGE_ROWS, "{rows} rows of {RANGE_ROWS}");
        Ok(ms)
    };
    let times = async || -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for round in 0..220 {
            let ms = read().await?;
            // What has just been written is read for the first time.
            times.extend((round >= 20).then_some(ms));
        }
        Ok(times)
    };
    let hot = times().await?;
    tidelog.flush().await?;
    let cold = times().await?;
    document.measure("range of 5,000 rows, half of them hot", TIDELOG, "ms", &hot);
    document.measure("range of 5,000 rows, all in files", TIDELOG, "ms", &cold);
    let p50 = |times: &[f64]| Summary::of(times).map(|summary| summary.p50);
    let what = "p50 of a range half hot ÷ p50 of the same in files";
    document.ratio(what, p50(&hot), p50(&cold), Some(HALF_HOT_AT_MOST_OF_COLD));
    tidelog.close().await
}
