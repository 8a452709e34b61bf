//! The four families of log rows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use tidelog_core::{
    CommitVersion, FileId, NodeId, SnapshotName, TimeRange, TransactionId, TreePath, Version,
    WriteTime,
};
use uuid::Uuid;

use crate::column_stats::{put_number, take_number};
use crate::epoch::{Epoch, TakeOver};
use crate::hash::Hash128;
use crate::history::Horizon;
use crate::layout::{Codec, FileOrder};
use crate::options::SeriesOptions;

/// What a node of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryType {
    /// A directory.
    Directory,
    /// A series.
    FileSeries,
    /// Opaque bytes.
    FileData,
}

/// What happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeOp {
    /// It came to be at `path`.
    Create,
    /// It moved to `path`, with all below it.
    Rename,
    /// It was removed from `path`, with all below it.
    Delete,
    /// Its schema or options changed.
    Set,
}

/// A change of the tree.
#[derive(Debug, Clone)]
pub struct TreeRow {
    /// What happened.
    pub op: TreeOp,
    /// To which node.
    pub node: NodeId,
    /// What the node is.
    pub entry: EntryType,
    /// Its path after the operation (before it, for a delete).
    pub path: TreePath,
    /// When it was recorded.
    pub timestamp: WriteTime,
    /// The schema from now on, for a create or set of a series.
    pub schema: Option<SchemaRef>,
    /// The options from now on, for a create or set of a series.
    pub options: Option<Arc<SeriesOptions>>,
    /// The commit that holds the row.
    pub commit: CommitVersion,
}

/// What happened to the store as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// These objects, relative to the store's root, are about to be deleted. A writer that has put
    /// one of them and has not committed it yet writes it anew under another name.
    Vacuum {
        /// The objects.
        objects: Vec<String>,
    },
    /// One writer alone numbers versions and changes the tree from here on.
    Claim(Epoch),
    /// The claim of this id has ended: any number of writers may write. If it was taken over before,
    /// what its owner had left is brought in.
    Release(Uuid),
    /// A claim has been ended by another writer.
    TakeOver(TakeOver),
    /// The store as it is now has a name by which it stays readable.
    Snapshot(SnapshotName),
    /// A snapshot has lost its name.
    DropSnapshot(SnapshotName),
    /// Versions of a series before this one cannot be read any more, but for named snapshots.
    Horizon(Horizon),
}

/// A row about the store as a whole.
#[derive(Debug, Clone)]
pub struct StoreRow {
    /// What happened.
    pub op: StoreOp,
    /// When it was recorded.
    pub timestamp: WriteTime,
    /// The commit that holds the row.
    pub commit: CommitVersion,
}

/// What a version did to its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionOp {
    /// Rows were added.
    Append,
    /// Rows were removed.
    Delete,
    /// Rows were removed and others added in their place.
    Replace,
    /// An earlier state was brought back.
    Restore,
}

impl VersionOp {
    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Delete => "delete",
            Self::Replace => "replace",
            Self::Restore => "restore",
        }
    }
}

/// One version of a series.
#[derive(Debug, Clone)]
pub struct VersionRow {
    /// What it did.
    pub op: VersionOp,
    /// The series.
    pub node: NodeId,
    /// The series' path when the version was made.
    pub path: TreePath,
    /// Its number.
    pub version: Version,
    /// When it was recorded.
    pub timestamp: WriteTime,
    /// How many rows it added.
    pub rows: u64,
    /// The event times of what it changed: of the rows that it added, and of those that it ended.
    pub range: Option<TimeRange>,
    /// The series' time column.
    pub time_column: Arc<str>,
    /// The caller's write.
    pub transaction: TransactionId,
    /// What was asked for, as JSON, if it was more than to add rows.
    pub detail: Option<Arc<str>>,
    /// The commit that holds the row.
    pub commit: CommitVersion,
}

/// Whether a file begins or ceases to be part of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOp {
    /// It begins to be.
    Add,
    /// It ceases to be.
    Remove,
}

/// The versions that have replaced or deleted the rows of a file: a row is visible before its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All rows ended with this version. The file says nothing of it.
    All(Version),
    /// Each row says in its column `__until` which it was.
    Each {
        /// The lowest of them.
        first: Version,
        /// The highest.
        last: Version,
    },
}

impl Until {
    /// The version from which on some row is not visible any more.
    #[must_use]
    pub const fn first(self) -> Version {
        match self {
            Self::All(version) => version,
            Self::Each { first, .. } => first,
        }
    }

    /// The version from which on no row is visible any more.
    #[must_use]
    pub const fn last(self) -> Version {
        match self {
            Self::All(version) => version,
            Self::Each { last, .. } => last,
        }
    }

    /// Whether the file has the column `__until`.
    #[must_use]
    pub const fn is_of_each(self) -> bool {
        matches!(self, Self::Each { .. })
    }
}

