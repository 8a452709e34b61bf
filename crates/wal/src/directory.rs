//! The names in a log's directory, its id and its lock.
//!
//! | name | holds |
//! |---|---|
//! | `wal.id` | the log's id; made last, so that a log with an id has a first segment |
//! | `wal.lock` | locked while the log is open; says by whom |
//! | `00000000000000000001.wal` | a segment, by number |
//! | `*.cut` | what a repair put aside; never read |

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tidelog_core::{Clock, WalId, WriteTime};
use tidelog_storage::{AppendFile, FileLock, FileSystem};

use crate::error::{Damage, Error};
use crate::format::{ID_FILE_BYTES, SegmentHeader, decode_id, encode_id};

pub(crate) const ID_FILE: &str = "wal.id";
const ID_STAGED: &str = "wal.id.new";
const LOCK_FILE: &str = "wal.lock";
const SEGMENT_SUFFIX: &str = ".wal";
const SEGMENT_DIGITS: usize = 20;

/// Tries for the lock: somebody who asks whether it is held holds it for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The process that has a log open, as far as it says so itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Its machine.
    pub host: Option<String>,
    /// Its process id there.
    pub pid: Option<u32>,
    /// When it opened the log.
    pub since: Option<WriteTime>,
}

impl Holder {
    /// This process, now.
    #[must_use]
    pub fn of_this_process(clock: &dyn Clock) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host: Some(host), pid: Some(std::process::id()), since: Some(clock.now()) }
    }

    fn note(&self) -> String {
        let host = self.host.as_deref().unwrap_or_default();
        let pid = self.pid.unwrap_or_default();
        let since = self.since.map(WriteTime::micros).unwrap_or_default();
        format!("pid {pid}\nhost {host}\nsince_us {since}\n")
    }

    fn parse(note: &str) -> Self {
        let field =
            |name: &str| note.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Self {
            host: field("host").map(str::to_owned),
            pid: field("pid").and_then(|text| text.parse().ok()),
            since: field("since_us").and_then(|text| text.parse().ok()).map(WriteTime::from_micros),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}")?,
            None => f.write_str("an unknown process")?,
        }
        if let Some(host) = &self.host {
            write!(f, " on {host}")?;
        }
        if let Some(since) = self.since {
            write!(f, " since {since}")?;
        }
        Ok(())
    }
}

/// Takes the log's lock, or says who has it.
pub(crate) fn lock(
    fs: &dyn FileSystem,
    directory: &Path,
    clock: &dyn Clock,
) -> Result<Box<dyn FileLock>, Error> {
    let path = directory.join(LOCK_FILE);
    let note = Holder::of_this_process(clock).note();
    for attempt in 1..=LOCK_TRIES {
        let taken = fs.try_lock(&path, note.as_bytes()).map_err(Error::io("locking", &path))?;
        if let Some(lock) = taken {
            return Ok(lock);
        }
        if attempt < LOCK_TRIES {
            thread::sleep(LOCK_PAUSE);
        }
    }
    Err(Error::Locked { directory: directory.to_owned(), holder: holder(fs, &path) })
}

/// Who holds the log's lock.
pub(crate) fn holder_of(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Holder>, Error> {
    let path = directory.join(LOCK_FILE);
    let locked = fs.is_locked(&path).map_err(Error::io("looking at the lock", &path))?;
    Ok(locked.then(|| holder(fs, &path)))
}

fn holder(fs: &dyn FileSystem, path: &Path) -> Holder {
    let note = read_small(fs, path, 1024).unwrap_or_default();
    Holder::parse(&String::from_utf8_lossy(&note))
}

/// What lies in a log's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) has_id: bool,
    pub(crate) has_staged_id: bool,
    /// Numbers of segments, ascending.
    pub(crate) segments: Vec<u64>,
    pub(crate) names: Vec<std::ffi::OsString>,
}

impl Listing {
    pub(crate) fn of(fs: &dyn FileSystem, directory: &Path) -> Result<Self, Error> {
        let names = fs.list(directory).map_err(Error::io("listing", directory))?;
        let mut segments: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        segments.sort_unstable();
        let has = |file: &str| names.iter().any(|name| name == file);
        Ok(Self { has_id: has(ID_FILE), has_staged_id: has(ID_STAGED), segments, names })
    }

    /// That of a directory which is there.
    pub(crate) fn of_log(fs: &dyn FileSystem, directory: &Path) -> Result<Self, Error> {
        Self::of(fs, directory).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::NoLog { directory: directory.to_owned() }
            }
            error => error,
        })
    }

    /// A name for what is put aside of `file` that nothing has.
    pub(crate) fn unused_cut_name(&mut self, file: &OsStr, offset: u64) -> std::ffi::OsString {
        let mut name = file.to_owned();
        if offset > 0 {
            name.push(format!(".{offset}"));
        }
        let mut candidate = name.clone();
        candidate.push(".cut");
        let mut number = 1_u64;
        while self.names.contains(&candidate) {
            number += 1;
            candidate = name.clone();
            candidate.push(format!("-{number}.cut"));
        }
        self.names.push(candidate.clone());
        candidate
    }
}

