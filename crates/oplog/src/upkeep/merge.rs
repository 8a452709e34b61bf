//! Many parts into one run, holding one row group of each run at a time.
//!
//! Rows of series are merged in order of (node, commit), stable within a commit. Each sorted run is
//! a cursor over its row groups. A step takes from all cursors the rows up to the least of their last
//! keys: nothing smaller can still come, so those rows are sorted, which for sorted pieces is a
//! merge, and written.
//!
//! Tree and store rows go into a part of their own, as everybody reads them; announcements of what
//! was vacuumed, which nobody needs for longer than the log is kept, into another.
//!
//! Rows of files that were added and removed again go aside, into parts that no reader of a series opens:
//! what is left of a series that is compacted for ever is its versions and the files that it has. Which files
//! these are is seen before anything is written, as a file's two rows may lie far apart. What lies aside
//! already is merged by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{
    SortColumn, concat, concat_batches, filter_record_batch, lexsort_to_indices, not,
    take_record_batch,
};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::ParquetMetaData;

use super::gone::Gone;
use super::plan::{MergePlan, Run};
use crate::decode::{self, Groups};
use crate::encode::{self, GROUP_ROWS};
use crate::error::Error;
use crate::log::Log;
use crate::part::{self, Described, Extent, Group, Layout, Part};
use crate::schema::{column, log_schema};

/// Rows of a merged part: some megabytes, with a tail of some ten kilobytes.
pub(super) const PART_ROWS: usize = 32 * GROUP_ROWS;

/// A run of so few row groups is read once and held; a larger one is read twice.
const HELD_GROUPS_MAX: usize = 4;

/// The order of version and file rows.
const SERIES_ORDER: [&str; 2] = [column::NODE_ID, column::COMMIT_VERSION];

/// What of a file nobody asks any more once it has gone.
const LET_GO: [&str; 3] = [column::PAGE_HASHES, column::COLUMN_STATS, column::SORTED_RUNS];

/// Writes the run that a plan asks for; returns its parts.
pub(crate) async fn merge(log: &Log, plan: &MergePlan) -> Result<Vec<Arc<Part>>, Error> {
    let mut output = Output::new(log);
    let mut cursors = Vec::with_capacity(plan.runs().len());
    for run in plan.runs() {
        cursors.push(Cursor::open(log, run, &mut output).await?);
    }
    let gone = find_gone(log, &mut cursors).await?;
    while let Some(step) = next_step(log, &mut cursors).await? {
        let (left, aside) = apart(&step, &gone)?;
        output.push(Lane::Series, left).await?;
        output.push(Lane::Gone, aside).await?;
    }
    let mut cursors: Vec<Cursor> = plan.aside().iter().map(cursor_over).collect();
    while let Some(step) = next_step(log, &mut cursors).await? {
        output.push(Lane::LongGone, step).await?;
    }
    output.finish().await
}

/// The files whose rows are all among those of the cursors, both that they were added and that they were
/// removed.
async fn find_gone(log: &Log, cursors: &mut [Cursor]) -> Result<Gone, Error> {
    let mut gone = Gone::default();
    for cursor in cursors {
        if cursor.ahead.len() <= HELD_GROUPS_MAX {
            cursor.hold_all(log).await?;
        }
        gone.note(&cursor.held)?;
        let mut ahead = Cursor::over(cursor.ahead.clone());
        while let Some(rows) = ahead.next_group(log).await? {
            gone.note(&rows)?;
        }
    }
    Ok(gone)
}

/// Rows that stay with their series, and rows that go aside.
fn apart(rows: &RecordBatch, gone: &Gone) -> Result<(RecordBatch, RecordBatch), Error> {
    let is_gone = gone.mask(rows)?;
    let left = not(&is_gone).and_then(|stays| filter_record_batch(rows, &stays));
    let aside = filter_record_batch(rows, &is_gone).map_err(Error::encode)?;
    Ok((left.map_err(Error::encode)?, stripped(&aside)?))
}

/// The rows without what nobody asks of a file that has gone.
fn stripped(rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, values)| match LET_GO.contains(&field.name().as_str()) {
        true => new_null_array(field.data_type(), rows.num_rows()),
        false => Arc::clone(values),
    });
    RecordBatch::try_new(rows.schema(), columns.collect()).map_err(Error::encode)
}

fn cursor_over(part: &Arc<Part>) -> Cursor {
    let groups = part.layout.as_ref().map_or(0, |layout| layout.groups.len());
    Cursor::over((0..groups).map(|group| (Arc::clone(part), group)).collect())
}

