//! When a writer tries to commit, where others write too.
//!
//! An attempt fails if somebody else's commit lands while it is under way. So writers that always
//! have something to commit take turns without a word: who has landed a commit tries again after as
//! long as one attempt of each writer takes, who has lost to another after a random time of that
//! length. Winners keep their places, losers look for free ones, and soon nobody collides (J. Barcelo
//! and others, *Learning-BEB: avoiding collisions in WLAN*, 2008). How many write is told by the
//! newest commits, which all see alike, so none starves. A writer alone never waits, nor does one
//! that has let its turn pass.

use std::time::Duration;

use tidelog_core::Randomness;

/// How much of an average the newest observation is.
const NEWEST: f64 = 0.2;
/// Where no attempt has been timed.
const ATTEMPT_DEFAULT: Duration = Duration::from_millis(5);
/// An attempt begins with looking for the head, which is not timed with it.
const ATTEMPT_MARGIN: f64 = 1.3;
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a writer knows of its own attempts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// What an attempt takes, in seconds.
    attempt: Option<f64>,
    /// When the last one ended, on a monotonic clock.
    ended: Duration,
}

impl Pace {
    /// How long to wait before an attempt, the first or a later one of the same group; `None` to try
    /// at once, with what is known of the log.
    pub(crate) fn wait(
        &self,
        attempt: u32,
        rivals: usize,
        now: Duration,
        randomness: &dyn Randomness,
    ) -> Option<Duration> {
        // Who has lost has a rival, counted or not.
        let rivals = if attempt > 1 { rivals.max(1) } else { rivals };
        if rivals == 0 {
            return None;
        }
        let writers = u32::try_from(rivals).unwrap_or(u32::MAX).saturating_add(1);
        let took = self.attempt.unwrap_or(ATTEMPT_DEFAULT.as_secs_f64());
        let turn = f64::from(writers) * took * ATTEMPT_MARGIN;
        let turn = Duration::from_secs_f64(turn.min(WAIT_MAX.as_secs_f64()));
        if attempt > 1 {
            let micros = u64::try_from(turn.as_micros()).unwrap_or(u64::MAX);
            return Some(Duration::from_micros(randomness.below(micros.max(1))));
        }
        Some(turn.saturating_sub(now.saturating_sub(self.ended)))
    }

    /// An attempt began and ended, whatever came of it.
    pub(crate) fn tried(&mut self, began: Duration, ended: Duration) {
        let took = ended.saturating_sub(began).as_secs_f64();
        self.attempt = Some(self.attempt.map_or(took, |before| before + NEWEST * (took - before)));
        self.ended = ended;
    }
}

#[cfg(test)]
mod tests {
    use tidelog_core::env::SystemRandomness;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_is_alone_never_waits_and_who_has_rivals_lets_each_have_a_turn() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(1, 0, ms(0), &SystemRandomness), None);
        assert!(pace.wait(2, 0, ms(0), &SystemRandomness).is_some(), "who lost has a rival");
        for turn in 0..50 {
            pace.tried(ms(turn * 100), ms(turn * 100 + 10));
        }
        let wait = pace.wait(1, 15, ms(4_910), &SystemRandomness).unwrap();
        assert!(wait > ms(200) && wait < ms(216), "{wait:?}");
        let later = pace.wait(1, 15, ms(9_910), &SystemRandomness);
        assert_eq!(later, Some(ms(0)), "its turn has passed");
        let lost = (0..100).filter_map(|_| pace.wait(2, 15, ms(4_910), &SystemRandomness));
        assert!(lost.clone().all(|wait| wait < ms(216)) && lost.clone().any(|wait| wait < ms(50)));
    }
}
