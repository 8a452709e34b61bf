//! Changes of what is kept of the history, as rows of a commit.

use std::sync::Arc;

use tidelog_core::SnapshotName;
use tidelog_oplog::{Horizon, Row, StoreOp, StoreRow};

use crate::commit::{Draft, Rejected};
use crate::error::Error;

/// A change of what is kept of the history.
#[derive(Debug, Clone)]
pub(crate) enum HistoryChange {
    /// Gives the store as it is a name.
    Name(SnapshotName),
    /// Takes a name away.
    Drop(SnapshotName),
    /// Moves horizons. It is stale if all of them are there or beyond already.
    Expire(Arc<[Horizon]>),
}

impl Draft<'_> {
    /// A snapshot comes after all that its owner has acknowledged, so nobody else makes one.
    pub(crate) fn add_history(&mut self, change: &HistoryChange) -> Result<(), Rejected> {
        self.refuse_others()?;
        match change {
            HistoryChange::Name(name) => {
                if let Some(made) = self.history.snapshot(name) {
                    let (name, made) = (name.to_string(), made.time);
                    return Err(Error::SnapshotExists { name, made }.into());
                }
                self.push_store(StoreOp::Snapshot(name.clone()))
            }
            HistoryChange::Drop(name) => {
                if self.history.snapshot(name).is_none() {
                    return Err(Error::no_snapshot(name.as_str(), &self.history).into());
                }
                self.push_store(StoreOp::DropSnapshot(name.clone()))
            }
            HistoryChange::Expire(horizons) => {
                let moves =
                    |horizon: &&Horizon| horizon.first > self.history.first_readable(horizon.node);
                let horizons: Vec<Horizon> = horizons.iter().filter(moves).cloned().collect();
                if horizons.is_empty() {
                    return Err(Rejected::Stale);
                }
                horizons.into_iter().try_for_each(|one| self.push_store(StoreOp::Horizon(one)))
            }
        }
    }

    /// Adds a row about the store, with a write time of its own.
    pub(crate) fn push_store(&mut self, op: StoreOp) -> Result<(), Rejected> {
        let (timestamp, commit) = (self.tree.now(), self.base.next_commit());
        let row = StoreRow { op, timestamp, commit };
        self.history.apply(&row).map_err(|reason| Error::History { reason })?;
        self.rows.push(Row::Store(row));
        Ok(())
    }
}
