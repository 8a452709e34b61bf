//! The seams through which time and chance enter.
//!
//! Everything that needs the wall clock or a random number takes an [`Env`], so that a test can
//! replay a run from one seed. No decision depends on the clock: it only labels.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::WriteTime;

/// A source of wall-clock time.
///
/// Implementations may jump in either direction: callers make write times strictly increasing
/// themselves.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now, in microseconds since the Unix epoch, UTC.
    fn now(&self) -> WriteTime;

    /// Time since some moment of this process, which no change of the wall clock moves. It may stand
    /// still while the machine sleeps.
    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// A source of random bytes.
pub trait Randomness: fmt::Debug + Send + Sync {
    /// Fills `bytes` with random values.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number below `bound` (0 for a bound of 0), for jitter.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0_u8; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> WriteTime {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |v| -v),
        };
        WriteTime::from_micros(micros)
    }
}

/// The operating system's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut rand::rng(), bytes);
    }
}

/// Clock and randomness, as handed down from the top of the program.
#[derive(Debug, Clone)]
pub struct Env {
    /// Where write times come from.
    pub clock: Arc<dyn Clock>,
    /// Where ids and jitter come from.
    pub randomness: Arc<dyn Randomness>,
}

impl Default for Env {
    /// The machine's clock and random numbers.
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), randomness: Arc::new(SystemRandomness) }
    }
}
