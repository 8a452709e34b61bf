//! Changing data: rows of a range of event time deleted or replaced, an earlier version restored.
//!
//! ```text
//! plan (no I/O) ─▶ look into files that may hold some ─▶ write these anew ─▶ commit ─ lost a race: plan again
//! ```
//!
//! - `plan` says which files end whole and which have to be looked into.
//! - `count` looks into a file; only the columns that tell are read.
//! - `files` writes files anew, and keeps what it has written for the next try.
//! - `draft` is the commit.
//!
//! Each is one new version. What was there stays readable as of the versions before: rows never go, they
//! *end* with the version that deletes them, which stands beside their file in the log. A file that ends
//! whole is not written anew.
//!
//! Invariants:
//! 1. A change decides about all that was committed before it and nothing that comes after.
//! 2. A row that was replaced by one that ends does not come back.
//! 3. A change lands whole, or nothing of it.

mod count;
mod draft;
mod files;
mod plan;

use std::sync::Arc;

use arrow::array::RecordBatch;
use serde_json::{Map, Value, json};
use tidelog_core::{
    AsOf, CommitVersion, EventTime, FileId, TimeRange, TransactionId, TreePath, Version, WriteTime,
};
use tidelog_oplog::{EntryType, FileRow, Snapshot, VersionOp};

use crate::commit::{Rejected, Work};
pub use crate::compact::ending::RowFilter;
use crate::compact::ending::{Cut, Which};
use crate::conform::conform;
use crate::encode::{EncodedFile, encode};
use crate::engine::{Engine, schema_of};
use crate::error::Error;
use crate::head::Head;
use crate::hot::HotState;
use crate::owner::{Owner, Paused};
use crate::prepare::{check_times, prepare};
use crate::series_schema::SeriesSchema;

pub(crate) use self::draft::Revision;
use self::files::{FileChanges, Files, Found, standing};
use self::plan::{Copy, Return, plan, return_to};

/// How often a change is planned anew because others were faster.
const ATTEMPTS_MAX: u32 = 64;

/// A condition on the rows that are deleted.
#[derive(Debug, Clone)]
pub struct RowCondition {
    /// As it was written.
    pub text: String,
    /// What evaluates it.
    pub filter: Arc<dyn RowFilter>,
}

/// What a change of data tells.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RevisionReceipt {
    /// The series.
    pub path: TreePath,
    /// The version that the change became; `None` if there was nothing to change.
    pub version: Option<Version>,
    /// When it was recorded.
    pub write_time: Option<WriteTime>,
    /// Rows that were stored and are not part of the head any more. Of a deduplicated series rows count
    /// that others had replaced before, as long as compaction has not set them aside.
    pub rows_ended: u64,
    /// Rows that were added.
    pub rows_added: u64,
    /// The id of the write.
    pub transaction: TransactionId,
}

/// What is to be changed.
#[derive(Debug)]
enum Asked {
    Delete { range: TimeRange, condition: Option<RowCondition> },
    Replace { range: TimeRange, batch: RecordBatch },
    Restore { to: AsOf },
}

/// What has to be done to the rows of a series as it was found.
struct Task {
    cuts: Arc<[Cut]>,
    copies: Vec<Copy>,
    /// The version that is restored.
    version: Version,
    scope: TimeRange,
    follows: Option<Version>,
    range: Option<TimeRange>,
}

/// Rows in the place of others, in files that are durable.
struct Replacement {
    files: Vec<FileRow>,
    since: CommitVersion,
}

impl Engine {
    /// Deletes the rows of a series with event times in `range`, both ends included, for which `condition`
    /// holds, as one new version. As of the versions before they stay readable. Where no row is to be
    /// deleted, nothing is stored and there is no new version.
    ///
    /// What other writers commit before it is deleted too, what comes after it is not. Among rows of equal
    /// event time, key and version of which the condition keeps some, the order of the append is lost.
    ///
    /// # Errors
    /// If there is no such series, the condition cannot be evaluated, or another writer has the store for
    /// itself; nothing is changed then, unless the kind is
    /// [`OutcomeUnknown`](tidelog_core::ErrorKind::OutcomeUnknown).
    pub async fn delete_rows(
        &self,
        path: &TreePath,
        range: TimeRange,
        condition: Option<RowCondition>,
    ) -> Result<RevisionReceipt, Error> {
        self.revise(path, Asked::Delete { range, condition }).await
    }

