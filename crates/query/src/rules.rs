//! Physical rules that know how series lie.
//!
//! - [`CoveredAggregates`]: of an aggregate that counts rows or takes the extremes of time over a
//!   range of time, the files that the range covers are answered from the log; only the files that
//!   it cuts are opened.
//! - [`OneStream`]: a merge or coalescing of a single partition is nothing, and goes.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::FileSource;
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::scalar::ScalarValue;

use crate::scan::files::ScanFile;
use crate::scan::source::SeriesSource;

/// DataFusion's rules with ours among them.
pub(crate) fn all() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = Vec::new();
    let mut covered = false;
    for rule in PhysicalOptimizer::new().rules {
        let name = rule.name().to_owned();
        if name == "SanityCheckPlan" {
            rules.push(Arc::new(OneStream) as Arc<dyn PhysicalOptimizerRule + Send + Sync>);
        }
        rules.push(rule);
        // Filters must have gone down, and partial and final aggregates still be apart.
        if name == "FilterPushdown" && !covered {
            covered = true;
            rules.push(Arc::new(CoveredAggregates));
        }
    }
    rules
}

/// Removes merges of one partition.
#[derive(Debug)]
struct OneStream;

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

/// Answers covered files of an aggregate from the log.
#[derive(Debug)]
struct CoveredAggregates;

impl PhysicalOptimizerRule for CoveredAggregates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let rewritten = match node.downcast_ref::<AggregateExec>() {
                Some(aggregate) => answer_covered(aggregate)?,
                None => None,
            };
            Ok(rewritten.map_or_else(|| Transformed::no(node), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &str {
        "CoveredAggregates"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What an aggregate asks of the covered files.
enum Question {
    Rows,
    Earliest,
    Latest,
}

fn answer_covered(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let plain = *aggregate.mode() == AggregateMode::Partial
        && aggregate.group_expr().is_empty()
        && aggregate.filter_expr().iter().all(Option::is_none);
    let Some((source, between)) = scan_below(aggregate.input()).filter(|_| plain) else {
        return Ok(None);
    };
    let Some(time) = source.facts().roles.time.clone() else { return Ok(None) };
    let questions = aggregate.aggr_expr().iter().map(|expr| question(expr, &time.name));
    let Some(questions) = questions.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let only_cut = source.is_parallel() && source.predicate().is_none();
    let Some(range) = source.cut().filter(|_| only_cut).map(|cut| cut.range) else {
        return Ok(None);
    };
    let files = source.facts().by_time.iter().cloned();
    let (covered, cut): (Vec<_>, Vec<_>) = files.partition(|file| range.covers(&file.range()));
    if covered.is_empty() {
        return Ok(None);
    }
    let Some(answer) = state(aggregate, &questions, &covered, &source, &time.name)? else {
        return Ok(None);
    };
    if cut.is_empty() {
        return Ok(Some(answer));
    }
    let mut input = source.with_files(cut)?.into_exec();
    for node in between.into_iter().rev() {
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        input = node.replace_children(vec![input], options)?;
    }
    let opened = AggregateExec::try_new(
        AggregateMode::Partial,
        aggregate.group_expr().clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        input,
        aggregate.input_schema(),
    )?;
    Ok(Some(UnionExec::try_new(vec![Arc::new(opened), answer])?))
}

/// The series scan below plain projections, and those projections from the top.
fn scan_below(
    plan: &Arc<dyn ExecutionPlan>,
) -> Option<(SeriesSource, Vec<Arc<dyn ExecutionPlan>>)> {
    let mut between = Vec::new();
    let mut node = Arc::clone(plan);
    loop {
        if let Some(exec) = node.downcast_ref::<DataSourceExec>() {
            let source = exec.data_source().downcast_ref::<SeriesSource>()?.clone();
            return Some((source, between));
        }
        let projection = node.downcast_ref::<ProjectionExec>()?;
        if projection.expr().iter().any(|expr| !expr.expr.is::<Column>()) {
            return None;
        }
        let child = Arc::clone(projection.input());
        between.push(node);
        node = child;
    }
}

fn question(expr: &AggregateFunctionExpr, time: &str) -> Option<Question> {
    if expr.is_distinct() {
        return None;
    }
    let args = expr.expressions();
    let [arg] = args.as_slice() else { return None };
    let of_time = arg.downcast_ref::<Column>().is_some_and(|column| column.name() == time);
    let constant = arg.downcast_ref::<Literal>().is_some_and(|l| !l.value().is_null());
    match expr.fun().name() {
        "count" if of_time || constant => Some(Question::Rows),
        "min" if of_time => Some(Question::Earliest),
        "max" if of_time => Some(Question::Latest),
        _ => None,
    }
}

/// The partial state of the aggregates over the covered files, as one row in memory.
fn state(
    aggregate: &AggregateExec,
    questions: &[Question],
    covered: &[ScanFile],
    source: &SeriesSource,
    time: &str,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let schema = aggregate.schema();
    if schema.fields().len() != questions.len() {
        return Ok(None);
    }
    let table = source.facts().template.table_schema().file_schema();
    let column = table.index_of(time)?;
    let bound = |file: &ScanFile, latest: bool| -> Option<ScalarValue> {
        let stats = &file.file.statistics.as_ref()?.column_statistics[column];
        let bound = if latest { &stats.max_value } else { &stats.min_value };
        bound.get_value().cloned()
    };
    let extreme = |latest: bool| {
        let bounds = covered.iter().map(|file| bound(file, latest)).collect::<Option<Vec<_>>>()?;
        bounds.into_iter().reduce(|a, b| {
            let keep = if latest { a >= b } else { a <= b };
            if keep { a } else { b }
        })
    };
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(questions.len());
    for (question, field) in questions.iter().zip(schema.fields()) {
        let value = match question {
            Question::Rows => {
                let rows: u64 = covered.iter().map(|file| file.row.rows).sum();
                i64::try_from(rows).ok().map(|rows| ScalarValue::Int64(Some(rows)))
            }
            Question::Earliest => extreme(false),
            Question::Latest => extreme(true),
        };
        let Some(value) = value.filter(|v| v.data_type() == *field.data_type()) else {
            return Ok(None);
        };
        arrays.push(value.to_array()?);
    }
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Some(MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?))
}
