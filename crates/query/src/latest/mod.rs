//! The newest row of each key, for the Rust API and the command line.
//!
//! What lies in memory whole, in the warm tier and in pieces that wait for their flush, is answered
//! there (`in_memory`), without a plan: that takes longer than all else. Anything else is planned
//! like `SELECT DISTINCT ON (key) * … ORDER BY key, time DESC`.

mod in_memory;
mod newest;

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use tidelog_core::{AsOf, PathPattern, TimeRange};
use tidelog_store::{PATH_COLUMN, SeriesView};

use crate::error::Error;
use crate::limits;
use crate::read::{no_column, quoted, time_filter};
use crate::session::{Queries, QueryStream};
use crate::table::{SeriesTable, Shape, TextColumns};

/// Whose newest rows to read. The default is those of each key of a series at head.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LatestOptions {
    /// The columns whose values tell what has a newest row. If absent, the key columns of the series, and
    /// of several series `_path`. None at all is one row.
    pub by: Option<Vec<String>>,
    /// Only rows with event times in this range, both ends included; all if absent.
    pub range: Option<TimeRange>,
    /// The point in history.
    pub as_of: AsOf,
    /// The columns to read, in this order; all if absent.
    pub columns: Option<Vec<String>>,
    /// A condition on rows, as SQL.
    pub filter: Option<String>,
}

impl LatestOptions {
    /// Reads one row for each value of these columns. Default: the key columns of the series, and of
    /// several series `_path`.
    #[must_use]
    pub fn with_by<N: Into<String>>(mut self, columns: impl IntoIterator<Item = N>) -> Self {
        self.by = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Looks only at rows with event times in `range`. Default: all.
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

    /// Looks only at rows for which the SQL condition holds. Default: all.
    #[must_use]
    pub fn with_filter(mut self, sql: impl Into<String>) -> Self {
        self.filter = Some(sql.into());
        self
    }
}

impl Queries {
    /// The newest row of each key, as one batch in order of the keys, nulls last. Of rows of a key that
    /// share the newest event time it is any one.
    ///
    /// # Errors
    /// If nothing matches, the point in history cannot be read, an option names a column that is not
    /// there, several series have no time column in common, or the rows do not fit into memory.
    pub async fn read_latest(
        &self,
        pattern: &PathPattern,
        options: &LatestOptions,
    ) -> Result<RecordBatch, Error> {
        let views = self.latest_views(pattern, options).await?;
        let by = by(&views, pattern, options);
        if let Some(rows) = self.in_memory(&views, pattern, &by, options).await {
            return Ok(rows);
        }
        self.planned(views, pattern, &by, options).await
    }

    /// The same, if no plan is needed for it: for tests of when that is so.
    ///
    /// # Errors
    /// As [`Self::read_latest`].
    #[doc(hidden)]
    pub async fn read_latest_in_memory(
        &self,
        pattern: &PathPattern,
        options: &LatestOptions,
    ) -> Result<Option<RecordBatch>, Error> {
        let views = self.latest_views(pattern, options).await?;
        let by = by(&views, pattern, options);
        Ok(self.in_memory(&views, pattern, &by, options).await)
    }

    async fn latest_views(
        &self,
        pattern: &PathPattern,
        options: &LatestOptions,
    ) -> Result<Vec<SeriesView>, Error> {
        let head = self.head().await?;
        Ok(self.engine().series_matching(&head, pattern, &options.as_of).await?)
    }

    async fn in_memory(
        &self,
        views: &[SeriesView],
        pattern: &PathPattern,
        by: &[String],
        options: &LatestOptions,
    ) -> Option<RecordBatch> {
        match views {
            [view] if pattern.as_path().is_some() && options.filter.is_none() => {
                in_memory::read(self, view, by, options).await
            }
            _ => None,
        }
    }

    async fn planned(
        &self,
        views: Vec<SeriesView>,
        pattern: &PathPattern,
        by: &[String],
        options: &LatestOptions,
    ) -> Result<RecordBatch, Error> {
        let shape = if pattern.as_path().is_some() { Shape::Series } else { Shape::Glob };
        let table = Arc::new(SeriesTable::try_new(
            self.engine().clone(),
            self.url().clone(),
            views,
            pattern.to_string(),
            shape,
            TextColumns::AsStored,
            &options.as_of,
        )?);
        let schema = schema(table.shown(), options)?;
        let state = self.state();
        let (context, task) = (SessionContext::new_with_state(state.clone()), state.task_ctx());
        let frame = context.read_table(Arc::<SeriesTable>::clone(&table))?;
        let plan = frame_of(frame, &table, by, &schema, options)?.create_physical_plan().await?;
        let mut rows = QueryStream::start(plan, &task)?;
        let consumer = MemoryConsumer::new("newest rows of keys");
        let (held, mut batches) = (consumer.register(task.memory_pool()), Vec::new());
        while let Some(batch) = rows.try_next().await? {
            held.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        let arrow = |error| Error::Execution { message: format!("{error}") };
        let rows = concat_batches(&rows.schema(), &batches).map_err(arrow)?;
        // A plan takes any column for nullable.
        RecordBatch::try_new(schema, rows.columns().to_vec()).map_err(arrow)
    }
}

/// What is read as a plan over a table.
fn frame_of(
    mut frame: DataFrame,
    table: &SeriesTable,
    by: &[String],
    schema: &Schema,
    options: &LatestOptions,
) -> Result<DataFrame, Error> {
    for name in by {
        table.shown().index_of(name).map_err(|_| no_column(name, table.shown()))?;
    }
    let time = table.time_name().ok_or_else(|| {
        Error::invalid(
            "the series have no time column in common, so it cannot be told which of their rows are \
             newer; read them one by one",
        )
    })?;
    for filter in time_filter(table, options.range.unwrap_or(TimeRange::ALL))? {
        frame = frame.filter(filter)?;
    }
    if let Some(sql) = &options.filter {
        limits::check(sql)?;
        let condition = frame.parse_sql_expr(sql)?;
        frame = frame.filter(condition)?;
    }
    let shown: Vec<Expr> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let newest = quoted(time).sort(false, false);
    if by.is_empty() {
        return Ok(frame.sort(vec![newest])?.limit(0, Some(1))?.select(shown)?);
    }
    let keys = || by.iter().map(|name| quoted(name));
    let order = keys().map(|key| key.sort(true, false)).chain([newest]).collect();
    Ok(frame.distinct_on(keys().collect(), shown, Some(order))?)
}

/// The columns by which rows are told apart, each once.
fn by(views: &[SeriesView], pattern: &PathPattern, options: &LatestOptions) -> Vec<String> {
    let named = match (&options.by, views) {
        (Some(by), _) => by.clone(),
        (None, [view]) if pattern.as_path().is_some() => {
            let columns = view.schema().columns();
            view.schema().keys().iter().map(|key| columns.field(*key).name().clone()).collect()
        }
        (None, _) => vec![PATH_COLUMN.to_owned()],
    };
    let mut by = Vec::with_capacity(named.len());
    for name in named {
        if !by.contains(&name) {
            by.push(name);
        }
    }
    by
}

/// The columns that are read, out of those of a table.
fn schema(shown: &SchemaRef, options: &LatestOptions) -> Result<SchemaRef, Error> {
    let Some(columns) = &options.columns else { return Ok(Arc::clone(shown)) };
    let find = |name: &String| shown.index_of(name).map_err(|_| no_column(name, shown));
    let columns = columns.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    shown.project(&columns).map(Arc::new).map_err(|error| Error::invalid(error.to_string()))
}
