//! What a dead owner has left in its write-ahead log, for readers on the same machine.

use std::path::Path;
use std::sync::Arc;

use tidelog_core::WalId;
use tidelog_oplog::{Epoch, Snapshot};
use tidelog_storage::FileSystem;
use tidelog_wal::Record;
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
/// in `directory`; with the newest state of the log.
///
/// The log ahead is read first: what it does not hold any more is in the log by then.
pub(crate) async fn read(
    ground: &Ground,
    options: &TierOptions,
    directory: &Path,
    snapshot: &Snapshot,
) -> Result<Option<(Snapshot, Abandoned)>, Error> {
    let Some(epoch) = snapshot.epoch().cloned() else { return Ok(None) };
    let covered = snapshot.covered(epoch.wal);
    let (options, directory) = (options.clone(), directory.to_owned());
    let (wal, claim) = (epoch.wal, epoch.id);
    let records = tokio::task::spawn_blocking(move || {
        if !holds_unlocked(options.file_system.as_ref(), &directory, wal) {
            return Ok(None);
        }
        let reading = match tidelog_wal::read(Arc::clone(&options.file_system), &directory) {
            // The owner has its log ahead elsewhere.
            Err(tidelog_wal::Error::NoLog { .. }) => return Ok(None),
            reading => reading?,
        };
        if reading.id() != wal {
            return Ok(None);
        }
        reading.records(covered, &options.wal).collect::<Result<Vec<Record>, _>>().map(Some)
    });
    let Some(records) = records.await.map_err(|_| Error::Closed)?? else { return Ok(None) };
    let snapshot = ground.log.refresh().await?;
    let covered = snapshot.covered(wal);
    let (base, env) = (snapshot.clone(), ground.env.clone());
    let rebuilt = tokio::task::spawn_blocking(move || {
        let mut rebuilt = Rebuilt::new(&base, env);
        for record in records.into_iter().filter(|record| record.seq > covered) {
            rebuilt.add(record)?;
        }
        Ok::<_, Error>(rebuilt.hot)
    });
    let hot = rebuilt.await.map_err(|_| Error::Closed)??;
    Ok(Some((snapshot, Abandoned { epoch: claim, covered, hot })))
}
