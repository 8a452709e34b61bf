//! The one error of the public interface.

use tidelog_core::{ErrorKind, PathError, TimeError};

use crate::settings::SettingsError;

/// What went wrong. The [kind](Error::kind) tells what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Cause);

#[derive(Debug, Clone, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Store(#[from] tidelog_query::Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.0 {
            Cause::Store(error) => error.kind(),
            Cause::Settings(error) => error.kind(),
        }
    }

    /// What is wrong with settings, if that is it.
    #[must_use]
    pub fn settings(&self) -> Option<&SettingsError> {
        match &self.0 {
            Cause::Store(_) => None,
            Cause::Settings(error) => Some(error),
        }
    }
}

impl From<tidelog_query::Error> for Error {
    fn from(error: tidelog_query::Error) -> Self {
        Self(error.into())
    }
}

impl From<SettingsError> for Error {
    fn from(error: SettingsError) -> Self {
        Self(error.into())
    }
}

impl From<tidelog_store::Error> for Error {
    fn from(error: tidelog_store::Error) -> Self {
        tidelog_query::Error::from(error).into()
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
