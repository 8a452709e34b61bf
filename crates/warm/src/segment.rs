//! Segments: rows of one table, sorted, that a backend holds; and what is known of them without
//! looking.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;

use crate::error::WarmError;
use crate::images::image_ends;
use crate::spec::Form;
use crate::table::{Encoded, WarmTable};
use crate::value::Value;

/// The most rows of a segment.
pub const SEGMENT_ROWS_MAX: usize = u32::MAX as usize;

/// Rows of one table, ordered by number of the key, then time, then arrival. It never changes.
///
/// What a backend holds of it is given back when the segment is evicted or dropped and the last
/// request that reads it has ended. What is known of it stays.
pub struct Segment {
    id: u64,
    table: Arc<WarmTable>,
    stats: SegmentStats,
    runs: KeyRuns,
    used_at: AtomicU64,
    data: Mutex<Option<SegmentData>>,
}

/// What a backend holds of a segment, of a type that only this backend knows.
pub type SegmentData = Arc<dyn Any + Send + Sync>;

impl Segment {
    /// A segment that a backend has sealed.
    #[must_use]
    pub fn new(
        table: Arc<WarmTable>,
        stats: SegmentStats,
        runs: KeyRuns,
        data: SegmentData,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, table, stats, runs, used_at: AtomicU64::new(0), data: Mutex::new(Some(data)) }
    }

    /// A number that no other segment of this process has.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The table whose rows these are.
    #[must_use]
    pub const fn table(&self) -> &Arc<WarmTable> {
        &self.table
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.stats.rows
    }

    /// What is known of the rows, exactly.
    #[must_use]
    pub const fn stats(&self) -> &SegmentStats {
        &self.stats
    }

    /// Which rows belong to which key.
    #[must_use]
    pub const fn runs(&self) -> &KeyRuns {
        &self.runs
    }

    /// Whether the backend still holds the rows.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.lock().is_some()
    }

    /// What the backend holds. While the caller keeps it, it is not given back.
    ///
    /// # Errors
    ///
    /// [`WarmError::Evicted`].
    pub fn data(&self) -> Result<SegmentData, WarmError> {
        self.lock().clone().ok_or(WarmError::Evicted { segment: self.id })
    }

    /// Lets go of what the backend holds; tells whether there was something.
    pub(crate) fn release(&self) -> bool {
        // Freed after the lock is given back: it may take long.
        let data = self.lock().take();
        data.is_some()
    }

    /// Whether a request reads the rows now.
    pub(crate) fn is_in_use(&self) -> bool {
        self.lock().as_ref().is_some_and(|data| Arc::strong_count(data) > 1)
    }

    /// When it was last used, by the clock of a ledger.
    pub(crate) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    pub(crate) fn use_at(&self, tick: u64) {
        self.used_at.store(tick, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<SegmentData>> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("id", &self.id)
            .field("rows", &self.stats.rows)
            .field("resident", &self.is_resident())
            .finish_non_exhaustive()
    }
}

/// What is known of the rows of a segment, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStats {
    /// How many rows there are.
    pub rows: usize,
    /// Bytes that the backend holds for them, in its own memory.
    pub bytes: u64,
    /// Least and greatest time, in the unit of the time column. None without rows.
    pub time: Option<(i64, i64)>,
    /// Of each column of the table, in its order. None of columns that are left out.
    pub columns: Vec<Option<ColumnStats>>,
}

/// What is known of the values of a column in a segment, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnStats {
    /// How the values lie.
    pub form: Form,
    /// How many rows have no value.
    pub null_count: usize,
    /// Least and greatest image of the values, by `totalOrder` for floats, NaN included. None if there
    /// is no value.
    pub images: Option<(i64, i64)>,
    /// Whether a value is NaN.
    pub has_nan: bool,
}

impl ColumnStats {
    /// Least and greatest value. None if there is no value, if one is NaN, or for text.
    #[must_use]
    pub fn min_max(&self) -> Option<(Value, Value)> {
        let (least, greatest) = self.images.filter(|_| !self.has_nan)?;
        Some((self.form.value(least)?, self.form.value(greatest)?))
    }

