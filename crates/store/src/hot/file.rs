//! Sorted rows in memory, with the log row that a file of them would have.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use tidelog_core::{CommitVersion, EventTime, FileId, NodeId, TimeRange, TreePath, Version};
use tidelog_oplog::{Codec, ColumnStats, FileOp, FileOrder, FileRow, Hash128};

use crate::encode::column_stats;
use crate::error::Error;
use crate::prepare::{PreparedRows, sorted};
use crate::series_schema::SeriesSchema;

/// What a piece costs beyond its columns: the log row, the batch, places in lists.
const OVERHEAD_BYTES: usize = 1024;
/// How many times its own bytes a piece may keep in memory of what it was cut from.
const HELD_AT_MOST: usize = 3;

/// Rows of one or more versions of a series, in memory, in the order of a file.
#[derive(Debug)]
pub struct HotFile {
    row: Arc<FileRow>,
    batch: RecordBatch,
    bytes: usize,
    /// How often pieces have been joined to make it.
    level: u32,
}

impl HotFile {
    /// Prepared rows, whose versions are counted from 0 until they are [numbered](Self::numbered).
    pub(crate) fn new(
        path: &TreePath,
        node: NodeId,
        schema: &SeriesSchema,
        prepared: &PreparedRows,
    ) -> Result<Self, Error> {
        let last = i64::try_from(prepared.versions.len()).unwrap_or(i64::MAX) - 1;
        Self::of(path, node, schema, prepared, Version::new(0), (0, last), 0)
    }

    /// The same rows, with versions counted from `base`.
    pub(crate) fn numbered(mut self, base: Version) -> Self {
        let row = Arc::make_mut(&mut self.row);
        let by = base.number() - row.version_base;
        row.version_base += by;
        row.min_version = Version::new(row.min_version.number() + by);
        row.max_version = Version::new(row.max_version.number() + by);
        self
    }

    fn of(
        path: &TreePath,
        node: NodeId,
        schema: &SeriesSchema,
        prepared: &PreparedRows,
        base: Version,
        versions: (i64, i64),
        level: u32,
    ) -> Result<Self, Error> {
        let batch = compact(path, &prepared.batch)?;
        let user_columns = &batch.columns()[..batch.num_columns() - 1];
        let stats: Vec<ColumnStats> = user_columns.iter().map(column_stats).collect();
        let column_stats = ColumnStats::encode_all(&stats).into();
        let bytes = memory_of(&batch) + OVERHEAD_BYTES;
        let row = FileRow {
            op: FileOp::Add,
            // Nobody asks for it by this id: it is no file.
            file: FileId::from_uuid(node.as_uuid()),
            node,
            path: path.clone(),
            timestamp: tidelog_core::WriteTime::default(),
            location: "".into(),
            size: bytes as u64,
            rows: batch.num_rows() as u64,
            row_groups: 1,
            tail_length: 0,
            hash: Hash128::default(),
            tail_hash: Hash128::default(),
            page_hashes: bytes::Bytes::new(),
            range: range(path, schema, prepared)?,
            min_version: Version::new(base.number() + versions.0),
            max_version: Version::new(base.number() + versions.1),
            version_base: base.number(),
            partition: None,
            order: FileOrder::Time,
            until: None,
            unique: prepared.unique,
            column_stats,
            codec: Codec::Auto,
            row_group_rows: 0,
            runs: [].into(),
            commit: CommitVersion::default(),
        };
        Ok(Self { row: Arc::new(row), batch, bytes, level })
    }

    /// The log row that a file of these rows would have; there is nothing at its location.
    #[must_use]
    pub fn row(&self) -> &Arc<FileRow> {
        &self.row
    }

