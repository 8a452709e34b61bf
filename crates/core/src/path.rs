//! Paths of the tree, and globs over them.
//!
//! A path is absolute and made of names between `/`. It is brought to Unicode NFC when parsed, so
//! that one name has one spelling. Paths never become object keys; nodes are stored under ids.

use std::fmt;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// The longest name, in bytes of its NFC form.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest path, in bytes of its NFC form.
pub const PATH_BYTES_MAX: usize = 4096;

/// Why a text is not a path or a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// The text does not begin with `/`.
    #[error("path {path:?} is not absolute; begin it with '/'")]
    NotAbsolute {
        /// The text.
        path: String,
    },
    /// A part between two slashes may not be a name.
    #[error("path {path:?} has the name {name:?}, {reason}")]
    Name {
        /// The text.
        path: String,
        /// The offending part.
        name: String,
        /// What is wrong with it, and what is allowed.
        reason: &'static str,
    },
    /// The whole is too long.
    #[error("path of {bytes} bytes is longer than the {PATH_BYTES_MAX} allowed; shorten it")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A glob that cannot be read.
    #[error("pattern {pattern:?} is not a glob: {reason}")]
    Pattern {
        /// The text.
        pattern: String,
        /// What the glob parser found.
        reason: String,
    },
}

/// An absolute path in the tree of a store, such as `/sensors/temperature.series`.
///
/// The text inside is NFC; `/` is the root and the only path that ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreePath(String);

impl TreePath {
    /// The root directory.
    #[must_use]
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses and normalizes `text`.
    ///
    /// # Errors
    /// [`PathError`] if the text is not absolute, is too long, or has a part that is empty, longer
    /// than 255 bytes, `.` or `..`, begins with `__`, or holds a control or bidirectional character.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text: String = text.nfc().collect();
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len() });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathError::NotAbsolute { path: text });
        };
        if rest.is_empty() {
            return Ok(Self::root());
        }
        for name in rest.split('/') {
            if let Err(reason) = check_name(name) {
                let name = name.to_owned();
                return Err(PathError::Name { path: text, name, reason });
            }
        }
        Ok(Self(text))
    }

    /// The text of the path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The names from the root down; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.rsplit('/').next().filter(|name| !name.is_empty())
    }

    /// The directory that holds this path; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].to_owned())),
        }
    }

    /// This path extended by one name.
    ///
    /// # Errors
    /// [`PathError`] if `name` is not allowed or the result is too long.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        let base = if self.is_root() { "" } else { &self.0 };
        Self::parse(&format!("{base}/{name}"))
    }

    /// Whether `self` is `other` or lies below it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(other.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TreePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

/// Why `name` may not be a name.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("which is empty; write one '/' between names and none at the end");
    }
    if name == "." || name == ".." {
        return Err("which is relative; write the path from the root");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("which is longer than 255 bytes; shorten it");
    }
    if name.starts_with("__") {
        return Err("which begins with '__', reserved for Tidelog; choose another");
    }
    if name.chars().any(|c| c.is_control() || is_bidi_control(c)) {
        return Err("which holds a control or bidirectional character; remove it");
    }
    Ok(())
}

/// Characters that reorder the text around them and so make two names look alike.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A path or a glob over paths: `*` and `?` stay within a name, `**` crosses names, `[…]` and
/// `{a,b}` are alternatives.
#[derive(Debug, Clone)]
pub struct PathPattern {
    text: String,
    matcher: Option<GlobMatcher>,
}

impl PathPattern {
    /// Parses a path or a glob.
    ///
    /// # Errors
    /// [`PathError`] if the text is neither.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Self { text: TreePath::parse(text)?.0, matcher: None });
        }
        let text: String = text.nfc().collect();
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute { path: text });
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len() });
        }
        let glob = GlobBuilder::new(&text).literal_separator(true).build().map_err(|error| {
            PathError::Pattern { pattern: text.clone(), reason: error.kind().to_string() }
        })?;
        Ok(Self { text, matcher: Some(glob.compile_matcher()) })
    }

    /// The path, if the pattern has no wildcard.
    #[must_use]
    pub fn as_path(&self) -> Option<TreePath> {
        self.matcher.is_none().then(|| TreePath(self.text.clone()))
    }

    /// Whether `path` matches.
    #[must_use]
    pub fn matches(&self, path: &TreePath) -> bool {
        match &self.matcher {
            Some(matcher) => matcher.is_match(path.as_str()),
            None => self.text == path.as_str(),
        }
    }

    /// The text as parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_a_path_is_refused() {
        for text in [
            "",
            "a",
            "a/b",
            "//",
            "/a//b",
            "/a/",
            "/.",
            "/..",
            "/a/../b",
            "/__x",
            "/a\0b",
            "/a\nb",
            "/a\u{202E}b",
            "/a\u{200F}",
            "C:\\x",
            "../x",
        ] {
            assert!(TreePath::parse(text).is_err(), "{text:?}");
        }
        assert!(TreePath::parse(&format!("/{}", "x".repeat(256))).is_err());
        assert!(TreePath::parse(&"/abc".repeat(2000)).is_err());
        assert!(TreePath::parse(&format!("/{}", "x".repeat(255))).is_ok());
    }

    #[test]
    fn one_name_has_one_spelling() {
        assert_eq!(TreePath::parse("/caf\u{e9}"), TreePath::parse("/cafe\u{301}"));
        assert_ne!(TreePath::parse("/A"), TreePath::parse("/a"));
    }

    #[test]
    fn parts_of_a_path() -> Result<(), PathError> {
        let path = TreePath::parse("/a/b.series")?;
        assert_eq!(path.name(), Some("b.series"));
        assert_eq!(path.parent(), Some(TreePath::parse("/a")?));
        assert_eq!(TreePath::parse("/a")?.parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert!(path.starts_with(&TreePath::parse("/a")?));
        assert!(!TreePath::parse("/ab")?.starts_with(&TreePath::parse("/a")?));
        assert_eq!(TreePath::root().join("x")?.as_str(), "/x");
        Ok(())
    }

    #[test]
    fn a_star_stays_within_a_name() -> Result<(), PathError> {
        let star = PathPattern::parse("/a/*.series")?;
        assert!(star.matches(&TreePath::parse("/a/x.series")?));
        assert!(!star.matches(&TreePath::parse("/a/b/x.series")?));
        assert!(PathPattern::parse("/**/x")?.matches(&TreePath::parse("/a/b/x")?));
        assert!(PathPattern::parse("/a[").is_err());
        Ok(())
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_idempotent(text in "\\PC{0,40}") {
            if let Ok(path) = TreePath::parse(&format!("/{text}")) {
                prop_assert_eq!(TreePath::parse(path.as_str()), Ok(path));
            }
        }
    }
}
