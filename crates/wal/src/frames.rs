//! The frames of one segment, one after the other, each checked against the one before.

use bytes::Bytes;

use crate::error::Error;
use crate::format::{FRAME_HEADER_BYTES, FRAME_MAGIC, Flaw, FrameHeader, SEGMENT_HEADER_BYTES};
use crate::payload::PayloadHasher;
use crate::window::{Window, to_usize};

/// Reads the frames of one segment.
#[derive(Debug)]
pub(crate) struct Frames {
    window: Window,
    seed: u64,
    segment: u64,
    offset: u64,
    /// Where reading ends, in bytes.
    until: u64,
    next_seq: u64,
    chain: u64,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Next {
    Frame(FrameHeader),
    /// The segment ends here.
    End,
    /// What is here is no frame that belongs here; in words.
    Invalid(String),
}

/// What lies behind a place at which frames end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behind {
    /// Whole frames.
    pub(crate) records: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The highest record that a frame header there says was durable.
    pub(crate) durable_seq: u64,
    /// The highest record there.
    pub(crate) last_seq: u64,
}

impl Frames {
    /// Begins after the segment's header, whose hash is `chain`.
    pub(crate) fn new(window: Window, seed: u64, segment: u64, first_seq: u64, chain: u64) -> Self {
        let (offset, until) = (SEGMENT_HEADER_BYTES as u64, window.length());
        Self { window, seed, segment, offset, until, next_seq: first_seq, chain }
    }

    /// Reads no further than `until`, in bytes.
    pub(crate) fn until(mut self, until: u64) -> Self {
        self.until = until;
        self
    }

    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The hash that the next header has to name.
    pub(crate) const fn chain(&self) -> u64 {
        self.chain
    }

    pub(crate) const fn window(&self) -> &Window {
        &self.window
    }

    /// Looks at the header that comes next, without going past it.
    pub(crate) fn peek(&mut self) -> Result<Next, Error> {
        if self.offset >= self.until {
            return Ok(Next::End);
        }
        let header = match header_at(&mut self.window, self.offset, self.seed)? {
            Ok(header) => header,
            Err(Flaw::Invalid(found)) => return Ok(Next::Invalid(found)),
            Err(Flaw::Newer(version)) => {
                let file = self.window.path().to_owned();
                return Err(Error::NewerFormat { file, version });
            }
        };
        Ok(match self.misfit(&header) {
            None => Next::Frame(header),
            Some(found) => Next::Invalid(found),
        })
    }

    /// Goes past a frame that was looked at.
    pub(crate) fn advance(&mut self, header: &FrameHeader) {
        self.offset += header.frame_bytes();
        self.next_seq = header.seq + 1;
        self.chain = header.hash;
    }

    /// Whether the payload of the frame that was looked at is what was written.
    pub(crate) fn is_whole(&mut self, header: &FrameHeader) -> Result<bool, Error> {
        payload_matches(&mut self.window, self.offset, header)
    }

    /// The payload of the frame that was looked at; none if it is not what was written.
    pub(crate) fn payload(&mut self, header: &FrameHeader) -> Result<Option<Bytes>, Error> {
        let offset = self.offset + FRAME_HEADER_BYTES as u64;
        let mut bytes = vec![0; to_usize(u64::from(header.length))];
        if bytes.len() <= 4096 {
            let near = self.window.at(offset, bytes.len())?;
            if near.len() < bytes.len() {
                return Ok(None);
            }
            bytes.copy_from_slice(near);
        } else if !self.window.read_exact(offset, &mut bytes)? {
            return Ok(None);
        }
        let mut hasher = PayloadHasher::default();
        hasher.update(&bytes);
        Ok((hasher.finish() == header.payload_hash).then(|| Bytes::from(bytes)))
    }

    /// Searches for frames from here on to the end of the file, in whatever order.
    pub(crate) fn behind(&mut self) -> Result<Behind, Error> {
        let place = Place { seed: self.seed, min_seq: self.next_seq };
        frames_behind(&mut self.window, self.offset, place)
    }

