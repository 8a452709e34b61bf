//! Queries over rows that every contestant has in memory; the newest row of each host, some of them long
//! silent; and what it costs to open a store that may have a warm tier.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use clap::Args;
use tidelog::WarmPlace;

use super::TsbsArgs;
use super::answers::Answer;
use super::check_answers;
use super::data::{self, SERIES};
use super::engines::{DataFusionEngine, Engine, MEMORY, PeerEngine, Running, TidelogEngine};
use super::queries::{self, Dialect, Extent, Query};
use crate::generate::tsbs::TIME_COLUMN;
use crate::machine::{resident_bytes, threads};
use crate::options::Common;
use crate::peer::PeerKind;
use crate::results::Document;
use crate::rounds::{Contestant, Outcome, Sample, interleave, median_of};
use crate::stats::{Summary, geometric_mean};
use crate::tidelog_side::Tidelog;

const WARM: &str = "tidelog, warm in host memory";
const FILES: &str = "tidelog, files";
/// Each of the group-bys, and their mean, may take this many times the time of DataFusion's MemTable ...
const AT_MOST_OF_MEMORY: f64 = 0.7;
/// ... and their mean this many times that of DuckDB.
const MEAN_AT_MOST_OF_DUCKDB: f64 = 0.7;
const LAST_MS_AT_MOST: f64 = 1.0;
const OPENING_MS_AT_MOST: f64 = 5.0;
const OPENING_KIB_AT_MOST: f64 = 64.0;
/// Of ten hosts one is silent after the first day.
const SILENT_ONE_OF: usize = 10;
const FIRST_HOURS: usize = 24;

/// Those that put rows together in groups, or pick most columns of many rows.
const QUERIES: [&str; 13] = [
    "single-groupby-1-1-1",
    "single-groupby-1-1-12",
    "single-groupby-1-8-1",
    "single-groupby-5-1-1",
    "single-groupby-5-1-12",
    "single-groupby-5-8-1",
    "cpu-max-all-1",
    "cpu-max-all-8",
    "double-groupby-1",
    "double-groupby-5",
    "double-groupby-all",
    "groupby-orderby-limit",
    "high-cpu-all",
];

#[derive(Args, Clone, Debug)]
pub(crate) struct WarmArgs {
    #[command(flatten)]
    pub(crate) tsbs: TsbsArgs,
    /// MiB of memory of the store, half of which are for what is warm
    #[arg(long, default_value_t = 3072)]
    pub(crate) memory_mib: usize,
    /// How often a store is opened with the tier, and as often without
    #[arg(long, default_value_t = 20)]
    pub(crate) openings: usize,
}

const ABOUT: &str = "The data of the workload tsbs, all of it made warm in the host's memory by one call before anything is \
    timed. DataFusion's MemTable has the same batches, a stretch of time for each thread; DuckDB its own table. \
    Times cover a statement from its text to its last row. Answers are compared with DuckDB's, as in tsbs; those of \
    Tidelog from files are there to show what the tier saves. The newest row of each host is asked of another series, \
    in which one host of ten is silent after the first day, by SQL and by the call for it, `read_series_latest`; the \
    target is of the call. Opening is that of a store with that series, in turn with \
    the tier and without it, all handles kept until the end; threads and resident memory are what the handles of one \
    kind added, each.";

pub(crate) async fn run(args: &WarmArgs, common: &Common) -> Result<()> {
    let extent = Extent { hosts: args.tsbs.hosts, hours: args.tsbs.hours };
    let mut document = Document::new("warm", "Rows in the warm tier", ABOUT, common);
    document.parameter("hosts", args.tsbs.hosts);
    document.parameter("hours", args.tsbs.hours);
    document.parameter("threads", args.tsbs.threads);
    document.parameter("rounds", args.tsbs.rounds);
    let mut engines = open_engines(args, common, extent, &mut document).await?;
    let (mut of_memory, mut of_duckdb) = (Vec::new(), Vec::new());
    let all = queries::all(extent, common.seed)?;
    for query in all.iter().filter(|query| QUERIES.contains(&query.name)) {
        check_answers(&mut document, query, &mut engines, MEMORY).await?;
        let outcomes = measure(&mut document, args, query, &mut engines).await?;
        let (warm, memory) = (median_of(&outcomes, WARM), median_of(&outcomes, MEMORY));
        let what = format!("{}, p50 of the warm tier ÷ p50 of DataFusion MemTable", query.name);
        document.ratio(&what, warm, memory, Some(AT_MOST_OF_MEMORY));
        of_memory.extend(warm.zip(memory).map(|(warm, memory)| warm / memory));
        let duckdb = median_of(&outcomes, PeerKind::DuckDb.name());
        of_duckdb.extend(warm.zip(duckdb).map(|(warm, duckdb)| warm / duckdb));
    }
    for (ratios, name, most) in [
        (of_memory, "DataFusion MemTable", AT_MOST_OF_MEMORY),
        (of_duckdb, "DuckDB", MEAN_AT_MOST_OF_DUCKDB),
    ] {
        if let Some(mean) = geometric_mean(&ratios) {
            let what = format!("geometric mean over the queries, warm tier ÷ {name}");
            document.figure(&what, "×", mean, Some(most));
        }
    }
    drop(engines);
    last_rows(args, common, extent, &mut document).await?;
    opening(args, common, &mut document).await?;
    document.finish(common)
}

