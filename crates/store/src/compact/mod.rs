//! Compaction: the files of a series stay few, large and sorted, whatever is appended.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | which files are merged, and why; no I/O |
//! | `input` | files as batches, which say what bytes they want |
//! | `replaced` | rows that a later version has replaced, told apart |
//! | `output` | merged rows cut into files |
//! | `ending` | rows that end with a change of data told apart, and rows as of an earlier version |
//! | `rewrite` | from files to files, in bounded memory: the requests |
//! | `work` | what is done between them: merging, telling apart, encoding |
//! | `worker` | the thread that this happens on |
//! | `sliced` | the same where rows are ordered by key |
//! | `throttle` | bytes at no more than a rate |
//! | `lane` | compaction in the background |
//!
//! Invariants:
//! 1. No answer changes, at head or as of any version: rows keep their versions, and of a deduplicated
//!    series those that were replaced are kept in files of their own until history is let go.
//! 2. As many rows come out as went in, or nothing is committed.
//! 3. Files are removed and added in one commit, which lands only if all that it removes is still
//!    there. Whoever comes too late has done nothing but work in vain.
//! 4. Anybody may compact at any time, whoever writes.
//!
//! What is *not* here: deleting the files that were replaced; readers may be at them.

pub(crate) mod ending;
pub(crate) mod input;
mod lane;
mod output;
pub(crate) mod plan;
mod replaced;
pub(crate) mod rewrite;
mod sliced;
pub(crate) mod throttle;
pub(crate) mod work;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tidelog_core::{EventTime, FileId, Holder, NodeId, PathPattern, TreePath};
use tidelog_oplog::{EntryType, FileOrder, FileRow, Layout, Partition, SeriesState};

pub(crate) use self::lane::{Grown, Touched, spawn};
pub use self::plan::Reason;
use self::plan::{Eagerness, FileFacts, Goal, Job, alone, is_large, plan};
use self::rewrite::{Purpose, Rewrite, is_by_key, rewrite};
use self::throttle::Throttle;
use crate::commit::{Compaction, Rejected, WeakWriter, Work};
use crate::engine::{Engine, Ground, schema_of};
use crate::error::Error;
use crate::series_schema::SeriesSchema;

/// Where so many files of a series lie over one instant, each read of it opens so many: appends had better
/// wait for merges then.
const DEPTH_AT_MOST: usize = 32;

/// Jobs of one series that one call does at most: each makes files fewer or apart, so that more are
/// never needed unless somebody else makes new ones all the while.
const JOBS_MAX: usize = 1000;

/// Bytes of rows that wait in memory to be ordered by key, at least ...
const SORT_BYTES_MIN: u64 = 1 << 20;
/// ... and at most.
const SORT_BYTES_MAX: u64 = 48 << 20;

/// How files are kept few, large and sorted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CompactionOptions {
    /// Whether a handle that writes does it in the background, where it also keeps the log short.
    pub in_background: bool,
    /// The size of a good file, in bytes. Where the memory budget is small, files become smaller.
    pub target_bytes: u64,
    /// Bytes per second that the background reads and writes at most; `None` for as many as it can.
    pub bytes_per_second: Option<u64>,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self { in_background: true, target_bytes: 128 << 20, bytes_per_second: None }
    }
}

/// What compaction did, or would do.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CompactionReport {
    /// Of each series that was looked at, in order of path.
    pub series: Vec<SeriesCompaction>,
}

/// What compaction did to one series, or would do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeriesCompaction {
    /// The series.
    pub path: TreePath,
    /// Its files before.
    pub files_before: u64,
    /// Its files after; as before if nothing was done.
    pub files_after: u64,
    /// What was merged, or would be.
    pub merges: Vec<Merge>,
    /// Bytes of the files that were written.
    pub bytes_written: u64,
    /// Merges that were given up because somebody else had changed the files meanwhile.
    pub given_up: u64,
}

/// Files that were merged, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merge {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// Whether they are of rows that were replaced.
    pub superseded: bool,
    /// Why.
    pub reason: Reason,
}

