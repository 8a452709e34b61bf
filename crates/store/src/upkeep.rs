//! The log kept short, off the write path.
//!
//! Every step can be taken by any process at any time: it either lands as a commit of its own or is
//! given up, because somebody else has taken it.
//!
//! In the background two lanes run side by side, so that a long merge of old runs never lets the
//! tail of single commits grow: one merges the tail and writes checkpoints, one merges runs and lets
//! go of what has expired.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidelog_core::Env;
use tidelog_oplog::{Log, MergeScope, Snapshot};
use tokio::sync::watch;

use crate::commit::{Rejected, WeakWriter, Work, Writer};
use crate::engine::Engine;
use crate::error::Error;

/// A one-shot command that finds a longer tail than this takes one step.
pub const TAIL_COMMITS_MAX: usize = 32;
/// The background merges the tail at this length: with room for what lands meanwhile.
const TAIL_COMMITS_BACKGROUND: usize = 12;
/// If it has grown by so many more, whoever was to merge it did not.
const TAIL_COMMITS_AGAIN: usize = 10;
/// Commits between two checkpoints.
const CHECKPOINT_COMMITS: u64 = 32;
/// How often the background looks for what has expired; it lists the log's directory.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Who keeps the log of a store short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UpkeepMode {
    /// A task of this handle, from its first write on.
    #[default]
    Background,
    /// Nobody, unless asked: [`Engine::maintain`], [`Engine::upkeep_step`].
    OnRequest,
}

/// What upkeep did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Maintained {
    /// Merges that landed.
    pub merges: u64,
    /// Log parts that they replaced.
    pub parts_before: u64,
    /// Log parts that stand in their place.
    pub parts_after: u64,
    /// Bytes written for them.
    pub bytes_written: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Log objects deleted.
    pub objects_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
}

impl Engine {
    /// Does all the upkeep that is due: merges the tail, merges runs into a good shape (into one,
    /// if `full`), writes a checkpoint and lets go of what has expired.
    ///
    /// # Errors
    /// Damage, or the store's failure. What was done until then stays done.
    pub async fn maintain(&self, full: bool) -> Result<Maintained, Error> {
        let upkeep = Upkeep { log: self.log().clone(), writer: self.writer() };
        let mut done = Maintained::default();
        self.log().refresh().await?;
        while upkeep.merge(MergeScope::Tail(2), &mut done).await? {}
        while upkeep.merge(MergeScope::Runs, &mut done).await? {}
        if full {
            upkeep.merge(MergeScope::All, &mut done).await?;
        }
        upkeep.checkpoint(1, &mut done).await?;
        upkeep.expire(&mut done).await?;
        Ok(done)
    }

    /// One step of upkeep, if the tail of the log has become longer than [`TAIL_COMMITS_MAX`]
    /// commits, and one small merge of files where it is due: what a command does that writes once and
    /// ends.
    ///
    /// # Errors
    /// As [`Engine::maintain`].
    pub async fn upkeep_step(&self) -> Result<Maintained, Error> {
        let mut done = Maintained::default();
        if self.log().snapshot().tail_length() > TAIL_COMMITS_MAX {
            let upkeep = Upkeep { log: self.log().clone(), writer: self.writer() };
            upkeep.merge(MergeScope::Tail(2), &mut done).await?;
            upkeep.checkpoint(CHECKPOINT_COMMITS, &mut done).await?;
        }
        self.compact_step().await?;
        Ok(done)
    }
}

struct Upkeep {
    log: Log,
    writer: Writer,
}

