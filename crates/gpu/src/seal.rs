//! Sealing: rows are sorted and laid into a block of the arena.
//!
//! Rows that arrive in order are copied as they are. Others are sorted on the device, by one word for key and
//! time where both fit into 64 bits, else by one after the other; where the sealer's scratch is too small for
//! that, on the host.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use tidelog_warm::{
    Encoded, Form, KeyRuns, Ledger, Segment, SegmentStats, TableSpec, WarmError, WarmTable,
};

use crate::abi::{
    Address, BLOCK, Column, DIGITS, GatherArgs, GatherOut, SortArgs, SortWordsArgs, TILE, kind_of,
};
use crate::arena::{Arena, Block, aligned};
use crate::lane::Lane;
use crate::segment::Held;

/// Scratch bytes that sorting takes for each row: keys, times, words and numbers twice, counts of digits.
const SORT_BYTES_PER_ROW: u64 = 38;
/// And in all, for what is rounded up.
const SORT_BYTES: u64 = 64 << 10;

/// Where segments go.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) arena: &'a Arc<Arena>,
}

/// Seals batches into a segment.
pub(crate) fn seal(
    lane: &mut Lane,
    room: &Room<'_>,
    table: &Arc<WarmTable>,
    batches: &[RecordBatch],
) -> Result<Arc<Segment>, WarmError> {
    let encoded = table.encode(batches)?;
    let (encoded, order) = order(lane, encoded)?;
    let runs = match &order {
        Some(order) => {
            let keys: Vec<u32> = order.rows.iter().map(|row| encoded.keys[*row as usize]).collect();
            let times: Vec<i64> =
                order.rows.iter().map(|row| encoded.times[*row as usize]).collect();
            KeyRuns::of_sorted(&keys, &times)
        }
        None => KeyRuns::of_sorted(&encoded.keys, &encoded.times),
    };
    let layout = Layout::of(table.spec(), &encoded, &runs);
    let reservation = room.ledger.reserve(layout.bytes)?;
    let block = take_block(room, layout.bytes)?;
    let start = block.start();
    let columns = layout.columns(table.spec(), start);
    copy(lane, &layout, &encoded, order.as_ref().map(|order| order.at), start)?;
    lane.stream.upload(start + layout.offsets, &runs.offsets)?;
    let stats = SegmentStats::of(table, &encoded, &runs, layout.bytes);
    let held = Held {
        columns,
        times: start + layout.times,
        offsets: start + layout.offsets,
        ready: lane.stream.record()?,
        device: Arc::clone(lane.stream.device()),
        _block: block,
        _reservation: reservation,
    };
    let segment = Arc::new(Segment::new(Arc::clone(table), stats, runs, Arc::new(held)));
    room.ledger.admit(&segment);
    Ok(segment)
}

/// A block; where the arena is in pieces, everything that nobody reads goes first.
fn take_block(room: &Room<'_>, bytes: u64) -> Result<Block, WarmError> {
    room.arena.take(bytes).or_else(|_| {
        room.ledger.evict_all();
        room.arena.take(bytes)
    })
}

/// The order of rows, on the device and on the host.
struct Order {
    at: Address,
    rows: Vec<u32>,
}

/// The order that rows have to be brought into, or none if they are in order, as they come or now.
fn order(lane: &mut Lane, encoded: Encoded) -> Result<(Encoded, Option<Order>), WarmError> {
    if encoded.is_sorted() {
        return Ok((encoded, None));
    }
    // Beside the order, a column of at most 8 bytes and its nulls have to fit.
    let rows = encoded.rows() as u64;
    if rows * SORT_BYTES_PER_ROW + SORT_BYTES > lane.left() {
        return Ok((sorted_on_host(&encoded)?, None));
    }
    let at = sort(lane, &encoded)?;
    let rows = lane.stream.download(at, encoded.rows())?;
    Ok((encoded, Some(Order { at, rows })))
}

fn sorted_on_host(encoded: &Encoded) -> Result<Encoded, WarmError> {
    let rows = u32::try_from(encoded.rows()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..rows).collect();
    order.sort_by_key(|row| (encoded.keys[*row as usize], encoded.times[*row as usize]));
    let keys = order.iter().map(|row| encoded.keys[*row as usize]).collect();
    let times = order.iter().map(|row| encoded.times[*row as usize]).collect();
    let order = UInt32Array::from(order);
    let take = |array: &Option<ArrayRef>| array.as_ref().map(|array| take(array, &order, None));
    let columns = encoded.columns.iter().map(|array| take(array).transpose());
    Ok(Encoded { keys, times, columns: columns.collect::<Result<_, _>>()?, is_shared: false })
}

