//! What is to be committed, and what became of it.

use std::sync::Arc;

use tidelog_core::{CommitVersion, NodeId, TransactionId, TreePath, Version, WalId, WriteTime};
use tidelog_oplog::{
    EntryType, Epoch, Expired, FileRow, LayoutChange, Merged, SeriesOptions, TakeOver, TreeRow,
    VersionRow,
};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::compact::Grown;
use crate::error::Error;
use crate::history::HistoryChange;
use crate::prepare::VersionFacts;
use crate::revise::Revision;
use crate::series_schema::SeriesSchema;
use crate::vacuum::Doomed;

/// What is to be committed.
#[derive(Debug)]
pub(crate) enum Work {
    /// Versions of one or more series, all or none.
    Append(Vec<SeriesAppend>),
    /// Changes of the tree.
    Tree(TreeChange),
    /// What was acknowledged by a write-ahead log. It is stale if it is in the log already.
    Flush(Box<Flush>),
    /// What was acknowledged under a claim that was taken over, as new versions.
    Recover(Box<Recovery>),
    /// Takes the store for this handle alone.
    Claim(Epoch),
    /// Ends a claim, or says of one that was taken over that nothing is left of it to bring in. It is
    /// stale if that is so already.
    Release(Uuid),
    /// Ends the claim of another writer. It is stale if the claim has ended.
    TakeOver(TakeOver),
    /// A run of log parts that upkeep has written. It is stale if what it merges has gone.
    Merge(Merged),
    /// Announces parts that are about to be deleted.
    Vacuum(Expired),
    /// Files of a series in the place of others with the same rows. It is stale if one of these, or the
    /// series, has gone.
    Compact(Box<Compaction>),
    /// A change of the data of a series, as a version. It is stale if it was planned without knowing of
    /// something that it decides about.
    Revise(Box<Revision>),
    /// Changes what is kept of the history.
    History(HistoryChange),
    /// Announces data files that are about to be deleted. It is stale if all are needed by now.
    VacuumFiles(Arc<[Doomed]>),
}

/// Versions of one series, prepared against the series as the caller saw it.
#[derive(Debug)]
pub(crate) struct SeriesAppend {
    pub(crate) path: TreePath,
    pub(crate) target: Target,
    pub(crate) time_column: Arc<str>,
    pub(crate) versions: Vec<(VersionFacts, TransactionId)>,
    /// Those of the ids that the caller gave, who may have written them before.
    pub(crate) given_ids: Vec<TransactionId>,
    /// File rows whose versions are still relative to the first version of the append.
    pub(crate) files: Vec<FileRow>,
    /// The puts of those files, under way.
    pub(crate) puts: Vec<JoinHandle<Result<(), Error>>>,
    /// The commit that was still to come when the first of them began.
    pub(crate) puts_since: CommitVersion,
}

/// Rows that have been acknowledged, in files that are durable, with their versions.
#[derive(Debug)]
pub(crate) struct Flush {
    /// The claim under which they were acknowledged.
    pub(crate) epoch: Uuid,
    pub(crate) wal: WalId,
    /// The last record of the write-ahead log whose rows are inside.
    pub(crate) through: u64,
    pub(crate) tree: Vec<TreeRow>,
    pub(crate) versions: Vec<Arc<VersionRow>>,
    pub(crate) files: Vec<FileRow>,
    /// The commit that was still to come when the first of the files was put.
    pub(crate) puts_since: CommitVersion,
}

/// Files of one series, durable, with the same rows as others.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) node: NodeId,
    pub(crate) path: TreePath,
    /// The files that are replaced.
    pub(crate) inputs: Vec<Arc<FileRow>>,
    /// Those in their place.
    pub(crate) outputs: Vec<FileRow>,
    /// The commit that was still to come when the first of these was put.
    pub(crate) puts_since: CommitVersion,
}

/// Rows of a write-ahead log whose claim was ended by another writer.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) wal: WalId,
    /// The last of its records whose rows are in the log. It is stale if that has changed.
    pub(crate) after: u64,
    /// The last record whose rows are inside.
    pub(crate) through: u64,
    pub(crate) appends: Vec<SeriesAppend>,
}

