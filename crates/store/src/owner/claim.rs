//! Taking a store for one writer alone, and bringing in what a dead owner has left.

use std::path::Path;
use std::sync::Arc;

use tidelog_core::{Holder, TransactionId};
use tidelog_oplog::{Epoch, Snapshot};
use tidelog_wal::{Holder as WalHolder, Record, Records, Wal};

use super::abandoned::is_here;
use super::flush::Flusher;
use super::record::{self, Recovered};
use super::{TierLimits, TierOptions, recovered_file};
use crate::commit::{Own, OwnEpoch, Rejected, Work, Writer};
use crate::engine::{Ground, schema_of};
use crate::error::Error;
use crate::hot::{HotSeries, HotState};
use crate::tree_draft::TreeDraft;

/// A store that this process has for itself.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) wal: Wal,
    pub(crate) flusher: Flusher,
}

/// Claims the store: takes the lock of the log ahead, then the epoch in the log, then commits what
/// the log ahead holds and the log does not.
pub(crate) async fn claim(
    ground: &Ground,
    writer: Writer,
    own: &OwnEpoch,
    options: &TierOptions,
    directory: &Path,
) -> Result<Claimed, Error> {
    let snapshot = ground.log.refresh().await?;
    // A claim by somebody elsewhere leaves nothing here.
    if let Some(epoch) = snapshot.epoch()
        && !is_here(options, directory, epoch).await
    {
        return Err(Error::Claimed { epoch: epoch.to_string() });
    }
    let wal = open_wal(ground, options, directory).await?;
    let snapshot = ground.log.refresh().await?;
    let wal = refuse_left_behind(&snapshot, wal, directory).await?;
    // Whoever holds the lock of the log ahead that a claim names may renew the claim: its owner has
    // gone.
    if let Some(epoch) = snapshot.epoch().filter(|epoch| epoch.wal == wal.id()) {
        own.set(Some(Own { epoch: epoch.id, wal: wal.id() }));
    }
    let id = TransactionId::random(ground.env.randomness.as_ref()).as_uuid();
    let holder = WalHolder::of_this_process(ground.env.clock.as_ref());
    let (host, pid) = (holder.host.unwrap_or_default(), holder.pid.unwrap_or_default());
    match writer.submit(Work::Claim(Epoch::new(id, wal.id(), host, pid))).await {
        Ok(_) => own.set(Some(Own { epoch: id, wal: wal.id() })),
        Err(rejected) => {
            own.set(None);
            return Err(rejected.into_error());
        }
    }
    let flusher = Flusher { ground: ground.clone(), writer, epoch: id, wal: wal.id() };
    let wal = recover(wal, &flusher, options).await?;
    Ok(Claimed { wal, flusher })
}

/// Refuses a log ahead with records of a claim that another writer has ended: their numbers may have
/// been given to other versions since.
async fn refuse_left_behind(snapshot: &Snapshot, wal: Wal, directory: &Path) -> Result<Wal, Error> {
    let is_ours = snapshot.epoch().is_some_and(|epoch| epoch.wal == wal.id());
    let covered = snapshot.covered(wal.id());
    if is_ours || covered + 1 >= wal.next_seq() {
        return Ok(wal);
    }
    let directory = directory.to_owned();
    off_the_runtime(move || match wal.records(covered).next() {
        None => Ok(wal),
        Some(_) => Err(Error::LeftBehind { directory, wal: wal.id().to_string() }),
    })
    .await
}

async fn open_wal(ground: &Ground, options: &TierOptions, directory: &Path) -> Result<Wal, Error> {
    let (fs, directory) = (Arc::clone(&options.file_system), directory.to_owned());
    let (env, wal_options) = (ground.env.clone(), options.wal.clone());
    off_the_runtime(move || Wal::open(fs, &directory, &env, wal_options)).await
}

/// Commits the records that the log does not cover, as many at a time as a generation holds.
async fn recover(mut wal: Wal, flusher: &Flusher, options: &TierOptions) -> Result<Wal, Error> {
    let ground = &flusher.ground;
    let covered = ground.log.snapshot().covered(wal.id());
    if covered >= wal.next_seq() {
        // The log ahead has lost its end, with the disk, after that was committed.
        wal = off_the_runtime(move || wal.skip_to(covered + 1).map(|()| wal)).await?;
    }
    let limits = TierLimits::from(options).within(&ground.memory);
    let mut memory = ground.memory.account(Holder::Hot);
    let mut records = wal.records(covered);
    loop {
        let (snapshot, env) = (ground.log.snapshot(), ground.env.clone());
        let rebuilt = Rebuilt::new(&snapshot, env);
        let (hot, left) = off_the_runtime(move || gather(rebuilt, records, &limits)).await?;
        if hot.active.is_empty() {
            break;
        }
        memory.set(hot.bytes());
        tracing::info!(
            versions = hot.active.versions,
            rows = hot.active.rows,
            "committing what a write-ahead log holds"
        );
        load(flusher, &hot).await?;
        flusher.bring_in(&hot.active).await?;
        records = left;
    }
    let last = wal.next_seq() - 1;
    off_the_runtime(move || wal.release(last).map(|_| wal)).await
}

/// The next records, as many as a generation holds, and those after them.
fn gather(
    mut rebuilt: Rebuilt,
    mut records: Records,
    limits: &TierLimits,
) -> Result<(HotState, Records), Error> {
    for record in records.by_ref() {
        rebuilt.add(record?)?;
        let active = &rebuilt.hot.active;
        if active.rows >= limits.rows_max || active.bytes >= limits.bytes_max {
            break;
        }
    }
    Ok((rebuilt.hot, records))
}

/// Calls that block, elsewhere.
async fn off_the_runtime<T, E>(
    call: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Error>
where
    T: Send + 'static,
    E: Into<Error> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|_| Error::Closed)?.map_err(Into::into)
}

/// Checks that the versions follow those that are committed.
async fn load(flusher: &Flusher, hot: &HotState) -> Result<(), Error> {
    let snapshot = flusher.ground.log.snapshot();
    for (node, series) in &hot.active.series {
        if snapshot.tree().node(*node).is_some() {
            let committed = flusher.ground.log.series(&snapshot, *node).await?;
            committed.with_versions(series.versions().iter())?;
        }
    }
    Ok(())
}

/// The hot state that records lead to.
pub(crate) struct Rebuilt {
    pub(crate) hot: HotState,
    tree: TreeDraft,
}

impl Rebuilt {
    pub(crate) fn new(snapshot: &Snapshot, env: tidelog_core::Env) -> Self {
        let tree = TreeDraft::new(env, snapshot.tree().clone(), snapshot.last_write());
        Self { hot: HotState::default(), tree }
    }

    pub(crate) fn add(&mut self, record: Record) -> Result<(), Error> {
        let Recovered { tree, series } = record::decode(record.seq, &record.payload)?;
        for row in tree {
            self.tree.replay(row).map_err(Rejected::into_error)?;
        }
        self.hot.active.tree.extend(self.tree.take_rows());
        for (series, batch) in series {
            let unknown = || Error::Record {
                seq: record.seq,
                reason: format!("it has rows of the series {}, which is not there", series.path),
            };
            let node = self.tree.tree().node(series.node).ok_or_else(unknown)?;
            let schema = Arc::new(schema_of(&series.path, node)?.ok_or_else(unknown)?);
            let file = recovered_file(&series, &schema, batch)?;
            let empty = || HotSeries::new(Arc::clone(&schema));
            self.hot.push(series.node, empty, series.versions, file)?;
        }
        self.hot.active.last_seq = record.seq;
        Ok(())
    }
}
