//! What is kept of the history: horizons, below which versions of a series cannot be read any more,
//! and snapshots, which stay readable by name all the same.
//!
//! And what is let go of: objects whose deletion was announced, as far as a writer has to know them
//! that has put a data file and not committed it yet.

use std::collections::HashSet;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync, VectorSync};
use tidelog_core::{CommitVersion, NodeId, SnapshotName, TreePath, Version, WriteTime};

use crate::error::Error;
use crate::row::{EntryType, StoreOp, StoreRow, TreeOp};
use crate::state::Snapshot;
use crate::tree::Tree;

/// Announcements that are remembered. A writer whose put is older than these writes it anew.
const ANNOUNCEMENTS_MAX: usize = 64;

/// The store at one moment, under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// The moment: all that was recorded until then is in it, and nothing else.
    pub time: WriteTime,
    /// The commit that made it.
    pub commit: CommitVersion,
}

/// Where the readable history of a series begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    /// The series.
    pub node: NodeId,
    /// Its path when that was recorded; the last one it had, if it was removed.
    pub path: TreePath,
    /// The first version that can be read; of a removed series, one more than its newest if nothing
    /// can.
    pub first: Version,
}

/// Where the readable history of a series begins, and since when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HorizonMark {
    /// The first version that can be read.
    pub first: Version,
    /// The commit that made it so.
    pub commit: CommitVersion,
}

/// A series that was removed, and is in no later tree.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemovedSeries {
    /// Its id.
    pub node: NodeId,
    /// The path that it had.
    pub path: TreePath,
    /// When it was removed.
    pub time: WriteTime,
}

type Snapshots = RedBlackTreeMapSync<SnapshotName, Arc<NamedSnapshot>>;

/// What is kept of the history after some commit. Clones share structure.
#[derive(Debug, Clone)]
pub struct History {
    snapshots: Snapshots,
    horizons: HashTrieMapSync<NodeId, HorizonMark>,
    /// The newest commit that took a snapshot's name away.
    dropped: CommitVersion,
    announced: Announced,
}

impl Default for History {
    fn default() -> Self {
        Self {
            snapshots: Snapshots::new_sync(),
            horizons: HashTrieMapSync::new_sync(),
            dropped: CommitVersion::default(),
            announced: Announced::since(CommitVersion::default()),
        }
    }
}

impl History {
    /// The named snapshots, by name.
    pub fn snapshots(&self) -> impl Iterator<Item = &Arc<NamedSnapshot>> {
        self.snapshots.values()
    }

    /// The snapshot of this name.
    #[must_use]
    pub fn snapshot(&self, name: &SnapshotName) -> Option<&Arc<NamedSnapshot>> {
        self.snapshots.get(name)
    }

    /// Where the readable history of the series begins, if not with its first version.
    #[must_use]
    pub fn horizon(&self, node: NodeId) -> Option<HorizonMark> {
        self.horizons.get(&node).copied()
    }

    /// The first version of the series that can be read.
    #[must_use]
    pub fn first_readable(&self, node: NodeId) -> Version {
        self.horizon(node).map_or(Version::FIRST, |mark| mark.first)
    }

    /// Every horizon, in no order.
    pub fn horizons(&self) -> impl Iterator<Item = (NodeId, HorizonMark)> {
        self.horizons.iter().map(|(node, mark)| (*node, *mark))
    }

    /// The newest commit that took a snapshot's name away; commit 0 if none did.
    #[must_use]
    pub fn last_dropped(&self) -> CommitVersion {
        self.dropped
    }

    /// Whether the deletion of one of these objects may have been announced since the commit `since`
    /// was still to come.
    pub fn may_be_announced<'a>(
        &self,
        since: CommitVersion,
        objects: impl IntoIterator<Item = &'a str>,
    ) -> bool {
        since < self.announced.since || self.announced.holds(objects)
    }

    /// Whether the deletion of this object was announced by one of the newest commits.
    #[must_use]
    pub fn is_announced(&self, object: &str) -> bool {
        self.announced.holds([object])
    }

    /// Begins to remember announcements with the commit after `head`.
    pub(crate) fn forget_announced(&mut self, head: CommitVersion) {
        self.announced = Announced::since(head.next());
    }

    /// Takes in a row, if it is about the history.
    ///
    /// # Errors
    /// Why it cannot follow what came before, in words.
    pub fn apply(&mut self, row: &StoreRow) -> Result<(), String> {
        match &row.op {
            StoreOp::Snapshot(name) => {
                let (name, time) = (name.clone(), row.timestamp);
                if self.snapshots.contains_key(&name) {
                    return Err(format!("there is a snapshot {name} already"));
                }
                let made = NamedSnapshot { name: name.clone(), time, commit: row.commit };
                self.snapshots.insert_mut(name, Arc::new(made));
            }
            StoreOp::DropSnapshot(name) => {
                if !self.snapshots.remove_mut(name) {
                    return Err(format!("there is no snapshot {name}"));
                }
                self.dropped = self.dropped.max(row.commit);
            }
            StoreOp::Horizon(horizon) if horizon.first > self.first_readable(horizon.node) => {
                let mark = HorizonMark { first: horizon.first, commit: row.commit };
                self.horizons.insert_mut(horizon.node, mark);
            }
            StoreOp::Vacuum { objects } => self.announced.push(row.commit, objects),
            StoreOp::Horizon(_)
            | StoreOp::Claim(_)
            | StoreOp::Release(_)
            | StoreOp::TakeOver(_) => {}
        }
        Ok(())
    }
}

