//! Where the pages of a Parquet file lie, and a short hash of each.
//!
//! The boundaries follow from the page index; only the hashes are stored, in the file's log row:
//! four bytes per page, in the order of offsets. Everything from the end of the last page on is the
//! tail, which has a hash of its own.

use std::ops::Range;

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use tidelog_oplog::Hash128;

/// The pages of one file.
#[derive(Debug, PartialEq, Eq)]
pub struct PageTable {
    /// Page starts in ascending order, then the end of the last page.
    bounds: Vec<u64>,
    hashes: Vec<u32>,
}

impl PageTable {
    /// The table of a file whose bytes are at hand; `None` if it has no complete page index.
    pub(crate) fn of_file(metadata: &ParquetMetaData, bytes: &Bytes) -> Option<Self> {
        let bounds = bounds_of(metadata)?;
        let hashes = bounds
            .windows(2)
            .map(|page| Some(Hash128::of(bytes.get(range_of(page[0]..page[1])?)?).short()))
            .collect::<Option<_>>()?;
        Some(Self { bounds, hashes })
    }

    /// The table of a file from its metadata and the hashes in the log; `None` if they do not fit.
    pub(crate) fn of_log(metadata: &ParquetMetaData, hashes: &[u8]) -> Option<Self> {
        let bounds = bounds_of(metadata)?;
        let (words, rest) = hashes.as_chunks::<4>();
        if !rest.is_empty() || words.len() + 1 != bounds.len() {
            return None;
        }
        Some(Self { bounds, hashes: words.iter().map(|word| u32::from_le_bytes(*word)).collect() })
    }

    pub(crate) fn encode_hashes(&self) -> Bytes {
        self.hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// Where the tail begins.
    pub(crate) fn data_end(&self) -> usize {
        self.bounds.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or_default()
    }

    /// The whole pages that `range` touches, as one range.
    pub(crate) fn widen(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let first = self.bounds.partition_point(|bound| *bound <= range.start).checked_sub(1)?;
        let end = self.bounds.partition_point(|bound| *bound < range.end);
        Some(*self.bounds.get(first)?..*self.bounds.get(end)?)
    }

    /// Checks `bytes`, which must be the whole pages of `range`; `Err` holds the damaged page.
    pub(crate) fn verify(&self, range: &Range<u64>, bytes: &Bytes) -> Result<(), Range<u64>> {
        let mut page = self.bounds.partition_point(|bound| *bound < range.start);
        let mut at = range.start;
        while at < range.end {
            let next = *self.bounds.get(page + 1).ok_or(range.clone())?;
            let slice = range_of(at - range.start..next - range.start);
            let content = slice.and_then(|slice| bytes.get(slice)).ok_or(at..next)?;
            if self.hashes.get(page) != Some(&Hash128::of(content).short()) {
                return Err(at..next);
            }
            (page, at) = (page + 1, next);
        }
        Ok(())
    }

    /// Bytes of memory that the table takes, about.
    pub(crate) fn memory_size(&self) -> usize {
        self.bounds.len() * 12
    }
}

fn range_of(range: Range<u64>) -> Option<Range<usize>> {
    Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// Start of every page (dictionary pages included) and the end of the last.
fn bounds_of(metadata: &ParquetMetaData) -> Option<Vec<u64>> {
    let index = metadata.offset_index()?;
    let mut bounds = Vec::new();
    let mut end = 0;
    for (group, offsets) in metadata.row_groups().iter().zip(index) {
        for (column, offsets) in group.columns().iter().zip(offsets) {
            let (start, length) = column.byte_range();
            let pages = offsets.page_locations();
            let first = u64::try_from(pages.first()?.offset).ok()?;
            if start < first {
                bounds.push(start);
            }
            for page in pages {
                bounds.push(u64::try_from(page.offset).ok()?);
            }
            end = end.max(start + length);
        }
    }
    // Column chunks lie end to end, so that a page ends where the next one begins.
    bounds.push(end);
    bounds.is_sorted().then_some(bounds)
}
