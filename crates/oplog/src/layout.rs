//! How the rows of a series are laid out in files: order, time partitions, codec, row groups.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tidelog_core::EventTime;

/// The fewest rows of a row group that can be asked for.
const ROW_GROUP_ROWS_MIN: u32 = 128;
/// The most.
const ROW_GROUP_ROWS_MAX: u32 = 1 << 24;
/// Rows of a row group where nothing is said.
pub(crate) const ROW_GROUP_ROWS: u32 = 131_072;
/// Levels of zstd.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=22;
const ZSTD_LEVEL: i32 = 3;
const DAY_NANOS: i64 = 86_400_000_000_000;

/// A layout that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// There is nothing of this name.
    #[error("{found:?} is no {what}; choose {choices}")]
    Unknown {
        /// What was to be chosen.
        what: &'static str,
        /// What was given.
        found: String,
        /// What there is.
        choices: &'static str,
    },
    /// A number is too small or too large.
    #[error("{what} {found} is not within {least} and {most}; choose one that is")]
    OutOfRange {
        /// What was to be chosen.
        what: &'static str,
        /// What was given.
        found: String,
        /// The least that there is.
        least: i64,
        /// The most.
        most: i64,
    },
    /// Rows cannot be ordered by keys where there are none.
    #[error("order key,time needs key columns, and the series has none; choose time")]
    NoKeys,
}

/// The order of rows inside a series' files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FileOrder {
    /// Event time, key, version.
    #[default]
    Time,
    /// Key, event time, version.
    KeyTime,
}

impl FileOrder {
    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::KeyTime => "key,time",
        }
    }
}

/// A stretch of the calendar, in UTC, whose borders no file crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partition {
    /// There are no borders.
    #[default]
    None,
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday, as in ISO 8601.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Partition {
    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The first event time after the partition that `time` lies in; `None` where there is none.
    #[must_use]
    pub fn end_after(self, time: EventTime) -> Option<EventTime> {
        let day = time.nanos().div_euclid(DAY_NANOS);
        let (year, month, _) = civil(day);
        let next = match self {
            Self::None => return None,
            Self::Day => day + 1,
            // 1970-01-01 was a Thursday.
            Self::Week => day + 7 - (day + 3).rem_euclid(7),
            Self::Month if month == 12 => day_of(year + 1, 1),
            Self::Month => day_of(year, month + 1),
            Self::Year => day_of(year + 1, 1),
        };
        next.checked_mul(DAY_NANOS).map(EventTime::from_nanos)
    }

    /// The name of the partition that `time` lies in, such as `2024-01-31`, `2024-W05`, `2024-01` or
    /// `2024`; `None` where there is none.
    #[must_use]
    pub fn name_of(self, time: EventTime) -> Option<String> {
        let day = time.nanos().div_euclid(DAY_NANOS);
        let (year, month, of_month) = civil(day);
        match self {
            Self::None => None,
            Self::Day => Some(format!("{year:04}-{month:02}-{of_month:02}")),
            Self::Week => {
                // A week belongs to the year of its Thursday.
                let thursday = day + 3 - (day + 3).rem_euclid(7);
                let (year, ..) = civil(thursday);
                let week = (thursday - day_of(year, 1)) / 7 + 1;
                Some(format!("{year:04}-W{week:02}"))
            }
            Self::Month => Some(format!("{year:04}-{month:02}")),
            Self::Year => Some(format!("{year:04}")),
        }
    }

    /// Whether two event times lie in one partition.
    #[must_use]
    pub fn holds(self, first: EventTime, last: EventTime) -> bool {
        self.end_after(first).is_none_or(|end| last < end)
    }
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// H. Hinnant, *chrono-compatible low-level date algorithms*, `civil_from_days`.
const fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, of_month)
}

/// The first day of a month, counted from 1970-01-01: the inverse of [`civil`].
const fn day_of(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

/// How the columns of files are compressed, on top of their encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Codec {
    /// By column: LZ4 for dictionaries and small files, which are read faster so, else zstd.
    #[default]
    Auto,
    /// zstd of this level, 1 to 22.
    Zstd(i32),
    /// LZ4.
    Lz4,
    /// Not at all.
    None,
}

impl fmt::Display for FileOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::Lz4 => f.write_str("lz4"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for FileOrder {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        [Self::Time, Self::KeyTime].into_iter().find(|order| order.name() == text).ok_or_else(
            || LayoutError::Unknown {
                what: "order",
                found: text.to_owned(),
                choices: "time or key,time",
            },
        )
    }
}

