//! The writer: one task per handle that turns what is queued into commits.
//!
//! ```text
//! callers ──Intent──▶ queue ──▶ take all that is there
//!                                 │ give versions and write times, against the newest snapshot
//!                                 │ put the log's part ‖ wait for the callers' data files
//!                                 ▼
//!                               publish ── conflict: look again, number again, publish again
//!                                 │
//!                                 └──▶ answer each caller
//! ```
//!
//! A lone intent commits at once; what queues up meanwhile shares the next commit. Within a group
//! each intent succeeds or fails alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidelog_core::{
    CommitVersion, Env, FileId, NodeId, TransactionId, TreePath, Version, WalId, WriteTime,
};
use tidelog_oplog::{
    CommitDraft, CommitOutcome, EntryType, Epoch, Expired, FileOp, FileRow, History, LayoutChange,
    Log, Merged, Row, SeriesOptions, SeriesState, Snapshot, StagedCommit, StoreOp, TakeOver,
    TreeRow, VersionOp, VersionRow,
};
use tidelog_storage::object_store::ObjectStore;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::probe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::compact::{self, CompactionOptions, Grown, Touched};
use crate::engine::Ground;
use crate::error::Error;
use crate::history::HistoryChange;
use crate::pace::{Before, Pace};
use crate::prepare::VersionFacts;
use crate::revise::Revision;
use crate::series_schema::SeriesSchema;
use crate::tree_draft::TreeDraft;
use crate::upkeep::{self, UpkeepMode};
use crate::vacuum::Doomed;

const QUEUE_INTENTS: usize = 1024;
const GROUP_INTENTS_MAX: usize = 1000;
const ATTEMPTS_MAX: u32 = 64;
/// Encoding this many log rows takes well under a millisecond.
const STAGE_INLINE_ROWS_MAX: usize = 64;

/// Something to commit, and where to answer.
#[derive(Debug)]
pub(crate) struct Intent {
    pub(crate) work: Work,
    pub(crate) reply: oneshot::Sender<Result<Landed, Rejected>>,
}

/// What is to be committed.
#[derive(Debug)]
pub(crate) enum Work {
    /// Versions of one or more series, all or none.
    Append(Vec<SeriesAppend>),
    /// Changes of the tree.
    Tree(TreeChange),
    /// What was acknowledged by a write-ahead log. It is stale if it is in the log already.
    Flush(Box<Flush>),
    /// What was acknowledged under a claim that was taken over, as new versions.
    Recover(Box<Recovery>),
    /// Takes the store for this handle alone.
    Claim(Epoch),
    /// Ends a claim, or says of one that was taken over that nothing is left of it to bring in. It is
    /// stale if that is so already.
    Release(Uuid),
    /// Ends the claim of another writer. It is stale if the claim has ended.
    TakeOver(TakeOver),
    /// A run of log parts that upkeep has written. It is stale if what it merges has gone.
    Merge(Merged),
    /// Announces parts that are about to be deleted.
    Vacuum(Expired),
    /// Files of a series in the place of others with the same rows. It is stale if one of these, or the
    /// series, has gone.
    Compact(Box<Compaction>),
    /// A change of the data of a series, as a version. It is stale if it was planned without knowing of
    /// something that it decides about.
    Revise(Box<Revision>),
    /// Changes what is kept of the history.
    History(HistoryChange),
    /// Announces data files that are about to be deleted. It is stale if all are needed by now.
    VacuumFiles(Arc<[Doomed]>),
}

/// Versions of one series, prepared against the series as the caller saw it.
#[derive(Debug)]
pub(crate) struct SeriesAppend {
    pub(crate) path: TreePath,
    pub(crate) target: Target,
    pub(crate) time_column: Arc<str>,
    pub(crate) versions: Vec<(VersionFacts, TransactionId)>,
    /// Those of the ids that the caller gave, who may have written them before.
    pub(crate) given_ids: Vec<TransactionId>,
    /// File rows whose versions are still relative to the first version of the append.
    pub(crate) files: Vec<FileRow>,
    /// The puts of those files, under way.
    pub(crate) puts: Vec<JoinHandle<Result<(), Error>>>,
    /// The commit that was still to come when the first of them began.
    pub(crate) puts_since: CommitVersion,
}

