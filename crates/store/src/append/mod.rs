//! Appends: batches become versions.
//!
//! ```text
//! resolve path → schema → conform → sort, dedup → encode ─┬→ put file ─┐
//!   (again, if the path was changed meanwhile)            └→ queue ────┴→ commit
//! ```
//!
//! Batches of one call that go to the same series share one file, each as a version of its own.
//!
//! | module | holds |
//! |---|---|
//! | `target` | the series that an append is for |
//! | `group` | the appends to one series, made ready to be put or logged |

mod group;
mod target;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use tidelog_core::{CommitVersion, FileId, NodeId, TimeUnit, TransactionId, TreePath, Version};
use tidelog_oplog::{EntryType, FileRow};
use tidelog_storage::object_store::ObjectStoreExt;
use tidelog_storage::object_store::path::Path;
use tokio::task::JoinHandle;

use crate::commit::{Landed, Rejected, SeriesAppend, TargetState, Work};
use crate::encode::EncodedFile;
use crate::engine::{AppendReceipt, Durability, Engine};
use crate::error::Error;
use crate::file_reader::Footer;
use crate::head::Head;
use crate::hot::memory_of;
use crate::owner::{HotAppend, Owner};
use crate::prepare::VersionFacts;

use self::group::{GroupRows, Prepared, PreparedGroup, prepare_group};

/// How often an append is prepared anew because the tree changed under it.
const PREPARE_ATTEMPTS: u32 = 16;
/// Preparing so many rows for memory takes less time than handing them to another thread and back.
const PREPARED_INLINE_ROWS_MAX: usize = 2048;

type Puts = Vec<JoinHandle<Result<(), Error>>>;

/// One append: rows for a series.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Append {
    /// The series; it is made, with the directories above it, if it does not exist.
    pub path: TreePath,
    /// The rows.
    pub batch: RecordBatch,
    /// The time column, if it is not to be found by name.
    pub time_column: Option<String>,
    /// The unit of an `Int64` time column.
    pub time_unit: Option<TimeUnit>,
    /// The id of the write; generated if absent. Repeating an append with its id is idempotent.
    pub transaction: Option<TransactionId>,
    /// Whether the id was made here, so that nobody can have written it before.
    generated: bool,
}

impl Append {
    /// Rows for the series at `path`.
    #[must_use]
    pub fn new(path: TreePath, batch: RecordBatch) -> Self {
        Self {
            path,
            batch,
            time_column: None,
            time_unit: None,
            transaction: None,
            generated: false,
        }
    }

    /// Names the time column. Default: found by name and type.
    #[must_use]
    pub fn with_time_column(mut self, name: impl Into<String>) -> Self {
        self.time_column = Some(name.into());
        self
    }

    /// States the unit of an `Int64` time column. Default: none.
    #[must_use]
    pub fn with_time_unit(mut self, unit: TimeUnit) -> Self {
        self.time_unit = Some(unit);
        self
    }

    /// Gives the write an id, so that it can be repeated safely. Default: a new one.
    #[must_use]
    pub fn with_transaction(mut self, transaction: TransactionId) -> Self {
        self.transaction = Some(transaction);
        self
    }
}

/// What became of each append of a call, in the order of the call.
pub type AppendResults = Vec<Result<AppendReceipt, Error>>;

/// Appends of one series within a call.
struct SeriesGroup {
    path: TreePath,
    /// Positions in the call.
    members: Vec<usize>,
}

/// A group that is ready to be queued.
struct ReadyGroup {
    append: ReadyAppend,
    facts: Vec<VersionFacts>,
    /// Positions in the call, one for each version.
    members: Vec<usize>,
}

/// How rows are kept.
enum ReadyAppend {
    /// In files, the puts of which are under way.
    Files(SeriesAppend),
    /// In memory, behind a write-ahead log.
    Hot(HotAppend),
}

/// How the appends of one call are kept.
struct Route {
    owner: Option<Arc<Owner>>,
    /// Whether they go through memory.
    hot: bool,
    /// The commit up to which nobody else's writes under the ids of the call are unknown.
    checked: CommitVersion,
}

impl Route {
    fn durability(&self) -> Durability {
        match &self.owner {
            Some(owner) if self.hot => owner.durability(),
            _ => Durability::Committed,
        }
    }
}

