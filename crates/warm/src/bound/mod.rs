//! Requests, checked and brought into the terms of a table, the same way for all backends.
//!
//! A backend *binds* a request first. That decides what is refused, turns literals into images,
//! folds conditions on time into the range, and gets `Not` out of the way; so what is left for the
//! backend is to test numbers for being in ranges.

mod filter;
mod grouping;
mod predicate;

use crate::error::{Invalid, Unsupported, WarmError};
use crate::request::{Aggregate, Function, Group, Op, Request, SortKey, TOP_K_MAX};
use crate::segment::Segment;
use crate::spec::{Form, TableSpec};
use crate::table::WarmTable;

pub use filter::{Filter, Leaf, Test};
pub use grouping::{Bucket, Grouping, KeyGroups};

/// So many keys are looked at to estimate how many are wanted.
const KEYS_LOOKED_AT: usize = 256;

/// A request that every backend can answer.
#[derive(Debug, Clone)]
pub struct Bound {
    /// First and last time wanted. None if no time is.
    pub time: Option<(i64, i64)>,
    /// What else rows have to meet.
    pub filter: Filter,
    /// Numbers of the keys wanted, ascending. None if all are.
    pub keys: Option<Vec<u32>>,
}

/// What of a segment has to be looked at.
#[derive(Debug, Clone)]
pub struct SegmentPlan {
    /// First and last time wanted.
    pub time: (i64, i64),
    /// What else its rows have to meet: [`Filter::Always`] if all of them do.
    pub filter: Filter,
}

impl Bound {
    /// Binds a request about segments of a table.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`] and [`WarmError::Unsupported`], for all the reasons that these have.
    pub fn try_new(
        table: &WarmTable,
        segments: &[std::sync::Arc<Segment>],
        request: &Request,
    ) -> Result<Self, WarmError> {
        for segment in segments {
            table.check_segment(segment)?;
        }
        let spec = table.spec();
        let keys = match &request.op {
            Op::Count => None,
            Op::Fetch { columns, .. } => check_columns(spec, columns).map(|()| None)?,
            Op::Aggregate { group, aggregates } => {
                check_groups(spec, segments, group)?;
                for aggregate in aggregates {
                    check_aggregate(spec, segments, *aggregate)?;
                }
                None
            }
            Op::TopK { order, k, columns } => {
                check_order(spec, order, *k)?;
                check_columns(spec, columns).map(|()| None)?
            }
            Op::LastPerKey { columns, keys } => {
                check_columns(spec, columns)?;
                keys.as_deref().map(|keys| numbers(table, keys)).transpose()?
            }
        };
        let filter = match &request.filter {
            Some(predicate) => predicate::bind(table, predicate)?,
            None => Filter::Always,
        };
        let (time, filter) = filter.split_time(spec.time(), request.time.inclusive());
        Ok(Self { time, filter, keys })
    }

    /// How many keys of a table the filter may let through, about, and how many there are. It may be off
    /// where there are many.
    #[must_use]
    pub fn part_of_keys(&self, table: &WarmTable) -> (usize, usize) {
        let (columns, directory) = (table.spec().keys(), table.keys());
        let count = directory.len();
        if !self.filter.tests(&|column| columns.contains(&column)) {
            return (count, count);
        }
        let looked_at = (0..count).step_by(count.div_ceil(KEYS_LOOKED_AT).max(1));
        let all = looked_at.len();
        let is_wanted = |key: &usize| {
            let key = u32::try_from(*key).unwrap_or(u32::MAX);
            self.filter.for_key(&directory, columns, key) != Filter::Never
        };
        let wanted = looked_at.filter(is_wanted).count();
        ((wanted * count).div_ceil(all.max(1)).max(1), count)
    }

    /// What of a segment has to be looked at. None if what is known of it says that no row matches.
    #[must_use]
    pub fn plan(&self, segment: &Segment) -> Option<SegmentPlan> {
        let (first, last) = self.time?;
        let (least, greatest) = segment.stats().time?;
        if first > greatest || last < least {
            return None;
        }
        let filter = self.filter.for_segment(segment.stats());
        (filter != Filter::Never).then_some(SegmentPlan { time: (first, last), filter })
    }
}

fn check_columns(spec: &TableSpec, columns: &[usize]) -> Result<(), WarmError> {
    columns.iter().try_for_each(|column| spec.form(*column).map(|_| ()))
}

fn check_order(spec: &TableSpec, order: &[SortKey], k: usize) -> Result<(), WarmError> {
    if k > TOP_K_MAX {
        return Err(Unsupported::TopK { k }.into());
    }
    for key in order {
        if spec.form(key.column)? == Form::Code {
            let (column, _) = spec.name_and_type(key.column);
            return Err(Unsupported::TextOrder { column }.into());
        }
    }
    Ok(())
}

fn check_groups(
    spec: &TableSpec,
    segments: &[std::sync::Arc<Segment>],
    group: &[Group],
) -> Result<(), WarmError> {
    let mut buckets = 0;
    for (position, part) in group.iter().enumerate() {
        match part {
            Group::Key(column) => {
                spec.form(*column)?;
                if spec.key_position(*column).is_none() {
                    let (column, _) = spec.name_and_type(*column);
                    return Err(Unsupported::GroupColumn { column }.into());
                }
            }
            Group::TimeBucket { origin, width } => {
                buckets += 1;
                let bucket = Bucket::try_new(*origin, *width)?;
                for (time, _) in segments.iter().filter_map(|segment| segment.stats().time) {
                    bucket.check(time)?;
                }
            }
        }
        if buckets > 1 || group[..position].contains(part) {
            return Err(Unsupported::GroupTwice.into());
        }
    }
    Ok(())
}

fn check_aggregate(
    spec: &TableSpec,
    segments: &[std::sync::Arc<Segment>],
    aggregate: Aggregate,
) -> Result<(), WarmError> {
    let function = aggregate.function;
    let Some(column) = aggregate.column else {
        if function == Function::Count {
            return Ok(());
        }
        return Err(Invalid::FunctionColumn { function: function.name() }.into());
    };
    let form = spec.form(column)?;
    let (name, data_type) = spec.name_and_type(column);
    let takes = match function {
        Function::Count => true,
        Function::Sum | Function::Avg => data_type.is_numeric(),
        Function::Min | Function::Max => form != Form::Code,
    };
    if !takes {
        let function = function.name();
        return Err(Unsupported::Function { function, column: name, data_type }.into());
    }
    let nan = |segment: &std::sync::Arc<Segment>| {
        segment.stats().columns[column].is_some_and(|column| column.has_nan)
    };
    if matches!(function, Function::Min | Function::Max) && segments.iter().any(nan) {
        return Err(Unsupported::MinMaxNan { column: name }.into());
    }
    Ok(())
}

/// The numbers of the keys that the table knows, ascending, each once.
fn numbers(table: &WarmTable, keys: &[Vec<crate::Value>]) -> Result<Vec<u32>, WarmError> {
    let mut numbers = Vec::with_capacity(keys.len());
    for key in keys {
        numbers.extend(table.key_number(key)?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}