impl Upkeep {
    /// Takes one merge from plan to commit; whether there may be another.
    async fn merge(&self, scope: MergeScope, done: &mut Maintained) -> Result<bool, Error> {
        let snapshot = self.log.snapshot();
        let Some(plan) = self.log.plan_merge(&snapshot, scope) else { return Ok(false) };
        let merged = match self.log.merge(plan).await {
            Ok(merged) => merged,
            // Somebody else has merged these parts, and let go of them.
            Err(tidelog_oplog::Error::SnapshotExpired { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        match self.writer.submit(Work::Merge(merged.clone())).await {
            Ok(_) => {
                done.merges += 1;
                done.parts_before += merged.input_count() as u64;
                done.parts_after += merged.output_count() as u64;
                done.bytes_written += merged.output_bytes();
                Ok(true)
            }
            // Somebody else has; the parts just written are never part of the log and will expire.
            Err(Rejected::Stale) => Ok(true),
            Err(Rejected::Failed(error)) => Err(error),
        }
    }

    async fn checkpoint(&self, apart: u64, done: &mut Maintained) -> Result<(), Error> {
        let written = self.log.checkpoint(&self.log.snapshot(), apart).await?;
        done.checkpoints += u64::from(written);
        Ok(())
    }

    async fn expire(&self, done: &mut Maintained) -> Result<(), Error> {
        loop {
            let snapshot: Snapshot = self.log.snapshot();
            let expired = self.log.expired(&snapshot).await?;
            if expired.is_empty() {
                return Ok(());
            }
            if !expired.announcement(&snapshot).is_empty() {
                match self.writer.submit(Work::Vacuum(expired.clone())).await {
                    Ok(_) => {}
                    Err(Rejected::Stale) => return Ok(()),
                    Err(Rejected::Failed(error)) => return Err(error),
                }
            }
            self.log.delete_expired(&expired, &self.log.snapshot()).await?;
            done.objects_deleted += expired.object_count() as u64;
            done.bytes_deleted += expired.bytes;
        }
    }
}

/// Starts the background upkeep, if it is wanted, and returns where to tell it of commits. It ends
/// when that is dropped.
pub(crate) fn spawn(
    mode: UpkeepMode,
    log: &Log,
    env: &Env,
    writer: WeakWriter,
) -> Option<watch::Sender<usize>> {
    if mode != UpkeepMode::Background {
        return None;
    }
    let (landed, tail) = watch::channel(0);
    let (merged, news) = watch::channel(());
    let lanes = Lanes { log: log.clone(), env: env.clone(), writer };
    tokio::spawn(lanes.clone().keep_tail(tail, merged));
    tokio::spawn(lanes.keep_runs(news));
    Some(landed)
}

/// Tells the background upkeep of a commit that has just landed, if it is its turn.
///
/// The commit that makes the tail so long is one writer's, so of all that write to a store one
/// begins to merge.
pub(crate) fn tell(landed: &watch::Sender<usize>, tail: usize) {
    let beyond = tail.checked_sub(TAIL_COMMITS_BACKGROUND);
    if beyond.is_some_and(|beyond| beyond % TAIL_COMMITS_AGAIN == 0) {
        landed.send_replace(tail);
    }
}

#[derive(Clone)]
struct Lanes {
    log: Log,
    env: Env,
    writer: WeakWriter,
}

impl Lanes {
    /// Merges the tail whenever it is told to, and writes checkpoints.
    async fn keep_tail(self, mut tail: watch::Receiver<usize>, merged: watch::Sender<()>) {
        while tail.changed().await.is_ok() {
            let Some(upkeep) = self.upkeep() else { return };
            let mut done = Maintained::default();
            let step = async {
                upkeep.merge(MergeScope::Tail(TAIL_COMMITS_BACKGROUND / 2), &mut done).await?;
                upkeep.checkpoint(CHECKPOINT_COMMITS, &mut done).await
            };
            if let Err(error) = step.await {
                tracing::warn!(%error, "merging the tail of the log failed; it is tried again");
            } else if done.merges > 0 {
                merged.send_replace(());
            }
        }
    }

    /// Merges runs and lets go of what has expired, after each merge of the tail.
    async fn keep_runs(self, mut news: watch::Receiver<()>) {
        let mut looked = self.env.clock.monotonic();
        while news.changed().await.is_ok() {
            let Some(upkeep) = self.upkeep() else { return };
            let mut done = Maintained::default();
            let now = self.env.clock.monotonic();
            let step = async {
                while upkeep.merge(MergeScope::Runs, &mut done).await? {}
                if now.saturating_sub(looked) >= EXPIRY_INTERVAL {
                    looked = now;
                    upkeep.expire(&mut done).await?;
                }
                Ok::<(), Error>(())
            };
            if let Err(error) = step.await {
                tracing::warn!(%error, "merging the runs of the log failed; it is tried again");
            }
        }
    }

    fn upkeep(&self) -> Option<Upkeep> {
        Some(Upkeep { log: self.log.clone(), writer: self.writer.upgrade()? })
    }
}
