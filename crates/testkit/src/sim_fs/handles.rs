//! Files that are open, and locks that are held.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, ReadFile};

use super::SimFileSystem;
use super::disk::Change;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) fs: SimFileSystem,
    pub(super) inode: usize,
    /// Where the next append goes.
    pub(super) end: usize,
}

impl AppendFile for SimFile {
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        let (mut state, effect) = self.fs.call();
        let bytes = joined(parts);
        let offset = self.end;
        self.end += bytes.len();
        state.write_inode(self.inode, offset, bytes, effect)
    }

    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, effect) = self.fs.call();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        state.write_inode(self.inode, offset, bytes.to_vec(), effect)
    }

    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        let (mut state, effect) = self.fs.call();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let zeros = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        state.write_inode(self.inode, offset, zeros, effect)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let (mut state, effect) = self.fs.call();
        state.sync_inode(self.inode, effect)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut state = self.fs.plain_call()?;
        state.changes += 1;
        state.inodes[self.inode].change(Change::Cut(length));
        self.end = length;
        Ok(())
    }
}

impl ReadFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.fs.plain_call()?.inodes[self.inode].content.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.fs.plain_call()?;
        state.largest_read = state.largest_read.max(buffer.len());
        Ok(copy_from(&state.inodes[self.inode].content, offset, buffer))
    }
}

/// What a lock's holder says of itself.
#[derive(Debug)]
pub(super) struct SimNote(pub(super) Vec<u8>);

impl ReadFile for SimNote {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(&self.0, offset, buffer))
    }
}

fn copy_from(content: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..));
    let rest = rest.unwrap_or_default();
    let count = rest.len().min(buffer.len());
    buffer[..count].copy_from_slice(&rest[..count]);
    count
}

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) fs: SimFileSystem,
    pub(super) path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Some(file) = self.fs.lock().lock_files.get_mut(&self.path) {
            file.held = false;
        }
    }
}

pub(super) fn joined(parts: &[Bytes]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}
