//! The cpu-only queries of the Time Series Benchmark Suite in SQL, on one series of many versions.
//!
//! - `data`: the rows, loaded once per contestant
//! - `queries`: what is asked, in each contestant's words
//! - `engines`: who is asked
//! - `answers`: whether they agree
//! - `warm`: some of the queries over rows that all contestants have in memory

mod answers;
mod data;
mod engines;
pub(crate) mod queries;
pub(crate) mod warm;

use anyhow::{Context, Result};
use clap::Args;

use self::answers::Answer;
use self::data::Loaded;
use self::engines::{
    DataFusionEngine, Engine, LISTING, PeerEngine, Running, TIDELOG, TidelogEngine,
};
use self::queries::{Dialect, Extent, Query};
use crate::options::Common;
use crate::peer::PeerKind;
use crate::results::Document;
use crate::rounds::{Contestant, interleave, median_of};
use crate::stats::geometric_mean;

/// Each query may take this many times the time of DataFusion's own listing.
const EACH_AT_MOST_OF_LISTING: f64 = 1.1;
/// The geometric mean over all queries may be this many times that of DataFusion's own listing.
const MEAN_AT_MOST_OF_LISTING: f64 = 0.8;

#[derive(Args, Clone, Debug)]
pub(crate) struct TsbsArgs {
    /// Hosts that report
    #[arg(long, default_value_t = 100)]
    pub(crate) hosts: usize,
    /// Hours of data, one row per host every ten seconds; each hour is one version
    #[arg(long, default_value_t = 72)]
    pub(crate) hours: usize,
    /// Measured rounds of each query
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 2)]
    pub(crate) warmups: usize,
    /// Threads of each contestant (Tidelog takes what its process may use)
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

const ABOUT: &str = "Data with the schema, distributions and order of the Time Series Benchmark Suite's cpu-only use \
    case, from an own generator: TSBS-compatible, not bit-identical. Tidelog holds them as one series of hourly versions; \
    DataFusion's listing reads one Parquet file of the same rows by time (zstd 3, row groups of 131,072 rows, \
    page index), filters pushed down, metadata cached; DuckDB and ClickHouse hold them in their own storage. Windows and \
    hosts are drawn from a seed, the same for everybody. Times cover a statement from its text to its last row, warm. \
    Answers are compared with DuckDB's: the same multiset of rows, the same sequence of the ORDER BY columns, \
    doubles within a relative 1e-9.";

pub(crate) async fn run(args: &TsbsArgs, common: &Common) -> Result<()> {
    warn_of_other_cores(args.threads);
    let extent = Extent { hosts: args.hosts, hours: args.hours };
    let mut document = Document::new("tsbs", "TSBS cpu-only queries in SQL", ABOUT, common);
    document.parameter("hosts", args.hosts);
    document.parameter("hours", args.hours);
    document.parameter("threads", args.threads);
    document.parameter("rounds", args.rounds);
    let mut engines = open_engines(args, common, extent, &mut document).await?;
    let mut ratios = Vec::new();
    for query in queries::all(extent, common.seed)? {
        check_answers(&mut document, &query, &mut engines, LISTING).await?;
        ratios.extend(measure(&mut document, args, &query, &mut engines).await?);
    }
    if let Some(mean) = geometric_mean(&ratios) {
        let what = "geometric mean over the queries, Tidelog ÷ DataFusion listing";
        document.figure(what, "×", mean, Some(MEAN_AT_MOST_OF_LISTING));
    }
    document.finish(common)
}

/// Tidelog uses the cores of its process; the others are told how many threads to use.
fn warn_of_other_cores(threads: usize) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    if cores != threads {
        eprintln!(
            "this process has {cores} cores and its contestants {threads} threads: pin it (taskset) or set --threads"
        );
    }
}

