//! What an empty write-ahead log costs who opens a store.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::{RecoveryArgs, SERIES, TIDELOG};
use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::results::Document;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const MORE_MS_AT_MOST: f64 = 5.0;
const VERSIONS: usize = 10;

pub(super) async fn run(
    args: &RecoveryArgs,
    common: &Common,
    folder: &Path,
    document: &mut Document,
) -> Result<()> {
    let (with, without) = (folder.join("with-log"), folder.join("without-log"));
    let alone = Tidelog::open_alone(&with).await?;
    fill(&alone, args, common).await?;
    alone.close().await?;
    drop(alone);
    fill(&Tidelog::open_or_create(&without).await?, args, common).await?;
    let (mut of_with, mut of_without) = (Vec::new(), Vec::new());
    for _ in 0..args.openings {
        let started = Instant::now();
        count(&Tidelog::open_alone(&with).await?, args).await?;
        of_with.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        count(&Tidelog::open(&without).await?, args).await?;
        of_without.push(started.elapsed().as_secs_f64() * 1e3);
    }
    document.measure("opening with an empty log ahead, and a count", TIDELOG, "ms", &of_with);
    document.measure("opening without one, and a count", TIDELOG, "ms", &of_without);
    let p50 = |times: &[f64]| Summary::of(times).map_or(f64::NAN, |summary| summary.p50);
    let more = p50(&of_with) - p50(&of_without);
    let what = "p50 of opening with an empty log ahead above that without";
    document.figure(what, "ms", more, Some(MORE_MS_AT_MOST));
    Ok(())
}

/// Several versions, a file each or all in one.
async fn fill(tidelog: &Tidelog, args: &RecoveryArgs, common: &Common) -> Result<()> {
    let mut sensors = Sensors::new(common.seed);
    for _ in 0..VERSIONS {
        tidelog.append(SERIES, &sensors.batch(args.rows)?, sensors::TIME_COLUMN).await?;
        tidelog.flush().await?;
    }
    Ok(())
}

async fn count(tidelog: &Tidelog, args: &RecoveryArgs) -> Result<()> {
    let found = tidelog.count(SERIES).await?;
    ensure!(found == VERSIONS * args.rows, "{found} rows");
    Ok(())
}
