//! Numbers, ages and units, as they are typed.

use std::time::Duration;

use tidelog::{CommitVersion, TimeUnit};

pub(super) fn parse_commit(text: &str) -> Result<CommitVersion, String> {
    let number = text.parse().ok().filter(|number| *number >= 0).map(CommitVersion::new);
    number.ok_or_else(|| format!("{text:?} is not the number of a commit, such as `log` shows"))
}

pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time; write such as 0s, 90m, 24h or 7d");
    // A number alone counts nothing.
    let span: jiff::SignedDuration = match text.strip_suffix('d').map(str::parse::<u32>) {
        Some(Ok(days)) => jiff::SignedDuration::from_hours(i64::from(days) * 24),
        _ => text.parse().map_err(|_| wrong())?,
    };
    Duration::try_from(span).map_err(|_| wrong())
}

pub(super) fn parse_unit(text: &str) -> Result<TimeUnit, String> {
    text.parse::<TimeUnit>().map_err(|error| error.to_string())
}

/// More rows than any disk at hand holds are a slip of the keyboard.
const DEMO_ROWS_MAX: u64 = 10_000_000_000;
const DEMO_BATCH_ROWS_MAX: u64 = 10_000_000;

pub(super) fn parse_rows(text: &str) -> Result<u64, String> {
    parse_count(text, DEMO_ROWS_MAX)
}

pub(super) fn parse_batch_rows(text: &str) -> Result<u64, String> {
    parse_count(text, DEMO_BATCH_ROWS_MAX)
}

/// Reads a number of things from 1 to `max`: `25000`, `25_000`, `25k`, `3M`, `1G`.
fn parse_count(text: &str, max: u64) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => Some(1),
        "k" | "K" => Some(1_000),
        "m" | "M" => Some(1_000_000),
        "g" | "G" => Some(1_000_000_000),
        _ => None,
    };
    let number = number.replace('_', "").parse::<u64>().ok();
    let count = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    count.filter(|count| (1..=max).contains(count)).ok_or_else(|| {
        format!("{text:?} is not a number of rows from 1 to {max}; write such as 25000, 25_000, 3M")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_rows_are_read() {
        for (text, rows) in [("1", 1), ("25_000", 25_000), ("25k", 25_000), ("3M", 3_000_000)] {
            assert_eq!(parse_rows(text), Ok(rows), "{text}");
        }
        for bad in ["", "0", "-1", "1.5M", "1e6", "k", "_", "3 M", "99999999999", "99999999999G"] {
            assert!(parse_rows(bad).is_err(), "{bad}");
        }
        assert!(parse_batch_rows("11M").is_err());
    }

    #[test]
    fn ages_are_read() {
        for (text, seconds) in [("0s", 0), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "7", "-1h", "d", "-7d", "soon", "1.5d"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }
}
