//! Strategies for property tests: series of every kind of time, rows that collide, histories, and
//! conditions that are written as SQL and judged row by row.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::error::ArrowError;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidelog_core::{EventTime, TimeUnit};

use crate::cell::{Cell, Row};
use crate::model::Shape;

/// The columns of every generated series. The time column is not the first, and the name of none
/// but `ts` is one by which time is found.
pub const COLUMNS: [&str; 5] = ["value", "ts", "key", "part", "count"];
/// The index of the time column.
pub const TIME: usize = 1;
/// Slots of event time that rows are drawn from: few, so that they collide.
pub const SLOTS: u8 = 48;

const KEYS_COUNT: u8 = 6;
const KEYS: [&str; KEYS_COUNT as usize] = ["", "a", "ab", "b", "\u{e4}", "z'q"];

/// The type of a time column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeKind {
    /// A timestamp, in UTC or without a zone.
    Timestamp {
        /// Its unit.
        unit: TimeUnit,
        /// Whether its zone is UTC.
        utc: bool,
    },
    /// Days.
    Date32,
    /// Integers of a stated unit.
    Int64(TimeUnit),
}

/// Where on the line of time a series lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Around 1970, before and after.
    Epoch,
    /// 2023.
    Modern,
    /// From the earliest time that there is.
    Earliest,
    /// Up to the latest time that there is.
    Latest,
}

/// A kind of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesSpec {
    /// The type of its time column.
    pub time: TimeKind,
    /// Where its event times lie.
    pub era: Era,
    /// Units between two slots.
    pub step: i64,
    /// How many of the columns `key` and `part` are keys.
    pub keys: usize,
    /// Whether rows replace one another.
    pub dedup: bool,
}

/// A row before it gets the types of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRow {
    /// The slot of event time.
    pub slot: u8,
    /// Which key, or null.
    pub key: Option<u8>,
    /// The second key, or null.
    pub part: Option<i8>,
    /// A float, or null.
    pub value: Option<f64>,
    /// An integer, or null.
    pub count: Option<i16>,
}

impl SeriesSpec {
    /// A series of milliseconds in UTC, without keys or dedup.
    #[must_use]
    pub fn plain() -> Self {
        let time = TimeKind::Timestamp { unit: TimeUnit::Millisecond, utc: true };
        Self { time, era: Era::Modern, step: 1, keys: 0, dedup: false }
    }

    /// The unit in which the time column counts.
    #[must_use]
    pub fn unit(&self) -> TimeUnit {
        match self.time {
            TimeKind::Timestamp { unit, .. } | TimeKind::Int64(unit) => unit,
            TimeKind::Date32 => TimeUnit::Day,
        }
    }

    /// Whether such a series can be made by its first append, without options.
    #[must_use]
    pub fn can_be_implicit(&self) -> bool {
        self.keys == 0 && !self.dedup
    }

