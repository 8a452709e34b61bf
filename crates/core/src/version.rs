//! Version numbers and points in history.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::time::{TimeError, WriteTime};

/// The number of a version within its series: dense, beginning at 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(i64);

impl Version {
    /// The state before the first append.
    pub const NONE: Self = Self(0);
    /// The first version of a series.
    pub const FIRST: Self = Self(1);

    /// Wraps a number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The version that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// The number of a commit of the operation log (the Delta table's version), beginning at 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct CommitVersion(i64);

impl CommitVersion {
    /// Wraps a number.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The commit that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for CommitVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in a store's history at which to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AsOf {
    /// The newest committed state.
    #[default]
    Head,
    /// A version of one series, counted within the node that the path names at head.
    Version(Version),
    /// The state of the whole store, tree included, at a write time (inclusive).
    Time(WriteTime),
    /// A named snapshot of the store.
    Snapshot(String),
}

impl FromStr for AsOf {
    type Err = TimeError;

    /// Reads `head`, `v5`, an RFC 3339 time, a date (its last microsecond), or else a snapshot's
    /// name.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        if text == "head" {
            return Ok(Self::Head);
        }
        let digits = text.strip_prefix('v').unwrap_or("");
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let number = digits.parse().map_err(|_| TimeError::Version { text: text.into() })?;
            return Ok(Self::Version(Version(number)));
        }
        if text.is_empty() {
            return Err(TimeError::Version { text: text.into() });
        }
        // Snapshots may not be named like a time, so what begins like a year must be one.
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return WriteTime::parse(text).map(Self::Time);
        }
        Ok(Self::Snapshot(text.to_owned()))
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Version(version) => version.fmt(f),
            Self::Time(time) => time.fmt(f),
            Self::Snapshot(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_history_is_read_from_text() {
        assert_eq!("v5".parse(), Ok(AsOf::Version(Version(5))));
        assert_eq!("head".parse(), Ok(AsOf::Head));
        assert_eq!("release".parse(), Ok(AsOf::Snapshot("release".into())));
        assert_eq!(
            "1970-01-01T00:00:01Z".parse(),
            Ok(AsOf::Time(WriteTime::from_micros(1_000_000)))
        );
        assert!("2024-13-45".parse::<AsOf>().is_err());
        assert!("v99999999999999999999".parse::<AsOf>().is_err());
        assert!("".parse::<AsOf>().is_err());
    }
}
