//! The files of a change of data: which end, which are written anew, with all that was done for an earlier
//! try that still holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidelog_core::{CommitVersion, FileId, Holder, NodeId, TimeRange, TreePath, Version};
use tidelog_oplog::{FileRow, SeriesState, Snapshot};

use super::count::count;
use super::plan::{Copy, Plan};
use crate::compact::ending::{Cut, Earlier, Ending, Whose};
use crate::compact::plan::{Job, Reason};
use crate::compact::rewrite::{Purpose, Rewrite, Rewritten, rewrite};
use crate::compact::throttle::Throttle;
use crate::compact::work::chains;
use crate::compact::{group_bytes, sort_bytes};
use crate::engine::Ground;
use crate::error::Error;
use crate::series_schema::SeriesSchema;
use crate::warm::Ahead;

/// So many files are read at one instant of event time at most.
const OPEN_FILES_MAX: usize = 64;

/// The series that a change is about, as it was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: TreePath,
    pub(super) node: NodeId,
    pub(super) schema: SeriesSchema,
    pub(super) series: Arc<SeriesState>,
}

/// What becomes of files that were looked at together.
#[derive(Debug, Clone)]
enum Decided {
    /// None of their rows ends.
    Stay,
    /// All of them do.
    End,
    /// These stand for them.
    Anew(Rewritten),
}

/// Files, and the commit that was still to come when the first of them was put.
#[derive(Debug, Clone)]
struct Put<T> {
    what: T,
    since: CommitVersion,
}

/// All that a change does to the files of its series.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileChanges {
    /// Files all rows of which end.
    pub(crate) whole: Vec<Arc<FileRow>>,
    /// Files that are written anew.
    pub(crate) inputs: Vec<Arc<FileRow>>,
    /// Files of rows that stay.
    pub(crate) kept: Vec<FileRow>,
    /// Files of rows that end.
    pub(crate) ended: Vec<FileRow>,
    /// Files of rows that are added, with versions counted from 0.
    pub(crate) added: Vec<FileRow>,
}

impl FileChanges {
    /// Files that were put for the change.
    pub(crate) fn put(&self) -> impl Iterator<Item = &FileRow> {
        self.kept.iter().chain(&self.ended).chain(&self.added)
    }

    /// How many rows end, and their event times.
    pub(crate) fn ended(&self) -> (u64, Option<TimeRange>) {
        sum(self.whole.iter().map(Arc::as_ref).chain(&self.ended))
    }

    /// How many rows are added, and their event times.
    pub(crate) fn added(&self) -> (u64, Option<TimeRange>) {
        sum(self.added.iter())
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.whole.is_empty() && self.ended.is_empty() && self.added.is_empty()
    }
}

fn sum<'a>(files: impl Iterator<Item = &'a FileRow>) -> (u64, Option<TimeRange>) {
    files.fold((0, None), |(rows, range), file| {
        let range = range.map_or(file.range, |range: TimeRange| range.union(&file.range));
        (rows + file.rows, Some(range))
    })
}

/// Writes files for a change. What it has written holds for later tries, as long as the files that it was
/// made of are there.
#[derive(Debug)]
pub(super) struct Files {
    ground: Ground,
    target_bytes: u64,
    units: HashMap<(Vec<FileId>, Vec<Asked>), Put<Decided>>,
    copies: HashMap<(TimeRange, Version), Put<Vec<FileRow>>>,
    /// Segments of what was written.
    warm: Ahead,
}

/// What was asked of files: a later try may ask another thing of the same.
type Asked = (TimeRange, Whose);

impl Files {
    pub(super) fn new(ground: &Ground, target_bytes: u64) -> Self {
        // Files of rows that stay and of rows that end are in memory at once.
        let memory = ground.memory.within_reach(Holder::Compaction);
        let target_bytes = target_bytes.min(memory / 16 * 5).max(1);
        let (ground, warm) = (ground.clone(), ground.warm.ahead());
        Self { ground, target_bytes, units: HashMap::new(), copies: HashMap::new(), warm }
    }

    /// Takes segments of what is written.
    pub(super) fn warm(&self) -> &Ahead {
        &self.warm
    }

    /// Forgets what a vacuum may have deleted.
    pub(super) fn forget_deleted(&mut self, snapshot: &Snapshot) {
        let is_there = |since: CommitVersion, files: &mut dyn Iterator<Item = &FileRow>| {
            let mut files = files.peekable();
            files.peek().is_none()
                || !snapshot.history().may_be_announced(since, files.map(|f| f.location.as_ref()))
        };
        self.units.retain(|_, put| match &put.what {
            Decided::Stay | Decided::End => true,
            Decided::Anew(written) => {
                is_there(put.since, &mut written.files.iter().chain(&written.ended))
            }
        });
        self.copies.retain(|_, put| is_there(put.since, &mut put.what.iter()));
    }

