//! Batches become numbers of keys, times, and arrays in physical types.

use std::sync::{Arc, PoisonError};

use arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, RecordBatch, UInt32Array, make_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Int64Type};

use super::{KeyDirectory, WarmTable};
use crate::error::{Invalid, Unsupported, WarmError};
use crate::images::image_at;
use crate::segment::SEGMENT_ROWS_MAX;
use crate::spec::Form;

/// Rows of some batches in the order of their arrival, in the forms in which segments hold them.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The number of each row's key.
    pub keys: ScalarBuffer<u32>,
    /// The time of each row, in the unit of the time column.
    pub times: ScalarBuffer<i64>,
    /// Of each column of the table an array of [`Form::physical_type`], with its nulls. None of
    /// columns that are left out, of the time column, and of key columns, which the numbers stand
    /// for.
    pub columns: Vec<Option<ArrayRef>>,
    /// Whether times and columns may lie in buffers of the batches.
    pub is_shared: bool,
}

impl Encoded {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Whether rows lie in the order of segments: by number of the key, then time.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        let keys = self.keys.windows(2).zip(self.times.windows(2));
        keys.into_iter().all(|(keys, times)| (keys[0], times[0]) <= (keys[1], times[1]))
    }
}

impl WarmTable {
    /// Brings batches into the forms in which segments hold them. Dictionaries and keys grow.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`] if a batch has other columns than the table, or a row has no time;
    /// [`WarmError::Unsupported`] if there are too many rows, or too many distinct texts or keys.
    pub fn encode(&self, batches: &[RecordBatch]) -> Result<Encoded, WarmError> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > SEGMENT_ROWS_MAX {
            return Err(Unsupported::SegmentRows { rows }.into());
        }
        for (number, batch) in batches.iter().enumerate() {
            self.check_batch(number, batch)?;
        }
        let is_shared = batches.iter().filter(|batch| batch.num_rows() > 0).count() < 2;
        let times = self.times(batches)?;
        let mut columns = Vec::with_capacity(self.spec.columns());
        for column in 0..self.spec.columns() {
            let held = column != self.spec.time() && self.spec.form(column).is_ok();
            columns.push(if held { Some(self.column(column, batches)?) } else { None });
        }
        let keys = self.number_keys(&mut columns, rows)?;
        Ok(Encoded { keys, times, columns, is_shared })
    }

    fn check_batch(&self, number: usize, batch: &RecordBatch) -> Result<(), Invalid> {
        let expected = self.spec.schema().fields();
        let found = batch.schema();
        let difference = if found.fields().len() == expected.len() {
            let differs = |(found, expected): &(&Arc<_>, &Arc<arrow::datatypes::Field>)| {
                let found: &arrow::datatypes::Field = found;
                found.name() != expected.name() || found.data_type() != expected.data_type()
            };
            match found.fields().iter().zip(expected).find(differs) {
                None => return Ok(()),
                Some((found, expected)) => format!(
                    "column {:?} of type {} where the table has {:?} of type {}",
                    found.name(),
                    found.data_type(),
                    expected.name(),
                    expected.data_type()
                ),
            }
        } else {
            format!("{} columns where the table has {}", found.fields().len(), expected.len())
        };
        Err(Invalid::Batch { batch: number, difference })
    }

    fn times(&self, batches: &[RecordBatch]) -> Result<ScalarBuffer<i64>, WarmError> {
        let mut before = 0;
        for batch in batches {
            let array = batch.column(self.spec.time());
            if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
                let row = nulls.iter().take_while(|valid| *valid).count();
                return Err(Invalid::NullTime { row: before + row }.into());
            }
            before += batch.num_rows();
        }
        let array = self.column(self.spec.time(), batches)?;
        Ok(array.as_primitive::<Int64Type>().values().clone())
    }

    /// One column of all batches, in its physical type.
    fn column(&self, column: usize, batches: &[RecordBatch]) -> Result<ArrayRef, WarmError> {
        let form = self.spec.form(column)?;
        let mut parts = Vec::with_capacity(batches.len());
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            parts.push(match form {
                Form::Code => self.codes(column, batch.column(column))?,
                form => reinterpreted(batch.column(column), &form.physical_type())?,
            });
        }
        Ok(match parts.as_slice() {
            [] => arrow::array::new_empty_array(&form.physical_type()),
            [part] => Arc::clone(part),
            parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        })
    }

    /// The codes of an array of text, in the table's dictionary.
    fn codes(&self, column: usize, array: &ArrayRef) -> Result<ArrayRef, WarmError> {
        let codes = match array.data_type() {
            DataType::Dictionary(_, _) => {
                self.codes_of_dictionary(column, array.as_any_dictionary())?
            }
            DataType::Utf8 => self.intern(column, array.as_string::<i32>().iter())?.into(),
            DataType::LargeUtf8 => self.intern(column, array.as_string::<i64>().iter())?.into(),
            _ => self.intern(column, array.as_string_view().iter())?.into(),
        };
        Ok(Arc::new(codes))
    }

    /// The codes of a dictionary array: its own keys, looked up once each.
    fn codes_of_dictionary(
        &self,
        column: usize,
        array: &dyn AnyDictionaryArray,
    ) -> Result<UInt32Array, WarmError> {
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        if nulls.as_ref().is_some_and(|nulls| nulls.null_count() == array.len()) {
            return Ok(UInt32Array::new_null(array.len()));
        }
        let values = cast(array.values(), &DataType::LargeUtf8)?;
        let values = values.as_string::<i64>();
        let keys = array.normalized_keys();
        let mut used = vec![false; values.len()];
        for (row, &key) in keys.iter().enumerate() {
            used[key] |= nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        }
        let texts = used.iter().enumerate().map(|(key, used)| used.then(|| values.value(key)));
        let codes = self.intern(column, texts)?;
        let codes = keys.into_iter().map(|key| codes[key].unwrap_or(0)).collect();
        Ok(UInt32Array::new(codes, nulls))
    }

    fn intern<'a>(
        &self,
        column: usize,
        texts: impl Iterator<Item = Option<&'a str>>,
    ) -> Result<Vec<Option<u32>>, WarmError> {
        let Some(mut dictionary) = self.dictionary_mut(column) else {
            return Ok(Vec::new());
        };
        let name = self.spec.schema().field(column).name();
        let bytes_max = self.spec.dictionary_bytes_max();
        let mut code = |text: Option<&str>| {
            text.map(|text| dictionary.intern(text, bytes_max, name)).transpose()
        };
        Ok(texts.map(&mut code).collect::<Result<_, _>>()?)
    }

    /// The number of each row's key. Takes the key columns out of the columns.
    fn number_keys(
        &self,
        columns: &mut [Option<ArrayRef>],
        rows: usize,
    ) -> Result<ScalarBuffer<u32>, WarmError> {
        let mut parts = Vec::with_capacity(self.spec.keys().len());
        for &column in self.spec.keys() {
            let form = self.spec.form(column)?;
            parts.extend(columns[column].take().map(|array| (array, form)));
        }
        if parts.is_empty() {
            return Ok(vec![0; rows].into());
        }
        let numbers = self.numbers_of(&parts, rows)?;
        Ok(numbers.into())
    }

    fn numbers_of(&self, parts: &[(ArrayRef, Form)], rows: usize) -> Result<Vec<u32>, WarmError> {
        let mut numbering = Numbering { table: self, known: self.keys() };
        if let [(array, Form::Code)] = parts {
            return numbering.by_code(array.as_primitive());
        }
        let mut numbers = Vec::with_capacity(rows);
        let mut images = vec![None; parts.len()];
        let mut last = None;
        for row in 0..rows {
            let mut same = last.is_some();
            for (image, (array, form)) in images.iter_mut().zip(parts) {
                let new = image_at(*form, array, row);
                same &= *image == new;
                *image = new;
            }
            let number = match last {
                Some(number) if same => number,
                _ => numbering.number(&images)?,
            };
            last = Some(number);
            numbers.push(number);
        }
        Ok(numbers)
    }
}

