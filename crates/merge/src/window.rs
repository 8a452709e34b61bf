//! Rows of many inputs that take turns nearly every row, put in order a window at a time.
//!
//! Where inputs are finely interleaved the tournament pays its bookkeeping for each row. A window takes
//! all rows before a time that no input can go back behind, writes time, input and place of each into one
//! number, and merges these two runs at a time, in as many passes as the inputs double. A merge of two runs
//! goes from both ends at once and without branches, so that the processor does both at a time (as the
//! sorts of Rust's standard library do: O. Peters and L. Bergdoll, *driftsort*, 2024).
//!
//! Where many rows have one time, the rank of the key is part of the number, too.
//!
//! Not here: deduplication, and rows of one input that nobody interrupts; both are the tournament's.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::error::Error;
use crate::order::{KeyOrder, Row};
use crate::ranks::Ranks;

/// Rows that one input gives to a window at most: so few that a window of some inputs stays in the
/// processor's cache.
const ROWS_MAX: usize = 1 << ROW_BITS;
const ROW_BITS: u32 = 11;
/// Rows of a window with many inputs at most, ...
const WINDOW_ROWS_MAX: usize = 1 << 15;
/// ... unless an input would give fewer rows than these: a window costs something by itself.
const ROWS_OF_MANY_MIN: usize = 64;
/// Fewer rows are left to the tournament.
const ROWS_MIN: usize = 32;
/// Runs so short, so many in a row, call for a window.
const SHORT_RUN: usize = 8;
const SHORT_RUNS: u32 = 8;
/// With more than one row in so many that is put in its place by comparing keys, these are ranked.
const TIED_ROWS_MAX: usize = 4;

/// Whether inputs take turns so often that a window pays.
#[derive(Debug, Default)]
pub(crate) struct Interleaving {
    short_runs: u32,
    /// Whether there were many ties.
    has_ties: bool,
}

impl Interleaving {
    /// Notes a run of the tournament.
    pub(crate) fn note(&mut self, run: usize) {
        self.short_runs = if run < SHORT_RUN { self.short_runs.saturating_add(1) } else { 0 };
    }

    pub(crate) fn is_fine(&self) -> bool {
        self.short_runs >= SHORT_RUNS
    }

    pub(crate) fn has_ties(&self) -> bool {
        self.has_ties
    }

    /// Notes a window, if there was one.
    pub(crate) fn note_window(&mut self, window: Option<&Window>, order: &KeyOrder) {
        let Some(window) = window else {
            self.short_runs = 0;
            return;
        };
        self.has_ties |= window.has_many_ties;
        let may_pay = !window.has_many_ties || order.ranks.is_usable();
        if !(window.is_fine && may_pay) {
            self.short_runs = 0;
        }
    }
}

/// What an input can give: its current chunk and the next row of it.
pub(crate) struct Head<'a> {
    pub(crate) input: usize,
    pub(crate) chunk: &'a Arc<Chunk>,
    pub(crate) row: usize,
}

/// A row of a window: place of its input among those that take part, row of the input's current chunk.
pub(crate) type Pick = (usize, usize);

/// Rows in the order of the merge, all before whatever else is to come.
#[derive(Debug, Default)]
pub(crate) struct Window {
    picks: Vec<Pick>,
    next: usize,
    /// The inputs that take part.
    inputs: Vec<usize>,
    /// Of each, its first row behind the window.
    ends: Vec<usize>,
    /// Whether its inputs take turns so often that another one is likely to pay.
    is_fine: bool,
    /// Whether many rows were put in their places by comparing keys.
    has_many_ties: bool,
}

