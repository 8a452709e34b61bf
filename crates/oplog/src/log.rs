//! Opening, tailing and extending the log.
//!
//! A commit takes two steps, so that the caller can put data files beside the part:
//!
//! ```text
//! stage (rows → part, commit) → put_part ─┐
//!                   data files, by caller ─┴→ publish: put <N>.json if absent
//! ```
//!
//! `publish` never trusts an error: on any but success it reads `<N>.json` back and compares ids.
//! Ours means committed, another's means conflict, absent means that the same bytes are put again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tidelog_core::memory::Account;
use tidelog_core::{
    CommitVersion, Env, Holder, MemoryBudget, NodeId, TransactionId, WalId, WriteTime,
};
use tidelog_storage::error::io_cause;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectStore, PutMode};
use tidelog_storage::probe;
use uuid::Uuid;

use crate::LOG_DIRECTORY;
use crate::carried::{self, CARRIED_FROM_RIVALS, CARRIED_MAX, Recent};
use crate::commit::{self, Changes, Commit};
use crate::decode::Wanted;
use crate::error::Error;
use crate::fetch::{LogObjects, store_error};
use crate::inline::Inline;
use crate::open::{self, Opened};
use crate::part::{self, Described, Part};
use crate::row::{FileOp, FileRow, Row, StoreOp};
use crate::series::SeriesState;
use crate::state::Snapshot;
use crate::turn::{Turn, Writers};
use crate::upkeep::Merged;
use crate::{decode, encode};

/// With the pauses between them, doubled each time, a second or two: a server that is restarted is
/// back by then.
const PUBLISH_ATTEMPTS: u32 = 7;
const PUBLISH_BACKOFF_MS: u64 = 20;
/// Commits that a refresh asks for one after the other before it asks for several at once: more than
/// land between two turns of a writer among many.
const ONE_BY_ONE: i64 = 24;
/// Parts that a reader of the whole log holds decoded.
const BATCH_PARTS_AHEAD: usize = 4;
/// Series whose rows are read together: their rows fill some row groups of each part.
const SERIES_TOGETHER: usize = 4096;

/// The operation log of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: LogObjects,
    env: Env,
    /// This handle, in its commits.
    writer: Uuid,
    current: Mutex<Current>,
    /// What rows of series take of a memory budget, if they are to keep to one.
    memory: OnceLock<Mutex<SeriesMemory>>,
}

#[derive(Debug)]
struct SeriesMemory {
    bytes_max: u64,
    account: Account,
}

#[derive(Debug)]
struct Current {
    snapshot: Snapshot,
    /// When the snapshot was last known to be the newest, by both clocks.
    confirmed: Moment,
    /// The newest checkpoint that this handle knows of.
    checkpoint: Option<CommitVersion>,
    /// Who wrote the newest commits, and when.
    writers: Writers,
    /// What the next commit carries.
    recent: Recent,
}

/// A moment by two clocks: one that no user sets, one that runs while the machine sleeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    monotonic: Duration,
    wall: WriteTime,
}

impl Moment {
    pub(crate) fn now(env: &Env) -> Self {
        Self { monotonic: env.clock.monotonic(), wall: env.clock.now() }
    }

    /// Time passed, by the clock that says more.
    pub(crate) fn until(&self, later: Self) -> Duration {
        let wall = later.wall.micros().saturating_sub(self.wall.micros());
        let wall = Duration::from_micros(u64::try_from(wall).unwrap_or_default());
        later.monotonic.saturating_sub(self.monotonic).max(wall)
    }
}

/// Settings of a log that are fixed when it is made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LogOptions {
    /// How long objects of the log are kept after they have ceased to be part of it. A reader or
    /// writer that pauses for longer starts anew.
    pub retention: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { retention: commit::RETENTION_DEFAULT }
    }
}

/// A commit that is encoded but has not been tried.
#[derive(Debug, Clone)]
pub struct StagedCommit {
    base: Snapshot,
    confirmed: Moment,
    commit: Commit,
    json: Bytes,
    /// Where its own rows go, and as which bytes; `None` if it only replaces parts.
    part: Option<(Path, Bytes)>,
    rows: Vec<Row>,
    transaction: Option<TransactionId>,
}

