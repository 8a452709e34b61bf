//! The one error of the public interface.

use tidelog_core::{ErrorKind, PathError, TimeError};

/// What went wrong. The [kind](Error::kind) tells what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] tidelog_query::Error);

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }
}

impl From<tidelog_store::Error> for Error {
    fn from(error: tidelog_store::Error) -> Self {
        Self(error.into())
    }
}

impl From<tidelog_oplog::Error> for Error {
    fn from(error: tidelog_oplog::Error) -> Self {
        tidelog_store::Error::from(error).into()
    }
}

impl From<tidelog_storage::Error> for Error {
    fn from(error: tidelog_storage::Error) -> Self {
        tidelog_store::Error::from(error).into()
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        tidelog_store::Error::from(error).into()
    }
}

impl From<TimeError> for Error {
    fn from(error: TimeError) -> Self {
        tidelog_store::Error::from(error).into()
    }
}
