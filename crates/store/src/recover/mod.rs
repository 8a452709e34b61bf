//! Bringing in what a writer has acknowledged and could not commit, because its store was taken over.
//!
//! ```text
//! records that the log does not cover ─ for each series, where its rows go now ─┬─ all can go: commits
//!                                                                               └─ else nothing is done
//! ```
//!
//! The numbers under which the rows were acknowledged may have been given to others since, so the rows
//! become new versions. Each commit holds whole records and says how far it has come, in the `txn`
//! action of their write-ahead log; so this can be cut short at any point and done again, and nothing
//! comes twice. Versions whose transaction id the series knows, because their writer has repeated them
//! elsewhere, are left out.

mod destination;
mod gather;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use tidelog_core::{NodeId, TreePath, Version, WalId};
use tidelog_oplog::Snapshot;
use tidelog_wal::{Records, Wal};

use self::destination::{Destination, Destinations};
use self::gather::{Chunk, Chunks, Made, Piece};
use self::report::Tally;
use crate::commit::{Recovery, Rejected, SeriesAppend, Work};
use crate::encode::encode;
use crate::engine::Engine;
use crate::error::Error;
use crate::owner::TierOptions;
use crate::prepare::prepare;

pub use report::{RecoveredSeries, Renumbered, WalRecovery};

/// Tries for one commit, each after somebody else has changed what it rests on.
const ATTEMPTS: u32 = 16;

/// How to bring in a write-ahead log.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RecoverOptions {
    dry_run: bool,
    to: BTreeMap<TreePath, TreePath>,
}

impl RecoverOptions {
    /// Only tells what would be brought in. Default: `false`.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Brings rows that were acknowledged for the series `from`, which has been removed since or was never
    /// committed, to the series `to`. Default: to a series of the same path, if that was never committed.
    #[must_use]
    pub fn with_destination(mut self, from: TreePath, to: TreePath) -> Self {
        self.to.insert(from, to);
        self
    }
}

/// Rows of several versions on their way to one series.
struct Arrival {
    destination: Destination,
    pieces: Vec<Piece>,
}

/// What of a chunk goes where.
struct Settled {
    arrivals: BTreeMap<TreePath, Arrival>,
    /// Versions that are there already, under the numbers beside them.
    known: Vec<(Piece, TreePath, Version)>,
    conflicts: BTreeSet<String>,
}

/// Brings in the records that the write-ahead log of `engine`'s options holds and the store's log does
/// not cover.
///
/// # Errors
/// If there is no log, its owner lives, somebody else has the store, or for a row there is no series to go
/// to: then nothing is brought in. If the store fails, what was committed stays, and this may be repeated.
pub async fn recover_wal(engine: &Engine, options: &RecoverOptions) -> Result<WalRecovery, Error> {
    let directory = engine.tier_options().wal_directory.clone().ok_or(Error::NoWalDirectory)?;
    let log = OpenLog::open(engine, directory, options.dry_run).await?;
    let snapshot = engine.log().refresh().await?;
    let recover = Recover { engine, options, wal: log.id };
    if snapshot.epoch().is_some_and(|epoch| epoch.wal == log.id) {
        return recover.of_dead_owner(log, &snapshot).await;
    }
    // All is looked at first, so that nothing is brought in if something cannot be.
    let mut tally = recover.survey(&log, &snapshot).await?;
    if !options.dry_run {
        if !engine.free().await? {
            let epoch = snapshot.epoch().map(ToString::to_string).unwrap_or_default();
            return Err(Error::Claimed { epoch });
        }
        tally = recover.commit_all(&log).await?;
    }
    let report = tally.report(&log.directory, log.id, options.dry_run);
    let taken_over = snapshot.taken_over(log.id).cloned();
    if !options.dry_run {
        log.let_go().await?;
        if let Some(end) = &taken_over {
            match engine.submit(Work::Release(end.epoch)).await {
                Ok(_) | Err(Rejected::Stale) => {}
                Err(Rejected::Failed(error)) => return Err(error),
            }
        }
    }
    Ok(WalRecovery { taken_over, ..report })
}

/// The write-ahead log, owned, or only read.
struct OpenLog {
    directory: PathBuf,
    id: WalId,
    options: TierOptions,
    owned: Option<Wal>,
}

