//! The data source that plans see: the files of one or more series.
//!
//! It wraps DataFusion's own file scan, which holds projection, predicate and limit, and adds what
//! that cannot know: how the files lie in event time. Three layouts:
//!
//! - *parallel*: files in groups, one per core, in no particular order;
//! - *segments*: runs read one after the other, clusters merged (and deduplicated) on the way;
//! - *newest of keys*: row groups from the newest on, without rows that are not the newest of their
//!   key.
//!
//! A scan begins parallel, unless rows must be deduplicated. When the plan asks for ascending event
//! time, it becomes one chain of segments, ordered without a sort; when it asks for descending time,
//! the newest file comes first and row groups are read backwards.
//!
//! Invariant: filters on columns other than time and keys never go below deduplication, nor does a
//! limit, or an older row would come back in place of one that the filter drops.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource,
};
use datafusion::datasource::source::DataSource;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_plan::ExecutionPlan;

use super::cut::TimeCut;
use super::facts::{Counts, Kept, ScanFacts, apart, is_clean};
use super::files::ScanFile;
use super::layout::{Purpose, Segment, Ties, balance, segments};
use super::newest::Newest;
use super::tiers::TieredSource;

#[derive(Debug, Clone)]
pub(super) enum Layout {
    Parallel,
    /// One group, the newest file first and its row groups backwards.
    NewestFirst,
    Segments {
        partitions: Vec<Vec<Segment>>,
        ordered: bool,
    },
    /// Row groups from the newest on, without rows that are not the newest of their key.
    Newest(Newest),
}

/// The files of one or more series as a data source.
#[derive(Debug, Clone)]
pub(crate) struct SeriesSource {
    pub(super) facts: Arc<ScanFacts>,
    pub(super) config: FileScanConfig,
    pub(super) cut: Option<TimeCut>,
    pub(super) layout: Layout,
    /// Why what is warm of it is read from files.
    pub(super) warm_note: Option<Arc<str>>,
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
            let purpose = Purpose { ties: Ties::Ordered, dedup: true, ordered: false };
            let segments = segments(facts.by_time.clone(), purpose);
            Layout::Segments { partitions: balance(segments, facts.partitions), ordered: false }
        } else {
            Layout::Parallel
        };
        Ok(Self { facts, config, cut, layout, warm_note: None })
    }

    pub(crate) fn facts(&self) -> &Arc<ScanFacts> {
        &self.facts
    }

    /// What rows must satisfy besides lying in the range of [`Self::cut`].
    pub(crate) fn predicate(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.config.file_source.filter()
    }

    pub(crate) fn is_parallel(&self) -> bool {
        matches!(self.layout, Layout::Parallel)
    }

    /// Of each file whether its rows may be read without those of others: all are, unless rows are to be
    /// deduplicated; then those are that share no time with another and have no two rows of one place.
    pub(crate) fn rows_apart(&self) -> Vec<bool> {
        match self.layout {
            Layout::Parallel => vec![true; self.facts.by_time.len()],
            Layout::Segments { ordered: false, .. } => apart(&self.facts.by_time),
            _ => vec![false; self.facts.by_time.len()],
        }
    }

    /// The same scan over some of its files, all of them in the parallel layout.
    pub(crate) fn with_files(&self, files: Vec<ScanFile>) -> Result<Self> {
        let counts = Counts::of(&files);
        let facts = Arc::new(ScanFacts {
            title: self.facts.title.clone(),
            versions: self.facts.versions,
            files: Kept { kept: counts.files, of: self.facts.files.of },
            row_groups: counts.row_groups,
            rows: counts.rows,
            hot: counts.hot,
            by_time: files,
            url: self.facts.url.clone(),
            template: self.facts.template.clone(),
            readers: self.facts.readers.clone(),
            roles: self.facts.roles.clone(),
            partitions: self.facts.partitions,
            engine: self.facts.engine.clone(),
        });
        let projection = self.projection()?;
        Self::try_new(facts, &projection, self.predicate(), self.cut.clone(), self.config.limit)
    }

    /// The same scan for an aggregate that wants only the newest rows of each key; `None` where rows
    /// must not be left out, or it cannot be told which are newer.
    pub(crate) fn newest_of(&self, keys: Vec<String>) -> Option<Self> {
        let time = self.facts.roles.time.as_ref()?;
        if !self.is_parallel() || self.config.limit.is_some() || keys.contains(&time.name) {
            return None;
        }
        Some(Self { layout: Layout::Newest(Newest { keys }), ..self.clone() })
    }

    pub(crate) fn into_exec(self) -> Arc<dyn ExecutionPlan> {
        DataSourceExec::from_data_source(self)
    }

    pub(super) fn projection(&self) -> Result<ProjectionExprs> {
        self.config
            .file_source
            .projection()
            .cloned()
            .ok_or_else(|| DataFusionError::Internal("a Parquet scan has a projection".to_owned()))
    }

    pub(crate) fn projected_schema(&self) -> Result<SchemaRef> {
        self.config.projected_schema()
    }

    /// How many rows are wanted, if not all.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.config.limit
    }

    /// Tells in plans why what is warm of the scan is read from files.
    pub(crate) fn with_warm_note(self, note: String) -> Self {
        Self { warm_note: Some(note.into()), ..self }
    }

    /// The columns of the table that the output is, if it is plain columns.
    pub(crate) fn column_names(&self) -> Option<Vec<String>> {
        let projection = self.config.file_source.projection()?;
        let name =
            |shown: &ProjectionExpr| Some(shown.expr.downcast_ref::<Column>()?.name().to_owned());
        projection.as_ref().iter().map(name).collect()
    }

    /// An expression over the output as one over the table.
    pub(crate) fn over_table(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.projection()?.unproject_expr(expr)
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.facts.roles.dedup
            && matches!(self.layout, Layout::Segments { .. })
            && !is_clean(&self.facts.by_time)
    }

    pub(super) fn wrap(&self, config: &Arc<dyn DataSource>) -> Result<Arc<dyn DataSource>> {
        let config = config.downcast_ref::<FileScanConfig>().ok_or_else(|| {
            DataFusionError::Internal("a file scan became something else".to_owned())
        })?;
        Ok(Arc::new(Self { config: config.clone(), ..self.clone() }))
    }

    /// The column of the table that an expression over the output is, if it is a plain column.
    pub(crate) fn table_column(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<String> {
        let column = expr.downcast_ref::<Column>()?;
        let projection = self.config.file_source.projection()?;
        let source = projection.as_ref().get(column.index())?;
        Some(source.expr.downcast_ref::<Column>()?.name().to_owned())
    }

    pub(super) fn is_time(&self, column: &str) -> bool {
        self.facts.roles.time.as_ref().is_some_and(|time| time.name == column)
    }
}

pub(super) fn scan_config(
    facts: &ScanFacts,
    source: TieredSource,
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