async fn next_step(log: &Log, cursors: &mut [Cursor]) -> Result<Option<RecordBatch>, Error> {
    for cursor in cursors.iter_mut() {
        cursor.fill(log).await?;
    }
    take_step(cursors)
}

/// A place in the order of a run: node and commit.
type Key = (String, i64);

/// One run, read from its first row group to its last.
struct Cursor {
    /// Row groups still to be read.
    ahead: VecDeque<(Arc<Part>, usize)>,
    /// The tail of the part that is being read.
    tail: Option<(String, Bytes)>,
    /// Rows that are read and not taken.
    held: RecordBatch,
}

impl Cursor {
    /// Rows that are not of series go to the output at once.
    async fn open(log: &Log, run: &Run, output: &mut Output<'_>) -> Result<Self, Error> {
        let mut ahead = VecDeque::new();
        let mut unsorted = Vec::new();
        for part in &run.parts {
            match &part.layout {
                Some(layout) if part.families.series => {
                    ahead.extend((0..layout.groups.len()).map(|group| (Arc::clone(part), group)));
                }
                _ => unsorted.push(Arc::clone(part)),
            }
        }
        let mut batches = Vec::new();
        for batch in read_all(log, &unsorted).await?.into_iter().flatten() {
            batches.push(output.set_apart(&batch)?);
        }
        let held = concat_batches(&log_schema(), &batches).map_err(Error::encode)?;
        Ok(Self { ahead, tail: None, held: sorted(&held, &SERIES_ORDER)? })
    }

    fn over(ahead: VecDeque<(Arc<Part>, usize)>) -> Self {
        Self { ahead, tail: None, held: RecordBatch::new_empty(log_schema()) }
    }

    async fn fill(&mut self, log: &Log) -> Result<(), Error> {
        while self.held.num_rows() == 0 {
            let Some(rows) = self.next_group(log).await? else { return Ok(()) };
            self.held = rows;
        }
        Ok(())
    }

    /// Reads all that is ahead.
    async fn hold_all(&mut self, log: &Log) -> Result<(), Error> {
        let mut all = vec![self.held.clone()];
        while let Some(rows) = self.next_group(log).await? {
            all.push(rows);
        }
        self.held = concat_batches(&log_schema(), &all).map_err(Error::encode)?;
        Ok(())
    }

    /// The rows of the next row group.
    async fn next_group(&mut self, log: &Log) -> Result<Option<RecordBatch>, Error> {
        match self.ahead.pop_front() {
            Some((part, group)) => self.read_group(log, &part, group).await.map(Some),
            None => Ok(None),
        }
    }

    async fn read_group(
        &mut self,
        log: &Log,
        part: &Part,
        group: usize,
    ) -> Result<RecordBatch, Error> {
        let objects = log.objects();
        let path = objects.part_path(part);
        let layout = part.layout.as_ref().ok_or_else(|| Error::encode("a run without groups"))?;
        let tail = match &self.tail {
            Some((object, tail)) if *object == part.object => tail.clone(),
            _ => objects.stretch(&path, &[&layout.tail]).await?,
        };
        self.tail = Some((part.object.clone(), tail.clone()));
        let extent = &layout.groups[group].extent;
        let bytes = objects.stretch(&path, &[extent]).await?;
        let groups = Groups { from: group, count: 1, offset: extent.offset, bytes };
        let batches = decode::read_groups(path.as_ref(), layout.tail.clone(), tail, groups)?;
        concat_batches(&log_schema(), &batches).map_err(Error::encode)
    }

    /// The last key that is held, if more rows may follow.
    fn bound(&self) -> Option<Key> {
        let last = self.held.num_rows().checked_sub(1)?;
        (!self.ahead.is_empty()).then(|| key(&self.held, last))
    }

    /// The rows up to `bound`, which are held no longer.
    fn take(&mut self, bound: Option<&Key>) -> RecordBatch {
        let rows = self.held.num_rows();
        let (mut low, mut high) = (0, rows);
        while let Some(bound) = bound
            && low < high
        {
            let middle = usize::midpoint(low, high);
            if key(&self.held, middle) <= *bound { low = middle + 1 } else { high = middle }
        }
        let taken = if bound.is_some() { low } else { rows };
        let taken_rows = self.held.slice(0, taken);
        self.held = self.held.slice(taken, rows - taken);
        taken_rows
    }
}

