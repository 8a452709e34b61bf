//! Which rows of a segment match: by key, by time, then by filter.

use std::ops::Range;

use super::mask::{self, BLOCK_ROWS};
use super::{HostData, Part};
use crate::answer::Work;
use crate::bound::{Filter, SegmentPlan};
use crate::error::WarmError;
use crate::table::{KeyDirectory, WarmTable};

/// At most [`BLOCK_ROWS`] rows of one key that lie one after the other, some of which match.
pub(super) struct Piece<'a> {
    pub(super) data: &'a HostData,
    /// The number of the key.
    pub(super) key: u32,
    pub(super) rows: Range<usize>,
    /// 1 for each row that matches, 0 for others. None if all do.
    pub(super) mask: Option<&'a [u8]>,
    /// How many match, at least one.
    pub(super) matched: usize,
}

impl Piece<'_> {
    /// The numbers of the rows that match.
    pub(super) fn matching(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let start = self.rows.start;
        let matches = move |row: &usize| self.mask.is_none_or(|mask| mask[*row - start] == 1);
        self.rows.clone().filter(matches)
    }
}

/// Calls `each` with each piece of a segment, as rows lie.
pub(super) fn pieces(
    table: &WarmTable,
    directory: &KeyDirectory,
    part: &Part,
    work: &mut Work,
    mut each: impl FnMut(&Piece<'_>) -> Result<(), WarmError>,
) -> Result<(), WarmError> {
    spans(table, directory, part, |key, rows, filter| {
        blocks(part, key, rows, filter, work, |piece| each(piece))
    })
}

/// Calls `each` with the number of the key, the rows in the range, and the filter that these have to
/// meet, of each key whose rows can.
pub(super) fn spans(
    table: &WarmTable,
    directory: &KeyDirectory,
    part: &Part,
    mut each: impl FnMut(u32, Range<usize>, &Filter) -> Result<(), WarmError>,
) -> Result<(), WarmError> {
    let Some(plan) = &part.plan else {
        return Ok(());
    };
    let keys = table.spec().keys();
    let by_key = plan.filter.tests(&|column| keys.contains(&column));
    let runs = part.segment.runs();
    for (run, &key) in runs.keys.iter().enumerate() {
        let rows = in_time(part, plan, run);
        if rows.is_empty() {
            continue;
        }
        if by_key {
            let filter = plan.filter.for_key(directory, keys, key);
            if filter != Filter::Never {
                each(key, rows, &filter)?;
            }
        } else {
            each(key, rows, &plan.filter)?;
        }
    }
    Ok(())
}

/// The rows of a run that are in the range of time.
pub(super) fn in_time(part: &Part, plan: &SegmentPlan, run: usize) -> Range<usize> {
    let runs = part.segment.runs();
    let mut rows = runs.rows(run);
    let (first, last) = plan.time;
    if runs.last_times[run] < first || runs.first_times[run] > last {
        return rows.start..rows.start;
    }
    let times = &part.data.times;
    if runs.last_times[run] > last {
        rows.end = rows.start + times[rows.clone()].partition_point(|time| *time <= last);
    }
    if runs.first_times[run] < first {
        rows.start += times[rows.clone()].partition_point(|time| *time < first);
    }
    rows
}

/// Calls `each` with the pieces of some rows of a key in which a row matches.
pub(super) fn blocks(
    part: &Part,
    key: u32,
    rows: Range<usize>,
    filter: &Filter,
    work: &mut Work,
    mut each: impl FnMut(&Piece<'_>) -> Result<(), WarmError>,
) -> Result<(), WarmError> {
    let data = &part.data;
    let mut start = rows.start;
    while start < rows.end {
        let block = start..rows.end.min(start + BLOCK_ROWS);
        start = block.end;
        work.rows_read += block.len() as u64;
        if *filter == Filter::Always {
            work.rows_matched += block.len() as u64;
            each(&Piece { data, key, matched: block.len(), rows: block, mask: None })?;
            continue;
        }
        let mut bytes = [0; BLOCK_ROWS];
        let bytes = &mut bytes[..block.len()];
        mask::fill(bytes, filter, data, block.start);
        let matched = mask::count(bytes);
        work.rows_matched += matched as u64;
        if matched > 0 {
            let mask = (matched < block.len()).then_some(&*bytes);
            each(&Piece { data, key, rows: block, mask, matched })?;
        }
    }
    Ok(())
}
