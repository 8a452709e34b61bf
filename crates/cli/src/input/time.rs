//! Times as people and programs write them into text files.

use jiff::Timestamp;
use jiff::civil;

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Nanoseconds since the epoch, UTC, of RFC 3339 or something close to it: a space for the `T`, no
/// seconds, no zone (which is UTC), or only a date. `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<i128> {
    if !begins_with_date(text) {
        return None;
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_nanosecond());
    }
    // The library's timestamps end a day before its civil times do, and 9999-12-31 is a favourite.
    let local = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if has_zone(local) {
        return None;
    }
    local.parse::<civil::DateTime>().ok().and_then(civil_nanos)
}

fn begins_with_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10
        && bytes[..10].iter().enumerate().all(|(i, byte)| match i {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
        && !text.contains('[')
}

fn has_zone(text: &str) -> bool {
    text.get(10..).is_some_and(|rest| rest.contains(['+', '-']))
}

fn civil_nanos(time: civil::DateTime) -> Option<i128> {
    let epoch = civil::Date::constant(1970, 1, 1);
    let days = i64::from(time.date().since(epoch).ok()?.get_days());
    let within =
        i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    let seconds = i128::from(days * SECONDS_PER_DAY + within);
    Some(seconds * NANOS_PER_SECOND + i128::from(time.subsec_nanosecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_instant() {
        let noon = 1_706_702_400 * NANOS_PER_SECOND;
        for text in [
            "2024-01-31T12:00:00Z",
            "2024-01-31t12:00:00z",
            "2024-01-31 12:00:00",
            "2024-01-31T12:00",
            "2024-01-31T14:00:00+02:00",
            "2024-01-31 12:00:00.000+00:00",
        ] {
            assert_eq!(parse(text), Some(noon), "{text}");
        }
        assert_eq!(parse("2024-01-31"), Some(noon - 12 * 3_600 * NANOS_PER_SECOND));
        assert_eq!(parse("1970-01-01T00:00:00.000000001"), Some(1));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Some(-NANOS_PER_SECOND));
    }

    #[test]
    fn the_last_day_there_is() {
        let last = 253_402_300_799 * NANOS_PER_SECOND;
        assert_eq!(parse("9999-12-31T23:59:59"), Some(last));
        assert_eq!(parse("9999-12-31T23:59:59Z"), Some(last));
    }

    #[test]
    fn what_only_resembles_a_time() {
        for text in [
            "",
            "now",
            "-7d",
            "20240131",
            "2024-13-01",
            "2024-02-30",
            "12:00",
            "2024-01-31T25:00",
            "2024-01-31x",
            "2024-1-31",
            "2024-01-31T12:00[Europe/Paris]",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