impl Engine {
    /// Appends one batch as one version.
    ///
    /// # Errors
    /// If the input does not fit the series, or the commit fails; nothing is stored then, unless
    /// the error's kind is [`OutcomeUnknown`](tidelog_core::ErrorKind::OutcomeUnknown).
    pub async fn append(&self, append: Append) -> Result<AppendReceipt, Error> {
        self.append_many(vec![append]).await.pop().unwrap_or(Err(Error::Closed))
    }

    /// Appends many batches, each as a version, in one commit. Each succeeds or fails alone.
    pub async fn append_many(&self, appends: Vec<Append>) -> AppendResults {
        let repeated = repeated_ids(&appends);
        let mut results: Vec<Option<Result<AppendReceipt, Error>>> =
            repeated.into_iter().map(|error| error.map(Err)).collect();
        let appends = Arc::new(self.with_ids(appends));
        let mut pending = Vec::new();
        for group in groups(&appends, |position| results[position].is_none()) {
            pending.push(self.append_group(Arc::clone(&appends), group));
        }
        for outcome in futures::future::join_all(pending).await {
            for (position, result) in outcome {
                results[position] = Some(result);
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(Error::Closed))).collect()
    }

    /// Appends many batches, to one series or several, so that all versions become visible together
    /// or none is stored.
    ///
    /// # Errors
    /// The first thing that stands in the way of any of them.
    pub async fn append_atomic(&self, appends: Vec<Append>) -> Result<Vec<AppendReceipt>, Error> {
        if let Some(error) = repeated_ids(&appends).into_iter().flatten().next() {
            return Err(error);
        }
        let appends = Arc::new(self.with_ids(appends));
        for _ in 0..PREPARE_ATTEMPTS {
            let all: Vec<usize> = (0..appends.len()).collect();
            let route = self.route(&appends, &all).await?;
            if let Some(known) = self.already_appended(&appends).await? {
                return Ok(known);
            }
            let head = self.local_head()?;
            let mut ready = Vec::new();
            for group in groups(&appends, |_| true) {
                let (prepared, failed) =
                    self.ready(Arc::clone(&appends), group, &head, &route, true).await;
                if let Some((_, error)) = failed.into_iter().next() {
                    return Err(error);
                }
                ready.extend(prepared);
            }
            let mut receipts: Vec<AppendReceipt> = appends.iter().map(empty_receipt).collect();
            if ready.is_empty() {
                return Ok(receipts);
            }
            let order: Vec<usize> = ready.iter().flat_map(|group| group.members.clone()).collect();
            let facts: Vec<VersionFacts> =
                ready.iter().flat_map(|group| group.facts.clone()).collect();
            let ready = ready.into_iter().map(|group| group.append).collect();
            match self.submit_appends(&route, ready).await {
                Ok(landed) => {
                    let kept = route.durability();
                    for (position, receipt) in receipts_of(&appends, &order, &facts, &landed, kept)
                    {
                        receipts[position] = receipt;
                    }
                    return Ok(receipts);
                }
                Err(Rejected::Failed(Error::Claimed { .. })) if self.free().await? => {}
                Err(Rejected::Failed(error)) => return Err(error),
                Err(Rejected::Stale) => drop(self.head().await?),
            }
        }
        let path = appends.first().map_or_else(TreePath::root, |append| append.path.clone());
        Err(Error::Contention { path, attempts: PREPARE_ATTEMPTS })
    }

    /// How the appends at these positions of a call are kept.
    async fn route(&self, appends: &[Append], positions: &[usize]) -> Result<Route, Error> {
        let owner = self.owner().await?;
        let batches = || positions.iter().map(|position| &appends[*position].batch);
        let bytes = batches().map(memory_of).sum();
        let rows = batches().map(RecordBatch::num_rows).sum();
        let hot = owner.as_ref().is_some_and(|owner| owner.takes(bytes, rows));
        Ok(Route { owner, hot, checked: self.log().snapshot().next_commit() })
    }