impl Engine {
    /// Merges the files of the series that match until no two overlap and none is small beside another.
    /// Returns what was done.
    ///
    /// # Errors
    /// If nothing matches, a file is damaged or the store fails. What was done until then stays done.
    pub async fn compact(&self, pattern: &PathPattern) -> Result<CompactionReport, Error> {
        let mut report = CompactionReport::default();
        let (writer, throttle) = (self.writer(), Throttle::default());
        let compactor = Compactor::new(self.ground(), self.compaction(), throttle);
        for (path, node) in self.compactable(pattern).await? {
            report.series.push(compactor.fully(&writer.downgrade(), node, path).await?);
        }
        Ok(report)
    }

    /// What [`Engine::compact`] would do. Nothing is written.
    ///
    /// # Errors
    /// If nothing matches or the log cannot be read.
    pub async fn compact_dry_run(&self, pattern: &PathPattern) -> Result<CompactionReport, Error> {
        let mut report = CompactionReport::default();
        let compactor = Compactor::new(self.ground(), self.compaction(), Throttle::default());
        for (path, node) in self.compactable(pattern).await? {
            let Some(found) = compactor.series(node).await? else { continue };
            let jobs = compactor.jobs(&found, Eagerness::Fully);
            let files = found.state.file_count() as u64;
            report.series.push(SeriesCompaction {
                path,
                files_before: files,
                files_after: files,
                merges: jobs.iter().map(PlannedJob::told).collect(),
                bytes_written: 0,
                given_up: 0,
            });
        }
        Ok(report)
    }

    /// What [`Engine::compact`] would merge in one series first, by the newest state that the handle has
    /// seen. Nothing is written.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn next_merges(&self, node: NodeId) -> Result<Vec<Merge>, Error> {
        let compactor = Compactor::new(self.ground(), self.compaction(), Throttle::default());
        let Some(found) = compactor.series(node).await? else { return Ok(Vec::new()) };
        let jobs = compactor.jobs(&found, Eagerness::Fully);
        Ok(jobs.iter().map(PlannedJob::told).collect())
    }

    /// One merge in each series that this handle has written to, where it is due and small: what a
    /// command does that writes once and ends.
    ///
    /// # Errors
    /// As [`Engine::compact`].
    pub(crate) async fn compact_step(&self) -> Result<(), Error> {
        let options = self.compaction();
        if !options.in_background {
            return Ok(());
        }
        let writer = self.writer();
        let compactor = Compactor::new(self.ground(), options, Throttle::default());
        for node in self.touched().take() {
            compactor.small_step(&writer.downgrade(), node).await?;
        }
        Ok(())
    }

    /// Merges the files of one series, as [`Engine::compact`] does.
    pub(crate) async fn compact_series(&self, node: NodeId, path: TreePath) -> Result<(), Error> {
        let compactor = Compactor::new(self.ground(), self.compaction(), Throttle::default());
        compactor.fully(&self.writer().downgrade(), node, path).await.map(drop)
    }

    async fn compactable(&self, pattern: &PathPattern) -> Result<Vec<(TreePath, NodeId)>, Error> {
        let head = self.head().await?;
        if let Some(path) = pattern.as_path() {
            match head.tree().resolve(&path) {
                Some(node) if node.entry == EntryType::FileSeries => {
                    return Ok(vec![(path, node.id)]);
                }
                Some(_) => return Err(Error::WrongEntry { path, expected: "series" }),
                None => return Err(Error::NotFound { path, at: None }),
            }
        }
        let found = head.tree().matching(pattern);
        let series = found.into_iter().filter(|(_, node)| node.entry == EntryType::FileSeries);
        let series: Vec<_> = series.map(|(path, node)| (path, node.id)).collect();
        if series.is_empty() {
            return Err(Error::NoMatch { pattern: pattern.to_string() });
        }
        Ok(series)
    }
}

/// A series as it is committed.
struct Found {
    path: TreePath,
    node: NodeId,
    schema: SeriesSchema,
    state: Arc<SeriesState>,
    /// Files that are being merged.
    busy: HashSet<FileId>,
}

/// A job, with the files that it is about.
struct PlannedJob {
    job: Job,
    inputs: Vec<Arc<FileRow>>,
}

impl PlannedJob {
    /// Bytes of memory for it, of so many within reach: a file in the making, what is open of each input, and
    /// rows that wait to be brought into another order.
    fn bytes_needed(&self, schema: &SeriesSchema, reach: u64) -> u64 {
        let open: u64 = self.inputs.iter().map(|file| group_bytes(file)).sum();
        let sorted = if is_by_key(schema, &self.inputs) { sort_bytes(reach) } else { 0 };
        self.job.bytes.div_ceil(self.job.files.max(1)) / 8 * 11 + open.min(reach / 4) + sorted
    }