impl Window {
    /// The rows that come next, as far as the heads can tell; `None` if they are too few.
    pub(crate) fn try_new(
        heads: &[Head<'_>],
        order: &mut KeyOrder,
        with_ranks: bool,
    ) -> Result<Option<Self>, Error> {
        let rows_max = (WINDOW_ROWS_MAX / heads.len().max(1)).clamp(ROWS_OF_MANY_MIN, ROWS_MAX);
        let reach = |head: &Head<'_>| (head.row + rows_max).min(head.chunk.len()) - 1;
        // All that follows has this time or a later one: so rows before it can be put in order.
        let Some(bound) = heads.iter().map(|head| head.chunk.times[reach(head)]).min() else {
            return Ok(None);
        };
        let end = |head: &Head<'_>| {
            let times = &head.chunk.times[head.row..=reach(head)];
            head.row + times.partition_point(|time| *time < bound)
        };
        let ends: Vec<usize> = heads.iter().map(end).collect();
        let rows: usize = heads.iter().zip(&ends).map(|(head, end)| end - head.row).sum();
        if rows < ROWS_MIN || heads.len() < 2 {
            return Ok(None);
        }
        let taken = Taken { heads, ends: &ends, rows };
        let ranks = if with_ranks { order.ranks.of(heads) } else { None };
        let ranked = ranks.as_ref().and_then(|ranks| taken.merged(Some(ranks)));
        let Some(merged) = ranked.or_else(|| taken.merged(None)) else { return Ok(None) };
        let Merged { mut picks, turns, ties } = merged;
        let tied = settle_ties(heads, &mut picks, &ties, order)?;
        Ok(Some(Self {
            picks,
            next: 0,
            inputs: heads.iter().map(|head| head.input).collect(),
            ends,
            is_fine: rows < turns * SHORT_RUN,
            has_many_ties: tied * TIED_ROWS_MAX > rows,
        }))
    }

    /// The rows that are left.
    pub(crate) fn rest(&self) -> &[Pick] {
        &self.picks[self.next..]
    }

    pub(crate) fn consume(&mut self, rows: usize) {
        self.next += rows;
    }

    /// The inputs that take part; a pick names its place here.
    pub(crate) fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// The inputs that take part, each with its first row behind the window.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (usize, usize)> {
        self.inputs.iter().copied().zip(self.ends.iter().copied())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.picks.capacity() * size_of::<Pick>()
    }
}

/// The rows of a window, and what they lie in.
struct Taken<'a> {
    heads: &'a [Head<'a>],
    ends: &'a [usize],
    rows: usize,
}

/// The rows by time, rank of the key if there is one, number among the heads, and place.
struct Merged {
    picks: Vec<Pick>,
    /// How often another input comes next.
    turns: usize,
    /// Stretches of picks of one time and rank.
    ties: Vec<Range<usize>>,
}

impl Taken<'_> {
    /// None if the keys of an input are not in order within a time, as they need not be.
    fn merged(&self, ranks: Option<&Ranks<'_>>) -> Option<Merged> {
        let heads = usize::BITS - (self.heads.len() - 1).leading_zeros();
        let (tag_bits, rank_bits) = (ROW_BITS + heads, ranks.map_or(0, Ranks::bits));
        let taken = || self.heads.iter().zip(self.ends).filter(|(head, end)| head.row < **end);
        let first = taken().map(|(head, _)| head.chunk.times[head.row]).min().unwrap_or_default();
        let last = taken().map(|(head, end)| head.chunk.times[*end - 1]).max().unwrap_or_default();
        let rank = |which: usize, row: usize| match ranks {
            Some(ranks) => u64::from(ranks.of(which, row)),
            None => 0,
        };
        let tag = |which: usize, row: usize| {
            let place = (row - self.heads[which].row) as u64;
            (((rank(which, row) << heads) | which as u64) << ROW_BITS) | place
        };
        let mask = (1 << tag_bits) - 1;
        if last.abs_diff(first).leading_zeros() >= tag_bits + rank_bits {
            let bits = tag_bits + rank_bits;
            let numbers =
                self.sorted(|time, which, row| (time.abs_diff(first) << bits) | tag(which, row))?;
            Some(self.unpacked(&numbers, |number| number >> tag_bits, |number| number & mask))
        } else {
            let numbers = self.sorted(|time, which, row| (time, tag(which, row)))?;
            let tie = |number: (i64, u64)| (number.0, number.1 >> tag_bits);
            Some(self.unpacked(&numbers, tie, |number| number.1 & mask))
        }
    }

    fn sorted<N: Copy + Ord>(&self, number: impl Fn(i64, usize, usize) -> N) -> Option<Vec<N>> {
        let mut numbers = Vec::with_capacity(self.rows);
        let mut borders = vec![0];
        for (which, (head, end)) in self.heads.iter().zip(self.ends).enumerate() {
            let begin = numbers.len();
            numbers.extend((head.row..*end).map(|row| number(head.chunk.times[row], which, row)));
            if !numbers[begin..].is_sorted() {
                return None;
            }
            borders.push(numbers.len());
        }
        Some(merge_runs(numbers, borders))
    }

    fn unpacked<N: Copy, T: Eq>(
        &self,
        numbers: &[N],
        tie: impl Fn(N) -> T,
        tag: impl Fn(N) -> u64,
    ) -> Merged {
        let turns_at =
            |pair: &[N]| usize::from(tag(pair[0]) >> ROW_BITS != tag(pair[1]) >> ROW_BITS);
        let pick = |number: &N| {
            // A tag was made of numbers of this type.
            let tag = usize::try_from(tag(*number)).unwrap_or_default();
            let head = tag >> ROW_BITS;
            (head, self.heads[head].row + (tag & (ROWS_MAX - 1)))
        };
        Merged {
            turns: 1 + numbers.windows(2).map(turns_at).sum::<usize>(),
            ties: stretches(numbers, tie),
            picks: numbers.iter().map(pick).collect(),
        }
    }
}

