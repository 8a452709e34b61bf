//! Checking a log, also one that is too damaged to open: reading all of it, and going on after
//! damage.
//!
//! - `finding` is what is said about damage.
//! - `replay` reads commits, checkpoints and the pointer, and tells which parts are live.
//! - `verify` reads live parts, newest first, and believes none of what their `add` says.
//!
//! What rows mean for series and data files is checked in the store crate. Nothing is written.

mod finding;
mod replay;
mod verify;

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use tidelog_core::{CommitVersion, Env};
use tidelog_storage::error::io_cause;
use tidelog_storage::object_store::ObjectStore;
use tidelog_storage::object_store::path::Path;

use crate::LOG_DIRECTORY;
use crate::error::Error;
use crate::fetch::LogObjects;
use crate::hash::Hash128;
use crate::live_parts::LiveParts;

pub use finding::Finding;
pub use verify::CheckedPart;

/// What is to be done about an object that is not what was written.
pub const RESTORE: &str = "restore it from a backup";

/// What is to be done about an object that the disk does not give.
pub const MEND: &str = "mend the disk or the rights to it, or restore it from a backup";

/// Parts that are read ahead; each is held decoded.
const PARTS_AHEAD: usize = 2;

/// A log whose commits have been read.
#[derive(Debug)]
pub struct LogCheck {
    objects: LogObjects,
    live: LiveParts,
    live_names: HashSet<String>,
    /// Hashes of the names of parts that a commit or checkpoint speaks of.
    named: HashSet<Hash128>,
    /// What is wrong with commits, checkpoints and the pointer.
    pub damage: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<Finding>,
    /// The newest commit.
    pub head: CommitVersion,
    /// How many commits there are.
    pub commits: u64,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// Whether it is known for sure which parts are live.
    pub is_whole: bool,
}

/// What an object in the log's directory is to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartRole {
    /// Its rows are the log.
    Live,
    /// Others hold its rows; it goes when it has expired.
    Replaced,
    /// Nothing speaks of it.
    Unnamed,
}

impl LogCheck {
    /// Reads commits, checkpoints and the pointer of the log in `store`.
    ///
    /// # Errors
    /// [`Error::NotAStore`] if there is nothing of a log, [`Error::NewerFormat`], or the store's
    /// failure. Damage is no error.
    pub async fn begin(store: Arc<dyn ObjectStore>, env: &Env) -> Result<Self, Error> {
        let objects = LogObjects { store, prefix: Path::from(LOG_DIRECTORY) };
        let replayed = replay::replay(&objects, env).await?;
        let live_names = replayed.parts.iter().map(|part| part.object.clone()).collect();
        Ok(Self {
            objects,
            live: replayed.parts,
            live_names,
            named: replayed.named,
            damage: replayed.damage,
            notes: replayed.notes,
            head: replayed.head,
            commits: replayed.commits,
            checkpoints: replayed.checkpoints,
            is_whole: replayed.is_certain,
        })
    }

    /// How many parts are live.
    #[must_use]
    pub fn part_count(&self) -> u64 {
        self.live_names.len() as u64
    }

    /// The live parts with their rows, newest first, read as they are taken.
    ///
    /// What lies aside comes first. Then a series' rows come in descending order of commits from part to part,
    /// so that whoever sees a file's removal sees it before the file.
    pub fn parts(&self) -> impl Stream<Item = Result<CheckedPart, Error>> + Send + use<> {
        let (aside, others): (Vec<_>, Vec<_>) =
            self.live.iter().rev().cloned().partition(|part| part.is_aside());
        let parts = [aside, others].concat();
        let (objects, head) = (self.objects.clone(), self.head);
        stream::iter(parts)
            .map(move |part| {
                let objects = objects.clone();
                async move { verify::verify(&objects, part, head).await }
            })
            .buffered(PARTS_AHEAD)
    }

    /// What the object `name` in the log's directory is to the log.
    #[must_use]
    pub fn role_of(&self, name: &str) -> PartRole {
        if self.live_names.contains(name) {
            PartRole::Live
        } else if self.named.contains(&Hash128::of(name.as_bytes())) {
            PartRole::Replaced
        } else {
            PartRole::Unnamed
        }
    }
}

/// What is wrong with an object that cannot be read, if that is all that is wrong: a store that
/// cannot be reached, or is written by a newer build, cannot be checked.
fn unreadable(object: &Path, error: Error) -> Result<Finding, Error> {
    let reason = match error {
        Error::DamagedCommit { reason, .. }
        | Error::DamagedPart { reason, .. }
        | Error::DamagedCheckpoint { reason } => reason,
        Error::Store { source, .. }
            if io_cause(&source).is_some_and(|io| io.raw_os_error().is_some()) =>
        {
            let problem = format!("it cannot be read: {source}");
            return Ok(Finding::new(problem, MEND).with_object(object.as_ref()));
        }
        other => return Err(other),
    };
    Ok(Finding::new(reason, RESTORE).with_object(object.as_ref()))
}
