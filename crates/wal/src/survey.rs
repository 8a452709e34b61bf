//! Finding the longest valid prefix of a log, and judging what lies behind it.
//!
//! The prefix goes from frame to frame by number and hash, and from a segment to the one that names
//! it, its last record and that record's hash as what it follows. Where it ends, one question is
//! left: was anything behind that place durable once? Then it was acknowledged perhaps, and its loss
//! is damage. Otherwise the end lies in what was never synced, which is a normal torn tail.
//!
//! These say that something was durable, because a segment is synced before the next one is made
//! and a segment's header before its first frame is written:
//!
//! 1. a frame behind whose header says that a record was durable which the prefix lacks;
//! 2. a later segment with a whole header;
//! 3. two later segment files, or one behind a segment that does not end with a whole frame;
//! 4. a later segment without a whole header in which there is a frame;
//! 5. the first segment, if its header is not whole: a log gets its id after that is durable.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use tidelog_core::WalId;
use tidelog_storage::FileSystem;

use crate::directory::segment_path;
use crate::error::{Damage, Error};
use crate::format::{Flaw, Link, SEGMENT_HEADER_BYTES, SegmentHeader, seed_of};
use crate::frames::{Behind, Frames, Next, Place, frames_behind};
use crate::window::Window;

/// A segment of the valid prefix.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) first_seq: u64,
    /// One less than the first if it has no records.
    pub(crate) last_seq: u64,
    /// Bytes of header and valid frames.
    pub(crate) valid_bytes: u64,
    /// Bytes of the file.
    pub(crate) file_bytes: u64,
    /// The hash of its header.
    pub(crate) chain: u64,
}

impl Extent {
    pub(crate) fn has_records(&self) -> bool {
        self.last_seq >= self.first_seq
    }

    pub(crate) fn frames(&self, fs: &dyn FileSystem, seed: u64) -> Result<Frames, Error> {
        let window = Window::open(fs, &self.path)?;
        Ok(Frames::new(window, seed, self.number, self.first_seq, self.chain)
            .until(self.valid_bytes))
    }
}

/// How the valid prefix ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the last byte, or with room that was made for more.
    Clean,
    /// With something that was never synced.
    Torn(Damage),
    /// Before something that was.
    Damaged(Damage),
}

/// What a log holds.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The valid prefix, oldest first. Empty if not even the first header is whole.
    pub(crate) extents: Vec<Extent>,
    /// The hash of the last header.
    pub(crate) chain: u64,
    /// The record that would come next.
    pub(crate) next_seq: u64,
    /// Where the frames begin in the last segment that nothing in it says were durable, in bytes.
    pub(crate) unproven_offset: u64,
    /// Numbers of segments that a repair took out of the log and left in place.
    pub(crate) left_over: Vec<u64>,
    /// Numbers of the segments after the prefix.
    pub(crate) beyond: Vec<u64>,
    pub(crate) ending: Ending,
}

impl Survey {
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq.saturating_sub(1)
    }

    pub(crate) fn first_seq(&self) -> u64 {
        let mut extents = self.extents.iter();
        extents.find(|extent| extent.has_records()).map_or(self.next_seq, |e| e.first_seq)
    }
}

/// A segment file, by its header.
#[derive(Debug)]
struct Candidate {
    number: u64,
    path: PathBuf,
    head: Head,
}

/// One with a whole header.
struct Whole {
    path: PathBuf,
    header: SegmentHeader,
    hash: u64,
}

#[derive(Debug)]
enum Head {
    Whole(SegmentHeader, u64),
    /// Whole, of another place or log.
    Stranger(String),
    Broken(String),
}

/// Reads all of a log.
pub(crate) fn survey(
    fs: &dyn FileSystem,
    directory: &Path,
    id: WalId,
    segments: &[u64],
) -> Result<Survey, Error> {
    let candidates: Result<VecDeque<Candidate>, Error> =
        segments.iter().map(|number| candidate(fs, directory, id, *number)).collect();
    Surveyor::new(fs, directory, id).run(candidates?)
}

/// The header of a segment, if it is whole, with its hash.
pub(crate) fn header_of(
    fs: &dyn FileSystem,
    directory: &Path,
    number: u64,
) -> Result<Option<(SegmentHeader, u64)>, Error> {
    let path = segment_path(directory, number);
    let window = Window::open(fs, &path)?;
    match decode(&window)? {
        Ok(header) => Ok(Some(header)),
        Err(Flaw::Invalid(_)) => Ok(None),
        Err(Flaw::Newer(version)) => Err(Error::NewerFormat { file: path, version }),
    }
}

fn decode(window: &Window) -> Result<Result<(SegmentHeader, u64), Flaw>, Error> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    if !window.read_exact(0, &mut bytes)? {
        return Ok(Err(Flaw::Invalid("the file ends within the segment header".to_owned())));
    }
    Ok(SegmentHeader::decode(&bytes))
}

