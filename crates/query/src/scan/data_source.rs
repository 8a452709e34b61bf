//! What plans ask of a scan: DataFusion's `DataSource` over [`SeriesSource`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr,
    conjunction_opt,
};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::StreamExt;
use tidelog_store::Reading;

use super::layout::Segment;
use super::source::{Layout, SeriesSource};

impl DataSource for SeriesSource {
    fn open(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.open_with_args(OpenArgs::new(partition, context))
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        let reading = self.facts.engine.right_of_way().take();
        let rows = match &self.layout {
            Layout::Parallel => self.open_parallel(args)?,
            Layout::NewestFirst => {
                let groups = self.config.file_groups.clone();
                self.config_with(groups, self.cut().is_some())?.open_with_args(args)?
            }
            Layout::Segments { partitions, .. } => {
                self.open_segments(&partitions[args.partition], &args.context)?
            }
            Layout::Newest(newest) => newest.open(self, args)?,
        };
        Ok(until_read(rows, reading))
    }

    fn create_sibling_state(&self, config: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        match &self.layout {
            Layout::Parallel => self.siblings(config),
            Layout::Newest(newest) => newest.siblings(self).ok(),
            Layout::NewestFirst | Layout::Segments { .. } => None,
        }
    }

    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        if t == DisplayFormatType::TreeRender {
            writeln!(f, "series={}", facts.title)?;
            writeln!(f, "files={}", facts.files)?;
            if facts.hot.pieces > 0 {
                writeln!(f, "hot={}", facts.hot)?;
            }
            return writeln!(f, "layout={}", self.layout_words());
        }
        write!(
            f,
            "series={}, tier={}, versions={}, files={}, row_groups={}, rows={}",
            facts.title,
            facts.tiers(),
            facts.versions,
            facts.files,
            facts.row_groups,
            facts.rows
        )?;
        if facts.hot.pieces > 0 {
            write!(f, ", hot={}", facts.hot)?;
        }
        write!(f, ", layout={}", self.layout_words())?;
        if let Some(note) = &self.warm_note {
            write!(f, ", warm={note}")?;
        }
        if let Some(projection) = self.config.file_source.projection() {
            let columns: Vec<String> = projection.as_ref().iter().map(shown_column).collect();
            write!(f, ", projection=[{}]", columns.join(", "))?;
        }
        if let Some(limit) = self.config.limit {
            write!(f, ", limit={limit}")?;
        }
        let cut = self.cut().map(|cut| Arc::clone(&cut.predicate));
        if let Some(predicate) = conjunction_opt(self.predicate().into_iter().chain(cut)) {
            write!(f, ", predicate={predicate}")?;
        }
        if t == DisplayFormatType::Verbose {
            write!(f, ", scan=")?;
            self.config.fmt_as(t, f)?;
        }
        Ok(())
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        if !self.is_parallel() {
            return Ok(None);
        }
        let config = self.config.repartitioned(
            target_partitions,
            repartition_file_min_size,
            output_ordering,
        )?;
        config.map(|config| self.wrap(&config)).transpose()
    }

    fn output_partitioning(&self) -> Partitioning {
        match &self.layout {
            Layout::Parallel | Layout::NewestFirst => self.config.output_partitioning(),
            Layout::Newest(_) => Partitioning::UnknownPartitioning(self.config.file_groups.len()),
            Layout::Segments { partitions, .. } => {
                Partitioning::UnknownPartitioning(partitions.len())
            }
        }
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        let plain = self.config.eq_properties();
        match self.layout {
            Layout::Segments { ordered: true, .. } => self.ordered(plain),
            _ => plain,
        }
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let statistics = match (&self.layout, partition) {
            (Layout::Segments { partitions, .. }, Some(_)) if partitions.len() > 1 => {
                Arc::new(Statistics::new_unknown(&*self.projected_schema()?))
            }
            (Layout::Segments { .. }, _) => self.config.partition_statistics(None)?,
            (Layout::Parallel | Layout::NewestFirst, partition) => {
                self.config.partition_statistics(partition)?
            }
            (Layout::Newest(_), _) => {
                let all = self.config.partition_statistics(None)?;
                return Ok(Arc::new((*all).clone().to_inexact()));
            }
        };
        match self.cut() {
            Some(_) => Ok(Arc::new((*statistics).clone().to_inexact())),
            None => Ok(statistics),
        }
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        if self.is_dirty() || matches!(self.layout, Layout::Newest(_)) {
            return None;
        }
        let config = self.config.with_fetch(limit)?;
        self.wrap(&config).ok()
    }

    fn fetch(&self) -> Option<usize> {
        self.config.fetch()
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.config.metrics()
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        let config = self.config.try_swapping_with_projection(projection)?;
        config.map(|config| self.wrap(&config)).transpose()
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        let mut next = self.clone();
        let mut to_config = Vec::new();
        let mut fates = Vec::with_capacity(filters.len());
        for filter in &filters {
            fates.push(if !self.may_push(filter) {
                Fate::Stays
            } else if next.take_time(filter)? {
                Fate::IsCut
            } else {
                to_config.push(Arc::clone(filter));
                Fate::GoesToConfig
            });
        }
        let pushed = self.config.try_pushdown_filters(to_config, config)?;
        let mut answers = pushed.filters.into_iter();
        let answers: Vec<PushedDown> = fates
            .iter()
            .map(|fate| match fate {
                Fate::Stays => PushedDown::No,
                Fate::IsCut => PushedDown::Yes,
                Fate::GoesToConfig => answers.next().unwrap_or(PushedDown::No),
            })
            .collect();
        let changed = pushed.updated_node.is_some() || fates.contains(&Fate::IsCut);
        let updated = match pushed.updated_node {
            Some(config) => next.wrap(&config)?,
            None => Arc::new(next),
        };
        let result = FilterPushdownPropagation::with_parent_pushdown_result(answers);
        Ok(if changed { result.with_updated_node(updated) } else { result })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        if matches!(self.layout, Layout::Newest(_)) {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        if self.satisfies_ascending(order) {
            return Ok(
                match self.clone().into_ordered().filter(|ordered| !ordered.sorts_files()) {
                    Some(ordered) => SortOrderPushdownResult::Exact { inner: Arc::new(ordered) },
                    None => SortOrderPushdownResult::Unsupported,
                },
            );
        }
        let leads = order.first().filter(|first| first.options.descending);
        let time_leads = leads
            .and_then(|first| self.table_column(&first.expr))
            .is_some_and(|column| self.is_time(&column));
        if time_leads && self.is_parallel() {
            return self.descending(order);
        }
        Ok(SortOrderPushdownResult::Unsupported)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.config.apply_expressions(f)
    }
}

