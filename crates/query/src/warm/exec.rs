//! The node: rows, or what was asked of them, from segments of the warm tier.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use tidelog_warm::{Group, Op};

use super::cold::Cold;
use super::deal::{Call, deal};
use super::request::Question;
use super::stream::{Running, start};
use super::why_not::WhyNot;

/// What was moved, and what it is told of in plans.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub(super) questions: Vec<Question>,
    pub(super) cold: Cold,
    /// The columns of what was moved.
    pub(super) schema: SchemaRef,
    /// What is done with the rows.
    pub(super) operator: String,
    /// Why what stands above was not moved as well.
    pub(super) not_more: Option<WhyNot>,
    /// Whether what comes is finished: no rows of others are to be put together with it.
    pub(super) is_whole: bool,
}

/// Asks the warm tier, and files where that does not answer.
#[derive(Debug)]
pub(crate) struct WarmScanExec {
    pub(super) moved: Arc<Moved>,
    /// The calls of each partition.
    dealt: Vec<Vec<Call>>,
    properties: Arc<PlanProperties>,
    statistics: Arc<Statistics>,
    metrics: ExecutionPlanMetricsSet,
}

impl WarmScanExec {
    pub(super) fn new(moved: Moved) -> Self {
        let partitions = moved.cold.source().facts().partitions;
        let dealt = match moved.questions.first().map(|question| &question.request.op) {
            _ if moved.is_whole => deal(&moved.questions, 1),
            Some(Op::LastPerKey { .. }) => {
                // It is little work, and less the more segments are known. The partitions without
                // calls keep the plan from dealing out the few rows that come.
                let mut dealt = deal(&moved.questions, 1);
                dealt.resize(partitions.max(1), Vec::new());
                dealt
            }
            _ => deal(&moved.questions, partitions),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&moved.schema)),
            Partitioning::UnknownPartitioning(dealt.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            statistics: Arc::new(statistics(&moved)),
            moved: Arc::new(moved),
            dealt,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

/// How many rows come, as far as that is known.
fn statistics(moved: &Moved) -> Statistics {
    let unknown = Statistics::new_unknown(&moved.schema);
    let rows = |question: &Question| -> usize {
        question.held.files.iter().map(|warm| warm.segment.rows()).sum()
    };
    let all: usize = moved.questions.iter().map(rows).sum();
    let is_filtered =
        moved.cold.source().predicate().is_some() || moved.cold.source().cut().is_some();
    let rows = match moved.questions.first().map(|question| &question.request.op) {
        Some(Op::Fetch { .. }) => match moved.questions.first().and_then(|first| first.limit) {
            None if !is_filtered => Precision::Exact(all),
            limit => Precision::Inexact(limit.unwrap_or(all).min(all)),
        },
        Some(Op::TopK { k, .. }) => Precision::Inexact((*k).min(all)),
        Some(Op::LastPerKey { .. }) => {
            let keys = |question: &Question| question.held.table.keys().len();
            Precision::Inexact(moved.questions.iter().map(keys).sum())
        }
        Some(Op::Aggregate { group, .. }) if moved.is_whole => {
            Precision::Inexact(moved.questions.iter().map(|q| groups(q, group)).sum())
        }
        _ => Precision::Absent,
    };
    unknown.with_num_rows(rows)
}

/// How many groups there are at most, about.
fn groups(question: &Question, group: &[Group]) -> usize {
    let keys = if group.iter().any(|by| matches!(by, Group::Key(_))) { question.keys.0 } else { 1 };
    let times = question.held.files.iter().filter_map(|warm| warm.segment.stats().time);
    let times = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let buckets = group.iter().map(|by| match (by, times.zip(question.request.time.inclusive())) {
        (Group::TimeBucket { width, .. }, Some((held, wanted))) => {
            let (first, last) = (held.0.max(wanted.0), held.1.min(wanted.1));
            let buckets =
                u128::from(last.abs_diff(first)) / u128::from(width.unsigned_abs().max(1));
            usize::try_from(buckets).unwrap_or(usize::MAX).saturating_add(2)
        }
        _ => 1,
    });
    buckets.fold(keys, usize::saturating_mul)
}

impl DisplayAs for WarmScanExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = &self.moved;
        let facts = moved.cold.source().facts();
        let files = moved.questions.iter().flat_map(|question| &question.held.files);
        let (segments, rows) =
            files.fold((0, 0), |(segments, rows), warm| (segments + 1, rows + warm.segment.rows()));
        let backend = facts.engine.warm().stats().backend;
        if t == DisplayFormatType::TreeRender {
            writeln!(f, "series={}", facts.title)?;
            writeln!(f, "tier=warm ({backend})")?;
            return writeln!(f, "{}", moved.operator);
        }
        write!(f, "WarmScanExec: series={}, tier=warm ({backend})", facts.title)?;
        write!(f, ", segments={segments}, rows={rows}, {}", moved.operator)?;
        if let Some(cut) = moved.cold.source().cut() {
            write!(f, ", range={}", cut.predicate)?;
        }
        if let Some(filter) = moved.cold.source().predicate() {
            write!(f, ", predicate={filter}")?;
        }
        if let Some(rest) = moved.questions.first().and_then(Question::rest) {
            write!(f, ", filtered afterwards: {rest}")?;
        }
        match &moved.not_more {
            Some(why) => write!(f, ", not more: {why}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for WarmScanExec {
    fn name(&self) -> &'static str {
        "WarmScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let calls = self.dealt.get(partition).cloned().unwrap_or_default();
        Ok(start(Running::new(Arc::clone(&self.moved), calls, context, &self.metrics, partition)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        match args.partition() {
            Some(_) if self.dealt.len() > 1 => {
                Ok(Arc::new(Statistics::new_unknown(&self.moved.schema)))
            }
            _ => Ok(Arc::clone(&self.statistics)),
        }
    }
}
