//! Who asks about which rows: segments, and stretches of large ones, dealt out to partitions.

use tidelog_warm::TimeRange;

use super::request::Question;

/// Fewer rows than these are not worth another partition.
const ROWS_MIN: u64 = 64 * 1024;

/// A question about some files of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Which of the questions.
    pub(super) question: usize,
    /// Which of its files.
    pub(super) files: Vec<usize>,
    /// Only rows from the first to the last of these times, in the unit of the table.
    pub(super) times: Option<(i64, i64)>,
}

/// All rows of a file that are asked for, or a stretch of them.
#[derive(Debug, Clone, Copy)]
struct Piece {
    question: usize,
    file: usize,
    first: i64,
    last: i64,
    /// About how many rows.
    rows: u64,
    whole: bool,
}

/// The calls of each partition, of `partitions` at most. There is always one, and a call to each
/// question.
pub(super) fn deal(questions: &[Question], partitions: usize) -> Vec<Vec<Call>> {
    let pieces: Vec<Piece> = questions.iter().enumerate().flat_map(pieces).collect();
    let total: u64 = pieces.iter().map(|piece| piece.rows).sum();
    let shares = (total / ROWS_MIN).clamp(1, partitions.max(1) as u64);
    let fair = total.div_ceil(shares).max(1);
    let mut dealt = vec![Vec::new()];
    let mut room = fair;
    for mut piece in pieces {
        loop {
            let is_last = dealt.len() as u64 == shares;
            if room == 0 && !is_last {
                dealt.push(Vec::new());
                room = fair;
                continue;
            }
            let Some((now, later)) = piece.cut(room).filter(|_| !is_last) else { break };
            push(&mut dealt, now);
            piece = later;
            room = 0;
        }
        room = room.saturating_sub(piece.rows);
        push(&mut dealt, piece);
    }
    dealt
}

fn pieces((question, asked): (usize, &Question)) -> impl Iterator<Item = Piece> {
    let range = asked.request.time;
    asked.held.files.iter().enumerate().map(move |(file, warm)| {
        let (rows, time) = (warm.segment.rows() as u64, warm.segment.stats().time);
        let (first, last) = within(time, range).unwrap_or((0, -1));
        let rows = match time {
            Some((least, greatest)) if first <= last => {
                of_keys(part(rows, (first, last), (least, greatest)), asked.keys)
            }
            _ => 0,
        };
        Piece { question, file, first, last, rows, whole: true }
    })
}

fn within(time: Option<(i64, i64)>, range: TimeRange) -> Option<(i64, i64)> {
    let ((least, greatest), (first, last)) = (time?, range.inclusive()?);
    let (first, last) = (least.max(first), greatest.min(last));
    (first <= last).then_some((first, last))
}