    /// The names of the key columns.
    #[must_use]
    pub fn key_columns(&self) -> &'static [&'static str] {
        &COLUMNS[2..2 + self.keys]
    }

    /// The series as the model sees it.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            columns: COLUMNS.map(str::to_owned).to_vec(),
            time: TIME,
            unit: self.unit(),
            keys: (2..2 + self.keys).collect(),
            dedup: self.dedup,
            tag: 0,
        }
    }

    /// The event time of a slot, in the unit of the time column.
    #[must_use]
    pub fn time_of(&self, slot: u8) -> i64 {
        let unit = self.unit().nanos();
        let (slot, slots) = (i64::from(slot), i64::from(SLOTS));
        match self.era {
            Era::Epoch => (slot - slots / 2) * self.step,
            Era::Modern => 1_700_000_000_000_000_000 / unit + slot * self.step,
            Era::Earliest => i64::MIN / unit + slot * self.step,
            Era::Latest => i64::MAX / unit - (slots - 1 - slot) * self.step,
        }
    }

    /// The rows as the model sees them.
    #[must_use]
    pub fn rows(&self, raw: &[RawRow]) -> Vec<Row> {
        let or_null = |cell: Option<Cell>| cell.unwrap_or(Cell::Null);
        raw.iter()
            .map(|row| {
                vec![
                    or_null(row.value.map(Cell::float)),
                    Cell::Int(self.time_of(row.slot)),
                    or_null(row.key.map(|key| Cell::Text(key_text(key).to_owned()))),
                    or_null(row.part.map(|part| Cell::Int(part.into()))),
                    or_null(row.count.map(|count| Cell::Int(count.into()))),
                ]
            })
            .collect()
    }

    /// The rows as a batch.
    ///
    /// # Errors
    /// If Arrow refuses them.
    pub fn batch(&self, raw: &[RawRow]) -> Result<RecordBatch, ArrowError> {
        let times: Vec<i64> = raw.iter().map(|row| self.time_of(row.slot)).collect();
        let value: Float64Array = raw.iter().map(|row| row.value).collect();
        let key: StringArray = raw.iter().map(|row| row.key.map(key_text)).collect();
        let part: Int64Array = raw.iter().map(|row| row.part.map(i64::from)).collect();
        let count: Int64Array = raw.iter().map(|row| row.count.map(i64::from)).collect();
        let columns: [ArrayRef; 5] = [
            Arc::new(value),
            self.time_array(times),
            Arc::new(key),
            Arc::new(part),
            Arc::new(count),
        ];
        RecordBatch::try_from_iter_with_nullable(
            COLUMNS.into_iter().zip(columns).map(|(name, column)| (name, column, true)),
        )
    }

    fn time_array(&self, times: Vec<i64>) -> ArrayRef {
        match self.time {
            TimeKind::Int64(_) => Arc::new(Int64Array::from(times)),
            TimeKind::Date32 => Arc::new(Date32Array::from_iter_values(
                times.into_iter().map(|day| i32::try_from(day).unwrap_or(i32::MAX)),
            )),
            TimeKind::Timestamp { unit, utc } => {
                let zone = utc.then_some("UTC");
                match unit {
                    TimeUnit::Second | TimeUnit::Day => {
                        Arc::new(TimestampSecondArray::from(times).with_timezone_opt(zone))
                    }
                    TimeUnit::Millisecond => {
                        Arc::new(TimestampMillisecondArray::from(times).with_timezone_opt(zone))
                    }
                    TimeUnit::Microsecond => {
                        Arc::new(TimestampMicrosecondArray::from(times).with_timezone_opt(zone))
                    }
                    TimeUnit::Nanosecond => {
                        Arc::new(TimestampNanosecondArray::from(times).with_timezone_opt(zone))
                    }
                }
            }
        }
    }

    /// `units` of the time column as an SQL literal of the column's own type.
    #[must_use]
    pub fn typed_literal(&self, units: i64) -> String {
        match self.time {
            TimeKind::Int64(_) => format!("arrow_cast({units}, 'Int64')"),
            TimeKind::Date32 => format!("arrow_cast(arrow_cast({units}, 'Int32'), 'Date32')"),
            TimeKind::Timestamp { unit, utc } => timestamp_literal(units, unit, utc),
        }
    }
}

fn timestamp_literal(units: i64, unit: TimeUnit, utc: bool) -> String {
    let unit = match unit {
        TimeUnit::Second | TimeUnit::Day => "Second",
        TimeUnit::Millisecond => "Millisecond",
        TimeUnit::Microsecond => "Microsecond",
        TimeUnit::Nanosecond => "Nanosecond",
    };
    let zone = if utc { "Some(\"UTC\")" } else { "None" };
    format!("arrow_cast(arrow_cast('{units}', 'Int64'), 'Timestamp({unit}, {zone})')")
}

fn key_text(key: u8) -> &'static str {
    KEYS[usize::from(key) % KEYS.len()]
}

