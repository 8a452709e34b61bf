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

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidelog_storage::{AppendFile, FileLock, FileSystem, NoLock, ReadFile};

/// The blocks in which a disk may write.
const BLOCKS: [usize; 2] = [512, 4096];

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

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What a reader sees.
    content: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    change: Change,
    /// A sync of it has failed: no later one brings it to the disk.
    given_up: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Add { path: PathBuf, inode: usize },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: usize },
    MakeDirectory { path: PathBuf },
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => content.resize(*length, 0),
        }
    }
}

impl Pending {
    /// What a later change that is durable leaves of this one.
    fn left_by(&self, later: &Change) -> Vec<Self> {
        let part = |offset: usize, bytes: &[u8]| {
            let change = Change::Write { offset, bytes: bytes.to_vec() };
            (!bytes.is_empty()).then_some(Self { change, given_up: self.given_up })
        };
        let (start, end) = match later {
            Change::Write { offset, bytes } => (*offset, offset + bytes.len()),
            Change::Cut(length) => (*length, usize::MAX),
        };
        match &self.change {
            Change::Cut(length) if end > *length => Vec::new(),
            Change::Cut(_) => vec![self.clone()],
            Change::Write { offset, bytes } => {
                let before = start.saturating_sub(*offset).min(bytes.len());
                let after = end.saturating_sub(*offset).min(bytes.len());
                let parts =
                    [part(*offset, &bytes[..before]), part(offset + after, &bytes[after..])];
                parts.into_iter().flatten().collect()
            }
        }
    }
}

impl NameChange {
    fn directory(&self) -> &Path {
        let (Self::Add { path, .. }
        | Self::Remove { path }
        | Self::Rename { to: path, .. }
        | Self::MakeDirectory { path }) = self;
        path.parent().unwrap_or(Path::new("/"))
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>, directories: &mut BTreeSet<PathBuf>) {
        match self {
            Self::Add { path, inode } => {
                names.insert(path, inode);
            }
            Self::Remove { path } => {
                names.remove(&path);
            }
            Self::Rename { from, to, inode } => {
                names.remove(&from);
                names.insert(to, inode);
            }
            Self::MakeDirectory { path } => {
                directories.insert(path);
            }
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.pending.push(Pending { change, given_up: false });
    }

    fn sync(&mut self) {
        let mut given_up: Vec<Pending> = Vec::new();
        for pending in self.pending.drain(..) {
            if pending.given_up {
                given_up.push(pending);
                continue;
            }
            pending.change.apply(&mut self.durable);
            given_up = given_up.iter().flat_map(|old| old.left_by(&pending.change)).collect();
        }
        self.pending = given_up;
    }

    fn fail_sync(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.given_up = true);
    }

    /// What a power cut leaves.
    fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable.clone();
        }
        let live = self.pending.iter().filter(|pending| !pending.given_up).count();
        let mut whole = choose(live + 1);
        let (mut image, mut base) = (self.durable.clone(), self.durable.clone());
        let mut written = Vec::new();
        for pending in &self.pending {
            let applied = if pending.given_up {
                (choose(2) == 1).then(|| pending.change.clone())
            } else if whole > 0 {
                whole -= 1;
                Some(pending.change.clone())
            } else {
                let torn = torn(&pending.change, image.len(), choose);
                note(torn.as_ref(), &mut image, &mut base, &mut written);
                break;
            };
            note(applied.as_ref(), &mut image, &mut base, &mut written);
        }
        lose_a_block(&mut image, &base, &written, choose);
        image
    }
}

fn note(
    change: Option<&Change>,
    image: &mut Vec<u8>,
    base: &mut Vec<u8>,
    written: &mut Vec<(usize, usize)>,
) {
    let Some(change) = change else { return };
    change.apply(image);
    match change {
        Change::Write { offset, bytes } => written.push((*offset, offset + bytes.len())),
        Change::Cut(length) => base.truncate(*length),
    }
}

/// Part of a change to a file of `length` bytes that was under way.
fn torn(change: &Change, length: usize, choose: &mut dyn FnMut(usize) -> usize) -> Option<Change> {
    let Change::Write { offset, bytes } = change else { return None };
    let mut lengths = BTreeSet::from([1, bytes.len() / 2, bytes.len().saturating_sub(1)]);
    lengths.extend((1..=bytes.len()).filter(|length| (offset + length) % BLOCKS[0] == 0));
    lengths.retain(|length| *length > 0 && *length < bytes.len());
    let lengths: Vec<usize> = lengths.into_iter().collect();
    match choose(lengths.len() + 2) {
        0 => None,
        // Zeros are what a longer file reads as where nothing was written yet.
        1 => {
            let start = length.max(*offset);
            let zeros = vec![0; (offset + bytes.len()).saturating_sub(start)];
            Some(Change::Write { offset: start, bytes: zeros })
        }
        cut => Some(Change::Write { offset: *offset, bytes: bytes[..lengths[cut - 2]].to_vec() }),
    }
}

/// Puts back what was on the disk before, in one block or none.
fn lose_a_block(
    image: &mut [u8],
    base: &[u8],
    written: &[(usize, usize)],
    choose: &mut dyn FnMut(usize) -> usize,
) {
    let mut blocks = BTreeSet::new();
    for size in BLOCKS {
        for (start, end) in written.iter().filter(|(start, end)| start < end) {
            blocks.extend((start / size..=(end - 1) / size).map(|block| (size, block)));
        }
    }
    let choice = choose(blocks.len() + 1);
    let Some((size, block)) = choice.checked_sub(1).and_then(|at| blocks.iter().nth(at)) else {
        return;
    };
    let lost = block * size..(block + 1) * size;
    for (start, end) in written {
        for at in (*start).max(lost.start)..(*end).min(lost.end).min(image.len()) {
            image[at] = base.get(at).copied().unwrap_or(0);
        }
    }
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
        self.inodes.push(Inode { durable: content.clone(), content, pending: Vec::new() });
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

fn joined(parts: &[Bytes]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter().copied()).collect()
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

#[derive(Debug)]
struct SimFile {
    fs: SimFileSystem,
    inode: usize,
    /// Where the next append goes.
    end: usize,
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
struct SimNote(Vec<u8>);

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
struct SimLock {
    fs: SimFileSystem,
    path: PathBuf,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Some(file) = self.fs.lock().lock_files.get_mut(&self.path) {
            file.held = false;
        }
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
