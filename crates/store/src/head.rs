//! What a read sees of a store: what is committed, and what this process has acknowledged since.

use std::collections::HashSet;
use std::sync::Arc;

use tidelog_core::{NodeId, TimeRange, Version, WriteTime};
use tidelog_oplog::{Log, Row, SeriesState, Snapshot, Tree, TreeRow, VersionRow};
use tidelog_storage::Pin;

use crate::error::Error;
use crate::hot::{HotFile, HotState};

/// The newest state of a store, as one read or statement sees it. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Head {
    snapshot: Snapshot,
    tree: Tree,
    /// Changes of the tree that are not committed.
    pending: Arc<[TreeRow]>,
    hot: HotState,
    /// While it is there, a vacuum on this machine deletes nothing that the state needs.
    _pin: Option<Arc<Pin>>,
}

impl Head {
    /// What is committed in `snapshot` and what is hot besides. `hot` must have been taken first:
    /// what leaves it is committed before.
    pub(crate) fn new(snapshot: Snapshot, hot: HotState) -> Result<Self, Error> {
        let mut tree = snapshot.tree().clone();
        let is_new = |row: &&TreeRow| row.timestamp > snapshot.last_tree_write();
        let pending: Arc<[TreeRow]> = hot.tree_rows().filter(is_new).cloned().collect();
        for row in pending.iter() {
            apply(&mut tree, row)?;
        }
        Ok(Self { snapshot, tree, pending, hot, _pin: None })
    }

    pub(crate) fn with_pin(self, pin: Option<Pin>) -> Self {
        Self { _pin: pin.map(Arc::new), ..self }
    }

    /// Whether nothing has changed from one to the other that an append could depend on.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.snapshot.next_commit() == other.snapshot.next_commit()
            && self.pending.len() == other.pending.len()
    }

    /// What is committed.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What is hot; some of it may be committed already.
    #[must_use]
    pub fn hot(&self) -> &HotState {
        &self.hot
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The tree as it stood at `time`, inclusive.
    ///
    /// # Errors
    /// If the log's own rows contradict one another.
    pub fn tree_at(&self, time: WriteTime) -> Result<Tree, Error> {
        let mut tree = self.snapshot.tree_at(time)?;
        for row in self.pending.iter().filter(|row| row.timestamp <= time) {
            apply(&mut tree, row)?;
        }
        Ok(tree)
    }

    /// When the store's first node was made.
    pub(crate) fn begins(&self) -> Option<WriteTime> {
        let committed = self.snapshot.tree_history().next().map(|row| row.timestamp);
        committed.or_else(|| self.pending.first().map(|row| row.timestamp))
    }

    /// The time up to which `as_of` a time is exact.
    #[must_use]
    pub fn complete_through(&self) -> WriteTime {
        self.snapshot.complete_through().max(self.hot.last_write())
    }

    /// All versions of the series `node`, and the files of those that are committed. Read from the
    /// log if nobody has asked before.
    ///
    /// # Errors
    /// Damage, or the store's failure.
    pub async fn series(&self, log: &Log, node: NodeId) -> Result<Arc<SeriesState>, Error> {
        let committed = self.committed(log, node).await?;
        self.with_hot_versions(committed)
    }

    /// A series with its versions that are not committed.
    pub(crate) fn with_hot_versions(
        &self,
        committed: Arc<SeriesState>,
    ) -> Result<Arc<SeriesState>, Error> {
        let node = committed.node();
        if self.hot.head(node).is_none_or(|head| head <= committed.head()) {
            return Ok(committed);
        }
        Ok(Arc::new(committed.with_versions(self.hot.versions(node))?))
    }

    /// The series `node` as far as it is committed.
    pub(crate) async fn committed(
        &self,
        log: &Log,
        node: NodeId,
    ) -> Result<Arc<SeriesState>, Error> {
        // A node that is not in the tree may have been removed, and then the log knows it.
        let is_new = || self.pending.iter().any(|row| row.node == node);
        if self.snapshot.tree().node(node).is_none() && is_new() {
            return Ok(Arc::new(SeriesState::new(node)));
        }
        Ok(log.series(&self.snapshot, node).await?)
    }

    /// Several series as far as they are committed, in this order, read together.
    pub(crate) async fn all_committed(
        &self,
        log: &Log,
        nodes: &[NodeId],
    ) -> Result<Vec<Arc<SeriesState>>, Error> {
        let tree = self.snapshot.tree();
        let pending = self.pending.iter().map(|row| row.node);
        let new: HashSet<NodeId> = pending.filter(|node| tree.node(*node).is_none()).collect();
        let old: Vec<NodeId> = nodes.iter().filter(|node| !new.contains(node)).copied().collect();
        let mut known = log.series_of(&self.snapshot, &old).await?.into_iter();
        let of = |node: &NodeId| {
            let nothing = || Arc::new(SeriesState::new(*node));
            if new.contains(node) { nothing() } else { known.next().unwrap_or_else(nothing) }
        };
        Ok(nodes.iter().map(of).collect())
    }

    /// Rows that the log will have once what is hot is committed: changes of the tree and versions, by
    /// write time.
    #[must_use]
    pub fn rows_to_come(&self) -> Vec<Row> {
        // While one writer has the store alone, that time is the last of what it has committed.
        let committed = self.snapshot.complete_through();
        let tree = self.pending.iter().cloned().map(Row::Tree);
        let versions = self.hot.all_versions().filter(|row| row.timestamp > committed);
        let versions = versions.map(|row| Row::Version(VersionRow::clone(row)));
        let mut rows: Vec<Row> = tree.chain(versions).collect();
        rows.sort_by_key(Row::timestamp);
        rows
    }

    /// The event times of the hot rows of the series `node`, if there are any.
    #[must_use]
    pub fn hot_range(&self, node: NodeId) -> Option<TimeRange> {
        self.hot.versions(node).filter_map(|row| row.range).reduce(|a, b| a.union(&b))
    }

    /// The rows of versions after `committed` of the series `node`.
    pub(crate) fn hot_files(&self, node: NodeId, committed: Version) -> Vec<Arc<HotFile>> {
        self.hot.files(node, committed).cloned().collect()
    }
}

fn apply(tree: &mut Tree, row: &TreeRow) -> Result<(), Error> {
    tree.apply(row).map_err(|reason| Error::Options { path: row.path.clone(), reason })
}