    /// Makes appends durable and visible, all of them or none.
    async fn submit_appends(
        &self,
        route: &Route,
        ready: Vec<ReadyAppend>,
    ) -> Result<Landed, Rejected> {
        let (mut files, mut hot) = (Vec::new(), Vec::new());
        for append in ready {
            match append {
                ReadyAppend::Files(append) => files.push(append),
                ReadyAppend::Hot(append) => hot.push(append),
            }
        }
        match &route.owner {
            Some(owner) if route.hot => owner.append(hot).await,
            Some(owner) => {
                // What was acknowledged before has lower numbers.
                let _paused = owner.pause().await?;
                let outcome = self.submit(Work::Append(files)).await;
                if let Err(Rejected::Failed(error)) = &outcome {
                    owner.note_outcome(error);
                }
                outcome
            }
            None => self.submit(Work::Append(files)).await,
        }
    }

    fn with_ids(&self, mut appends: Vec<Append>) -> Vec<Append> {
        for append in &mut appends {
            append.generated = append.transaction.is_none();
            append.transaction.get_or_insert_with(|| self.new_transaction());
        }
        appends
    }

    /// Receipts of an earlier atomic append with the same transaction ids, if there was one.
    async fn already_appended(
        &self,
        appends: &[Append],
    ) -> Result<Option<Vec<AppendReceipt>>, Error> {
        let mut receipts = Vec::with_capacity(appends.len());
        for append in appends {
            receipts.extend(self.find_transaction(append).await?);
        }
        match receipts.first() {
            None => Ok(None),
            Some(_) if receipts.len() == appends.len() => Ok(Some(receipts)),
            Some(known) => {
                let reason = format!(
                    "transaction {} was written before and others of the call were not; repeat \
                     the call as it was, or with new ids",
                    known.transaction
                );
                Err(Error::Options { path: known.path.clone(), reason })
            }
        }
    }

    /// The version that an earlier append with the same transaction id became.
    async fn find_transaction(&self, append: &Append) -> Result<Option<AppendReceipt>, Error> {
        let Some(transaction) = append.transaction.filter(|_| !append.generated) else {
            return Ok(None);
        };
        let head = self.head().await?;
        let Some(node) = head.tree().resolve(&append.path) else { return Ok(None) };
        if node.entry != EntryType::FileSeries {
            return Ok(None);
        }
        let series = head.series(self.log(), node.id).await?;
        Ok(series.find_transaction(transaction).map(|row| AppendReceipt {
            path: append.path.clone(),
            version: Some(row.version),
            write_time: Some(row.timestamp),
            rows: row.rows,
            durability: Durability::Committed,
            transaction,
        }))
    }

    /// Appends the members of one series; results come with their positions in the call.
    async fn append_group(
        &self,
        appends: Arc<Vec<Append>>,
        mut group: SeriesGroup,
    ) -> Vec<(usize, Result<AppendReceipt, Error>)> {
        let everywhere = |error: &Error, members: &[usize]| {
            members.iter().map(|i| (*i, Err(error.clone()))).collect::<Vec<_>>()
        };
        let mut known = Vec::new();
        for _ in 0..PREPARE_ATTEMPTS {
            let route = match self.route(&appends, &group.members).await {
                Ok(route) => route,
                Err(error) => return everywhere(&error, &group.members),
            };
            known.extend(self.take_known(&appends, &mut group).await);
            let again = SeriesGroup { path: group.path.clone(), members: group.members.clone() };
            let (ready, failed) = match self.local_head() {
                Ok(head) => self.ready(Arc::clone(&appends), again, &head, &route, false).await,
                Err(error) => return everywhere(&error, &group.members),
            };
            let mut results: Vec<(usize, Result<AppendReceipt, Error>)> =
                failed.into_iter().map(|(position, error)| (position, Err(error))).collect();
            results.append(&mut known);
            let Some(ready) = ready else { return with_empty(&appends, &group, results) };
            let mut outcome = self.submit_appends(&route, vec![ready.append]).await;
            if let Err(Rejected::Failed(Error::Claimed { .. })) = &outcome {
                match self.free().await {
                    Ok(true) => outcome = Err(Rejected::Stale),
                    Ok(false) => {}
                    Err(error) => outcome = Err(error.into()),
                }
            }
            match outcome {
                Ok(landed) => {
                    let (members, facts) = (&ready.members, &ready.facts);
                    let receipts =
                        receipts_of(&appends, members, facts, &landed, route.durability());
                    results.extend(receipts.into_iter().map(|(i, receipt)| (i, Ok(receipt))));
                    return with_empty(&appends, &group, results);
                }
                Err(Rejected::Failed(error)) => {
                    results.extend(everywhere(&error, &ready.members));
                    return with_empty(&appends, &group, results);
                }
                Err(Rejected::Stale) => {
                    known = results.into_iter().filter(|(_, result)| result.is_ok()).collect();
                    if let Err(error) = self.head().await {
                        known.extend(everywhere(&error, &group.members));
                        return known;
                    }
                }
            }
        }
        let error = Error::Contention { path: group.path, attempts: PREPARE_ATTEMPTS };
        known.extend(everywhere(&error, &group.members));
        known
    }

