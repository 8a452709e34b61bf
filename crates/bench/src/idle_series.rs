//! Very many series of one writer alone: how often it commits, and what a series costs that rests.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::generate::sensors::{self, Sensors};
use crate::machine::resident_bytes;
use crate::options::Common;
use crate::results::Document;
use crate::tidelog_side::Tidelog;

const TIDELOG: &str = "tidelog";
const REST_SECONDS: usize = 5;
const COMMITS_PER_SECOND_AT_MOST: f64 = 1.0;
const KIB_PER_SERIES_AT_MOST: f64 = 2.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct IdleSeriesArgs {
    /// Series of each round
    #[arg(long, default_value_t = 10_000)]
    pub(crate) series: usize,
    /// Rounds after the first
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// MiB of the memory budget
    #[arg(long, default_value_t = 256)]
    pub(crate) memory_mib: usize,
    /// Rows appended to each series, in one version
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
}

const ABOUT: &str = "A store that this process has for itself, on the local disk, with a small memory budget. One append to \
    each of many series, awaited one after the other, until all is in files; then the same to as many others, and \
    again. Commits are those of the log, those of upkeep included. What a series costs that rests is by how much \
    resident memory has grown from some seconds after the first round to some seconds after the last, so that what \
    the program needs anyway is left out, and so are caches: with that budget the first round fills them. The \
    allocator gives back what is free at once (MIMALLOC_PURGE_DELAY=0), so that memory is what is used.";
/// Delay of the allocator in giving memory back, in milliseconds; it is read when the program starts.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

pub(crate) async fn run(args: &IdleSeriesArgs, common: &Common) -> Result<()> {
    if !cfg!(test) && std::env::var_os(PURGE_DELAY).is_none() {
        return again_without_free_memory();
    }
    let mut document = Document::new("idle-series", "Very many series at rest", ABOUT, common);
    document.parameter("series of each round", args.series);
    document.parameter("rounds after the first", args.rounds);
    document.parameter("rows of each", args.rows);
    document.parameter("MiB of memory", args.memory_mib);
    let folder = common.fresh("idle-series")?;
    let memory = args.memory_mib << 20;
    let open = Tidelog::open_alone_with(&folder, |builder| builder.with_memory_bytes_max(memory));
    let tidelog = open.await?;
    let (each, rounds) = (args.series.max(1), args.rounds.max(1));
    let started = Instant::now();
    append(&tidelog, args, 0..each).await?;
    let seconds = started.elapsed().as_secs_f64();
    let tiers = tidelog.tiers().context("a store alone has tiers")?;
    document.fact("appends, through to files", TIDELOG, "/s", each as f64 / seconds);
    document.fact("flushes", TIDELOG, "commits", tiers.flushes as f64);
    let commits = tidelog.commits() as f64;
    document.figure("commits", "/s", commits / seconds, Some(COMMITS_PER_SECOND_AT_MOST));
    let before = at_rest(&tidelog).await?;
    let mut after = before;
    note_memory(&mut document, each, after);
    for round in 1..=rounds {
        append(&tidelog, args, round * each..(round + 1) * each).await?;
        after = at_rest(&tidelog).await?;
        note_memory(&mut document, (round + 1) * each, after);
    }
    let what = "resident memory of a series at rest";
    let growth = (after as f64 - before as f64) / 1024.0 / (rounds * each) as f64;
    document.figure(what, "KiB", growth, Some(KIB_PER_SERIES_AT_MOST));
    tidelog.close().await?;
    let found = tidelog.count_all("/*.series").await?;
    let expected = (rounds + 1) * each * args.rows;
    document.check("rows of all series", found == expected, format!("{found} of {expected}"));
    document.finish(common)
}

/// Runs this program with the same arguments in a process that holds no free memory.
fn again_without_free_memory() -> Result<()> {
    let mut program = Command::new(std::env::current_exe()?);
    let status = program.args(std::env::args_os().skip(1)).env(PURGE_DELAY, "0").status()?;
    ensure!(status.success(), "the workload failed: {status}");
    Ok(())
}

fn note_memory(document: &mut Document, series: usize, bytes: u64) {
    let what = format!("resident memory with {series} series");
    document.fact(&what, TIDELOG, "MiB", bytes as f64 / 1_048_576.0);
}

/// Resident memory after a while in which the allocator can give back what is free. It does so when it is
/// called, so a series is counted.
async fn at_rest(tidelog: &Tidelog) -> Result<u64> {
    for _ in 0..REST_SECONDS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tidelog.count("/s-0.series").await?;
    }
    resident_bytes().context("no VmRSS in /proc/self/status")
}

/// Appends to each series and waits until all is in files.
async fn append(
    tidelog: &Tidelog,
    args: &IdleSeriesArgs,
    series: std::ops::Range<usize>,
) -> Result<()> {
    for number in series {
        let batch = Sensors::new(number as u64).batch(args.rows)?;
        let path = format!("/s-{number}.series");
        tidelog.append(&path, &batch, sensors::TIME_COLUMN).await?;
    }
    tidelog.flush().await
}
