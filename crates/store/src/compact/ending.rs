//! Rows that end with a change of data, told apart from those that stay; and rows as they stood at an
//! earlier version.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{and, filter_record_batch, not, or, prep_null_mask_filter};
use arrow::datatypes::{Int64Type, Schema};
use arrow::error::ArrowError;
use tidelog_core::{TimeRange, TreePath, Version};
use tidelog_oplog::FileRow;

use crate::error::Error;
use crate::series_schema::{SeriesSchema, VERSION_COLUMN, time_values};

/// A condition on rows, evaluated by who knows how.
pub trait RowFilter: fmt::Debug + Send + Sync {
    /// The names of the columns that it looks at.
    fn columns(&self) -> &[String];

    /// Of each row whether it holds. `rows` has the columns that were named, in that order.
    ///
    /// # Errors
    /// Why it cannot be told, in words.
    fn matches(&self, rows: &RecordBatch) -> Result<BooleanArray, String>;

    /// Whether it may hold for a row of a file, as far as the log tells of the file. In doubt it may, and so
    /// it is by default.
    fn may_match(&self, _file: &FileRow) -> bool {
        true
    }
}

/// Rows of a range of event time that end.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) range: TimeRange,
    pub(crate) which: Which,
}

/// Which of the rows in a range.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    All,
    /// Those of later versions than this one.
    After(Version),
    /// Those that are shown and for which a condition holds, with what they have replaced.
    Where(Arc<dyn RowFilter>),
}

/// Which rows are meant, as far as it changes from try to try: a condition stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    All,
    After(Version),
    Where,
}

impl Which {
    fn whose(&self) -> Whose {
        match self {
            Self::All => Whose::All,
            Self::After(version) => Whose::After(*version),
            Self::Where(_) => Whose::Where,
        }
    }
}

impl Cut {
    /// Whether rows of a file may be among them, as far as the log tells.
    pub(crate) fn touches(&self, file: &FileRow) -> bool {
        let may_be = match &self.which {
            Which::After(version) => file.max_version > *version,
            Which::Where(filter) => self.range.overlaps(&file.range) && filter.may_match(file),
            Which::All => true,
        };
        may_be && self.range.overlaps(&file.range)
    }

    /// Whether all rows of a file are among them for sure.
    pub(crate) fn takes_all(&self, file: &FileRow) -> bool {
        let takes_each = match self.which {
            Which::All => true,
            Which::After(version) => file.min_version > version,
            Which::Where(_) => false,
        };
        takes_each && self.range.covers(&file.range)
    }
}

/// The rows of a series that end with a change of its data. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    path: TreePath,
    schema: SeriesSchema,
    cuts: Arc<[Cut]>,
}

impl Ending {
    pub(crate) fn new(path: TreePath, schema: SeriesSchema, cuts: Arc<[Cut]>) -> Self {
        Self { path, schema, cuts }
    }

    /// Whether it asks which rows are shown.
    pub(crate) fn is_of_shown_rows(&self) -> bool {
        self.cuts.iter().any(|cut| matches!(cut.which, Which::Where(_)))
    }

    /// Whether rows of a file may be among them, as far as the log tells.
    pub(crate) fn touches(&self, file: &FileRow) -> bool {
        self.cuts.iter().any(|cut| cut.touches(file))
    }

    /// What is asked of files.
    pub(crate) fn asked_of(&self, files: &[Arc<FileRow>]) -> Vec<(TimeRange, Whose)> {
        let is_of =
            |cut: &&Cut| files.iter().any(|file: &Arc<FileRow>| cut.range.overlaps(&file.range));
        self.cuts.iter().filter(is_of).map(|cut| (cut.range, cut.which.whose())).collect()
    }

    /// The event times of a file outside of which none of its rows is among them, in the unit of the series.
    pub(crate) fn times(&self, file: &FileRow) -> Option<RangeInclusive<i64>> {
        let touching = self.cuts.iter().filter(|cut| cut.range.overlaps(&file.range));
        let range = touching.map(|cut| cut.range).reduce(|a, b| a.union(&b))?;
        let unit = self.schema.time_unit();
        Some(range.start().ceil_to(unit)..=range.end().floor_to(unit))
    }

    /// The places of the columns that it looks at among those that are stored, ascending.
    pub(crate) fn places(&self) -> Vec<usize> {
        let columns = self.schema.columns();
        let named = self.cuts.iter().flat_map(|cut| match &cut.which {
            Which::Where(filter) => filter.columns(),
            Which::All | Which::After(_) => &[],
        });
        let mut places: Vec<usize> = named.filter_map(|name| columns.index_of(name).ok()).collect();
        places.extend([self.schema.time_index(), columns.fields().len()]);
        places.sort_unstable();
        places.dedup();
        places
    }

    fn fail(&self, error: &ArrowError) -> Error {
        Error::Encode { path: self.path.clone(), reason: error.to_string() }
    }

    /// Rows that stay, and rows that end.
    pub(super) fn apart(&self, rows: &RecordBatch) -> Result<(RecordBatch, RecordBatch), Error> {
        let ends = self.ends(rows)?;
        let apart = || {
            let stay = filter_record_batch(rows, &not(&ends)?)?;
            Ok((stay, filter_record_batch(rows, &ends)?))
        };
        apart().map_err(|error| self.fail(&error))
    }

