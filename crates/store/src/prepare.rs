//! Rows of one or more versions made ready for a file: checked, sorted, deduplicated.
//!
//! The order inside a file is (event time, key, version, position in the append). Within one append
//! the later of two rows with the same key and event time replaces the earlier; between appends
//! both stay, because an older version must still be readable.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DynComparator, Int64Array, RecordBatch, UInt32Array,
    make_comparator,
};
use arrow::compute::{SortOptions, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::Int64Type;
use tidelog_core::{EventTime, TimeRange, TreePath};

use crate::error::Error;
use crate::series_schema::SeriesSchema;

/// Rows in file order, with `__version` relative to the first of their versions.
#[derive(Debug)]
pub(crate) struct PreparedRows {
    /// The columns as stored.
    pub(crate) batch: RecordBatch,
    /// Event times of `batch`, in the series' unit.
    pub(crate) times: Int64Array,
    /// What each version, in order, added.
    pub(crate) versions: Vec<VersionFacts>,
    /// Whether no two rows share key and event time.
    pub(crate) unique: bool,
}

/// What one version adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VersionFacts {
    pub(crate) rows: u64,
    pub(crate) range: TimeRange,
}

/// Checks, sorts and deduplicates `batches`, each of which becomes a version. None may be empty.
pub(crate) fn prepare(
    path: &TreePath,
    schema: &SeriesSchema,
    batches: &[RecordBatch],
) -> Result<PreparedRows, Error> {
    let mut kept = Vec::with_capacity(batches.len());
    let mut versions = Vec::with_capacity(batches.len());
    for batch in batches {
        let range = check_times(path, schema, batch)?;
        let batch = if schema.dedup() { deduplicated(path, schema, batch)? } else { batch.clone() };
        versions.push(VersionFacts { rows: batch.num_rows() as u64, range });
        kept.push(batch);
    }
    let (all, numbers) = joined(path, schema, &kept)?;
    let mut columns = all.columns().to_vec();
    columns.push(numbers);
    let all = RecordBatch::try_new(schema.stored_columns(), columns)
        .map_err(|e| encode_error(path, &e))?;
    in_order(path, schema, all, versions)
}

/// Stored rows, `__version` included, brought into the order of a file. Rows of later versions come
/// later.
fn in_order(
    path: &TreePath,
    schema: &SeriesSchema,
    rows: RecordBatch,
    versions: Vec<VersionFacts>,
) -> Result<PreparedRows, Error> {
    let batch = match Sorter::new(path, schema, &rows)?.order() {
        None => rows,
        Some(order) => take_record_batch(&rows, &order).map_err(|e| encode_error(path, &e))?,
    };
    let unique = Sorter::new(path, schema, &batch)?.is_unique();
    let times = schema.times(path, &batch)?;
    Ok(PreparedRows { batch, times, versions, unique })
}

/// Stored batches of one series, oldest versions first, as one in the order of a file. To the
/// versions of each the number beside it is added.
pub(crate) fn sorted(
    path: &TreePath,
    schema: &SeriesSchema,
    batches: &[(RecordBatch, i64)],
) -> Result<PreparedRows, Error> {
    let renumbered = batches.iter().map(|(batch, offset)| {
        let mut columns = batch.columns().to_vec();
        if *offset != 0
            && let Some(numbers) = columns.pop()
        {
            let numbers = numbers.as_primitive::<Int64Type>().unary::<_, Int64Type>(|n| n + offset);
            columns.push(Arc::new(numbers));
        }
        RecordBatch::try_new(schema.stored_columns(), columns)
    });
    let renumbered: Vec<RecordBatch> =
        renumbered.collect::<Result<_, _>>().map_err(|e| encode_error(path, &e))?;
    let all = concat_batches(&schema.stored_columns(), &renumbered)
        .map_err(|e| encode_error(path, &e))?;
    in_order(path, schema, all, Vec::new())
}

fn encode_error(path: &TreePath, error: &arrow::error::ArrowError) -> Error {
    Error::Encode { path: path.clone(), reason: error.to_string() }
}

