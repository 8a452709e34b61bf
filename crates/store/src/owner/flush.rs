//! From memory to files: what is sealed becomes sorted files of each series and one commit.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tidelog_core::{FileId, NodeId, Version, WalId};
use tidelog_oplog::{FileRow, VersionRow};
use tidelog_storage::object_store::ObjectStoreExt;
use tidelog_storage::object_store::path::Path;
use uuid::Uuid;

use super::sequencer::Message;
use super::shared::Shared;
use crate::commit::{Flush, Rejected, Work, Writer, fenced};
use crate::encode::encode;
use crate::engine::Ground;
use crate::error::Error;
use crate::file_reader::Footer;
use crate::hot::{Generation, HotFile, HotSeries};
use crate::prepare::PreparedRows;

/// Series that are encoded and put at once.
const SERIES_AT_ONCE: usize = 8;
const TICK: Duration = Duration::from_secs(1);
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
        if self.is_covered(generation).await? {
            return Ok(());
        }
        let series: Vec<(NodeId, HotSeries)> =
            generation.series.iter().map(|(node, series)| (*node, series.clone())).collect();
        let files: Vec<Vec<FileRow>> = stream::iter(series)
            .map(|(node, series)| self.write_series(node, series))
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
        };
        // Whether one that failed has landed is seen at the next try.
        let landed = self.writer.submit(Work::Flush(Box::new(flush))).await;
        landed.map(|_| ()).map_err(Rejected::into_error)
    }

    /// Whether an earlier try has landed, though that was not known.
    async fn is_covered(&self, generation: &Generation) -> Result<bool, Error> {
        let snapshot = self.ground.log.refresh().await?;
        Ok(snapshot.covered(self.wal) >= generation.last_seq)
    }

    async fn write_series(&self, node: NodeId, series: HotSeries) -> Result<Vec<FileRow>, Error> {
        let encoded = tokio::task::spawn_blocking(move || {
            let schema = Arc::clone(series.schema());
            let joined = match series.files() {
                [only] => Arc::clone(only),
                pieces => Arc::new(HotFile::joined(&schema, pieces)?),
            };
            let path = joined.row().path.clone();
            let batch = joined.batch().clone();
            let times = schema.times(&path, &batch)?;
            let unique = joined.row().unique;
            let rows = PreparedRows { batch, times, versions: Vec::new(), unique };
            let files = encode(&path, &schema, &rows)?;
            Ok::<_, Error>((path, joined.row().version_base, files))
        });
        let (path, base, files) = encoded.await.map_err(|_| Error::Closed)??;
        let mut rows = Vec::with_capacity(files.len());
        for file in files {
            let id = FileId::random(self.ground.env.randomness.as_ref());
            let mut row = file.row(id, &path, node);
            row.min_version = Version::new(row.min_version.number() + base);
            row.max_version = Version::new(row.max_version.number() + base);
            row.version_base = base;
            let footer = Footer { metadata: file.metadata, pages: file.pages, whole: None };
            let location = Path::from(row.location.as_ref());
            let put = self.ground.store.put(&location, file.bytes.into()).await;
            put.map_err(|error| Error::store("writing", &row.location, error))?;
            self.ground.files.remember(row.file, footer);
            rows.push(row);
        }
        Ok(rows)
    }
}
