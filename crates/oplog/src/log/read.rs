//! What the log says of series, read when somebody asks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tidelog_core::NodeId;

use super::Log;
use crate::LOG_DIRECTORY;
use crate::decode::{self, Wanted};
use crate::error::Error;
use crate::part::Part;
use crate::row::{FileOp, FileRow, Row};
use crate::series::SeriesState;
use crate::state::Snapshot;

/// Parts that a reader of the whole log holds decoded.
const BATCH_PARTS_AHEAD: usize = 4;
/// Series whose rows are read together: their rows fill some row groups of each part.
const SERIES_TOGETHER: usize = 4096;

impl Log {
    /// Version and file rows of the series `node` in `snapshot`, read if nobody has asked before.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn series(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<Arc<SeriesState>, Error> {
        if let Some(series) = snapshot.loaded_series(node) {
            return Ok(series);
        }
        let read = self.read_series(snapshot, &[node]).await?;
        Ok(read.into_iter().next().unwrap_or_else(|| Arc::new(SeriesState::new(node))))
    }

    /// All that the log knows of these series, in their order. What is not in memory is read together, so
    /// that rows which lie side by side are read once.
    ///
    /// # Errors
    /// As [`Log::series`].
    pub async fn series_of(
        &self,
        snapshot: &Snapshot,
        nodes: &[NodeId],
    ) -> Result<Vec<Arc<SeriesState>>, Error> {
        let loaded = |node: &NodeId| Some((*node, snapshot.loaded_series(*node)?));
        let mut known: HashMap<NodeId, Arc<SeriesState>> =
            nodes.iter().filter_map(loaded).collect();
        let missing: BTreeSet<NodeId> =
            nodes.iter().filter(|node| !known.contains_key(node)).copied().collect();
        let missing: Vec<NodeId> = missing.into_iter().collect();
        for together in missing.chunks(SERIES_TOGETHER) {
            let read = self.read_series(snapshot, together).await?;
            known.extend(read.into_iter().map(|series| (series.node(), series)));
        }
        let of = |node: &NodeId| {
            known.get(node).cloned().unwrap_or_else(|| Arc::new(SeriesState::new(*node)))
        };
        Ok(nodes.iter().map(of).collect())
    }

    /// Reads series from the log, and keeps them in memory for who asks next.
    async fn read_series(
        &self,
        snapshot: &Snapshot,
        nodes: &[NodeId],
    ) -> Result<Vec<Arc<SeriesState>>, Error> {
        let parts = snapshot.parts_of(nodes);
        let rows = match self.inner.objects.rows_of(&parts, &Wanted::new(nodes)).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain_loss(error, &parts).await),
        };
        let mut rows_of: HashMap<NodeId, Vec<Row>> = HashMap::with_capacity(nodes.len());
        for row in rows {
            if let Some(node) = row.node() {
                rows_of.entry(node).or_default().push(row);
            }
        }
        let state = |node: &NodeId| {
            let rows = rows_of.remove(node).unwrap_or_default();
            SeriesState::from_rows(*node, rows).map(Arc::new)
        };
        let series = nodes.iter().map(state).collect::<Result<Vec<_>, _>>()?;
        for series in &series {
            snapshot.offer_series(Arc::clone(series));
        }
        self.trim(snapshot);
        Ok(series)
    }

    /// Every row in `snapshot` about files of the series `node`, also those that say of files which are no
    /// part of it any more. They are read from the log each time.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn file_rows(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<Vec<FileRow>, Error> {
        let parts = snapshot.parts_ever_of(node);
        let rows = match self.inner.objects.rows_of(&parts, &Wanted::new(&[node])).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain_loss(error, &parts).await),
        };
        let file = |row| if let Row::File(row) = row { Some(row) } else { None };
        Ok(rows.into_iter().filter_map(file).collect())
    }

    /// The bytes of all files that were ever added to these series, those of files that have gone included.
    /// It reads the whole log.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn file_bytes_written(
        &self,
        snapshot: &Snapshot,
        nodes: &HashSet<NodeId>,
    ) -> Result<u64, Error> {
        let parts: Vec<Arc<Part>> = snapshot.parts().cloned().collect();
        let mut batches = std::pin::pin!(self.batches(snapshot, None));
        let mut bytes = 0;
        loop {
            let batch = match batches.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(bytes),
                Err(error) => return Err(self.explain_loss(error, &parts).await),
            };
            for row in decode::rows_in(LOG_DIRECTORY, vec![batch])? {
                if let Row::File(row) = row
                    && row.op == FileOp::Add
                    && !row.is_of_older_object()
                    && nodes.contains(&row.node)
                {
                    bytes += row.size;
                }
            }
        }
    }

    /// A part that cannot be read may have been let go, after a merge, since the snapshot was taken.
    pub(crate) async fn explain_loss(&self, error: Error, parts: &[Arc<Part>]) -> Error {
        let Error::DamagedPart { object, .. } = &error else { return error };
        let object = object.clone();
        let Ok(newest) = self.refresh().await else { return error };
        let lost = parts.iter().find(|part| object.ends_with(&part.object));
        match lost {
            Some(part) if !newest.parts().any(|live| live.object == part.object) => {
                Error::SnapshotExpired { object }
            }
            _ => error,
        }
    }

    /// All rows of the log in `snapshot` as batches of its schema, read as they are taken. Those of
    /// one commit stand together until upkeep merges them. With a `path`, parts that name no such
    /// path are skipped.
    pub fn batches(
        &self,
        snapshot: &Snapshot,
        path: Option<&str>,
    ) -> impl Stream<Item = Result<RecordBatch, Error>> + Send + use<> {
        let wanted = |part: &&Arc<Part>| path.is_none_or(|path| part.may_name(path));
        let parts: Vec<Arc<Part>> = snapshot.parts().filter(wanted).cloned().collect();
        let objects = self.inner.objects.clone();
        stream::iter(parts)
            .map(move |part| {
                let objects = objects.clone();
                async move {
                    let (path, bytes) = objects.part(&part).await?;
                    decode::batches(path.as_ref(), bytes)
                }
            })
            .buffered(BATCH_PARTS_AHEAD)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
    }
}
