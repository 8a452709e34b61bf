//! Why something is not moved to the warm tier, in a few words for `EXPLAIN`.

use std::fmt;

use tidelog_warm::{Unsupported, WarmError};

/// Why something is not moved to the warm tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WhyNot(String);

impl WhyNot {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// A switch forbids it.
    pub(super) fn switched_off() -> Self {
        Self::new("switched off")
    }

    /// The backend has not got a column.
    pub(super) fn not_held(column: &str) -> Self {
        Self(format!("column {column:?} is not held"))
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<WarmError> for WhyNot {
    fn from(error: WarmError) -> Self {
        match error {
            WarmError::Unsupported { what: Unsupported::NotHeld { column, .. } } => {
                Self::not_held(&column)
            }
            WarmError::Unsupported { what } => Self(what.to_string()),
            other => Self(other.to_string()),
        }
    }
}
