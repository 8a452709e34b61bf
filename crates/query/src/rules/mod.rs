//! Physical rules that know how series lie.
//!
//! - [`CoveredAggregates`]: of an aggregate that counts rows or takes the extremes of time over a
//!   range of time, the files that the range covers are answered from the log; only the files that
//!   it cuts are opened.
//! - [`WarmPushDown`]: what files in the warm tier can answer is asked there.
//! - [`NewestOfKeys`]: below an aggregate that wants only the newest rows of each key, the scan
//!   leaves out rows that cannot be among them.
//! - [`OneStream`]: a merge or coalescing of a single partition is nothing, and goes.

mod covered;
mod newest_of_keys;
mod one_stream;

use std::sync::Arc;

use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;

use self::covered::CoveredAggregates;
use self::newest_of_keys::NewestOfKeys;
pub(crate) use self::newest_of_keys::wants_newest;
use self::one_stream::OneStream;
use crate::scan::source::SeriesSource;
use crate::warm::WarmPushDown;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's rules with ours among them; [`NewestOfKeys`] only if rows are pruned by keys.
pub(crate) fn all(key_pruning: bool) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut filtered = false;
    for rule in PhysicalOptimizer::new().rules {
        let name = rule.name().to_owned();
        if name == "SanityCheckPlan" {
            rules.push(Arc::new(OneStream));
        }
        rules.push(rule);
        // Filters must have gone down, and partial and final aggregates still be apart.
        if name == "FilterPushdown" && !filtered {
            filtered = true;
            rules.push(Arc::new(CoveredAggregates));
            rules.push(Arc::new(WarmPushDown));
            if key_pruning {
                rules.push(Arc::new(NewestOfKeys));
            }
        }
    }
    rules
}

/// The plan with each aggregate replaced by what `rewrite` makes of it, if anything.
fn rewrite_aggregates(
    plan: Arc<dyn ExecutionPlan>,
    rewrite: impl Fn(&Arc<dyn ExecutionPlan>, &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| {
        let rewritten = match node.downcast_ref::<AggregateExec>() {
            Some(aggregate) => rewrite(&node, aggregate)?,
            None => None,
        };
        Ok(rewritten.map_or_else(|| Transformed::no(node), Transformed::yes))
    })
    .data()
}

/// The series scan below plain projections, and those projections from the top.
fn scan_below(
    plan: &Arc<dyn ExecutionPlan>,
) -> Option<(SeriesSource, Vec<Arc<dyn ExecutionPlan>>)> {
    scan_of(plan).filter(|(_, between)| between.iter().all(is_plain))
}

fn is_plain(node: &Arc<dyn ExecutionPlan>) -> bool {
    let projection = node.downcast_ref::<ProjectionExec>();
    projection.is_some_and(|node| node.expr().iter().all(|expr| expr.expr.is::<Column>()))
}

/// The series scan below projections, and those projections from the top.
pub(crate) fn scan_of(
    plan: &Arc<dyn ExecutionPlan>,
) -> Option<(SeriesSource, Vec<Arc<dyn ExecutionPlan>>)> {
    let mut between = Vec::new();
    let mut node = Arc::clone(plan);
    loop {
        if let Some(exec) = node.downcast_ref::<DataSourceExec>() {
            let source = exec.data_source().downcast_ref::<SeriesSource>()?.clone();
            return Some((source, between));
        }
        let child = Arc::clone(node.downcast_ref::<ProjectionExec>()?.input());
        between.push(node);
        node = child;
    }
}

/// Another input below nodes that are given from the top, such as [`scan_of`] finds.
pub(crate) fn with_input(
    input: Arc<dyn ExecutionPlan>,
    above: &[Arc<dyn ExecutionPlan>],
) -> Result<Arc<dyn ExecutionPlan>> {
    above.iter().rev().try_fold(input, |input, node| {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Arc::clone(node).replace_children(vec![input], options)
    })
}
