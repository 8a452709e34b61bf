//! Opening and tailing the log.
//!
//! | module | holds |
//! |---|---|
//! | `publish` | extending it |
//! | `read` | what it says of series |

mod publish;
mod read;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tidelog_core::memory::Account;
use tidelog_core::{CommitVersion, Env, Holder, MemoryBudget, TransactionId, WriteTime};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectStore, PutMode};
use tidelog_storage::probe;
use uuid::Uuid;

use crate::LOG_DIRECTORY;
use crate::carried::{CARRIED_MAX, Recent};
use crate::commit::{self, Commit};
use crate::error::Error;
use crate::fetch::{LogObjects, store_error};
use crate::open::{self, Opened};
use crate::part::Part;
use crate::state::Snapshot;
use crate::turn::{Turn, Writers};

pub use self::publish::{CommitDraft, CommitOutcome, StagedCommit};

/// Commits that a refresh asks for one after the other before it asks for several at once: more than
/// land between two turns of a writer among many.
const ONE_BY_ONE: i64 = 24;

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

    /// Whether so much time has passed since `then` that commits may have been deleted.
    fn paused_since(&self, then: Moment, snapshot: &Snapshot) -> bool {
        then.until(Moment::now(&self.inner.env)) > snapshot.retention() / 2
    }

    /// A name for a new part.
    pub(crate) fn new_part(&self) -> String {
        format!("part-{}.parquet", self.random_id())
    }

    /// A name for a new run of parts.
    pub(crate) fn new_run(&self) -> String {
        self.random_id().to_string()
    }

    fn random_id(&self) -> Uuid {
        TransactionId::random(self.inner.env.randomness.as_ref()).as_uuid()
    }
}
