//! The parts that are live after a commit: those whose rows are the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rpds::VectorSync;
use tidelog_core::CommitVersion;

use crate::commit::Commit;
use crate::part::Part;

/// How many parts at the end keep their rows in memory, if these came inside their commits: twice as
/// many as upkeep leaves, and some hundred kilobytes at most.
const INLINE_TAIL_MAX: usize = 64;

/// Parts in the order of their commits. The parts of a run stand together, in the order of its rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveParts {
    list: VectorSync<Arc<Part>>,
    /// How many of them, counted from the end, upkeep has not merged yet.
    tail: usize,
}

impl LiveParts {
    /// These parts, which may come in any order: another tool may have written a checkpoint.
    pub(crate) fn in_order(mut parts: Vec<Arc<Part>>) -> Self {
        put_in_order(&mut parts);
        Self { tail: count_tail(parts.iter()), list: parts.into_iter().collect() }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Part>> {
        self.list.iter()
    }

    /// How many parts stand at the end that upkeep has not merged yet.
    pub(crate) fn tail_length(&self) -> usize {
        self.tail
    }

    /// The parts after `commit`; `Err` tells why it cannot follow.
    ///
    /// Merged parts take the place of those that they replace, whose rows they must hold.
    pub(crate) fn after(&self, commit: &Commit) -> Result<Self, String> {
        let (merged, mut new): (Vec<_>, Vec<_>) =
            commit.parts.iter().cloned().partition(Part::is_merged);
        if let [part] = new.as_mut_slice()
            && self.tail < INLINE_TAIL_MAX
        {
            part.inline.clone_from(&commit.inline);
        }
        let merged: Vec<_> = merged.into_iter().map(Arc::new).collect();
        let mut next = self.clone();
        if !commit.removed.is_empty() || !merged.is_empty() {
            next.list = self.replaced(&commit.removed, merged)?;
            next.tail = count_tail(next.list.iter());
        }
        next.tail += new.len();
        new.into_iter().for_each(|part| next.list.push_back_mut(Arc::new(part)));
        Ok(next)
    }

    fn replaced(
        &self,
        removed: &[String],
        merged: Vec<Arc<Part>>,
    ) -> Result<VectorSync<Arc<Part>>, String> {
        let mut going: HashSet<&str> = removed.iter().map(String::as_str).collect();
        let rows_in: u64 = merged.iter().map(|part| part.rows).sum();
        let mut rows_out = 0;
        let mut merged = Some(merged);
        let mut parts = VectorSync::new_sync();
        for part in &self.list {
            if !going.remove(part.object.as_str()) {
                parts.push_back_mut(Arc::clone(part));
                continue;
            }
            rows_out += part.rows;
            for part in merged.take().unwrap_or_default() {
                parts.push_back_mut(part);
            }
        }
        if let Some(missing) = going.iter().next() {
            return Err(format!("it replaces {missing:?}, which is no part of the log"));
        }
        if rows_in != rows_out || merged.is_some_and(|parts| !parts.is_empty()) {
            return Err(format!("it replaces parts with {rows_out} rows by some with {rows_in}"));
        }
        Ok(parts)
    }

    /// The parts after `commit` as far as can be told when what came before it is not known.
    pub(crate) fn after_unknown(&self, commit: &Commit) -> Self {
        let removed: HashSet<&str> = commit.removed.iter().map(String::as_str).collect();
        let kept = self.iter().filter(|part| !removed.contains(part.object.as_str())).cloned();
        let added = commit.parts.iter().map(|part| Arc::new(part.clone()));
        Self::in_order(kept.chain(added).collect())
    }
}

/// Runs, and parts that are in none, by their commits; the parts of a run by their places.
fn put_in_order(parts: &mut [Arc<Part>]) {
    let mut begins: HashMap<String, CommitVersion> = HashMap::new();
    for part in parts.iter() {
        if let Some(run) = &part.run {
            let begin = begins.entry(run.clone()).or_insert(part.commits.0);
            *begin = part.commits.0.min(*begin);
        }
    }
    let begin = |part: &Part| part.run.as_ref().and_then(|run| begins.get(run)).copied();
    parts.sort_by_key(|part| (begin(part).unwrap_or(part.commits.0), part.place));
}

fn count_tail<'a>(parts: impl DoubleEndedIterator<Item = &'a Arc<Part>>) -> usize {
    parts.rev().take_while(|part| part.run.is_none()).count()
}
