//! Partial states of aggregates: rows to groups, groups to slots, slots to states.

use arrow::array::RecordBatch;

use super::Run;
use super::mask::{self, BLOCK_ROWS, Places};
use super::scan::{self, Piece};
use super::slots::Slots;
use super::state::{self, Rows, State};
use crate::bound::{Bucket, Grouping};
use crate::error::WarmError;
use crate::request::{Aggregate, Group};
use crate::table::KeyDirectory;

/// The partial states of the groups of a request.
pub(super) fn aggregate(
    run: &mut Run<'_>,
    group: &[Group],
    aggregates: &[Aggregate],
) -> Result<RecordBatch, WarmError> {
    let grouping = Grouping::try_new(run.table, group)?;
    let mut states = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        states.push(state::state(run.table.spec(), *aggregate)?);
    }
    let rows = run.parts.iter().map(|part| part.segment.rows()).sum();
    let slots = Slots::new(&grouping, time(run), rows);
    let directory = std::sync::Arc::clone(&run.directory);
    let mut groups = Groups { directory: &directory, slots, states, room: [0; BLOCK_ROWS] };
    for number in 0..run.parts.len() {
        run.request.check_cancel()?;
        let part = &run.parts[number];
        scan::pieces(run.table, &run.directory, part, &mut run.work, |piece| {
            groups.add(grouping.keys.of_key(piece.key), grouping.bucket, piece);
            Ok(())
        })?;
    }
    if group.is_empty() {
        groups.slot(0, 0);
    }
    let Groups { slots, states, .. } = groups;
    let states = states.into_iter().flat_map(State::finish).collect();
    let found = (slots.groups.as_slice(), slots.starts);
    run.table.decode_groups((group, aggregates), &grouping.keys, found, states)
}

/// Least and greatest time of the rows that can match.
fn time(run: &Run<'_>) -> Option<(i64, i64)> {
    let of_part = |part: &super::Part| {
        let (first, last) = part.plan.as_ref()?.time;
        let (least, greatest) = part.segment.stats().time?;
        Some((first.max(least), last.min(greatest)))
    };
    run.parts.iter().filter_map(of_part).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

struct Groups<'a> {
    directory: &'a KeyDirectory,
    slots: Slots,
    states: Vec<State>,
    /// Room for the places of values that are not null.
    room: Places,
}

impl Groups<'_> {
    /// Adds the rows of a piece, whose keys are of this group.
    fn add(&mut self, group: u32, bucket: Option<Bucket>, piece: &Piece<'_>) {
        let Piece { data, key, .. } = *piece;
        let mut room;
        let picks = match piece.mask {
            Some(mask) => {
                room = [0; BLOCK_ROWS];
                Some(mask::places(mask.iter().copied(), &mut room))
            }
            None => None,
        };
        let Some(bucket) = bucket else {
            let rows = Rows { data, key, rows: piece.rows.clone(), picks };
            return self.add_to(group, 0, &rows);
        };
        let times = &data.times[piece.rows.clone()];
        let mut from = 0;
        let mut start = None;
        while from < piece.matched {
            let time = |at: usize| times[picks.map_or(at, |picks| usize::from(picks[at]))];
            let begins = bucket.next_start(start, time(from));
            let to = up_to(from, piece.matched, time, bucket.last(begins));
            let rows = match picks {
                Some(picks) => {
                    let picks = Some(&picks[from..to]);
                    Rows { data, key, rows: piece.rows.clone(), picks }
                }
                None => {
                    let rows = piece.rows.start + from..piece.rows.start + to;
                    Rows { data, key, rows, picks: None }
                }
            };
            self.add_to(group, begins, &rows);
            (from, start) = (to, Some(begins));
        }
    }

    fn add_to(&mut self, group: u32, start: i64, rows: &Rows<'_>) {
        let slot = self.slot(group, start);
        for state in &mut self.states {
            state.add(slot, self.directory, rows, &mut self.room);
        }
    }

    fn slot(&mut self, group: u32, start: i64) -> usize {
        let slots = self.slots.len();
        let slot = self.slots.slot(group, start);
        if slot == slots {
            self.states.iter_mut().for_each(State::grow);
        }
        slot
    }
}

/// The first place from `from` on, before `end`, whose time is after `last`; or the end. Times ascend, and
/// the first is not after it.
fn up_to(from: usize, end: usize, time: impl Fn(usize) -> i64, last: i64) -> usize {
    let mut step = 1;
    while from + step < end && time(from + step) <= last {
        step *= 2;
    }
    let (mut low, mut high) = (from + step / 2, end.min(from + step));
    while low + 1 < high {
        let middle = low.midpoint(high);
        if time(middle) <= last {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}
