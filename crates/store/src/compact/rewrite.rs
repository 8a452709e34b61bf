//! Files merged into others, in bounded memory.
//!
//! ```text
//! files ─ chains without overlap ─ decode ┐
//!                                  decode ┼ merge ─ told apart, if deduplicated ─ cut ─ encode ─▶ files
//!                                  decode ┘
//!         └──── requests: async ────┘└──────────── work: on a thread that may block ───────────┘
//! ```
//!
//! A change of data rewrites files in the same way: its rows are told apart once more, into those that
//! stay and those that end, or are copied as they stood at an earlier version.
//!
//! The work says which bytes it wants and hands over files that are complete; requests are made between.
//! Every page is checked against the log before it is decoded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::future::try_join_all;
use parquet::file::metadata::ParquetMetaData;
use tidelog_core::{EventTime, FileId, NodeId, TimeRange, TreePath};
use tidelog_merge::{MergeSpec, Merger, Step};
use tidelog_oplog::{ColumnStats, FileRow};

use super::ending::{Earlier, Ending};
use super::input::{Chain, Next, Wanted};
use super::output::{Output, Shape};
use super::plan::Job;
use super::replaced::{Apart, Replaced};
use super::throttle::Throttle;
use crate::encode::EncodedFile;
use crate::engine::Ground;
use crate::error::Error;
use crate::file_reader::FileReader;
use crate::series_schema::SeriesSchema;

const BATCH_ROWS_MAX: usize = 8192;
const BATCH_ROWS_MIN: usize = 256;
/// A batch takes about so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Below this the bytes of a file cannot be told while it is written.
const FILE_BYTES_LEAST: usize = 16 << 20;
/// What a value takes in memory at least, about.
const VALUE_BYTES: usize = 16;

/// Files of one series to be written anew.
#[derive(Debug, Clone)]
pub(crate) struct Rewrite {
    pub(crate) path: TreePath,
    pub(crate) node: NodeId,
    pub(crate) schema: SeriesSchema,
    /// All of rows that stand, or all of rows that have ended; to copy rows, either.
    pub(crate) inputs: Vec<Arc<FileRow>>,
    pub(crate) job: Job,
    pub(crate) purpose: Purpose,
}

/// What files are written anew for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// To become fewer, or apart: the same rows come out.
    Merge,
    /// Some of their rows, all of which stand, end: these come out in files of their own.
    End(Ending),
    /// Their rows of an earlier version come out once more, as if they were all of one version.
    Copy(Earlier),
}

/// Files that were written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rewritten {
    /// Those that stand for the inputs.
    pub(crate) files: Vec<FileRow>,
    /// Those of rows that end.
    pub(crate) ended: Vec<FileRow>,
}

/// Writes files out of others; nothing names them yet.
pub(crate) async fn rewrite(
    ground: &Ground,
    rewrite: &Rewrite,
    throttle: &Throttle,
) -> Result<Rewritten, Error> {
    let mut work = Work::new(rewrite)?;
    let mut readers: Vec<Option<FileReader>> = (0..work.chains.len()).map(|_| None).collect();
    let mut written = Rewritten::default();
    loop {
        let run = tokio::task::spawn_blocking(move || {
            let outcome = work.run();
            (work, outcome)
        });
        let (back, outcome) = run.await.map_err(|_| Error::Closed)?;
        work = back;
        match outcome? {
            Outcome::Wants(wants) => {
                let asked = wants.into_iter().map(|want| {
                    let reader = readers.get_mut(want.chain()).and_then(Option::take);
                    answer(ground, want, reader, throttle)
                });
                for (chain, reader, given) in try_join_all(asked).await? {
                    readers[chain] = Some(reader);
                    work.given.push((chain, given));
                }
            }
            Outcome::File(file) => {
                written.files.push(put(ground, rewrite, *file, throttle).await?);
            }
            Outcome::Ended(file) => {
                written.ended.push(put(ground, rewrite, *file, throttle).await?);
            }
            Outcome::Done => break,
        }
    }
    if !matches!(rewrite.purpose, Purpose::Copy(_)) {
        check(rewrite, &written)?;
    }
    Ok(written)
}

