//! An ordered read of files that overlap: merged while they are read, beside a sort of the same files.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use async_trait::async_trait;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::peer::{Peer, PeerKind};
use crate::results::Document;
use crate::rounds::{Contestant, Sample, interleave, median_of};
use crate::staged;
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
const TIDELOG: &str = "tidelog";
const AT_MOST_OF_DUCKDB: f64 = 0.7;

#[derive(Args, Clone, Debug)]
pub(crate) struct OverlapArgs {
    /// Rows of all files
    #[arg(long, default_value_t = 4_000_000)]
    pub(crate) rows: usize,
    /// Files, each over all of the time
    #[arg(long, default_value_t = 8)]
    pub(crate) files: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 15)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 3)]
    pub(crate) warmups: usize,
}

const ABOUT: &str = "Rows are dealt round among some files, so that each file lies over all of the time. All of them are \
    read in order of event time into memory, by Tidelog and by DuckDB's ORDER BY over the same Parquet files with as \
    many threads as there are cores.";

pub(crate) async fn run(args: &OverlapArgs, common: &Common) -> Result<()> {
    let folder = common.fresh("overlap")?;
    let mut document = Document::new("overlap", "Files that overlap, in order", ABOUT, common);
    document.parameter("rows", args.rows);
    document.parameter("files", args.files);
    document.parameter("rounds", args.rounds);
    let tidelog = Tidelog::open_uncompacted(&folder).await?;
    let whole = Sensors::new(common.seed).batch(args.rows)?;
    for file in 0..args.files {
        let dealt = dealt(&whole, file, args.files)?;
        tidelog.append(SERIES, &dealt, sensors::TIME_COLUMN).await?;
    }
    let files = tidelog.objects(SERIES).await?;
    document.check("files", files.len() == args.files, format!("{}", files.len()));
    let mut contestants: Vec<Box<dyn Contestant>> = vec![Box::new(Own { tidelog })];
    if let Some(mut peer) = common.peer(PeerKind::DuckDb)? {
        document.versions.insert(peer.name().to_owned(), peer.version()?);
        peer.open(&folder.join("duckdb"))?;
        let statement = statement(&folder, &files);
        contestants.push(Box::new(Sorting { peer, statement }));
    }
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    for outcome in &outcomes {
        document.measure("ordered read of all", &outcome.name, "ms", &outcome.times_ms());
    }
    let (own, duckdb) =
        (median_of(&outcomes, TIDELOG), median_of(&outcomes, PeerKind::DuckDb.name()));
    let what = "p50 of an ordered read of overlapping files ÷ DuckDB's";
    document.ratio(what, own, duckdb, Some(AT_MOST_OF_DUCKDB));
    let expected = (args.rows, staged::sum(&[whole]));
    for outcome in &outcomes {
        let wrong = outcome.samples.iter().find(|sample| {
            // DuckDB's answer stays in its process; its rows are counted there.
            sample.answer.is_none_or(|(rows, sum)| {
                rows != expected.0 || (outcome.name == TIDELOG && sum != expected.1)
            })
        });
        let detail = format!("{} rows", expected.0);
        document.check(&format!("rows of {}", outcome.name), wrong.is_none(), detail);
    }
    document.finish(common)
}

/// Every `of`th row, from `first` on.
fn dealt(whole: &RecordBatch, first: usize, of: usize) -> Result<RecordBatch> {
    let rows = (first..whole.num_rows()).step_by(of).map(i64::try_from);
    let rows = Int64Array::from(rows.collect::<Result<Vec<_>, _>>()?);
    Ok(take_record_batch(whole, &rows)?)
}

fn statement(folder: &Path, files: &[String]) -> String {
    let named = files.iter().map(|file| format!("'{}'", folder.join(file).display()));
    let named = named.collect::<Vec<_>>().join(", ");
    format!("SELECT * FROM read_parquet([{named}]) ORDER BY {}", sensors::TIME_COLUMN)
}

struct Own {
    tidelog: Tidelog,
}

#[async_trait(?Send)]
impl Contestant for Own {
    fn name(&self) -> String {
        TIDELOG.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let started = Instant::now();
        let batches = self.tidelog.all(SERIES).await?;
        let mut sample = Sample::timed(started);
        sample.answer =
            is_in_order(&batches).then(|| (staged::rows(&batches), staged::sum(&batches)));
        Ok(sample)
    }
}

fn is_in_order(batches: &[RecordBatch]) -> bool {
    let times = batches.iter().filter_map(|batch| batch.column_by_name(sensors::TIME_COLUMN));
    times.flat_map(|times| times.as_primitive::<TimestampMicrosecondType>().values()).is_sorted()
}

struct Sorting {
    peer: Peer,
    statement: String,
}

#[async_trait(?Send)]
impl Contestant for Sorting {
    fn name(&self) -> String {
        self.peer.name().to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        #[derive(Deserialize)]
        struct Reply {
            ms: f64,
            rows: usize,
        }
        let reply: Reply = self.peer.call("query", json!({ "sql": self.statement }))?;
        Ok(Sample { ms: reply.ms, answer: Some((reply.rows, f64::NAN)) })
    }
}
