//! Which data files nothing can read any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_core::{CommitVersion, NodeId, TreePath, Version, WriteTime};
use tidelog_oplog::{Ages, FileOp, FileRow, Log, SeriesState, Snapshot, Tree};
use tidelog_storage::Pins;
use tidelog_storage::object_store::ObjectMeta;
use tidelog_storage::object_store::path::Path;

use super::VacuumReason;
use crate::engine::Engine;
use crate::error::Error;

/// A file that is about to be deleted.
#[derive(Debug, Clone)]
pub(crate) struct Doomed {
    pub(crate) node: NodeId,
    pub(crate) location: Path,
    pub(crate) path: Option<TreePath>,
    pub(crate) bytes: u64,
    pub(super) reason: VacuumReason,
    /// No state from this commit on needs it.
    pub(crate) unneeded_since: CommitVersion,
}

impl Doomed {
    /// Whether the log holds it until its deletion is announced.
    pub(super) fn is_in_log(&self) -> bool {
        self.reason == VacuumReason::Expired
    }
}

/// What becomes of an object.
pub(super) enum Verdict {
    Needed,
    Young,
    Pinned,
    Doomed(Doomed),
}

/// What can be read, seen from one state of the log.
pub(super) struct Survey {
    log: Log,
    pins: Pins,
    snapshot: Snapshot,
    ages: Ages,
    older_than: Duration,
    /// The named snapshots, with their trees.
    named: Vec<(WriteTime, Tree)>,
}

impl Survey {
    pub(super) async fn begin(engine: &Engine, older_than: Duration) -> Result<Self, Error> {
        // Ages first: what lands after them is younger than it seems.
        let ages = engine.log().ages().await?;
        let snapshot = engine.log().refresh().await?;
        let named = snapshot.history().snapshots();
        let named = named.map(|named| Ok((named.time, snapshot.tree_at(named.time)?)));
        let named = named.collect::<Result<_, tidelog_oplog::Error>>()?;
        let (log, pins) = (engine.log().clone(), engine.pins().clone());
        Ok(Self { log, pins, snapshot, ages, older_than, named })
    }

    /// What becomes of the objects of one series.
    pub(super) async fn judge(
        &self,
        node: NodeId,
        objects: Vec<ObjectMeta>,
    ) -> Result<Vec<(ObjectMeta, Verdict)>, Error> {
        let series = self.log.series(&self.snapshot, node).await?;
        let readable = self.readable(&series);
        // An object whose rows have all ended may be part of the series under another id than its own.
        let live: HashMap<&str, &Arc<FileRow>> =
            series.files().map(|row| (row.location.as_ref(), row)).collect();
        let is_live = |meta: &ObjectMeta| live.contains_key(meta.location.as_ref());
        let gone =
            if objects.iter().all(is_live) { HashMap::new() } else { self.removed(node).await? };
        let judge = |meta: ObjectMeta| {
            let (reason, since, path) =
                match (live.get(meta.location.as_ref()), gone.get(meta.location.as_ref())) {
                    (Some(row), _) if readable.needs(row) => return (meta, Verdict::Needed),
                    (Some(row), _) => {
                        (VacuumReason::Expired, readable.since.max(row.commit), Some(&row.path))
                    }
                    (None, Some((path, removed))) => (VacuumReason::Replaced, *removed, Some(path)),
                    (None, None) => (VacuumReason::Orphan, self.snapshot.head(), None),
                };
            let verdict = self.doom(node, &meta, path.cloned(), reason, since);
            (meta, verdict)
        };
        Ok(objects.into_iter().map(judge).collect())
    }

    /// The objects that were part of a series, with the last commits that removed them.
    async fn removed(
        &self,
        node: NodeId,
    ) -> Result<HashMap<Arc<str>, (TreePath, CommitVersion)>, Error> {
        let rows = self.log.file_rows(&self.snapshot, node).await?.into_iter();
        let mut removed: HashMap<Arc<str>, (TreePath, CommitVersion)> = HashMap::new();
        for row in rows.filter(|row| row.op == FileOp::Remove) {
            let (_, last) = removed.entry(row.location).or_insert((row.path, row.commit));
            *last = row.commit.max(*last);
        }
        Ok(removed)
    }

    fn doom(
        &self,
        node: NodeId,
        meta: &ObjectMeta,
        path: Option<TreePath>,
        reason: VacuumReason,
        unneeded_since: CommitVersion,
    ) -> Verdict {
        let age = match reason {
            VacuumReason::Orphan => self.ages.of_object(meta),
            _ => self.ages.of_commit(unneeded_since),
        };
        if age < self.older_than {
            return Verdict::Young;
        }
        // What no commit names nobody reads.
        if reason != VacuumReason::Orphan && are_before(&self.pins, unneeded_since) {
            return Verdict::Pinned;
        }
        let (location, bytes) = (meta.location.clone(), meta.size);
        Verdict::Doomed(Doomed { node, location, path, bytes, reason, unneeded_since })
    }

    /// Whether an object that no commit names was put too short a time ago to be let go of.
    pub(super) fn is_young(&self, object: &ObjectMeta) -> bool {
        self.ages.of_object(object) < self.older_than
    }

    fn readable(&self, series: &SeriesState) -> Readable {
        let (node, history) = (series.node(), self.snapshot.history());
        let first = history.first_readable(node);
        // A series that was removed can be read as of times before, from its horizon on.
        let in_tree = self.snapshot.tree().node(node).is_some();
        let named = self.named.iter().filter(|(_, tree)| tree.node(node).is_some());
        Readable {
            from: (in_tree || first <= series.head()).then_some(first.min(series.head())),
            named: named.map(|(time, _)| series.version_at(*time)).collect(),
            since: history
                .horizon(node)
                .map_or(CommitVersion::default(), |mark| mark.commit)
                .max(history.last_dropped()),
        }
    }
}

/// As of which versions a series can be read.
struct Readable {
    /// All from this one on, if any.
    from: Option<Version>,
    /// By name.
    named: Vec<Version>,
    /// Since which commit that is all.
    since: CommitVersion,
}

impl Readable {
    /// Whether any of them shows rows of the file, which is part of the series. Of rows that were replaced
    /// each is shown before the version that did.
    fn needs(&self, file: &FileRow) -> bool {
        let replaced_before =
            |version: Version| file.until.is_some_and(|until| until.last() <= version);
        let shows = |version: &Version| file.min_version <= *version && !replaced_before(*version);
        self.from.is_some_and(|from| !replaced_before(from)) || self.named.iter().any(shows)
    }
}

/// Whether somebody reads a state in which the file may be needed.
pub(super) fn is_pinned(engine: &Engine, doomed: &Doomed) -> bool {
    doomed.reason != VacuumReason::Orphan && are_before(engine.pins(), doomed.unneeded_since)
}

fn are_before(pins: &Pins, commit: CommitVersion) -> bool {
    pins.are_before(u64::try_from(commit.number()).unwrap_or_default())
}
