//! One or more series as a table.
//!
//! Planning goes from cheap to dear: ranges of event time out of the filters choose versions and
//! files by the log; other filters choose files by the column statistics in the log; a time filter
//! that all kept files satisfy is dropped; what is left goes down to Parquet.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit as ArrowUnit,
};
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::{DFSchema, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::physical_plan::FileSource;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNullExpr};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use tidelog_core::{AsOf, TimeRange, TimeUnit};
use tidelog_store::{Engine, FileReaders, PATH_COLUMN, SeriesView, UNTIL_COLUMN, VERSION_COLUMN};

use crate::error::Error;
use crate::insert::AppendSink;
use crate::scan::cut::TimeCut;
use crate::scan::facts::{
    Counts, Kept, Roles, ScanFacts, TimeRole, VERSION_BASE_COLUMN, VISIBLE_COLUMN, is_clean,
    version_expr,
};
use crate::scan::files::{ScanFile, Stored, hot_file, scan_file};
use crate::scan::layout::by_time;
use crate::scan::reader::CheckedReaders;
use crate::scan::source::SeriesSource;
use crate::scan::tiers::TieredSource;
use crate::time_filter::{TimeBounds, TimeColumn, logical_bounds};

/// What a table of series shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The columns of one series.
    Series,
    /// The columns of several series, and `_path`.
    Glob,
    /// The columns of one series, and `__version`.
    Versions,
}

/// How text columns come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextColumns {
    /// As the series has them.
    AsStored,
    /// As views, which DataFusion filters and groups fastest.
    AsViews,
}

/// One or more series, pinned at a point in history, as a DataFusion table.
#[derive(Debug)]
pub struct SeriesTable {
    engine: Engine,
    url: ObjectStoreUrl,
    views: Vec<SeriesView>,
    title: String,
    /// What queries see.
    schema: SchemaRef,
    /// What files hold: the columns, and `__version`.
    stored: SchemaRef,
    roles: Roles,
    writable: bool,
    /// While it is there, nothing that the views need is deleted on this machine.
    readers: FileReaders,
}

impl SeriesTable {
    /// A table over `views`; `title` names them in `EXPLAIN`.
    ///
    /// # Errors
    /// If the columns of several series cannot be brought together.
    pub(crate) fn try_new(
        engine: Engine,
        url: ObjectStoreUrl,
        views: Vec<SeriesView>,
        title: String,
        shape: Shape,
        text: TextColumns,
        as_of: &AsOf,
    ) -> std::result::Result<Self, Error> {
        let columns = union_columns(&views)?;
        let columns: Vec<FieldRef> = match text {
            TextColumns::AsStored => columns,
            TextColumns::AsViews => columns.into_iter().map(as_view).collect(),
        };
        let mut shown = columns.clone();
        match shape {
            Shape::Series => {}
            Shape::Glob => shown.push(path_field()),
            Shape::Versions => shown.push(version_field()),
        }
        let mut stored = columns;
        stored.push(version_field());
        if views.iter().any(SeriesView::shows_replaced_rows) {
            stored.push(until_field());
        }
        let title = match as_of {
            AsOf::Head => title,
            other => format!("{title} as of {other}"),
        };
        let oldest = views.iter().map(SeriesView::commit).min().unwrap_or_default();
        Ok(Self {
            readers: engine.files().pinned_to(oldest),
            engine,
            url,
            roles: roles_of(&views, &Schema::new(stored.clone())),
            views,
            title,
            schema: Arc::new(Schema::new(shown)),
            stored: Arc::new(Schema::new(stored)),
            writable: shape == Shape::Series && *as_of == AsOf::Head,
        })
    }

    /// The series inside.
    #[must_use]
    pub fn views(&self) -> &[SeriesView] {
        &self.views
    }

