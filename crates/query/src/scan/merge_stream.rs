//! The merge of overlapping files as a stream: drives the merge crate's state machine.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use futures::StreamExt;
use tidelog_merge::{MergeSpec, Merger, Step};

/// With more inputs, read-ahead would hold too many batches.
const READ_AHEAD_INPUTS_MAX: usize = 32;

/// Merges sorted streams; the output keeps the first `columns` of the inputs' columns.
pub(crate) fn merged(
    spec: MergeSpec,
    inputs: Vec<SendableRecordBatchStream>,
    columns: usize,
) -> Result<SendableRecordBatchStream> {
    let keep: Vec<usize> = (0..columns).collect();
    let schema: SchemaRef = Arc::new(spec.schema().project(&keep)?);
    let merger = Merger::try_new(spec, inputs.len()).map_err(external)?;
    let reads_ahead = inputs.len() <= READ_AHEAD_INPUTS_MAX;
    let inputs = inputs.into_iter().map(|stream| Input::new(stream, reads_ahead)).collect();
    let state = MergeState { merger, inputs, keep };
    let stream = futures::stream::try_unfold(state, |mut state| async move {
        let batch = state.next().await?;
        Ok(batch.map(|batch| (batch, state)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}

struct MergeState {
    merger: Merger,
    inputs: Vec<Input>,
    keep: Vec<usize>,
}

/// An input that is read ahead, by one batch and in a task of its own, once it has shown that it has
/// more than one: files are decoded beside the merge, and a small read starts no task.
struct Input {
    stream: SendableRecordBatchStream,
    ahead: Ahead,
}

enum Ahead {
    Never,
    AfterFirst,
    AfterThis,
}

impl Input {
    fn new(stream: SendableRecordBatchStream, reads_ahead: bool) -> Self {
        Self { stream, ahead: if reads_ahead { Ahead::AfterFirst } else { Ahead::Never } }
    }

    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self.ahead {
            Ahead::Never => {}
            Ahead::AfterFirst => self.ahead = Ahead::AfterThis,
            Ahead::AfterThis => {
                let empty = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
                self.stream = spawn_buffered(std::mem::replace(&mut self.stream, empty), 1);
                self.ahead = Ahead::Never;
            }
        }
        self.stream.next().await
    }
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
