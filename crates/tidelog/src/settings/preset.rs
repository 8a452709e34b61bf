//! Numbers that go together.

use serde::{Deserialize, Serialize};

/// Numbers that go together. They stand just above the defaults: whatever else is set wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// For one writer alone that appends without pause: generations of 4,000,000 rows or 512 MiB,
    /// written after 30 seconds at the latest, with 1 GiB of write-ahead log. Fewer and larger files,
    /// for up to 1 GiB of memory, and a longer recovery after a crash.
    Ingest,
    /// For programs that read more than they write: a read may miss what other processes have
    /// committed in the last second, which saves it a request; rows are in files, where others see
    /// them, after 2 seconds. More and smaller files.
    Query,
    /// For small machines: generations of 100,000 rows or 16 MiB, 64 MiB of write-ahead log, 128 MiB
    /// of memory, two partitions, and a cache of 256 MiB. Large sorts and joins spill to disk.
    Small,
}

impl Preset {
    /// What it sets, as it would be written in a file.
    #[must_use]
    pub const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Ingest => &[
                ("hot_max_rows", "4000000"),
                ("hot_max_bytes", "512MiB"),
                ("hot_max_age", "30s"),
                ("wal_max_bytes", "1GiB"),
            ],
            Self::Query => &[("hot_max_age", "2s"), ("max_staleness", "1s")],
            Self::Small => &[
                ("hot_max_rows", "100000"),
                ("hot_max_bytes", "16MiB"),
                ("wal_max_bytes", "64MiB"),
                ("memory", "128MiB"),
                ("partitions", "2"),
                ("cache_size", "256MiB"),
            ],
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Small => "small",
        }
    }
}
