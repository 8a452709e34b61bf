//! Checkpoints, and letting go of what they make superfluous.
//!
//! Ages are differences of two times that the store itself gives, so no machine's clock decides.
//! What may go is measured against a checkpoint K that is older than the retention and not the
//! newest:
//!
//! - commits and checkpoints before K, for whoever has looked at the log within the retention is at
//!   K or later; oldest first, so that a commit that is there proves those after it to be there;
//! - parts put before K that are live neither in K nor at head: either merged away before K, or
//!   never committed. They are announced by a commit before they are deleted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::TryStreamExt;
use tidelog_core::CommitVersion;
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};

use crate::checkpoint::{self, Pointer};
use crate::commit;
use crate::error::Error;
use crate::fetch::{LogObjects, store_error};
use crate::log::Log;
use crate::open::{pointer_path, read_pointer};
use crate::state::Snapshot;

/// Commits deleted in one go; each is a request, one after the other.
const COMMITS_MAX: usize = 1000;
/// Parts announced in one commit.
const PARTS_MAX: usize = 1000;
/// An object of a few bytes, written anew to learn what time the store has.
const CLOCK: &str = "upkeep-clock";

/// What nobody can want any more.
#[derive(Debug, Clone, Default)]
pub struct Expired {
    /// Parts, as objects relative to the store's root. They are to be announced before they go.
    pub parts: Vec<String>,
    /// Commits and checkpoints, in the order in which they must go.
    commits: Vec<Path>,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Expired {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.commits.is_empty()
    }

    /// The parts to announce in the commit that follows `snapshot`.
    #[must_use]
    pub fn announcement(&self, snapshot: &Snapshot) -> Vec<String> {
        let prefix = format!("{}/", crate::LOG_DIRECTORY);
        let live: HashSet<&str> = snapshot.parts().map(|part| part.object.as_str()).collect();
        let is_live = |object: &str| object.strip_prefix(&prefix).is_some_and(|o| live.contains(o));
        self.parts.iter().filter(|object| !is_live(object)).cloned().collect()
    }

    /// How many objects there are.
    #[must_use]
    pub fn object_count(&self) -> usize {
        self.parts.len() + self.commits.len()
    }
}

impl Log {
    /// Writes a checkpoint of `snapshot`, unless there is one at most `apart` commits before.
    /// Returns whether it did.
    ///
    /// # Errors
    /// The store's failure. The log is as good without.
    pub async fn checkpoint(&self, snapshot: &Snapshot, apart: u64) -> Result<bool, Error> {
        let head = snapshot.head();
        let recent = |known: CommitVersion| {
            known >= head || head.number().abs_diff(known.number()) < apart.max(1)
        };
        let Some(table) = snapshot.table() else { return Ok(false) };
        if self.checkpoint_known().is_some_and(recent) {
            return Ok(false);
        }
        let objects = self.objects();
        let pointer = read_pointer(objects).await?.and_then(|bytes| Pointer::parse(&bytes));
        if let Some(known) = pointer.and_then(|pointer| pointer.single()) {
            self.note_checkpoint(Some(known));
            if recent(known) {
                return Ok(false);
            }
        }
        let (snapshot, table) = (snapshot.clone(), Arc::clone(table));
        let encoded = tokio::task::spawn_blocking(move || {
            checkpoint::encode(snapshot.head(), &table, snapshot.parts(), snapshot.all_covered())
        });
        let (bytes, pointer) = encoded.await.map_err(Error::encode)??;
        put_new(objects, &commit::checkpoint_of(&objects.prefix, head), bytes).await?;
        objects.put(&pointer_path(objects), pointer).await?;
        self.note_checkpoint(Some(head));
        Ok(true)
    }

    /// What nobody can want any more, seen from `snapshot`. It lists the log's directories.
    ///
    /// # Errors
    /// Damage, or the store's failure.
    pub async fn expired(&self, snapshot: &Snapshot) -> Result<Expired, Error> {
        let objects = self.objects();
        let listed = Listed::read(objects).await?;
        let Some((kept, kept_meta)) = listed.checkpoint_to_keep(snapshot.retention()) else {
            return Ok(Expired::default());
        };
        let path = commit::checkpoint_of(&objects.prefix, kept);
        let Some(bytes) = objects.object(&path).await? else { return Ok(Expired::default()) };
        let then = checkpoint::decode(bytes)?;
        let live: HashSet<&str> =
            then.parts.iter().chain(snapshot.parts()).map(|part| part.object.as_str()).collect();
        let is_gone = |meta: &&ObjectMeta| {
            let name = meta.location.filename().unwrap_or_default();
            meta.last_modified < kept_meta.last_modified && !live.contains(name)
        };
        let parts: Vec<&ObjectMeta> = listed.parts.iter().filter(is_gone).take(PARTS_MAX).collect();
        let commits: Vec<&ObjectMeta> = listed.before(kept).into_iter().take(COMMITS_MAX).collect();
        Ok(Expired {
            bytes: parts.iter().chain(&commits).map(|meta| meta.size).sum(),
            parts: parts.iter().map(|meta| meta.location.to_string()).collect(),
            commits: commits.iter().map(|meta| meta.location.clone()).collect(),
        })
    }

