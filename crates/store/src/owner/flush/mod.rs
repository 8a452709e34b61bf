//! From memory to files: what is sealed becomes sorted files of each series and one commit.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::stream::{self, StreamExt, TryStreamExt};
use tidelog_core::memory::Account;
use tidelog_core::{EventTime, FileId, Holder, MemoryBudget, NodeId, TimeRange, Version, WalId};
use tidelog_oplog::{FileRow, SeriesState, VersionRow};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::sequencer::Message;
use super::shared::Shared;
use crate::commit::{Flush, Rejected, Work, Writer, fenced};
use crate::compact::is_too_deep;
use crate::encode::{EncodedFile, Expected, border, encode_parts};
use crate::engine::Ground;
use crate::error::Error;
use crate::hot::{Generation, HotSeries, InOrder};
use crate::right_of_way::Courtesy;
use crate::warm::Ahead;

/// Series that are encoded and put at once, if there is the memory.
const SERIES_AT_ONCE: usize = 8;
/// Rows that are brought into the order of a file at once.
const PART_ROWS_MIN: usize = 1024;
const PART_ROWS_MAX: usize = 131_072;
/// How often files are written in one go that a vacuum deletes before they are committed.
const WRITES_MAX: u32 = 16;
const TICK: Duration = Duration::from_secs(1);
/// For so long at most a flush waits for merges where too many files lie over one another: appends had
/// better be slower than reads.
const WAIT_FOR_MERGES_MAX: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a flush needs of its owner.
#[derive(Debug, Clone)]
pub(crate) struct Flusher {
    pub(crate) ground: Ground,
    pub(crate) writer: Writer,
    pub(crate) epoch: Uuid,
    pub(crate) wal: WalId,
}