/// Looks keys up, and adds those that are new.
struct Numbering<'a> {
    table: &'a WarmTable,
    known: Arc<KeyDirectory>,
}

impl Numbering<'_> {
    fn number(&mut self, images: &[Option<i64>]) -> Result<u32, WarmError> {
        if let Some(number) = self.known.number(images) {
            return Ok(number);
        }
        let spec = &self.table.spec;
        let column = spec.schema().field(spec.keys()[0]).name();
        // Let go of first, so that the directory grows in place where nobody else reads it.
        self.known = Arc::clone(&self.table.no_keys);
        let mut keys = self.table.keys.write().unwrap_or_else(PoisonError::into_inner);
        let number =
            Arc::make_mut(&mut keys).intern(images, spec.dictionary_bytes_max(), column)?;
        self.known = Arc::clone(&keys);
        Ok(number)
    }

    /// The numbers of keys of one column of text, looked up once for each code.
    fn by_code(&mut self, codes: &UInt32Array) -> Result<Vec<u32>, WarmError> {
        let mut numbers = Vec::with_capacity(codes.len());
        let mut of_code: Vec<Option<u32>> = Vec::new();
        let mut of_null = None;
        for row in 0..codes.len() {
            let code = codes.is_valid(row).then(|| codes.value(row));
            let place = match code {
                None => &mut of_null,
                Some(code) => {
                    let code = code as usize;
                    if of_code.len() <= code {
                        of_code.resize(code + 1, None);
                    }
                    &mut of_code[code]
                }
            };
            let number = match *place {
                Some(number) => number,
                None => *place.insert(self.number(&[code.map(i64::from)])?),
            };
            numbers.push(number);
        }
        Ok(numbers)
    }
}

/// An array whose values are those of another type with the same layout.
fn reinterpreted(array: &ArrayRef, physical: &DataType) -> Result<ArrayRef, WarmError> {
    if array.data_type() == physical {
        return Ok(Arc::clone(array));
    }
    let data = array.to_data().into_builder().data_type(physical.clone()).build()?;
    Ok(make_array(data))
}
