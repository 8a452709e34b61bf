//! Deleting data files that nothing can read any more.
//!
//! ```text
//! list objects ─ survey: which are needed ─ age, readers ─▶ announce them in a commit ─▶ delete
//! ```
//!
//! - `survey` says of each object whether anything can read it: the head, a version or time from the
//!   horizon on, a named snapshot. In doubt it can.
//! - `staged` takes away what puts to a local disk left that never ended: no commit can name that.
//! - `draft` is the commit: it lists what is about to be deleted, without what a commit before it has
//!   added, and takes files that only lost history needed out of the log.
//!
//! Invariants:
//! 1. Nothing is deleted that was not announced by a commit before.
//! 2. A writer that finds one of its files announced writes it anew under another name, so what was
//!    announced never becomes part of the log later.
//! 3. No machine's clock decides how old a file is; the store's own times do.
//! 4. What a reader on this machine may still read stays, whatever its age.

mod draft;
mod staged;
mod survey;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tidelog_core::{FileId, NodeId, TreePath};
use tidelog_storage::object_store::path::Path;
use tidelog_storage::object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::commit::{Rejected, Work};
use crate::engine::Engine;
use crate::error::Error;
use crate::names::DATA_DIRECTORY;
pub(crate) use survey::Doomed;
use survey::{Survey, Verdict};

/// Files announced in one commit.
const ANNOUNCED_MAX: usize = 1000;
/// Files deleted at once.
const DELETED_AT_ONCE: usize = 16;
/// Files that a report names.
const FILES_NAMED_MAX: usize = 1000;
const OLDER_THAN: Duration = Duration::from_secs(24 * 60 * 60);

/// What a vacuum does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VacuumOptions {
    /// Whether files are deleted. If not, it is only told which would be.
    pub apply: bool,
    /// Files that were needed, or put, less long ago stay.
    pub older_than: Duration,
}

impl Default for VacuumOptions {
    fn default() -> Self {
        Self { apply: false, older_than: OLDER_THAN }
    }
}

impl VacuumOptions {
    /// Deletes files. Default: it is only told which would be.
    #[must_use]
    pub fn with_apply(mut self, apply: bool) -> Self {
        self.apply = apply;
        self
    }

    /// Leaves alone what was needed, or put, less long ago: a reader that began then may still read it,
    /// and it may belong to a write that is under way. Readers on the machine of a store in a directory
    /// are seen, whatever is said here; of others only their age is known. Default: a day.
    #[must_use]
    pub fn with_older_than(mut self, age: Duration) -> Self {
        self.older_than = age;
        self
    }
}

/// Why nothing can read a file any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VacuumReason {
    /// Its rows have been written to other files.
    Replaced,
    /// Only history needed it that was let go.
    Expired,
    /// No commit names it: the write that it belonged to failed. It may not even have its name yet; then
    /// it ends in `#` and a number.
    Orphan,
}

/// A file that is deleted, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VacuumFile {
    /// The object, relative to the store's root.
    pub object: String,
    /// The series, as far as the log names it.
    pub path: Option<TreePath>,
    /// Its size.
    pub bytes: u64,
    /// Why nothing can read it.
    pub reason: VacuumReason,
}

/// A number of files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileCount {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl FileCount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What a vacuum did, or would do.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VacuumReport {
    /// Whether files were deleted.
    pub applied: bool,
    /// The first thousand of the files that were deleted, or would be.
    pub files: Vec<VacuumFile>,
    /// Files whose rows have been written to others.
    pub replaced: FileCount,
    /// Files that only lost history needed.
    pub expired: FileCount,
    /// Files that no commit names.
    pub orphans: FileCount,
    /// Files that nothing needs, and that stay because they are too young.
    pub young: FileCount,
    /// Files that nothing newer needs, and that stay because somebody is reading an older state.
    pub pinned: FileCount,
    /// Files that are needed.
    pub needed: FileCount,
}

impl VacuumReport {
    /// All files that were deleted, or would be.
    #[must_use]
    pub fn total(&self) -> FileCount {
        let all = [self.replaced, self.expired, self.orphans];
        let files = all.iter().map(|count| count.files).sum();
        FileCount { files, bytes: all.iter().map(|count| count.bytes).sum() }
    }

    fn note(&mut self, doomed: &Doomed) {
        match doomed.reason {
            VacuumReason::Replaced => self.replaced.add(doomed.bytes),
            VacuumReason::Expired => self.expired.add(doomed.bytes),
            VacuumReason::Orphan => self.orphans.add(doomed.bytes),
        }
        self.name(VacuumFile {
            object: doomed.location.to_string(),
            path: doomed.path.clone(),
            bytes: doomed.bytes,
            reason: doomed.reason,
        });
    }

    fn name(&mut self, file: VacuumFile) {
        if self.files.len() < FILES_NAMED_MAX {
            self.files.push(file);
        }
    }
}

