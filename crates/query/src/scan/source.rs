//! The data source that plans see: the files of one or more series.
//!
//! It wraps DataFusion's own file scan, which holds projection, predicate and limit, and adds what
//! that cannot know: how the files lie in event time. Two layouts:
//!
//! - *parallel*: files in groups, one per core, in no particular order;
//! - *segments*: runs read one after the other, clusters merged (and deduplicated) on the way.
//!
//! A scan begins parallel, unless rows must be deduplicated. When the plan asks for ascending event
//! time, it becomes one chain of segments, ordered without a sort; when it asks for descending time,
//! the newest file comes first and row groups are read backwards.
//!
//! Invariant: filters on columns other than time and keys never go below deduplication, nor does a
//! limit, or an older row would come back in place of one that the filter drops.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_expr::{conjunction, conjunction_opt};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, SortOrderPushdownResult};
use futures::{StreamExt, TryStreamExt};
use tidelog_core::{TimeRange, TimeUnit};
use tidelog_merge::MergeSpec;
use tidelog_oplog::FileRow;

use super::files::ScanFile;
use super::layout::{Segment, Ties, balance, join_runs, segments};
use super::merge_stream::merged;
use crate::time_filter::{TimeBounds, TimeColumn, physical_bounds};

/// More overlapping chains than this are sorted, which can spill, rather than merged.
const MERGE_WIDTH_MAX: usize = 256;

/// What a scan reads and what may be said about it; fixed when the table is planned.
#[derive(Debug)]
pub(crate) struct ScanFacts {
    /// The path or glob, and the point in history if it is not the head.
    pub(crate) title: String,
    pub(crate) versions: Kept,
    pub(crate) files: Kept,
    pub(crate) row_groups: u64,
    pub(crate) rows: u64,
    /// The kept files in order of event time.
    pub(crate) by_time: Vec<ScanFile>,
    pub(crate) url: ObjectStoreUrl,
    /// A source without projection or predicate, over stored and partition columns.
    pub(crate) template: ParquetSource,
    pub(crate) roles: Roles,
    pub(crate) partitions: usize,
}

/// How many of how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) kept: u64,
    pub(crate) of: u64,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kept, self.of)
    }
}

/// Which columns of the table schema have a meaning.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    /// The time column, if all series of the scan share one.
    pub(crate) time: Option<TimeRole>,
    pub(crate) keys: Vec<String>,
    /// Whether rows are deduplicated.
    pub(crate) dedup: bool,
    /// Whether ties of event time are ordered by key and version (one series only).
    pub(crate) ordered_ties: bool,
}

/// The time column.
#[derive(Debug, Clone)]
pub(crate) struct TimeRole {
    pub(crate) name: String,
    pub(crate) unit: TimeUnit,
}

/// The expression for a row's version: stored relative to its file.
pub(crate) fn version_expr(table: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(BinaryExpr::new(
        Arc::new(Column::new_with_schema(tidelog_store::VERSION_COLUMN, table)?),
        Operator::Plus,
        Arc::new(Column::new_with_schema(VERSION_BASE_COLUMN, table)?),
    )))
}

/// The partition column with the number that is added to a file's stored versions.
pub(crate) const VERSION_BASE_COLUMN: &str = "__version_base";
/// The partition column with the newest visible version of a file's series.
pub(crate) const VISIBLE_COLUMN: &str = "__visible";

#[derive(Debug, Clone)]
enum Layout {
    Parallel,
    /// One group, the newest file first and its row groups backwards.
    NewestFirst,
    Segments {
        partitions: Vec<Vec<Segment>>,
        ordered: bool,
    },
}

/// A range of event time outside which rows do not pass.
///
/// It is kept apart from other predicates, because most files lie inside it whole: only those that
/// it cuts evaluate it row by row.
#[derive(Debug, Clone)]
pub(crate) struct TimeCut {
    pub(crate) range: TimeRange,
    /// The same as an expression over the table schema.
    pub(crate) predicate: Arc<dyn PhysicalExpr>,
}

