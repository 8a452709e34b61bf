//! The announcement of what is about to be deleted, as rows of a commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidelog_core::{CommitVersion, NodeId};
use tidelog_oplog::{FileOp, FileRow, Row, StoreOp};

use super::{Doomed, VacuumReason};
use crate::commit::{Draft, Rejected};

/// Files by the objects that they lie in.
type ByObject = HashMap<Arc<str>, Arc<FileRow>>;

impl Draft<'_> {
    /// Announces files, and takes those out of the log that it still holds. What has been added to the
    /// log since they were chosen is left out; it is stale if that is all.
    pub(crate) async fn add_vacuum_files(&mut self, doomed: &[Doomed]) -> Result<(), Rejected> {
        let added: HashSet<Arc<str>> = self.rows.iter().filter_map(object_of).collect();
        let mut of_node: Option<(NodeId, ByObject)> = None;
        let mut ever: Option<(NodeId, HashSet<Arc<str>>)> = None;
        let (mut objects, mut removes) = (Vec::new(), Vec::new());
        for one in doomed.iter().filter(|one| !added.contains(one.location.as_ref())) {
            let known = of_node.as_ref().is_some_and(|(node, _)| *node == one.node);
            if !known {
                of_node = Some((one.node, self.live_files(one.node).await?));
            }
            let live = of_node.as_ref().and_then(|(_, files)| files.get(one.location.as_ref()));
            match live {
                // A compaction of the same commit may have it.
                Some(row) if one.is_in_log() && self.removed.insert(row.file) => {
                    removes.push(Arc::clone(row));
                }
                Some(_) => continue,
                // It may have come and gone since: then somebody may read it.
                None if one.reason == VacuumReason::Orphan => {
                    if ever.as_ref().is_none_or(|(node, _)| *node != one.node) {
                        ever = Some((one.node, self.objects_ever(one.node).await?));
                    }
                    let ever = ever.as_ref().map(|(_, objects)| objects);
                    if ever.is_some_and(|objects| objects.contains(one.location.as_ref())) {
                        continue;
                    }
                }
                None => {}
            }
            objects.push(one.location.to_string());
        }
        if objects.is_empty() {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::Vacuum { objects })?;
        let timestamp = self.tree.last_write();
        self.rows.extend(removes.iter().map(|row| {
            Row::File(FileRow { op: FileOp::Remove, timestamp, ..FileRow::clone(row) })
        }));
        Ok(())
    }

    async fn live_files(&self, node: NodeId) -> Result<ByObject, Rejected> {
        let series = self.log.series(&self.base, node).await?;
        Ok(series.files().map(|row| (Arc::clone(&row.location), Arc::clone(row))).collect())
    }

    /// The objects that are, or were, part of a series.
    async fn objects_ever(&self, node: NodeId) -> Result<HashSet<Arc<str>>, Rejected> {
        let rows = self.log.file_rows(&self.base, node).await?.into_iter();
        Ok(rows.map(|row| row.location).collect())
    }

    /// Refuses files that were put since the commit `since` was still to come, and may have been deleted
    /// before they are committed: they must be written anew.
    pub(crate) fn refuse_deleted(
        &self,
        since: CommitVersion,
        files: &[FileRow],
    ) -> Result<(), Rejected> {
        let objects = files.iter().map(|file| file.location.as_ref());
        if !files.is_empty() && self.history.may_be_announced(since, objects) {
            return Err(Rejected::Stale);
        }
        Ok(())
    }
}

/// The object that a row makes part of a series.
fn object_of(row: &Row) -> Option<Arc<str>> {
    match row {
        Row::File(row) if row.op == FileOp::Add => Some(Arc::clone(&row.location)),
        _ => None,
    }
}