async fn open_engines(
    args: &WarmArgs,
    common: &Common,
    extent: Extent,
    document: &mut Document,
) -> Result<Vec<Box<dyn Engine>>> {
    drop(data::tidelog_store(common, extent).await?);
    let tidelog = open(args, &data::tidelog_folder(common, extent)?).await?;
    let rows = fill(&tidelog, document).await?;
    let batches = data::batches(common, extent)?;
    let expected: usize = batches.iter().map(RecordBatch::num_rows).sum();
    document.check("all rows are warm", rows == expected as u64, format!("{rows} of {expected}"));
    document.versions.insert("datafusion".to_owned(), datafusion::DATAFUSION_VERSION.to_owned());
    let files = tidelog.without_warm();
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(TidelogEngine { name: WARM, tidelog }),
        Box::new(TidelogEngine { name: FILES, tidelog: files }),
        Box::new(DataFusionEngine::in_memory(&batches, args.tsbs.threads)?),
    ];
    if let Some(mut peer) = common.peer(PeerKind::DuckDb)? {
        document.versions.insert(peer.name().to_owned(), peer.version()?);
        let (parquet, _) = data::parquet_file(common, extent)?;
        data::load_peer(&mut peer, common, extent, &parquet, args.tsbs.threads)?;
        let answer_file = common.work.join("warm-answer.arrow");
        engines.push(Box::new(PeerEngine { peer, dialect: Dialect::DuckDb, answer_file }));
    }
    Ok(engines)
}

async fn open(args: &WarmArgs, folder: &std::path::Path) -> Result<Tidelog> {
    let memory = args.memory_mib << 20;
    let warm = memory as u64 / 2;
    Tidelog::open_with(folder, |builder| {
        let builder = builder.with_compaction(false).with_memory_bytes_max(memory);
        builder.with_warm(WarmPlace::Host).with_warm_bytes_max(warm)
    })
    .await
}

/// Makes the series warm; its rows there.
async fn fill(tidelog: &Tidelog, document: &mut Document) -> Result<u64> {
    let started = Instant::now();
    let (rows, bytes) = tidelog.warm(SERIES).await?;
    let seconds = started.elapsed().as_secs_f64();
    document.fact("made warm from files", WARM, "million rows/s", rows as f64 / seconds / 1e6);
    document.fact("bytes of a row", WARM, "bytes", bytes as f64 / (rows as f64).max(1.0));
    Ok(rows)
}

async fn measure(
    document: &mut Document,
    args: &WarmArgs,
    query: &Query,
    engines: &mut [Box<dyn Engine>],
) -> Result<Vec<Outcome>> {
    let running = engines.iter_mut().map(|engine| {
        let sql = query.sql(engine.dialect());
        Box::new(Running { engine: engine.as_mut(), sql }) as Box<dyn Contestant + '_>
    });
    let mut contestants: Vec<_> = running.collect();
    let outcomes = interleave(&mut contestants, args.tsbs.warmups, args.tsbs.rounds).await?;
    for outcome in &outcomes {
        document.measure(query.name, &outcome.name, "ms", &outcome.times_ms());
    }
    Ok(outcomes)
}

/// The newest row of each host.
async fn last_rows(
    args: &WarmArgs,
    common: &Common,
    extent: Extent,
    document: &mut Document,
) -> Result<()> {
    let folder = common.fresh("warm-silent")?;
    let tidelog = Tidelog::open_uncompacted(&folder).await?;
    tidelog.create_keyed(SERIES, TIME_COLUMN, "hostname").await?;
    for (hour, batch) in data::batches(common, extent)?.iter().enumerate() {
        let batch = if hour < FIRST_HOURS { batch.clone() } else { without_silent(batch)? };
        tidelog.append(SERIES, &batch, TIME_COLUMN).await?;
    }
    let tidelog = open(args, &folder).await?;
    tidelog.warm(SERIES).await?;
    let all = queries::all(extent, common.seed)?;
    let query = all.iter().find(|query| query.name == "lastpoint").context("lastpoint")?;
    let sql = query.sql(Dialect::Tidelog);
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(TidelogEngine { name: WARM, tidelog: tidelog.clone() }),
        Box::new(TidelogEngine { name: FILES, tidelog: tidelog.without_warm() }),
    ];
    check_answers(document, query, &mut engines, FILES).await?;
    let rows = engines[0].answer(&sql).await?.rows();
    let detail = format!("{rows} of {}", extent.hosts);
    document.check("every host has a newest row", rows == extent.hosts, detail);
    let mut ms = Vec::new();
    for round in 0..args.tsbs.warmups + args.tsbs.rounds {
        let sample = engines[0].time(&sql).await?;
        if round >= args.tsbs.warmups {
            ms.push(sample.ms);
        }
    }
    document.measure("newest row of each host, some silent, by SQL", WARM, "ms", &ms);
    newest_rows(args, &tidelog, engines[0].answer(&sql).await?, document).await
}

