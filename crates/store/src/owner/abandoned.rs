//! What a dead owner has left in its write-ahead log, for readers on the same machine.

use std::path::Path;
use std::sync::Arc;

use tidelog_core::memory::Account;
use tidelog_core::{Holder, WalId};
use tidelog_oplog::{Epoch, Snapshot};
use tidelog_storage::FileSystem;
use uuid::Uuid;

use super::TierOptions;
use super::claim::Rebuilt;
use crate::engine::Ground;
use crate::error::Error;
use crate::hot::HotState;

/// The rows that a dead owner has acknowledged and not committed.
#[derive(Debug, Clone)]
pub(crate) struct Abandoned {
    epoch: Uuid,
    /// The last record of its log ahead that was committed.
    covered: u64,
    pub(crate) hot: HotState,
    _memory: Arc<Account>,
}

impl Abandoned {
    /// Whether this is what the owner has left that has the store in `snapshot`.
    pub(crate) fn is_of(&self, snapshot: &Snapshot) -> bool {
        snapshot.epoch().is_some_and(|epoch| {
            epoch.id == self.epoch && snapshot.covered(epoch.wal) == self.covered
        })
    }
}

/// Whether the log ahead that a claim names lies in `directory`.
pub(crate) async fn is_here(options: &TierOptions, directory: &Path, epoch: &Epoch) -> bool {
    let (fs, wal) = (Arc::clone(&options.file_system), epoch.wal);
    let directory = directory.to_owned();
    let found = tokio::task::spawn_blocking(move || holds(fs.as_ref(), &directory, wal)).await;
    found.unwrap_or(false)
}

/// Whether the owner that made a claim is dead: its log ahead is here, and nobody has it open.
pub(crate) async fn is_dead(options: &TierOptions, directory: &Path, epoch: &Epoch) -> bool {
    let (fs, wal) = (Arc::clone(&options.file_system), epoch.wal);
    let directory = directory.to_owned();
    let free = tokio::task::spawn_blocking(move || holds_unlocked(fs.as_ref(), &directory, wal));
    free.await.unwrap_or(false)
}

fn holds(fs: &dyn FileSystem, directory: &Path, wal: WalId) -> bool {
    tidelog_wal::log_id(fs, directory).is_ok_and(|found| found == wal)
}

fn holds_unlocked(fs: &dyn FileSystem, directory: &Path, wal: WalId) -> bool {
    holds(fs, directory, wal) && matches!(tidelog_wal::is_locked(fs, directory), Ok(None))
}

/// Reads what the owner has left that has the store in `snapshot`, if it is dead and its log ahead is
/// in `directory`; with the state of the log that it goes with.
///
/// Somebody may bring the rows in meanwhile, and let go of the records. So the newest state is asked for
/// again after them: what lies between is in one of the two only if nothing was brought in.
pub(crate) async fn read(
    ground: &Ground,
    options: &TierOptions,
    directory: &Path,
    snapshot: &Snapshot,
) -> Result<(Snapshot, Option<Abandoned>), Error> {
    let mut snapshot = snapshot.clone();
    loop {
        let Some(epoch) = snapshot.epoch().cloned() else { return Ok((snapshot, None)) };
        let covered = snapshot.covered(epoch.wal);
        let rebuilt = Rebuilt::new(&snapshot, ground.env.clone());
        let (options, directory, wal) = (options.clone(), directory.to_owned(), epoch.wal);
        let read = tokio::task::spawn_blocking(move || {
            rebuild(rebuilt, &options, &directory, (wal, covered))
        });
        let read = read.await.map_err(|_| Error::Closed)?;
        if matches!(read, Ok(None)) {
            return Ok((snapshot, None));
        }
        snapshot = ground.log.refresh().await?;
        let is_same = snapshot.epoch().is_some_and(|newest| newest.id == epoch.id)
            && snapshot.covered(epoch.wal) == covered;
        if is_same && let Some(hot) = read? {
            let mut memory = ground.memory.account(Holder::Hot);
            memory.set(hot.bytes());
            let found = Abandoned { epoch: epoch.id, covered, hot, _memory: Arc::new(memory) };
            return Ok((snapshot, Some(found)));
        }
    }
}

/// The records of a write-ahead log after a number, as they would lie in memory; `None` if the log is not
/// here, or somebody has it open.
fn rebuild(
    mut rebuilt: Rebuilt,
    options: &TierOptions,
    directory: &Path,
    (wal, after): (WalId, u64),
) -> Result<Option<HotState>, Error> {
    if !holds_unlocked(options.file_system.as_ref(), directory, wal) {
        return Ok(None);
    }
    let reading = match tidelog_wal::read(Arc::clone(&options.file_system), directory) {
        // The owner has its log ahead elsewhere.
        Err(tidelog_wal::Error::NoLog { .. }) => return Ok(None),
        reading => reading?,
    };
    if reading.id() != wal {
        return Ok(None);
    }
    for record in reading.records(after, &options.wal) {
        rebuilt.add(record?)?;
    }
    Ok(Some(rebuilt.hot))
}