impl TimeCut {
    fn cuts(&self, file: &PartitionedFile) -> bool {
        file.extension::<Arc<FileRow>>().is_none_or(|row| !self.range.covers(&row.range))
    }
}

/// The files of one or more series as a data source.
#[derive(Debug, Clone)]
pub(crate) struct SeriesSource {
    facts: Arc<ScanFacts>,
    config: FileScanConfig,
    cut: Option<TimeCut>,
    layout: Layout,
}

/// What the partitions of one execution share: the queues of files that are cut, and that are not.
#[derive(Debug)]
struct Siblings {
    cut: Option<Arc<dyn Any + Send + Sync>>,
    whole: Option<Arc<dyn Any + Send + Sync>>,
}

impl SeriesSource {
    /// A scan of the facts' files with `projection` over the table schema.
    pub(crate) fn try_new(
        facts: Arc<ScanFacts>,
        projection: &ProjectionExprs,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        cut: Option<TimeCut>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let dirty = facts.roles.dedup && !is_clean(&facts.by_time);
        let source = match predicate {
            Some(predicate) => facts.template.with_predicate(predicate),
            None => facts.template.clone(),
        };
        let config = scan_config(&facts, source, projection, facts.parallel_groups(), dirty)?;
        let limit = limit.filter(|_| !dirty);
        let config = FileScanConfigBuilder::from(config).with_limit(limit).build();
        let layout = if dirty {
            let segments = segments(facts.by_time.clone(), Ties::Ordered, true);
            Layout::Segments { partitions: balance(segments, facts.partitions), ordered: false }
        } else {
            Layout::Parallel
        };
        Ok(Self { facts, config, cut, layout })
    }

    pub(crate) fn facts(&self) -> &Arc<ScanFacts> {
        &self.facts
    }

    /// What rows must satisfy besides lying in the range of [`Self::cut`].
    pub(crate) fn predicate(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.config.file_source.filter()
    }

    /// The range of event time outside which rows do not pass, if some file crosses it.
    pub(crate) fn cut(&self) -> Option<&TimeCut> {
        let crossed = |cut: &&TimeCut| self.facts.by_time.iter().any(|file| cut.cuts(&file.file));
        self.cut.as_ref().filter(crossed)
    }

    pub(crate) fn is_parallel(&self) -> bool {
        matches!(self.layout, Layout::Parallel)
    }

    /// The same scan over some of its files, all of them in the parallel layout.
    pub(crate) fn with_files(&self, files: Vec<ScanFile>) -> Result<Self> {
        let facts = Arc::new(ScanFacts {
            title: self.facts.title.clone(),
            versions: self.facts.versions,
            files: Kept { kept: files.len() as u64, of: self.facts.files.of },
            row_groups: files.iter().map(|f| u64::from(f.row.row_groups)).sum(),
            rows: files.iter().map(|f| f.row.rows).sum(),
            by_time: files,
            url: self.facts.url.clone(),
            template: self.facts.template.clone(),
            roles: self.facts.roles.clone(),
            partitions: self.facts.partitions,
        });
        let projection = self.projection()?;
        Self::try_new(facts, &projection, self.predicate(), self.cut.clone(), self.config.limit)
    }

    /// The same scan as one stream in order of event time; `None` if it would have to merge more
    /// than is sensible, or has no common time column.
    pub(crate) fn into_ordered(self) -> Option<Self> {
        self.facts.roles.time.as_ref()?;
        let (ties, dedup) = (self.ties(), self.facts.roles.dedup);
        let segments = join_runs(segments(self.facts.by_time.clone(), ties, dedup));
        let width = |segment: &Segment| match segment {
            Segment::Run(_) => 1,
            Segment::Cluster(chains) => chains.len(),
        };
        if segments.iter().map(width).max() > Some(MERGE_WIDTH_MAX) {
            return None;
        }
        let layout = Layout::Segments { partitions: vec![segments], ordered: true };
        Some(Self { layout, ..self })
    }

    pub(crate) fn into_exec(self) -> Arc<dyn ExecutionPlan> {
        DataSourceExec::from_data_source(self)
    }

