//! Tells a scan that the aggregate above it wants only the newest rows of each key.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;

use super::{rewrite_aggregates, scan_below, with_input};

/// Leaves rows out of a scan that are not the newest of their key, where only those are wanted:
/// `DISTINCT ON (key) … ORDER BY key, time DESC`, `last_value(x ORDER BY time)` and `max(time)`
/// by keys that are plain columns.
///
/// The aggregate itself stays as it is, so that what it makes of ties and nulls does not change.
#[derive(Debug)]
pub(super) struct NewestOfKeys;

impl PhysicalOptimizerRule for NewestOfKeys {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        rewrite_aggregates(plan, newest_only)
    }

    fn name(&self) -> &str {
        "NewestOfKeys"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn newest_only(
    node: &Arc<dyn ExecutionPlan>,
    aggregate: &AggregateExec,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let groups = aggregate.group_expr();
    let plain = aggregate.mode().input_mode() == AggregateInputMode::Raw
        && groups.is_single()
        && !groups.is_empty()
        && !aggregate.aggr_expr().is_empty()
        && aggregate.filter_expr().iter().all(Option::is_none);
    let Some((source, between)) = scan_below(aggregate.input()).filter(|_| plain) else {
        return Ok(None);
    };
    let column = |expr: &Arc<dyn PhysicalExpr>| {
        let below = between.iter().try_fold(Arc::clone(expr), |expr, node| {
            let projection = node.downcast_ref::<ProjectionExec>()?;
            let index = expr.downcast_ref::<Column>()?.index();
            Some(Arc::clone(&projection.expr().get(index)?.expr))
        })?;
        source.table_column(&below)
    };
    let keys = groups.expr().iter().map(|(expr, _)| column(expr)).collect::<Option<Vec<_>>>();
    let time = source.facts().roles.time.as_ref().map(|time| time.name.clone());
    let (Some(keys), Some(time)) = (keys, time) else { return Ok(None) };
    let wanted = |expr: &Arc<AggregateFunctionExpr>| wants_newest(expr, &keys, &time, &column);
    if !aggregate.aggr_expr().iter().all(wanted) {
        return Ok(None);
    }
    let Some(newest) = source.newest_of(keys) else { return Ok(None) };
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let input = with_input(newest.into_exec(), &between)?;
    Arc::clone(node).replace_children(vec![input], options).map(Some)
}

/// Whether only rows with the newest time of a key matter to an aggregate by keys.
pub(crate) fn wants_newest(
    expr: &AggregateFunctionExpr,
    keys: &[String],
    time: &str,
    column: &impl Fn(&Arc<dyn PhysicalExpr>) -> Option<String>,
) -> bool {
    let is_time = |expr: &Arc<dyn PhysicalExpr>| column(expr).as_deref() == Some(time);
    // Keys are the same within a group, so the first other column leads its order.
    let leads = |descending: bool| {
        let is_key = |sort: &&PhysicalSortExpr| {
            column(&sort.expr).is_some_and(|column| keys.contains(&column))
        };
        let leader = expr.order_bys().iter().find(|sort| !is_key(sort));
        leader.is_some_and(|sort| sort.options.descending == descending && is_time(&sort.expr))
    };
    if expr.is_distinct() || expr.ignore_nulls() {
        return false;
    }
    match expr.fun().name() {
        "max" => expr.expressions().iter().all(is_time),
        "first_value" => leads(true),
        "last_value" => leads(false),
        _ => false,
    }
}
