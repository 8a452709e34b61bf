//! Round trips: how many requests stand one behind the other where each takes a while.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures::StreamExt;
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::object_store::throttle::{ThrottleConfig, ThrottledStore};
use tidelog::{SeriesExt, Store, UpkeepMode};
use tidelog_storage::CountingStore;
use tidelog_storage::counting::Operation;

use super::TIDELOG;
use crate::generate::sensors::{self, Sensors, time_us};
use crate::options::Common;
use crate::results::Document;
use crate::stats::Summary;

#[derive(Args, Clone, Debug)]
pub(crate) struct RoundTripsArgs {
    /// What every request takes, in milliseconds
    #[arg(long, default_value_t = 20)]
    pub(crate) latency_ms: u64,
    /// Versions of the series, in files of their own
    #[arg(long, default_value_t = 200)]
    pub(crate) versions: usize,
    /// Rows of each version
    #[arg(long, default_value_t = 20_000)]
    pub(crate) rows: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
}

const ABOUT: &str = "A store in memory behind a wrapper that delays every request by the same time. What an operation \
    takes, divided by that time and rounded down, is how many requests stood one behind the other; requests side by \
    side count once. Everything else it does takes far less than one request.";

/// One operation: its times, and what it asked of the store.
struct Observed {
    what: &'static str,
    at_most: f64,
    times: Vec<f64>,
    requests: usize,
    lists: usize,
}

pub(crate) async fn run(args: &RoundTripsArgs, common: &Common) -> Result<()> {
    let mut document = Document::new("round-trips", "Round trips", ABOUT, common);
    document.parameter("latency of a request (ms)", args.latency_ms);
    document.parameter("versions", args.versions);
    document.parameter("rows per version", args.rows);
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let bed = Bed::new(args, Arc::clone(&memory));
    fill(args, common, memory).await?;
    for observed in bed.observe(args, common).await? {
        let trips: Vec<f64> =
            observed.times.iter().map(|ms| (ms / args.latency_ms as f64).floor()).collect();
        document.measure(observed.what, TIDELOG, "ms", &observed.times);
        let median = Summary::of(&trips).map_or(f64::NAN, |summary| summary.p50);
        let what = format!("requests one behind the other: {}", observed.what);
        document.figure(&what, "requests", median, Some(observed.at_most));
        let what = format!("requests in all: {}", observed.what);
        document.fact(&what, TIDELOG, "requests", observed.requests as f64);
        let detail = format!("{} listings", observed.lists);
        document.check(&format!("no listing: {}", observed.what), observed.lists == 0, detail);
    }
    document.finish(common)
}

/// Fills the store at full speed; the series' log is merged, as it would be.
async fn fill(args: &RoundTripsArgs, common: &Common, memory: Arc<dyn ObjectStore>) -> Result<()> {
    let store = Store::builder("memory://").with_object_store(memory);
    let store = store.with_upkeep(UpkeepMode::OnRequest).create().await?;
    let root = store.root();
    let mut sensors = Sensors::new(common.seed);
    for _ in 0..args.versions {
        let batch = sensors.batch(args.rows)?;
        root.append_series_data("/s.series", &batch, Some(sensors::TIME_COLUMN)).await?;
        root.append_series_data("/small.series", &batch.slice(0, 10), Some(sensors::TIME_COLUMN))
            .await?;
    }
    store.maintain(false).await?;
    // A few commits after the checkpoint, as there always are.
    for _ in 0..3 {
        let batch = sensors.batch(10)?;
        root.append_series_data("/small.series", &batch, Some(sensors::TIME_COLUMN)).await?;
    }
    Ok(())
}

/// The slow store, with its requests counted.
struct Bed {
    counting: CountingStore,
}

impl Bed {
    fn new(args: &RoundTripsArgs, memory: Arc<dyn ObjectStore>) -> Self {
        let wait = Duration::from_millis(args.latency_ms);
        let config = ThrottleConfig {
            wait_delete_per_call: wait,
            wait_get_per_call: wait,
            wait_list_per_call: wait,
            wait_list_with_delimiter_per_call: wait,
            wait_put_per_call: wait,
            ..ThrottleConfig::default()
        };
        let slow: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(memory, config));
        Self { counting: CountingStore::new(slow) }
    }

    async fn open(&self) -> Result<Store> {
        let store = Store::builder("memory://").with_object_store(Arc::new(self.counting.clone()));
        Ok(store.with_upkeep(UpkeepMode::OnRequest).open().await?)
    }

    async fn timed<T>(
        &self,
        observed: &mut Observed,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        drop(self.counting.take());
        let started = Instant::now();
        let outcome = operation.await?;
        observed.times.push(started.elapsed().as_secs_f64() * 1e3);
        let requests = self.counting.take();
        observed.requests = requests.len();
        observed.lists = requests.iter().filter(|r| r.operation == Operation::List).count();
        Ok(outcome)
    }

    async fn observe(&self, args: &RoundTripsArgs, common: &Common) -> Result<Vec<Observed>> {
        let new = |what, at_most| Observed { what, at_most, times: vec![], requests: 0, lists: 0 };
        let mut open = new("opening", 3.0);
        let mut first = new("a range of one file, with the head and the series' log rows", 5.0);
        let mut again = new("the same once its log rows are loaded, with the head", 3.0);
        let mut first_small = new("the same of a file of at most 64 KiB", 4.0);
        let mut again_small = new("the same of such a file once its log rows are loaded", 2.0);
        let mut tail = new("seeing that nothing is new", 1.0);
        let mut append = new("an append", 2.0);
        let mut sensors = Sensors::new(common.seed + 1);
        for round in 0..args.rounds {
            let store = self.timed(&mut open, self.open()).await?;
            let at = (round * 7 + 1) % args.versions;
            self.timed(&mut first, range(&store, "/s.series", at * args.rows, 100)).await?;
            let at = (round * 7 + 3) % args.versions;
            self.timed(&mut again, range(&store, "/s.series", at * args.rows, 100)).await?;
            let at = (round * 5 + 1) % args.versions;
            self.timed(&mut first_small, range(&store, "/small.series", at * args.rows, 5)).await?;
            let at = (round * 5 + 3) % args.versions;
            self.timed(&mut again_small, range(&store, "/small.series", at * args.rows, 5)).await?;
            self.timed(&mut tail, async { Ok(store.list("/none/*").await?) }).await?;
            let root = store.root();
            let time = Some(sensors::TIME_COLUMN);
            // The first write of a handle proves that puts are conditional.
            root.append_series_data("/small.series", &sensors.batch(10)?, time).await?;
            let batch = sensors.batch(10)?;
            let call = async { Ok(root.append_series_data("/small.series", &batch, time).await?) };
            self.timed(&mut append, call).await?;
        }
        Ok(vec![open, first, again, first_small, again_small, tail, append])
    }
}

async fn range(store: &Store, path: &str, first: usize, rows: usize) -> Result<usize> {
    let (start, end) = (time_us(first)? * 1000, time_us(first + rows - 1)? * 1000);
    let mut stream = store.root().read_series_time_range(path, start, end).await?;
    let mut found = 0;
    while let Some(batch) = stream.next().await {
        found += batch?.num_rows();
    }
    (found == rows).then_some(found).with_context(|| format!("{found} rows instead of {rows}"))
}