/// Neighbours that are alike, where there are at least two.
fn stretches<N: Copy, T: Eq>(numbers: &[N], tie: impl Fn(N) -> T) -> Vec<Range<usize>> {
    let ties_at = |pair: &[N]| usize::from(tie(pair[0]) == tie(pair[1]));
    if numbers.windows(2).map(ties_at).sum::<usize>() == 0 {
        return Vec::new();
    }
    let mut start = 0;
    let stretches = numbers.chunk_by(|a, b| tie(*a) == tie(*b)).map(|alike| {
        let stretch = start..start + alike.len();
        start = stretch.end;
        stretch
    });
    stretches.filter(|stretch| stretch.len() > 1).collect()
}

/// Merges neighbours until one run is left. `borders` begins with 0 and ends with the length.
fn merge_runs<N: Copy + Ord>(mut numbers: Vec<N>, mut borders: Vec<usize>) -> Vec<N> {
    let mut merged = numbers.clone();
    while borders.len() > 2 {
        let mut wider = vec![0];
        for pair in borders.windows(3).step_by(2) {
            let &[start, middle, end] = pair else { continue };
            let (left, right) = numbers[start..end].split_at(middle - start);
            merge_two(left, right, &mut merged[start..end]);
            wider.push(end);
        }
        // One without a neighbour waits for the next pass.
        if borders.len().is_multiple_of(2)
            && let Some(&[start, end]) = borders.last_chunk()
        {
            merged[start..end].copy_from_slice(&numbers[start..end]);
            wider.push(end);
        }
        borders = wider;
        std::mem::swap(&mut numbers, &mut merged);
    }
    numbers
}

/// Merges two runs from both ends towards the middle. No two numbers are equal.
fn merge_two<N: Copy + Ord>(mut left: &[N], mut right: &[N], mut into: &mut [N]) {
    loop {
        let shorter = left.len().min(right.len());
        if shorter == 0 || left.last() < right.first() {
            let (first, second) = into.split_at_mut(left.len());
            first.copy_from_slice(left);
            second.copy_from_slice(right);
            return;
        }
        // As long as fewer are taken from an end than the shorter run has, neither run ends there; and
        // the lowest of all and the highest of all do not meet, since they are not more than all.
        let (mut low, mut high) = ((0, 0), (left.len(), right.len()));
        let (front, back) = into.split_at_mut(shorter);
        let rest = back.len() - shorter;
        let (middle, back) = back.split_at_mut(rest);
        for (lowest, highest) in front.iter_mut().zip(back.iter_mut().rev()) {
            let (a, b) = (left[low.0], right[low.1]);
            let is_right = b < a;
            *lowest = if is_right { b } else { a };
            low = (low.0 + usize::from(!is_right), low.1 + usize::from(is_right));
            let (a, b) = (left[high.0 - 1], right[high.1 - 1]);
            let is_right = a < b;
            *highest = if is_right { b } else { a };
            high = (high.0 - usize::from(!is_right), high.1 - usize::from(is_right));
        }
        (left, right, into) = (&left[low.0..high.0], &right[low.1..high.1], middle);
    }
}