impl OpenLog {
    async fn open(engine: &Engine, directory: PathBuf, dry_run: bool) -> Result<Self, Error> {
        let (options, env) = (engine.tier_options().clone(), engine.env().clone());
        let opened = tokio::task::spawn_blocking(move || {
            let fs = Arc::clone(&options.file_system);
            let id = tidelog_wal::log_id(fs.as_ref(), &directory)?;
            let owned = match dry_run {
                true => None,
                false => Some(Wal::open(fs, &directory, &env, options.wal.clone())?),
            };
            Ok::<_, Error>(Self { directory, id, options, owned })
        });
        opened.await.map_err(|_| Error::Closed)?
    }

    async fn records(&self, after: u64) -> Result<Records, Error> {
        if let Some(wal) = &self.owned {
            return Ok(wal.records(after));
        }
        let (options, directory) = (self.options.clone(), self.directory.clone());
        let read = tokio::task::spawn_blocking(move || {
            let reading = tidelog_wal::read(Arc::clone(&options.file_system), &directory)?;
            Ok::<_, Error>(reading.records(after, &options.wal))
        });
        read.await.map_err(|_| Error::Closed)?
    }

    /// Removes segments, all of whose records are committed now.
    async fn let_go(self) -> Result<(), Error> {
        let Some(mut wal) = self.owned else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || {
            wal.rotate()?;
            wal.release(wal.next_seq() - 1)
        });
        done.await.map_err(|_| Error::Closed)?.map(|_| ()).map_err(Error::from)
    }
}

struct Recover<'a> {
    engine: &'a Engine,
    options: &'a RecoverOptions,
    wal: WalId,
}

