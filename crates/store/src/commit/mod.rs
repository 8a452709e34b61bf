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
//!
//! | module | holds |
//! |---|---|
//! | `work` | what is to be committed, and what became of it |
//! | `draft` | the rows of a commit while its members are added |
//! | `own` | the claim of a handle that writes alone |

mod draft;
mod own;
mod work;

use std::sync::Arc;

use tidelog_core::{Env, Version, WriteTime};
use tidelog_oplog::{CommitDraft, CommitOutcome, Log, Snapshot, StagedCommit};
use tidelog_storage::object_store::ObjectStore;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::probe;
use tokio::sync::{mpsc, oneshot, watch};

use crate::compact::{self, CompactionOptions, Touched};
use crate::engine::Ground;
use crate::error::Error;
use crate::pace::{Before, Pace};
use crate::upkeep::{self, UpkeepMode};

pub(crate) use self::draft::Draft;
pub(crate) use self::own::{Own, OwnEpoch, fenced};
pub(crate) use self::work::{
    Compaction, Flush, Landed, Recovery, Rejected, SeriesAppend, Target, TargetState, TreeChange,
    Work,
};

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
