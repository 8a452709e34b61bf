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

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tidelog_core::{CommitVersion, Env, NodeId, TransactionId};
use tidelog_storage::error::io_cause;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectStore, ObjectStoreExt, PutMode};
use tidelog_storage::probe;
use uuid::Uuid;

use crate::LOG_DIRECTORY;
use crate::codec;
use crate::commit::{self, Commit};
use crate::error::Error;
use crate::hash::Hash128;
use crate::part::{self, Part};
use crate::row::Row;
use crate::series::SeriesState;
use crate::state::Snapshot;

const FETCH_CONCURRENCY: usize = 32;
const PUBLISH_ATTEMPTS: u32 = 4;
const PUBLISH_BACKOFF: Duration = Duration::from_millis(20);

/// The operation log of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    env: Env,
    current: Mutex<Snapshot>,
}

/// A commit that is encoded but has not been tried.
#[derive(Debug, Clone)]
pub struct StagedCommit {
    base: Snapshot,
    commit: Commit,
    json: Bytes,
    part: Path,
    part_bytes: Bytes,
    rows: Vec<Row>,
    transaction: Option<TransactionId>,
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
    pub async fn create(store: Arc<dyn ObjectStore>, env: Env) -> Result<Self, Error> {
        let log = Self::handle(store, env);
        let first = commit::object_of(&log.inner.prefix, CommitVersion::new(0));
        if log.read_object(&first).await?.is_some() {
            return Err(Error::AlreadyAStore);
        }
        let inner = &log.inner;
        let randomness = inner.env.randomness.as_ref();
        probe::put_if_absent(inner.store.as_ref(), &inner.prefix, randomness).await?;
        let json = commit::encode_first(log.random_id(), &inner.env)?;
        match inner.store.put_opts(&first, json.into(), PutMode::Create.into()).await {
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
        let newest = log.list_commits().await?;
        log.replay(newest).await?;
        log.refresh().await?;
        Ok(log)
    }

    /// Reads commits 0 … `newest`, many at a time, and applies them in order.
    async fn replay(&self, newest: i64) -> Result<(), Error> {
        let fetched = stream::iter((0..=newest).map(CommitVersion::new))
            .map(|version| self.fetch(version))
            .buffered(FETCH_CONCURRENCY);
        let mut fetched = std::pin::pin!(fetched);
        let mut snapshot = Snapshot::empty();
        while let Some((commit, rows)) = fetched.try_next().await? {
            let loaded = snapshot.loaded();
            snapshot = snapshot.after(&commit, rows, loaded, false)?;
        }
        self.advance(&snapshot);
        Ok(())
    }

    fn handle(store: Arc<dyn ObjectStore>, env: Env) -> Self {
        let prefix = Path::from(LOG_DIRECTORY);
        let current = Mutex::new(Snapshot::empty());
        Self { inner: Arc::new(Inner { store, prefix, env, current }) }
    }

    /// Checks that commits 0 … N are all there and returns N.
    async fn list_commits(&self) -> Result<i64, Error> {
        let directory = self.inner.prefix.clone().join("_delta_log");
        let listed: Vec<_> = self
            .inner
            .store
            .list(Some(&directory))
            .try_collect()
            .await
            .map_err(|source| store_error("listing", &directory, source))?;
        let mut numbers: Vec<i64> = listed
            .iter()
            .filter_map(|meta| meta.location.filename()?.strip_suffix(".json")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let Some(&newest) = numbers.last() else { return Err(Error::NotAStore) };
        for (expected, &number) in (0..).zip(&numbers) {
            if number != expected {
                let commit = CommitVersion::new(expected);
                let object = commit::object_of(&self.inner.prefix, commit).to_string();
                return Err(Error::DamagedCommit {
                    commit,
                    object,
                    reason: "it is missing".into(),
                });
            }
        }
        Ok(newest)
    }

    /// The newest state that this handle has seen. No request is made.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads what others have committed since, one request for each commit and one that finds none.
    ///
    /// # Errors
    /// Damage, a newer format, or the store's failure.
    pub async fn refresh(&self) -> Result<Snapshot, Error> {
        let mut snapshot = self.snapshot();
        while let Some(commit) = self.read_commit(snapshot.next_commit()).await? {
            let loaded = snapshot.loaded();
            let needed = commit.parts.iter().filter(|part| part.is_needed(&loaded));
            let rows = self.read_rows(needed).await?;
            snapshot = snapshot.after(&commit, rows, loaded, true)?;
        }
        self.advance(&snapshot);
        Ok(self.snapshot())
    }

    fn advance(&self, to: &Snapshot) {
        let mut current = self.inner.current.lock().unwrap_or_else(PoisonError::into_inner);
        if to.next_commit() > current.next_commit() {
            *current = to.clone();
        }
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
        let parts = snapshot.parts_of(node);
        let mut series = SeriesState::new(node);
        for row in self.read_rows(parts.iter().map(Arc::as_ref)).await? {
            match row {
                Row::Version(row) if row.node == node => {
                    let commit = row.commit;
                    series
                        .push_version(row)
                        .map_err(|reason| Error::Inconsistent { commit, reason })?;
                }
                Row::File(row) if row.node == node => series.push_file(row),
                _ => {}
            }
        }
        let series = Arc::new(series);
        snapshot.offer_series(Arc::clone(&series));
        Ok(series)
    }

    /// All rows of the log in `snapshot` as batches of its schema, oldest first, read as they are
    /// taken. With a `path`, parts that name no such path are skipped.
    pub fn batches(
        &self,
        snapshot: &Snapshot,
        path: Option<&str>,
    ) -> impl Stream<Item = Result<RecordBatch, Error>> + Send + use<> {
        let wanted = |part: &&Arc<Part>| path.is_none_or(|path| part.may_name(path));
        let parts: Vec<Arc<Part>> = snapshot.parts().filter(wanted).cloned().collect();
        let log = self.clone();
        stream::iter(parts)
            .map(move |part| {
                let log = log.clone();
                async move {
                    let (path, bytes) = log.read_part_bytes(&part).await?;
                    codec::batches(path.as_ref(), bytes)
                }
            })
            .buffered(FETCH_CONCURRENCY)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
    }

    /// Encodes `rows` as the commit that follows `base`.
    ///
    /// # Errors
    /// [`Error::Encode`] if the rows do not fit the schema.
    pub fn stage(
        &self,
        base: &Snapshot,
        mut rows: Vec<Row>,
        transaction: Option<TransactionId>,
    ) -> Result<StagedCommit, Error> {
        let version = base.next_commit();
        for row in &mut rows {
            row.set_commit(version);
        }
        let last_write =
            rows.iter().map(Row::timestamp).max().unwrap_or_default().max(base.last_write());
        let id = self.random_id();
        let object = format!("part-{}.parquet", self.random_id());
        let batch = codec::to_batch(&rows)?;
        let part_bytes = codec::to_parquet(&batch)?;
        let add = part::add_action(&object, &part_bytes, &rows, &batch, last_write)?;
        let part = Part::from_add(&add).map_err(Error::encode)?;
        let json = commit::encode(id, add, rows.len(), last_write)?;
        let path = self.part_path(&part);
        let commit =
            Commit { version, id, last_write, complete_through: last_write, parts: vec![part] };
        Ok(StagedCommit {
            base: base.clone(),
            commit,
            json,
            part: path,
            part_bytes,
            rows,
            transaction,
        })
    }

    /// Puts the rows of a staged commit where the commit will point.
    ///
    /// # Errors
    /// The store's failure; nothing is committed.
    pub async fn put_part(&self, staged: &StagedCommit) -> Result<(), Error> {
        let payload = staged.part_bytes.clone().into();
        let put = self.inner.store.put(&staged.part, payload).await;
        put.map(|_| ()).map_err(|source| store_error("writing", &staged.part, source))
    }

    /// Tries to make a staged commit the next one. Its part, and the data files that its rows name,
    /// must have been put.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] if nobody can tell whether it landed; any other error means that
    /// it did not.
    pub async fn publish(&self, staged: StagedCommit) -> Result<CommitOutcome, Error> {
        let version = staged.commit.version;
        let object = commit::object_of(&self.inner.prefix, version);
        let mut backoff = PUBLISH_BACKOFF;
        let mut reason = String::new();
        for _ in 0..PUBLISH_ATTEMPTS {
            let json = staged.json.clone().into();
            let put = self.inner.store.put_opts(&object, json, PutMode::Create.into()).await;
            let Err(error) = put else { return self.landed(staged).map(CommitOutcome::Committed) };
            reason = error.to_string();
            match self.read_commit(version).await {
                Ok(Some(found)) if found.id == staged.commit.id => {
                    if !failed_locally(&error) {
                        return self.landed(staged).map(CommitOutcome::Committed);
                    }
                    // The name is there, but the disk would not promise to keep it.
                    break;
                }
                Ok(Some(_)) => return Ok(CommitOutcome::Conflict),
                Ok(None) if is_definite(&error) => {
                    return Err(store_error("committing", &object, error));
                }
                Ok(None) => {}
                Err(read) => reason = format!("{reason}; reading it back: {read}"),
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
        let transaction = staged.transaction;
        Err(Error::OutcomeUnknown { commit: version, transaction, reason })
    }

    fn landed(&self, staged: StagedCommit) -> Result<Snapshot, Error> {
        let loaded = staged.base.loaded();
        let next = staged.base.after(&staged.commit, staged.rows, loaded, true)?;
        self.advance(&next);
        Ok(next)
    }

    async fn fetch(&self, version: CommitVersion) -> Result<(Commit, Vec<Row>), Error> {
        let Some(commit) = self.read_commit(version).await? else {
            let object = commit::object_of(&self.inner.prefix, version).to_string();
            let reason = "it is missing".to_owned();
            return Err(Error::DamagedCommit { commit: version, object, reason });
        };
        let rows = self.read_rows(commit.parts.iter().filter(|part| part.shared)).await?;
        Ok((commit, rows))
    }

    async fn read_commit(&self, version: CommitVersion) -> Result<Option<Commit>, Error> {
        let object = commit::object_of(&self.inner.prefix, version);
        match self.read_object(&object).await? {
            Some(bytes) => commit::decode(&object, version, &bytes).map(Some),
            None => Ok(None),
        }
    }

    async fn read_rows<'a>(
        &self,
        parts: impl Iterator<Item = &'a Part>,
    ) -> Result<Vec<Row>, Error> {
        let parts: Vec<Part> = parts.cloned().collect();
        let read: Vec<Vec<Row>> = stream::iter(parts)
            .map(|part| self.read_part(part))
            .buffered(FETCH_CONCURRENCY)
            .try_collect()
            .await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn read_part(&self, part: Part) -> Result<Vec<Row>, Error> {
        let (path, bytes) = self.read_part_bytes(&part).await?;
        codec::from_parquet(path.as_ref(), bytes)
    }

    /// The bytes of a part, checked against the hash in its commit.
    async fn read_part_bytes(&self, part: &Part) -> Result<(Path, Bytes), Error> {
        let path = self.part_path(part);
        let Some(bytes) = self.read_object(&path).await? else {
            return Err(Error::part(path.as_ref(), "it is missing"));
        };
        if bytes.len() as u64 != part.size || Hash128::of(&bytes) != part.hash {
            return Err(Error::part(
                path.as_ref(),
                "its bytes do not match the hash in its commit",
            ));
        }
        Ok((path, bytes))
    }

    async fn read_object(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let read = match self.inner.store.get(path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(store_error("reading", path, source)),
        }
    }

    fn part_path(&self, part: &Part) -> Path {
        self.inner.prefix.clone().join(part.object.as_str())
    }

    fn random_id(&self) -> Uuid {
        TransactionId::random(self.inner.env.randomness.as_ref()).as_uuid()
    }
}

fn store_error(action: &'static str, object: &Path, source: object_store::Error) -> Error {
    Error::Store { action, object: object.to_string(), source }
}

/// Whether the error is the local operating system's, so that nothing can still be in flight.
fn failed_locally(error: &object_store::Error) -> bool {
    !matches!(error, object_store::Error::AlreadyExists { .. })
        && io_cause(error).is_some_and(|io| io.raw_os_error().is_some())
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
