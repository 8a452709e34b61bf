//! The bytes of a log: headers of segments and frames, and the file that holds the id.
//!
//! All numbers are little endian; all hashes are XXH3-64. They find damage; they are no protection
//! against an attacker who can write to the disk.
//!
//! A segment file is a header, then frames without padding.
//!
//! | offset | bytes | segment header |
//! |---:|---:|---|
//! | 0 | 8 | magic `TLWALSEG` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 16 | id of the log |
//! | 32 | 8 | number of the segment, as in its name |
//! | 40 | 8 | sequence number of its first record |
//! | 48 | 8 | number of the segment before it, 0 if there is none |
//! | 56 | 8 | sequence number of the record before it; one less than the first unless numbers were skipped |
//! | 64 | 8 | hash of the header before it: of that record's frame, or of the segment if that has none |
//! | 72 | 8 | hash of bytes 0 to 71 |
//!
//! | offset | bytes | frame header |
//! |---:|---:|---|
//! | 0 | 4 | magic `TLWF` |
//! | 4 | 4 | format version, 1 |
//! | 8 | 4 | bytes of payload |
//! | 12 | 4 | zero |
//! | 16 | 8 | number of the segment |
//! | 24 | 8 | sequence number |
//! | 32 | 8 | the highest sequence number that was durable when this was written |
//! | 40 | 8 | hash of the payload |
//! | 48 | 8 | hash of the header before it: of a frame, or of the segment for its first frame |
//! | 56 | 8 | hash of bytes 0 to 55, seeded with the first eight bytes of the log's id |
//! | 64 | | payload |
//!
//! | offset | bytes | `wal.id` |
//! |---:|---:|---|
//! | 0 | 8 | magic `TLWALID1` |
//! | 8 | 16 | id of the log |
//! | 24 | 8 | hash of bytes 0 to 23 |
//!
//! The hash of a segment header and the place of the version in it stay as they are in later
//! versions, so that a newer format is told from damage.

use tidelog_core::WalId;
use twox_hash::XxHash3_64;
use uuid::Uuid;

/// The version of the format that this build writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 80;
pub(crate) const FRAME_HEADER_BYTES: usize = 64;
pub(crate) const ID_FILE_BYTES: usize = 32;
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"TLWF";
const SEGMENT_MAGIC: [u8; 8] = *b"TLWALSEG";
const ID_MAGIC: [u8; 8] = *b"TLWALID1";

/// The head of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: WalId,
    pub(crate) number: u64,
    pub(crate) first_seq: u64,
    pub(crate) previous: Link,
}

/// What a segment follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// The number of the segment, 0 for none.
    pub(crate) segment: u64,
    /// The record that it ends with.
    pub(crate) seq: u64,
    /// The hash of that record's frame header, or of the segment header if that has no frame.
    pub(crate) hash: u64,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) segment: u64,
    pub(crate) seq: u64,
    pub(crate) durable_seq: u64,
    pub(crate) payload_hash: u64,
    pub(crate) chain: u64,
    /// The hash of this header, which the next one holds.
    pub(crate) hash: u64,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// This is not it; in words.
    Invalid(String),
    /// Whole, of a version that this build does not know.
    Newer(u32),
}

impl Flaw {
    fn invalid(what: &str) -> Self {
        Self::Invalid(what.to_owned())
    }
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> ([u8; SEGMENT_HEADER_BYTES], u64) {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let mut fields = Fields(&mut bytes);
        fields.put(0, &SEGMENT_MAGIC);
        fields.put(8, &FORMAT_VERSION.to_le_bytes());
        fields.put(16, self.id.as_uuid().as_bytes());
        fields.put(32, &self.number.to_le_bytes());
        fields.put(40, &self.first_seq.to_le_bytes());
        fields.put(48, &self.previous.segment.to_le_bytes());
        fields.put(56, &self.previous.seq.to_le_bytes());
        fields.put(64, &self.previous.hash.to_le_bytes());
        let hash = XxHash3_64::oneshot(&bytes[..72]);
        bytes[72..].copy_from_slice(&hash.to_le_bytes());
        (bytes, hash)
    }

    /// The header with its hash.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u64), Flaw> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(Flaw::invalid("the file ends within the segment header"));
        };
        let hash = u64_at(bytes, 72);
        if hash != XxHash3_64::oneshot(&bytes[..72]) {
            return Err(Flaw::Invalid(describe(bytes, "segment header")));
        }
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(Flaw::invalid("this is no segment header"));
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(Flaw::Newer(version));
        }
        let header = Self {
            id: id_at(bytes, 16),
            number: u64_at(bytes, 32),
            first_seq: u64_at(bytes, 40),
            previous: Link {
                segment: u64_at(bytes, 48),
                seq: u64_at(bytes, 56),
                hash: u64_at(bytes, 64),
            },
        };
        Ok((header, hash))
    }
}

