//! Opening a log: from its newest checkpoint, in three rounds of requests, without a listing.
//!
//! ```text
//! 1  the pointer ──▶ checkpoint C
//! 2  checkpoint C ‖ commit C (its record) ‖ commits C+1 … C+32, speculatively
//! 3  the checkpoint's tree parts ‖ rows of the commits after it ‖ further commits, if all were there
//! ```
//!
//! Without a pointer the commits are read from 0. Only if the pointer or what it names is gone, as
//! after a backup that was restored by halves, the directory is listed.
//!
//! A commit that is missing before one that exists is damage. It is looked for twice, because a
//! commit may land between the two requests that did and did not find one.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::TryStreamExt;
use tidelog_core::{CommitVersion, ErrorKind};
use tidelog_storage::object_store::{ObjectStore, path::Path};

use crate::checkpoint::{self, Checkpoint, POINTER, Pointer};
use crate::commit::{self, Commit};
use crate::error::Error;
use crate::fetch::{LogObjects, store_error};
use crate::row::Row;
use crate::state::Snapshot;

/// Commits asked for at once beyond what is known. Upkeep keeps the tail of the log within this.
pub(crate) const WINDOW: i64 = 32;

/// A log as it was found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) snapshot: Snapshot,
    /// The checkpoint that it was read from.
    pub(crate) checkpoint: Option<CommitVersion>,
}

/// Reads the log.
pub(crate) async fn open(objects: &LogObjects) -> Result<Opened, Error> {
    let pointer = objects.object(&pointer_path(objects)).await?;
    let named = pointer.as_deref().and_then(Pointer::parse).and_then(|pointer| pointer.single());
    let start = match named {
        Some(version) => from_checkpoint(objects, version).await?,
        None => from_first(objects).await?,
    };
    let start = match start {
        Some(start) => start,
        None => from_listing(objects).await?,
    };
    let snapshot = start.replay(objects).await?;
    Ok(Opened { snapshot, checkpoint: start.checkpoint })
}

/// Where reading begins, and the commits after that are known to follow.
struct Start {
    snapshot: Snapshot,
    checkpoint: Option<CommitVersion>,
    commits: Vec<Commit>,
}

/// `None` if the checkpoint, or the commit whose number it bears, is not there: an old pointer.
async fn from_checkpoint(
    objects: &LogObjects,
    version: CommitVersion,
) -> Result<Option<Start>, Error> {
    let (found, record, commits) = tokio::try_join!(
        checkpoint_at(objects, version),
        objects.commit(version),
        window(objects, version.next(), WINDOW),
    )?;
    let (Some(found), Some(record)) = (found, record) else { return Ok(None) };
    let shared = found.parts.iter().filter(|part| part.families.shared);
    let rows = objects.rows(shared.map(Arc::as_ref)).await?;
    let snapshot = Snapshot::from_checkpoint(&record, found, rows)?;
    Ok(Some(Start { snapshot, checkpoint: Some(version), commits }))
}

/// `None` if there is no commit 0.
async fn from_first(objects: &LogObjects) -> Result<Option<Start>, Error> {
    let commits = window(objects, CommitVersion::new(0), WINDOW).await?;
    let start = Start { snapshot: Snapshot::empty(), checkpoint: None, commits };
    Ok((!start.commits.is_empty()).then_some(start))
}

