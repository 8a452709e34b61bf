//! Which files of a series are merged, and why. No I/O: a function of the files' ranges and sizes.
//!
//! ```text
//! time ──────────────────────────────────────────────────────────▶
//! base    [ large ][ large ]    [ large ][ large ]                  good files, apart from one another
//! pieces     [ late ]  [---- wider, later ----]   [s][s][s][s]      everything else
//! slots   gap  base   base  gap   base   base          gap
//! ```
//!
//! *Base* files are large and do not overlap one another; all others are *pieces*. Three rules:
//!
//! 1. **sequence**: pieces of like size that follow one another in one slot become one, as soon as
//!    there are `FAN_IN` of them or they make a large file in a gap;
//! 2. **depth**: `DEPTH_MAX` pieces of like size that lie over one instant become pieces apart, which
//!    are cut where base files begin, as far as they do not get too small: so late rows come to lie over
//!    few base files each;
//! 3. **absorption**: base files are merged with the pieces over them once these have as many bytes.
//!
//! So a byte is written once per tier of sizes until it lies over few base files, and then rewritten
//! together with as many bytes of base: late data is merged when it pays, and what is good stays as it
//! is. Asked to, all that overlaps is merged at once, and all small neighbours.
//!
//! Files that share no more than an instant count as apart, unless rows are deduplicated and all is to be
//! merged: then a reader has to know them apart.
//!
//! Every job leaves fewer files or less overlap behind, so planning comes to an end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use tidelog_core::{EventTime, TimeRange};

/// How many pieces of like size that follow one another are merged into one. The sizes of two tiers
/// differ by as much.
pub(crate) const FAN_IN: usize = 8;
/// How many pieces of like size may lie over one instant: the fewer, the faster are reads, and the more
/// is written.
const DEPTH_MAX: usize = 10;
/// The same while others are being merged: fewer and larger merges of what has come meanwhile leave fewer files
/// behind.
const DEPTH_MAX_BESIDE: usize = 16;
/// Pieces are cut to lie over fewer base files, but not smaller than this part of the target.
const PIECE_PART: u64 = 32;
/// A merge reads at most so many files at one instant of event time, ...
const OPEN_FILES_MAX: usize = 64;
/// ... and at most so many in all.
const INPUTS_MAX: usize = 4096;

/// What a plan needs to know of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// The event times of its rows.
    pub(crate) range: TimeRange,
    /// Its size.
    pub(crate) bytes: u64,
    /// Bytes of its largest part that is read at once, about: those of a row group.
    pub(crate) group_bytes: u64,
    /// Whether it is being merged already: it lies where it lies, and is no input.
    pub(crate) is_busy: bool,
}

/// When files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eagerness {
    /// When it pays, so that what is written stays in proportion to what is kept.
    WhenDue,
    /// As soon as fewer files or less overlap come of it.
    Fully,
    /// When it pays, and only what keeps few files over one instant, while others are being merged.
    Depth,
}

/// What files shall become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// The size of a good file.
    pub(crate) target_bytes: u64,
    /// Bytes that may be read at once.
    pub(crate) open_bytes_max: u64,
    pub(crate) eagerness: Eagerness,
    /// Whether rows are deduplicated.
    pub(crate) dedup: bool,
}

/// Files to be merged into one sequence of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The places of the files in what was planned, ascending.
    pub(crate) inputs: Vec<usize>,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// How many files they shall become, all of one size, ...
    pub(crate) files: u64,
    /// ... and more where one is cut at one of these times, ascending, ...
    pub(crate) cuts: Vec<EventTime>,
    /// ... because it has so many bytes by then.
    pub(crate) cut_bytes_min: u64,
    pub(crate) reason: Reason,
}