/// Orders rows of several inputs that tie by key and version; how many there are.
fn settle_ties(
    heads: &[Head<'_>],
    picks: &mut [Pick],
    ties: &[Range<usize>],
    order: &mut KeyOrder,
) -> Result<usize, Error> {
    let decides = |head: &Head<'_>| !head.chunk.keys.is_empty() || head.chunk.versions.is_some();
    if ties.is_empty() || !heads.iter().any(decides) {
        return Ok(0);
    }
    let mut tied = 0;
    for stretch in ties {
        let group = &mut picks[stretch.clone()];
        if group.first().map(|pick| pick.0) != group.last().map(|pick| pick.0) {
            tied += group.len();
            settle(heads, group, order)?;
        }
    }
    Ok(tied)
}

/// Merges the runs of a group: of one time, one run per input, inputs ascending.
fn settle(heads: &[Head<'_>], group: &mut [Pick], order: &mut KeyOrder) -> Result<(), Error> {
    let row = |pick: Pick| {
        let head = &heads[pick.0];
        Row { input: head.input, chunk: head.chunk, row: pick.1 }
    };
    if group.windows(2).all(|pair| pair[0].0 != pair[1].0) {
        let mut failed = Ok(());
        group.sort_by(|a, b| {
            order.cmp_tied(row(*a), row(*b)).unwrap_or_else(|error| {
                failed = Err(error);
                Ordering::Equal
            })
        });
        return failed;
    }
    let runs: Vec<Pick> = group.to_vec();
    let mut runs: Vec<&[Pick]> = runs.chunk_by(|a, b| a.0 == b.0).collect();
    for place in group {
        let mut first = 0;
        for run in 1..runs.len() {
            if order.cmp_tied(row(runs[run][0]), row(runs[first][0]))? == Ordering::Less {
                first = run;
            }
        }
        *place = runs[first][0];
        runs[first] = &runs[first][1..];
        if runs[first].is_empty() {
            runs.remove(first);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_of_any_lengths_merge_as_if_sorted(
            mut runs in prop::collection::vec(prop::collection::btree_set(0u64..5_000, 0..60), 1..12)
        ) {
            // Numbers of windows differ by their tags.
            let tagged = |(tag, run): (usize, std::collections::BTreeSet<u64>)| {
                run.into_iter().map(move |number| number * 16 + tag as u64).collect::<Vec<_>>()
            };
            let runs: Vec<Vec<u64>> = runs.drain(..).enumerate().map(tagged).collect();
            let mut borders = vec![0];
            for run in &runs {
                borders.push(borders.last().unwrap() + run.len());
            }
            let numbers: Vec<u64> = runs.into_iter().flatten().collect();
            let mut expected = numbers.clone();
            expected.sort_unstable();
            prop_assert_eq!(merge_runs(numbers, borders), expected);
        }
    }

    #[test]
    fn runs_that_do_not_overlap_or_lie_within_another_merge() {
        let cases: [(&[u64], &[u64]); 6] = [
            (&[1, 2, 3], &[4, 5]),
            (&[4, 5], &[1, 2, 3]),
            (&[1, 2, 8, 9, 10, 11, 12, 13], &[5, 6]),
            (&[5, 6], &[1, 2, 8, 9, 10, 11, 12, 13]),
            (&[], &[1]),
            (&[1], &[]),
        ];
        for (left, right) in cases {
            let mut merged = vec![0; left.len() + right.len()];
            merge_two(left, right, &mut merged);
            assert!(merged.is_sorted() && merged.len() == left.len() + right.len(), "{merged:?}");
            let mut all = [left, right].concat();
            all.sort_unstable();
            assert_eq!(merged, all);
        }
    }
}
