//! How the files of a scan are laid out.
//!
//! In event time, files mostly follow one another; where they do not, they form a *cluster* of
//! overlapping files. A segment is either a run of files that can be read one after the other and
//! come out in order, or a cluster, packed into as few *chains* as its depth of overlap, that must
//! be merged. Merging happens only inside clusters.
//!
//! A file that is ordered by key is, where order matters, as many parts as it has stretches in order of
//! event time, mostly one for each key: a cluster of its own.
//!
//! Chains are found by interval partitioning: take files by their start and put each behind the
//! chain that ended first, if it ended before (J. Kleinberg, É. Tardos, *Algorithm Design*, 4.1).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::files::{Part, ScanFile};

/// More overlapping chains than this are not merged.
pub(super) const MERGE_WIDTH_MAX: usize = 256;

/// A stretch of event time.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    /// Files that follow one another.
    Run(Vec<ScanFile>),
    /// Files that overlap, as chains of files that do not.
    Cluster(Vec<Vec<ScanFile>>),
}

impl Segment {
    pub(crate) fn rows(&self) -> u64 {
        match self {
            Self::Run(files) => files.iter().map(ScanFile::rows).sum(),
            Self::Cluster(chains) => chains.iter().flatten().map(ScanFile::rows).sum(),
        }
    }
}

/// What makes two files a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ties {
    /// Only an overlap: rows of equal time may come in any order.
    Any,
    /// Also a shared instant: rows of equal time are ordered, or deduplicated, across files.
    Ordered,
}

/// The files in order of event time.
pub(crate) fn by_time(mut files: Vec<ScanFile>) -> Vec<ScanFile> {
    let place = |f: &ScanFile| (f.range().start(), f.range().end(), f.row.min_version);
    files.sort_by_key(place);
    files
}

/// What segments are for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    pub(crate) ties: Ties,
    /// Rows are deduplicated: a file that is not clean is a cluster of its own.
    pub(crate) dedup: bool,
    /// Rows come out in order of event time.
    pub(crate) ordered: bool,
}

impl Purpose {
    /// Whether a file that overlaps no other is read as it is.
    fn takes(&self, file: &ScanFile) -> bool {
        (file.clean || !self.dedup) && (file.is_in_time_order() || !self.ordered)
    }
}

/// The segments of files, which are given by their starts.
pub(crate) fn segments(files: Vec<ScanFile>, purpose: Purpose) -> Vec<Segment> {
    let ties = purpose.ties;
    let mut segments = Vec::new();
    let mut run = Vec::new();
    let mut cluster: Vec<ScanFile> = Vec::new();
    for file in files {
        let end = cluster.iter().map(|f| f.range().end()).max();
        let joins = end.is_some_and(|end| match ties {
            Ties::Any => file.range().start() < end,
            Ties::Ordered => file.range().start() <= end,
        });
        if !joins {
            flush(&mut cluster, &mut run, &mut segments, purpose);
        }
        cluster.push(file);
    }
    flush(&mut cluster, &mut run, &mut segments, purpose);
    if !run.is_empty() {
        segments.push(Segment::Run(run));
    }
    segments
}

fn flush(
    cluster: &mut Vec<ScanFile>,
    run: &mut Vec<ScanFile>,
    segments: &mut Vec<Segment>,
    purpose: Purpose,
) {
    let files = std::mem::take(cluster);
    match files.as_slice() {
        [] => {}
        [only] if purpose.takes(only) => run.extend(files),
        _ => {
            if !run.is_empty() {
                segments.push(Segment::Run(std::mem::take(run)));
            }
            segments.push(Segment::Cluster(in_order(files, purpose.ties)));
        }
    }
}

