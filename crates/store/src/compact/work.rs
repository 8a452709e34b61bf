//! The work of a rewrite between its requests: decoding, merging, telling apart, encoding.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use tidelog_core::{EventTime, TreePath};
use tidelog_merge::{MergeSpec, Merger, Step};
use tidelog_oplog::{ColumnStats, FileRow};

use super::ending::{Earlier, Ending};
use super::input::{Chain, Next, Wanted};
use super::output::{Output, Shape, Written};
use super::plan::Reason;
use super::replaced::{Apart, Replaced};
use super::rewrite::{Purpose, Rewrite};
use crate::error::Error;
use crate::right_of_way::{Courtesy, RightOfWay};
use crate::series_schema::SeriesSchema;

const BATCH_ROWS_MAX: usize = 8192;
const BATCH_ROWS_MIN: usize = 256;
/// A batch takes about so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Below this the bytes of a file cannot be told while it is written.
const FILE_BYTES_LEAST: usize = 16 << 20;
/// What a value takes in memory at least, about.
const VALUE_BYTES: usize = 16;

/// What a chain wants.
pub(super) enum Want {
    Open(usize, Arc<FileRow>),
    Fetch(usize, Vec<Range<u64>>),
}

impl Want {
    pub(super) const fn chain(&self) -> usize {
        match self {
            Self::Open(chain, _) | Self::Fetch(chain, _) => *chain,
        }
    }
}

/// What it was given.
pub(super) enum Given {
    Opened(Arc<ParquetMetaData>),
    Fetched(Vec<Range<u64>>, Vec<Bytes>),
}

impl Given {
    /// Hands it over.
    pub(super) fn to(self, chain: &mut Chain) -> Result<(), Error> {
        match self {
            Self::Opened(metadata) => chain.opened(metadata),
            Self::Fetched(ranges, bytes) => chain.fetched(ranges, bytes),
        }
    }
}

/// Why the work has stopped.
pub(super) enum Outcome {
    Wants(Vec<Want>),
    File(Box<Written>),
    /// A file of rows that end.
    Ended(Box<Written>),
    Done,
}

/// Files in order of event time on their way to one sequence of rows in that order.
pub(super) struct Merging {
    path: TreePath,
    chains: Vec<Chain>,
    merger: Merger,
}

/// What a merge has.
pub(super) enum Merged {
    Rows(RecordBatch),
    Wants(Vec<Want>),
    Done,
}

impl Merging {
    /// The rows of `files`, with the columns as they are stored in them.
    pub(super) fn new(
        rewrite: &Rewrite,
        files: &[Arc<FileRow>],
        columns: &SchemaRef,
        batch_rows: usize,
    ) -> Result<Self, Error> {
        let Rewrite { path, schema, .. } = rewrite;
        let version = schema.columns().fields().len();
        let wanted = Wanted { columns: Arc::clone(columns), version, places: None, batch_rows };
        let chains: Vec<Chain> =
            chains(files).into_iter().map(|files| Chain::new(files, wanted.clone())).collect();
        let spec = MergeSpec::new(Arc::clone(columns), schema.time_index())
            .with_keys(schema.keys().to_vec())
            .with_version(version)
            .with_batch_rows(batch_rows);
        let merger = Merger::try_new(spec, chains.len()).map_err(|error| broken(path, &error))?;
        Ok(Self { path: path.clone(), chains, merger })
    }

    /// How many chains there are, which are numbered from 0.
    pub(super) fn chain_count(&self) -> usize {
        self.chains.len()
    }

    pub(super) fn give(&mut self, chain: usize, given: Given) -> Result<(), Error> {
        given.to(&mut self.chains[chain])
    }

    /// Works on until rows are there or something is wanted.
    pub(super) fn step(&mut self) -> Result<Merged, Error> {
        loop {
            match self.merger.step().map_err(|error| broken(&self.path, &error))? {
                Step::NeedInput(_) => {
                    let wants = self.feed()?;
                    if !wants.is_empty() {
                        return Ok(Merged::Wants(wants));
                    }
                }
                Step::Batch(rows) => return Ok(Merged::Rows(rows)),
                Step::Done => return Ok(Merged::Done),
            }
        }
    }

    /// Gives the merge rows of all chains that it waits for; what these want for that.
    fn feed(&mut self) -> Result<Vec<Want>, Error> {
        let waiting: Vec<usize> = self.merger.waiting().collect();
        let mut wants = Vec::new();
        for chain in waiting {
            let fed = match self.chains[chain].next()? {
                Next::Rows(rows) => self.merger.push(chain, rows),
                Next::End => self.merger.finish(chain),
                Next::Open(file) => {
                    wants.push(Want::Open(chain, file));
                    Ok(())
                }
                Next::Fetch(ranges) => {
                    wants.push(Want::Fetch(chain, ranges));
                    Ok(())
                }
            };
            fed.map_err(|error| broken(&self.path, &error))?;
        }
        Ok(wants)
    }
}

