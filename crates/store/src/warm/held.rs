//! Which segment stands for which file.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use tidelog_core::{CommitVersion, FileId, MemoryBudget, NodeId};
use tidelog_oplog::{SeriesState, Snapshot};
use tidelog_warm::{Unsupported, WarmError};

use super::WarmFile;
use super::series::SeriesTable;
use crate::series_schema::SeriesSchema;

/// Fewer files than these are not looked through.
const LOOKED_AT_MIN: usize = 64;

/// Files that are warm, and the tables of their series.
#[derive(Debug, Default)]
pub(super) struct Held {
    files: HashMap<FileId, HeldFile>,
    series: HashMap<NodeId, HeldSeries>,
    /// How many files there may be before those are forgotten whose rows were let go.
    look_at: usize,
    /// The commit up to which files were looked through that have gone.
    seen: Option<CommitVersion>,
}

/// A segment, and the file that it stands for.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub(super) node: NodeId,
    pub(super) file: WarmFile,
    /// Counts the memory of its table as long as any segment needs it.
    pub(super) _series: Arc<SeriesTable>,
    /// Whether the log names the file. One that it does not name yet has not gone.
    pub(super) is_committed: bool,
}

#[derive(Debug)]
struct HeldSeries {
    /// The table of files to come, or why there is none.
    table: Result<Arc<SeriesTable>, WarmError>,
    /// Columns of too many distinct texts.
    left_out: Vec<String>,
    /// The state in which its files were looked for last.
    seen: Weak<SeriesState>,
}

impl Held {
    pub(super) fn len(&self) -> u64 {
        self.files.len() as u64
    }

    pub(super) fn find(&self, file: FileId) -> Option<WarmFile> {
        let held = self.files.get(&file)?;
        held.file.segment.is_resident().then(|| held.file.clone())
    }

    pub(super) fn has_series(&self, node: NodeId) -> bool {
        self.files.values().any(|held| held.node == node)
    }

    /// Adds a file, and now and then forgets those whose rows were let go.
    pub(super) fn insert(&mut self, file: FileId, held: HeldFile) {
        if self.files.len() >= self.look_at.max(LOOKED_AT_MIN) {
            self.files.retain(|_, held| held.file.segment.is_resident());
            self.look_at = self.files.len() * 2;
        }
        self.files.insert(file, held);
    }

    pub(super) fn remove(&mut self, file: FileId) -> Option<HeldFile> {
        self.files.remove(&file)
    }

    /// The log names this file now.
    pub(super) fn commit(&mut self, file: FileId) {
        if let Some(held) = self.files.get_mut(&file) {
            held.is_committed = true;
        }
    }

    /// The table of a series, made if there is none. A series that cannot have one is remembered.
    pub(super) fn table(
        &mut self,
        node: NodeId,
        schema: &SeriesSchema,
        memory: &MemoryBudget,
    ) -> Result<Arc<SeriesTable>, WarmError> {
        if let Some(held) = self.series.get(&node) {
            return held.table.clone();
        }
        let table = SeriesTable::try_new(schema, &[], memory).map(Arc::new);
        // There may be room later.
        if !matches!(table, Err(WarmError::OutOfMemory { .. })) {
            let held = HeldSeries { table: table.clone(), left_out: Vec::new(), seen: Weak::new() };
            self.series.insert(node, held);
        }
        table
    }

    /// What is to become of a series after a seal has failed: whether there is another table to try it
    /// with. A column whose texts are too many is left out from now on; a key cannot be.
    pub(super) fn leave_out(
        &mut self,
        node: NodeId,
        tried: &Arc<SeriesTable>,
        schema: &SeriesSchema,
        memory: &MemoryBudget,
        error: &WarmError,
    ) -> bool {
        let WarmError::Unsupported { what: Unsupported::DictionaryFull { column, .. } } = error
        else {
            return false;
        };
        let Some(held) = self.series.get_mut(&node) else { return false };
        match &held.table {
            // Somebody else has found it out.
            Ok(table) if !Arc::ptr_eq(table, tried) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        let keys = schema.keys().iter().map(|key| schema.columns().field(*key).name());
        if keys.into_iter().any(|key| key == column) {
            held.table = Err(error.clone());
            return false;
        }
        held.left_out.push(column.clone());
        held.table = SeriesTable::try_new(schema, &held.left_out, memory).map(Arc::new);
        let is_there = held.table.is_ok();
        if matches!(held.table, Err(WarmError::OutOfMemory { .. })) {
            // There may be room later.
            self.series.remove(&node);
        }
        is_there
    }

    /// Takes out the files that are not in the newest state any more, as far as that is in memory.
    pub(super) fn drop_gone(&mut self, snapshot: &Snapshot) -> Vec<HeldFile> {
        if self.seen.is_some_and(|seen| seen >= snapshot.head()) {
            return Vec::new();
        }
        self.seen = Some(snapshot.head());
        let mut live: HashSet<FileId> = HashSet::new();
        let mut looked_at: HashSet<NodeId> = HashSet::new();
        for (node, series) in &mut self.series {
            if snapshot.tree().node(*node).is_none() {
                looked_at.insert(*node);
                continue;
            }
            let Some(state) = snapshot.loaded_series(*node) else { continue };
            if std::ptr::eq(series.seen.as_ptr(), Arc::as_ptr(&state)) {
                continue;
            }
            series.seen = Arc::downgrade(&state);
            looked_at.insert(*node);
            live.extend(state.files().map(|file| file.file));
        }
        let has_gone = |file: &FileId, held: &mut HeldFile| {
            held.is_committed && looked_at.contains(&held.node) && !live.contains(file)
        };
        let gone = self.files.extract_if(has_gone).map(|(_, held)| held).collect();
        let nodes: HashSet<NodeId> = self.files.values().map(|held| held.node).collect();
        // What was found out about a series is kept; a table that nothing needs is not.
        self.series.retain(|node, series| {
            let is_there = snapshot.tree().node(*node).is_some();
            let is_known = series.table.is_err() || !series.left_out.is_empty();
            nodes.contains(node) || is_there && is_known
        });
        gone
    }
}
