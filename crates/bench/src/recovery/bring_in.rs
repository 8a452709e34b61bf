//! A write-ahead log that a dropped handle has left, brought in by a process of its own.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{RecoveryArgs, SERIES};
use crate::apart::apart;
use crate::generate::sensors::{self, Sensors};
use crate::machine::peak_resident_bytes;
use crate::options::Common;
use crate::results::Document;
use crate::tidelog_side::Tidelog;

const SECONDS_AT_MOST: f64 = 20.0;
/// Twice the bytes of a generation in memory.
const MIB_AT_MOST: f64 = 512.0;

/// What a process tells that has brought in a log.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    seconds: f64,
    peak_bytes: u64,
}

pub(super) async fn run(
    args: &RecoveryArgs,
    common: &Common,
    folder: &Path,
    document: &mut Document,
) -> Result<()> {
    let store = folder.join("left");
    let tidelog = Tidelog::open_alone_unflushed(&store).await?;
    let mut sensors = Sensors::new(common.seed);
    let mut versions = 0;
    while (tidelog.wal_bytes()? as u64) < args.mib << 20 {
        let batch = sensors.batch(args.batch_rows)?;
        tidelog.append(SERIES, &batch, sensors::TIME_COLUMN).await?;
        versions += 1;
    }
    drop(tidelog);
    let rest = ["--rows".to_owned(), args.rows.to_string()];
    let (outcome, _) = apart::<Outcome>("bring-in", &store, &rest)?;
    let what = "opening a store and appending to it, with such a log left";
    document.figure(what, "s", outcome.seconds, Some(SECONDS_AT_MOST));
    let mib = outcome.peak_bytes as f64 / 1_048_576.0;
    document.figure("peak resident memory meanwhile", "MiB", mib, Some(MIB_AT_MOST));
    let tidelog = Tidelog::open_alone(&store).await?;
    let expected = versions * args.batch_rows + args.rows;
    let found = tidelog.count(SERIES).await?;
    let detail = format!("{found} of {expected}");
    document.check("rows after a log was brought in", found == expected, detail);
    Ok(())
}

/// Opens a store, appends to it, and reports as JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct BringInArgs {
    /// The store to open
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// Rows to append
    #[arg(long)]
    pub(crate) rows: usize,
}

pub(crate) async fn run_bring_in(args: &BringInArgs) -> Result<()> {
    let batch = Sensors::new(0).batch(args.rows)?;
    let started = Instant::now();
    let tidelog = Tidelog::open_alone(&args.store).await?;
    tidelog.append(SERIES, &batch, sensors::TIME_COLUMN).await?;
    let seconds = started.elapsed().as_secs_f64();
    let peak_bytes = peak_resident_bytes().context("no VmHWM in /proc/self/status")?;
    tidelog.close().await?;
    println!("{}", serde_json::to_string(&Outcome { seconds, peak_bytes })?);
    Ok(())
}
