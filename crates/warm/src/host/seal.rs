//! Batches become sorted arrays.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat, take};

use super::HostData;
use crate::error::WarmError;
use crate::ledger::Ledger;
use crate::segment::{KeyRuns, Segment, SegmentStats};
use crate::table::{Encoded, WarmTable};

/// Seals batches into a segment that the ledger has bytes for.
pub(super) fn seal(
    ledger: &Ledger,
    table: &Arc<WarmTable>,
    batches: &[RecordBatch],
) -> Result<Arc<Segment>, WarmError> {
    let mut rows = table.encode(batches)?;
    let order = order(&rows).map(UInt32Array::from);
    if let Some(order) = &order {
        rows.keys = order.values().iter().map(|row| rows.keys[*row as usize]).collect();
        rows.times = order.values().iter().map(|row| rows.times[*row as usize]).collect();
    }
    let runs = KeyRuns::of_sorted(&rows.keys, &rows.times);
    let reservation = ledger.reserve(bytes(&rows) + runs.bytes())?;
    for array in rows.columns.iter_mut().flatten() {
        *array = match &order {
            Some(order) => take(array, order, None)?,
            // In buffers of its own, so that the segment keeps no batch alive.
            None if rows.is_shared => concat(&[array.as_ref(), array.slice(0, 0).as_ref()])?,
            None => continue,
        };
    }
    let stats = SegmentStats::of(table, &rows, &runs, reservation.bytes());
    let times = match order {
        None if rows.is_shared => ScalarBuffer::from(rows.times.to_vec()),
        _ => rows.times,
    };
    let mut columns = rows.columns;
    columns[table.spec().time()] = Some(Arc::new(Int64Array::new(times.clone(), None)));
    let data = HostData { times, columns, _reservation: reservation };
    Ok(Arc::new(Segment::new(Arc::clone(table), stats, runs, Arc::new(data))))
}

/// Bytes of the times and arrays of a segment of these rows.
fn bytes(rows: &Encoded) -> u64 {
    let bits = rows.rows().div_ceil(8);
    let columns = rows.columns.iter().flatten().map(|array| {
        let values = match array.data_type().primitive_width() {
            Some(width) => width * rows.rows(),
            None => bits,
        };
        values + if array.null_count() > 0 { bits } else { 0 }
    });
    (columns.sum::<usize>() + rows.rows() * 8) as u64
}

/// The order of segments as numbers of rows, or none if they lie in it.
///
/// Stable: rows with equal key and time stay as they came.
fn order(rows: &Encoded) -> Option<Vec<u32>> {
    if rows.is_sorted() {
        return None;
    }
    let mut order = by_key(&rows.keys);
    let same_key = |a: &u32, b: &u32| rows.keys[*a as usize] == rows.keys[*b as usize];
    for run in order.chunk_by_mut(same_key) {
        let time = |row: &u32| rows.times[*row as usize];
        if !run.is_sorted_by_key(time) {
            run.sort_by_key(time);
        }
    }
    Some(order)
}

/// Numbers of rows by key, otherwise as they came.
fn by_key(keys: &[u32]) -> Vec<u32> {
    let rows = 0..u32::try_from(keys.len()).unwrap_or(u32::MAX);
    let most = keys.iter().max().map_or(0, |most| *most as usize + 1);
    if most > 4 * keys.len() + 1024 {
        let mut order: Vec<u32> = rows.collect();
        order.sort_by_key(|row| keys[*row as usize]);
        return order;
    }
    let mut next = vec![0_u32; most + 1];
    for key in keys {
        next[*key as usize + 1] += 1;
    }
    for key in 0..most {
        next[key + 1] += next[key];
    }
    let mut order = vec![0; keys.len()];
    for row in rows {
        let place = &mut next[keys[row as usize] as usize];
        order[*place as usize] = row;
        *place += 1;
    }
    order
}