    /// Whether few files come meanwhile: it cures depth, and is small beside a good file.
    fn is_quick(&self, target_bytes: u64) -> bool {
        matches!(self.job.reason, Reason::Overlapping { .. }) && self.job.bytes <= target_bytes / 2
    }

    fn files(&self) -> HashSet<FileId> {
        self.inputs.iter().map(|file| file.file).collect()
    }

    fn told(&self) -> Merge {
        Merge {
            files: self.inputs.len() as u64,
            bytes: self.job.bytes,
            rows: self.inputs.iter().map(|file| file.rows).sum(),
            superseded: self.inputs.iter().any(|file| file.until.is_some()),
            reason: self.job.reason,
        }
    }
}

/// How a job ended.
enum Ended {
    /// Files were replaced by these.
    Merged(Vec<FileRow>),
    /// Somebody else has changed them.
    GivenUp,
}

/// Merges files of the series of a store.
#[derive(Debug, Clone)]
struct Compactor {
    ground: Ground,
    options: CompactionOptions,
    throttle: Throttle,
}

impl Compactor {
    fn new(ground: &Ground, options: &CompactionOptions, throttle: Throttle) -> Self {
        Self { ground: ground.clone(), options: options.clone(), throttle }
    }

    /// The series in the newest state that the handle has seen; `None` if it is not there any more, or
    /// has no version.
    async fn series(&self, node: NodeId) -> Result<Option<Found>, Error> {
        let snapshot = self.ground.log.snapshot();
        let Some(found) = snapshot.tree().node(node).cloned() else { return Ok(None) };
        let Some(path) = snapshot.tree().path_of(node) else { return Ok(None) };
        let Some(schema) = schema_of(&path, &found)? else { return Ok(None) };
        let state = self.ground.log.series(&snapshot, node).await?;
        Ok(Some(Found { path, node, schema, state, busy: HashSet::new() }))
    }

    /// What is to be merged, the most urgent first.
    fn jobs(&self, found: &Found, eagerness: Eagerness) -> Vec<PlannedJob> {
        let layout = found.schema.layout();
        let memory = self.ground.memory.within_reach(Holder::Compaction);
        // Beside a file that is ordered by key in the making, rows wait to be brought into that order.
        let part = if layout.order == FileOrder::Time { 5 } else { 3 };
        let goal = |dedup| Goal {
            target_bytes: self.options.target_bytes.min(memory / 8 * part).max(1),
            open_bytes_max: memory / 4,
            eagerness,
            dedup,
        };
        let (standing, replaced): (Vec<_>, Vec<_>) =
            found.state.files().cloned().partition(|file| file.until.is_none());
        // Which of the replaced rows share an instant makes no difference at head.
        let of = |files, dedup| {
            let goal = goal(dedup);
            let groups = by_partition(files, &layout).into_iter();
            let jobs = |files: Vec<_>| jobs_of(&files, &found.busy, &layout, &goal);
            groups.flat_map(jobs).collect::<Vec<_>>()
        };
        let mut jobs = of(standing, found.schema.dedup());
        jobs.extend(of(replaced, false));
        // What is laid out anew is no less good meanwhile.
        jobs.sort_by_key(|planned| planned.job.reason == Reason::Layout);
        jobs
    }

    /// Does all that can be done to a series.
    async fn fully(
        &self,
        writer: &WeakWriter,
        node: NodeId,
        path: TreePath,
    ) -> Result<SeriesCompaction, Error> {
        let mut done = SeriesCompaction {
            path,
            files_before: 0,
            files_after: 0,
            merges: Vec::new(),
            bytes_written: 0,
            given_up: 0,
        };
        let mut is_first = true;
        let mut made: HashSet<FileId> = HashSet::new();
        for _ in 0..JOBS_MAX {
            let Some(found) = self.series(node).await? else { break };
            done.files_after = found.state.file_count() as u64;
            if std::mem::take(&mut is_first) {
                done.files_before = done.files_after;
            }
            let Some(job) = self.jobs(&found, Eagerness::Fully).into_iter().next() else { break };
            let told = job.told();
            let is_new = job.inputs.iter().any(|file| !made.contains(&file.file));
            match self.merge(writer, &found, job).await? {
                Ended::Merged(files) => {
                    let is_fewer = (files.len() as u64) < told.files;
                    done.merges.push(told);
                    done.bytes_written += files.iter().map(|file| file.size).sum::<u64>();
                    made.extend(files.iter().map(|file| file.file));
                    if !is_new && !is_fewer {
                        // So many rows have one event time that their files cannot be told apart.
                        break;
                    }
                }
                Ended::GivenUp => done.given_up += 1,
            }
        }
        Ok(done)
    }

