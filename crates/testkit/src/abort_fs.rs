//! A file system at whose n-th change the process dies.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, FileSystem, OsFileSystem, ReadFile};

/// The operating system's files, with a process that aborts, as if it had been killed, before or
/// after its n-th change of them.
#[derive(Debug, Clone)]
pub struct AbortingFileSystem {
    inner: OsFileSystem,
    fuse: Arc<Fuse>,
}

#[derive(Debug)]
struct Fuse {
    passed: AtomicU64,
    nth: u64,
    after: bool,
}

impl Fuse {
    fn around<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let now = self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.nth;
        if now && !self.after {
            std::process::abort();
        }
        let done = change();
        if now {
            std::process::abort();
        }
        done
    }
}

impl AbortingFileSystem {
    /// Aborts at the `nth` change, counted from 1: before it, or after it has taken effect.
    #[must_use]
    pub fn new(nth: u64, after: bool) -> Self {
        let fuse = Fuse { passed: AtomicU64::new(0), nth, after };
        Self { inner: OsFileSystem, fuse: Arc::new(fuse) }
    }
}

impl FileSystem for AbortingFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.create_dir(path))
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<()> {
        self.fuse.around(|| self.inner.write_new(path, parts))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.sync_file(path))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.link(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.remove(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.sync_dir(path))
    }

    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inner = self.fuse.around(|| self.inner.create_append(path))?;
        Ok(Box::new(AbortingFile { inner, fuse: Arc::clone(&self.fuse) }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inner = self.inner.open_append(path)?;
        Ok(Box::new(AbortingFile { inner, fuse: Arc::clone(&self.fuse) }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.inner.open_read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(path)
    }

    fn try_lock(&self, path: &Path, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>> {
        self.fuse.around(|| self.inner.try_lock(path, note))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.inner.is_locked(path)
    }
}

#[derive(Debug)]
struct AbortingFile {
    inner: Box<dyn AppendFile>,
    fuse: Arc<Fuse>,
}

impl AppendFile for AbortingFile {
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        self.fuse.around(|| self.inner.append(parts))
    }

    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.fuse.around(|| self.inner.rewrite(offset, bytes))
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.fuse.around(|| self.inner.sync_data())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.fuse.around(|| self.inner.truncate(length))
    }
}