/// Why files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Small files follow one another.
    Small {
        /// How many.
        files: usize,
    },
    /// Files lie over one another.
    Overlapping {
        /// How many.
        files: usize,
    },
    /// Late rows lie over large files, and have become enough to be merged with them.
    Late {
        /// Bytes of the files with late rows.
        late_bytes: u64,
        /// Bytes of the large files below them.
        base_bytes: u64,
    },
    /// A file is laid out otherwise than the series is now.
    Layout,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small { files } => write!(f, "{files} small files follow one another"),
            Self::Overlapping { files } => write!(f, "{files} files overlap"),
            Self::Late { late_bytes, base_bytes } => write!(
                f,
                "{late_bytes} bytes of late rows lie over {base_bytes} bytes of large files"
            ),
            Self::Layout => f.write_str("it is laid out otherwise than the series is now"),
        }
    }
}

/// How many files lie over one instant, where most do.
pub(crate) fn depth(ranges: impl Iterator<Item = TimeRange>) -> usize {
    let mut ranges: Vec<TimeRange> = ranges.collect();
    ranges.sort_unstable_by_key(|range| (range.start(), range.end()));
    deepest(ranges.into_iter()).0
}

/// How many of ranges, which are in order of their starts, lie over one instant at most, and over which.
fn deepest(ranges: impl Iterator<Item = TimeRange>) -> (usize, EventTime) {
    let mut open: BinaryHeap<Reverse<EventTime>> = BinaryHeap::new();
    let mut deepest = (0, EventTime::MIN);
    for range in ranges {
        while open.peek().is_some_and(|Reverse(end)| *end <= range.start()) {
            open.pop();
        }
        open.push(Reverse(range.end()));
        if open.len() > deepest.0 {
            deepest = (open.len(), range.start());
        }
    }
    deepest
}

/// Jobs that share no file, the most urgent first.
pub(crate) fn plan(files: &[FileFacts], goal: &Goal) -> Vec<Job> {
    let mut left: Vec<usize> = (0..files.len()).collect();
    let mut jobs = Vec::new();
    loop {
        let facts: Vec<FileFacts> = left.iter().map(|file| files[*file]).collect();
        let Some(mut job) = next_job(&facts, goal) else { return jobs };
        for input in &mut job.inputs {
            *input = left[*input];
        }
        job.inputs.sort_unstable();
        left.retain(|file| job.inputs.binary_search(file).is_err());
        jobs.push(job);
    }
}

/// A job that writes one file anew.
pub(crate) fn alone(input: usize, bytes: u64, goal: &Goal) -> Job {
    Job {
        inputs: vec![input],
        bytes,
        files: bytes.div_ceil(goal.target_bytes.max(1)).max(1),
        cuts: Vec::new(),
        cut_bytes_min: 0,
        reason: Reason::Layout,
    }
}

/// The most urgent job; `None` if all is good.
pub(crate) fn next_job(files: &[FileFacts], goal: &Goal) -> Option<Job> {
    if files.len() < 2 {
        return None;
    }
    let slots = Slots::of(files, goal.target_bytes);
    let planner = Planner { files, goal, slots };
    match goal.eagerness {
        // What cures depth is the most urgent, and small: while base files are written anew, many come.
        Eagerness::WhenDue => planner
            .deep(DEPTH_MAX)
            .or_else(|| planner.absorption())
            .or_else(|| planner.full_gap())
            .or_else(|| planner.sequence()),
        Eagerness::Fully => planner.cluster().or_else(|| planner.small_neighbours()),
        Eagerness::Depth => planner.deep(DEPTH_MAX_BESIDE),
    }
}

/// Whether a file is too large to gain from being merged with its neighbours.
pub(crate) fn is_large(bytes: u64, target: u64) -> bool {
    bytes.saturating_mul(5) >= target.saturating_mul(2)
}

/// The tier of a piece: 0 for the largest.
fn tier(bytes: u64, target: u64) -> u32 {
    let fan_in = FAN_IN as u64;
    let (mut grown, mut tier) = (bytes.max(1), 0);
    while grown.saturating_mul(fan_in) < target {
        grown *= fan_in;
        tier += 1;
    }
    tier
}

/// Base files and what lies between and over them.
struct Slots {
    /// Base files in order of event time.
    base: Vec<usize>,
    /// Starts and ends of the base files.
    bounds: Vec<(EventTime, EventTime)>,
    /// All other files, in order of their starts, with the first and last slot that they touch: base file
    /// `n` is slot `2n + 1`, the gap before it is `2n`.
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    file: usize,
    first: usize,
    last: usize,
}

