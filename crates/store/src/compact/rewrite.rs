//! Files merged into others, in bounded memory.
//!
//! ```text
//! files ─ chains without overlap ─ decode ┐
//!                                  decode ┼ merge ─ told apart, if deduplicated ─ cut ─ encode ─▶ files
//!                                  decode ┘
//!         └──── requests: async ────┘└────────────── work: on a thread of its own ─────────────┘
//! ```
//!
//! A change of data rewrites files in the same way: its rows are told apart once more, into those that
//! stay and those that end, or are copied as they stood at an earlier version.
//!
//! The work says which bytes it wants and hands over files that are complete; requests are made between.
//! Every page is checked against the log before it is decoded.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::try_join_all;
use tidelog_core::{FileId, NodeId, TimeRange, TreePath};
use tidelog_oplog::{FileOrder, FileRow};

use super::ending::{Earlier, Ending};
use super::output::Written;
use super::plan::Job;
use super::sliced::SlicedWork;
use super::throttle::Throttle;
use super::work::{Given, Outcome, TimeWork, Want};
use super::worker::Worker;
use crate::engine::Ground;
use crate::error::Error;
use crate::file_reader::FileReader;
use crate::right_of_way::RightOfWay;
use crate::series_schema::SeriesSchema;
use crate::warm::Ahead;

/// Files of one series to be written anew.
#[derive(Debug, Clone)]
pub(crate) struct Rewrite {
    pub(crate) path: TreePath,
    pub(crate) node: NodeId,
    pub(crate) schema: SeriesSchema,
    /// All of rows that stand, or all of rows that have ended; to copy rows, either.
    pub(crate) inputs: Vec<Arc<FileRow>>,
    pub(crate) job: Job,
    /// Bytes of rows that may wait in memory to be brought into another order.
    pub(crate) sort_bytes: usize,
    pub(crate) purpose: Purpose,
    /// Takes segments of the files that are written, if they are to be warm.
    pub(crate) warm: Option<Ahead>,
    /// Reads that are to pass first, unless somebody waits for the files.
    pub(crate) way: Option<RightOfWay>,
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

impl Rewrite {
    /// Whether the rows have ended.
    pub(super) fn is_superseded(&self) -> bool {
        self.inputs.iter().any(|file| file.until.is_some())
    }

    /// Whether rows are copied as they stood.
    pub(super) const fn is_copy(&self) -> bool {
        matches!(self.purpose, Purpose::Copy(_))
    }

    /// The columns of the inputs.
    pub(super) fn columns(&self) -> SchemaRef {
        match self.is_superseded() || self.is_copy() {
            true => self.schema.superseded_columns(),
            false => self.schema.stored_columns(),
        }
    }

    /// Whether rows have to be brought into another order than that of event time, or out of it.
    pub(crate) fn is_by_key(&self) -> bool {
        is_by_key(&self.schema, &self.inputs)
    }
}

/// The same of files of a series that are written anew.
pub(super) fn is_by_key(schema: &SeriesSchema, inputs: &[Arc<FileRow>]) -> bool {
    schema.layout().order == FileOrder::KeyTime
        || inputs.iter().any(|file| file.order == FileOrder::KeyTime)
}

/// Writes files out of others; nothing names them yet.
pub(crate) async fn rewrite(
    ground: &Ground,
    rewrite: &Rewrite,
    throttle: &Throttle,
) -> Result<Rewritten, Error> {
    let mut work = Work::new(rewrite)?;
    let worker = Worker::start()?;
    let mut readers: HashMap<usize, FileReader> = HashMap::new();
    let mut written = Rewritten::default();
    loop {
        let run = worker.run(move || {
            let outcome = work.run();
            (work, outcome)
        });
        let (back, outcome) = run.await?;
        work = back;
        match outcome? {
            Outcome::Wants(wants) => {
                let asked = wants.into_iter().map(|want| {
                    let reader = readers.remove(&want.chain());
                    answer(ground, want, reader, throttle)
                });
                for (chain, reader, given) in try_join_all(asked).await? {
                    readers.insert(chain, reader);
                    work.give(chain, given);
                }
            }
            Outcome::File(file) => {
                let (file, memory) = put(ground, rewrite, *file, throttle).await?;
                written.files.push(file);
                work.give_back(memory);
            }
            Outcome::Ended(file) => {
                written.ended.push(put(ground, rewrite, *file, throttle).await?.0);
            }
            Outcome::Done => break,
        }
    }
    if !rewrite.is_copy() {
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
            let reader = ground.files.reader(file).in_passing();
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

/// Puts a file; the memory that it lay in, if it is free again.
async fn put(
    ground: &Ground,
    rewrite: &Rewrite,
    Written { file, kept }: Written,
    throttle: &Throttle,
) -> Result<(FileRow, Option<Vec<u8>>), Error> {
    let id = FileId::random(ground.env.randomness.as_ref());
    let row = file.row(id, &rewrite.path, rewrite.node);
    if let (Some(warm), Some(kept)) = (&rewrite.warm, kept) {
        warm.seal_kept(&rewrite.schema, &row, kept).await;
    }
    let memory = ground.put_instead_of(&rewrite.inputs, &row, file).await?;
    throttle.spend(row.size).await;
    Ok((row, memory))
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

/// Decoding, merging and encoding.
enum Work {
    /// All files are in order of event time, and so is what is written.
    InTime(Box<TimeWork>),
    /// Some are ordered by key.
    Sliced(Box<SlicedWork>),
}

impl Work {
    fn new(rewrite: &Rewrite) -> Result<Self, Error> {
        Ok(match rewrite.is_by_key() {
            true => Self::Sliced(Box::new(SlicedWork::new(rewrite)?)),
            false => Self::InTime(Box::new(TimeWork::new(rewrite)?)),
        })
    }

    fn give(&mut self, chain: usize, given: Given) {
        match self {
            Self::InTime(work) => work.give(chain, given),
            Self::Sliced(work) => work.give(chain, given),
        }
    }

    /// The next file lies where one lay that has been put: what an allocator is given back it may keep, and
    /// two files' worth of memory is too much.
    fn give_back(&mut self, memory: Option<Vec<u8>>) {
        let Some(memory) = memory else { return };
        match self {
            Self::InTime(work) => work.give_back(memory),
            Self::Sliced(work) => work.give_back(memory),
        }
    }

    /// Works on until something is wanted or complete.
    fn run(&mut self) -> Result<Outcome, Error> {
        match self {
            Self::InTime(work) => work.run(),
            Self::Sliced(work) => work.run(),
        }
    }
}
