//! Partial states of one aggregate, one for each slot.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};

use super::HostData;
use super::fold::{Counting, Number, Sum};
use super::mask::{self, Places};
use crate::error::WarmError;
use crate::images::{Imaged, array_of_images, by_form};
use crate::request::{Aggregate, Function};
use crate::spec::{Form, TableSpec};
use crate::table::KeyDirectory;

/// The states of an aggregate.
pub(super) enum State {
    /// Rows.
    Rows(Vec<i64>),
    /// Values of a column.
    Of(Source, Values),
}

/// Where values come from.
pub(super) struct Source {
    column: usize,
    form: Form,
    /// The place among the key columns, if the column is one: then all rows of a piece have the
    /// same value, and no array has it.
    position: Option<usize>,
}

/// What is said of values.
pub(super) enum Values {
    Count(Vec<i64>),
    /// A sum in 64 bits, and whether there was a value.
    Sum(Vec<(u64, bool)>),
    /// A sum, and how many values there were.
    SumFloats(Vec<(Sum, u64)>),
    /// As [`Values::SumFloats`], but shown with the number.
    Avg(Vec<(Sum, u64)>),
    /// The image of the least value, or of the greatest.
    End {
        greatest: bool,
        images: Vec<Option<i64>>,
    },
}

/// The state of an aggregate of a request that was bound, without slots.
pub(super) fn state(spec: &TableSpec, aggregate: Aggregate) -> Result<State, WarmError> {
    let Some(column) = aggregate.column else {
        return Ok(State::Rows(Vec::new()));
    };
    let form = spec.form(column)?;
    let values = match aggregate.function {
        Function::Count => Values::Count(Vec::new()),
        Function::Sum if form.is_float() => Values::SumFloats(Vec::new()),
        Function::Sum => Values::Sum(Vec::new()),
        Function::Avg => Values::Avg(Vec::new()),
        Function::Min => Values::End { greatest: false, images: Vec::new() },
        Function::Max => Values::End { greatest: true, images: Vec::new() },
    };
    Ok(State::Of(Source { column, form, position: spec.key_position(column) }, values))
}

impl State {
    /// Makes room for one more slot.
    pub(super) fn grow(&mut self) {
        match self {
            Self::Rows(counts) | Self::Of(_, Values::Count(counts)) => counts.push(0),
            Self::Of(_, Values::Sum(sums)) => sums.push((0, false)),
            Self::Of(_, Values::SumFloats(sums) | Values::Avg(sums)) => {
                sums.push((Sum::default(), 0));
            }
            Self::Of(_, Values::End { images, .. }) => images.push(None),
        }
    }

    /// Adds rows.
    pub(super) fn add(
        &mut self,
        slot: usize,
        directory: &KeyDirectory,
        rows: &Rows<'_>,
        room: &mut Places,
    ) {
        match self {
            Self::Rows(counts) => counts[slot] += count(rows.len()),
            Self::Of(source, values) => match source.position {
                Some(position) => {
                    if let Some(image) = directory.image(rows.key, position) {
                        values.add_constant(slot, source.form, image, rows.len());
                    }
                }
                None => {
                    if let Some(array) = &rows.data.columns[source.column] {
                        values.add_array(slot, source.form, array, rows, room);
                    }
                }
            },
        }
    }

    /// The columns of the states, those of least and greatest values in the physical type.
    pub(super) fn finish(self) -> Vec<ArrayRef> {
        match self {
            Self::Rows(counts) | Self::Of(_, Values::Count(counts)) => {
                vec![Arc::new(Int64Array::from(counts))]
            }
            Self::Of(source, Values::Sum(sums)) => {
                let sums = sums.into_iter().map(|(sum, any)| any.then_some(sum));
                if source.form.is_unsigned() {
                    return vec![Arc::new(sums.collect::<UInt64Array>())];
                }
                let sums = sums.map(|sum| sum.map(u64::cast_signed));
                vec![Arc::new(sums.collect::<Int64Array>())]
            }
            Self::Of(_, Values::SumFloats(sums)) => vec![float_sums(&sums)],
            Self::Of(_, Values::Avg(sums)) => {
                let counts = sums.iter().map(|(_, count)| (*count > 0).then_some(*count));
                vec![Arc::new(counts.collect::<UInt64Array>()), float_sums(&sums)]
            }
            Self::Of(source, Values::End { images, .. }) => {
                vec![array_of_images(source.form, images)]
            }
        }
    }
}

