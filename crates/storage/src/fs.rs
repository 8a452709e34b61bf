//! The file-system seam: the few calls through which durable bytes reach a local disk.
//!
//! A call that returns `Ok` has reached the disk where its name says so (`write_new`, `sync_*`).
//! Implementers must not buffer behind the caller's back: tests enumerate crash states from the
//! sequence of these calls.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use bytes::Bytes;

/// Blocking file-system calls; callers run them off the async runtime.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Creates one directory. An existing one is `AlreadyExists`, a missing parent `NotFound`.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist, locks it, writes `parts` one after the other and syncs it. The
    /// lock keeps [`remove_unlocked`](Self::remove_unlocked) away for as long as it is held, where the file
    /// system has locks.
    ///
    /// # Errors
    /// The operating system's; a partly written file may be left behind. `AlreadyExists` also if somebody
    /// took the file for abandoned before it was locked.
    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>>;

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

    /// Removes a file whose lock nobody holds; whether it did. A missing file has no holder.
    ///
    /// # Errors
    /// The operating system's, also if the file system knows no locks; the file stays then.
    fn remove_unlocked(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist and opens it for appending. Neither it nor its name is
    /// durable yet.
    ///
    /// # Errors
    /// The operating system's; `AlreadyExists` if the name is taken.
    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;

    /// Opens an existing file for appending.
    ///
    /// # Errors
    /// The operating system's; `NotFound` if there is none.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;

    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// The operating system's; `NotFound` if there is none.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// The operating system's; `NotFound` if there is no such directory.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Takes the exclusive lock of a file, which is created if it is missing, and makes `note` its
    /// content for others to read; `None` if another holder, in this process or another, has it.
    /// The note is not made durable, for a lock does not outlive its process, and may be missing
    /// where the disk is full.
    ///
    /// # Errors
    /// The operating system's.
    fn try_lock(&self, path: &Path, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>>;

    /// Whether somebody holds the lock of a file; a missing file has no holder.
    ///
    /// # Errors
    /// The operating system's.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;
}

/// A file to whose end bytes are written.
pub trait AppendFile: fmt::Debug + Send {
    /// Writes `parts` one after the other behind what was appended before, or was there when the file was
    /// opened, in one call where the system can.
    ///
    /// # Errors
    /// The operating system's; any prefix may have been written.
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()>;

    /// Writes over bytes that are there already, from `offset` on.
    ///
    /// # Errors
    /// The operating system's; any part may have been written.
    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes so many zeros from `offset` on, the end of the file. The next append goes where it would have
    /// gone, over them. What comes to lie within is synced for less than what makes a file longer.
    ///
    /// # Errors
    /// The operating system's; any part of the zeros may have been written.
    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Makes bytes and length durable. After an error no later call tells whether the bytes written
    /// before it are durable, unless they are written again.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes, where the next append begins. Not durable before a sync.
    ///
    /// # Errors
    /// The operating system's.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A file that is read at given places.
pub trait ReadFile: fmt::Debug + Send {
    /// Its length in bytes, now.
    ///
    /// # Errors
    /// The operating system's.
    fn length(&self) -> io::Result<u64>;

    /// Fills the beginning of `buffer` from `offset` on and says with how many bytes: fewer than
    /// asked for only at the end of the file.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A lock that is held until it is dropped.
pub trait FileLock: fmt::Debug + Send + Sync {}

/// The lock of a file where there are no locks.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLock;

impl FileLock for NoLock {}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        lock_new(&file)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        Ok(Box::new(OsFileLock { _file: file }))
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

    fn remove_unlocked(&self, path: &Path) -> io::Result<bool> {
        match remove_unlocked(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            outcome => outcome,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(OsAppendFile(file)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(OsAppendFile(file)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(OsReadFile(File::open(path)?)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn try_lock(&self, path: &Path, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>> {
        let mut options = OpenOptions::new();
        // Whoever holds the lock has its note in the file, so opening must not cut it.
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // The lock is what counts, and on a full disk there is no room for a note.
        let _ = file.set_len(0).and_then(|()| file.write_all(note));
        Ok(Some(Box::new(OsFileLock { _file: file })))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn remove_unlocked(path: &Path) -> io::Result<bool> {
    // Some network file systems give exclusive locks only to those who may write.
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (locked, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    // Its holder may have moved it away, and somebody else may have made another one.
    if (locked.dev(), locked.ino()) != (named.dev(), named.ino()) {
        return Ok(false);
    }
    // Whoever has made it and still waits for the lock finds it without a name.
    fs::remove_file(path).map(|()| true)
}

/// Locks a file that was made a moment ago. Others hold the lock for an instant only: to see whether it is
/// held, or to remove the file.
fn lock_new(file: &File) -> io::Result<()> {
    loop {
        match file.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Where there are no locks, nobody removes what cannot be locked.
            Err(_) => return Ok(()),
            Ok(()) if file.metadata()?.nlink() == 0 => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(()) => return Ok(()),
        }
    }
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Not opened with `O_APPEND`, under which a positional write would go to the end.
#[derive(Debug)]
struct OsAppendFile(File);

impl AppendFile for OsAppendFile {
    fn append(&mut self, parts: &[Bytes]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        // Empty slices at the front would make a complete write look like one of nothing.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.0.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn rewrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn reserve(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let size = usize::try_from(end - at).map_or(ZEROS.len(), |rest| rest.min(ZEROS.len()));
            self.0.write_all_at(&ZEROS[..size], at)?;
            at += size as u64;
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)?;
        self.0.seek(SeekFrom::Start(length)).map(|_| ())
    }
}

#[derive(Debug)]
struct OsReadFile(File);

impl ReadFile for OsReadFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// The lock goes with the last descriptor of the open file.
#[derive(Debug)]
struct OsFileLock {
    _file: File,
}

impl FileLock for OsFileLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_follow_one_another_and_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let parts = |texts: &[&'static str]| -> Vec<Bytes> {
            texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
        };
        let mut file = OsFileSystem.create_append(&path).unwrap();
        file.append(&parts(&["", "ab", "", "cd", ""])).unwrap();
        file.append(&[]).unwrap();
        file.truncate(3).unwrap();
        file.rewrite(0, b"A").unwrap();
        file.reserve(3, 100_000).unwrap();
        file.append(&parts(&["x"])).unwrap();
        assert_eq!(OsFileSystem.open_read(&path).unwrap().length().unwrap(), 100_003);
        file.truncate(4).unwrap();
        drop(file);
        let many: Vec<Bytes> = (0..5_000).map(|_| Bytes::from_static(b"0123456789")).collect();
        let mut file = OsFileSystem.open_append(&path).unwrap();
        file.append(&many).unwrap();
        file.sync_data().unwrap();
        let read = OsFileSystem.open_read(&path).unwrap();
        assert_eq!(read.length().unwrap(), 50_004);
        let mut buffer = [0; 9];
        assert_eq!(read.read_at(0, &mut buffer).unwrap(), 9);
        assert_eq!(&buffer, b"Abcx01234");
        assert_eq!(read.read_at(50_001, &mut buffer).unwrap(), 3);
        let taken = OsFileSystem.create_append(&path).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn only_what_nobody_writes_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        assert!(!OsFileSystem.remove_unlocked(&path).unwrap());
        let held = OsFileSystem.write_new(&path, &[Bytes::from_static(b"x")]).unwrap();
        assert!(OsFileSystem.is_locked(&path).unwrap());
        assert!(!OsFileSystem.remove_unlocked(&path).unwrap());
        // Under its own name it is still held, but the one that it had is gone.
        fs::rename(&path, dir.path().join("named")).unwrap();
        assert!(!OsFileSystem.remove_unlocked(&path).unwrap());
        fs::rename(dir.path().join("named"), &path).unwrap();
        drop(held);
        assert!(OsFileSystem.remove_unlocked(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_loses_its_name_before_it_is_locked_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let file = OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        assert!(OsFileSystem.remove_unlocked(&path).unwrap());
        assert_eq!(lock_new(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_lock_has_one_holder_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!OsFileSystem.is_locked(&path).unwrap());
        let held = OsFileSystem.try_lock(&path, b"a longer note").unwrap().unwrap();
        assert!(OsFileSystem.try_lock(&path, b"second").unwrap().is_none());
        assert!(OsFileSystem.is_locked(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"a longer note");
        drop(held);
        assert!(!OsFileSystem.is_locked(&path).unwrap());
        let _held = OsFileSystem.try_lock(&path, b"third").unwrap().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(OsFileSystem.list(dir.path()).unwrap(), ["lock"]);
    }
}