    /// Deletes what has expired, after its parts have been announced by a commit in `snapshot`.
    ///
    /// # Errors
    /// The store's failure; the rest is found again next time.
    pub async fn delete_expired(
        &self,
        expired: &Expired,
        snapshot: &Snapshot,
    ) -> Result<(), Error> {
        let objects = self.objects();
        let live: HashSet<Path> = snapshot.parts().map(|part| objects.part_path(part)).collect();
        let parts = expired.parts.iter().map(|object| Path::from(object.as_str()));
        let gone = parts.filter(|path| !live.contains(path)).collect();
        objects.each(gone, |objects, path| async move { delete(&objects, &path).await }).await?;
        for path in &expired.commits {
            delete(objects, path).await?;
        }
        Ok(())
    }
}

/// Puts an object that another process may have put with the same meaning.
async fn put_new(objects: &LogObjects, path: &Path, bytes: Bytes) -> Result<(), Error> {
    match objects.store.put_opts(path, bytes.into(), PutMode::Create.into()).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(source) => Err(store_error("writing", path, source)),
    }
}

async fn delete(objects: &LogObjects, path: &Path) -> Result<(), Error> {
    match objects.store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(store_error("deleting", path, source)),
    }
}

/// An object that the store has just written: its time is the store's time now.
pub(super) async fn store_time(objects: &LogObjects) -> Result<ObjectMeta, Error> {
    let clock = objects.prefix.clone().join(CLOCK);
    objects.put(&clock, Bytes::from_static(b"now")).await?;
    let now = objects.store.head(&clock).await;
    now.map_err(|source| store_error("reading", &clock, source))
}

/// What lies in the log's directories, and what time the store has.
struct Listed {
    now: ObjectMeta,
    commits: Vec<(CommitVersion, ObjectMeta)>,
    checkpoints: Vec<(CommitVersion, ObjectMeta)>,
    parts: Vec<ObjectMeta>,
}

impl Listed {
    async fn read(objects: &LogObjects) -> Result<Self, Error> {
        let now = store_time(objects).await?;
        let fail = |source| store_error("listing", &objects.prefix, source);
        let all = objects.store.list(Some(&objects.prefix));
        let all: Vec<ObjectMeta> = all.try_collect().await.map_err(fail)?;
        let mut listed = Self { now, commits: vec![], checkpoints: vec![], parts: vec![] };
        for meta in all {
            let Some(name) = meta.location.filename() else { continue };
            let number = |suffix| name.strip_suffix(suffix)?.parse().ok().map(CommitVersion::new);
            if let Some(version) = number(".checkpoint.parquet") {
                listed.checkpoints.push((version, meta));
            } else if let Some(version) = number(".json") {
                listed.commits.push((version, meta));
            } else if name.starts_with("part-") || name.starts_with("probe-") {
                listed.parts.push(meta);
            }
        }
        listed.commits.sort_by_key(|(version, _)| *version);
        listed.checkpoints.sort_by_key(|(version, _)| *version);
        Ok(listed)
    }

    /// The newest checkpoint that is older than the retention, unless it is the newest of all.
    fn checkpoint_to_keep(&self, retention: Duration) -> Option<(CommitVersion, &ObjectMeta)> {
        let (_newest, older) = self.checkpoints.split_last()?;
        let is_old = |meta: &ObjectMeta| {
            let age = self.now.last_modified - meta.last_modified;
            age.to_std().is_ok_and(|age| age >= retention)
        };
        older.iter().rev().find(|(_, meta)| is_old(meta)).map(|(version, meta)| (*version, meta))
    }

    /// Checkpoints, then commits before `kept`, oldest first.
    fn before(&self, kept: CommitVersion) -> Vec<&ObjectMeta> {
        let checkpoints = self.checkpoints.iter().filter(|(version, _)| *version < kept);
        let commits = self.commits.iter().filter(|(version, _)| *version < kept);
        checkpoints.chain(commits).map(|(_, meta)| meta).collect()
    }
}
