//! Opening a log: making a new one, or trimming what a crash has left of the last one.
//!
//! A new log is made in this order, so that a log with an id always had a durable first segment:
//!
//! ```text
//! directory → lock → first segment, synced → directory synced → id → directory synced
//! ```

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use tidelog_core::{Env, WalId};
use tidelog_storage::{AppendFile, FileLock, FileSystem};

use crate::directory::{
    Listing, Unmade, id_damage, lock, make_segment, read_id, segment_path, sync_directory, write_id,
};
use crate::error::Error;
use crate::format::{Link, SEGMENT_HEADER_BYTES, SegmentHeader, seed_of};
use crate::frames::{Place, frames_behind};
use crate::survey::{Ending, Extent, Survey, header_of, survey};
use crate::wal::Opened;
use crate::window::{Window, to_usize};

const FIRST_SEGMENT: u64 = 1;
/// Bytes rewritten at a time.
const REWRITE_BYTES: usize = 256 * 1024;
/// A first segment without an id is what is left of a log that was being made, unless it is longer.
/// Some file systems round the length up after a crash.
const UNMADE_BYTES_MAX: u64 = 64 * 1024;

pub(crate) fn open(fs: &dyn FileSystem, directory: &Path, env: &Env) -> Result<Opened, Error> {
    let lock = lock_made(fs, directory, env)?;
    let listing = Listing::of(fs, directory)?;
    if !listing.has_id {
        return make(fs, directory, env, &listing, lock);
    }
    let id = read_id(fs, directory)?;
    let survey = survey(fs, directory, id, &listing.segments)?;
    if let Ending::Damaged(damage) = survey.ending {
        return Err(Error::Damaged(Box::new(damage)));
    }
    tidy(fs, directory, listing, &survey)?;
    adopt(fs, directory, id, lock, survey)
}

/// Takes the lock, in a directory that is made if it is missing.
fn lock_made(fs: &dyn FileSystem, directory: &Path, env: &Env) -> Result<Box<dyn FileLock>, Error> {
    match lock(fs, directory, env.clock.as_ref()) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    match fs.create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::io("making the directory", directory)(error));
        }
        _ => {}
    }
    lock(fs, directory, env.clock.as_ref())
}

fn make(
    fs: &dyn FileSystem,
    directory: &Path,
    env: &Env,
    listing: &Listing,
    lock: Box<dyn FileLock>,
) -> Result<Opened, Error> {
    remove_unmade(fs, directory, listing)?;
    // Whoever made the directory may not have come so far.
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(fs, parent.unwrap_or(Path::new(".")))?;
    let id = WalId::random(env.randomness.as_ref());
    let header =
        SegmentHeader { id, number: FIRST_SEGMENT, first_seq: 1, previous: Link::default() };
    let path = segment_path(directory, FIRST_SEGMENT);
    let made = make_segment(fs, directory, &header).map_err(Unmade::into_io);
    let (file, chain) = made.map_err(Error::io("making", &path))?;
    write_id(fs, directory, listing, id)?;
    let active = empty_extent(path, &header, chain);
    Ok(Opened { id, lock, extents: VecDeque::new(), active, file, chain })
}

pub(crate) fn empty_extent(path: PathBuf, header: &SegmentHeader, chain: u64) -> Extent {
    Extent {
        number: header.number,
        path,
        first_seq: header.first_seq,
        last_seq: header.first_seq - 1,
        valid_bytes: SEGMENT_HEADER_BYTES as u64,
        file_bytes: SEGMENT_HEADER_BYTES as u64,
        chain,
    }
}

/// Removes the segment of a log that was never made to its end. A log that has lost its id is none.
fn remove_unmade(fs: &dyn FileSystem, directory: &Path, listing: &Listing) -> Result<(), Error> {
    let Some(last) = listing.segments.last() else { return Ok(()) };
    if *last != FIRST_SEGMENT || holds_records(fs, directory)? {
        let path = directory.join(crate::directory::ID_FILE);
        return Err(id_damage(path, "the file is missing, and there are segments"));
    }
    let path = segment_path(directory, FIRST_SEGMENT);
    fs.remove(&path).map_err(Error::io("removing", &path))
}

