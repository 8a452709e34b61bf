//! The operating system's files, whose n-th change goes wrong.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, FileSystem, OsFileSystem, ReadFile};

/// The error number that says so.
const NO_SPACE: i32 = 28;

/// What happens at a change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFault {
    /// The process aborts, as if it had been killed: before the change, or after it took effect.
    Abort {
        /// After the change.
        after: bool,
    },
    /// The change is not made and answers with this error number, and so do all after it if `for_good`.
    Errno {
        /// The error number.
        errno: i32,
        /// Whether all changes after it fail, too.
        for_good: bool,
    },
    /// The n-th sync of a file's data answers with this error number, and so do all after it.
    Sync {
        /// The error number.
        errno: i32,
    },
}

/// The operating system's files, whose n-th change goes wrong.
#[derive(Debug, Clone)]
pub struct FaultFileSystem {
    inner: OsFileSystem,
    fuse: Arc<Fuse>,
}

#[derive(Debug)]
struct Fuse {
    passed: AtomicU64,
    synced: AtomicU64,
    /// Whether files cannot become longer.
    full: AtomicBool,
    nth: u64,
    fault: FileFault,
}

impl Fuse {
    fn around<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        let now = number == self.nth;
        match self.fault {
            FileFault::Abort { after } if now => {
                if after {
                    // What it answers is heard by nobody.
                    let _ = change();
                }
                std::process::abort();
            }
            FileFault::Errno { errno, for_good } if now || for_good && number > self.nth => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => change(),
        }
    }
}

impl Fuse {
    fn sync(&self, file: &mut dyn AppendFile) -> io::Result<()> {
        let number = self.synced.fetch_add(1, Ordering::SeqCst) + 1;
        match self.fault {
            FileFault::Sync { errno } if number >= self.nth => {
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => self.around(|| file.sync_data()),
        }
    }
}

impl FaultFileSystem {
    /// Files whose `nth` change, counted from 1, goes wrong.
    #[must_use]
    pub fn new(nth: u64, fault: FileFault) -> Self {
        let (passed, synced) = (AtomicU64::new(0), AtomicU64::new(0));
        let fuse = Fuse { passed, synced, full: AtomicBool::new(false), nth, fault };
        Self { inner: OsFileSystem, fuse: Arc::new(fuse) }
    }

    /// Files of which nothing goes wrong, until the disk is [full](Self::set_full).
    #[must_use]
    pub fn sound() -> Self {
        Self::new(u64::MAX, FileFault::Errno { errno: 0, for_good: false })
    }

    /// Makes the disk full, or frees it. While it is full, of what would make a file longer the first part
    /// is written, and the answer is that no space is left.
    pub fn set_full(&self, full: bool) {
        self.fuse.full.store(full, Ordering::SeqCst);
    }

    /// How often files' data has been synced, in vain or not.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.fuse.synced.load(Ordering::SeqCst)
    }

    /// How many changes there have been.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.fuse.passed.load(Ordering::SeqCst)
    }
}

impl FileSystem for FaultFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.create_dir(path))
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>> {
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

    fn remove_unlocked(&self, path: &Path) -> io::Result<bool> {
        self.fuse.around(|| self.inner.remove_unlocked(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fuse.around(|| self.inner.sync_dir(path))
    }

    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        if self.fuse.full.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        let inner = self.fuse.around(|| self.inner.create_append(path))?;
        Ok(Box::new(FaultFile { inner, fuse: Arc::clone(&self.fuse) }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inner = self.inner.open_append(path)?;
        Ok(Box::new(FaultFile { inner, fuse: Arc::clone(&self.fuse) }))
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
struct FaultFile {
    inner: Box<dyn AppendFile>,
    fuse: Arc<Fuse>,
}

impl AppendFile for FaultFile {
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        if self.fuse.full.load(Ordering::SeqCst) {
            self.inner.append(&parts[..1])?;
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        self.fuse.around(|| self.inner.append(parts))
    }

    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.fuse.around(|| self.inner.rewrite(offset, bytes))
    }

    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        if self.fuse.full.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        self.fuse.around(|| self.inner.reserve(offset, bytes))
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.fuse.sync(self.inner.as_mut())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.fuse.around(|| self.inner.truncate(length))
    }
}