/// About how many of `rows` lie in a stretch of their times.
fn part(rows: u64, stretch: (i64, i64), all: (i64, i64)) -> u64 {
    let length = |(first, last): (i64, i64)| u128::from(last.abs_diff(first)) + 1;
    let rows = u128::from(rows) * length(stretch) / length(all);
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// About how many of `rows` are of the keys that are wanted: so many, of so many.
fn of_keys(rows: u64, (wanted, all): (usize, usize)) -> u64 {
    let rows = u128::from(rows) * wanted as u128 / all.max(1) as u128;
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// Whether one partition is to ask all that there is to ask.
pub(super) fn is_one_call(questions: &[Question], partitions: usize) -> bool {
    matches!(deal(questions, partitions).as_slice(), [calls] if calls.len() == 1)
}

impl Piece {
    /// The piece as one with about `rows` rows, and the rest; `None` if it is not worth it.
    fn cut(self, rows: u64) -> Option<(Self, Self)> {
        if self.rows <= rows.saturating_add(ROWS_MIN / 4) || self.first >= self.last {
            return None;
        }
        let length = u128::from(self.last.abs_diff(self.first)) + 1;
        let until = length * u128::from(rows) / u128::from(self.rows);
        let until = i128::from(self.first) + i128::try_from(until).ok()? - 1;
        let until = i64::try_from(until).ok()?.clamp(self.first, self.last - 1);
        let now = Self { last: until, rows, whole: false, ..self };
        let later = Self { first: until + 1, rows: self.rows - rows, whole: false, ..self };
        Some((now, later))
    }
}

fn push(dealt: &mut [Vec<Call>], piece: Piece) {
    let Some(calls) = dealt.last_mut() else { return };
    let times = (!piece.whole).then_some((piece.first, piece.last));
    match calls.last_mut() {
        Some(call) if call.question == piece.question && (call.times, times) == (None, None) => {
            call.files.push(piece.file);
        }
        _ => calls.push(Call { question: piece.question, files: vec![piece.file], times }),
    }
}

/// The range of a request that is also within some times.
pub(super) fn narrowed(range: TimeRange, times: Option<(i64, i64)>) -> TimeRange {
    let Some(times) = times else { return range };
    match within(Some(times), range) {
        Some((first, last)) => TimeRange::from_inclusive(first, last),
        None => TimeRange::new(0, 0),
    }
}

/// A stretch of times as `parts` stretches of like length, or fewer.
pub(super) fn stretches((first, last): (i64, i64), parts: u64) -> Vec<(i64, i64)> {
    let length = u128::from(last.abs_diff(first)) + 1;
    let step = length.div_ceil(u128::from(parts.max(1)));
    let mut stretches = Vec::new();
    let mut start = i128::from(first);
    while start <= i128::from(last) {
        let end = (start + i128::try_from(step).unwrap_or(i128::MAX / 2) - 1).min(i128::from(last));
        if let (Ok(first), Ok(last)) = (i64::try_from(start), i64::try_from(end)) {
            stretches.push((first, last));
        }
        start = end + 1;
    }
    stretches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Strategy<Value = (i64, i64)> {
        let ends = prop_oneof![
            3 => (-1000..1000_i64, 0..2000_i64),
            1 => Just((i64::MIN, i64::MAX)),
            1 => Just((i64::MAX - 1, 5)),
        ];
        ends.prop_map(|(first, length)| (first, first.saturating_add(length)))
    }

    fn follow(parts: &[(i64, i64)], (first, last): (i64, i64)) {
        assert_eq!(parts.first().map(|part| part.0), Some(first));
        assert_eq!(parts.last().map(|part| part.1), Some(last));
        assert!(parts.iter().all(|(first, last)| first <= last), "{parts:?}");
        assert!(
            parts.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0)),
            "{parts:?}"
        );
    }

    proptest! {
        #[test]
        fn stretches_are_all_of_it_one_after_the_other(all in times(), parts in 1..50_u64) {
            let stretches = stretches(all, parts);
            follow(&stretches, all);
            prop_assert!(stretches.len() as u64 <= parts);
        }

        #[test]
        fn a_piece_that_is_cut_is_all_there(
            (first, last) in times(),
            rows in 0..10 * ROWS_MIN,
            room in ROWS_MIN / 8..5 * ROWS_MIN,
        ) {
            let mut piece = Piece { question: 0, file: 0, first, last, rows, whole: true };
            let mut cut = Vec::new();
            while let Some((now, later)) = piece.cut(room) {
                prop_assert!(!now.whole && !later.whole);
                cut.push((now.first, now.last));
                piece = later;
            }
            cut.push((piece.first, piece.last));
            follow(&cut, (first, last));
            let few = piece.rows <= room + ROWS_MIN / 4 || piece.first == piece.last;
            prop_assert!(few, "{piece:?}");
        }
    }

    #[test]
    fn about_as_many_rows_are_in_a_stretch_as_of_its_length() {
        assert_eq!(part(100, (0, 9), (0, 99)), 10);
        assert_eq!(part(100, (0, 99), (0, 99)), 100);
        assert_eq!(
            part(u64::from(u32::MAX), (i64::MIN, i64::MAX), (i64::MIN, i64::MAX)),
            4_294_967_295
        );
        assert_eq!(of_keys(1_000, (8, 100)), 80);
        assert_eq!(of_keys(u64::MAX, (7, 7)), u64::MAX);
        assert_eq!(of_keys(0, (0, 0)), 0);
        assert_eq!(within(Some((5, 9)), TimeRange::new(7, 30)), Some((7, 9)));
        assert_eq!(within(Some((5, 9)), TimeRange::new(10, 30)), None);
        assert_eq!(narrowed(TimeRange::new(0, 10), Some((4, 20))), TimeRange::new(4, 10));
        assert_eq!(narrowed(TimeRange::new(0, 3), Some((4, 20))).inclusive(), None);
    }
}
