//! Requests, answered on a lane.
//!
//! Each operation goes over the spans of all segments, in order. Where a kernel's result is needed to go on,
//! the host waits for it; all else is left to the stream. Partial results of spans are put together here.

mod aggregate;
mod fetch;
mod filter;
mod groups;
mod last;
mod top_k;

use std::sync::Arc;

use tidelog_warm::{
    Answer, Bound, Op, Output, Request, Segment, SegmentPlan, WarmError, WarmTable, Work,
};

use crate::device::Device;
use crate::lane::Lane;
use crate::segment::Held;
use crate::span::{Span, spans};

/// A segment that a request is about.
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) held: Arc<Held>,
    /// None if no row can match.
    pub(crate) plan: Option<SegmentPlan>,
}

/// A request that is being answered.
pub(crate) struct Run<'a> {
    pub(crate) table: &'a WarmTable,
    pub(crate) request: &'a Request,
    pub(crate) bound: Bound,
    pub(crate) parts: Vec<Part>,
    pub(crate) work: Work,
}

impl<'a> Run<'a> {
    /// Binds a request, and keeps its segments from being freed.
    pub(crate) fn try_new(
        device: &Arc<Device>,
        table: &'a WarmTable,
        segments: &[Arc<Segment>],
        request: &'a Request,
    ) -> Result<Self, WarmError> {
        let bound = Bound::try_new(table, segments, request)?;
        let mut work = Work::default();
        let mut parts = Vec::with_capacity(segments.len());
        for segment in segments {
            let held = Held::of(segment, device)?;
            let plan = bound.plan(segment);
            match plan {
                Some(_) => work.segments_read += 1,
                None => work.segments_skipped += 1,
            }
            parts.push(Part { segment: Arc::clone(segment), held, plan });
        }
        Ok(Self { table, request, bound, parts, work })
    }

    /// Answers the request.
    pub(crate) fn answer(&mut self, lane: &mut Lane) -> Result<Answer, WarmError> {
        let request = self.request;
        let output = match &request.op {
            Op::Count => Output::Count(self.count(lane)?),
            Op::Fetch { columns, order, limit } => {
                Output::Rows(self.fetch(lane, columns, *order, *limit)?)
            }
            Op::Aggregate { group, aggregates } => {
                Output::Partial(self.aggregate(lane, group, aggregates)?)
            }
            Op::TopK { order, k, columns } => Output::Rows(self.top_k(lane, order, *k, columns)?),
            Op::LastPerKey { columns, .. } => Output::Rows(self.last_per_key(lane, columns)?),
        };
        Ok(Answer { output, work: self.work })
    }

    /// Does something with each span, until it says that it is enough.
    fn for_spans(
        &mut self,
        lane: &mut Lane,
        mut with: impl FnMut(&mut Lane, &Part, usize, &Span, &mut Work) -> Result<Enough, WarmError>,
    ) -> Result<(), WarmError> {
        let Self { parts, bound, request, work, .. } = self;
        for (number, part) in parts.iter().enumerate() {
            request.check_cancel()?;
            let Some(plan) = &part.plan else { continue };
            lane.stream.wait_for(&part.held.ready)?;
            for span in spans(lane, &part.segment, &part.held, bound, plan)? {
                work.rows_read += u64::from(span.len());
                let mark = lane.mark();
                let enough = with(lane, part, number, &span, work)?;
                lane.back_to(mark);
                if enough == Enough::Yes {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Whether further spans can change the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enough {
    Yes,
    No,
}
