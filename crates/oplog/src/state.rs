//! The state of the log after one commit, as immutable data that clones cheaply.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rpds::{HashTrieMapSync, VectorSync};
use tidelog_core::{CommitVersion, NodeId, WriteTime};

use crate::commit::{Commit, Table};
use crate::error::Error;
use crate::part::Part;
use crate::row::{EntryType, Row, TreeOp, TreeRow};
use crate::series::SeriesState;
use crate::tree::Tree;

pub(crate) type LoadedSeries = HashTrieMapSync<NodeId, Arc<SeriesState>>;

/// The log as it stood after one commit. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<State>);

#[derive(Debug)]
struct State {
    head: Option<CommitVersion>,
    last_write: WriteTime,
    complete_through: WriteTime,
    table: Option<Arc<Table>>,
    tree: Tree,
    history: VectorSync<Arc<TreeRow>>,
    /// In the order of their commits. The parts of a run stand together, in the order of its rows.
    parts: VectorSync<Arc<Part>>,
    /// How many of the parts, counted from the end, upkeep has not merged yet.
    tail: usize,
    /// Series whose rows somebody asked for. Filling it in changes no answer, only its cost.
    series: Mutex<LoadedSeries>,
}

impl Snapshot {
    /// The state before commit 0.
    pub(crate) fn empty() -> Self {
        Self(Arc::new(State {
            head: None,
            last_write: WriteTime::MIN,
            complete_through: WriteTime::MIN,
            table: None,
            tree: Tree::default(),
            history: VectorSync::new_sync(),
            parts: VectorSync::new_sync(),
            tail: 0,
            series: Mutex::new(LoadedSeries::new_sync()),
        }))
    }

    /// The state after the commit `record` whose number a checkpoint bears: `parts` are those of the
    /// checkpoint, `rows` those of its shared parts.
    pub(crate) fn from_checkpoint(
        record: &Commit,
        table: Table,
        mut parts: Vec<Arc<Part>>,
        mut rows: Vec<Row>,
    ) -> Result<Self, Error> {
        let fail = |reason: String| Error::Inconsistent { commit: record.version, reason };
        // Another tool may have written the checkpoint, in another order.
        put_in_order(&mut parts);
        rows.sort_by_key(Row::commit);
        let mut state = State {
            head: Some(record.version),
            last_write: record.last_write,
            complete_through: record.complete_through,
            table: Some(Arc::new(table)),
            tree: Tree::default(),
            history: VectorSync::new_sync(),
            tail: count_tail(parts.iter()),
            parts: parts.into_iter().collect::<VectorSync<_>>(),
            series: Mutex::default(),
        };
        let mut none = LoadedSeries::new_sync();
        for row in rows {
            if matches!(row, Row::Tree(_) | Row::Store(_)) {
                apply(&mut state, &mut none, row, false).map_err(&fail)?;
            }
        }
        Ok(Self(Arc::new(state)))
    }

    /// What makes the log a Delta table; `None` before commit 0.
    pub(crate) fn table(&self) -> Option<&Arc<Table>> {
        self.0.table.as_ref()
    }

    /// How many commits stand at the end of the log that upkeep has not merged yet.
    #[must_use]
    pub fn tail_length(&self) -> usize {
        self.0.tail
    }

    /// The newest commit inside.
    #[must_use]
    pub fn head(&self) -> CommitVersion {
        self.0.head.unwrap_or_default()
    }

    /// The commit that would follow.
    #[must_use]
    pub fn next_commit(&self) -> CommitVersion {
        self.0.head.map_or(CommitVersion::new(0), CommitVersion::next)
    }

    /// The last write time that was given to anything.
    #[must_use]
    pub fn last_write(&self) -> WriteTime {
        self.0.last_write
    }

    /// The time up to which `as_of` a time is exact.
    #[must_use]
    pub fn complete_through(&self) -> WriteTime {
        self.0.complete_through
    }

