//! Rewriting where files are ordered by key, or come to be: one slice of event time after the other.
//!
//! ```text
//! files by time ─ merged ─▶ rows of a slice, in memory ─ sorted by key ┐
//! files by key, as far as they lie in the slice ───────────────────────┴ merged by key ─▶ one file
//! ```
//!
//! A slice is a stretch of event time that no other output shares. It ends where the plan says so, at the
//! border of a partition, or when as many rows wait in memory as there is room for: so files that come
//! from rows in order of event time are small at first. When such files are merged, they are
//! read one key after the other, and nothing waits in memory.
//!
//! Back in order of event time, all rows of a slice wait in memory; slices are made so small that they can.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use tidelog_core::{EventTime, TreePath};
use tidelog_merge::{ColumnMerger, Step};
use tidelog_oplog::{FileOrder, FileRow};

use super::input::{Chain, Next, Wanted, Within};
use super::rewrite::Rewrite;
use super::work::{Given, Merged, Merging, Outcome, Sink, Want, batch_rows, broken};
use crate::error::Error;
use crate::hot::memory_of;
use crate::series_schema::SeriesSchema;

/// What a row takes in memory, of what it takes in a file, about.
const GROWS_BY: u64 = 8;

/// Decoding, sorting, merging and encoding.
pub(super) struct SlicedWork {
    path: TreePath,
    schema: SeriesSchema,
    columns: SchemaRef,
    order: FileOrder,
    batch_rows: usize,
    sort_bytes: usize,
    given: Vec<(usize, Given)>,
    /// The files in order of event time, and what of their rows comes next.
    merging: Merging,
    next: Option<RecordBatch>,
    is_merged: bool,
    /// The files in order of keys.
    by_key: Vec<Arc<FileRow>>,
    /// Event times at which slices begin, in the series' unit, ascending.
    starts: Vec<i64>,
    slice: Slice,
    stage: Stage,
    sink: Sink,
}

/// A stretch of event time, and its rows that wait.
#[derive(Default)]
struct Slice {
    /// Its first event time; `None` before it has begun.
    first: Option<i64>,
    /// Its last one, or that of the slice before.
    last: Option<i64>,
    waiting: Vec<RecordBatch>,
    bytes: usize,
}

enum Stage {
    /// Rows of files in order of event time are gathered.
    Gather,
    /// Rows of files in order of keys are gathered beside them.
    Beside(BTreeMap<usize, Chain>),
    /// Rows come in order of keys.
    Merge(Box<KeyMerge>),
    Done,
}

struct KeyMerge {
    merger: ColumnMerger,
    sorted: Sorted,
    /// By number; the first input of the merge are the sorted rows.
    chains: Vec<(usize, Chain)>,
}

impl SlicedWork {
    pub(super) fn new(rewrite: &Rewrite) -> Result<Self, Error> {
        let columns = rewrite.columns();
        let batch_rows = batch_rows(&rewrite.inputs, columns.fields().len());
        let (by_time, by_key): (Vec<_>, Vec<_>) =
            rewrite.inputs.iter().cloned().partition(|file| file.order == FileOrder::Time);
        Ok(Self {
            path: rewrite.path.clone(),
            schema: rewrite.schema.clone(),
            order: rewrite.schema.layout().order,
            merging: Merging::new(rewrite, &by_time, &columns, batch_rows)?,
            sink: Sink::new(rewrite, Arc::clone(&columns)),
            starts: starts(rewrite),
            columns,
            batch_rows,
            sort_bytes: rewrite.sort_bytes,
            given: Vec::new(),
            next: None,
            is_merged: false,
            by_key,
            slice: Slice::default(),
            stage: Stage::Gather,
        })
    }

    pub(super) fn give(&mut self, chain: usize, given: Given) {
        self.given.push((chain, given));
    }

    pub(super) fn give_back(&mut self, memory: Vec<u8>) {
        self.sink.give_back(memory);
    }

    /// Works on until something is wanted or complete.
    pub(super) fn run(&mut self) -> Result<Outcome, Error> {
        for (chain, given) in mem::take(&mut self.given) {
            self.hand_over(chain, given)?;
        }
        loop {
            if let Some(file) = self.sink.take_ready() {
                return Ok(file);
            }
            let wants = match mem::replace(&mut self.stage, Stage::Done) {
                Stage::Done => return Ok(Outcome::Done),
                Stage::Gather => self.gather()?,
                Stage::Beside(chains) => self.gather_beside(chains)?,
                Stage::Merge(merge) => self.merge(merge)?,
            };
            if !wants.is_empty() {
                return Ok(Outcome::Wants(wants));
            }
        }
    }

