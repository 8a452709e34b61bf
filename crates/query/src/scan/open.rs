//! Opening a scan: its files as streams of rows.

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::arrow_reader::RowSelector;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr, conjunction_opt};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use tidelog_merge::MergeSpec;
use tidelog_store::FileReaders;

use super::cut::TimeCut;
use super::facts::{group, version_expr};
use super::files::{Part, ScanFile, with_pieces_joined};
use super::layout::{self, Segment, by_time, sorted_instead};
use super::merge_stream::merged;
use super::source::{SeriesSource, scan_config};

/// Beyond so many inputs of a merge, each reads fewer rows at once, ...
const WIDE: usize = 16;
/// ... but at least so many.
const BATCH_ROWS_MIN: usize = 512;

/// What a page of a column takes that is decoded, about.
const PAGE_BYTES: usize = 96 * 1024;

/// What the partitions of one execution share: the queues of files that are cut, and that are not.
#[derive(Debug)]
struct Siblings {
    cut: Option<Arc<dyn Any + Send + Sync>>,
    whole: Option<Arc<dyn Any + Send + Sync>>,
}

impl SeriesSource {
    /// What the partitions of one execution of the parallel layout share.
    pub(super) fn siblings(&self, config: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        if self.cut().is_none() {
            return self.config.create_sibling_state(config);
        }
        let (cut, whole) = self.divided().ok()?;
        let (cut, whole) = (cut.create_sibling_state(config), whole.create_sibling_state(config));
        Some(Arc::new(Siblings { cut, whole }))
    }

