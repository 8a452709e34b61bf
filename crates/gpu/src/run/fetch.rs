//! Rows themselves: their columns are gathered on the device and copied back.

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, AsArray, RecordBatch, UInt32Array, make_array};
use arrow::buffer::Buffer;
use arrow::compute::{concat, take};
use arrow::datatypes::Int64Type;
use tidelog_warm::{FetchOrder, Form, WarmError, WarmTable, array_of_images};

use super::filter::{matching, rows_of};
use super::{Enough, Part, Run};
use crate::abi::{Address, BLOCK, Column, GatherArgs, GatherOut};
use crate::lane::Lane;
use crate::seal::data_bytes;
use crate::span::lay;

/// The most rows that are gathered at once.
const GATHER_ROWS_MAX: u32 = 1 << 20;

impl Run<'_> {
    /// Rows that match, in an order.
    pub(super) fn fetch(
        &mut self,
        lane: &mut Lane,
        columns: &[usize],
        order: FetchOrder,
        limit: Option<usize>,
    ) -> Result<Vec<RecordBatch>, WarmError> {
        let table = self.table;
        let time = table.spec().time();
        let mut wanted = columns.to_vec();
        if order == FetchOrder::Time {
            wanted.push(time);
        }
        let mut gathered = Gathered::new(wanted.len());
        // In the order of time any row may be among the first.
        let most = limit.filter(|_| order == FetchOrder::Stored).unwrap_or(usize::MAX);
        self.for_spans(lane, |lane, part, _, span, work| {
            let left = most - gathered.rows.min(most);
            if left == 0 {
                return Ok(Enough::Yes);
            }
            let (laid, _) = lay(lane, &part.segment, &part.held, span, &[])?;
            let bits = matching(lane, &laid)?;
            work.rows_matched += u64::from(bits.count);
            let count = bits.count.min(u32::try_from(left).unwrap_or(u32::MAX));
            let step = step(lane, &wanted, table);
            let mut done = 0;
            while done < count {
                let mark = lane.mark();
                let length = (count - done).min(step);
                let rows = rows_of(lane, &laid, bits.at, (done, length))?;
                gathered.add(gather(lane, table, part, (rows, length), &wanted)?);
                lane.back_to(mark);
                done += length;
            }
            Ok(Enough::No)
        })?;
        let (mut arrays, mut rows) = gathered.finish(table, &wanted)?;
        if order == FetchOrder::Time {
            let times = arrays.pop().unwrap_or_else(|| Arc::new(UInt32Array::new_null(0)));
            rows = rows.min(limit.unwrap_or(usize::MAX));
            arrays = in_order_of(&times, rows, &arrays)?;
        }
        table.decode_rows(columns, &arrays, rows)
    }
}