/// Series of every kind of time.
pub fn specs() -> impl Strategy<Value = SeriesSpec> {
    let unit = prop_oneof![
        Just(TimeUnit::Second),
        Just(TimeUnit::Millisecond),
        Just(TimeUnit::Microsecond),
        Just(TimeUnit::Nanosecond)
    ];
    let time = prop_oneof![
        4 => (unit.clone(), any::<bool>())
            .prop_map(|(unit, utc)| TimeKind::Timestamp { unit, utc }),
        1 => Just(TimeKind::Date32),
        1 => unit.prop_map(TimeKind::Int64),
    ];
    let era = prop_oneof![
        3 => Just(Era::Modern),
        2 => Just(Era::Epoch),
        1 => Just(Era::Earliest),
        1 => Just(Era::Latest),
    ];
    (time, era, prop_oneof![Just(1_i64), Just(7)], 0_usize..=2, any::<bool>())
        .prop_map(|(time, era, step, keys, dedup)| SeriesSpec { time, era, step, keys, dedup })
}

/// Rows in any order, with collisions of time and key, nulls and NaNs.
pub fn raw_rows() -> impl Strategy<Value = RawRow> {
    let value = prop_oneof![
        1 => Just(f64::NAN),
        1 => prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
        6 => (-8_i32..8).prop_map(|half| f64::from(half) / 2.0),
    ];
    let key = option::weighted(0.8, 0..KEYS_COUNT);
    let part = option::weighted(0.8, -1_i8..2);
    (0..SLOTS, key, part, option::weighted(0.85, value), option::weighted(0.85, -20_i16..20))
        .prop_map(|(slot, key, part, value, count)| RawRow { slot, key, part, value, count })
}

/// Batches of 0 to 200 rows, most of them small; some sorted, some within few slots.
pub fn batches() -> impl Strategy<Value = Vec<RawRow>> {
    let rows = prop_oneof![
        1 => Just(Vec::new()),
        8 => vec(raw_rows(), 1..8),
        3 => vec(raw_rows(), 8..40),
        1 => vec(raw_rows(), 40..=200),
    ];
    (rows, 0_u8..4, 0..SLOTS).prop_map(|(mut rows, lay, at)| {
        match lay {
            0 => rows.sort_by_key(|row| row.slot),
            // Within four slots, so that files lie apart.
            1 | 2 => rows.iter_mut().for_each(|row| row.slot = (at + row.slot % 4) % SLOTS),
            _ => {}
        }
        rows
    })
}

/// One call of a history.
#[derive(Debug, Clone)]
pub enum Op {
    /// Make an empty series of a kind.
    Create(u8, u8),
    /// Append to a path, making a series of a kind if nothing is there.
    Append(Batch),
    /// Append each batch as a version, each for itself.
    AppendMany(Vec<Batch>),
    /// Append all batches or none.
    AppendAtomic(Vec<Batch>),
    /// Make the last append again, with its transaction id.
    Repeat,
    /// Move what is at one path to another.
    Rename(u8, u8),
    /// Remove what is at a path.
    Remove(u8, bool),
    /// Delete what lies between two slots, both included, and for which a condition holds.
    Delete(u8, (u8, u8), Option<Condition>),
    /// Put rows in the place of those between two slots, both included.
    Replace(u8, (u8, u8), Vec<RawRow>),
    /// Bring back an earlier version.
    Restore(u8, prop::sample::Index),
    /// Merge the files of all series.
    Compact,
    /// Change how the files of the series at a path are laid out.
    Lay(u8, Lay),
    /// Open the handle anew.
    Reopen,
    /// Move the clock by so many microseconds.
    Clock(i64),
}

/// What of a layout is to change.
#[derive(Debug, Clone, Copy)]
pub struct Lay {
    /// Whether rows are ordered by key.
    pub by_key: Option<bool>,
    /// One of the partitions that there are, counted around.
    pub partition: Option<u8>,
    /// One of the codecs, counted around.
    pub codec: Option<u8>,
    /// Rows of a row group.
    pub row_group: Option<u32>,
}