impl Slots {
    fn of(files: &[FileFacts], target: u64) -> Self {
        let mut by_size: Vec<usize> =
            (0..files.len()).filter(|file| is_large(files[*file].bytes, target)).collect();
        by_size.sort_by_key(|file| (Reverse(files[*file].bytes), files[*file].range.start()));
        let mut bounds: Vec<(EventTime, EventTime, usize)> = Vec::new();
        for file in by_size {
            let range = files[file].range;
            let at = bounds.partition_point(|(_, end, _)| *end <= range.start());
            if bounds.get(at).is_none_or(|(start, ..)| range.end() <= *start) {
                bounds.insert(at, (range.start(), range.end(), file));
            }
        }
        let base: Vec<usize> = bounds.iter().map(|(.., file)| *file).collect();
        let bounds: Vec<_> = bounds.into_iter().map(|(start, end, _)| (start, end)).collect();
        let mut is_base = vec![false; files.len()];
        for file in &base {
            is_base[*file] = true;
        }
        let mut slots = Self { base, bounds, pieces: Vec::new() };
        let mut pieces: Vec<Piece> = (0..files.len())
            .filter(|file| !is_base[*file] && !files[*file].is_busy)
            .map(|file| Piece {
                file,
                first: slots.slot_of_start(files[file].range),
                last: slots.slot_of_end(files[file].range),
            })
            .collect();
        pieces
            .sort_by_key(|piece| (files[piece.file].range.start(), files[piece.file].range.end()));
        slots.pieces = pieces;
        slots
    }

    fn slot_of_start(&self, range: TimeRange) -> usize {
        let time = range.start();
        let begun = self.bounds.partition_point(|(start, _)| *start <= time);
        match begun.checked_sub(1).map(|last| self.bounds[last].1) {
            Some(end) if time < end => 2 * begun - 1,
            _ => 2 * begun,
        }
    }

    /// Not before that of the start.
    fn slot_of_end(&self, range: TimeRange) -> usize {
        let time = range.end();
        let begun = self.bounds.partition_point(|(start, _)| *start < time);
        let slot = match begun.checked_sub(1).map(|last| self.bounds[last].1) {
            Some(end) if time <= end => 2 * begun - 1,
            _ => 2 * begun,
        };
        slot.max(self.slot_of_start(range))
    }

    /// The places in `base` of the base files among these slots.
    fn base_in(&self, first: usize, last: usize) -> std::ops::Range<usize> {
        first / 2..last.div_ceil(2)
    }
}

struct Planner<'a> {
    files: &'a [FileFacts],
    goal: &'a Goal,
    slots: Slots,
}