    fn time_column(&self) -> Option<TimeColumn<'_>> {
        self.roles.time.as_ref().map(|time| TimeColumn { name: &time.name, unit: time.unit })
    }

    /// The event times that filters leave, as far as they tell.
    fn bounds<'a>(&self, filters: impl Iterator<Item = &'a Expr>) -> TimeBounds {
        let Some(column) = self.time_column() else { return TimeBounds::Range(TimeRange::ALL) };
        filters
            .filter_map(|filter| logical_bounds(filter, column))
            .fold(TimeBounds::Range(TimeRange::ALL), TimeBounds::and)
    }

    fn kept_files(&self, range: TimeRange, stored: &Stored<'_>) -> Vec<ScanFile> {
        by_time(self.views.iter().flat_map(|view| files_of(view, range, stored)).collect())
    }

    /// The stored columns, and which of them a scan shows, filters by, or is ordered by.
    fn stored_for(&self, projection: Option<&[usize]>, filters: &[Expr]) -> Stored<'_> {
        let of_filters: HashSet<&str> =
            filters.iter().flat_map(Expr::column_refs).map(|column| column.name.as_str()).collect();
        let shown: Option<HashSet<&str>> = projection.map(|indices| {
            indices.iter().map(|index| self.schema.field(*index).name().as_str()).collect()
        });
        Stored::new(&self.stored, |name| {
            shown.as_ref().is_none_or(|shown| shown.contains(name))
                || of_filters.contains(name)
                || self.time_name() == Some(name)
        })
    }

    /// The columns that queries see.
    pub(crate) fn shown(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn has_shared_time(&self) -> bool {
        self.roles.time.is_some()
    }

    pub(crate) fn time_name(&self) -> Option<&str> {
        self.roles.time.as_ref().map(|time| time.name.as_str())
    }

    pub(crate) fn time_unit(&self) -> Option<TimeUnit> {
        self.roles.time.as_ref().map(|time| time.unit)
    }

    pub(crate) fn key_names(&self) -> &[String] {
        &self.roles.keys
    }

    /// Whether rows of several series must be read series by series, because some of them have to be
    /// deduplicated, each by its own keys.
    pub(crate) fn is_apart(&self, filters: &[Expr]) -> bool {
        let TimeBounds::Range(range) = self.bounds(filters.iter()) else { return false };
        let stored = Stored::new(&self.stored, |_| false);
        let dirty = |view: &SeriesView| {
            view.schema().dedup() && !is_clean(&by_time(files_of(view, range, &stored).collect()))
        };
        self.views.len() > 1 && self.views.iter().any(dirty)
    }

    /// This table with one of its series.
    fn only(&self, view: &SeriesView) -> Self {
        let views = vec![view.clone()];
        Self {
            engine: self.engine.clone(),
            url: self.url.clone(),
            roles: roles_of(&views, &self.stored),
            views,
            title: view.path().to_string(),
            schema: Arc::clone(&self.schema),
            stored: Arc::clone(&self.stored),
            writable: false,
            readers: self.readers.clone(),
        }
    }

    /// The scan of the rows that may pass `filters`; `None` if there can be none. With `exact`,
    /// rows that do not pass are left out by the scan itself: only for filters on time.
    pub(crate) fn source_with(
        &self,
        state: &dyn Session,
        projection: Option<&[usize]>,
        filters: &[Expr],
        exact: bool,
    ) -> Result<Option<SeriesSource>> {
        self.source(state, projection, filters, None, exact)
    }

    fn source(
        &self,
        state: &dyn Session,
        projection: Option<&[usize]>,
        filters: &[Expr],
        limit: Option<usize>,
        exact: bool,
    ) -> Result<Option<SeriesSource>> {
        let TimeBounds::Range(range) = self.bounds(filters.iter()) else { return Ok(None) };
        let files = self.kept_files(range, &self.stored_for(projection, filters));
        let files = self.prune(state, files, filters)?;
        if files.is_empty() {
            return Ok(None);
        }
        let template = self.template(state);
        let table = Arc::clone(template.table_schema().table_schema());
        let predicate = self.visibility(&files, &table)?;
        let cut = if exact { time_cut(state, filters, range, &table)? } else { None };
        let facts = Arc::new(self.facts(range, files, template, state));
        let projection = self.projection(projection, &table)?;
        SeriesSource::try_new(facts, &projection, predicate, cut, limit).map(Some)
    }

    fn facts(
        &self,
        range: TimeRange,
        files: Vec<ScanFile>,
        template: TieredSource,
        state: &dyn Session,
    ) -> ScanFacts {
        let counts = Counts::of(&files);
        ScanFacts {
            title: self.title.clone(),
            versions: Kept {
                kept: self.views.iter().map(|view| view.version_count_in(range)).sum(),
                of: self.views.iter().map(SeriesView::version_count).sum(),
            },
            files: Kept {
                kept: counts.files,
                of: self.views.iter().map(SeriesView::file_count).sum(),
            },
            row_groups: counts.row_groups,
            rows: counts.rows,
            hot: counts.hot,
            by_time: files,
            url: self.url.clone(),
            template,
            readers: self.readers.clone(),
            roles: self.roles.clone(),
            partitions: state.config().target_partitions(),
            engine: self.engine.clone(),
        }
    }

    /// Leaves out files that column statistics rule out.
    fn prune(
        &self,
        state: &dyn Session,
        files: Vec<ScanFile>,
        filters: &[Expr],
    ) -> Result<Vec<ScanFile>> {
        let usable = filters.iter().filter(|filter| self.may_prune(filter)).cloned();
        let Some(filter) = conjunction(usable) else { return Ok(files) };
        let table = self.table_schema();
        let schema = Arc::clone(table.table_schema());
        let names = DFSchema::try_from(Arc::clone(&schema))?;
        let Ok(predicate) = state.create_physical_expr(filter, &names) else { return Ok(files) };
        let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&schema));
        let Some(pruning) = builder.build(predicate) else { return Ok(files) };
        let statistics: Vec<Arc<Statistics>> =
            files.iter().filter_map(|file| file.file.statistics.clone()).collect();
        let keep = pruning.prune(&PrunableStatistics::new(statistics, schema))?;
        let kept = files.into_iter().zip(keep);
        Ok(kept.filter(|(_, keep)| *keep).map(|(file, _)| file).collect())
    }

    /// Whether a filter may rule out whole files: beyond what time already did, and, where rows are
    /// deduplicated, only by columns that two rows for one another's place have in common.
    fn may_prune(&self, filter: &Expr) -> bool {
        if self.time_column().is_some_and(|time| logical_bounds(filter, time).is_some()) {
            return false;
        }
        filter.column_refs().into_iter().all(|column| {
            let name = &column.name;
            let stable = self.roles.keys.contains(name)
                || self.roles.time.as_ref().is_some_and(|time| time.name == *name)
                || name == PATH_COLUMN;
            name != VERSION_COLUMN && (stable || !self.roles.dedup)
        })
    }

    fn table_schema(&self) -> TableSchema {
        let number = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
        TableSchema::builder(Arc::clone(&self.stored))
            .with_table_partition_cols(vec![
                number(VERSION_BASE_COLUMN),
                path_field(),
                number(VISIBLE_COLUMN),
            ])
            .build()
    }

    fn template(&self, state: &dyn Session) -> TieredSource {
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let readers = CheckedReaders::new(self.readers.clone());
        TieredSource::new(self.table_schema(), options, Arc::new(readers))
    }

    /// The predicate that hides rows of later versions, and those that were replaced by then, if some
    /// file holds any.
    fn visibility(
        &self,
        files: &[ScanFile],
        table: &Schema,
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        if !files.iter().any(|file| file.partly_visible) {
            return Ok(None);
        }
        let visible = || Column::new_with_schema(VISIBLE_COLUMN, table).map(Arc::new);
        let version = version_expr(table)?;
        let written: Arc<dyn PhysicalExpr> =
            Arc::new(BinaryExpr::new(version, Operator::LtEq, visible()?));
        if !files.iter().any(|file| file.row.until.is_some()) {
            return Ok(Some(written));
        }
        // Null in files of rows that were not replaced, which do not have the column.
        let until: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema(UNTIL_COLUMN, table)?);
        let stands = Arc::new(IsNullExpr::new(Arc::clone(&until)));
        let later = Arc::new(BinaryExpr::new(until, Operator::Gt, visible()?));
        let not_replaced = Arc::new(BinaryExpr::new(stands, Operator::Or, later));
        Ok(Some(Arc::new(BinaryExpr::new(written, Operator::And, not_replaced))))
    }

    /// The shown columns at `indices` as expressions over the table schema.
    fn projection(&self, indices: Option<&[usize]>, table: &Schema) -> Result<ProjectionExprs> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let exprs = indices.unwrap_or(&all).iter().map(|index| {
            let name = self.schema.field(*index).name();
            let expr: Arc<dyn PhysicalExpr> = if name == VERSION_COLUMN {
                version_expr(table)?
            } else {
                Arc::new(Column::new_with_schema(name, table)?)
            };
            Ok(ProjectionExpr::new(expr, name))
        });
        Ok(ProjectionExprs::new(exprs.collect::<Result<Vec<_>>>()?))
    }

    /// An empty plan with the columns at `projection`.
    pub(crate) fn nothing(&self, projection: Option<&[usize]>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(indices) => Arc::new(self.schema.project(indices)?),
            None => Arc::clone(&self.schema),
        };
        Ok(Arc::new(EmptyExec::new(schema)))
    }
}

