//! Answers aggregates over time from the log, as far as a range of time covers files whole. A piece
//! in memory has the log row that a file of it would have, and is answered from that.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::config::ConfigOptions;
use datafusion::datasource::physical_plan::FileSource;
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::union::UnionExec;
use datafusion::scalar::ScalarValue;

use super::{rewrite_aggregates, scan_below, with_input};
use crate::scan::files::ScanFile;
use crate::scan::source::SeriesSource;

/// Answers covered files of an aggregate from the log.
#[derive(Debug)]
pub(super) struct CoveredAggregates;

impl PhysicalOptimizerRule for CoveredAggregates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        rewrite_aggregates(plan, |_, aggregate| answer_covered(aggregate))
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
    let input = with_input(source.with_files(cut)?.into_exec(), &between)?;
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
