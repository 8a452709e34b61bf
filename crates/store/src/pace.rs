//! When a writer tries to commit, where others write too.
//!
//! An attempt fails if somebody else's commit lands while it is under way. So those that always have
//! something to commit take turns without a word: whoever has waited longest goes first, and the
//! newest commits, which all see alike, tell who that is. A writer waits for as long as those before
//! it are likely to take, reads what has landed, and tries where none but its own commit is expected.
//! For one that does not come it waits a little longer, then no more. Who is new, and who has lost
//! twice, tries after a random time of one turn. A writer alone never waits.

use std::time::Duration;

use tidelog_core::Randomness;
use tidelog_oplog::Turn;

/// How much of an average the newest observation is.
const NEWEST: f64 = 0.2;
/// Where no attempt has been timed.
const ATTEMPT_DEFAULT: Duration = Duration::from_millis(5);
/// How much of the time that those before are likely to take is waited for before the first look:
/// who comes late holds up all.
const EARLY: f64 = 0.8;
/// How often a writer looks whether those before it have come.
const LOOKS_MAX: u32 = 3;
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a writer knows of its own attempts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// What an attempt takes, in seconds.
    attempt: Option<f64>,
    /// When the last one ended, on a monotonic clock.
    ended: Duration,
}

/// A moment before an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    /// Which attempt of the same group it is, from 1.
    pub(crate) attempt: u32,
    /// How often the writer has looked for others' commits before this attempt.
    pub(crate) looks: u32,
    /// On a monotonic clock.
    pub(crate) now: Duration,
}

impl Pace {
    /// For how long to wait before the next look at what others have committed; `None` to try at
    /// once with what is known.
    pub(crate) fn wait(
        &self,
        before: Before,
        turn: &Turn,
        randomness: &dyn Randomness,
    ) -> Option<Duration> {
        let Before { attempt, looks, .. } = before;
        // Who has lost has a rival, noted or not.
        let rivals = if attempt > 1 { turn.rivals.max(1) } else { turn.rivals };
        if rivals == 0 {
            return None;
        }
        match turn.ahead {
            None if looks > 0 => None,
            None if attempt == 1 => Some(Duration::ZERO),
            None => Some(self.random(rivals, randomness)),
            Some(_) if attempt > 2 => (looks == 0).then(|| self.random(rivals, randomness)),
            Some(ahead) if looks == 0 => self.first_look(before, ahead, turn),
            Some(0) => None,
            Some(ahead) => (looks < LOOKS_MAX).then(|| times(2 * self.took(), ahead)),
        }
    }

    /// Whether the others' commits since this writer's last can be told from its noting who writes:
    /// not if it has let turns pass.
    pub(crate) fn is_in_rhythm(&self, before: Before, turn: &Turn) -> bool {
        let round = times(self.step(turn), turn.rivals + 1);
        before.attempt == 1 && before.now.saturating_sub(self.ended) < 2 * round
    }

    /// How many of those before it are likely to have committed since this writer's last attempt.
    pub(crate) fn landed(&self, now: Duration, turn: &Turn) -> usize {
        let (step, since) =
            (self.step(turn).as_micros(), now.saturating_sub(self.ended).as_micros());
        let landed = since.checked_div(step).and_then(|landed| usize::try_from(landed).ok());
        turn.ahead.unwrap_or(0).min(landed.unwrap_or(usize::MAX))
    }

    fn first_look(&self, before: Before, ahead: usize, turn: &Turn) -> Option<Duration> {
        if before.attempt > 1 && ahead == 0 {
            // The winner has just been read, and it was the last to come before.
            return None;
        }
        let likely = times(self.step(turn), ahead).mul_f64(EARLY);
        Some(likely.saturating_sub(before.now.saturating_sub(self.ended)))
    }

    /// A random time of one turn of everybody.
    fn random(&self, rivals: usize, randomness: &dyn Randomness) -> Duration {
        let turn = times(self.took(), rivals + 1);
        let micros = u64::try_from(turn.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(randomness.below(micros.max(1)))
    }

    fn took(&self) -> Duration {
        let took = self.attempt.unwrap_or(ATTEMPT_DEFAULT.as_secs_f64());
        Duration::from_secs_f64(took).min(WAIT_MAX)
    }

    /// The time from commit to commit while all take turns. What is told by write times is trusted
    /// within limits: clocks differ, and those who have nothing to write lengthen it.
    fn step(&self, turn: &Turn) -> Duration {
        turn.interval.clamp(self.took() / 2, self.took() * 3)
    }

    /// An attempt began and ended, whatever came of it.
    pub(crate) fn tried(&mut self, began: Duration, ended: Duration) {
        let took = ended.saturating_sub(began).as_secs_f64();
        self.attempt = Some(self.attempt.map_or(took, |before| before + NEWEST * (took - before)));
        self.ended = ended;
    }
}

fn times(step: Duration, count: usize) -> Duration {
    step.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use tidelog_core::env::SystemRandomness;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn before(attempt: u32, looks: u32, now: Duration) -> Before {
        Before { attempt, looks, now }
    }

    fn turn(rivals: usize, ahead: Option<usize>) -> Turn {
        let mut turn = Turn::default();
        (turn.rivals, turn.ahead, turn.interval) = (rivals, ahead, ms(10));
        turn
    }

    fn pace() -> Pace {
        let mut pace = Pace::default();
        for turn in 0..50 {
            pace.tried(ms(turn * 100), ms(turn * 100 + 10));
        }
        pace
    }

    #[test]
    fn who_is_alone_never_waits() {
        let alone = turn(0, Some(0));
        let pace = Pace::default();
        assert_eq!(pace.wait(before(1, 0, ms(0)), &alone, &SystemRandomness), None);
    }

    #[test]
    fn a_writer_waits_for_those_before_it_and_not_for_ever() {
        let pace = pace();
        let wait =
            |looks, now, turn: Turn| pace.wait(before(1, looks, ms(now)), &turn, &SystemRandomness);
        let first = wait(0, 4_910, turn(15, Some(15))).unwrap();
        assert!(first > ms(110) && first < ms(125), "{first:?}");
        assert_eq!(wait(0, 9_910, turn(15, Some(15))), Some(ms(0)), "its turn has passed");
        assert_eq!(wait(1, 5_040, turn(15, Some(0))), None, "all have come");
        assert!(wait(1, 5_040, turn(15, Some(2))).unwrap() < ms(50));
        assert_eq!(wait(LOOKS_MAX, 5_040, turn(15, Some(2))), None, "they do not come");
    }

    #[test]
    fn who_has_lost_goes_on_if_nobody_is_before_it_and_else_at_random() {
        let pace = pace();
        let wait = |attempt, ahead| {
            pace.wait(before(attempt, 0, ms(4_910)), &turn(15, ahead), &SystemRandomness)
        };
        assert_eq!(wait(2, Some(0)), None);
        for (attempt, ahead) in [(2, None), (3, Some(0))] {
            let waits: Vec<_> = (0..100).filter_map(|_| wait(attempt, ahead)).collect();
            assert!(waits.iter().all(|wait| *wait < ms(165)), "{waits:?}");
            assert!(waits.iter().any(|wait| *wait < ms(50)), "{waits:?}");
        }
    }
}
