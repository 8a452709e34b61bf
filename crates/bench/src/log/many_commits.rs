//! Very many commits to one store: whether the last cost what the first did, with upkeep running beside.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use super::TIDELOG;
use crate::generate::sensors::{self, Sensors};
use crate::options::{Common, stored_bytes};
use crate::results::Document;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const LATE_AT_MOST_OF_EARLY: f64 = 1.2;
const TAIL_AT_MOST: f64 = 32.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct ManyCommitsArgs {
    /// Commits, each of one append
    #[arg(long, default_value_t = 100_000)]
    pub(crate) commits: usize,
    /// Series that take turns
    #[arg(long, default_value_t = 10)]
    pub(crate) series: usize,
    /// Rows of each append
    #[arg(long, default_value_t = 10)]
    pub(crate) rows: usize,
    /// Commits of the windows that are compared
    #[arg(long, default_value_t = 1_000)]
    pub(crate) window: usize,
}

const ABOUT: &str = "Single appends, each awaited until it is durable and each a commit, to a few series in turn, on \
    the local disk, with the upkeep that every handle does in the background. After every append the length of the \
    log's tail, the commits that no merge has taken in yet, is noted.";

pub(crate) async fn run(args: &ManyCommitsArgs, common: &Common) -> Result<()> {
    let mut document = Document::new("many-commits", "Very many commits", ABOUT, common);
    document.parameter("commits", args.commits);
    document.parameter("series", args.series);
    document.parameter("rows per version", args.rows);
    document.parameter("commits of a window", args.window);
    let folder = common.fresh("many-commits")?;
    let tidelog = Tidelog::open_or_create(&folder).await?;
    let paths: Vec<String> = (0..args.series.max(1)).map(|n| format!("/s-{n}.series")).collect();
    let mut sensors = Sensors::new(common.seed);
    for path in &paths {
        tidelog.append(path, &sensors.batch(args.rows)?, sensors::TIME_COLUMN).await?;
    }
    let (mut times, mut longest) = (Vec::with_capacity(args.commits), 0);
    for commit in 0..args.commits {
        let batch = sensors.batch(args.rows)?;
        let path = &paths[commit % paths.len()];
        let started = Instant::now();
        tidelog.append(path, &batch, sensors::TIME_COLUMN).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        longest = longest.max(tidelog.tail_length());
    }
    report(&mut document, args, &times, longest);
    drop(tidelog);
    let log = stored_bytes(&folder.join("_oplog"))? as f64 / 1e6;
    document.fact("log stored, with what waits for its expiry", TIDELOG, "MB", log);
    let counted = count(&folder, &paths).await?;
    let expected = (args.commits + paths.len()) * args.rows;
    document.check("rows of all series", counted == expected, format!("{counted} of {expected}"));
    document.finish(common)
}

fn report(document: &mut Document, args: &ManyCommitsArgs, times: &[f64], longest: usize) {
    let window = args.window.min(times.len());
    let (early, late) = (&times[..window], &times[times.len() - window..]);
    document.measure("append, the first window", TIDELOG, "ms", early);
    document.measure("append, the last window", TIDELOG, "ms", late);
    document.measure("append, all", TIDELOG, "ms", times);
    let median = |samples: &[f64]| Summary::of(samples).map(|summary| summary.p50);
    let what = "p50 of the last window ÷ p50 of the first";
    document.ratio(what, median(late), median(early), Some(LATE_AT_MOST_OF_EARLY));
    document.figure("longest tail", "commits", longest as f64, Some(TAIL_AT_MOST));
}

async fn count(folder: &std::path::Path, paths: &[String]) -> Result<usize> {
    let tidelog = Tidelog::open(folder).await?;
    let mut rows = 0;
    for path in paths {
        rows += tidelog.count(path).await?;
    }
    Ok(rows)
}
