//! The rows of several pieces in the order of one file, a part at a time.
//!
//! Parts are cut at a change of event time, so that rows which tie lie in one part and are ordered
//! there. Pieces that do not overlap are passed on as they are; only where they do are rows copied and
//! sorted, and then no more of them at once than a part has.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};

use super::file::HotFile;
use crate::error::Error;
use crate::prepare::{PreparedRows, sorted};
use crate::series_schema::SeriesSchema;

/// Yields the parts.
pub(crate) struct InOrder<'a> {
    schema: &'a SeriesSchema,
    base: i64,
    pieces: Vec<Piece<'a>>,
    rows_max: usize,
}

struct Piece<'a> {
    file: &'a HotFile,
    times: Int64Array,
    /// Rows that were passed on.
    at: usize,
}

impl Piece<'_> {
    /// The event time of the next row; `None` after the last.
    fn next_time(&self) -> Option<i64> {
        self.times.values().get(self.at).copied()
    }

    /// The event time of the row `rows - 1` after the next, or of the last one before that.
    fn time_after(&self, rows: usize) -> i64 {
        let last = self.at.saturating_add(rows).min(self.times.len()).saturating_sub(1);
        self.times.values().get(last).copied().unwrap_or(i64::MAX)
    }

    fn take_through(&mut self, time: i64) -> Option<(RecordBatch, i64)> {
        let rows = self.times.values()[self.at..].partition_point(|next| *next <= time);
        let batch = self.file.batch().slice(self.at, rows);
        self.at += rows;
        (rows > 0).then(|| (batch, self.file.row().version_base))
    }
}

impl<'a> InOrder<'a> {
    /// The rows of `pieces` of one series, which must be given oldest first, in parts of about
    /// `rows_max` rows; a part has more only if so many have one event time. Versions are counted from
    /// that of the first piece.
    pub(crate) fn new(
        schema: &'a SeriesSchema,
        pieces: &'a [Arc<HotFile>],
        rows_max: usize,
    ) -> Result<Self, Error> {
        let base = pieces.first().map_or(0, |first| first.row().version_base);
        let pieces = pieces.iter().map(|file| {
            let times = schema.times(&file.row().path, file.batch())?;
            Ok(Piece { file, times, at: 0 })
        });
        Ok(Self { schema, base, pieces: pieces.collect::<Result<_, Error>>()?, rows_max })
    }

    fn next_part(&mut self) -> Result<Option<PreparedRows>, Error> {
        let first = self.pieces.iter().filter_map(|piece| Some((piece.next_time()?, piece)));
        let Some((_, first)) = first.min_by_key(|(time, _)| *time) else { return Ok(None) };
        let (path, end) = (first.file.row().path.clone(), first.time_after(usize::MAX));
        // Those that begin after the first piece ends have no part in it.
        let beside = || {
            let pieces = self.pieces.iter();
            pieces.filter(|piece| piece.next_time().is_some_and(|time| time <= end))
        };
        let share = (self.rows_max / beside().count().max(1)).max(1);
        let through = beside().map(|piece| piece.time_after(share)).min().unwrap_or(end);
        let taken: Vec<(RecordBatch, i64)> = self
            .pieces
            .iter_mut()
            .filter_map(|piece| piece.take_through(through))
            .map(|(batch, base)| (batch, base - self.base))
            .collect();
        sorted(&path, self.schema, &taken).map(Some)
    }
}

impl Iterator for InOrder<'_> {
    type Item = Result<PreparedRows, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_part().transpose()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray, TimestampSecondArray};
    use arrow::compute::concat_batches;
    use proptest::prelude::*;
    use tidelog_core::{NodeId, TreePath, Version};
    use tidelog_oplog::SeriesOptions;

    use super::*;
    use crate::prepare::prepare;

    type Rows = Vec<(i64, u8)>;

    fn batch(rows: &Rows, from: i64) -> RecordBatch {
        let times = rows.iter().map(|(time, _)| *time);
        let keys = rows.iter().map(|(_, key)| (*key > 0).then(|| format!("k{key}")));
        let values = (from..).take(rows.len());
        RecordBatch::try_from_iter_with_nullable([
            ("time", Arc::new(TimestampSecondArray::from_iter_values(times)) as ArrayRef, true),
            ("key", Arc::new(keys.collect::<StringArray>()), true),
            ("value", Arc::new(Int64Array::from_iter_values(values)), true),
        ])
        .unwrap()
    }

    /// A piece for each list of versions.
    fn pieces(pieces: &[Vec<Rows>]) -> (SeriesSchema, Vec<Arc<HotFile>>) {
        let path = TreePath::parse("/s").unwrap();
        let options = SeriesOptions::default().with_key_columns(["key"]);
        let columns = batch(&vec![(0, 0)], 0).schema();
        let schema = SeriesSchema::resolve(&path, &columns, &options).unwrap();
        let (mut from, mut base) = (0, 1);
        let mut files = Vec::new();
        for versions in pieces {
            let mut batches = Vec::new();
            for rows in versions {
                let rows = batch(rows, from);
                from += 100;
                batches.push(crate::conform::conform(&path, &schema, &rows).unwrap());
            }
            let prepared = prepare(&path, &schema, &batches).unwrap();
            let file = HotFile::new(&path, NodeId::ROOT, &schema, &prepared).unwrap();
            files.push(Arc::new(file.numbered(Version::new(base))));
            base += i64::try_from(versions.len()).unwrap();
        }
        (schema, files)
    }

    fn rows_of_pieces() -> impl Strategy<Value = Vec<Vec<Rows>>> {
        let rows = prop::collection::vec((0..60_i64, 0..3_u8), 1..12);
        // Some pieces lie apart from one another, as appends in order do.
        let versions = (0..4_i64, prop::collection::vec(rows, 1..4)).prop_map(|(far, versions)| {
            let moved = |rows: Rows| {
                rows.into_iter().map(|(time, key)| (time + far * 50, key)).collect::<Rows>()
            };
            versions.into_iter().map(moved).collect()
        });
        prop::collection::vec(versions, 1..8)
    }

    proptest! {
        #[test]
        fn parts_are_the_joined_rows_cut_at_changes_of_time(rows in rows_of_pieces(), rows_max in 1..40_usize) {
            let (schema, pieces) = pieces(&rows);
            let joined = HotFile::joined(&schema, &pieces).unwrap();
            let parts = InOrder::new(&schema, &pieces, rows_max).unwrap();
            let parts: Vec<PreparedRows> = parts.collect::<Result<_, _>>().unwrap();
            let all = concat_batches(&schema.stored_columns(), parts.iter().map(|part| &part.batch));
            prop_assert_eq!(&all.unwrap(), joined.batch());
            prop_assert_eq!(parts.iter().all(|part| part.unique), joined.row().unique);
            for pair in parts.windows(2) {
                prop_assert!(pair[0].times.values().last() < pair[1].times.values().first());
            }
            for part in &parts {
                // Rows of one event time stay together.
                let ties = (0..part.times.len())
                    .map(|i| part.times.values().iter().filter(|t| **t == part.times.value(i)).count());
                let ties = ties.max().unwrap_or_default();
                prop_assert!(part.times.len() <= rows_max + ties * pieces.len(), "{}", part.times.len());
            }
        }
    }
}
