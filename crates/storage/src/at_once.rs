//! What the kernel tells without waiting for a disk: bytes that it has in memory anyway, and names that it
//! knows to be none.
//!
//! A read of many small stretches, such as a range of event time over files that were just written, costs
//! more in going to a thread that may block, and in waiting for a core there, than in copying the bytes. So
//! the kernel is asked first for what it has without waiting; who gets nothing goes the usual way.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

/// So many bytes at most are copied on the caller's thread, which others wait for.
const BYTES_MAX: u64 = 1 << 20;

/// The bytes of a file at `ranges`, if all of them can be had without waiting; `None` for whatever other
/// reason, too: what is wrong is told by who reads in the usual way.
pub(crate) fn read(path: &Path, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
    let lengths = ranges.iter().map(|range| range.end.checked_sub(range.start));
    let bytes = lengths.sum::<Option<u64>>()?;
    if bytes > BYTES_MAX { None } else { cached(path, ranges) }
}

/// Whether the kernel knows that there is no such file. If it does not know, there may be none all the same.
///
/// Whoever reads asks for the commit behind the newest that he knows, which mostly is not there.
#[cfg(target_os = "linux")]
pub(crate) fn is_missing(path: &Path) -> bool {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
    found.err() == Some(rustix::io::Errno::NOENT)
}

#[cfg(not(target_os = "linux"))]
pub(crate) const fn is_missing(_: &Path) -> bool {
    false
}

#[cfg(target_os = "linux")]
fn cached(path: &Path, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
    use std::io::IoSliceMut;

    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    use rustix::io::{ReadWriteFlags, preadv2};

    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let read_one = |range: &Range<u64>| {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let count = preadv2(&file, into, range.start, ReadWriteFlags::NOWAIT).ok()?;
        (count == bytes.len()).then(|| Bytes::from(bytes))
    };
    ranges.iter().map(read_one).collect()
}

#[cfg(not(target_os = "linux"))]
const fn cached(_: &Path, _: &[Range<u64>]) -> Option<Vec<Bytes>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_had_at_once_is_what_the_file_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..100_000_usize).map(|n| n.to_le_bytes()[n % 3]).collect();
        std::fs::write(&path, &content).unwrap();
        let ranges = [10..20, 99_000..100_000, 0..1, 5..5, 4_000..9_000];
        // A file system that cannot say what it has in memory has nothing at once.
        if let Some(found) = read(&path, &ranges) {
            for (range, bytes) in ranges.iter().zip(&found) {
                let at = |at: u64| usize::try_from(at).unwrap();
                assert_eq!(bytes.as_ref(), &content[at(range.start)..at(range.end)]);
            }
            assert_eq!(found.len(), ranges.len());
        }
    }

    #[test]
    fn what_is_there_is_never_missing_and_what_is_made_or_removed_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for round in 0..50 {
            // The first look makes the kernel know that there is none, where it can know.
            assert!(!path.exists());
            is_missing(&path);
            std::fs::write(&path, [1]).unwrap();
            assert!(!is_missing(&path), "round {round}");
            let moved = directory.path().join("moved");
            std::fs::rename(&path, &moved).unwrap();
            assert!(!is_missing(&moved), "round {round}");
            std::fs::remove_file(&moved).unwrap();
        }
        assert!(!is_missing(directory.path()));
    }

    #[test]
    fn what_is_not_there_or_much_is_not_had_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 2 << 20]).unwrap();
        let one = |range: Range<u64>| read(&path, std::slice::from_ref(&range));
        assert_eq!(one((2 << 20) - 10..(2 << 20) + 1), None);
        assert_eq!(one(5_u64 << 20..(5 << 20) + 1), None);
        assert_eq!(one(0..BYTES_MAX + 1), None);
        let backwards = Range { start: 5, end: 4 };
        assert_eq!(one(backwards), None);
        let nowhere = directory.path().join("none");
        assert_eq!(read(&nowhere, std::slice::from_ref(&(0..1))), None);
    }
}
