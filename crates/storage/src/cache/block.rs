//! Blocks: which of them a range touches, and how one lies in a file.
//!
//! ```text
//! magic             8 bytes
//! checksum         16 bytes, XXH3-128 of all that follows, little endian
//! header's length   4 bytes, little endian
//! header            JSON: the object's name and what the store says about it, the block's number
//! bytes             64 KiB; fewer in the object's last block
//! ```

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_128::Hasher;

/// Bytes of every block but an object's last.
pub(super) const BLOCK_BYTES: u64 = 64 * 1024;

const MAGIC: &[u8; 8] = b"TLBLOCK1";
const CHECKSUM_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;

/// A block of an object of a store, as a file is named for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BlockId {
    pub(super) store: u128,
    pub(super) object: u128,
    pub(super) number: u64,
}

/// One block, with what the store says about its object.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) meta: ObjectMeta,
    pub(super) number: u64,
    pub(super) bytes: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Header {
    /// The name by which the object was asked for.
    object: String,
    /// The name by which the store answered, which below a prefix may be another.
    location: String,
    number: u64,
    size: u64,
    /// Since the epoch; seconds and nanoseconds of the last.
    modified: (u64, u32),
    e_tag: Option<String>,
    version: Option<String>,
}

impl Header {
    fn of(object: &Path, block: &Block) -> Self {
        let modified = SystemTime::from(block.meta.last_modified);
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            object: object.to_string(),
            location: block.meta.location.to_string(),
            number: block.number,
            size: block.meta.size,
            modified: (modified.as_secs(), modified.subsec_nanos()),
            e_tag: block.meta.e_tag.clone(),
            version: block.meta.version.clone(),
        }
    }

    fn into_meta(self) -> Option<ObjectMeta> {
        let modified = Duration::new(self.modified.0, self.modified.1.min(999_999_999));
        Some(ObjectMeta {
            location: Path::parse(&self.location).ok()?,
            last_modified: UNIX_EPOCH.checked_add(modified)?.into(),
            size: self.size,
            e_tag: self.e_tag,
            version: self.version,
        })
    }
}

impl Block {
    /// What stands in a file before the block's bytes; `object` is asked for by this name.
    pub(super) fn head(&self, object: &Path) -> Option<Vec<u8>> {
        let header = serde_json::to_vec(&Header::of(object, self)).ok()?;
        let length = u32::try_from(header.len()).ok()?.to_le_bytes();
        let mut hasher = Hasher::new();
        for part in [&length[..], &header, &self.bytes] {
            hasher.write(part);
        }
        let checksum = hasher.finish_128().to_le_bytes();
        Some([MAGIC.as_slice(), &checksum, &length, &header].concat())
    }