/// Changes of layouts.
pub fn lays() -> impl Strategy<Value = Lay> {
    let group = prop_oneof![Just(128_u32), Just(1000)];
    let parts = (
        option::of(prop::bool::weighted(0.7)),
        option::of(any::<u8>()),
        option::of(any::<u8>()),
        option::of(group),
    );
    parts.prop_map(|(by_key, partition, codec, row_group)| Lay {
        by_key,
        partition,
        codec,
        row_group,
    })
}

/// Rows for a path.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Which path.
    pub path: u8,
    /// Which kind of series, if one has to be made.
    pub spec: u8,
    /// The rows.
    pub rows: Vec<RawRow>,
}

/// A call through one of two handles.
#[derive(Debug, Clone)]
pub struct Step {
    /// Whether it goes through the second handle.
    pub second: bool,
    /// The call.
    pub op: Op,
}

/// A history over `paths` paths and `specs` kinds of series.
pub fn histories(
    paths: u8,
    specs: u8,
    calls: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Step>> {
    let batch = move || {
        let parts = (0..paths, 0..specs, batches());
        parts.prop_map(|(path, spec, rows)| Batch { path, spec, rows })
    };
    let slots = || (0..SLOTS, 0..SLOTS).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let condition = || option::weighted(0.6, conditions());
    let op = prop_oneof![
        2 => (0..paths, 0..specs).prop_map(|(path, spec)| Op::Create(path, spec)),
        12 => batch().prop_map(Op::Append),
        3 => vec(batch(), 1..6).prop_map(Op::AppendMany),
        3 => vec(batch(), 1..5).prop_map(Op::AppendAtomic),
        2 => Just(Op::Repeat),
        1 => (0..paths, 0..paths).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (0..paths, any::<bool>()).prop_map(|(path, recursive)| Op::Remove(path, recursive)),
        3 => (0..paths, slots(), condition()).prop_map(|(path, slots, c)| Op::Delete(path, slots, c)),
        2 => (0..paths, slots(), batches(), any::<bool>())
            .prop_map(|(path, slots, rows, stray)| Op::Replace(path, slots, inside(rows, slots, stray))),
        2 => (0..paths, any::<prop::sample::Index>()).prop_map(|(path, to)| Op::Restore(path, to)),
        2 => Just(Op::Compact),
        2 => (0..paths, lays()).prop_map(|(path, lay)| Op::Lay(path, lay)),
        2 => Just(Op::Reopen),
        3 => prop_oneof![-10_000_000_i64..0, 0_i64..10_000_000].prop_map(Op::Clock),
    ];
    vec((any::<bool>(), op).prop_map(|(second, op)| Step { second, op }), calls)
}

/// Rows moved between two slots, both included; with `stray`, some may stay outside.
fn inside(mut rows: Vec<RawRow>, (first, last): (u8, u8), stray: bool) -> Vec<RawRow> {
    let width = last - first + 1;
    for row in rows.iter_mut().skip(usize::from(stray && width % 4 == 0)) {
        row.slot = first + row.slot % width;
    }
    rows
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

impl Compare {
    const ALL: [Self; 6] = [Self::Eq, Self::NotEq, Self::Lt, Self::LtEq, Self::Gt, Self::GtEq];

    fn holds<T: Ord>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Eq => a == b,
            Self::NotEq => a != b,
            Self::Lt => a < b,
            Self::LtEq => a <= b,
            Self::Gt => a > b,
            Self::GtEq => a >= b,
        }
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::NotEq => "<>",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
        })
    }
}

/// How an instant is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As a value of the column's type.
    Typed,
    /// As a timestamp in nanoseconds.
    Nanoseconds,
    /// As RFC 3339 text.
    Text,
}

/// An instant at or beside a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    /// The slot.
    pub slot: u8,
    /// So many units of the time column beside it.
    pub nudge: i8,
    /// How it is written.
    pub spelling: Spelling,
}

impl Instant {
    /// The spelling that the time column of `spec` can be compared with.
    fn spelling(self, spec: &SeriesSpec) -> Spelling {
        match (self.spelling, spec.time, spec.era) {
            (Spelling::Nanoseconds, TimeKind::Timestamp { .. }, _) => Spelling::Nanoseconds,
            (
                Spelling::Text,
                TimeKind::Timestamp { .. } | TimeKind::Date32,
                Era::Modern | Era::Epoch,
            ) => Spelling::Text,
            _ => Spelling::Typed,
        }
    }

