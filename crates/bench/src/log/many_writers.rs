//! Many writers at one store on an object store, all at once, for as long as they are let.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures::future::try_join_all;
use serde::Deserialize;
use serde_json::json;
use tidelog::{ErrorKind, SeriesExt, Store};
use tidelog_testkit::{S3Operation, TestS3};

use super::TIDELOG;
use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::peer::PeerKind;
use crate::results::Document;

const SERIES: &str = "/shared.series";
const RATE_AT_LEAST_OF_ONE: f64 = 0.3;
const REQUESTS_AT_MOST: f64 = 20.0;
const SHARE_AT_LEAST: f64 = 0.25;

#[derive(Args, Clone, Debug)]
pub(crate) struct ManyWritersArgs {
    /// Writers at once
    #[arg(long, default_value_t = 16)]
    pub(crate) writers: usize,
    /// For how many seconds they write
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// For how many seconds one writes alone, to compare
    #[arg(long, default_value_t = 20)]
    pub(crate) alone_seconds: u64,
    /// Rows of each append
    #[arg(long, default_value_t = 10)]
    pub(crate) rows: usize,
}

const ABOUT: &str = "An S3 server in this process, on a loopback socket, with atomic conditional puts. First one \
    writer appends to a series, each append awaited and a commit of its own; then many do, to one series, each \
    through a handle of its own with its own upkeep in the background. Requests are counted by the server; all of \
    them, also those of upkeep, are divided by the commits that landed, those of upkeep included. delta-rs does the \
    same to a table with as many threads, retries by its own rules; appends that it gives up are counted as failed.";

/// What came of a time of writing.
struct Outcome {
    /// Appends that landed, of each writer.
    landed: Vec<u64>,
    seconds: f64,
    requests: u64,
    puts: u64,
    commits: u64,
    failed: u64,
}

impl Outcome {
    fn rate(&self) -> f64 {
        self.landed.iter().sum::<u64>() as f64 / self.seconds
    }

    /// What the slowest writer has of an equal share.
    fn slowest_share(&self) -> f64 {
        let sum: u64 = self.landed.iter().sum();
        let slowest = self.landed.iter().min().copied().unwrap_or(0);
        slowest as f64 * self.landed.len() as f64 / (sum as f64).max(1.0)
    }
}

pub(crate) async fn run(args: &ManyWritersArgs, common: &Common) -> Result<()> {
    let mut document = Document::new("many-writers", "Many writers at once", ABOUT, common);
    document.parameter("writers", args.writers);
    document.parameter("seconds", args.seconds);
    document.parameter("seconds of the one alone", args.alone_seconds);
    document.parameter("rows per append", args.rows);
    let alone = tidelog(args, common, 1, args.alone_seconds, &mut document).await?;
    let together = tidelog(args, common, args.writers, args.seconds, &mut document).await?;
    report(&mut document, &alone, &together);
    if let Some((alone, together)) = delta(args, common, &mut document)? {
        let name = PeerKind::DeltaRs.name();
        document.fact("commits of one writer", name, "/s", alone.rate());
        document.fact("commits of all writers", name, "/s", together.rate());
        let what = "share of the slowest writer, of an equal one";
        document.fact(what, name, "×", together.slowest_share());
        let requests = together.requests as f64 / together.commits.max(1) as f64;
        document.fact("requests per landed commit", name, "requests", requests);
        document.fact("appends given up", name, "appends", together.failed as f64);
    }
    document.finish(common)
}

fn report(document: &mut Document, alone: &Outcome, together: &Outcome) {
    document.fact("commits of one writer", TIDELOG, "/s", alone.rate());
    document.fact("commits of all writers", TIDELOG, "/s", together.rate());
    let share = together.slowest_share();
    document.fact("share of the slowest writer, of an equal one", TIDELOG, "×", share);
    document.fact("appends given up", TIDELOG, "appends", together.failed as f64);
    // Bounds are upper ones, so what must be large stands below.
    let what = "one writer's commits per second ÷ those of all writers";
    document.figure(what, "×", alone.rate() / together.rate(), Some(1.0 / RATE_AT_LEAST_OF_ONE));
    let of_each = |requests: u64| requests as f64 / together.commits.max(1) as f64;
    document.fact("puts per landed commit", TIDELOG, "requests", of_each(together.puts));
    let requests = of_each(together.requests);
    document.figure("requests per landed commit", "requests", requests, Some(REQUESTS_AT_MOST));
    let what = "an equal share ÷ that of the slowest writer";
    document.figure(what, "×", 1.0 / share, Some(1.0 / SHARE_AT_LEAST));
}

