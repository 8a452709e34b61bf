//! Which type a column of text has, from all its values.

use arrow::datatypes::{DataType, TimeUnit};

use crate::input::{Expected, time};

/// Names by which a series' time column is found when none is given, in order.
const TIME_COLUMN_NAMES: [&str; 6] =
    ["timestamp", "Timestamp", "event_time", "time", "ts", "datetime"];

/// Up to this magnitude every whole number is a Float64.
const FLOAT64_EXACT_MAX: u64 = 1 << 53;

/// Whether a field of a text file stands for null.
pub(crate) fn is_null(value: &str) -> bool {
    matches!(value.trim(), "" | "NA")
}

/// A number as text writes it; `None` if it is no number.
pub(crate) fn number(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = body.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if plain || is_special(body) { text.parse().ok() } else { None }
}

/// Not a number, or an infinity, in the spellings that programs write.
fn is_special(body: &str) -> bool {
    matches!(body, "NaN" | "nan" | "inf" | "Inf" | "Infinity")
}

/// A whole number that Float64 would round.
pub(crate) fn is_rounded_by_float(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse::<u64>().map_or(digits.len() > 15, |n| n > FLOAT64_EXACT_MAX)
}

/// What the values of one column have in common.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    values: u64,
    numbers: bool,
    /// A number other than `NaN` and infinities, which might be words.
    plain_number: bool,
    integers: bool,
    /// A whole number with zeros in front is rather a code.
    leading_zero: bool,
    rounded: bool,
    times: bool,
    finer_than_micros: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            values: 0,
            numbers: true,
            plain_number: false,
            integers: true,
            leading_zero: false,
            rounded: false,
            times: true,
            finer_than_micros: false,
        }
    }
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The time column, which may count in whole numbers.
    Time,
    /// A key, which may not be a floating point number.
    Key,
    /// Anything else.
    Value,
}

/// The roles of the columns by their names.
pub(crate) fn roles(names: &[String], expected: &Expected) -> Vec<Role> {
    let by_name = || TIME_COLUMN_NAMES.iter().copied().find(|name| names.iter().any(|n| n == name));
    let time = expected.time_column.as_deref().or_else(by_name);
    names
        .iter()
        .map(|name| {
            if Some(name.as_str()) == time {
                Role::Time
            } else if expected.keys.contains(name) {
                Role::Key
            } else {
                Role::Value
            }
        })
        .collect()
}

impl Evidence {
    /// Takes one field into account.
    pub(crate) fn add(&mut self, field: &str) {
        let text = field.trim();
        if is_null(text) {
            return;
        }
        self.values += 1;
        if self.numbers {
            self.add_number(text);
        }
        if self.times {
            match time::parse(text) {
                Some(nanos) => self.finer_than_micros |= nanos % 1_000 != 0,
                None => self.times = false,
            }
        }
    }

    fn add_number(&mut self, text: &str) {
        self.numbers = number(text).is_some();
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        self.plain_number |= self.numbers && !is_special(digits);
        self.integers &= text.parse::<i64>().is_ok();
        self.leading_zero |= digits.len() > 1 && digits.starts_with('0');
        self.rounded |= is_rounded_by_float(text);
    }

    /// The type for a column in a role. A column of nulls is taken for numbers.
    pub(crate) fn data_type(&self, role: Role) -> DataType {
        if self.values == 0 {
            return if role == Role::Key { DataType::Utf8 } else { DataType::Float64 };
        }
        if self.times {
            let unit =
                if self.finer_than_micros { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
            return DataType::Timestamp(unit, Some("UTC".into()));
        }
        if !self.numbers || !self.plain_number {
            return DataType::Utf8;
        }
        match role {
            Role::Key if self.integers && !self.leading_zero => DataType::Int64,
            Role::Key => DataType::Utf8,
            Role::Time if self.integers => DataType::Int64,
            _ if self.integers && self.rounded => DataType::Int64,
            _ => DataType::Float64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(values: &[&str], role: Role) -> DataType {
        let mut evidence = Evidence::default();
        values.iter().for_each(|value| evidence.add(value));
        evidence.data_type(role)
    }

    #[test]
    fn types_from_values() {
        let utc = |unit| DataType::Timestamp(unit, Some("UTC".into()));
        for (values, expected) in [
            (vec!["1", " 2.5", "NA", "", "-1e9", "NaN"], DataType::Float64),
            (vec!["", "NA"], DataType::Float64),
            (vec!["1", "x"], DataType::Utf8),
            (vec!["nan", "inf"], DataType::Utf8),
            (vec!["true"], DataType::Utf8),
            (vec!["1_000"], DataType::Utf8),
            (vec!["0x10"], DataType::Utf8),
            (vec!["2024-01-31", "2024-01-31T12:00:00Z"], utc(TimeUnit::Microsecond)),
            (vec!["2024-01-31T12:00:00.000000001Z"], utc(TimeUnit::Nanosecond)),
            (vec!["2024-01-31", "5"], DataType::Utf8),
            (vec!["9007199254740993"], DataType::Int64),
            (vec!["9007199254740993", "0.5"], DataType::Float64),
        ] {
            assert_eq!(infer(&values, Role::Value), expected, "{values:?}");
        }
    }

    #[test]
    fn keys_and_times_are_never_rounded() {
        assert_eq!(infer(&["1", "2"], Role::Key), DataType::Int64);
        assert_eq!(infer(&["007", "2"], Role::Key), DataType::Utf8);
        assert_eq!(infer(&["1.5"], Role::Key), DataType::Utf8);
        assert_eq!(infer(&["1700000000"], Role::Time), DataType::Int64);
        assert_eq!(infer(&["1700000000.5"], Role::Time), DataType::Float64);
    }

    #[test]
    fn the_time_column_is_known_by_name() {
        let names: Vec<String> = ["ts", "time", "id"].map(str::to_owned).into();
        let mut expected = Expected { keys: vec!["id".into()], ..Expected::default() };
        assert_eq!(roles(&names, &expected), [Role::Value, Role::Time, Role::Key]);
        expected.time_column = Some("ts".into());
        assert_eq!(roles(&names, &expected), [Role::Time, Role::Value, Role::Key]);
    }
}
