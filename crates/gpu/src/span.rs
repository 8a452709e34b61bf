//! Which rows of a segment are in question, and how kernels are told.
//!
//! A *piece* is a range of consecutive rows of one key. A *span* is some pieces, few enough for the scratch
//! of a lane; a segment comes as one span or several, in order. Rows of a span have *places*, counted over
//! its pieces from 0.

use std::ops::Range;

use tidelog_warm::{Bound, Filter, KeyDirectory, Segment, SegmentPlan, Test, WarmError, WarmTable};

use crate::abi::{Address, BLOCK, BoundsArgs, Column, KIND_PIECE, Rows};
use crate::lane::Lane;
use crate::program::{self, Place, words_of};
use crate::segment::Held;

/// Scratch bytes that a span may take for each place: bits, rows' numbers, records of runs.
const BYTES_PER_PLACE: u64 = 8;
/// And for each piece: its first row and place, images of its key, whether it meets conditions.
const BYTES_PER_PIECE: u64 = 64;

/// Some pieces.
#[derive(Debug, Default, Clone)]
pub(crate) struct Span {
    /// Of each piece the place of its key in the segment's runs.
    pub(crate) runs: Vec<u32>,
    /// Of each piece the first row.
    pub(crate) rows: Vec<u32>,
    /// Of each piece the first place, and at the end the number of places.
    pub(crate) places: Vec<u32>,
    /// What is left to test of the rows.
    pub(crate) filter: Option<Filter>,
}

impl Span {
    /// How many places there are.
    pub(crate) fn len(&self) -> u32 {
        self.places.last().copied().unwrap_or(0)
    }

    /// What is left to test of the rows.
    pub(crate) fn filter(&self) -> &Filter {
        self.filter.as_ref().unwrap_or(&Filter::Always)
    }

    /// Scratch bytes that it may take.
    fn bytes(&self) -> u64 {
        u64::from(self.len()) * BYTES_PER_PLACE + self.runs.len() as u64 * BYTES_PER_PIECE
    }

    fn push(&mut self, run: u32, rows: &Range<u32>) {
        if self.places.is_empty() {
            self.places.push(0);
        }
        self.runs.push(run);
        self.rows.push(rows.start);
        self.places.push(self.len() + (rows.end - rows.start));
    }
}

/// The spans of the rows of a segment that are in range, and of keys that may match.
///
/// Where all rows of a key are in range, no row is looked at; else the device searches.
pub(crate) fn spans(
    lane: &mut Lane,
    segment: &Segment,
    held: &Held,
    bound: &Bound,
    plan: &SegmentPlan,
) -> Result<Vec<Span>, WarmError> {
    let ranges = ranges(lane, segment, held, plan)?;
    let table = segment.table();
    let directory = table.keys();
    let key_columns = table.spec().keys();
    let by_key = plan.filter.tests(&|column| key_columns.contains(&column));
    // The other half is for what comes of the rows.
    let mut spans = Spans { bytes_max: lane.scratch_bytes() / 2, spans: vec![] };
    for (run, range) in ranges.into_iter().enumerate() {
        let key = segment.runs().keys[run];
        let wanted = bound.keys.as_ref().is_none_or(|keys| keys.binary_search(&key).is_ok());
        if !wanted || range.is_empty() {
            continue;
        }
        let rest = by_key.then(|| plan.filter.for_key(&directory, key_columns, key));
        if rest != Some(Filter::Never) {
            let run = u32::try_from(run).unwrap_or(u32::MAX);
            spans.add(run, range, rest.as_ref().unwrap_or(&plan.filter), &plan.filter);
        }
    }
    Ok(spans.spans)
}

struct Spans {
    bytes_max: u64,
    spans: Vec<Span>,
}

impl Spans {
    /// Adds rows of a key, with what is left to test of them of the whole filter.
    fn add(&mut self, run: u32, mut rows: Range<u32>, rest: &Filter, whole: &Filter) {
        while !rows.is_empty() {
            let left = match self.spans.last() {
                Some(span) => self.bytes_max.saturating_sub(span.bytes() + BYTES_PER_PIECE),
                None => 0,
            };
            if left < BYTES_PER_PLACE {
                self.spans.push(Span { filter: Some(rest.clone()), ..Span::default() });
            }
            let Some(span) = self.spans.last_mut() else { return };
            // Where keys differ in what is left to test, all is tested, keys too.
            if !std::ptr::eq(rest, whole) && span.filter.as_ref() != Some(rest) {
                span.filter = Some(whole.clone());
            }
            let left = self.bytes_max.saturating_sub(span.bytes() + BYTES_PER_PIECE);
            let most = u32::try_from(left / BYTES_PER_PLACE).unwrap_or(u32::MAX).max(1);
            let length = (rows.end - rows.start).min(most);
            span.push(run, &(rows.start..rows.start + length));
            rows.start += length;
        }
    }
}

