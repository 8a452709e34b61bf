//! Cutting a damaged log, so that it can be opened again, without throwing anything away.
//!
//! Order, each step durable before the next:
//!
//! ```text
//! 1 the damaged segment's rest is copied to *.cut
//! 2 a new segment is made that follows the last valid record    ← from here on the log is repaired
//! 3 later segments are renamed to *.cut, the damaged one is cut
//! ```
//!
//! The new segment begins after the highest number that anything mentions, so that no number is
//! given twice. A crash before 2 leaves the damage as it was, one after 2 a log that opens; opening
//! it does the rest of 3.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidelog_core::{Env, WalId};
use tidelog_storage::FileSystem;

use crate::directory::{
    ID_FILE, Listing, Unmade, lock, make_segment, read_id, segment_path, sync_directory, write_id,
};
use crate::error::{Damage, Error};
use crate::format::{Link, SegmentHeader};
use crate::open::set_aside;
use crate::survey::{Ending, Extent, Survey, header_of, survey};
use crate::window::Window;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// The damage that was found; none if the log was whole, and nothing was done.
    pub damage: Option<Damage>,
    /// Whether the log's id was written anew, from a segment.
    pub id_restored: bool,
    /// Files that hold what was cut out of the log.
    pub cut: Vec<PathBuf>,
    /// The first and last number of records that are lost to the log. None if nothing is lost, or if
    /// nothing tells which they were.
    pub lost: Option<(u64, u64)>,
}

/// Cuts the log in `directory` at the first damage, under its lock. All that is behind it is put
/// aside in files that end in `.cut` and lost to the log. A log that is whole, or has a torn tail, is
/// left alone. If nothing of the log is left, all of it is put aside, and opening makes a new one.
///
/// # Errors
/// [`Error::NoLog`], [`Error::Locked`], [`Error::NewerFormat`], [`Error::Io`].
pub fn repair(fs: &dyn FileSystem, directory: &Path, env: &Env) -> Result<Repaired, Error> {
    let found = Listing::of_log(fs, directory)?;
    if !found.has_id && found.segments.is_empty() {
        return Err(Error::NoLog { directory: directory.to_owned() });
    }
    let _lock = lock(fs, directory, env.clock.as_ref())?;
    Repair { fs, directory, listing: Listing::of(fs, directory)?, report: Repaired::default() }
        .run()
}

struct Repair<'a> {
    fs: &'a dyn FileSystem,
    directory: &'a Path,
    listing: Listing,
    report: Repaired,
}

impl Repair<'_> {
    fn run(mut self) -> Result<Repaired, Error> {
        let Some(id) = self.settle_id()? else { return Ok(self.report) };
        let segments = self.listing.segments.clone();
        let survey = survey(self.fs, self.directory, id, &segments)?;
        let Ending::Damaged(damage) = survey.ending.clone() else { return Ok(self.report) };
        if segments.is_empty() {
            self.report.damage = Some(damage);
            self.abandon()?;
            return Ok(self.report);
        }
        self.save_rest(survey.extents.last())?;
        self.bridge(id, &survey, &damage)?;
        self.report.damage = Some(damage);
        self.clear(&survey)?;
        Ok(self.report)
    }

    /// The log's id: from its file, or else from the oldest segment with a whole header. Without
    /// either all is put aside.
    fn settle_id(&mut self) -> Result<Option<WalId>, Error> {
        if self.listing.has_id {
            match read_id(self.fs, self.directory) {
                Err(Error::Damaged(damage)) => self.report.damage = Some(*damage),
                id => return id.map(Some),
            }
        }
        for number in self.listing.segments.clone() {
            let Some((header, _)) = header_of(self.fs, self.directory, number)? else { continue };
            self.put_id_aside()?;
            write_id(self.fs, self.directory, &self.listing, header.id)?;
            self.report.id_restored = true;
            return Ok(Some(header.id));
        }
        self.abandon()?;
        Ok(None)
    }

    /// Puts all segments aside, then the id.
    fn abandon(&mut self) -> Result<(), Error> {
        for number in self.listing.segments.clone() {
            self.set_aside(number)?;
        }
        sync_directory(self.fs, self.directory)?;
        self.put_id_aside()?;
        sync_directory(self.fs, self.directory)
    }

    fn put_id_aside(&mut self) -> Result<(), Error> {
        if !self.listing.has_id {
            return Ok(());
        }
        let path = self.directory.join(ID_FILE);
        let aside = self.directory.join(self.listing.unused_cut_name(ID_FILE.as_ref(), 0));
        self.fs.rename(&path, &aside).map_err(Error::io("renaming", &path))?;
        self.report.cut.push(aside);
        Ok(())
    }

    /// Copies what follows the valid part of the damaged segment.
    fn save_rest(&mut self, last: Option<&Extent>) -> Result<(), Error> {
        let Some(last) = last.filter(|last| last.file_bytes > last.valid_bytes) else {
            return Ok(());
        };
        let name = last.path.file_name().unwrap_or_default();
        let path = self.directory.join(self.listing.unused_cut_name(name, last.valid_bytes));
        let mut window = Window::open(self.fs, &last.path)?;
        let failed = "copying the damage to";
        let mut file = self.fs.create_append(&path).map_err(Error::io(failed, &path))?;
        let mut offset = last.valid_bytes;
        loop {
            let piece = Bytes::copy_from_slice(window.piece(offset)?);
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            file.append(&[piece]).map_err(Error::io(failed, &path))?;
        }
        file.sync_data().map_err(Error::io(failed, &path))?;
        sync_directory(self.fs, self.directory)?;
        self.report.cut.push(path);
        Ok(())
    }

    /// Makes the segment in which the log goes on.
    fn bridge(&mut self, id: WalId, survey: &Survey, damage: &Damage) -> Result<(), Error> {
        let highest = self.listing.segments.last().copied().unwrap_or_default();
        let last = survey.extents.last();
        let first_seq = survey.next_seq.max(damage.seq_behind + 1).max(1);
        let previous = last.map_or_else(Link::default, |last| Link {
            segment: last.number,
            seq: survey.last_seq(),
            hash: survey.chain,
        });
        let header = SegmentHeader { id, number: highest + 1, first_seq, previous };
        let path = segment_path(self.directory, header.number);
        make_segment(self.fs, self.directory, &header)
            .map_err(Unmade::into_io)
            .map_err(Error::io("making", &path))?;
        // Without a valid record nothing says with which number the lost ones began.
        let first_lost = survey.next_seq.max(1);
        self.report.lost =
            (last.is_some() && first_lost < first_seq).then(|| (first_lost, first_seq - 1));
        Ok(())
    }

    fn clear(&mut self, survey: &Survey) -> Result<(), Error> {
        for number in survey.left_over.iter().chain(&survey.beyond) {
            self.set_aside(*number)?;
        }
        sync_directory(self.fs, self.directory)?;
        let Some(last) = survey.extents.last() else { return Ok(()) };
        if last.file_bytes > last.valid_bytes {
            let failed = "cutting";
            let file = self.fs.open_append(&last.path);
            let mut file = file.map_err(Error::io(failed, &last.path))?;
            file.truncate(last.valid_bytes).map_err(Error::io(failed, &last.path))?;
            file.sync_data().map_err(Error::io(failed, &last.path))?;
        }
        Ok(())
    }

    fn set_aside(&mut self, number: u64) -> Result<(), Error> {
        let aside = set_aside(self.fs, self.directory, &mut self.listing, number)?;
        self.report.cut.push(aside);
        Ok(())
    }
}
