//! Partial states of aggregates: rows to groups, groups to slots, slots to states.

use arrow::array::RecordBatch;

use super::Run;
use super::scan::{self, Piece};
use super::slots::Slots;
use super::state::{self, State};
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
    let mut groups = Groups { directory: &directory, slots, states };
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
}

impl Groups<'_> {
    /// Adds the rows of a piece, whose keys are of this group.
    fn add(&mut self, group: u32, bucket: Option<Bucket>, piece: &Piece<'_>) {
        let Some(bucket) = bucket else {
            return self.add_to(group, 0, piece);
        };
        let times = &piece.data.times[piece.rows.clone()];
        let mut from = 0;
        while from < times.len() {
            let start = bucket.start(times[from]);
            let to = from + up_to(&times[from..], bucket.last(start));
            let rows = piece.rows.start + from..piece.rows.start + to;
            let mask = piece.mask.map(|mask| &mask[from..to]);
            let matched = mask.map_or(rows.len(), super::mask::count);
            if matched > 0 {
                let mask = mask.filter(|_| matched < rows.len());
                let Piece { data, key, .. } = *piece;
                self.add_to(group, start, &Piece { data, key, rows, mask, matched });
            }
            from = to;
        }
    }

    fn add_to(&mut self, group: u32, start: i64, piece: &Piece<'_>) {
        let slot = self.slot(group, start);
        for state in &mut self.states {
            state.add(slot, self.directory, piece);
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

/// How many of these times, which ascend, are not after `last`. At least one, the first, is not.
fn up_to(times: &[i64], last: i64) -> usize {
    let mut step = 1;
    while step < times.len() && times[step] <= last {
        step *= 2;
    }
    let from = step / 2;
    from + times[from..times.len().min(step)].partition_point(|time| *time <= last)
}
