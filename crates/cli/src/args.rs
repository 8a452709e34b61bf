//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidelog::{Codec, CommitVersion, FileOrder, LayoutChange, Partition, TimeUnit};

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

#[derive(Debug, Subcommand)]
pub(crate) enum SeriesCommand {
    /// Make an empty series; its columns are fixed by its first version
    Create(CreateArgs),
    /// Change how the files of a series are laid out; `compact` rewrites those that are there
    Set(SetArgs),
    /// Append files to a series, each as one version; the series is made if it is missing
    ///
    /// Text files, once the series has a version, are read with its columns. Before: numbers are
    /// Float64 (whole numbers that it cannot hold exactly, and whole numbers in the time column and
    /// in key columns, are Int64), times such as 2024-01-31T12:00:00Z are timestamps in UTC (also
    /// where no zone is given), empty fields and NA are null, a column of nulls is Float64, all
    /// else is text.
    ///
    /// If a file is wrong, the files before it stay stored, it and those after it do not.
    Append(AppendArgs),
    /// Read a series, or all series that match a glob, in order of event time
    Query(QueryArgs),
    /// Read the newest row of each key of a series, in order of the keys
    ///
    /// Of rows that share the newest event time it is any one. Of several series it is the newest row of
    /// each.
    Latest(LatestArgs),
    /// Delete rows of a series, as one new version
    ///
    /// What was there stays readable as of the versions before, and `series restore` brings it back. If no
    /// row is to be deleted, nothing is stored.
    Delete(DeleteArgs),
    /// Put the rows of a file in the place of those in a range of event time, as one new version
    ///
    /// A row of the file outside the range is an error, and then nothing is changed.
    Replace(ReplaceArgs),
    /// Make the rows of a series those that are readable as of an earlier point, as one new version
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
#[group(id = "rows", required = true, multiple = true)]
pub(crate) struct DeleteWhich {
    /// From this event time on: RFC 3339, a date, now, or a time before now such as -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Up to this event time, included; a date stands for its last instant
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// Only rows for which this SQL condition holds; null is not true
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The series
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) which: DeleteWhich,
}

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// The series
    pub(crate) path: String,
    /// A CSV or Parquet file; - is CSV on standard input
    pub(crate) file: PathBuf,
    /// From this event time on: RFC 3339, a date, now, or a time before now such as -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: String,
    /// Up to this event time, included; a date stands for its last instant
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: String,
    /// The file's format [default: by its name]
    #[arg(long, value_enum)]
    pub(crate) format: Option<InputFormat>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The series
    pub(crate) path: String,
    /// The point in history: a version (v5), a write time in RFC 3339, or the name of a snapshot
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The series
    pub(crate) path: String,
    /// The column that holds event time [default: found by name and type at the first append]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) time_column: Option<String>,
    /// The unit of a time column of whole numbers: s, ms, us or ns
    #[arg(long, value_name = "UNIT", value_parser = parse_unit)]
    pub(crate) unit: Option<TimeUnit>,
    /// A column that says who a row is about; repeat for several
    #[arg(long = "key", value_name = "COLUMN")]
    pub(crate) keys: Vec<String>,
    /// Keep one row for each key and event time: that of the highest version
    #[arg(long)]
    pub(crate) dedup: bool,
    #[command(flatten)]
    pub(crate) layout: LayoutFlags,
}

#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The series
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) layout: LayoutFlags,
}

/// How the files of a series are laid out.
#[derive(Debug, Args)]
pub(crate) struct LayoutFlags {
    /// The order of rows in files: time, or key,time, where few keys of many are asked for
    #[arg(long, value_name = "ORDER")]
    pub(crate) order: Option<FileOrder>,
    /// Files do not cross the borders of these stretches of the calendar, in UTC: none, day, week,
    /// month or year
    #[arg(long, value_name = "STRETCH")]
    pub(crate) partition: Option<Partition>,
    /// How columns are compressed: auto, zstd, zstd:LEVEL, lz4 or none
    #[arg(long, value_name = "CODEC")]
    pub(crate) codec: Option<Codec>,
    /// Rows of a row group at most
    #[arg(long, value_name = "ROWS")]
    pub(crate) row_group: Option<u32>,
}

impl LayoutFlags {
    /// What is to change.
    pub(crate) fn change(&self) -> LayoutChange {
        let mut change = LayoutChange::default();
        change.order = self.order;
        change.partition = self.partition;
        change.codec = self.codec;
        change.row_group_rows = self.row_group;
        change
    }
}

#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// The series
    pub(crate) path: String,
    /// CSV and Parquet files; - is CSV on standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The column that holds event time [default: timestamp, event_time, time, ts or datetime, else
    /// the only column of timestamps]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) time_column: Option<String>,
    /// The unit of a time column of whole numbers: s, ms, us or ns
    #[arg(long, value_name = "UNIT", value_parser = parse_unit)]
    pub(crate) unit: Option<TimeUnit>,
    /// The files' format [default: by their names]
    #[arg(long, value_enum)]
    pub(crate) format: Option<InputFormat>,
}

