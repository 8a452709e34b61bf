//! One contestant of the append workload: what it appends to, how far it goes, and how long each append took.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use arrow::array::RecordBatch;

use super::baseline::{FileSizes, ThreeFiles};
use super::{SERIES, TIDELOG, Windows};
use crate::generate::sensors;
use crate::peer::Peer;
use crate::tidelog_side::Tidelog;

#[derive(Debug)]
pub(super) struct Lane {
    side: Side,
    pub(super) versions: usize,
    times_ms: Vec<f64>,
}

#[derive(Debug)]
enum Side {
    Tidelog(Box<TidelogLane>),
    Peer(Peer),
}

impl Lane {
    pub(super) fn tidelog(lane: TidelogLane, versions: usize) -> Self {
        Self { side: Side::Tidelog(Box::new(lane)), versions, times_ms: Vec::new() }
    }

    pub(super) fn peer(peer: Peer, versions: usize) -> Self {
        Self { side: Side::Peer(peer), versions, times_ms: Vec::new() }
    }

    pub(super) fn name(&self) -> &'static str {
        match &self.side {
            Side::Tidelog(_) => TIDELOG,
            Side::Peer(peer) => peer.name(),
        }
    }

    pub(super) fn as_tidelog(&self) -> Option<&TidelogLane> {
        match &self.side {
            Side::Tidelog(lane) => Some(lane),
            Side::Peer(_) => None,
        }
    }

    pub(super) fn times(&self, window: &Range<usize>) -> &[f64] {
        self.times_ms.get(window.clone()).unwrap_or_default()
    }

    /// Appends up to `count` versions from `first` on, fewer at this lane's end.
    pub(super) async fn append(
        &mut self,
        batches: &[RecordBatch],
        first: usize,
        count: usize,
    ) -> Result<()> {
        let last = (first + count).min(self.versions).min(batches.len());
        if first >= last {
            return Ok(());
        }
        let times = match &mut self.side {
            Side::Tidelog(lane) => lane.append(&batches[first..last], first).await?,
            Side::Peer(peer) => peer.append(first, last - first)?,
        };
        self.times_ms.extend(times);
        Ok(())
    }
}

/// Tidelog, with the bare file operations timed right after each append of a window.
#[derive(Debug)]
pub(super) struct TidelogLane {
    tidelog: Tidelog,
    store: PathBuf,
    bare_folder: PathBuf,
    windows: Windows,
    bare: Option<ThreeFiles>,
    pub(super) sizes: Option<FileSizes>,
    pub(super) bare_early_ms: Vec<f64>,
    pub(super) bare_late_ms: Vec<f64>,
}

impl TidelogLane {
    pub(super) async fn open(folder: &Path, windows: Windows) -> Result<Self> {
        let store = folder.join(TIDELOG);
        let tidelog = Tidelog::open_or_create(&store).await?;
        Ok(Self {
            tidelog,
            store,
            bare_folder: folder.join("three-files"),
            windows,
            bare: None,
            sizes: None,
            bare_early_ms: Vec::new(),
            bare_late_ms: Vec::new(),
        })
    }

    async fn append(&mut self, batches: &[RecordBatch], first: usize) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(batches.len());
        for (version, batch) in (first..).zip(batches) {
            let started = Instant::now();
            self.tidelog.append(SERIES, batch, sensors::TIME_COLUMN).await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            if self.windows.contains(version) {
                self.write_bare(version)?;
            }
        }
        Ok(times)
    }

    fn write_bare(&mut self, version: usize) -> Result<()> {
        let starts = [self.windows.early.start, self.windows.late.start];
        if self.bare.is_none() || starts.contains(&version) {
            let sizes = FileSizes::of_newest(&self.store)?;
            self.bare = Some(ThreeFiles::new(&self.bare_folder.join(version.to_string()), sizes)?);
            self.sizes = Some(sizes);
        }
        let Some(bare) = &mut self.bare else { return Ok(()) };
        let ms = bare.write_and_sync()?;
        if self.windows.early.contains(&version) {
            self.bare_early_ms.push(ms);
        }
        if self.windows.late.contains(&version) {
            self.bare_late_ms.push(ms);
        }
        Ok(())
    }
}
