//! A store that somebody else has for itself, wanted: freed if its owner is dead, taken over if its owner
//! cannot be reached and that is asked for.
//!
//! | the owner's write-ahead log | its owner | what happens |
//! |---|---|---|
//! | is here, not locked | is dead | what it left is committed, its claim ended |
//! | is here, locked | lives, as its gauge moves | refused |
//! | is here, locked | is stopped: the gauge stands still | with `take_over`: its claim is ended |
//! | is elsewhere | cannot be seen | with `take_over`: its claim is ended |
//!
//! What an owner has acknowledged under a claim that was ended so stays in its write-ahead log and is
//! [brought in](crate::recover_wal) by hand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidelog_core::ErrorKind;
use tidelog_oplog::{Epoch, Snapshot, TakeOver};
use tidelog_wal::Holder;

use crate::commit::{OwnEpoch, Rejected, Work, Writer};
use crate::compact::Touched;
use crate::engine::Engine;
use crate::error::Error;
use crate::owner::{Owner, TierOptions, abandoned, gauge};
use crate::upkeep::UpkeepMode;

/// An owner that publishes nothing for so long is stopped. Longer than what an owner takes for a stop of
/// its own, so that it asks the log before it acknowledges more.
const SILENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(500);

/// A store that was taken over by this handle.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TakenOver {
    /// The claim that was ended.
    pub from: Arc<Epoch>,
    /// How many records its owner has acknowledged and not committed, so that they are in its write-ahead
    /// log only; `None` if that cannot be seen from here.
    pub records_left: Option<u64>,
}

/// Where the write-ahead log of a claim is, as seen from here.
enum Whereabouts {
    /// In this directory, and nobody has it open.
    Dead(PathBuf),
    /// In this directory, and somebody has it open.
    Held(PathBuf),
    Elsewhere,
}

impl TierOptions {
    /// Where write-ahead logs of the store may lie.
    pub(crate) fn places(&self) -> impl Iterator<Item = &PathBuf> {
        let usual = self.usual_wal_directory.iter();
        self.wal_directory
            .iter()
            .chain(usual.filter(|usual| Some(*usual) != self.wal_directory.as_ref()))
    }
}

impl Engine {
    /// Ends the claim that somebody else has on the store, if its owner is dead, or may be taken over;
    /// whether it is worth trying again what was refused for it.
    pub(crate) async fn free(&self) -> Result<bool, Error> {
        let _alone = self.freeing().lock().await;
        let snapshot = self.log().refresh().await?;
        let Some(epoch) = snapshot.epoch() else { return Ok(true) };
        let may_take_over = self.tier_options().take_over && self.taken_over().is_none();
        match whereabouts(self.tier_options(), epoch).await {
            Whereabouts::Dead(directory) => self.bring_in(&directory).await,
            _ if !may_take_over => Ok(false),
            Whereabouts::Elsewhere => self.take_over(epoch, None).await,
            Whereabouts::Held(directory) => {
                if self.shows_life(&directory, epoch).await? {
                    return Ok(false);
                }
                let left = records_left(self.tier_options(), &directory, &snapshot, epoch).await;
                self.take_over(epoch, left).await
            }
        }
    }

    /// Commits what a dead owner has left, and ends its claim.
    async fn bring_in(&self, directory: &Path) -> Result<bool, Error> {
        let ground = self.ground();
        // What this handle writes besides stays refused until all of it is in.
        let own = OwnEpoch::default();
        let (compaction, touched) = (self.compaction(), Touched::default());
        let upkeep = UpkeepMode::OnRequest;
        let writer = Writer::spawn(self.ground(), upkeep, compaction, &touched, own.clone());
        let (options, limits) = (self.tier_options(), self.live_limits());
        match Owner::claim(ground, writer, &own, options, limits, directory).await {
            Ok(owner) => owner.close().await.map(|()| true),
            // Somebody else was faster, or its log ahead is elsewhere.
            Err(Error::Claimed { .. }) => Ok(false),
            Err(Error::Wal(error)) if error.kind() == ErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the owner that has its log ahead in `directory` publishes anything while one waits.
    async fn shows_life(&self, directory: &Path, epoch: &Epoch) -> Result<bool, Error> {
        let (options, directory, id) = (self.tier_options(), directory.to_owned(), epoch.id);
        let look = || {
            let (fs, directory) = (Arc::clone(&options.file_system), directory.clone());
            let read =
                move || gauge::read(fs.as_ref(), &directory, id).map(|gauge| gauge.written());
            tokio::task::spawn_blocking(read)
        };
        let first = look().await.map_err(|_| Error::Closed)?;
        let mut waited = Duration::ZERO;
        while waited < SILENCE {
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
            if look().await.map_err(|_| Error::Closed)? != first {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn take_over(&self, epoch: &Arc<Epoch>, left: Option<u64>) -> Result<bool, Error> {
        let holder = Holder::of_this_process(self.env().clock.as_ref());
        let (host, pid) = (holder.host.unwrap_or_default(), holder.pid.unwrap_or_default());
        match self.submit(Work::TakeOver(TakeOver::new(epoch, host, pid))).await {
            Ok(_) => {
                tracing::warn!(from = %epoch, records_left = left, "took the store over");
                self.note_taken_over(TakenOver { from: Arc::clone(epoch), records_left: left });
                Ok(true)
            }
            Err(Rejected::Stale) => Ok(true),
            Err(Rejected::Failed(error)) => Err(error),
        }
    }
}

async fn whereabouts(options: &TierOptions, epoch: &Epoch) -> Whereabouts {
    for directory in options.places() {
        if abandoned::is_dead(options, directory, epoch).await {
            return Whereabouts::Dead(directory.clone());
        }
        if abandoned::is_here(options, directory, epoch).await {
            return Whereabouts::Held(directory.clone());
        }
    }
    Whereabouts::Elsewhere
}

/// How many records the log ahead in `directory` holds that are not committed, if that can be told.
async fn records_left(
    options: &TierOptions,
    directory: &Path,
    snapshot: &Snapshot,
    epoch: &Epoch,
) -> Option<u64> {
    let (fs, directory) = (Arc::clone(&options.file_system), directory.to_owned());
    let covered = snapshot.covered(epoch.wal);
    let read = tokio::task::spawn_blocking(move || tidelog_wal::read(fs, &directory));
    Some(read.await.ok()?.ok()?.last_seq().saturating_sub(covered))
}
