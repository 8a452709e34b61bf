//! Arrays in physical types become columns of answers.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, RecordBatch, RecordBatchOptions,
    StringViewArray, UInt32Array, make_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, SchemaRef, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::WarmTable;
use crate::error::{Unsupported, WarmError};
use crate::images::array_of_images;
use crate::request::BATCH_ROWS;
use crate::spec::Form;

impl WarmTable {
    /// A column as answers have it ([`TableSpec::answer_field`](crate::TableSpec::answer_field)), of an
    /// array in its physical type.
    ///
    /// # Errors
    ///
    /// [`WarmError::Unsupported`] if segments leave the column out, or the text does not fit into the
    /// type.
    pub fn decode(&self, column: usize, array: &ArrayRef) -> Result<ArrayRef, WarmError> {
        let form = self.spec.form(column)?;
        let data_type = self.spec.schema().field(column).data_type();
        if form == Form::Code {
            return self.decode_text(column, data_type, array.as_primitive());
        }
        if array.data_type() == data_type {
            return Ok(Arc::clone(array));
        }
        let data = array.to_data().into_builder().data_type(data_type.clone()).build()?;
        Ok(make_array(data))
    }

    /// A key column as answers have it, of the numbers of keys.
    ///
    /// # Errors
    ///
    /// As [`WarmTable::decode`].
    pub fn decode_keys(
        &self,
        column: usize,
        keys: impl IntoIterator<Item = u32>,
    ) -> Result<ArrayRef, WarmError> {
        let form = self.spec.form(column)?;
        let directory = self.keys();
        let position = self.spec.key_position(column);
        let image = |key| position.and_then(|position| directory.image(key, position));
        self.decode(column, &array_of_images(form, keys.into_iter().map(image)))
    }

    /// The schema of rows with these columns.
    #[must_use]
    pub fn row_schema(&self, columns: &[usize]) -> SchemaRef {
        let fields = columns.iter().map(|column| self.spec.answer_field(*column));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Rows of so many columns, in batches, from the arrays in physical types of whole columns.
    ///
    /// # Errors
    ///
    /// As [`WarmTable::decode`].
    pub fn decode_rows(
        &self,
        columns: &[usize],
        arrays: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<RecordBatch>, WarmError> {
        let schema = self.row_schema(columns);
        let mut batches = Vec::with_capacity(rows.div_ceil(BATCH_ROWS));
        let mut start = 0;
        while start < rows {
            let length = BATCH_ROWS.min(rows - start);
            let mut decoded = Vec::with_capacity(columns.len());
            for (&column, array) in columns.iter().zip(arrays) {
                decoded.push(self.decode(column, &array.slice(start, length))?);
            }
            let options = RecordBatchOptions::new().with_row_count(Some(length));
            batches.push(RecordBatch::try_new_with_options(
                Arc::clone(&schema),
                decoded,
                &options,
            )?);
            start += length;
        }
        Ok(batches)
    }

    fn decode_text(
        &self,
        column: usize,
        data_type: &DataType,
        codes: &UInt32Array,
    ) -> Result<ArrayRef, WarmError> {
        match data_type {
            DataType::Dictionary(key, values) => {
                let as_key = AsKey { table: self, column, values };
                match **key {
                    DataType::Int8 => as_key.array::<Int8Type>(codes),
                    DataType::Int16 => as_key.array::<Int16Type>(codes),
                    DataType::Int32 => as_key.array::<Int32Type>(codes),
                    DataType::Int64 => as_key.array::<Int64Type>(codes),
                    DataType::UInt8 => as_key.array::<UInt8Type>(codes),
                    DataType::UInt16 => as_key.array::<UInt16Type>(codes),
                    DataType::UInt32 => as_key.array::<UInt32Type>(codes),
                    _ => as_key.array::<UInt64Type>(codes),
                }
            }
            _ => self.views(column, codes),
        }
    }

    /// A view of a text for each code. They share the texts of the table, which stay in memory as long as
    /// any of them does: where there are more of these than rows, the views get texts of their own.
    fn views(&self, column: usize, codes: &UInt32Array) -> Result<ArrayRef, WarmError> {
        let texts = self.texts(column);
        let views = take(&texts, codes, None)?;
        Ok(match texts.len() <= codes.len() {
            true => views,
            false => Arc::new(views.as_string_view().gc()),
        })
    }

    /// All distinct texts that the table has seen of a column, by code, as `Utf8View`; none of a column
    /// of another type.
    #[must_use]
    pub fn texts(&self, column: usize) -> ArrayRef {
        if let Some(texts) = self.dictionary(column).and_then(|dictionary| dictionary.array()) {
            return texts;
        }
        match self.dictionary_mut(column) {
            Some(mut dictionary) => dictionary.array_mut(),
            None => Arc::new(StringViewArray::new_null(0)),
        }
    }
}

/// A dictionary type to decode to.
struct AsKey<'a> {
    table: &'a WarmTable,
    column: usize,
    values: &'a DataType,
}

impl AsKey<'_> {
    /// With the whole dictionary of the table if its codes fit into the keys, and it is not much
    /// longer than the rows; otherwise with the texts of these rows only.
    fn array<K: ArrowDictionaryKeyType>(&self, codes: &UInt32Array) -> Result<ArrayRef, WarmError> {
        let texts = self.table.texts(self.column);
        let fits =
            texts.len().checked_sub(1).is_none_or(|last| K::Native::from_usize(last).is_some());
        if fits && texts.len() <= codes.len() {
            return self.with_texts::<K>(codes, &texts);
        }
        let mut used: Vec<u32> = codes.iter().flatten().collect();
        used.sort_unstable();
        used.dedup();
        let place =
            |code: u32| used.binary_search(&code).ok().and_then(|at| u32::try_from(at).ok());
        let local: UInt32Array = codes.iter().map(|code| code.and_then(place)).collect();
        let texts = take(&texts, &UInt32Array::from(used), None)?;
        self.with_texts::<K>(&local, &texts)
    }

    fn with_texts<K: ArrowDictionaryKeyType>(
        &self,
        codes: &UInt32Array,
        texts: &ArrayRef,
    ) -> Result<ArrayRef, WarmError> {
        let key = |code: u32| {
            K::Native::from_usize(code as usize).ok_or_else(|| {
                let (column, data_type) = self.table.spec.name_and_type(self.column);
                WarmError::from(Unsupported::DictionaryCodes { column, data_type })
            })
        };
        let keys =
            codes.iter().map(|code| code.map(key).transpose()).collect::<Result<Vec<_>, _>>()?;
        let keys: PrimitiveArray<K> = keys.into_iter().collect();
        Ok(Arc::new(DictionaryArray::try_new(keys, cast(texts, self.values)?)?))
    }
}
