//! Tables: what the segments of one series and schema have in common.
//!
//! ```text
//!  batches ─ encode ─▶ numbers of keys, times, arrays in physical types ─ a backend sorts and holds them
//!                          │ grows                                              │ finds rows, or groups
//!                     dictionaries, keys ◀──────────── decode ──────────────────┘
//! ```
//!
//! Dictionaries and keys only grow, so that a code means the same in all segments. They grow before
//! rows are sealed, and what they have learnt stays if sealing fails: it is no row.

mod decode;
mod dictionary;
mod encode;
mod keys;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use crate::error::{Invalid, WarmError};
use crate::segment::Segment;
use crate::spec::{Form, Place, TableSpec};
use crate::value::Value;

use dictionary::Dictionary;
pub use encode::Encoded;
pub use keys::KeyDirectory;

/// A series in one schema: the spec, a dictionary for each column of text, and the keys.
#[derive(Debug)]
pub struct WarmTable {
    id: u64,
    spec: TableSpec,
    /// Of each column of text.
    dictionaries: Vec<Option<RwLock<Dictionary>>>,
    keys: RwLock<Arc<KeyDirectory>>,
    /// A directory without keys.
    no_keys: Arc<KeyDirectory>,
}

impl WarmTable {
    /// A table that has no segment yet.
    #[must_use]
    pub fn new(spec: TableSpec) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let text = |column| matches!(spec.form(column), Ok(Form::Code));
        let dictionaries = (0..spec.columns())
            .map(|column| text(column).then(|| RwLock::new(Dictionary::default())))
            .collect();
        let keys = RwLock::new(Arc::new(KeyDirectory::new(spec.keys().len())));
        let no_keys = Arc::new(KeyDirectory::new(spec.keys().len()));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, spec, dictionaries, keys, no_keys })
    }

    /// A number that no other table of this process has.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Schema and roles of the columns.
    #[must_use]
    pub const fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// The keys seen until now.
    #[must_use]
    pub fn keys(&self) -> Arc<KeyDirectory> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes that dictionaries and keys take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts: usize = (0..self.spec.columns())
            .filter_map(|column| self.dictionary(column))
            .map(|dictionary| dictionary.bytes())
            .sum();
        texts + self.keys().bytes()
    }

    /// The image of a value of a column, or none if no row can have it: a text that the dictionary
    /// does not know, an integer out of range of 64 bits, a value of another family.
    #[must_use]
    pub fn image(&self, column: usize, value: &Value) -> Option<i64> {
        let form = self.spec.form(column).ok()?;
        match (form, value) {
            (Form::Code, Value::Text(text)) => self.dictionary(column)?.code(text).map(i64::from),
            _ => match form.place(value) {
                Some(Place::At(image)) => Some(image),
                _ => None,
            },
        }
    }

    /// One bit for each code of a column of text: whether its text is accepted.
    #[must_use]
    pub fn codes_of(&self, column: usize, accept: impl Fn(&str) -> bool) -> BooleanBuffer {
        let Some(dictionary) = self.dictionary(column) else {
            return BooleanBuffer::new_unset(0);
        };
        let mut bits = BooleanBufferBuilder::new(dictionary.len());
        for text in dictionary.texts() {
            bits.append(accept(text));
        }
        bits.finish()
    }

    /// The number of a key, given by a value for each key column, if the table has seen it.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`] if there are more or fewer values than key columns.
    pub fn key_number(&self, values: &[Value]) -> Result<Option<u32>, WarmError> {
        let expected = self.spec.keys().len();
        if values.len() != expected {
            return Err(Invalid::KeyLength { found: values.len(), expected }.into());
        }
        let mut images = Vec::with_capacity(expected);
        for (value, &column) in values.iter().zip(self.spec.keys()) {
            match value {
                Value::Null => images.push(None),
                value => match self.image(column, value) {
                    Some(image) => images.push(Some(image)),
                    None => return Ok(None),
                },
            }
        }
        Ok(self.keys().number(&images))
    }

    /// Refuses a segment of another table.
    ///
    /// # Errors
    ///
    /// [`WarmError::Invalid`].
    pub fn check_segment(&self, segment: &Segment) -> Result<(), WarmError> {
        if segment.table().id == self.id {
            return Ok(());
        }
        Err(Invalid::ForeignSegment { segment: segment.id() }.into())
    }

    fn dictionary(&self, column: usize) -> Option<RwLockReadGuard<'_, Dictionary>> {
        let dictionary = self.dictionaries.get(column)?.as_ref()?;
        Some(dictionary.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn dictionary_mut(&self, column: usize) -> Option<RwLockWriteGuard<'_, Dictionary>> {
        let dictionary = self.dictionaries.get(column)?.as_ref()?;
        Some(dictionary.write().unwrap_or_else(PoisonError::into_inner))
    }
}
