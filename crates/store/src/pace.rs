//! When a writer tries to commit, where others write too.
//!
//! An attempt fails if somebody else's commit lands while it is under way. With n writers that always
//! have something to commit, most commits land when about one attempt begins in the time that an
//! attempt takes, as with packets on a shared medium (N. Abramson, *The ALOHA system*, 1970). So each
//! waits, before it tries, a random time that is on average as many attempts long as it has rivals.
//! It has as many as commits of others land between two of its own. All wait alike, those who have
//! just won too, so none starves; a writer without rivals never waits.

use std::time::Duration;

use tidelog_core::Randomness;

/// Below this many rivals nothing is gained by waiting.
const RIVALS_MIN: f64 = 0.5;
/// More rivals than this are not waited for: something other than their number is wrong.
const RIVALS_MAX: f64 = 64.0;
/// How much of an average the newest observation is.
const NEWEST: f64 = 0.3;
/// Where no attempt has been timed: a conflict is seen before.
const ATTEMPT_DEFAULT: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a writer has seen of its rivals.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    rivals: f64,
    /// What an attempt takes, in seconds.
    attempt: Option<f64>,
}

impl Pace {
    /// How long to wait before an attempt; `None` to try at once, with what is known of the log.
    pub(crate) fn wait(&self, attempt: u32, randomness: &dyn Randomness) -> Option<Duration> {
        // A conflict is a rival, before its commits have been counted.
        let rivals = if attempt > 1 { self.rivals.max(1.0) } else { self.rivals };
        if rivals < RIVALS_MIN {
            return None;
        }
        let took = self.attempt.unwrap_or(ATTEMPT_DEFAULT.as_secs_f64());
        let longest = Duration::from_secs_f64(2.0 * rivals * took).min(WAIT_MAX);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Some(Duration::from_micros(randomness.below(micros.max(1))))
    }

    /// An attempt took so long, whatever came of it.
    pub(crate) fn tried(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.attempt = Some(self.attempt.map_or(took, |before| mix(before, took)));
    }

    /// A commit landed after so many of others since the last.
    pub(crate) fn landed_after(&mut self, others: u64) {
        let others = u32::try_from(others).map_or(RIVALS_MAX, f64::from).min(RIVALS_MAX);
        self.rivals = mix(self.rivals, others);
    }
}

fn mix(before: f64, newest: f64) -> f64 {
    before + NEWEST * (newest - before)
}

#[cfg(test)]
mod tests {
    use tidelog_core::env::SystemRandomness;

    use super::*;

    #[test]
    fn who_is_alone_never_waits_and_who_has_rivals_waits_for_about_as_many_attempts() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(1, &SystemRandomness), None);
        assert!(pace.wait(2, &SystemRandomness).is_some(), "a conflict is a rival");
        for _ in 0..50 {
            pace.tried(Duration::from_millis(10));
            pace.landed_after(15);
        }
        let waits: Vec<f64> = (0..2000)
            .filter_map(|_| pace.wait(1, &SystemRandomness))
            .map(|wait| wait.as_secs_f64())
            .collect();
        let mean = waits.iter().sum::<f64>() / 2000.0;
        assert!((0.13..0.17).contains(&mean), "{mean}");
        for _ in 0..20 {
            pace.landed_after(0);
        }
        assert_eq!(pace.wait(1, &SystemRandomness), None);
    }
}