/// The same by the call that is made for it.
async fn newest_rows(
    args: &WarmArgs,
    tidelog: &Tidelog,
    by_sql: Answer,
    document: &mut Document,
) -> Result<()> {
    let found = Answer::of(&[tidelog.newest(SERIES).await?])?;
    let difference = found.difference(&by_sql, &["hostname"]);
    let detail = difference.clone().unwrap_or_else(|| format!("{} rows", found.rows()));
    document.check("the call for newest rows agrees with SQL", difference.is_none(), detail);
    let mut ms = Vec::new();
    for round in 0..args.tsbs.warmups + args.tsbs.rounds {
        let started = Instant::now();
        let rows = tidelog.newest(SERIES).await?;
        let sample = Sample::timed(started);
        drop(rows);
        if round >= args.tsbs.warmups {
            ms.push(sample.ms);
        }
    }
    document.measure("newest row of each host, some silent", WARM, "ms", &ms);
    if let Some(summary) = Summary::of(&ms) {
        let what = "newest row of each host, one in ten silent since the first day, p50";
        document.figure(what, "ms", summary.p50, Some(LAST_MS_AT_MOST));
    }
    Ok(())
}

fn without_silent(batch: &RecordBatch) -> Result<RecordBatch> {
    let hosts = batch.column_by_name("hostname").context("hosts")?.as_string::<i32>();
    let reports = |host: Option<&str>| {
        let number = host.and_then(|host| host.strip_prefix("host_")?.parse::<usize>().ok());
        number.map(|number| number % SILENT_ONE_OF != 0)
    };
    let keep: BooleanArray = (0..hosts.len()).map(|row| reports(Some(hosts.value(row)))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

/// What opening costs more with the tier than without.
async fn opening(args: &WarmArgs, common: &Common, document: &mut Document) -> Result<()> {
    ensure!(args.openings > 0, "nothing is opened");
    let folder = common.fresh("warm-opening")?;
    let tidelog = Tidelog::open_uncompacted(&folder).await?;
    tidelog.create_keyed(SERIES, TIME_COLUMN, "hostname").await?;
    drop(tidelog);
    let (mut handles, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut added = [(0_i64, 0_i64); 2];
    for round in 0..2 * (args.openings + 1) {
        let kind = round % 2;
        let place = [WarmPlace::Off, WarmPlace::Host][kind];
        let before = resources()?;
        let started = Instant::now();
        handles.push(Tidelog::open_with(&folder, |builder| builder.with_warm(place)).await?);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let after = resources()?;
        // The first of each kind opens what the process needs once.
        if round >= 2 {
            times[kind].push(ms);
            added[kind].0 += after.0 - before.0;
            added[kind].1 += after.1 - before.1;
        }
    }
    let [off, on] = &times;
    document.measure("opening, with the tier", WARM, "ms", on);
    document.measure("opening, without the tier", WARM, "ms", off);
    let p50 = |times: &[f64]| Summary::of(times).map_or(0.0, |summary| summary.p50);
    let more = p50(on) - p50(off);
    document.figure(
        "opening with the tier minus without, p50",
        "ms",
        more,
        Some(OPENING_MS_AT_MOST),
    );
    let each = |more: i64| more as f64 / args.openings as f64;
    let (threads, bytes) = (each(added[1].0 - added[0].0), each(added[1].1 - added[0].1));
    let what = "threads of a handle with the tier minus without";
    document.figure(what, "", threads, Some(0.0));
    document.figure(
        "resident memory of the same",
        "KiB",
        bytes / 1024.0,
        Some(OPENING_KIB_AT_MOST),
    );
    Ok(())
}

/// Threads and bytes of memory of this process.
fn resources() -> Result<(i64, i64)> {
    let memory = resident_bytes().context("resident memory")?;
    Ok((threads().context("threads")?, i64::try_from(memory)?))
}
