//! The file-system seam: the few calls through which durable bytes reach a local disk.
//!
//! A call that returns `Ok` has reached the disk where its name says so (`write_new`, `sync_dir`).
//! Implementers must not buffer behind the caller's back: tests enumerate crash states from the
//! sequence of these calls.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;

/// Blocking file-system calls; callers run them off the async runtime.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Creates one directory. An existing one is `AlreadyExists`, a missing parent `NotFound`.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist, writes `parts` one after the other and syncs it.
    ///
    /// # Errors
    /// The operating system's; a partly written file may be left behind.
    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<()>;

    /// Syncs a file written by somebody else.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Gives `from` the second name `to`; `AlreadyExists` if that is taken. Atomic.
    ///
    /// # Errors
    /// The operating system's.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves `from` to `to`, replacing what is there. Atomic.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}
