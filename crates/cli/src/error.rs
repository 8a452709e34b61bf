//! What went wrong, for people, for programs (`--json`) and for shells (exit codes).

use std::error::Error as StdError;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidelog::ErrorKind;

const USAGE_EXIT_CODE: u8 = 2;
/// As a shell reports a process that Ctrl-C ended.
const INTERRUPTED_EXIT_CODE: u8 = 130;

/// A result of this program.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] tidelog::Error),
    /// There is no store where one is said to be.
    #[error("there is no store at {location}; make one with `tidelog --store {location} init`")]
    NoStore { location: String },
    /// A store is where none may be.
    #[error("{message}")]
    Exists { message: String },
    /// An option's value is wrong.
    #[error("{option}: {source}")]
    Option { option: &'static str, source: tidelog::Error },
    /// The command cannot be meant as it was typed.
    #[error("{message}")]
    Usage { message: String },
    /// A file of the user's holds what cannot be stored.
    #[error("{file}: {message}")]
    Input { file: String, message: String },
    /// A file of the user's cannot be read or written.
    #[error("{action} {} failed", .file.display())]
    File { action: &'static str, file: PathBuf, source: io::Error },
    /// An append of a file failed.
    #[error("{file}: {source}")]
    AppendFile { file: String, source: tidelog::Error },
    /// Of several files, one could not be appended.
    #[error("{source}; {stored} of {files} files are stored, this one and those after it are not")]
    Append { stored: usize, files: usize, source: Box<Self> },
    /// Stdout cannot be written.
    #[error("standard output cannot be written")]
    Stdout { source: io::Error },
    /// Rows cannot be written in the format asked for.
    #[error("the rows cannot be written as {format}: {message}; choose another --format")]
    Rows { format: &'static str, message: String },
    /// The runtime cannot start.
    #[error("the program cannot start its threads")]
    Runtime { source: io::Error },
    /// A check found damage, which has been told.
    #[error("{count} {} damaged", if *.count == 1 { "thing is" } else { "things are" })]
    Damaged { count: usize },
    /// Ctrl-C.
    #[error("interrupted{}", if *.writing { "; what was under way may be stored or not, see `tidelog log`" } else { "" })]
    Interrupted { writing: bool },
    /// A bug of this program.
    #[error("{message}; please report this")]
    Internal { message: String },
}

impl Error {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into() }
    }

    pub(crate) fn input(file: &str, message: impl Into<String>) -> Self {
        Self::Input { file: file.to_owned(), message: message.into() }
    }

    pub(crate) fn file(action: &'static str, file: &Path, source: io::Error) -> Self {
        Self::File { action, file: file.to_owned(), source }
    }

    pub(crate) fn option(option: &'static str, source: impl Into<tidelog::Error>) -> Self {
        Self::Option { option, source: source.into() }
    }

    /// What the user can do about it; `None` if it is no error of the store's kinds.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        Some(match self {
            Self::Store(error) => error.kind(),
            Self::Option { source, .. } | Self::AppendFile { source, .. } => source.kind(),
            Self::Append { source, .. } => return source.kind(),
            Self::Usage { .. } | Self::Interrupted { .. } => return None,
            Self::Input { .. } | Self::Rows { .. } => ErrorKind::InvalidInput,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::File { .. } | Self::Stdout { .. } | Self::Runtime { .. } => {
                ErrorKind::Unavailable
            }
            Self::NoStore { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::Damaged { .. } => ErrorKind::Corruption,
            Self::Internal { .. } => ErrorKind::Internal,
        })
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match (self, self.kind()) {
            (_, Some(kind)) => kind.exit_code(),
            (Self::Interrupted { .. }, None) => INTERRUPTED_EXIT_CODE,
            _ => USAGE_EXIT_CODE,
        }
    }

    fn name(&self) -> &'static str {
        match (self, self.kind()) {
            (_, Some(kind)) => kind.name(),
            (Self::Interrupted { .. }, None) => "interrupted",
            _ => "usage",
        }
    }

    /// The message with its causes, on one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some messages tell their cause already.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line.lines().map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Stdout { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Tells the user and gives the exit code. Whoever closed our pipe has seen enough: no error.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        let text = if json { self.json() } else { format!("error: {}", self.line()) };
        // Where stderr cannot be written either, the exit code still tells.
        drop(writeln!(io::stderr(), "{text}"));
        ExitCode::from(self.exit_code())
    }

    fn json(&self) -> String {
        let mut error = serde_json::json!({
            "kind": self.name(),
            "message": self.line(),
            "exit_code": self.exit_code(),
        });
        if let Self::Append { stored, .. } = self {
            error["stored"] = (*stored).into();
        }
        serde_json::json!({ "error": error }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Error {
        Error::file("reading", Path::new("a.csv"), io::ErrorKind::NotFound.into())
    }

    #[test]
    fn exit_codes_follow_the_kind() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(missing().exit_code(), 4);
        assert_eq!(Error::file("reading", Path::new("a"), denied).exit_code(), 9);
        assert_eq!(Error::usage("no").exit_code(), 2);
        assert_eq!(Error::input("a.csv", "bad").exit_code(), 3);
        assert_eq!(Error::Exists { message: String::new() }.exit_code(), 5);
        assert_eq!(Error::Interrupted { writing: true }.exit_code(), 130);
        let inner = Box::new(Error::input("b.csv", "line 3: bad"));
        assert_eq!(Error::Append { stored: 1, files: 2, source: inner }.exit_code(), 3);
    }

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        assert_eq!(missing().line(), "reading a.csv failed: entity not found");
        let inner = Box::new(Error::input("b.csv", "line 3:\n  bad"));
        let line = Error::Append { stored: 1, files: 2, source: inner }.line();
        assert_eq!(
            line,
            "b.csv: line 3: bad; 1 of 2 files are stored, this one and those after it are not"
        );
    }

    #[test]
    fn json_tells_kind_message_and_exit_code() {
        let value: serde_json::Value = serde_json::from_str(&missing().json()).unwrap();
        assert_eq!(value["error"]["kind"], "not_found");
        assert_eq!(value["error"]["exit_code"], 4);
        assert!(value["error"]["message"].is_string());
    }
}
