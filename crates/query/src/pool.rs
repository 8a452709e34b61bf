//! The memory of queries, as part of the store's memory budget.
//!
//! What hot rows and caches hold is not there for queries. Of what operators have left that cannot
//! spill, a quarter stays for such as are to come: the merge above sorts begins when these have grown.
//! Operators that can spill have the rest in equal parts. It is DataFusion's `FairSpillPool`, but that
//! keeps no quarter and has one size for ever. What an operator has it keeps; one that asks for more
//! than is free spills, or its query fails.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};
use tidelog_core::{Holder, MemoryBudget};

/// The part of what is left that is kept from operators that can spill.
const UNSPILLABLE_PART: u64 = 4;

/// A pool of what a memory budget has for queries.
#[derive(Debug)]
pub(crate) struct BudgetPool {
    budget: MemoryBudget,
    consumers: Mutex<Consumers>,
}

#[derive(Debug, Default)]
struct Consumers {
    /// How many there are that can spill.
    spilling: u64,
    /// Bytes of those that cannot.
    unspillable: u64,
    /// Bytes of all.
    reserved: u64,
}

impl BudgetPool {
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Self { budget, consumers: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Consumers> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn within_reach(&self) -> u64 {
        self.budget.within_reach(Holder::Queries)
    }
}

impl Consumers {
    fn grow(&mut self, consumer: &MemoryConsumer, bytes: u64) {
        self.reserved += bytes;
        if !consumer.can_spill() {
            self.unspillable += bytes;
        }
    }

    /// The most that an operator may have that can spill.
    fn fair_share(&self, within_reach: u64) -> u64 {
        let left = within_reach.saturating_sub(self.unspillable);
        (left - left / UNSPILLABLE_PART) / self.spilling.max(1)
    }
}

impl MemoryPool for BudgetPool {
    fn name(&self) -> &'static str {
        "memory budget"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.lock().spilling += u64::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut consumers = self.lock();
        let one = u64::from(consumer.can_spill());
        consumers.spilling = consumers.spilling.saturating_sub(one);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut consumers = self.lock();
        self.budget.grow(Holder::Queries, additional as u64);
        consumers.grow(reservation.consumer(), additional as u64);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut consumers = self.lock();
        let bytes = shrink as u64;
        self.budget.shrink(Holder::Queries, bytes);
        consumers.reserved = consumers.reserved.saturating_sub(bytes);
        if !reservation.consumer().can_spill() {
            consumers.unspillable = consumers.unspillable.saturating_sub(bytes);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut consumers = self.lock();
        let (consumer, bytes) = (reservation.consumer(), additional as u64);
        let own = reservation.size() as u64;
        let fair = consumers.fair_share(self.within_reach());
        if consumer.can_spill() && own.saturating_add(bytes) > fair {
            return Err(refusal(consumer, bytes, fair.saturating_sub(own)));
        }
        let grown = self.budget.try_grow(Holder::Queries, bytes);
        grown.map_err(|shortage| refusal(consumer, bytes, shortage.free))?;
        consumers.grow(consumer, bytes);
        Ok(())
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.lock().reserved).unwrap_or(usize::MAX)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(usize::try_from(self.within_reach()).unwrap_or(usize::MAX))
    }
}

impl fmt::Display for BudgetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = usize::try_from(self.within_reach()).unwrap_or(usize::MAX);
        write!(f, "{} ({} for queries)", self.name(), human_readable_size(limit))
    }
}