    /// Whether there is nothing but zeros from here on to the end of the file: room that was made and never
    /// used.
    pub(crate) fn only_zeros_follow(&mut self) -> Result<bool, Error> {
        let mut offset = self.offset;
        loop {
            let piece = self.window.piece(offset)?;
            if piece.is_empty() {
                return Ok(true);
            }
            if piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += piece.len() as u64;
        }
    }

    /// Why a frame that is one does not belong here.
    fn misfit(&self, header: &FrameHeader) -> Option<String> {
        let (segment, next) = (self.segment, self.next_seq);
        if header.segment != segment {
            return Some(format!("a frame of segment {} in segment {segment}", header.segment));
        }
        if header.seq != next {
            return Some(format!("record {} where record {next} should be", header.seq));
        }
        if header.chain != self.chain {
            return Some(format!("a record {next} that does not follow the record before it"));
        }
        let rest = self.until - self.offset;
        (header.frame_bytes() > rest).then(|| {
            format!("record {next} has {} bytes and {rest} are there", header.frame_bytes())
        })
    }
}

/// Which frames are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) seed: u64,
    /// Frames of earlier records are not counted.
    pub(crate) min_seq: u64,
}

impl Behind {
    pub(crate) fn add(&mut self, more: &Self) {
        self.records += more.records;
        self.bytes += more.bytes;
        self.durable_seq = self.durable_seq.max(more.durable_seq);
        self.last_seq = self.last_seq.max(more.last_seq);
    }
}

/// Searches a file for frames of the log from `from` on, in whatever order and of whatever segment.
/// A payload that holds a copy of frames does no harm: they are older than the record around them.
pub(crate) fn frames_behind(window: &mut Window, from: u64, place: Place) -> Result<Behind, Error> {
    let mut found = Behind::default();
    let mut offset = from;
    while let Some(candidate) = find_magic(window, offset)? {
        offset = candidate + 1;
        let Ok(header) = header_at(window, candidate, place.seed)? else { continue };
        found.durable_seq = found.durable_seq.max(header.durable_seq);
        found.last_seq = found.last_seq.max(header.seq);
        if header.seq >= place.min_seq && payload_matches(window, candidate, &header)? {
            found.records += 1;
            found.bytes += header.frame_bytes();
            offset = candidate + header.frame_bytes();
        }
    }
    Ok(found)
}

fn header_at(
    window: &mut Window,
    offset: u64,
    seed: u64,
) -> Result<Result<FrameHeader, Flaw>, Error> {
    Ok(FrameHeader::decode(window.at(offset, FRAME_HEADER_BYTES)?, seed))
}

fn payload_matches(window: &mut Window, frame: u64, header: &FrameHeader) -> Result<bool, Error> {
    let mut offset = frame + FRAME_HEADER_BYTES as u64;
    let end = frame + header.frame_bytes();
    let mut hasher = PayloadHasher::default();
    while offset < end {
        let piece = window.piece(offset)?;
        let piece = &piece[..piece.len().min(to_usize(end - offset))];
        if piece.is_empty() {
            return Ok(false);
        }
        hasher.update(piece);
        offset += piece.len() as u64;
    }
    Ok(hasher.finish() == header.payload_hash)
}

fn find_magic(window: &mut Window, from: u64) -> Result<Option<u64>, Error> {
    let mut offset = from;
    loop {
        let piece = window.piece(offset)?;
        if piece.is_empty() {
            return Ok(None);
        }
        let hit = piece.windows(FRAME_MAGIC.len()).position(|four| four == FRAME_MAGIC);
        if let Some(position) = hit {
            return Ok(Some(offset + position as u64));
        }
        // A magic across the border of two pieces begins in the last three bytes.
        let seen = piece.len() as u64;
        let (border, overlap) = (offset + seen, FRAME_MAGIC.len() as u64 - 1);
        if border >= window.length() {
            return Ok(None);
        }
        let across = window.at(border.saturating_sub(overlap).max(offset), 6)?;
        let start = border.saturating_sub(overlap).max(offset);
        if let Some(position) =
            across.windows(FRAME_MAGIC.len()).position(|four| four == FRAME_MAGIC)
        {
            return Ok(Some(start + position as u64));
        }
        offset = border;
    }
}