/// Sorts rows on the device; where the numbers of rows lie, in order.
fn sort(lane: &mut Lane, encoded: &Encoded) -> Result<Address, WarmError> {
    let rows = encoded.rows() as u64;
    let buffers = [lane.scratch(rows * 4)?, lane.scratch(rows * 4)?];
    let mark = lane.mark();
    let words = [lane.scratch(rows * 8)?, lane.scratch(rows * 8)?];
    let (numbers, times) = (lane.put::<u32>(&encoded.keys)?, lane.put::<i64>(&encoded.times)?);
    let least = encoded.times.iter().copied().min().unwrap_or(0);
    let greatest = encoded.times.iter().copied().max().unwrap_or(0);
    let time_bits = bits(greatest.wrapping_sub(least).cast_unsigned());
    let key_bits = bits(u64::from(encoded.keys.iter().copied().max().unwrap_or(0)));
    let count = u32::try_from(rows).unwrap_or(u32::MAX);
    let mut sorter = Sorter { lane, words, indices: buffers, count };
    let mut args = SortWordsArgs {
        numbers,
        times,
        words: words[0],
        indices: buffers[0],
        least,
        shift: time_bits,
        parts: 3,
        count,
        first: 1,
    };
    if time_bits + key_bits <= 64 && time_bits < 64 {
        sorter.pass(&args, time_bits + key_bits)?;
    } else {
        args.parts = 1;
        sorter.pass(&args, time_bits)?;
        (args.parts, args.first) = (2, 0);
        sorter.pass(&args, key_bits)?;
    }
    let at = sorter.indices[0];
    lane.back_to(mark);
    Ok(at)
}

const fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Words and numbers of rows; the first of each two is read next.
struct Sorter<'a> {
    lane: &'a mut Lane,
    words: [Address; 2],
    indices: [Address; 2],
    count: u32,
}

impl Sorter<'_> {
    /// Makes the words, and sorts by their lowest bits.
    fn pass(&mut self, args: &SortWordsArgs, bits: u32) -> Result<(), WarmError> {
        let args = SortWordsArgs { words: self.words[0], indices: self.indices[0], ..*args };
        self.lane.stream.launch("sort_words", self.count.div_ceil(BLOCK), &args)?;
        for shift in (0..bits).step_by(8) {
            self.digit(shift)?;
            self.words.swap(0, 1);
            self.indices.swap(0, 1);
        }
        Ok(())
    }

    fn digit(&mut self, shift: u32) -> Result<(), WarmError> {
        let tiles = self.count.div_ceil(TILE);
        let mark = self.lane.mark();
        let counts = u64::from(tiles) * u64::from(DIGITS);
        let count_tiles = counts.div_ceil(u64::from(BLOCK));
        let args = SortArgs {
            words: self.words[0],
            indices: self.indices[0],
            words_out: self.words[1],
            indices_out: self.indices[1],
            counts: self.lane.scratch(counts * 4)?,
            status: self.lane.zeros(count_tiles * 8)?,
            ticket: self.lane.zeros(4)?,
            count: self.count,
            shift,
        };
        self.lane.stream.launch("sort_count", tiles, &args)?;
        let scans = u32::try_from(count_tiles).unwrap_or(u32::MAX);
        self.lane.stream.launch("sort_scan", scans, &args)?;
        self.lane.stream.launch("sort_scatter", tiles, &args)?;
        self.lane.back_to(mark);
        Ok(())
    }
}

/// Where the parts of a segment lie within its block.
struct Layout {
    /// Of each column its data, and its bits of validity if there are nulls.
    parts: Vec<Option<(u64, Option<u64>)>>,
    times: u64,
    offsets: u64,
    bytes: u64,
}

impl Layout {
    fn of(spec: &TableSpec, encoded: &Encoded, runs: &KeyRuns) -> Self {
        let rows = encoded.rows() as u64;
        let mut bytes = 0;
        let mut part = |length: u64| {
            let at = bytes;
            // Bits are read as words of 32.
            bytes += aligned(length.next_multiple_of(4).max(4));
            at
        };
        let mut lay = |(column, array): (usize, &Option<ArrayRef>)| {
            let array = array.as_ref()?;
            let form = spec.form(column).ok()?;
            let data = part(data_bytes(form, rows));
            let nulls = array.null_count() > 0;
            Some((data, nulls.then(|| part(rows.div_ceil(8)))))
        };
        let parts = encoded.columns.iter().enumerate().map(&mut lay).collect();
        let times = part(rows * 8);
        let offsets = part(runs.offsets.len() as u64 * 4);
        Self { parts, times, offsets, bytes }
    }

