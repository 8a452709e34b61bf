//! The keys of a table, numbered in the order in which they came.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Unsupported;

/// The images of a key's values, in the order of the key columns.
type Images = Arc<[Option<i64>]>;

/// Bytes that a key takes beside its images, about.
const ENTRY_BYTES: usize = 64;

/// The keys that a table has seen.
///
/// Numbers are dense, from 0. A table without key columns has one key, of number 0.
#[derive(Debug, Clone)]
pub struct KeyDirectory {
    columns: usize,
    numbers: HashMap<Images, u32>,
    keys: Vec<Images>,
}

impl KeyDirectory {
    pub(super) fn new(columns: usize) -> Self {
        let mut directory = Self { columns, numbers: HashMap::new(), keys: Vec::new() };
        if columns == 0 {
            directory.insert(Arc::new([]), 0);
        }
        directory
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The image of a value of a key, null for none: of the key column at this position among the
    /// key columns.
    #[must_use]
    pub fn image(&self, key: u32, position: usize) -> Option<i64> {
        self.keys[key as usize][position]
    }

    /// The number of a key, by the images of its values.
    #[must_use]
    pub fn number(&self, images: &[Option<i64>]) -> Option<u32> {
        self.numbers.get(images).copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.len() * (16 * self.columns + ENTRY_BYTES)
    }

    /// The number of a key, a new one if need be.
    pub(super) fn intern(
        &mut self,
        images: &[Option<i64>],
        bytes_max: usize,
        column: &str,
    ) -> Result<u32, Unsupported> {
        if let Some(number) = self.number(images) {
            return Ok(number);
        }
        let full = || Unsupported::DictionaryFull { column: column.to_owned(), bytes_max };
        let number = u32::try_from(self.keys.len()).map_err(|_| full())?;
        if self.bytes() + 16 * self.columns + ENTRY_BYTES > bytes_max {
            return Err(full());
        }
        self.insert(images.into(), number);
        Ok(number)
    }

    fn insert(&mut self, images: Images, number: u32) {
        self.numbers.insert(Arc::clone(&images), number);
        self.keys.push(images);
    }
}
