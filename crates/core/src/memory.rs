//! One memory budget that several holders share.
//!
//! Every holder has a *floor*, which is kept for it whatever the others hold, and a *ceiling*, beyond
//! which it does not grow by asking. Between the two it takes what is free:
//!
//! ```text
//! sum over holders of max(held, floor) ≤ limit
//! ```
//!
//! Invariants:
//! 1. Growth that is asked for keeps the sum; within the holder's own floor it is never refused.
//! 2. Nobody but a *lender* is made to give back: a holder that is refused has to let go of something
//!    of its own. A lender holds copies. What it has beyond its floor counts as free for the others,
//!    and it is asked to let go of some before one of them is refused.
//! 3. Only [`Account::set`] and [`Account::grow`] can exceed the limit, for memory that is in use
//!    already. What is beyond is missing for the others until it is given back.
//!
//! Nothing is allocated here: holders count what they take.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Who holds memory of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// Appends that wait to be acknowledged.
    Queue,
    /// Rows that are acknowledged and in no file yet.
    Hot,
    /// Rows on their way from memory to files.
    Flush,
    /// Rows of the operation log.
    Log,
    /// Files that are merged into others.
    Compaction,
    /// Decoded footers of data files.
    Footers,
    /// Segments of the warm tier in the host's memory.
    Warm,
    /// Queries.
    Queries,
}

impl Holder {
    /// All holders.
    pub const ALL: [Self; 8] = [
        Self::Queue,
        Self::Hot,
        Self::Flush,
        Self::Log,
        Self::Compaction,
        Self::Footers,
        Self::Warm,
        Self::Queries,
    ];

    /// What it is called in tables and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Hot => "hot",
            Self::Flush => "flush",
            Self::Log => "log",
            Self::Compaction => "compaction",
            Self::Footers => "footers",
            Self::Warm => "warm",
            Self::Queries => "queries",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a holder may have of a budget, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// Kept for the holder.
    pub floor: u64,
    /// The most that it gets by asking.
    pub ceiling: u64,
}

/// Memory in bytes that several holders share. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: u64,
    shares: [Share; Holder::ALL.len()],
    state: Mutex<State>,
    lender: OnceLock<(Holder, Weak<dyn Lender>)>,
}

/// A holder of copies, which lets go of some when another holder needs the memory.
pub trait Lender: fmt::Debug + Send + Sync {
    /// Gives back so many bytes, or as many as it can; tells whether there were any. Does not block.
    fn give_back(&self, bytes: u64) -> bool;
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    held: [u64; Holder::ALL.len()],
    /// The most that was held at one time.
    peak: u64,
}

impl State {
    fn change(&mut self, holder: Holder, to: u64) {
        self.held[holder as usize] = to;
        self.peak = self.peak.max(sum(&self.held));
    }
}

