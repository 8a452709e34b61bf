//! Groups of rows: by keys, which are numbers already, and by buckets of time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Invalid, Unsupported, WarmError};
use crate::request::{Aggregate, Function, Group};
use crate::spec::TableSpec;
use crate::table::{KeyDirectory, WarmTable};

/// Buckets of event time of equal length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    origin: i64,
    width: i64,
}

impl Bucket {
    /// Buckets counted from an origin, of a length of at least 1, in the unit of the time column.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`] if the length is less than 1.
    pub fn try_new(origin: i64, width: i64) -> Result<Self, WarmError> {
        if width < 1 {
            return Err(Invalid::BucketWidth { width }.into());
        }
        Ok(Self { origin, width })
    }

    /// Where buckets are counted from.
    #[must_use]
    pub const fn origin(self) -> i64 {
        self.origin
    }

    /// How long they are.
    #[must_use]
    pub const fn width(self) -> i64 {
        self.width
    }

    /// The first time of the bucket of a time. [`Bucket::check`] has to have passed for this time or
    /// an earlier one.
    #[must_use]
    pub fn start(self, time: i64) -> i64 {
        match time.checked_sub(self.origin) {
            Some(since) => time.saturating_sub(since.rem_euclid(self.width)),
            None => i64::try_from(self.wide_start(time)).unwrap_or(i64::MIN),
        }
    }

    /// As [`Bucket::start`], of a time that is mostly in the bucket after the one given.
    pub(crate) fn next_start(self, bucket: Option<i64>, time: i64) -> i64 {
        let next = bucket.and_then(|start| start.checked_add(self.width));
        let since = next.and_then(|next| time.checked_sub(next));
        match (next, since) {
            (Some(next), Some(since)) if (0..self.width).contains(&since) => next,
            _ => self.start(time),
        }
    }

    /// The last time of the bucket that starts at this time.
    #[must_use]
    pub const fn last(self, start: i64) -> i64 {
        start.saturating_add(self.width - 1)
    }

    /// Refuses a time whose bucket begins before 64 bits do.
    ///
    /// # Errors
    ///
    /// [`WarmError::Unsupported`].
    pub fn check(self, time: i64) -> Result<(), WarmError> {
        match i64::try_from(self.wide_start(time)) {
            Ok(_) => Ok(()),
            Err(_) => {
                let Self { origin, width } = self;
                Err(Unsupported::BucketRange { origin, width, time }.into())
            }
        }
    }

    fn wide_start(self, time: i64) -> i128 {
        let since = i128::from(time) - i128::from(self.origin);
        i128::from(time) - since.rem_euclid(i128::from(self.width))
    }
}

/// How rows are grouped.
#[derive(Debug, Clone)]
pub struct Grouping {
    /// The groups of keys.
    pub keys: KeyGroups,
    /// The buckets of time, if there are any.
    pub bucket: Option<Bucket>,
}

impl Grouping {
    /// The grouping of a request that was bound, by the keys that the table has seen until now.
    ///
    /// # Errors
    ///
    /// As [`Bucket::try_new`].
    pub fn try_new(table: &WarmTable, group: &[Group]) -> Result<Self, WarmError> {
        let mut positions = Vec::new();
        let mut bucket = None;
        for part in group {
            match part {
                Group::Key(column) => positions.extend(table.spec().key_position(*column)),
                Group::TimeBucket { origin, width } => {
                    bucket = Some(Bucket::try_new(*origin, *width)?);
                }
            }
        }
        let keys = KeyGroups::of(&table.keys(), &positions, table.spec().keys().len());
        Ok(Self { keys, bucket })
    }
}

/// Which keys are one group.
#[derive(Debug, Clone)]
pub enum KeyGroups {
    /// All of them: group 0.
    One,
    /// Each its own: the group has the number of the key.
    Each {
        /// How many keys there are.
        keys: usize,
    },
    /// Those that are equal in some of the key columns.
    Some {
        /// The group of each key, from 0.
        of_key: Vec<u32>,
        /// The first key of each group.
        first_keys: Vec<u32>,
    },
}

