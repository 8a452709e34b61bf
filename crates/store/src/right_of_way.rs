//! Reads go before work in the background.
//!
//! A merge or a flush takes a core for long, a read takes one for a moment, and the moment is what somebody
//! waits for. So whoever works in the background looks, batch by batch, whether a read has just begun, and lets
//! it pass. It waits for a moment at most, and never for longer than it has worked since it last did: reads that
//! are long, or come one after the other, do not hold it up for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For so long a read goes before others; one that takes longer has to share the machine.
const MOMENT: Duration = Duration::from_millis(25);

/// Who reads now. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct RightOfWay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    moment: Duration,
    /// Reads that are under way: where there is none, nothing is locked.
    reads: AtomicUsize,
    /// When the newest of them has begun.
    newest: Mutex<Option<Instant>>,
    ended: Condvar,
}

/// A read that is under way, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Reading {
    inner: Arc<Inner>,
}

impl Default for RightOfWay {
    fn default() -> Self {
        Self::of(MOMENT)
    }
}

impl RightOfWay {
    /// The right of way of reads in their first so long.
    fn of(moment: Duration) -> Self {
        let (reads, newest, ended) = (AtomicUsize::new(0), Mutex::default(), Condvar::new());
        Self { inner: Arc::new(Inner { moment, reads, newest, ended }) }
    }

    /// Says that a read begins.
    pub fn take(&self) -> Reading {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Reading {
        *self.inner.newest() = Some(now);
        self.inner.reads.fetch_add(1, Ordering::Relaxed);
        Reading { inner: Arc::clone(&self.inner) }
    }

    /// For a job in the background that begins.
    pub(crate) fn courtesy(&self) -> Courtesy {
        Courtesy { way: self.clone(), credit: Duration::ZERO, since: Instant::now() }
    }
}

impl Inner {
    fn newest(&self) -> MutexGuard<'_, Option<Instant>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_taken(&self) -> bool {
        self.reads.load(Ordering::Relaxed) > 0
    }

    /// For how long from `now` on a read is in its first moment that began at `newest`.
    fn left(&self, newest: Option<Instant>, now: Instant) -> Duration {
        let begun = newest.filter(|_| self.is_taken());
        begun.map_or(Duration::ZERO, |begun| (begun + self.moment).saturating_duration_since(now))
    }

    /// Waits until `last` at most, until no read is in its first moment. Blocks.
    fn wait(&self, last: Instant) {
        let mut newest = self.newest();
        loop {
            let now = Instant::now();
            let left = self.left(*newest, now).min(last.saturating_duration_since(now));
            if left.is_zero() {
                return;
            }
            let waited = self.ended.wait_timeout(newest, left);
            (newest, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.inner.reads.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Whoever has seen it under way waits by the time that the lock is free.
            drop(self.inner.newest());
            self.inner.ended.notify_all();
        }
    }
}

/// What a job in the background owes to reads.
#[derive(Debug)]
pub(crate) struct Courtesy {
    way: RightOfWay,
    /// For so long it may wait, besides what it has worked since.
    credit: Duration,
    /// Since when it has worked.
    since: Instant,
}

impl Courtesy {
    /// Lets reads pass that have just begun. Blocks.
    pub(crate) fn give_way(&mut self) {
        if !self.way.inner.is_taken() {
            return;
        }
        let now = Instant::now();
        let last = now + self.owed(now);
        self.way.inner.wait(last);
        self.waited(now, Instant::now());
    }

    /// For how long it may wait from `now` on.
    fn owed(&mut self, now: Instant) -> Duration {
        let worked = now.saturating_duration_since(self.since);
        self.credit = self.credit.saturating_add(worked).min(self.way.inner.moment);
        self.since = now;
        self.credit
    }

    fn waited(&mut self, from: Instant, to: Instant) {
        self.credit = self.credit.saturating_sub(to.saturating_duration_since(from));
        self.since = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_works_in_the_background_waits_until_reads_have_ended() {
        let way = RightOfWay::of(HOUR);
        way.courtesy().give_way();
        let readings = [way.take(), way.take()];
        let waiting = std::thread::spawn({
            let mut courtesy = Courtesy { credit: HOUR, ..way.courtesy() };
            move || courtesy.give_way()
        });
        drop(readings);
        waiting.join().unwrap();
    }

    #[test]
    fn a_read_has_the_right_of_way_in_its_first_moment() {
        let (way, began) = (RightOfWay::of(ms(25)), Instant::now());
        let left = |after| way.inner.left(*way.inner.newest(), began + ms(after));
        assert_eq!(left(0), ms(0));
        let first = way.take_at(began);
        assert_eq!([left(0), left(10), left(25), left(90)], [ms(25), ms(15), ms(0), ms(0)]);
        let second = way.take_at(began + ms(20));
        drop(first);
        assert_eq!([left(20), left(44), left(45)], [ms(25), ms(1), ms(0)]);
        drop(second);
        assert_eq!(left(20), ms(0));
    }

    #[test]
    fn nobody_waits_for_longer_than_a_moment_or_than_it_has_worked() {
        let way = RightOfWay::of(ms(25));
        let mut courtesy = way.courtesy();
        let began = courtesy.since;
        assert_eq!(courtesy.owed(began), ms(0));
        assert_eq!(courtesy.owed(began + ms(2)), ms(2));
        courtesy.waited(began + ms(2), began + ms(3));
        assert_eq!(courtesy.owed(began + ms(7)), ms(5), "one that is left, and four of work");
        courtesy.waited(began + ms(7), began + ms(20));
        assert_eq!(courtesy.owed(began + ms(20)), ms(0));
        assert_eq!(courtesy.owed(began + HOUR), ms(25));
    }
}