/// One batch of all rows, and the relative version of each.
fn joined(
    path: &TreePath,
    schema: &SeriesSchema,
    batches: &[RecordBatch],
) -> Result<(RecordBatch, ArrayRef), Error> {
    let all = match batches {
        [only] => only.clone(),
        _ => concat_batches(schema.columns(), batches).map_err(|e| encode_error(path, &e))?,
    };
    let numbers = (0_i64..)
        .zip(batches)
        .flat_map(|(version, batch)| std::iter::repeat_n(version, batch.num_rows()));
    Ok((all, Arc::new(Int64Array::from_iter_values(numbers))))
}

/// The range of event time of one version; refuses nulls and times that nanoseconds cannot hold.
pub(crate) fn check_times(
    path: &TreePath,
    schema: &SeriesSchema,
    batch: &RecordBatch,
) -> Result<TimeRange, Error> {
    let refuse = |row: usize, reason: String| Error::Value {
        path: path.clone(),
        column: schema.time_column().to_owned(),
        row,
        reason,
    };
    let times = schema.times(path, batch)?;
    if times.null_count() > 0 {
        let row = (0..times.len()).find(|row| times.is_null(*row)).unwrap_or_default();
        return Err(refuse(
            row,
            "the event time is null; give it a value or leave the row out".into(),
        ));
    }
    let unit = schema.time_unit();
    let min = arrow::compute::min(&times).unwrap_or_default();
    let max = arrow::compute::max(&times).unwrap_or_default();
    match (EventTime::from_unit(min, unit), EventTime::from_unit(max, unit)) {
        (Some(min), Some(max)) => TimeRange::try_new(min, max).map_err(Error::Time),
        _ => {
            let outside = |value: &i64| EventTime::from_unit(*value, unit).is_none();
            let row = times.values().iter().position(outside).unwrap_or_default();
            let value = times.value(row);
            let reason = format!(
                "the event time {value} {unit} lies outside 1677-09-21 … 2262-04-11; correct it, \
                 or the unit"
            );
            Err(refuse(row, reason))
        }
    }
}

/// Of rows of one append with equal key and event time, the last.
fn deduplicated(
    path: &TreePath,
    schema: &SeriesSchema,
    batch: &RecordBatch,
) -> Result<RecordBatch, Error> {
    let sorter = Sorter::new(path, schema, batch)?;
    let order = sorter.order();
    let at = |i: usize| order.as_ref().map_or(i, |order| order.value(i) as usize);
    let rows = batch.num_rows();
    let mut keep = vec![true; rows];
    for i in 1..rows {
        if sorter.compare(at(i - 1), at(i)) == Ordering::Equal {
            keep[at(i - 1)] = false;
        }
    }
    filter_record_batch(batch, &BooleanArray::from(keep)).map_err(|e| encode_error(path, &e))
}

/// Whether no two rows of a batch, which is in order, share key and event time.
pub(crate) fn is_unique(
    path: &TreePath,
    schema: &SeriesSchema,
    batch: &RecordBatch,
) -> Result<bool, Error> {
    Ok(Sorter::new(path, schema, batch)?.is_unique())
}

/// Of each row of a batch but the last, whether it shares key and event time with the next.
pub(crate) fn same_as_next(
    path: &TreePath,
    schema: &SeriesSchema,
    batch: &RecordBatch,
) -> Result<Vec<bool>, Error> {
    let sorter = Sorter::new(path, schema, batch)?;
    Ok((1..batch.num_rows()).map(|row| sorter.compare(row - 1, row).is_eq()).collect())
}

/// Compares rows of a batch by (event time, key).
struct Sorter {
    times: Int64Array,
    keys: Vec<DynComparator>,
}