async fn open(server: &TestS3) -> Result<Store> {
    let mut builder = Store::builder(server.url("store"));
    for (name, value) in server.options() {
        builder = builder.with_storage_option(name, value);
    }
    Ok(builder.with_partitions(1).open_or_create().await?)
}

async fn tidelog(
    args: &ManyWritersArgs,
    common: &Common,
    writers: usize,
    seconds: u64,
    document: &mut Document,
) -> Result<Outcome> {
    let server = TestS3::start()?;
    let batch = Sensors::new(common.seed).batch(args.rows)?;
    let first = open(&server).await?;
    first.root().append_series_data(SERIES, &batch, Some(sensors::TIME_COLUMN)).await?;
    let mut stores = Vec::new();
    for _ in 0..writers {
        // Each has proven conditional puts and loaded the series before the time runs.
        let store = open(&server).await?;
        store.root().append_series_data(SERIES, &batch, Some(sensors::TIME_COLUMN)).await?;
        stores.push(store);
    }
    let head = |store: &Store| store.log_head();
    first.list("/*").await?;
    let (before, stop) = (head(&first), Arc::new(AtomicBool::new(false)));
    server.reset_counts();
    let started = Instant::now();
    let tasks = stores.iter().map(|store| {
        let (store, batch, stop) = (store.clone(), batch.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut landed, mut failed) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                let root = store.root();
                let time = Some(sensors::TIME_COLUMN);
                match root.append_series_data(SERIES, &batch, time).await {
                    Ok(_) => landed += 1,
                    Err(error) if error.kind() == ErrorKind::Conflict => failed += 1,
                    Err(error) => return Err(error),
                }
            }
            Ok((landed, failed))
        })
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let counted = try_join_all(tasks).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let seconds = started.elapsed().as_secs_f64();
    let counts = server.counts();
    let puts = counts.by_operation.get(&S3Operation::Put).copied().unwrap_or(0);
    let requests = counts.total;
    first.list("/*").await?;
    let (landed, failed): (Vec<u64>, Vec<u64>) = counted.into_iter().unzip();
    let versions = u64::try_from(first.versions(SERIES).await?.len())?;
    let expected = 1 + u64::try_from(writers)? + landed.iter().sum::<u64>();
    let detail = format!("{versions} versions of {expected} appends");
    let what = format!("every append of {writers} a version, once");
    document.check(&what, versions == expected, detail);
    let commits = head(&first).saturating_sub(before);
    Ok(Outcome { landed, seconds, requests, puts, commits, failed: failed.iter().sum() })
}

/// delta-rs alone and with as many writers, if peers take part.
fn delta(
    args: &ManyWritersArgs,
    common: &Common,
    document: &mut Document,
) -> Result<Option<(Outcome, Outcome)>> {
    #[derive(Deserialize)]
    struct Reply {
        landed: Vec<u64>,
        failed: u64,
        seconds: f64,
    }
    let Some(mut peer) = common.peer(PeerKind::DeltaRs)? else { return Ok(None) };
    document.versions.insert(PeerKind::DeltaRs.name().to_owned(), peer.version()?);
    let mut write = |writers: usize, seconds: u64| -> Result<Outcome> {
        let server = TestS3::start()?;
        let options: BTreeMap<String, String> = server.options().into_iter().collect();
        let url = server.url("table");
        let url = url.split('?').next().context("a URL")?.to_owned();
        let reply: Reply = peer.call(
            "write_for",
            json!({
                "url": url, "endpoint": server.endpoint(), "options": options,
                "writers": writers, "seconds": seconds, "rows": args.rows,
            }),
        )?;
        let commits = reply.landed.iter().sum();
        let counts = server.counts();
        let puts = counts.by_operation.get(&S3Operation::Put).copied().unwrap_or(0);
        let requests = counts.total;
        let Reply { landed, failed, seconds } = reply;
        Ok(Outcome { landed, seconds, requests, puts, commits, failed })
    };
    let alone = write(1, args.alone_seconds)?;
    Ok(Some((alone, write(args.writers, args.seconds)?)))
}
