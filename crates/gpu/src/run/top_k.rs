//! The first rows by some columns: the rank of the last of them is found digit by digit.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use tidelog_warm::{SortKey, WarmError, WarmTable, image_at};

use super::fetch::{Gathered, gather};
use super::filter::{Bits, bits_bytes, matching, rows_of};
use super::{Enough, Part, Run};
use crate::abi::{
    Address, BLOCK, CLASS_VALUE, CountDigitsArgs, DIGIT_CLASS, DIGITS, MarkArgs, OrderKey, Rank,
};
use crate::lane::Lane;
use crate::span::{Laid, Span, lay};

impl Run<'_> {
    /// The first rows by some columns.
    pub(super) fn top_k(
        &mut self,
        lane: &mut Lane,
        order: &[SortKey],
        k: usize,
        columns: &[usize],
    ) -> Result<Vec<RecordBatch>, WarmError> {
        let table = self.table;
        let search = Search { table, order, k: u32::try_from(k).unwrap_or(u32::MAX) };
        let mut wanted = columns.to_vec();
        wanted.extend(order.iter().map(|key| key.column));
        let mut gathered = Gathered::new(wanted.len());
        self.for_spans(lane, |lane, part, _, span, work| {
            work.rows_matched += search.in_span(lane, part, span, &wanted, &mut gathered)?;
            Ok(Enough::No)
        })?;
        let (mut arrays, rows) = gathered.finish(table, &wanted)?;
        let by = arrays.split_off(columns.len());
        let first = first_rows(table, order, &by, rows, k)?;
        let arrays: Vec<ArrayRef> =
            arrays.iter().map(|array| take(array, &first, None)).collect::<Result<_, _>>()?;
        table.decode_rows(columns, &arrays, first.len())
    }
}

/// The numbers of the first rows, of those that spans gave, by the values of the order's columns.
fn first_rows(
    table: &WarmTable,
    order: &[SortKey],
    by: &[ArrayRef],
    rows: usize,
    k: usize,
) -> Result<UInt32Array, WarmError> {
    let mut ranks: Vec<Vec<(u32, u64)>> = vec![Vec::with_capacity(order.len()); rows];
    for (key, array) in order.iter().zip(by) {
        let form = table.spec().form(key.column)?;
        for (row, ranks) in ranks.iter_mut().enumerate() {
            ranks.push(match image_at(form, array, row) {
                None => (if key.nulls_first { 0 } else { CLASS_VALUE + 1 }, 0),
                Some(image) => {
                    let digits = image.cast_unsigned() ^ (1 << 63);
                    (CLASS_VALUE, if key.descending { !digits } else { digits })
                }
            });
        }
    }
    let mut first: Vec<u32> = (0..u32::try_from(rows).unwrap_or(u32::MAX)).collect();
    // Stable: rows of one rank stay as spans and places have them.
    first.sort_by(|a, b| ranks[*a as usize].cmp(&ranks[*b as usize]));
    first.truncate(k);
    Ok(UInt32Array::from(first))
}

/// A search for the first rows of spans.
struct Search<'a> {
    table: &'a WarmTable,
    order: &'a [SortKey],
    k: u32,
}

