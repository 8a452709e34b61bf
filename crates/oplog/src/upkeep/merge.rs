//! Many parts into one run, holding one row group of each run at a time.
//!
//! Rows of series are merged in order of (node, commit), stable within a commit. Each sorted run is
//! a cursor over its row groups. A step takes from all cursors the rows up to the least of their last
//! keys: nothing smaller can still come, so those rows are sorted, which for sorted pieces is a
//! merge, and written.
//!
//! Tree and store rows go into a part of their own, as everybody reads them; announcements of what
//! was vacuumed, which nobody needs for longer than the log is kept, into another.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{
    SortColumn, concat, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch,
};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::ParquetMetaData;

use super::plan::{MergePlan, Run};
use crate::decode::{self, Groups};
use crate::encode::{self, GROUP_ROWS};
use crate::error::Error;
use crate::log::Log;
use crate::part::{self, Described, Extent, Group, Layout, Part};
use crate::schema::{column, log_schema};

/// Rows of a merged part: some megabytes, with a tail of some ten kilobytes.
const PART_ROWS: usize = 32 * GROUP_ROWS;

/// The order of version and file rows.
const SERIES_ORDER: [&str; 2] = [column::NODE_ID, column::COMMIT_VERSION];

/// Writes the run that a plan asks for; returns its parts.
pub(crate) async fn merge(log: &Log, plan: &MergePlan) -> Result<Vec<Arc<Part>>, Error> {
    let mut output = Output::new(log);
    let mut cursors = Vec::with_capacity(plan.runs().len());
    for run in plan.runs() {
        cursors.push(Cursor::open(log, run, &mut output).await?);
    }
    loop {
        for cursor in &mut cursors {
            cursor.fill(log).await?;
        }
        let Some(step) = take_step(&mut cursors)? else { break };
        output.push(step).await?;
    }
    output.finish().await
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

    async fn fill(&mut self, log: &Log) -> Result<(), Error> {
        while self.held.num_rows() == 0 {
            let Some((part, group)) = self.ahead.pop_front() else { return Ok(()) };
            self.held = self.read_group(log, &part, group).await?;
        }
        Ok(())
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

/// The run that is being written.
struct Output<'a> {
    log: &'a Log,
    run: String,
    /// Rows of series that wait for their part to be full.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    shared: Vec<RecordBatch>,
    history: Vec<RecordBatch>,
    parts: Vec<Arc<Part>>,
}

impl<'a> Output<'a> {
    fn new(log: &'a Log) -> Self {
        Self {
            log,
            run: log.new_run(),
            pending: Vec::new(),
            pending_rows: 0,
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

    async fn push(&mut self, mut rows: RecordBatch) -> Result<(), Error> {
        while self.pending_rows + rows.num_rows() >= PART_ROWS {
            let fits = PART_ROWS - self.pending_rows;
            self.pending.push(rows.slice(0, fits));
            rows = rows.slice(fits, rows.num_rows() - fits);
            self.write_pending().await?;
        }
        self.pending_rows += rows.num_rows();
        self.pending.extend((rows.num_rows() > 0).then_some(rows));
        Ok(())
    }

    async fn write_pending(&mut self) -> Result<(), Error> {
        let batches = std::mem::take(&mut self.pending);
        self.pending_rows = 0;
        let part = self.write(batches, "file,version").await?;
        self.parts.push(part);
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<Arc<Part>>, Error> {
        if !self.pending.is_empty() {
            self.write_pending().await?;
        }
        for (batches, families) in [
            (std::mem::take(&mut self.shared), "store,tree"),
            (std::mem::take(&mut self.history), "history"),
        ] {
            if !batches.is_empty() {
                let rows = concat_batches(&log_schema(), &batches).map_err(Error::encode)?;
                let part =
                    self.write(vec![sorted(&rows, &[column::COMMIT_VERSION])?], families).await?;
                self.parts.push(part);
            }
        }
        Ok(self.parts)
    }

    async fn write(&self, batches: Vec<RecordBatch>, families: &str) -> Result<Arc<Part>, Error> {
        let object = self.log.new_part();
        let statistics = part::statistics(&batches);
        let (bytes, layout) = tokio::task::spawn_blocking(move || encode(&batches))
            .await
            .map_err(Error::encode)??;
        let add = part::add_action(Described {
            object: &object,
            bytes: &bytes,
            families,
            statistics,
            now: self.log.env().clock.now(),
            run: Some((&self.run, self.parts.len())),
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