/// What a file to append is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Apache Parquet
    Parquet,
    /// Comma-separated text, UTF-8, with a header line
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// A series, or a glob such as '/sensors/*' that adds a column _path
    pub(crate) path: String,
    /// From this event time on: RFC 3339, a date, now, or a time before now such as -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Up to this event time, included; a date stands for its last instant
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// The point in history: a version (v5), a write time in RFC 3339, or the name of a snapshot
    /// [default: head]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub(crate) as_of: Option<String>,
    /// Only these columns, in this order
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) columns: Option<Vec<String>>,
    /// Only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,
    /// Order by this column instead of event time; :desc turns it round; repeat for several
    #[arg(long, value_name = "COLUMN[:desc]", conflicts_with = "desc")]
    pub(crate) order_by: Vec<String>,
    /// At most this many rows
    #[arg(long, value_name = "ROWS")]
    pub(crate) limit: Option<usize>,
    /// Newest first
    #[arg(long)]
    pub(crate) desc: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LatestArgs {
    /// A series, or a glob such as '/sensors/*' that adds a column _path
    pub(crate) path: String,
    /// The columns of whose values each has a newest row [default: the key columns of the series; of a
    /// glob, _path]
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) by: Option<Vec<String>>,
    /// Only rows from this event time on: RFC 3339, a date, now, or a time before now such as -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Option<String>,
    /// Only rows up to this event time, included; a date stands for its last instant
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
    /// The point in history: a version (v5), a write time in RFC 3339, or the name of a snapshot
    /// [default: head]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    pub(crate) as_of: Option<String>,
    /// Only these columns, in this order
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) columns: Option<Vec<String>>,
    /// Only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL", allow_hyphen_values = true)]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Where rows go, and how.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// The form of the rows [default: by the name of the file to write, else table]
    ///
    /// On a terminal a table shows the first 40 rows and the columns that fit; written to a pipe or
    /// a file it has all. Nulls are empty in tables and in CSV.
    #[arg(long, value_enum)]
    pub(crate) format: Option<OutputFormat>,
    /// Write to this file, which appears only when it is complete; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// The form of rows that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A table to look at
    Table,
    /// Comma-separated text with a header line
    Csv,
    /// One JSON object a line
    Json,
    /// Apache Parquet; to a file or a pipe
    Parquet,
    /// Arrow IPC: the file format to a file, the stream format to a pipe
    Arrow,
}

fn parse_commit(text: &str) -> Result<CommitVersion, String> {
    let number = text.parse().ok().filter(|number| *number >= 0).map(CommitVersion::new);
    number.ok_or_else(|| format!("{text:?} is not the number of a commit, such as `log` shows"))
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time; write such as 0s, 90m, 24h or 7d");
    // A number alone counts nothing.
    let span: jiff::SignedDuration = match text.strip_suffix('d').map(str::parse::<u32>) {
        Some(Ok(days)) => jiff::SignedDuration::from_hours(i64::from(days) * 24),
        _ => text.parse().map_err(|_| wrong())?,
    };
    Duration::try_from(span).map_err(|_| wrong())
}

fn parse_unit(text: &str) -> Result<TimeUnit, String> {
    text.parse::<TimeUnit>().map_err(|error| error.to_string())
}

/// More rows than any disk at hand holds are a slip of the keyboard.
const DEMO_ROWS_MAX: u64 = 10_000_000_000;
const DEMO_BATCH_ROWS_MAX: u64 = 10_000_000;

fn parse_rows(text: &str) -> Result<u64, String> {
    parse_count(text, DEMO_ROWS_MAX)
}

fn parse_batch_rows(text: &str) -> Result<u64, String> {
    parse_count(text, DEMO_BATCH_ROWS_MAX)
}

/// Reads a number of things from 1 to `max`: `25000`, `25_000`, `25k`, `3M`, `1G`.
fn parse_count(text: &str, max: u64) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => Some(1),
        "k" | "K" => Some(1_000),
        "m" | "M" => Some(1_000_000),
        "g" | "G" => Some(1_000_000_000),
        _ => None,
    };
    let number = number.replace('_', "").parse::<u64>().ok();
    let count = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    count.filter(|count| (1..=max).contains(count)).ok_or_else(|| {
        format!("{text:?} is not a number of rows from 1 to {max}; write such as 25000, 25_000, 3M")
    })
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
    fn numbers_of_rows_are_read() {
        for (text, rows) in [("1", 1), ("25_000", 25_000), ("25k", 25_000), ("3M", 3_000_000)] {
            assert_eq!(parse_rows(text), Ok(rows), "{text}");
        }
        for bad in ["", "0", "-1", "1.5M", "1e6", "k", "_", "3 M", "99999999999", "99999999999G"] {
            assert!(parse_rows(bad).is_err(), "{bad}");
        }
        assert!(parse_batch_rows("11M").is_err());
    }

    #[test]
    fn ages_are_read() {
        for (text, seconds) in [("0s", 0), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "7", "-1h", "d", "-7d", "soon", "1.5d"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
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
