//! The place of the merge in one input, and the checks on what the input sends.
//!
//! Invariants:
//!
//! 1. Times of admitted rows never fall within an input, over all its batches.
//! 2. With deduplication, keys and versions of equal times never fall within a batch; between
//!    batches the merger checks them, where it looks at neighbours anyway.
//! 3. A superseded row is followed by a row of its batch with equal time and keys, so the last row
//!    of a batch is never superseded.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};

use crate::chunk::{Chunk, TimeOrder, time_order};
use crate::error::Error;
use crate::order::{KeyOrder, Row};
use crate::spec::MergeSpec;

/// One input: its current chunk and the next row of it.
#[derive(Default)]
pub(crate) struct Cursor {
    /// None while waiting for a batch, and when finished.
    pub(crate) chunk: Option<Arc<Chunk>>,
    pub(crate) row: usize,
    pub(crate) finished: bool,
    /// Rows of the current chunk that a later row of it replaces, from `superseded_next` on still
    /// to come.
    superseded: Vec<usize>,
    superseded_next: usize,
    /// Rows of all earlier chunks.
    rows_before: u64,
    last_time: Option<i64>,
}

impl Cursor {
    pub(crate) fn is_waiting(&self) -> bool {
        self.chunk.is_none() && !self.finished
    }

    /// The number of a row of the current (or awaited) chunk in the whole input.
    pub(crate) fn row_number(&self, row: usize) -> u64 {
        self.rows_before + row as u64
    }

    /// Takes the next chunk, which has rows; on error nothing has changed.
    pub(crate) fn admit(
        &mut self,
        input: usize,
        chunk: Arc<Chunk>,
        spec: &MergeSpec,
        order: &mut KeyOrder,
    ) -> Result<(), Error> {
        let level = self.check_times(input, &chunk.times)?;
        self.superseded = match level && spec.dedup {
            true => self.find_superseded(input, &chunk, order)?,
            false => Vec::new(),
        };
        self.superseded_next = 0;
        self.row = 0;
        self.chunk = Some(chunk);
        Ok(())
    }

    /// The next rows before `end` that are not superseded; none when `end` is reached.
    pub(crate) fn next_survivors(&mut self, end: usize) -> Option<Range<usize>> {
        while self.row < end {
            let hole = self.superseded.get(self.superseded_next).copied();
            let start = self.row;
            let stop = hole.map_or(end, |hole| hole.min(end));
            self.row = stop;
            if hole == Some(stop) && stop < end {
                self.row += 1;
                self.superseded_next += 1;
            }
            if start < stop {
                return Some(start..stop);
            }
        }
        None
    }

    /// Gives up the current chunk, all rows of which are consumed.
    pub(crate) fn retire(&mut self) -> Option<Arc<Chunk>> {
        let chunk = self.chunk.take()?;
        self.rows_before += chunk.len() as u64;
        self.last_time = chunk.times.last().copied();
        self.superseded = Vec::new();
        Some(chunk)
    }

    /// Whether any two neighbours have equal times; an error if times fall.
    fn check_times(&self, input: usize, times: &[i64]) -> Result<bool, Error> {
        let falls = |row: usize, previous: i64| Error::TimeGoesBack {
            input,
            row: self.row_number(row),
            time: times[row],
            previous,
        };
        if let (Some(previous), Some(&first)) = (self.last_time, times.first())
            && first < previous
        {
            return Err(falls(0, previous));
        }
        match time_order(times) {
            TimeOrder::Rising => Ok(false),
            TimeOrder::Level => Ok(true),
            TimeOrder::Falling(row) => Err(falls(row, times[row - 1])),
        }
    }

    fn find_superseded(
        &self,
        input: usize,
        chunk: &Chunk,
        order: &mut KeyOrder,
    ) -> Result<Vec<usize>, Error> {
        let mut superseded = Vec::new();
        for (row, pair) in chunk.times.windows(2).enumerate() {
            if pair[0] != pair[1] {
                continue;
            }
            let (before, after) = (Row { input, chunk, row }, Row { input, chunk, row: row + 1 });
            let keys = order.cmp_keys(before, after)?;
            if keys.then_with(|| before.cmp_version(&after)).is_gt() {
                let row = self.row_number(row + 1);
                return Err(Error::KeysGoBack { input, row, time: pair[1] });
            }
            if keys.is_eq() {
                superseded.push(row);
            }
        }
        Ok(superseded)
    }
}

/// Gives a batch the schema of the merge; refuses what does not fit it.
///
/// Metadata and nullability of the batch's own schema do not matter, its values do.
pub(crate) fn conform(
    input: usize,
    cursor: &Cursor,
    batch: RecordBatch,
    spec: &MergeSpec,
) -> Result<RecordBatch, Error> {
    let batch = adopt_schema(input, cursor, batch, spec)?;
    for column in [Some(spec.time), spec.version].into_iter().flatten() {
        refuse_nulls(input, cursor, &batch, column)?;
    }
    Ok(batch)
}

fn adopt_schema(
    input: usize,
    cursor: &Cursor,
    batch: RecordBatch,
    spec: &MergeSpec,
) -> Result<RecordBatch, Error> {
    let found = batch.schema_ref();
    if Arc::ptr_eq(found, &spec.schema) || found == &spec.schema {
        return Ok(batch);
    }
    let (expected, found) = (spec.schema.fields(), found.fields());
    if expected.len() != found.len() {
        let (expected, found) = (expected.len(), found.len());
        return Err(Error::ColumnCount { input, expected, found });
    }
    for (column, (expected, found)) in expected.iter().zip(found).enumerate() {
        if expected.name() != found.name() {
            let (expected, found) = (expected.name().clone(), found.name().clone());
            return Err(Error::ColumnName { input, expected, found });
        }
        if expected.data_type() != found.data_type() {
            return Err(Error::ColumnType {
                input,
                column: expected.name().clone(),
                expected: expected.data_type().clone(),
                found: found.data_type().clone(),
            });
        }
        if !expected.is_nullable() {
            refuse_nulls(input, cursor, &batch, column)?;
        }
    }
    RecordBatch::try_new(Arc::clone(&spec.schema), batch.columns().to_vec())
        .map_err(Error::arrow("give an input batch the schema of the merge"))
}

fn refuse_nulls(
    input: usize,
    cursor: &Cursor,
    batch: &RecordBatch,
    column: usize,
) -> Result<(), Error> {
    let values = batch.column(column);
    let Some(nulls) = values.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(());
    };
    let row = (0..values.len()).find(|&row| nulls.is_null(row)).unwrap_or(0);
    let column = batch.schema_ref().field(column).name().clone();
    Err(Error::NullValue { input, row: cursor.row_number(row), column })
}
