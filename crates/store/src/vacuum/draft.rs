//! The announcement of what is about to be deleted, as rows of a commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidelog_core::{CommitVersion, FileId, NodeId};
use tidelog_oplog::{FileOp, FileRow, Row, StoreOp};

use super::Doomed;
use crate::commit::{Draft, Rejected};

impl Draft<'_> {
    /// Announces files, and takes those out of the log that it still holds. What has been added to the
    /// log since they were chosen is left out; it is stale if that is all.
    pub(crate) async fn add_vacuum_files(&mut self, doomed: &[Doomed]) -> Result<(), Rejected> {
        let added: HashSet<FileId> = self.rows.iter().filter_map(file_of).collect();
        let mut of_node: Option<(NodeId, HashMap<FileId, Arc<FileRow>>)> = None;
        let (mut objects, mut removes) = (Vec::new(), Vec::new());
        for one in doomed.iter().filter(|one| !added.contains(&one.file)) {
            let known = of_node.as_ref().is_some_and(|(node, _)| *node == one.node);
            if !known {
                of_node = Some((one.node, self.live_files(one.node).await?));
            }
            let live = of_node.as_ref().and_then(|(_, files)| files.get(&one.file));
            match live {
                // A compaction of the same commit may have it.
                Some(row) if one.is_in_log() && self.removed.insert(row.file) => {
                    removes.push(Arc::clone(row));
                }
                Some(_) => continue,
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

    async fn live_files(&self, node: NodeId) -> Result<HashMap<FileId, Arc<FileRow>>, Rejected> {
        let series = self.log.series(&self.base, node).await?;
        Ok(series.files().map(|row| (row.file, Arc::clone(row))).collect())
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

/// The file that a row adds.
fn file_of(row: &Row) -> Option<FileId> {
    match row {
        Row::File(row) if row.op == FileOp::Add => Some(row.file),
        _ => None,
    }
}
