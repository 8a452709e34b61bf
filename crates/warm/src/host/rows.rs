//! Rows, picked one by one or by the piece, as batches.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{interleave, take};

use super::scan;
use super::{Part, Run};
use crate::error::WarmError;
use crate::images::array_of_images;
use crate::request::{BATCH_ROWS, FetchOrder};

/// A row of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pick {
    /// Which of the segments.
    pub(super) part: u32,
    /// Which of its rows.
    pub(super) row: u32,
    /// The number of its key.
    pub(super) key: u32,
}

impl Pick {
    pub(super) fn new(part: usize, row: usize, key: u32) -> Self {
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { part: narrow(part), row: narrow(row), key }
    }
}

/// The rows of a request.
pub(super) fn fetch(
    run: &mut Run<'_>,
    columns: &[usize],
    order: FetchOrder,
    limit: Option<usize>,
) -> Result<Vec<RecordBatch>, WarmError> {
    let limit = limit.unwrap_or(usize::MAX);
    match order {
        FetchOrder::Stored => stored(run, columns, limit),
        FetchOrder::Time => by_time(run, columns, limit),
    }
}

fn stored(
    run: &mut Run<'_>,
    columns: &[usize],
    limit: usize,
) -> Result<Vec<RecordBatch>, WarmError> {
    let mut left = limit;
    let mut picks = Vec::new();
    let mut batches = Vec::new();
    for number in 0..run.parts.len() {
        run.request.check_cancel()?;
        if left == 0 {
            break;
        }
        let Run { table, directory, parts, work, .. } = &mut *run;
        scan::spans(table, directory, &parts[number], |key, rows, filter| {
            if left == 0 {
                return Ok(());
            }
            scan::blocks(&parts[number], key, rows, filter, work, |piece| {
                let before = picks.len();
                picks.extend(piece.matching().take(left).map(|row| Pick::new(number, row, key)));
                left -= picks.len() - before;
                if picks.len() >= BATCH_ROWS {
                    let rest = picks.split_off(BATCH_ROWS);
                    batches.extend(gather(table, directory, parts, columns, &picks)?);
                    picks = rest;
                }
                Ok(())
            })
        })?;
    }
    batches.extend(picked(run, columns, &picks)?);
    Ok(batches)
}

fn by_time(
    run: &mut Run<'_>,
    columns: &[usize],
    limit: usize,
) -> Result<Vec<RecordBatch>, WarmError> {
    let mut picks = Vec::new();
    for number in 0..run.parts.len() {
        run.request.check_cancel()?;
        let part = &run.parts[number];
        scan::pieces(run.table, &run.directory, part, &mut run.work, |piece| {
            let key = piece.key;
            let time = |row: usize| piece.data.times[row];
            picks.extend(piece.matching().map(|row| (time(row), Pick::new(number, row, key))));
            // Twice as many as wanted are kept, so that each is sorted out but a few times.
            if picks.len() / 2 > limit.max(BATCH_ROWS) {
                first(&mut picks, limit);
            }
            Ok(())
        })?;
    }
    first(&mut picks, limit);
    picks.sort_unstable();
    let picks: Vec<_> = picks.into_iter().map(|(_, pick)| pick).collect();
    picked(run, columns, &picks)
}

/// Keeps the first ones only.
fn first(picks: &mut Vec<(i64, Pick)>, limit: usize) {
    if limit < picks.len() {
        picks.select_nth_unstable(limit);
        picks.truncate(limit);
    }
}

/// Batches of the rows picked, in their order.
pub(super) fn picked(
    run: &Run<'_>,
    columns: &[usize],
    picks: &[Pick],
) -> Result<Vec<RecordBatch>, WarmError> {
    let mut batches = Vec::with_capacity(picks.len().div_ceil(BATCH_ROWS));
    for picks in picks.chunks(BATCH_ROWS) {
        batches.extend(gather(run.table, &run.directory, &run.parts, columns, picks)?);
    }
    Ok(batches)
}

fn gather(
    table: &crate::WarmTable,
    directory: &crate::KeyDirectory,
    parts: &[Part],
    columns: &[usize],
    picks: &[Pick],
) -> Result<Vec<RecordBatch>, WarmError> {
    let one = picks.first().map(|pick| pick.part);
    let one = one.filter(|one| picks.iter().all(|pick| pick.part == *one));
    let rows = UInt32Array::from_iter_values(picks.iter().map(|pick| pick.row));
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for &column in columns {
        if let Some(position) = table.spec().key_position(column) {
            let form = table.spec().form(column)?;
            let images = picks.iter().map(|pick| directory.image(pick.key, position));
            arrays.push(array_of_images(form, images));
            continue;
        }
        let of_parts: Vec<_> =
            parts.iter().filter_map(|part| part.data.columns[column].as_deref()).collect();
        arrays.push(match one.and_then(|one| of_parts.get(one as usize)) {
            Some(array) => take(*array, &rows, None)?,
            None => {
                let places: Vec<_> =
                    picks.iter().map(|pick| (pick.part as usize, pick.row as usize)).collect();
                interleave(&of_parts, &places)?
            }
        });
    }
    table.decode_rows(columns, &arrays, picks.len())
}
