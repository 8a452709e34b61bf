//! The claim of a handle that writes alone.

use std::sync::{Arc, Mutex, PoisonError};

use tidelog_core::WalId;
use tidelog_oplog::Snapshot;
use uuid::Uuid;

use crate::error::Error;

/// The claim of a handle, and the write-ahead log that it names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) epoch: Uuid,
    pub(crate) wal: WalId,
}

/// The claim that a handle has made, if it has. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnEpoch(Arc<Mutex<Option<Own>>>);

impl OwnEpoch {
    pub(crate) fn get(&self) -> Option<Own> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, own: Option<Own>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }
}

/// What a writer is told that finds its claim, which named `wal`, ended by another.
pub(crate) fn fenced(snapshot: &Snapshot, wal: WalId) -> Error {
    let by = match (snapshot.epoch(), snapshot.taken_over(wal)) {
        (Some(epoch), _) => epoch.to_string(),
        (None, Some(take_over)) => take_over.to_string(),
        (None, None) => "another writer, which has given it back since".to_owned(),
    };
    Error::Fenced { wal: wal.to_string(), by }
}
