//! What a check says.

use std::time::Duration;

use tidelog_oplog::Finding;

/// What a check of a store found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FsckReport {
    /// What is wrong. Nothing else is.
    pub damage: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<Finding>,
    /// Objects that nothing names: of writes that are under way or failed, or kept from readers by
    /// damage. The first of them; [`orphan_count`](Self::orphan_count) counts all.
    pub orphans: Vec<Orphan>,
    /// How many objects nothing names.
    pub orphan_count: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Log parts whose rows lie in others by now, and that have not expired yet.
    pub replaced_parts: u64,
    /// Their bytes.
    pub replaced_bytes: u64,
    /// Data files that are no part of their series any more, and that no vacuum has deleted yet.
    pub replaced_files: u64,
    /// Their bytes.
    pub replaced_file_bytes: u64,
    /// Whether every byte of the data files was read.
    pub deep: bool,
    /// Commits checked.
    pub commits: u64,
    /// Checkpoints checked.
    pub checkpoints: u64,
    /// Live log parts checked.
    pub parts: u64,
    /// Rows in them.
    pub log_rows: u64,
    /// Series, those included that have been removed and whose history is kept.
    pub series: u64,
    /// Versions of all series.
    pub versions: u64,
    /// Named snapshots.
    pub snapshots: u64,
    /// Live data files checked.
    pub files: u64,
    /// Their bytes, by the log.
    pub bytes: u64,
    /// Records of write-ahead logs that were checked.
    pub wal_records: u64,
    /// How many of them are not committed.
    pub wal_uncovered: u64,
}

impl FsckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.damage.is_empty()
    }
}

/// An object that nothing names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// The object, relative to the store's root.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// How long ago it was written, by this machine's clock.
    pub age: Duration,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FsckProgress {
    /// Live log parts.
    pub parts: u64,
    /// How many of them have been read.
    pub parts_done: u64,
    /// Data files that have been checked.
    pub files_done: u64,
    /// Bytes of them, by the log.
    pub bytes_done: u64,
}