/// Rows that have been acknowledged, in files that are durable, with their versions.
#[derive(Debug)]
pub(crate) struct Flush {
    /// The claim under which they were acknowledged.
    pub(crate) epoch: Uuid,
    pub(crate) wal: WalId,
    /// The last record of the write-ahead log whose rows are inside.
    pub(crate) through: u64,
    pub(crate) tree: Vec<TreeRow>,
    pub(crate) versions: Vec<Arc<VersionRow>>,
    pub(crate) files: Vec<FileRow>,
    /// The commit that was still to come when the first of the files was put.
    pub(crate) puts_since: CommitVersion,
}

/// Files of one series, durable, with the same rows as others.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(crate) node: NodeId,
    pub(crate) path: TreePath,
    /// The files that are replaced.
    pub(crate) inputs: Vec<Arc<FileRow>>,
    /// Those in their place.
    pub(crate) outputs: Vec<FileRow>,
    /// The commit that was still to come when the first of these was put.
    pub(crate) puts_since: CommitVersion,
}

/// Rows of a write-ahead log whose claim was ended by another writer.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) wal: WalId,
    /// The last of its records whose rows are in the log. It is stale if that has changed.
    pub(crate) after: u64,
    /// The last record whose rows are inside.
    pub(crate) through: u64,
    pub(crate) appends: Vec<SeriesAppend>,
}

/// The series that an append was prepared for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    /// What the append assumes about the node.
    pub(crate) state: TargetState,
}

/// What an append assumes about its node.
#[derive(Debug, Clone)]
pub(crate) enum TargetState {
    /// It exists and has its schema.
    Existing,
    /// It exists, and the append gives it its schema.
    WithoutSchema(SeriesSchema, Arc<SeriesOptions>),
    /// Nothing is at the path; the append makes the series.
    Absent(SeriesSchema, Arc<SeriesOptions>),
}

/// A change of the tree.
#[derive(Debug, Clone)]
pub(crate) enum TreeChange {
    Create { path: TreePath, entry: EntryType, options: Option<Arc<SeriesOptions>> },
    Rename { from: TreePath, to: TreePath },
    Remove { path: TreePath, recursive: bool },
    Lay { path: TreePath, change: LayoutChange },
}

/// What landed.
#[derive(Debug, Clone)]
pub(crate) struct Landed {
    /// Of each version appended, in the order of the request.
    pub(crate) versions: Vec<(Version, WriteTime)>,
}

/// Why an intent did not land.
#[derive(Debug)]
pub(crate) enum Rejected {
    /// The path no longer names what the append was prepared for: prepare it again.
    Stale,
    /// It failed.
    Failed(Error),
}

impl Rejected {
    /// The error for who cannot prepare anew.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Stale => Error::Closed,
        }
    }
}

impl<E: Into<Error>> From<E> for Rejected {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The claim of a handle, and the write-ahead log that it names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) epoch: Uuid,
    pub(crate) wal: WalId,
}

/// The claim that a handle has made, if it has. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnEpoch(Arc<Mutex<Option<Own>>>);

impl OwnEpoch {
    pub(crate) fn get(&self) -> Option<Own> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, own: Option<Own>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }
}

/// What a writer is told that finds its claim, which named `wal`, ended by another.
pub(crate) fn fenced(snapshot: &Snapshot, wal: WalId) -> Error {
    let by = match (snapshot.epoch(), snapshot.taken_over(wal)) {
        (Some(epoch), _) => epoch.to_string(),
        (None, Some(take_over)) => take_over.to_string(),
        (None, None) => "another writer, which has given it back since".to_owned(),
    };
    Error::Fenced { wal: wal.to_string(), by }
}

/// The way to the writer task of a handle.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Intent>,
    touched: Touched,
}