impl Flusher {
    /// Flushes what is sealed, until the owner has gone.
    pub(crate) async fn run(self, shared: Arc<Shared>, sequencer: mpsc::Sender<Message>) {
        let mut retry = RETRY_FIRST;
        loop {
            // Either is a reason to look; the clock also notices others' commits.
            let _ = tokio::time::timeout(TICK, shared.sealed.notified()).await;
            shared.seal_aged();
            let Some(generation) = shared.to_flush() else {
                if let Err(error) = self.tail().await {
                    self.note(&shared, &error);
                }
                continue;
            };
            self.wait_for_merges(&generation).await;
            match self.flush(&generation).await {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    shared.flushed(&generation);
                    // The thread has ended only if nobody writes any more.
                    let _ = sequencer.send(Message::Release(generation.last_seq));
                }
                Err(error @ Error::Fenced { .. }) => return shared.fail(&error),
                Err(error) => {
                    tracing::warn!(%error, "writing hot rows to files failed; it is tried again");
                    self.note(&shared, &error);
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                    shared.sealed.notify_one();
                }
            }
        }
    }

    /// Waits where a series would get files faster than they are merged, and reads had to open them all.
    async fn wait_for_merges(&self, generation: &Generation) {
        let snapshot = || self.ground.log.snapshot();
        let is_deep = |node| {
            generation.series.contains_key(&node)
                && snapshot().loaded_series(node).is_some_and(|series| is_too_deep(&series))
        };
        self.writer.touched().shallow(is_deep, WAIT_FOR_MERGES_MAX).await;
    }

    fn note(&self, shared: &Shared, error: &Error) {
        match error {
            Error::Fenced { .. } => shared.fail(error),
            _ => shared.flush_failed(error),
        }
    }

    /// Reads what others have committed: upkeep, or that the store was taken over.
    pub(crate) async fn tail(&self) -> Result<(), Error> {
        let snapshot = self.ground.log.refresh().await?;
        match snapshot.epoch() {
            Some(epoch) if epoch.id == self.epoch => Ok(()),
            _ => Err(fenced(&snapshot, self.wal)),
        }
    }

    /// Writes the rows of a generation to files and commits them with their versions.
    pub(crate) async fn flush(&self, generation: &Generation) -> Result<(), Error> {
        self.write(generation, self.ground.warm.takes_flushed()).await
    }

    /// The same of rows that somebody else has left. None of them is warm: a log ahead may be longer than all
    /// that is kept in memory otherwise, and nothing is warm after any other start.
    pub(crate) async fn bring_in(&self, generation: &Generation) -> Result<(), Error> {
        self.write(generation, false).await
    }

    async fn write(&self, generation: &Generation, to_be_warm: bool) -> Result<(), Error> {
        for _ in 1..WRITES_MAX {
            match self.try_write(generation, to_be_warm).await {
                Err(Error::FilesDeleted) => {}
                outcome => return outcome,
            }
        }
        self.try_write(generation, to_be_warm).await
    }

    async fn try_write(&self, generation: &Generation, to_be_warm: bool) -> Result<(), Error> {
        if self.is_covered(generation).await? {
            return Ok(());
        }
        let puts_since = self.ground.log.snapshot().next_commit();
        let series: Vec<(NodeId, HotSeries)> =
            generation.series.iter().map(|(node, series)| (*node, series.clone())).collect();
        let room = Room::new(&self.ground.memory);
        let warm = to_be_warm.then(|| self.ground.warm.ahead());
        let files: Vec<Vec<FileRow>> = stream::iter(series)
            .map(|(node, series)| self.write_series(node, series, &room, warm.as_ref()))
            .buffer_unordered(SERIES_AT_ONCE)
            .try_collect()
            .await?;
        let mut versions: Vec<Arc<VersionRow>> = generation
            .series
            .values()
            .flat_map(|series| series.versions().iter().cloned())
            .collect();
        versions.sort_by_key(|row| row.timestamp);
        let flush = Flush {
            epoch: self.epoch,
            wal: self.wal,
            through: generation.last_seq,
            tree: generation.tree.iter().cloned().collect(),
            versions,
            files: files.into_iter().flatten().collect(),
            puts_since,
        };
        // Whether one that failed has landed is seen at the next try.
        match self.writer.submit(Work::Flush(Box::new(flush))).await {
            Ok(_) => {
                if let Some(warm) = warm {
                    warm.committed();
                }
                Ok(())
            }
            // An earlier try was under way and has landed.
            Err(Rejected::Stale) => Ok(()),
            Err(Rejected::Failed(error)) => Err(error),
        }
    }

    /// Whether an earlier try has landed, though that was not known.
    async fn is_covered(&self, generation: &Generation) -> Result<bool, Error> {
        let snapshot = self.ground.log.refresh().await?;
        Ok(snapshot.covered(self.wal) >= generation.last_seq)
    }

    async fn write_series(
        &self,
        node: NodeId,
        series: HotSeries,
        room: &Room,
        warm: Option<&Ahead>,
    ) -> Result<Vec<FileRow>, Error> {
        let Some(first) = series.files().first().map(|file| Arc::clone(file.row())) else {
            return Ok(Vec::new());
        };
        let (path, base) = (first.path.clone(), first.version_base);
        let part_bytes = room.part_bytes;
        let bytes = series.files().iter().map(|file| file.bytes() as u64).sum();
        let mut place = room.take(bytes, warm.is_some()).await?;
        let (schema, is_kept) = (Arc::clone(series.schema()), warm.is_some());
        let state = self.ground.log.snapshot().loaded_series(node);
        let courtesy = self.ground.way.courtesy();
        let encode =
            move || encode_series(&series, state.as_deref(), part_bytes, is_kept, courtesy);
        let encoded = tokio::task::spawn_blocking(encode).await.map_err(|_| Error::Closed)??;
        let mut files = Vec::with_capacity(encoded.files.len());
        for file in encoded.files {
            let id = FileId::random(self.ground.env.randomness.as_ref());
            let mut row = file.row(id, &path, node);
            row.min_version = Version::new(row.min_version.number() + base);
            row.max_version = Version::new(row.max_version.number() + base);
            row.version_base = base;
            files.push((row, file));
        }
        if let Some(warm) = warm {
            let rows = files.iter().map(|(row, _)| row.clone()).zip(encoded.rows).collect();
            warm.seal_encoded(&schema, rows).await;
        }
        place.memory.set(files.iter().map(|(_, file)| file.bytes.len() as u64).sum());
        let mut rows = Vec::with_capacity(files.len());
        for (row, file) in files {
            self.ground.put_file(&row, file).await?;
            rows.push(row);
        }
        Ok(rows)
    }
}

/// A series of a flush.
struct EncodedSeries {
    files: Vec<EncodedFile>,
    /// The rows that each file was made of, in its order, if they are kept.
    rows: Vec<Vec<RecordBatch>>,
}

