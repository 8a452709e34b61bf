//! Reads by options: what the Rust API and the command line ask for without SQL.

use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit as ArrowUnit};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::scalar::ScalarValue;
use std::sync::Arc;
use tidelog_core::{AsOf, PathPattern, TimeRange};
use tidelog_store::{PATH_COLUMN, SeriesView};

use crate::error::Error;
use crate::limits;
use crate::session::{Queries, QueryStream};
use crate::table::{SeriesTable, Shape, TextColumns};

/// The instant of a row among series without a common time column.
const INSTANT_COLUMN: &str = "__instant";

/// What to read of a series or glob. The default is everything at head, in order of event time.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Event times to read, both ends included; all if absent.
    pub range: Option<TimeRange>,
    /// The point in history.
    pub as_of: AsOf,
    /// The columns, in this order; all if absent.
    pub columns: Option<Vec<String>>,
    /// A condition on rows, as SQL.
    pub filter: Option<String>,
    /// Columns to order by instead of event time, with `true` for descending.
    pub order_by: Vec<(String, bool)>,
    /// Newest first.
    pub descending: bool,
    /// At most this many rows.
    pub limit: Option<usize>,
    /// Rows per batch, at most.
    pub batch_size: Option<usize>,
}

impl ReadOptions {
    /// Reads only event times in `range`. Default: all.
    #[must_use]
    pub fn with_range(mut self, range: TimeRange) -> Self {
        self.range = Some(range);
        self
    }

    /// Reads as of a point in history. Default: head.
    #[must_use]
    pub fn with_as_of(mut self, as_of: AsOf) -> Self {
        self.as_of = as_of;
        self
    }

    /// Reads only these columns, in this order. Default: all.
    #[must_use]
    pub fn with_columns<N: Into<String>>(mut self, columns: impl IntoIterator<Item = N>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Reads only rows for which the SQL condition holds. Default: all.
    #[must_use]
    pub fn with_filter(mut self, sql: impl Into<String>) -> Self {
        self.filter = Some(sql.into());
        self
    }

    /// Orders by a column, after those named before; `descending` turns it round. Default: event
    /// time, ascending.
    #[must_use]
    pub fn with_order_by(mut self, column: impl Into<String>, descending: bool) -> Self {
        self.order_by.push((column.into(), descending));
        self
    }

    /// Reads newest first. Default: oldest first.
    #[must_use]
    pub fn with_descending(mut self, descending: bool) -> Self {
        self.descending = descending;
        self
    }

    /// Reads at most `rows` rows. Default: all.
    #[must_use]
    pub fn with_limit(mut self, rows: usize) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Yields batches of at most `rows` rows. Default: 8192.
    #[must_use]
    pub fn with_batch_size(mut self, rows: usize) -> Self {
        self.batch_size = Some(rows.max(1));
        self
    }

    /// Whether rows can be taken straight from an ordered scan.
    fn is_plain(&self) -> bool {
        self.filter.is_none() && self.order_by.is_empty() && !self.descending
    }
}

/// A read that is planned and can be started.
#[derive(Debug)]
pub struct ReadPlan {
    plan: Arc<dyn ExecutionPlan>,
    state: SessionState,
    total_versions: u64,
    time_range: Option<TimeRange>,
}

impl ReadPlan {
    /// The columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// How many visible versions touch the range.
    #[must_use]
    pub fn total_versions(&self) -> u64 {
        self.total_versions
    }

    /// What those versions cover of the range; `None` if nothing.
    #[must_use]
    pub fn time_range(&self) -> Option<TimeRange> {
        self.time_range
    }

    /// Starts the read.
    ///
    /// # Errors
    /// If the plan cannot be started.
    pub fn start(&self) -> Result<QueryStream, Error> {
        QueryStream::start(Arc::clone(&self.plan), &self.state.task_ctx())
    }
}

impl Queries {
    /// Plans a read.
    ///
    /// # Errors
    /// If nothing matches, the point in history cannot be read, or an option names a column that is
    /// not there.
    pub async fn read(
        &self,
        pattern: &PathPattern,
        options: &ReadOptions,
    ) -> Result<ReadPlan, Error> {
        let head = self.head().await?;
        let views = self.engine().series_matching(&head, pattern, &options.as_of).await?;
        let range = options.range.unwrap_or(TimeRange::ALL);
        let (total_versions, time_range) = covered(&views, range);
        let shape = if pattern.as_path().is_some() { Shape::Series } else { Shape::Glob };
        let table = SeriesTable::try_new(
            self.engine().clone(),
            self.url().clone(),
            views,
            pattern.to_string(),
            shape,
            TextColumns::AsStored,
            &options.as_of,
        )?;
        let state = self.read_state(options);
        let filter = if table.has_shared_time() { time_filter(&table, range)? } else { Vec::new() };
        let plan = if !table.has_shared_time() {
            let frame = self.apart(&table, &state, range, &options.as_of)?;
            general_plan(frame, &table, Vec::new(), options).await?
        } else if options.is_plain() && !table.is_apart(&filter) {
            ordered_scan(&table, &state, filter, options)?
        } else {
            let table = Arc::new(table);
            let context = SessionContext::new_with_state(state.clone());
            let frame = context.read_table(Arc::<SeriesTable>::clone(&table))?;
            general_plan(frame, &table, filter, options).await?
        };
        Ok(ReadPlan { plan, state, total_versions, time_range })
    }

