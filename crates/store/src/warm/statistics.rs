//! What the warm tier holds and has done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How much is warm, and what has been done, since the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WarmStatistics {
    /// Where segments lie: `host` or `cuda`; `off` if there is no warm tier; `idle` before the first
    /// segment, when nothing is open yet.
    pub backend: String,
    /// The same in the words of the backend, with the name of the device.
    pub device: String,
    /// Bytes that segments may take.
    pub budget_bytes: u64,
    /// Bytes that they take.
    pub used_bytes: u64,
    /// Segments, each of which stands for a file.
    pub segments: u64,
    /// Their rows.
    pub rows: u64,
    /// Segments that were sealed.
    pub seals: u64,
    /// Requests that they have answered.
    pub hits: u64,
    /// Segments that were let go to make room.
    pub evictions: u64,
    /// Segments that were let go because their files have been replaced or removed.
    pub dropped: u64,
    /// How often something was not sealed or not answered, by reason.
    pub fallbacks: BTreeMap<String, u64>,
    /// Why segments lie in the host's memory, if a device was asked for and is not used.
    pub no_device: Option<String>,
    /// Why the tier is out of use, if it is.
    pub dead: Option<String>,
}

impl WarmStatistics {
    /// The reasons of [`Self::fallbacks`] with their numbers, as one line: `evicted 3, unsupported 1`.
    #[must_use]
    pub fn fallbacks_shown(&self) -> String {
        let one = |(reason, count): (&String, &u64)| format!("{reason} {count}");
        self.fallbacks.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
