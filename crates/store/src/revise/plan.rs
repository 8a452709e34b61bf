//! Which files of a series a change of its data ends whole, which it must look into, and what an earlier
//! version has to be copied from. No I/O.

use std::sync::Arc;

use tidelog_core::{TimeRange, Version};
use tidelog_oplog::{FileRow, SeriesState};

use crate::compact::ending::{Cut, Which};

/// What becomes of the files of a series, as far as the log tells.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Files all rows of which end. They are not written anew.
    pub(super) whole: Vec<Arc<FileRow>>,
    /// Files some rows of which may end, those together that have to be looked at together.
    pub(super) units: Vec<Vec<Arc<FileRow>>>,
}

/// Plans cuts that share no instant. Of a deduplicated series, which row is shown of those with one key and
/// event time is seen only where all of them are.
pub(super) fn plan(series: &SeriesState, cuts: &[Cut], dedup: bool) -> Plan {
    let mut plan = Plan::default();
    let mut inside = Vec::new();
    for file in series.files().filter(|file| file.until.is_none()) {
        let mut touching = cuts.iter().filter(|cut| cut.touches(file)).peekable();
        if touching.peek().is_none() {
            continue;
        }
        if touching.any(|cut| cut.takes_all(file)) {
            plan.whole.push(Arc::clone(file));
        } else {
            inside.push(Arc::clone(file));
        }
    }
    let is_of_shown = cuts.iter().any(|cut| matches!(cut.which, Which::Where(_)));
    plan.units = if dedup && is_of_shown && !inside.is_empty() {
        // A file without a row that ends may hold one that another is shown in the place of.
        let may_hold = |file: &Arc<FileRow>| cuts.iter().any(|cut| cut.touches(file));
        let in_range = |file: &FileRow| cuts.iter().any(|cut| cut.range.overlaps(&file.range));
        let standing = series.files().filter(|file| file.until.is_none() && in_range(file));
        let together = clusters(standing.cloned().collect());
        together.into_iter().filter(|files| files.iter().any(may_hold)).collect()
    } else {
        inside.into_iter().map(|file| vec![file]).collect()
    };
    plan
}

/// Files that lie over one another, directly or by way of others.
fn clusters(mut files: Vec<Arc<FileRow>>) -> Vec<Vec<Arc<FileRow>>> {
    files.sort_by_key(|file| (file.range.start(), file.file));
    let mut clusters: Vec<(TimeRange, Vec<Arc<FileRow>>)> = Vec::new();
    for file in files {
        match clusters.last_mut() {
            Some((range, cluster)) if range.overlaps(&file.range) => {
                *range = range.union(&file.range);
                cluster.push(file);
            }
            _ => clusters.push((file.range, vec![file])),
        }
    }
    clusters.into_iter().map(|(_, cluster)| cluster).collect()
}

/// How the rows of an earlier version become those of the head.
#[derive(Debug, Default)]
pub(super) struct Return {
    pub(super) cuts: Vec<Cut>,
    /// Ranges of event time of which all rows end, and those of the earlier version are copied.
    pub(super) copies: Vec<Copy>,
}

/// Rows to copy, and the files that they lie in.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) range: TimeRange,
    pub(super) files: Vec<Arc<FileRow>>,
}

/// What has to be done so that the head shows the rows of `version`.
///
/// Where only rows were added since, these end. Where rows have ended since, all that is there ends, and
/// what was there is copied: a row that has ended never stands again.
pub(super) fn return_to(series: &SeriesState, version: Version) -> Return {
    let was_visible = |file: &FileRow| {
        file.min_version <= version && file.until.is_none_or(|until| version < until.last())
    };
    let has_ended = |file: &FileRow| file.until.is_some() && was_visible(file);
    let was_added = |file: &FileRow| file.until.is_none() && file.max_version > version;
    let changed = series.files().filter(|file| has_ended(file) || was_added(file));
    let mut back = Return::default();
    for (range, is_copied) in stretches(changed.map(|file| (file.range, has_ended(file))).collect())
    {
        if !is_copied {
            back.cuts.push(Cut { range, which: Which::After(version) });
            continue;
        }
        back.cuts.push(Cut { range, which: Which::All });
        let files = series.files_overlapping(range).filter(|file| was_visible(file));
        back.copies.push(Copy { range, files: files.cloned().collect() });
    }
    back
}

/// Ranges joined until no two share an instant; of each whether it was so said of any part.
fn stretches(mut ranges: Vec<(TimeRange, bool)>) -> Vec<(TimeRange, bool)> {
    ranges.sort_by_key(|(range, _)| range.start());
    let mut joined: Vec<(TimeRange, bool)> = Vec::new();
    for (range, is_copied) in ranges {
        match joined.last_mut() {
            Some((last, is_any)) if last.overlaps(&range) => {
                *last = last.union(&range);
                *is_any |= is_copied;
            }
            _ => joined.push((range, is_copied)),
        }
    }
    joined
}