/// What is to be committed.
#[derive(Debug, Default)]
pub struct CommitDraft {
    /// Rows that the log does not have.
    pub rows: Vec<Row>,
    /// What upkeep has merged.
    pub merged: Vec<Merged>,
    /// The id of one of the writes inside, for the error if the outcome cannot be told.
    pub transaction: Option<TransactionId>,
    /// The write-ahead log whose records up to this number have their rows in the log from now on.
    pub covers: Option<(WalId, u64)>,
}

/// How a commit ended.
#[derive(Debug)]
#[must_use]
pub enum CommitOutcome {
    /// It landed; this is the state after it.
    Committed(Snapshot),
    /// Another commit has its number: look at the head again and decide anew.
    Conflict,
}

impl Log {
    /// Makes an empty log, after proving that the store can hold one.
    ///
    /// # Errors
    /// [`Error::AlreadyAStore`] if there is one, [`Error::Storage`] if the store cannot.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        env: Env,
        options: &LogOptions,
    ) -> Result<Self, Error> {
        let log = Self::handle(store, env);
        let objects = &log.inner.objects;
        let first = commit::object_of(&objects.prefix, CommitVersion::new(0));
        if objects.object(&first).await?.is_some() {
            return Err(Error::AlreadyAStore);
        }
        let env = &log.inner.env;
        let randomness = env.randomness.as_ref();
        probe::put_if_absent(objects.store.as_ref(), &objects.prefix, randomness).await?;
        let json = commit::encode_first(log.random_id(), env, options.retention)?;
        match objects.store.put_opts(&first, json.into(), PutMode::Create.into()).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Err(Error::AlreadyAStore),
            Err(source) => return Err(store_error("creating", &first, source)),
        }
        log.refresh().await?;
        Ok(log)
    }

    /// Opens an existing log and reads all that every reader needs of it.
    ///
    /// # Errors
    /// [`Error::NotAStore`] if there is none; damage, a newer format, or the store's failure.
    pub async fn open(store: Arc<dyn ObjectStore>, env: Env) -> Result<Self, Error> {
        let log = Self::handle(store, env);
        log.reopen().await?;
        Ok(log)
    }

    fn handle(store: Arc<dyn ObjectStore>, env: Env) -> Self {
        let objects = LogObjects { store, prefix: Path::from(LOG_DIRECTORY) };
        let confirmed = Moment::now(&env);
        let current = Current {
            snapshot: Snapshot::empty(),
            confirmed,
            checkpoint: None,
            writers: Writers::default(),
            recent: Recent::default(),
        };
        let writer = TransactionId::random(env.randomness.as_ref()).as_uuid();
        let (current, memory) = (Mutex::new(current), OnceLock::new());
        Self { inner: Arc::new(Inner { objects, env, writer, current, memory }) }
    }

    /// Keeps rows of series within what `budget` has for them, from now on: those of series that were
    /// not asked for longest are let go and read again when somebody asks. Later calls do nothing.
    pub fn keep_within(&self, budget: &MemoryBudget) {
        self.inner.memory.get_or_init(|| {
            let bytes_max = budget.share(Holder::Log).ceiling;
            Mutex::new(SeriesMemory { bytes_max, account: budget.account(Holder::Log) })
        });
    }

    /// Lets go of rows of series in `snapshot` that are too many, and counts the others.
    fn trim(&self, snapshot: &Snapshot) {
        let Some(memory) = self.inner.memory.get() else { return };
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = snapshot.trim_series(memory.bytes_max);
        memory.account.set(bytes);
    }

    /// Reads the log from its newest checkpoint.
    async fn reopen(&self) -> Result<Snapshot, Error> {
        let asked = Moment::now(&self.inner.env);
        let Opened { snapshot, checkpoint } = open::open(&self.inner.objects).await?;
        self.advance(&snapshot, asked);
        self.note_checkpoint(checkpoint);
        Ok(self.snapshot())
    }

    pub(crate) fn objects(&self) -> &LogObjects {
        &self.inner.objects
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// The newest checkpoint that this handle knows of.
    pub(crate) fn checkpoint_known(&self) -> Option<CommitVersion> {
        self.current().checkpoint
    }

    pub(crate) fn note_checkpoint(&self, version: Option<CommitVersion>) {
        let mut current = self.current();
        current.checkpoint = current.checkpoint.max(version);
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest state that this handle has seen. No request is made.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.current().snapshot.clone()
    }

    /// The newest state, if it was known to be the newest at most `staleness` ago; else as
    /// [`Self::refresh`].
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn refresh_after(&self, staleness: Duration) -> Result<Snapshot, Error> {
        let (snapshot, confirmed) = self.newest();
        if !staleness.is_zero() && confirmed.until(Moment::now(&self.inner.env)) <= staleness {
            return Ok(snapshot);
        }
        self.refresh().await
    }

    fn newest(&self) -> (Snapshot, Moment) {
        let current = self.current();
        (current.snapshot.clone(), current.confirmed)
    }

    /// Reads what others have committed since, one request for each commit and one that finds none;
    /// beyond the first few commits many at a time.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn refresh(&self) -> Result<Snapshot, Error> {
        self.read_on(0, |_| false).await
    }

    /// As [`Self::refresh`], but asks for no more commits once all that write have committed since
    /// this handle has: then none is expected but its own. So many commits as are `likely` to have landed
    /// are read several at a time, where they carry one another.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub async fn refresh_to_turn(&self, likely: usize) -> Result<Snapshot, Error> {
        self.read_on(likely, |turn| turn.ahead == Some(0)).await
    }

    async fn read_on(
        &self,
        likely: usize,
        enough: impl Fn(Turn) -> bool,
    ) -> Result<Snapshot, Error> {
        let (mut snapshot, confirmed) = self.newest();
        let asked = Moment::now(&self.inner.env);
        let objects = &self.inner.objects;
        let (leapt, absent) = self.leap(snapshot.clone(), likely).await?;
        if leapt.next_commit() > snapshot.next_commit() && enough(self.turn()) {
            self.advance(&leapt, confirmed);
            return Ok(self.snapshot());
        }
        snapshot = leapt;
        let mut found = 0;
        // What was not there just now is not asked for again.
        while absent != Some(snapshot.next_commit()) {
            // Whoever is far behind asks for many at once, whoever is near for none in vain.
            let size = if found < ONE_BY_ONE { 1 } else { (found / 2).min(open::WINDOW) };
            let commits = open::window(objects, snapshot.next_commit(), size).await?;
            for commit in &commits {
                snapshot = self.apply(&snapshot, commit).await?;
            }
            let came = i64::try_from(commits.len()).unwrap_or(i64::MAX);
            found += came;
            if came < size {
                break;
            }
            if enough(self.turn()) {
                // Whether it is the newest is not known.
                self.advance(&snapshot, confirmed);
                return Ok(self.snapshot());
            }
        }
        if self.may_be_expired(&snapshot, confirmed).await? {
            return self.reopen().await;
        }
        self.advance(&snapshot, asked);
        Ok(self.snapshot())
    }

    /// Reads commits by way of later ones that carry them, as far as so many are `likely` to be there;
    /// returns a commit, too, that was not there, if it came upon one.
    async fn leap(
        &self,
        mut snapshot: Snapshot,
        likely: usize,
    ) -> Result<(Snapshot, Option<CommitVersion>), Error> {
        for _ in 0..likely / (CARRIED_MAX + 1) {
            let next = snapshot.next_commit();
            let ahead = i64::try_from(CARRIED_MAX).unwrap_or_default();
            let last = CommitVersion::new(next.number() + ahead);
            let Some(commits) = self.inner.objects.commit_and_carried(last).await? else {
                return Ok((snapshot, Some(last)));
            };
            if commits.first().is_none_or(|first| first.version > next) {
                break;
            }
            for commit in commits.iter().filter(|commit| commit.version >= next) {
                snapshot = self.apply(&snapshot, commit).await?;
            }
        }
        Ok((snapshot, None))
    }

    /// Where this handle stands among those that write, as far as it has read the log.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.current().writers.turn(self.inner.writer)
    }

    fn note(&self, commit: &Commit) {
        let mut current = self.current();
        current.recent.note(commit);
        if let Some(writer) = commit.writer {
            current.writers.note(commit.version, writer, commit.last_write);
        }
    }

    /// The state after `commit`, with the rows of it that a state like `snapshot` needs.
    pub(crate) async fn apply(
        &self,
        snapshot: &Snapshot,
        commit: &Commit,
    ) -> Result<Snapshot, Error> {
        let loaded = snapshot.loaded();
        let needed = |part: &Part| part.is_needed(&loaded);
        self.note(commit);
        let rows = self.inner.objects.new_rows(commit, needed).await?;
        snapshot.after(commit, rows, loaded, true)
    }

    /// Whether the commits after `snapshot` may have been deleted, so that their absence says
    /// nothing.
    ///
    /// Commits are deleted oldest first, and none that a handle needs which looked at the head less
    /// than the retention ago. So the question is open only after a long pause, and answered by the
    /// commit before: while it is there, none after it has been deleted.
    async fn may_be_expired(&self, snapshot: &Snapshot, confirmed: Moment) -> Result<bool, Error> {
        if snapshot.table().is_none() || !self.paused_since(confirmed, snapshot) {
            return Ok(false);
        }
        Ok(!self.inner.objects.has_commit(snapshot.head()).await?)
    }

    fn advance(&self, to: &Snapshot, confirmed: Moment) {
        let mut current = self.current();
        if to.next_commit() > current.snapshot.next_commit() {
            current.snapshot = to.clone();
        }
        if to.next_commit() >= current.snapshot.next_commit() {
            current.confirmed = confirmed;
        }
        let newest = current.snapshot.clone();
        drop(current);
        self.trim(&newest);
    }

    /// Version and file rows of the series `node` in `snapshot`, read if nobody has asked before.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn series(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<Arc<SeriesState>, Error> {
        if let Some(series) = snapshot.loaded_series(node) {
            return Ok(series);
        }
        let read = self.read_series(snapshot, &[node]).await?;
        Ok(read.into_iter().next().unwrap_or_else(|| Arc::new(SeriesState::new(node))))
    }

    /// All that the log knows of these series, in their order. What is not in memory is read together, so
    /// that rows which lie side by side are read once.
    ///
    /// # Errors
    /// As [`Log::series`].
    pub async fn series_of(
        &self,
        snapshot: &Snapshot,
        nodes: &[NodeId],
    ) -> Result<Vec<Arc<SeriesState>>, Error> {
        let loaded = |node: &NodeId| Some((*node, snapshot.loaded_series(*node)?));
        let mut known: HashMap<NodeId, Arc<SeriesState>> =
            nodes.iter().filter_map(loaded).collect();
        let missing: BTreeSet<NodeId> =
            nodes.iter().filter(|node| !known.contains_key(node)).copied().collect();
        let missing: Vec<NodeId> = missing.into_iter().collect();
        for together in missing.chunks(SERIES_TOGETHER) {
            let read = self.read_series(snapshot, together).await?;
            known.extend(read.into_iter().map(|series| (series.node(), series)));
        }
        let of = |node: &NodeId| {
            known.get(node).cloned().unwrap_or_else(|| Arc::new(SeriesState::new(*node)))
        };
        Ok(nodes.iter().map(of).collect())
    }

    /// Reads series from the log, and keeps them in memory for who asks next.
    async fn read_series(
        &self,
        snapshot: &Snapshot,
        nodes: &[NodeId],
    ) -> Result<Vec<Arc<SeriesState>>, Error> {
        let parts = snapshot.parts_of(nodes);
        let rows = match self.inner.objects.rows_of(&parts, &Wanted::new(nodes)).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain_loss(error, &parts).await),
        };
        let mut rows_of: HashMap<NodeId, Vec<Row>> = HashMap::with_capacity(nodes.len());
        for row in rows {
            if let Some(node) = row.node() {
                rows_of.entry(node).or_default().push(row);
            }
        }
        let state = |node: &NodeId| {
            let rows = rows_of.remove(node).unwrap_or_default();
            SeriesState::from_rows(*node, rows).map(Arc::new)
        };
        let series = nodes.iter().map(state).collect::<Result<Vec<_>, _>>()?;
        for series in &series {
            snapshot.offer_series(Arc::clone(series));
        }
        self.trim(snapshot);
        Ok(series)
    }

    /// Every row in `snapshot` about files of the series `node`, also those that say of files which are no
    /// part of it any more. They are read from the log each time.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn file_rows(
        &self,
        snapshot: &Snapshot,
        node: NodeId,
    ) -> Result<Vec<FileRow>, Error> {
        let parts = snapshot.parts_ever_of(node);
        let rows = match self.inner.objects.rows_of(&parts, &Wanted::new(&[node])).await {
            Ok(rows) => rows,
            Err(error) => return Err(self.explain_loss(error, &parts).await),
        };
        let file = |row| if let Row::File(row) = row { Some(row) } else { None };
        Ok(rows.into_iter().filter_map(file).collect())
    }

    /// The bytes of all files that were ever added to these series, those of files that have gone included.
    /// It reads the whole log.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn file_bytes_written(
        &self,
        snapshot: &Snapshot,
        nodes: &HashSet<NodeId>,
    ) -> Result<u64, Error> {
        let parts: Vec<Arc<Part>> = snapshot.parts().cloned().collect();
        let mut batches = std::pin::pin!(self.batches(snapshot, None));
        let mut bytes = 0;
        loop {
            let batch = match batches.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(bytes),
                Err(error) => return Err(self.explain_loss(error, &parts).await),
            };
            for row in decode::rows_in(LOG_DIRECTORY, vec![batch])? {
                if let Row::File(row) = row
                    && row.op == FileOp::Add
                    && !row.is_of_older_object()
                    && nodes.contains(&row.node)
                {
                    bytes += row.size;
                }
            }
        }
    }

    /// A part that cannot be read may have been let go, after a merge, since the snapshot was taken.
    pub(crate) async fn explain_loss(&self, error: Error, parts: &[Arc<Part>]) -> Error {
        let Error::DamagedPart { object, .. } = &error else { return error };
        let object = object.clone();
        let Ok(newest) = self.refresh().await else { return error };
        let lost = parts.iter().find(|part| object.ends_with(&part.object));
        match lost {
            Some(part) if !newest.parts().any(|live| live.object == part.object) => {
                Error::SnapshotExpired { object }
            }
            _ => error,
        }
    }

    /// All rows of the log in `snapshot` as batches of its schema, read as they are taken. Those of
    /// one commit stand together until upkeep merges them. With a `path`, parts that name no such
    /// path are skipped.
    pub fn batches(
        &self,
        snapshot: &Snapshot,
        path: Option<&str>,
    ) -> impl Stream<Item = Result<RecordBatch, Error>> + Send + use<> {
        let wanted = |part: &&Arc<Part>| path.is_none_or(|path| part.may_name(path));
        let parts: Vec<Arc<Part>> = snapshot.parts().filter(wanted).cloned().collect();
        let objects = self.inner.objects.clone();
        stream::iter(parts)
            .map(move |part| {
                let objects = objects.clone();
                async move {
                    let (path, bytes) = objects.part(&part).await?;
                    decode::batches(path.as_ref(), bytes)
                }
            })
            .buffered(BATCH_PARTS_AHEAD)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
    }

    /// Encodes a draft as the commit that follows `base`.
    ///
    /// # Errors
    /// [`Error::Encode`] if the rows do not fit the schema.
    pub fn stage(&self, base: &Snapshot, draft: CommitDraft) -> Result<StagedCommit, Error> {
        let CommitDraft { mut rows, merged, transaction, covers } = draft;
        let version = base.next_commit();
        for row in &mut rows {
            row.set_commit(version);
        }
        let last_write =
            rows.iter().map(Row::timestamp).max().unwrap_or_default().max(base.last_write());
        let id = self.random_id();
        let mut changes = Changes { new_rows: rows.len() as u64, ..Changes::default() };
        changes.covers.extend(covers);
        for merged in &merged {
            changes.removes.extend(merged.inputs().iter().cloned());
            changes.adds.extend(merged.outputs().iter().map(|part| part.add().clone()));
        }
        let mut part = None;
        if !rows.is_empty() {
            let batch = encode::to_batch(&rows)?;
            changes.inline = Inline::of(&batch)?;
            let (add, bytes) = self.encode_part(&part::families(&rows), batch, last_write)?;
            part = Some((self.inner.objects.prefix.clone().join(add.path.as_str()), bytes));
            changes.adds.push(add);
        }
        let removed = changes.removes.iter().map(|part| part.object.clone()).collect();
        let parts = changes.adds.iter().cloned().map(Part::from_add);
        let parts = parts.collect::<Result<Vec<_>, _>>().map_err(Error::encode)?;
        let complete_through = complete_through(base, &rows, last_write);
        let (writer, inline) = (self.inner.writer, changes.inline.clone());
        let covers = changes.covers.clone();
        let text = commit::encode(id, writer, changes, (last_write, complete_through))?;
        let json = carried::carrying(&text, &self.to_carry(base))?;
        let commit = Commit {
            version,
            id,
            writer: Some(writer),
            last_write,
            complete_through,
            parts,
            removed,
            covers,
            table: None,
            inline,
            text,
        };
        let confirmed = self.current().confirmed;
        Ok(StagedCommit { base: base.clone(), confirmed, commit, json, part, rows, transaction })
    }

    /// The commits up to `base`, for the next one to carry, if there are enough who would read them there.
    fn to_carry(&self, base: &Snapshot) -> Vec<Bytes> {
        let current = self.current();
        match current.writers.turn(self.inner.writer).rivals {
            CARRIED_FROM_RIVALS.. => current.recent.up_to(base.head()),
            _ => Vec::new(),
        }
    }

    fn encode_part(
        &self,
        families: &str,
        batch: RecordBatch,
        last_write: WriteTime,
    ) -> Result<(deltalake::kernel::Add, Bytes), Error> {
        let object = self.new_part();
        let bytes = encode::to_parquet(&batch)?;
        let add = part::add_action(Described {
            object: &object,
            bytes: &bytes,
            families,
            statistics: part::statistics(&[batch]),
            now: last_write,
            run: None,
            layout: None,
        })?;
        Ok((add, bytes))
    }

    /// A name for a new part.
    pub(crate) fn new_part(&self) -> String {
        format!("part-{}.parquet", self.random_id())
    }

    /// A name for a new run of parts.
    pub(crate) fn new_run(&self) -> String {
        self.random_id().to_string()
    }

    /// Puts the rows of a staged commit where the commit will point.
    ///
    /// # Errors
    /// The store's failure; nothing is committed.
    pub async fn put_part(&self, staged: &StagedCommit) -> Result<(), Error> {
        match &staged.part {
            Some((path, bytes)) => self.inner.objects.put(path, bytes.clone()).await,
            None => Ok(()),
        }
    }

    /// Tries to make a staged commit the next one. Its part, and the data files that its rows name,
    /// must have been put.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if nobody can tell whether it landed; any other error means that
    /// it did not.
    pub async fn publish(&self, staged: StagedCommit) -> Result<CommitOutcome, Error> {
        let version = staged.commit.version;
        let objects = &self.inner.objects;
        let object = commit::object_of(&objects.prefix, version);
        let mut backoff = PUBLISH_BACKOFF_MS;
        let mut reason = String::new();
        let asked = Moment::now(&self.inner.env);
        // What a refusal says of one put it does not say of those before it.
        let mut may_be_in_flight = false;
        for _ in 0..PUBLISH_ATTEMPTS {
            let json = staged.json.clone().into();
            let put = objects.store.put_opts(&object, json, PutMode::Create.into()).await;
            let Err(error) = put else { return self.confirm(staged, asked).await };
            reason = error.to_string();
            may_be_in_flight |= !is_definite(&error);
            match objects.commit(version).await {
                Ok(Some(found)) if found.id == staged.commit.id => {
                    if !failed_locally(&error) {
                        return self.confirm(staged, asked).await;
                    }
                    // The name is there, but the disk would not promise to keep it.
                    break;
                }
                Ok(Some(winner)) => {
                    // That the winner is there does not tell that it is the newest: those after it
                    // may be among what goes, so the head counts as last confirmed when it was.
                    if let Ok(next) = self.apply(&staged.base, &winner).await {
                        self.advance(&next, staged.confirmed);
                    }
                    return Ok(CommitOutcome::Conflict);
                }
                Ok(None) if !may_be_in_flight => {
                    return Err(store_error("committing", &object, error));
                }
                Ok(None) => {}
                Err(read) => reason = format!("{reason}; reading it back: {read}"),
            }
            let jitter = self.inner.env.randomness.below(backoff);
            tokio::time::sleep(Duration::from_millis(backoff + jitter)).await;
            backoff *= 2;
        }
        let transaction = staged.transaction;
        Err(Error::OutcomeUnknown { commit: version, transaction, reason })
    }

    /// The put won. After a long pause that may be because the commits of that number and around it
    /// have been deleted: then nothing has been committed.
    async fn confirm(&self, staged: StagedCommit, asked: Moment) -> Result<CommitOutcome, Error> {
        let reason = match self.may_be_expired(&staged.base, staged.confirmed).await {
            Ok(false) => return self.landed(staged).map(CommitOutcome::Committed),
            Ok(true) if !self.paused_since(asked, &staged.base) => {
                self.reopen().await?;
                return Ok(CommitOutcome::Conflict);
            }
            Ok(true) => "the log before it was let go meanwhile".to_owned(),
            Err(error) => error.to_string(),
        };
        let (commit, transaction) = (staged.commit.version, staged.transaction);
        Err(Error::OutcomeUnknown { commit, transaction, reason })
    }

    /// Whether so much time has passed since `then` that commits may have been deleted.
    fn paused_since(&self, then: Moment, snapshot: &Snapshot) -> bool {
        then.until(Moment::now(&self.inner.env)) > snapshot.retention() / 2
    }

    fn landed(&self, staged: StagedCommit) -> Result<Snapshot, Error> {
        self.note(&staged.commit);
        let loaded = staged.base.loaded();
        let next = staged.base.after(&staged.commit, staged.rows, loaded, true)?;
        self.advance(&next, Moment::now(&self.inner.env));
        Ok(next)
    }

    fn random_id(&self) -> Uuid {
        TransactionId::random(self.inner.env.randomness.as_ref()).as_uuid()
    }
}

