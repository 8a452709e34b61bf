//! Workloads once at a tiny size, without peers: that they run, that their checks pass, that they leave a document.
//! Those that start this program again cannot be run from a test.

use std::fs;

use anyhow::Result;

use crate::files::{compacted, dedup, late_data, overlap, tsbs_size};
use crate::log::{many_commits, many_writers, round_trips};
use crate::options::Common;
use crate::results::load;
use crate::{append_many, hot, idle_series, range, tsbs};

struct Folder {
    common: Common,
    _held: tempfile::TempDir,
}

fn folder() -> Result<Folder> {
    let held = tempfile::tempdir()?;
    let common = Common::for_test(held.path());
    fs::create_dir_all(&common.work)?;
    Ok(Folder { common, _held: held })
}

#[tokio::test(flavor = "multi_thread")]
async fn append_many_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = append_many::AppendManyArgs { versions: 4, rows: 10, rounds: 2, warmups: 1 };
    append_many::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("append-many.json"))?;
    assert_eq!(document.figures.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn range_runs_small_and_again_on_what_was_built() -> Result<()> {
    let folder = folder()?;
    let args = range::RangeArgs {
        versions: 20,
        rows: 10,
        group: 5,
        delta_versions: 10,
        per_mille: 150,
        rounds: 2,
        warmups: 1,
    };
    range::run(&args, &folder.common).await?;
    range::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("range.json"))?;
    assert_eq!(document.checks.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tsbs_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = tsbs::TsbsArgs { hosts: 3, hours: 2, rounds: 1, warmups: 0, threads: 2 };
    tsbs::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("tsbs.json"))?;
    assert_eq!(document.figures.len(), 16);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = tsbs::warm::WarmArgs {
        tsbs: tsbs::TsbsArgs { hosts: 12, hours: 26, rounds: 1, warmups: 0, threads: 2 },
        memory_mib: 512,
        openings: 2,
    };
    tsbs::warm::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("warm.json"))?;
    assert_eq!(document.figures.len(), 13 + 1 + 1 + 3);
    assert!(document.checks.iter().all(|check| check.passed), "{:?}", document.checks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commits_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = many_commits::ManyCommitsArgs { commits: 60, series: 3, rows: 2, window: 20 };
    many_commits::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("many-commits.json"))?;
    assert_eq!(document.figures.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = hot::HotArgs {
        versions: 120,
        rows: 3,
        window: 5,
        appenders: 3,
        seconds: 1,
        peer_seconds: 1,
        batches: 3,
        batch_rows: 500,
    };
    hot::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("hot.json"))?;
    assert_eq!(document.checks.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_series_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = idle_series::IdleSeriesArgs { series: 20, rounds: 1, memory_mib: 256, rows: 3 };
    idle_series::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("idle-series.json"))?;
    assert_eq!((document.figures.len(), document.checks.len()), (2, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = many_writers::ManyWritersArgs { writers: 3, seconds: 1, alone_seconds: 1, rows: 2 };
    many_writers::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("many-writers.json"))?;
    assert_eq!(document.figures.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = round_trips::RoundTripsArgs { latency_ms: 2, versions: 12, rows: 200, rounds: 1 };
    round_trips::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("round-trips.json"))?;
    assert_eq!(document.figures.len(), 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compacted_range_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = compacted::CompactedArgs {
        few: 8,
        versions: 20,
        many: 40,
        rows: 10,
        read: 30,
        rounds: 2,
        warmups: 1,
    };
    compacted::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("compacted-range.json"))?;
    assert_eq!((document.figures.len(), document.checks.len()), (3, 7));
    assert!(document.checks.iter().all(|check| check.passed), "{:?}", document.checks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_data_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = late_data::LateDataArgs {
        target_mib: 1,
        times: 1,
        batch_rows: 30_000,
        read: 100,
        every: 2,
    };
    late_data::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("late-data.json"))?;
    assert_eq!(document.figures.len(), 2);
    assert!(document.checks.iter().all(|check| check.passed), "{:?}", document.checks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = overlap::OverlapArgs { rows: 1_000, files: 8, rounds: 1, warmups: 0 };
    overlap::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("overlap.json"))?;
    assert!(document.checks.iter().all(|check| check.passed), "{:?}", document.checks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tsbs_size_runs_small() -> Result<()> {
    let folder = folder()?;
    let args =
        tsbs_size::TsbsSizeArgs { hosts: 4, steps: 700, batch_steps: 300, rounds: 1, warmups: 0 };
    tsbs_size::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("tsbs-size.json"))?;
    assert_eq!((document.figures.len(), document.checks.len()), (12, 8));
    assert!(document.checks.iter().all(|check| check.passed), "{:?}", document.checks);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dedup_runs_small() -> Result<()> {
    let folder = folder()?;
    let args = dedup::DedupArgs { rows: 1_000, batch_rows: 300, rounds: 1, warmups: 0 };
    dedup::run(&args, &folder.common).await?;
    let document = load(&folder.common.results.join("dedup.json"))?;
    assert_eq!((document.figures.len(), document.checks.len()), (1, 4));
    assert!(document.checks.iter().all(|check| check.passed), "{:?}", document.checks);
    Ok(())
}
