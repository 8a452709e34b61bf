//! A file system in memory that fails on demand and knows what a power cut may leave.
//!
//! The model is that of a local disk which honours syncs and promises nothing else:
//!
//! - A file keeps what it had at its last sync. Of the writes and cuts since then any prefix may
//!   have reached the disk. The write after that prefix may be there in part, up to a block or to
//!   any byte, or only as length, reading as zeros. Of what is there any one block of 512 or 4096
//!   bytes may be missing, for blocks are written in no order.
//! - A name that was made, moved or removed since the last sync of its directory is so or not, each
//!   for itself.
//! - After a failed sync the writes before it are taken for written: each may be on the disk or not,
//!   and no later sync brings them there.
//!
//! Lock files are left out: they tell nothing after a crash.
//!
//! ```
//! use std::path::Path;
//! use tidelog_storage::FileSystem;
//! use tidelog_testkit::SimFileSystem;
//!
//! let fs = SimFileSystem::new();
//! let mut file = fs.create_append(Path::new("/log"))?;
//! fs.sync_dir(Path::new("/"))?;
//! file.append(&["ab".into()])?;
//! let found: Vec<Option<Vec<u8>>> =
//!     fs.crash_states().map(|after| after.file(Path::new("/log"))).collect();
//! assert!(found.contains(&Some(b"a".to_vec())) && found.contains(&Some(vec![0, 0])));
//! # Ok::<(), std::io::Error>(())
//! ```

mod disk;
mod handles;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, FileSystem, NoLock, ReadFile};

use self::disk::{Change, Inode, NameChange};
use self::handles::{SimFile, SimLock, SimNote, joined};

/// A file system in memory. Clones share it.
#[derive(Clone, Default)]
pub struct SimFileSystem {
    state: Arc<Mutex<State>>,
}

/// Calls that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimFault {
    /// The number of the first call that fails, counted from 0.
    pub at: u64,
    /// Whether all calls after it fail as well.
    pub for_good: bool,
    /// What happens.
    pub effect: SimEffect,
}

/// What a failing call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimEffect {
    /// It returns this error number of the operating system. A write has written its first half, and
    /// a sync leaves open what it has synced.
    Error(i32),
    /// The power is off: nothing happens any more.
    PowerOff,
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    directories: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, usize>,
    durable_directories: BTreeSet<PathBuf>,
    pending_names: Vec<NameChange>,
    lock_files: BTreeMap<PathBuf, LockFile>,
    calls: u64,
    changes: u64,
    largest_read: usize,
    fault: Option<SimFault>,
    syncs_ignored: bool,
}

#[derive(Debug, Clone, Default)]
struct LockFile {
    note: Vec<u8>,
    held: bool,
}

impl fmt::Debug for SimFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("SimFileSystem").field("calls", &state.calls).finish_non_exhaustive()
    }
}

impl SimFileSystem {
    /// An empty file system with the directory `/`.
    #[must_use]
    pub fn new() -> Self {
        let root = BTreeSet::from([PathBuf::from("/")]);
        let state =
            State { directories: root.clone(), durable_directories: root, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A copy that goes its own way.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// How many calls there were, reads included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How many calls have changed what a power cut may leave.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// The most bytes that one read has asked for.
    #[must_use]
    pub fn largest_read(&self) -> usize {
        self.lock().largest_read
    }

    /// Makes calls fail, or none.
    pub fn set_fault(&self, fault: Option<SimFault>) {
        self.lock().fault = fault;
    }

    /// Makes syncs return at once and do nothing: a test must notice.
    pub fn ignore_syncs(&self) {
        self.lock().syncs_ignored = true;
    }

    /// The content of a file as a reader sees it.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(path).map(|inode| state.inodes[*inode].content.clone())
    }

    /// All files as a reader sees them, by name.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.lock();
        let content = |inode: &usize| state.inodes[*inode].content.clone();
        state.names.iter().map(|(path, inode)| (path.clone(), content(inode))).collect()
    }

