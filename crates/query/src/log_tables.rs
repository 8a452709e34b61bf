//! The operation log as the SQL tables `tidelog.tree`, `tidelog.versions`, `tidelog.files` and
//! `tidelog.store`.
//!
//! Rows are read part by part, each checked against its hash, as the query takes them. A filter on
//! the path skips parts by the statistics in their commits.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::compute::kernels::cmp::eq;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use tidelog_oplog::Log;
use tidelog_store::Head;

use crate::error::Error;

/// The names of the tables.
pub(crate) const NAMES: [&str; 4] = ["tree", "versions", "files", "store"];

const TREE: [&str; 7] =
    ["commit_version", "timestamp", "op", "entry_type", "node_id", "path", "options"];
const STORE: [&str; 7] =
    ["commit_version", "timestamp", "op", "node_id", "path", "version", "detail"];

/// Whether a series can be read as of a version; no column of the log, which never changes.
const READABLE: &str = "readable";

const VERSIONS: [&str; 13] = [
    "commit_version",
    "timestamp",
    "op",
    "node_id",
    "path",
    "version",
    "rows",
    "min_event_time",
    "max_event_time",
    "event_time_column",
    "transaction_id",
    "detail",
    READABLE,
];
const FILES: [&str; 24] = [
    "commit_version",
    "timestamp",
    "op",
    "node_id",
    "path",
    "file_id",
    "location",
    "size",
    "rows",
    "row_groups",
    "min_event_time",
    "max_event_time",
    "min_version",
    "max_version",
    "version_base",
    "file_order",
    "partition",
    "codec",
    "row_group_rows",
    "unique_rows",
    "superseded",
    "min_until",
    "max_until",
    "hash",
];

/// The table `name` of the log as it stands in `head`.
pub(crate) fn table(name: &str, log: Log, head: Head) -> Result<Option<Arc<dyn TableProvider>>> {
    let (kind, columns): (&'static str, &'static [&'static str]) = match name {
        "tree" => ("tree", &TREE),
        "versions" => ("version", &VERSIONS),
        "files" => ("file", &FILES),
        "store" => ("store", &STORE),
        _ => return Ok(None),
    };
    let log_schema = tidelog_oplog::log_schema();
    let fields = columns
        .iter()
        .map(|name| match *name {
            READABLE => Ok(Field::new(READABLE, DataType::Boolean, false)),
            name => Ok(shown(log_schema.field_with_name(name)?)),
        })
        .collect::<Result<Vec<Field>>>()?;
    let schema = Arc::new(Schema::new(fields));
    Ok(Some(Arc::new(LogTable { log, head, kind, columns, schema })))
}

/// Event times are nanoseconds in the log and timestamps in SQL.
fn shown(field: &Field) -> Field {
    if is_event_time(field.name()) {
        let timestamp = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        return Field::new(field.name(), timestamp, true);
    }
    field.clone()
}

fn is_event_time(name: &str) -> bool {
    name == "min_event_time" || name == "max_event_time"
}

#[derive(Debug)]
struct LogTable {
    log: Log,
    head: Head,
    kind: &'static str,
    columns: &'static [&'static str],
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for LogTable {
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
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = LogRows {
            log: self.log.clone(),
            head: self.head.clone(),
            kind: self.kind,
            columns: self.columns,
            schema: Arc::clone(&self.schema),
            path: filters.iter().find_map(path_literal),
        };
        Ok(Arc::new(StreamingTableExec::try_new(
            Arc::clone(&self.schema),
            vec![Arc::new(rows)],
            projection,
            None,
            false,
            limit.filter(|_| filters.is_empty()),
        )?))
    }
}

/// The value of a filter `path = '…'`.
fn path_literal(filter: &Expr) -> Option<String> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else {
        return None;
    };
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _))
        | (Expr::Literal(value, _), Expr::Column(column)) => (column, value),
        _ => return None,
    };
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text))
            if column.name == "path" =>
        {
            Some(text.clone())
        }
        _ => None,
    }
}

/// The rows of one kind, part by part.
#[derive(Debug)]
struct LogRows {
    log: Log,
    head: Head,
    kind: &'static str,
    columns: &'static [&'static str],
    schema: SchemaRef,
    path: Option<String>,
}

impl PartitionStream for LogRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (kind, columns, schema) = (self.kind, self.columns, Arc::clone(&self.schema));
        let batches = self.log.batches(self.head.snapshot(), self.path.as_deref());
        // What is acknowledged and not committed comes last, as it will in the log.
        let to_come = self.head.rows_to_come();
        let to_come = (!to_come.is_empty()).then(|| tidelog_oplog::batch_of(&to_come));
        let batches = batches.chain(futures::stream::iter(to_come));
        let horizons = horizons(&self.head);
        let rows = batches.map_err(log_error).and_then(move |batch| {
            let shown = show(&batch, kind, columns, &schema, &horizons);
            async move { shown }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

fn log_error(error: tidelog_oplog::Error) -> DataFusionError {
    Error::Store(error.into()).into()
}

/// The first version as of which a series can be read, by the node's id, where it is not the first.
fn horizons(head: &Head) -> HashMap<String, i64> {
    let all = head.snapshot().history().horizons();
    all.map(|(node, mark)| (node.to_string(), mark.first.number())).collect()
}

/// The rows of `kind` with the shown columns.
fn show(
    batch: &RecordBatch,
    kind: &'static str,
    columns: &[&str],
    schema: &SchemaRef,
    horizons: &HashMap<String, i64>,
) -> Result<RecordBatch> {
    let column = |name: &str| {
        batch
            .column_by_name(name)
            .cloned()
            .ok_or_else(|| DataFusionError::Internal(format!("the log has no column {name}")))
    };
    let wanted = eq(&column("kind")?, &StringArray::new_scalar(kind))?;
    let arrays = columns
        .iter()
        .map(|name| {
            if *name == READABLE {
                return Ok(readable(&column("node_id")?, &column("version")?, horizons));
            }
            let array = column(name)?;
            if !is_event_time(name) {
                return Ok(array);
            }
            let nanos = array.as_primitive::<Int64Type>();
            let times =
                TimestampNanosecondArray::new(nanos.values().clone(), nanos.nulls().cloned());
            Ok(Arc::new(times.with_timezone("UTC")) as ArrayRef)
        })
        .collect::<Result<Vec<_>>>()?;
    let shown = RecordBatch::try_new(Arc::clone(schema), arrays)?;
    Ok(filter_record_batch(&shown, &wanted)?)
}

/// Whether each row's series can be read as of its version.
fn readable(nodes: &ArrayRef, versions: &ArrayRef, horizons: &HashMap<String, i64>) -> ArrayRef {
    let nodes = nodes.as_string::<i32>();
    let versions = versions.as_primitive::<Int64Type>();
    let is_readable = nodes.iter().zip(versions).map(|(node, version)| {
        let first = node.and_then(|node| horizons.get(node));
        Some(first.is_none_or(|first| version >= Some(*first)))
    });
    Arc::new(is_readable.collect::<BooleanArray>())
}
