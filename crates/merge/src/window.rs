//! Rows of many inputs that take turns nearly every row, put in order a window at a time.
//!
//! Where inputs are finely interleaved the tournament pays its bookkeeping for each row. A window takes
//! all rows before a time that no input can go back behind, writes time, input and place of each into one
//! number, and lets a stable sort merge the runs that it finds in these: a pass without branches per
//! doubling of the inputs (L. Bergdoll and O. Peters, *driftsort*, 2024, the sort of Rust's standard
//! library, which merges natural runs by powersort).
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

/// A row of a window: number of the input, row of its current chunk.
pub(crate) type Pick = (usize, usize);

/// Rows in the order of the merge, all before whatever else is to come.
#[derive(Debug, Default)]
pub(crate) struct Window {
    picks: Vec<Pick>,
    next: usize,
    /// By input: its first row behind the window.
    ends: Vec<(usize, usize)>,
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
        let mut picks = merged(heads, &ends, rows);
        let tied = settle_ties(heads, &mut picks, order)?;
        let runs = 1 + picks.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
        for pick in &mut picks {
            pick.0 = heads[pick.0].input;
        }
        let ends = heads.iter().zip(ends).map(|(head, end)| (head.input, end)).collect();
        let again = rows < runs * SHORT_RUN && tied * TIED_ROWS_MAX <= rows;
        Ok(Some(Self { picks, next: 0, ends, again }))
    }

    /// The rows that are left.
    pub(crate) fn rest(&self) -> &[Pick] {
        &self.picks[self.next..]
    }

    pub(crate) fn consume(&mut self, rows: usize) {
        self.next += rows;
    }

    /// By input: its first row behind the window.
    pub(crate) fn ends(&self) -> &[(usize, usize)] {
        &self.ends
    }

    pub(crate) fn bytes(&self) -> usize {
        self.picks.capacity() * size_of::<Pick>()
    }
}

/// The rows by time, number among the heads, and place.
fn merged(heads: &[Head<'_>], ends: &[usize], rows: usize) -> Vec<Pick> {
    let tag_bits = ROW_BITS + usize::BITS - (heads.len() - 1).leading_zeros();
    let taken = || heads.iter().zip(ends).filter(|(head, end)| head.row < **end);
    let first = taken().map(|(head, _)| head.chunk.times[head.row]).min().unwrap_or_default();
    let last = taken().map(|(head, end)| head.chunk.times[*end - 1]).max().unwrap_or_default();
    let unpack = |tag: u64| {
        // A tag was made of numbers of this type.
        let tag = usize::try_from(tag).unwrap_or_default() & ((1 << tag_bits) - 1);
        let head = tag >> ROW_BITS;
        (head, heads[head].row + (tag & (ROWS_MAX - 1)))
    };
    let tag = |head: usize, place: usize| ((head as u64) << ROW_BITS) | place as u64;
    if last.abs_diff(first).leading_zeros() >= tag_bits {
        let number = |time: i64, tag: u64| (time.abs_diff(first) << tag_bits) | tag;
        sorted(heads, ends, rows, tag, number).into_iter().map(unpack).collect()
    } else {
        let number = |time: i64, tag: u64| (time, tag);
        let sorted = sorted(heads, ends, rows, tag, number);
        sorted.into_iter().map(|(_, tag)| unpack(tag)).collect()
    }
}

fn sorted<N: Ord>(
    heads: &[Head<'_>],
    ends: &[usize],
    rows: usize,
    tag: impl Fn(usize, usize) -> u64,
    number: impl Fn(i64, u64) -> N,
) -> Vec<N> {
    let mut numbers = Vec::with_capacity(rows);
    for (which, (head, end)) in heads.iter().zip(ends).enumerate() {
        let times = head.chunk.times[head.row..*end].iter().enumerate();
        numbers.extend(times.map(|(place, time)| number(*time, tag(which, place))));
    }
    numbers.sort();
    numbers
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
