//! Extending the log.
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

use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use tidelog_core::{TransactionId, WalId, WriteTime};
use tidelog_storage::error::io_cause;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, PutMode};

use super::{Log, Moment};
use crate::carried::{self, CARRIED_FROM_RIVALS};
use crate::commit::{self, Changes, Commit};
use crate::encode;
use crate::error::Error;
use crate::fetch::store_error;
use crate::inline::Inline;
use crate::part::{self, Described, Part};
use crate::row::{Row, StoreOp};
use crate::state::Snapshot;
use crate::upkeep::Merged;

/// With the pauses between them, doubled each time, a second or two: a server that is restarted is
/// back by then.
const PUBLISH_ATTEMPTS: u32 = 7;
const PUBLISH_BACKOFF_MS: u64 = 20;

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

    fn landed(&self, staged: StagedCommit) -> Result<Snapshot, Error> {
        self.note(&staged.commit);
        let loaded = staged.base.loaded();
        let next = staged.base.after(&staged.commit, staged.rows, loaded, true)?;
        self.advance(&next, Moment::now(&self.inner.env));
        Ok(next)
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
