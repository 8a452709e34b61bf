//! The thread that gives versions their numbers and writes them to the log ahead.
//!
//! ```text
//! appenders ──Pending──▶ queue ──▶ take all that is there
//!                                    │ number them, against the hot state
//!                                    │ one write, one sync
//!                                    │ show them, all at once
//!                                    └──▶ answer each appender
//! ```
//!
//! While one group is synced, the next one gathers: appends of many tasks share a sync. Nothing is
//! shown before it is durable, and what cannot be made durable leaves no trace: the next group gets
//! the same numbers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use rpds::{HashTrieMapSync, HashTrieSetSync};
use tidelog_core::memory::Account;
use tidelog_core::{CommitVersion, NodeId, TransactionId, TreePath, Version, WriteTime};
use tidelog_oplog::{Log, Snapshot, TreeRow, VersionOp, VersionRow};
use tidelog_wal::{Payload, Wal};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::WalDurability;
use super::record::{self, SeriesRecord};
use super::shared::{Counters, Shared};
use crate::commit::{Landed, Rejected, Target};
use crate::error::Error;
use crate::hot::{HotFile, HotSeries};
use crate::prepare::VersionFacts;
use crate::series_schema::SeriesSchema;
use crate::tree_draft::TreeDraft;

const GROUP_MAX: usize = 4096;
/// A log of so many bytes is worth a new segment, for it is read whole when it is opened.
const ROTATE_FROM_BYTES: u64 = 4 * 1024 * 1024;

/// Versions of one series, prepared against the series as the caller saw it.
#[derive(Debug)]
pub(crate) struct HotAppend {
    pub(crate) path: TreePath,
    pub(crate) target: Target,
    pub(crate) schema: Arc<SeriesSchema>,
    pub(crate) versions: Vec<(VersionFacts, TransactionId)>,
    pub(crate) given_ids: Vec<TransactionId>,
    pub(crate) file: HotFile,
    /// The rows as the log ahead keeps them.
    pub(crate) encoded: Bytes,
    /// The newest version that is committed.
    pub(crate) committed: Version,
    /// The commit up to which it is known that the given ids were not written before.
    pub(crate) checked: CommitVersion,
}

/// Appends that become durable and visible together, and where to answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) appends: Vec<HotAppend>,
    pub(crate) reply: oneshot::Sender<Result<Landed, Rejected>>,
    pub(crate) place: Place,
}

/// The share of what may be queued, and of the memory budget, that an append has until it is answered.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) _memory: Account,
}

impl HotAppend {
    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.hot_bytes() + self.encoded.len()
    }

    /// Bytes of memory that it takes once it is acknowledged.
    fn hot_bytes(&self) -> usize {
        self.file.bytes() + self.versions.len() * size_of::<VersionRow>()
    }
}

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    Append(Pending),
    /// Take nothing more until the receiver is told so or the other end is dropped.
    Pause(oneshot::Sender<()>, Receiver<()>),
    /// All records up to this one are committed.
    Release(u64),
    /// Nothing more will come.
    Stop,
}

pub(crate) struct Sequencer {
    wal: Wal,
    shared: Arc<Shared>,
    log: Log,
    tree: TreeDraft,
    heads: HashMap<NodeId, Version>,
    /// Ids that callers gave, of versions that are not committed, and the last flush's commit.
    given_ids: HashMap<(NodeId, TransactionId), u64>,
    released: u64,
    flushed_at: CommitVersion,
    /// The commit that would have followed when the last pause ended: what was prepared before does
    /// not know what was committed meanwhile.
    paused_at: CommitVersion,
    synced_at: Duration,
}

/// Appends that have their numbers and are not yet durable.
struct Placed {
    reply: oneshot::Sender<Result<Landed, Rejected>>,
    landed: Landed,
    tree: Vec<TreeRow>,
    series: Vec<Numbered>,
    _place: Place,
}