impl Values {
    /// Adds rows that all have the value of this image.
    fn add_constant(&mut self, slot: usize, form: Form, image: i64, rows: usize) {
        match self {
            Self::Count(counts) => counts[slot] += count(rows),
            Self::Sum(sums) => {
                let value = by_form!(form, |Type| wide::<Type>(image), 0);
                let (sum, any) = &mut sums[slot];
                *sum = sum.wrapping_add(value.wrapping_mul(rows as u64));
                *any = true;
            }
            Self::SumFloats(sums) | Self::Avg(sums) => {
                let value = by_form!(form, |Type| float::<Type>(image), 0.0);
                let (sum, values) = &mut sums[slot];
                sum.add(value * rows as f64);
                *values += rows as u64;
            }
            Self::End { greatest, images } => end(&mut images[slot], image, *greatest),
        }
    }

    /// Adds the values of rows.
    fn add_array(
        &mut self,
        slot: usize,
        form: Form,
        array: &ArrayRef,
        rows: &Rows<'_>,
        room: &mut Places,
    ) {
        let Rows { rows: range, .. } = rows.clone();
        let picks = rows.with_values(array, room);
        let found = picks.map_or(range.len(), <[u16]>::len);
        if found == 0 {
            return;
        }
        macro_rules! counting {
            ($type:ty) => {
                Counting { values: &array.as_primitive::<$type>().values()[range], picks }
            };
        }
        match self {
            Self::Count(counts) => counts[slot] += count(found),
            Self::Sum(sums) => {
                let (sum, any) = &mut sums[slot];
                *sum = sum.wrapping_add(by_form!(form, |Type| counting!(Type).sum(), 0));
                *any = true;
            }
            Self::SumFloats(sums) | Self::Avg(sums) => {
                let of_rows = by_form!(form, |Type| counting!(Type).sum_floats(), Sum::default());
                let (sum, values) = &mut sums[slot];
                sum.merge(of_rows);
                *values += found as u64;
            }
            Self::End { greatest, images } => {
                let greatest = *greatest;
                let of_rows = by_form!(form, |Type| counting!(Type).end(greatest), {
                    let values = array.as_boolean().values();
                    // Any that is the better one makes it.
                    let mut better =
                        (0..found).map(|at| picks.map_or(at, |picks| usize::from(picks[at])));
                    let better = better.any(|at| values.value(range.start + at) == greatest);
                    i64::from(better == greatest)
                });
                end(&mut images[slot], of_rows, greatest);
            }
        }
    }
}

/// Rows of one group: some of a piece.
#[derive(Clone)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a HostData,
    /// The number of their key.
    pub(super) key: u32,
    pub(super) rows: Range<usize>,
    /// Their places in the range, ascending, if it is not all of it.
    pub(super) picks: Option<&'a [u16]>,
}

impl Rows<'_> {
    fn len(&self) -> usize {
        self.picks.map_or(self.rows.len(), <[u16]>::len)
    }

    /// The places of those that have a value, if it is not all of the range.
    fn with_values<'b>(&'b self, array: &ArrayRef, room: &'b mut Places) -> Option<&'b [u16]> {
        let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) else {
            return self.picks;
        };
        let valid = |place: usize| nulls.is_valid(self.rows.start + place);
        let Some(picks) = self.picks else {
            return Some(mask::places((0..self.rows.len()).map(|at| u8::from(valid(at))), room));
        };
        let mut found = 0;
        for place in picks {
            room[found] = *place;
            found += usize::from(valid(usize::from(*place)));
        }
        Some(&room[..found])
    }
}

fn end(image: &mut Option<i64>, other: i64, greatest: bool) {
    *image = Some(match *image {
        Some(image) if greatest => image.max(other),
        Some(image) => image.min(other),
        None => other,
    });
}

fn wide<T: arrow::datatypes::ArrowPrimitiveType>(image: i64) -> u64
where
    T::Native: Number,
{
    T::Native::of_image(image).wide()
}

fn float<T: arrow::datatypes::ArrowPrimitiveType>(image: i64) -> f64
where
    T::Native: Number,
{
    T::Native::of_image(image).float()
}

fn float_sums(sums: &[(Sum, u64)]) -> ArrayRef {
    let sums = sums.iter().map(|(sum, values)| (*values > 0).then(|| sum.value()));
    Arc::new(sums.collect::<Float64Array>())
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