    /// What is due in a series.
    async fn due(&self, node: NodeId) -> Result<Option<(Found, PlannedJob)>, Error> {
        let Some(found) = self.series(node).await? else { return Ok(None) };
        let job = self.jobs(&found, Eagerness::WhenDue).into_iter().next();
        Ok(job.map(|job| (found, job)))
    }

    /// What is due beside a merge of `busy` files, if there is the memory: what many files over one instant
    /// would otherwise wait for.
    async fn due_beside(
        &self,
        node: NodeId,
        busy: &HashSet<FileId>,
    ) -> Result<Option<(Found, PlannedJob)>, Error> {
        let Some(mut found) = self.series(node).await? else { return Ok(None) };
        found.busy.clone_from(busy);
        let job = self.jobs(&found, Eagerness::Depth).into_iter().next();
        let reach = self.ground.memory.within_reach(Holder::Compaction);
        let free = reach.saturating_sub(self.ground.memory.usage().held_by(Holder::Compaction));
        let fits = |job: &PlannedJob| job.bytes_needed(&found.schema, reach) <= free;
        Ok(job.filter(fits).map(|job| (found, job)))
    }

    /// Does one thing that is due and makes no file beyond the target.
    async fn small_step(&self, writer: &WeakWriter, node: NodeId) -> Result<(), Error> {
        let Some(found) = self.series(node).await? else { return Ok(()) };
        let mut jobs = self.jobs(&found, Eagerness::WhenDue).into_iter();
        if let Some(job) = jobs.find(|job| job.job.bytes <= self.options.target_bytes) {
            self.merge(writer, &found, job).await?;
        }
        Ok(())
    }

    async fn merge(
        &self,
        writer: &WeakWriter,
        found: &Found,
        planned: PlannedJob,
    ) -> Result<Ended, Error> {
        let mut memory = self.ground.memory.account(Holder::Compaction);
        let reach = self.ground.memory.within_reach(Holder::Compaction);
        memory.set(planned.bytes_needed(&found.schema, reach).min(reach));
        let sort_bytes = sort_bytes(reach);
        let warm = &self.ground.warm;
        let warm = warm.are_warm(&planned.inputs).then(|| warm.ahead());
        let rewriting = Rewrite {
            path: found.path.clone(),
            node: found.node,
            schema: found.schema.clone(),
            inputs: planned.inputs,
            job: planned.job,
            sort_bytes: usize::try_from(sort_bytes).unwrap_or(usize::MAX),
            purpose: Purpose::Merge,
            warm: warm.clone(),
            way: Some(self.ground.way.clone()),
        };
        let puts_since = self.ground.log.snapshot().next_commit();
        let outputs = match rewrite(&self.ground, &rewriting, &self.throttle).await {
            Ok(written) => written.files,
            // A file was removed meanwhile, and has gone.
            Err(Error::FileExpired { .. }) => return Ok(Ended::GivenUp),
            Err(error @ Error::DamagedFile { .. }) => {
                // A file that was removed meanwhile may have gone.
                self.ground.log.refresh().await?;
                return match self.are_live(&rewriting).await? {
                    true => Err(error),
                    false => Ok(Ended::GivenUp),
                };
            }
            Err(error) => return Err(error),
        };
        let Rewrite { node, path, inputs, .. } = rewriting;
        let compaction = Compaction { node, path, inputs, outputs: outputs.clone(), puts_since };
        // Held only now: a merge under way does not keep a writer that nobody wants.
        let writer = writer.upgrade().ok_or(Error::Closed)?;
        match writer.submit(Work::Compact(Box::new(compaction))).await {
            Ok(_) => {
                if let Some(warm) = warm {
                    warm.committed();
                }
                Ok(Ended::Merged(outputs))
            }
            Err(Rejected::Stale) => Ok(Ended::GivenUp),
            Err(Rejected::Failed(error)) => Err(error),
        }
    }