#[async_trait]
impl TableProvider for SeriesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let Some(column) = self.time_column() else {
            return Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()]);
        };
        let kept: Option<TimeRange> = match self.bounds(filters.iter().copied()) {
            TimeBounds::Range(range) => self
                .views
                .iter()
                .flat_map(|view| {
                    let files = view.files(range).map(|file| file.range);
                    files.chain(view.hot_files(range).map(|piece| piece.row().range))
                })
                .reduce(|a, b| a.union(&b)),
            TimeBounds::Nothing => None,
        };
        let answer = |filter: &&Expr| match (logical_bounds(filter, column), kept) {
            (Some(_), None) => TableProviderFilterPushDown::Exact,
            (Some(TimeBounds::Range(range)), Some(kept)) if range.covers(&kept) => {
                TableProviderFilterPushDown::Exact
            }
            _ => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.is_apart(filters) {
            let mut scans = Vec::with_capacity(self.views.len());
            for view in &self.views {
                scans.push(self.only(view).scan(state, projection, filters, None).await?);
            }
            return UnionExec::try_new(scans);
        }
        let projection = projection.map(Vec::as_slice);
        match self.source(state, projection, filters, limit, false)? {
            Some(source) => Ok(source.into_exec()),
            None => self.nothing(projection),
        }
    }

    async fn scan_with_args<'a>(
        &self,
        state: &dyn Session,
        args: ScanArgs<'a>,
    ) -> Result<ScanResult> {
        let filters = args.filters().unwrap_or_default();
        let projection = args.projection().map(<[usize]>::to_vec);
        let plan = self.scan(state, projection.as_ref(), filters, args.limit()).await?;
        Ok(ScanResult::new(plan))
    }

    async fn insert_into(
        &self,
        _: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let view = match self.views.as_slice() {
            [view] if self.writable => view,
            _ => {
                let message = format!("{} cannot be inserted into; name a series", self.title);
                return Err(Error::invalid(message).into());
            }
        };
        if op != InsertOp::Append {
            let message = "a series is only appended to; write INSERT INTO".to_owned();
            return Err(DataFusionError::Plan(message));
        }
        let sink =
            AppendSink::new(self.engine.clone(), view.path().clone(), Arc::clone(&self.schema));
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

/// What holds visible rows of one series that may lie in `range`: files, and pieces in memory.
fn files_of<'a>(
    view: &'a SeriesView,
    range: TimeRange,
    stored: &'a Stored<'_>,
) -> impl Iterator<Item = ScanFile> + 'a {
    let files = view.files(range).map(|row| scan_file(view, row, stored));
    files.chain(view.hot_files(range).map(|piece| hot_file(view, piece, stored)))
}

