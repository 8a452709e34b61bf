//! Workloads and comparisons behind the published figures of Tidelog.
//!
//! Each subcommand is one workload. It drives Tidelog in this process and the peers in processes of their own,
//! all of them in turn within one run, and leaves a document of results; `report` renders the documents.
//!
//! - `generate`: seeded data · `staged`: versions to append, for everybody
//! - `tidelog_side`, `peer`: the two kinds of contestants · `rounds`: turns · `stats`: spread of samples
//! - `append`, `append_many`, `hot`, `idle_series`, `recovery`, `range`, `tsbs`, `full_read`, `log`: the workloads
//! - `files`: the workloads of how data lie in files · `apart`: a part in a process of its own
//! - `options`, `machine`, `results`, `report`: where, on what, the outcome, and its page

mod apart;
mod append;
mod append_many;
mod files;
mod full_read;
mod generate;
mod hot;
mod idle_series;
mod log;
mod machine;
mod options;
mod peer;
mod range;
mod recovery;
mod report;
mod results;
mod rounds;
#[cfg(test)]
mod smoke;
mod staged;
mod stats;
mod tidelog_side;
mod tsbs;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::options::CommonArgs;

#[derive(Debug, Parser)]
#[command(name = "tidelog-bench", version, about)]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Single awaited appends, early and late in a series' life
    Append(append::AppendArgs),
    /// Many versions in one call against one version of the same rows
    AppendMany(append_many::AppendManyArgs),
    /// A small range of time out of many small versions
    Range(range::RangeArgs),
    /// The cpu-only queries of the Time Series Benchmark Suite, in SQL
    Tsbs(tsbs::TsbsArgs),
    /// The same over rows in memory, and what the warm tier costs
    Warm(tsbs::warm::WarmArgs),
    /// One ordered read of a large series in bounded memory
    FullRead(full_read::FullReadArgs),
    /// A log of very many versions over very many series
    ManySeries(log::many_series::ManySeriesArgs),
    /// A small range, by processes that begin from nothing
    ColdRange(log::cold_range::ColdRangeArgs),
    /// Very many commits to one store
    ManyCommits(log::many_commits::ManyCommitsArgs),
    /// Many writers at one store in a bucket
    ManyWriters(log::many_writers::ManyWritersArgs),
    /// Requests that stand one behind the other
    RoundTrips(log::round_trips::RoundTripsArgs),
    /// One writer alone, behind a write-ahead log
    Hot(hot::HotArgs),
    /// Very many series of one writer alone
    IdleSeries(idle_series::IdleSeriesArgs),
    /// What a writer alone leaves to whoever comes next
    Recovery(recovery::RecoveryArgs),
    /// A small range out of many versions that were merged
    CompactedRange(files::compacted::CompactedArgs),
    /// Rows that come late, some of them very late
    LateData(files::late_data::LateDataArgs),
    /// An ordered read of files that overlap
    Overlap(files::overlap::OverlapArgs),
    /// The same rows by time, by key and time, and as a series for each key
    TsbsSize(files::tsbs_size::TsbsSizeArgs),
    /// A series half of whose rows were replaced
    Dedup(files::dedup::DedupArgs),
    /// Compaction of a series much larger than memory, and appends beside it
    CompactLarge(files::large::LargeArgs),
    /// Renders docs/benchmarks.md from the results
    Report(report::ReportArgs),
    /// A few appends and nothing else, to be traced
    AppendOne(append::AppendOneArgs),
    /// Reads a whole series and reports as JSON
    #[command(hide = true)]
    ReadAll(full_read::ReadAllArgs),
    /// Opens a store, reads the log rows of a series and reports as JSON
    #[command(hide = true)]
    OpenOne(log::many_series::OpenOneArgs),
    /// Opens a store with a write-ahead log to bring in and reports as JSON
    #[command(hide = true)]
    BringIn(recovery::BringInArgs),
    /// Merges the files of a series and reports as JSON
    #[command(hide = true)]
    CompactOne(files::large::CompactOneArgs),
    /// Reads a range of a series and reports as JSON
    #[command(hide = true)]
    ReadRange(log::cold_range::ReadRangeArgs),
}

/// As the `tidelog` program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    Box::pin(run(cli)).await
}

async fn run(cli: Cli) -> Result<()> {
    let common = cli.common;
    match cli.workload {
        Workload::Append(args) => append::run(&args, &common.resolve()?).await,
        Workload::AppendMany(args) => append_many::run(&args, &common.resolve()?).await,
        Workload::Range(args) => range::run(&args, &common.resolve()?).await,
        Workload::Tsbs(args) => tsbs::run(&args, &common.resolve()?).await,
        Workload::Warm(args) => tsbs::warm::run(&args, &common.resolve()?).await,
        Workload::FullRead(args) => full_read::run(&args, &common.resolve()?).await,
        Workload::ManySeries(args) => log::many_series::run(&args, &common.resolve()?).await,
        Workload::ColdRange(args) => log::cold_range::run(&args, &common.resolve()?).await,
        Workload::ManyCommits(args) => log::many_commits::run(&args, &common.resolve()?).await,
        Workload::ManyWriters(args) => log::many_writers::run(&args, &common.resolve()?).await,
        Workload::RoundTrips(args) => log::round_trips::run(&args, &common.resolve()?).await,
        Workload::Hot(args) => hot::run(&args, &common.resolve()?).await,
        Workload::IdleSeries(args) => idle_series::run(&args, &common.resolve()?).await,
        Workload::Recovery(args) => recovery::run(&args, &common.resolve()?).await,
        Workload::CompactedRange(args) => files::compacted::run(&args, &common.resolve()?).await,
        Workload::LateData(args) => files::late_data::run(&args, &common.resolve()?).await,
        Workload::Overlap(args) => files::overlap::run(&args, &common.resolve()?).await,
        Workload::TsbsSize(args) => files::tsbs_size::run(&args, &common.resolve()?).await,
        Workload::Dedup(args) => files::dedup::run(&args, &common.resolve()?).await,
        Workload::CompactLarge(args) => files::large::run(&args, &common.resolve()?).await,
        Workload::Report(args) => report::run(&args, common.results()),
        Workload::AppendOne(args) => append::run_one(&args, common.seed()).await,
        Workload::ReadAll(args) => full_read::run_read_all(&args).await,
        Workload::OpenOne(args) => log::many_series::run_open_one(&args).await,
        Workload::BringIn(args) => recovery::run_bring_in(&args).await,
        Workload::CompactOne(args) => files::large::run_compact_one(&args).await,
        Workload::ReadRange(args) => log::cold_range::run_read_range(&args).await,
    }
}
