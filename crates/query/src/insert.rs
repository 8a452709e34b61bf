//! `INSERT INTO` a series: what the query yields becomes one version.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::TryStreamExt;
use tidelog_core::TreePath;
use tidelog_store::{Append, Engine};

use crate::error::Error;

/// Collects what is inserted, within the memory budget, and appends it as one version.
#[derive(Debug)]
pub(crate) struct AppendSink {
    engine: Engine,
    path: TreePath,
    schema: SchemaRef,
}

impl AppendSink {
    pub(crate) fn new(engine: Engine, path: TreePath, schema: SchemaRef) -> Self {
        Self { engine, path, schema }
    }
}

impl DisplayAs for AppendSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "append to {}", self.path)
    }
}

#[async_trait]
impl DataSink for AppendSink {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(
        &self,
        mut data: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<u64> {
        let reservation = MemoryConsumer::new("INSERT INTO").register(context.memory_pool());
        let mut batches = Vec::new();
        while let Some(batch) = data.try_next().await? {
            reservation.try_grow(batch.get_array_memory_size())?;
            batches.push(batch);
        }
        let batch = concat_batches(&self.schema, &batches)?;
        let append = Append::new(self.path.clone(), batch);
        let receipt = self.engine.append(append).await.map_err(Error::Store)?;
        Ok(receipt.rows)
    }
}
