//! Files made warm on purpose.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_core::{AsOf, CommitVersion, FileId, PathPattern, TimeRange, TreePath};
use tidelog_oplog::FileRow;
use tidelog_warm::WarmError;

use super::ahead::is_worth_it;
use super::gather::{self, Failure};
use super::{WarmFile, WarmTier};
use crate::engine::Engine;
use crate::error::Error;
use crate::file_reader::FileReaders;
use crate::series_schema::SeriesSchema;

/// What was made warm, and what not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmFill {
    /// Files that were made warm.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes that their segments take.
    pub bytes: u64,
    /// Files that were warm before.
    pub already: u64,
    /// Files that are not warm, by series and reason.
    pub left_out: Vec<WarmLeftOut>,
}

/// Files of a series that were not made warm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmLeftOut {
    /// The series.
    pub path: TreePath,
    /// How many files.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Why, for people.
    pub reason: String,
}

const FULL: &str = "the tier is full of newer rows; allow it more memory (`warm_max_bytes`)";
const REPLACED: &str =
    "rows of it replace one another; files can be warm once compaction has told these apart";
const GONE: &str = "it was replaced meanwhile";

impl Engine {
    /// Makes files warm that hold rows of `range` in the series that match, the newest first, until the tier
    /// is full of what it has just taken. Hot rows are in memory anyway.
    ///
    /// Files are read whole, and checked. Dropped, it leaves what is warm by then.
    ///
    /// # Errors
    /// If the warm tier is off, nothing matches, a file is damaged, or the store fails. That a file does not fit
    /// is no error: it is left out.
    pub async fn fill_warm(
        &self,
        pattern: &PathPattern,
        range: TimeRange,
    ) -> Result<WarmFill, Error> {
        if !self.warm().is_on() {
            return Err(Error::NoWarmTier { reason: self.warm().why_off() });
        }
        let head = self.head().await?;
        let views = self.series_matching(&head, pattern, &AsOf::Head).await?;
        let wanted = views.iter().map(|view| Wanted {
            path: view.path().clone(),
            schema: view.schema().clone(),
            commit: view.commit(),
            files: view.files(range).cloned().collect(),
        });
        let mut filling = Filling::new(self.warm(), self.files());
        filling.take(wanted.collect()).await?;
        Ok(filling.finish())
    }
}

/// Files of a series that are to be warm.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) path: TreePath,
    pub(super) schema: SeriesSchema,
    /// The newest commit of the state that they were found in.
    pub(super) commit: CommitVersion,
    pub(super) files: Vec<Arc<FileRow>>,
}

/// Files on their way into the tier.
pub(super) struct Filling {
    tier: WarmTier,
    readers: FileReaders,
    fill: WarmFill,
    left_out: BTreeMap<(TreePath, String), (u64, u64)>,
    /// Files that were made warm, or were and are to stay so.
    kept: Vec<(FileId, u64)>,
    is_full: bool,
}

impl Filling {
    pub(super) fn new(tier: &WarmTier, readers: &FileReaders) -> Self {
        Self {
            tier: tier.clone(),
            readers: readers.clone(),
            fill: WarmFill::default(),
            left_out: BTreeMap::new(),
            kept: Vec::new(),
            is_full: false,
        }
    }

    /// Makes files of series warm, the newest of all first.
    pub(super) async fn take(&mut self, wanted: Vec<Wanted>) -> Result<(), Error> {
        let mut files: Vec<(&Arc<FileRow>, &Wanted)> = Vec::new();
        for series in &wanted {
            let standing = series.files.iter().filter(|file| file.until.is_none());
            files.extend(standing.map(|file| (file, series)));
        }
        files.sort_by_key(|(file, _)| Reverse((file.range.end(), file.range.start())));
        for (file, series) in files {
            if !self.tier.is_on() {
                return Err(Error::NoWarmTier { reason: self.tier.why_off() });
            }
            match self.take_file(file, series).await {
                Ok(()) => {}
                Err(Left::For(reason)) => self.leave_out(file, series, reason),
                Err(Left::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> WarmFill {
        let left = self.left_out.into_iter();
        let left =
            left.map(|((path, reason), (files, rows))| WarmLeftOut { path, files, rows, reason });
        self.fill.left_out = left.collect();
        self.fill
    }

    fn leave_out(&mut self, file: &FileRow, series: &Wanted, reason: String) {
        let (files, rows) = self.left_out.entry((series.path.clone(), reason)).or_default();
        *files += 1;
        *rows += file.rows;
    }

    async fn take_file(&mut self, file: &Arc<FileRow>, series: &Wanted) -> Result<(), Left> {
        if let Some(warm) = self.tier.find(file.file) {
            self.kept.push((file.file, warm.segment.stats().bytes));
            self.fill.already += 1;
            return Ok(());
        }
        if !is_worth_it(&series.schema, file) {
            return Err(Left::For(REPLACED.to_owned()));
        }
        if self.is_full {
            return Err(Left::For(FULL.to_owned()));
        }
        self.check_room(file, series).await?;
        let warm = self.seal(file, series).await?;
        let stats = warm.segment.stats();
        self.fill.files += 1;
        self.fill.rows += file.rows;
        self.fill.bytes += stats.bytes;
        self.kept.push((file.file, stats.bytes));
        // Others may have taken the memory, which has cost newer files than this.
        self.is_full = !self.kept.iter().all(|(file, _)| self.tier.find(*file).is_some());
        Ok(())
    }

    /// Whether the file fits beside all that is to stay.
    async fn check_room(&mut self, file: &FileRow, series: &Wanted) -> Result<(), Left> {
        let (tier, schema) = (self.tier.clone(), series.schema.clone());
        let (node, rows) = (file.node, file.rows);
        let size = tokio::task::spawn_blocking(move || tier.size(node, &schema, rows)).await;
        let (bytes, bytes_max) = size.map_err(|_| Left::Failed(Error::Closed))??;
        if bytes > bytes_max {
            return Err(Left::For(format!(
                "a segment of it takes about {bytes} bytes, and {bytes_max} are all there are; allow more \
                 (`warm_max_bytes`)"
            )));
        }
        let kept: u64 = self.kept.iter().map(|(_, bytes)| bytes).sum();
        self.is_full = kept.saturating_add(bytes) > bytes_max;
        if self.is_full { Err(Left::For(FULL.to_owned())) } else { Ok(()) }
    }

    async fn seal(&self, file: &Arc<FileRow>, series: &Wanted) -> Result<WarmFile, Left> {
        let (tier, schema) = (self.tier.clone(), series.schema.clone());
        let reader = self.readers.pinned_to(series.commit).reader(Arc::clone(file));
        let gathered = gather::of_file(&tier, &schema, reader, file).await;
        let gathered = gathered.map_err(|failure| match failure {
            Failure::Read(Error::FileExpired { .. }) => Left::For(GONE.to_owned()),
            Failure::Read(error) => Left::Failed(error),
            Failure::Warm(error) => {
                tier.note_fallback(error.reason());
                error.into()
            }
        })?;
        let (id, node) = (file.file, file.node);
        let sealing =
            tokio::task::spawn_blocking(move || tier.seal(id, &schema, node, &gathered.rows));
        Ok(sealing.await.map_err(|_| Left::Failed(Error::Closed))??)
    }
}

/// Why a file was not made warm.
enum Left {
    /// This is no error.
    For(String),
    Failed(Error),
}

impl From<WarmError> for Left {
    fn from(error: WarmError) -> Self {
        Self::For(error.to_string())
    }
}
