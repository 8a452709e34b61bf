//! The series whose rows are in memory.
//!
//! Which these are changes no answer: rows that are not here are read from the log when somebody asks
//! for them. So the series that were not asked for longest may go at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rpds::HashTrieMapSync;
use tidelog_core::NodeId;

use crate::series::SeriesState;

/// So many series stay, those that were asked for last, however large they are: reading one again for
/// every append to it would take longer than all else.
const KEPT_MIN: usize = 8;

/// Series with their rows. Cheap to clone; a clone counts uses for all.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoadedSeries {
    series: HashTrieMapSync<NodeId, Entry>,
    bytes: u64,
    /// Counts how often any series was asked for.
    uses: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Entry {
    series: Arc<SeriesState>,
    /// Which use of any series was the last of this one.
    used: Arc<AtomicU64>,
}

impl LoadedSeries {
    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }

    /// The series `node`, for somebody who asks.
    pub(crate) fn get(&self, node: NodeId) -> Option<&Arc<SeriesState>> {
        let entry = self.series.get(&node)?;
        entry.used.store(self.next_use(), Ordering::Relaxed);
        Some(&entry.series)
    }

    pub(crate) fn insert(&mut self, series: Arc<SeriesState>) {
        let used = Arc::new(AtomicU64::new(self.next_use()));
        self.remove(series.node());
        self.bytes += series.memory_size();
        self.series.insert_mut(series.node(), Entry { series, used });
    }

    /// Changes the series `node`, if it is here.
    pub(crate) fn change<T>(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut SeriesState) -> T,
    ) -> Option<T> {
        let entry = self.series.get_mut(&node)?;
        let before = entry.series.memory_size();
        let changed = change(Arc::make_mut(&mut entry.series));
        self.bytes = self.bytes - before + entry.series.memory_size();
        Some(changed)
    }

    fn remove(&mut self, node: NodeId) {
        if let Some(entry) = self.series.get(&node) {
            self.bytes -= entry.series.memory_size();
            self.series.remove_mut(&node);
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.series.keys().copied()
    }

    /// What the rows take, in bytes, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// If the rows take more than `bytes_max`, lets go of the series that were not asked for longest,
    /// until a quarter of that is free or few series are left.
    pub(crate) fn trim(&mut self, bytes_max: u64) {
        if self.bytes <= bytes_max {
            return;
        }
        let used = |entry: &Entry| entry.used.load(Ordering::Relaxed);
        let mut by_use: Vec<(u64, NodeId)> =
            self.series.iter().map(|(node, entry)| (used(entry), *node)).collect();
        by_use.sort_unstable();
        by_use.truncate(by_use.len().saturating_sub(KEPT_MIN));
        for (_, node) in by_use {
            if self.bytes <= bytes_max - bytes_max / 4 {
                break;
            }
            self.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_core::{CommitVersion, TransactionId, TreePath, Version, WriteTime};
    use uuid::Uuid;

    use super::*;
    use crate::row::{VersionOp, VersionRow};

    fn node(number: u128) -> NodeId {
        NodeId::from_uuid(Uuid::from_u128(number))
    }

    fn version(node: NodeId, number: i64) -> VersionRow {
        VersionRow {
            op: VersionOp::Append,
            node,
            path: TreePath::parse("/a/series").unwrap(),
            version: Version::new(number),
            timestamp: WriteTime::from_micros(number),
            rows: 1,
            range: None,
            time_column: "time".into(),
            transaction: TransactionId::from_uuid(Uuid::nil()),
            detail: None,
            commit: CommitVersion::default(),
        }
    }

    fn series(number: u128, versions: i64) -> Arc<SeriesState> {
        let mut series = SeriesState::new(node(number));
        for i in 1..=versions {
            series.push_version(version(node(number), i)).unwrap();
        }
        Arc::new(series)
    }

    #[test]
    fn the_series_that_were_not_asked_for_longest_go() {
        let mut loaded = LoadedSeries::default();
        (0..30).for_each(|number| loaded.insert(series(number, 20)));
        let one = series(0, 20).memory_size();
        assert_eq!(loaded.bytes(), 30 * one);
        loaded.trim(30 * one);
        assert_eq!(loaded.nodes().count(), 30, "all have room");
        let older = loaded.clone();
        for asked in [3, 0, 7] {
            assert!(older.get(node(asked)).is_some(), "also one who has an older state counts");
        }
        loaded.trim(16 * one);
        let mut left: Vec<NodeId> = loaded.nodes().collect();
        left.sort();
        let asked_or_new = [0, 3, 7].into_iter().chain(21..30).map(node);
        assert_eq!(left, asked_or_new.collect::<Vec<_>>());
        assert_eq!((loaded.bytes(), older.bytes()), (12 * one, 30 * one));
        assert!(loaded.get(node(1)).is_none());
        loaded.trim(0);
        assert_eq!(loaded.nodes().count(), KEPT_MIN);
        assert!(loaded.get(node(7)).is_some() && loaded.get(node(21)).is_none());
        assert_eq!(loaded.bytes(), 8 * one);
    }

    #[test]
    fn rows_that_come_are_counted() {
        let mut loaded = LoadedSeries::default();
        loaded.insert(series(1, 0));
        let push =
            |number| move |series: &mut SeriesState| series.push_version(version(node(1), number));
        (1..=50).for_each(|i| loaded.change(node(1), push(i)).unwrap().unwrap());
        assert!(loaded.bytes() > 50 * 100);
        assert_eq!(loaded.bytes(), series(1, 50).memory_size());
        assert!(loaded.change(node(2), push(1)).is_none());
        loaded.insert(series(1, 2));
        assert_eq!(loaded.bytes(), series(1, 2).memory_size(), "in the place of what was there");
    }
}
