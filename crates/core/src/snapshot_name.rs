//! Names of snapshots.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

use crate::path::check_name;
use crate::version::AsOf;

/// Why a text is not the name of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name:?} cannot be the name of a snapshot, {reason}")]
pub struct SnapshotNameError {
    /// The text.
    pub name: String,
    /// What is wrong with it, and what is allowed.
    pub reason: &'static str,
}

/// The name of a snapshot of a store, such as `before-cleanup`.
///
/// It is a name as in a path (NFC, 1 to 255 bytes, no `/`, control or bidirectional character, not
/// beginning with `__`), and nothing that reads as another point in history: a version, a time,
/// `head` or `now`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Parses and normalizes `text`.
    ///
    /// # Errors
    /// [`SnapshotNameError`] if the text is not a name, or reads as a version or a time.
    pub fn parse(text: &str) -> Result<Self, SnapshotNameError> {
        let name: String = text.nfc().collect();
        match check(&name) {
            Ok(()) => Ok(Self(name)),
            Err(reason) => Err(SnapshotNameError { name, reason }),
        }
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), &'static str> {
    check_name(name)?;
    if name.contains('/') {
        return Err("which holds a '/'; write another character");
    }
    if name.trim() != name {
        return Err("which begins or ends with a space; remove it");
    }
    if name.starts_with('-') || name.eq_ignore_ascii_case("now") {
        return Err("which reads as a time; choose another");
    }
    // Whoever types it in capitals means the same.
    match name.to_ascii_lowercase().parse::<AsOf>() {
        Ok(AsOf::Snapshot(_)) => Ok(()),
        Ok(AsOf::Head) => Err("which is the newest state; choose another"),
        Ok(AsOf::Version(_)) => Err("which reads as a version; choose another"),
        _ => Err("which reads as a version or a time; begin it with a letter"),
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SnapshotName {
    type Err = SnapshotNameError;

    fn from_str(text: &str) -> Result<Self, SnapshotNameError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_reads_as_another_point_in_history() {
        for good in [
            "a",
            "release 7",
            "v",
            "v5a",
            "vv5",
            "état",
            "x2024",
            "head-2",
            "ñ".repeat(127).as_str(),
        ] {
            let name = SnapshotName::parse(good).unwrap();
            assert_eq!(name.as_str().parse(), Ok(AsOf::Snapshot(good.to_owned())), "{good}");
        }
        for bad in [
            "",
            "head",
            "HEAD",
            "v5",
            "V05",
            "v99999999999999999999",
            "2024",
            "2024-01-31",
            "7th",
            "-7d",
            "-",
            "now",
            "Now",
            "a/b",
            "/",
            ".",
            "..",
            "__x",
            "a\tb",
            "a\u{202E}b",
            " a",
            "a ",
        ] {
            assert!(SnapshotName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SnapshotName::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn one_name_has_one_spelling() {
        assert_eq!(SnapshotName::parse("e\u{301}"), SnapshotName::parse("é"));
    }
}
