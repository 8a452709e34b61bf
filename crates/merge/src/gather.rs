//! Rows of several arrays become one array, without letting dictionaries and views pile up.

use std::sync::Arc;

use arrow::array::types::ArrowDictionaryKeyType;
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::downcast_dictionary_array;
use arrow::error::ArrowError;

/// Puts slices after each other.
pub(crate) fn concat(slices: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    arrow::compute::concat(&slices.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// Takes rows by (number of the array, place in it); there is at least one array.
///
/// Arrays that share one dictionary share it with the result: Arrow's own kernel repeats the
/// dictionary for every array, which would make it longer with every merge.
pub(crate) fn interleave(
    arrays: &[&dyn Array],
    indices: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    match shared_dictionary(arrays) {
        Some(keys) => {
            let keys = arrow::compute::interleave(&keys, indices)?;
            let dictionary = arrays[0];
            downcast_dictionary_array!(
                dictionary => with_keys(dictionary, &keys),
                _ => arrow::compute::interleave(arrays, indices)
            )
        }
        None => arrow::compute::interleave(arrays, indices),
    }
}

/// Frees what long strings and bytes of a batch keep alive but do not use.
pub(crate) fn compact(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new(batch.schema(), batch.columns().iter().map(freed).collect())
}

/// The same of one column.
pub(crate) fn freed(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => Arc::clone(column),
    }
}

/// The keys of the arrays, if all are dictionary arrays with the very same values.
fn shared_dictionary<'a>(arrays: &[&'a dyn Array]) -> Option<Vec<&'a dyn Array>> {
    let values = arrays.first()?.as_any_dictionary_opt()?.values();
    arrays
        .iter()
        .map(|array| {
            let dictionary = array.as_any_dictionary_opt()?;
            let others = dictionary.values();
            let same = Arc::ptr_eq(values, others) || values.to_data().ptr_eq(&others.to_data());
            same.then(|| dictionary.keys())
        })
        .collect()
}

fn with_keys<K: ArrowDictionaryKeyType>(
    dictionary: &DictionaryArray<K>,
    keys: &ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let keys = keys.as_primitive::<K>().clone();
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::clone(dictionary.values()))?))
}

#[cfg(test)]
mod tests {
    use arrow::array::types::Int8Type;
    use arrow::array::{Int8Array, StringArray, StringViewArray};

    use super::*;

    #[test]
    fn arrays_with_one_dictionary_keep_it() -> Result<(), ArrowError> {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let left = DictionaryArray::try_new(Int8Array::from(vec![0, 1]), Arc::clone(&values))?;
        let right =
            DictionaryArray::try_new(Int8Array::from(vec![Some(2), None]), Arc::clone(&values))?;
        let merged = interleave(&[&left, &right], &[(1, 0), (0, 1), (1, 1), (0, 0)])?;
        let merged = merged.as_dictionary::<Int8Type>();
        assert!(Arc::ptr_eq(merged.values(), &values));
        assert_eq!(merged.keys(), &Int8Array::from(vec![Some(2), Some(1), None, Some(0)]));
        Ok(())
    }

    #[test]
    fn arrays_with_different_dictionaries_are_merged() -> Result<(), ArrowError> {
        let left: DictionaryArray<Int8Type> = ["a", "b"].into_iter().collect();
        let right: DictionaryArray<Int8Type> = ["b", "c"].into_iter().collect();
        let merged = interleave(&[&left, &right], &[(1, 1), (0, 1), (0, 0)])?;
        let merged = merged.as_dictionary::<Int8Type>();
        let texts: Vec<_> = merged.downcast_dict::<StringArray>().into_iter().flatten().collect();
        assert_eq!(texts, vec![Some("c"), Some("b"), Some("a")]);
        Ok(())
    }

    #[test]
    fn compacting_frees_unused_view_buffers() -> Result<(), ArrowError> {
        let long: Vec<String> = (0..1000).map(|i| format!("a text of some length {i}")).collect();
        let all: ArrayRef = Arc::new(StringViewArray::from_iter_values(&long));
        let batch = RecordBatch::try_from_iter([("text", all.slice(7, 1))])?;
        let compacted = compact(batch.clone())?;
        assert_eq!(compacted, batch);
        assert!(compacted.get_array_memory_size() < batch.get_array_memory_size() / 10);
        Ok(())
    }
}
