//! Partial states of groups: the device adds up runs, the host the runs of each group.

use arrow::array::RecordBatch;
use tidelog_warm::{Aggregate, Group, Grouping, KeyGroups, WarmError, WarmTable};

use super::groups::{Groups, Slot, slots_of};
use super::{Enough, Part, Run};
use crate::abi::{AggregateArgs, SLOTS_MAX, TILE, kind_of, record_words};
use crate::lane::Lane;
use crate::span::{Laid, Span, lay};

impl Run<'_> {
    /// The partial states of each group.
    pub(super) fn aggregate(
        &mut self,
        lane: &mut Lane,
        group: &[Group],
        aggregates: &[Aggregate],
    ) -> Result<RecordBatch, WarmError> {
        let table = self.table;
        let grouping = Grouping::try_new(table, group)?;
        let mut groups = Groups::new(slots_of(table.spec(), aggregates)?);
        if group.is_empty() {
            groups.number(0, 0);
        }
        self.for_spans(lane, |lane, part, _, span, work| {
            work.rows_matched += add_span(lane, table, part, span, &grouping, &mut groups)?;
            Ok(Enough::No)
        })?;
        let states = groups.states(table.spec(), aggregates)?;
        let found = (groups.keys.as_slice(), groups.starts.clone());
        table.decode_groups((group, aggregates), &grouping.keys, found, states)
    }
}

/// Adds the rows of a span that match to their groups; gives how many they were.
fn add_span(
    lane: &mut Lane,
    table: &WarmTable,
    part: &Part,
    span: &Span,
    grouping: &Grouping,
    groups: &mut Groups,
) -> Result<u64, WarmError> {
    let slots = groups.slots().to_vec();
    let columns: Vec<_> = slots.iter().map(|slot| slot.column).collect();
    let (laid, numbers) = lay(lane, &part.segment, &part.held, span, &columns)?;
    let keys = &part.segment.runs().keys;
    let keys_of_piece = |piece: u64| {
        let run = usize::try_from(piece).ok().and_then(|piece| span.runs.get(piece));
        run.map_or(0, |run| grouping.keys.of_key(keys[*run as usize]))
    };
    let mut matched = 0;
    let mut first = 0;
    loop {
        let count = (slots.len() - first).min(SLOTS_MAX);
        let pick = Pick {
            table,
            slots: &slots[first..first + count],
            numbers: &numbers[first..first + count],
        };
        let args = pick.args(&laid, part, grouping)?;
        let mut launch = Launch { lane, args, slots: count };
        launch.all(|records| matched += groups.add(records, (first, count), keys_of_piece))?;
        first += count;
        if first >= slots.len() {
            return Ok(matched);
        }
    }
}

/// Slots of one launch.
struct Pick<'a> {
    table: &'a WarmTable,
    slots: &'a [Slot],
    /// Numbers of their columns in the kernel's table.
    numbers: &'a [u32],
}

impl Pick<'_> {
    fn args(
        &self,
        laid: &Laid<'_>,
        part: &Part,
        grouping: &Grouping,
    ) -> Result<AggregateArgs, WarmError> {
        let mut args = AggregateArgs {
            rows: laid.rows,
            times: part.held.times,
            records: 0,
            leads: 0,
            tile_runs: 0,
            status: 0,
            ticket: 0,
            run_count: 0,
            origin: 0,
            width: 0,
            first: 0,
            end: laid.span.len(),
            capacity: 0,
            by_piece: u32::from(!matches!(grouping.keys, KeyGroups::One)),
            column: [0; SLOTS_MAX],
            kind: [0; SLOTS_MAX],
            as_float: [0; SLOTS_MAX],
        };
        if let Some(bucket) = grouping.bucket {
            args.origin = bucket.origin();
            args.width = bucket.width().unsigned_abs();
        }
        for (number, slot) in self.slots.iter().enumerate() {
            args.column[number] = self.numbers[number];
            args.kind[number] = kind_of(self.table.spec().form(slot.column)?);
            args.as_float[number] = u32::from(slot.as_float);
        }
        Ok(args)
    }
}

const KERNELS: [(&str, &str); SLOTS_MAX + 1] =
    [("aggregate0", "fold0"), ("aggregate1", "fold1"), ("aggregate2", "fold2")];

/// One kernel over all places of a span, in as few launches as its records allow.
struct Launch<'a> {
    lane: &'a mut Lane,
    args: AggregateArgs,
    slots: usize,
}

impl Launch<'_> {
    /// Gives the records of all runs. A run that two launches share has a record of each.
    fn all(&mut self, mut records: impl FnMut(&[u64])) -> Result<(), WarmError> {
        let places = self.args.end;
        let (mut first, mut length) = (0, places);
        while first < places {
            let end = places.min(first.saturating_add(length));
            match self.range(first, end)? {
                Some(found) => {
                    records(&found);
                    first = end;
                }
                // More runs than there is room for. Half a tile always fits.
                None => length = (end - first) / 2,
            }
        }
        Ok(())
    }

    /// The records of the runs of some places, or none if there are more than there is room for.
    fn range(&mut self, first: u32, end: u32) -> Result<Option<Vec<u64>>, WarmError> {
        let mark = self.lane.mark();
        let tiles = (end - first).div_ceil(TILE);
        let record = record_words(self.slots) as u64 * 8;
        let args = AggregateArgs {
            first,
            end,
            tile_runs: self.lane.scratch(u64::from(tiles) * 4)?,
            leads: self.lane.scratch(u64::from(tiles) * record)?,
            status: self.lane.zeros(u64::from(tiles) * 8)?,
            ticket: self.lane.zeros(4)?,
            run_count: self.lane.scratch(8)?,
            ..self.args
        };
        let room = self.lane.left().saturating_sub(256) / record;
        let capacity = u32::try_from(room).unwrap_or(u32::MAX).min(end - first);
        if capacity == 0 {
            return Err(WarmError::OutOfMemory { wanted: record, free: self.lane.left() });
        }
        let records = self.lane.scratch(u64::from(capacity) * record)?;
        let args = AggregateArgs { records, capacity, ..args };
        let (add, fold) = KERNELS[self.slots];
        self.lane.stream.launch(add, tiles, &args)?;
        if tiles > 1 {
            self.lane.stream.launch(fold, tiles - 1, &args)?;
        }
        let runs: u64 = self.lane.stream.download::<u64>(args.run_count, 1)?.iter().sum();
        let found = match usize::try_from(runs) {
            Ok(runs) if runs <= capacity as usize => {
                Some(self.lane.stream.download(records, runs * record_words(self.slots))?)
            }
            _ => None,
        };
        self.lane.back_to(mark);
        Ok(found)
    }
}