    /// The block in a file's bytes; `None` if they are not, whole and unaltered, that block.
    pub(super) fn decode(object: &Path, number: u64, file: &Bytes) -> Option<Self> {
        let rest = file.strip_prefix(MAGIC.as_slice())?;
        let (checksum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>()?;
        if Hasher::oneshot(rest).to_le_bytes() != *checksum {
            return None;
        }
        let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (header, bytes) = rest.split_at_checked(length)?;
        let header: Header = serde_json::from_slice(header).ok()?;
        if header.object != object.as_ref() || header.number != number {
            return None;
        }
        let expected = range_of(number, header.size)?;
        if bytes.len() as u64 != expected.end - expected.start {
            return None;
        }
        let bytes = file.slice(file.len() - bytes.len()..);
        Some(Self { meta: header.into_meta()?, number, bytes })
    }

    /// Cuts the bytes from the beginning of block `first` on into blocks. What is no whole block is
    /// left out, unless it is the object's last.
    pub(super) fn cut(meta: &ObjectMeta, first: u64, bytes: &Bytes) -> Vec<Self> {
        let block = |number: u64| {
            let range = range_of(number, meta.size)?;
            let start = usize::try_from(range.start - first * BLOCK_BYTES).ok()?;
            let end = usize::try_from(range.end - first * BLOCK_BYTES).ok()?;
            let bytes = (end <= bytes.len()).then(|| bytes.slice(start..end))?;
            Some(Self { meta: meta.clone(), number, bytes })
        };
        (first..).map_while(block).collect()
    }
}

/// The bytes of a block in an object of this size; `None` beyond its end.
fn range_of(number: u64, size: u64) -> Option<Range<u64>> {
    let start = number.checked_mul(BLOCK_BYTES)?;
    (start < size).then(|| start..size.min(start.saturating_add(BLOCK_BYTES)))
}

/// How many blocks an object of this size has.
pub(super) fn count(size: u64) -> u64 {
    size.div_ceil(BLOCK_BYTES)
}

/// The numbers of the blocks that the ranges touch, in order, each once.
pub(super) fn touched(ranges: &[Range<u64>]) -> Vec<u64> {
    let blocks = ranges.iter().flat_map(|range| range.start / BLOCK_BYTES..count(range.end));
    let mut blocks: Vec<u64> = blocks.collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

/// Joins numbers, which are in order, that follow one another.
pub(super) fn runs(numbers: impl IntoIterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "a/b";
    const BELOW: &str = "prefix/a/b";

    fn block(size: u64, number: u64) -> Block {
        let length = range_of(number, size).map_or(0, |range| range.end - range.start);
        let meta = ObjectMeta {
            location: Path::from(BELOW),
            last_modified: (UNIX_EPOCH + Duration::new(5, 7)).into(),
            size,
            e_tag: Some("\"tag\"".to_owned()),
            version: None,
        };
        Block { meta, number, bytes: vec![7; usize::try_from(length).unwrap()].into() }
    }

    fn file(block: &Block) -> Bytes {
        [block.head(&Path::from(AT)).unwrap(), block.bytes.to_vec()].concat().into()
    }

    #[test]
    fn a_block_comes_back_as_it_was_kept() {
        for (size, number) in [(1, 0), (BLOCK_BYTES, 0), (BLOCK_BYTES + 1, 1), (200_000, 2)] {
            let block = block(size, number);
            let found = Block::decode(&Path::from(AT), number, &file(&block)).unwrap();
            assert_eq!((found.meta, found.bytes), (block.meta, block.bytes));
        }
    }

    #[test]
    fn an_altered_or_misplaced_block_is_none() {
        let file = file(&block(3, 0));
        for at in 0..file.len() {
            let mut flipped = file.to_vec();
            flipped[at] ^= 1;
            assert!(Block::decode(&Path::from(AT), 0, &flipped.into()).is_none(), "{at}");
            assert!(Block::decode(&Path::from(AT), 0, &file.slice(..at)).is_none(), "{at}");
        }
        assert!(Block::decode(&Path::from("a/c"), 0, &file).is_none());
        assert!(Block::decode(&Path::from(AT), 1, &file).is_none());
        let longer = [file.to_vec(), vec![0]].concat();
        assert!(Block::decode(&Path::from(AT), 0, &longer.into()).is_none());
    }

    #[test]
    fn ranges_touch_blocks_and_blocks_form_runs() {
        let b = BLOCK_BYTES;
        assert_eq!(touched(std::slice::from_ref(&(0..1))), [0]);
        assert_eq!(touched(std::slice::from_ref(&(b - 1..b + 1))), [0, 1]);
        assert_eq!(touched(&[3 * b..4 * b, 0..b, b - 1..b]), [0, 3]);
        assert_eq!(runs([0, 1, 3, 5, 6]), [0..2, 3..4, 5..7]);
        assert!(runs([]).is_empty());
    }

    #[test]
    fn bytes_are_cut_into_whole_blocks_and_the_objects_last() {
        let meta = block(2 * BLOCK_BYTES + 5, 0).meta;
        let bytes = Bytes::from(vec![1; usize::try_from(BLOCK_BYTES + 5).unwrap()]);
        let lengths = |blocks: Vec<Block>| -> Vec<(u64, usize)> {
            blocks.iter().map(|block| (block.number, block.bytes.len())).collect()
        };
        assert_eq!(lengths(Block::cut(&meta, 1, &bytes)), [(1, 65_536), (2, 5)]);
        assert_eq!(lengths(Block::cut(&meta, 0, &bytes)), [(0, 65_536)]);
    }
}