    /// Puts the rows of `batch` in the place of those with event times in `range`, both ends included, as
    /// one new version. An empty batch only deletes.
    ///
    /// # Errors
    /// As [`delete_rows`](Self::delete_rows), and if the batch does not fit the series or has rows outside
    /// the range.
    pub async fn replace_rows(
        &self,
        path: &TreePath,
        range: TimeRange,
        batch: RecordBatch,
    ) -> Result<RevisionReceipt, Error> {
        self.revise(path, Asked::Replace { range, batch }).await
    }

    /// Makes the rows of a series those that were readable as of an earlier point, as one new version.
    /// What was done since stays readable as of its versions. Where nothing was done since, there is no new
    /// version.
    ///
    /// # Errors
    /// As [`delete_rows`](Self::delete_rows), and if the series cannot be read as of that point.
    pub async fn restore(&self, path: &TreePath, to: &AsOf) -> Result<RevisionReceipt, Error> {
        self.revise(path, Asked::Restore { to: to.clone() }).await
    }

    async fn revise(&self, path: &TreePath, asked: Asked) -> Result<RevisionReceipt, Error> {
        let owner = self.owner().await?;
        let mut revising = Revising {
            engine: self,
            path,
            asked: &asked,
            files: Files::new(self.ground(), self.compaction().target_bytes),
            replacement: None,
            transaction: self.new_transaction(),
            is_compacted: false,
        };
        let mut paused: Option<Paused> = None;
        for _ in 0..ATTEMPTS_MAX {
            let snapshot = self.begin_revision(owner.as_deref(), paused.is_some()).await?;
            let Some(snapshot) = snapshot else { continue };
            let revision = match revising.carry_out(&snapshot).await {
                Ok(Outcome::Ready(revision)) => revision,
                Ok(Outcome::Nothing) => return Ok(revising.receipt(None, &FileChanges::default())),
                Ok(Outcome::Again) => continue,
                Err(error) if self.are_gone(&error, &snapshot).await? => continue,
                Err(error) => return Err(error),
            };
            // Appends wait only now, and then until the change has landed.
            if let (Some(owner), None) = (&owner, &paused) {
                paused = Some(owner.pause().await?);
            }
            let files = revision.files.clone();
            match self.submit(Work::Revise(revision)).await {
                Ok(landed) => {
                    revising.files.warm().committed();
                    return Ok(revising.receipt(landed.versions.first(), &files));
                }
                Err(Rejected::Stale) => {}
                Err(Rejected::Failed(Error::Claimed { .. })) if self.free().await? => {}
                Err(Rejected::Failed(error)) => {
                    if let Some(owner) = &owner {
                        owner.note_outcome(&error);
                    }
                    return Err(error);
                }
            }
        }
        Err(Error::Contention { path: path.clone(), attempts: ATTEMPTS_MAX })
    }

    /// The newest state, with all in files that this handle has acknowledged; `None` if another's claim
    /// was in the way and is no more.
    async fn begin_revision(
        &self,
        owner: Option<&Owner>,
        is_paused: bool,
    ) -> Result<Option<Snapshot>, Error> {
        if let Some(owner) = owner
            && !is_paused
        {
            owner.flush().await?;
        }
        let snapshot = self.log().refresh().await?;
        match snapshot.epoch() {
            Some(epoch) if owner.is_none() => match self.free().await? {
                true => Ok(None),
                false => Err(Error::Claimed { epoch: epoch.to_string() }),
            },
            _ => Ok(Some(snapshot)),
        }
    }

    /// Whether an error only says that files have gone which are no part of their series any more.
    async fn are_gone(&self, error: &Error, seen: &Snapshot) -> Result<bool, Error> {
        match error {
            Error::FileExpired { .. } => Ok(true),
            Error::DamagedFile { .. } => {
                Ok(self.log().refresh().await?.next_commit() != seen.next_commit())
            }
            _ => Ok(false),
        }
    }
}

/// What has come of a try to plan.
enum Outcome {
    Ready(Box<Revision>),
    /// There is nothing to change.
    Nothing,
    /// Files were merged that lay over one another.
    Again,
}

/// A change under way, over all tries.
struct Revising<'a> {
    engine: &'a Engine,
    path: &'a TreePath,
    asked: &'a Asked,
    files: Files,
    replacement: Option<Replacement>,
    transaction: TransactionId,
    /// Whether files that lay over one another have been merged.
    is_compacted: bool,
}