/// The time up to which all versions are committed. While one writer has the store for itself, it
/// alone knows what it has acknowledged besides: others' commits, of upkeep, say nothing of that.
fn complete_through(base: &Snapshot, rows: &[Row], last_write: WriteTime) -> WriteTime {
    if base.epoch().is_none() {
        return last_write;
    }
    let own = rows.iter().filter(|row| is_owners(row)).map(Row::timestamp).max();
    own.unwrap_or_default().max(base.complete_through())
}

/// Whether only who has the store for itself commits such rows, after all that it has acknowledged.
fn is_owners(row: &Row) -> bool {
    match row {
        Row::Tree(_) | Row::Version(_) => true,
        Row::File(_) => false,
        Row::Store(row) => {
            matches!(row.op, StoreOp::Snapshot(_) | StoreOp::DropSnapshot(_) | StoreOp::Horizon(_))
        }
    }
}

/// Whether the error is a local disk's, so that nothing can still be in flight. A connection's also
/// comes from the operating system, and what was sent over it may yet arrive.
fn failed_locally(error: &object_store::Error) -> bool {
    use std::io::ErrorKind as Io;
    let Some(io) = io_cause(error).filter(|io| io.raw_os_error().is_some()) else { return false };
    let of_a_connection = matches!(
        io.kind(),
        Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::NotConnected
            | Io::BrokenPipe
            | Io::TimedOut
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::AddrNotAvailable
            | Io::WouldBlock
    );
    !of_a_connection && !matches!(error, object_store::Error::AlreadyExists { .. })
}

/// Whether an absent object after this error will stay absent.
fn is_definite(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    failed_locally(error)
        || matches!(
            error,
            Store::PermissionDenied { .. }
                | Store::Unauthenticated { .. }
                | Store::NotSupported { .. }
                | Store::NotImplemented { .. }
                | Store::InvalidPath { .. }
        )
}