fn sum(held: &[u64; Holder::ALL.len()]) -> u64 {
    held.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

impl MemoryBudget {
    /// A budget of `limit` bytes. Floors that exceed the limit together are made smaller in
    /// proportion.
    #[must_use]
    pub fn new(limit: u64, share_of: impl Fn(Holder) -> Share) -> Self {
        let mut shares = Holder::ALL.map(share_of);
        let floors: u128 = shares.iter().map(|share| u128::from(share.floor)).sum();
        if floors > u128::from(limit) {
            for share in &mut shares {
                let part = u128::from(share.floor) * u128::from(limit) / floors;
                share.floor = u64::try_from(part).unwrap_or(limit);
            }
        }
        let (state, lender) = (Mutex::default(), OnceLock::new());
        Self { inner: Arc::new(Inner { limit, shares, state, lender }) }
    }

    /// From now on counts what `holder` has beyond its floor as free for others, and asks `lender` for
    /// it. There is one lender; a second one is not taken.
    pub fn lend(&self, holder: Holder, lender: Weak<dyn Lender>) {
        let _ = self.inner.lender.set((holder, lender));
    }

    /// A budget without a limit, which only counts.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(u64::MAX, |_| Share { floor: 0, ceiling: u64::MAX })
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.inner.limit
    }

    /// What `holder` may have.
    #[must_use]
    pub fn share(&self, holder: Holder) -> Share {
        self.inner.shares[holder as usize]
    }

    /// What is held at this moment.
    #[must_use]
    pub fn usage(&self) -> MemoryUsage {
        let State { held, peak } = *self.lock();
        MemoryUsage { limit: self.inner.limit, held, peak }
    }

    /// How much `holder` could hold at this moment, what it holds included.
    #[must_use]
    pub fn within_reach(&self, holder: Holder) -> u64 {
        self.reach(&self.lock(), holder)
    }

    /// An account of `holder` that holds nothing yet. A holder may have several.
    #[must_use]
    pub fn account(&self, holder: Holder) -> Account {
        Account { budget: self.clone(), holder, bytes: 0 }
    }

    /// Takes `bytes` more for `holder`, if they are free.
    ///
    /// # Errors
    /// [`Shortage`] if they are not; nothing is taken then.
    pub fn try_grow(&self, holder: Holder, bytes: u64) -> Result<(), Shortage> {
        loop {
            let missing = match self.try_grow_now(holder, bytes)? {
                None => return Ok(()),
                Some(missing) => missing,
            };
            // The lock is not held here: who gives back says so to this budget.
            let lender = self.inner.lender.get().and_then(|(_, lender)| lender.upgrade());
            if !lender.is_some_and(|lender| lender.give_back(missing)) {
                let state = self.lock();
                let held = state.held[holder as usize];
                let free = self.free(&state, holder).saturating_sub(held);
                return Err(Shortage { holder, bytes, free });
            }
        }
    }

    /// The same, or how many bytes a lender has to give back before.
    fn try_grow_now(&self, holder: Holder, bytes: u64) -> Result<Option<u64>, Shortage> {
        let mut state = self.lock();
        let held = state.held[holder as usize];
        let (reach, free) = (self.reach(&state, holder), self.free(&state, holder));
        match held.checked_add(bytes).filter(|wanted| *wanted <= reach) {
            Some(wanted) if wanted <= free => {
                state.change(holder, wanted);
                Ok(None)
            }
            Some(wanted) => Ok(Some(wanted - free)),
            None => Err(Shortage { holder, bytes, free: reach.saturating_sub(held) }),
        }
    }

    /// Takes `bytes` more for `holder`, which are in use already.
    pub fn grow(&self, holder: Holder, bytes: u64) {
        let mut state = self.lock();
        let wanted = state.held[holder as usize].saturating_add(bytes);
        state.change(holder, wanted);
    }

    /// Gives back `bytes` of what `holder` has.
    pub fn shrink(&self, holder: Holder, bytes: u64) {
        let mut state = self.lock();
        let left = state.held[holder as usize].saturating_sub(bytes);
        state.change(holder, left);
    }

    /// What `holder` could hold if a lender gave back all that it has beyond its floor.
    fn reach(&self, state: &State, holder: Holder) -> u64 {
        let lent = self.inner.lender.get().map(|(lender, _)| *lender);
        let held_by_others = |other: Holder| match lent {
            Some(lender) if lender == other => self.share(other).floor,
            _ => state.held[other as usize],
        };
        self.left(holder, held_by_others)
    }

    /// What `holder` could hold as things are now.
    fn free(&self, state: &State, holder: Holder) -> u64 {
        self.left(holder, |other| state.held[other as usize])
    }

    fn left(&self, holder: Holder, held: impl Fn(Holder) -> u64) -> u64 {
        let others = Holder::ALL.iter().filter(|other| **other != holder);
        let kept = others.fold(0_u64, |kept, other| {
            kept.saturating_add(held(*other).max(self.share(*other).floor))
        });
        let share = self.share(holder);
        let free = self.inner.limit.saturating_sub(kept);
        // What exceeds the limit is taken from what lies between floor and ceiling.
        free.max(share.floor).min(share.ceiling.max(share.floor))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is held of a budget at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    limit: u64,
    held: [u64; Holder::ALL.len()],
    peak: u64,
}

impl MemoryUsage {
    /// The limit.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What `holder` has.
    #[must_use]
    pub fn held_by(&self, holder: Holder) -> u64 {
        self.held[holder as usize]
    }

    /// What all have together.
    #[must_use]
    pub fn held(&self) -> u64 {
        sum(&self.held)
    }

    /// The most that all had together at any moment so far.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak
    }
}

/// Memory that was asked for and is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes more for {holder} are not free in the memory budget, {free} are")]
pub struct Shortage {
    /// Who asked.
    pub holder: Holder,
    /// For how many bytes more.
    pub bytes: u64,
    /// How many bytes more it could have had.
    pub free: u64,
}

/// Bytes of a budget that somebody holds. Dropped, it gives them back.
#[derive(Debug)]
pub struct Account {
    budget: MemoryBudget,
    holder: Holder,
    bytes: u64,
}

