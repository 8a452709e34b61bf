//! How a series keeps its rows: fixed at creation, stored in the log as JSON.

use serde::{Deserialize, Serialize};
use tidelog_core::TimeUnit;

/// The order of rows inside a series' files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileOrder {
    /// Event time, key, version.
    #[default]
    Time,
}

/// Options of a series.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SeriesOptions {
    /// The column that holds event time; chosen at the first append if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_column: Option<String>,
    /// The unit in which an `Int64` time column counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_unit: Option<TimeUnit>,
    /// The columns that say who a row is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_columns: Vec<String>,
    /// Whether a later row replaces an earlier one with the same key and event time.
    #[serde(default)]
    pub dedup: bool,
    /// The order of rows inside files.
    #[serde(default)]
    pub order: FileOrder,
}

impl SeriesOptions {
    /// Names the time column. Default: found at the first append.
    #[must_use]
    pub fn with_time_column(mut self, name: impl Into<String>) -> Self {
        self.time_column = Some(name.into());
        self
    }

    /// States the unit of an `Int64` time column. Default: none, which refuses such a column.
    #[must_use]
    pub fn with_time_unit(mut self, unit: TimeUnit) -> Self {
        self.time_unit = Some(unit);
        self
    }

    /// Names the key columns. Default: none.
    #[must_use]
    pub fn with_key_columns<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.key_columns = names.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps one row per key and event time, the one of the highest version. Default: `false`.
    #[must_use]
    pub fn with_dedup(mut self, dedup: bool) -> Self {
        self.dedup = dedup;
        self
    }
}