    /// Of an array in the physical type of a form.
    fn of(form: Form, array: &ArrayRef) -> Self {
        let images = image_ends(form, array);
        let nan = |image: i64| form.value(image).is_some_and(|value| is_nan(&value));
        Self {
            form,
            null_count: array.null_count(),
            images,
            // NaNs are at both ends of the order.
            has_nan: form.is_float() && images.is_some_and(|(a, b)| nan(a) || nan(b)),
        }
    }

    /// Of images, one for each row.
    fn of_images(form: Form, images: impl Iterator<Item = (Option<i64>, usize)>) -> Self {
        let mut stats = Self { form, null_count: 0, images: None, has_nan: false };
        for (image, rows) in images {
            match image {
                None => stats.null_count += rows,
                Some(image) => {
                    let (least, greatest) = stats.images.unwrap_or((image, image));
                    stats.images = Some((least.min(image), greatest.max(image)));
                }
            }
        }
        stats
    }
}

impl SegmentStats {
    /// Of rows in any order, with the bytes that a backend holds for them.
    ///
    /// `runs` are those of the same rows, sorted.
    #[must_use]
    pub fn of(table: &WarmTable, rows: &Encoded, runs: &KeyRuns, bytes: u64) -> Self {
        let spec = table.spec();
        let directory = table.keys();
        let column = |column: usize| {
            let form = spec.form(column).ok()?;
            if let Some(position) = spec.key_position(column) {
                let of_run = |run: usize| {
                    let image = directory.image(runs.keys[run], position);
                    (image, runs.rows(run).len())
                };
                return Some(ColumnStats::of_images(form, (0..runs.len()).map(of_run)));
            }
            if column == spec.time() {
                return Some(ColumnStats {
                    form,
                    null_count: 0,
                    images: runs.time(),
                    has_nan: false,
                });
            }
            rows.columns[column].as_ref().map(|array| ColumnStats::of(form, array))
        };
        let columns = (0..spec.columns()).map(column).collect();
        Self { rows: rows.rows(), bytes, time: runs.time(), columns }
    }
}

/// The rows of each key of a segment, which lie together, ordered by time.
///
/// A table without key columns has one key, of number 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRuns {
    /// Numbers of the keys that have rows, ascending.
    pub keys: Vec<u32>,
    /// Where the rows of each begin, and at the end the number of rows: one more than keys.
    pub offsets: Vec<u32>,
    /// The least time of each.
    pub first_times: Vec<i64>,
    /// The greatest time of each.
    pub last_times: Vec<i64>,
}

impl KeyRuns {
    /// Of rows that are sorted: the number of the key and the time of each.
    ///
    /// Both slices have the same length, at most [`SEGMENT_ROWS_MAX`].
    #[must_use]
    pub fn of_sorted(keys: &[u32], times: &[i64]) -> Self {
        let mut runs =
            Self { keys: vec![], offsets: vec![0], first_times: vec![], last_times: vec![] };
        let mut start = 0;
        for run in keys.chunk_by(|a, b| a == b) {
            let end = start + run.len();
            runs.keys.push(run[0]);
            runs.first_times.push(times[start]);
            runs.last_times.push(times[end - 1]);
            runs.offsets.push(u32::try_from(end).unwrap_or(u32::MAX));
            start = end;
        }
        runs
    }

    /// How many keys have rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The rows of the key at this place.
    #[must_use]
    pub fn rows(&self, run: usize) -> std::ops::Range<usize> {
        self.offsets[run] as usize..self.offsets[run + 1] as usize
    }

    /// The place of a key, if it has rows.
    #[must_use]
    pub fn find(&self, key: u32) -> Option<usize> {
        self.keys.binary_search(&key).ok()
    }

    /// Least and greatest time of all rows.
    #[must_use]
    pub fn time(&self) -> Option<(i64, i64)> {
        Some((*self.first_times.iter().min()?, *self.last_times.iter().max()?))
    }

    /// Bytes that this takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.keys.len() as u64 * 24 + 4
    }
}

fn is_nan(value: &Value) -> bool {
    match value {
        Value::Float32(value) => value.is_nan(),
        Value::Float64(value) => value.is_nan(),
        _ => false,
    }
}
