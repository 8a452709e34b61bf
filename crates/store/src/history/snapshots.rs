//! Named snapshots of a store.

use std::sync::Arc;

use tidelog_core::SnapshotName;
use tidelog_oplog::NamedSnapshot;

use super::HistoryChange;
use crate::commit::Work;
use crate::engine::Engine;
use crate::error::Error;

impl Engine {
    /// Gives the store as it is now a name, by which it stays readable whatever is expired later.
    ///
    /// # Errors
    /// If there is a snapshot of that name, or another writer has the store for itself.
    pub async fn create_snapshot(&self, name: &SnapshotName) -> Result<Arc<NamedSnapshot>, Error> {
        self.commit_in_order(|| Work::History(HistoryChange::Name(name.clone()))).await?;
        let snapshot = self.log().snapshot();
        let made = snapshot.history().snapshot(name).cloned();
        // Somebody may have dropped it the moment after.
        made.ok_or_else(|| Error::no_snapshot(name.as_str(), snapshot.history()))
    }

    /// Takes the name from a snapshot. What only it kept readable can be vacuumed then.
    ///
    /// # Errors
    /// If there is none of that name, or another writer has the store for itself.
    pub async fn drop_snapshot(&self, name: &SnapshotName) -> Result<(), Error> {
        self.commit_in_order(|| Work::History(HistoryChange::Drop(name.clone()))).await.map(drop)
    }

    /// The named snapshots, by name.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<Arc<NamedSnapshot>>, Error> {
        let head = self.head().await?;
        Ok(head.snapshot().history().snapshots().cloned().collect())
    }
}
