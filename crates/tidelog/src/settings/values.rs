//! Sizes, times and numbers as people write them.
//!
//! A [`Form`] reads a text and shows a value such that reading gives it back. In a file a value may
//! be a number or a truth value too; it is read as its text is.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use tidelog_store::{WalDurability, WarmKeep};

const BYTE_UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];
const SHOWN_BYTE_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// In nanoseconds; the largest first.
const TIME_UNITS: [(&str, u64); 8] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// How values of a kind are written.
pub(crate) trait Form {
    type Value;

    /// Reads a text; the error says what it is not.
    fn read(text: &str) -> Result<Self::Value, String>;

    fn show(value: &Self::Value) -> String;
}

/// Bytes, at least one: `1048576`, `512MB`, `2 GiB`.
pub(crate) struct Bytes;
/// A whole number, at least one.
pub(crate) struct Count;
/// The same, of things in memory.
pub(crate) struct Number;
/// A whole number, of things that are counted from zero.
pub(crate) struct Index;
/// A time: `10s`, `250 ms`.
pub(crate) struct Time;
/// `true` or `false`.
pub(crate) struct YesNo;
/// Any text but an empty one.
pub(crate) struct Text;
/// The path of a directory.
pub(crate) struct Directory;
/// `sync`, `memory` or `interval:` with a time.
pub(crate) struct DurabilityText;
/// `off`, `flushed` or a time.
pub(crate) struct KeepText;
/// What may be absent.
pub(crate) struct Maybe<F>(PhantomData<F>);

/// Reads a whole number with one of the units, as a multiple of the smallest.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The number with the first of the units that holds it exactly.
fn with_unit(number: u64, units: &[(&str, u64)]) -> Option<String> {
    let (name, factor) = units.iter().find(|(_, factor)| number.is_multiple_of(*factor))?;
    Some(format!("{}{name}", number / factor))
}

impl Form for Bytes {
    type Value = u64;

    fn read(text: &str) -> Result<u64, String> {
        quantity(&text.to_ascii_lowercase(), &BYTE_UNITS).filter(|bytes| *bytes > 0).ok_or_else(
            || format!("{text:?} is not a size; write a number of bytes, or such as 512MB, 2GiB"),
        )
    }

    fn show(value: &u64) -> String {
        with_unit(*value, &SHOWN_BYTE_UNITS)
            .filter(|_| *value > 0)
            .unwrap_or_else(|| value.to_string())
    }
}

impl Form for Count {
    type Value = u64;

    fn read(text: &str) -> Result<u64, String> {
        let wrong = || format!("{text:?} is not a whole number of at least 1");
        text.trim().parse().ok().filter(|number| *number > 0).ok_or_else(wrong)
    }

    fn show(value: &u64) -> String {
        value.to_string()
    }
}

impl Form for Number {
    type Value = usize;

