//! Event time, write time, units and ranges, and how people write them down.
//!
//! Event times are signed 64-bit nanoseconds since the Unix epoch, UTC, so every Arrow unit has an
//! exact place in them; what lies outside (before 1677-09-21 or after 2262-04-11) is refused.
//! Ranges include both ends.

use std::fmt;
use std::str::FromStr;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const NANOS_PER_DAY: i64 = 86_400_000_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Why a text is not a time, a range, a unit or a version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimeError {
    /// Not a time in any accepted form.
    #[error(
        "{text:?} is not a time: {reason}; write RFC 3339 (2024-01-31T12:00:00Z), a date \
         (2024-01-31), 'now', or a time before now (-7d)"
    )]
    Time {
        /// The text.
        text: String,
        /// What the parser found.
        reason: String,
    },
    /// The end lies before the start.
    #[error("the range from {start} to {end} is inverted; swap its ends")]
    Inverted {
        /// The start.
        start: EventTime,
        /// The end.
        end: EventTime,
    },
    /// Not a time unit.
    #[error("{text:?} is not a time unit; write one of s, ms, us, ns")]
    Unit {
        /// The text.
        text: String,
    },
    /// Not a version number.
    #[error("{text:?} is not a version; write v1, v2, …, a time or a snapshot's name")]
    Version {
        /// The text.
        text: String,
    },
}

/// An event time: nanoseconds since the Unix epoch, UTC. A bare `i64` converts as nanoseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventTime(i64);

impl EventTime {
    /// The earliest event time, 1677-09-21T00:12:43.145224192Z; as a start, "from the beginning".
    pub const MIN: Self = Self(i64::MIN);
    /// The latest event time, 2262-04-11T23:47:16.854775807Z; as an end, "to the end".
    pub const MAX: Self = Self(i64::MAX);

    /// From nanoseconds since the epoch.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From a number of `unit`s since the epoch; `None` outside 1677-09-21 … 2262-04-11.
    #[must_use]
    pub const fn from_unit(value: i64, unit: TimeUnit) -> Option<Self> {
        match value.checked_mul(unit.nanos()) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The smallest number of `unit`s that is not before this time.
    #[must_use]
    pub const fn ceil_to(self, unit: TimeUnit) -> i64 {
        let whole = self.0.div_euclid(unit.nanos());
        if self.0.rem_euclid(unit.nanos()) == 0 { whole } else { whole + 1 }
    }

    /// The largest number of `unit`s that is not after this time.
    #[must_use]
    pub const fn floor_to(self, unit: TimeUnit) -> i64 {
        self.0.div_euclid(unit.nanos())
    }

    /// Reads the start of a range: a date stands for its first nanosecond.
    ///
    /// # Errors
    /// [`TimeError::Time`] if the text is in no accepted form.
    pub fn parse_start(text: &str, now: WriteTime) -> Result<Self, TimeError> {
        parse(text, now).map(|parsed| Self(parsed.first))
    }

    /// Reads the end of a range: a date stands for its last nanosecond.
    ///
    /// # Errors
    /// [`TimeError::Time`] if the text is in no accepted form.
    pub fn parse_end(text: &str, now: WriteTime) -> Result<Self, TimeError> {
        parse(text, now).map(|parsed| Self(parsed.last))
    }
}

impl From<i64> for EventTime {
    fn from(nanos: i64) -> Self {
        Self(nanos)
    }
}

impl TryFrom<Timestamp> for EventTime {
    type Error = TimeError;

    fn try_from(timestamp: Timestamp) -> Result<Self, TimeError> {
        i64::try_from(timestamp.as_nanosecond())
            .map(Self)
            .map_err(|_| out_of_range(&timestamp.to_string()))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_nanos(i128::from(self.0), f)
    }
}

/// When something was recorded: microseconds since the Unix epoch, UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WriteTime(i64);

impl WriteTime {
    /// Before any write.
    pub const MIN: Self = Self(i64::MIN);