/// Objects whose deletion the newest commits have announced.
#[derive(Debug, Clone)]
struct Announced {
    /// What was announced by commits before this one is not known.
    since: CommitVersion,
    newest: VectorSync<(CommitVersion, Arc<HashSet<String>>)>,
}

impl Announced {
    fn since(since: CommitVersion) -> Self {
        Self { since, newest: VectorSync::new_sync() }
    }

    fn push(&mut self, commit: CommitVersion, objects: &[String]) {
        let objects = Arc::new(objects.iter().cloned().collect());
        self.newest.push_back_mut((commit, objects));
        if self.newest.len() > ANNOUNCEMENTS_MAX
            && let Some((oldest, _)) = self.newest.first()
        {
            self.since = self.since.max(oldest.next());
            self.newest = self.newest.iter().skip(1).cloned().collect();
        }
    }

    fn holds<'a>(&self, objects: impl IntoIterator<Item = &'a str>) -> bool {
        let announced = |object: &str| self.newest.iter().any(|(_, all)| all.contains(object));
        objects.into_iter().any(announced)
    }
}

impl Snapshot {
    /// The series that have been removed, in the order in which they were.
    ///
    /// # Errors
    /// If the log's own rows contradict one another.
    pub fn removed_series(&self) -> Result<Vec<RemovedSeries>, Error> {
        let mut tree = Tree::default();
        let mut removed = Vec::new();
        for row in self.tree_history() {
            if row.op == TreeOp::Delete
                && let Some(path) = tree.path_of(row.node)
            {
                let below = tree.walk(&path).into_iter();
                let series = below.filter(|(_, node)| node.entry == EntryType::FileSeries);
                removed.extend(series.map(|(path, node)| RemovedSeries {
                    node: node.id,
                    path,
                    time: row.timestamp,
                }));
            }
            tree.apply(row).map_err(|reason| Error::Inconsistent { commit: row.commit, reason })?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Row;

    fn row(commit: i64, op: StoreOp) -> StoreRow {
        let timestamp = WriteTime::from_micros(commit);
        StoreRow { op, timestamp, commit: CommitVersion::new(commit) }
    }

    fn vacuum(commit: i64, object: &str) -> StoreRow {
        row(commit, StoreOp::Vacuum { objects: vec![object.to_owned()] })
    }

    #[test]
    fn a_horizon_only_moves_on() {
        let node = NodeId::random(&tidelog_core::env::SystemRandomness);
        let path = TreePath::parse("/a").unwrap();
        let mut history = History::default();
        assert_eq!(history.first_readable(node), Version::FIRST);
        for (commit, first, expected) in [(1, 5, 5), (2, 3, 5), (3, 5, 5), (4, 6, 6)] {
            let first = Version::new(first);
            let horizon = Horizon { node, path: path.clone(), first };
            history.apply(&row(commit, StoreOp::Horizon(horizon))).unwrap();
            assert_eq!(history.first_readable(node).number(), expected);
        }
        assert_eq!(history.horizon(node).unwrap().commit.number(), 4);
    }

    #[test]
    fn a_name_is_taken_once() {
        let name = SnapshotName::parse("a \"quoted\" name").unwrap();
        let mut history = History::default();
        let make = |commit| row(commit, StoreOp::Snapshot(name.clone()));
        let drop = |commit| row(commit, StoreOp::DropSnapshot(name.clone()));
        history.apply(&make(1)).unwrap();
        assert!(history.apply(&make(2)).is_err());
        assert_eq!(history.snapshot(&name).unwrap().time.micros(), 1);
        history.apply(&drop(3)).unwrap();
        assert!(history.apply(&drop(4)).is_err());
        history.apply(&make(5)).unwrap();
        assert_eq!(history.snapshots().count(), 1);
        assert_eq!(history.last_dropped().number(), 3);
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let node = NodeId::random(&tidelog_core::env::SystemRandomness);
        let path = TreePath::parse("/a \"b\"").unwrap();
        let name = SnapshotName::parse("a \"quoted\" name").unwrap();
        let ops = [
            StoreOp::Snapshot(name.clone()),
            StoreOp::DropSnapshot(name),
            StoreOp::Horizon(Horizon { node, path, first: Version::new(7) }),
        ];
        let rows: Vec<Row> = ops.iter().map(|op| Row::Store(row(3, op.clone()))).collect();
        let read = crate::decode::rows_in("a test", vec![crate::batch_of(&rows).unwrap()]).unwrap();
        let read: Vec<StoreOp> = read
            .into_iter()
            .filter_map(|row| if let Row::Store(row) = row { Some(row.op) } else { None })
            .collect();
        assert_eq!(read, ops);
    }

    #[test]
    fn what_was_announced_is_known_or_not_known_but_never_denied() {
        let mut history = History::default();
        let objects = || (1..=100).map(|commit| (commit, format!("series/{commit}")));
        for (commit, object) in objects() {
            history.apply(&vacuum(commit, &object)).unwrap();
        }
        for (commit, object) in objects() {
            let before = CommitVersion::new(commit);
            assert!(history.may_be_announced(before, [object.as_str()]), "{object}");
        }
        assert!(!history.may_be_announced(CommitVersion::new(90), ["series/other"]));
        assert!(history.may_be_announced(CommitVersion::new(3), ["series/other"]));
        history.forget_announced(CommitVersion::new(100));
        assert!(history.may_be_announced(CommitVersion::new(100), ["series/other"]));
        assert!(!history.may_be_announced(CommitVersion::new(101), ["series/100"]));
    }
}