impl FromStr for Partition {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let all = [Self::None, Self::Day, Self::Week, Self::Month, Self::Year];
        all.into_iter().find(|partition| partition.name() == text).ok_or_else(|| {
            LayoutError::Unknown {
                what: "partition",
                found: text.to_owned(),
                choices: "none, day, week, month or year",
            }
        })
    }
}

impl FromStr for Codec {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        match text {
            "auto" => return Ok(Self::Auto),
            "zstd" => return Ok(Self::Zstd(ZSTD_LEVEL)),
            "lz4" => return Ok(Self::Lz4),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let Some(level) = text.strip_prefix("zstd:") else {
            return Err(LayoutError::Unknown {
                what: "codec",
                found: text.to_owned(),
                choices: "auto, zstd, zstd:LEVEL, lz4 or none",
            });
        };
        let known = level.parse().ok().filter(|level| ZSTD_LEVELS.contains(level));
        known.map(Self::Zstd).ok_or_else(|| LayoutError::OutOfRange {
            what: "zstd level",
            found: level.to_owned(),
            least: i64::from(*ZSTD_LEVELS.start()),
            most: i64::from(*ZSTD_LEVELS.end()),
        })
    }
}

impl TryFrom<String> for FileOrder {
    type Error = LayoutError;

    fn try_from(text: String) -> Result<Self, LayoutError> {
        text.parse()
    }
}

impl TryFrom<String> for Partition {
    type Error = LayoutError;

    fn try_from(text: String) -> Result<Self, LayoutError> {
        text.parse()
    }
}

impl TryFrom<String> for Codec {
    type Error = LayoutError;

    fn try_from(text: String) -> Result<Self, LayoutError> {
        text.parse()
    }
}

impl From<FileOrder> for String {
    fn from(order: FileOrder) -> Self {
        order.to_string()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> Self {
        partition.to_string()
    }
}

impl From<Codec> for String {
    fn from(codec: Codec) -> Self {
        codec.to_string()
    }
}

/// How the files of a series are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Layout {
    /// The order of rows inside files. Default: time.
    pub order: FileOrder,
    /// The time partitions whose borders files do not cross. Default: none.
    pub partition: Partition,
    /// How columns are compressed. Default: by column.
    pub codec: Codec,
    /// Rows of a row group at most, 128 to 16,777,216. Default: 131,072.
    pub row_group_rows: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            order: FileOrder::default(),
            partition: Partition::default(),
            codec: Codec::default(),
            row_group_rows: ROW_GROUP_ROWS,
        }
    }
}

impl Layout {
    /// The same layout in another order.
    #[must_use]
    pub fn in_order(self, order: FileOrder) -> Self {
        Self { order, ..self }
    }

    /// Refuses what cannot be, for a series with key columns or without.
    ///
    /// # Errors
    /// [`LayoutError`] says what to choose instead.
    pub fn check(&self, has_keys: bool) -> Result<(), LayoutError> {
        if self.order == FileOrder::KeyTime && !has_keys {
            return Err(LayoutError::NoKeys);
        }
        if let Codec::Zstd(level) = self.codec
            && !ZSTD_LEVELS.contains(&level)
        {
            let (least, most) = (i64::from(*ZSTD_LEVELS.start()), i64::from(*ZSTD_LEVELS.end()));
            let found = level.to_string();
            return Err(LayoutError::OutOfRange { what: "zstd level", found, least, most });
        }
        if !(ROW_GROUP_ROWS_MIN..=ROW_GROUP_ROWS_MAX).contains(&self.row_group_rows) {
            return Err(LayoutError::OutOfRange {
                what: "rows of a row group:",
                found: self.row_group_rows.to_string(),
                least: i64::from(ROW_GROUP_ROWS_MIN),
                most: i64::from(ROW_GROUP_ROWS_MAX),
            });
        }
        Ok(())
    }
}

/// What of a layout is to change; what is absent stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LayoutChange {
    /// The order of rows inside files.
    pub order: Option<FileOrder>,
    /// The time partitions.
    pub partition: Option<Partition>,
    /// The codec.
    pub codec: Option<Codec>,
    /// Rows of a row group at most.
    pub row_group_rows: Option<u32>,
}

