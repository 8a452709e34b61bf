//! The records of runs that kernels give, added up by group, and what is said about each.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, UInt64Array};
use tidelog_warm::{Aggregate, Function, TableSpec, WarmError, array_of_images};

use crate::abi::{RECORD_HEAD, SLOT_WORDS, record_words};

/// A column whose values are added up, as integers or as floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) column: usize,
    pub(super) as_float: bool,
}

/// The slots of some aggregates, each once.
pub(super) fn slots_of(spec: &TableSpec, aggregates: &[Aggregate]) -> Result<Vec<Slot>, WarmError> {
    let mut slots: Vec<Slot> = Vec::new();
    for aggregate in aggregates {
        if let Some(slot) = slot_of(spec, *aggregate)?
            && !slots.contains(&slot)
        {
            slots.push(slot);
        }
    }
    Ok(slots)
}

fn slot_of(spec: &TableSpec, aggregate: Aggregate) -> Result<Option<Slot>, WarmError> {
    let Some(column) = aggregate.column else { return Ok(None) };
    let as_float = spec.form(column)?.is_float() || aggregate.function == Function::Avg;
    Ok(Some(Slot { column, as_float }))
}

/// A sum of floats, and what it has lost by rounding.
#[derive(Debug, Clone, Copy, Default)]
struct FloatSum {
    sum: f64,
    rest: f64,
}

impl FloatSum {
    fn add(&mut self, other: Self) {
        let old = self.sum;
        self.sum = old + other.sum;
        let part = self.sum - old;
        self.rest += (old - (self.sum - part)) + (other.sum - part) + other.rest;
    }

    /// Infinities and NaN have no rest that means anything.
    fn value(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.rest } else { self.sum }
    }
}

/// What is added up of a slot for a group.
#[derive(Debug, Clone, Copy)]
struct Total {
    count: u64,
    integer: u64,
    float: FloatSum,
    least: i64,
    greatest: i64,
}

impl Default for Total {
    fn default() -> Self {
        let (integer, float) = (0, FloatSum::default());
        Self { count: 0, integer, float, least: i64::MAX, greatest: i64::MIN }
    }
}

impl Total {
    fn add(&mut self, slot: Slot, words: &[u64]) {
        let &[count, sum, rest, least, greatest] = words else { return };
        self.count += count;
        if slot.as_float {
            self.float.add(FloatSum { sum: f64::from_bits(sum), rest: f64::from_bits(rest) });
        } else {
            self.integer = self.integer.wrapping_add(sum);
        }
        self.least = self.least.min(least.cast_signed());
        self.greatest = self.greatest.max(greatest.cast_signed());
    }
}

/// Totals by group.
#[derive(Debug)]
pub(super) struct Groups {
    slots: Vec<Slot>,
    numbers: HashMap<(u32, i64), usize>,
    /// Of each group that of its keys.
    pub(super) keys: Vec<u32>,
    /// Of each group where its bucket starts.
    pub(super) starts: Vec<i64>,
    rows: Vec<u64>,
    /// Of each group those of all slots.
    totals: Vec<Total>,
}

impl Groups {
    pub(super) fn new(slots: Vec<Slot>) -> Self {
        let (keys, starts, rows, totals) = (vec![], vec![], vec![], vec![]);
        Self { slots, numbers: HashMap::new(), keys, starts, rows, totals }
    }

    /// The slots, all of them.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The number of a group, a new one if need be.
    pub(super) fn number(&mut self, keys: u32, start: i64) -> usize {
        let next = self.keys.len();
        let number = *self.numbers.entry((keys, start)).or_insert(next);
        if number == next {
            self.keys.push(keys);
            self.starts.push(start);
            self.rows.push(0);
            self.totals.resize(self.totals.len() + self.slots.len(), Total::default());
        }
        number
    }

    /// Adds records of runs: of `count` slots from `first` on. Rows are counted with the first.
    ///
    /// Gives how many rows there were.
    pub(super) fn add(
        &mut self,
        records: &[u64],
        (first, count): (usize, usize),
        keys_of_piece: impl Fn(u64) -> u32,
    ) -> u64 {
        let mut rows = 0;
        for record in records.chunks_exact(record_words(count)) {
            let (head, slots) = record.split_at(RECORD_HEAD);
            let &[piece, start, matched] = head else { continue };
            if matched == 0 {
                continue;
            }
            let group = self.number(keys_of_piece(piece), start.cast_signed());
            if first == 0 {
                self.rows[group] += matched;
                rows += matched;
            }
            for (number, words) in slots.chunks_exact(SLOT_WORDS).enumerate() {
                let slot = self.slots[first + number];
                self.totals[group * self.slots.len() + first + number].add(slot, words);
            }
        }
        rows
    }

    /// The columns of the partial states, those of least and greatest values in the physical type.
    pub(super) fn states(
        &self,
        spec: &TableSpec,
        aggregates: &[Aggregate],
    ) -> Result<Vec<ArrayRef>, WarmError> {
        let mut states: Vec<ArrayRef> = Vec::new();
        for &aggregate in aggregates {
            let Some(slot) = slot_of(spec, aggregate)? else {
                let counts = self.rows.iter().map(|rows| rows.cast_signed());
                states.push(Arc::new(Int64Array::from_iter_values(counts)));
                continue;
            };
            self.push_states(spec, aggregate.function, slot, &mut states)?;
        }
        Ok(states)
    }

    fn push_states(
        &self,
        spec: &TableSpec,
        function: Function,
        slot: Slot,
        states: &mut Vec<ArrayRef>,
    ) -> Result<(), WarmError> {
        let form = spec.form(slot.column)?;
        let place = self.slots.iter().position(|other| *other == slot).unwrap_or(0);
        let totals = self.totals.chunks_exact(self.slots.len()).map(|totals| &totals[place]);
        let value = |total: &Total| total.float.value();
        let float = |total: &Total| (total.count > 0).then(|| value(total));
        match function {
            Function::Count => {
                let counts = totals.map(|total| total.count.cast_signed());
                states.push(Arc::new(Int64Array::from_iter_values(counts)));
            }
            Function::Sum if slot.as_float => {
                states.push(Arc::new(totals.map(float).collect::<Float64Array>()));
            }
            Function::Sum if form.is_unsigned() => {
                let sums = totals.map(|total| (total.count > 0).then_some(total.integer));
                states.push(Arc::new(sums.collect::<UInt64Array>()));
            }
            Function::Sum => {
                let sum = |total: &Total| (total.count > 0).then(|| total.integer.cast_signed());
                states.push(Arc::new(totals.map(sum).collect::<Int64Array>()));
            }
            Function::Min => {
                let ends = totals.map(|total| (total.count > 0).then_some(total.least));
                states.push(array_of_images(form, ends));
            }
            Function::Max => {
                let ends = totals.map(|total| (total.count > 0).then_some(total.greatest));
                states.push(array_of_images(form, ends));
            }
            Function::Avg => {
                let count = |total: &Total| (total.count > 0).then_some(total.count);
                states.push(Arc::new(totals.clone().map(count).collect::<UInt64Array>()));
                states.push(Arc::new(totals.map(float).collect::<Float64Array>()));
            }
        }
        Ok(())
    }
}
