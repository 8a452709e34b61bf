//! A condition on the rows of one series, evaluated batch by batch outside any plan.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use tidelog_core::{AsOf, TreePath};
use tidelog_oplog::FileRow;
use tidelog_store::{RowCondition, RowFilter, SeriesSchema, SeriesView};

use crate::error::Error;
use crate::limits;
use crate::round_literals::rounded;
use crate::scan::files::{Stored, statistics};
use crate::session::Queries;

impl Queries {
    /// A condition in SQL on the columns of the series at `path`, for who reads its files itself.
    ///
    /// # Errors
    /// If there is no such series, the text is no condition on a single row, is too large, or names a
    /// column that the series does not have.
    pub async fn row_condition(&self, path: &TreePath, sql: &str) -> Result<RowCondition, Error> {
        limits::check(sql)?;
        let view = self.engine().series(path, &AsOf::Head).await?;
        let filter = self.row_filter(&view, sql)?;
        Ok(RowCondition { text: sql.to_owned(), filter: Arc::new(filter) })
    }

    fn row_filter(&self, view: &SeriesView, sql: &str) -> Result<Condition, Error> {
        let state = self.state();
        let all = view.schema().columns();
        let names = Arc::new(DFSchema::try_from(all.as_ref().clone())?);
        let expr = state.create_logical_expr(sql, &names)?;
        refuse_other_rows(&expr)?;
        let expr = simplified(rounded(expr, &names)?, &names)?;
        let used = expr.column_refs();
        let used = all.fields().iter().filter(|field| used.iter().any(|c| c.name == *field.name()));
        let schema = Schema::new(used.cloned().collect::<Vec<_>>());
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        let (names, used) = (DFSchema::try_from(schema.clone())?, Arc::new(schema));
        let expr = state.create_physical_expr(expr, &names)?;
        match expr.data_type(names.as_arrow())? {
            DataType::Boolean => Ok(Condition {
                columns,
                // What rules out nothing is as good as none.
                pruning: PruningPredicateBuilder::new()
                    .with_file_schema(Arc::clone(&used))
                    .build(Arc::clone(&expr)),
                expr,
                used,
                schema: view.schema().clone(),
            }),
            // Null is not true.
            DataType::Null => Ok(Condition {
                columns: Vec::new(),
                pruning: None,
                expr: lit(false),
                used: Arc::new(Schema::empty()),
                schema: view.schema().clone(),
            }),
            other => Err(Error::invalid(format!(
                "{sql:?} is no condition: it yields {other}; write a comparison such as \"value > 5\""
            ))),
        }
    }
}

/// The same condition with types made equal and constants computed, some of which nothing else can do.
fn simplified(condition: Expr, schema: &DFSchemaRef) -> Result<Expr, Error> {
    let context = SimplifyContext::builder().with_schema(Arc::clone(schema)).with_current_time();
    let simplifier = ExprSimplifier::new(context.build());
    let coerced = simplifier.coerce(condition, schema.as_ref())?;
    Ok(simplifier.simplify(coerced)?)
}

/// Refuses what cannot be told of a row by itself, or is told otherwise each time.
fn refuse_other_rows(expr: &Expr) -> Result<(), Error> {
    let refuse = |what: &str| {
        Err(Error::invalid(format!(
            "the condition {expr} has {what}, which cannot be told of a row by itself; compare columns with \
             constants"
        )))
    };
    let is_of_others = expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        ))
    })?;
    if is_of_others {
        return refuse("a subquery or an aggregate");
    }
    if expr.is_volatile() {
        return refuse("a function that yields something else at each call");
    }
    Ok(())
}

/// An expression over some columns of a series.
#[derive(Debug)]
struct Condition {
    columns: Vec<String>,
    expr: Arc<dyn PhysicalExpr>,
    /// The same of the statistics of the columns that it names.
    pruning: Option<Arc<PruningPredicate>>,
    used: SchemaRef,
    schema: SeriesSchema,
}

impl RowFilter for Condition {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn matches(&self, rows: &RecordBatch) -> Result<BooleanArray, String> {
        let matches = || {
            let values = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
            as_boolean_array(&values).cloned()
        };
        matches().map_err(|error| error.strip_backtrace())
    }

    fn may_match(&self, file: &FileRow) -> bool {
        let Some(pruning) = &self.pruning else { return true };
        let statistics =
            vec![Arc::new(statistics(&self.schema, file, &Stored::new(&self.used, |_| true)))];
        let kept = pruning.prune(&PrunableStatistics::new(statistics, Arc::clone(&self.used)));
        // What cannot be told is looked at.
        kept.map_or(true, |kept| kept.first().copied().unwrap_or(true))
    }
}