/// The series that an append was prepared for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    /// What the append assumes about the node.
    pub(crate) state: TargetState,
}

/// What an append assumes about its node.
#[derive(Debug, Clone)]
pub(crate) enum TargetState {
    /// It exists and has its schema.
    Existing,
    /// It exists, and the append gives it its schema.
    WithoutSchema(SeriesSchema, Arc<SeriesOptions>),
    /// Nothing is at the path; the append makes the series.
    Absent(SeriesSchema, Arc<SeriesOptions>),
}

/// A change of the tree.
#[derive(Debug, Clone)]
pub(crate) enum TreeChange {
    Create { path: TreePath, entry: EntryType, options: Option<Arc<SeriesOptions>> },
    Rename { from: TreePath, to: TreePath },
    Remove { path: TreePath, recursive: bool },
    Lay { path: TreePath, change: LayoutChange },
}

/// What landed.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    /// Of each version appended, in the order of the request.
    pub(crate) versions: Vec<(Version, WriteTime)>,
}

/// Why an intent did not land.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// The path no longer names what the append was prepared for: prepare it again.
    Stale,
    /// It failed.
    Failed(Error),
}

impl Rejected {
    /// The error for who cannot prepare anew.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Stale => Error::Closed,
        }
    }
}

impl<E: Into<Error>> From<E> for Rejected {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Work {
    pub(super) fn path(&self) -> TreePath {
        match self {
            Self::Append(appends) => {
                appends.first().map_or_else(TreePath::root, |append| append.path.clone())
            }
            Self::Tree(
                TreeChange::Create { path, .. }
                | TreeChange::Rename { from: path, .. }
                | TreeChange::Remove { path, .. }
                | TreeChange::Lay { path, .. },
            ) => path.clone(),
            Self::Compact(compaction) => compaction.path.clone(),
            Self::Revise(revision) => revision.path.clone(),
            Self::Flush(_)
            | Self::Recover(_)
            | Self::Claim(_)
            | Self::Release(_)
            | Self::TakeOver(_)
            | Self::Merge(_)
            | Self::Vacuum(_)
            | Self::History(_)
            | Self::VacuumFiles(_) => TreePath::root(),
        }
    }

    /// The series to which it adds rows in files, once for each file.
    pub(super) fn series_with_new_files(&self) -> Vec<Grown> {
        let of_append = |append: &SeriesAppend| {
            let is_new = !matches!(append.target.state, TargetState::Existing);
            let of_file = move |file: &FileRow| Grown { node: file.node, is_new };
            append.files.iter().map(of_file).collect::<Vec<_>>()
        };
        let of_flush =
            |file: &FileRow| Grown { node: file.node, is_new: file.min_version == Version::FIRST };
        match self {
            Self::Append(appends) => appends.iter().flat_map(of_append).collect(),
            Self::Recover(recovery) => recovery.appends.iter().flat_map(of_append).collect(),
            Self::Flush(flush) => flush.files.iter().map(of_flush).collect(),
            Self::Revise(revision) => {
                let of_file = |file: &FileRow| Grown { node: file.node, is_new: false };
                revision.files.put().map(of_file).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Files that must be durable before the commit.
    pub(super) fn puts(&mut self) -> impl Iterator<Item = JoinHandle<Result<(), Error>>> + '_ {
        let appends = match self {
            Self::Append(appends) => appends.as_mut_slice(),
            Self::Recover(recovery) => recovery.appends.as_mut_slice(),
            _ => &mut [],
        };
        appends.iter_mut().flat_map(|append| append.puts.drain(..))
    }

    pub(super) fn transaction(&self) -> Option<TransactionId> {
        match self {
            Self::Append(appends) => Some(appends.first()?.versions.first()?.1),
            Self::Flush(flush) => Some(flush.versions.first()?.transaction),
            Self::Recover(recovery) => Some(recovery.appends.first()?.versions.first()?.1),
            Self::Revise(revision) => Some(revision.transaction),
            Self::Tree(_)
            | Self::Claim(_)
            | Self::Release(_)
            | Self::TakeOver(_)
            | Self::Merge(_)
            | Self::Vacuum(_)
            | Self::Compact(_)
            | Self::History(_)
            | Self::VacuumFiles(_) => None,
        }
    }
}