impl LayoutChange {
    /// Orders rows so. Default: as they are ordered.
    #[must_use]
    pub fn with_order(mut self, order: FileOrder) -> Self {
        self.order = Some(order);
        self
    }

    /// Keeps files within these partitions. Default: as they are kept.
    #[must_use]
    pub fn with_partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Compresses so. Default: as it is done.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Rows of a row group at most. Default: as many as there are.
    #[must_use]
    pub fn with_row_group_rows(mut self, rows: u32) -> Self {
        self.row_group_rows = Some(rows);
        self
    }

    /// Whether nothing is to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The layout after the change.
    #[must_use]
    pub fn of(&self, layout: Layout) -> Layout {
        Layout {
            order: self.order.unwrap_or(layout.order),
            partition: self.partition.unwrap_or(layout.partition),
            codec: self.codec.unwrap_or(layout.codec),
            row_group_rows: self.row_group_rows.unwrap_or(layout.row_group_rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> EventTime {
        EventTime::parse_start(text, tidelog_core::WriteTime::default()).unwrap()
    }

    #[test]
    fn partitions_are_those_of_the_calendar() {
        for (partition, at, name, end) in [
            (
                Partition::Day,
                "1969-12-31T23:59:59.999999999Z",
                "1969-12-31",
                "1970-01-01T00:00:00Z",
            ),
            (Partition::Day, "2024-02-28T12:00:00Z", "2024-02-28", "2024-02-29T00:00:00Z"),
            (Partition::Week, "2021-01-03T12:00:00Z", "2020-W53", "2021-01-04T00:00:00Z"),
            (Partition::Week, "2018-12-31T00:00:00Z", "2019-W01", "2019-01-07T00:00:00Z"),
            (Partition::Week, "1970-01-01T00:00:00Z", "1970-W01", "1970-01-05T00:00:00Z"),
            (Partition::Month, "2023-12-31T23:00:00Z", "2023-12", "2024-01-01T00:00:00Z"),
            (Partition::Month, "2024-02-29T23:00:00Z", "2024-02", "2024-03-01T00:00:00Z"),
            (Partition::Year, "1900-03-01T00:00:00Z", "1900", "1901-01-01T00:00:00Z"),
        ] {
            assert_eq!(partition.name_of(time(at)).as_deref(), Some(name), "{partition} of {at}");
            let next = partition.end_after(time(at)).unwrap();
            assert_eq!(next, time(end), "{partition} of {at}");
            let last = EventTime::from_nanos(next.nanos() - 1);
            assert_eq!(partition.name_of(last).as_deref(), Some(name));
            assert_ne!(partition.name_of(next).as_deref(), Some(name));
            assert!(partition.holds(time(at), last) && !partition.holds(time(at), next));
        }
        assert_eq!(Partition::None.end_after(EventTime::MAX), None);
        for partition in [Partition::Day, Partition::Week, Partition::Month, Partition::Year] {
            assert_eq!(partition.end_after(EventTime::MAX), None, "{partition}");
            assert!(partition.name_of(EventTime::MIN).unwrap().starts_with("1677"));
        }
    }

    #[test]
    fn layouts_are_read_as_they_are_written_and_others_are_refused() {
        for text in ["auto", "zstd:1", "zstd:22", "lz4", "none"] {
            assert_eq!(text.parse::<Codec>().unwrap().to_string(), text);
        }
        assert_eq!("zstd".parse::<Codec>(), Ok(Codec::Zstd(3)));
        for text in ["zstd:0", "zstd:23", "zstd:x", "zstd:", "gzip", ""] {
            assert!(text.parse::<Codec>().is_err(), "{text}");
        }
        assert_eq!("key,time".parse(), Ok(FileOrder::KeyTime));
        assert!("key".parse::<FileOrder>().is_err() && "hour".parse::<Partition>().is_err());
        let layout = Layout::default();
        assert_eq!(layout.check(false), Ok(()));
        let by_key = LayoutChange::default().with_order(FileOrder::KeyTime).of(layout);
        assert_eq!(by_key.check(false), Err(LayoutError::NoKeys));
        assert_eq!(by_key.check(true), Ok(()));
        for rows in [0, ROW_GROUP_ROWS_MIN - 1, ROW_GROUP_ROWS_MAX + 1] {
            let change = LayoutChange::default().with_row_group_rows(rows);
            assert!(change.of(layout).check(true).is_err());
        }
    }
}