    /// Makes a file, or replaces one, durably and without counting as a call.
    pub fn put_file(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.lock();
        let inode = state.add_inode(content);
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Removes a file durably and without counting as a call.
    pub fn take_file(&self, path: &Path) {
        let mut state = self.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// One state that a power cut may leave now. `choose(n)` decides between `n` possibilities, 0
    /// being that nothing unsynced is there.
    #[must_use]
    pub fn crash_with(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let state = self.lock();
        let mut names = state.durable_names.clone();
        let mut directories = state.durable_directories.clone();
        for change in &state.pending_names {
            if choose(2) == 1 {
                change.clone().apply(&mut names, &mut directories);
            }
        }
        names.retain(|path, _| path.parent().is_some_and(|parent| directories.contains(parent)));
        let mut after = State { directories: directories.clone(), ..State::default() };
        after.durable_directories = directories;
        after.syncs_ignored = state.syncs_ignored;
        for (path, inode) in names {
            let inode = after.add_inode(state.inodes[inode].crash(choose));
            after.names.insert(path.clone(), inode);
            after.durable_names.insert(path, inode);
        }
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// All states that a power cut may leave now. Some may be alike.
    #[must_use]
    pub fn crash_states(&self) -> CrashStates {
        CrashStates { from: self.fork(), script: Vec::new(), ended: false }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and says whether it fails.
    fn call(&self) -> (MutexGuard<'_, State>, Option<SimEffect>) {
        let mut state = self.lock();
        let number = state.calls;
        state.calls += 1;
        let fault =
            state.fault.filter(|fault| number == fault.at || (fault.for_good && number > fault.at));
        (state, fault.map(|fault| fault.effect))
    }

    /// A call that has no effect if it fails.
    fn plain_call(&self) -> io::Result<MutexGuard<'_, State>> {
        let (state, effect) = self.call();
        match effect {
            Some(effect) => Err(effect.error()),
            None => Ok(state),
        }
    }

    fn open_inode(&self, path: &Path) -> io::Result<usize> {
        self.plain_call()?.inode(path)
    }

    fn handle(&self, inode: usize) -> SimFile {
        let end = self.lock().inodes[inode].content.len();
        SimFile { fs: self.clone(), inode, end }
    }
}

impl SimEffect {
    fn error(self) -> io::Error {
        match self {
            Self::Error(number) => io::Error::from_raw_os_error(number),
            Self::PowerOff => io::Error::other("the power is off"),
        }
    }
}

impl State {
    fn add_inode(&mut self, content: Vec<u8>) -> usize {
        self.inodes.push(Inode::new(content));
        self.inodes.len() - 1
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn require_directory_of(&self, path: &Path) -> io::Result<()> {
        let inside = path.parent().is_some_and(|parent| self.directories.contains(parent));
        if inside { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.require_directory_of(path)?;
        if self.names.contains_key(path) || self.directories.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.add_inode(Vec::new());
        self.rename_by(NameChange::Add { path: path.to_owned(), inode });
        Ok(inode)
    }

    fn rename_by(&mut self, change: NameChange) {
        self.changes += 1;
        change.clone().apply(&mut self.names, &mut self.directories);
        self.pending_names.push(change);
    }

    fn sync_inode(&mut self, inode: usize, effect: Option<SimEffect>) -> io::Result<()> {
        match effect {
            Some(SimEffect::PowerOff) => Err(SimEffect::PowerOff.error()),
            Some(effect) => {
                self.changes += 1;
                self.inodes[inode].fail_sync();
                Err(effect.error())
            }
            None => {
                self.changes += 1;
                if !self.syncs_ignored {
                    self.inodes[inode].sync();
                }
                Ok(())
            }
        }
    }

    /// Writes `bytes`, or the first half of them before an error.
    fn write_inode(
        &mut self,
        inode: usize,
        offset: usize,
        mut bytes: Vec<u8>,
        effect: Option<SimEffect>,
    ) -> io::Result<()> {
        if effect == Some(SimEffect::PowerOff) {
            return Err(SimEffect::PowerOff.error());
        }
        if effect.is_some() {
            bytes.truncate(bytes.len() / 2);
        }
        self.changes += 1;
        self.inodes[inode].change(Change::Write { offset, bytes });
        effect.map_or(Ok(()), |effect| Err(effect.error()))
    }
}

impl FileSystem for SimFileSystem {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.plain_call()?;
        state.require_directory_of(path)?;
        if state.directories.contains(path) || state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.rename_by(NameChange::MakeDirectory { path: path.to_owned() });
        Ok(())
    }

    fn write_new(&self, path: &Path, parts: &[Bytes]) -> io::Result<Box<dyn FileLock>> {
        let inode = self.plain_call()?.create(path)?;
        let (mut state, effect) = self.call();
        state.write_inode(inode, 0, joined(parts), effect)?;
        drop(state);
        let (mut state, effect) = self.call();
        state.sync_inode(inode, effect)?;
        Ok(Box::new(NoLock))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let (mut state, effect) = self.call();
        let inode = state.inode(path)?;
        state.sync_inode(inode, effect)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.plain_call()?;
        state.require_directory_of(to)?;
        let inode = state.inode(from)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.rename_by(NameChange::Add { path: to.to_owned(), inode });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.plain_call()?;
        state.require_directory_of(to)?;
        let inode = state.inode(from)?;
        state.rename_by(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.plain_call()?;
        state.inode(path)?;
        state.rename_by(NameChange::Remove { path: path.to_owned() });
        Ok(())
    }

    /// No file that is written here is locked.
    fn remove_unlocked(&self, path: &Path) -> io::Result<bool> {
        match self.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.plain_call()?;
        if !state.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.changes += 1;
        if state.syncs_ignored {
            return Ok(());
        }
        let State { pending_names, durable_names, durable_directories, .. } = &mut *state;
        pending_names.retain(|change| {
            let here = change.directory() == path;
            if here {
                change.clone().apply(durable_names, durable_directories);
            }
            !here
        });
        Ok(())
    }

    fn create_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inode = self.plain_call()?.create(path)?;
        Ok(Box::new(self.handle(inode)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let inode = self.open_inode(path)?;
        Ok(Box::new(self.handle(inode)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let state = self.plain_call()?;
        if let Some(lock_file) = state.lock_files.get(path) {
            return Ok(Box::new(SimNote(lock_file.note.clone())));
        }
        let inode = state.inode(path)?;
        drop(state);
        Ok(Box::new(self.handle(inode)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.plain_call()?;
        if !state.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = state.names.keys().chain(&state.directories).chain(state.lock_files.keys());
        let inside = paths.filter(|name| name.parent() == Some(path));
        Ok(inside.filter_map(|name| name.file_name()).map(OsString::from).collect())
    }

    fn try_lock(&self, path: &Path, note: &[u8]) -> io::Result<Option<Box<dyn FileLock>>> {
        let mut state = self.plain_call()?;
        state.require_directory_of(path)?;
        let file = state.lock_files.entry(path.to_owned()).or_default();
        if file.held {
            return Ok(None);
        }
        *file = LockFile { note: note.to_vec(), held: true };
        Ok(Some(Box::new(SimLock { fs: self.clone(), path: path.to_owned() })))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        Ok(self.plain_call()?.lock_files.get(path).is_some_and(|file| file.held))
    }
}

/// All states that a power cut may leave, one after the other.
#[derive(Debug)]
pub struct CrashStates {
    from: SimFileSystem,
    /// What was chosen, of how many.
    script: Vec<(usize, usize)>,
    ended: bool,
}

impl Iterator for CrashStates {
    type Item = SimFileSystem;

    fn next(&mut self) -> Option<SimFileSystem> {
        if self.ended {
            return None;
        }
        let mut position = 0;
        let script = &mut self.script;
        let state = self.from.crash_with(&mut |of| {
            if position == script.len() {
                script.push((0, of));
            }
            position += 1;
            script[position - 1].0
        });
        while script.pop_if(|(chosen, of)| *chosen + 1 == *of).is_some() {}
        match script.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => self.ended = true,
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: i32 = 5;

    fn path(text: &str) -> &Path {
        Path::new(text)
    }

    fn contents(fs: &SimFileSystem) -> BTreeSet<Option<Vec<u8>>> {
        fs.crash_states().map(|after| after.file(path("/a"))).collect()
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_may_go() -> io::Result<()> {
        let fs = SimFileSystem::new();
        let mut file = fs.create_append(path("/a"))?;
        file.append(&["xy".into()])?;
        file.sync_data()?;
        assert_eq!(contents(&fs), BTreeSet::from([None, Some(b"xy".to_vec())]));
        fs.sync_dir(path("/"))?;
        assert_eq!(contents(&fs), BTreeSet::from([Some(b"xy".to_vec())]));
        file.append(&["zz".into()])?;
        let expected = ["xy", "xy\0", "xyz", "xy\0\0", "xyzz"];
        assert_eq!(contents(&fs), expected.map(|text| Some(text.as_bytes().to_vec())).into());
        file.truncate(1)?;
        file.sync_data()?;
        assert_eq!(contents(&fs), BTreeSet::from([Some(b"x".to_vec())]));
        fs.remove(path("/a"))?;
        assert_eq!(contents(&fs), BTreeSet::from([None, Some(b"x".to_vec())]));
        Ok(())
    }

    #[test]
    fn writing_over_the_same_bytes_endangers_nothing() -> io::Result<()> {
        let fs = SimFileSystem::new();
        fs.put_file(path("/a"), b"0123".to_vec());
        fs.open_append(path("/a"))?.rewrite(1, b"12")?;
        assert_eq!(contents(&fs), BTreeSet::from([Some(b"0123".to_vec())]));
        Ok(())
    }

    #[test]
    fn after_a_failed_sync_only_a_new_write_reaches_the_disk() -> io::Result<()> {
        let fs = SimFileSystem::new();
        fs.put_file(path("/a"), Vec::new());
        let mut file = fs.open_append(path("/a"))?;
        file.append(&["x".into()])?;
        let at = fs.calls();
        fs.set_fault(Some(SimFault { at, for_good: false, effect: SimEffect::Error(EIO) }));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
        file.sync_data()?;
        assert!(contents(&fs).contains(&Some(Vec::new())));
        file.rewrite(0, b"x")?;
        file.sync_data()?;
        assert_eq!(contents(&fs), BTreeSet::from([Some(b"x".to_vec())]));
        Ok(())
    }

    #[test]
    fn a_failed_write_leaves_its_half_and_no_power_leaves_nothing() -> io::Result<()> {
        let fs = SimFileSystem::new();
        let mut file = fs.create_append(path("/a"))?;
        let fault = |effect| Some(SimFault { at: fs.calls(), for_good: true, effect });
        fs.set_fault(fault(SimEffect::Error(EIO)));
        file.append(&["abcd".into()]).unwrap_err();
        assert_eq!(fs.file(path("/a")), Some(b"ab".to_vec()));
        fs.set_fault(fault(SimEffect::PowerOff));
        file.append(&["abcd".into()]).unwrap_err();
        file.sync_data().unwrap_err();
        assert_eq!(fs.file(path("/a")), Some(b"ab".to_vec()));
        Ok(())
    }
}
