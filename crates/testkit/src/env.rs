//! Clock and randomness under the control of a test.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tidelog_core::{Clock, Env, Randomness, WriteTime};

/// A clock that stands still until it is set; it may be set back.
#[derive(Debug, Default)]
pub struct SimClock {
    micros: AtomicI64,
}

impl SimClock {
    /// A clock that shows `micros` microseconds since the epoch.
    #[must_use]
    pub fn at(micros: i64) -> Self {
        Self { micros: AtomicI64::new(micros) }
    }

    /// Makes the clock show `micros`, earlier or later than before.
    pub fn set(&self, micros: i64) {
        self.micros.store(micros, Ordering::SeqCst);
    }

    /// Moves the clock by `micros`, backwards if negative.
    pub fn advance(&self, micros: i64) {
        self.micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> WriteTime {
        WriteTime::from_micros(self.micros.load(Ordering::SeqCst))
    }
}

/// Random bytes from a seed: the same seed gives the same bytes.
///
/// Handles of one store must share one of these, or they would draw the same ids.
#[derive(Debug)]
pub struct SeededRandomness {
    rng: Mutex<StdRng>,
}

impl SeededRandomness {
    /// Begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }
}

impl Randomness for SeededRandomness {
    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

/// An [`Env`] over a clock that the test keeps, and a seed.
#[must_use]
pub fn env(clock: &Arc<SimClock>, seed: u64) -> Env {
    let clock: Arc<dyn Clock> = Arc::<SimClock>::clone(clock);
    Env { clock, randomness: Arc::new(SeededRandomness::new(seed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_the_clock_goes_back() {
        let draw = |seed| {
            let mut bytes = [0_u8; 16];
            SeededRandomness::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let clock = SimClock::at(10);
        clock.advance(-3);
        assert_eq!(clock.now(), WriteTime::from_micros(7));
    }
}