async fn from_listing(objects: &LogObjects) -> Result<Start, Error> {
    let listed = Listing::read(objects).await?;
    let mut checkpoints = listed.checkpoints;
    while let Some(version) = checkpoints.pop() {
        match from_checkpoint(objects, version).await {
            Ok(Some(start)) => return Ok(start),
            // An older one will do, if its commits are still there.
            Ok(None) | Err(Error::DamagedCheckpoint { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if listed.commits.is_empty() {
        return Err(Error::NotAStore);
    }
    from_first(objects).await?.ok_or_else(|| missing(objects, CommitVersion::new(0)))
}

async fn checkpoint_at(
    objects: &LogObjects,
    version: CommitVersion,
) -> Result<Option<Checkpoint>, Error> {
    let path = commit::checkpoint_of(&objects.prefix, version);
    objects.object(&path).await?.map(checkpoint::decode).transpose()
}

/// The commits from `first` on, as far as a window of requests shows them. A request that fails
/// behind the newest commit was not needed.
pub(crate) async fn window(
    objects: &LogObjects,
    first: CommitVersion,
    size: i64,
) -> Result<Vec<Commit>, Error> {
    let numbers = (0..size).map(|ahead| CommitVersion::new(first.number() + ahead)).collect();
    let found: Vec<Result<Option<Commit>, Error>> = objects
        .each(numbers, |objects, version| async move { Ok(objects.commit(version).await) })
        .await?;
    let mut commits = Vec::new();
    let mut absent = None;
    for (version, commit) in (first.number()..).map(CommitVersion::new).zip(found) {
        match (commit, absent) {
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) if error.kind() == ErrorKind::Corruption => return Err(error),
            (Ok(Some(commit)), None) => commits.push(commit),
            (Ok(None), None) => absent = Some(version),
            (Ok(Some(_)), Some(gap)) => match objects.commit(gap).await? {
                // It has landed since. Those behind it are left to the next window.
                Some(_) => break,
                None => return Err(missing(objects, gap)),
            },
            (Ok(None) | Err(_), Some(_)) => {}
        }
    }
    Ok(commits)
}

impl Start {
    /// The state after the commits that follow, those beyond the first window included.
    async fn replay(&self, objects: &LogObjects) -> Result<Snapshot, Error> {
        let mut snapshot = self.snapshot.clone();
        let mut commits = self.commits.clone();
        loop {
            let full = i64::try_from(commits.len()) == Ok(WINDOW);
            let after = commits.last().map_or(snapshot.next_commit(), |last| last.version.next());
            let next =
                async { if full { window(objects, after, WINDOW).await } else { Ok(Vec::new()) } };
            let (replayed, next) = tokio::try_join!(replay(objects, snapshot, &commits), next)?;
            snapshot = replayed;
            if next.is_empty() {
                return Ok(snapshot);
            }
            commits = next;
        }
    }
}

async fn replay(
    objects: &LogObjects,
    mut snapshot: Snapshot,
    commits: &[Commit],
) -> Result<Snapshot, Error> {
    let rows: Vec<Vec<Row>> = objects
        .each(commits.to_vec(), |objects, commit| async move {
            objects.new_rows(&commit, |part| part.families.shared).await
        })
        .await?;
    for (commit, rows) in commits.iter().zip(rows) {
        let loaded = snapshot.loaded();
        snapshot = snapshot.after(commit, rows, loaded, false)?;
    }
    Ok(snapshot)
}

fn missing(objects: &LogObjects, commit: CommitVersion) -> Error {
    let object = commit::object_of(&objects.prefix, commit).to_string();
    Error::DamagedCommit { commit, object, reason: "it is missing".into() }
}

pub(crate) fn pointer_path(objects: &LogObjects) -> Path {
    objects.prefix.clone().join("_delta_log").join(POINTER)
}

/// What lies in the directory of commits.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// In ascending order.
    pub(crate) commits: Vec<CommitVersion>,
    /// In ascending order.
    pub(crate) checkpoints: Vec<CommitVersion>,
}

impl Listing {
    pub(crate) async fn read(objects: &LogObjects) -> Result<Self, Error> {
        let directory = objects.prefix.clone().join("_delta_log");
        let metas: Vec<_> = objects
            .store
            .list(Some(&directory))
            .try_collect()
            .await
            .map_err(|source| store_error("listing", &directory, source))?;
        let mut listing = Self::default();
        for name in metas.iter().filter_map(|meta| meta.location.filename()) {
            let number = |text: &str| text.parse().ok().map(CommitVersion::new);
            if let Some(version) = name.strip_suffix(".checkpoint.parquet").and_then(number) {
                listing.checkpoints.push(version);
            } else if let Some(version) = name.strip_suffix(".json").and_then(number) {
                listing.commits.push(version);
            }
        }
        listing.commits.sort_unstable();
        listing.checkpoints.sort_unstable();
        Ok(listing)
    }
}

/// The bytes of the pointer, for upkeep to compare.
pub(crate) async fn read_pointer(objects: &LogObjects) -> Result<Option<Bytes>, Error> {
    objects.object(&pointer_path(objects)).await
}