impl Writer {
    /// Starts the task on the current runtime, with its background; they end when the last clone is
    /// dropped.
    pub(crate) fn spawn(
        ground: &Ground,
        upkeep: UpkeepMode,
        compaction: &CompactionOptions,
        touched: &Touched,
        own: OwnEpoch,
    ) -> Self {
        let (queue, intents) = mpsc::channel(QUEUE_INTENTS);
        let writer = Self { queue, touched: touched.clone() };
        let Ground { store, log, env, .. } = ground.clone();
        let landed = upkeep::spawn(upkeep, &log, &env, writer.downgrade());
        let (alive, ended) = watch::channel(());
        if upkeep == UpkeepMode::Background {
            compact::spawn(ground, compaction, touched, writer.downgrade(), ended);
        }
        let task = WriterTask {
            store,
            log,
            env,
            landed,
            touched: touched.clone(),
            _alive: alive,
            pace: Pace::default(),
            own,
            probed: false,
        };
        tokio::spawn(task.run(intents));
        writer
    }

    /// A way that does not keep the task alive.
    pub(crate) fn downgrade(&self) -> WeakWriter {
        WeakWriter { queue: self.queue.downgrade(), touched: self.touched.clone() }
    }

    /// The series that it has added files to.
    pub(crate) fn touched(&self) -> &Touched {
        &self.touched
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(crate) async fn submit(&self, work: Work) -> Result<Landed, Rejected> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Intent { work, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// The way to a writer task that may have ended.
#[derive(Debug, Clone)]
pub(crate) struct WeakWriter {
    queue: mpsc::WeakSender<Intent>,
    touched: Touched,
}

impl WeakWriter {
    pub(crate) fn upgrade(&self) -> Option<Writer> {
        Some(Writer { queue: self.queue.upgrade()?, touched: self.touched.clone() })
    }
}

struct WriterTask {
    store: Arc<dyn ObjectStore>,
    log: Log,
    env: Env,
    /// Tells the background upkeep, if there is any, how long the tail of the log has become.
    landed: Option<watch::Sender<usize>>,
    /// Takes note of the series that got files.
    touched: Touched,
    /// Dropped, it ends what runs beside.
    _alive: watch::Sender<()>,
    pace: Pace,
    own: OwnEpoch,
    probed: bool,
}

impl WriterTask {
    async fn run(mut self, mut intents: mpsc::Receiver<Intent>) {
        while let Some(first) = intents.recv().await {
            let mut group = vec![first];
            while group.len() < GROUP_INTENTS_MAX
                && let Ok(next) = intents.try_recv()
            {
                group.push(next);
            }
            self.commit(group).await;
        }
    }

    /// Commits a group and answers each of its members.
    async fn commit(&mut self, mut group: Vec<Intent>) {
        if let Err(error) = self.probe().await {
            return reject_all(group, &error);
        }
        let mut base = self.log.snapshot();
        for attempt in 1..=ATTEMPTS_MAX {
            base = match self.wait_for_turn(attempt, base).await {
                Ok(base) => base,
                Err(error) => return reject_all(group, &error),
            };
            let began = self.env.clock.monotonic();
            let (changes, drafted) = match self.draft(&base, &group).await {
                Ok(drafted) => drafted,
                Err(newest) => {
                    base = newest;
                    continue;
                }
            };
            let mut members = Vec::with_capacity(group.len());
            for (intent, drafted) in group.into_iter().zip(drafted) {
                match drafted {
                    Ok(versions) => members.push((intent, versions)),
                    Err(rejected) => answer(intent.reply, Err(rejected)),
                }
            }
            if members.is_empty() {
                return;
            }
            let (intents, versions): (Vec<_>, Vec<_>) = members.into_iter().unzip();
            let progress = self.land(base, changes, intents, versions).await;
            base = self.log.snapshot();
            self.pace.tried(began, self.env.clock.monotonic());
            group = match progress {
                Progress::Done => return,
                Progress::Again(left) if left.is_empty() => return,
                Progress::Again(left) => left,
            };
        }
        for intent in group {
            let error = Error::Contention { path: intent.work.path(), attempts: ATTEMPTS_MAX };
            answer(intent.reply, Err(error.into()));
        }
    }

    /// Waits until nobody else's commit is expected, as far as others can be known; returns the
    /// newest state that has been read.
    async fn wait_for_turn(&self, attempt: u32, mut base: Snapshot) -> Result<Snapshot, Error> {
        for looks in 0.. {
            let turn = self.log.turn();
            let before = Before { attempt, looks, now: self.env.clock.monotonic() };
            let randomness = self.env.randomness.as_ref();
            let Some(wait) = self.pace.wait(before, &turn, randomness) else { break };
            tokio::time::sleep(wait).await;
            base = if self.pace.is_in_rhythm(before, &turn) {
                let likely = match looks {
                    0 => self.pace.landed(self.env.clock.monotonic(), &turn),
                    _ => 0,
                };
                self.log.refresh_to_turn(likely).await?
            } else {
                self.log.refresh().await?
            };
        }
        Ok(base)
    }

    /// The changes of a group against `base`, and for each member its versions or why not.
    ///
    /// A refusal is final, so it must not come from a state that somebody has changed since: before
    /// one is given, the head is looked at, and if it moved, it is the error.
    async fn draft(
        &self,
        base: &Snapshot,
        group: &[Intent],
    ) -> Result<(CommitDraft, Drafted), Snapshot> {
        let mut draft = Draft::new(&self.log, &self.env, self.own.get(), base.clone());
        let mut drafted = Vec::with_capacity(group.len());
        drafted.resize_with(group.len(), || Err(Rejected::Stale));
        // A change of data knows nothing of appends of its own commit, so they come after it.
        let is_first = |intent: &Intent| matches!(intent.work, Work::Revise(_));
        for turn in [true, false] {
            for (intent, drafted) in group.iter().zip(&mut drafted) {
                if is_first(intent) == turn {
                    *drafted = draft.add(&intent.work).await;
                }
            }
        }
        if drafted.iter().any(|member| matches!(member, Err(Rejected::Failed(_))))
            && let Ok(newest) = self.log.refresh().await
            && newest.next_commit() != base.next_commit()
        {
            return Err(newest);
        }
        let Draft { rows, merged, covers, .. } = draft;
        Ok((CommitDraft { rows, merged, covers, ..CommitDraft::default() }, drafted))
    }

    /// One try: part beside data, then the commit.
    async fn land(
        &self,
        base: Snapshot,
        mut changes: CommitDraft,
        mut group: Vec<Intent>,
        versions: Vec<Vec<(Version, WriteTime)>>,
    ) -> Progress {
        changes.transaction = group.iter().find_map(|intent| intent.work.transaction());
        let staged = match self.stage(base, changes).await {
            Ok(staged) => staged,
            Err(error) => {
                reject_all(group, &error);
                return Progress::Done;
            }
        };
        let (part, failed) = tokio::join!(self.log.put_part(&staged), wait_for_puts(&mut group));
        if let Err(error) = part {
            reject_all(group, &error.into());
            return Progress::Done;
        }
        if failed.iter().any(Option::is_some) {
            // Without the failed members the rows are others, so the part is written anew.
            return Progress::Again(without_failed(group, failed));
        }
        match self.log.publish(staged).await {
            Ok(CommitOutcome::Committed(snapshot)) => {
                if let Some(landed) = &self.landed {
                    upkeep::tell(landed, snapshot.tail_length());
                }
                let touched = group.iter().flat_map(|intent| intent.work.series_with_new_files());
                self.touched.add(touched, &snapshot, self.log.turn().rivals);
                for (intent, versions) in group.into_iter().zip(versions) {
                    answer(intent.reply, Ok(Landed { versions }));
                }
                Progress::Done
            }
            Ok(CommitOutcome::Conflict) => Progress::Again(group),
            Err(error) => {
                reject_all(group, &error.into());
                Progress::Done
            }
        }
    }

    /// Encodes rows; off the runtime if there are so many that it would be held up.
    async fn stage(&self, base: Snapshot, draft: CommitDraft) -> Result<StagedCommit, Error> {
        if draft.rows.len() <= STAGE_INLINE_ROWS_MAX {
            return Ok(self.log.stage(&base, draft)?);
        }
        let log = self.log.clone();
        let staged = tokio::task::spawn_blocking(move || log.stage(&base, draft));
        Ok(staged.await.map_err(|_| Error::Closed)??)
    }

    async fn probe(&mut self) -> Result<(), Error> {
        if !self.probed {
            let prefix = Path::from(tidelog_oplog::LOG_DIRECTORY);
            let randomness = self.env.randomness.as_ref();
            probe::put_if_absent(self.store.as_ref(), &prefix, randomness).await?;
            self.probed = true;
        }
        Ok(())
    }
}

/// For each member of a group, its versions or why it cannot be committed.
type Drafted = Vec<Result<Vec<(Version, WriteTime)>, Rejected>>;

enum Progress {
    Done,
    Again(Vec<Intent>),
}

impl Work {
    fn path(&self) -> TreePath {
        match self {
            Self::Append(appends) => {
                appends.first().map_or_else(TreePath::root, |append| append.path.clone())
            }
            Self::Tree(
                TreeChange::Create { path, .. }
                | TreeChange::Rename { from: path, .. }
                | TreeChange::Remove { path, .. }
                | TreeChange::Lay { path, .. },
            ) => path.clone(),
            Self::Compact(compaction) => compaction.path.clone(),
            Self::Revise(revision) => revision.path.clone(),
            Self::Flush(_)
            | Self::Recover(_)
            | Self::Claim(_)
            | Self::Release(_)
            | Self::TakeOver(_)
            | Self::Merge(_)
            | Self::Vacuum(_)
            | Self::History(_)
            | Self::VacuumFiles(_) => TreePath::root(),
        }
    }

    /// The series to which it adds rows in files.
    /// Once for each file.
    fn series_with_new_files(&self) -> Vec<Grown> {
        let of_append = |append: &SeriesAppend| {
            let is_new = !matches!(append.target.state, TargetState::Existing);
            let of_file = move |file: &FileRow| Grown { node: file.node, is_new };
            append.files.iter().map(of_file).collect::<Vec<_>>()
        };
        let of_flush =
            |file: &FileRow| Grown { node: file.node, is_new: file.min_version == Version::FIRST };
        match self {
            Self::Append(appends) => appends.iter().flat_map(of_append).collect(),
            Self::Recover(recovery) => recovery.appends.iter().flat_map(of_append).collect(),
            Self::Flush(flush) => flush.files.iter().map(of_flush).collect(),
            Self::Revise(revision) => {
                let of_file = |file: &FileRow| Grown { node: file.node, is_new: false };
                revision.files.put().map(of_file).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Files that must be durable before the commit.
    fn puts(&mut self) -> impl Iterator<Item = JoinHandle<Result<(), Error>>> + '_ {
        let appends = match self {
            Self::Append(appends) => appends.as_mut_slice(),
            Self::Recover(recovery) => recovery.appends.as_mut_slice(),
            _ => &mut [],
        };
        appends.iter_mut().flat_map(|append| append.puts.drain(..))
    }

    fn transaction(&self) -> Option<TransactionId> {
        match self {
            Self::Append(appends) => Some(appends.first()?.versions.first()?.1),
            Self::Flush(flush) => Some(flush.versions.first()?.transaction),
            Self::Recover(recovery) => Some(recovery.appends.first()?.versions.first()?.1),
            Self::Revise(revision) => Some(revision.transaction),
            Self::Tree(_)
            | Self::Claim(_)
            | Self::Release(_)
            | Self::TakeOver(_)
            | Self::Merge(_)
            | Self::Vacuum(_)
            | Self::Compact(_)
            | Self::History(_)
            | Self::VacuumFiles(_) => None,
        }
    }
}

fn answer(reply: oneshot::Sender<Result<Landed, Rejected>>, with: Result<Landed, Rejected>) {
    // A caller that has gone away does not want the answer.
    let _ = reply.send(with);
}

fn reject_all(group: Vec<Intent>, error: &Error) {
    for intent in group {
        answer(intent.reply, Err(error.clone().into()));
    }
}

/// Waits until every data file of the group is durable; tells which members have one that is not.
async fn wait_for_puts(group: &mut [Intent]) -> Vec<Option<Error>> {
    let mut failed = Vec::with_capacity(group.len());
    for intent in group {
        let mut first = None;
        for put in intent.work.puts() {
            let outcome = put.await.unwrap_or(Err(Error::Closed));
            first = first.or(outcome.err());
        }
        failed.push(first);
    }
    failed
}

fn without_failed(group: Vec<Intent>, failed: Vec<Option<Error>>) -> Vec<Intent> {
    let mut left = Vec::new();
    for (intent, failed) in group.into_iter().zip(failed) {
        match failed {
            Some(error) => answer(intent.reply, Err(error.into())),
            None => left.push(intent),
        }
    }
    left
}

/// The rows of a commit while its members are added one after the other.
pub(crate) struct Draft<'a> {
    pub(crate) log: &'a Log,
    /// The claim of this handle.
    own: Option<Own>,
    pub(crate) base: Snapshot,
    pub(crate) tree: TreeDraft,
    /// What is kept of the history, the changes of this draft included.
    pub(crate) history: History,
    heads: HashMap<NodeId, Version>,
    given_ids: HashSet<(NodeId, TransactionId)>,
    /// Files that are removed.
    pub(crate) removed: HashSet<FileId>,
    pub(crate) rows: Vec<Row>,
    merged: Vec<Merged>,
    covers: Option<(WalId, u64)>,
}

impl<'a> Draft<'a> {
    fn new(log: &'a Log, env: &'a Env, own: Option<Own>, base: Snapshot) -> Self {
        let tree = TreeDraft::new(env.clone(), base.tree().clone(), base.last_write());
        let history = base.history().clone();
        Self {
            log,
            own,
            base,
            tree,
            history,
            heads: HashMap::new(),
            given_ids: HashSet::new(),
            removed: HashSet::new(),
            rows: Vec::new(),
            merged: Vec::new(),
            covers: None,
        }
    }

    /// Adds all rows of one member, or none.
    async fn add(&mut self, work: &Work) -> Result<Vec<(Version, WriteTime)>, Rejected> {
        let (rows, tree, heads) = (self.rows.len(), self.tree.clone(), self.heads.clone());
        let history = self.history.clone();
        let added = match work {
            Work::Append(appends) => self.add_appends(appends).await,
            Work::Tree(change) => self.add_change(change).map(|()| Vec::new()),
            Work::Flush(flush) => self.add_flush(flush).map(|()| Vec::new()),
            Work::Recover(recovery) => self.add_recovery(recovery).await,
            Work::Claim(epoch) => self.add_claim(epoch).map(|()| Vec::new()),
            Work::Release(epoch) => self.add_release(*epoch).map(|()| Vec::new()),
            Work::TakeOver(end) => self.add_take_over(end).map(|()| Vec::new()),
            Work::Merge(merged) => self.add_merge(merged).map(|()| Vec::new()),
            Work::Vacuum(expired) => self.add_vacuum(expired).map(|()| Vec::new()),
            Work::Compact(compaction) => self.add_compaction(compaction).await.map(|()| Vec::new()),
            Work::Revise(revision) => self.add_revision(revision).await.map(|one| vec![one]),
            Work::History(change) => self.add_history(change).map(|()| Vec::new()),
            Work::VacuumFiles(doomed) => self.add_vacuum_files(doomed).await.map(|()| Vec::new()),
        };
        if added.is_err() {
            self.rows.truncate(rows);
            (self.tree, self.heads, self.history) = (tree, heads, history);
        }
        added
    }

    /// Versions are numbered and the tree is changed by nobody but who has claimed the store.
    pub(crate) fn refuse_others(&self) -> Result<(), Rejected> {
        match (self.base.epoch(), self.own) {
            (Some(epoch), Some(own)) if epoch.id == own.epoch => Ok(()),
            (_, Some(own)) => Err(fenced(&self.base, own.wal).into()),
            (Some(epoch), None) => Err(Error::Claimed { epoch: epoch.to_string() }.into()),
            (None, None) => Ok(()),
        }
    }

    fn add_change(&mut self, change: &TreeChange) -> Result<(), Rejected> {
        self.refuse_others()?;
        self.tree.change(change)?;
        self.rows.extend(self.tree.take_rows().into_iter().map(Row::Tree));
        Ok(())
    }

    /// What was acknowledged keeps the numbers and times that it was acknowledged with.
    fn add_flush(&mut self, flush: &Flush) -> Result<(), Rejected> {
        match self.base.epoch() {
            Some(epoch) if epoch.id == flush.epoch => {}
            _ => return Err(fenced(&self.base, flush.wal).into()),
        }
        if self.base.covered(flush.wal) >= flush.through {
            return Err(Rejected::Stale);
        }
        // To a flush, stale is what has landed.
        if self.refuse_deleted(flush.puts_since, &flush.files).is_err() {
            return Err(Error::FilesDeleted.into());
        }
        for row in &flush.tree {
            self.tree.replay(row.clone())?;
        }
        self.rows.extend(self.tree.take_rows().into_iter().map(Row::Tree));
        for row in &flush.versions {
            self.tree.note_write(row.timestamp);
            self.rows.push(Row::Version(VersionRow::clone(row)));
        }
        let timestamp = self.tree.last_write();
        let files = flush.files.iter().cloned();
        self.rows.extend(files.map(|file| Row::File(FileRow { timestamp, ..file })));
        self.covers = Some((flush.wal, flush.through));
        Ok(())
    }

    fn add_claim(&mut self, epoch: &Epoch) -> Result<(), Rejected> {
        if let Some(held) = self.base.epoch()
            && self.own.is_none_or(|own| own.epoch != held.id)
        {
            return Err(Error::Claimed { epoch: held.to_string() }.into());
        }
        self.push_store(StoreOp::Claim(epoch.clone()))
    }

    fn add_release(&mut self, epoch: Uuid) -> Result<(), Rejected> {
        let is_held = self.base.epoch().is_some_and(|held| held.id == epoch);
        if !is_held && self.base.all_taken_over().all(|end| end.epoch != epoch) {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::Release(epoch))
    }

    fn add_take_over(&mut self, end: &TakeOver) -> Result<(), Rejected> {
        if self.base.epoch().is_none_or(|held| held.id != end.epoch) {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::TakeOver(end.clone()))
    }

    fn add_merge(&mut self, merged: &Merged) -> Result<(), Rejected> {
        // Two tasks of this handle may have merged the same parts.
        let is_taken = self.merged.iter().any(|other| other.shares_inputs_with(merged));
        if is_taken || !merged.is_live_in(&self.base) {
            return Err(Rejected::Stale);
        }
        self.merged.push(merged.clone());
        Ok(())
    }

    /// What has become part of the log since is not deleted.
    fn add_vacuum(&mut self, expired: &Expired) -> Result<(), Rejected> {
        let objects = expired.announcement(&self.base);
        if objects.is_empty() {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::Vacuum { objects })
    }

    /// Anybody may, also while another has the store alone: no answer changes.
    async fn add_compaction(&mut self, compaction: &Compaction) -> Result<(), Rejected> {
        let Compaction { node, inputs, outputs, .. } = compaction;
        if self.tree.tree().node(*node).is_none() || self.base.tree().node(*node).is_none() {
            return Err(Rejected::Stale);
        }
        let series = self.log.series(&self.base, *node).await?;
        let files = || inputs.iter().map(|file| file.file);
        if !series.are_live(files()) || files().any(|file| self.removed.contains(&file)) {
            return Err(Rejected::Stale);
        }
        self.refuse_deleted(compaction.puts_since, outputs)?;
        self.removed.extend(files());
        let timestamp = self.tree.last_write();
        self.rows.extend(inputs.iter().map(|file| {
            // What it said of its pages and columns stands in the row that added it.
            Row::File(FileRow {
                op: FileOp::Remove,
                timestamp,
                page_hashes: Bytes::new(),
                column_stats: Bytes::new(),
                runs: [].into(),
                ..FileRow::clone(file)
            })
        }));
        let added = outputs.iter().cloned().map(|file| FileRow { timestamp, ..file });
        self.rows.extend(added.map(Row::File));
        Ok(())
    }

    async fn add_appends(
        &mut self,
        appends: &[SeriesAppend],
    ) -> Result<Vec<(Version, WriteTime)>, Rejected> {
        self.refuse_others()?;
        let mut versions = Vec::new();
        for append in appends {
            self.add_append(append, &mut versions).await?;
        }
        Ok(versions)
    }

    /// Rows come in once: with them the commit says how far it has come.
    async fn add_recovery(
        &mut self,
        recovery: &Recovery,
    ) -> Result<Vec<(Version, WriteTime)>, Rejected> {
        if self.base.covered(recovery.wal) != recovery.after {
            return Err(Rejected::Stale);
        }
        let versions = self.add_appends(&recovery.appends).await?;
        self.covers = Some((recovery.wal, recovery.through));
        Ok(versions)
    }

    async fn add_append(
        &mut self,
        append: &SeriesAppend,
        versions: &mut Vec<(Version, WriteTime)>,
    ) -> Result<(), Rejected> {
        self.tree.settle_target(&append.path, &append.target)?;
        self.rows.extend(self.tree.take_rows().into_iter().map(Row::Tree));
        let node = append.target.node;
        self.refuse_deleted(append.puts_since, &append.files)?;
        self.refuse_known_ids(append).await?;
        let head = self.head(append).await?;
        let base = head.next();
        let mut version = head;
        for (facts, transaction) in &append.versions {
            version = version.next();
            let timestamp = self.tree.now();
            versions.push((version, timestamp));
            self.rows.push(Row::Version(VersionRow {
                op: VersionOp::Append,
                node,
                path: append.path.clone(),
                version,
                timestamp,
                rows: facts.rows,
                range: Some(facts.range),
                time_column: Arc::clone(&append.time_column),
                transaction: *transaction,
                detail: None,
                commit: CommitVersion::default(),
            }));
        }
        self.heads.insert(node, version);
        let numbered = |relative: Version| Version::new(relative.number() + base.number());
        for file in &append.files {
            self.rows.push(Row::File(FileRow {
                op: FileOp::Add,
                timestamp: self.tree.last_write(),
                min_version: numbered(file.min_version),
                max_version: numbered(file.max_version),
                version_base: base.number(),
                ..file.clone()
            }));
        }
        Ok(())
    }

    /// A write that landed before, in this draft or in the log, is not to be written again: the
    /// caller looks it up.
    async fn refuse_known_ids(&mut self, append: &SeriesAppend) -> Result<(), Rejected> {
        let node = append.target.node;
        for id in &append.given_ids {
            if !self.given_ids.insert((node, *id)) {
                return Err(Rejected::Stale);
            }
        }
        if append.given_ids.is_empty() || self.base.tree().node(node).is_none() {
            return Ok(());
        }
        let series = self.log.series(&self.base, node).await?;
        let known = |id: &TransactionId| series.find_transaction(*id).is_some();
        if append.given_ids.iter().any(known) { Err(Rejected::Stale) } else { Ok(()) }
    }

    /// Whether the draft has versions of a series.
    pub(crate) fn has_appended(&self, node: NodeId) -> bool {
        self.heads.contains_key(&node)
    }

    pub(crate) fn note_head(&mut self, node: NodeId, version: Version) {
        self.heads.insert(node, version);
    }

    /// The newest version of the append's series, those of this draft included.
    async fn head(&self, append: &SeriesAppend) -> Result<Version, Rejected> {
        let node = append.target.node;
        if let Some(head) = self.heads.get(&node) {
            return Ok(*head);
        }
        if self.base.tree().node(node).is_none() {
            return Ok(Version::NONE);
        }
        let series: Arc<SeriesState> = self.log.series(&self.base, node).await?;
        Ok(series.head())
    }
}
