//! What a backend answers, and how much work it was.

use arrow::array::RecordBatch;

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked for.
    pub output: Output,
    /// What it took.
    pub work: Work,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub enum Output {
    /// How many rows there are.
    Count(u64),
    /// Rows with the columns asked for, as [`TableSpec::answer_field`](crate::TableSpec::answer_field)
    /// says, in batches of at most [`BATCH_ROWS`](crate::BATCH_ROWS). No batch where there is no row.
    Rows(Vec<RecordBatch>),
    /// One row for each group that has a row, each group once, in no promised order.
    ///
    /// First the columns of the group, in the order asked for and as
    /// [`TableSpec::answer_field`](crate::TableSpec::answer_field) says, then those of the states, as
    /// [`Function`](crate::Function) says. Without groups, one row always.
    Partial(RecordBatch),
}

/// How much work an answer was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Segments of which rows were looked at.
    pub segments_read: u64,
    /// Segments that could be left out by what is known of them.
    pub segments_skipped: u64,
    /// Rows that were looked at: those that neither key, nor time, nor statistics could leave out.
    pub rows_read: u64,
    /// Rows that were in the range and met the predicate.
    pub rows_matched: u64,
}
