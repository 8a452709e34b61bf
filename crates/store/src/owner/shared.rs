//! What the threads of an owner share: the hot state, and who waits for whom.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidelog_core::memory::Account;
use tidelog_core::{Env, Holder, MemoryBudget};
use tokio::sync::{Notify, watch};

use super::{LiveLimits, TierOptions, TierStatistics};
use crate::error::Error;
use crate::hot::{Generation, HotState};

/// How many bytes and rows of the limits an active generation holds when it is sealed.
const SEALED_AT: f64 = 0.95;

/// Shared by the handle, the thread that writes the log and the task that flushes.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What was set when the store was opened. Its limits count no more.
    pub(crate) options: TierOptions,
    pub(crate) limits: Arc<LiveLimits>,
    pub(crate) env: Env,
    budget: MemoryBudget,
    /// Held by whoever replaces the active generation; always taken before the state.
    publishing: Mutex<()>,
    state: Mutex<State>,
    /// Tells the thread that there is room again, or never will be.
    room: Condvar,
    /// Tells the task that there is something to flush.
    pub(crate) sealed: Notify,
    /// Counts rounds of flushing, with how the last one ended.
    rounds: watch::Sender<(u64, Option<Error>)>,
    pub(crate) counters: Counters,
}

#[derive(Debug)]
struct State {
    hot: HotState,
    /// What the hot rows take of the memory budget.
    memory: Account,
    /// The last record of the log ahead whose rows are committed.
    flushed_seq: u64,
    /// When the active generation got its first rows, on a monotonic clock.
    began: Option<Duration>,
    /// Why nothing is taken any more.
    failed: Option<Error>,
}

impl State {
    /// Says to the memory budget what is hot.
    fn settle_memory(&mut self) {
        let bytes = self.hot.bytes();
        self.memory.set(bytes);
    }
}

