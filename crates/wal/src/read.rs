//! Looking at a log without owning it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_core::WalId;
use tidelog_storage::FileSystem;

use crate::directory::{Holder, ID_FILE, Listing, holder_of, id_damage, read_id};
use crate::error::{Damage, Error};
use crate::format::seed_of;
use crate::options::WalOptions;
use crate::records::Records;
use crate::survey::{Ending, Survey, survey};

/// A log as it is found, for a process that does not own it: of an owner that has died.
#[derive(Debug)]
pub struct Reading {
    fs: Arc<dyn FileSystem>,
    id: WalId,
    survey: Survey,
}

impl Reading {
    /// The log's id.
    #[must_use]
    pub const fn id(&self) -> WalId {
        self.id
    }

    /// The first record that is there, or that would come next if there is none.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.survey.first_seq()
    }

    /// The last record that is there, or that was; 0 if there never was one.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.survey.last_seq()
    }

    /// The records after the number `after`, in order. `options` say how long a payload may be.
    #[must_use]
    pub fn records(&self, after: u64, options: &WalOptions) -> Records {
        let extents = self.survey.extents.iter().cloned();
        let fs = Arc::clone(&self.fs);
        Records::new(fs, seed_of(self.id), after, options.frame_bytes_max, extents)
    }
}

/// Reads the log in `directory` and takes no lock. Nothing is changed: a torn tail is left out and
/// left where it is. While an owner lives the answer may miss what it is about to sync, or fail
/// where it releases segments: see [`is_locked`].
///
/// # Errors
/// [`Error::NoLog`], [`Error::Damaged`], [`Error::NewerFormat`], [`Error::Io`].
pub fn read(fs: Arc<dyn FileSystem>, directory: &Path) -> Result<Reading, Error> {
    let (id, survey) = survey_of(fs.as_ref(), directory)?;
    if let Ending::Damaged(damage) = survey.ending {
        return Err(Error::Damaged(Box::new(damage)));
    }
    Ok(Reading { fs, id, survey })
}

/// Who has the log in `directory` open, if somebody has.
///
/// # Errors
/// [`Error::Io`].
pub fn is_locked(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Holder>, Error> {
    holder_of(fs, directory)
}

/// The id of the log in `directory`.
///
/// # Errors
/// [`Error::NoLog`], [`Error::Damaged`], [`Error::Io`].
pub fn log_id(fs: &dyn FileSystem, directory: &Path) -> Result<WalId, Error> {
    match Listing::of_log(fs, directory)?.has_id {
        true => read_id(fs, directory),
        false => Err(Error::NoLog { directory: directory.to_owned() }),
    }
}

/// What [`inspect`] finds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The log's id.
    pub id: WalId,
    /// The segments of the valid prefix, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Numbers of segment files that are no part of the log: left by a repair, or behind its end.
    pub other_segments: Vec<u64>,
    /// The record that would come next.
    pub next_seq: u64,
    /// How it ends.
    pub tail: Tail,
}

/// One segment of the valid prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentReport {
    /// The file.
    pub file: PathBuf,
    /// The segment's number.
    pub number: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of it that are header and valid records.
    pub valid_bytes: u64,
    /// The first record's sequence number.
    pub first_seq: u64,
    /// How many records it holds.
    pub records: u64,
}

/// How the valid prefix of a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// With the last byte, or with room that was made for more.
    Clean,
    /// With something that was never synced; opening cuts it off.
    Torn(Damage),
    /// Before something that was durable; opening refuses that.
    Damaged(Damage),
}

/// Says what is in the log in `directory` and in what state. Takes no lock and changes nothing.
///
/// # Errors
/// [`Error::NoLog`], [`Error::Damaged`] if not even the log's id can be read, [`Error::NewerFormat`],
/// [`Error::Io`].
pub fn inspect(fs: &dyn FileSystem, directory: &Path) -> Result<Report, Error> {
    let (id, survey) = survey_of(fs, directory)?;
    let segments = survey.extents.iter().map(|extent| SegmentReport {
        file: extent.path.clone(),
        number: extent.number,
        bytes: extent.file_bytes,
        valid_bytes: extent.valid_bytes,
        first_seq: extent.first_seq,
        records: extent.last_seq + 1 - extent.first_seq,
    });
    Ok(Report {
        id,
        segments: segments.collect(),
        other_segments: survey.left_over.iter().chain(&survey.beyond).copied().collect(),
        next_seq: survey.next_seq,
        tail: match survey.ending {
            Ending::Clean => Tail::Clean,
            Ending::Torn(damage) => Tail::Torn(damage),
            Ending::Damaged(damage) => Tail::Damaged(damage),
        },
    })
}

fn survey_of(fs: &dyn FileSystem, directory: &Path) -> Result<(WalId, Survey), Error> {
    let no_log = || Error::NoLog { directory: directory.to_owned() };
    let listing = Listing::of_log(fs, directory)?;
    if !listing.has_id {
        // The first segment alone is a log that was being made when its owner died.
        return Err(match listing.segments.last() {
            None | Some(1) => no_log(),
            Some(_) => {
                let path = directory.join(ID_FILE);
                id_damage(path, "the file is missing, and there are segments")
            }
        });
    }
    let id = read_id(fs, directory)?;
    let survey = survey(fs, directory, id, &listing.segments)?;
    Ok((id, survey))
}
