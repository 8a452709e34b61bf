//! What to merge.
//!
//! Size-tiered (P. O'Neil and others, *The log-structured merge-tree*, 1996; tiers as in Bigtable):
//! a run takes in the runs before it as long as they are at most [`RATIO`] times as large as what is
//! gathered so far. Sizes of the runs that remain then grow by more than that from the newest to the
//! oldest, so a log of n rows has O(log n) of them, and a row is rewritten O(log n) times.
//!
//! Small and large merges are apart, so that they can go on side by side: a small one has at least
//! the tail of single commits in it and makes a run of at most [`SMALL_ROWS_MAX`] rows, quickly, for
//! the tail grows meanwhile; a large one leaves the newest run and the tail alone.
//!
//! What merges set aside is no part of a run: it is not written again when the rest of its run is, and does
//! not count for its size. It is merged by itself, in tiers of its own.

use std::sync::Arc;

use crate::part::Part;
use crate::state::Snapshot;

const RATIO: u64 = 4;
/// Some ten milliseconds of work.
const SMALL_ROWS_MAX: u64 = 8_192;
/// Parts that lie aside are merged once so many are of like size.
const ASIDE_PARTS: usize = 8;
/// A tail that has grown longer, because nobody did the upkeep, is merged in several steps.
const TAIL_PARTS_MAX: usize = 1024;

/// Which merges are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeScope {
    /// The tail, if it has at least this many commits.
    Tail(usize),
    /// Runs, without the newest and without the tail.
    Runs,
    /// Everything into one run.
    All,
}

/// What to merge: parts that follow one another in the log.
#[derive(Debug, Clone)]
pub struct MergePlan {
    /// Oldest first; the parts of each in the order of its rows. Those not merged before are one.
    runs: Vec<Run>,
    /// What lies aside, oldest first.
    aside: Vec<Arc<Part>>,
    inputs: Vec<Arc<Part>>,
}

impl MergePlan {
    pub(crate) fn inputs(&self) -> &[Arc<Part>] {
        &self.inputs
    }

    pub(crate) fn into_inputs(self) -> Vec<Arc<Part>> {
        self.inputs
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(crate) fn aside(&self) -> &[Arc<Part>] {
        &self.aside
    }

    fn try_new(runs: Vec<Run>, aside: Vec<Arc<Part>>) -> Option<Self> {
        // A single run has nothing to be merged with, a tail is merged in itself.
        let is_worth = runs.len() > 1 || runs.first().is_some_and(|run| !run.is_sorted);
        let runs = if is_worth { runs } else { Vec::new() };
        let aside = if aside.len() > 1 { aside } else { Vec::new() };
        let of_runs = runs.iter().flat_map(|run| run.parts.iter().cloned());
        let inputs: Vec<Arc<Part>> = of_runs.chain(aside.iter().cloned()).collect();
        (!inputs.is_empty()).then_some(Self { runs, aside, inputs })
    }

    /// Rows to read and write.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|part| part.rows).sum()
    }
}

/// Parts of one merge, or the tail.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) parts: Vec<Arc<Part>>,
    pub(crate) is_sorted: bool,
}

impl Run {
    fn rows(&self) -> u64 {
        self.parts.iter().map(|part| part.rows).sum()
    }
}

pub(crate) fn plan(snapshot: &Snapshot, scope: MergeScope) -> Option<MergePlan> {
    let mut runs = runs_of(snapshot);
    let mut tail = runs.pop_if(|run| !run.is_sorted);
    if let Some(tail) = &mut tail {
        tail.parts.truncate(TAIL_PARTS_MAX);
    }
    let aside = snapshot.parts().filter(|part| part.is_aside()).cloned();
    let (chosen, aside) = match scope {
        MergeScope::Tail(least) => {
            let tail = tail.filter(|tail| tail.parts.len() >= least.max(2))?;
            let mut gathered = tail.rows();
            let first = first_of_like_size(&runs, &mut gathered, SMALL_ROWS_MAX);
            let mut chosen = runs.split_off(first);
            chosen.push(tail);
            (chosen, Vec::new())
        }
        MergeScope::Runs => (older_runs(runs), of_like_size(aside.collect())),
        MergeScope::All => {
            runs.extend(tail);
            (runs, aside.filter(|part| !is_full(part)).collect())
        }
    };
    MergePlan::try_new(chosen, aside)
}

/// The runs before the newest that are to be merged, if any.
fn older_runs(mut runs: Vec<Run>) -> Vec<Run> {
    runs.pop();
    let Some(newest) = runs.pop() else { return Vec::new() };
    let mut gathered = newest.rows();
    let first = first_of_like_size(&runs, &mut gathered, u64::MAX);
    let mut chosen = runs.split_off(first);
    chosen.push(newest);
    chosen
}

/// The least of what lies aside, if that are parts enough; a part that is full is left alone.
fn of_like_size(aside: Vec<Arc<Part>>) -> Vec<Arc<Part>> {
    let mut aside: Vec<Arc<Part>> = aside.into_iter().filter(|part| !is_full(part)).collect();
    aside.sort_by_key(|part| part.rows);
    let mut gathered = 0;
    let like = |part: &&Arc<Part>| {
        let is_like = gathered == 0 || part.rows <= RATIO * gathered;
        gathered += part.rows;
        is_like
    };
    let count = aside.iter().take_while(like).count();
    aside.truncate(if count >= ASIDE_PARTS { count } else { 0 });
    aside
}

fn is_full(part: &Part) -> bool {
    part.rows >= super::merge::PART_ROWS as u64
}

/// The first of the runs at the end that may join what is gathered.
fn first_of_like_size(runs: &[Run], gathered: &mut u64, rows_max: u64) -> usize {
    let mut first = runs.len();
    while let Some(run) = first.checked_sub(1).and_then(|before| runs.get(before)) {
        let rows = run.rows();
        if rows > RATIO * *gathered || *gathered + rows > rows_max {
            break;
        }
        *gathered += rows;
        first -= 1;
    }
    first
}

/// The parts of a snapshot as runs, oldest first; unsorted parts that follow one another are one.
fn runs_of(snapshot: &Snapshot) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for part in snapshot.parts().filter(|part| !part.is_aside()) {
        let part = Arc::clone(part);
        match runs.last_mut() {
            Some(run) if run.parts.last().is_some_and(|last| last.run == part.run) => {
                run.parts.push(part);
            }
            _ => runs.push(Run { is_sorted: part.run.is_some(), parts: vec![part] }),
        }
    }
    runs
}