    /// Takes out the members of a group that were written before, with what became of them.
    async fn take_known(
        &self,
        appends: &[Append],
        group: &mut SeriesGroup,
    ) -> Vec<(usize, Result<AppendReceipt, Error>)> {
        let mut known = Vec::new();
        for position in &group.members {
            let found = self.find_transaction(&appends[*position]).await;
            known.extend(found.transpose().map(|found| (*position, found)));
        }
        group.members.retain(|member| known.iter().all(|(position, _)| position != member));
        known
    }

    /// Prepares a group off the runtime and, if it goes to files, starts their puts.
    async fn ready(
        &self,
        appends: Arc<Vec<Append>>,
        group: SeriesGroup,
        head: &Head,
        route: &Route,
        all_or_none: bool,
    ) -> (Option<ReadyGroup>, Vec<(usize, Error)>) {
        let everywhere = |error: Error| -> (Option<ReadyGroup>, Vec<(usize, Error)>) {
            (None, group.members.iter().map(|i| (*i, error.clone())).collect())
        };
        let mut prepared = self.prepare(&appends, &group, head, route, all_or_none).await;
        // Success is checked again when it is committed; a refusal is final, so it must not come
        // from a state that somebody has changed since.
        if !matches!(&prepared, Ok((_, failed)) if failed.is_empty()) {
            match self.head().await {
                Ok(newest) if !newest.is_as(head) => {
                    prepared = self.prepare(&appends, &group, &newest, route, all_or_none).await;
                }
                Ok(_) => {}
                Err(error) => return everywhere(error),
            }
        }
        let (prepared, failed) = match prepared {
            Ok((Some(prepared), failed)) => (prepared, failed),
            Ok((None, failed)) => return (None, failed),
            Err(error) => return everywhere(error),
        };
        match self.make_ready(prepared, head, route).await {
            Ok(ready) => (Some(ready), failed),
            Err(error) => everywhere(error),
        }
    }

