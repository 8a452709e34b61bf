//! Keys as small numbers in the order of the keys.
//!
//! Where many inputs have rows of one time, as where each holds one sensor of many that are read at once,
//! nearly every comparison is one of keys. Each distinct key then gets a number once, so that a row costs
//! one look-up instead of many comparisons, and a window orders its rows by numbers alone.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use crate::chunk::Chunk;
use crate::window::Head;

/// With more distinct keys they are compared.
const KEYS_MAX: usize = 1 << 16;

/// The keys that a merge has met, and which rows of current chunks have which.
#[derive(Default)]
pub(crate) struct KeyRanks {
    state: State,
    /// By input; those of the chunk that it names.
    ids: Vec<Option<(u64, Ids)>>,
}

#[derive(Default)]
enum State {
    #[default]
    Unused,
    Used(Table),
    /// The keys are too many, or of a type that has no order as bytes.
    Unusable,
}

/// The keys of the rows of a chunk, by order of arrival.
enum Ids {
    Same(u32),
    Each(Vec<u32>),
}

/// Distinct keys, as bytes that compare as the keys do.
struct Table {
    converter: RowConverter,
    ids: HashMap<Box<[u8]>, u32>,
    /// The place of each key among all, by its number.
    ranks: Vec<u32>,
}

impl KeyRanks {
    pub(crate) fn is_usable(&self) -> bool {
        !matches!(self.state, State::Unusable)
    }

    /// The ranks of the rows of the heads; `None` where there are none.
    pub(crate) fn of<'a>(&'a mut self, heads: &[Head<'_>]) -> Option<Ranks<'a>> {
        let inputs = heads.iter().map(|head| head.input + 1).max()?;
        self.ids.resize_with(self.ids.len().max(inputs), || None);
        for head in heads {
            let slot = &mut self.ids[head.input];
            if slot.as_ref().is_some_and(|(chunk, _)| *chunk == head.chunk.id) {
                continue;
            }
            *slot = self.state.ids(head.chunk).map(|ids| (head.chunk.id, ids));
            if slot.is_none() {
                *self = Self { state: State::Unusable, ids: Vec::new() };
                return None;
            }
        }
        let State::Used(table) = &self.state else { return None };
        let ids = heads.iter().filter_map(|head| self.ids[head.input].as_ref().map(|(_, ids)| ids));
        Some(Ranks { ids: ids.collect(), table })
    }

    /// Drops what is known of the current chunk of an input.
    pub(crate) fn forget(&mut self, input: usize) {
        if let Some(slot) = self.ids.get_mut(input) {
            *slot = None;
        }
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let of_rows = self.ids.iter().flatten().map(|(_, ids)| match ids {
            Ids::Same(_) => 0,
            Ids::Each(ids) => ids.capacity() * size_of::<u32>(),
        });
        let of_keys = match &self.state {
            State::Used(table) => table.bytes(),
            _ => 0,
        };
        of_rows.sum::<usize>() + of_keys
    }
}

impl State {
    /// The keys of a chunk; `None` if they cannot be numbered.
    fn ids(&mut self, chunk: &Chunk) -> Option<Ids> {
        if matches!(self, Self::Unused) {
            *self = Table::try_new(&chunk.keys).map_or(Self::Unusable, Self::Used);
        }
        match self {
            Self::Used(table) => table.ids(&chunk.keys),
            _ => None,
        }
    }
}

impl Table {
    /// None for keys whose bytes may not compare as [`make_comparator`](arrow::array::make_comparator) does.
    fn try_new(keys: &[ArrayRef]) -> Option<Self> {
        let options = SortOptions { descending: false, nulls_first: true };
        let is_flat = |key: &DataType| match key {
            DataType::Dictionary(_, values) => !values.is_nested(),
            other => !other.is_nested(),
        };
        if keys.is_empty() || !keys.iter().all(|key| is_flat(key.data_type())) {
            return None;
        }
        let fields =
            keys.iter().map(|key| SortField::new_with_options(key.data_type().clone(), options));
        let converter = RowConverter::new(fields.collect()).ok()?;
        Some(Self { converter, ids: HashMap::new(), ranks: Vec::new() })
    }

    fn ids(&mut self, keys: &[ArrayRef]) -> Option<Ids> {
        let rows = self.converter.convert_columns(keys).ok()?;
        let known = self.ids.len();
        let mut ids: Vec<u32> = Vec::with_capacity(rows.num_rows());
        let mut is_same = true;
        let mut last: Option<(&[u8], u32)> = None;
        for row in &rows {
            let key = row.data();
            let id = match last {
                Some((before, id)) if before == key => id,
                _ => {
                    is_same &= last.is_none();
                    self.id(key)?
                }
            };
            last = Some((key, id));
            ids.push(id);
        }
        if self.ids.len() > known {
            self.rank();
        }
        match last {
            Some((_, id)) if is_same => Some(Ids::Same(id)),
            _ => Some(Ids::Each(ids)),
        }
    }