    fn ties(&self) -> Ties {
        if self.facts.roles.ordered_ties || self.facts.roles.dedup {
            Ties::Ordered
        } else {
            Ties::Any
        }
    }

    fn projection(&self) -> Result<ProjectionExprs> {
        self.config
            .file_source
            .projection()
            .cloned()
            .ok_or_else(|| DataFusionError::Internal("a Parquet scan has a projection".to_owned()))
    }

    fn projected_schema(&self) -> Result<SchemaRef> {
        self.config.projected_schema()
    }

    fn is_dirty(&self) -> bool {
        self.facts.roles.dedup
            && matches!(self.layout, Layout::Segments { .. })
            && !is_clean(&self.facts.by_time)
    }

    fn wrap(&self, config: &Arc<dyn DataSource>) -> Result<Arc<dyn DataSource>> {
        let config = config.downcast_ref::<FileScanConfig>().ok_or_else(|| {
            DataFusionError::Internal("a file scan became something else".to_owned())
        })?;
        Ok(Arc::new(Self { config: config.clone(), ..self.clone() }))
    }

    /// The column of the table that an expression over the output is, if it is a plain column.
    fn table_column(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<String> {
        let column = expr.downcast_ref::<Column>()?;
        let projection = self.config.file_source.projection()?;
        let source = projection.as_ref().get(column.index())?;
        Some(source.expr.downcast_ref::<Column>()?.name().to_owned())
    }

    fn is_time(&self, column: &str) -> bool {
        self.facts.roles.time.as_ref().is_some_and(|time| time.name == column)
    }

    /// Whether rows in the order of segments are in this order.
    fn satisfies_ascending(&self, order: &[PhysicalSortExpr]) -> bool {
        let mut wanted = order.iter();
        let ascending = |expr: &PhysicalSortExpr| !expr.options.descending;
        let leads = wanted.next().is_some_and(|first| {
            ascending(first) && self.table_column(&first.expr).is_some_and(|c| self.is_time(&c))
        });
        if !leads || order.len() > 1 && !self.facts.roles.ordered_ties {
            return false;
        }
        let mut keys = self.facts.roles.keys.iter();
        wanted.all(|next| {
            let key = keys.next();
            ascending(next)
                && next.options.nulls_first
                && key.is_some()
                && self.table_column(&next.expr).as_ref() == key
        })
    }

    /// Newest file first, row groups backwards; the plan keeps its sort, which can stop early.
    fn descending(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        if self.facts.by_time.is_empty() {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let files: Vec<_> = self.facts.by_time.iter().map(|f| f.file.clone()).collect();
        let mut config = self.config.clone();
        config.file_groups = vec![FileGroup::new(files)];
        match config.try_pushdown_sort(order)? {
            SortOrderPushdownResult::Inexact { inner }
            | SortOrderPushdownResult::Exact { inner } => {
                let newest_first = Self { layout: Layout::NewestFirst, ..self.clone() };
                Ok(SortOrderPushdownResult::Inexact { inner: newest_first.wrap(&inner)? })
            }
            SortOrderPushdownResult::Unsupported => Ok(SortOrderPushdownResult::Unsupported),
        }
    }

    fn open_segments(
        &self,
        segments: &[Segment],
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema = self.projected_schema()?;
        let this = self.clone();
        let context = Arc::clone(context);
        let streams = futures::stream::iter(segments.to_vec())
            .map(move |segment| this.open_segment(segment, &context));
        let rows = streams.try_flatten();
        let adapted = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows));
        let Some(limit) = self.config.limit else { return Ok(adapted) };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, limited(adapted, limit))))
    }

    fn open_segment(
        &self,
        segment: Segment,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        match segment {
            Segment::Run(files) => self.open_run(files, context),
            Segment::Cluster(chains) => self.open_cluster(chains, context),
        }
    }

    /// Opens files one after the other; neighbours that the cut treats alike as one scan.
    fn open_run(
        &self,
        files: Vec<ScanFile>,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let alike = |a: &ScanFile, b: &ScanFile| self.is_cut(&a.file) == self.is_cut(&b.file);
        let mut streams = Vec::new();
        for stretch in files.chunk_by(alike) {
            let cut = stretch.first().is_some_and(|first| self.is_cut(&first.file));
            let config = self.config_with(vec![group(stretch.to_vec())], cut)?;
            streams.push(config.open(0, Arc::clone(context))?);
        }
        Ok(one_after_the_other(self.projected_schema()?, streams))
    }

    fn is_cut(&self, file: &PartitionedFile) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.cuts(file))
    }

    /// The scan of other groups, with the cut among its predicates or not.
    fn config_with(&self, groups: Vec<FileGroup>, cut: bool) -> Result<FileScanConfig> {
        let mut config = self.config.clone();
        config.file_groups = groups;
        if let Some(cut) = self.cut.as_ref().filter(|_| cut) {
            let source = config.file_source.downcast_ref::<ParquetSource>().ok_or_else(|| {
                DataFusionError::Internal("series are read as Parquet".to_owned())
            })?;
            let all = self.predicate().into_iter().chain([Arc::clone(&cut.predicate)]);
            config.file_source = Arc::new(source.with_predicate(conjunction(all)));
        }
        Ok(config)
    }

    /// The parallel scan as two: the files that are cut, and those that are not.
    fn divided(&self) -> Result<(FileScanConfig, FileScanConfig)> {
        let divide = |cut: bool| {
            let groups = self.config.file_groups.iter().map(|group| {
                let files = group.iter().filter(|file| self.is_cut(file) == cut);
                FileGroup::new(files.cloned().collect())
            });
            self.config_with(groups.collect(), cut)
        };
        Ok((divide(true)?, divide(false)?))
    }

    fn open_parallel(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        if self.cut().is_none() {
            return self.config.open_with_args(args);
        }
        let siblings = args.sibling_state.as_ref().and_then(|s| s.downcast_ref::<Siblings>());
        let (cut, whole) = self.divided()?;
        let open = |config: FileScanConfig, shared: Option<Arc<dyn Any + Send + Sync>>| {
            let args = OpenArgs::new(args.partition, Arc::clone(&args.context));
            config.open_with_args(args.with_shared_state(shared))
        };
        let streams = vec![
            open(cut, siblings.and_then(|s| s.cut.clone()))?,
            open(whole, siblings.and_then(|s| s.whole.clone()))?,
        ];
        let rows = one_after_the_other(self.projected_schema()?, streams);
        let Some(limit) = self.config.limit else { return Ok(rows) };
        let schema = rows.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, limited(rows, limit))))
    }

    /// Opens the chains of a cluster with the columns that merging needs behind the projected ones.
    fn open_cluster(
        &self,
        chains: Vec<Vec<ScanFile>>,
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let roles = &self.facts.roles;
        let Some(time) = &roles.time else {
            return Err(DataFusionError::Internal("a cluster has no time column".to_owned()));
        };
        let table = self.config.file_source.table_schema().table_schema();
        let mut exprs: Vec<ProjectionExpr> = self.projection()?.as_ref().to_vec();
        let columns = exprs.len();
        let mut extra = |expr: Arc<dyn PhysicalExpr>| {
            exprs.push(ProjectionExpr::new(expr, format!("__merge_{}", exprs.len())));
            exprs.len() - 1
        };
        let column = |name: &str| -> Result<Arc<dyn PhysicalExpr>> {
            Ok(Arc::new(Column::new_with_schema(name, table)?))
        };
        let time = extra(column(&time.name)?);
        let mut keys = Vec::new();
        let mut version = None;
        if roles.ordered_ties || roles.dedup {
            for key in &roles.keys {
                keys.push(extra(column(key)?));
            }
            version = Some(extra(version_expr(table)?));
        }
        let is_cut = chains.iter().flatten().any(|file| self.is_cut(&file.file));
        let cut = self.cut.iter().filter(|_| is_cut).map(|cut| Arc::clone(&cut.predicate));
        let source = match conjunction_opt(self.predicate().into_iter().chain(cut)) {
            Some(predicate) => self.facts.template.with_predicate(predicate),
            None => self.facts.template.clone(),
        };
        let groups = chains.into_iter().map(group).collect();
        let projection = ProjectionExprs::new(exprs);
        let config = scan_config(&self.facts, source, &projection, groups, true)?;
        let inputs = (0..config.file_groups.len())
            .map(|chain| config.open(chain, Arc::clone(context)))
            .collect::<Result<Vec<_>>>()?;
        let spec = MergeSpec::new(config.projected_schema()?, time)
            .with_keys(keys)
            .with_version(version)
            .with_dedup(roles.dedup)
            .with_batch_rows(context.session_config().batch_size());
        merged(spec, inputs, columns)
    }

    fn layout_words(&self) -> String {
        match &self.layout {
            Layout::Parallel => format!("parallel({})", self.config.file_groups.len()),
            Layout::NewestFirst => "newest first".to_owned(),
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

impl ScanFacts {
    fn parallel_groups(&self) -> Vec<FileGroup> {
        let runs = self.by_time.iter().map(|file| Segment::Run(vec![file.clone()])).collect();
        balance(runs, self.partitions)
            .into_iter()
            .map(|segments| {
                let files = segments.into_iter().flat_map(|segment| match segment {
                    Segment::Run(files) => files,
                    Segment::Cluster(chains) => chains.into_iter().flatten().collect(),
                });
                group(files.collect())
            })
            .collect()
    }
}

/// A plain column by its name, anything else as the expression it is.
fn shown_column(column: &ProjectionExpr) -> String {
    match column.expr.downcast_ref::<Column>() {
        Some(plain) if plain.name() == column.alias => column.alias.clone(),
        _ => format!("{} AS {}", column.expr, column.alias),
    }
}

pub(crate) fn is_clean(by_time: &[ScanFile]) -> bool {
    by_time.iter().all(|file| file.clean)
        && by_time.windows(2).all(|pair| pair[0].range().end() < pair[1].range().start())
}

fn group(files: Vec<ScanFile>) -> FileGroup {
    FileGroup::new(files.into_iter().map(|file| file.file).collect())
}

fn scan_config(
    facts: &ScanFacts,
    source: ParquetSource,
    projection: &ProjectionExprs,
    groups: Vec<FileGroup>,
    inexact: bool,
) -> Result<FileScanConfig> {
    let table = Arc::clone(source.table_schema().table_schema());
    let source = source
        .try_pushdown_projection(projection)?
        .ok_or_else(|| DataFusionError::Internal("a Parquet scan takes a projection".to_owned()))?;
    let (groups, statistics) =
        datafusion_datasource::compute_all_files_statistics(groups, table, true, inexact)?;
    Ok(FileScanConfigBuilder::new(facts.url.clone(), source)
        .with_file_groups(groups)
        .with_statistics(statistics)
        .build())
}

fn one_after_the_other(
    schema: SchemaRef,
    mut streams: Vec<SendableRecordBatchStream>,
) -> SendableRecordBatchStream {
    if streams.len() == 1
        && let Some(only) = streams.pop()
    {
        return only;
    }
    let rows = futures::stream::iter(streams).flatten();
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

fn limited(
    stream: SendableRecordBatchStream,
    limit: usize,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::try_unfold((stream, limit), |(mut stream, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(batch) = stream.try_next().await? else { return Ok(None) };
        let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
        let left = left - batch.num_rows();
        Ok(Some((batch, (stream, left))))
    })
}

impl DataSource for SeriesSource {
    fn open(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.open_with_args(OpenArgs::new(partition, context))
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        match &self.layout {
            Layout::Parallel => self.open_parallel(args),
            Layout::NewestFirst => {
                let groups = self.config.file_groups.clone();
                self.config_with(groups, self.cut().is_some())?.open_with_args(args)
            }
            Layout::Segments { partitions, .. } => {
                self.open_segments(&partitions[args.partition], &args.context)
            }
        }
    }

    fn create_sibling_state(&self, config: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        match self.layout {
            Layout::Parallel if self.cut().is_none() => self.config.create_sibling_state(config),
            Layout::Parallel => {
                let (cut, whole) = self.divided().ok()?;
                let (cut, whole) =
                    (cut.create_sibling_state(config), whole.create_sibling_state(config));
                Some(Arc::new(Siblings { cut, whole }))
            }
            Layout::NewestFirst | Layout::Segments { .. } => None,
        }
    }

    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.facts;
        if t == DisplayFormatType::TreeRender {
            writeln!(f, "series={}", facts.title)?;
            writeln!(f, "files={}", facts.files)?;
            return writeln!(f, "layout={}", self.layout_words());
        }
        write!(
            f,
            "series={}, tier=cold, versions={}, files={}, row_groups={}, rows={}, layout={}",
            facts.title,
            facts.versions,
            facts.files,
            facts.row_groups,
            facts.rows,
            self.layout_words()
        )?;
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
            Layout::Segments { partitions, .. } => {
                Partitioning::UnknownPartitioning(partitions.len())
            }
        }
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        let plain = self.config.eq_properties();
        if !matches!(self.layout, Layout::Segments { ordered: true, .. }) {
            return plain;
        }
        let options = SortOptions { descending: false, nulls_first: true };
        let shown = |name: &str| -> Option<PhysicalSortExpr> {
            let fields = plain.schema().fields().iter().enumerate();
            let mut columns = fields.map(|(index, field)| Column::new(field.name(), index));
            let column = columns.find(|column| {
                let column: Arc<dyn PhysicalExpr> = Arc::new(column.clone());
                self.table_column(&column).as_deref() == Some(name)
            })?;
            Some(PhysicalSortExpr::new(Arc::new(column), options))
        };
        let roles = &self.facts.roles;
        // Keys order rows of equal time, but only as far as all keys before them are there to see.
        let keys = roles.keys.iter().filter(|_| roles.ordered_ties).map_while(|key| shown(key));
        let time = roles.time.as_ref().and_then(|time| shown(&time.name));
        let orderings: Vec<LexOrdering> = time
            .and_then(|time| LexOrdering::new(std::iter::once(time).chain(keys)))
            .into_iter()
            .collect();
        let mut ordered = plain;
        ordered.add_orderings(orderings);
        ordered
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
        };
        match self.cut() {
            Some(_) => Ok(Arc::new((*statistics).clone().to_inexact())),
            None => Ok(statistics),
        }
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        if self.is_dirty() {
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
        if self.satisfies_ascending(order) {
            return Ok(match self.clone().into_ordered() {
                Some(ordered) => SortOrderPushdownResult::Exact { inner: Arc::new(ordered) },
                None => SortOrderPushdownResult::Unsupported,
            });
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

/// What becomes of a filter that comes down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    IsCut,
    GoesToConfig,
}

impl SeriesSource {
    /// Takes a filter over the output into the cut, if it is a range of event time.
    fn take_time(&mut self, filter: &Arc<dyn PhysicalExpr>) -> Result<bool> {
        let Some(time) = &self.facts.roles.time else { return Ok(false) };
        let column = TimeColumn { name: &time.name, unit: time.unit };
        let table = self.config.file_source.table_schema().table_schema();
        let unprojected = self.projection()?.unproject_expr(filter)?;
        let predicate = reassign_expr_columns(unprojected, table)?;
        let Some(TimeBounds::Range(range)) = physical_bounds(&predicate, column) else {
            return Ok(false);
        };
        self.cut = Some(match self.cut.take() {
            None => TimeCut { range, predicate },
            Some(cut) => match cut.range.intersect(&range) {
                Some(range) => {
                    TimeCut { range, predicate: conjunction([cut.predicate, predicate]) }
                }
                None => {
                    self.cut = Some(cut);
                    return Ok(false);
                }
            },
        });
        Ok(true)
    }

    /// Whether a filter over the output may be evaluated before deduplication.
    fn may_push(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        if !self.is_dirty() {
            return true;
        }
        collect_columns(filter).into_iter().all(|column| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(column);
            self.table_column(&column)
                .is_some_and(|name| self.is_time(&name) || self.facts.roles.keys.contains(&name))
        })
    }
}
