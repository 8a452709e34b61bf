//! Rows of a read or a query, batch by batch. Nothing is collected: a batch is read when it is
//! polled for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use tidelog_core::TimeRange;
use tidelog_query::datafusion::physical_plan::ExecutionPlan;
use tidelog_query::session::QueryStream;

use crate::error::{Error, Result};

/// Rows of a series in order of event time, key, version and position in the append.
#[derive(Debug)]
pub struct SeriesStream {
    rows: QueryStream,
    total_versions: u64,
    time_range: Option<TimeRange>,
}

impl SeriesStream {
    pub(crate) fn new(
        rows: QueryStream,
        total_versions: u64,
        time_range: Option<TimeRange>,
    ) -> Self {
        Self { rows, total_versions, time_range }
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// How many visible versions have rows in the requested range, by the log.
    #[must_use]
    pub fn total_versions(&self) -> u64 {
        self.total_versions
    }

    /// The union of those versions' ranges within the requested one; `None` if there is no version.
    #[must_use]
    pub fn time_range(&self) -> Option<TimeRange> {
        self.time_range
    }

    /// The physical plan behind the rows, for its metrics.
    #[must_use]
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        self.rows.plan()
    }
}

impl Stream for SeriesStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.rows.poll_next_unpin(context);
        next.map(|next| next.map(|batch| batch.map_err(Error::from)))
    }
}

/// Rows of an SQL statement.
#[derive(Debug)]
pub struct SqlStream {
    rows: QueryStream,
}

impl SqlStream {
    pub(crate) fn new(rows: QueryStream) -> Self {
        Self { rows }
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// The physical plan behind the rows, for its metrics.
    #[must_use]
    pub fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        self.rows.plan()
    }
}

impl Stream for SqlStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.rows.poll_next_unpin(context);
        next.map(|next| next.map(|batch| batch.map_err(Error::from)))
    }
}