fn candidate(
    fs: &dyn FileSystem,
    directory: &Path,
    id: WalId,
    number: u64,
) -> Result<Candidate, Error> {
    let path = segment_path(directory, number);
    let window = Window::open(fs, &path)?;
    let head = match decode(&window)? {
        Ok((header, _)) if header.id != id => {
            Head::Stranger(format!("a segment of the log {} in the log {id}", header.id))
        }
        Ok((header, _)) if header.number != number => {
            Head::Stranger(format!("segment {} under the name of segment {number}", header.number))
        }
        Ok((header, hash)) => Head::Whole(header, hash),
        Err(Flaw::Invalid(found)) => Head::Broken(found),
        Err(Flaw::Newer(version)) => return Err(Error::NewerFormat { file: path, version }),
    };
    Ok(Candidate { number, path, head })
}

impl Candidate {
    fn follows(&self, link: &Link) -> bool {
        matches!(&self.head, Head::Whole(header, _) if header.previous == *link)
    }

    fn begins(&self) -> bool {
        self.follows(&Link::default())
    }
}

/// The walk along the prefix.
#[derive(Debug)]
struct Surveyor<'a> {
    fs: &'a dyn FileSystem,
    directory: PathBuf,
    seed: u64,
    extents: Vec<Extent>,
    chain: u64,
    next_seq: u64,
    proven_seq: u64,
    /// Records that nothing proves durable yet: number and offset.
    unproven: VecDeque<(u64, u64)>,
    left_over: Vec<u64>,
}

/// Where frames ended within the last segment of the prefix.
struct Stop {
    frames: Frames,
    /// What is there instead of a frame; none if the file ends.
    found: Option<String>,
}

impl<'a> Surveyor<'a> {
    fn new(fs: &'a dyn FileSystem, directory: &Path, id: WalId) -> Self {
        Self {
            fs,
            directory: directory.to_owned(),
            seed: seed_of(id),
            extents: Vec::new(),
            chain: 0,
            next_seq: 0,
            proven_seq: 0,
            unproven: VecDeque::new(),
            left_over: Vec::new(),
        }
    }

    fn run(mut self, mut later: VecDeque<Candidate>) -> Result<Survey, Error> {
        // A repair of the very beginning makes a segment that follows nothing.
        let start = later.iter().rposition(Candidate::begins).unwrap_or(0);
        self.skip(&mut later, start);
        let mut stop = None;
        while let Some(next) = self.pop_successor(&mut later, stop.as_ref()) {
            stop = Some(self.walk(next)?);
        }
        self.finish(stop, later)
    }

    /// Leaves out what a repair has taken out of the log.
    fn skip(&mut self, later: &mut VecDeque<Candidate>, count: usize) {
        self.left_over.extend(later.drain(..count).map(|candidate| candidate.number));
    }

    fn pop_successor(
        &mut self,
        later: &mut VecDeque<Candidate>,
        stop: Option<&Stop>,
    ) -> Option<Whole> {
        let position = match stop {
            None => later.front().is_some_and(|c| matches!(c.head, Head::Whole(..))).then_some(0),
            Some(_) => {
                let segment = self.extents.last().map_or(0, |extent| extent.number);
                let link = Link { segment, seq: self.next_seq - 1, hash: self.chain };
                later.iter().rposition(|candidate| candidate.follows(&link))
            }
        }?;
        self.skip(later, position);
        let Candidate { path, head, .. } = later.pop_front()?;
        match head {
            Head::Whole(header, hash) => Some(Whole { path, header, hash }),
            _ => None,
        }
    }

    fn walk(&mut self, segment: Whole) -> Result<Stop, Error> {
        let Whole { path, header, hash } = segment;
        self.proven_seq = self.proven_seq.max(header.previous.seq);
        self.unproven.clear();
        let window = Window::open(self.fs, &path)?;
        let file_bytes = window.length();
        let mut frames = Frames::new(window, self.seed, header.number, header.first_seq, hash);
        let found = self.walk_frames(&mut frames)?;
        self.next_seq = frames.next_seq();
        self.chain = frames.chain();
        self.extents.push(Extent {
            number: header.number,
            path,
            first_seq: header.first_seq,
            last_seq: frames.next_seq() - 1,
            valid_bytes: frames.offset(),
            file_bytes,
            chain: hash,
        });
        Ok(Stop { frames, found })
    }