impl Revising<'_> {
    /// Plans the change against a state, and writes all files that it needs.
    async fn carry_out(&mut self, snapshot: &Snapshot) -> Result<Outcome, Error> {
        self.forget_deleted(snapshot);
        let puts_since = snapshot.next_commit();
        let found = self.find(snapshot).await?;
        let task = self.task(snapshot, &found).await?;
        let plan = plan(&found.series, &task.cuts, found.schema.dedup());
        let together = plan.units.iter().chain(task.copies.iter().map(|copy| &copy.files));
        if !self.is_compacted && together.into_iter().any(|files| self.files.is_too_deep(files)) {
            self.is_compacted = true;
            self.engine.compact_series(found.node, self.path.clone()).await?;
            return Ok(Outcome::Again);
        }
        let mut changes = self.files.cut(&found, plan, &task.cuts).await?;
        for copy in &task.copies {
            changes.added.extend(self.files.copy(&found, copy, task.version).await?);
        }
        let (replacement, since) = self.replacement(&found).await?;
        changes.added.extend(replacement);
        if changes.is_nothing() {
            return Ok(Outcome::Nothing);
        }
        let randomness = self.engine.env().randomness.as_ref();
        let renamed = changes.whole.iter().map(|_| FileId::random(randomness)).collect();
        Ok(Outcome::Ready(Box::new(Revision {
            path: found.path.clone(),
            node: found.node,
            op: self.op(),
            time_column: found.schema.time_column().into(),
            asked: self.detail(),
            files: changes,
            scope: task.scope,
            known: standing(&found.series),
            follows: task.follows,
            range: task.range,
            transaction: self.transaction,
            renamed,
            puts_since: since.map_or(puts_since, |since| since.min(puts_since)),
        })))
    }

    fn forget_deleted(&mut self, snapshot: &Snapshot) {
        self.files.forget_deleted(snapshot);
        self.replacement.take_if(|put| {
            let objects = put.files.iter().map(|file| file.location.as_ref());
            !put.files.is_empty() && snapshot.history().may_be_announced(put.since, objects)
        });
    }

    async fn find(&self, snapshot: &Snapshot) -> Result<Found, Error> {
        let path = self.path.clone();
        let Some(node) = snapshot.tree().resolve(&path).cloned() else {
            return Err(Error::NotFound { path, at: None });
        };
        if node.entry != EntryType::FileSeries {
            return Err(Error::WrongEntry { path, expected: "series" });
        }
        let Some(schema) = schema_of(&path, &node)? else { return Err(Error::NoSchema { path }) };
        let series = self.engine.log().series(snapshot, node.id).await?;
        Ok(Found { path, node: node.id, schema, series })
    }

    async fn task(&self, snapshot: &Snapshot, found: &Found) -> Result<Task, Error> {
        let (range, which) = match self.asked {
            Asked::Delete { range, condition: None } | Asked::Replace { range, .. } => {
                (*range, Which::All)
            }
            Asked::Delete { range, condition: Some(condition) } => {
                (*range, Which::Where(Arc::clone(&condition.filter)))
            }
            Asked::Restore { to } => return self.task_of_restore(snapshot, found, to).await,
        };
        Ok(Task {
            cuts: Arc::new([Cut { range, which }]),
            copies: Vec::new(),
            version: Version::NONE,
            scope: range,
            follows: None,
            range: None,
        })
    }

    async fn task_of_restore(
        &self,
        snapshot: &Snapshot,
        found: &Found,
        to: &AsOf,
    ) -> Result<Task, Error> {
        let head = Head::new(snapshot.clone(), HotState::default())?;
        let view = self.engine.series_in(&head, self.path, to).await?;
        if view.series().node() != found.node {
            return Err(Error::AsOf {
                path: self.path.to_string(),
                asked: to.to_string(),
                readable: "another series was at this path then, of which nothing can be restored \
                           here; name a later point, or read that and append it"
                    .to_owned(),
            });
        }
        let (version, newest) = (view.version(), found.series.head());
        if version == Version::NONE {
            return Err(Error::AsOf {
                path: self.path.to_string(),
                asked: to.to_string(),
                readable: format!("it had no version then; name one of v1 to {newest}"),
            });
        }
        let Return { cuts, copies } = return_to(&found.series, version);
        // What was done since, whichever files hold it now.
        let since = found.series.versions().iter().filter(|row| row.version > version);
        let range = since.filter_map(|row| row.range).reduce(|a, b| a.union(&b));
        let (cuts, scope, follows) = (cuts.into(), TimeRange::ALL, Some(newest));
        Ok(Task { cuts, copies, version, scope, follows, range })
    }

    /// The files of rows that come in the place of others, put once.
    async fn replacement(
        &mut self,
        found: &Found,
    ) -> Result<(Vec<FileRow>, Option<CommitVersion>), Error> {
        let Asked::Replace { range, batch } = self.asked else { return Ok((Vec::new(), None)) };
        if let Some(known) = &self.replacement {
            return Ok((known.files.clone(), Some(known.since)));
        }
        let since = self.engine.log().snapshot().next_commit();
        let (found, range, batch) = (found.clone(), *range, batch.clone());
        let (path, node, found_schema) = (found.path.clone(), found.node, found.schema.clone());
        let encoded = tokio::task::spawn_blocking(move || encoded(&found, range, &batch));
        let mut files = Vec::new();
        for (file, rows) in encoded.await.map_err(|_| Error::Closed)?? {
            let id = FileId::random(self.engine.env().randomness.as_ref());
            let row = file.row(id, &path, node);
            if self.engine.warm().has_series(node) {
                let rows = vec![(row.clone(), vec![rows])];
                self.files.warm().seal_encoded(&found_schema, rows).await;
            }
            self.engine.ground().put_file(&row, file).await?;
            files.push(row);
        }
        self.replacement = Some(Replacement { files: files.clone(), since });
        Ok((files, Some(since)))
    }

    fn op(&self) -> VersionOp {
        match self.asked {
            Asked::Delete { .. } => VersionOp::Delete,
            Asked::Replace { .. } => VersionOp::Replace,
            Asked::Restore { .. } => VersionOp::Restore,
        }
    }

    /// What was asked for, for the log.
    fn detail(&self) -> Map<String, Value> {
        let mut detail = Map::new();
        match self.asked {
            Asked::Delete { range, condition } => {
                note_range(&mut detail, *range);
                if let Some(condition) = condition {
                    detail.insert("where".to_owned(), json!(condition.text));
                }
            }
            Asked::Replace { range, .. } => note_range(&mut detail, *range),
            Asked::Restore { to } => {
                detail.insert("to".to_owned(), json!(to.to_string()));
            }
        }
        detail
    }

    fn receipt(
        &self,
        landed: Option<&(Version, WriteTime)>,
        files: &FileChanges,
    ) -> RevisionReceipt {
        RevisionReceipt {
            path: self.path.clone(),
            version: landed.map(|(version, _)| *version),
            write_time: landed.map(|(_, time)| *time),
            rows_ended: files.ended().0,
            rows_added: files.added().0,
            transaction: self.transaction,
        }
    }
}