    fn hand_over(&mut self, chain: usize, given: Given) -> Result<(), Error> {
        if chain < self.merging.chain_count() {
            return self.merging.give(chain, given);
        }
        let of_slice = match &mut self.stage {
            Stage::Beside(chains) => chains.get_mut(&chain),
            Stage::Merge(merge) => {
                merge.chains.iter_mut().find(|(number, _)| *number == chain).map(|(_, of)| of)
            }
            Stage::Gather | Stage::Done => None,
        };
        of_slice.map_or(Ok(()), |of_slice| given.to(of_slice))
    }

    /// Gathers the rows of the slice from files in order of event time; what these want for that.
    fn gather(&mut self) -> Result<Vec<Want>, Error> {
        loop {
            if self.next.is_none() && !self.is_merged {
                match self.merging.step()? {
                    Merged::Rows(rows) => self.next = Some(rows),
                    Merged::Done => self.is_merged = true,
                    Merged::Wants(wants) => {
                        self.stage = Stage::Gather;
                        return Ok(wants);
                    }
                }
                continue;
            }
            if self.slice.first.is_none() && !self.begin()? {
                self.sink.finish()?;
                self.stage = Stage::Done;
                return Ok(Vec::new());
            }
            let Some(rows) = self.next.take() else { break };
            let times = self.schema.times(&self.path, &rows)?;
            let last = self.slice.last.unwrap_or(i64::MAX);
            let inside = times.values().partition_point(|time| *time <= last);
            if inside > 0 {
                self.slice.add(rows.slice(0, inside));
                if self.slice.bytes >= self.sort_bytes && self.order == FileOrder::KeyTime {
                    // No more than what has the same event time as the last row.
                    self.slice.last = Some(times.value(inside - 1));
                }
            }
            if inside < rows.num_rows() {
                self.next = Some(rows.slice(inside, rows.num_rows() - inside));
                break;
            }
        }
        self.stage = self.of_keys()?;
        Ok(Vec::new())
    }

    /// Begins a slice with the first row that is left; whether there is one.
    fn begin(&mut self) -> Result<bool, Error> {
        let next = match &self.next {
            Some(rows) => self.schema.times(&self.path, rows)?.values().first().copied(),
            None => None,
        };
        let of_files = self.by_key.iter().filter_map(|file| {
            let (start, end) = self.span(file);
            match self.slice.last {
                None => Some(start),
                Some(ended) if end > ended => Some(start.max(ended + 1)),
                Some(_) => None,
            }
        });
        let Some(first) = of_files.chain(next).min() else { return Ok(false) };
        let planned = self.starts.get(self.starts.partition_point(|start| *start <= first));
        let border = self.schema.partition_end(first);
        let end = planned.copied().into_iter().chain(border).min();
        self.slice.begin(first, end.map_or(i64::MAX, |end| end - 1));
        Ok(true)
    }

    /// First and last event time of a file in the series' unit.
    fn span(&self, file: &FileRow) -> (i64, i64) {
        let unit = self.schema.time_unit();
        (file.range.start().floor_to(unit), file.range.end().floor_to(unit))
    }

    /// What comes after the rows in order of event time are there: those of the files in order of keys.
    fn of_keys(&mut self) -> Result<Stage, Error> {
        let times = self.slice.first.unwrap_or(i64::MIN)..=self.slice.last.unwrap_or(i64::MAX);
        let version = self.schema.columns().fields().len();
        let chains = self.by_key.iter().enumerate().filter_map(|(place, file)| {
            let (start, end) = self.span(file);
            let within = Within {
                path: self.path.clone(),
                schema: self.schema.clone(),
                times: times.clone(),
            };
            let wanted = Wanted {
                columns: Arc::clone(&self.columns),
                version,
                places: None,
                batch_rows: self.batch_rows,
            };
            let chain = Chain::new([Arc::clone(file)].into(), wanted);
            let number = self.merging.chain_count() + place;
            let is_inside = start <= *times.end() && *times.start() <= end;
            is_inside.then(|| (number, chain.within(within)))
        });
        let chains: Vec<(usize, Chain)> = chains.collect();
        if self.order == FileOrder::Time {
            return Ok(Stage::Beside(chains.into_iter().collect()));
        }
        let sorted = self.sorted()?;
        let (columns, inputs) = (self.sort_columns(), chains.len() + 1);
        let merger =
            ColumnMerger::try_new(Arc::clone(&self.columns), columns, inputs, self.batch_rows);
        let merger = merger.map_err(|error| broken(&self.path, &error))?;
        Ok(Stage::Merge(Box::new(KeyMerge { merger, sorted, chains })))
    }