/// A data file of a series.
#[derive(Debug, Clone)]
pub struct FileRow {
    /// Added or removed.
    pub op: FileOp,
    /// The file's id.
    pub file: FileId,
    /// The series.
    pub node: NodeId,
    /// The series' path when the row was made.
    pub path: TreePath,
    /// When it was recorded.
    pub timestamp: WriteTime,
    /// The object, relative to the store's root.
    pub location: Arc<str>,
    /// The object's size in bytes.
    pub size: u64,
    /// Its rows.
    pub rows: u64,
    /// Its row groups.
    pub row_groups: u32,
    /// Bytes from the start of the page index to the end of the object.
    pub tail_length: u64,
    /// The hash of the whole object.
    pub hash: Hash128,
    /// The hash of the tail.
    pub tail_hash: Hash128,
    /// Short hashes of the pages, in the order of their offsets.
    pub page_hashes: Bytes,
    /// The event times of its rows.
    pub range: TimeRange,
    /// The lowest version that has rows here.
    pub min_version: Version,
    /// The highest version that has rows here.
    pub max_version: Version,
    /// What is added to the stored `__version` of a row to get its version.
    pub version_base: i64,
    /// The time partition that it lies in, if the series has any.
    pub partition: Option<Arc<str>>,
    /// The order of its rows.
    pub order: FileOrder,
    /// Of a file whose rows have all been replaced or deleted by later versions, by which.
    pub until: Option<Until>,
    /// Whether no two of its rows share key and event time.
    pub unique: bool,
    /// Statistics of its columns, encoded.
    pub column_stats: Bytes,
    /// How it was asked to be compressed.
    pub codec: Codec,
    /// How many rows a row group of it was asked to have at most.
    pub row_group_rows: u32,
    /// Of a file in another order than that of event time, the lengths of the stretches that are in
    /// that order, encoded ([`FileRow::run_rows`]); empty if there are too many.
    pub runs: Arc<[u8]>,
    /// The commit that holds the row.
    pub commit: CommitVersion,
}

impl FileRow {
    /// Whether its object was part of the series before, under another id: all its rows have ended
    /// since, and nothing was written anew.
    #[must_use]
    pub fn is_of_older_object(&self) -> bool {
        matches!(self.until, Some(Until::All(_))) && !self.location.contains(&self.file.to_string())
    }

    /// Rows of each stretch of the file, from its first row on, that is in order of event time; `None`
    /// if that is not known.
    #[must_use]
    pub fn run_rows(&self) -> Option<Vec<u64>> {
        if self.order == FileOrder::Time {
            return Some(vec![self.rows]);
        }
        let runs = decode_runs(&self.runs)?;
        let rows = runs.iter().try_fold(0_u64, |rows, run| rows.checked_add(*run));
        (rows == Some(self.rows)).then_some(runs)
    }
}

/// The lengths of runs, each as LEB128.
#[must_use]
pub fn encode_runs(runs: &[u64]) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(runs.len() * 3);
    for run in runs {
        put_number(&mut bytes, *run);
    }
    bytes.into()
}

fn decode_runs(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let mut runs = Vec::new();
    while !bytes.is_empty() {
        runs.push(take_number(&mut bytes)?);
    }
    Some(runs)
}

/// A row of the log.
#[derive(Debug, Clone)]
pub enum Row {
    /// A change of the tree.
    Tree(TreeRow),
    /// A row about the store.
    Store(StoreRow),
    /// A version of a series.
    Version(VersionRow),
    /// A data file added or removed.
    File(FileRow),
}

impl Row {
    /// The node that the row is about, if it is about one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::Tree(row) => Some(row.node),
            Self::Store(_) => None,
            Self::Version(row) => Some(row.node),
            Self::File(row) => Some(row.node),
        }
    }

    /// When the row was recorded.
    #[must_use]
    pub fn timestamp(&self) -> WriteTime {
        match self {
            Self::Tree(row) => row.timestamp,
            Self::Store(row) => row.timestamp,
            Self::Version(row) => row.timestamp,
            Self::File(row) => row.timestamp,
        }
    }

    pub(crate) fn commit(&self) -> CommitVersion {
        match self {
            Self::Tree(row) => row.commit,
            Self::Store(row) => row.commit,
            Self::Version(row) => row.commit,
            Self::File(row) => row.commit,
        }
    }

    pub(crate) fn set_commit(&mut self, commit: CommitVersion) {
        match self {
            Self::Tree(row) => row.commit = commit,
            Self::Store(row) => row.commit = commit,
            Self::Version(row) => row.commit = commit,
            Self::File(row) => row.commit = commit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_survive_and_cut_bytes_are_refused() {
        let runs = [1, 127, 128, 300_000, u64::MAX];
        let bytes = encode_runs(&runs);
        assert_eq!(decode_runs(&bytes).as_deref(), Some(runs.as_slice()));
        assert_eq!(decode_runs(&bytes[..bytes.len() - 1]), None);
    }
}