/// Versions of one series with their numbers.
struct Numbered {
    versions: Vec<VersionRow>,
    file: HotFile,
    schema: Arc<SeriesSchema>,
}

/// The state that a group leads to.
///
/// Cheap to clone: each append of a group that fails leaves the one before it.
#[derive(Clone)]
struct Draft {
    tree: TreeDraft,
    heads: HashTrieMapSync<NodeId, Version>,
    given_ids: HashTrieSetSync<(NodeId, TransactionId)>,
}

impl Sequencer {
    pub(crate) fn new(wal: Wal, shared: Arc<Shared>, log: Log) -> Self {
        let snapshot = log.snapshot();
        let tree =
            TreeDraft::new(shared.env.clone(), snapshot.tree().clone(), snapshot.last_write());
        Self {
            synced_at: shared.env.clock.monotonic(),
            wal,
            shared,
            log,
            tree,
            heads: HashMap::new(),
            given_ids: HashMap::new(),
            released: 0,
            flushed_at: snapshot.next_commit(),
            paused_at: snapshot.next_commit(),
        }
    }

    /// Runs until all senders are gone.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let first = match self.next(messages) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.sync_if_due() {
                        self.shared.fail(&error);
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let mut pending = Vec::new();
            let mut other = Self::sort(first, &mut pending);
            while other.is_none()
                && pending.len() < GROUP_MAX
                && let Ok(next) = messages.try_recv()
            {
                other = Self::sort(next, &mut pending);
            }
            if !pending.is_empty() {
                self.append(pending);
            }
            match other {
                Some(Message::Pause(ready, resume)) => self.pause(ready, &resume),
                Some(Message::Release(through)) => self.release(through),
                Some(Message::Stop) => break,
                Some(Message::Append(_)) | None => {}
            }
        }
        // What is only written is made durable; what fails here is told at the next opening.
        if let Err(error) = self.wal.trim() {
            tracing::warn!(%error, "the write-ahead log was closed without a sync");
        }
    }

    fn next(&self, messages: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        match self.shared.options.durability {
            WalDurability::Interval(every) if self.has_unsynced() => messages.recv_timeout(every),
            _ => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn sort(message: Message, pending: &mut Vec<Pending>) -> Option<Message> {
        match message {
            // Whoever does not wait any more has not been promised anything.
            Message::Append(append) if append.reply.is_closed() => None,
            Message::Append(append) => {
                pending.push(append);
                None
            }
            other => Some(other),
        }
    }

    fn append(&mut self, pending: Vec<Pending>) {
        let appends = pending.iter().flat_map(|one| &one.appends);
        let bytes = appends.map(HotAppend::hot_bytes).sum::<usize>() as u64;
        if let Err(error) = self.shared.wait_for_room(bytes) {
            return pending
                .into_iter()
                .for_each(|one| answer(one.reply, Err(error.clone().into())));
        }
        let mut draft = Draft {
            tree: self.tree.clone(),
            heads: HashTrieMapSync::new_sync(),
            given_ids: HashTrieSetSync::new_sync(),
        };
        let (mut placed, mut payloads) = (Vec::new(), Vec::new());
        for one in pending {
            let before = draft.clone();
            match self.place(&mut draft, one.appends) {
                Ok((landed, tree, series, payload)) => {
                    let (reply, _place) = (one.reply, one.place);
                    placed.push(Placed { reply, landed, tree, series, _place });
                    payloads.push(payload);
                }
                Err(rejected) => {
                    draft = before;
                    answer(one.reply, Err(rejected));
                }
            }
        }
        if placed.is_empty() {
            return;
        }
        match self.make_durable(&payloads) {
            Ok(last_seq) => self.show(draft, placed, last_seq),
            Err(error) => {
                if self.wal.has_failed() {
                    self.shared.fail(&error);
                }
                placed.into_iter().for_each(|one| answer(one.reply, Err(error.clone().into())));
            }
        }
    }

    /// Gives the versions of one append their numbers and times.
    fn place(
        &self,
        draft: &mut Draft,
        appends: Vec<HotAppend>,
    ) -> Result<(Landed, Vec<TreeRow>, Vec<Numbered>, Payload), Rejected> {
        let (mut landed, mut records, mut series) = (Vec::new(), Vec::new(), Vec::new());
        for append in appends {
            if append.checked < self.paused_at {
                return Err(Rejected::Stale);
            }
            draft.tree.settle_target(&append.path, &append.target)?;
            let node = append.target.node;
            self.refuse_known_ids(draft, &append)?;
            let known = draft.heads.get(&node).or_else(|| self.heads.get(&node)).copied();
            let head = known.unwrap_or(append.committed);
            let versions = numbered(&append, head, || draft.tree.now());
            landed.extend(versions.iter().map(|row| (row.version, row.timestamp)));
            draft.heads.insert_mut(node, versions.last().map_or(head, |row| row.version));
            let record = SeriesRecord {
                node,
                path: append.path.clone(),
                base: head.next(),
                unique: append.file.row().unique,
                versions: versions.clone(),
            };
            let HotAppend { file, schema, encoded, .. } = append;
            records.push((record, encoded));
            series.push(Numbered { versions, file: file.numbered(head.next()), schema });
        }
        let tree = draft.tree.take_rows();
        let payload = Payload::new(record::encode(&tree, &records)?);
        Ok((Landed { versions: landed }, tree, series, payload))
    }

    /// A write that was acknowledged before is not written again: the caller looks it up.
    fn refuse_known_ids(&self, draft: &mut Draft, append: &HotAppend) -> Result<(), Rejected> {
        let node = append.target.node;
        for id in &append.given_ids {
            let id = (node, *id);
            // Ids that have been flushed since the caller looked are not remembered here.
            let doubtful = append.checked < self.flushed_at;
            if doubtful || self.given_ids.contains_key(&id) || draft.given_ids.contains(&id) {
                return Err(Rejected::Stale);
            }
            draft.given_ids.insert_mut(id);
        }
        Ok(())
    }

    /// Writes records and, if that is what is promised, syncs them.
    fn make_durable(&mut self, payloads: &[Payload]) -> Result<u64, Error> {
        let appended = self.wal.append(payloads)?;
        match self.shared.options.durability {
            WalDurability::Sync => self.sync()?,
            WalDurability::Interval(_) => self.sync_if_due()?,
            WalDurability::Memory => {}
        }
        let counters = &self.shared.counters;
        counters.wal_bytes.store(self.wal.bytes(), std::sync::atomic::Ordering::Relaxed);
        Ok(appended.last_seq)
    }

    fn has_unsynced(&self) -> bool {
        self.wal.durable_seq() + 1 < self.wal.next_seq()
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.wal.sync()?;
        self.synced_at = self.shared.env.clock.monotonic();
        Counters::add(&self.shared.counters.syncs, 1);
        Ok(())
    }

    /// Syncs what has waited for as long as was promised.
    fn sync_if_due(&mut self) -> Result<(), Error> {
        let WalDurability::Interval(every) = self.shared.options.durability else { return Ok(()) };
        let since = self.shared.env.clock.monotonic().saturating_sub(self.synced_at);
        if since >= every && self.has_unsynced() { self.sync() } else { Ok(()) }
    }

    fn show(&mut self, draft: Draft, placed: Vec<Placed>, last_seq: u64) {
        let counters = &self.shared.counters;
        let mut answers = Vec::with_capacity(placed.len());
        let shown = self.shared.publish(self.wal.bytes(), |hot| {
            for one in placed {
                answers.push((one.reply, one.landed));
                hot.active.tree.extend(one.tree);
                for Numbered { versions, file, schema } in one.series {
                    Counters::add(&counters.appends, versions.len() as u64);
                    Counters::add(&counters.appended_rows, file.row().rows);
                    let node = file.row().node;
                    hot.push(node, || HotSeries::new(schema), versions, file)?;
                }
            }
            hot.active.last_seq = last_seq;
            Ok(())
        });
        if let Err(error) = &shown {
            // It is durable and cannot be shown, so nothing that follows may be.
            self.shared.fail(error);
        }
        self.tree = draft.tree;
        self.heads.extend(draft.heads.iter().map(|(node, head)| (*node, *head)));
        self.given_ids.extend(draft.given_ids.iter().map(|id| (*id, last_seq)));
        for (reply, landed) in answers {
            let outcome = shown.clone().map(|()| landed).map_err(Rejected::from);
            answer(reply, outcome);
        }
    }

    /// Waits while somebody else commits, and looks at the tree anew.
    fn pause(&mut self, ready: oneshot::Sender<()>, resume: &Receiver<()>) {
        if ready.send(()).is_ok() {
            // Both a message and the sender's end mean that it goes on.
            let _ = resume.recv();
            if self.shared.hot().version_count() > 0 {
                // What came before could not be committed, so nobody else has committed either, and what
                // is hot goes on.
                return;
            }
            let snapshot = self.log.snapshot();
            self.take_tree(&snapshot);
            // Appends that went past the log ahead have been numbered by their commits.
            self.heads.clear();
            self.flushed_at = snapshot.next_commit();
            self.paused_at = snapshot.next_commit();
        }
    }

    /// Goes on from the tree of the log, which has all that this thread has made.
    fn take_tree(&mut self, snapshot: &Snapshot) {
        let last_write = self.tree.last_write().max(snapshot.last_write());
        let env = self.shared.env.clone();
        self.tree = TreeDraft::new(env, snapshot.tree().clone(), last_write);
    }

    fn release(&mut self, through: u64) {
        self.released = self.released.max(through);
        self.given_ids.retain(|_, seq| *seq > through);
        let snapshot = self.log.snapshot();
        self.flushed_at = snapshot.next_commit();
        if self.shared.hot().version_count() == 0 {
            // Two trees of the same nodes would take the memory of both.
            self.take_tree(&snapshot);
        }
        if let Err(error) = self.shorten() {
            tracing::warn!(%error, "the write-ahead log was not shortened; it is tried again");
        }
        let counters = &self.shared.counters;
        counters.wal_bytes.store(self.wal.bytes(), std::sync::atomic::Ordering::Relaxed);
    }
}

impl Sequencer {
    /// Lets go of segments; also of the active one, if it is large and all of it is committed.
    fn shorten(&mut self) -> Result<(), tidelog_wal::Error> {
        let all = self.released + 1 == self.wal.next_seq();
        if all && self.wal.bytes() > ROTATE_FROM_BYTES {
            self.wal.rotate()?;
        }
        self.wal.release(self.released).map(|_| ())
    }
}

fn numbered(
    append: &HotAppend,
    head: Version,
    mut now: impl FnMut() -> WriteTime,
) -> Vec<VersionRow> {
    let time_column: Arc<str> = append.schema.time_column().into();
    let mut version = head;
    let mut rows = Vec::with_capacity(append.versions.len());
    for (facts, transaction) in &append.versions {
        version = version.next();
        rows.push(VersionRow {
            op: VersionOp::Append,
            node: append.target.node,
            path: append.path.clone(),
            version,
            timestamp: now(),
            rows: facts.rows,
            range: Some(facts.range),
            time_column: Arc::clone(&time_column),
            transaction: *transaction,
            detail: None,
            commit: CommitVersion::default(),
        });
    }
    rows
}

fn answer(reply: oneshot::Sender<Result<Landed, Rejected>>, with: Result<Landed, Rejected>) {
    // A caller that has gone away does not want the answer.
    let _ = reply.send(with);
}
