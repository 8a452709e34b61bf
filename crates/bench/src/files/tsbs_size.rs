//! The same rows laid out in several ways: what they take, an ordered read, and questions about one host.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use clap::Args;

use crate::generate::tsbs::{self, Cpu};
use crate::options::Common;
use crate::results::Document;
use crate::rounds::{Contestant, Sample, interleave, median_of};
use crate::staged;
use crate::tidelog_side::Tidelog;

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
    their files take; then all rows in order of event time, and questions about one host and one hour, by both orders.";

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
    questions(&tidelog, args, &mut document).await?;
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

async fn questions(tidelog: &Tidelog, args: &TsbsSizeArgs, document: &mut Document) -> Result<()> {
    let ask = |path, name| {
        let (tidelog, hosts) = (tidelog.clone(), args.hosts);
        Box::new(Ask { tidelog, path, name, hosts, asked: 0 })
    };
    let mut contestants: Vec<Box<dyn Contestant>> =
        vec![ask("/time", BY_TIME), ask("/key", BY_KEY)];
    let rounds = args.rounds * 3;
    let outcomes = interleave(&mut contestants, args.warmups, rounds).await?;
    for outcome in &outcomes {
        document.measure("a question about one host", &outcome.name, "ms", &outcome.times_ms());
    }
    let answers = |name: &str| -> Vec<Option<(usize, f64)>> {
        let of_name = outcomes.iter().filter(|outcome| outcome.name == name);
        of_name.flat_map(|outcome| outcome.samples.iter().map(|sample| sample.answer)).collect()
    };
    let same = answers(BY_TIME) == answers(BY_KEY);
    document.check("answers by both orders", same, format!("{rounds} questions"));
    let (by_time, by_key) = (median_of(&outcomes, BY_TIME), median_of(&outcomes, BY_KEY));
    let what = "p50 of a question about one host by key,time ÷ by time";
    document.ratio(what, by_key, by_time, Some(QUERY_AT_MOST));
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

/// Asks for the greatest value of each minute of an hour of one host, another one each time.
struct Ask {
    tidelog: Tidelog,
    path: &'static str,
    name: &'static str,
    hosts: usize,
    asked: usize,
}

#[async_trait(?Send)]
impl Contestant for Ask {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let host = self.asked * 37 % self.hosts;
        let start = tsbs::START_US + (self.asked as i64 * 7 % 60) * tsbs::HOUR_US;
        self.asked += 1;
        let column = tsbs::VALUES[0];
        let statement = format!(
            "SELECT date_bin(INTERVAL '1 minute', time) AS minute, max({column}) AS most, count(*) AS n \
             FROM \"{}\" WHERE hostname = 'host_{host}' AND time >= to_timestamp_micros({start}) \
             AND time < to_timestamp_micros({}) GROUP BY minute ORDER BY minute",
            self.path,
            start + tsbs::HOUR_US
        );
        let started = Instant::now();
        let batches = self.tidelog.sql(&statement).await?;
        let mut sample = Sample::timed(started);
        let (mut rows, mut most) = (0, 0.0);
        for batch in &batches {
            let count = batch.column(2).as_primitive::<Int64Type>();
            rows += usize::try_from(count.values().iter().sum::<i64>())?;
            let values = batch.column(1).as_primitive::<Float64Type>();
            most += values.values().iter().sum::<f64>() + values.null_count() as f64;
        }
        sample.answer = Some((rows, most));
        Ok(sample)
    }
}
