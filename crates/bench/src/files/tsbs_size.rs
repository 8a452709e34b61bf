//! The same rows laid out in several ways: what they take, an ordered read, and questions about one host.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use clap::Args;

use crate::generate::tsbs::{self, Cpu};
use crate::options::Common;
use crate::results::Document;
use crate::rounds::{Contestant, Outcome, Sample, interleave, median_of};
use crate::staged;
use crate::stats::geometric_mean;
use crate::tidelog_side::Tidelog;
use crate::tsbs::queries::{self, Dialect, Extent, OF_ONE_HOST, Query};

const BY_TIME: &str = "by time";
const BY_KEY: &str = "by key,time";
const BY_KEY_WHOLE: &str = "by key,time, values as Int64";
const APART: &str = "a series for each host";
const MB: f64 = 1e6;
const MB_BY_TIME_MAX: f64 = 25.0;
const MB_BY_KEY_MAX: f64 = 17.0;
const MB_WHOLE_MAX: f64 = 11.0;
const READ_AT_MOST: f64 = 3.5;
const QUERY_AT_MOST: f64 = 0.7;
/// The rows that the bounds of bytes are for.
const FULL_ROWS: usize = 2_592_000;

#[derive(Args, Clone, Debug)]
pub(crate) struct TsbsSizeArgs {
    /// Hosts
    #[arg(long, default_value_t = 100)]
    pub(crate) hosts: usize,
    /// Rows of each host
    #[arg(long, default_value_t = 25_920)]
    pub(crate) steps: usize,
    /// Rows of each host in one version
    #[arg(long, default_value_t = 1_080)]
    pub(crate) batch_steps: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 2)]
    pub(crate) warmups: usize,
}

const ABOUT: &str = "The cpu-only data of the Time Series Benchmark Suite in series that are laid out in different ways, each \
    compacted: by time, by host and time, the same with whole numbers stored as such, and as a series for each host. What \
    their files take; then all rows in order of event time, and the suite's questions about one host, by both orders.";

/// A way to lay out the rows.
struct Way {
    name: &'static str,
    path: &'static str,
    is_by_key: bool,
    is_whole: bool,
    mb_max: f64,
}

const WAYS: [Way; 3] = [
    Way { name: BY_TIME, path: "/time", is_by_key: false, is_whole: false, mb_max: MB_BY_TIME_MAX },
    Way { name: BY_KEY, path: "/key", is_by_key: true, is_whole: false, mb_max: MB_BY_KEY_MAX },
    Way {
        name: BY_KEY_WHOLE,
        path: "/whole",
        is_by_key: true,
        is_whole: true,
        mb_max: MB_WHOLE_MAX,
    },
];

pub(crate) async fn run(args: &TsbsSizeArgs, common: &Common) -> Result<()> {
    let tidelog = Tidelog::open_uncompacted(&common.fresh("tsbs-size")?).await?;
    let mut document = Document::new("tsbs-size", "Rows by time and by key", ABOUT, common);
    document.parameter("hosts", args.hosts);
    document.parameter("rows", args.hosts * args.steps);
    document.parameter("rounds", args.rounds);
    let sum = fill(&tidelog, args, common.seed).await?;
    sizes(&tidelog, args, &mut document).await?;
    reads(&tidelog, args, sum, &mut document).await?;
    questions(&tidelog, args, common.seed, &mut document).await?;
    document.finish(common)
}

/// Appends the rows in each way; the sum of one column.
async fn fill(tidelog: &Tidelog, args: &TsbsSizeArgs, seed: u64) -> Result<f64> {
    for way in &WAYS {
        tidelog.create_ordered(way.path, tsbs::TIME_COLUMN, "hostname", way.is_by_key).await?;
    }
    let (mut cpu, mut left, mut sum) = (Cpu::new(seed, args.hosts), args.steps, 0.0);
    while left > 0 {
        let steps = left.min(args.batch_steps.max(1));
        left -= steps;
        let batch = cpu.batch(steps)?;
        sum += total(std::slice::from_ref(&batch))?;
        for way in &WAYS {
            let rows = if way.is_whole { whole(&batch)? } else { batch.clone() };
            tidelog.append(way.path, &rows, tsbs::TIME_COLUMN).await?;
        }
        for host in 0..args.hosts {
            let rows = of_host(&batch, host, args.hosts)?;
            tidelog.append(&format!("/hosts/{host}"), &rows, tsbs::TIME_COLUMN).await?;
        }
    }
    Ok(sum)
}

async fn sizes(tidelog: &Tidelog, args: &TsbsSizeArgs, document: &mut Document) -> Result<()> {
    let is_full = args.hosts * args.steps == FULL_ROWS;
    let ways = WAYS.iter().map(|way| (way.name, way.path, way.mb_max));
    for (name, path, mb_max) in ways.chain([(APART, "/hosts/*", MB_BY_KEY_MAX)]) {
        let started = Instant::now();
        tidelog.compact(path).await?;
        document.fact("compaction", name, "s", started.elapsed().as_secs_f64());
        let mut bytes = 0;
        let paths = match path {
            "/hosts/*" => (0..args.hosts).map(|host| format!("/hosts/{host}")).collect(),
            path => vec![path.to_owned()],
        };
        for path in paths {
            bytes += tidelog.file_bytes(&path).await?;
        }
        let what = format!("bytes of the files, {name}");
        document.figure(&what, "MB", bytes as f64 / MB, Some(mb_max).filter(|_| is_full));
    }
    Ok(())
}