    fn units(self, spec: &SeriesSpec) -> i64 {
        let units = spec.time_of(self.slot);
        let nudged = units.saturating_add(i64::from(self.nudge));
        // Beyond the ends of time nothing can be written down.
        let is_time = EventTime::from_unit(nudged, spec.unit()).is_some();
        if is_time { nudged } else { units }
    }

    fn nanos(self, spec: &SeriesSpec) -> i64 {
        self.units(spec) * spec.unit().nanos()
    }

    fn sql(self, spec: &SeriesSpec) -> String {
        match self.spelling(spec) {
            Spelling::Typed => spec.typed_literal(self.units(spec)),
            Spelling::Nanoseconds => {
                let utc = matches!(spec.time, TimeKind::Timestamp { utc: true, .. });
                timestamp_literal(self.nanos(spec), TimeUnit::Nanosecond, utc)
            }
            Spelling::Text => {
                let text = EventTime::from_nanos(self.nanos(spec)).to_string();
                let length = if spec.time == TimeKind::Date32 { 10 } else { text.len() };
                format!("'{}'", &text[..length])
            }
        }
    }
}

/// A condition on rows, as SQL and as a judgement.
#[derive(Debug, Clone)]
pub enum Condition {
    /// On event time.
    Time(Compare, Instant),
    /// On event time, both ends included.
    TimeBetween(Instant, Instant),
    /// On the column `value`, with half of this number.
    Value(Compare, i8),
    /// Whether `value` is null.
    ValueIsNull(bool),
    /// On the column `count`.
    Count(Compare, i16),
    /// On the column `count`, any of these.
    CountIn(Vec<i16>),
    /// On the column `key`.
    Key(Compare, u8),
    /// Whether `key` is null.
    KeyIsNull(bool),
    /// Whether `key` begins with `a`.
    KeyLikeA,
    /// On the column `part`.
    Part(Compare, i8),
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// Either.
    Or(Box<Condition>, Box<Condition>),
    /// The contrary.
    Not(Box<Condition>),
}

/// Conditions of up to three levels.
pub fn conditions() -> impl Strategy<Value = Condition> {
    let compare = || prop::sample::select(Compare::ALL.to_vec());
    let spelling = prop::sample::select(vec![
        Spelling::Typed,
        Spelling::Typed,
        Spelling::Nanoseconds,
        Spelling::Text,
    ]);
    let instant = (0..SLOTS, -1_i8..2, spelling).prop_map(|(slot, nudge, spelling)| Instant {
        slot,
        nudge,
        spelling,
    });
    let leaf = prop_oneof![
        6 => (compare(), instant.clone()).prop_map(|(c, i)| Condition::Time(c, i)),
        4 => (instant.clone(), instant).prop_map(|(a, b)| Condition::TimeBetween(a, b)),
        3 => (compare(), -10_i8..10).prop_map(|(c, v)| Condition::Value(c, v)),
        1 => any::<bool>().prop_map(Condition::ValueIsNull),
        3 => (compare(), -22_i16..22).prop_map(|(c, v)| Condition::Count(c, v)),
        1 => vec(-22_i16..22, 1..4).prop_map(Condition::CountIn),
        3 => (compare(), 0..KEYS_COUNT).prop_map(|(c, k)| Condition::Key(c, k)),
        1 => any::<bool>().prop_map(Condition::KeyIsNull),
        1 => Just(Condition::KeyLikeA),
        2 => (compare(), -2_i8..3).prop_map(|(c, v)| Condition::Part(c, v)),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            4 => two().prop_map(|(a, b)| Condition::And(a.into(), b.into())),
            2 => two().prop_map(|(a, b)| Condition::Or(a.into(), b.into())),
            1 => inner.clone().prop_map(|a| Condition::Not(a.into())),
        ]
    })
}

