//! What can go wrong when a store is written or read.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tidelog_core::{
    ErrorKind, PathError, SnapshotNameError, TimeError, TreePath, Version, WriteTime,
};
use tidelog_oplog::History;
use tidelog_storage::{kind_of, object_store};

use crate::memory::MEMORY_BYTES_MIN;

/// An error of the engine. Unless it says otherwise, nothing was stored.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not a path or a pattern.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A text is not a time, a range or a version.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// Nothing is at the path.
    #[error("there is nothing at {path}{}; see what is there with `ls`", at_words(at))]
    NotFound {
        /// The path.
        path: TreePath,
        /// The point in history that was asked for, if not the head.
        at: Option<String>,
    },
    /// No series with rows matches a glob.
    #[error("no series with a version matches {pattern}; see what is there with `ls`")]
    NoMatch {
        /// The glob.
        pattern: String,
    },
    /// What is at the path is of another kind.
    #[error("{path} is not a {expected}; name a {expected}")]
    WrongEntry {
        /// The path.
        path: TreePath,
        /// What was needed.
        expected: &'static str,
    },
    /// The path leads through something that is not a directory.
    #[error("{path} lies below {through}, which is not a directory; choose another path")]
    ThroughEntry {
        /// The path.
        path: TreePath,
        /// What is in the way.
        through: TreePath,
    },
    /// The path is taken.
    #[error("{path} exists already; choose another path, or remove it first")]
    AlreadyExists {
        /// The path.
        path: TreePath,
    },
    /// A directory that is to be removed holds something.
    #[error("{path} is a directory that is not empty; remove it with all below it (`rm -r`)")]
    NotEmpty {
        /// The directory.
        path: TreePath,
    },
    /// A move that cannot be made.
    #[error("{from} cannot be moved to {to}: {reason}")]
    Move {
        /// What was to move.
        from: TreePath,
        /// Where to.
        to: TreePath,
        /// Why not, and what can be done.
        reason: &'static str,
    },
    /// No column can serve as the time column.
    #[error(
        "no time column for {path}: {reason}; name one (`--time-column`) of the columns {columns}"
    )]
    NoTimeColumn {
        /// The series.
        path: TreePath,
        /// Why none was found.
        reason: String,
        /// The columns there are, with their types.
        columns: String,
    },
    /// A column that may not be, or must be and is not.
    #[error("column {column:?} for {path}: {reason}")]
    Column {
        /// The series.
        path: TreePath,
        /// The column.
        column: String,
        /// What is wrong, what was expected and what to do.
        reason: String,
    },
    /// A value that cannot be stored.
    #[error("row {row} of column {column:?} for {path}: {reason}")]
    Value {
        /// The series.
        path: TreePath,
        /// The column.
        column: String,
        /// The row in the batch, counted from 0.
        row: usize,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Options that contradict the series or one another.
    #[error("options of {path}: {reason}")]
    Options {
        /// The series.
        path: TreePath,
        /// The contradiction and what to do.
        reason: String,
    },
    /// A point in history that cannot be read.
    #[error("{path} cannot be read as of {asked}: {readable}")]
    AsOf {
        /// The series or glob.
        path: String,
        /// What was asked for.
        asked: String,
        /// What can be read instead.
        readable: String,
    },
    /// A version was asked of several series.
    #[error(
        "{pattern} cannot be read as of {asked}: versions count within one series; name a time"
    )]
    GlobVersion {
        /// The glob.
        pattern: String,
        /// What was asked for.
        asked: String,
    },
    /// A snapshot's name is taken.
    #[error("there is a snapshot {name:?} already, made at {made}; choose another name")]
    SnapshotExists {
        /// The name.
        name: String,
        /// When the other was made.
        made: WriteTime,
    },
    /// No snapshot has the name.
    #[error("there is no snapshot {name:?}{known}")]
    NoSnapshot {
        /// The name.
        name: String,
        /// Which snapshots there are, and what to do.
        known: String,
    },
    /// A text cannot be the name of a snapshot.
    #[error(transparent)]
    SnapshotName(#[from] SnapshotNameError),
    /// All versions were to be let go.
    #[error("the newest version of a series is never let go; keep 1 or more")]
    KeepNone,
    /// A change of what is kept of the history contradicts what is kept.
    #[error("what is kept of the history cannot be changed: {reason}; call again")]
    History {
        /// The contradiction.
        reason: String,
    },
    /// A series without a schema has nothing to read.
    #[error("{path} has no version yet, so it has no columns; append to it first")]
    NoSchema {
        /// The series.
        path: TreePath,
    },
    /// A condition on rows cannot be evaluated.
    #[error("the condition on rows of {path} cannot be evaluated: {reason}")]
    Condition {
        /// The series.
        path: TreePath,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A data file is not what was written.
    #[error(
        "data file {object:?} of {path} ({versions}) is damaged: {reason}; restore it from a backup"
    )]
    DamagedFile {
        /// The object.
        object: String,
        /// The series.
        path: TreePath,
        /// The versions that have rows in it.
        versions: String,
        /// What is wrong.
        reason: String,
    },
    /// Files that were to be merged did not come out as they went in. They stay as they are.
    #[error(
        "files of {path} are not merged, and stay as they are: {reason}; this is a bug, or `tidelog fsck \
         --deep` finds damage"
    )]
    Compaction {
        /// The series.
        path: TreePath,
        /// What differs.
        reason: String,
    },
    /// A data file was deleted while something older than the log's newest state was read.
    #[error(
        "data file {object:?} of {path} has been deleted since this read began, as nothing newer needs it; \
         read again"
    )]
    FileExpired {
        /// The object.
        object: String,
        /// The series.
        path: TreePath,
    },
    /// Files were deleted before the commit that was to name them.
    #[error(
        "a vacuum has deleted data files that were put and not committed yet; they are written anew \
         with the next try (a vacuum leaves young files alone unless it is told otherwise)"
    )]
    FilesDeleted,
    /// Rows that cannot be written as Parquet.
    #[error("rows for {path} cannot be written as Parquet: {reason}; change the column's type")]
    Encode {
        /// The series.
        path: TreePath,
        /// What the writer said.
        reason: String,
    },
    /// A record of the write-ahead log is whole and cannot be understood.
    #[error("record {seq} of the write-ahead log cannot be read: {reason}")]
    Record {
        /// Its sequence number.
        seq: u64,
        /// What is wrong.
        reason: String,
    },
    /// The write-ahead log failed.
    #[error("{0}")]
    Wal(Arc<tidelog_wal::Error>),
    /// There is no place for a write-ahead log.
    #[error(
        "one writer alone needs a write-ahead log on a local disk, and the store is not on one; name \
         a directory for the log (`--wal-dir`), or open the store in shared mode"
    )]
    NoWalDirectory,
    /// The memory budget is too small.
    #[error(
        "{bytes} bytes of memory are too few to work with; allow {MEMORY_BYTES_MIN} or more \
         (`--memory`)"
    )]
    Memory {
        /// The budget that was asked for.
        bytes: u64,
    },
    /// No thread could be started.
    #[error("no thread for {purpose} could be started: {reason}; free some and try again")]
    Thread {
        /// What it is for.
        purpose: &'static str,
        /// The operating system's answer.
        reason: String,
    },
    /// Another writer has the store for itself.
    #[error(
        "the store is written by {epoch} alone; write through that or close it; if it has died, write \
         from its machine, which brings in what its write-ahead log holds; if it will never go on, take \
         the store over (`--take-over`)"
    )]
    Claimed {
        /// Who and since when.
        epoch: String,
    },
    /// The store was taken over while this handle had it for itself.
    #[error(
        "the store has been taken over by {by}; what this writer has acknowledged and not written to \
         files is only in its write-ahead log {wal}: close this, and bring it in with `tidelog wal \
         recover`"
    )]
    Fenced {
        /// The id of the write-ahead log.
        wal: String,
        /// Who has the store now, or who took it.
        by: String,
    },
    /// The store was taken over while this process was stopped, with an append under way.
    #[error(
        "it is not known whether this append counts: the process was stopped for a while, and the store \
         has been taken over by {by}; the append is in the write-ahead log {wal}, and counts once `tidelog \
         wal recover` has brought it in; to repeat it elsewhere give it the same transaction id"
    )]
    Overtaken {
        /// The id of the write-ahead log.
        wal: String,
        /// Who has the store now, or who took it.
        by: String,
    },
    /// A commit beside the write-ahead log may have landed or land yet, so that nobody can tell which
    /// version comes next.
    #[error(
        "this handle takes nothing any more: it is not known whether an earlier change landed ({reason}); \
         what it has acknowledged is kept; open the store again"
    )]
    InDoubt {
        /// What is known of that change.
        reason: String,
    },
    /// A write-ahead log has rows that were acknowledged under a claim which another writer has ended.
    #[error(
        "the write-ahead log {wal} in {} holds rows of a writer whose store was taken over; bring them in \
         with `tidelog wal recover`, or name another directory (`--wal-dir`)",
        directory.display()
    )]
    LeftBehind {
        /// The log's directory.
        directory: PathBuf,
        /// Its id.
        wal: String,
    },
    /// Other writers were faster too often.
    #[error(
        "{attempts} tries to commit to {path} were overtaken by other writers; call again later"
    )]
    Contention {
        /// The path.
        path: TreePath,
        /// How often it was tried.
        attempts: u32,
    },
    /// Rows of a write-ahead log have no series to go to.
    #[error("nothing of the write-ahead log {wal} was brought in: {conflicts}")]
    NoPlace {
        /// The log's id.
        wal: String,
        /// Which rows, why not and what to do.
        conflicts: String,
    },
    /// The object store failed.
    #[error("the object store failed while {action} {object:?}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which object.
        object: String,
        /// Its error.
        source: Arc<object_store::Error>,
    },
    /// The operation log failed.
    #[error(transparent)]
    Log(Arc<tidelog_oplog::Error>),
    /// The place cannot hold a store.
    #[error(transparent)]
    Storage(Arc<tidelog_storage::Error>),
    /// Nothing can be made warm.
    #[error("there is no warm tier: {reason}")]
    NoWarmTier {
        /// Why, and what to do.
        reason: String,
    },
    /// The handle's background task is gone, as when its runtime was shut down.
    #[error("the store's writer has stopped with its runtime; open the store again")]
    Closed,
}

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoMatch { .. } | Self::NoSnapshot { .. } => {
                ErrorKind::NotFound
            }
            Self::AlreadyExists { .. } | Self::SnapshotExists { .. } => ErrorKind::AlreadyExists,
            Self::AsOf { .. } => ErrorKind::NotFound,
            Self::DamagedFile { .. } | Self::Compaction { .. } => ErrorKind::Corruption,
            Self::Contention { .. } => ErrorKind::Conflict,
            Self::Store { source, .. } => kind_of(source),
            Self::Log(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::NoWalDirectory | Self::NoWarmTier { .. } => ErrorKind::Unsupported,
            Self::Wal(error) => error.kind(),
            Self::Record { .. } => ErrorKind::Corruption,
            Self::Thread { .. } => ErrorKind::LimitExceeded,
            Self::Claimed { .. }
            | Self::Fenced { .. }
            | Self::LeftBehind { .. }
            | Self::NoPlace { .. }
            | Self::History { .. }
            | Self::FilesDeleted => ErrorKind::Conflict,
            Self::FileExpired { .. } => ErrorKind::SnapshotExpired,
            Self::Overtaken { .. } => ErrorKind::OutcomeUnknown,
            Self::Closed | Self::InDoubt { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::InvalidInput,
        }
    }

    /// That no snapshot is called `name`, with those that there are.
    pub(crate) fn no_snapshot(name: &str, history: &History) -> Self {
        let known = match snapshot_words(history) {
            Some(names) => format!("; there are {names}"),
            None => "; there is none, make one with `snapshot create`".to_owned(),
        };
        Self::NoSnapshot { name: name.to_owned(), known }
    }

    pub(crate) fn store(action: &'static str, object: &str, source: object_store::Error) -> Self {
        Self::Store { action, object: object.to_owned(), source: Arc::new(source) }
    }
}

