//! The newest event time of each key that was passed on.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::hash_utils::RandomState;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

/// Beyond so many keys none are added.
const KEYS_MAX: usize = 1 << 20;
/// What an entry takes besides its key, about.
const ENTRY_BYTES: usize = 64;
/// After so many rows it is judged whether keys come again often enough for the effort to pay.
const TRIAL_ROWS: usize = 1 << 18;

/// The newest event time of each key; shared by the partitions of one execution.
///
/// Keys are told apart by Arrow's row format, in which values are equal only if their bits are: at
/// least as finely as any aggregate groups them.
#[derive(Debug)]
pub(super) struct KeyTimes {
    rows: RowConverter,
    /// Without dictionaries, which different files lay out differently.
    types: Vec<DataType>,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    times: HashMap<Box<[u8]>, i64, RandomState>,
    memory: Option<MemoryReservation>,
    /// Rows that asked to pass, and those of them whose key was not known.
    rows: usize,
    rows_unknown: usize,
}

impl KeyTimes {
    /// No keys yet, of columns of these types.
    pub(super) fn try_new(types: impl Iterator<Item = DataType>) -> Result<Self> {
        let types: Vec<DataType> = types
            .map(|data_type| match data_type {
                DataType::Dictionary(_, values) => *values,
                other => other,
            })
            .collect();
        let rows = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        Ok(Self { rows, types, known: RwLock::default() })
    }

    /// Takes memory for keys from `pool` from now on.
    pub(super) fn account(&self, pool: &Arc<dyn MemoryPool>) {
        let consumer = || MemoryConsumer::new("newest event time of each key").register(pool);
        self.write().memory.get_or_insert_with(consumer);
    }

    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// How many keys are known; none if leaving out rows has proved not to pay.
    pub(super) fn count(&self) -> usize {
        let known = self.read();
        if known.pays() { known.times.len() } else { 0 }
    }

    /// Whether each of these keys is known with an event time after `bound`.
    pub(super) fn outdo_all(&self, keys: &[ArrayRef], bound: i64) -> Result<bool> {
        let rows = self.encode(keys)?;
        let known = self.read();
        Ok(rows.iter().all(|key| known.outdoes(key.as_ref(), bound)))
    }

    /// Which of these keys are not known with an event time after `bound`.
    pub(super) fn not_outdone(&self, keys: &[ArrayRef], bound: i64) -> Result<BooleanArray> {
        let rows = self.encode(keys)?;
        let known = self.read();
        Ok(rows.iter().map(|key| Some(!known.outdoes(key.as_ref(), bound))).collect())
    }

    /// Which of these rows to pass on: those without a later one of their key. They are known
    /// from now on.
    pub(super) fn pass(&self, keys: &[ArrayRef], times: &Int64Array) -> Result<BooleanArray> {
        if !self.read().pays() {
            return Ok(BooleanArray::from(vec![true; times.len()]));
        }
        let rows = self.encode(keys)?;
        let mut kept = vec![false; times.len()];
        let mut known = self.write();
        // Within a file rows mostly lie in ascending order of time, so the newest come first here.
        for (row, keep) in kept.iter_mut().enumerate().rev() {
            *keep = known.pass(rows.row(row).as_ref(), times.value(row));
        }
        known.rows += kept.len();
        Ok(BooleanArray::from(kept))
    }

    fn encode(&self, keys: &[ArrayRef]) -> Result<Rows> {
        let plain = keys.iter().zip(&self.types).map(|(key, data_type)| {
            Ok(if key.data_type() == data_type { Arc::clone(key) } else { cast(key, data_type)? })
        });
        Ok(self.rows.convert_columns(&plain.collect::<Result<Vec<_>>>()?)?)
    }

    // What is known stays true if a thread dies while it holds the lock.
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn outdoes(&self, key: &[u8], time: i64) -> bool {
        self.times.get(key).is_some_and(|newest| *newest > time)
    }

    fn pass(&mut self, key: &[u8], time: i64) -> bool {
        match self.times.get_mut(key) {
            Some(newest) if *newest > time => return false,
            Some(newest) => *newest = time,
            None => {
                self.rows_unknown += 1;
                self.add(key, time);
            }
        }
        true
    }

    fn add(&mut self, key: &[u8], time: i64) {
        let room = self.times.len() < KEYS_MAX
            && self
                .memory
                .as_ref()
                .is_none_or(|memory| memory.try_grow(key.len() + ENTRY_BYTES).is_ok());
        if room {
            self.times.insert(key.into(), time);
        }
    }

    /// Whether keys come again at all.
    fn pays(&self) -> bool {
        self.rows < TRIAL_ROWS || self.rows_unknown < self.rows / 4 * 3
    }
}