/// Filters that are ranges of event time as the cut of a scan.
fn time_cut(
    state: &dyn Session,
    filters: &[Expr],
    range: TimeRange,
    table: &SchemaRef,
) -> Result<Option<TimeCut>> {
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(None) };
    let names = DFSchema::try_from(Arc::clone(table))?;
    let predicate = state.create_physical_expr(filter, &names)?;
    Ok(Some(TimeCut { range, predicate }))
}

fn path_field() -> FieldRef {
    Arc::new(Field::new(PATH_COLUMN, DataType::Utf8View, false))
}

/// Absent from files of rows that were not replaced.
fn until_field() -> FieldRef {
    Arc::new(Field::new(UNTIL_COLUMN, DataType::Int64, true))
}

fn version_field() -> FieldRef {
    Arc::new(Field::new(VERSION_COLUMN, DataType::Int64, false))
}

fn as_view(field: FieldRef) -> FieldRef {
    let to = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
        _ => return field,
    };
    Arc::new(field.as_ref().clone().with_data_type(to))
}

fn roles_of(views: &[SeriesView], stored: &Schema) -> Roles {
    let single = views.len() == 1;
    let keys_of = |view: &SeriesView| -> Vec<String> {
        let columns = view.schema().columns();
        view.schema().keys().iter().map(|key| columns.field(*key).name().clone()).collect()
    };
    Roles {
        time: shared_time(views, stored),
        keys: views.first().filter(|_| single).map(keys_of).unwrap_or_default(),
        // Rows of different series never stand for one another: see `SeriesTable::is_apart`.
        dedup: single && views.iter().any(|view| view.schema().dedup()),
        ordered_ties: single,
    }
}

