//! What can go wrong with a write-ahead log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tidelog_core::ErrorKind;

use crate::directory::Holder;

/// An error of the log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else has the log open.
    #[error(
        "the write-ahead log {} is held by {holder}; close that, or wait for it to end",
        directory.display()
    )]
    Locked {
        /// The log's directory.
        directory: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// There is no log in the directory.
    #[error("there is no write-ahead log in {}", directory.display())]
    NoLog {
        /// The directory.
        directory: PathBuf,
    },
    /// The log was written by a newer build.
    #[error(
        "{} is of format version {version} and this build reads {}; use a newer build",
        file.display(), crate::FORMAT_VERSION
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// The version found.
        version: u32,
    },
    /// Stored bytes are not what was written.
    #[error("{}", .0.refusal())]
    Damaged(Box<Damage>),
    /// A record was there when the log was opened and is not there any more.
    #[error(
        "record {seq} cannot be read any more from byte {offset} of {}: {found}; open the log again",
        file.display()
    )]
    Unreadable {
        /// The segment.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// The record's sequence number.
        seq: u64,
        /// What was found there.
        found: String,
    },
    /// A payload is longer than the options allow.
    #[error(
        "a payload has {bytes} bytes and the write-ahead log takes {limit}; make it smaller or raise \
         `frame_bytes_max`"
    )]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The most that the options allow, in bytes.
        limit: u64,
    },
    /// A record cannot be skipped to.
    #[error(
        "the write-ahead log cannot go on at number {seq}: its next is {next}, numbers only go up, \
         and no skip goes past 2^63; name a number between"
    )]
    BadSkip {
        /// The number asked for.
        seq: u64,
        /// The number that comes next.
        next: u64,
    },
    /// Nothing of an append is in the log, durably so, and the log takes more.
    #[error(
        "nothing was appended to the write-ahead log: {action} {} failed; mend that and append \
         again",
        file.display()
    )]
    NotApplied {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Nobody can tell whether records are durable.
    #[error(
        "it is not known whether records {first} to {last} of the write-ahead log are durable \
         ({reason}); open the log again to learn which are there"
    )]
    OutcomeUnknown {
        /// The first record concerned.
        first: u64,
        /// The last one.
        last: u64,
        /// What failed.
        reason: String,
    },
    /// The log failed earlier and takes nothing any more. Nothing of this call was stored.
    #[error(
        "the write-ahead log takes no records any more ({reason}); mend that and open it again"
    )]
    Failed {
        /// What failed then.
        reason: String,
    },
    /// The operating system refused.
    #[error("{action} {} failed", file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        file: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Where the valid part of a log ends before its files do, what is there and what lies behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The first byte of it that is not as it should be.
    pub offset: u64,
    /// What was found there.
    pub found: String,
    /// The first record that is missing; 0 if that cannot be told.
    pub seq: u64,
    /// Intact records behind that place.
    pub records_behind: u64,
    /// Bytes of these, with their headers.
    pub bytes_behind: u64,
    /// The last sequence number that something behind that place mentions as written.
    pub seq_behind: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of {}: {}", self.offset, self.file.display(), self.found)
    }
}

impl Damage {
    /// Why a log with this damage does not open.
    fn refusal(&self) -> String {
        let Self { seq, records_behind, bytes_behind, .. } = self;
        format!(
            "the write-ahead log is damaged at {self}; records from {seq} on were durable there, and \
             {records_behind} intact ones ({bytes_behind} bytes) lie behind; look with `tidelog wal \
             inspect`, then restore the file from a backup or cut the log there with `tidelog wal \
             repair`"
        )
    }
}

impl Error {
    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } => ErrorKind::Conflict,
            Self::NoLog { .. } => ErrorKind::NotFound,
            Self::NewerFormat { .. } => ErrorKind::Unsupported,
            Self::Damaged(_) | Self::Unreadable { .. } => ErrorKind::Corruption,
            Self::TooLarge { .. } => ErrorKind::LimitExceeded,
            Self::BadSkip { .. } => ErrorKind::InvalidInput,
            Self::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
            Self::Failed { .. } => ErrorKind::Unavailable,
            Self::NotApplied { source, .. } | Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    ErrorKind::PermissionDenied
                }
                _ => ErrorKind::Unavailable,
            },
        }
    }

    /// For `map_err` on a call of the file system.
    pub(crate) fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { action, file, source }
    }
}
