//! A piece in memory fitted to a scan: expressions over its own columns, the rows to look at.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::simplifier::PhysicalExprSimplifier;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr_adapter::rewrite::rewrite_input_file_name_in_projection;
use datafusion::physical_expr_adapter::{
    PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use datafusion::physical_optimizer::pruning::FilePruner;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use datafusion::scalar::ScalarValue;
use tidelog_core::TimeRange;

use super::HotPiece;
use super::rows::HotRows;

/// Opens pieces for one partition of a scan.
#[derive(Debug)]
pub(super) struct HotOpener {
    pub(super) table: TableSchema,
    pub(super) projection: Option<ProjectionExprs>,
    pub(super) predicate: Option<Arc<dyn PhysicalExpr>>,
    pub(super) range: TimeRange,
    pub(super) newest_first: bool,
    pub(super) batch_rows: usize,
    pub(super) limit: Option<usize>,
    pub(super) adapters: Arc<dyn PhysicalExprAdapterFactory>,
    pub(super) metrics: ExecutionPlanMetricsSet,
    pub(super) partition: usize,
}

/// What a scan makes of rows, as expressions over the columns of one piece.
struct Fitted {
    predicate: Option<Arc<dyn PhysicalExpr>>,
    projection: Vec<Arc<dyn PhysicalExpr>>,
}

impl HotOpener {
    /// The rows of a piece, or of the part of it that `file` names.
    pub(super) fn open(&self, file: &PartitionedFile, piece: &HotPiece) -> Result<HotRows> {
        let missing = || DataFusionError::Internal("a scan has no projection".to_owned());
        let projection = self.projection.clone().ok_or_else(missing)?;
        let schema = Arc::new(projection.project_schema(self.table.table_schema())?);
        let rows = self.stored(piece)?;
        let literals = self.partition_values(file);
        let folded = |expr| replace_columns_with_literals(expr, &literals);
        let predicate = self.predicate.clone().map(folded).transpose()?;
        let projection = projection.try_map_exprs(folded)?;
        let name = file.object_meta.location.as_ref();
        let projection = rewrite_input_file_name_in_projection(projection, name)?;
        let places = self.places(file, piece)?;
        let pruner = predicate.clone().filter(|_| places.len() > self.batch_rows);
        let pruner = pruner.and_then(|predicate| self.pruner(predicate, file));
        let fitted = self.fitted(predicate, projection, &rows.schema())?;
        let (rows, fitted) = fitted.over_used(&rows)?;
        let metrics = MetricBuilder::new(&self.metrics);
        Ok(HotRows::new(rows, places, schema, self.batch_rows)
            .with_limit(self.limit)
            .with_predicate(fitted.predicate)
            .with_projection(fitted.projection)
            .with_pruner(pruner)
            .with_newest_first(self.newest_first)
            .with_looked_at(metrics.counter("hot_rows_scanned", self.partition)))
    }

    /// The columns of a piece, and those that a plan may ask of any file besides: the number of each
    /// row.
    fn stored(&self, piece: &HotPiece) -> Result<RecordBatch> {
        let batch = piece.rows.batch();
        let numbers = self.table.virtual_columns();
        if numbers.is_empty() {
            return Ok(batch.clone());
        }
        let rows = i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        let mut columns = batch.columns().to_vec();
        for field in numbers.iter() {
            if *field.data_type() != DataType::Int64 {
                let message = format!("rows in memory have no column {}", field.name());
                return Err(DataFusionError::NotImplemented(message));
            }
            columns.push(Arc::new(Int64Array::from_iter_values(0..rows)));
        }
        let schema = with_fields(&batch.schema(), numbers);
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn partition_values(&self, file: &PartitionedFile) -> HashMap<String, ScalarValue> {
        let fields = self.table.table_partition_cols().iter();
        let values = fields.zip(&file.partition_values);
        values.map(|(field, value)| (field.name().clone(), value.clone())).collect()
    }

    /// The rows to look at: those of the file's byte range, as far as they are in the range of time.
    ///
    /// A piece has no bytes to be cut by, so each of its rows counts as so many of them: whatever
    /// ranges a plan divides it into, every row is read once.
    fn places(&self, file: &PartitionedFile, piece: &HotPiece) -> Result<Range<usize>> {
        let rows = piece.rows.batch().num_rows();
        let row_at = |byte: i64| {
            let byte = u128::try_from(byte).unwrap_or_default();
            let row = byte * rows as u128 / u128::from(file.object_meta.size.max(1));
            usize::try_from(row).unwrap_or(rows).min(rows)
        };
        let part = file.range.as_ref();
        let part = part.map_or(0..rows, |part| row_at(part.start)..row_at(part.end));
        if self.range.covers(&piece.rows.row().range) {
            return Ok(part);
        }
        let inside = piece.rows.rows_within(&piece.schema, self.range);
        let inside = inside.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let start = part.start.max(inside.start);
        Ok(start..part.end.min(inside.end).max(start))
    }

    /// What may tell, while the scan goes on, that no row of the piece can be wanted any more.
    fn pruner(
        &self,
        predicate: Arc<dyn PhysicalExpr>,
        file: &PartitionedFile,
    ) -> Option<FilePruner> {
        FilePruner::try_new(predicate, self.table.file_schema(), file, Count::new())
    }

    /// The expressions brought to the columns of a piece: absent ones null, types cast.
    fn fitted(
        &self,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        projection: ProjectionExprs,
        own: &SchemaRef,
    ) -> Result<Fitted> {
        let logical = with_fields(self.table.file_schema(), self.table.virtual_columns());
        let adapter = self.adapters.create(logical, Arc::clone(own))?;
        let simplifier = PhysicalExprSimplifier::new(own);
        let fit = |expr| simplifier.simplify(adapter.rewrite(expr)?);
        let projection = projection.as_ref().iter().map(|shown| fit(Arc::clone(&shown.expr)));
        Ok(Fitted {
            predicate: predicate.map(fit).transpose()?,
            projection: projection.collect::<Result<_>>()?,
        })
    }
}

impl Fitted {
    /// The same over those columns of `rows` alone that it uses.
    fn over_used(self, rows: &RecordBatch) -> Result<(RecordBatch, Self)> {
        let all = self.projection.iter().chain(&self.predicate);
        let used: BTreeSet<usize> =
            all.flat_map(collect_columns).map(|column| column.index()).collect();
        let used: Vec<usize> = used.into_iter().collect();
        let rows = rows.project(&used)?;
        let schema = rows.schema();
        let moved = |expr| reassign_expr_columns(expr, &schema);
        let fitted = Self {
            predicate: self.predicate.map(moved).transpose()?,
            projection: self.projection.into_iter().map(moved).collect::<Result<_>>()?,
        };
        Ok((rows, fitted))
    }
}

fn with_fields(schema: &SchemaRef, more: &Fields) -> SchemaRef {
    if more.is_empty() {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().chain(more.iter()).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
