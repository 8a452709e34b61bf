//! A series half of whose rows were replaced by later ones, beside one that never had any to replace.

use std::time::Instant;

use anyhow::{Context, Result};
use async_trait::async_trait;
use clap::Args;

use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::results::Document;
use crate::rounds::{Contestant, Sample, interleave, median_of};
use crate::staged;
use crate::tidelog_side::Tidelog;

const REPLACED: &str = "tidelog, half of the rows replaced";
const PLAIN: &str = "tidelog, none replaced";
const AT_MOST_OF_PLAIN: f64 = 1.1;
/// What a plan may have that opens no file.
const WITHOUT_FILES: [&str; 3] = ["ProjectionExec", "PlaceholderRowExec", "EmptyExec"];

#[derive(Args, Clone, Debug)]
pub(crate) struct DedupArgs {
    /// Rows that are there in the end
    #[arg(long, default_value_t = 4_000_000)]
    pub(crate) rows: usize,
    /// Rows of each version
    #[arg(long, default_value_t = 250_000)]
    pub(crate) batch_rows: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 15)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 3)]
    pub(crate) warmups: usize,
}

const ABOUT: &str = "A deduplicated series gets every row twice, the second time with other values, so that half of what \
    was appended is replaced; another gets only the second half. Both are compacted and then read as a whole, in \
    order.";

pub(crate) async fn run(args: &DedupArgs, common: &Common) -> Result<()> {
    let tidelog = Tidelog::open_uncompacted(&common.fresh("dedup")?).await?;
    let mut document = Document::new("dedup", "Rows that were replaced", ABOUT, common);
    document.parameter("rows at the end", args.rows);
    document.parameter("rows per version", args.batch_rows);
    document.parameter("rounds", args.rounds);
    let (replaced, plain) = ("/replaced.series", "/plain.series");
    for path in [replaced, plain] {
        tidelog.create_deduplicated(path, sensors::TIME_COLUMN).await?;
    }
    append(&tidelog, args, replaced, common.seed + 1).await?;
    let sum = append(&tidelog, args, replaced, common.seed).await?;
    append(&tidelog, args, plain, common.seed).await?;
    for (path, name) in [(replaced, REPLACED), (plain, PLAIN)] {
        tidelog.compact(path).await?;
        document.fact("files", name, "files", tidelog.files(path).await? as f64);
    }
    let read = |path, name| Box::new(Read { tidelog: tidelog.clone(), path, name });
    let mut contestants: Vec<Box<dyn Contestant>> =
        vec![read(replaced, REPLACED), read(plain, PLAIN)];
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    for outcome in &outcomes {
        document.measure("ordered read of all", &outcome.name, "ms", &outcome.times_ms());
        let right = outcome.samples.iter().all(|sample| sample.answer == Some((args.rows, sum)));
        let what = format!("rows and sum of {}", outcome.name);
        document.check(&what, right, format!("{} rows", args.rows));
    }
    let what = "p50 of a read with half of the rows replaced ÷ p50 with none";
    let (own, plain) = (median_of(&outcomes, REPLACED), median_of(&outcomes, PLAIN));
    document.ratio(what, own, plain, Some(AT_MOST_OF_PLAIN));
    let counted = tidelog.count(replaced).await?;
    document.check("COUNT(*)", counted == args.rows, format!("{counted} of {}", args.rows));
    let operators = count_operators(&tidelog, replaced).await?;
    let opens_none = operators.iter().all(|found| WITHOUT_FILES.contains(&found.as_str()));
    document.check("COUNT(*) opens no file", opens_none, operators.join(", "));
    document.finish(common)
}

/// Appends the rows of this seed; the sum of the compared column.
async fn append(tidelog: &Tidelog, args: &DedupArgs, path: &str, seed: u64) -> Result<f64> {
    let (mut sensors, mut left, mut sum) = (Sensors::new(seed), args.rows, 0.0);
    while left > 0 {
        let batch = sensors.batch(left.min(args.batch_rows.max(1)))?;
        left -= batch.num_rows();
        tidelog.append(path, &batch, sensors::TIME_COLUMN).await?;
        sum += staged::sum(&[batch]);
    }
    Ok(sum)
}

/// The operators of a count's plan.
async fn count_operators(tidelog: &Tidelog, path: &str) -> Result<Vec<String>> {
    let answer = tidelog.sql(&format!("EXPLAIN SELECT count(*) FROM \"{path}\"")).await?;
    let text = arrow::util::pretty::pretty_format_batches(&answer)?.to_string();
    let physical = text.split("physical_plan").nth(1).context("EXPLAIN without a plan")?;
    let words = physical.split(|c: char| !c.is_alphanumeric());
    Ok(words.filter(|word| word.ends_with("Exec")).map(ToOwned::to_owned).collect())
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
        sample.answer = Some((staged::rows(&batches), staged::sum(&batches)));
        Ok(sample)
    }
}
