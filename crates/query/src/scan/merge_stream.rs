//! The merge of overlapping files as a stream: drives the merge crate's state machine.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tidelog_merge::{MergeSpec, Merger, Step};

/// Merges sorted streams; the output keeps the first `columns` of the inputs' columns.
pub(crate) fn merged(
    spec: MergeSpec,
    inputs: Vec<SendableRecordBatchStream>,
    columns: usize,
) -> Result<SendableRecordBatchStream> {
    let keep: Vec<usize> = (0..columns).collect();
    let schema: SchemaRef = Arc::new(spec.schema().project(&keep)?);
    let merger = Merger::try_new(spec, inputs.len()).map_err(external)?;
    let state = MergeState { merger, inputs, keep };
    let stream = futures::stream::try_unfold(state, |mut state| async move {
        let batch = state.next().await?;
        Ok(batch.map(|batch| (batch, state)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}

struct MergeState {
    merger: Merger,
    inputs: Vec<SendableRecordBatchStream>,
    keep: Vec<usize>,
}

impl MergeState {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.merger.step().map_err(external)? {
                Step::Batch(batch) => return Ok(Some(batch.project(&self.keep)?)),
                Step::Done => return Ok(None),
                Step::NeedInput(input) => match self.inputs[input].next().await {
                    Some(batch) => self.merger.push(input, batch?).map_err(external)?,
                    None => self.merger.finish(input).map_err(external)?,
                },
            }
        }
    }
}

fn external(error: tidelog_merge::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