    async fn prepare(
        &self,
        appends: &Arc<Vec<Append>>,
        group: &SeriesGroup,
        head: &Head,
        route: &Route,
        all_or_none: bool,
    ) -> Result<Prepared, Error> {
        let new_node = NodeId::random(self.env().randomness.as_ref());
        let rows: usize =
            group.members.iter().map(|position| appends[*position].batch.num_rows()).sum();
        let (tree, hot) = (head.tree(), route.hot);
        if hot && rows <= PREPARED_INLINE_ROWS_MAX {
            let (path, members) = (&group.path, &group.members);
            return prepare_group(appends, path, members, tree, new_node, all_or_none, hot);
        }
        let (appends, members, tree) = (Arc::clone(appends), group.members.clone(), tree.clone());
        let path = group.path.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            prepare_group(&appends, &path, &members, &tree, new_node, all_or_none, hot)
        });
        prepared.await.unwrap_or(Err(Error::Closed))
    }

    async fn make_ready(
        &self,
        prepared: PreparedGroup,
        head: &Head,
        route: &Route,
    ) -> Result<ReadyGroup, Error> {
        let PreparedGroup { path, target, schema, versions, given_ids, rows, members } = prepared;
        let facts = versions.iter().map(|(facts, _)| *facts).collect();
        let append = match rows {
            GroupRows::Files(files) => {
                let time_column = schema.time_column().into();
                let puts_since = self.log().snapshot().next_commit();
                let (files, puts) = self.start_puts(&path, target.node, files);
                ReadyAppend::Files(SeriesAppend {
                    path,
                    target,
                    time_column,
                    versions,
                    given_ids,
                    files,
                    puts,
                    puts_since,
                })
            }
            GroupRows::Hot(file, encoded) => {
                // Of a series that the append makes the log has nothing, and is not asked.
                let committed = match &target.state {
                    TargetState::Absent(..) => Version::NONE,
                    _ => head.committed(self.log(), target.node).await?.head(),
                };
                let (schema, checked) = (Arc::new(schema), route.checked);
                ReadyAppend::Hot(HotAppend {
                    path,
                    target,
                    schema,
                    versions,
                    given_ids,
                    file,
                    encoded,
                    committed,
                    checked,
                })
            }
        };
        Ok(ReadyGroup { append, facts, members })
    }

    pub(crate) fn start_puts(
        &self,
        path: &TreePath,
        node: NodeId,
        files: Vec<EncodedFile>,
    ) -> (Vec<FileRow>, Puts) {
        let mut rows = Vec::with_capacity(files.len());
        let mut puts = Vec::with_capacity(files.len());
        for file in files {
            let id = FileId::random(self.env().randomness.as_ref());
            let row = file.row(id, path, node);
            let footer = Footer { metadata: file.metadata, pages: file.pages, whole: None };
            self.files().remember(row.file, footer);
            puts.push(self.start_put(&row, file.bytes));
            rows.push(row);
        }
        (rows, puts)
    }

    fn start_put(&self, row: &FileRow, bytes: Bytes) -> JoinHandle<Result<(), Error>> {
        let (store, location) = (Arc::clone(self.object_store()), Arc::clone(&row.location));
        tokio::spawn(async move {
            let put = store.put(&Path::from(location.as_ref()), bytes.into()).await;
            put.map(|_| ()).map_err(|error| Error::store("writing", &location, error))
        })
    }
}

/// For each append, the error that its id is given to another append of the same series too.
fn repeated_ids(appends: &[Append]) -> Vec<Option<Error>> {
    let mut seen = HashSet::new();
    appends
        .iter()
        .map(|append| {
            let id = append.transaction?;
            let repeated = !seen.insert((&append.path, id));
            repeated.then(|| Error::Options {
                path: append.path.clone(),
                reason: format!("transaction {id} is given twice in one call; give each its own"),
            })
        })
        .collect()
}

/// The wanted appends of a call by series, each group in the order of the call.
fn groups(appends: &[Append], wanted: impl Fn(usize) -> bool) -> Vec<SeriesGroup> {
    let mut by_path: BTreeMap<&TreePath, Vec<usize>> = BTreeMap::new();
    for (position, append) in appends.iter().enumerate().filter(|(position, _)| wanted(*position)) {
        by_path.entry(&append.path).or_default().push(position);
    }
    by_path.into_iter().map(|(path, members)| SeriesGroup { path: path.clone(), members }).collect()
}

fn empty_receipt(append: &Append) -> AppendReceipt {
    AppendReceipt {
        path: append.path.clone(),
        version: None,
        write_time: None,
        rows: 0,
        durability: Durability::Committed,
        transaction: append
            .transaction
            .unwrap_or_else(|| TransactionId::from_uuid(NodeId::ROOT.as_uuid())),
    }
}

fn receipts_of(
    appends: &[Append],
    positions: &[usize],
    facts: &[VersionFacts],
    landed: &Landed,
    durability: Durability,
) -> Vec<(usize, AppendReceipt)> {
    let versions = landed.versions.iter().zip(facts);
    positions
        .iter()
        .zip(versions)
        .map(|(position, ((version, write_time), facts))| {
            let mut receipt = empty_receipt(&appends[*position]);
            receipt.version = Some(*version);
            receipt.write_time = Some(*write_time);
            receipt.rows = facts.rows;
            receipt.durability = durability;
            (*position, receipt)
        })
        .collect()
}

/// Adds receipts for the members that had no rows, which store nothing and succeed.
fn with_empty(
    appends: &[Append],
    group: &SeriesGroup,
    mut results: Vec<(usize, Result<AppendReceipt, Error>)>,
) -> Vec<(usize, Result<AppendReceipt, Error>)> {
    for position in &group.members {
        if !results.iter().any(|(known, _)| known == position) {
            results.push((*position, Ok(empty_receipt(&appends[*position]))));
        }
    }
    results
}