    pub(super) fn open_parallel(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
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

    pub(super) fn open_segments(
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
        let cut = self.cut.as_ref().filter(|_| is_cut);
        let chains = self.with_little_to_open(chains, cut)?;
        let cut_to = cut.map(|cut| Arc::clone(&cut.predicate));
        let source = match conjunction_opt(self.predicate().into_iter().chain(cut_to)) {
            Some(predicate) => self.facts.template.with_predicate(predicate),
            None => self.facts.template.clone(),
        };
        let projection = ProjectionExprs::new(exprs);
        let source = match cut {
            Some(cut) => source.within(cut.range),
            None => source,
        };
        let (chains, held) = self.within_memory(chains, projection.as_ref().len(), context);
        let groups = chains.iter().cloned().map(group).collect();
        let mut config = scan_config(&self.facts, source, &projection, groups, true)?;
        let batch_rows = context.session_config().batch_size();
        // Each has a batch in memory.
        let fewer = (batch_rows * WIDE / chains.len().max(WIDE)).max(BATCH_ROWS_MIN);
        let input_rows = fewer.min(batch_rows);
        config.batch_size = Some(input_rows);
        let order: Vec<usize> = [time].into_iter().chain(keys.clone()).chain(version).collect();
        let mut inputs = Vec::with_capacity(chains.len());
        for (chain, files) in chains.into_iter().enumerate() {
            inputs.push(match files.iter().all(|file| file.part == Part::Whole) {
                true => config.open(chain, Arc::clone(context))?,
                false => self.open_parts(&config, files, &order, context)?,
            });
        }
        let spec = MergeSpec::new(config.projected_schema()?, time)
            .with_keys(keys)
            .with_version(version)
            .with_dedup(roles.dedup)
            .with_batch_rows(batch_rows);
        let rows = merged(spec, inputs, columns, input_rows)?;
        let Some(held) = held else { return Ok(rows) };
        let schema = rows.schema();
        // Given back when the last row has gone.
        let rows = rows.inspect(move |_| debug_assert!(held.size() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// The chains of a cluster, of which only rows in `cut` are wanted, with pieces in memory put together if few
    /// of their rows are, and files without what can tell nothing that is not known: to open a file takes a
    /// fraction of a millisecond, and there are many.
    fn with_little_to_open(
        &self,
        chains: Vec<Vec<ScanFile>>,
        cut: Option<&TimeCut>,
    ) -> Result<Vec<Vec<ScanFile>>> {
        if self.predicate().is_some() {
            return Ok(chains);
        }
        let table = self.config.file_source.table_schema();
        // Nobody asks for the number of a row in its piece, nor for its name.
        let is_plain = self.column_names().is_some() && table.virtual_columns().is_empty();
        let pieces = chains.iter().flatten().filter(|file| file.hot).count();
        let mut chains = match cut.filter(|_| is_plain && pieces > 1) {
            Some(cut) => {
                let files = chains.into_iter().flatten().collect();
                let files = with_pieces_joined(files, cut.range)?;
                layout::chains(by_time(files), self.ties())
            }
            None => chains,
        };
        // All have rows in the range, as far as statistics tell.
        chains.iter_mut().flatten().for_each(|file| file.file.statistics = None);
        Ok(chains)
    }

    /// Chains that can be open at once, each with a page of each of `columns`; where there is no memory for
    /// that, files that are taken apart are sorted instead, which can spill.
    fn within_memory(
        &self,
        chains: Vec<Vec<ScanFile>>,
        columns: usize,
        context: &Arc<TaskContext>,
    ) -> (Vec<Vec<ScanFile>>, Option<MemoryReservation>) {
        let is_part = |file: &ScanFile| matches!(file.part, Part::Run(_));
        let width = chains.iter().filter(|files| files.iter().any(is_part)).count();
        if width <= WIDE {
            return (chains, None);
        }
        let consumer = MemoryConsumer::new("pages of files that are ordered by key");
        let held = consumer.register(context.memory_pool());
        match held.try_grow(width * columns * PAGE_BYTES) {
            Ok(()) => (chains, Some(held)),
            Err(_) => (sorted_instead(chains, self.ties()), None),
        }
    }

    /// Opens parts of files one after the other, each brought into the order of event time. The columns at
    /// `order` are those by which rows are ordered.
    fn open_parts(
        &self,
        config: &FileScanConfig,
        files: Vec<ScanFile>,
        order: &[usize],
        context: &Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let schema = config.projected_schema()?;
        let sort = sort_order(&schema, order)?;
        let (config, context) = (config.clone(), Arc::clone(context));
        let readers = self.facts.readers.clone();
        let streams = futures::stream::iter(files).then(move |file| {
            let (mut config, context) = (config.clone(), Arc::clone(&context));
            let (readers, sort) = (readers.clone(), sort.clone());
            async move {
                let is_sorted = file.part == Part::Sorted;
                let file = with_rows(file, &readers).await?;
                config.file_groups = vec![FileGroup::new(vec![file])];
                if is_sorted {
                    let scan = DataSourceExec::from_data_source(config);
                    return SortExec::new(sort, scan).execute(0, context);
                }
                config.open(0, context)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, streams.try_flatten())))
    }
}

/// Ascending by these columns, nulls first.
fn sort_order(schema: &SchemaRef, columns: &[usize]) -> Result<LexOrdering> {
    let options = SortOptions { descending: false, nulls_first: true };
    let of_column = |column: &usize| {
        let named = Column::new(schema.field(*column).name(), *column);
        PhysicalSortExpr::new(Arc::new(named), options)
    };
    LexOrdering::new(columns.iter().map(of_column))
        .ok_or_else(|| DataFusionError::Internal("nothing to sort by".to_owned()))
}

/// A file of which only the rows of its part are read.
async fn with_rows(file: ScanFile, readers: &FileReaders) -> Result<PartitionedFile> {
    let Part::Run(run) = &file.part else { return Ok(file.file) };
    let metadata = readers.reader(Arc::clone(&file.row)).get_metadata(None).await?;
    let groups = metadata.row_groups();
    let mut access = ParquetAccessPlan::new_none(groups.len());
    let mut start = 0;
    for (index, group) in groups.iter().enumerate() {
        let end = start + u64::try_from(group.num_rows()).unwrap_or_default();
        let (first, last) = (run.start.clamp(start, end), run.end.clamp(start, end));
        if (first, last) == (start, end) {
            access.scan(index);
        } else if first < last {
            let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
            let selectors = [
                RowSelector::skip(count(first - start)),
                RowSelector::select(count(last - first)),
                RowSelector::skip(count(end - last)),
            ];
            let selectors = selectors.into_iter().filter(|selector| selector.row_count > 0);
            access.scan(index);
            access.scan_selection(index, selectors.collect::<Vec<_>>().into());
        }
        start = end;
    }
    Ok(file.file.with_extension(access))
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
