//! Arguments of commands about a series.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use tidelog::{Codec, FileOrder, LayoutChange, Partition, TimeUnit};

use super::output::OutputArgs;
use super::values::parse_unit;

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

/// What is read of a series.
#[derive(Debug, Args)]
pub(crate) struct Selection {
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
    #[command(flatten)]
    pub(crate) selection: Selection,
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
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