    /// Series without a common time column, each cut to `range` by its own, brought to the columns
    /// of `table`, with the instant of each row in [`INSTANT_COLUMN`].
    fn apart(
        &self,
        table: &SeriesTable,
        state: &SessionState,
        range: TimeRange,
        as_of: &AsOf,
    ) -> Result<DataFrame, Error> {
        let context = SessionContext::new_with_state(state.clone());
        let mut all: Option<DataFrame> = None;
        for view in table.views() {
            let own = SeriesTable::try_new(
                self.engine().clone(),
                self.url().clone(),
                vec![view.clone()],
                view.path().to_string(),
                Shape::Series,
                TextColumns::AsStored,
                as_of,
            )?;
            let filters = time_filter(&own, range)?;
            let columns = columns_of(table, view);
            let mut frame = context.read_table(Arc::new(own))?;
            for filter in filters {
                frame = frame.filter(filter)?;
            }
            let frame = frame.select(columns)?;
            all = Some(match all {
                Some(before) => before.union(frame)?,
                None => frame,
            });
        }
        all.ok_or_else(|| Error::invalid("there is no series to read"))
    }

    fn read_state(&self, options: &ReadOptions) -> SessionState {
        match options.batch_size {
            None => self.state(),
            Some(rows) => {
                let state = self.state();
                let config = state.config().clone().with_batch_size(rows);
                SessionStateBuilder::new_from_existing(state).with_config(config).build()
            }
        }
    }
}

/// The columns of `table` out of one of its series: absent ones null, the path, the instant.
fn columns_of(table: &SeriesTable, view: &SeriesView) -> Vec<Expr> {
    let own = view.schema().columns();
    let mut exprs: Vec<Expr> = Vec::new();
    for field in table.shown().fields() {
        let name = field.name();
        let expr = if name == PATH_COLUMN {
            lit(ScalarValue::Utf8View(Some(view.path().to_string())))
        } else if own.index_of(name).is_ok() {
            cast(quoted(name), field.data_type().clone())
        } else {
            cast(lit(ScalarValue::Null), field.data_type().clone())
        };
        exprs.push(expr.alias(name));
    }
    let time = quoted(view.schema().time_column());
    let counted = match own.field(view.schema().time_index()).data_type() {
        DataType::Int64 => time * lit(view.schema().time_unit().nanos()),
        _ => time,
    };
    let instant = DataType::Timestamp(ArrowUnit::Nanosecond, Some("UTC".into()));
    exprs.push(cast(counted, instant).alias(INSTANT_COLUMN));
    exprs
}

fn covered(views: &[SeriesView], range: TimeRange) -> (u64, Option<TimeRange>) {
    let mut versions = 0;
    let mut union: Option<TimeRange> = None;
    for found in views.iter().flat_map(|view| view.versions(range)).filter_map(|row| row.range) {
        versions += 1;
        union = Some(union.map_or(found, |union| union.union(&found)));
    }
    (versions, union.and_then(|union| union.intersect(&range)))
}

/// The scan itself, in order of event time, with everything pushed into it.
fn ordered_scan(
    table: &SeriesTable,
    state: &SessionState,
    filter: Vec<Expr>,
    options: &ReadOptions,
) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let projection = projection(table, options)?;
    let Some(source) = table.source_with(state, projection.as_deref(), &filter, true)? else {
        return Ok(table.nothing(projection.as_deref())?);
    };
    let ordered = source.into_ordered().ok_or_else(|| {
        Error::invalid("more files overlap than can be merged at once; order the read by a column")
    })?;
    let plan = ordered.into_exec();
    match options.limit {
        None => Ok(plan),
        Some(rows) => Ok(match plan.with_fetch(Some(rows)) {
            Some(limited) => limited,
            None => Arc::new(datafusion::physical_plan::limit::GlobalLimitExec::new(
                plan,
                0,
                Some(rows),
            )),
        }),
    }
}

fn projection(table: &SeriesTable, options: &ReadOptions) -> Result<Option<Vec<usize>>, Error> {
    let Some(columns) = &options.columns else { return Ok(None) };
    let schema = table.shown();
    columns
        .iter()
        .map(|name| schema.index_of(name).map_err(|_| no_column(name, schema)))
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}