/// Makes the request that a chain wants.
async fn answer(
    ground: &Ground,
    want: Want,
    reader: Option<FileReader>,
    throttle: &Throttle,
) -> Result<(usize, FileReader, Given), Error> {
    match (want, reader) {
        (Want::Open(chain, file), _) => {
            let reader = ground.files.reader(file);
            let footer = reader.footer().await?;
            Ok((chain, reader, Given::Opened(footer.metadata)))
        }
        (Want::Fetch(chain, ranges), Some(mut reader)) => {
            let bytes = reader.ranges(ranges.clone()).await?;
            throttle.spend(bytes.iter().map(|bytes| bytes.len() as u64).sum()).await;
            Ok((chain, reader, Given::Fetched(ranges, bytes)))
        }
        (Want::Fetch(..), None) => Err(Error::Closed),
    }
}

async fn put(
    ground: &Ground,
    rewrite: &Rewrite,
    file: EncodedFile,
    throttle: &Throttle,
) -> Result<FileRow, Error> {
    let id = FileId::random(ground.env.randomness.as_ref());
    let row = file.row(id, &rewrite.path, rewrite.node);
    ground.put_file(&row, file).await?;
    throttle.spend(row.size).await;
    Ok(row)
}

/// What goes out must be what came in: rows, event times, versions.
fn check(rewrite: &Rewrite, written: &Rewritten) -> Result<(), Error> {
    let outputs = || written.files.iter().chain(&written.ended);
    let fail = |reason: String| Err(Error::Compaction { path: rewrite.path.clone(), reason });
    let rows_in: u64 = rewrite.inputs.iter().map(|file| file.rows).sum();
    let rows_out: u64 = outputs().map(|file| file.rows).sum();
    if rows_in != rows_out {
        return fail(format!("{rows_in} rows went in and {rows_out} came out"));
    }
    let range = |a: TimeRange, b: TimeRange| a.union(&b);
    let times_in = rewrite.inputs.iter().map(|file| file.range).reduce(range);
    let times_out = outputs().map(|file| file.range).reduce(range);
    if times_in != times_out {
        return fail(format!("event times {times_in:?} went in and {times_out:?} came out"));
    }
    let versions_in = rewrite.inputs.iter().map(|file| (file.min_version, file.max_version));
    let versions_out = outputs().map(|file| (file.min_version, file.max_version));
    let span = |a: (_, _), b: (_, _)| (std::cmp::min(a.0, b.0), std::cmp::max(a.1, b.1));
    let (versions_in, versions_out) = (versions_in.reduce(span), versions_out.reduce(span));
    if versions_in != versions_out {
        return fail(format!("versions {versions_in:?} went in and {versions_out:?} came out"));
    }
    Ok(())
}

/// What a chain wants.
enum Want {
    Open(usize, Arc<FileRow>),
    Fetch(usize, Vec<Range<u64>>),
}

impl Want {
    const fn chain(&self) -> usize {
        match self {
            Self::Open(chain, _) | Self::Fetch(chain, _) => *chain,
        }
    }
}

/// What it was given.
enum Given {
    Opened(Arc<ParquetMetaData>),
    Fetched(Vec<Range<u64>>, Vec<Bytes>),
}

/// Why the work has stopped.
enum Outcome {
    Wants(Vec<Want>),
    File(Box<EncodedFile>),
    /// A file of rows that end.
    Ended(Box<EncodedFile>),
    Done,
}

/// Decoding, merging and encoding.
struct Work {
    path: TreePath,
    chains: Vec<Chain>,
    given: Vec<(usize, Given)>,
    merger: Merger,
    /// Rows of a deduplicated series that stand are told apart, and those that were replaced set aside.
    replaced: Option<(Replaced, Output)>,
    /// Some of the rows that stand end.
    ending: Option<(Ending, Output)>,
    /// Of rows that are copied, which.
    earlier: Option<Earlier>,
    output: Output,
    is_done: bool,
}

