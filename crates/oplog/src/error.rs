//! What can go wrong with the operation log.

use thiserror::Error;
use tidelog_core::{CommitVersion, ErrorKind, PathError, TransactionId};
use tidelog_storage::{kind_of, object_store};

/// An error of the operation log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no log at this place.
    #[error("there is no store here; make one with `init`, or name the directory of one")]
    NotAStore,
    /// There is a log at this place already.
    #[error("there is a store here already; open it, or choose another place")]
    AlreadyAStore,
    /// The log was written by a newer build.
    #[error(
        "the log holds {what}, which this build does not know (it reads format \
         {}); use a newer build",
        crate::FORMAT_VERSION
    )]
    NewerFormat {
        /// What was found.
        what: String,
    },
    /// A commit is not what was written.
    #[error("commit {commit} of the log is damaged: {reason}; restore {object:?} from a backup")]
    DamagedCommit {
        /// Its number.
        commit: CommitVersion,
        /// The object that holds it.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A part of the log is not what was written.
    #[error("the log's part {object:?} is damaged: {reason}; restore it from a backup")]
    DamagedPart {
        /// The object.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint is not what was written.
    #[error("the log's checkpoint is damaged: {reason}")]
    DamagedCheckpoint {
        /// What is wrong.
        reason: String,
    },
    /// What was to be read has been let go since the reader last looked.
    #[error(
        "{object:?} has been deleted since this reader last looked at the log, as it was no part of \
         it for longer than the log is kept; read again"
    )]
    SnapshotExpired {
        /// The object.
        object: String,
    },
    /// A commit that is not there yet.
    #[error(
        "the log has no commit {commit} yet, its newest is {head}; name that or an earlier one"
    )]
    NoCommit {
        /// The commit.
        commit: CommitVersion,
        /// The newest that there is.
        head: CommitVersion,
    },
    /// Rows contradict one another.
    #[error("commit {commit} of the log contradicts what came before it: {reason}")]
    Inconsistent {
        /// The commit.
        commit: CommitVersion,
        /// The contradiction.
        reason: String,
    },
    /// The object store failed; nothing was committed.
    #[error("the object store failed while {action} {object:?}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// On which object.
        object: String,
        /// Its error.
        source: object_store::Error,
    },
    /// The store cannot hold a log.
    #[error(transparent)]
    Storage(#[from] tidelog_storage::Error),
    /// Nobody can tell whether the commit landed.
    #[error(
        "it is not known whether commit {commit} landed ({reason}); repeat the call with its \
         transaction id{}", transaction.map(|id| format!(" {id}")).unwrap_or_default()
    )]
    OutcomeUnknown {
        /// The commit that was tried.
        commit: CommitVersion,
        /// The transaction to repeat with, where the caller named one.
        transaction: Option<TransactionId>,
        /// Why it is not known.
        reason: String,
    },
    /// A bug: rows that cannot be written as the log's schema.
    #[error("log rows cannot be encoded: {reason}")]
    Encode {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAStore | Self::NoCommit { .. } => ErrorKind::NotFound,
            Self::AlreadyAStore => ErrorKind::AlreadyExists,
            Self::NewerFormat { .. } => ErrorKind::Unsupported,
            Self::DamagedCommit { .. }
            | Self::DamagedPart { .. }
            | Self::DamagedCheckpoint { .. }
            | Self::Inconsistent { .. } => ErrorKind::Corruption,
            Self::SnapshotExpired { .. } => ErrorKind::SnapshotExpired,
            // What is written to was there a moment ago: the place is gone, not the data.
            Self::Store { source: object_store::Error::NotFound { .. }, .. } => {
                ErrorKind::Unavailable
            }
            Self::Store { source, .. } => match kind_of(source) {
                ErrorKind::AlreadyExists => ErrorKind::Conflict,
                kind => kind,
            },
            Self::Storage(error) => error.kind(),
            Self::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
            Self::Encode { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn encode(error: impl std::fmt::Display) -> Self {
        Self::Encode { reason: error.to_string() }
    }

    pub(crate) fn part(object: &str, reason: impl std::fmt::Display) -> Self {
        Self::DamagedPart { object: object.to_owned(), reason: reason.to_string() }
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        Self::encode(error)
    }
}
