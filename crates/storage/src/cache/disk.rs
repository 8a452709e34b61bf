//! The cache's files. Every call blocks, and none fails: what goes wrong is a miss and, once, a
//! warning.
//!
//! ```text
//! <directory>/<hash of the store>/<two digits>/<hash of the object's name>.<block>
//! ```
//!
//! A file is written under a name that begins with a dot and then renamed, so a block is there whole
//! or not at all. Nothing is synced: after a power cut the checksum tells. A block's time of
//! modification says when it was last used, for whoever comes next.
//!
//! Anybody may delete anything at any time. Other processes may use the same directory: their files
//! are read like one's own, and the directory is looked through again after every eighth of the
//! budget that was written, so that what they add counts as well.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use tidelog_core::Env;
use twox_hash::XxHash3_128;

use super::block::{BLOCK_BYTES, Block, BlockId};
use super::index::{Found, Index};

/// No header is longer; a larger file is none of ours.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// A file's time is renewed at its use if it is older, in microseconds. To do so every time would
/// cost a write for each read.
const TOUCH_AFTER: i64 = 60 * 1_000_000;
/// A file under its first name that is older was left by a process that has died.
const LEFT_AFTER: i64 = 3_600 * 1_000_000;
/// The directory is looked through again after this part of the budget was written.
const SCAN_PART: u64 = 8;

/// The blocks of one store in a directory, and the budget of the whole directory.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    store: u128,
    bytes_max: u64,
    env: Env,
    index: Mutex<Index>,
    /// Bytes written since the directory was looked through; none before the first time.
    written: Mutex<Option<u64>>,
    warned: AtomicBool,
}

impl Disk {
    pub(super) fn new(directory: PathBuf, identity: &str, bytes_max: u64, env: Env) -> Self {
        Self {
            directory,
            store: XxHash3_128::oneshot(identity.as_bytes()),
            bytes_max,
            env,
            index: Mutex::new(Index::new(bytes_max)),
            written: Mutex::new(None),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self, location: &ObjectPath, number: u64) -> BlockId {
        let object = XxHash3_128::oneshot(location.as_ref().as_bytes());
        BlockId { store: self.store, object, number }
    }

    /// The block, if it is there and unaltered.
    pub(super) fn read(&self, location: &ObjectPath, number: u64) -> Option<Block> {
        let id = self.id(location, number);
        match read_file(&self.path(&id), self.now()) {
            Ok(file) => {
                let block = Block::decode(location, number, &file)?;
                self.index().touch(id, file.len() as u64, self.now());
                Some(block)
            }
            Err(error) => {
                self.index().remove(&id);
                self.warn("reading", &error);
                None
            }
        }
    }

    /// Keeps the block if that is possible.
    pub(super) fn keep(&self, location: &ObjectPath, block: &Block) -> bool {
        self.scan_if_due();
        let id = self.id(location, block.number);
        let Some(head) = block.head(location) else { return false };
        let bytes = (head.len() + block.bytes.len()) as u64;
        // In a statement of its own, as the index must not be locked while files are removed.
        let evicted = self.index().insert(id, bytes, self.now());
        let Some(evicted) = evicted else { return false };
        self.remove_files(&evicted);
        if let Err(error) = self.write(&id, &[&head, &block.bytes]) {
            self.index().remove(&id);
            self.warn("writing", &error);
            return false;
        }
        if let Some(written) = self.written().as_mut() {
            *written += bytes;
        }
        // Whoever evicted it meanwhile may have looked for the file before it was there.
        let stays = self.index().contains(&id);
        if !stays {
            self.remove_files(&[id]);
        }
        stays
    }

    /// Drops all blocks of an object.
    pub(super) fn forget(&self, location: &ObjectPath) {
        let first = self.id(location, 0);
        let folder = self.folder(&first);
        let Ok(entries) = fs::read_dir(&folder) else { return };
        let ids = entries.flatten().filter_map(|entry| parse_file(first.store, &entry.file_name()));
        let ids: Vec<BlockId> = ids.filter(|id| id.object == first.object).collect();
        for id in &ids {
            self.index().remove(id);
        }
        self.remove_files(&ids);
    }

    fn write(&self, id: &BlockId, parts: &[&[u8]]) -> io::Result<()> {
        let folder = self.folder(id);
        let mut random = [0; 8];
        self.env.randomness.fill(&mut random);
        let first_name = folder.join(format!(".{:016x}", u64::from_le_bytes(random)));
        let mut written = write_new(&first_name, parts);
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            create_folders(&folder)?;
            written = write_new(&first_name, parts);
        }
        let renamed = written.and_then(|()| fs::rename(&first_name, self.path(id)));
        if renamed.is_err() {
            // It may not have come to exist; what is left is removed when it is old.
            let _ = fs::remove_file(&first_name);
        }
        renamed
    }