/// The first rows in the order of their times; those of one time as they come.
fn in_order_of(
    times: &ArrayRef,
    rows: usize,
    arrays: &[ArrayRef],
) -> Result<Vec<ArrayRef>, WarmError> {
    let times = times.as_primitive::<Int64Type>().values();
    let mut order: Vec<u32> = (0..u32::try_from(times.len()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|row| times[*row as usize]);
    order.truncate(rows);
    let order = UInt32Array::from(order);
    arrays.iter().map(|array| Ok(take(array, &order, None)?)).collect()
}

/// How many rows fit into the scratch that is left, with their numbers and columns.
pub(super) fn step(lane: &Lane, columns: &[usize], table: &WarmTable) -> u32 {
    let bits = |column: &usize| match table.spec().form(*column) {
        Ok(form) => data_bytes(form, 8) + 1,
        Err(_) => 0,
    };
    let bits = 32 + columns.iter().map(bits).sum::<u64>();
    // What is rounded up, of each column twice.
    let left = lane.left().saturating_sub((columns.len() as u64 * 2 + 64) * 256);
    let rows = u32::try_from(left * 8 / 2 / bits).unwrap_or(u32::MAX);
    rows.clamp(32, GATHER_ROWS_MAX)
}

/// Columns in physical types, in parts that follow each other.
#[derive(Debug)]
pub(super) struct Gathered {
    parts: Vec<Vec<ArrayRef>>,
    pub(super) rows: usize,
}

impl Gathered {
    pub(super) fn new(columns: usize) -> Self {
        Self { parts: vec![vec![]; columns], rows: 0 }
    }

    pub(super) fn add(&mut self, (arrays, rows): (Vec<ArrayRef>, usize)) {
        for (parts, array) in self.parts.iter_mut().zip(arrays) {
            parts.push(array);
        }
        self.rows += rows;
    }

    /// Each column as one array.
    pub(super) fn finish(
        self,
        table: &WarmTable,
        columns: &[usize],
    ) -> Result<(Vec<ArrayRef>, usize), WarmError> {
        let mut arrays = Vec::with_capacity(columns.len());
        for (parts, &column) in self.parts.iter().zip(columns) {
            arrays.push(match parts.as_slice() {
                [] => array_of_images(table.spec().form(column)?, []),
                [part] => Arc::clone(part),
                parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
            });
        }
        Ok((arrays, self.rows))
    }
}

/// Columns, in physical types, of rows of a segment whose numbers lie in scratch.
pub(super) fn gather(
    lane: &mut Lane,
    table: &WarmTable,
    part: &Part,
    (rows, count): (Address, u32),
    columns: &[usize],
) -> Result<(Vec<ArrayRef>, usize), WarmError> {
    let mark = lane.mark();
    let length = u64::from(count);
    let mut held: Vec<Column> = Vec::new();
    let mut outs: Vec<GatherOut> = Vec::new();
    for &column in columns {
        let Some(from) = part.held.columns[column] else { continue };
        let data = lane.scratch(data_bytes(table.spec().form(column)?, length) + 8)?;
        let valid = if from.valid == 0 { 0 } else { lane.scratch(length.div_ceil(8) + 8)? };
        held.push(from);
        outs.push(GatherOut { data, valid });
    }
    let args = GatherArgs {
        rows,
        columns: lane.put(&held)?,
        outs: lane.put(&outs)?,
        count,
        column_count: u32::try_from(held.len()).unwrap_or(u32::MAX),
    };
    lane.stream.launch("gather", count.div_ceil(BLOCK), &args)?;
    let keys = if columns.iter().any(|column| table.spec().key_position(*column).is_some()) {
        keys_of(lane, part, rows, count)?
    } else {
        Vec::new()
    };
    let mut outs = outs.into_iter();
    let mut arrays = Vec::with_capacity(columns.len());
    let directory = table.keys();
    for &column in columns {
        let form = table.spec().form(column)?;
        if let Some(position) = table.spec().key_position(column) {
            let images = keys.iter().map(|key| directory.image(*key, position));
            arrays.push(array_of_images(form, images));
        } else if let Some(out) = outs.next() {
            arrays.push(download(lane, form, out, count)?);
        }
    }
    lane.back_to(mark);
    Ok((arrays, count as usize))
}

/// The numbers of the keys of rows.
fn keys_of(lane: &mut Lane, part: &Part, rows: Address, count: u32) -> Result<Vec<u32>, WarmError> {
    let runs = part.segment.runs();
    let rows: Vec<u32> = lane.stream.download(rows, count as usize)?;
    let key = |row: u32| {
        let run = runs.offsets.partition_point(|offset| *offset <= row);
        runs.keys[run - 1]
    };
    Ok(rows.into_iter().map(key).collect())
}

/// A column that was gathered.
fn download(
    lane: &mut Lane,
    form: Form,
    out: GatherOut,
    count: u32,
) -> Result<ArrayRef, WarmError> {
    let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let rows = u64::from(count);
    let values: Vec<u64> =
        lane.stream.download(out.data, length(data_bytes(form, rows).div_ceil(8)))?;
    let mut data = ArrayData::builder(form.physical_type())
        .len(count as usize)
        .add_buffer(Buffer::from_vec(values));
    if out.valid != 0 {
        let bits: Vec<u64> = lane.stream.download(out.valid, length(rows.div_ceil(64)))?;
        data = data.null_bit_buffer(Some(Buffer::from_vec(bits)));
    }
    Ok(make_array(data.build()?))
}
