//! The last row of each key. Without a filter the host knows where it lies.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int64Type;
use tidelog_warm::{Filter, WarmError};

use super::fetch::{Gathered, gather, step};
use super::{Enough, Part, Run};
use crate::abi::{BLOCK, LastArgs};
use crate::lane::Lane;
use crate::span::{Span, lay};

/// A row that may be the last of its key.
#[derive(Debug, Clone, Copy)]
struct Found {
    time: i64,
    part: usize,
    row: u32,
}

impl Run<'_> {
    /// The last row that matches of each key, in the order of their numbers.
    pub(super) fn last_per_key(
        &mut self,
        lane: &mut Lane,
        columns: &[usize],
    ) -> Result<Vec<RecordBatch>, WarmError> {
        let mut best: BTreeMap<u32, Found> = BTreeMap::new();
        self.for_spans(lane, |lane, part, number, span, _| {
            let keys = &part.segment.runs().keys;
            for (piece, time, row) in last_rows(lane, part, span)? {
                let found = Found { time, part: number, row };
                let key = keys[span.runs[piece] as usize];
                let best = best.entry(key).or_insert(found);
                // Spans come in order, and the pieces of a key within one: of equals the later one.
                if best.time <= time {
                    *best = found;
                }
            }
            Ok(Enough::No)
        })?;
        let found: Vec<Found> = best.into_values().collect();
        self.work.rows_matched = found.len() as u64;
        self.rows_found(lane, columns, &found)
    }

    /// The columns of rows of several segments, in the order in which they are given.
    fn rows_found(
        &self,
        lane: &mut Lane,
        columns: &[usize],
        found: &[Found],
    ) -> Result<Vec<RecordBatch>, WarmError> {
        let mut gathered = Gathered::new(columns.len());
        let mut places = vec![0; found.len()];
        for (number, part) in self.parts.iter().enumerate() {
            let mut rows = Vec::new();
            for (place, found) in places.iter_mut().zip(found) {
                if found.part == number {
                    *place = u32::try_from(gathered.rows + rows.len()).unwrap_or(u32::MAX);
                    rows.push(found.row);
                }
            }
            for rows in rows.chunks(step(lane, columns, self.table) as usize) {
                let mark = lane.mark();
                let at = lane.put(rows)?;
                let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
                gathered.add(gather(lane, self.table, part, (at, count), columns)?);
                lane.back_to(mark);
            }
        }
        let (arrays, rows) = gathered.finish(self.table, columns)?;
        let order = UInt32Array::from(places);
        let arrays: Vec<ArrayRef> =
            arrays.iter().map(|array| take(array, &order, None)).collect::<Result<_, _>>()?;
        self.table.decode_rows(columns, &arrays, rows)
    }
}

/// Of each piece that has a row that matches, the last one, with its time.
fn last_rows(
    lane: &mut Lane,
    part: &Part,
    span: &Span,
) -> Result<Vec<(usize, i64, u32)>, WarmError> {
    let runs = part.segment.runs();
    let rows: Vec<u32> = if *span.filter() == Filter::Always {
        let ends = span.rows.iter().zip(span.places.windows(2));
        ends.map(|(row, places)| row + (places[1] - places[0])).collect()
    } else {
        let (laid, _) = lay(lane, &part.segment, &part.held, span, &[])?;
        let out = lane.scratch(span.runs.len() as u64 * 4)?;
        let args = LastArgs { rows: laid.rows, out };
        let pieces = u32::try_from(span.runs.len()).unwrap_or(u32::MAX);
        lane.stream.launch("last", pieces.div_ceil(BLOCK / 32), &args)?;
        lane.stream.download(out, span.runs.len())?
    };
    // Numbers are those of the rows after; 0 is none.
    let known = |piece: usize, after: u32| {
        let run = span.runs[piece] as usize;
        (after == runs.offsets[run + 1]).then(|| runs.last_times[run])
    };
    let asked: Vec<u32> = (rows.iter().enumerate())
        .filter(|(piece, after)| **after > 0 && known(*piece, **after).is_none())
        .map(|(_, after)| after - 1)
        .collect();
    let mut times = times_of(lane, part, &asked)?.into_iter();
    let mut last = Vec::with_capacity(rows.len());
    for (piece, after) in rows.into_iter().enumerate().filter(|(_, after)| *after > 0) {
        let time = known(piece, after).or_else(|| times.next());
        last.extend(time.map(|time| (piece, time, after - 1)));
    }
    Ok(last)
}

/// The times of rows.
fn times_of(lane: &mut Lane, part: &Part, rows: &[u32]) -> Result<Vec<i64>, WarmError> {
    let table = Arc::clone(part.segment.table());
    let mut times = Vec::with_capacity(rows.len());
    let columns = [table.spec().time()];
    for rows in rows.chunks(step(lane, &columns, &table) as usize) {
        let mark = lane.mark();
        let at = lane.put(rows)?;
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let (arrays, _) = gather(lane, &table, part, (at, count), &columns)?;
        for array in arrays {
            times.extend_from_slice(array.as_primitive::<Int64Type>().values());
        }
        lane.back_to(mark);
    }
    Ok(times)
}