impl FrameHeader {
    /// Fills in the hash and yields the bytes.
    pub(crate) fn encode(&mut self, seed: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut fields = Fields(&mut bytes);
        fields.put(0, &FRAME_MAGIC);
        fields.put(4, &FORMAT_VERSION.to_le_bytes());
        fields.put(8, &self.length.to_le_bytes());
        fields.put(16, &self.segment.to_le_bytes());
        fields.put(24, &self.seq.to_le_bytes());
        fields.put(32, &self.durable_seq.to_le_bytes());
        fields.put(40, &self.payload_hash.to_le_bytes());
        fields.put(48, &self.chain.to_le_bytes());
        self.hash = XxHash3_64::oneshot_with_seed(seed, &bytes[..56]);
        bytes[56..].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], seed: u64) -> Result<Self, Flaw> {
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Err(Flaw::Invalid(describe(bytes, "part of a frame header")));
        };
        let hash = u64_at(bytes, 56);
        if bytes[..4] != FRAME_MAGIC || hash != XxHash3_64::oneshot_with_seed(seed, &bytes[..56]) {
            return Err(Flaw::Invalid(describe(bytes, "frame header")));
        }
        let version = u32_at(bytes, 4);
        if version != FORMAT_VERSION {
            return Err(Flaw::Newer(version));
        }
        Ok(Self {
            length: u32_at(bytes, 8),
            segment: u64_at(bytes, 16),
            seq: u64_at(bytes, 24),
            durable_seq: u64_at(bytes, 32),
            payload_hash: u64_at(bytes, 40),
            chain: u64_at(bytes, 48),
            hash,
        })
    }

    /// Bytes of header and payload.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// The seed of a log's frame headers: a frame of another log is none of this one.
pub(crate) fn seed_of(id: WalId) -> u64 {
    u64_at(id.as_uuid().as_bytes(), 0)
}

pub(crate) fn encode_id(id: WalId) -> [u8; ID_FILE_BYTES] {
    let mut bytes = [0; ID_FILE_BYTES];
    let mut fields = Fields(&mut bytes);
    fields.put(0, &ID_MAGIC);
    fields.put(8, id.as_uuid().as_bytes());
    let hash = XxHash3_64::oneshot(&bytes[..24]);
    bytes[24..].copy_from_slice(&hash.to_le_bytes());
    bytes
}

pub(crate) fn decode_id(bytes: &[u8]) -> Option<WalId> {
    let whole = bytes.len() == ID_FILE_BYTES
        && bytes[..8] == ID_MAGIC
        && u64_at(bytes, 24) == XxHash3_64::oneshot(&bytes[..24]);
    whole.then(|| id_at(bytes, 8))
}

struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(number)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(number)
}

fn id_at(bytes: &[u8], offset: usize) -> WalId {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[offset..offset + 16]);
    WalId::from_uuid(Uuid::from_bytes(id))
}

fn describe(bytes: &[u8], expected: &str) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return format!("zeros where a {expected} should be");
    }
    format!("a {expected} whose hash is wrong")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> WalId {
        WalId::from_uuid(Uuid::from_u128(0x0123_4567_89ab_cdef))
    }

    #[test]
    fn headers_come_back_and_no_flipped_bit_goes_unseen() {
        let link = Link { segment: 6, seq: 41, hash: 99 };
        let segment = SegmentHeader { id: id(), number: 7, first_seq: 42, previous: link };
        let (bytes, hash) = segment.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok((segment, hash)));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        let mut frame = FrameHeader {
            length: 5,
            segment: 7,
            seq: 42,
            durable_seq: 41,
            payload_hash: 3,
            chain: hash,
            hash: 0,
        };
        let bytes = frame.encode(seed_of(id()));
        assert_eq!(FrameHeader::decode(&bytes, seed_of(id())), Ok(frame));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes, seed_of(id())).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_no_damage_and_another_log_is_no_frame() {
        let link = Link::default();
        let (mut bytes, _) =
            SegmentHeader { id: id(), number: 1, first_seq: 1, previous: link }.encode();
        bytes[8] = 2;
        let hash = XxHash3_64::oneshot(&bytes[..72]);
        bytes[72..].copy_from_slice(&hash.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(Flaw::Newer(2)));
        let mut frame = FrameHeader {
            length: 0,
            segment: 1,
            seq: 1,
            durable_seq: 0,
            payload_hash: 0,
            chain: 0,
            hash: 0,
        };
        let bytes = frame.encode(1);
        assert!(matches!(FrameHeader::decode(&bytes, 2), Err(Flaw::Invalid(_))));
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let link = Link { segment: 6, seq: 41, hash: 0x1122_3344_5566_7788 };
        let (bytes, _) =
            SegmentHeader { id: id(), number: 7, first_seq: 42, previous: link }.encode();
        assert_eq!(&bytes[..16], b"TLWALSEG\x01\0\0\0\0\0\0\0");
        assert_eq!(&bytes[16..32], id().as_uuid().as_bytes());
        let numbers: Vec<u64> = (4..9).map(|at| u64_at(&bytes, at * 8)).collect();
        assert_eq!(numbers, [7, 42, 6, 41, 0x1122_3344_5566_7788]);
        assert_eq!(bytes[72..], [250, 206, 80, 173, 19, 113, 58, 67]);
        assert_eq!(decode_id(&encode_id(id())), Some(id()));
        assert_eq!(decode_id(&encode_id(id())[..31]), None);
    }
}