/// The rows of a series as files, beside those that it has.
fn encode_series(
    series: &HotSeries,
    state: Option<&SeriesState>,
    part_bytes: u64,
    is_kept: bool,
    mut courtesy: Courtesy,
) -> Result<EncodedSeries, Error> {
    let (schema, pieces) = (series.schema(), series.files());
    let Some(first) = pieces.first() else {
        return Ok(EncodedSeries { files: Vec::new(), rows: Vec::new() });
    };
    let path = &first.row().path;
    let batches: Vec<RecordBatch> = pieces.iter().map(|piece| piece.batch().clone()).collect();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = pieces.iter().map(|piece| piece.bytes()).sum();
    let row_bytes = (bytes / rows.max(1)).max(1);
    let part_rows = usize::try_from(part_bytes).unwrap_or(usize::MAX) / row_bytes;
    let expected = Expected::of(&batches);
    let parts = InOrder::new(schema, pieces, part_rows.clamp(PART_ROWS_MIN, PART_ROWS_MAX))?;
    let mut kept = VecDeque::new();
    let parts = parts.inspect(|part| {
        courtesy.give_way();
        if let (true, Ok(part)) = (is_kept, part) {
            kept.push_back(part.batch.clone());
        }
    });
    let files = encode_parts(path, schema, &expected, late_border(series, state)?, parts)?;
    let rows = files.iter().map(|file| taken(&mut kept, file.rows)).collect();
    Ok(EncodedSeries { files, rows })
}

/// The first so many rows of some batches, which are taken out of them.
fn taken(batches: &mut VecDeque<RecordBatch>, rows: u64) -> Vec<RecordBatch> {
    let mut left = usize::try_from(rows).unwrap_or(usize::MAX);
    let mut taken = Vec::new();
    while left > 0
        && let Some(batch) = batches.pop_front()
    {
        let inside = batch.num_rows().min(left);
        if inside < batch.num_rows() {
            batches.push_front(batch.slice(inside, batch.num_rows() - inside));
        }
        taken.push(batch.slice(0, inside));
        left -= inside;
    }
    taken
}

/// The event time before which the rows of a series are late: they lie over other files, and new rows,
/// which are denser, shall not.
fn late_border(series: &HotSeries, state: Option<&SeriesState>) -> Result<Option<i64>, Error> {
    let (schema, pieces) = (series.schema(), series.files());
    let times = pieces.iter().map(|piece| schema.times(&piece.row().path, piece.batch()));
    let border = border(&times.collect::<Result<Vec<_>, _>>()?);
    let late = border.and_then(|border| {
        let first = pieces.iter().map(|piece| piece.row().range.start()).min()?;
        TimeRange::try_new(first, EventTime::from_unit(border, schema.time_unit())?).ok()
    });
    let Some(late) = late else { return Ok(None) };
    // Where the log's rows of the series are not in memory, it is taken to have files there.
    let lies_over_others = state.is_none_or(|state| state.files_overlapping(late).next().is_some());
    Ok(border.filter(|_| lies_over_others))
}

/// The memory that the series of a flush share.
struct Room {
    budget: MemoryBudget,
    kib: Arc<Semaphore>,
    kib_max: u32,
    part_bytes: u64,
}

/// The memory of one series.
struct RoomTaken {
    _permits: OwnedSemaphorePermit,
    memory: Account,
}

impl Room {
    fn new(budget: &MemoryBudget) -> Self {
        let bytes = budget.share(Holder::Flush).ceiling;
        let kib_max = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
        let permits = (kib_max as usize).min(Semaphore::MAX_PERMITS);
        let kib = Arc::new(Semaphore::new(permits));
        Self { budget: budget.clone(), kib, kib_max, part_bytes: bytes / 16 }
    }

    /// Waits for the memory to write a series with so many bytes of rows: the files, which are smaller
    /// than the rows, and a few parts, or, beside the files, the rows once more, in their order, from which
    /// segments are made. A series that needs more than there is gets all of it.
    async fn take(&self, bytes: u64, is_sealed: bool) -> Result<RoomTaken, Error> {
        let parts = 3 * bytes.min(self.part_bytes);
        let needed = bytes / 2 + if is_sealed { parts.max(bytes) } else { parts };
        let kib = u32::try_from(needed / 1024 + 1).unwrap_or(u32::MAX).min(self.kib_max);
        let permits = Arc::clone(&self.kib).acquire_many_owned(kib).await;
        let permits = permits.map_err(|_| Error::Closed)?;
        let mut memory = self.budget.account(Holder::Flush);
        memory.set(u64::from(kib) * 1024);
        Ok(RoomTaken { _permits: permits, memory })
    }
}

#[cfg(test)]
mod tests;