    fn walk_frames(&mut self, frames: &mut Frames) -> Result<Option<String>, Error> {
        loop {
            let header = match frames.peek()? {
                Next::Frame(header) => header,
                Next::End => return Ok(None),
                Next::Invalid(found) => return Ok(Some(found)),
            };
            if !frames.is_whole(&header)? {
                return Ok(Some(format!("the payload of record {} has another hash", header.seq)));
            }
            self.unproven.push_back((header.seq, frames.offset()));
            self.proven_seq = self.proven_seq.max(header.durable_seq);
            while self.unproven.front().is_some_and(|(seq, _)| *seq <= self.proven_seq) {
                self.unproven.pop_front();
            }
            frames.advance(&header);
        }
    }

    fn finish(self, stop: Option<Stop>, later: VecDeque<Candidate>) -> Result<Survey, Error> {
        let ending = self.judge(stop, &later)?;
        let last = self.extents.last();
        // A header that no frame follows may itself not be durable.
        let unproven_offset = match (self.unproven.front(), last) {
            (Some((_, offset)), _) => *offset,
            (None, Some(last)) if last.has_records() => last.valid_bytes,
            _ => 0,
        };
        Ok(Survey {
            unproven_offset,
            ending,
            beyond: later.iter().map(|candidate| candidate.number).collect(),
            extents: self.extents,
            chain: self.chain,
            next_seq: self.next_seq,
            left_over: self.left_over,
        })
    }

    fn judge(&self, stop: Option<Stop>, later: &VecDeque<Candidate>) -> Result<Ending, Error> {
        let Some(mut stop) = stop else { return self.judge_beginning(later) };
        // A segment's room is cut off before the next one is made.
        if later.is_empty() && (stop.found.is_none() || stop.frames.only_zeros_follow()?) {
            return Ok(Ending::Clean);
        }
        let mut behind = Behind::default();
        if stop.found.is_some() {
            behind = stop.frames.behind()?;
        }
        let headers = self.add_later(&mut behind, later)?;
        let damage = self.damage_at(&stop, later, &behind);
        let durable = behind.durable_seq >= self.next_seq
            || headers
            || later.len() >= 2
            || (!later.is_empty() && stop.found.is_some());
        Ok(if durable { Ending::Damaged(damage) } else { Ending::Torn(damage) })
    }

    /// Not even the first header is whole.
    fn judge_beginning(&self, later: &VecDeque<Candidate>) -> Result<Ending, Error> {
        let mut behind = Behind::default();
        self.add_later(&mut behind, later)?;
        let (file, found) = match later.front() {
            Some(first) => (first.path.clone(), first.head.fault()),
            None => (self.directory.clone(), "the log has an id and no segment".to_owned()),
        };
        Ok(Ending::Damaged(damage(file, 0, found, 0, &behind)))
    }

    /// Counts what later segments hold; true if the header of one of them was durable.
    fn add_later(&self, behind: &mut Behind, later: &VecDeque<Candidate>) -> Result<bool, Error> {
        let mut durable = false;
        for candidate in later {
            if let Head::Whole(header, _) = &candidate.head {
                behind.last_seq = behind.last_seq.max(header.first_seq.saturating_sub(1));
            }
            let mut window = Window::open(self.fs, &candidate.path)?;
            let place = Place { seed: self.seed, min_seq: self.next_seq };
            let found = frames_behind(&mut window, 0, place)?;
            durable |= found.last_seq > 0 || !matches!(candidate.head, Head::Broken(_));
            behind.add(&found);
        }
        Ok(durable)
    }

    fn damage_at(&self, stop: &Stop, later: &VecDeque<Candidate>, behind: &Behind) -> Damage {
        let next = self.next_seq;
        let here = |found: String| {
            let file = stop.frames.window().path().to_owned();
            damage(file, stop.frames.offset(), found, next, behind)
        };
        if let Some(found) = &stop.found {
            return here(found.clone());
        }
        let number = self.extents.last().map_or(0, |extent| extent.number);
        match later.front() {
            Some(Candidate { head: Head::Whole(header, _), path, .. }) => {
                if header.previous.segment == number {
                    return here(format!(
                        "the file ends after record {} and {} follows record {}",
                        next - 1,
                        path.display(),
                        header.previous.seq
                    ));
                }
                let missing = segment_path(&self.directory, header.previous.segment);
                damage(missing, 0, "the file is missing".to_owned(), next, behind)
            }
            Some(later) => damage(later.path.clone(), 0, later.head.fault(), next, behind),
            None => here("the file ends".to_owned()),
        }
    }
}

impl Head {
    fn fault(&self) -> String {
        match self {
            Self::Whole(..) => "a segment that does not belong here".to_owned(),
            Self::Stranger(found) | Self::Broken(found) => found.clone(),
        }
    }
}

fn damage(file: PathBuf, offset: u64, found: String, seq: u64, behind: &Behind) -> Damage {
    let seq_behind = behind.last_seq.max(behind.durable_seq);
    Damage {
        file,
        offset,
        found,
        seq,
        records_behind: behind.records,
        bytes_behind: behind.bytes,
        seq_behind,
    }
}
