//! A filter over some rows that lie one after the other: a byte for each, 1 where it is true.
//!
//! Bytes rather than bits, because loops over them need no shifts and become vector code.

use arrow::array::{Array, ArrayRef, AsArray};

use super::HostData;
use crate::bound::{Filter, Leaf, Test};
use crate::images::{Imaged, by_form};
use crate::spec::Form;

/// How many rows are looked at together: few enough for their values to stay in the first cache.
pub(super) const BLOCK_ROWS: usize = 1024;

/// How many bytes are 1.
pub(super) fn count(mask: &[u8]) -> usize {
    // Sums of 128 bytes fit into a byte.
    mask.chunks(128).map(|chunk| usize::from(chunk.iter().sum::<u8>())).sum()
}

/// Room for the places of some rows of a block.
pub(super) type Places = [u16; BLOCK_ROWS];

/// The places of the bytes that are 1, ascending.
pub(super) fn places(mask: impl Iterator<Item = u8>, room: &mut Places) -> &[u16] {
    let mut found = 0;
    for (place, byte) in (0..).zip(mask.take(BLOCK_ROWS)) {
        // Written in any case, so that there is no branch to guess.
        room[found] = place;
        found += usize::from(byte);
    }
    &room[..found]
}

/// Fills the mask of the rows from `start` on. It has at most [`BLOCK_ROWS`] rows.
pub(super) fn fill(mask: &mut [u8], filter: &Filter, data: &HostData, start: usize) {
    match filter {
        Filter::Always => mask.fill(1),
        Filter::Never => mask.fill(0),
        Filter::All(parts) => join(mask, parts, data, start, |a, b| a & b),
        Filter::Any(parts) => join(mask, parts, data, start, |a, b| a | b),
        Filter::Leaf(Leaf { column, test }) => match &data.columns[*column] {
            Some(array) => test_array(mask, test, array, start),
            // Tests of keys are decided before, and columns that are left out are refused.
            None => mask.fill(0),
        },
    }
}

fn join(
    mask: &mut [u8],
    parts: &[Filter],
    data: &HostData,
    start: usize,
    with: impl Fn(u8, u8) -> u8,
) {
    let mut scratch = [0; BLOCK_ROWS];
    let scratch = &mut scratch[..mask.len()];
    for (number, part) in parts.iter().enumerate() {
        if number == 0 {
            fill(mask, part, data, start);
        } else {
            fill(scratch, part, data, start);
            for (byte, other) in mask.iter_mut().zip(&*scratch) {
                *byte = with(*byte, *other);
            }
        }
    }
}

/// Fills the mask with a test of the rows of an array from `start` on.
pub(super) fn test_array(mask: &mut [u8], test: &Test, array: &ArrayRef, start: usize) {
    match test {
        Test::IsNull => {
            mask.fill(1);
            and_valid(mask, array, start);
            mask.iter_mut().for_each(|byte| *byte ^= 1);
            return;
        }
        Test::IsNotNull => mask.fill(1),
        Test::Range { low, high, negated } => {
            let span = high.wrapping_sub(*low).cast_unsigned();
            let accepts =
                |image: i64| (image.wrapping_sub(*low).cast_unsigned() <= span) != *negated;
            test_values(mask, array, start, accepts);
        }
        Test::OneOf { images, negated } => {
            let accepts = |image: i64| images.binary_search(&image).is_ok() != *negated;
            test_values(mask, array, start, accepts);
        }
        codes @ Test::Codes(_) => {
            test_values(mask, array, start, |image| codes.accepts(Some(image)));
        }
    }
    and_valid(mask, array, start);
}

fn test_values(mask: &mut [u8], array: &ArrayRef, start: usize, accepts: impl Fn(i64) -> bool) {
    let form = Form::of(array.data_type()).unwrap_or(Form::Boolean);
    by_form!(
        form,
        |Type| {
            let values = &array.as_primitive::<Type>().values()[start..start + mask.len()];
            for (byte, value) in mask.iter_mut().zip(values) {
                *byte = u8::from(accepts(value.image()));
            }
        },
        {
            let values = array.as_boolean().values();
            for (row, byte) in mask.iter_mut().enumerate() {
                *byte = u8::from(accepts(i64::from(values.value(start + row))));
            }
        }
    );
}

/// Sets the bytes of rows without a value to 0.
pub(super) fn and_valid(mask: &mut [u8], array: &ArrayRef, start: usize) {
    let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return;
    };
    let valid = nulls.inner().slice(start, mask.len());
    for (byte, valid) in mask.iter_mut().zip(valid.iter()) {
        *byte &= u8::from(valid);
    }
}