    fn columns(&self, spec: &TableSpec, start: Address) -> Vec<Option<Column>> {
        let of_part = |(column, part): (usize, &Option<(u64, Option<u64>)>)| {
            if column == spec.time() {
                let kind = kind_of(Form::Int64);
                return Some(Column { data: start + self.times, valid: 0, kind, encoding: 0 });
            }
            let (data, valid) = (*part)?;
            let kind = kind_of(spec.form(column).ok()?);
            let valid = valid.map_or(0, |valid| start + valid);
            Some(Column { data: start + data, valid, kind, encoding: 0 })
        };
        self.parts.iter().enumerate().map(of_part).collect()
    }
}

/// Bytes of the values of a column of so many rows.
pub(crate) fn data_bytes(form: Form, rows: u64) -> u64 {
    match form {
        Form::Boolean => rows.div_ceil(8),
        form => rows * width(form),
    }
}

/// Bytes of a value.
fn width(form: Form) -> u64 {
    match form {
        Form::Boolean | Form::Int8 | Form::UInt8 => 1,
        Form::Int16 | Form::UInt16 => 2,
        Form::Int32 | Form::UInt32 | Form::Float32 | Form::Code => 4,
        Form::Int64 | Form::UInt64 | Form::Float64 => 8,
    }
}

/// Copies columns into their place, by way of scratch if they have to be brought into order.
fn copy(
    lane: &mut Lane,
    layout: &Layout,
    encoded: &Encoded,
    order: Option<Address>,
    start: Address,
) -> Result<(), WarmError> {
    let rows = encoded.rows();
    let times = encoded.times.inner().as_slice();
    let mut copier = Copier { lane, order, rows };
    copier.copy(kind_of(Form::Int64), start + layout.times, times, None)?;
    for (array, part) in encoded.columns.iter().zip(&layout.parts) {
        let (Some(array), Some((data, valid))) = (array, part) else { continue };
        let (form, values) = values_of(array);
        let nulls = match (valid, array.nulls()) {
            (Some(valid), Some(nulls)) => Some((start + valid, nulls.inner().sliced())),
            _ => None,
        };
        let nulls = nulls.as_ref().map(|(at, bits)| (*at, bits.as_slice()));
        copier.copy(kind_of(form), start + data, &values, nulls)?;
    }
    Ok(())
}

struct Copier<'a> {
    lane: &'a mut Lane,
    order: Option<Address>,
    rows: usize,
}

impl Copier<'_> {
    fn copy(
        &mut self,
        kind: u32,
        to: Address,
        values: &[u8],
        nulls: Option<(Address, &[u8])>,
    ) -> Result<(), WarmError> {
        let Some(order) = self.order else {
            self.lane.stream.upload(to, values)?;
            return match nulls {
                Some((at, bits)) => self.lane.stream.upload(at, bits),
                None => Ok(()),
            };
        };
        let mark = self.lane.mark();
        // Bits are read as words of 32.
        let data = self.lane.scratch(values.len() as u64 + 4)?;
        self.lane.stream.upload(data, values)?;
        let mut column = Column { data, valid: 0, kind, encoding: 0 };
        if let Some((_, bits)) = nulls {
            column.valid = self.lane.scratch(bits.len() as u64 + 4)?;
            self.lane.stream.upload(column.valid, bits)?;
        }
        let out = GatherOut { data: to, valid: nulls.map_or(0, |(at, _)| at) };
        let count = u32::try_from(self.rows).unwrap_or(u32::MAX);
        let args = GatherArgs {
            rows: order,
            columns: self.lane.put(&[column])?,
            outs: self.lane.put(&[out])?,
            count,
            column_count: 1,
        };
        self.lane.stream.launch("gather", count.div_ceil(BLOCK), &args)?;
        self.lane.back_to(mark);
        Ok(())
    }
}

/// The form of an array in a physical type, but for codes, and the bytes of its values.
fn values_of(array: &ArrayRef) -> (Form, Vec<u8>) {
    use arrow::datatypes::DataType;
    let form = match array.data_type() {
        DataType::Boolean => {
            let bits = array.as_boolean().values().sliced();
            return (Form::Boolean, bits.as_slice().to_vec());
        }
        other => Form::of(other).unwrap_or(Form::Int64),
    };
    let data = array.to_data();
    let width = usize::try_from(width(form)).unwrap_or(8);
    let bytes = data.buffers()[0].as_slice();
    let start = data.offset() * width;
    (form, bytes[start..start + data.len() * width].to_vec())
}