impl Search<'_> {
    /// Gathers the first rows of a span; gives how many match.
    fn in_span(
        &self,
        lane: &mut Lane,
        part: &Part,
        span: &Span,
        wanted: &[usize],
        gathered: &mut Gathered,
    ) -> Result<u64, WarmError> {
        let by: Vec<_> = self.order.iter().map(|key| key.column).collect();
        let (laid, numbers) = lay(lane, &part.segment, &part.held, span, &by)?;
        let bits = matching(lane, &laid)?;
        let mut take = |lane: &mut Lane, bits: Address, count: u32| {
            let mut done = 0;
            while done < count {
                let mark = lane.mark();
                let length = (count - done).min(BLOCK);
                let rows = rows_of(lane, &laid, bits, (done, length))?;
                gathered.add(gather(lane, self.table, part, (rows, length), wanted)?);
                lane.back_to(mark);
                done += length;
            }
            Ok::<_, WarmError>(())
        };
        if bits.count <= self.k {
            take(lane, bits.at, bits.count)?;
        } else if self.k > 0 {
            let keys: Vec<OrderKey> = self.keys(&numbers);
            let keys = lane.put(&keys)?;
            let (chosen, equal) = self.choose(lane, &laid, bits, keys)?;
            let marked = mark(lane, &laid, bits, keys, &chosen)?;
            take(lane, marked.before, self.k - equal)?;
            take(lane, marked.equal, equal)?;
        }
        Ok(u64::from(bits.count))
    }

    fn keys(&self, numbers: &[u32]) -> Vec<OrderKey> {
        let key = |(key, column): (&SortKey, &u32)| OrderKey {
            column: *column,
            descending: u32::from(key.descending),
            nulls_first: u32::from(key.nulls_first),
            unused: 0,
        };
        self.order.iter().zip(numbers).map(key).collect()
    }

    /// The rank, in each column, of the k-th row, and how many rows of this rank are among the first.
    fn choose(
        &self,
        lane: &mut Lane,
        laid: &Laid<'_>,
        bits: Bits,
        keys: Address,
    ) -> Result<(Vec<Rank>, u32), WarmError> {
        let mut chosen: Vec<Rank> = Vec::with_capacity(self.order.len());
        let mut left = u64::from(self.k);
        for _ in self.order {
            chosen.push(Rank::default());
            let place = chosen.len() - 1;
            let class = digit(lane, laid, bits, (keys, DIGIT_CLASS), &chosen, &mut left)?;
            chosen[place].class = class;
            if class != CLASS_VALUE {
                continue;
            }
            for number in (0..DIGIT_CLASS).rev() {
                let found = digit(lane, laid, bits, (keys, number), &chosen, &mut left)?;
                chosen[place].digits |= u64::from(found) << (8 * number);
            }
        }
        Ok((chosen, u32::try_from(left).unwrap_or(u32::MAX)))
    }
}

/// The value of a digit of the row in question; `left` becomes its place among the rows that have it.
fn digit(
    lane: &mut Lane,
    laid: &Laid<'_>,
    bits: Bits,
    (keys, digit): (Address, u32),
    chosen: &[Rank],
    left: &mut u64,
) -> Result<u32, WarmError> {
    let mark = lane.mark();
    let args = CountDigitsArgs {
        rows: laid.rows,
        bits: bits.at,
        keys,
        chosen: lane.put(chosen)?,
        counts: lane.zeros(u64::from(DIGITS) * 8)?,
        key: u32::try_from(chosen.len() - 1).unwrap_or(u32::MAX),
        digit,
    };
    lane.stream.launch("count_digits", laid.span.len().div_ceil(BLOCK), &args)?;
    let counts: Vec<u64> = lane.stream.download(args.counts, DIGITS as usize)?;
    lane.back_to(mark);
    for (value, count) in (0..DIGITS).zip(counts) {
        if *left <= count {
            return Ok(value);
        }
        *left -= count;
    }
    Err(lane.stream.device().die("digits do not add up to the rows that were counted".to_owned()))
}

/// Bits of places before the chosen rank, and of that rank.
struct Marked {
    before: Address,
    equal: Address,
}

fn mark(
    lane: &mut Lane,
    laid: &Laid<'_>,
    bits: Bits,
    keys: Address,
    chosen: &[Rank],
) -> Result<Marked, WarmError> {
    let before = lane.scratch(bits_bytes(laid))?;
    let equal = lane.scratch(bits_bytes(laid))?;
    let args = MarkArgs {
        rows: laid.rows,
        bits: bits.at,
        keys,
        chosen: lane.put(chosen)?,
        before,
        equal,
        key_count: u32::try_from(chosen.len()).unwrap_or(u32::MAX),
        unused: 0,
    };
    lane.stream.launch("mark", laid.span.len().div_ceil(BLOCK), &args)?;
    Ok(Marked { before, equal })
}
