//! Which rows of a span match, and how many.

use tidelog_warm::{Filter, WarmError};

use super::{Enough, Run};
use crate::abi::{Address, COMPACT_TILE, CompactArgs, FilterArgs, TILE};
use crate::lane::Lane;
use crate::span::{Laid, lay};

impl Run<'_> {
    /// How many rows match.
    pub(super) fn count(&mut self, lane: &mut Lane) -> Result<u64, WarmError> {
        let count = lane.zeros(8)?;
        let mut known = 0;
        self.for_spans(lane, |lane, part, _, span, _| {
            if *span.filter() == Filter::Always {
                known += u64::from(span.len());
                return Ok(Enough::No);
            }
            let (laid, _) = lay(lane, &part.segment, &part.held, span, &[])?;
            filter(lane, &laid, 0, count)?;
            Ok(Enough::No)
        })?;
        let counted: u64 = lane.stream.download::<u64>(count, 1)?.iter().sum();
        self.work.rows_matched = known + counted;
        Ok(self.work.rows_matched)
    }
}

/// Sets a bit for each place whose row matches, if there is room for bits, and adds up how many do.
pub(super) fn filter(
    lane: &Lane,
    laid: &Laid<'_>,
    bits: Address,
    count: Address,
) -> Result<(), WarmError> {
    let args = FilterArgs { rows: laid.rows, bits, count };
    lane.stream.launch("filter", laid.span.len().div_ceil(TILE), &args)
}

/// Bits of places, and how many are set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits {
    pub(super) at: Address,
    pub(super) count: u32,
}

/// The bits of the places of a span whose rows match.
pub(super) fn matching(lane: &mut Lane, laid: &Laid<'_>) -> Result<Bits, WarmError> {
    let at = lane.scratch(bits_bytes(laid))?;
    let count = lane.zeros(8)?;
    filter(lane, laid, at, count)?;
    let count: u64 = lane.stream.download::<u64>(count, 1)?.iter().sum();
    Ok(Bits { at, count: u32::try_from(count).unwrap_or(u32::MAX) })
}

/// Bytes of a bit for each place.
pub(super) fn bits_bytes(laid: &Laid<'_>) -> u64 {
    u64::from(laid.span.len().div_ceil(32)) * 4
}

/// The rows at the places of bits, after so many of them; at most as many as there is room for.
pub(super) fn rows_of(
    lane: &mut Lane,
    laid: &Laid<'_>,
    bits: Address,
    (skip, capacity): (u32, u32),
) -> Result<Address, WarmError> {
    let out = lane.scratch(u64::from(capacity) * 4)?;
    let mark = lane.mark();
    let tiles = laid.span.len().div_ceil(COMPACT_TILE);
    let args = CompactArgs {
        rows: laid.rows,
        bits,
        out,
        status: lane.zeros(u64::from(tiles) * 8)?,
        ticket: lane.zeros(4)?,
        skip,
        capacity,
    };
    lane.stream.launch("compact", tiles, &args)?;
    lane.back_to(mark);
    Ok(out)
}
