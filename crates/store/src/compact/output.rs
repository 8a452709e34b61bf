//! Merged rows cut into files.
//!
//! In order of event time a file ends at a change of event time, once it has its share of the rows or the plan says so: bytes
//! are not known before rows are written, and a plan that is made of guesses might never come to rest.
//! Where so many rows have one event time that a file would become much too large, it ends between two
//! keys or versions: rows of equal event time, key and version never lie in two files. In order of keys
//! a file ends where it is told to.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{concat, concat_batches, partition};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use tidelog_core::{NodeId, TreePath};
use tidelog_oplog::FileOrder;

use crate::encode::{EncodedFile, Expected, FileWriter, Style};
use crate::error::Error;
use crate::hot::memory_of;
use crate::prepare::{PreparedRows, is_unique};
use crate::series_schema::SeriesSchema;
use crate::warm::{Ahead, Keeping};

/// How a file is written is chosen when so many rows have come, ...
const STYLE_ROWS: usize = 16_384;
/// ... or so many bytes.
const STYLE_BYTES: usize = 4 << 20;
/// A row group of so many bytes is ended, however few rows it has.
const ROW_GROUP_BYTES_MAX: usize = 16 << 20;
/// Rows in memory take about so many times the bytes that they take in a file.
const SHRINKS_BY: usize = 4;

/// What is known of the files before their rows.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) path: TreePath,
    pub(super) schema: SeriesSchema,
    /// The columns as they are written.
    pub(super) columns: SchemaRef,
    /// A file ends when it has so many rows, ...
    pub(super) file_rows: usize,
    /// ... or before one of these event times, in the series' unit, ...
    pub(super) cuts: VecDeque<i64>,
    /// ... if it has so many, ...
    pub(super) cut_rows_min: usize,
    /// ... or when it has so many bytes, about, whatever was planned.
    pub(super) file_bytes_max: usize,
    /// Bytes of a file, about.
    pub(super) file_bytes: usize,
    /// Whether they are not soon merged once more.
    pub(super) lasts: bool,
    /// Whether there may be a NaN in each of the series' columns.
    pub(super) may_hold_nan: Arc<[bool]>,
}

/// Files in the making, one after the other.
pub(super) struct Output {
    shape: Shape,
    /// Rows that come before the file is begun.
    waiting: Vec<RecordBatch>,
    file: Option<FileWriter>,
    /// The rows that it has, with those that wait.
    rows: usize,
    /// The last of them.
    last: Option<RecordBatch>,
    /// The first event time behind the partition that the file lies in.
    border: Option<i64>,
    /// Where files that are to be warm have their rows kept, and those of the open one.
    warm: Option<(Ahead, NodeId)>,
    kept: Option<Keeping>,
    ready: VecDeque<Written>,
    /// Where an earlier file lay.
    memory: Vec<u8>,
}

/// A file that is complete.
pub(super) struct Written {
    pub(super) file: EncodedFile,
    /// Its rows, if it is to be warm.
    pub(super) kept: Option<Keeping>,
}

