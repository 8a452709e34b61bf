//! Takes merges of a single partition out of plans.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Removes merges of one partition.
#[derive(Debug)]
pub(super) struct OneStream;

impl PhysicalOptimizerRule for OneStream {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let is_merge =
                node.is::<SortPreservingMergeExec>() || node.is::<CoalescePartitionsExec>();
            let child = match node.children().as_slice() {
                [child] if is_merge => Arc::clone(child),
                _ => return Ok(Transformed::no(node)),
            };
            if child.output_partitioning().partition_count() != 1 {
                return Ok(Transformed::no(node));
            }
            match node.fetch() {
                None => Ok(Transformed::yes(child)),
                Some(fetch) => match child.with_fetch(Some(fetch)) {
                    Some(limited) => Ok(Transformed::yes(limited)),
                    None => Ok(Transformed::no(node)),
                },
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "OneStream"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