impl Recover<'_> {
    /// The claim stands and its owner is dead: the rows keep their numbers.
    async fn of_dead_owner(&self, log: OpenLog, snapshot: &Snapshot) -> Result<WalRecovery, Error> {
        let mut tally = Tally::default();
        let records = log.records(snapshot.covered(self.wal)).await?;
        let mut chunks = Chunks::new(self.engine, records);
        while let Some(chunk) = chunks.next().await? {
            tally.records += chunk.records;
            let pieces = chunk.pieces.iter();
            pieces.for_each(|piece| tally.add(piece, &piece.path, Some(piece.version)));
        }
        let report = tally.report(&log.directory, self.wal, self.options.dry_run);
        // Whoever ends the claim needs the lock.
        drop(log);
        if !self.options.dry_run && !self.engine.free().await? {
            let epoch = snapshot.epoch().map(ToString::to_string).unwrap_or_default();
            return Err(Error::Claimed { epoch });
        }
        Ok(report)
    }

    /// Tells what would be brought in; an error if something cannot be.
    async fn survey(&self, log: &OpenLog, snapshot: &Snapshot) -> Result<Tally, Error> {
        let (mut tally, mut conflicts) = (Tally::default(), BTreeSet::new());
        let records = log.records(snapshot.covered(self.wal)).await?;
        let mut chunks = Chunks::new(self.engine, records);
        while let Some(chunk) = chunks.next().await? {
            let settled = self.settle(&chunk, snapshot, &chunks.made).await?;
            tally.records += chunk.records;
            for (path, arrival) in settled.arrivals {
                arrival.pieces.iter().for_each(|piece| tally.add(piece, &path, None));
            }
            settled.known.iter().for_each(|(piece, path, at)| tally.add_known(piece, path, *at));
            conflicts.extend(settled.conflicts);
        }
        self.refuse(conflicts)?;
        Ok(tally)
    }

    fn refuse(&self, conflicts: BTreeSet<String>) -> Result<(), Error> {
        if conflicts.is_empty() {
            return Ok(());
        }
        let conflicts = Vec::from_iter(conflicts).join("; ");
        Err(Error::NoPlace { wal: self.wal.to_string(), conflicts })
    }

    async fn commit_all(&self, log: &OpenLog) -> Result<Tally, Error> {
        let covered = self.engine.log().refresh().await?.covered(self.wal);
        let mut tally = Tally::default();
        let mut chunks = Chunks::new(self.engine, log.records(covered).await?);
        while let Some(chunk) = chunks.next().await? {
            tally.records += chunk.records;
            self.commit(&chunk, &chunks.made, &mut tally).await?;
        }
        Ok(tally)
    }

    /// Commits one chunk, unless somebody else has.
    async fn commit(
        &self,
        chunk: &Chunk,
        made: &HashMap<NodeId, Made>,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let snapshot = self.engine.log().refresh().await?;
            let after = snapshot.covered(self.wal);
            let settled = self.settle(chunk, &snapshot, made).await?;
            self.refuse(settled.conflicts)?;
            let mut appends = Vec::with_capacity(settled.arrivals.len());
            for (path, arrival) in &settled.arrivals {
                appends.push(self.prepared(path, arrival).await?);
            }
            let recovery = Recovery { wal: self.wal, after, through: chunk.last_seq, appends };
            match self.engine.submit(Work::Recover(Box::new(recovery))).await {
                Ok(landed) => {
                    let pieces = settled.arrivals.iter().flat_map(|(path, arrival)| {
                        arrival.pieces.iter().map(move |piece| (path, piece))
                    });
                    for ((path, piece), (version, _)) in pieces.zip(landed.versions) {
                        tally.add(piece, path, Some(version));
                    }
                    let known = &settled.known;
                    known.iter().for_each(|(piece, path, at)| tally.add_known(piece, path, *at));
                    return Ok(());
                }
                Err(Rejected::Stale) => {}
                Err(Rejected::Failed(error)) => return Err(error),
            }
        }
        Err(Error::Contention { path: TreePath::root(), attempts: ATTEMPTS })
    }

    /// Says where each piece goes now.
    async fn settle(
        &self,
        chunk: &Chunk,
        snapshot: &Snapshot,
        made: &HashMap<NodeId, Made>,
    ) -> Result<Settled, Error> {
        let destinations =
            Destinations { snapshot, made, to: &self.options.to, env: self.engine.env() };
        let mut settled =
            Settled { arrivals: BTreeMap::new(), known: Vec::new(), conflicts: BTreeSet::new() };
        for piece in &chunk.pieces {
            let (path, destination) = match destinations.of(piece.node, &piece.path) {
                Ok(found) => found,
                Err(conflict) => {
                    settled.conflicts.insert(conflict);
                    continue;
                }
            };
            if let Some(version) = self.known(snapshot, &destination, piece).await? {
                settled.known.push((piece.clone(), path, version));
                continue;
            }
            let schema = &destination.schema;
            match crate::conform::conform(&path, schema, &piece.batch) {
                Ok(batch) => {
                    let piece = Piece { batch, ..piece.clone() };
                    let empty = || Arrival { destination, pieces: Vec::new() };
                    settled.arrivals.entry(path).or_insert_with(empty).pieces.push(piece);
                }
                Err(error) => {
                    settled.conflicts.insert(error.to_string());
                }
            }
        }
        Ok(settled)
    }

    /// The number under which a version is there already.
    async fn known(
        &self,
        snapshot: &Snapshot,
        destination: &Destination,
        piece: &Piece,
    ) -> Result<Option<Version>, Error> {
        let node = destination.target.node;
        if snapshot.tree().node(node).is_none() {
            return Ok(None);
        }
        let series = self.engine.log().series(snapshot, node).await?;
        Ok(series.find_transaction(piece.transaction).map(|row| row.version))
    }

    /// Rows as files that are on their way.
    async fn prepared(&self, path: &TreePath, arrival: &Arrival) -> Result<SeriesAppend, Error> {
        let schema = arrival.destination.schema.clone();
        let target = arrival.destination.target.clone();
        let batches: Vec<_> = arrival.pieces.iter().map(|piece| piece.batch.clone()).collect();
        let ids: Vec<_> = arrival.pieces.iter().map(|piece| piece.transaction).collect();
        let (at, time_column) = (path.clone(), schema.time_column().into());
        let made = tokio::task::spawn_blocking(move || {
            let prepared = prepare(&at, &schema, &batches)?;
            Ok::<_, Error>((encode(&at, &schema, &prepared)?, prepared.versions))
        });
        let (files, facts) = made.await.map_err(|_| Error::Closed)??;
        let puts_since = self.engine.log().snapshot().next_commit();
        let (files, puts) = self.engine.start_puts(path, target.node, files);
        let versions = facts.into_iter().zip(ids.iter().copied()).collect();
        let path = path.clone();
        Ok(SeriesAppend {
            path,
            target,
            time_column,
            versions,
            given_ids: ids,
            files,
            puts,
            puts_since,
        })
    }
}