/// Files as chains that are in order of event time each. Files that are ordered by key are taken apart
/// as long as no more chains come of it than are merged; the others are sorted, those with the most parts
/// first.
fn in_order(files: Vec<ScanFile>, ties: Ties) -> Vec<Vec<ScanFile>> {
    let mut parts: Vec<Vec<ScanFile>> = files.into_iter().map(ScanFile::in_time_order).collect();
    loop {
        let chains = chains(parts.iter().flatten().cloned().collect(), ties);
        let most = parts.iter_mut().max_by_key(|parts| parts.len());
        match most.filter(|parts| chains.len() > MERGE_WIDTH_MAX && parts.len() > 1) {
            Some(parts) => {
                parts.truncate(1);
                parts.iter_mut().for_each(|file| file.part = Part::Sorted);
            }
            None => return chains,
        }
    }
}

/// The same chains with each file that was taken apart sorted as a whole instead.
pub(super) fn sorted_instead(
    chains_of_parts: Vec<Vec<ScanFile>>,
    ties: Ties,
) -> Vec<Vec<ScanFile>> {
    let mut seen = HashSet::new();
    let files = chains_of_parts.into_iter().flatten().filter_map(|file| match file.part {
        Part::Whole => Some(file),
        Part::Run(_) | Part::Sorted => {
            let is_first = seen.insert(file.row.file);
            is_first.then(|| ScanFile { part: Part::Sorted, ..file })
        }
    });
    chains(by_time(files.collect()), ties)
}

/// Packs files, which are in order of their starts, into the fewest chains without overlap.
pub(super) fn chains(files: Vec<ScanFile>, ties: Ties) -> Vec<Vec<ScanFile>> {
    let mut chains: Vec<Vec<ScanFile>> = Vec::new();
    let mut ends = BinaryHeap::new();
    for file in files {
        let (start, end) = (file.range().start(), file.range().end());
        let free = ends.peek().is_some_and(|Reverse((ended, _))| match ties {
            Ties::Any => *ended <= start,
            Ties::Ordered => *ended < start,
        });
        let chain = match ends.peek() {
            Some(Reverse((_, chain))) if free => {
                let chain = *chain;
                ends.pop();
                chain
            }
            _ => {
                chains.push(Vec::new());
                chains.len() - 1
            }
        };
        ends.push(Reverse((end, chain)));
        chains[chain].push(file);
    }
    chains
}

/// Cuts segments into at most `parts` contiguous groups with about the same number of rows.
pub(crate) fn balance(segments: Vec<Segment>, parts: usize) -> Vec<Vec<Segment>> {
    let segments = split_runs(segments, parts);
    let total: u64 = segments.iter().map(Segment::rows).sum();
    let share = total.div_ceil(parts.max(1) as u64).max(1);
    let mut groups: Vec<Vec<Segment>> = Vec::new();
    let mut before = 0;
    for segment in segments {
        let rows = segment.rows();
        // A segment belongs to the share in which its middle lies.
        let group = usize::try_from((before + rows / 2) / share).unwrap_or(usize::MAX);
        before += rows;
        if groups.is_empty() || group >= groups.len() && groups.len() < parts {
            groups.push(Vec::new());
        }
        if let Some(last) = groups.last_mut() {
            last.push(segment);
        }
    }
    groups
}

/// Runs of many files as several runs, so that they can be divided.
fn split_runs(segments: Vec<Segment>, parts: usize) -> Vec<Segment> {
    if parts <= 1 {
        return segments;
    }
    segments
        .into_iter()
        .flat_map(|segment| match segment {
            Segment::Run(files) => {
                files.into_iter().map(|file| Segment::Run(vec![file])).collect::<Vec<_>>()
            }
            cluster @ Segment::Cluster(_) => vec![cluster],
        })
        .collect()
}

/// Neighbouring runs as one.
pub(crate) fn join_runs(segments: Vec<Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        match (joined.last_mut(), segment) {
            (Some(Segment::Run(files)), Segment::Run(more)) => files.extend(more),
            (_, segment) => joined.push(segment),
        }
    }
    joined
}
