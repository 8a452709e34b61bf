//! Notices that this process was stopped for a while, as by a debugger, a full machine or its sleep.
//!
//! A store whose owner shows no sign of life may be taken over by somebody who waits for one for longer
//! than [`STALL`]. So an owner that finds itself stopped for longer asks the log whether the store is
//! still its own before it acknowledges anything more.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_core::{Env, WriteTime};

/// How often the pulse beats.
pub(crate) const BEAT: Duration = Duration::from_millis(500);
/// A pulse that has not beaten for so long was stopped.
pub(crate) const STALL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Pulse {
    env: Env,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    monotonic: Duration,
    /// The monotonic clock may stand still while the machine sleeps.
    wall: WriteTime,
}

#[derive(Debug)]
struct State {
    last: Moment,
    /// When a stop was noticed that nobody has looked into.
    stopped: Option<Duration>,
}

impl Moment {
    fn now(env: &Env) -> Self {
        Self { monotonic: env.clock.monotonic(), wall: env.clock.now() }
    }

    /// A wall clock that was set makes this long, too: then the log is asked in vain.
    fn since(&self, earlier: &Self) -> Duration {
        let wall = self.wall.micros().abs_diff(earlier.wall.micros());
        self.monotonic.saturating_sub(earlier.monotonic).max(Duration::from_micros(wall))
    }
}

impl Pulse {
    pub(crate) fn new(env: Env) -> Self {
        let state = State { last: Moment::now(&env), stopped: None };
        Self { env, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One beat.
    pub(crate) fn beat(&self) {
        let now = Moment::now(&self.env);
        let mut state = self.lock();
        if now.since(&state.last) > STALL {
            state.stopped = Some(now.monotonic);
        }
        state.last = now;
    }

    /// Whether the process was stopped since somebody has looked into it.
    pub(crate) fn has_stopped(&self) -> bool {
        let now = Moment::now(&self.env);
        let state = self.lock();
        state.stopped.is_some() || now.since(&state.last) > STALL
    }

    /// Beats, and says when: for whoever looks into it from here on.
    pub(crate) fn begin_look(&self) -> Duration {
        self.beat();
        self.env.clock.monotonic()
    }

    /// All is well as of `began`.
    pub(crate) fn end_look(&self, began: Duration) {
        let mut state = self.lock();
        state.stopped = state.stopped.filter(|noticed| *noticed > began);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidelog_core::{Clock, Randomness};

    use super::*;

    #[derive(Debug, Default)]
    struct Hand(Mutex<(u64, i64)>);

    impl Hand {
        fn set(&self, monotonic_ms: u64, wall_ms: i64) {
            *self.0.lock().unwrap() = (monotonic_ms, wall_ms);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> WriteTime {
            WriteTime::from_micros(self.0.lock().unwrap().1 * 1_000)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.lock().unwrap().0)
        }
    }

    #[derive(Debug)]
    struct Nothing;

    impl Randomness for Nothing {
        fn fill(&self, _: &mut [u8]) {}
    }

    fn pulse() -> (Arc<Hand>, Pulse) {
        let hand = Arc::new(Hand::default());
        let clock: Arc<dyn Clock> = Arc::<Hand>::clone(&hand);
        (hand, Pulse::new(Env { clock, randomness: Arc::new(Nothing) }))
    }

    #[test]
    fn a_stop_is_noticed_until_somebody_has_looked_after_it() {
        let (hand, pulse) = pulse();
        for ms in [500_u32, 1_000, 2_900, 4_900] {
            hand.set(ms.into(), ms.into());
            assert!(!pulse.has_stopped(), "{ms}");
            pulse.beat();
        }
        let began = pulse.begin_look();
        hand.set(7_000, 7_000);
        assert!(pulse.has_stopped(), "before the next beat");
        pulse.beat();
        assert!(pulse.has_stopped(), "and after it");
        pulse.end_look(began);
        assert!(pulse.has_stopped(), "a look from before says nothing");
        let began = pulse.begin_look();
        pulse.end_look(began);
        assert!(!pulse.has_stopped());
    }

    #[test]
    fn a_sleep_of_the_machine_is_noticed_by_the_wall_clock() {
        let (hand, pulse) = pulse();
        hand.set(100, 60_000);
        assert!(pulse.has_stopped());
        let began = pulse.begin_look();
        pulse.end_look(began);
        assert!(!pulse.has_stopped());
        hand.set(200, 0);
        assert!(pulse.has_stopped(), "also where it was set back");
    }
}
