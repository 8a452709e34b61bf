//! How a series keeps its rows, stored in the log as JSON. Its layout can be changed later, the rest is
//! fixed at creation.

use serde::{Deserialize, Serialize};
use tidelog_core::TimeUnit;

use crate::layout::{Codec, FileOrder, Layout, LayoutError, Partition, ROW_GROUP_ROWS};

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
    /// The time partitions whose borders files do not cross.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partition: Partition,
    /// How the columns of files are compressed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub codec: Codec,
    /// Rows of a row group at most; as many as there are by default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_group_rows: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

    /// Orders rows inside files so. Default: by time.
    #[must_use]
    pub fn with_order(mut self, order: FileOrder) -> Self {
        self.order = order;
        self
    }

    /// Keeps files within these stretches of the calendar. Default: none.
    #[must_use]
    pub fn with_partition(mut self, partition: Partition) -> Self {
        self.partition = partition;
        self
    }

    /// Compresses columns so. Default: as suits each column.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Rows of a row group at most, 128 to 16,777,216. Default: 131,072.
    #[must_use]
    pub fn with_row_group_rows(mut self, rows: u32) -> Self {
        self.row_group_rows = Some(rows);
        self
    }

    /// How files are laid out.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout {
            order: self.order,
            partition: self.partition,
            codec: self.codec,
            row_group_rows: self.row_group_rows.unwrap_or(ROW_GROUP_ROWS),
        }
    }

    /// The same options with files laid out so.
    ///
    /// # Errors
    /// [`LayoutError`] if a series with these key columns cannot be.
    pub fn with_layout(mut self, layout: Layout) -> Result<Self, LayoutError> {
        layout.check(!self.key_columns.is_empty())?;
        self.order = layout.order;
        self.partition = layout.partition;
        self.codec = layout.codec;
        self.row_group_rows = Some(layout.row_group_rows).filter(|rows| *rows != ROW_GROUP_ROWS);
        Ok(self)
    }
}