    /// From microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The next representable time.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Reads RFC 3339 (a missing zone is UTC) or a date, which stands for its last microsecond.
    ///
    /// # Errors
    /// [`TimeError::Time`] if the text is neither.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        if let Ok(date) = civil::Date::from_str(text)
            && is_bare_date(text)
        {
            return day_start(date, text).map(|nanos| Self(nanos / 1000 + MICROS_PER_DAY - 1));
        }
        instant(text).map(|nanos| Self(nanos.div_euclid(1000)))
    }
}

impl fmt::Display for WriteTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_nanos(i128::from(self.0) * 1000, f)
    }
}

fn fmt_nanos(nanos: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match Timestamp::from_nanosecond(nanos) {
        Ok(timestamp) => fmt::Display::fmt(&timestamp, f),
        Err(_) => write!(f, "{nanos}ns"),
    }
}

/// The unit in which a time column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Second,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millisecond,
    /// Microseconds.
    #[serde(rename = "us")]
    Microsecond,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanosecond,
    /// Days (of a `Date32` column).
    Day,
}

impl TimeUnit {
    /// The unit's length in nanoseconds.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        match self {
            Self::Second => 1_000_000_000,
            Self::Millisecond => 1_000_000,
            Self::Microsecond => 1_000,
            Self::Nanosecond => 1,
            Self::Day => NANOS_PER_DAY,
        }
    }

    /// The unit's short name: `s`, `ms`, `us`, `ns` or `day`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Millisecond => "ms",
            Self::Microsecond => "us",
            Self::Nanosecond => "ns",
            Self::Day => "day",
        }
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TimeUnit {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        match text {
            "s" => Ok(Self::Second),
            "ms" => Ok(Self::Millisecond),
            "us" | "µs" => Ok(Self::Microsecond),
            "ns" => Ok(Self::Nanosecond),
            _ => Err(TimeError::Unit { text: text.to_owned() }),
        }
    }
}

/// A range of event time that includes both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    start: EventTime,
    end: EventTime,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: EventTime::MIN, end: EventTime::MAX };

    /// The range from `start` to `end`, both included.
    ///
    /// # Errors
    /// [`TimeError::Inverted`] if `end` lies before `start`.
    pub fn try_new(
        start: impl Into<EventTime>,
        end: impl Into<EventTime>,
    ) -> Result<Self, TimeError> {
        let (start, end) = (start.into(), end.into());
        if end < start {
            return Err(TimeError::Inverted { start, end });
        }
        Ok(Self { start, end })
    }

    /// The first time inside.
    #[must_use]
    pub const fn start(&self) -> EventTime {
        self.start
    }

    /// The last time inside.
    #[must_use]
    pub const fn end(&self) -> EventTime {
        self.end
    }

    /// Whether the two share at least one instant.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What the two share; `None` if nothing.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(Self { start, end })
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} … {}", self.start, self.end)
    }
}

struct Parsed {
    first: i64,
    last: i64,
}

fn parse(text: &str, now: WriteTime) -> Result<Parsed, TimeError> {
    let exact = |nanos| Parsed { first: nanos, last: nanos };
    let now_nanos = now.micros().saturating_mul(1000);
    if text == "now" {
        return Ok(exact(now_nanos));
    }
    if let Some(age) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) {
        return ago(text, age, now_nanos).map(exact);
    }
    if let Ok(date) = civil::Date::from_str(text)
        && is_bare_date(text)
    {
        let first = day_start(date, text)?;
        let last = first.checked_add(NANOS_PER_DAY - 1).ok_or_else(|| out_of_range(text))?;
        return Ok(Parsed { first, last });
    }
    instant(text).map(exact)
}

/// `jiff` reads a date out of a longer text too; here a date is ten characters (or a signed year).
fn is_bare_date(text: &str) -> bool {
    !text.contains([':', 'T', 't', ' '])
}

