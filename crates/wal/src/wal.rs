//! The owner of a log: appends, syncs, makes and releases segments.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidelog_core::{Env, WalId};
use tidelog_storage::{AppendFile, FileLock, FileSystem};

use crate::directory::{self, Unmade, make_segment, segment_path};
use crate::error::Error;
use crate::format::{FRAME_HEADER_BYTES, FrameHeader, Link, SegmentHeader, seed_of};
use crate::open;
use crate::options::{FRAME_BYTES_LIMIT, WalOptions};
use crate::payload::Payload;
use crate::records::Records;
use crate::survey::Extent;

/// Numbers that are skipped to leave room for more records than can ever be written.
const SEQ_LIMIT: u64 = u64::MAX / 2;
/// Room is made for groups of at most this part of it. Larger ones gain little, and all is written twice.
const GROUPS_OF_RESERVE: u64 = 8;

/// An open log. It holds the lock of its directory until it is dropped, which syncs nothing.
#[derive(Debug)]
pub struct Wal {
    fs: Arc<dyn FileSystem>,
    directory: PathBuf,
    options: WalOptions,
    id: WalId,
    _lock: Box<dyn FileLock>,
    /// Segments before the active one, oldest first.
    sealed: VecDeque<Extent>,
    active: Extent,
    file: Box<dyn AppendFile>,
    /// The hash of the last header.
    chain: u64,
    durable_seq: u64,
    /// A removal of a segment may not be durable; the next one must not overtake it.
    removal_unsynced: bool,
    /// Why the log takes nothing any more.
    failure: Option<String>,
    statistics: WalStatistics,
}

/// What an append has put into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The sequence number of the first payload.
    pub first_seq: u64,
    /// The sequence number of the last payload; one less than the first if there were none.
    pub last_seq: u64,
    /// Bytes written, with headers.
    pub bytes: u64,
}

/// What a log has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalStatistics {
    /// Calls of `append` that wrote.
    pub appends: u64,
    /// Records written.
    pub records: u64,
    /// Bytes written, with headers.
    pub bytes: u64,
    /// Syncs of records.
    pub syncs: u64,
    /// Segments begun.
    pub segments_made: u64,
    /// Segments removed by `release`.
    pub segments_released: u64,
}

/// What [`open`] hands over.
pub(crate) struct Opened {
    pub(crate) id: WalId,
    pub(crate) lock: Box<dyn FileLock>,
    pub(crate) extents: VecDeque<Extent>,
    pub(crate) active: Extent,
    pub(crate) file: Box<dyn AppendFile>,
    pub(crate) chain: u64,
}

impl Wal {
    /// Opens the log in `directory`, or makes one there. The directory is made if it is missing, its
    /// parent is not.
    ///
    /// Everything is read and checked once. A torn tail, which a crash leaves of what was never
    /// synced, is cut off. All records that are left are durable.
    ///
    /// # Errors
    /// [`Error::Locked`] if somebody has it open, [`Error::Damaged`] if something that was durable is
    /// not what was written, [`Error::NewerFormat`], [`Error::Io`].
    pub fn open(
        fs: Arc<dyn FileSystem>,
        directory: &Path,
        env: &Env,
        options: WalOptions,
    ) -> Result<Self, Error> {
        let opened = open::open(fs.as_ref(), directory, env)?;
        let Opened { id, lock, extents, active, file, chain } = opened;
        Ok(Self {
            fs,
            directory: directory.to_owned(),
            options,
            id,
            _lock: lock,
            sealed: extents,
            durable_seq: active.last_seq,
            active,
            file,
            chain,
            removal_unsynced: false,
            failure: None,
            statistics: WalStatistics::default(),
        })
    }

    /// The log's random id. It stays for as long as the sequence numbers go on.
    #[must_use]
    pub const fn id(&self) -> WalId {
        self.id
    }

    /// The sequence number that the next record gets; 1 in a new log.
    #[must_use]
    pub const fn next_seq(&self) -> u64 {
        self.active.last_seq + 1
    }