    /// The columns that rows are ordered by, the first one first.
    fn sort_columns(&self) -> Vec<usize> {
        let (time, version) = (self.schema.time_index(), self.schema.columns().fields().len());
        let keys = self.schema.keys().iter().copied();
        match self.order {
            FileOrder::Time => [time].into_iter().chain(keys).chain([version]).collect(),
            FileOrder::KeyTime => keys.chain([time, version]).collect(),
        }
    }

    fn sorted(&mut self) -> Result<Sorted, Error> {
        let (waiting, columns) = (mem::take(&mut self.slice.waiting), self.sort_columns());
        Sorted::new(waiting, &columns, self.batch_rows).map_err(|error| self.fail(&error))
    }

    fn fail(&self, error: &ArrowError) -> Error {
        Error::Compaction { path: self.path.clone(), reason: error.to_string() }
    }

    /// Gathers the rows of files in order of keys too, and passes on all in order of event time.
    fn gather_beside(&mut self, mut chains: BTreeMap<usize, Chain>) -> Result<Vec<Want>, Error> {
        while let Some(mut first) = chains.first_entry() {
            let number = *first.key();
            let wanted = match first.get_mut().next()? {
                Next::Rows(rows) => {
                    self.slice.add(rows);
                    continue;
                }
                Next::End => {
                    first.remove();
                    continue;
                }
                Next::Open(file) => Want::Open(number, file),
                Next::Fetch(ranges) => Want::Fetch(number, ranges),
            };
            self.stage = Stage::Beside(chains);
            return Ok(vec![wanted]);
        }
        let mut sorted = self.sorted()?;
        while let Some(rows) = sorted.next().map_err(|error| self.fail(&error))? {
            self.sink.take(rows)?;
        }
        self.sink.settle()?;
        self.slice.end();
        self.stage = Stage::Gather;
        Ok(Vec::new())
    }

    /// Merges rows by key until something is wanted or the slice is done.
    fn merge(&mut self, mut merge: Box<KeyMerge>) -> Result<Vec<Want>, Error> {
        loop {
            match merge.merger.step().map_err(|error| broken(&self.path, &error))? {
                Step::Batch(rows) => {
                    self.sink.take(rows)?;
                }
                Step::NeedInput(_) => {
                    let wants = self.feed(&mut merge)?;
                    if !wants.is_empty() {
                        self.stage = Stage::Merge(merge);
                        return Ok(wants);
                    }
                }
                Step::Done => {
                    self.sink.finish()?;
                    self.slice.end();
                    self.stage = Stage::Gather;
                    return Ok(Vec::new());
                }
            }
        }
    }

    fn feed(&self, merge: &mut KeyMerge) -> Result<Vec<Want>, Error> {
        let waiting: Vec<usize> = merge.merger.waiting().collect();
        let mut wants = Vec::new();
        for input in waiting {
            let fed = match input.checked_sub(1).map(|place| &mut merge.chains[place]) {
                None => match merge.sorted.next().map_err(|error| self.fail(&error))? {
                    Some(rows) => merge.merger.push(input, rows),
                    None => merge.merger.finish(input),
                },
                Some((number, chain)) => match chain.next()? {
                    Next::Rows(rows) => merge.merger.push(input, rows),
                    Next::End => merge.merger.finish(input),
                    Next::Open(file) => {
                        wants.push(Want::Open(*number, file));
                        Ok(())
                    }
                    Next::Fetch(ranges) => {
                        wants.push(Want::Fetch(*number, ranges));
                        Ok(())
                    }
                },
            };
            fed.map_err(|error| broken(&self.path, &error))?;
        }
        Ok(wants)
    }
}

impl Slice {
    fn add(&mut self, rows: RecordBatch) {
        self.bytes += memory_of(&rows);
        self.waiting.push(rows);
    }