    /// Of each row whether it ends. The rows need have no other columns than it looks at.
    pub(crate) fn ends(&self, rows: &RecordBatch) -> Result<BooleanArray, Error> {
        let mut ends = BooleanArray::from(vec![false; rows.num_rows()]);
        for cut in self.cuts.iter() {
            let inside = within(&self.path, &self.schema, rows, cut.range)?;
            let taken = match &cut.which {
                Which::All => inside,
                Which::After(version) => {
                    let later = later_than(rows, *version).ok_or_else(|| self.no_versions())?;
                    and(&inside, &later).map_err(|error| self.fail(&error))?
                }
                Which::Where(filter) => {
                    let holds = self.holds(filter.as_ref(), rows)?;
                    and(&inside, &holds).map_err(|error| self.fail(&error))?
                }
            };
            ends = or(&ends, &taken).map_err(|error| self.fail(&error))?;
        }
        Ok(ends)
    }

    fn no_versions(&self) -> Error {
        self.fail(&ArrowError::SchemaError("rows have no column of versions".to_owned()))
    }

    /// Of each row whether a condition holds; null is not true.
    fn holds(&self, filter: &dyn RowFilter, rows: &RecordBatch) -> Result<BooleanArray, Error> {
        let wrong = |reason: String| Error::Condition { path: self.path.clone(), reason };
        let columns = filter.columns().iter().map(|name| rows.schema_ref().index_of(name));
        let columns: Vec<usize> = columns.collect::<Result<_, _>>().map_err(|e| self.fail(&e))?;
        let looked_at = rows.project(&columns).map_err(|error| self.fail(&error))?;
        let holds = filter.matches(&looked_at).map_err(wrong)?;
        if holds.len() != rows.num_rows() {
            return Err(wrong("it does not speak of each row".to_owned()));
        }
        Ok(if holds.null_count() > 0 { prep_null_mask_filter(&holds) } else { holds })
    }
}

/// Of each row whether its event time lies in a range.
fn within(
    path: &TreePath,
    schema: &SeriesSchema,
    rows: &RecordBatch,
    range: TimeRange,
) -> Result<BooleanArray, Error> {
    let times = rows.column_by_name(schema.time_column()).and_then(time_values);
    let times = times.ok_or_else(|| Error::Column {
        path: path.clone(),
        column: schema.time_column().to_owned(),
        reason: "it is missing or does not tell time".to_owned(),
    })?;
    let unit = schema.time_unit();
    let (first, last) = (range.start().ceil_to(unit), range.end().floor_to(unit));
    Ok(times.values().iter().map(|time| Some(first <= *time && *time <= last)).collect())
}

fn later_than(rows: &RecordBatch, version: Version) -> Option<BooleanArray> {
    let versions = rows.column_by_name(VERSION_COLUMN)?.as_primitive_opt::<Int64Type>()?;
    let is_later = |number: &i64| Some(*number > version.number());
    Some(versions.values().iter().map(is_later).collect())
}

/// The rows of a series that were visible at an earlier version, in a range of event time.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    path: TreePath,
    schema: SeriesSchema,
    version: Version,
    range: TimeRange,
}

impl Earlier {
    pub(crate) fn new(
        path: TreePath,
        schema: SeriesSchema,
        version: Version,
        range: TimeRange,
    ) -> Self {
        Self { path, schema, version, range }
    }

    fn fail(&self, error: &ArrowError) -> Error {
        Error::Encode { path: self.path.clone(), reason: error.to_string() }
    }

    /// Those of `rows`, which have the columns of rows that have ended, as rows that stand.
    pub(super) fn visible(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns = self.schema.columns().fields().len();
        let numbers = |column: usize| rows.column(column).as_primitive::<Int64Type>().values();
        let seen = numbers(columns).iter().zip(numbers(columns + 1)).map(|(from, until)| {
            let version = self.version.number();
            Some(*from <= version && version < *until)
        });
        let seen: BooleanArray = seen.collect();
        let inside = within(&self.path, &self.schema, rows, self.range)?;
        let visible = || {
            let standing = rows.project(&(0..=columns).collect::<Vec<_>>())?;
            let standing =
                RecordBatch::try_new(self.schema.stored_columns(), standing.columns().to_vec())?;
            filter_record_batch(&standing, &and(&seen, &inside)?)
        };
        visible().map_err(|error| self.fail(&error))
    }

    /// The same rows, as the first version that is counted from a base.
    pub(super) fn renumbered(&self, rows: RecordBatch) -> Result<RecordBatch, Error> {
        let mut columns = rows.columns().to_vec();
        columns.pop();
        let first: ArrayRef = Arc::new(Int64Array::from_value(0, rows.num_rows()));
        columns.push(first);
        RecordBatch::try_new(self.schema.stored_columns(), columns)
            .map_err(|error| self.fail(&error))
    }
}

/// The columns at some places of those that are stored.
pub(crate) fn columns_at(schema: &SeriesSchema, places: &[usize]) -> Result<Schema, ArrowError> {
    schema.stored_columns().project(places)
}