impl Engine {
    /// Finds the data files that nothing can read any more (no read at head, from the horizons on, or of a
    /// named snapshot), and what puts to a local disk left that never ended, and deletes both if asked to. No answer changes. It may run beside readers, writers
    /// and other vacuums, from any process, also while one writer has the store for itself.
    ///
    /// # Errors
    /// If the log cannot be read or is damaged, or the store fails. What was deleted until then stays
    /// deleted; the rest is found again next time.
    pub async fn vacuum(&self, options: &VacuumOptions) -> Result<VacuumReport, Error> {
        let survey = Survey::begin(self, options.older_than).await?;
        let mut report = VacuumReport { applied: options.apply, ..VacuumReport::default() };
        if options.apply
            && let Err(error) = self.pins().make()
        {
            // Without it readers of other processes stay unknown, as on any store that is no directory.
            tracing::warn!(%error, "the pin file cannot be made");
        }
        let mut batch = Vec::new();
        for (node, objects) in self.data_objects().await? {
            for (meta, verdict) in survey.judge(node, objects).await? {
                match verdict {
                    Verdict::Needed => report.needed.add(meta.size),
                    Verdict::Young => report.young.add(meta.size),
                    Verdict::Pinned => report.pinned.add(meta.size),
                    Verdict::Doomed(doomed) if options.apply => batch.push(doomed),
                    Verdict::Doomed(doomed) => report.note(&doomed),
                }
            }
            while batch.len() >= ANNOUNCED_MAX {
                let rest = batch.split_off(ANNOUNCED_MAX);
                self.announce_and_delete(std::mem::replace(&mut batch, rest), &mut report).await?;
            }
        }
        if !batch.is_empty() {
            self.announce_and_delete(batch, &mut report).await?;
        }
        self.sweep_staged(&survey, options.apply, &mut report).await?;
        Ok(report)
    }

    /// The objects that are named as data files are, by node. Others are not ours.
    async fn data_objects(&self) -> Result<BTreeMap<NodeId, Vec<ObjectMeta>>, Error> {
        let failed = |error| Error::store("listing", DATA_DIRECTORY, error);
        let mut by_node: BTreeMap<NodeId, Vec<ObjectMeta>> = BTreeMap::new();
        let mut listed = self.object_store().list(Some(&Path::from(DATA_DIRECTORY)));
        while let Some(meta) = listed.try_next().await.map_err(failed)? {
            if let Some(node) = node_of(&meta.location) {
                by_node.entry(node).or_default().push(meta);
            }
        }
        Ok(by_node)
    }

    async fn announce_and_delete(
        &self,
        batch: Vec<Doomed>,
        report: &mut VacuumReport,
    ) -> Result<(), Error> {
        let batch: Arc<[Doomed]> = batch.into();
        match self.submit(Work::VacuumFiles(Arc::clone(&batch))).await {
            Ok(_) => {}
            // Others have added all of them to the log meanwhile.
            Err(Rejected::Stale) => return Ok(()),
            Err(Rejected::Failed(error)) => return Err(error),
        }
        let snapshot = self.log().snapshot();
        let mut gone = Vec::with_capacity(batch.len());
        for doomed in batch.iter() {
            if !snapshot.history().is_announced(doomed.location.as_ref()) {
                report.needed.add(doomed.bytes);
            } else if survey::is_pinned(self, doomed) {
                report.pinned.add(doomed.bytes);
            } else {
                gone.push(doomed);
            }
        }
        let deletes = gone
            .iter()
            .map(|doomed| delete(Arc::clone(self.object_store()), doomed.location.clone()));
        let deletes: Vec<_> = deletes.collect();
        stream::iter(deletes).buffer_unordered(DELETED_AT_ONCE).try_collect::<Vec<()>>().await?;
        gone.into_iter().for_each(|doomed| report.note(doomed));
        Ok(())
    }
}

async fn delete(store: Arc<dyn ObjectStore>, location: Path) -> Result<(), Error> {
    match store.delete(&location).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(Error::store("deleting", location.as_ref(), error)),
    }
}

/// The series of an object that is named as its data files are.
fn node_of(location: &Path) -> Option<NodeId> {
    if !crate::names::is_immutable(location) {
        return None;
    }
    let node = location.parts().nth(1)?;
    let file = location.filename()?.strip_suffix(".parquet")?;
    FileId::parse(file).ok()?;
    NodeId::parse(node.as_ref()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_as_a_data_file_is_one() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for name in
            [format!("series/{id}/{id}.parquet"), format!("series/{id}/2023_01/{id}.parquet")]
        {
            assert!(node_of(&Path::from(name.as_str())).is_some(), "{name}");
        }
        for name in [
            format!("_oplog/part-{id}.parquet"),
            format!("series/{id}.parquet"),
            format!("series/mine/{id}.parquet"),
            format!("series/{id}/notes.parquet"),
            format!("series/{id}/{id}.csv"),
            format!("series/{id}/_delta_log/00000000000000000001.json"),
            format!("backup/{id}/{id}.parquet"),
        ] {
            assert!(node_of(&Path::from(name.as_str())).is_none(), "{name}");
        }
    }
}