/// All rows of these parts; only those that are not in memory are fetched.
async fn read_all(log: &Log, parts: &[Arc<Part>]) -> Result<Vec<Vec<RecordBatch>>, Error> {
    let read = log.objects().each(parts.to_vec(), |objects, part| async move {
        match &part.inline {
            Some(inline) => inline.batches(&part.object),
            None => {
                let (path, bytes) = objects.part(&part).await?;
                decode::batches(path.as_ref(), bytes)
            }
        }
    });
    read.await
}

/// The rows that come next in the order of all cursors; `None` at the end.
fn take_step(cursors: &mut [Cursor]) -> Result<Option<RecordBatch>, Error> {
    if cursors.iter().all(|cursor| cursor.held.num_rows() == 0) {
        return Ok(None);
    }
    let bound = cursors.iter().filter_map(Cursor::bound).min();
    let pieces: Vec<RecordBatch> =
        cursors.iter_mut().map(|cursor| cursor.take(bound.as_ref())).collect();
    let joined = concat_batches(&log_schema(), &pieces).map_err(Error::encode)?;
    sorted(&joined, &SERIES_ORDER).map(Some)
}

fn key(batch: &RecordBatch, row: usize) -> Key {
    let node = text(batch, column::NODE_ID).map_or("", |nodes| nodes.value(row));
    let commit = long(batch, column::COMMIT_VERSION).map_or(0, |commits| commits.value(row));
    (node.to_owned(), commit)
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>()
}

fn long<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a Int64Array> {
    batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()
}

/// Rows by these columns; those that are alike keep their order.
fn sorted(batch: &RecordBatch, by: &[&str]) -> Result<RecordBatch, Error> {
    let rows = i64::try_from(batch.num_rows()).map_err(Error::encode)?;
    let place: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let keys = by
        .iter()
        .filter_map(|name| batch.column_by_name(name))
        .chain(std::iter::once(&place))
        .map(|values| SortColumn { values: Arc::clone(values), options: None })
        .collect::<Vec<_>>();
    let order = lexsort_to_indices(&keys, None).map_err(Error::encode)?;
    take_record_batch(batch, &order).map_err(Error::encode)
}

/// Parts of one kind that are being written, in the order in which they stand in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Versions and files of series.
    Series,
    /// Files that have gone since the runs were written that are merged.
    Gone,
    /// What lay aside already.
    LongGone,
    /// What everybody reads.
    Shared,
    /// Announcements.
    History,
}

impl Lane {
    /// The places of its parts begin here; no run has so many parts of one kind.
    const PLACES: usize = 1_000_000;

    const fn families(self) -> &'static str {
        match self {
            Self::Series => "file,version",
            Self::Shared => "store,tree",
            Self::Gone | Self::LongGone | Self::History => "history",
        }
    }
}

/// Rows that wait for their part to be full.
#[derive(Debug, Default)]
struct Pending {
    batches: Vec<RecordBatch>,
    rows: usize,
    written: usize,
}

/// The run that is being written.
struct Output<'a> {
    log: &'a Log,
    run: String,
    series: Pending,
    gone: Pending,
    long_gone: Pending,
    shared: Vec<RecordBatch>,
    history: Vec<RecordBatch>,
    parts: Vec<Arc<Part>>,
}