fn refusal(consumer: &MemoryConsumer, bytes: u64, free: u64) -> DataFusionError {
    let size = |bytes: u64| human_readable_size(usize::try_from(bytes).unwrap_or(usize::MAX));
    DataFusionError::ResourcesExhausted(format!(
        "{} needs {} more memory and {} are free for it",
        consumer.name(),
        size(bytes),
        size(free)
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tidelog_core::memory::Share;

    use super::*;

    const LIMIT: u64 = 10_000;
    const KEPT_FOR_HOT: u64 = 2_000;

    fn budget() -> MemoryBudget {
        MemoryBudget::new(LIMIT, |holder| match holder {
            Holder::Hot => Share { floor: KEPT_FOR_HOT, ceiling: LIMIT / 2 },
            _ => Share { floor: 0, ceiling: LIMIT },
        })
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Register(bool),
        Grow(usize, usize),
        Shrink(usize, usize),
        Drop(usize),
        /// Hot rows take so much.
        Hot(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => any::<bool>().prop_map(Step::Register),
            6 => (0..8_usize, 0..4_000_usize).prop_map(|(who, bytes)| Step::Grow(who, bytes)),
            2 => (0..8_usize, 0..4_000_usize).prop_map(|(who, bytes)| Step::Shrink(who, bytes)),
            1 => (0..8_usize).prop_map(Step::Drop),
            1 => (0..LIMIT / 2).prop_map(Step::Hot),
        ];
        prop::collection::vec(step, 1..80)
    }

    /// Whether consumer `who` may grow, told from all that is held.
    fn may_grow(held: &[(bool, u64)], hot: u64, who: usize, bytes: u64) -> bool {
        let of_queries = LIMIT - hot.max(KEPT_FOR_HOT);
        let all: u64 = held.iter().map(|(_, bytes)| bytes).sum();
        let unspillable: u64 = held.iter().filter(|(spills, _)| !spills).map(|(_, b)| b).sum();
        let spilling = held.iter().filter(|(spills, _)| *spills).count() as u64;
        let (spills, own) = held[who];
        let left = of_queries - unspillable.min(of_queries);
        let fair = (left - left / 4).checked_div(spilling).unwrap_or(0);
        all + bytes <= of_queries && (!spills || own + bytes <= fair)
    }

    proptest! {
        #[test]
        fn operators_get_what_is_left_in_equal_parts(steps in steps()) {
            let budget = budget();
            let pool: Arc<dyn MemoryPool> = Arc::new(BudgetPool::new(budget.clone()));
            let mut hot = budget.account(Holder::Hot);
            let mut held: Vec<(bool, u64)> = Vec::new();
            let mut reservations: Vec<MemoryReservation> = Vec::new();
            for step in steps {
                match step {
                    Step::Register(spills) => {
                        let consumer = MemoryConsumer::new("one").with_can_spill(spills);
                        reservations.push(consumer.register(&pool));
                        held.push((spills, 0));
                    }
                    Step::Grow(who, bytes) if who < held.len() => {
                        let may = may_grow(&held, hot.bytes(), who, bytes as u64);
                        prop_assert_eq!(reservations[who].try_grow(bytes).is_ok(), may);
                        held[who].1 += if may { bytes as u64 } else { 0 };
                    }
                    Step::Shrink(who, bytes) if who < held.len() => {
                        let bytes = bytes.min(reservations[who].size());
                        reservations[who].shrink(bytes);
                        held[who].1 -= bytes as u64;
                    }
                    Step::Drop(who) if who < held.len() => {
                        drop(reservations.remove(who));
                        held.remove(who);
                    }
                    Step::Hot(bytes) => drop(hot.try_set(bytes)),
                    Step::Grow(..) | Step::Shrink(..) | Step::Drop(_) => {}
                }
                let all: u64 = held.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(pool.reserved() as u64, all);
                prop_assert_eq!(budget.usage().held_by(Holder::Queries), all);
                prop_assert!(budget.usage().held() <= LIMIT);
            }
            drop(reservations);
            prop_assert_eq!(budget.usage().held_by(Holder::Queries), 0);
        }
    }

    #[test]
    fn operators_of_many_threads_stay_within_the_budget() {
        let budget = budget();
        let pool: Arc<dyn MemoryPool> = Arc::new(BudgetPool::new(budget.clone()));
        std::thread::scope(|scope| {
            for thread in 0..6_usize {
                let (pool, budget) = (Arc::clone(&pool), budget.clone());
                scope.spawn(move || {
                    for round in 0..500_usize {
                        let consumer = MemoryConsumer::new("one").with_can_spill(thread % 2 == 0);
                        let reservation = consumer.register(&pool);
                        for step in 0..5 {
                            let _refused = reservation.try_grow((round * 7 + step * 911) % 1_500);
                            assert!(budget.usage().held() <= LIMIT);
                        }
                    }
                });
            }
        });
        assert_eq!((budget.usage().held(), pool.reserved()), (0, 0));
    }

    #[test]
    fn a_refusal_says_who_needs_how_much() {
        let pool: Arc<dyn MemoryPool> = Arc::new(BudgetPool::new(budget()));
        let reservation = MemoryConsumer::new("Sort").with_can_spill(true).register(&pool);
        let error = reservation.try_grow(9_000).unwrap_err().to_string();
        assert!(error.contains("Sort needs"), "{error}");
        assert!(matches!(pool.memory_limit(), MemoryLimit::Finite(8_000)));
    }
}