    /// The last record that is durable, 0 if there never was one.
    #[must_use]
    pub const fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The first record that has not been released; that which comes next if there is none.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        let mut extents = self.extents();
        extents.find(|extent| extent.has_records()).map_or(self.next_seq(), |e| e.first_seq)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.extents().map(|extent| extent.valid_bytes).sum()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.sealed.len() + 1
    }

    /// What was done since the log was opened.
    #[must_use]
    pub const fn statistics(&self) -> WalStatistics {
        self.statistics
    }

    /// Whether the log takes no more records until it is opened again.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The records after the number `after`, durable or not, as far as they are there now. Those that
    /// were released are left out; a segment that is released meanwhile is an error.
    #[must_use]
    pub fn records(&self, after: u64) -> Records {
        let extents = self.extents().cloned();
        let (fs, limit) = (Arc::clone(&self.fs), self.options.frame_bytes_max);
        Records::new(fs, seed_of(self.id), after, limit, extents)
    }

    /// Writes one record per payload, in one write. They are durable after the next [`Wal::sync`].
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::NotApplied`] if nothing of this is in the log now or later, and
    /// the log goes on; [`Error::OutcomeUnknown`] if that cannot be told, and [`Error::Failed`] if
    /// nothing was written, after which the log takes nothing any more.
    pub fn append(&mut self, payloads: &[Payload]) -> Result<Appended, Error> {
        self.refuse_failed()?;
        let bytes = self.measure(payloads)?;
        let first_seq = self.next_seq();
        if payloads.is_empty() {
            return Ok(Appended { first_seq, last_seq: first_seq - 1, bytes: 0 });
        }
        if self.active.has_records() && self.active.valid_bytes + bytes > self.options.segment_bytes
        {
            self.begin_segment(first_seq)?;
        }
        let (parts, chain) = self.frames(payloads);
        self.reserve(bytes);
        if let Err(error) = self.file.append(&parts) {
            return Err(self.take_back(first_seq + payloads.len() as u64 - 1, error));
        }
        self.chain = chain;
        self.active.last_seq += payloads.len() as u64;
        self.active.valid_bytes += bytes;
        self.active.file_bytes = self.active.file_bytes.max(self.active.valid_bytes);
        self.statistics.appends += 1;
        self.statistics.records += payloads.len() as u64;
        self.statistics.bytes += bytes;
        Ok(Appended { first_seq, last_seq: self.active.last_seq, bytes })
    }

    /// Makes all records durable. Does nothing if they are.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if that failed, now or earlier: the records since the last good sync
    /// are durable or not, and the log takes nothing any more. [`Error::Failed`] if it failed earlier
    /// and there are no such records.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.failure.is_some() {
            self.refuse_doubtful(self.active.last_seq)?;
            return self.refuse_failed();
        }
        if self.durable_seq == self.active.last_seq {
            return Ok(());
        }
        self.sync_file()
    }

    fn sync_file(&mut self) -> Result<(), Error> {
        if let Err(error) = self.file.sync_data() {
            self.fail("syncing", &error);
            self.refuse_doubtful(self.active.last_seq)?;
            return self.refuse_failed();
        }
        self.statistics.syncs += 1;
        self.durable_seq = self.active.last_seq;
        Ok(())
    }

    /// Syncs what is not durable and cuts off the room that was made for more, for who writes nothing more
    /// for a while.
    ///
    /// # Errors
    /// As [`Wal::sync`]; [`Error::NotApplied`] if the room could not be cut off, which harms nothing.
    pub fn trim(&mut self) -> Result<(), Error> {
        if self.failure.is_some() || self.active.file_bytes == self.active.valid_bytes {
            return self.sync();
        }
        if let Err(source) = self.file.truncate(self.active.valid_bytes) {
            let file = self.active.path.clone();
            return Err(Error::NotApplied { action: "cutting", file, source });
        }
        self.active.file_bytes = self.active.valid_bytes;
        self.sync_file()
    }

    /// Begins a new segment if the active one has records, so that all of them can be released. Syncs
    /// what is not durable.
    ///
    /// # Errors
    /// As [`Wal::append`] and [`Wal::sync`].
    pub fn rotate(&mut self) -> Result<(), Error> {
        self.refuse_failed()?;
        if self.active.has_records() { self.begin_segment(self.next_seq()) } else { Ok(()) }
    }

    /// Gives the next record the number `seq`, for who knows of higher numbers than the log: its last
    /// records may have been lost with the disk, and no number may be given twice. Durable.
    ///
    /// # Errors
    /// [`Error::BadSkip`] if the log is past that, else as [`Wal::append`] and [`Wal::sync`].
    pub fn skip_to(&mut self, seq: u64) -> Result<(), Error> {
        self.refuse_failed()?;
        let next = self.next_seq();
        if seq < next || seq > SEQ_LIMIT {
            return Err(Error::BadSkip { seq, next });
        }
        if seq == next { self.sync() } else { self.begin_segment(seq) }
    }

    /// Removes the oldest segments, as many as hold nothing but records up to `through`; never the
    /// active one. Returns the bytes freed. A crash may bring back the last one removed.
    ///
    /// # Errors
    /// [`Error::Io`]; what was removed before stays removed, and the log goes on.
    pub fn release(&mut self, through: u64) -> Result<u64, Error> {
        let mut freed = 0;
        self.settle_removal()?;
        while let Some(oldest) = self.sealed.front().filter(|oldest| oldest.last_seq <= through) {
            let path = oldest.path.clone();
            match self.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("removing", &path)(error));
                }
                _ => {}
            }
            freed += oldest.file_bytes;
            self.sealed.pop_front();
            self.statistics.segments_released += 1;
            // One after the other: a crash never leaves a gap.
            self.removal_unsynced = true;
            self.settle_removal()?;
        }
        Ok(freed)
    }

    fn settle_removal(&mut self) -> Result<(), Error> {
        if self.removal_unsynced {
            directory::sync_directory(self.fs.as_ref(), &self.directory)?;
            self.removal_unsynced = false;
        }
        Ok(())
    }

    fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.sealed.iter().chain([&self.active])
    }

    /// Bytes of the payloads with their headers.
    fn measure(&self, payloads: &[Payload]) -> Result<u64, Error> {
        let limit = self.options.frame_bytes_max.min(FRAME_BYTES_LIMIT);
        let mut bytes = 0;
        for payload in payloads {
            if payload.length() > limit {
                return Err(Error::TooLarge { bytes: payload.length(), limit });
            }
            bytes += FRAME_HEADER_BYTES as u64 + payload.length();
        }
        Ok(bytes)
    }

    /// Makes room for a group of so many bytes and for those that follow it.
    fn reserve(&mut self, bytes: u64) {
        let (extent, room) = (&mut self.active, self.options.reserve_bytes);
        let end = extent.valid_bytes + bytes;
        if bytes > room / GROUPS_OF_RESERVE || end <= extent.file_bytes {
            return;
        }
        let until = (extent.valid_bytes + room).min(self.options.segment_bytes).max(end);
        let reserved = self.file.reserve(extent.file_bytes, until - extent.file_bytes);
        if let Err(error) = reserved {
            // The records decide whether there is room for them.
            tracing::debug!(%error, file = %extent.path.display(), "no room was made in a segment");
        }
        extent.file_bytes = until;
    }

    /// The frames, all headers in one allocation, and the hash of the last header.
    fn frames(&self, payloads: &[Payload]) -> (Vec<Bytes>, u64) {
        let (seed, mut chain, mut seq) = (seed_of(self.id), self.chain, self.next_seq());
        let mut headers = BytesMut::with_capacity(payloads.len() * FRAME_HEADER_BYTES);
        for payload in payloads {
            let mut header = FrameHeader {
                length: u32::try_from(payload.length()).unwrap_or(u32::MAX),
                segment: self.active.number,
                seq,
                durable_seq: self.durable_seq,
                payload_hash: payload.hash(),
                chain,
                hash: 0,
            };
            headers.extend_from_slice(&header.encode(seed));
            chain = header.hash;
            seq += 1;
        }
        let headers = headers.freeze();
        let mut parts = Vec::with_capacity(payloads.len() * 2);
        for (index, payload) in payloads.iter().enumerate() {
            let at = index * FRAME_HEADER_BYTES;
            parts.push(headers.slice(at..at + FRAME_HEADER_BYTES));
            parts.extend(payload.parts().iter().filter(|part| !part.is_empty()).cloned());
        }
        (parts, chain)
    }

    /// After a failed write of records up to `last`: cuts off what was written of it.
    fn take_back(&mut self, last: u64, error: io::Error) -> Error {
        let file = self.active.path.clone();
        // Without the sync a crash could bring back what the caller was told is not there.
        let cut = self.file.truncate(self.active.valid_bytes).and_then(|()| self.file.sync_data());
        match cut {
            Ok(()) => {
                self.durable_seq = self.active.last_seq;
                self.active.file_bytes = self.active.valid_bytes;
                Error::NotApplied { action: "writing", file, source: error }
            }
            Err(cut) => {
                self.fail("cutting off what could not be written", &cut);
                match self.refuse_doubtful(last) {
                    Err(doubtful) => doubtful,
                    Ok(()) => Error::NotApplied { action: "writing", file, source: error },
                }
            }
        }
    }

    /// Syncs the active segment, seals it and goes on in a new one.
    fn begin_segment(&mut self, first_seq: u64) -> Result<(), Error> {
        match self.trim() {
            Err(error @ Error::NotApplied { .. }) => return Err(error),
            Err(_) => return self.refuse_failed(),
            Ok(()) => {}
        }
        let number = self.active.number + 1;
        let path = segment_path(&self.directory, number);
        let previous =
            Link { segment: self.active.number, seq: self.active.last_seq, hash: self.chain };
        let header = SegmentHeader { id: self.id, number, first_seq, previous };
        let made = make_segment(self.fs.as_ref(), &self.directory, &header);
        let (file, chain) = made.map_err(|unmade| self.unmade(&path, unmade))?;
        let active = open::empty_extent(path, &header, chain);
        self.sealed.push_back(std::mem::replace(&mut self.active, active));
        self.file = file;
        self.chain = chain;
        self.durable_seq = first_seq - 1;
        // The directory was synced with the new name.
        self.removal_unsynced = false;
        self.statistics.segments_made += 1;
        Ok(())
    }

    fn unmade(&mut self, path: &Path, unmade: Unmade) -> Error {
        let failed = match unmade {
            Unmade::Unsynced(error) => {
                self.fail("syncing a new segment", &error);
                return Error::Failed { reason: error.to_string() };
            }
            Unmade::Unwritten(error) => error,
        };
        // Durably gone, or a crash could bring it back behind records that are yet to come.
        let removed = match self.fs.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.fs.sync_dir(&self.directory)),
        };
        if let Err(error) = removed {
            self.fail("removing a segment that could not be written", &error);
        }
        Error::NotApplied { action: "making", file: path.to_owned(), source: failed }
    }

    fn fail(&mut self, action: &str, error: &io::Error) {
        let reason = format!("{action} {} failed: {error}", self.active.path.display());
        tracing::error!(%reason, "the write-ahead log takes no records any more");
        self.failure.get_or_insert(reason);
    }

    fn refuse_failed(&self) -> Result<(), Error> {
        match &self.failure {
            Some(reason) => Err(Error::Failed { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// An error if the log has failed with records up to `last` that may be durable or not.
    fn refuse_doubtful(&self, last: u64) -> Result<(), Error> {
        match &self.failure {
            Some(reason) if last > self.durable_seq => Err(Error::OutcomeUnknown {
                first: self.durable_seq + 1,
                last,
                reason: reason.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// Whoever opens the log must be able to hand it to a thread of its own.
const fn assert_send<T: Send>() {}
const _: () = assert_send::<Wal>();
const _: () = assert_send::<Records>();
