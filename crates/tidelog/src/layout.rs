//! How the rows of a series lie in files.

use std::sync::Arc;

use tidelog_core::{AsOf, TimeRange, TreePath, Version};
use tidelog_oplog::{Codec, FileOrder, FileRow, Layout};
use tidelog_store::{Error as StoreError, Merge};

use crate::error::Result;
use crate::store::Store;

/// The files of a series, over event time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeriesLayout {
    /// The series.
    pub path: TreePath,
    /// Its newest version; `v0` before the first.
    pub version: Version,
    /// The event times of its rows.
    pub range: Option<TimeRange>,
    /// How its files are to be laid out.
    pub layout: Layout,
    /// Its files, and what of it is in memory, in the order of their event times.
    pub files: Vec<LayoutFile>,
    /// How many of them overlap in event time, where most do: so many a read in order has open at once.
    pub depth: usize,
    /// What [`Store::compact`] would merge.
    pub next: Vec<Merge>,
}

/// A file of a series.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LayoutFile {
    /// The object, relative to the store's root; `None` for a piece in memory.
    pub object: Option<String>,
    /// The event times of its rows.
    pub range: TimeRange,
    /// The lowest version that has rows in it.
    pub first_version: Version,
    /// The highest version that has rows in it.
    pub last_version: Version,
    /// Its rows.
    pub rows: u64,
    /// Its bytes; of a piece in memory, what it takes there.
    pub bytes: u64,
    /// Its row groups.
    pub row_groups: u32,
    /// The order of its rows.
    pub order: FileOrder,
    /// The time partition that it lies in.
    pub partition: Option<String>,
    /// How it was asked to be compressed; `None` for a piece in memory.
    pub codec: Option<Codec>,
    /// Whether its rows have been replaced or deleted since, so that only reads of the past open it.
    pub superseded: bool,
    /// Whether no two of its rows share key and event time.
    pub unique: bool,
    /// A lane in which it lies beside no other: from 0, below [`SeriesLayout::depth`].
    pub lane: usize,
}

impl LayoutFile {
    fn new(row: &FileRow, object: Option<String>, bytes: u64) -> Self {
        Self {
            range: row.range,
            first_version: row.min_version,
            last_version: row.max_version,
            rows: row.rows,
            bytes,
            row_groups: row.row_groups,
            order: row.order,
            partition: row.partition.as_deref().map(str::to_owned),
            codec: object.is_some().then_some(row.codec),
            superseded: row.until.is_some(),
            unique: row.unique,
            lane: 0,
            object,
        }
    }
}

impl SeriesLayout {
    /// How many bytes its files have, what is in memory left out.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let files = self.files.iter().filter(|file| file.object.is_some());
        files.map(|file| file.bytes).sum()
    }
}

impl Store {
    /// How the rows of the series at `path` lie in files and in memory.
    ///
    /// # Errors
    /// If there is no such series or the log cannot be read.
    pub async fn layout(&self, path: &str) -> Result<SeriesLayout> {
        let path = TreePath::parse(path)?;
        let view = match self.engine().series(&path, &AsOf::Head).await {
            Ok(view) => view,
            Err(StoreError::NoSchema { path }) => {
                let layout = self.describe(path.as_str()).await?.options.layout();
                let (version, files, next) = (Version::NONE, Vec::new(), Vec::new());
                let (range, depth) = (None, 0);
                return Ok(SeriesLayout { path, version, range, layout, files, depth, next });
            }
            Err(error) => return Err(error.into()),
        };
        let in_files = view.series().files().map(|row: &Arc<FileRow>| {
            LayoutFile::new(row, Some(row.location.to_string()), row.size)
        });
        let in_memory = view.hot_files(TimeRange::ALL);
        let in_memory =
            in_memory.map(|piece| LayoutFile::new(piece.row(), None, piece.bytes() as u64));
        let mut files: Vec<LayoutFile> = in_files.chain(in_memory).collect();
        files.sort_by_key(|file| (file.range.start(), file.range.end(), file.first_version));
        let depth = lay_out(&mut files);
        let range = files.iter().map(|file| file.range).reduce(|a, b| a.union(&b));
        let (version, layout) = (view.version(), view.schema().layout());
        let next = self.engine().next_merges(view.series().node()).await?;
        Ok(SeriesLayout { path, version, range, layout, files, depth, next })
    }
}

/// Gives each file, in order of their starts, the first lane that is free; returns how many there are.
///
/// A lane is opened only where all others are taken, so there are as many as files overlap somewhere.
fn lay_out(files: &mut [LayoutFile]) -> usize {
    let mut free = std::collections::BTreeSet::new();
    let mut taken = std::collections::BTreeSet::new();
    let mut lanes = 0;
    for file in files {
        while let Some((end, lane)) = taken.first().copied()
            && end < file.range.start()
        {
            taken.pop_first();
            free.insert(lane);
        }
        file.lane = free.pop_first().unwrap_or_else(|| {
            lanes += 1;
            lanes - 1
        });
        taken.insert((file.range.end(), file.lane));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(start: i64, end: i64) -> LayoutFile {
        LayoutFile {
            object: None,
            range: TimeRange::try_new(start, end).unwrap(),
            first_version: Version::FIRST,
            last_version: Version::FIRST,
            rows: 1,
            bytes: 1,
            row_groups: 1,
            order: FileOrder::Time,
            partition: None,
            codec: None,
            superseded: false,
            unique: true,
            lane: 0,
        }
    }

    #[test]
    fn files_of_a_lane_never_overlap_and_lanes_are_as_few_as_can_be() {
        let spans = [(0, 10), (0, 3), (3, 4), (4, 9), (5, 5), (11, 12), (11, 20), (13, 14)];
        let mut files: Vec<LayoutFile> = spans.iter().map(|(a, b)| file(*a, *b)).collect();
        let depth = lay_out(&mut files);
        for (i, a) in files.iter().enumerate() {
            for b in &files[i + 1..] {
                assert!(a.lane != b.lane || !a.range.overlaps(&b.range), "{a:?} {b:?}");
            }
        }
        let deepest = (0..=20).map(|at| {
            files
                .iter()
                .filter(|file| {
                    (file.range.start().nanos()..=file.range.end().nanos()).contains(&at)
                })
                .count()
        });
        assert_eq!(Some(depth), deepest.max());
        assert_eq!(lay_out(&mut []), 0);
    }
}
