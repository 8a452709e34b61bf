//! DataFusion's Parquet source, with a door of its own for pieces in memory.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::{ConfigOptions, TableParquetOptions};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileSource, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_expr_adapter::DefaultPhysicalExprAdapterFactory;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use tidelog_core::TimeRange;
use tidelog_storage::object_store::ObjectStore;

use super::HotPiece;
use super::open::HotOpener;
use super::rows::HotRows;

/// Reads Parquet files through DataFusion's source, and pieces in memory beside them.
///
/// Projection, predicate and options live in the Parquet source alone, and all that plans ask is
/// answered by it.
#[derive(Debug, Clone)]
pub(crate) struct TieredSource {
    parquet: ParquetSource,
    /// Rows per batch, at most; known when the scan is opened.
    batch_rows: Option<usize>,
    /// Event times outside which the predicate passes no row, so that a piece need not be looked at.
    range: TimeRange,
    /// Whether pieces are read from their newest rows on, slice by slice.
    newest_first: bool,
}

impl TieredSource {
    /// A source of all columns of `table`.
    pub(crate) fn new(
        table: TableSchema,
        options: TableParquetOptions,
        readers: Arc<dyn ParquetFileReaderFactory>,
    ) -> Self {
        let parquet = ParquetSource::new(table)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(readers);
        Self::over(parquet)
    }

    fn over(parquet: ParquetSource) -> Self {
        Self { parquet, batch_rows: None, range: TimeRange::ALL, newest_first: false }
    }

    /// The same for what the Parquet source has become.
    fn around(&self, parquet: &Arc<dyn FileSource>) -> Result<Self> {
        let parquet = parquet.downcast_ref::<ParquetSource>().ok_or_else(|| {
            DataFusionError::Internal("a Parquet source became something else".to_owned())
        })?;
        Ok(Self { parquet: parquet.clone(), ..self.clone() })
    }

    /// The tiered source of a scan.
    pub(crate) fn of(config: &FileScanConfig) -> Result<&Self> {
        config.file_source.downcast_ref::<Self>().ok_or_else(|| {
            DataFusionError::Internal("series are read as files and pieces in memory".to_owned())
        })
    }

    /// With another predicate over the table schema, in place of the one that it had.
    pub(crate) fn with_predicate(&self, predicate: Arc<dyn PhysicalExpr>) -> Self {
        Self { parquet: self.parquet.with_predicate(predicate), ..self.clone() }
    }

    /// With other readers of files.
    pub(crate) fn with_readers(&self, readers: Arc<dyn ParquetFileReaderFactory>) -> Self {
        let parquet = self.parquet.clone().with_parquet_file_reader_factory(readers);
        Self { parquet, ..self.clone() }
    }

    /// Tells that the predicate passes no row outside `range`.
    pub(crate) fn within(self, range: TimeRange) -> Self {
        Self { range, ..self }
    }

    /// Reads pieces from their newest rows on.
    pub(crate) fn newest_first(self) -> Self {
        Self { newest_first: true, ..self }
    }

    /// Readers of files.
    pub(crate) fn readers(&self) -> Result<&Arc<dyn ParquetFileReaderFactory>> {
        let missing = || DataFusionError::Internal("a scan has no readers".to_owned());
        self.parquet.parquet_file_reader_factory().ok_or_else(missing)
    }
}

impl FileSource for TieredSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.parquet.create_file_opener(store, config, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let batch_rows = self.batch_rows.ok_or_else(|| {
            DataFusionError::Internal("a scan is opened without a batch size".to_owned())
        })?;
        let parquet = self.parquet.with_batch_size(batch_rows);
        let adapters = config.expr_adapter_factory.clone();
        let hot = HotOpener {
            table: self.parquet.table_schema().clone(),
            projection: self.parquet.projection().cloned(),
            predicate: self.parquet.filter(),
            range: self.range,
            newest_first: self.newest_first,
            batch_rows,
            limit: config.limit,
            adapters: adapters.unwrap_or_else(|| Arc::new(DefaultPhysicalExprAdapterFactory)),
            metrics: self.parquet.metrics().clone(),
            partition,
        };
        let files = parquet.create_morselizer(store, config, partition)?;
        Ok(Box::new(TieredMorselizer { files, hot }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, rows: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_rows: Some(rows), ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        self.parquet.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parquet.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.parquet.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        let (partitions, size) = (target_partitions, repartition_file_min_size);
        self.parquet.repartitioned(partitions, size, output_ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let pushed = self.parquet.try_pushdown_filters(filters, config)?;
        let updated: Option<Arc<dyn FileSource>> = match pushed.updated_node {
            Some(parquet) => Some(Arc::new(self.around(&parquet)?)),
            None => None,
        };
        Ok(FilterPushdownPropagation { filters: pushed.filters, updated_node: updated })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        eq_properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        use SortOrderPushdownResult as Pushed;
        Ok(match self.parquet.try_pushdown_sort(order, eq_properties)? {
            Pushed::Exact { inner } => Pushed::Exact { inner: Arc::new(self.around(&inner)?) },
            Pushed::Inexact { inner } => {
                let newest_first = order.first().is_some_and(|first| first.options.descending);
                let inner = Self { newest_first, ..self.around(&inner)? };
                Pushed::Inexact { inner: Arc::new(inner) }
            }
            Pushed::Unsupported => Pushed::Unsupported,
        })
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.parquet.reorder_files(files)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        Ok(match self.parquet.try_pushdown_projection(projection)? {
            Some(parquet) => Some(Arc::new(self.around(&parquet)?)),
            None => None,
        })
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.parquet.apply_expressions(f)
    }
}

/// Hands files to the Parquet source and opens pieces itself.
#[derive(Debug)]
struct TieredMorselizer {
    files: Box<dyn Morselizer>,
    hot: HotOpener,
}

impl Morselizer for TieredMorselizer {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        match file.extension::<HotPiece>() {
            None => self.files.plan_file(file),
            Some(piece) => Ok(Box::new(HotPlanner(self.hot.open(&file, piece)?))),
        }
    }
}

/// A piece that is open: there is nothing left to plan, and nothing to wait for.
#[derive(Debug)]
struct HotPlanner(HotRows);

impl MorselPlanner for HotPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let rows: Box<dyn Morsel> = Box::new(self.0);
        Ok(Some(MorselPlan::new().with_morsels(vec![rows])))
    }
}
