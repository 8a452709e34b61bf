//! What is wrong with settings, and where.

use std::path::PathBuf;

use tidelog_core::ErrorKind;

use super::layers::Origin;

/// One thing that is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}")]
#[non_exhaustive]
pub struct Problem {
    /// Who said it, and where.
    pub origin: Origin,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Why settings cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Some of them are wrong; all that is wrong is here.
    #[error("{}", listed(.problems))]
    Wrong {
        /// What, in the order of the layers.
        problems: Vec<Problem>,
    },
    /// The file with settings cannot be read.
    #[error("the settings in {} cannot be read: {reason}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the caller can do.
        kind: ErrorKind,
        /// What the system says.
        reason: String,
    },
}

impl SettingsError {
    pub(crate) fn unreadable(file: PathBuf, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound | Io::NotADirectory => ErrorKind::NotFound,
            Io::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        };
        Self::Unreadable { file, kind, reason: error.to_string() }
    }

    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Wrong { .. } => ErrorKind::InvalidInput,
            Self::Unreadable { kind, .. } => *kind,
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
