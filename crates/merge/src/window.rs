//! Rows of many inputs that take turns nearly every row, put in order a window at a time.
//!
//! Where inputs are finely interleaved the tournament pays its bookkeeping for each row. A window takes
//! all rows before a time that no input can go back behind, writes time, input and place of each into one
//! number, and merges these two runs at a time, in as many passes as the inputs double. A merge of two runs
//! goes from both ends at once and without branches, so that the processor does both at a time (as the
//! sorts of Rust's standard library do: O. Peters and L. Bergdoll, *driftsort*, 2024).
//!
//! Not here: deduplication, and rows of one input that nobody interrupts; both are the tournament's.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::error::Error;
use crate::order::{KeyOrder, Row};

/// Rows that one input gives to a window at most: so few that a window of some inputs stays in the
/// processor's cache.
const ROWS_MAX: usize = 1 << ROW_BITS;
const ROW_BITS: u32 = 11;
/// Fewer rows are left to the tournament.
const ROWS_MIN: usize = 32;
/// Runs so short, so many in a row, call for a window.
const SHORT_RUN: usize = 8;
const SHORT_RUNS: u32 = 8;
/// With more than one tied row in so many the comparison of keys rules, which costs more here.
const TIED_ROWS_MAX: usize = 4;

/// Whether inputs take turns so often that a window pays.
#[derive(Debug, Default)]
pub(crate) struct Interleaving {
    short_runs: u32,
}

impl Interleaving {
    /// Notes a run of the tournament.
    pub(crate) fn note(&mut self, run: usize) {
        self.short_runs = if run < SHORT_RUN { self.short_runs.saturating_add(1) } else { 0 };
    }

    pub(crate) fn is_fine(&self) -> bool {
        self.short_runs >= SHORT_RUNS
    }

    pub(crate) fn reset(&mut self) {
        self.short_runs = 0;
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
    /// Whether another one is likely to pay.
    pub(crate) again: bool,
}

impl Window {
    /// The rows that come next, as far as the heads can tell; `None` if they are too few.
    pub(crate) fn try_new(heads: &[Head<'_>], order: &mut KeyOrder) -> Result<Option<Self>, Error> {
        let reach = |head: &Head<'_>| (head.row + ROWS_MAX).min(head.chunk.len()) - 1;
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
        let Merged { mut picks, turns, has_ties } = merged(heads, &ends, rows);
        let tied = if has_ties { settle_ties(heads, &mut picks, order)? } else { 0 };
        let inputs = heads.iter().map(|head| head.input).collect();
        let again = rows < turns * SHORT_RUN && tied * TIED_ROWS_MAX <= rows;
        Ok(Some(Self { picks, next: 0, inputs, ends, again }))
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

/// The rows by time, number among the heads, and place.
struct Merged {
    picks: Vec<Pick>,
    /// How often another input comes next.
    turns: usize,
    /// Whether any two rows have one time.
    has_ties: bool,
}

fn merged(heads: &[Head<'_>], ends: &[usize], rows: usize) -> Merged {
    let tag_bits = ROW_BITS + usize::BITS - (heads.len() - 1).leading_zeros();
    let taken = || heads.iter().zip(ends).filter(|(head, end)| head.row < **end);
    let first = taken().map(|(head, _)| head.chunk.times[head.row]).min().unwrap_or_default();
    let last = taken().map(|(head, end)| head.chunk.times[*end - 1]).max().unwrap_or_default();
    let tag = |head: usize, place: usize| ((head as u64) << ROW_BITS) | place as u64;
    if last.abs_diff(first).leading_zeros() >= tag_bits {
        let number = |time: i64, tag: u64| (time.abs_diff(first) << tag_bits) | tag;
        let numbers = sorted(heads, ends, rows, tag, number);
        let mask = (1 << tag_bits) - 1;
        unpacked(heads, &numbers, |number| number >> tag_bits, |number| number & mask)
    } else {
        let numbers = sorted(heads, ends, rows, tag, |time, tag| (time, tag));
        unpacked(heads, &numbers, |number| number.0, |number| number.1)
    }
}

fn unpacked<N: Copy, T: Eq>(
    heads: &[Head<'_>],
    numbers: &[N],
    time: impl Fn(N) -> T,
    tag: impl Fn(N) -> u64,
) -> Merged {
    let turns_at = |pair: &[N]| usize::from(tag(pair[0]) >> ROW_BITS != tag(pair[1]) >> ROW_BITS);
    let ties_at = |pair: &[N]| usize::from(time(pair[0]) == time(pair[1]));
    let pick = |number: &N| {
        // A tag was made of numbers of this type.
        let tag = usize::try_from(tag(*number)).unwrap_or_default();
        let head = tag >> ROW_BITS;
        (head, heads[head].row + (tag & (ROWS_MAX - 1)))
    };
    Merged {
        turns: 1 + numbers.windows(2).map(turns_at).sum::<usize>(),
        has_ties: numbers.windows(2).map(ties_at).sum::<usize>() > 0,
        picks: numbers.iter().map(pick).collect(),
    }
}

fn sorted<N: Copy + Ord>(
    heads: &[Head<'_>],
    ends: &[usize],
    rows: usize,
    tag: impl Fn(usize, usize) -> u64,
    number: impl Fn(i64, u64) -> N,
) -> Vec<N> {
    let mut numbers = Vec::with_capacity(rows);
    let mut borders = vec![0];
    for (which, (head, end)) in heads.iter().zip(ends).enumerate() {
        let times = head.chunk.times[head.row..*end].iter().enumerate();
        numbers.extend(times.map(|(place, time)| number(*time, tag(which, place))));
        borders.push(numbers.len());
    }
    merge_runs(numbers, borders)
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

/// Orders rows of several inputs that have one time by key and version; how many there are.
fn settle_ties(
    heads: &[Head<'_>],
    picks: &mut [Pick],
    order: &mut KeyOrder,
) -> Result<usize, Error> {
    let decides = |head: &Head<'_>| !head.chunk.keys.is_empty() || head.chunk.versions.is_some();
    if !heads.iter().any(decides) {
        return Ok(0);
    }
    let time = |pick: &Pick| heads[pick.0].chunk.times[pick.1];
    let (mut tied, mut start) = (0, 0);
    while start < picks.len() {
        let now = time(&picks[start]);
        let more = picks[start + 1..].iter().take_while(|pick| time(pick) == now).count();
        let group = &mut picks[start..=start + more];
        start += group.len();
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
