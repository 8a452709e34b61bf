//! Where rows go, and in what form.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
