//! Groups that have a row, numbered in the order in which they were met.

use std::collections::HashMap;

use crate::bound::{Bucket, Grouping};

/// Groups times buckets up to which every combination has a place in a table, whatever the rows are. With
/// more rows it may have two places for each, up to [`DENSE_MAX`].
const DENSE_MIN: u64 = 1 << 16;
const DENSE_MAX: u64 = 1 << 24;

/// No slot yet.
const EMPTY: u32 = u32::MAX;

/// The slots of the groups met.
pub(super) struct Slots {
    places: Places,
    /// The group of keys of each slot.
    pub(super) groups: Vec<u32>,
    /// The start of the bucket of each slot; 0 without buckets.
    pub(super) starts: Vec<i64>,
}

enum Places {
    /// By group, then bucket, counted from the first.
    Dense {
        bucket: Option<Bucket>,
        first: i64,
        buckets: u64,
        slots: Vec<u32>,
    },
    Sparse(HashMap<(u32, i64), u32>),
}

impl Slots {
    /// For so many rows at most, within these times.
    pub(super) fn new(grouping: &Grouping, time: Option<(i64, i64)>, rows: usize) -> Self {
        let places = Places::new(grouping, time, 2 * rows as u64);
        Self { places, groups: Vec::new(), starts: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The slot of a group and bucket, a new one if need be.
    pub(super) fn slot(&mut self, group: u32, start: i64) -> usize {
        let slot = match &mut self.places {
            Places::Dense { bucket, first, buckets, slots } => {
                let number = match bucket {
                    Some(bucket) => {
                        start.wrapping_sub(*first).cast_unsigned() / bucket.width().cast_unsigned()
                    }
                    None => 0,
                };
                let place = u64::from(group) * *buckets + number;
                // Within the table, which has less than 2^32 places.
                &mut slots[usize::try_from(place).unwrap_or(usize::MAX)]
            }
            Places::Sparse(slots) => slots.entry((group, start)).or_insert(EMPTY),
        };
        if *slot == EMPTY {
            *slot = u32::try_from(self.groups.len()).unwrap_or(EMPTY);
            self.groups.push(group);
            self.starts.push(start);
        }
        *slot as usize
    }
}

impl Places {
    fn new(grouping: &Grouping, time: Option<(i64, i64)>, places_max: u64) -> Self {
        let places_max = places_max.clamp(DENSE_MIN, DENSE_MAX);
        let groups = grouping.keys.len() as u64;
        let (first, buckets) = match (grouping.bucket, time) {
            (Some(bucket), Some((least, greatest))) => {
                let (first, last) = (bucket.start(least), bucket.start(greatest));
                let apart = last.wrapping_sub(first).cast_unsigned();
                (first, (apart / bucket.width().cast_unsigned()).saturating_add(1))
            }
            _ => (0, 1),
        };
        match groups.checked_mul(buckets).filter(|places| *places <= places_max) {
            Some(places) => {
                let slots = vec![EMPTY; usize::try_from(places).unwrap_or(0)];
                Self::Dense { bucket: grouping.bucket, first, buckets, slots }
            }
            None => Self::Sparse(HashMap::new()),
        }
    }
}