/// The work where all files are in order of event time, and so is what is written.
pub(super) struct TimeWork {
    merging: Merging,
    given: Vec<(usize, Given)>,
    sink: Sink,
    is_done: bool,
}

impl TimeWork {
    pub(super) fn new(rewrite: &Rewrite) -> Result<Self, Error> {
        let columns = rewrite.columns();
        let batch_rows = batch_rows(&rewrite.inputs, columns.fields().len());
        Ok(Self {
            merging: Merging::new(rewrite, &rewrite.inputs, &columns, batch_rows)?,
            given: Vec::new(),
            sink: Sink::new(rewrite, columns),
            is_done: false,
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
        for (chain, given) in std::mem::take(&mut self.given) {
            self.merging.give(chain, given)?;
        }
        loop {
            if let Some(file) = self.sink.take_ready() {
                return Ok(file);
            }
            if self.is_done {
                return Ok(Outcome::Done);
            }
            match self.merging.step()? {
                Merged::Wants(wants) => return Ok(Outcome::Wants(wants)),
                Merged::Rows(rows) => self.sink.take(rows)?,
                Merged::Done => {
                    self.sink.finish()?;
                    self.is_done = true;
                }
            }
        }
    }
}

/// Where merged rows go: those that stand to files, those that were replaced and those that end to others.
pub(super) struct Sink {
    /// Rows of a deduplicated series that stand are told apart, and those that were replaced set aside.
    replaced: Option<(Replaced, Output)>,
    /// Some of the rows that stand end.
    ending: Option<(Ending, Output)>,
    /// Of rows that are copied, which.
    earlier: Option<Earlier>,
    output: Output,
    courtesy: Option<Courtesy>,
}

impl Sink {
    /// `columns` are those of the rows that come.
    pub(super) fn new(rewrite: &Rewrite, columns: SchemaRef) -> Self {
        let Rewrite { path, schema, purpose, .. } = rewrite;
        let written = if rewrite.is_copy() { schema.stored_columns() } else { columns };
        let shape = shape(rewrite, written);
        let sets_aside = match purpose {
            Purpose::Merge => schema.dedup() && !rewrite.is_superseded(),
            Purpose::End(ending) => schema.dedup() && ending.is_of_shown_rows(),
            Purpose::Copy(_) => schema.dedup(),
        };
        let replaced = sets_aside.then(|| {
            let columns = schema.superseded_columns();
            // Of replaced rows there are few; they need not lie in files of their own per slot.
            let shape = Shape { columns, cuts: VecDeque::new(), ..shape.clone() };
            (Replaced::new(path.clone(), schema.clone()), Output::new(shape))
        });
        let ending = match purpose {
            Purpose::End(ending) => Some((ending.clone(), Output::new(shape.clone()))),
            _ => None,
        };
        let earlier = match purpose {
            Purpose::Copy(earlier) => Some(earlier.clone()),
            _ => None,
        };
        let warm = rewrite.warm.clone().map(|warm| (warm, rewrite.node));
        let output = Output::new(shape).with_rows_kept(warm);
        let courtesy = rewrite.way.as_ref().map(RightOfWay::courtesy);
        Self { replaced, ending, earlier, output, courtesy }
    }

    pub(super) fn take_ready(&mut self) -> Option<Outcome> {
        let ended = self.ending.as_mut().and_then(|(_, output)| output.take_ready());
        if let Some(file) = ended {
            return Some(Outcome::Ended(Box::new(file)));
        }
        let replaced = self.replaced.as_mut().and_then(|(_, output)| output.take_ready());
        let file = replaced.or_else(|| self.output.take_ready())?;
        Some(Outcome::File(Box::new(file)))
    }

    /// Takes memory for the next file.
    pub(super) fn give_back(&mut self, memory: Vec<u8>) {
        self.output.give_back(memory);
    }

    /// Adds rows that follow those before.
    pub(super) fn take(&mut self, rows: RecordBatch) -> Result<(), Error> {
        if let Some(courtesy) = &mut self.courtesy {
            courtesy.give_way();
        }
        let rows = match &self.earlier {
            Some(earlier) => earlier.visible(&rows)?,
            None => rows,
        };
        let Some((replaced, _)) = &mut self.replaced else { return self.stand(rows) };
        match replaced.next(rows)? {
            Some(apart) => self.take_apart(apart),
            None => Ok(()),
        }
    }

    fn take_apart(&mut self, apart: Apart) -> Result<(), Error> {
        // Of rows that are copied those that were replaced stay where they are.
        if let (Some((_, set_aside)), None) = (&mut self.replaced, &self.earlier) {
            set_aside.write(apart.replaced)?;
        }
        self.stand(apart.standing)
    }

    /// Takes rows that were not replaced.
    fn stand(&mut self, rows: RecordBatch) -> Result<(), Error> {
        if let Some(earlier) = &self.earlier {
            return self.output.write(earlier.renumbered(rows)?);
        }
        let Some((ending, ended)) = &mut self.ending else { return self.output.write(rows) };
        let (stay, end) = ending.apart(&rows)?;
        ended.write(end)?;
        self.output.write(stay)
    }

    /// Adds the rows that may have been replaced by those that did not come.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        match &mut self.replaced {
            Some((replaced, _)) => match replaced.finish()? {
                Some(apart) => self.take_apart(apart),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Ends the open files.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.settle()?;
        if let Some((_, set_aside)) = &mut self.replaced {
            set_aside.finish()?;
        }
        if let Some((_, ended)) = &mut self.ending {
            ended.finish()?;
        }
        self.output.finish()
    }
}

/// Files as few chains of files that share no instant.
pub(crate) fn chains(files: &[Arc<FileRow>]) -> Vec<VecDeque<Arc<FileRow>>> {
    let mut files: Vec<&Arc<FileRow>> = files.iter().collect();
    files.sort_by_key(|file| (file.range.start(), file.range.end(), file.min_version));
    let mut chains: Vec<VecDeque<Arc<FileRow>>> = Vec::new();
    let mut ends: BinaryHeap<Reverse<(EventTime, usize)>> = BinaryHeap::new();
    for file in files {
        let free = ends.peek().filter(|Reverse((end, _))| *end < file.range.start());
        let chain = match free.map(|Reverse((_, chain))| *chain) {
            Some(chain) => {
                ends.pop();
                chain
            }
            None => {
                chains.push(VecDeque::new());
                chains.len() - 1
            }
        };
        ends.push(Reverse((file.range.end(), chain)));
        chains[chain].push_back(Arc::clone(file));
    }
    chains
}

/// How many rows are decoded at once, so that they take about as much memory whatever their columns.
pub(super) fn batch_rows(files: &[Arc<FileRow>], columns: usize) -> usize {
    let (bytes, rows) =
        files.iter().fold((0, 0), |(bytes, rows), file| (bytes + file.size, rows + file.rows));
    let stored = usize::try_from(bytes / rows.max(1)).unwrap_or(usize::MAX);
    let row_bytes = stored.saturating_mul(2).max(columns * VALUE_BYTES);
    (BATCH_BYTES / row_bytes.max(1)).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX)
}

fn shape(rewrite: &Rewrite, columns: SchemaRef) -> Shape {
    let Rewrite { path, schema, inputs, job, .. } = rewrite;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let rows: u64 = inputs.iter().map(|file| file.rows).sum();
    let files = job.files.max(1);
    let (file_rows, file_bytes) = (rows.div_ceil(files), job.bytes.div_ceil(files));
    let cut_rows = u128::from(rows) * u128::from(job.cut_bytes_min) / u128::from(job.bytes.max(1));
    let unit = schema.time_unit();
    Shape {
        path: path.clone(),
        schema: schema.clone(),
        columns,
        file_rows: size(file_rows.max(1)),
        cuts: job.cuts.iter().map(|cut| cut.ceil_to(unit)).collect(),
        cut_rows_min: usize::try_from(cut_rows).unwrap_or(usize::MAX),
        // Some stretches of time take more bytes a row than others.
        file_bytes_max: size(file_bytes / 2 * 3).max(FILE_BYTES_LEAST),
        file_bytes: size(file_bytes),
        // What is cut to lie over few base files each comes to be merged with them.
        lasts: job.cuts.is_empty() || !matches!(job.reason, Reason::Overlapping { .. }),
        may_hold_nan: may_hold_nan(schema, inputs),
    }
}

/// Of each column whether one of the files may have a NaN there: it has then no bounds in the log.
fn may_hold_nan(schema: &SeriesSchema, files: &[Arc<FileRow>]) -> Arc<[bool]> {
    let of_files: Vec<_> =
        files.iter().map(|file| (file.rows, ColumnStats::decode_all(&file.column_stats))).collect();
    let may = |column: usize| {
        of_files.iter().any(|(rows, stats)| {
            let stats = stats.as_ref().and_then(|stats| stats.get(column));
            stats.is_none_or(|stats| stats.bounds.is_none() && stats.nulls < *rows)
        })
    };
    let fields = schema.columns().fields().iter().enumerate();
    fields.map(|(column, field)| field.data_type().is_floating() && may(column)).collect()
}

pub(super) fn broken(path: &TreePath, error: &tidelog_merge::Error) -> Error {
    Error::Compaction { path: path.clone(), reason: error.to_string() }
}
