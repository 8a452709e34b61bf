//! All that is hot at one moment.

use std::sync::Arc;

use rpds::{HashTrieMapSync, VectorSync};
use tidelog_core::{NodeId, Version, WriteTime};
use tidelog_oplog::{TreeRow, VersionRow};

use super::file::HotFile;
use super::series::HotSeries;
use crate::error::Error;

/// What was acknowledged between two flushes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Generation {
    pub(crate) series: HashTrieMapSync<NodeId, HotSeries>,
    /// Nodes that appends have made, and columns that they have fixed, in order.
    pub(crate) tree: VectorSync<TreeRow>,
    pub(crate) versions: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The last record of the write-ahead log whose rows are inside; 0 if there is none.
    pub(crate) last_seq: u64,
    pub(crate) last_write: WriteTime,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            series: HashTrieMapSync::new_sync(),
            tree: VectorSync::new_sync(),
            versions: 0,
            rows: 0,
            bytes: 0,
            last_seq: 0,
            last_write: WriteTime::MIN,
        }
    }
}

impl Generation {
    pub(crate) fn is_empty(&self) -> bool {
        self.versions == 0
    }
}

/// All that is hot at one moment. Cheap to clone; never changes.
#[derive(Debug, Clone, Default)]
pub struct HotState {
    /// What is being flushed.
    pub(crate) sealed: Option<Arc<Generation>>,
    pub(crate) active: Generation,
}

impl HotState {
    fn generations(&self) -> impl DoubleEndedIterator<Item = &Generation> {
        self.sealed.as_deref().into_iter().chain(std::iter::once(&self.active))
    }

    fn series(&self, node: NodeId) -> impl DoubleEndedIterator<Item = &HotSeries> {
        self.generations().filter_map(move |generation| generation.series.get(&node))
    }

    /// Changes of the tree that are not committed, oldest first.
    pub(crate) fn tree_rows(&self) -> impl Iterator<Item = &TreeRow> {
        self.generations().flat_map(|generation| generation.tree.iter())
    }

    /// The newest version of a series that is hot.
    #[must_use]
    pub fn head(&self, node: NodeId) -> Option<Version> {
        self.series(node).next_back().map(HotSeries::head)
    }

    /// The hot versions of a series, oldest first.
    pub fn versions(&self, node: NodeId) -> impl Iterator<Item = &Arc<VersionRow>> {
        self.series(node).flat_map(|series| series.versions().iter())
    }

    /// The hot versions of all series.
    pub(crate) fn all_versions(&self) -> impl Iterator<Item = &Arc<VersionRow>> {
        let series = self.generations().flat_map(|generation| generation.series.values());
        series.flat_map(|series| series.versions().iter())
    }

    /// The hot rows of a series of versions after `committed`.
    pub fn files(&self, node: NodeId, committed: Version) -> impl Iterator<Item = &Arc<HotFile>> {
        let files = self.series(node).flat_map(|series| series.files().iter());
        files.filter(move |file| file.row().max_version > committed)
    }

    /// The last write time that was given to anything hot.
    #[must_use]
    pub fn last_write(&self) -> WriteTime {
        self.generations().map(|generation| generation.last_write).max().unwrap_or(WriteTime::MIN)
    }

    /// The last record of the write-ahead log whose rows are hot; 0 if none are.
    pub(crate) fn last_seq(&self) -> u64 {
        self.generations().map(|generation| generation.last_seq).max().unwrap_or(0)
    }

    /// Rows that are hot.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.generations().map(|generation| generation.rows).sum()
    }

    /// Bytes of memory that they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.generations().map(|generation| generation.bytes).sum()
    }

    /// Versions that are hot.
    #[must_use]
    pub fn version_count(&self) -> u64 {
        self.generations().map(|generation| generation.versions).sum()
    }

    /// Adds versions of one series, which follow those that it has.
    pub(crate) fn push(
        &mut self,
        node: NodeId,
        empty: impl FnOnce() -> HotSeries,
        versions: Vec<VersionRow>,
        file: HotFile,
    ) -> Result<(), Error> {
        let active = &mut self.active;
        let mut series = active.series.get(&node).cloned().unwrap_or_else(empty);
        active.versions += versions.len() as u64;
        active.rows += file.row().rows;
        for version in &versions {
            active.last_write = active.last_write.max(version.timestamp);
        }
        let grown = series.push(versions, file)?;
        active.bytes = active.bytes.saturating_add_signed(grown);
        active.series.insert_mut(node, series);
        Ok(())
    }
}
