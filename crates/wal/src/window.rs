//! A file that is read mostly forwards, a window at a time.

use std::path::{Path, PathBuf};

use tidelog_storage::{FileSystem, ReadFile};

use crate::error::Error;

const WINDOW_BYTES: usize = 256 * 1024;

/// An open file with the bytes around the last place that was read.
#[derive(Debug)]
pub(crate) struct Window {
    file: Box<dyn ReadFile>,
    path: PathBuf,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn open(fs: &dyn FileSystem, path: &Path) -> Result<Self, Error> {
        let file = fs.open_read(path).map_err(Error::io("opening", path))?;
        let length = file.length().map_err(Error::io("looking at", path))?;
        Ok(Self { file, path: path.to_owned(), length, start: 0, bytes: Vec::new() })
    }

    /// Bytes of the file when it was opened; nothing beyond is read.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes from `offset` on: `want` of them, fewer at the end of the file, and never more than
    /// a window holds.
    pub(crate) fn at(&mut self, offset: u64, want: usize) -> Result<&[u8], Error> {
        let want = want.min(WINDOW_BYTES).min(to_usize(self.length.saturating_sub(offset)));
        let inside =
            offset >= self.start && offset - self.start + want as u64 <= self.bytes.len() as u64;
        if !inside {
            self.fill(offset)?;
        }
        let from = to_usize(offset - self.start);
        let until = (from + want).min(self.bytes.len());
        Ok(&self.bytes[from..until])
    }

    /// As much as a window holds, from `offset` on.
    pub(crate) fn piece(&mut self, offset: u64) -> Result<&[u8], Error> {
        let rest = (self.start + self.bytes.len() as u64).checked_sub(offset);
        match rest {
            Some(rest) if rest > 0 && offset >= self.start => self.at(offset, to_usize(rest)),
            _ => self.at(offset, WINDOW_BYTES),
        }
    }

    /// Fills `buffer` from `offset` on; false if the file ends before.
    pub(crate) fn read_exact(&self, offset: u64, buffer: &mut [u8]) -> Result<bool, Error> {
        let count = self.file.read_at(offset, buffer).map_err(Error::io("reading", &self.path))?;
        Ok(count == buffer.len())
    }

    fn fill(&mut self, offset: u64) -> Result<(), Error> {
        let size = WINDOW_BYTES.min(to_usize(self.length.saturating_sub(offset)));
        self.start = offset;
        self.bytes.resize(size, 0);
        let count = self.file.read_at(offset, &mut self.bytes);
        let count = count.inspect_err(|_| self.bytes.clear());
        let count = count.map_err(Error::io("reading", &self.path))?;
        self.bytes.truncate(count);
        Ok(())
    }
}

/// A length in memory; what does not fit is never allocated, so the largest will do.
pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
