//! Which states of a store are being read on this machine, so that nobody deletes what they need.
//!
//! A state is known by a number that only grows. Whoever reads one holds a shared lock on the byte at
//! that offset of the *pin file*, which is made with the store and stays empty; whoever deletes asks
//! whether any byte before some number is locked. Locks belong to open files and go with them, so a
//! process that dies holds nothing. Reading needs no right to write.
//!
//! Locks of bytes are known to Linux only, and a store that is no directory has no such file: then only
//! readers of this handle are known, and the age of what is deleted has to do.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The readers of one handle, and those that share its pin file. Clones are the same readers.
#[derive(Debug, Clone, Default)]
pub struct Pins(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    path: Option<PathBuf>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// How many readers there are of each state.
    readers: BTreeMap<u64, usize>,
    file: Option<File>,
}

impl Pins {
    /// Readers of this handle alone.
    #[must_use]
    pub fn of_handle() -> Self {
        Self::default()
    }

    /// Readers that share the pin file at `path` with those of other handles and processes. If it is not
    /// there, nobody knows of them but this handle.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(Arc::new(Inner { path: Some(path), held: Mutex::default() }))
    }

    /// Makes the pin file, if there is to be one and it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(&self) -> io::Result<()> {
        match &self.0.path {
            Some(path) => OpenOptions::new().create(true).append(true).open(path).map(drop),
            None => Ok(()),
        }
    }

    /// Says that a state is read, until the answer is dropped.
    #[must_use]
    pub fn pin(&self, state: u64) -> Pin {
        let mut held = self.held();
        let readers = held.readers.entry(state).or_default();
        *readers += 1;
        if *readers == 1 {
            held.open(self.0.path.as_deref());
            // Without a lock the reader is still known here, and elsewhere the age has to do.
            held.tell(locks::share, state);
        }
        Pin { pins: self.clone(), state }
    }

    /// Whether a state before `state` is read by anybody who is known of. In doubt it is.
    #[must_use]
    pub fn are_before(&self, state: u64) -> bool {
        let mut held = self.held();
        if held.readers.range(..state).next().is_some() {
            return true;
        }
        held.open(self.0.path.as_deref());
        match (&held.file, state) {
            (Some(file), 1..) => locks::are_others_before(file, state).unwrap_or(true),
            _ => false,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn open(&mut self, path: Option<&Path>) {
        if self.file.is_none() {
            self.file = path.and_then(|path| File::open(path).ok());
        }
    }

    fn tell(&self, change: fn(&File, u64) -> io::Result<()>, state: u64) {
        if let Some(file) = &self.file
            && let Err(error) = change(file, state)
        {
            tracing::debug!(%error, state, "a reader cannot be told of in the pin file");
        }
    }
}

/// A state that is being read.
pub struct Pin {
    pins: Pins,
    state: u64,
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.held();
        let left = held.readers.get_mut(&self.state).map(|readers| {
            *readers -= 1;
            *readers
        });
        if left == Some(0) {
            held.readers.remove(&self.state);
            held.tell(locks::free, self.state);
        }
    }
}

#[cfg(target_os = "linux")]
mod locks {
    use std::fs::File;
    use std::io;

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    /// A lock of bytes of an open file; no bytes stand for all that follow.
    fn lock(kind: libc::c_int, start: u64, bytes: u64) -> io::Result<libc::flock> {
        let place = |number: u64| i64::try_from(number).map_err(io::Error::other);
        Ok(libc::flock {
            l_type: libc::c_short::try_from(kind).map_err(io::Error::other)?,
            l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
            l_start: place(start)?,
            l_len: place(bytes)?,
            l_pid: 0,
        })
    }

    pub(super) fn share(file: &File, at: u64) -> io::Result<()> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK, at, 1)?))?;
        Ok(())
    }

    pub(super) fn free(file: &File, at: u64) -> io::Result<()> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock(libc::F_UNLCK, at, 1)?))?;
        Ok(())
    }

    /// Whether anybody else has a lock before `end`, which is not 0.
    pub(super) fn are_others_before(file: &File, end: u64) -> io::Result<bool> {
        let mut asked = lock(libc::F_WRLCK, 0, end)?;
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
        Ok(libc::c_int::from(asked.l_type) != libc::F_UNLCK)
    }
}

#[cfg(not(target_os = "linux"))]
mod locks {
    use std::fs::File;
    use std::io;

    pub(super) fn share(_: &File, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn free(_: &File, _: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn are_others_before(_: &File, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> (tempfile::TempDir, impl Fn() -> Pins) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pins");
        Pins::at(path.clone()).make().unwrap();
        (directory, move || Pins::at(path.clone()))
    }

    #[test]
    fn readers_of_a_handle_are_known_to_it() {
        let pins = Pins::of_handle();
        assert!(!pins.are_before(u64::MAX));
        let (three, also_three) = (pins.pin(3), pins.pin(3));
        assert!(pins.are_before(4) && !pins.are_before(3));
        drop(three);
        assert!(pins.are_before(4));
        drop(also_three);
        assert!(!pins.are_before(4));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn readers_of_other_handles_are_known_by_the_pin_file() {
        let (_directory, open) = shared();
        let (reader, vacuum) = (open(), open());
        assert!(!vacuum.are_before(0) && !vacuum.are_before(100));
        let (seven, nine) = (reader.pin(7), reader.pin(9));
        let again = reader.pin(7);
        drop(again);
        assert!(!vacuum.are_before(7) && vacuum.are_before(8) && vacuum.are_before(100));
        drop(seven);
        assert!(!vacuum.are_before(9) && vacuum.are_before(10));
        drop(nine);
        assert!(!vacuum.are_before(u64::from(u32::MAX)));
        let zero = vacuum.pin(0);
        assert!(open().are_before(1));
        drop(zero);
        assert!(!open().are_before(1));
    }

    #[test]
    fn without_the_file_a_handle_knows_its_own_readers() {
        let directory = tempfile::tempdir().unwrap();
        let pins = Pins::at(directory.path().join("missing"));
        let one = pins.pin(1);
        assert!(pins.are_before(2));
        drop(one);
        assert!(!pins.are_before(2));
    }
}