fn ago(text: &str, age: &str, now_nanos: i64) -> Result<i64, TimeError> {
    let fail = |reason: String| TimeError::Time { text: text.to_owned(), reason };
    let span: Span = age.parse().map_err(|error: jiff::Error| fail(error.to_string()))?;
    let now = Timestamp::from_nanosecond(i128::from(now_nanos))
        .map_err(|error| fail(error.to_string()))?
        .to_zoned(TimeZone::UTC);
    let then = now.checked_sub(span).map_err(|error| fail(error.to_string()))?;
    i64::try_from(then.timestamp().as_nanosecond()).map_err(|_| out_of_range(text))
}

fn day_start(date: civil::Date, text: &str) -> Result<i64, TimeError> {
    let zoned = date
        .to_zoned(TimeZone::UTC)
        .map_err(|error| TimeError::Time { text: text.to_owned(), reason: error.to_string() })?;
    i64::try_from(zoned.timestamp().as_nanosecond()).map_err(|_| out_of_range(text))
}

fn instant(text: &str) -> Result<i64, TimeError> {
    let fail =
        |error: &jiff::Error| TimeError::Time { text: text.to_owned(), reason: error.to_string() };
    let timestamp = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(error) => match text.parse::<civil::DateTime>() {
            Ok(local) => local.to_zoned(TimeZone::UTC).map_err(|error| fail(&error))?.timestamp(),
            Err(_) => return Err(fail(&error)),
        },
    };
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| out_of_range(text))
}

fn out_of_range(text: &str) -> TimeError {
    TimeError::Time {
        text: text.to_owned(),
        reason: "it lies outside 1677-09-21 … 2262-04-11".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WriteTime = WriteTime::from_micros(1_706_702_400_000_000); // 2024-01-31T12:00:00Z

    #[test]
    fn a_date_is_its_first_or_last_nanosecond() -> Result<(), TimeError> {
        let day = 1_706_659_200_000_000_000;
        assert_eq!(EventTime::parse_start("2024-01-31", NOW)?.nanos(), day);
        assert_eq!(EventTime::parse_end("2024-01-31", NOW)?.nanos(), day + NANOS_PER_DAY - 1);
        assert_eq!(WriteTime::parse("2024-01-31")?.micros(), day / 1000 + MICROS_PER_DAY - 1);
        Ok(())
    }

    #[test]
    fn instants_and_relative_times() -> Result<(), TimeError> {
        let noon = NOW.micros() * 1000;
        for text in ["2024-01-31T12:00:00Z", "2024-01-31T12:00:00", "2024-01-31 12:00", "now"] {
            assert_eq!(EventTime::parse_start(text, NOW)?.nanos(), noon, "{text}");
        }
        assert_eq!(EventTime::parse_start("2024-01-31T14:00:00+02:00", NOW)?.nanos(), noon);
        assert_eq!(EventTime::parse_end("-7d", NOW)?.nanos(), noon - 7 * NANOS_PER_DAY);
        assert_eq!(EventTime::parse_end("-90m", NOW)?.nanos(), noon - 5_400_000_000_000);
        Ok(())
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in ["", "yesterday", "-", "-7", "2024-02-30", "9999-01-01", "1500-01-01", "12:00"]
        {
            assert!(EventTime::parse_start(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_round_inwards() {
        let time = EventTime::from_nanos(-1_500);
        assert_eq!(time.floor_to(TimeUnit::Microsecond), -2);
        assert_eq!(time.ceil_to(TimeUnit::Microsecond), -1);
        assert_eq!(EventTime::MIN.ceil_to(TimeUnit::Second), -9_223_372_036);
        assert_eq!(EventTime::from_unit(i64::MAX, TimeUnit::Microsecond), None);
    }

    #[test]
    fn ranges_include_both_ends() -> Result<(), TimeError> {
        let range = TimeRange::try_new(10, 20)?;
        assert!(range.overlaps(&TimeRange::try_new(20, 30)?));
        assert!(!range.overlaps(&TimeRange::try_new(21, 30)?));
        assert!(range.covers(&TimeRange::try_new(10, 20)?));
        assert_eq!(
            range.intersect(&TimeRange::try_new(20, 30)?),
            Some(TimeRange::try_new(20, 20)?)
        );
        assert!(TimeRange::try_new(2, 1).is_err());
        Ok(())
    }
}
