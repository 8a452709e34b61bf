//! Who writes to the log, as its newest commits tell.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tidelog_core::{CommitVersion, WriteTime};
use uuid::Uuid;

/// Commits whose writers are remembered.
const NOTED: usize = 128;
/// Who has committed nothing for longer, while others did, has gone.
const WITHIN_US: i64 = 10_000_000;

/// Where a handle stands among those that write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Turn {
    /// Other handles that write.
    pub rivals: usize,
    /// Those of them whose last commit is older than this handle's, so that it is their turn before.
    /// `None` if this handle is not among those that write.
    pub ahead: Option<usize>,
    /// Mean time between the newest commits.
    pub interval: Duration,
}

/// The writers of the newest commits, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    newest: VecDeque<(CommitVersion, Uuid, WriteTime)>,
}

impl Writers {
    /// Notes a commit, unless it or a later one is noted already.
    pub(crate) fn note(&mut self, commit: CommitVersion, writer: Uuid, time: WriteTime) {
        if self.newest.back().is_some_and(|(last, ..)| *last >= commit) {
            return;
        }
        self.newest.push_back((commit, writer, time));
        if self.newest.len() > NOTED {
            self.newest.pop_front();
        }
    }

    /// Where the handle `own` stands. A writer that has missed two turns of the others counts no
    /// more, so that nobody waits for one that has gone.
    pub(crate) fn turn(&self, own: Uuid) -> Turn {
        let Some((_, _, newest)) = self.newest.back() else { return Turn::default() };
        let mut writers = HashSet::new();
        let (mut since, mut last, mut seen) = (None, *newest, 0_u32);
        for (_, writer, time) in self.newest.iter().rev() {
            let gone = seen as usize > 2 * writers.len() + 4;
            if gone || newest.micros() - time.micros() > WITHIN_US {
                break;
            }
            if *writer == own {
                since.get_or_insert(writers.len());
            } else {
                writers.insert(*writer);
            }
            (last, seen) = (*time, seen + 1);
        }
        let micros = u64::try_from(newest.micros() - last.micros()).unwrap_or_default();
        let interval = Duration::from_micros(micros) / seen.saturating_sub(1).max(1);
        let rivals = writers.len();
        Turn { rivals, ahead: since.map(|since| rivals - since), interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(writers: &[u128]) -> Writers {
        let mut noted = Writers::default();
        for (i, writer) in (1_i64..).zip(writers) {
            let time = WriteTime::from_micros(i * 1_000);
            noted.note(CommitVersion::new(i), Uuid::from_u128(*writer), time);
        }
        noted
    }

    #[test]
    fn those_are_ahead_who_have_waited_longer() {
        let turn = |writers: &[u128]| noted(writers).turn(Uuid::from_u128(1));
        assert_eq!(turn(&[]), Turn::default());
        assert_eq!(turn(&[1, 1]).rivals, 0);
        let of = |writers: &[u128]| (turn(writers).rivals, turn(writers).ahead);
        assert_eq!(of(&[2, 3]), (2, None));
        assert_eq!(of(&[2, 3, 1]), (2, Some(2)));
        assert_eq!(of(&[2, 3, 1, 2, 2]), (2, Some(1)));
        assert_eq!(of(&[2, 3, 1, 2, 3]), (2, Some(0)));
        assert_eq!(turn(&[2, 3, 1, 2]).interval, Duration::from_millis(1));
    }

    #[test]
    fn nobody_waits_for_one_that_has_gone() {
        let mut writers = vec![9];
        writers.extend([1, 2, 3].repeat(2));
        assert_eq!(noted(&writers).turn(Uuid::from_u128(1)).rivals, 3);
        writers.extend([1, 2, 3].repeat(2));
        assert_eq!(noted(&writers).turn(Uuid::from_u128(1)).rivals, 2);
    }

    #[test]
    fn a_commit_that_two_tasks_read_is_noted_once() {
        let mut writers = noted(&[2, 1, 3]);
        writers.note(CommitVersion::new(2), Uuid::from_u128(1), WriteTime::from_micros(2_000));
        assert_eq!(writers.turn(Uuid::from_u128(1)).ahead, Some(1));
    }
}
