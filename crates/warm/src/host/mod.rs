//! The backend in host memory: arrays in physical types, sorted.
//!
//! ```text
//!  segment ─ plan ─▶ runs of keys ─ times, by binary search ─▶ spans ─ 1,024 rows each ─▶ pieces
//!                                                                  filter ─▶ a byte per row
//!  pieces ─▶ count │ states of groups │ picked rows ─ gather ─▶ answer
//! ```
//!
//! Parts: `seal` (batches to arrays), `scan` (which rows of a segment), `mask` (a filter over some
//! rows), `aggregate` with `slots` (groups) and `state` (what is said of them) over `fold` (values to one
//! number), `rows` (rows picked), `top_k`, `last`.
//!
//! All on the thread of the caller, in one order: so sums of floats come out the same each time.

mod aggregate;
mod fold;
mod last;
mod mask;
mod rows;
mod scan;
mod seal;
mod slots;
mod state;
#[cfg(test)]
mod tests;
mod top_k;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::ScalarBuffer;

use crate::answer::{Answer, Output, Work};
use crate::backend::WarmBackend;
use crate::bound::{Bound, SegmentPlan};
use crate::error::{Invalid, WarmError};
use crate::ledger::{BackendStats, Ledger, Reservation, SharedMemory};
use crate::request::{Op, Request};
use crate::segment::Segment;
use crate::table::{KeyDirectory, WarmTable};

/// Segments in host memory.
#[derive(Debug)]
pub struct HostBackend {
    ledger: Ledger,
}

/// What this backend holds of a segment.
#[derive(Debug)]
struct HostData {
    /// The time of each row.
    times: ScalarBuffer<i64>,
    /// Of each column an array in its physical type, the times among them. None of keys and of columns that are
    /// left out.
    columns: Vec<Option<ArrayRef>>,
    /// The bytes of all this.
    _reservation: Reservation,
}

impl HostBackend {
    /// A backend whose segments take at most 95 % of so many bytes.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        Self { ledger: Ledger::new(budget_bytes) }
    }

    /// Takes what segments need of this memory, too. Default: the budget is the backend's alone.
    #[must_use]
    pub fn with_shared_memory(self, memory: Arc<dyn SharedMemory>) -> Self {
        Self { ledger: self.ledger.with_shared_memory(memory) }
    }

    fn answer(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        let bound = Bound::try_new(table, segments, request)?;
        let mut run = Run::try_new(table, segments, request, &bound)?;
        for segment in segments {
            self.ledger.touch(segment);
        }
        let output = match &request.op {
            Op::Count => Output::Count(run.count()?),
            Op::Fetch { columns, order, limit } => {
                Output::Rows(rows::fetch(&mut run, columns, *order, *limit)?)
            }
            Op::Aggregate { group, aggregates } => {
                Output::Partial(aggregate::aggregate(&mut run, group, aggregates)?)
            }
            Op::TopK { order, k, columns } => {
                Output::Rows(top_k::top_k(&mut run, order, *k, columns)?)
            }
            Op::LastPerKey { columns, .. } => {
                Output::Rows(last::last_per_key(&mut run, columns, bound.keys.as_deref())?)
            }
        };
        Ok(Answer { output, work: run.work })
    }
}

impl WarmBackend for HostBackend {
    fn seal(
        &self,
        table: &Arc<WarmTable>,
        batches: &[RecordBatch],
    ) -> Result<Arc<Segment>, WarmError> {
        let sealed = seal::seal(&self.ledger, table, batches);
        match &sealed {
            Ok(segment) => self.ledger.admit(segment),
            Err(error) => self.ledger.count_failure(error),
        }
        sealed
    }

    fn run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        self.ledger.count(self.answer(table, segments, request))
    }

    fn evict(&self, segment: &Segment) -> bool {
        self.ledger.evict(segment)
    }

    fn make_room(&self, bytes: u64) -> u64 {
        self.ledger.make_room(bytes)
    }

    fn stats(&self) -> BackendStats {
        self.ledger.stats("host", "host memory".to_owned(), None)
    }
}

/// A segment that a request is about.
struct Part {
    segment: Arc<Segment>,
    data: Arc<HostData>,
    /// None if no row can match.
    plan: Option<SegmentPlan>,
}

/// A request that is being answered.
struct Run<'a> {
    table: &'a WarmTable,
    request: &'a Request,
    directory: Arc<KeyDirectory>,
    parts: Vec<Part>,
    work: Work,
}

impl<'a> Run<'a> {
    fn try_new(
        table: &'a WarmTable,
        segments: &[Arc<Segment>],
        request: &'a Request,
        bound: &Bound,
    ) -> Result<Self, WarmError> {
        let mut work = Work::default();
        let mut parts = Vec::with_capacity(segments.len());
        for segment in segments {
            let data = segment
                .data()?
                .downcast::<HostData>()
                .map_err(|_| Invalid::ForeignSegment { segment: segment.id() })?;
            let plan = bound.plan(segment);
            match plan {
                Some(_) => work.segments_read += 1,
                None => work.segments_skipped += 1,
            }
            parts.push(Part { segment: Arc::clone(segment), data, plan });
        }
        Ok(Self { table, request, directory: table.keys(), parts, work })
    }

    fn count(&mut self) -> Result<u64, WarmError> {
        for number in 0..self.parts.len() {
            self.request.check_cancel()?;
            let part = &self.parts[number];
            scan::pieces(self.table, &self.directory, part, &mut self.work, |_| Ok(()))?;
        }
        Ok(self.work.rows_matched)
    }
}