pub(crate) fn no_column(name: &str, schema: &SchemaRef) -> Error {
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    Error::invalid(format!("there is no column {name:?}; there are {}", known.join(", ")))
}

/// Filters, orders and limits as a query plan.
async fn general_plan(
    mut frame: DataFrame,
    table: &SeriesTable,
    filter: Vec<Expr>,
    options: &ReadOptions,
) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let sorts = sorts(table, options)?;
    let schema = Arc::clone(table.shown());
    let columns = match projection(table, options)? {
        // The instant by which series without a common time column are ordered is not shown.
        None if !table.has_shared_time() => Some((0..schema.fields().len()).collect()),
        columns => columns,
    };
    for filter in filter {
        frame = frame.filter(filter)?;
    }
    if let Some(sql) = &options.filter {
        limits::check(sql)?;
        let condition = frame.parse_sql_expr(sql)?;
        frame = frame.filter(condition)?;
    }
    if !sorts.is_empty() {
        frame = frame.sort(sorts)?;
    }
    if let Some(rows) = options.limit {
        frame = frame.limit(0, Some(rows))?;
    }
    if let Some(columns) = columns {
        let exprs = columns.into_iter().map(|index| quoted(schema.field(index).name()));
        frame = frame.select(exprs.collect::<Vec<_>>())?;
    }
    Ok(frame.create_physical_plan().await?)
}

/// A column by its exact name.
pub(crate) fn quoted(name: &str) -> Expr {
    Expr::Column(datafusion::common::Column::new_unqualified(name))
}

fn sorts(table: &SeriesTable, options: &ReadOptions) -> Result<Vec<Sort>, Error> {
    if !options.order_by.is_empty() {
        return options
            .order_by
            .iter()
            .map(|(name, descending)| {
                table.shown().index_of(name).map_err(|_| no_column(name, table.shown()))?;
                Ok(quoted(name).sort(!descending, true))
            })
            .collect();
    }
    let ascending = !options.descending;
    let mut sorts: Vec<Sort> = Vec::new();
    if let Some(name) = table.time_name() {
        sorts.push(quoted(name).sort(ascending, true));
        if ascending {
            sorts.extend(table.key_names().iter().map(|key| quoted(key).sort(true, true)));
        }
    } else {
        sorts.push(quoted(INSTANT_COLUMN).sort(ascending, true));
        sorts.push(quoted(PATH_COLUMN).sort(true, true));
    }
    Ok(sorts)
}

/// The range as comparisons of the time column with literals of its own type.
pub(crate) fn time_filter(table: &SeriesTable, range: TimeRange) -> Result<Vec<Expr>, Error> {
    if range == TimeRange::ALL {
        return Ok(Vec::new());
    }
    let Some((name, unit)) = table.time_name().zip(table.time_unit()) else {
        return Err(Error::invalid(
            "the series have no time column in common, so a range cannot be read of all; read \
             them one by one",
        ));
    };
    let field = table.shown().field_with_name(name).map_err(|e| Error::invalid(e.to_string()))?;
    let literal = |value: i64| {
        time_scalar(value, field.data_type())
            .map(lit)
            .ok_or_else(|| Error::invalid(format!("{name} does not tell time")))
    };
    let mut filters = Vec::new();
    if range.start() > TimeRange::ALL.start() {
        filters.push(quoted(name).gt_eq(literal(range.start().ceil_to(unit))?));
    }
    if range.end() < TimeRange::ALL.end() {
        filters.push(quoted(name).lt_eq(literal(range.end().floor_to(unit))?));
    }
    Ok(filters)
}

fn time_scalar(value: i64, data_type: &DataType) -> Option<ScalarValue> {
    Some(match data_type {
        DataType::Timestamp(ArrowUnit::Second, zone) => {
            ScalarValue::TimestampSecond(Some(value), zone.clone())
        }
        DataType::Timestamp(ArrowUnit::Millisecond, zone) => {
            ScalarValue::TimestampMillisecond(Some(value), zone.clone())
        }
        DataType::Timestamp(ArrowUnit::Microsecond, zone) => {
            ScalarValue::TimestampMicrosecond(Some(value), zone.clone())
        }
        DataType::Timestamp(ArrowUnit::Nanosecond, zone) => {
            ScalarValue::TimestampNanosecond(Some(value), zone.clone())
        }
        DataType::Date32 => ScalarValue::Date32(i32::try_from(value).ok()),
        DataType::Date64 => ScalarValue::Date64(Some(value)),
        DataType::Int64 => ScalarValue::Int64(Some(value)),
        _ => return None,
    })
}