    async fn are_live(&self, rewriting: &Rewrite) -> Result<bool, Error> {
        let Some(found) = self.series(rewriting.node).await? else { return Ok(false) };
        Ok(found.state.are_live(rewriting.inputs.iter().map(|file| file.file)))
    }
}

/// Whether so many files of a series lie over one instant that appends had better wait for merges.
pub(crate) fn is_too_deep(series: &SeriesState) -> bool {
    let standing = || series.files().filter(|file| file.until.is_none());
    standing().count() >= DEPTH_AT_MOST
        && plan::depth(standing().map(|file| file.range)) >= DEPTH_AT_MOST
}

/// Files that may be merged with one another: those of one partition, and those that lie in several.
fn by_partition(files: Vec<Arc<FileRow>>, layout: &Layout) -> Vec<Vec<Arc<FileRow>>> {
    let mut groups: BTreeMap<Option<EventTime>, Vec<Arc<FileRow>>> = BTreeMap::new();
    for file in files {
        let partition = match layout.partition.holds(file.range.start(), file.range.end()) {
            true => layout.partition.end_after(file.range.start()).unwrap_or(EventTime::MAX),
            false => EventTime::MIN,
        };
        let partition = Some(partition).filter(|_| layout.partition != Partition::None);
        groups.entry(partition).or_default().push(file);
    }
    groups.into_values().collect()
}

/// What is to be merged of the files of a group, and then what is to be written anew alone.
fn jobs_of(
    files: &[Arc<FileRow>],
    busy: &HashSet<FileId>,
    layout: &Layout,
    goal: &Goal,
) -> Vec<PlannedJob> {
    let facts: Vec<FileFacts> = files.iter().map(|file| facts(file, busy)).collect();
    let mut jobs = plan(&facts, goal);
    let planned: HashSet<usize> = jobs.iter().flat_map(|job| job.inputs.iter().copied()).collect();
    let is_due = |file: &FileRow| match goal.eagerness {
        Eagerness::Fully => !is_laid(file, layout),
        // Small files come to be laid out right when they are merged, codec and row groups of large ones
        // are not worth the bytes.
        Eagerness::WhenDue => {
            is_large(file.size, goal.target_bytes) && !is_sorted_and_parted(file, layout)
        }
        Eagerness::Depth => false,
    };
    let left =
        files.iter().enumerate().filter(|(place, file)| !planned.contains(place) && is_due(file));
    jobs.extend(left.map(|(place, file)| alone(place, file.size, goal)));
    let with_files = |job: Job| {
        let inputs = job.inputs.iter().map(|input| Arc::clone(&files[*input])).collect();
        PlannedJob { job, inputs }
    };
    jobs.into_iter().map(with_files).collect()
}

/// Whether a file is as compaction would write it.
fn is_laid(file: &FileRow, layout: &Layout) -> bool {
    // Fewer rows than either allows are one row group anyway.
    let is_one_group = file.rows <= u64::from(file.row_group_rows)
        && file.rows <= u64::from(layout.row_group_rows);
    is_sorted_and_parted(file, layout)
        && file.codec == layout.codec
        && (file.row_group_rows == layout.row_group_rows || is_one_group)
}

fn is_sorted_and_parted(file: &FileRow, layout: &Layout) -> bool {
    file.order == layout.order && layout.partition.holds(file.range.start(), file.range.end())
}

/// Bytes of rows that may wait to be brought into another order, of so much memory within reach.
pub(crate) fn sort_bytes(reach: u64) -> u64 {
    (reach / 4).clamp(SORT_BYTES_MIN, SORT_BYTES_MAX)
}

fn facts(file: &FileRow, busy: &HashSet<FileId>) -> FileFacts {
    FileFacts {
        range: file.range,
        bytes: file.size,
        group_bytes: group_bytes(file),
        is_busy: busy.contains(&file.file),
    }
}

/// Bytes of the largest part of a file that is read at once, about.
pub(crate) fn group_bytes(file: &FileRow) -> u64 {
    file.size.div_ceil(u64::from(file.row_groups.max(1)))
}