impl Output {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            waiting: Vec::new(),
            file: None,
            rows: 0,
            last: None,
            border: None,
            warm: None,
            kept: None,
            ready: VecDeque::new(),
            memory: Vec::new(),
        }
    }

    /// Keeps the rows of each file beside it, so that it need not be decoded to be made warm.
    pub(super) fn with_rows_kept(self, warm: Option<(Ahead, NodeId)>) -> Self {
        Self { warm, ..self }
    }

    pub(super) fn take_ready(&mut self) -> Option<Written> {
        self.ready.pop_front()
    }

    /// Takes memory for the next file.
    pub(super) fn give_back(&mut self, memory: Vec<u8>) {
        self.memory = memory;
    }

    fn fail(&self, error: &ArrowError) -> Error {
        Error::Encode { path: self.shape.path.clone(), reason: error.to_string() }
    }

    /// Adds rows that follow those before.
    pub(super) fn write(&mut self, mut rows: RecordBatch) -> Result<(), Error> {
        while let Some(end) = self.next_end(&rows)? {
            self.put(rows.slice(0, end))?;
            self.end_file()?;
            rows = rows.slice(end, rows.num_rows() - end);
        }
        self.put(rows)
    }

    /// Ends the open file, if there is one.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.end_file()
    }

    /// How many of `rows` still belong to the open file, if it ends before the last of them.
    fn next_end(&mut self, rows: &RecordBatch) -> Result<Option<usize>, Error> {
        if self.shape.schema.layout().order == FileOrder::KeyTime {
            // Its event times were chosen before, and each key has rows of all of them.
            return Ok(None);
        }
        let times = self.shape.schema.times(&self.shape.path, rows)?;
        let (times, count) = (times.values(), times.len());
        if self.border.is_none() {
            self.border = times.first().and_then(|first| self.shape.schema.partition_end(*first));
        }
        let inside = self.border.map_or(count, |end| times.partition_point(|time| *time < end));
        let planned = self.planned_end(&rows.slice(0, inside), &times[..inside])?;
        Ok(planned.or_else(|| Some(inside).filter(|inside| *inside < count)))
    }

    /// The same by the plan, for rows of one partition.
    fn planned_end(&mut self, rows: &RecordBatch, times: &[i64]) -> Result<Option<usize>, Error> {
        let count = times.len();
        while let Some(cut) = self.shape.cuts.front() {
            let end = times.partition_point(|time| time < cut);
            if end == count {
                break;
            }
            self.shape.cuts.pop_front();
            let rows_before = self.rows + end;
            if rows_before > 0 && rows_before >= self.shape.cut_rows_min {
                return Ok(Some(end));
            }
        }
        let Some(last) = self.last.as_ref().filter(|_| self.is_full()) else {
            let missing = self.shape.file_rows.saturating_sub(self.rows);
            // The file may become full among these rows.
            let full = times.get(missing).map(|full| times.partition_point(|time| time <= full));
            return Ok(full.filter(|end| *end < count));
        };
        let last_time = self.shape.schema.times(&self.shape.path, last)?;
        let last_time = last_time.values().first().copied().unwrap_or(i64::MIN);
        let end = times.partition_point(|time| *time <= last_time);
        if end < count {
            return Ok(Some(end));
        }
        if !self.is_too_large() {
            return Ok(None);
        }
        self.next_change(last, rows)
    }

    /// How many of `rows`, all of one event time, belong together with `last` by key and version.
    fn next_change(&self, last: &RecordBatch, rows: &RecordBatch) -> Result<Option<usize>, Error> {
        let version = self.shape.schema.columns().fields().len();
        let ordering: Vec<usize> =
            self.shape.schema.keys().iter().copied().chain([version]).collect();
        let together = concat_batches(&self.shape.columns, [last, rows]);
        let together = together.map_err(|error| self.fail(&error))?;
        let columns: Vec<ArrayRef> =
            ordering.iter().map(|column| Arc::clone(together.column(*column))).collect();
        let alike = partition(&columns).map_err(|error| self.fail(&error))?;
        let first = alike.ranges().first().map_or(1, |range| range.end);
        // Of these the first is `last`.
        Ok(Some(first - 1).filter(|end| *end < rows.num_rows()))
    }

    /// Whether the file ends at the next change of event time.
    fn is_full(&self) -> bool {
        let Shape { file_rows, file_bytes_max, .. } = self.shape;
        self.rows >= file_rows || self.bytes() >= file_bytes_max
    }

    /// Whether it cannot wait for one.
    fn is_too_large(&self) -> bool {
        let Shape { file_rows, file_bytes_max, .. } = self.shape;
        self.rows - self.rows / 5 >= file_rows || self.bytes() / 5 * 4 >= file_bytes_max
    }

    /// Bytes of the open file, about.
    fn bytes(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(memory_of).sum();
        self.file.as_ref().map_or(waiting / SHRINKS_BY, FileWriter::bytes)
    }

    fn put(&mut self, rows: RecordBatch) -> Result<(), Error> {
        let Some(last) = rows.num_rows().checked_sub(1) else { return Ok(()) };
        if self.rows == 0 {
            let Shape { schema, file_rows, .. } = &self.shape;
            let keep = |(ahead, node): &(Ahead, _)| ahead.keep(schema, *node, *file_rows as u64);
            self.kept = self.warm.as_ref().and_then(keep);
        }
        if let Some(kept) = &mut self.kept {
            kept.add(&rows);
        }
        self.rows += rows.num_rows();
        let last = rows.slice(last, 1);
        match &mut self.file {
            Some(_) => self.write_part(rows)?,
            None => {
                self.waiting.push(rows);
                let count: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
                let bytes: usize = self.waiting.iter().map(memory_of).sum();
                if count >= STYLE_ROWS || bytes >= STYLE_BYTES {
                    self.begin()?;
                }
            }
        }
        self.last = Some(last);
        Ok(())
    }

    /// Begins a file with the rows that wait.
    fn begin(&mut self) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        let Shape { path, schema, columns, may_hold_nan, file_rows, file_bytes, .. } = &self.shape;
        let lasts = self.shape.lasts;
        let sample = sample(columns, &waiting).map_err(|error| self.fail(&error))?;
        let expected =
            Expected { rows: *file_rows, bytes: *file_bytes, may_hold_nan: may_hold_nan.to_vec() };
        let style = Style::merged(schema.layout(), columns, &sample, &expected, lasts);
        let memory = std::mem::take(&mut self.memory);
        let file = FileWriter::try_new_in(memory, path, schema, Arc::clone(columns), &style)?;
        self.file = Some(file);
        // The first of these has none before it in the file.
        self.last = None;
        for rows in waiting {
            let last = rows.num_rows().checked_sub(1).map(|last| rows.slice(last, 1));
            self.write_part(rows)?;
            self.last = last;
        }
        Ok(())
    }

    fn write_part(&mut self, rows: RecordBatch) -> Result<(), Error> {
        let Shape { path, schema, columns, .. } = &self.shape;
        // Whether rows are unique matters only where one replaces another.
        let unique = schema.dedup() && {
            let seam = match &self.last {
                Some(last) => {
                    let pair = concat_batches(columns, [last, &rows.slice(0, 1)]);
                    is_unique(path, schema, &pair.map_err(|error| self.fail(&error))?)?
                }
                None => true,
            };
            seam && is_unique(path, schema, &rows)?
        };
        let times = schema.times(path, &rows)?;
        let part = PreparedRows { batch: rows, times, versions: Vec::new(), unique };
        if let Some(file) = &mut self.file {
            file.write(&part)?;
            file.end_row_group_beyond(ROW_GROUP_BYTES_MAX)?;
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<(), Error> {
        if !self.waiting.is_empty() {
            self.begin()?;
        }
        (self.last, self.rows, self.border) = (None, 0, None);
        let kept = self.kept.take();
        let file = self.file.take().map(FileWriter::finish).transpose()?;
        self.ready.extend(file.map(|file| Written { file, kept }));
        Ok(())
    }
}

/// The values of each column; none of dictionary columns, whose dictionaries need not fit into one.
fn sample(columns: &SchemaRef, rows: &[RecordBatch]) -> Result<Vec<ArrayRef>, ArrowError> {
    let of_column = |index: usize| {
        let arrays: Vec<&dyn Array> =
            rows.iter().map(|batch| batch.column(index).as_ref()).collect();
        match arrays.first() {
            Some(first) if matches!(first.data_type(), DataType::Dictionary(..)) => {
                Ok(first.slice(0, 0))
            }
            _ => concat(&arrays),
        }
    };
    (0..columns.fields().len()).map(of_column).collect()
}
