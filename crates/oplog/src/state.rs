//! The state of the log after one commit, as immutable data that clones cheaply.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rpds::VectorSync;
use tidelog_core::{CommitVersion, NodeId, WalId, WriteTime};

use crate::checkpoint::Checkpoint;
use crate::commit::{Commit, RETENTION_DEFAULT, Table};
use crate::epoch::{Covered, Epoch, Fenced, TakeOver};
use crate::error::Error;
use crate::history::History;
use crate::live_parts::LiveParts;
use crate::loaded::LoadedSeries;
use crate::part::Part;
use crate::row::{EntryType, Row, StoreOp, TreeOp, TreeRow};
use crate::series::SeriesState;
use crate::tree::Tree;

/// The log as it stood after one commit. Cheap to clone; never changes.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<State>);

#[derive(Debug)]
struct State {
    head: Option<CommitVersion>,
    last_write: WriteTime,
    complete_through: WriteTime,
    table: Option<Arc<Table>>,
    /// Who alone may write.
    epoch: Option<Arc<Epoch>>,
    fenced: Fenced,
    covered: Covered,
    kept: History,
    tree: Tree,
    history: VectorSync<Arc<TreeRow>>,
    parts: LiveParts,
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
            epoch: None,
            fenced: Fenced::new_sync(),
            covered: Covered::new_sync(),
            kept: History::default(),
            tree: Tree::default(),
            history: VectorSync::new_sync(),
            parts: LiveParts::default(),
            series: Mutex::default(),
        }))
    }

    /// The state after the commit `record` whose number a checkpoint bears: `parts` are those of the
    /// checkpoint, `rows` those of its shared parts.
    pub(crate) fn from_checkpoint(
        record: &Commit,
        checkpoint: Checkpoint,
        mut rows: Vec<Row>,
    ) -> Result<Self, Error> {
        let fail = |reason: String| Error::Inconsistent { commit: record.version, reason };
        let Checkpoint { table, parts, covered } = checkpoint;
        rows.sort_by_key(Row::commit);
        let mut state = State {
            head: Some(record.version),
            last_write: record.last_write,
            complete_through: record.complete_through,
            table: Some(Arc::new(table)),
            epoch: None,
            fenced: Fenced::new_sync(),
            covered: covered.into_iter().collect(),
            kept: History::default(),
            tree: Tree::default(),
            history: VectorSync::new_sync(),
            parts: LiveParts::in_order(parts),
            series: Mutex::default(),
        };
        let mut none = LoadedSeries::default();
        for row in rows {
            if matches!(row, Row::Tree(_) | Row::Store(_)) {
                apply(&mut state, &mut none, row, false).map_err(&fail)?;
            }
        }
        // Those of merged parts are not among the rows.
        state.kept.forget_announced(record.version);
        Ok(Self(Arc::new(state)))
    }

    /// What makes the log a Delta table; `None` before commit 0.
    pub(crate) fn table(&self) -> Option<&Arc<Table>> {
        self.0.table.as_ref()
    }

    /// How long objects of the log are kept after they have ceased to be part of it.
    pub(crate) fn retention(&self) -> Duration {
        self.table().map_or(RETENTION_DEFAULT, |table| table.retention)
    }

    /// Who alone may number versions and change the tree, if anybody.
    #[must_use]
    pub fn epoch(&self) -> Option<&Arc<Epoch>> {
        self.0.epoch.as_ref()
    }

    /// How the last claim that names a write-ahead log was ended, if another writer ended it and what its
    /// owner had left was not brought in since.
    #[must_use]
    pub fn taken_over(&self, wal: WalId) -> Option<&Arc<TakeOver>> {
        self.0.fenced.get(&wal)
    }

    /// All claims that other writers have ended, and of which something may be left to bring in, in no
    /// order.
    pub fn all_taken_over(&self) -> impl Iterator<Item = &Arc<TakeOver>> {
        self.0.fenced.values()
    }

    /// The last record of a write-ahead log whose rows are in the log; 0 if none is.
    #[must_use]
    pub fn covered(&self, wal: WalId) -> u64 {
        self.0.covered.get(&wal).copied().unwrap_or(0)
    }

    pub(crate) fn all_covered(&self) -> impl Iterator<Item = (WalId, u64)> {
        self.0.covered.iter().map(|(wal, seq)| (*wal, *seq))
    }

    /// How many commits stand at the end of the log that upkeep has not merged yet.
    #[must_use]
    pub fn tail_length(&self) -> usize {
        self.0.parts.tail_length()
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

    /// What is kept of the history: horizons and named snapshots.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.kept
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

    /// The write time of the newest change of the tree.
    #[must_use]
    pub fn last_tree_write(&self) -> WriteTime {
        self.0.history.last().map_or(WriteTime::MIN, |row| row.timestamp)
    }

    /// Every change of the tree, oldest first.
    pub fn tree_history(&self) -> impl DoubleEndedIterator<Item = &Arc<TreeRow>> {
        self.0.history.iter()
    }

    /// The series `node` if its rows are in memory.
    #[must_use]
    pub fn loaded_series(&self, node: NodeId) -> Option<Arc<SeriesState>> {
        self.lock().get(node).cloned()
    }

    pub(crate) fn offer_series(&self, series: Arc<SeriesState>) {
        self.lock().insert(series);
    }

    /// Lets go of rows of series beyond so many bytes, those that were not asked for longest; returns
    /// how many bytes the others take, about.
    pub(crate) fn trim_series(&self, bytes_max: u64) -> u64 {
        let mut series = self.lock();
        series.trim(bytes_max);
        series.bytes()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LoadedSeries> {
        self.0.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parts that may hold rows of one of the series.
    pub(crate) fn parts_of(&self, nodes: &[NodeId]) -> Vec<Arc<Part>> {
        let may_hold = |part: &&Arc<Part>| nodes.iter().any(|node| part.may_hold(*node));
        self.0.parts.iter().filter(may_hold).cloned().collect()
    }

    /// Parts that may hold rows of the series `node`, those included that only tell of what has gone.
    pub(crate) fn parts_ever_of(&self, node: NodeId) -> Vec<Arc<Part>> {
        self.0.parts.iter().filter(|part| part.may_have_held(node)).cloned().collect()
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
        let mut next = State {
            head: Some(commit.version),
            last_write: self.0.last_write.max(commit.last_write),
            complete_through: self.0.complete_through.max(commit.complete_through),
            table: self.0.table.clone().or_else(|| commit.table.clone().map(Arc::new)),
            epoch: self.0.epoch.clone(),
            fenced: self.0.fenced.clone(),
            covered: self.0.covered.clone(),
            kept: self.0.kept.clone(),
            tree: self.0.tree.clone(),
            history: self.0.history.clone(),
            parts: self.0.parts.after(commit).map_err(&fail)?,
            series: Mutex::default(),
        };
        for (wal, seq) in &commit.covers {
            next.covered.insert_mut(*wal, *seq);
        }
        let mut series = loaded;
        for row in rows {
            apply(&mut next, &mut series, row, follow_new).map_err(&fail)?;
        }
        next.series = Mutex::new(series);
        Ok(Self(Arc::new(next)))
    }
}

fn apply(
    state: &mut State,
    series: &mut LoadedSeries,
    row: Row,
    follow_new: bool,
) -> Result<(), String> {
    match row {
        Row::Tree(row) => {
            let row = state.tree.share(row);
            state.tree.apply(&row)?;
            if follow_new && row.op == TreeOp::Create && row.entry == EntryType::FileSeries {
                // All rows of a new series are still to come, so it is known whole already.
                series.insert(Arc::new(SeriesState::new(row.node)));
            }
            state.history.push_back_mut(Arc::new(row));
        }
        Row::Store(row) => match row.op {
            StoreOp::Claim(epoch) => {
                state.fenced.remove_mut(&epoch.wal);
                state.epoch = Some(Arc::new(epoch));
            }
            StoreOp::Release(id) => {
                state.epoch = state.epoch.take().filter(|held| held.id != id);
                let of_it = state.fenced.values().find(|end| end.epoch == id).map(|end| end.wal);
                if let Some(wal) = of_it {
                    state.fenced.remove_mut(&wal);
                }
            }
            StoreOp::TakeOver(end) => {
                state.epoch = state.epoch.take().filter(|held| held.id != end.epoch);
                state.fenced.insert_mut(end.wal, Arc::new(end));
            }
            StoreOp::Vacuum { .. }
            | StoreOp::Snapshot(_)
            | StoreOp::DropSnapshot(_)
            | StoreOp::Horizon(_) => state.kept.apply(&row)?,
        },
        Row::Version(row) => {
            series.change(row.node, |known| known.push_version(row)).transpose()?;
        }
        Row::File(row) => {
            series.change(row.node, |known| known.push_file(row));
        }
    }
    Ok(())
}