/// Of each key of a segment its rows that are in the plan's range of time.
fn ranges(
    lane: &mut Lane,
    segment: &Segment,
    held: &Held,
    plan: &SegmentPlan,
) -> Result<Vec<Range<u32>>, WarmError> {
    let runs = segment.runs();
    let (least, greatest) = plan.time;
    let whole = |run: usize| runs.offsets[run]..runs.offsets[run + 1];
    let known = |run: usize| {
        let (first, last) = (runs.first_times[run], runs.last_times[run]);
        if least <= first && last <= greatest {
            Some(whole(run))
        } else if last < least || greatest < first {
            Some(0..0)
        } else {
            None
        }
    };
    let known: Vec<_> = (0..runs.len()).map(known).collect();
    if known.iter().all(Option::is_some) {
        return Ok(known.into_iter().flatten().collect());
    }
    let (first, end) = search(lane, held, runs.len(), plan.time)?;
    let found = first.into_iter().zip(end).map(|(first, end)| first..end);
    Ok(known.into_iter().zip(found).map(|(known, found)| known.unwrap_or(found)).collect())
}

fn search(
    lane: &mut Lane,
    held: &Held,
    keys: usize,
    (least, greatest): (i64, i64),
) -> Result<(Vec<u32>, Vec<u32>), WarmError> {
    let mark = lane.mark();
    let (first, end) = (lane.scratch(keys as u64 * 4)?, lane.scratch(keys as u64 * 4)?);
    let count = u32::try_from(keys).unwrap_or(u32::MAX);
    let args = BoundsArgs {
        times: held.times,
        offsets: held.offsets,
        first,
        end,
        least,
        greatest,
        keys: count,
        unused: 0,
    };
    lane.stream.launch("bounds", count.div_ceil(BLOCK), &args)?;
    let found = (lane.stream.download(first, keys)?, lane.stream.download(end, keys)?);
    lane.back_to(mark);
    Ok(found)
}

/// A span as kernels see it: in the lane's scratch.
#[derive(Debug)]
pub(crate) struct Laid<'a> {
    pub(crate) span: &'a Span,
    pub(crate) rows: Rows,
}

/// Puts a span into scratch, with a filter and the columns that the request needs beside it.
///
/// Gives the number of each of these columns in the kernel's table.
pub(crate) fn lay<'a>(
    lane: &mut Lane,
    segment: &Segment,
    held: &Held,
    span: &'a Span,
    columns: &[usize],
) -> Result<(Laid<'a>, Vec<u32>), WarmError> {
    let table = segment.table();
    let mut seen = Seen { table, directory: &table.keys(), segment, held, span, columns: vec![] };
    let program = program::compile(span.filter(), &mut seen, lane)?;
    let mut numbers = Vec::with_capacity(columns.len());
    for &column in columns {
        numbers.push(match seen.column(column) {
            Some(number) => number,
            None => {
                let laid = seen.lay_keys(lane, column)?;
                seen.add(laid)
            }
        });
    }
    let rows = Rows {
        piece_row: lane.put(&span.rows)?,
        piece_place: lane.put(&span.places)?,
        columns: lane.put(&seen.columns)?,
        program: lane.put(&program)?,
        pieces: u32::try_from(span.runs.len()).unwrap_or(u32::MAX),
        places: span.len(),
        steps: u32::try_from(program.len()).unwrap_or(u32::MAX),
        unused: 0,
    };
    Ok((Laid { span, rows }, numbers))
}

/// The columns that kernels see.
struct Seen<'a> {
    table: &'a WarmTable,
    directory: &'a KeyDirectory,
    segment: &'a Segment,
    held: &'a Held,
    span: &'a Span,
    columns: Vec<Column>,
}

impl Seen<'_> {
    fn add(&mut self, column: Column) -> u32 {
        self.columns.push(column);
        u32::try_from(self.columns.len() - 1).unwrap_or(u32::MAX)
    }

    fn images(&self, position: usize) -> impl ExactSizeIterator<Item = Option<i64>> {
        let keys = &self.segment.runs().keys;
        self.span.runs.iter().map(move |run| self.directory.image(keys[*run as usize], position))
    }

    /// A key column, as an image for each piece.
    fn lay_keys(&self, lane: &mut Lane, column: usize) -> Result<Column, WarmError> {
        let Some(position) = self.table.spec().key_position(column) else {
            return Ok(Column::default());
        };
        let images: Vec<i64> = self.images(position).map(Option::unwrap_or_default).collect();
        let mut valid: Address = 0;
        if self.images(position).any(|image| image.is_none()) {
            valid = lane.put(&words_of(self.images(position).map(|image| image.is_some())))?;
        }
        Ok(Column { data: lane.put(&images)?, valid, kind: KIND_PIECE, encoding: 0 })
    }
}

impl Place for Seen<'_> {
    fn column(&mut self, column: usize) -> Option<u32> {
        let held = self.held.columns.get(column).copied().flatten()?;
        let same = |other: &Column| other.data == held.data && other.kind == held.kind;
        match self.columns.iter().position(same) {
            Some(number) => u32::try_from(number).ok(),
            None => Some(self.add(held)),
        }
    }

    fn pieces(&self, column: usize, test: &Test) -> Vec<u32> {
        match self.table.spec().key_position(column) {
            Some(position) => words_of(self.images(position).map(|image| test.accepts(image))),
            None => vec![0; self.span.runs.len().div_ceil(32)],
        }
    }
}