impl Work {
    fn new(rewrite: &Rewrite) -> Result<Self, Error> {
        let Rewrite { path, schema, inputs, purpose, .. } = rewrite;
        let is_superseded = inputs.iter().any(|file| file.until.is_some());
        let is_copy = matches!(purpose, Purpose::Copy(_));
        let columns = match is_superseded || is_copy {
            true => schema.superseded_columns(),
            false => schema.stored_columns(),
        };
        let version = schema.columns().fields().len();
        let batch_rows = batch_rows(inputs, columns.fields().len());
        let wanted = Wanted { columns: Arc::clone(&columns), version, places: None, batch_rows };
        let chains: Vec<Chain> =
            chains(inputs).into_iter().map(|files| Chain::new(files, wanted.clone())).collect();
        let spec = MergeSpec::new(Arc::clone(&columns), schema.time_index())
            .with_keys(schema.keys().to_vec())
            .with_version(version)
            .with_batch_rows(batch_rows);
        let merger = Merger::try_new(spec, chains.len()).map_err(|error| broken(path, &error))?;
        let shape = shape(rewrite, if is_copy { schema.stored_columns() } else { columns });
        let sets_aside = match purpose {
            Purpose::Merge => schema.dedup() && !is_superseded,
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
        Ok(Self {
            path: path.clone(),
            chains,
            given: Vec::new(),
            merger,
            replaced,
            ending,
            earlier,
            output: Output::new(shape),
            is_done: false,
        })
    }

    /// Works on until something is wanted or complete.
    fn run(&mut self) -> Result<Outcome, Error> {
        for (chain, given) in std::mem::take(&mut self.given) {
            match given {
                Given::Opened(metadata) => self.chains[chain].opened(metadata)?,
                Given::Fetched(ranges, bytes) => self.chains[chain].fetched(ranges, bytes)?,
            }
        }
        loop {
            if let Some(file) = self.take_ready() {
                return Ok(file);
            }
            if self.is_done {
                return Ok(Outcome::Done);
            }
            match self.merger.step().map_err(|error| broken(&self.path, &error))? {
                Step::NeedInput(_) => {
                    let wants = self.feed()?;
                    if !wants.is_empty() {
                        return Ok(Outcome::Wants(wants));
                    }
                }
                Step::Batch(rows) => self.take(rows)?,
                Step::Done => self.finish()?,
            }
        }
    }

    fn take_ready(&mut self) -> Option<Outcome> {
        let ended = self.ending.as_mut().and_then(|(_, output)| output.take_ready());
        if let Some(file) = ended {
            return Some(Outcome::Ended(Box::new(file)));
        }
        let replaced = self.replaced.as_mut().and_then(|(_, output)| output.take_ready());
        let file = replaced.or_else(|| self.output.take_ready())?;
        Some(Outcome::File(Box::new(file)))
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

    fn take(&mut self, rows: RecordBatch) -> Result<(), Error> {
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

    fn finish(&mut self) -> Result<(), Error> {
        if let Some((replaced, _)) = &mut self.replaced
            && let Some(apart) = replaced.finish()?
        {
            self.take_apart(apart)?;
        }
        if let Some((_, set_aside)) = &mut self.replaced {
            set_aside.finish()?;
        }
        if let Some((_, ended)) = &mut self.ending {
            ended.finish()?;
        }
        self.output.finish()?;
        self.is_done = true;
        Ok(())
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
fn batch_rows(files: &[Arc<FileRow>], columns: usize) -> usize {
    let (bytes, rows) =
        files.iter().fold((0, 0), |(bytes, rows), file| (bytes + file.size, rows + file.rows));
    let stored = usize::try_from(bytes / rows.max(1)).unwrap_or(usize::MAX);
    let row_bytes = stored.saturating_mul(2).max(columns * VALUE_BYTES);
    (BATCH_BYTES / row_bytes.max(1)).clamp(BATCH_ROWS_MIN, BATCH_ROWS_MAX)
}

fn shape(rewrite: &Rewrite, columns: arrow::datatypes::SchemaRef) -> Shape {
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

fn broken(path: &TreePath, error: &tidelog_merge::Error) -> Error {
    Error::Compaction { path: path.clone(), reason: error.to_string() }
}