impl From<tidelog_oplog::Error> for Error {
    fn from(error: tidelog_oplog::Error) -> Self {
        Self::Log(Arc::new(error))
    }
}

impl From<tidelog_wal::Error> for Error {
    fn from(error: tidelog_wal::Error) -> Self {
        Self::Wal(Arc::new(error))
    }
}

impl From<tidelog_storage::Error> for Error {
    fn from(error: tidelog_storage::Error) -> Self {
        Self::Storage(Arc::new(error))
    }
}

fn at_words(at: &Option<String>) -> String {
    at.as_ref().map(|at| format!(" as of {at}")).unwrap_or_default()
}

/// Snapshots that an error names.
const SNAPSHOTS_NAMED_MAX: usize = 8;

/// The names of the snapshots that there are, if there are any.
pub(crate) fn snapshot_words(history: &History) -> Option<String> {
    let all = || history.snapshots().map(|snapshot| snapshot.name.as_str());
    let mut names = all().take(SNAPSHOTS_NAMED_MAX).collect::<Vec<_>>().join(", ");
    let more = all().count().saturating_sub(SNAPSHOTS_NAMED_MAX);
    if more > 0 {
        names = format!("{names} and {more} more (`snapshot ls`)");
    }
    (!names.is_empty()).then_some(names)
}

/// `v3`, or `v3…v7`.
pub(crate) fn version_words(min: Version, max: Version) -> String {
    if min == max { min.to_string() } else { format!("{min}…{max}") }
}
