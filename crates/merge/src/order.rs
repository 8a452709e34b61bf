//! The comparison of rows with equal times: by keys, then by version.
//!
//! Comparators are built when two chunks meet at an equal time for the first time, and kept for the
//! pair of inputs until one of the chunks is consumed. A merge of inputs that share no times builds
//! none.

use std::cmp::Ordering;

use arrow::array::{DynComparator, make_comparator};
use arrow::compute::SortOptions;

use crate::chunk::Chunk;
use crate::error::Error;
use crate::ranks::KeyRanks;

/// A row of a chunk of an input.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) input: usize,
    pub(crate) chunk: &'a Chunk,
    pub(crate) row: usize,
}

impl Row<'_> {
    pub(crate) fn time(&self) -> i64 {
        self.chunk.times[self.row]
    }

    /// Versions are equal where the spec names no version column.
    pub(crate) fn cmp_version(&self, other: &Self) -> Ordering {
        match (&self.chunk.versions, &other.chunk.versions) {
            (Some(left), Some(right)) => left[self.row].cmp(&right[other.row]),
            _ => Ordering::Equal,
        }
    }

    /// Compares keys with comparators made for this once.
    pub(crate) fn cmp_keys_once(&self, other: &Self) -> Result<Ordering, Error> {
        let comparators = Comparators::try_new(self.chunk, other.chunk)?;
        Ok(comparators.compare(self.row, other.row))
    }
}

/// Compares the keys of rows of current chunks, and remembers how.
pub(crate) struct KeyOrder {
    inputs: usize,
    /// By pair of inputs, lower one first; empty until the first comparison.
    pairs: Vec<Option<Box<Comparators>>>,
    /// For windows with many ties.
    pub(crate) ranks: KeyRanks,
}

impl KeyOrder {
    pub(crate) fn new(inputs: usize) -> Self {
        Self { inputs, pairs: Vec::new(), ranks: KeyRanks::default() }
    }

    /// Compares the keys of two rows, nulls first.
    pub(crate) fn cmp_keys(&mut self, a: Row<'_>, b: Row<'_>) -> Result<Ordering, Error> {
        if a.chunk.keys.is_empty() {
            return Ok(Ordering::Equal);
        }
        if a.input > b.input {
            return Ok(self.cmp_keys(b, a)?.reverse());
        }
        if self.pairs.is_empty() {
            self.pairs.resize_with(self.inputs * self.inputs, || None);
        }
        let slot = &mut self.pairs[a.input * self.inputs + b.input];
        let comparators = match slot {
            Some(known) => known,
            None => slot.insert(Box::new(Comparators::try_new(a.chunk, b.chunk)?)),
        };
        debug_assert!(comparators.is_of(a.chunk, b.chunk), "forgotten when a chunk is consumed");
        Ok(comparators.compare(a.row, b.row))
    }

    /// Compares two rows of equal time in the whole order of the merge.
    pub(crate) fn cmp_tied(&mut self, a: Row<'_>, b: Row<'_>) -> Result<Ordering, Error> {
        let keys = self.cmp_keys(a, b)?;
        Ok(keys.then_with(|| a.cmp_version(&b)).then(a.input.cmp(&b.input)))
    }

    /// Drops what refers to the current chunk of an input, so that the chunk can be freed.
    pub(crate) fn forget(&mut self, input: usize) {
        self.ranks.forget(input);
        if self.pairs.is_empty() {
            return;
        }
        for other in 0..self.inputs {
            let (low, high) = (input.min(other), input.max(other));
            self.pairs[low * self.inputs + high] = None;
        }
    }
}

/// One comparator per key column, for a pair of chunks.
struct Comparators {
    left: u64,
    right: u64,
    columns: Vec<DynComparator>,
}

impl Comparators {
    fn try_new(left: &Chunk, right: &Chunk) -> Result<Self, Error> {
        // Ascending with nulls first; nulls compare as equal to each other, also where a
        // dictionary has a null among its values.
        let options = SortOptions { descending: false, nulls_first: true };
        let columns = left
            .keys
            .iter()
            .zip(&right.keys)
            .map(|(left, right)| make_comparator(left, right, options))
            .collect::<Result<_, _>>()
            .map_err(Error::arrow("compare key columns"))?;
        Ok(Self { left: left.id, right: right.id, columns })
    }

    fn is_of(&self, left: &Chunk, right: &Chunk) -> bool {
        self.left == left.id && self.right == right.id
    }

    fn compare(&self, left: usize, right: usize) -> Ordering {
        self.columns
            .iter()
            .map(|compare| compare(left, right))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}