    /// The tree at head.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.0.tree
    }

    /// The tree as it stood at `time`, inclusive.
    ///
    /// # Errors
    /// If the log's own rows contradict one another.
    pub fn tree_at(&self, time: WriteTime) -> Result<Tree, Error> {
        if time >= self.0.last_write {
            return Ok(self.0.tree.clone());
        }
        let mut tree = Tree::default();
        for row in self.0.history.iter().take_while(|row| row.timestamp <= time) {
            tree.apply(row).map_err(|reason| Error::Inconsistent { commit: row.commit, reason })?;
        }
        Ok(tree)
    }

    /// Every change of the tree, oldest first.
    pub fn tree_history(&self) -> impl DoubleEndedIterator<Item = &Arc<TreeRow>> {
        self.0.history.iter()
    }

    /// The series `node` if its rows are in memory.
    #[must_use]
    pub fn loaded_series(&self, node: NodeId) -> Option<Arc<SeriesState>> {
        self.lock().get(&node).cloned()
    }

    pub(crate) fn offer_series(&self, series: Arc<SeriesState>) {
        self.lock().insert_mut(series.node(), series);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LoadedSeries> {
        self.0.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parts that may hold rows of the series `node`.
    pub(crate) fn parts_of(&self, node: NodeId) -> Vec<Arc<Part>> {
        self.0.parts.iter().filter(|part| part.may_hold(node)).cloned().collect()
    }

    /// Every part.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.0.parts.iter()
    }

    /// The series whose rows are in memory. What a caller reads of the next commit is read for
    /// these, and only these may be carried over to the state after it.
    pub(crate) fn loaded(&self) -> LoadedSeries {
        self.lock().clone()
    }

    /// The state after `commit`. `rows` are those of its shared parts and of the `loaded` series.
    /// With `follow_new`, series that the commit creates are in memory from then on, which asks for
    /// the rows of every later commit.
    pub(crate) fn after(
        &self,
        commit: &Commit,
        rows: Vec<Row>,
        loaded: LoadedSeries,
        follow_new: bool,
    ) -> Result<Self, Error> {
        let fail = |reason: String| Error::Inconsistent { commit: commit.version, reason };
        if commit.version != self.next_commit() {
            return Err(fail(format!("commit {} was expected", self.next_commit())));
        }
        let (parts, tail) = self.parts_after(commit).map_err(&fail)?;
        let mut next = State {
            head: Some(commit.version),
            last_write: self.0.last_write.max(commit.last_write),
            complete_through: self.0.complete_through.max(commit.complete_through),
            table: self.0.table.clone().or_else(|| commit.table.clone().map(Arc::new)),
            tree: self.0.tree.clone(),
            history: self.0.history.clone(),
            parts,
            tail,
            series: Mutex::new(LoadedSeries::new_sync()),
        };
        let mut series = loaded;
        for row in rows {
            apply(&mut next, &mut series, row, follow_new).map_err(&fail)?;
        }
        next.series = Mutex::new(series);
        Ok(Self(Arc::new(next)))
    }

    /// The parts after `commit`, and how many of them at the end are not merged.
    ///
    /// Merged parts take the place of those that they replace, whose rows they must hold.
    fn parts_after(&self, commit: &Commit) -> Result<(VectorSync<Arc<Part>>, usize), String> {
        let (merged, new): (Vec<_>, Vec<_>) =
            commit.parts.iter().map(|part| Arc::new(part.clone())).partition(|p| p.is_merged());
        let mut parts = self.0.parts.clone();
        let mut tail = self.0.tail;
        if !commit.removed.is_empty() || !merged.is_empty() {
            parts = self.replaced(&commit.removed, merged)?;
            tail = count_tail(parts.iter());
        }
        tail += new.len();
        new.into_iter().for_each(|part| parts.push_back_mut(part));
        Ok((parts, tail))
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
        for part in &self.0.parts {
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

fn apply(
    state: &mut State,
    series: &mut LoadedSeries,
    row: Row,
    follow_new: bool,
) -> Result<(), String> {
    match row {
        Row::Tree(row) => {
            state.tree.apply(&row)?;
            if follow_new && row.op == TreeOp::Create && row.entry == EntryType::FileSeries {
                // All rows of a new series are still to come, so it is known whole already.
                series.insert_mut(row.node, Arc::new(SeriesState::new(row.node)));
            }
            state.history.push_back_mut(Arc::new(row));
        }
        Row::Store(_) => {}
        Row::Version(row) => {
            if let Some(known) = series.get_mut(&row.node) {
                Arc::make_mut(known).push_version(row)?;
            }
        }
        Row::File(row) => {
            if let Some(known) = series.get_mut(&row.node) {
                Arc::make_mut(known).push_file(row);
            }
        }
    }
    Ok(())
}