    fn id(&mut self, key: &[u8]) -> Option<u32> {
        if let Some(id) = self.ids.get(key) {
            return Some(*id);
        }
        if self.ids.len() == KEYS_MAX {
            return None;
        }
        let id = u32::try_from(self.ids.len()).ok()?;
        self.ids.insert(key.into(), id);
        Some(id)
    }

    fn rank(&mut self) {
        let mut keys: Vec<(&[u8], u32)> = self.ids.iter().map(|(key, id)| (&**key, *id)).collect();
        keys.sort_unstable();
        self.ranks.resize(keys.len(), 0);
        for (rank, (_, id)) in (0..).zip(keys) {
            self.ranks[id as usize] = rank;
        }
    }

    fn bytes(&self) -> usize {
        const ENTRY: usize = size_of::<(Box<[u8]>, u32)>();
        let keys: usize = self.ids.keys().map(|key| key.len()).sum();
        keys + self.ids.capacity() * ENTRY + self.ranks.capacity() * size_of::<u32>()
    }
}

/// The ranks of the keys of rows of some heads.
pub(crate) struct Ranks<'a> {
    ids: Vec<&'a Ids>,
    table: &'a Table,
}

impl Ranks<'_> {
    /// The place of a row's key among all keys; `head` is its number among the heads.
    pub(crate) fn of(&self, head: usize, row: usize) -> u32 {
        let id = match self.ids[head] {
            Ids::Same(id) => *id,
            Ids::Each(ids) => ids[row],
        };
        self.table.ranks[id as usize]
    }

    /// How many bits a rank has.
    pub(crate) fn bits(&self) -> u32 {
        usize::BITS - self.table.ranks.len().leading_zeros()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray, make_comparator};
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    use super::*;

    fn rank_of(ranks: &KeyRanks, input: usize, row: usize) -> u32 {
        let State::Used(table) = &ranks.state else { panic!("keys that can be numbered") };
        Ranks { ids: vec![&ranks.ids[input].as_ref().unwrap().1], table }.of(0, row)
    }

    fn chunk(id: u64, keys: Vec<ArrayRef>) -> Arc<Chunk> {
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys[0].len() as i64));
        let mut columns = vec![("time".to_owned(), times)];
        columns.extend(keys.into_iter().enumerate().map(|(n, key)| (format!("key {n}"), key)));
        let batch = arrow::array::RecordBatch::try_from_iter(columns).unwrap();
        let keys: Vec<usize> = (1..batch.num_columns()).collect();
        let spec = crate::MergeSpec::new(batch.schema(), 0).with_keys(keys);
        Arc::new(Chunk::new(id, batch, &spec))
    }

    proptest! {
        #[test]
        fn ranks_compare_as_the_keys_do(
            inputs in prop::collection::vec(
                prop::collection::vec((prop::option::of("[ab\\x00]{0,3}"), prop::option::of(-2i64..3)), 1..20),
                1..5,
            ),
            as_dictionary: bool,
        ) {
            let chunks = inputs.iter().zip(0..).map(|(rows, id)| {
                let texts = rows.iter().map(|(text, _)| text.as_deref());
                let texts: ArrayRef = match as_dictionary {
                    true => Arc::new(texts.collect::<DictionaryArray<Int32Type>>()),
                    false => Arc::new(texts.collect::<StringArray>()),
                };
                let numbers: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>());
                chunk(id, vec![texts, numbers])
            });
            let chunks: Vec<_> = chunks.collect();
            let mut ranks = KeyRanks::default();
            let head = |input: usize| Head { input, chunk: &chunks[input], row: 0 };
            let heads: Vec<_> = (0..chunks.len()).map(head).collect();
            prop_assert!(ranks.of(&heads).is_some());
            let options = SortOptions { descending: false, nulls_first: true };
            for (a, left) in chunks.iter().enumerate() {
                for (b, right) in chunks.iter().enumerate() {
                    let columns = left.keys.iter().zip(&right.keys);
                    let columns: Vec<_> =
                        columns.map(|(l, r)| make_comparator(l, r, options).unwrap()).collect();
                    for i in 0..left.len() {
                        for j in 0..right.len() {
                            let expected = columns.iter().fold(std::cmp::Ordering::Equal, |o, c| o.then_with(|| c(i, j)));
                            let found = rank_of(&ranks, a, i).cmp(&rank_of(&ranks, b, j));
                            prop_assert_eq!(found, expected);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn more_keys_than_are_numbered_are_given_up() {
        let keys = |keys: std::ops::Range<i64>| -> Vec<ArrayRef> {
            vec![Arc::new(Int64Array::from_iter_values(keys))]
        };
        let limit = KEYS_MAX as i64;
        let (few, one_more) = (chunk(0, keys(0..limit)), chunk(1, keys(limit..limit + 1)));
        let mut ranks = KeyRanks::default();
        assert!(ranks.of(&[Head { input: 0, chunk: &few, row: 0 }]).is_some());
        assert!(ranks.bytes() > KEYS_MAX * size_of::<u32>());
        assert!(ranks.of(&[Head { input: 1, chunk: &one_more, row: 0 }]).is_none());
        assert!(!ranks.is_usable() && ranks.bytes() == 0);
    }
}