impl<'a> Output<'a> {
    fn new(log: &'a Log) -> Self {
        Self {
            log,
            run: log.new_run(),
            series: Pending::default(),
            gone: Pending::default(),
            long_gone: Pending::default(),
            shared: Vec::new(),
            history: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Keeps the rows that are not of series and returns the others.
    fn set_apart(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let is = |test: fn(&str, &str) -> bool| -> Result<BooleanArray, Error> {
            let (kinds, ops) = text(batch, column::KIND)
                .zip(text(batch, column::OP))
                .ok_or_else(|| Error::encode("rows without kinds"))?;
            Ok(kinds.iter().zip(ops).map(|(k, o)| Some(test(k?, o?))).collect())
        };
        let part = |mask: BooleanArray| filter_record_batch(batch, &mask).map_err(Error::encode);
        let shared = part(is(|kind, op| is_shared(kind) && !is_history(kind, op))?)?;
        let history = part(is(is_history)?)?;
        self.shared.extend((shared.num_rows() > 0).then_some(shared));
        self.history.extend((history.num_rows() > 0).then_some(history));
        part(is(|kind, op| !is_shared(kind) && !is_history(kind, op))?)
    }

    fn pending(&mut self, lane: Lane) -> &mut Pending {
        match lane {
            Lane::Gone => &mut self.gone,
            Lane::LongGone => &mut self.long_gone,
            Lane::Series | Lane::Shared | Lane::History => &mut self.series,
        }
    }

    async fn push(&mut self, lane: Lane, mut rows: RecordBatch) -> Result<(), Error> {
        loop {
            let pending = self.pending(lane);
            let fits = PART_ROWS - pending.rows;
            if rows.num_rows() < fits {
                pending.rows += rows.num_rows();
                pending.batches.extend((rows.num_rows() > 0).then_some(rows));
                return Ok(());
            }
            pending.batches.push(rows.slice(0, fits));
            rows = rows.slice(fits, rows.num_rows() - fits);
            self.write_pending(lane).await?;
        }
    }

    async fn write_pending(&mut self, lane: Lane) -> Result<(), Error> {
        let pending = self.pending(lane);
        let (batches, place) = (std::mem::take(&mut pending.batches), pending.written);
        pending.rows = 0;
        pending.written += 1;
        let part = self.write(batches, lane, place).await?;
        self.parts.push(part);
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Arc<Part>>, Error> {
        for lane in [Lane::Series, Lane::Gone, Lane::LongGone] {
            if !self.pending(lane).batches.is_empty() {
                self.write_pending(lane).await?;
            }
        }
        for (batches, lane) in [
            (std::mem::take(&mut self.shared), Lane::Shared),
            (std::mem::take(&mut self.history), Lane::History),
        ] {
            if !batches.is_empty() {
                let rows = concat_batches(&log_schema(), &batches).map_err(Error::encode)?;
                let rows = vec![sorted(&rows, &[column::COMMIT_VERSION])?];
                let part = self.write(rows, lane, 0).await?;
                self.parts.push(part);
            }
        }
        self.parts.sort_by_key(|part| part.place);
        Ok(self.parts)
    }

    async fn write(
        &self,
        batches: Vec<RecordBatch>,
        lane: Lane,
        place: usize,
    ) -> Result<Arc<Part>, Error> {
        let object = self.log.new_part();
        let statistics = part::statistics(&batches);
        let (bytes, layout) = tokio::task::spawn_blocking(move || encode(&batches))
            .await
            .map_err(Error::encode)??;
        let add = part::add_action(Described {
            object: &object,
            bytes: &bytes,
            families: lane.families(),
            statistics,
            now: self.log.env().clock.now(),
            run: Some((&self.run, lane as usize * Lane::PLACES + place)),
            layout: Some(layout),
        })?;
        let part = Part::from_add(add).map_err(Error::encode)?;
        self.log.objects().put(&self.log.objects().part_path(&part), bytes).await?;
        Ok(Arc::new(part))
    }
}

fn is_shared(kind: &str) -> bool {
    kind == "tree" || kind == "store"
}

fn is_history(kind: &str, op: &str) -> bool {
    kind == "store" && op == encode::VACUUM
}

/// Encodes rows in row groups of [`GROUP_ROWS`] and tells where these lie.
fn encode(batches: &[RecordBatch]) -> Result<(Bytes, Layout), Error> {
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, log_schema(), Some(encode::merged_properties()?))
            .map_err(Error::encode)?;
    for batch in batches {
        writer.write(batch).map_err(Error::encode)?;
    }
    let metadata = writer.close().map_err(Error::encode)?;
    let nodes = batches.iter().filter_map(|batch| batch.column_by_name(column::NODE_ID));
    let nodes: Vec<&dyn Array> = nodes.map(AsRef::as_ref).collect();
    let nodes = concat(&nodes).map_err(Error::encode)?;
    let layout = layout_of(&metadata, nodes.as_string(), &bytes)
        .ok_or_else(|| Error::encode("row groups do not lie as they should"))?;
    Ok((bytes.into(), layout))
}

fn layout_of(metadata: &ParquetMetaData, nodes: &StringArray, bytes: &[u8]) -> Option<Layout> {
    let node = |row: usize| {
        if nodes.is_valid(row) { nodes.value(row).to_owned() } else { String::new() }
    };
    let (mut groups, mut row, mut end) = (Vec::new(), 0, 0);
    for group in metadata.row_groups() {
        let ranges = group.columns().iter().map(|column| column.byte_range());
        let (start, stop) = ranges
            .map(|(offset, length)| (offset, offset + length))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        let count = usize::try_from(group.num_rows()).ok()?;
        let extent = Extent::of(start..stop, bytes)?;
        groups.push(Group { first: node(row), last: node((row + count).checked_sub(1)?), extent });
        row += count;
        end = stop;
    }
    let tail = Extent::of(end..u64::try_from(bytes.len()).ok()?, bytes)?;
    Some(Layout { groups, tail })
}
