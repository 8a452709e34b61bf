//! Commits, checkpoints and the pointer, in order, and which parts are live after all of them.
//!
//! ```text
//! commits        57 58 59 60 … 64 65      no gap from the oldest on
//! checkpoints    57          …  64        the oldest commit is 0 or has one; each says what the
//! pointer                       64        commits before it do
//! ```
//!
//! After a commit that cannot be read it is not known for sure what is live, until the next
//! checkpoint tells.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tidelog_core::{CommitVersion, Env, WriteTime};
use tidelog_storage::object_store::ObjectStoreExt;
use tidelog_storage::object_store::path::Path;

use super::{Finding, RESTORE, unreadable};
use crate::carried::CARRIED_MAX;
use crate::checkpoint::{self, Checkpoint, Pointer};
use crate::commit::{self, Commit, RETENTION_DEFAULT};
use crate::error::Error;
use crate::fetch::{FETCH_CONCURRENCY, LogObjects, store_error};
use crate::hash::Hash128;
use crate::live_parts::LiveParts;
use crate::open::{Listing, pointer_path, read_pointer};
use crate::part::Part;

/// How often reading begins anew because upkeep has deleted some of what was listed.
const ATTEMPTS: u32 = 5;

/// What commits, checkpoints and the pointer say.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) parts: LiveParts,
    /// Whether it is known for sure that these are the parts.
    pub(super) is_certain: bool,
    /// Hashes of the names of all parts that something speaks of.
    pub(super) named: HashSet<Hash128>,
    pub(super) damage: Vec<Finding>,
    pub(super) notes: Vec<Finding>,
    pub(super) head: CommitVersion,
    pub(super) commits: u64,
    pub(super) checkpoints: u64,
}

/// Reads what there is of the log.
pub(super) async fn replay(objects: &LogObjects, env: &Env) -> Result<Replayed, Error> {
    let mut attempt = 1;
    loop {
        let listed = Listing::read(objects).await?;
        let mut replay = Replay::new(objects, &listed);
        replay.begin(env).await?;
        replay.read_all().await?;
        replay.check_pointer().await?;
        let done = replay.done;
        if done.damage.is_empty()
            || attempt == ATTEMPTS
            || !is_shorter_now(objects, &listed).await?
        {
            return Ok(done);
        }
        attempt += 1;
    }
}

/// Whether something has been deleted that was listed: what looks like damage may be expiry.
async fn is_shorter_now(objects: &LogObjects, listed: &Listing) -> Result<bool, Error> {
    let now = Listing::read(objects).await?;
    let is_gone = |in_list: &[CommitVersion], version| in_list.binary_search(version).is_err();
    Ok(listed.commits.iter().any(|version| is_gone(&now.commits, version))
        || listed.checkpoints.iter().any(|version| is_gone(&now.checkpoints, version)))
}

struct Replay<'a> {
    objects: &'a LogObjects,
    listed: &'a Listing,
    done: Replayed,
    last_write: WriteTime,
    /// How many actions each checkpoint has.
    actions: BTreeMap<CommitVersion, usize>,
    /// The newest commits, without what they carry.
    texts: VecDeque<(CommitVersion, Bytes)>,
}

impl<'a> Replay<'a> {
    fn new(objects: &'a LogObjects, listed: &'a Listing) -> Self {
        let newest = listed.commits.last().max(listed.checkpoints.last());
        let done = Replayed {
            head: newest.copied().unwrap_or_default(),
            commits: listed.commits.len() as u64,
            checkpoints: listed.checkpoints.len() as u64,
            ..Replayed::default()
        };
        let (last_write, actions) = (WriteTime::MIN, BTreeMap::new());
        Self { objects, listed, done, last_write, actions, texts: VecDeque::new() }
    }

    fn damaged(&mut self, object: &Path, problem: impl Into<String>, remedy: &str) {
        self.done.damage.push(Finding::new(problem, remedy).with_object(object.as_ref()));
    }