impl KeyGroups {
    fn of(directory: &KeyDirectory, positions: &[usize], key_columns: usize) -> Self {
        if positions.is_empty() {
            return Self::One;
        }
        if positions.len() == key_columns {
            return Self::Each { keys: directory.len() };
        }
        let mut numbers = HashMap::new();
        let mut first_keys = Vec::new();
        let mut of_key = Vec::with_capacity(directory.len());
        for key in 0..u32::try_from(directory.len()).unwrap_or(u32::MAX) {
            let images: Vec<_> =
                positions.iter().map(|position| directory.image(key, *position)).collect();
            let next = u32::try_from(first_keys.len()).unwrap_or(u32::MAX);
            let number = *numbers.entry(images).or_insert(next);
            if number == next {
                first_keys.push(key);
            }
            of_key.push(number);
        }
        Self::Some { of_key, first_keys }
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::One => 1,
            Self::Each { keys } => *keys,
            Self::Some { first_keys, .. } => first_keys.len(),
        }
    }

    /// Whether there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The group of a key.
    #[must_use]
    pub fn of_key(&self, key: u32) -> u32 {
        match self {
            Self::One => 0,
            Self::Each { .. } => key,
            Self::Some { of_key, .. } => of_key[key as usize],
        }
    }

    /// A key of a group.
    #[must_use]
    pub fn key_of(&self, group: u32) -> u32 {
        match self {
            Self::One => 0,
            Self::Each { .. } => group,
            Self::Some { first_keys, .. } => first_keys[group as usize],
        }
    }
}

/// The columns of the partial state of an aggregate: names, types, and whether there are nulls.
///
/// # Errors
///
/// [`WarmError::Invalid`] and [`WarmError::Unsupported`] if the column is not held.
pub(crate) fn state_fields(
    spec: &TableSpec,
    aggregate: Aggregate,
    number: usize,
) -> Result<Vec<Field>, WarmError> {
    let name = |part: &str| format!("{}_{number}{part}", aggregate.function.name());
    let Some(column) = aggregate.column else {
        return Ok(vec![Field::new(name(""), DataType::Int64, false)]);
    };
    let form = spec.form(column)?;
    let sum = if form.is_float() {
        DataType::Float64
    } else if form.is_unsigned() {
        DataType::UInt64
    } else {
        DataType::Int64
    };
    Ok(match aggregate.function {
        Function::Count => vec![Field::new(name(""), DataType::Int64, false)],
        Function::Sum => vec![Field::new(name(""), sum, true)],
        Function::Min | Function::Max => {
            vec![Field::new(name(""), spec.schema().field(column).data_type().clone(), true)]
        }
        Function::Avg => vec![
            Field::new(name("_count"), DataType::UInt64, true),
            Field::new(name("_sum"), DataType::Float64, true),
        ],
    })
}

impl WarmTable {
    /// The answer to an aggregate: of each group found, the number of its group of keys, the start
    /// of its bucket (of any value where there are no buckets), and the columns of the states.
    ///
    /// States of `min` and `max` may be in the physical type of their column.
    ///
    /// # Errors
    ///
    /// [`WarmError::Unsupported`] if text does not fit into its type.
    pub fn decode_groups(
        &self,
        (group, aggregates): (&[Group], &[Aggregate]),
        keys: &KeyGroups,
        (groups, starts): (&[u32], Vec<i64>),
        states: Vec<ArrayRef>,
    ) -> Result<RecordBatch, WarmError> {
        let spec = self.spec();
        let rows = groups.len();
        let starts: ArrayRef = Arc::new(Int64Array::from(starts));
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for part in group {
            let (column, array) = match part {
                Group::Key(column) => {
                    let keys = groups.iter().map(|group| keys.key_of(*group));
                    (*column, self.decode_keys(*column, keys)?)
                }
                Group::TimeBucket { .. } => (spec.time(), self.decode(spec.time(), &starts)?),
            };
            fields.push(spec.answer_field(column));
            columns.push(array);
        }
        let mut states = states.into_iter();
        for (number, aggregate) in aggregates.iter().enumerate() {
            for field in state_fields(spec, *aggregate, number)? {
                let Some(state) = states.next() else { break };
                columns.push(match aggregate.column {
                    Some(column) if field.data_type() != state.data_type() => {
                        self.decode(column, &state)?
                    }
                    _ => state,
                });
                fields.push(field);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}