    fn begin(&mut self, first: i64, last: i64) {
        (self.first, self.last) = (Some(first), Some(last));
    }

    fn end(&mut self) {
        (self.first, self.bytes) = (None, 0);
        self.waiting.clear();
    }
}

/// Rows in memory in order, a batch at a time.
struct Sorted {
    batches: Vec<RecordBatch>,
    /// Number of the batch and place in it of each row, in order.
    places: Vec<(usize, usize)>,
    at: usize,
    batch_rows: usize,
}

impl Sorted {
    /// Rows that are equal in `columns` stay as they are.
    fn new(
        batches: Vec<RecordBatch>,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<Self, ArrowError> {
        let Some(first) = batches.first() else {
            return Ok(Self { batches, places: Vec::new(), at: 0, batch_rows });
        };
        let fields = columns
            .iter()
            .map(|column| SortField::new(first.schema_ref().field(*column).data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        let rows = |batch: &RecordBatch| -> Result<Rows, ArrowError> {
            let columns: Vec<ArrayRef> =
                columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
            converter.convert_columns(&columns)
        };
        let rows = batches.iter().map(rows).collect::<Result<Vec<_>, _>>()?;
        let mut places: Vec<(usize, usize)> = batches
            .iter()
            .enumerate()
            .flat_map(|(number, batch)| (0..batch.num_rows()).map(move |row| (number, row)))
            .collect();
        places.sort_by(|a, b| rows[a.0].row(a.1).cmp(&rows[b.0].row(b.1)));
        Ok(Self { batches, places, at: 0, batch_rows })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let end = (self.at + self.batch_rows).min(self.places.len());
        if self.at == end {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let rows = interleave_record_batch(&batches, &self.places[self.at..end])?;
        self.at = end;
        Ok(Some(rows))
    }
}

/// Where slices begin, by what is known of the files before they are read: rows are taken to lie evenly over
/// the event times of their file.
fn starts(rewrite: &Rewrite) -> Vec<i64> {
    let (job, files) = (&rewrite.job, rewrite.inputs.as_slice());
    let total: u64 = files.iter().map(|file| file.size).sum();
    let is_by_key = rewrite.schema.layout().order == FileOrder::KeyTime;
    let count = match is_by_key {
        true => job.files,
        // All rows of a slice wait.
        false => total.div_ceil((rewrite.sort_bytes as u64 / GROWS_BY).max(1)),
    };
    let density = Density { files };
    let mut starts: Vec<EventTime> = (1..count)
        .map(|part| {
            let bytes = u128::from(total) * u128::from(part) / u128::from(count);
            density.time_at(u64::try_from(bytes).unwrap_or(u64::MAX))
        })
        .collect();
    if is_by_key {
        starts.extend(&job.cuts);
    }
    starts.sort_unstable();
    let mut kept: Vec<EventTime> = Vec::new();
    for start in starts {
        let before = kept.last().map_or(0, |last| density.bytes_before(*last));
        if density.bytes_before(start) > before.saturating_add(job.cut_bytes_min) {
            kept.push(start);
        }
    }
    let unit = rewrite.schema.time_unit();
    kept.into_iter().map(|start| start.ceil_to(unit)).collect()
}

/// Bytes over event time.
struct Density<'a> {
    files: &'a [Arc<FileRow>],
}

impl Density<'_> {
    fn bytes_before(&self, time: EventTime) -> u64 {
        let of_file = |file: &Arc<FileRow>| {
            let nanos = |time: EventTime| i128::from(time.nanos());
            let (start, end) = (nanos(file.range.start()), nanos(file.range.end()));
            let span = end - start + 1;
            let before = (nanos(time) - start).clamp(0, span);
            u64::try_from(i128::from(file.size) * before / span).unwrap_or(u64::MAX)
        };
        self.files.iter().map(of_file).sum()
    }

    /// The first time before which there are so many.
    fn time_at(&self, bytes: u64) -> EventTime {
        let (mut low, mut high) = (i128::from(i64::MIN), i128::from(i64::MAX));
        while low < high {
            let middle = (low + high).div_euclid(2);
            let time = EventTime::from_nanos(i64::try_from(middle).unwrap_or(i64::MAX));
            if self.bytes_before(time) >= bytes { high = middle } else { low = middle + 1 }
        }
        EventTime::from_nanos(i64::try_from(low).unwrap_or(i64::MAX))
    }
}