    /// The rows as a file would hold them: the series' columns and `__version`, relative to the
    /// row's `version_base`; in the order of event time, key, version and position.
    #[must_use]
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// What it takes of the memory budget.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) const fn level(&self) -> u32 {
        self.level
    }

    /// The rows of pieces of one series, which are given oldest first, that lie in `range`, as one piece; `None`
    /// if there are none, or more than `rows_max`.
    ///
    /// # Errors
    /// If the pieces are of several series.
    pub fn within(
        schema: &SeriesSchema,
        pieces: &[Arc<Self>],
        range: TimeRange,
        rows_max: usize,
    ) -> Result<Option<Self>, Error> {
        let Some(first) = pieces.first() else { return Ok(None) };
        let inside = pieces.iter().map(|piece| piece.rows_within(schema, range));
        let inside = inside.collect::<Result<Vec<_>, _>>()?;
        let rows: usize = inside.iter().map(Range::len).sum();
        if rows == 0 || rows > rows_max {
            return Ok(None);
        }
        let base = Version::new(first.row.version_base);
        let parts = pieces.iter().zip(inside).map(|(piece, rows)| {
            let base = piece.row.version_base - base.number();
            (piece.batch.slice(rows.start, rows.len()), base)
        });
        let path = &first.row.path;
        let prepared = sorted(path, schema, &parts.collect::<Vec<_>>())?;
        Self::of(path, first.row.node, schema, &prepared, base, versions(pieces, base), 0).map(Some)
    }

    /// The places of the rows whose event time lies in `range`.
    ///
    /// # Errors
    /// If the piece is of another series.
    pub fn rows_within(
        &self,
        schema: &SeriesSchema,
        range: TimeRange,
    ) -> Result<Range<usize>, Error> {
        let times = schema.times(&self.row.path, &self.batch)?;
        let unit = schema.time_unit();
        let (first, last) = (range.start().ceil_to(unit), range.end().floor_to(unit));
        let start = times.values().partition_point(|time| *time < first);
        let end = times.values().partition_point(|time| *time <= last);
        Ok(start..end.max(start))
    }

    /// Pieces of one series, oldest first, as one.
    pub(crate) fn joined(schema: &SeriesSchema, pieces: &[Arc<Self>]) -> Result<Self, Error> {
        let Some(first) = pieces.first() else { return Err(Error::Closed) };
        let (path, node) = (&first.row.path, first.row.node);
        let base = Version::new(first.row.version_base);
        let batches: Vec<(RecordBatch, i64)> = pieces
            .iter()
            .map(|piece| (piece.batch.clone(), piece.row.version_base - base.number()))
            .collect();
        let prepared = sorted(path, schema, &batches)?;
        let level = 1 + pieces.iter().map(|piece| piece.level).max().unwrap_or_default();
        Self::of(path, node, schema, &prepared, base, versions(pieces, base), level)
    }
}

/// The lowest and the highest version of pieces, counted from `base`.
fn versions(pieces: &[Arc<HotFile>], base: Version) -> (i64, i64) {
    let numbers = |of: fn(&FileRow) -> Version| {
        pieces.iter().map(move |piece| of(&piece.row).number() - base.number())
    };
    let least = numbers(|row| row.min_version).min().unwrap_or_default();
    (least, numbers(|row| row.max_version).max().unwrap_or_default())
}

/// Bytes of the rows of a batch themselves: it may be a small part of what it was cut from.
pub(crate) fn memory_of(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| {
        let data = column.to_data();
        data.get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
    };
    batch.columns().iter().map(of).sum()
}

/// The rows in buffers of their own, if they would keep much more than themselves in memory.
fn compact(path: &TreePath, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    if batch.get_array_memory_size() <= HELD_AT_MOST * (memory_of(batch) + OVERHEAD_BYTES) {
        return Ok(batch.clone());
    }
    let rows = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
    let all = UInt32Array::from_iter_values(0..rows);
    take_record_batch(batch, &all)
        .map_err(|error| Error::Encode { path: path.clone(), reason: error.to_string() })
}

fn range(
    path: &TreePath,
    schema: &SeriesSchema,
    prepared: &PreparedRows,
) -> Result<TimeRange, Error> {
    let times = prepared.times.values();
    let time = |value: Option<&i64>| {
        value.and_then(|value| EventTime::from_unit(*value, schema.time_unit())).ok_or_else(|| {
            let reason = "an event time is out of range".to_owned();
            Error::Encode { path: path.clone(), reason }
        })
    };
    TimeRange::try_new(time(times.first())?, time(times.last())?).map_err(Error::Time)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn a_small_part_of_a_large_batch_does_not_keep_it() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let large = RecordBatch::try_from_iter([("time", column)]).unwrap();
        let part = large.slice(500, 100);
        assert_eq!(memory_of(&part), 800);
        let path = TreePath::parse("/s").unwrap();
        let own = compact(&path, &part).unwrap();
        assert_eq!(own, part);
        assert!(own.get_array_memory_size() < 2_000, "{}", own.get_array_memory_size());
        assert_eq!(
            compact(&path, &large).unwrap().get_array_memory_size(),
            large.get_array_memory_size()
        );
    }
}
