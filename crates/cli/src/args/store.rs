//! Arguments of commands about a whole store.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tidelog::CommitVersion;

use super::values::{parse_age, parse_batch_rows, parse_commit, parse_rows};

#[derive(Debug, Args)]
pub(crate) struct LayoutArgs {
    /// The series
    pub(crate) path: String,
    /// Write the drawing to this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write the drawing to this file, as a page of HTML with a table of the files
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Name the store as it is now; --as-of NAME reads it
    Create {
        /// A new name, which reads neither as a version nor as a time
        name: String,
    },
    /// List the snapshots
    Ls,
    /// Take a name away; what only it kept readable is so no more
    Rm {
        /// The name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExpireArgs {
    /// A series, or a glob such as '/sensors/**'
    pub(crate) path: String,
    /// Keep so many of the newest versions readable, at least 1
    #[arg(
        long,
        value_name = "VERSIONS",
        required_unless_present = "before",
        conflicts_with = "before"
    )]
    pub(crate) keep_versions: Option<u64>,
    /// Let go of what could be read as of a point before this one: a version (v5) of one series, or a
    /// write time (RFC 3339, a date for its first instant, or a time before now such as -30d). By time,
    /// series are taken too that matched when they were removed
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub(crate) before: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VacuumArgs {
    /// Delete the files
    #[arg(long)]
    pub(crate) apply: bool,
    /// Only tell which files would be deleted; that is the default
    #[arg(long, conflicts_with = "apply")]
    pub(crate) dry_run: bool,
    /// Leave alone what was needed, or put, less long ago: such as 0s, 90m or 7d. Readers on other machines,
    /// and writes that are under way, count on it
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = parse_age)]
    pub(crate) older_than: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WalCommand {
    /// Tell which records it holds, how it ends, and what is not committed; nothing is written
    ///
    /// A torn end is what a crash leaves of records that were never synced, and is cut off when the
    /// log is opened. Damage is anything else; the exit code is 8 then.
    Inspect,
    /// Cut it at the first damage, so that the store can be written again
    ///
    /// What is cut is put aside in files that end in .cut, and is lost to the store. A log that is
    /// whole is left as it is.
    Repair,
    /// Bring in what it holds of a writer whose store was taken over
    ///
    /// The rows become new versions of the series that they were acknowledged for, also if that was
    /// renamed. It may be interrupted and repeated; nothing comes twice. If rows have nowhere to go,
    /// nothing is brought in.
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Only tell what would be brought in
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Bring rows for a series that was removed, or that does not take them, to another; repeat for
    /// several
    #[arg(long, value_name = "SERIES=PATH")]
    pub(crate) to: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where to make the store [default: ./tidelog-demo; with --rows a temporary directory, which is
    /// removed at the end]
    pub(crate) dir: Option<String>,
    /// Make up and append so many rows, such as 3000000, 3_000_000 or 3M
    #[arg(long, value_name = "ROWS", value_parser = parse_rows)]
    pub(crate) rows: Option<u64>,
    /// Rows of an append
    #[arg(
        long, value_name = "ROWS", requires = "rows", default_value = "25000",
        value_parser = parse_batch_rows
    )]
    pub(crate) batch_size: u64,
    /// Only append, ask nothing
    #[arg(long, requires = "rows")]
    pub(crate) no_queries: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show each setting, its value, and where that comes from
    Show,
    /// Tell all that is wrong with settings
    Check {
        /// A file to look at alone [default: all that holds for the store: its file, the environment,
        /// flags]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// A series; with --follow also a glob such as '/sensors/**'
    pub(crate) path: Option<String>,
    /// Show versions as they land, one a line, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin after this commit instead of now; 0 stands for the beginning of the store
    #[arg(long, value_name = "COMMIT", requires = "follow", value_parser = parse_commit)]
    pub(crate) since: Option<CommitVersion>,
}