    /// Whether files that have to be read at once are too many, so that they have to be merged first.
    pub(super) fn is_too_deep(&self, files: &[Arc<FileRow>]) -> bool {
        let open = chains(files)
            .into_iter()
            .map(|chain| chain.iter().map(|file| group_bytes(file)).max().unwrap_or_default());
        let (count, bytes) = open.fold((0, 0), |(count, bytes), one| (count + 1, bytes + one));
        let reach = self.ground.memory.within_reach(Holder::Compaction);
        count > OPEN_FILES_MAX || count > 1 && bytes > reach / 4
    }

    /// What becomes of the files of a plan.
    pub(super) async fn cut(
        &mut self,
        found: &Found,
        plan: Plan,
        cuts: &Arc<[Cut]>,
    ) -> Result<FileChanges, Error> {
        let mut changes = FileChanges { whole: plan.whole, ..FileChanges::default() };
        let ending = Ending::new(found.path.clone(), found.schema.clone(), Arc::clone(cuts));
        for unit in plan.units {
            match self.decide(found, &unit, &ending).await? {
                Decided::Stay => {}
                Decided::End => changes.whole.extend(unit),
                Decided::Anew(written) => {
                    changes.inputs.extend(unit);
                    changes.kept.extend(written.files);
                    changes.ended.extend(written.ended);
                }
            }
        }
        Ok(changes)
    }

    async fn decide(
        &mut self,
        found: &Found,
        unit: &[Arc<FileRow>],
        ending: &Ending,
    ) -> Result<Decided, Error> {
        let mut files: Vec<FileId> = unit.iter().map(|file| file.file).collect();
        files.sort_unstable();
        let key = (files, ending.asked_of(unit));
        if let Some(known) = self.units.get(&key) {
            return Ok(known.what.clone());
        }
        let since = self.ground.log.snapshot().next_commit();
        let what = self.look_into(found, unit, ending).await?;
        self.units.insert(key, Put { what: what.clone(), since });
        Ok(what)
    }

    async fn look_into(
        &self,
        found: &Found,
        unit: &[Arc<FileRow>],
        ending: &Ending,
    ) -> Result<Decided, Error> {
        let (mut matching, mut rows) = (0, 0);
        for file in unit {
            if ending.touches(file) {
                matching += count(&self.ground, file, &found.schema, ending).await?;
            }
            rows += file.rows;
        }
        // Files that lie over one another may hold rows that are not shown, whose end is another's.
        let is_alone = matches!(unit, [file] if file.unique || !ending.is_of_shown_rows());
        match matching {
            0 => return Ok(Decided::Stay),
            all if all == rows && is_alone => return Ok(Decided::End),
            _ => {}
        }
        let written = self.write(found, unit, Purpose::End(ending.clone())).await?;
        Ok(if written.ended.is_empty() { Decided::Stay } else { Decided::Anew(written) })
    }

    /// Rows of an earlier version, in new files.
    pub(super) async fn copy(
        &mut self,
        found: &Found,
        copy: &Copy,
        version: Version,
    ) -> Result<Vec<FileRow>, Error> {
        let key = (copy.range, version);
        if let Some(known) = self.copies.get(&key) {
            return Ok(known.what.clone());
        }
        let since = self.ground.log.snapshot().next_commit();
        let (path, schema) = (found.path.clone(), found.schema.clone());
        let earlier = Earlier::new(path, schema, version, copy.range);
        let what = self.write(found, &copy.files, Purpose::Copy(earlier)).await?.files;
        self.copies.insert(key, Put { what: what.clone(), since });
        Ok(what)
    }

    async fn write(
        &self,
        found: &Found,
        files: &[Arc<FileRow>],
        purpose: Purpose,
    ) -> Result<Rewritten, Error> {
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        let job = Job {
            inputs: (0..files.len()).collect(),
            bytes,
            files: bytes.div_ceil(self.target_bytes).max(1),
            cuts: Vec::new(),
            cut_bytes_min: 0,
            reason: Reason::Small { files: files.len() },
        };
        let mut memory = self.ground.memory.account(Holder::Compaction);
        let open: u64 = files.iter().map(|file| group_bytes(file)).sum();
        let reach = self.ground.memory.within_reach(Holder::Compaction);
        let file = bytes.div_ceil(job.files);
        let sort_bytes = sort_bytes(reach);
        let work = Rewrite {
            path: found.path.clone(),
            node: found.node,
            schema: found.schema.clone(),
            inputs: files.to_vec(),
            job,
            sort_bytes: usize::try_from(sort_bytes).unwrap_or(usize::MAX),
            purpose,
            warm: self.ground.warm.are_warm(files).then(|| self.warm.clone()),
            way: None,
        };
        let sorted = if work.is_by_key() { sort_bytes } else { 0 };
        memory.set((file / 4 * 11 + open.min(reach / 4) + sorted).min(reach));
        rewrite(&self.ground, &work, &Throttle::default()).await
    }
}

/// The files of rows that stand.
pub(super) fn standing(series: &SeriesState) -> HashSet<FileId> {
    series.files().filter(|file| file.until.is_none()).map(|file| file.file).collect()
}