impl Account {
    /// What it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds `bytes` in all, if what is more is free. Fewer are always granted.
    ///
    /// # Errors
    /// [`Shortage`] if not; it holds what it held then.
    pub fn try_set(&mut self, bytes: u64) -> Result<(), Shortage> {
        if bytes > self.bytes {
            self.budget.try_grow(self.holder, bytes - self.bytes)?;
        } else {
            self.budget.shrink(self.holder, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Holds `bytes` in all, which are in use already.
    pub fn set(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.grow(self.holder, bytes - self.bytes);
        } else {
            self.budget.shrink(self.holder, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Holds `bytes` more, which are in use already.
    pub fn grow(&mut self, bytes: u64) {
        self.set(self.bytes.saturating_add(bytes));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.shrink(self.holder, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLDERS: usize = Holder::ALL.len();

    #[derive(Debug, Clone, Copy)]
    enum Step {
        TrySet(usize, u64),
        Set(usize, u64),
        Drop(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..HOLDERS * 2, 0..600_u64).prop_map(|(who, bytes)| Step::TrySet(who, bytes)),
            1 => (0..HOLDERS * 2, 0..600_u64).prop_map(|(who, bytes)| Step::Set(who, bytes)),
            1 => (0..HOLDERS * 2).prop_map(Step::Drop),
        ];
        prop::collection::vec(step, 1..80)
    }

    fn shares() -> impl Strategy<Value = [Share; HOLDERS]> {
        let share = (0..250_u64, 0..1200_u64).prop_map(|(floor, ceiling)| Share { floor, ceiling });
        prop::array::uniform(share)
    }

    /// Whether `who` may hold `wanted` beside what the others hold, told from the definition alone.
    fn may(
        limit: u64,
        budget: &MemoryBudget,
        held: &[u64; HOLDERS],
        who: usize,
        wanted: u64,
    ) -> bool {
        let Share { floor, ceiling } = budget.share(Holder::ALL[who]);
        let mut after = *held;
        after[who] = wanted;
        let sum: u64 =
            Holder::ALL.iter().map(|h| after[*h as usize].max(budget.share(*h).floor)).sum();
        wanted <= floor || (sum <= limit && wanted <= ceiling)
    }

    proptest! {
        #[test]
        fn accounts_are_as_the_definition_says(limit in 1..1500_u64, shares in shares(), steps in steps()) {
            let budget = MemoryBudget::new(limit, |holder| shares[holder as usize]);
            let floors: u64 = Holder::ALL.iter().map(|h| budget.share(*h).floor).sum();
            prop_assert!(floors <= limit);
            // Two accounts of each holder.
            let mut accounts: Vec<Account> =
                (0..HOLDERS * 2).map(|i| budget.account(Holder::ALL[i / 2])).collect();
            let (mut held, mut own, mut peak) = ([0; HOLDERS], [0; HOLDERS * 2], 0);
            for step in steps {
                let (who, bytes, granted) = match step {
                    Step::TrySet(who, bytes) => {
                        let wanted = held[who / 2] - own[who] + bytes;
                        let may = bytes <= own[who] || may(limit, &budget, &held, who / 2, wanted);
                        let outcome = accounts[who].try_set(bytes);
                        prop_assert_eq!(outcome.is_ok(), may, "{:?}", outcome);
                        (who, bytes, may)
                    }
                    Step::Set(who, bytes) => {
                        accounts[who].set(bytes);
                        (who, bytes, true)
                    }
                    Step::Drop(who) => {
                        accounts[who] = budget.account(Holder::ALL[who / 2]);
                        (who, 0, true)
                    }
                };
                if granted {
                    held[who / 2] = held[who / 2] - own[who] + bytes;
                    own[who] = bytes;
                }
                peak = peak.max(held.iter().sum());
                let usage = budget.usage();
                for holder in Holder::ALL {
                    prop_assert_eq!(usage.held_by(holder), held[holder as usize]);
                }
                prop_assert_eq!((usage.held(), usage.peak()), (held.iter().sum(), peak));
            }
            drop(accounts);
            prop_assert_eq!(budget.usage().held(), 0);
        }

        #[test]
        fn what_is_asked_for_never_exceeds_the_limit(limit in 1..1500_u64, shares in shares(), asked in prop::collection::vec((0..HOLDERS, 0..400_u64), 1..60)) {
            let budget = MemoryBudget::new(limit, |holder| shares[holder as usize]);
            let mut accounts: Vec<Account> =
                Holder::ALL.iter().map(|holder| budget.account(*holder)).collect();
            for (who, bytes) in asked {
                let reach = budget.within_reach(Holder::ALL[who]);
                let outcome = accounts[who].try_set(bytes);
                prop_assert!(outcome.is_ok() || bytes > reach);
                prop_assert!(budget.usage().held() <= limit);
                if bytes <= budget.share(Holder::ALL[who]).floor {
                    prop_assert!(outcome.is_ok(), "refused within its floor");
                }
            }
        }
    }

    #[test]
    fn many_threads_together_never_exceed_the_limit_and_leave_nothing() {
        let share = |_| Share { floor: 50, ceiling: 700 };
        let budget = MemoryBudget::new(1000, share);
        std::thread::scope(|scope| {
            for (thread, holder) in (0..8_u64).zip(Holder::ALL.into_iter().cycle()) {
                let budget = budget.clone();
                scope.spawn(move || {
                    let mut account = budget.account(holder);
                    for round in 0..4000_u64 {
                        let outcome = account.try_set((round * 7919 + thread * 104_729) % 900);
                        assert!(outcome.is_ok() || account.bytes() < 900);
                        assert!(budget.usage().held() <= 1000);
                    }
                });
            }
        });
        let usage = budget.usage();
        assert_eq!(usage.held(), 0);
        assert!((500..=1000).contains(&usage.peak()), "{}", usage.peak());
    }

    /// Gives back what an account has, as often as it may.
    #[derive(Debug)]
    struct Copies {
        account: Mutex<Account>,
        may: bool,
    }

    impl Lender for Copies {
        fn give_back(&self, bytes: u64) -> bool {
            let mut account = self.account.lock().unwrap();
            let (held, left) = (account.bytes(), account.bytes().saturating_sub(bytes));
            self.may && held > 0 && account.try_set(left).is_ok()
        }
    }

    fn with_copies(bytes: u64, may: bool) -> (MemoryBudget, Arc<Copies>) {
        let budget = MemoryBudget::new(1000, |holder| match holder {
            Holder::Warm => Share { floor: 0, ceiling: 600 },
            Holder::Hot => Share { floor: 300, ceiling: 1000 },
            _ => Share { floor: 0, ceiling: 1000 },
        });
        let mut account = budget.account(Holder::Warm);
        account.try_set(bytes).unwrap();
        let copies = Arc::new(Copies { account: Mutex::new(account), may });
        let lender: Weak<Copies> = Arc::downgrade(&copies);
        budget.lend(Holder::Warm, lender);
        (budget, copies)
    }

    #[test]
    fn what_a_lender_has_is_there_for_others() {
        let (budget, copies) = with_copies(500, true);
        assert_eq!(budget.within_reach(Holder::Queries), 700);
        let mut queries = budget.account(Holder::Queries);
        queries.try_set(200).unwrap();
        assert_eq!(budget.usage().held_by(Holder::Warm), 500, "as long as it fits");
        queries.try_set(450).unwrap();
        assert_eq!(budget.usage().held_by(Holder::Warm), 250, "no more than is needed");
        assert!(queries.try_set(701).is_err(), "what is kept for hot rows is not lent");
        queries.try_set(700).unwrap();
        assert_eq!((budget.usage().held(), budget.usage().peak()), (700, 700));
        // It takes only what is free.
        assert!(copies.account.lock().unwrap().try_set(1).is_err());
    }

    #[test]
    fn a_lender_that_cannot_give_is_a_shortage() {
        let (budget, copies) = with_copies(500, false);
        let shortage = budget.try_grow(Holder::Queries, 300).unwrap_err();
        assert_eq!(shortage, Shortage { holder: Holder::Queries, bytes: 300, free: 200 });
        drop(copies);
        assert_eq!(budget.try_grow(Holder::Queries, 700), Ok(()));
    }

    #[test]
    fn a_shortage_says_what_was_free() {
        let budget = MemoryBudget::new(100, |_| Share { floor: 10, ceiling: 100 });
        let mut hot = budget.account(Holder::Hot);
        let reach = budget.within_reach(Holder::Hot);
        assert_eq!(hot.try_set(reach), Ok(()));
        let shortage = hot.try_set(reach + 1).unwrap_err();
        assert_eq!(shortage, Shortage { holder: Holder::Hot, bytes: 1, free: 0 });
        assert_eq!(hot.bytes(), reach);
        assert_eq!(
            shortage.to_string(),
            "1 bytes more for hot are not free in the memory budget, 0 are"
        );
    }
}