/// What an owner has done since it claimed the store.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appends: AtomicU64,
    pub(crate) appended_rows: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_rows: AtomicU64,
    pub(crate) waits: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(
        options: TierOptions,
        limits: Arc<LiveLimits>,
        env: Env,
        budget: &MemoryBudget,
    ) -> Self {
        let state = State {
            hot: HotState::default(),
            memory: budget.account(Holder::Hot),
            flushed_seq: 0,
            began: None,
            failed: None,
        };
        Self {
            options,
            limits,
            env,
            budget: budget.clone(),
            publishing: Mutex::default(),
            state: Mutex::new(state),
            room: Condvar::new(),
            sealed: Notify::new(),
            rounds: watch::Sender::new((0, None)),
            counters: Counters::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is hot now.
    pub(crate) fn hot(&self) -> HotState {
        self.lock().hot.clone()
    }

    pub(crate) fn statistics(&self) -> TierStatistics {
        let (hot, counters, memory) = (self.hot(), &self.counters, self.budget.usage());
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierStatistics {
            hot_rows: hot.rows(),
            hot_versions: hot.version_count(),
            hot_bytes: hot.bytes(),
            wal_bytes: get(&counters.wal_bytes),
            appends: get(&counters.appends),
            appended_rows: get(&counters.appended_rows),
            syncs: get(&counters.syncs),
            flushes: get(&counters.flushes),
            flushed_rows: get(&counters.flushed_rows),
            waits: get(&counters.waits),
            memory_bytes: memory.held(),
            memory_bytes_max: memory.limit(),
        }
    }

    /// Why nothing is taken any more, if so.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// Takes nothing any more.
    pub(crate) fn fail(&self, error: &Error) {
        self.lock().failed.get_or_insert_with(|| error.clone());
        self.room.notify_all();
        self.rounds
            .send_modify(|(round, last)| (*round, *last) = (*round + 1, Some(error.clone())));
    }

    fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what `add` adds to the hot state, all at once; seals the generation if it is full.
    /// Readers do not wait meanwhile. If it fails, nothing is shown.
    pub(crate) fn publish(
        &self,
        wal_bytes: u64,
        add: impl FnOnce(&mut HotState) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _publishing = self.publishing();
        let mut hot = self.hot();
        add(&mut hot)?;
        let mut state = self.lock();
        state.began.get_or_insert_with(|| self.env.clock.monotonic());
        state.hot.active = hot.active;
        state.settle_memory();
        self.seal_if_full(&mut state, wal_bytes);
        Ok(())
    }

    fn seal_if_full(&self, state: &mut State, wal_bytes: u64) {
        let is_long = wal_bytes > self.limits.get().wal_bytes_max;
        if is_long || self.is_full(&state.hot.active, SEALED_AT) || self.is_tight(&state.hot) {
            self.seal_in(state);
        }
    }

    /// Seals what is beyond the limits, which have changed, and lets those look who wait for room.
    pub(crate) fn limits_changed(&self) {
        let _publishing = self.publishing();
        let wal_bytes = self.counters.wal_bytes.load(Ordering::Relaxed);
        self.seal_if_full(&mut self.lock(), wal_bytes);
        self.room.notify_all();
    }

    fn is_full(&self, generation: &Generation, share: f64) -> bool {
        let beyond = |value: u64, max: u64| value as f64 >= max as f64 * share;
        let limits = self.limits.get().within(&self.budget);
        beyond(generation.rows, limits.rows_max) || beyond(generation.bytes, limits.bytes_max)
    }

    /// How many bytes a generation may take: two of them are within the budget.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.limits.get().within(&self.budget).bytes_max
    }

    /// How much memory the hot rows may take now. While queries run that is what is kept for them:
    /// queries fail where they find nothing to grow into, appends only wait.
    fn within_reach(&self) -> u64 {
        let queries = self.budget.usage().held_by(Holder::Queries);
        match queries {
            0 => self.budget.within_reach(Holder::Hot),
            _ => self.budget.share(Holder::Hot).floor,
        }
    }

    /// Whether the hot rows take nearly all that they may.
    fn is_tight(&self, hot: &HotState) -> bool {
        hot.bytes() as f64 >= self.within_reach() as f64 * SEALED_AT
    }

    fn seal_in(&self, state: &mut State) -> bool {
        if state.hot.sealed.is_some() || state.hot.active.is_empty() {
            return false;
        }
        state.hot.sealed = Some(Arc::new(std::mem::take(&mut state.hot.active)));
        state.began = None;
        self.sealed.notify_one();
        true
    }

    /// Seals the active generation if it has rows and the one before is flushed.
    pub(crate) fn seal(&self) -> bool {
        let _publishing = self.publishing();
        self.seal_in(&mut self.lock())
    }

    /// Seals the active generation if it has become old.
    pub(crate) fn seal_aged(&self) {
        let _publishing = self.publishing();
        let mut state = self.lock();
        let (now, age_max) = (self.env.clock.monotonic(), self.limits.get().age_max);
        let aged = |began: Duration| now.saturating_sub(began) >= age_max;
        if state.began.is_some_and(aged) {
            self.seal_in(&mut state);
        }
    }

    /// Waits, blocking the thread, until the active generation may grow by so many bytes, which are
    /// taken from the memory budget then; `Err` if it never will. What is kept for hot rows is more
    /// than a group of appends takes, so that the wait ends with a flush, whatever others hold.
    pub(crate) fn wait_for_room(&self, bytes: u64) -> Result<(), Error> {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if self.is_full(&state.hot.active, 1.0) {
                self.seal_in(&mut state);
            }
            let has_room = !self.is_full(&state.hot.active, 1.0);
            let wanted = state.hot.bytes() + bytes;
            let fits = wanted <= self.within_reach() && state.memory.try_set(wanted).is_ok();
            if has_room && fits {
                break;
            }
            if state.hot.sealed.is_none() && !self.seal_in(&mut state) {
                // Nothing is hot that could be flushed: waiting would not help.
                state.memory.set(wanted);
                break;
            }
            if !waited {
                Counters::add(&self.counters.waits, 1);
                waited = true;
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// The generation that is to be flushed.
    pub(crate) fn to_flush(&self) -> Option<Arc<Generation>> {
        self.lock().hot.sealed.clone()
    }

    /// Lets go of the sealed generation, which is committed.
    pub(crate) fn flushed(&self, generation: &Generation) {
        Counters::add(&self.counters.flushes, 1);
        Counters::add(&self.counters.flushed_rows, generation.rows);
        let mut state = self.lock();
        state.hot.sealed = None;
        state.settle_memory();
        state.flushed_seq = state.flushed_seq.max(generation.last_seq);
        drop(state);
        self.room.notify_all();
        self.rounds.send_modify(|(round, last)| (*round, *last) = (*round + 1, None));
    }

    /// A round of flushing failed; it is tried again.
    pub(crate) fn flush_failed(&self, error: &Error) {
        self.rounds
            .send_modify(|(round, last)| (*round, *last) = (*round + 1, Some(error.clone())));
    }

    /// Waits until all that was acknowledged before the call is committed.
    pub(crate) async fn flush_all(&self) -> Result<(), Error> {
        let mut rounds = self.rounds.subscribe();
        let target = self.lock().hot.last_seq();
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            self.seal();
            if self.lock().flushed_seq >= target {
                return Ok(());
            }
            self.sealed.notify_one();
            if rounds.changed().await.is_err() {
                return Err(Error::Closed);
            }
            if let Some(error) = rounds.borrow_and_update().1.clone() {
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_core::memory::Share;

    use super::*;
    use crate::owner::TierLimits;

    /// A budget of which 250 bytes are kept for hot rows, and 500 are the most for them.
    fn shared() -> (Arc<Shared>, MemoryBudget) {
        let budget = MemoryBudget::new(1000, |holder| match holder {
            Holder::Hot => Share { floor: 250, ceiling: 500 },
            _ => Share { floor: 0, ceiling: 1000 },
        });
        let options = TierOptions { bytes_max: u64::MAX, ..TierOptions::default() };
        let limits = Arc::new(LiveLimits::new(TierLimits::from(&options)));
        (Arc::new(Shared::new(options, limits, Env::default(), &budget)), budget)
    }

    fn append(shared: &Shared, bytes: u64) {
        shared.wait_for_room(bytes).unwrap();
        let add = |hot: &mut HotState| {
            hot.active.bytes += bytes;
            hot.active.versions += 1;
            hot.active.rows += 1;
            Ok(())
        };
        shared.publish(0, add).unwrap();
    }

    #[test]
    fn while_queries_run_hot_rows_keep_to_what_is_kept_for_them() {
        let (shared, budget) = shared();
        let mut queries = budget.account(Holder::Queries);
        queries.try_set(700).unwrap();
        append(&shared, 120);
        assert!(shared.to_flush().is_none());
        append(&shared, 120);
        let sealed = shared.to_flush().expect("hardly any room is left");
        let waiting = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || append(&shared, 120))
        };
        while shared.counters.waits.load(Ordering::Relaxed) == 0 {
            assert!(!waiting.is_finished(), "there is no room");
            std::thread::yield_now();
        }
        assert_eq!(budget.usage().held_by(Holder::Hot), 240);
        shared.flushed(&sealed);
        waiting.join().unwrap();
        let usage = budget.usage();
        assert_eq!((usage.held_by(Holder::Hot), usage.peak()), (120, 940));
    }

    #[test]
    fn without_queries_two_generations_have_room() {
        let (shared, budget) = shared();
        append(&shared, 240);
        assert!(shared.to_flush().is_some(), "a generation is a quarter at most");
        append(&shared, 240);
        assert_eq!(budget.usage().held_by(Holder::Hot), 480);
        assert_eq!(shared.counters.waits.load(Ordering::Relaxed), 0);
    }

    /// A group of appends that is more than all that hot rows may have goes alone.
    #[test]
    fn what_would_never_fit_does_not_wait_for_ever() {
        let (shared, budget) = shared();
        append(&shared, 800);
        assert_eq!(budget.usage().held_by(Holder::Hot), 800);
    }
}