impl Planner<'_> {
    fn bytes(&self, files: impl IntoIterator<Item = usize>) -> u64 {
        files.into_iter().map(|file| self.files[file].bytes).sum()
    }

    /// Base files with at least as many bytes of pieces over them.
    fn absorption(&self) -> Option<Job> {
        let touches_base = |piece: &&Piece| piece.first != piece.last || piece.first % 2 == 1;
        let mut windows: Vec<(usize, usize)> =
            self.slots.pieces.iter().filter(touches_base).map(|p| (p.first, p.last)).collect();
        windows.sort_unstable();
        windows.dedup();
        let candidates = windows.into_iter().filter_map(|(first, last)| {
            let base = self.bytes(self.slots.base[self.slots.base_in(first, last)].iter().copied());
            let within = |piece: &&Piece| first <= piece.first && piece.last <= last;
            let late = self.slots.pieces.iter().filter(within).map(|piece| piece.file);
            let late = self.bytes(late);
            (late >= base).then_some((first, last, late, base))
        });
        // That with the most late bytes per byte of base, and of those the smallest.
        let (first, last, late_bytes, base_bytes) = candidates.min_by(|a, b| {
            let (left, right) =
                (u128::from(a.2) * u128::from(b.3), u128::from(b.2) * u128::from(a.3));
            right.cmp(&left).then(a.3.cmp(&b.3))
        })?;
        let within = |piece: &&Piece| first <= piece.first && piece.last <= last;
        let late = self.slots.pieces.iter().filter(within).map(|piece| piece.file);
        let base = self.slots.base[self.slots.base_in(first, last)].iter().copied();
        self.job(base.chain(late).collect(), false, Reason::Late { late_bytes, base_bytes })
    }

    /// The pieces inside a gap, if together they are a good file.
    fn full_gap(&self) -> Option<Job> {
        self.single_slots().find_map(|pieces| {
            let is_gap = pieces.first().is_some_and(|piece| piece.first % 2 == 0);
            let files: Vec<usize> = pieces.iter().map(|piece| piece.file).collect();
            let is_full = self.bytes(files.iter().copied()) >= self.goal.target_bytes;
            let count = files.len();
            (is_gap && is_full).then(|| self.job(files, true, Reason::Small { files: count }))?
        })
    }

    /// Many pieces of like size over one instant, and the smaller ones over it; the smallest first.
    fn deep(&self, depth_max: usize) -> Option<Job> {
        for tier in self.tiers(&self.slots.pieces) {
            let alike = self.slots.pieces.iter().filter(|piece| self.tier_of(piece) == tier);
            let (depth, instant) = deepest(alike.map(|piece| self.files[piece.file].range));
            if depth < depth_max {
                continue;
            }
            let is_over = |piece: &&Piece| {
                let range = self.files[piece.file].range;
                self.tier_of(piece) >= tier && range.start() <= instant && instant <= range.end()
            };
            let over = self.slots.pieces.iter().filter(is_over).map(|piece| piece.file);
            let over: Vec<usize> = over.collect();
            let reason = Reason::Overlapping { files: over.len() };
            return self.job(over, true, reason);
        }
        None
    }

    /// Many pieces of like size that follow one another in one slot, and the smaller ones between them;
    /// the smallest first.
    fn sequence(&self) -> Option<Job> {
        let slots: Vec<Vec<Piece>> = self.single_slots().collect();
        for tier in self.tiers(&self.slots.pieces) {
            let is_small = |piece: &Piece| self.tier_of(piece) >= tier;
            let runs = slots.iter().flat_map(|pieces| {
                pieces.chunk_by(|a, b| is_small(a) == is_small(b)).filter(|run| is_small(&run[0]))
            });
            let alike = |run: &[Piece]| run.iter().filter(|p| self.tier_of(p) == tier).count();
            let Some(run) = runs.max_by_key(|run| alike(run)) else { continue };
            if alike(run) >= FAN_IN {
                let files: Vec<usize> = run.iter().map(|piece| piece.file).collect();
                let reason = Reason::Small { files: files.len() };
                return self.job(files, true, reason);
            }
        }
        None
    }

    /// The tiers of pieces, that of the smallest first.
    fn tiers(&self, pieces: &[Piece]) -> Vec<u32> {
        let mut tiers: Vec<u32> = pieces.iter().map(|piece| self.tier_of(piece)).collect();
        tiers.sort_unstable_by_key(|tier| Reverse(*tier));
        tiers.dedup();
        tiers
    }

    fn tier_of(&self, piece: &Piece) -> u32 {
        tier(self.files[piece.file].bytes, self.goal.target_bytes)
    }

    /// The pieces that touch no more than one slot, slot by slot, in order of their starts.
    fn single_slots(&self) -> impl Iterator<Item = Vec<Piece>> {
        let single = self.slots.pieces.iter().filter(|piece| piece.first == piece.last).copied();
        let mut single: Vec<Piece> = single.collect();
        // Stable: inside a slot they stay in order of their starts.
        single.sort_by_key(|piece| piece.first);
        let slots: Vec<Vec<Piece>> =
            single.chunk_by(|a, b| a.first == b.first).map(<[Piece]>::to_vec).collect();
        slots.into_iter()
    }

    /// Files that overlap, directly or through others.
    fn cluster(&self) -> Option<Job> {
        let mut files: Vec<usize> = (0..self.files.len()).collect();
        files.sort_by_key(|file| (self.files[*file].range.start(), self.files[*file].range.end()));
        let mut cluster: Vec<usize> = Vec::new();
        let mut end = EventTime::MIN;
        for file in files {
            let range = self.files[file].range;
            let is_apart = range.start() > end || range.start() == end && !self.goal.dedup;
            if !cluster.is_empty() && is_apart {
                if cluster.len() > 1 {
                    break;
                }
                cluster.clear();
            }
            end = if cluster.is_empty() { range.end() } else { end.max(range.end()) };
            cluster.push(file);
        }
        if cluster.len() < 2 {
            return None;
        }
        let count = cluster.len();
        let reason = Reason::Overlapping { files: count };
        if self.openable(&cluster).len() == count {
            return self.job(cluster, false, reason);
        }
        // Too many for one go: at first the pieces among themselves.
        let is_base = |file: &usize| self.slots.base.contains(file);
        let pieces: Vec<usize> = cluster.iter().filter(|file| !is_base(file)).copied().collect();
        let pieces = if pieces.len() > 1 { pieces } else { cluster };
        let reason = Reason::Overlapping { files: pieces.len() };
        self.job(pieces, true, reason)
    }

    /// Small files with nothing between them.
    fn small_neighbours(&self) -> Option<Job> {
        let target = self.goal.target_bytes;
        self.single_slots().find_map(|pieces| {
            let files: Vec<usize> = pieces.iter().map(|piece| piece.file).collect();
            let bytes = self.bytes(files.iter().copied());
            let count = files.len();
            let fewer = bytes.div_ceil(target.max(1)) < count as u64;
            (count > 1 && fewer).then(|| self.job(files, false, Reason::Small { files: count }))?
        })
    }

    /// Of files in order of their starts, those that can be open at once where they overlap.
    fn openable(&self, files: &[usize]) -> Vec<usize> {
        let mut open: BinaryHeap<(Reverse<EventTime>, u64)> = BinaryHeap::new();
        let mut bytes = 0;
        let mut kept = Vec::new();
        for file in files {
            let facts = self.files[*file];
            while let Some((Reverse(end), group)) = open.peek().copied()
                && end < facts.range.start()
            {
                bytes -= group;
                open.pop();
            }
            // Two are always merged: with fewer nothing would ever be.
            let is_room = open.len() < OPEN_FILES_MAX
                && bytes + facts.group_bytes <= self.goal.open_bytes_max;
            if (is_room || open.len() < 2) && kept.len() < INPUTS_MAX {
                bytes += facts.group_bytes;
                open.push((Reverse(facts.range.end()), facts.group_bytes));
                kept.push(*file);
            }
        }
        kept
    }

    /// A job for these files, or as many of them as can be merged in one go.
    fn job(&self, mut files: Vec<usize>, is_cut: bool, reason: Reason) -> Option<Job> {
        files.sort_by_key(|file| (self.files[*file].range.start(), self.files[*file].range.end()));
        let mut inputs = self.openable(&files);
        if inputs.len() < 2 {
            return None;
        }
        let bytes = self.bytes(inputs.iter().copied());
        let target = self.goal.target_bytes.max(1);
        let cuts = if is_cut { self.cuts() } else { Vec::new() };
        inputs.sort_unstable();
        Some(Job {
            inputs,
            bytes,
            files: bytes.div_ceil(target).max(1),
            cuts,
            cut_bytes_min: target / PIECE_PART,
            reason,
        })
    }

    /// Where base files begin, and where the last one has ended: what lies behind it may become base
    /// itself.
    fn cuts(&self) -> Vec<EventTime> {
        let after = |end: EventTime| end.nanos().checked_add(1).map(EventTime::from_nanos);
        let starts = self.slots.bounds.iter().map(|(start, _)| *start);
        starts.chain(self.slots.bounds.last().and_then(|(_, end)| after(*end))).collect()
    }
}

#[cfg(test)]
mod tests;