impl Condition {
    /// The condition as SQL over a series of `spec`.
    #[must_use]
    pub fn sql(&self, spec: &SeriesSpec) -> String {
        match self {
            Self::Time(compare, instant) => format!("ts {compare} {}", instant.sql(spec)),
            Self::TimeBetween(a, b) => {
                format!("ts BETWEEN {} AND {}", a.sql(spec), b.sql(spec))
            }
            Self::Value(compare, halves) => {
                format!("value {compare} {:.1}", f64::from(*halves) / 2.0)
            }
            Self::ValueIsNull(yes) => format!("value IS {}NULL", if *yes { "" } else { "NOT " }),
            Self::Count(compare, value) => format!("count {compare} {value}"),
            Self::CountIn(values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                format!("count IN ({})", values.join(", "))
            }
            Self::Key(compare, key) => {
                format!("key {compare} '{}'", key_text(*key).replace('\'', "''"))
            }
            Self::KeyIsNull(yes) => format!("key IS {}NULL", if *yes { "" } else { "NOT " }),
            Self::KeyLikeA => "key LIKE 'a%'".to_owned(),
            Self::Part(compare, value) => format!("part {compare} {value}"),
            Self::And(a, b) => format!("({} AND {})", a.sql(spec), b.sql(spec)),
            Self::Or(a, b) => format!("({} OR {})", a.sql(spec), b.sql(spec)),
            Self::Not(a) => format!("NOT ({})", a.sql(spec)),
        }
    }

    /// Whether it holds for `row`, of the columns [`COLUMNS`]; `None` is SQL's unknown.
    #[must_use]
    pub fn holds(&self, spec: &SeriesSpec, row: &[Cell]) -> Option<bool> {
        let known = |column: usize| Some(&row[column]).filter(|cell| **cell != Cell::Null);
        let nanos = spec.shape().nanos_of(row);
        match self {
            Self::Time(compare, instant) => Some(compare.holds(&nanos, &instant.nanos(spec))),
            Self::TimeBetween(a, b) => Some(a.nanos(spec) <= nanos && nanos <= b.nanos(spec)),
            Self::Value(compare, halves) => {
                // Of floats, NaN is the greatest, and the two zeros are one.
                let one_zero = |value: f64| Cell::float(if value == 0.0 { 0.0 } else { value });
                let wanted = one_zero(f64::from(*halves) / 2.0);
                let value = known(0).and_then(Cell::as_float).map(one_zero);
                value.map(|value| compare.holds(&value, &wanted))
            }
            Self::ValueIsNull(yes) => Some(known(0).is_none() == *yes),
            Self::Count(compare, wanted) => {
                known(4).map(|count| compare.holds(count, &Cell::Int((*wanted).into())))
            }
            Self::CountIn(wanted) => known(4)
                .map(|count| wanted.iter().any(|wanted| *count == Cell::Int((*wanted).into()))),
            Self::Key(compare, key) => {
                let wanted = Cell::Text(key_text(*key).to_owned());
                known(2).map(|key| compare.holds(key, &wanted))
            }
            Self::KeyIsNull(yes) => Some(known(2).is_none() == *yes),
            Self::KeyLikeA => known(2).and_then(Cell::as_text).map(|key| key.starts_with('a')),
            Self::Part(compare, wanted) => {
                known(3).map(|part| compare.holds(part, &Cell::Int((*wanted).into())))
            }
            Self::And(a, b) => match (a.holds(spec, row), b.holds(spec, row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(a, b) => match (a.holds(spec, row), b.holds(spec, row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(a) => a.holds(spec, row).map(|holds| !holds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::rows_of;

    proptest! {
        #[test]
        fn a_batch_holds_the_rows_of_the_model(spec in specs(), raw in batches()) {
            let batch = spec.batch(&raw).unwrap();
            prop_assert_eq!(rows_of(&batch).unwrap(), spec.rows(&raw));
            for row in spec.rows(&raw) {
                let nanos = EventTime::from_unit(spec.shape().time_of(&row), spec.unit());
                prop_assert!(nanos.is_some());
            }
        }
    }
}