fn note_range(detail: &mut Map<String, Value>, range: TimeRange) {
    if range.start() > EventTime::MIN {
        detail.insert("from".to_owned(), json!(range.start().to_string()));
    }
    if range.end() < EventTime::MAX {
        detail.insert("to".to_owned(), json!(range.end().to_string()));
    }
}

/// Rows in the place of those of a range, checked, as files.
fn encoded(
    found: &Found,
    range: TimeRange,
    batch: &RecordBatch,
) -> Result<Vec<(EncodedFile, RecordBatch)>, Error> {
    let Found { path, schema, .. } = found;
    let batch = conform(path, schema, batch)?;
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    check_times(path, schema, &batch)?;
    refuse_outside(path, schema, &batch, range)?;
    let prepared = prepare(path, schema, &[batch])?;
    let mut start = 0;
    let with_rows = |file: EncodedFile| {
        let count = usize::try_from(file.rows).unwrap_or(usize::MAX);
        let rows = prepared.batch.slice(start, count.min(prepared.batch.num_rows() - start));
        start += rows.num_rows();
        (file, rows)
    };
    Ok(encode(path, schema, &prepared)?.into_iter().map(with_rows).collect())
}

fn refuse_outside(
    path: &TreePath,
    schema: &SeriesSchema,
    batch: &RecordBatch,
    range: TimeRange,
) -> Result<(), Error> {
    let unit = schema.time_unit();
    let (first, last) = (range.start().ceil_to(unit), range.end().floor_to(unit));
    let times = schema.times(path, batch)?;
    let outside = |time: &i64| *time < first || *time > last;
    let Some(row) = times.values().iter().position(outside) else { return Ok(()) };
    let time = EventTime::from_unit(times.value(row), unit).unwrap_or_default();
    Err(Error::Value {
        path: path.clone(),
        column: schema.time_column().to_owned(),
        row,
        reason: format!(
            "the event time {time} lies outside the range {range} that is replaced; widen the range, or \
             leave the row out"
        ),
    })
}