async fn reads(
    tidelog: &Tidelog,
    args: &TsbsSizeArgs,
    sum: f64,
    document: &mut Document,
) -> Result<()> {
    let read = |path, name| Box::new(Read { tidelog: tidelog.clone(), path, name });
    let mut contestants: Vec<Box<dyn Contestant>> =
        vec![read("/time", BY_TIME), read("/key", BY_KEY)];
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    let rows = args.hosts * args.steps;
    for outcome in &outcomes {
        document.measure("ordered read of all", &outcome.name, "ms", &outcome.times_ms());
        let right = outcome.samples.iter().all(|sample| sample.answer == Some((rows, sum)));
        document.check(&format!("rows and sum {}", outcome.name), right, format!("{rows} rows"));
    }
    let (by_time, by_key) = (median_of(&outcomes, BY_TIME), median_of(&outcomes, BY_KEY));
    let what = "p50 of an ordered read by key,time ÷ by time";
    document.ratio(what, by_key, by_time, Some(READ_AT_MOST));
    Ok(())
}

/// The suite's questions about one host, each about several hosts and windows.
async fn questions(
    tidelog: &Tidelog,
    args: &TsbsSizeArgs,
    seed: u64,
    document: &mut Document,
) -> Result<()> {
    let rounds = args.rounds.max(1);
    let hours = i64::try_from(args.steps)? * tsbs::STEP_US / tsbs::HOUR_US;
    let extent = Extent { hosts: args.hosts, hours: usize::try_from(hours)? };
    let draws = (0..rounds as u64).map(|draw| queries::all(extent, seed.wrapping_add(draw)));
    let draws = draws.collect::<Result<Vec<_>>>()?;
    let mut ratios = Vec::new();
    for query in OF_ONE_HOST {
        let asked = draws.iter().flatten().filter(|drawn| drawn.name == query);
        let asked: Vec<&Query> = asked.collect();
        let ask = |path: &str, name| {
            let table = format!("\"{path}\"");
            let sql = asked.iter().map(|query| query.sql_on(Dialect::Tidelog, &table)).collect();
            Box::new(Ask { tidelog: tidelog.clone(), name, statements: sql, asked: 0 })
        };
        let mut contestants: Vec<Box<dyn Contestant>> =
            vec![ask("/time", BY_TIME), ask("/key", BY_KEY)];
        let outcomes = interleave(&mut contestants, args.warmups, rounds).await?;
        for outcome in &outcomes {
            document.measure(query, &outcome.name, "ms", &outcome.times_ms());
        }
        let answers: Vec<Vec<_>> = outcomes.iter().map(Outcome::answers).collect();
        let same = answers.windows(2).all(|pair| pair[0] == pair[1]);
        document.check(&format!("answers to {query} by both orders"), same, format!("{rounds}"));
        let medians = (median_of(&outcomes, BY_KEY), median_of(&outcomes, BY_TIME));
        let (Some(by_key), Some(by_time)) = medians else { continue };
        document.figure(
            &format!("{query}, p50 by key,time ÷ by time"),
            "×",
            by_key / by_time,
            None,
        );
        ratios.push(by_key / by_time);
    }
    let what = "questions about one host by key,time ÷ by time, geometric mean";
    let mean = geometric_mean(&ratios).context("no questions")?;
    document.figure(what, "×", mean, Some(QUERY_AT_MOST));
    Ok(())
}

/// The rows with their values as whole numbers, which they are.
fn whole(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column: ArrayRef = match tsbs::VALUES.contains(&field.name().as_str()) {
            true => cast(column, &DataType::Int64)?,
            false => Arc::clone(column),
        };
        Ok((field.name().as_str(), column, field.is_nullable()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn of_host(batch: &RecordBatch, host: usize, hosts: usize) -> Result<RecordBatch> {
    let rows = (host..batch.num_rows()).step_by(hosts).map(i64::try_from);
    let rows = Int64Array::from(rows.collect::<Result<Vec<_>, _>>()?);
    Ok(take_record_batch(batch, &rows)?)
}

/// The sum of the values of one column; it is exact, as they are whole.
fn total(batches: &[RecordBatch]) -> Result<f64> {
    let mut sum = 0.0;
    for batch in batches {
        let values = batch.column_by_name(tsbs::VALUES[0]).context("values are missing")?;
        sum += values.as_primitive::<Float64Type>().values().iter().sum::<f64>();
    }
    Ok(sum)
}

struct Read {
    tidelog: Tidelog,
    path: &'static str,
    name: &'static str,
}

#[async_trait(?Send)]
impl Contestant for Read {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let started = Instant::now();
        let batches = self.tidelog.all(self.path).await?;
        let mut sample = Sample::timed(started);
        let times = batches.iter().filter_map(|batch| batch.column_by_name(tsbs::TIME_COLUMN));
        let times =
            times.flat_map(|times| times.as_primitive::<TimestampMicrosecondType>().values());
        sample.answer = match times.is_sorted() {
            true => Some((staged::rows(&batches), total(&batches)?)),
            false => None,
        };
        Ok(sample)
    }
}

/// Asks one question after the other.
struct Ask {
    tidelog: Tidelog,
    name: &'static str,
    statements: Vec<String>,
    asked: usize,
}

#[async_trait(?Send)]
impl Contestant for Ask {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let statement = &self.statements[self.asked % self.statements.len()];
        self.asked += 1;
        let started = Instant::now();
        let batches = self.tidelog.sql(statement).await?;
        let mut sample = Sample::timed(started);
        // The values are whole, so their sums are exact.
        let columns = batches.iter().flat_map(RecordBatch::columns);
        let values = columns.filter_map(|column| column.as_primitive_opt::<Float64Type>());
        let sum = values.flat_map(|column| column.values().iter()).sum();
        sample.answer = Some((staged::rows(&batches), sum));
        Ok(sample)
    }
}