/// The same rows, of a read that is under way until they have been read, or nobody wants more of them.
fn until_read(rows: SendableRecordBatchStream, reading: Reading) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let rows = futures::stream::unfold((rows, reading), |(mut rows, reading)| async move {
        // At the end both are dropped.
        let batch = rows.next().await?;
        Some((batch, (rows, reading)))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// What becomes of a filter that comes down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    IsCut,
    GoesToConfig,
}

impl SeriesSource {
    fn layout_words(&self) -> String {
        match &self.layout {
            Layout::Parallel => format!("parallel({})", self.config.file_groups.len()),
            Layout::NewestFirst => "newest first".to_owned(),
            Layout::Newest(newest) => format!("{newest}({})", self.config.file_groups.len()),
            Layout::Segments { partitions, ordered } => {
                let clusters = partitions.iter().flatten().filter_map(|segment| match segment {
                    Segment::Run(_) => None,
                    Segment::Cluster(chains) => Some(chains.len()),
                });
                let (count, width) =
                    clusters.fold((0, 0), |(count, width), chains| (count + 1, chains.max(width)));
                let merge = if self.facts.roles.dedup { "merge+dedup" } else { "merge" };
                let shape = if *ordered { "chain" } else { "segments" };
                match count {
                    0 => format!("{shape}({})", partitions.len()),
                    _ => format!("{shape}({}), {merge}={count}x{width}", partitions.len()),
                }
            }
        }
    }
}

/// A plain column by its name, anything else as the expression it is.
fn shown_column(column: &ProjectionExpr) -> String {
    match column.expr.downcast_ref::<Column>() {
        Some(plain) if plain.name() == column.alias => column.alias.clone(),
        _ => format!("{} AS {}", column.expr, column.alias),
    }
}
