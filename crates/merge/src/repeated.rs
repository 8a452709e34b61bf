//! Columns in which one text repeats: told from others, and put together from several inputs.
//!
//! Where rows lie by key, the key repeats, and so do texts that depend on it: the name of a host, its
//! region, its rack. A merge of many keys then copies a few short texts over and over.
//!
//! Short texts are copied as blocks of one fixed length, each over the end of the one before: a few
//! instructions, where a copy of just the right length is a call.

use arrow::array::{
    Array, ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait, UInt32Array, make_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::gather;

/// Lengths of the blocks that texts are copied in, in bytes. Longer ones are worth a call.
const SHORT: usize = 16;
const MIDDLING: usize = 64;

/// Whether a column is text, has no null, and the same value in all rows, of which there are some.
pub(crate) fn is_repeated(column: &ArrayRef) -> bool {
    match column.data_type() {
        _ if column.is_empty() || column.null_count() > 0 => false,
        DataType::Utf8 => has_one_text(column.as_string::<i32>()),
        DataType::LargeUtf8 => has_one_text(column.as_string::<i64>()),
        DataType::Utf8View => {
            let views = column.as_string_view().views();
            views.iter().all(|view| *view == views[0])
        }
        _ => false,
    }
}

fn has_one_text<O: OffsetSizeTrait>(texts: &GenericStringArray<O>) -> bool {
    let offsets = texts.value_offsets();
    let length = offsets[1] - offsets[0];
    let all = &texts.values()[offsets[0].as_usize()..offsets[texts.len()].as_usize()];
    // The texts follow one another, so they are the same if each byte is that of one text before.
    offsets.windows(2).all(|pair| pair[1] - pair[0] == length)
        && all[length.as_usize()..] == all[..all.len() - length.as_usize()]
}

/// The one text of the column of each number; [`is_repeated`] is true of all columns.
///
/// # Errors
/// The texts are too long for one column of their type.
pub(crate) fn put_together(
    columns: &[&dyn Array],
    numbers: &UInt32Array,
) -> Result<ArrayRef, ArrowError> {
    let copied = match columns.first().map(|column| column.data_type()) {
        Some(DataType::Utf8) => in_blocks::<i32>(columns, numbers.values())?,
        Some(DataType::LargeUtf8) => in_blocks::<i64>(columns, numbers.values())?,
        _ => None,
    };
    if let Some(copied) = copied {
        return Ok(copied);
    }
    let firsts: Vec<ArrayRef> = columns.iter().map(|column| column.slice(0, 1)).collect();
    arrow::compute::take(&gather::freed(&gather::concat(&firsts)?), numbers, None)
}

/// `None` if there are long texts.
fn in_blocks<O: OffsetSizeTrait>(
    columns: &[&dyn Array],
    numbers: &[u32],
) -> Result<Option<ArrayRef>, ArrowError> {
    let texts: Vec<&str> = columns.iter().map(|column| column.as_string::<O>().value(0)).collect();
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or_default();
    let copied = if longest <= SHORT {
        in_blocks_of::<SHORT, O>(&texts, numbers)?
    } else if longest <= MIDDLING {
        in_blocks_of::<MIDDLING, O>(&texts, numbers)?
    } else {
        return Ok(None);
    };
    Ok(Some(make_array(copied.into())))
}

/// The text of each number. None is longer than `BLOCK`.
fn in_blocks_of<const BLOCK: usize, O: OffsetSizeTrait>(
    texts: &[&str],
    numbers: &[u32],
) -> Result<GenericStringArray<O>, ArrowError> {
    let block = |text: &&str| {
        let mut block = [0; BLOCK];
        block[..text.len()].copy_from_slice(text.as_bytes());
        (block, text.len())
    };
    let blocks: Vec<([u8; BLOCK], usize)> = texts.iter().map(block).collect();
    let of = |number: &u32| &blocks[*number as usize];
    let bytes: usize = numbers.iter().map(|number| of(number).1).sum();
    if O::from_usize(bytes).is_none() {
        return Err(ArrowError::OffsetOverflowError(bytes));
    }
    let mut values = vec![0; bytes + BLOCK];
    let mut end = 0;
    let copy = |number: &u32| {
        let (block, length) = of(number);
        values[end..end + BLOCK].copy_from_slice(block);
        end += length;
        O::usize_as(end)
    };
    let ends = numbers.iter().map(copy);
    let offsets: Vec<O> = std::iter::once(O::default()).chain(ends).collect();
    values.truncate(bytes);
    GenericStringArray::try_new(OffsetBuffer::new(offsets.into()), values.into(), None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, LargeStringArray, StringArray, StringViewArray};
    use arrow::compute::cast;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_repeat_if_all_are_the_same() {
        let cases: [(&[&str], bool); 7] = [
            (&["host"], true),
            (&["ab", "ab", "ab"], true),
            (&["", "", ""], true),
            (&["ab", "ab", "ac"], false),
            (&["aa", "a", "aaa"], false),
            (&["ab", "", "ab"], false),
            (&["a text of some length", "a text of some length"], true),
        ];
        for (texts, expected) in cases {
            let text: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
            let large: ArrayRef = Arc::new(LargeStringArray::from_iter_values(texts));
            assert_eq!(
                (is_repeated(&text), is_repeated(&large)),
                (expected, expected),
                "{texts:?}"
            );
            if texts[0].len() <= 12 {
                let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
                assert_eq!(is_repeated(&views), expected, "{texts:?}");
            }
        }
        let parted: ArrayRef = Arc::new(StringArray::from_iter_values(["x", "ab", "ab", "y"]));
        assert!(is_repeated(&parted.slice(1, 2)) && !is_repeated(&parted.slice(1, 3)));
        let with_null: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let empty: ArrayRef = Arc::new(StringArray::from_iter_values([""; 0]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 1]));
        assert!(!is_repeated(&with_null) && !is_repeated(&empty) && !is_repeated(&numbers));
    }

    /// Texts about as long as a block, or shorter, or longer, with letters of one to four bytes.
    fn text() -> impl Strategy<Value = String> {
        let lengths = prop_oneof![Just(0..=3_usize), Just(14..=17), Just(60..=66), Just(0..=70)];
        lengths.prop_flat_map(|lengths| {
            prop::collection::vec(prop::sample::select(vec!['a', 'é', '€', '𝄞']), lengths)
                .prop_map(String::from_iter)
        })
    }

    proptest! {
        #[test]
        fn texts_are_put_together_as_if_one_by_one(
            texts in prop::collection::vec(text(), 1..6),
            numbers in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let picks: Vec<usize> = numbers.iter().map(|number| number.index(texts.len())).collect();
            let numbers = UInt32Array::from_iter_values(picks.iter().map(|pick| u32::try_from(*pick).unwrap()));
            let expected = StringArray::from_iter_values(picks.iter().map(|pick| &texts[*pick]));
            for data_type in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
                let column = |text: &String| {
                    // The first row is not the first of its buffers.
                    let rows = StringArray::from_iter_values(["other", text.as_str(), text.as_str()]);
                    cast(&rows.slice(1, 2), &data_type).unwrap()
                };
                let columns: Vec<ArrayRef> = texts.iter().map(column).collect();
                let columns: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
                let found = put_together(&columns, &numbers).unwrap();
                prop_assert_eq!(found.data_type(), &data_type);
                let found = cast(&found, &DataType::Utf8).unwrap();
                prop_assert_eq!(found.as_string::<i32>(), &expected);
            }
        }
    }
}