    fn commit_path(&self, version: CommitVersion) -> Path {
        commit::object_of(&self.objects.prefix, version)
    }

    fn checkpoint_path(&self, version: CommitVersion) -> Path {
        commit::checkpoint_of(&self.objects.prefix, version)
    }

    /// Checks that there is something that replay can begin with.
    async fn begin(&mut self, env: &Env) -> Result<(), Error> {
        let first = CommitVersion::new(0);
        let Some(oldest) = self.listed.commits.first().copied() else {
            if self.listed.checkpoints.is_empty() && !self.has_any_object().await? {
                return Err(Error::NotAStore);
            }
            self.damaged(&self.commit_path(first), "no commit is there", RESTORE);
            return Ok(());
        };
        if oldest == first {
            self.done.is_certain = true;
        } else if !self.listed.checkpoints.contains(&oldest) {
            let path = self.commit_path(CommitVersion::new(oldest.number() - 1));
            let problem = format!(
                "it and the commits before it are missing, and no checkpoint stands for them at \
                 commit {oldest}, the oldest that is there"
            );
            if self.is_half_expired(oldest, env).await? {
                let remedy = "nothing need be done: `tidelog maintain` deletes the rest";
                let finding = Finding::new("expiry of old commits was interrupted", remedy);
                self.done.notes.push(finding.with_object(self.commit_path(oldest).as_ref()));
            } else {
                self.damaged(&path, problem, RESTORE);
            }
        }
        Ok(())
    }

