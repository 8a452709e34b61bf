//! The trait of backends.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::answer::Answer;
use crate::error::WarmError;
use crate::ledger::BackendStats;
use crate::request::Request;
use crate::segment::Segment;
use crate::table::WarmTable;

/// Holds sorted segments, and answers requests about them.
///
/// An implementation binds each request with [`Bound`](crate::Bound), counts with
/// [`Ledger`](crate::Ledger), and passes the suite. It may be called from many threads
/// at a time, never panics on what it is given, and, once it has failed for good, answers every call
/// but `stats` and `evict` with [`WarmError::Dead`].
pub trait WarmBackend: fmt::Debug + Send + Sync {
    /// Brings batches of one table, in the order of their arrival, into a segment.
    ///
    /// Blocks. Batches without rows, or none at all, make a segment without rows. To make room, other
    /// segments may be evicted, of any table.
    ///
    /// # Errors
    ///
    /// Any [`WarmError`] but `Evicted` and `Cancelled`; then there is no segment.
    fn seal(
        &self,
        table: &Arc<WarmTable>,
        batches: &[RecordBatch],
    ) -> Result<Arc<Segment>, WarmError>;

    /// Answers a request about some segments of a table, in the order given. None at all is a table
    /// without rows.
    ///
    /// Blocks. A segment that is named twice counts twice.
    ///
    /// # Errors
    ///
    /// Any [`WarmError`]; `Evicted` if the rows of one of the segments are gone already.
    fn run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError>;

    /// Lets go of the rows of a segment, once the requests that read it now have ended; tells whether
    /// they were held. Does not block.
    fn evict(&self, segment: &Segment) -> bool;

    /// Lets go of segments that nobody reads, those not used for longest first, until so many bytes of
    /// the host's memory are free that were not; tells how many there are. Does not block.
    ///
    /// A backend whose segments lie elsewhere has none to give, which is the default.
    fn make_room(&self, bytes: u64) -> u64 {
        let _ = bytes;
        0
    }

    /// What the backend holds and has done. Does not block.
    fn stats(&self) -> BackendStats;
}