    fn remove_files(&self, ids: &[BlockId]) {
        for id in ids {
            if let Err(error) = fs::remove_file(self.path(id)) {
                self.warn("removing from", &error);
            }
        }
    }

    /// Looks through the directory if it has changed much. Others who write wait meanwhile.
    fn scan_if_due(&self) {
        let mut written = self.written();
        if written.is_some_and(|bytes| bytes < self.bytes_max / SCAN_PART) {
            return;
        }
        let began = self.index().moment(self.now());
        let found = self.scan();
        let evicted = self.index().reconcile(found, began);
        *written = Some(0);
        drop(written);
        self.remove_files(&evicted);
    }

    /// All blocks of all stores in the directory. What is not named like one is left alone.
    fn scan(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for store in self.entries(&self.directory) {
            let Some(id) = parse_hash(store.file_name().to_str()) else { continue };
            for folder in self.entries(&store.path()) {
                if is_folder(folder.file_name().to_str()) {
                    let files = self.entries(&folder.path());
                    found.extend(files.iter().filter_map(|file| self.scanned(id, file)));
                }
            }
        }
        found
    }

    fn entries(&self, folder: &Path) -> Vec<fs::DirEntry> {
        let entries = fs::read_dir(folder).and_then(|entries| entries.collect());
        entries.unwrap_or_else(|error| {
            self.warn("looking through", &error);
            Vec::new()
        })
    }

    fn scanned(&self, store: u128, file: &fs::DirEntry) -> Option<Found> {
        let name = file.file_name();
        // Somebody else may have removed it since it was listed.
        let metadata = file.metadata().ok()?;
        let used = metadata.modified().map_or(0, micros);
        if is_first_name(name.to_str()) {
            if self.now().saturating_sub(used) > LEFT_AFTER {
                let _ = fs::remove_file(file.path());
            }
            return None;
        }
        Some(Found { id: parse_file(store, &name)?, bytes: metadata.len(), used })
    }

    fn folder(&self, id: &BlockId) -> PathBuf {
        let store = self.directory.join(format!("{:032x}", id.store));
        store.join(format!("{:02x}", id.object >> 120))
    }

    fn path(&self, id: &BlockId) -> PathBuf {
        self.folder(id).join(format!("{:032x}.{}", id.object, id.number))
    }

    fn now(&self) -> i64 {
        self.env.clock.now().micros()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, Option<u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says once that the cache does not work as it should. That something is not there is no fault.
    fn warn(&self, doing: &str, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound && !self.warned.swap(true, Ordering::Relaxed) {
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "{doing} the read cache failed; reads go on without");
        }
    }
}

/// A block's file whole, noting that it was used.
fn read_file(path: &Path, now: i64) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let length = metadata.len().min(BLOCK_BYTES + HEAD_BYTES_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    Read::by_ref(&mut file).take(length).read_to_end(&mut bytes)?;
    if metadata.modified().is_ok_and(|used| now.saturating_sub(micros(used)) > TOUCH_AFTER)
        && let Some(now) = u64::try_from(now).ok().map(Duration::from_micros)
    {
        // The directory may be another's, who alone may do that.
        let _ = file.set_modified(UNIX_EPOCH + now);
    }
    Ok(bytes.into())
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// Makes folders that nobody else may look into: data lie in them.
fn create_folders(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn parse_file(store: u128, name: &std::ffi::OsStr) -> Option<BlockId> {
    let (object, number) = name.to_str()?.split_once('.')?;
    Some(BlockId { store, object: parse_hash(Some(object))?, number: number.parse().ok()? })
}

fn parse_hash(name: Option<&str>) -> Option<u128> {
    let name = name.filter(|name| name.len() == 32 && is_hex(name))?;
    u128::from_str_radix(name, 16).ok()
}

fn is_folder(name: Option<&str>) -> bool {
    name.is_some_and(|name| name.len() == 2 && is_hex(name))
}

fn is_first_name(name: Option<&str>) -> bool {
    let digits = name.and_then(|name| name.strip_prefix('.'));
    digits.is_some_and(|digits| digits.len() == 16 && is_hex(digits))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