    async fn has_any_object(&self) -> Result<bool, Error> {
        let mut listed = self.objects.store.list(Some(&self.objects.prefix));
        match listed.next().await {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(source)) => Err(store_error("listing", &self.objects.prefix, source)),
        }
    }

    /// Whether commits from `oldest` on may be what expiry had still to delete when it was
    /// interrupted: those before a checkpoint that is old and not the newest.
    async fn is_half_expired(&self, oldest: CommitVersion, env: &Env) -> Result<bool, Error> {
        let [kept, .., _newest] = self.listed.checkpoints.as_slice() else { return Ok(false) };
        if *kept < oldest {
            return Ok(false);
        }
        let path = self.checkpoint_path(*kept);
        let meta = self.objects.store.head(&path).await;
        let meta = meta.map_err(|source| store_error("reading", &path, source))?;
        let age = env.clock.now().micros() - meta.last_modified.timestamp_micros();
        let retention = match self.objects.object(&path).await? {
            Some(bytes) => checkpoint::decode(bytes).map(|found| found.table.retention),
            None => return Ok(false),
        };
        let retention = retention.unwrap_or(RETENTION_DEFAULT);
        Ok(u128::try_from(age).is_ok_and(|age| age >= retention.as_micros()))
    }

    async fn read_all(&mut self) -> Result<(), Error> {
        let checkpoints = self.listed.checkpoints.iter();
        let mut numbers: Vec<_> = self.listed.commits.iter().chain(checkpoints).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let objects = self.objects.clone();
        let read = move |version| {
            let objects = objects.clone();
            async move { objects.commit_and_carried(version).await }
        };
        let mut read =
            stream::iter(self.listed.commits.clone()).map(read).buffered(FETCH_CONCURRENCY);
        let mut expected = self.listed.commits.first().copied();
        for version in numbers {
            self.note_gap(expected, version);
            expected = Some(version.next());
            if self.listed.commits.binary_search(&version).is_ok() {
                if let Some(commit) = read.next().await {
                    self.take_commit(version, commit)?;
                }
            } else {
                let problem = format!("commit {version} is missing, which has a checkpoint");
                self.damaged(&self.commit_path(version), problem, RESTORE);
                self.done.is_certain = false;
            }
            if self.listed.checkpoints.binary_search(&version).is_ok() {
                self.take_checkpoint(version).await?;
            }
        }
        Ok(())
    }

    fn note_gap(&mut self, expected: Option<CommitVersion>, found: CommitVersion) {
        let Some(first) = expected.filter(|expected| *expected < found) else { return };
        let last = CommitVersion::new(found.number() - 1);
        let which = if first == last {
            format!("commit {first} is")
        } else {
            format!("commits {first} to {last} are")
        };
        let problem = format!("{which} missing: nothing after can be read");
        self.damaged(&self.commit_path(first), problem, RESTORE);
        self.done.is_certain = false;
    }

    fn take_commit(
        &mut self,
        version: CommitVersion,
        read: Result<Option<Vec<Commit>>, Error>,
    ) -> Result<(), Error> {
        let path = self.commit_path(version);
        let read = read.map(|commits| {
            let mut carried = commits?;
            Some((carried.pop()?, carried))
        });
        let (commit, carried) = match read {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.damaged(&path, "it is missing", RESTORE);
                self.done.is_certain = false;
                return Ok(());
            }
            Err(error) => {
                self.done.damage.push(unreadable(&path, error)?);
                self.done.is_certain = false;
                return Ok(());
            }
        };
        self.name_all(commit.parts.iter());
        self.check_inline(&path, &commit);
        self.check_carried(&path, &carried);
        self.texts.push_back((version, commit.text.clone()));
        if self.texts.len() > CARRIED_MAX {
            self.texts.pop_front();
        }
        if version == CommitVersion::new(0) && commit.table.is_none() {
            self.damaged(&path, "it does not make a table", RESTORE);
        }
        if commit.last_write < self.last_write {
            let problem = "its last write time lies before that of an earlier commit";
            self.damaged(&path, problem, RESTORE);
        }
        self.last_write = commit.last_write;
        match self.done.parts.after(&commit) {
            Ok(parts) => self.done.parts = parts,
            Err(reason) => {
                if self.done.is_certain {
                    let problem = format!("it contradicts what came before it: {reason}");
                    self.damaged(&path, problem, RESTORE);
                }
                self.done.parts = self.done.parts.after_unknown(&commit);
                self.done.is_certain = false;
            }
        }
        Ok(())
    }

    /// Writers go by what a commit carries, all others by the commits themselves.
    fn check_carried(&mut self, path: &Path, carried: &[Commit]) {
        let differs = |carried: &&Commit| {
            let mut texts = self.texts.iter();
            texts.any(|(version, text)| *version == carried.version && *text != carried.text)
        };
        if let Some(wrong) = carried.iter().find(differs) {
            let problem = format!("it carries another commit {} than there is", wrong.version);
            self.damaged(path, problem, RESTORE);
        }
    }

    /// Followers go by the rows inside a commit, all others by its part.
    fn check_inline(&mut self, path: &Path, commit: &Commit) {
        let Some(inline) = &commit.inline else { return };
        let new = commit.parts.iter().filter(|part| !part.is_merged());
        let expected: u64 = new.map(|part| part.rows).sum();
        match inline.rows(path.as_ref()) {
            Ok(rows) if rows.len() as u64 == expected => {}
            Ok(rows) => {
                let problem = format!("{} rows are inside it, {expected} it adds", rows.len());
                self.damaged(path, problem, RESTORE);
            }
            Err(error) => {
                let problem = format!("the rows inside it cannot be read: {error}");
                self.damaged(path, problem, RESTORE);
            }
        }
    }

    async fn take_checkpoint(&mut self, version: CommitVersion) -> Result<(), Error> {
        let path = self.checkpoint_path(version);
        let found = match self.objects.object(&path).await {
            Ok(Some(bytes)) => checkpoint::decode(bytes),
            Ok(None) => Err(Error::DamagedCheckpoint { reason: "it is missing".to_owned() }),
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let mut finding = unreadable(&path, error)?;
                finding.remedy = self.checkpoint_remedy(version).to_owned();
                self.done.damage.push(finding);
                return Ok(());
            }
        };
        self.name_all(found.parts.iter().map(Arc::as_ref));
        self.actions.insert(version, found.action_count());
        if self.done.is_certain {
            if let Some(difference) = difference(&self.done.parts, &found) {
                let problem = format!("it is not what the commits before it say: {difference}");
                self.damaged(&path, problem, self.checkpoint_remedy(version));
            }
        } else {
            self.done.parts = LiveParts::in_order(found.parts);
            self.done.is_certain = true;
        }
        Ok(())
    }

    /// A checkpoint says nothing that commits do not, if those before it are there.
    fn checkpoint_remedy(&self, version: CommitVersion) -> &'static str {
        let is_older = |other: &CommitVersion| *other < version;
        let from_first = self.listed.commits.first() == Some(&CommitVersion::new(0));
        if from_first || self.listed.checkpoints.iter().any(is_older) {
            "restore it from a backup, or delete it: what it says follows from the commits before"
        } else {
            RESTORE
        }
    }

    fn name_all<'p>(&mut self, parts: impl Iterator<Item = &'p Part>) {
        self.done.named.extend(parts.map(|part| Hash128::of(part.object.as_bytes())));
    }

    async fn check_pointer(&mut self) -> Result<(), Error> {
        const REMEDY: &str = "delete it: the next checkpoint (`tidelog maintain`) writes it anew";
        let path = pointer_path(self.objects);
        let bytes = match read_pointer(self.objects).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.done.damage.push(unreadable(&path, error)?);
                return Ok(());
            }
        };
        let Some(bytes) = bytes else {
            self.check_absent_pointer(&path);
            return Ok(());
        };
        let Some(pointer) = Pointer::parse(&bytes) else {
            self.damaged(&path, "it does not name a checkpoint", REMEDY);
            return Ok(());
        };
        let Some(version) = pointer.single() else { return Ok(()) };
        match self.actions.get(&version) {
            Some(actions) if pointer.names(*actions) => {}
            Some(actions) => {
                let problem =
                    format!("it tells another size of checkpoint {version} than {actions} actions");
                self.damaged(&path, problem, REMEDY);
            }
            // Damaged itself, which has been said.
            None if self.listed.checkpoints.contains(&version) => {}
            None => {
                let named = self.checkpoint_path(version);
                // One that was written since the directory was listed is there now.
                if self.objects.object(&named).await?.is_none() {
                    let problem = format!("it is missing, and {path} names it");
                    let remedy = format!("{RESTORE}, or delete {path}, which is written anew");
                    self.damaged(&named, problem, &remedy);
                }
            }
        }
        Ok(())
    }

    /// The pointer is written after its checkpoint, so the first may be without for a moment.
    fn check_absent_pointer(&mut self, path: &Path) {
        let remedy =
            "nothing need be done: the next checkpoint (`tidelog maintain`) writes it anew";
        let from_first = self.listed.commits.first() == Some(&CommitVersion::new(0));
        match self.listed.checkpoints.len() {
            0 if from_first => {}
            1 if from_first => {
                let finding = Finding::new("it is missing, so opening reads from commit 0", remedy);
                self.done.notes.push(finding.with_object(path.as_ref()));
            }
            _ => self.damaged(path, "it is missing, so opening takes a listing", remedy),
        }
    }
}

/// How a checkpoint differs from the parts that the commits before it make live.
fn difference(parts: &LiveParts, found: &Checkpoint) -> Option<String> {
    let mut live: BTreeMap<&str, &Arc<Part>> =
        parts.iter().map(|part| (part.object.as_str(), part)).collect();
    for part in &found.parts {
        match live.remove(part.object.as_str()) {
            Some(known) if known.has_same_add(part) => {}
            Some(_) => return Some(format!("it describes part {:?} otherwise", part.object)),
            None => return Some(format!("part {:?} is not live then", part.object)),
        }
    }
    live.keys().next().map(|object| format!("it leaves out part {object:?}"))
}
