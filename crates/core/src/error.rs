//! What a caller can do about an error, independent of which crate raised it.

use std::fmt;

/// The few kinds that every Tidelog error falls into.
///
/// Each kind answers one question: what should the caller do next? Exit codes of the command line
/// are derived from the kind alone, and the numbers are append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is wrong: change it and call again. Nothing was stored.
    InvalidInput,
    /// The path, version, column or store does not exist. Nothing was stored.
    NotFound,
    /// Something is already there that the call would have had to replace. Nothing was stored.
    AlreadyExists,
    /// Another writer was faster, again and again: call again. Nothing was stored.
    Conflict,
    /// The store, or the request, needs something that this build does not have (a newer format,
    /// another kind of object store).
    Unsupported,
    /// Stored bytes are not what was written: restore them. They are never served as data.
    Corruption,
    /// The disk or the network refused: full, unreachable. Mend it and call again.
    Unavailable,
    /// A limit (memory, statement size) was reached: ask for less, or raise the limit.
    LimitExceeded,
    /// The outcome of a commit is not known: repeat the call with the same transaction id.
    OutcomeUnknown,
    /// What the caller was reading has been let go since it began to read: read again.
    SnapshotExpired,
    /// The store refused the caller: wrong or missing credentials, or no right to do that. Nothing
    /// was stored.
    PermissionDenied,
    /// A bug of Tidelog: please report it.
    Internal,
}

impl ErrorKind {
    /// The process exit code of the command line for this kind.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::InvalidInput => 3,
            Self::NotFound => 4,
            Self::AlreadyExists => 5,
            Self::Conflict => 6,
            Self::Unsupported => 7,
            Self::Corruption => 8,
            Self::Unavailable => 9,
            Self::LimitExceeded => 10,
            Self::OutcomeUnknown => 11,
            Self::SnapshotExpired => 12,
            Self::PermissionDenied => 13,
            Self::Internal => 70,
        }
    }

    /// A stable lower-case name, used in JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Corruption => "corruption",
            Self::Unavailable => "unavailable",
            Self::LimitExceeded => "limit_exceeded",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::SnapshotExpired => "snapshot_expired",
            Self::PermissionDenied => "permission_denied",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
