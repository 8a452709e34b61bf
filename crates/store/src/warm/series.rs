//! The table of each series: which of its columns segments hold.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidelog_core::memory::Account;
use tidelog_core::{Holder, MemoryBudget};
use tidelog_warm::{Form, TableSpec, Unsupported, WarmError, WarmTable};

use crate::series_schema::SeriesSchema;

/// Bytes that the distinct texts of a column, or the distinct keys, may take: this part of the budget.
const DICTIONARY_PART: u64 = 8;
const DICTIONARY_BYTES_MAX: u64 = 64 << 20;
const DICTIONARY_BYTES_MIN: u64 = 64 << 10;
/// What a table takes without a row, about, with what is known of its segments.
const TABLE_BYTES: u64 = 4 << 10;

/// A series as segments hold it: its table, and where its columns are.
#[derive(Debug)]
pub(super) struct SeriesTable {
    pub(super) table: Arc<WarmTable>,
    /// Of each column of the series its number in the table, if segments hold it.
    pub(super) columns: Arc<[Option<usize>]>,
    /// What dictionaries and keys take of the memory budget.
    memory: Mutex<Account>,
}

impl SeriesTable {
    /// A table of all columns that segments can hold, but for those that are named in `left_out`.
    pub(super) fn try_new(
        schema: &SeriesSchema,
        left_out: &[String],
        memory: &MemoryBudget,
    ) -> Result<Self, WarmError> {
        let columns = schema.columns();
        let mut places = Vec::with_capacity(columns.fields().len());
        let mut held = Vec::new();
        for field in columns.fields() {
            let is_held = Form::of(field.data_type()).is_some() && !left_out.contains(field.name());
            places.push(is_held.then_some(held.len()));
            if is_held {
                held.push(Arc::clone(field));
            }
        }
        let place = |column: usize| {
            let field = columns.field(column);
            places.get(column).copied().flatten().ok_or_else(|| {
                let (column, data_type) = (field.name().clone(), field.data_type().clone());
                WarmError::from(Unsupported::NotHeld { column, data_type })
            })
        };
        let time = place(schema.time_index())?;
        let keys = schema.keys().iter().map(|key| place(*key)).collect::<Result<Vec<_>, _>>()?;
        let bytes = memory.limit() / 4 / DICTIONARY_PART;
        let bytes = bytes.clamp(DICTIONARY_BYTES_MIN, DICTIONARY_BYTES_MAX);
        let spec = TableSpec::try_new(Arc::new(Schema::new(held)), time, keys)?
            .with_dictionary_bytes_max(usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut account = memory.account(Holder::Warm);
        account.try_set(TABLE_BYTES).map_err(|shortage| WarmError::OutOfMemory {
            wanted: shortage.bytes,
            free: shortage.free,
        })?;
        let memory = Mutex::new(account);
        Ok(Self { table: WarmTable::new(spec), columns: places.into(), memory })
    }

    /// The columns that segments hold, of rows with at least those of the series.
    pub(super) fn held(&self, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, WarmError> {
        let held: Vec<usize> =
            (0..self.columns.len()).filter(|column| self.columns[*column].is_some()).collect();
        Ok(batches.iter().map(|batch| batch.project(&held)).collect::<Result<_, _>>()?)
    }

    /// Bytes that a row takes in a segment, about, without its key.
    pub(super) fn row_bytes(&self) -> u64 {
        let spec = self.table.spec();
        let width = |column: usize| {
            let form = spec.form(column).ok().filter(|_| spec.key_position(column).is_none());
            form.map_or(0, |form| form.physical_type().primitive_width().unwrap_or(1))
        };
        (0..spec.columns()).map(width).sum::<usize>() as u64
    }

    /// Says to the memory budget what dictionaries and keys take.
    pub(super) fn count_memory(&self) {
        let bytes = TABLE_BYTES + self.table.bytes() as u64;
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).set(bytes);
    }
}
