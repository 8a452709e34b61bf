//! What can be typed.
//!
//! - `store`: arguments of commands about a whole store
//! - `series`: of commands about a series
//! - `output`: where rows go
//! - `values`: numbers, ages and units
//!
//! Here: the commands, and the options of all of them.

mod output;
mod series;
mod store;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::output::{OutputArgs, OutputFormat};
pub(crate) use self::series::{
    AppendArgs, CreateArgs, DeleteArgs, InputFormat, LatestArgs, QueryArgs, ReplaceArgs,
    RestoreArgs, SeriesCommand, SetArgs,
};
pub(crate) use self::store::{
    ConfigCommand, DemoArgs, ExpireArgs, LayoutArgs, LogArgs, RecoverArgs, SnapshotCommand,
    VacuumArgs, WalCommand,
};
use crate::settings::SettingFlags;

const EXIT_CODES: &str = "\
Exit codes:
    0  done                   7  not supported by this build
    2  usage                  8  stored data are damaged
    3  wrong input            9  disk or network failed
    4  not found             10  a limit was reached
    5  exists already        11  not known whether it was stored
    6  other writers won     12  let go while it was read
   13  permission denied     70  a bug of Tidelog
                            130  interrupted";

pub(crate) const GLOBAL: &str = "Global options";

