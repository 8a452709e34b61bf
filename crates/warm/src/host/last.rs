//! The last row of each key, by its run: without a filter no row is looked at but the last.

use std::cmp::Reverse;
use std::ops::Range;

use arrow::array::RecordBatch;

use super::mask::BLOCK_ROWS;
use super::rows::{self, Pick};
use super::scan;
use super::{Part, Run};
use crate::answer::Work;
use crate::bound::{Filter, SegmentPlan};
use crate::error::WarmError;
use crate::table::KeyDirectory;

/// The latest row found of a key, with its time.
type Best = Option<(i64, Pick)>;

/// The last row that matches of each key, or of those wanted, which ascend.
pub(super) fn last_per_key(
    run: &mut Run<'_>,
    columns: &[usize],
    wanted: Option<&[u32]>,
) -> Result<Vec<RecordBatch>, WarmError> {
    let keys = wanted.map_or(run.directory.len(), <[u32]>::len);
    let mut best: Vec<Best> = vec![None; keys];
    // The latest first, so that most keys are found at once and need not be looked up again.
    let mut latest: Vec<_> = (0..run.parts.len()).collect();
    latest.sort_by_key(|part| {
        Reverse((run.parts[*part].segment.stats().time.map(|time| time.1), *part))
    });
    for part in latest {
        run.request.check_cancel()?;
        Search::of(run, part).in_part(wanted, &mut best)?;
    }
    let picks: Vec<_> = best.into_iter().flatten().map(|(_, pick)| pick).collect();
    rows::picked(run, columns, &picks)
}

/// A search in one segment.
struct Search<'a> {
    number: usize,
    part: &'a Part,
    directory: &'a KeyDirectory,
    key_columns: &'a [usize],
    work: &'a mut Work,
}

impl<'a> Search<'a> {
    fn of(run: &'a mut Run<'_>, number: usize) -> Self {
        Self {
            number,
            part: &run.parts[number],
            directory: &run.directory,
            key_columns: run.table.spec().keys(),
            work: &mut run.work,
        }
    }

    fn in_part(&mut self, wanted: Option<&[u32]>, best: &mut [Best]) -> Result<(), WarmError> {
        let (Some(plan), Some((_, greatest))) = (&self.part.plan, self.part.segment.stats().time)
        else {
            return Ok(());
        };
        let runs = self.part.segment.runs();
        let Some(wanted) = wanted else {
            for (place, key) in runs.keys.iter().enumerate() {
                self.in_run(plan, place, &mut best[*key as usize])?;
            }
            return Ok(());
        };
        for (best, key) in best.iter_mut().zip(wanted) {
            if best.is_none_or(|(time, _)| time <= greatest)
                && let Some(place) = runs.find(*key)
            {
                self.in_run(plan, place, best)?;
            }
        }
        Ok(())
    }

    /// Looks for a later row in a run.
    fn in_run(
        &mut self,
        plan: &SegmentPlan,
        place: usize,
        best: &mut Best,
    ) -> Result<(), WarmError> {
        let runs = self.part.segment.runs();
        if best.is_some_and(|(time, _)| time > runs.last_times[place]) {
            return Ok(());
        }
        let key = runs.keys[place];
        let rows = scan::in_time(self.part, plan, place);
        let row = if plan.filter.tests(&|column| self.key_columns.contains(&column)) {
            let filter = plan.filter.for_key(self.directory, self.key_columns, key);
            self.last_matching(key, rows, &filter)?
        } else {
            self.last_matching(key, rows, &plan.filter)?
        };
        if let Some(row) = row {
            let found = (self.part.data.times[row], Pick::new(self.number, row, key));
            if best.is_none_or(|best| (best.0, best.1.part) < (found.0, found.1.part)) {
                *best = Some(found);
            }
        }
        Ok(())
    }

    fn last_matching(
        &mut self,
        key: u32,
        rows: Range<usize>,
        filter: &Filter,
    ) -> Result<Option<usize>, WarmError> {
        let mut end = rows.end;
        let mut length = 1;
        while rows.start < end {
            let start = rows.start.max(end.saturating_sub(length));
            let mut last = None;
            scan::blocks(self.part, key, start..end, filter, self.work, |piece| {
                last = piece.matching().next_back();
                Ok(())
            })?;
            if last.is_some() {
                return Ok(last);
            }
            end = start;
            length = (length * 8).min(BLOCK_ROWS);
        }
        Ok(None)
    }
}
