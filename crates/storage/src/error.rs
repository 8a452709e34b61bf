//! Errors of this crate, and the kind of an object store's own errors.

use std::error::Error as StdError;
use std::io;

use thiserror::Error;
use tidelog_core::ErrorKind;

use crate::explained::{Refusal, remote_error};

/// What can go wrong when a store is named or probed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The text does not name a store of a kind that this build can open.
    #[error("store {location:?} cannot be opened: {reason}")]
    Location {
        /// The text.
        location: String,
        /// Why, and what can be written instead.
        reason: String,
    },
    /// An option of a remote store is unknown, wrong or out of place.
    #[error("storage option {name:?} {reason}")]
    Option {
        /// Its name. The value may be a secret.
        name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The local directory cannot be used.
    #[error("directory {path:?} cannot be used as a store")]
    Directory {
        /// The directory.
        path: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The store does not refuse a second put of the same new object.
    #[error(
        "the store lets a second writer replace an object that must be written once; commits \
         would overwrite each other, so it is refused for writing: choose a store with \
         conditional puts"
    )]
    NoPutIfAbsent,
    /// The store failed.
    #[error("the object store failed while {action}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Its error.
        source: object_store::Error,
    },
}

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Location { .. } | Self::Option { .. } => ErrorKind::InvalidInput,
            Self::Directory { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            },
            Self::NoPutIfAbsent => ErrorKind::Unsupported,
            Self::Store { source, .. } => kind_of(source),
        }
    }
}

/// What the caller can do about an error of an object store.
#[must_use]
pub fn kind_of(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as Store;
    if remote_error(error).is_some_and(|remote| remote.refusal() == Some(Refusal::NoBucket)) {
        return ErrorKind::NotFound;
    }
    match error {
        Store::NotFound { .. } => ErrorKind::NotFound,
        Store::AlreadyExists { .. } | Store::Precondition { .. } => ErrorKind::AlreadyExists,
        Store::InvalidPath { .. } | Store::UnknownConfigurationKey { .. } => {
            ErrorKind::InvalidInput
        }
        Store::NotSupported { .. } | Store::NotImplemented { .. } => ErrorKind::Unsupported,
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            ErrorKind::PermissionDenied
        }
        _ => ErrorKind::Unavailable,
    }
}

/// The operating system's error at the bottom of `error`, if there is one.
#[must_use]
pub fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = current.source();
    }
    None
}
