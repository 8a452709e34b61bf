//! The same rows from files, where the backend does not answer.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::rules::with_input;
use crate::scan::files::ScanFile;
use crate::scan::source::SeriesSource;

/// What of a plan was moved to the warm tier, as it was.
#[derive(Debug, Clone)]
pub(super) struct Cold {
    source: SeriesSource,
    /// What stood above the scan and was moved, from the top.
    above: Vec<Arc<dyn ExecutionPlan>>,
}

impl Cold {
    pub(super) fn new(source: SeriesSource, above: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        Self { source, above }
    }

    pub(super) fn source(&self) -> &SeriesSource {
        &self.source
    }

    /// What the moved part of the plan makes of the rows of some files, or of those from the first
    /// to the last of some times.
    pub(super) fn open(
        &self,
        files: Vec<ScanFile>,
        times: Option<(i64, i64)>,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let source = self.source.with_files(files)?;
        let scan = match times {
            None => source.into_exec(),
            Some((first, last)) => match source.between(first, last)? {
                Some(source) => source.into_exec(),
                None => Arc::new(EmptyExec::new(self.source.projected_schema()?)),
            },
        };
        let plan = with_input(scan, &self.above)?;
        match plan.output_partitioning().partition_count() {
            1 => plan.execute(0, context),
            _ => CoalescePartitionsExec::new(plan).execute(0, context),
        }
    }
}

/// A plan that is like `node` over another input.
pub(super) fn over(
    node: &Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(node).replace_children(vec![input], options)
}
