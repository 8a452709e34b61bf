//! The distinct texts of a column, numbered in the order in which they came.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray};

use crate::error::Unsupported;

/// Bytes that an entry takes beside its text, about.
const ENTRY_BYTES: usize = 64;

/// Texts and their codes.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    codes: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    text_bytes: usize,
    /// The texts as an array, as long as the dictionary was when it was last asked for.
    array: Option<ArrayRef>,
}

impl Dictionary {
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Bytes taken, about.
    pub(super) fn bytes(&self) -> usize {
        2 * self.text_bytes + self.texts.len() * ENTRY_BYTES
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(AsRef::as_ref)
    }

    pub(super) fn code(&self, text: &str) -> Option<u32> {
        self.codes.get(text).copied()
    }

    /// The code of a text, a new one if need be.
    pub(super) fn intern(
        &mut self,
        text: &str,
        bytes_max: usize,
        column: &str,
    ) -> Result<u32, Unsupported> {
        if let Some(code) = self.code(text) {
            return Ok(code);
        }
        let full = || Unsupported::DictionaryFull { column: column.to_owned(), bytes_max };
        let code = u32::try_from(self.texts.len()).map_err(|_| full())?;
        if self.bytes() + 2 * text.len() + ENTRY_BYTES > bytes_max {
            return Err(full());
        }
        let text: Arc<str> = text.into();
        self.text_bytes += text.len();
        self.codes.insert(Arc::clone(&text), code);
        self.texts.push(text);
        Ok(code)
    }

    /// The texts by code, if the array that was made last has all of them.
    pub(super) fn array(&self) -> Option<ArrayRef> {
        self.array.as_ref().filter(|array| array.len() == self.texts.len()).map(Arc::clone)
    }

    /// The texts by code, as `Utf8View`.
    pub(super) fn array_mut(&mut self) -> ArrayRef {
        if let Some(array) = self.array() {
            return array;
        }
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(self.texts()));
        self.array = Some(Arc::clone(&array));
        array
    }
}
