//! How a store's memory budget is divided, and how large it is where nobody says.
//!
//! | holder | kept for it | at most | who refuses or lets go |
//! |---|---|---|---|
//! | queue | 1/16, 128 MiB at most | the same | appends wait before they are queued |
//! | hot | 1/4 | 1/2; while queries run, 1/4 | a generation is sealed early, then appends wait |
//! | flush | 3/16 | the same | fewer series at once |
//! | log | 1/16, 256 MiB at most | the same | the rows of series that were not asked for longest |
//! | compaction | 1/16, 208 MiB at most | 1/4, 208 MiB at most | smaller files, of fewer at once |
//! | footers | 1/16, 64 MiB at most | the same | the footers that were not read longest |
//! | warm | nothing | 3/8: segments 1/4, what makes them 1/8 | the segments that were not read longest |
//! | queries | 1/4 | what is free | operators spill, or the query fails |
//!
//! What the warm tier has are copies: it lends. Whoever else asks for more gets it from there.
//!
//! Hot rows never get more than two generations of the size that the options say, and a flush never
//! more than 3/4 of one. In shared mode nothing is kept for queue, hot and flush.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tidelog_core::memory::Share;
use tidelog_core::{Holder, MemoryBudget};

use crate::engine::{EngineOptions, Mode};
use crate::error::Error;

/// The smallest budget that a store can be opened with, in bytes: 32 MiB.
pub const MEMORY_BYTES_MIN: u64 = 32 << 20;
/// What is taken where the machine's memory cannot be told, or is little.
const MEMORY_BYTES_DEFAULT_MIN: u64 = 256 << 20;
const QUEUE_BYTES_MAX: u64 = 128 << 20;
const LOG_BYTES_MAX: u64 = 256 << 20;
/// A file of the usual target, and what it is made of.
const COMPACTION_BYTES_MAX: u64 = 208 << 20;

/// The budget of a store that is opened with these options.
pub(crate) fn budget(options: &EngineOptions) -> Result<MemoryBudget, Error> {
    let limit = match options.memory_bytes_max {
        Some(bytes) if bytes < MEMORY_BYTES_MIN => return Err(Error::Memory { bytes }),
        Some(bytes) => bytes,
        None => (memory_of_machine() / 4).max(MEMORY_BYTES_DEFAULT_MIN),
    };
    Ok(MemoryBudget::new(limit, |holder| share(holder, limit, options)))
}

fn share(holder: Holder, limit: u64, options: &EngineOptions) -> Share {
    let generation = options.tier.bytes_max.min(limit / 4);
    let both = |bytes: u64| Share { floor: bytes, ceiling: bytes };
    let share = match holder {
        Holder::Queue => both((limit / 16).min(QUEUE_BYTES_MAX)),
        Holder::Hot => Share { floor: (limit / 4).min(2 * generation), ceiling: 2 * generation },
        Holder::Flush => both(generation / 4 * 3),
        Holder::Log => both((limit / 16).min(LOG_BYTES_MAX)),
        Holder::Compaction => Share {
            floor: (limit / 16).min(COMPACTION_BYTES_MAX),
            ceiling: (limit / 4).min(COMPACTION_BYTES_MAX),
        },
        Holder::Footers => both((limit / 16).min(options.footer_cache_bytes_max)),
        Holder::Warm => {
            let ceiling = options.warm.host_bytes_max(limit).saturating_add(limit / 8);
            Share { floor: 0, ceiling: if options.warm.is_off() { 0 } else { ceiling } }
        }
        _ => Share { floor: limit / 4, ceiling: limit },
    };
    match (options.mode, holder) {
        (Mode::Shared, Holder::Queue | Holder::Hot | Holder::Flush) => Share { floor: 0, ..share },
        _ => share,
    }
}

/// What the machine has, or what this process may have of it, in bytes; 0 if that cannot be told.
fn memory_of_machine() -> u64 {
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(ram);
    let of_group = system.cgroup_limits().map(|limits| limits.total_memory);
    // A group without a limit of its own says nothing, or zero.
    of_group
        .filter(|bytes| *bytes > 0)
        .map_or(system.total_memory(), |bytes| bytes.min(system.total_memory()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_a_quarter_of_what_there_is() {
        let limit = budget(&EngineOptions::default()).unwrap().limit();
        let machine = memory_of_machine();
        assert!(limit == machine / 4 || limit == MEMORY_BYTES_DEFAULT_MIN, "{limit} {machine}");
    }

    #[test]
    fn every_budget_leaves_room_for_all_that_is_kept() {
        for mode in [Mode::Shared, Mode::Exclusive] {
            for limit in [MEMORY_BYTES_MIN, 512_000_000, 1 << 33] {
                let options = EngineOptions {
                    memory_bytes_max: Some(limit),
                    mode,
                    ..EngineOptions::default()
                };
                let budget = budget(&options).unwrap();
                let floors: u64 = Holder::ALL.iter().map(|h| budget.share(*h).floor).sum();
                assert!(floors <= limit / 16 * 15, "{floors} of {limit}");
                assert!(budget.within_reach(Holder::Queries) >= limit / 4);
            }
        }
    }

    #[test]
    fn a_budget_that_is_too_small_is_refused() {
        let bytes = MEMORY_BYTES_MIN - 1;
        let options = EngineOptions { memory_bytes_max: Some(bytes), ..EngineOptions::default() };
        let error = budget(&options).unwrap_err();
        assert!(error.to_string().contains("33554432"), "{error}");
    }
}