pub(crate) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:0width$}{SEGMENT_SUFFIX}", width = SEGMENT_DIGITS))
}

fn segment_number(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(SEGMENT_SUFFIX)?;
    let whole = digits.len() == SEGMENT_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    whole.then(|| digits.parse().ok()).flatten().filter(|number| *number > 0)
}

/// The log's id, which must be there.
pub(crate) fn read_id(fs: &dyn FileSystem, directory: &Path) -> Result<WalId, Error> {
    let path = directory.join(ID_FILE);
    let bytes = read_small(fs, &path, ID_FILE_BYTES + 1).map_err(Error::io("reading", &path))?;
    decode_id(&bytes).ok_or_else(|| id_damage(path, "the log's id is not what was written"))
}

pub(crate) fn id_damage(file: PathBuf, found: &str) -> Error {
    Error::Damaged(Box::new(Damage {
        file,
        offset: 0,
        found: found.to_owned(),
        seq: 0,
        records_behind: 0,
        bytes_behind: 0,
        seq_behind: 0,
    }))
}

/// Writes the id under another name first, so that it is there whole or not at all.
pub(crate) fn write_id(
    fs: &dyn FileSystem,
    directory: &Path,
    listing: &Listing,
    id: WalId,
) -> Result<(), Error> {
    let (path, staged) = (directory.join(ID_FILE), directory.join(ID_STAGED));
    if listing.has_staged_id {
        fs.remove(&staged).map_err(Error::io("removing", &staged))?;
    }
    let bytes = Bytes::copy_from_slice(&encode_id(id));
    let _held = fs.write_new(&staged, &[bytes]).map_err(Error::io("writing", &staged))?;
    fs.rename(&staged, &path).map_err(Error::io("naming", &path))?;
    sync_directory(fs, directory)
}

pub(crate) fn sync_directory(fs: &dyn FileSystem, directory: &Path) -> Result<(), Error> {
    fs.sync_dir(directory).map_err(Error::io("syncing", directory))
}

/// How far the making of a segment came.
pub(crate) enum Unmade {
    /// It could not be written; nothing that was durable before is in doubt.
    Unwritten(io::Error),
    /// It could not be synced.
    Unsynced(io::Error),
}

impl Unmade {
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Unwritten(error) | Self::Unsynced(error) => error,
        }
    }
}

/// Makes a segment without records, durable with its name. Yields the hash of its header.
pub(crate) fn make_segment(
    fs: &dyn FileSystem,
    directory: &Path,
    header: &SegmentHeader,
) -> Result<(Box<dyn AppendFile>, u64), Unmade> {
    let path = segment_path(directory, header.number);
    let (bytes, hash) = header.encode();
    let mut file = fs.create_append(&path).map_err(Unmade::Unwritten)?;
    file.append(&[Bytes::copy_from_slice(&bytes)]).map_err(Unmade::Unwritten)?;
    file.sync_data().map_err(Unmade::Unsynced)?;
    fs.sync_dir(directory).map_err(Unmade::Unsynced)?;
    Ok((file, hash))
}

fn read_small(fs: &dyn FileSystem, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let count = fs.open_read(path)?.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_one_form_are_segments() {
        let number = |name: &str| segment_number(OsStr::new(name));
        let path = segment_path(Path::new("d"), 12);
        assert_eq!(segment_number(path.file_name().unwrap()), Some(12));
        assert_eq!(number("00000000000000000012.wal"), Some(12));
        for name in ["12.wal", "00000000000000000000.wal", "+0000000000000000012.wal", "wal.id"] {
            assert_eq!(number(name), None, "{name}");
        }
        assert_eq!(number("00000000000000000012.wal.cut"), None);
        assert_eq!(number("99999999999999999999.wal"), None);
    }

    #[test]
    fn a_holder_comes_back_and_rubbish_is_an_unknown_one() {
        let holder = Holder {
            host: Some("a host".to_owned()),
            pid: Some(7),
            since: Some(WriteTime::from_micros(1_700_000_000_000_000)),
        };
        assert_eq!(Holder::parse(&holder.note()), holder);
        assert!(holder.to_string().starts_with("process 7 on a host since 2023-11-14"), "{holder}");
        assert_eq!(Holder::parse("\u{0}\u{0}").to_string(), "an unknown process");
    }
}