impl Sorter {
    fn new(path: &TreePath, schema: &SeriesSchema, batch: &RecordBatch) -> Result<Self, Error> {
        let options = SortOptions { descending: false, nulls_first: true };
        let keys = schema
            .keys()
            .iter()
            .map(|key| {
                let column = batch.column(*key).as_ref();
                make_comparator(column, column, options).map_err(|e| encode_error(path, &e))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { times: schema.times(path, batch)?, keys })
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let times = self.times.values();
        times[a].cmp(&times[b]).then_with(|| self.compare_keys(a, b))
    }

    fn compare_keys(&self, a: usize, b: usize) -> Ordering {
        let unequal = |key: &DynComparator| Some(key(a, b)).filter(|o| o.is_ne());
        self.keys.iter().find_map(unequal).unwrap_or(Ordering::Equal)
    }

    /// The stable order of the rows; `None` if they are in order already.
    fn order(&self) -> Option<UInt32Array> {
        let rows = self.times.len();
        let sorted = if self.keys.is_empty() {
            self.times.values().is_sorted()
        } else {
            (1..rows).all(|i| self.compare(i - 1, i).is_le())
        };
        if sorted {
            return None;
        }
        // Beside its time a row is compared without a look elsewhere; keys are looked at for ties only.
        let times = self.times.values().iter().copied();
        let mut order: Vec<(i64, u32)> = times.zip(0_u32..).collect();
        match self.keys.is_empty() {
            true => order.sort_by_key(|(time, _)| *time),
            false => order.sort_by(|(time, a), (other, b)| {
                time.cmp(other).then_with(|| self.compare_keys(*a as usize, *b as usize))
            }),
        }
        Some(order.into_iter().map(|(_, row)| row).collect::<Vec<u32>>().into())
    }

    fn is_unique(&self) -> bool {
        (1..self.times.len()).all(|i| self.compare(i - 1, i).is_ne())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{StringArray, TimestampSecondArray};
    use tidelog_oplog::SeriesOptions;

    use super::*;

    fn rows(times: &[i64], keys: &[Option<&str>], values: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([
            ("time", Arc::new(TimestampSecondArray::from(times.to_vec())) as ArrayRef, true),
            ("key", Arc::new(StringArray::from(keys.to_vec())), true),
            ("value", Arc::new(Int64Array::from(values.to_vec())), true),
        ])
        .unwrap()
    }

    fn run(dedup: bool, batches: &[RecordBatch]) -> (Vec<(i64, i64, i64)>, PreparedRows) {
        let path = TreePath::parse("/s").unwrap();
        let options = SeriesOptions::default().with_key_columns(["key"]).with_dedup(dedup);
        let schema = SeriesSchema::resolve(&path, &batches[0].schema(), &options).unwrap();
        let batches: Vec<_> = batches
            .iter()
            .map(|batch| crate::conform::conform(&path, &schema, batch).unwrap())
            .collect();
        let prepared = prepare(&path, &schema, &batches).unwrap();
        let column = |i: usize| prepared.batch.column(i).as_primitive::<Int64Type>().values();
        let out = (0..prepared.batch.num_rows())
            .map(|row| (prepared.times.value(row), column(2)[row], column(3)[row]))
            .collect();
        (out, prepared)
    }

    #[test]
    fn rows_are_ordered_by_time_key_version_and_position() {
        let first = rows(&[2, 1, 1, 1], &[Some("a"), Some("b"), None, Some("b")], &[0, 1, 2, 3]);
        let second = rows(&[1, 0], &[Some("b"), Some("z")], &[4, 5]);
        let (out, prepared) = run(false, &[first, second]);
        assert_eq!(out, [(0, 5, 1), (1, 2, 0), (1, 1, 0), (1, 3, 0), (1, 4, 1), (2, 0, 0)]);
        assert!(!prepared.unique);
        assert_eq!(prepared.versions[1].rows, 2);
    }

    #[test]
    fn within_an_append_the_later_row_wins_and_between_appends_both_stay() {
        let first = rows(&[1, 1, 1], &[Some("b"), None, Some("b")], &[1, 2, 3]);
        let second = rows(&[1], &[Some("b")], &[4]);
        let (out, prepared) = run(true, &[first.clone(), second]);
        assert_eq!(out, [(1, 2, 0), (1, 3, 0), (1, 4, 1)]);
        assert_eq!(prepared.versions[0].rows, 2);
        assert!(!prepared.unique);
        let (_, alone) = run(true, &[first]);
        assert!(alone.unique);
    }
}