fn holds_records(fs: &dyn FileSystem, directory: &Path) -> Result<bool, Error> {
    let mut window = Window::open(fs, &segment_path(directory, FIRST_SEGMENT))?;
    let Some((header, _)) = header_of(fs, directory, FIRST_SEGMENT)? else {
        return Ok(window.length() > UNMADE_BYTES_MAX);
    };
    let place = Place { seed: seed_of(header.id), min_seq: 0 };
    Ok(frames_behind(&mut window, 0, place)?.records > 0)
}

/// Brings the files in line with the survey. May be cut short and done again.
fn tidy(
    fs: &dyn FileSystem,
    directory: &Path,
    mut listing: Listing,
    survey: &Survey,
) -> Result<(), Error> {
    for number in &survey.left_over {
        set_aside(fs, directory, &mut listing, *number)?;
    }
    // At most one, whose header never became durable: it holds nothing.
    for number in &survey.beyond {
        let path = segment_path(directory, *number);
        fs.remove(&path).map_err(Error::io("removing", &path))?;
    }
    sync_directory(fs, directory)
}

/// Renames a segment that is no part of the log any more.
pub(crate) fn set_aside(
    fs: &dyn FileSystem,
    directory: &Path,
    listing: &mut Listing,
    number: u64,
) -> Result<PathBuf, Error> {
    let path = segment_path(directory, number);
    let name = path.file_name().unwrap_or_default().to_owned();
    let aside = directory.join(listing.unused_cut_name(&name, 0));
    fs.rename(&path, &aside).map_err(Error::io("renaming", &path))?;
    tracing::info!(file = %aside.display(), "a segment was put aside");
    Ok(aside)
}

fn adopt(
    fs: &dyn FileSystem,
    directory: &Path,
    id: WalId,
    lock: Box<dyn FileLock>,
    mut survey: Survey,
) -> Result<Opened, Error> {
    let unproven = survey.unproven_offset;
    let Some(mut active) = survey.extents.pop() else {
        return Err(id_damage(directory.to_owned(), "the log has no segment"));
    };
    let mut file = fs.open_append(&active.path).map_err(Error::io("opening", &active.path))?;
    if active.file_bytes > active.valid_bytes {
        if survey.ending != Ending::Clean {
            tracing::info!(
                file = %active.path.display(),
                bytes = active.file_bytes - active.valid_bytes,
                "cutting off a torn tail"
            );
        }
        file.truncate(active.valid_bytes).map_err(Error::io("cutting", &active.path))?;
        active.file_bytes = active.valid_bytes;
    }
    rewrite(fs, &active, file.as_mut(), unproven)?;
    file.sync_data().map_err(Error::io("syncing", &active.path))?;
    let (extents, chain) = (survey.extents.into(), survey.chain);
    Ok(Opened { id, lock, extents, active, file, chain })
}

/// Writes what nothing proves durable once more, as it is. After a failed sync the system may take
/// it for written although the disk does not have it; only a new write makes a sync mean something.
fn rewrite(
    fs: &dyn FileSystem,
    active: &Extent,
    file: &mut dyn AppendFile,
    from: u64,
) -> Result<(), Error> {
    let window = Window::open(fs, &active.path)?;
    let mut offset = from;
    let mut buffer = vec![0; REWRITE_BYTES.min(to_usize(active.valid_bytes - from))];
    while offset < active.valid_bytes {
        let size = buffer.len().min(to_usize(active.valid_bytes - offset));
        let piece = &mut buffer[..size];
        if !window.read_exact(offset, piece)? {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(Error::io("reading", &active.path)(error));
        }
        file.rewrite(offset, piece).map_err(Error::io("rewriting", &active.path))?;
        offset += size as u64;
    }
    Ok(())
}