/// The time column, if every series has it under the same name and it means the same.
fn shared_time(views: &[SeriesView], stored: &Schema) -> Option<TimeRole> {
    let first = views.first()?.schema();
    let name = first.time_column();
    let field = stored.field_with_name(name).ok()?;
    let unit = match field.data_type() {
        DataType::Int64 => first.time_unit(),
        other => tidelog_store::series_schema::unit_of(other, None)?,
    };
    let same = views.iter().all(|view| {
        let schema = view.schema();
        schema.time_column() == name
            && (*field.data_type() != DataType::Int64 || schema.time_unit() == unit)
    });
    same.then(|| TimeRole { name: name.to_owned(), unit })
}

/// The columns of all views by name: absent is null, types are widened where nothing is lost.
fn union_columns(views: &[SeriesView]) -> std::result::Result<Vec<FieldRef>, Error> {
    let mut union: Vec<(FieldRef, &SeriesView)> = Vec::new();
    for (position, view) in views.iter().enumerate() {
        let columns = view.schema().columns();
        for field in columns.fields() {
            match union.iter_mut().find(|(known, _)| known.name() == field.name()) {
                Some((known, from)) => *known = widened(known, from, field, view)?,
                None => {
                    let nullable = field.is_nullable() || position > 0;
                    let field = field.as_ref().clone().with_nullable(nullable);
                    union.push((Arc::new(field), view));
                }
            }
        }
        for (known, _) in &mut union {
            if columns.index_of(known.name()).is_err() && !known.is_nullable() {
                *known = Arc::new(known.as_ref().clone().with_nullable(true));
            }
        }
    }
    Ok(union.into_iter().map(|(field, _)| field).collect())
}

fn widened(
    known: &FieldRef,
    from: &SeriesView,
    field: &FieldRef,
    view: &SeriesView,
) -> std::result::Result<FieldRef, Error> {
    let data_type = wider(known.data_type(), field.data_type()).ok_or_else(|| {
        Error::invalid(format!(
            "column {:?} is {} in {} and {} in {}, which have no common type; query them apart",
            field.name(),
            known.data_type(),
            from.path(),
            field.data_type(),
            view.path()
        ))
    })?;
    let nullable = known.is_nullable() || field.is_nullable();
    Ok(Arc::new(Field::new(field.name(), data_type, nullable)))
}

/// The type that holds every value of both, if there is one.
fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    let text = |t: &T| matches!(t, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let rank = |t: &T| match t {
        T::Int8 => Some(8),
        T::Int16 => Some(16),
        T::Int32 => Some(32),
        T::Int64 => Some(64),
        _ => None,
    };
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (T::Dictionary(_, inner), other) | (other, T::Dictionary(_, inner)) => wider(inner, other),
        _ if text(a) && text(b) => Some(T::Utf8View),
        (T::Timestamp(x, zone), T::Timestamp(y, other)) if zone == other => {
            let finer = if arrow_nanos(*x) <= arrow_nanos(*y) { x } else { y };
            Some(T::Timestamp(*finer, zone.clone()))
        }
        (T::Float32, T::Float64) | (T::Float64, T::Float32) => Some(T::Float64),
        (T::Float64, int) | (int, T::Float64) if rank(int).is_some_and(|bits| bits <= 32) => {
            Some(T::Float64)
        }
        _ => {
            let (x, y) = (rank(a)?, rank(b)?);
            Some(if x >= y { a.clone() } else { b.clone() })
        }
    }
}

const fn arrow_nanos(unit: ArrowUnit) -> i64 {
    match unit {
        ArrowUnit::Second => TimeUnit::Second.nanos(),
        ArrowUnit::Millisecond => TimeUnit::Millisecond.nanos(),
        ArrowUnit::Microsecond => TimeUnit::Microsecond.nanos(),
        ArrowUnit::Nanosecond => TimeUnit::Nanosecond.nanos(),
    }
}