    fn read(text: &str) -> Result<usize, String> {
        let number = Count::read(text)?;
        usize::try_from(number).map_err(|_| format!("{text:?} is too large for this machine"))
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

impl Form for Index {
    type Value = usize;

    fn read(text: &str) -> Result<usize, String> {
        text.trim().parse().map_err(|_| format!("{text:?} is not a whole number of at least 0"))
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

impl Form for Time {
    type Value = Duration;

    fn read(text: &str) -> Result<Duration, String> {
        let nanos = quantity(text, &TIME_UNITS);
        nanos.map(Duration::from_nanos).ok_or_else(|| {
            format!("{text:?} is not a time; write a whole number and a unit (ns, us, ms, s, min, h, d), such as 250ms")
        })
    }

    fn show(value: &Duration) -> String {
        match u64::try_from(value.as_nanos()) {
            Ok(0) => "0s".to_owned(),
            Ok(nanos) => with_unit(nanos, &TIME_UNITS).unwrap_or_default(),
            // Five hundred years and more are the same to a store.
            Err(_) => format!("{}ns", u64::MAX),
        }
    }
}

impl Form for YesNo {
    type Value = bool;

    fn read(text: &str) -> Result<bool, String> {
        text.trim().parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

impl Form for Text {
    type Value = String;

    fn read(text: &str) -> Result<String, String> {
        if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
    }

    fn show(value: &String) -> String {
        value.clone()
    }
}

impl Form for Directory {
    type Value = PathBuf;

    fn read(text: &str) -> Result<PathBuf, String> {
        Text::read(text).map(PathBuf::from)
    }

    fn show(value: &PathBuf) -> String {
        value.display().to_string()
    }
}

impl Form for DurabilityText {
    type Value = WalDurability;

    fn read(text: &str) -> Result<WalDurability, String> {
        let text = text.trim();
        match (text, text.strip_prefix("interval:")) {
            ("sync", _) => Ok(WalDurability::Sync),
            ("memory", _) => Ok(WalDurability::Memory),
            (_, Some(time)) => Time::read(time).map(WalDurability::Interval),
            _ => Err(format!("{text:?} is none of sync, memory and interval:TIME")),
        }
    }

    fn show(value: &WalDurability) -> String {
        match value {
            WalDurability::Sync => "sync".to_owned(),
            WalDurability::Interval(time) => format!("interval:{}", Time::show(time)),
            WalDurability::Memory => "memory".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

impl Form for KeepText {
    type Value = WarmKeep;

    fn read(text: &str) -> Result<WarmKeep, String> {
        match text.trim() {
            "off" => Ok(WarmKeep::Off),
            "flushed" => Ok(WarmKeep::Flushed),
            time => Time::read(time)
                .map(WarmKeep::Recent)
                .map_err(|why| format!("{text:?} is neither off nor flushed, and {why}")),
        }
    }

    fn show(value: &WarmKeep) -> String {
        match value {
            WarmKeep::Off => "off".to_owned(),
            WarmKeep::Flushed => "flushed".to_owned(),
            WarmKeep::Recent(age) => Time::show(age),
            other => format!("{other:?}"),
        }
    }
}

impl<F: Form> Form for Maybe<F> {
    type Value = Option<F::Value>;

    fn read(text: &str) -> Result<Self::Value, String> {
        F::read(text).map(Some)
    }

    fn show(value: &Self::Value) -> String {
        value.as_ref().map(F::show).unwrap_or_default()
    }
}

/// A value of a file as the text that it is.
struct AsText;

impl Visitor<'_> for AsText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

fn deserialize<'de, F: Form, D: Deserializer<'de>>(deserializer: D) -> Result<F::Value, D::Error> {
    let text = deserializer.deserialize_any(AsText)?;
    F::read(&text).map_err(de::Error::custom)
}

/// Gives a form the two functions that serde's `with` looks for.
macro_rules! with {
    ($($form:ident),*) => {$(
        impl $form {
            pub(crate) fn serialize<S: Serializer>(
                value: &<Self as Form>::Value,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&Self::show(value))
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<<Self as Form>::Value, D::Error> {
                deserialize::<Self, D>(deserializer)
            }
        }
    )*};
}
with!(Bytes, Count, Index, Time, YesNo, DurabilityText, KeepText);

impl<F: Form> Maybe<F> {
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<F::Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&F::show(value)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<F::Value>, D::Error> {
        deserialize::<Self, D>(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(Bytes::read("1048576"), Ok(1_048_576));
        assert_eq!(Bytes::read("512MB"), Ok(512_000_000));
        assert_eq!(Bytes::read("256 MB"), Ok(256_000_000));
        assert_eq!(Bytes::read(" 2 GiB "), Ok(2 << 30));
        for bad in ["", "MB", "0", "-1", "1.5GB", "7 bananas", "99999999999999999999TB", "1e9"] {
            assert!(Bytes::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(Time::read("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(Time::read("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(Time::read("0s"), Ok(Duration::ZERO));
        assert_eq!(Time::read("1d"), Ok(Duration::from_secs(86_400)));
        for bad in ["", "10", "s", "-1s", "1.5s", "10 S", "1h30m", "99999999999999999999s", "1 Ms"]
        {
            assert!(Time::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durability_is_read() {
        let interval = WalDurability::Interval(Duration::from_millis(250));
        assert_eq!(DurabilityText::read("interval:250ms"), Ok(interval));
        assert_eq!(DurabilityText::read("sync"), Ok(WalDurability::Sync));
        for bad in ["", "Sync", "interval", "interval:", "interval:250", "disk"] {
            assert!(DurabilityText::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_warm_is_read() {
        let week = WarmKeep::Recent(Duration::from_secs(7 * 86_400));
        for (text, keep) in [("off", WarmKeep::Off), ("flushed", WarmKeep::Flushed), ("7d", week)] {
            assert_eq!(KeepText::read(text), Ok(keep));
            assert_eq!(KeepText::show(&keep), text);
        }
        for bad in ["", "on", "7", "recent", "7 days"] {
            assert!(KeepText::read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(number in 1..=u64::MAX, shift in 0_u32..60) {
            let number = (number >> shift).max(1);
            prop_assert_eq!(Bytes::read(&Bytes::show(&number)), Ok(number));
            let time = Duration::from_nanos(number);
            prop_assert_eq!(Time::read(&Time::show(&time)), Ok(time));
            let durability = WalDurability::Interval(time);
            prop_assert_eq!(DurabilityText::read(&DurabilityText::show(&durability)), Ok(durability));
        }
    }
}
