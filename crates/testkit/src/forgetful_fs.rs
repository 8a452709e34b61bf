//! The operating system's files without any sync: a test of what syncs are for must fail with them.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, FileSystem, NoLock, OsFileSystem, ReadFile};

/// The operating system's files, whose syncs do nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct ForgetfulFileSystem;

impl FileSystem for ForgetfulFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.create_dir(path)
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        Ok(Box::new(NoLock))
    }

    fn sync_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFileSystem.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFileSystem.remove(path)
    }

    fn remove_unlocked(&self, path: &Path) -> io::Result<bool> {
        OsFileSystem.remove_unlocked(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(ForgetfulFile(OsFileSystem.create_append(path)?)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(ForgetfulFile(OsFileSystem.open_append(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        OsFileSystem.open_read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        OsFileSystem.list(path)
    }

    fn try_lock(&self, path: &Path, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>> {
        OsFileSystem.try_lock(path, note)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        OsFileSystem.is_locked(path)
    }
}

#[derive(Debug)]
struct ForgetfulFile(Box<dyn AppendFile>);

impl AppendFile for ForgetfulFile {
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        self.0.append(parts)
    }

    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.rewrite(offset, bytes)
    }

    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.reserve(offset, bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}
