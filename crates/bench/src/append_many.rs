//! Many versions in one call, against one version of the same rows.

use std::time::Instant;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use async_trait::async_trait;
use clap::Args;

use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::results::Document;
use crate::rounds::{Contestant, Sample, interleave, median_of};
use crate::tidelog_side::{Tidelog, version_of};

const MANY: &str = "append_many";
const ONE: &str = "one append";
/// Many versions in one call may cost this many times one append of the same rows.
const AT_MOST: f64 = 1.5;

#[derive(Args, Clone, Debug)]
pub(crate) struct AppendManyArgs {
    /// Versions of the one call
    #[arg(long, default_value_t = 1_000)]
    pub(crate) versions: usize,
    /// Rows of each version
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 2)]
    pub(crate) warmups: usize,
}

const ABOUT: &str = "The same rows go into a fresh series in each round: once as many versions in one call of \
    append_many, once as one version. Both wait until everything is durable.";

pub(crate) async fn run(args: &AppendManyArgs, common: &Common) -> Result<()> {
    let tidelog = Tidelog::open_or_create(&common.fresh("append-many")?).await?;
    let mut sensors = Sensors::new(common.seed);
    let batches: Vec<RecordBatch> =
        (0..args.versions).map(|_| sensors.batch(args.rows)).collect::<Result<_>>()?;
    let whole = concat_batches(&sensors::schema(), &batches)?;
    let mut contestants: Vec<Box<dyn Contestant + '_>> = vec![
        Box::new(Many { tidelog: &tidelog, batches: &batches, done: 0 }),
        Box::new(One { tidelog: &tidelog, batch: &whole, done: 0 }),
    ];
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    let mut document = Document::new("append-many", "Many versions in one call", ABOUT, common);
    document.parameter("versions", args.versions);
    document.parameter("rows per version", args.rows);
    document.parameter("rounds", args.rounds);
    let what = format!("appending {} rows", whole.num_rows());
    for outcome in &outcomes {
        document.measure(&what, &outcome.name, "ms", &outcome.times_ms());
    }
    let (many, one) = (median_of(&outcomes, MANY), median_of(&outcomes, ONE));
    document.ratio(
        "p50 of append_many ÷ p50 of one append of the same rows",
        many,
        one,
        Some(AT_MOST),
    );
    for name in [many_path(0), one_path(0)] {
        let found = tidelog.count(&name).await?;
        let detail = format!("{found} of {}", whole.num_rows());
        document.check(&format!("rows of {name}"), found == whole.num_rows(), detail);
    }
    document.finish(common)
}

fn many_path(number: usize) -> String {
    format!("/many/{number}.series")
}

fn one_path(number: usize) -> String {
    format!("/one/{number}.series")
}

struct Many<'a> {
    tidelog: &'a Tidelog,
    batches: &'a [RecordBatch],
    done: usize,
}

#[async_trait(?Send)]
impl Contestant for Many<'_> {
    fn name(&self) -> String {
        MANY.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let path = many_path(self.done);
        self.done += 1;
        let version = |batch| version_of(&path, batch, sensors::TIME_COLUMN);
        let appends: Vec<_> = self.batches.iter().map(version).collect();
        let started = Instant::now();
        self.tidelog.append_many(appends).await?;
        Ok(Sample::timed(started))
    }
}

struct One<'a> {
    tidelog: &'a Tidelog,
    batch: &'a RecordBatch,
    done: usize,
}

#[async_trait(?Send)]
impl Contestant for One<'_> {
    fn name(&self) -> String {
        ONE.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let path = one_path(self.done);
        self.done += 1;
        let started = Instant::now();
        self.tidelog.append(&path, self.batch, sensors::TIME_COLUMN).await?;
        Ok(Sample::timed(started))
    }
}
