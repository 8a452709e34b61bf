//! The limits of what one writer alone gathers. They may change while it writes.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tidelog_core::{Holder, MemoryBudget};

use super::TierOptions;

/// When rows in memory are written to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierLimits {
    /// Rows of a generation; a full one is written to files.
    pub rows_max: u64,
    /// Bytes of memory of a generation. Two may be in memory.
    pub bytes_max: u64,
    /// The age at which a generation is written to files.
    pub age_max: Duration,
    /// Bytes of the write-ahead log beyond which a generation is written to files.
    pub wal_bytes_max: u64,
}

impl TierLimits {
    /// The same, with generations of which two are within the memory budget.
    pub(crate) fn within(self, budget: &MemoryBudget) -> Self {
        let bytes_max = self.bytes_max.min(budget.share(Holder::Hot).ceiling / 2);
        Self { bytes_max, ..self }
    }
}

impl From<&TierOptions> for TierLimits {
    fn from(options: &TierOptions) -> Self {
        Self {
            rows_max: options.rows_max,
            bytes_max: options.bytes_max,
            age_max: options.age_max,
            wal_bytes_max: options.wal_bytes_max,
        }
    }
}

/// The limits as they are now. The lock is held only to copy them.
#[derive(Debug)]
pub(crate) struct LiveLimits(RwLock<TierLimits>);

impl LiveLimits {
    pub(crate) fn new(limits: TierLimits) -> Self {
        Self(RwLock::new(limits))
    }

    pub(crate) fn get(&self) -> TierLimits {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, limits: TierLimits) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}