/// A versioned, filesystem-style store for time series.
///
/// Every append to a series is a version that stays readable. Paths are absolute, such as
/// /sensors/temperature.series; a glob such as '/sensors/**' names many.
#[derive(Debug, Parser)]
#[command(name = "tidelog", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
    /// Read settings from this file, whose name ends in .toml or .json [default: tidelog.toml or
    /// tidelog.json in the directory of the store] [env: TIDELOG_CONFIG]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// An option of a remote store, such as region=eu-west-1; repeat for several. Others can see
    /// arguments: put secrets into the environment, such as AWS_SECRET_ACCESS_KEY
    #[arg(long = "storage-option", global = true, help_heading = GLOBAL, value_name = "NAME=VALUE")]
    pub(crate) storage_options: Vec<String>,
    /// Print JSON: one document, or for `series query`, `series latest`, `sql` and `log --follow` one object a line
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,
    /// Take the store from a process that has it alone and cannot be reached from here, or shows no
    /// sign of life. What it acknowledged and did not write to files is left in its write-ahead log;
    /// `wal recover` brings that in
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) take_over: bool,
    /// Trace what is done, to stderr (RUST_LOG says more precisely what)
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an empty store
    Init,
    /// List what is in a directory, or what matches a glob
    Ls {
        /// Show versions, rows, bytes and event times too
        #[arg(short, long)]
        long: bool,
        /// A path, for what is in it, or a glob such as '/sensors/**', for what matches
        #[arg(default_value = "/")]
        glob: String,
    },
    /// Tell all about a series or directory
    Describe {
        /// The path
        path: String,
    },
    /// Draw the files of a series over event time: versions, sizes, what overlaps
    Layout(LayoutArgs),
    /// Show all operations of the store, or the versions of one series; newest last
    Log(LogArgs),
    /// Count what is in the store
    Stats,
    /// Keep the log short: merge it, write a checkpoint, delete what nobody can want any more
    ///
    /// No answer changes, and readers and writers may go on meanwhile. Commands that write do a
    /// step of it by themselves when the log needs it, and programs that use the library do it in
    /// the background.
    Maintain {
        /// Merge the whole log into one sorted run
        #[arg(long)]
        full: bool,
    },
    /// Merge the files of series until they are few, large and in order of event time
    ///
    /// No answer changes, and readers and writers may go on meanwhile. Programs that use the library do
    /// what pays of it in the background. The files that were merged stay until they are vacuumed.
    Compact {
        /// A path, or a glob
        #[arg(default_value = "/**")]
        pattern: String,
        /// Say what would be merged and why, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Give the store as it is a name by which it stays readable, list such names, or take one away
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Let go of the history of series; what is read at head does not change
    ///
    /// What lies before cannot be read any more as of a version or a time; a snapshot that was made
    /// while it could still shows it. No file is deleted. It cannot be undone.
    Expire(ExpireArgs),
    /// Tell which data files nothing can read any more, or delete them (--apply)
    ///
    /// These are files whose rows have been written to others, that only history needed which was let go
    /// (`expire`), or that belong to writes which failed. What a snapshot shows is kept. No answer
    /// changes; readers and writers may go on meanwhile.
    Vacuum(VacuumArgs),
    /// Check all that is stored, also if it is too damaged to be opened; nothing is written
    ///
    /// The log is read and checked whole; of data files it is checked that each is there and has
    /// its size, and the write-ahead log, if there is one here. All damage is told, each with the object, the series, the versions, what is wrong
    /// and what to do; the exit code is 8 if there is any. Objects that nothing names are no damage.
    Fsck {
        /// Read every byte of the data files too
        #[arg(long)]
        deep: bool,
    },
    /// Look at the write-ahead log of `--mode exclusive`, cut a damaged one, bring in what it holds
    #[command(subcommand)]
    Wal(WalCommand),
    /// Show how much is in memory and in the write-ahead log of the process that has the store alone
    Tiers {
        /// Show it again every second, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Show or check the settings, and who has said them
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a directory, with its parents
    Mkdir {
        /// The path
        path: String,
    },
    /// Move or rename; a series keeps its versions
    Mv {
        /// What to move
        from: String,
        /// Where to; nothing may be there
        to: String,
    },
    /// Remove from head; what was there stays readable as of an earlier time
    Rm {
        /// Remove a directory with all below it
        #[arg(short, long)]
        recursive: bool,
        /// The path
        path: String,
    },
    /// Create, append to and query series
    #[command(subcommand)]
    Series(SeriesCommand),
    /// Run one SQL statement
    ///
    /// A series is a table by its quoted path: SELECT * FROM "/sensors/temperature.series". Table
    /// functions: series('/glob/*', 'as of') and series_versions('/path'). The log is the tables
    /// tidelog.tree, tidelog.versions, tidelog.files and tidelog.store; tidelog.tiers tells what is in
    /// memory.
    Sql {
        /// The statement; - reads it from standard input
        statement: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the main job on real data: a year of weather at three airports
    ///
    /// With --rows, show many rows at speed instead: rows are made up and appended, batch by batch, to
    /// a store that this process has alone, and asked for; every answer is compared with what was made.
    /// --mode says which rows: simple has 4 columns, trading has 8.
    Demo(DemoArgs),
}

impl Command {
    /// Whether the command changes a store.
    pub(crate) fn writes(&self) -> bool {
        match self {
            Self::Init | Self::Mkdir { .. } | Self::Mv { .. } | Self::Rm { .. } => true,
            Self::Series(series) => {
                !matches!(series, SeriesCommand::Query(_) | SeriesCommand::Latest(_))
            }
            // What is in a temporary directory is gone afterwards.
            Self::Demo(DemoArgs { rows: Some(_), dir: None, .. }) => false,
            Self::Demo(_)
            | Self::Maintain { .. }
            | Self::Expire(_)
            | Self::Vacuum(VacuumArgs { apply: true, .. })
            | Self::Wal(WalCommand::Repair) => true,
            Self::Snapshot(snapshot) => !matches!(snapshot, SnapshotCommand::Ls),
            Self::Wal(WalCommand::Recover(args)) => !args.dry_run,
            Self::Compact { dry_run, .. } => !dry_run,
            Self::Sql { statement, .. } => {
                let verb = statement.split_whitespace().next().unwrap_or_default();
                ["insert", "copy", "-"].contains(&verb.to_ascii_lowercase().as_str())
            }
            Self::Ls { .. }
            | Self::Describe { .. }
            | Self::Layout(_)
            | Self::Log(_)
            | Self::Stats
            | Self::Tiers { .. }
            | Self::Config(_)
            | Self::Wal(WalCommand::Inspect)
            | Self::Vacuum(_)
            | Self::Fsck { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_before_now_are_values_and_not_flags() {
        let cli = Cli::try_parse_from([
            "tidelog",
            "series",
            "query",
            "/a",
            "--from",
            "-7d",
            "--to",
            "now",
            "--order-by",
            "b:desc",
        ])
        .unwrap();
        let Command::Series(SeriesCommand::Query(query)) = cli.command else { panic!() };
        assert_eq!(query.from.as_deref(), Some("-7d"));
        assert_eq!(query.order_by, ["b:desc"]);
    }

    #[test]
    fn history_is_let_go_by_one_rule() {
        for (rule, count, before) in
            [(["--keep-versions", "5"], Some(5), None), (["--before", "-30d"], None, Some("-30d"))]
        {
            let args = ["tidelog", "expire", "/a"].into_iter().chain(rule);
            let Command::Expire(expire) = Cli::try_parse_from(args).unwrap().command else {
                panic!()
            };
            assert_eq!((expire.path.as_str(), expire.keep_versions), ("/a", count));
            assert_eq!(expire.before.as_deref(), before);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for args in [
            vec!["tidelog", "series", "append", "/a"],
            vec!["tidelog", "series", "create", "/a", "--unit", "weeks"],
            vec!["tidelog", "series", "query", "/a", "--desc", "--order-by", "b"],
            vec!["tidelog", "ls", "--memory", "much"],
            vec!["tidelog", "expire", "/a"],
            vec!["tidelog", "expire", "/a", "--keep-versions", "1", "--before", "v2"],
            vec!["tidelog", "vacuum", "--apply", "--dry-run"],
            vec!["tidelog", "vacuum", "--older-than", "long"],
            vec!["tidelog", "demo", "--no-queries"],
            vec!["tidelog", "demo", "--batch-size", "10"],
            vec!["tidelog", "demo", "--rows", "many"],
            vec!["tidelog", "ls", "--mode", "both"],
            vec!["tidelog", "ls", "--durability", "interval"],
            vec!["tidelog", "ls", "--preset", "huge"],
        ] {
            assert!(Cli::try_parse_from(&args).is_err(), "{args:?}");
        }
    }
}