async fn open_engines(
    args: &TsbsArgs,
    common: &Common,
    extent: Extent,
    document: &mut Document,
) -> Result<Vec<Box<dyn Engine>>> {
    let (parquet, loaded) = data::parquet_file(common, extent)?;
    document.parameter("rows", loaded.rows);
    note_load(document, "one Parquet file", &loaded);
    let (tidelog, loaded) = data::tidelog_store(common, extent).await?;
    note_load(document, TIDELOG, &loaded);
    document.versions.insert("datafusion".to_owned(), datafusion::DATAFUSION_VERSION.to_owned());
    let mut engines: Vec<Box<dyn Engine>> = vec![
        Box::new(TidelogEngine { name: TIDELOG, tidelog }),
        Box::new(DataFusionEngine::listing(&parquet, args.threads).await?),
        Box::new(DataFusionEngine::ordered_listing(&parquet, args.threads).await?),
    ];
    for (kind, dialect) in
        [(PeerKind::DuckDb, Dialect::DuckDb), (PeerKind::ClickHouse, Dialect::ClickHouse)]
    {
        let Some(mut peer) = common.peer(kind)? else { continue };
        document.versions.insert(kind.name().to_owned(), peer.version()?);
        let loaded = data::load_peer(&mut peer, common, extent, &parquet, args.threads)?;
        note_load(document, kind.name(), &loaded);
        let answer_file = common.work.join(format!("tsbs-answer-{}.arrow", kind.name()));
        engines.push(Box::new(PeerEngine { peer, dialect, answer_file }));
    }
    Ok(engines)
}

fn note_load(document: &mut Document, name: &str, loaded: &Loaded) {
    document.fact("stored", name, "MB", loaded.bytes as f64 / 1e6);
    let speed = loaded.rows as f64 / loaded.seconds / 1e6;
    document.fact("loaded", name, "million rows/s", speed);
}

/// Compares everybody's answer with DuckDB's, or with that of `otherwise` where peers are left out.
async fn check_answers(
    document: &mut Document,
    query: &Query,
    engines: &mut [Box<dyn Engine>],
    otherwise: &str,
) -> Result<()> {
    let mut answers: Vec<(&'static str, Answer)> = Vec::new();
    for engine in engines.iter_mut() {
        let name = engine.name();
        let answer = engine.answer(&query.sql(engine.dialect())).await;
        answers.push((name, answer.with_context(|| format!("{} of {name}", query.name))?));
    }
    let find = |wanted: &str| answers.iter().find(|(name, _)| *name == wanted);
    let Some((right_name, right)) = find(PeerKind::DuckDb.name()).or_else(|| find(otherwise))
    else {
        return Ok(());
    };
    for (name, answer) in answers.iter().filter(|(name, _)| name != right_name) {
        let what = format!("{}: answer of {name} equals {right_name}'s", query.name);
        let difference = answer.difference(right, query.ordered_by());
        let passed = difference.is_none();
        let detail = difference.unwrap_or_else(|| format!("{} rows", right.rows()));
        document.check(&what, passed, detail);
    }
    Ok(())
}

/// Times one query; the ratio that its figure states.
async fn measure(
    document: &mut Document,
    args: &TsbsArgs,
    query: &Query,
    engines: &mut [Box<dyn Engine>],
) -> Result<Option<f64>> {
    let running = engines.iter_mut().map(|engine| {
        let sql = query.sql(engine.dialect());
        Box::new(Running { engine: engine.as_mut(), sql }) as Box<dyn Contestant + '_>
    });
    let mut contestants: Vec<_> = running.collect();
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    for outcome in &outcomes {
        document.measure(query.name, &outcome.name, "ms", &outcome.times_ms());
    }
    let (tidelog, listing) = (median_of(&outcomes, TIDELOG), median_of(&outcomes, LISTING));
    let what = format!("{}, p50 of Tidelog ÷ p50 of DataFusion listing", query.name);
    document.ratio(&what, tidelog, listing, Some(EACH_AT_MOST_OF_LISTING));
    Ok(tidelog.zip(listing).map(|(tidelog, listing)| tidelog / listing))
}
