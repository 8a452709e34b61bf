//! Where rows that come late end and new ones begin.
//!
//! Of the rows of a flush most are often new, and some belong anywhere in the past. In one file they would
//! all lie over all of the past, to be merged with what is there again and again; apart, only those do that
//! have to.
//!
//! ```text
//! rows         .   .    .  .     .   .    .  .  . . ..:::::
//! event time   └───────────────late──────────────┘└─new──┘
//! ```
//!
//! The border is where the share of the rows behind it exceeds its share of the time most.

use arrow::array::Int64Array;

/// Fewer rows are not worth two files.
const ROWS_MIN: usize = 8192;
/// The border is one of so many instants at the same distance.
const INSTANTS: u32 = 256;
/// By so much, of all rows, those behind the border are more than if all came at one rate.
const DENSER_BY: f64 = 0.25;

/// The first event time of the new rows; `None` if all come at about one rate. Each of `pieces` is
/// ascending.
pub(crate) fn border(pieces: &[Int64Array]) -> Option<i64> {
    let rows: usize = pieces.iter().map(|times| times.values().len()).sum();
    if rows < ROWS_MIN {
        return None;
    }
    let first = i128::from(*pieces.iter().filter_map(|times| times.values().first()).min()?);
    let last = i128::from(*pieces.iter().filter_map(|times| times.values().last()).max()?);
    let instants = (1..INSTANTS).filter_map(|number| {
        let time = first + (last - first) * i128::from(number) / i128::from(INSTANTS);
        let time = i64::try_from(time).ok()?;
        let before = |times: &Int64Array| times.values().partition_point(|at| *at < time);
        let before: usize = pieces.iter().map(before).sum();
        let denser_by = f64::from(number) / f64::from(INSTANTS) - before as f64 / rows as f64;
        (before > 0).then_some((denser_by, time))
    });
    let (denser_by, time) = instants.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (denser_by >= DENSER_BY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: i64 = 30_000;

    fn border_of(mut times: Vec<i64>) -> Option<i64> {
        // As two pieces that overlap.
        let second = times.split_off(times.len() / 2);
        let pieces = [times, second].map(|mut times| {
            times.sort_unstable();
            Int64Array::from(times)
        });
        border(&pieces)
    }

    #[test]
    fn rows_anywhere_in_the_past_are_told_from_new_ones() {
        for late in [1, 100, ROWS / 3, ROWS / 2] {
            let all = 100 * ROWS;
            let times = (0..ROWS).map(|row| {
                let is_late = row % (ROWS / late) == 0;
                if is_late { all * row / ROWS } else { all + row }
            });
            let border = border_of(times.collect()).unwrap();
            assert!(border <= all + ROWS / 10, "of {late} late rows: {border}");
            assert!(border >= all - all / 50, "of {late} late rows: {border}");
        }
    }

    #[test]
    fn rows_that_come_at_one_rate_are_one_file() {
        assert_eq!(border_of((0..ROWS).collect()), None);
        assert_eq!(border_of((0..ROWS).map(|row| row - (row * 7_919) % 60).collect()), None);
        assert_eq!(border_of((0..ROWS).map(|_| 5).collect()), None);
        assert_eq!(border_of((0..ROWS).map(|row| (row * 7_919) % 100_000).collect()), None);
    }

    #[test]
    fn few_rows_are_one_file() {
        let times: Vec<i64> = std::iter::once(0).chain(1_000_000..1_000_000 + 8190).collect();
        assert_eq!(border_of(times.clone()), None);
        assert!(border_of(times.into_iter().chain([1_000_000]).collect()).is_some());
    }

    #[test]
    fn all_times_are_taken() {
        let times = (0..ROWS).map(|row| if row == 0 { i64::MIN } else { i64::MAX - row });
        let border = border_of(times.collect()).unwrap();
        assert!(border < i64::MAX - ROWS && border > 0);
    }
}
