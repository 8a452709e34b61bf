//! A backend of the warm tier in host memory, calls to which fail as asked.

use std::fmt;
use std::sync::Arc;

use tidelog::arrow::array::RecordBatch;
use tidelog_warm::{
    Answer, BackendStats, HostBackend, Request, Segment, WarmBackend, WarmError, WarmTable,
};

/// Which calls fail.
pub(crate) trait Failures: fmt::Debug + Send + Sync {
    fn seal(&self) -> Result<(), WarmError> {
        Ok(())
    }

    fn run(&self) -> Result<(), WarmError>;

    /// What the backend says of itself.
    fn stats(&self, host: BackendStats) -> BackendStats {
        host
    }
}

#[derive(Debug)]
pub(crate) struct FailingBackend<F> {
    pub(crate) host: Arc<HostBackend>,
    pub(crate) failures: F,
}

impl<F: Failures> WarmBackend for FailingBackend<F> {
    fn seal(
        &self,
        table: &Arc<WarmTable>,
        batches: &[RecordBatch],
    ) -> Result<Arc<Segment>, WarmError> {
        self.failures.seal()?;
        self.host.seal(table, batches)
    }

    fn run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        self.failures.run()?;
        self.host.run(table, segments, request)
    }

    fn evict(&self, segment: &Segment) -> bool {
        self.host.evict(segment)
    }

    fn stats(&self) -> BackendStats {
        self.failures.stats(self.host.stats())
    }
}
