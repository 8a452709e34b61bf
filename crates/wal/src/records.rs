//! The records of a log, in order.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidelog_storage::FileSystem;

use crate::error::Error;
use crate::frames::{Frames, Next};
use crate::survey::Extent;

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its sequence number.
    pub seq: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// The records that a log held when this was asked for, in order, read as they are wanted: one
/// payload and one window of a file are in memory at a time. After an error there are no more.
pub struct Records {
    fs: Arc<dyn FileSystem>,
    seed: u64,
    after: u64,
    frame_bytes_max: u64,
    extents: VecDeque<Extent>,
    current: Option<(Frames, Extent)>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        seed: u64,
        after: u64,
        frame_bytes_max: u64,
        extents: impl Iterator<Item = Extent>,
    ) -> Self {
        let extents = extents.filter(|extent| extent.last_seq > after && extent.has_records());
        let extents = extents.collect();
        Self { fs, seed, after, frame_bytes_max, extents, current: None }
    }

    fn read_next(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some((frames, extent)) = &mut self.current else { return Ok(None) };
            if frames.next_seq() > extent.last_seq {
                self.current = None;
                continue;
            }
            let header = match frames.peek()? {
                Next::Frame(header) => header,
                Next::End => return Err(unreadable(frames, &extent.path, "the file ends")),
                Next::Invalid(found) => return Err(unreadable(frames, &extent.path, &found)),
            };
            if header.seq <= self.after {
                frames.advance(&header);
                continue;
            }
            let (bytes, limit) = (u64::from(header.length), self.frame_bytes_max);
            if bytes > limit {
                return Err(Error::TooLarge { bytes, limit });
            }
            let Some(payload) = frames.payload(&header)? else {
                return Err(unreadable(frames, &extent.path, "the payload has another hash"));
            };
            frames.advance(&header);
            return Ok(Some(Record { seq: header.seq, payload }));
        }
    }

    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(extent) = self.extents.pop_front() else { return Ok(false) };
        self.current = Some((extent.frames(self.fs.as_ref(), self.seed)?, extent));
        Ok(true)
    }
}

impl Iterator for Records {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next();
        if next.is_err() {
            self.extents.clear();
            self.current = None;
        }
        next.transpose()
    }
}

fn unreadable(frames: &Frames, path: &Path, found: &str) -> Error {
    Error::Unreadable {
        file: path.to_owned(),
        offset: frames.offset(),
        seq: frames.next_seq(),
        found: found.to_owned(),
    }
}
