//! What a writer alone leaves behind: a write-ahead log that is brought in by the next one, and an empty one
//! that costs who opens the store.

mod bring_in;
mod openings;

use anyhow::Result;
use clap::Args;

use crate::options::Common;
use crate::results::Document;

pub(crate) use bring_in::{BringInArgs, run_bring_in};

const SERIES: &str = "/s.series";
const TIDELOG: &str = "tidelog";

#[derive(Args, Clone, Debug)]
pub(crate) struct RecoveryArgs {
    /// MiB of the write-ahead log that is brought in
    #[arg(long, default_value_t = 1024)]
    pub(crate) mib: u64,
    /// Rows of each of its records
    #[arg(long, default_value_t = 25_000)]
    pub(crate) batch_rows: usize,
    /// Openings of a store with an empty write-ahead log, and of one without
    #[arg(long, default_value_t = 100)]
    pub(crate) openings: usize,
    /// Rows of each append besides
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
}

const ABOUT: &str = "A writer alone is dropped before any of its rows is in a file, with limits raised for that. A \
    process of its own opens the store within the default limits and appends to it, for which it brings in what the \
    write-ahead log holds. Then two stores of the same rows are opened and counted in turn: one that has an empty \
    write-ahead log, by who would write alone, and one without.";

pub(crate) async fn run(args: &RecoveryArgs, common: &Common) -> Result<()> {
    let folder = common.fresh("recovery")?;
    let mut document = Document::new("recovery", "After a writer alone", ABOUT, common);
    document.parameter("MiB of log brought in", args.mib);
    document.parameter("rows of each of its records", args.batch_rows);
    document.parameter("openings", args.openings);
    bring_in::run(args, common, &folder, &mut document).await?;
    openings::run(args, common, &folder, &mut document).await?;
    document.finish(common)
}
