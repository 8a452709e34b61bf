//! What a scan reads and what its columns mean, fixed when the table is planned.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use tidelog_core::TimeUnit;
use tidelog_store::{Engine, FileReaders};

use super::files::ScanFile;
use super::layout::{Segment, balance};
use super::tiers::TieredSource;

/// What a scan reads and what may be said about it; fixed when the table is planned.
#[derive(Debug)]
pub(crate) struct ScanFacts {
    /// The path or glob, and the point in history if it is not the head.
    pub(crate) title: String,
    pub(crate) versions: Kept,
    pub(crate) files: Kept,
    /// Row groups of files.
    pub(crate) row_groups: u64,
    /// Rows of files and of pieces in memory.
    pub(crate) rows: u64,
    pub(crate) hot: Hot,
    /// The kept files and pieces in memory, in order of event time.
    pub(crate) by_time: Vec<ScanFile>,
    pub(crate) url: ObjectStoreUrl,
    /// A source without projection or predicate, over stored and partition columns.
    pub(crate) template: TieredSource,
    pub(crate) readers: FileReaders,
    pub(crate) roles: Roles,
    pub(crate) partitions: usize,
    /// The store, of which some files may be warm.
    pub(crate) engine: Engine,
}

/// How many of how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) kept: u64,
    pub(crate) of: u64,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kept, self.of)
    }
}

/// How much of a scan lies in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hot {
    pub(crate) pieces: u64,
    pub(crate) rows: u64,
}

impl fmt::Display for Hot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = if self.pieces == 1 { "piece" } else { "pieces" };
        write!(f, "{} {pieces} {} rows", self.pieces, self.rows)
    }
}

/// Which columns of the table schema have a meaning.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    /// The time column, if all series of the scan share one.
    pub(crate) time: Option<TimeRole>,
    pub(crate) keys: Vec<String>,
    /// Whether rows are deduplicated.
    pub(crate) dedup: bool,
    /// Whether ties of event time are ordered by key and version (one series only).
    pub(crate) ordered_ties: bool,
}

/// The time column.
#[derive(Debug, Clone)]
pub(crate) struct TimeRole {
    pub(crate) name: String,
    pub(crate) unit: TimeUnit,
}

/// The expression for a row's version: stored relative to its file.
pub(crate) fn version_expr(table: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(BinaryExpr::new(
        Arc::new(Column::new_with_schema(tidelog_store::VERSION_COLUMN, table)?),
        Operator::Plus,
        Arc::new(Column::new_with_schema(VERSION_BASE_COLUMN, table)?),
    )))
}

/// The partition column with the number that is added to a file's stored versions.
pub(crate) const VERSION_BASE_COLUMN: &str = "__version_base";
/// The partition column with the newest visible version of a file's series.
pub(crate) const VISIBLE_COLUMN: &str = "__visible";

/// What of a scan is in files and what in memory, as counts.
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) row_groups: u64,
    pub(crate) rows: u64,
    pub(crate) hot: Hot,
}

impl Counts {
    pub(crate) fn of(files: &[ScanFile]) -> Self {
        let (hot, cold): (Vec<&ScanFile>, Vec<&ScanFile>) = files.iter().partition(|f| f.hot);
        let rows = |files: &[&ScanFile]| files.iter().map(|file| file.row.rows).sum::<u64>();
        let hot_rows = rows(&hot);
        Self {
            files: cold.len() as u64,
            row_groups: cold.iter().map(|file| u64::from(file.row.row_groups)).sum(),
            rows: rows(&cold) + hot_rows,
            hot: Hot { pieces: hot.len() as u64, rows: hot_rows },
        }
    }
}

impl ScanFacts {
    /// The tiers that the scan reads.
    pub(crate) fn tiers(&self) -> &'static str {
        match (self.hot.pieces, self.files.kept) {
            (0, _) => "cold",
            (_, 0) => "hot",
            _ => "hot+cold",
        }
    }

    pub(super) fn parallel_groups(&self) -> Vec<FileGroup> {
        let runs = self.by_time.iter().map(|file| Segment::Run(vec![file.clone()])).collect();
        balance(runs, self.partitions)
            .into_iter()
            .map(|segments| {
                let files = segments.into_iter().flat_map(|segment| match segment {
                    Segment::Run(files) => files,
                    Segment::Cluster(chains) => chains.into_iter().flatten().collect(),
                });
                group(files.collect())
            })
            .collect()
    }
}

/// Whether no row can stand in another's place: each file is free of duplicates, and none overlap.
pub(crate) fn is_clean(by_time: &[ScanFile]) -> bool {
    by_time.iter().all(|file| file.clean)
        && by_time.windows(2).all(|pair| pair[0].range().end() < pair[1].range().start())
}

/// Of each file whether no row of another can stand in the place of one of its rows, nor two of its own
/// in one another's.
pub(super) fn apart(by_time: &[ScanFile]) -> Vec<bool> {
    let mut until = None;
    let mut apart: Vec<bool> = Vec::with_capacity(by_time.len());
    for file in by_time {
        let range = file.range();
        let overlaps = until.is_some_and(|until| range.start() <= until);
        if let Some(before) = apart.last_mut().filter(|_| overlaps) {
            *before = false;
        }
        apart.push(file.clean && !overlaps);
        until = until.max(Some(range.end()));
    }
    apart
}

pub(super) fn group(files: Vec<ScanFile>) -> FileGroup {
    FileGroup::new(files.into_iter().map(|file| file.file).collect())
}
