//! Every workload once at a tiny size, without peers: that it runs, that its checks pass, that it leaves a document.

use std::fs;

use anyhow::Result;

use crate::options::Common;
use crate::results::load;
use crate::{append_many, range, tsbs};

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
