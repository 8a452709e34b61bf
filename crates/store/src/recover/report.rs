//! What was brought in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_core::{NodeId, TreePath, Version, WalId};
use tidelog_oplog::TakeOver;

use super::gather::Piece;

/// What was brought in of a write-ahead log, or would be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WalRecovery {
    /// The log's directory.
    pub directory: PathBuf,
    /// Its id.
    pub wal: WalId,
    /// Who has taken the store from its owner; absent if the owner has died and nobody took it over, in
    /// which case versions keep their numbers.
    pub taken_over: Option<Arc<TakeOver>>,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Records that were not committed.
    pub records: u64,
    /// Where their rows are now, by the path they were acknowledged for.
    pub series: Vec<RecoveredSeries>,
}

/// Versions of one series that were brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredSeries {
    /// The path that they were acknowledged for.
    pub from: TreePath,
    /// The series' id then.
    pub node: NodeId,
    /// Where they are now, or would be.
    pub to: TreePath,
    /// Their rows, without those of versions that were there already.
    pub rows: u64,
    /// Versions that were brought in, oldest first.
    pub versions: Vec<Renumbered>,
    /// Versions that were there already, because their writer has repeated them.
    pub known: Vec<Renumbered>,
}

/// Versions that follow one another under their old and under their new numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renumbered {
    /// The first number that was acknowledged.
    pub old: Version,
    /// Its number now; `None` if nothing was done.
    pub new: Option<Version>,
    /// How many there are.
    pub count: u64,
}

impl WalRecovery {
    /// Versions that were brought in, or would be.
    #[must_use]
    pub fn version_count(&self) -> u64 {
        self.series.iter().flat_map(|series| &series.versions).map(|run| run.count).sum()
    }

    /// Their rows.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.series.iter().map(|series| series.rows).sum()
    }
}

/// A report while it grows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    series: BTreeMap<(TreePath, NodeId), RecoveredSeries>,
}

impl Tally {
    fn entry(&mut self, piece: &Piece, to: &TreePath) -> &mut RecoveredSeries {
        let key = (piece.path.clone(), piece.node);
        self.series.entry(key).or_insert_with(|| RecoveredSeries {
            from: piece.path.clone(),
            node: piece.node,
            to: to.clone(),
            rows: 0,
            versions: Vec::new(),
            known: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, piece: &Piece, to: &TreePath, new: Option<Version>) {
        let entry = self.entry(piece, to);
        entry.rows += piece.batch.num_rows() as u64;
        push(&mut entry.versions, piece.version, new);
    }

    pub(super) fn add_known(&mut self, piece: &Piece, to: &TreePath, at: Version) {
        push(&mut self.entry(piece, to).known, piece.version, Some(at));
    }

    pub(super) fn report(self, directory: &Path, wal: WalId, dry_run: bool) -> WalRecovery {
        WalRecovery {
            directory: directory.to_owned(),
            wal,
            taken_over: None,
            dry_run,
            records: self.records,
            series: self.series.into_values().collect(),
        }
    }
}

fn push(runs: &mut Vec<Renumbered>, old: Version, new: Option<Version>) {
    let after = |first: Version, count: u64| {
        Version::new(first.number() + i64::try_from(count).unwrap_or(i64::MAX))
    };
    match runs.last_mut() {
        Some(run)
            if after(run.old, run.count) == old
                && run.new.map(|first| after(first, run.count)) == new =>
        {
            run.count += 1;
        }
        _ => runs.push(Renumbered { old, new, count: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow_one_another_are_told_once() {
        let mut runs = Vec::new();
        for (old, new) in [(3, Some(5)), (4, Some(6)), (5, Some(9)), (7, Some(10)), (8, None)] {
            push(&mut runs, Version::new(old), new.map(Version::new));
        }
        let run = |old, new: Option<i64>, count| Renumbered {
            old: Version::new(old),
            new: new.map(Version::new),
            count,
        };
        let expected =
            [run(3, Some(5), 2), run(5, Some(9), 1), run(7, Some(10), 1), run(8, None, 1)];
        assert_eq!(runs, expected);
    }
}
