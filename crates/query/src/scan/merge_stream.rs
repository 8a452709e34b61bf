//! The merge of overlapping files as a stream: drives the merge crate's state machine.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use futures::StreamExt;
use tidelog_merge::{MergeSpec, Merger, Step};

/// Merges sorted streams, which are read a batch ahead; of many, each is to give fewer rows at once. The
/// output keeps the first `columns` of the inputs' columns.
pub(crate) fn merged(
    spec: MergeSpec,
    inputs: Vec<SendableRecordBatchStream>,
    columns: usize,
) -> Result<SendableRecordBatchStream> {
    let spec = spec.with_output_columns(columns);
    let schema = Arc::clone(spec.output_schema());
    let merger = Merger::try_new(spec, inputs.len()).map_err(external)?;
    let inputs = inputs.into_iter().map(Input::new).collect();
    let state = MergeState { merger, inputs, is_read_ahead: false };
    let stream = futures::stream::try_unfold(state, |mut state| async move {
        let batch = state.next().await?;
        Ok(batch.map(|batch| (batch, state)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}

struct MergeState {
    merger: Merger,
    inputs: Vec<Input>,
    /// Whether inputs are read ahead.
    is_read_ahead: bool,
}

/// An input of a merge.
struct Input {
    stream: SendableRecordBatchStream,
    /// Whether it has given its first batch.
    has_begun: bool,
}

impl Input {
    fn new(stream: SendableRecordBatchStream) -> Self {
        Self { stream, has_begun: false }
    }

    /// Goes on in a task of its own, one batch ahead.
    fn read_ahead(&mut self) {
        let empty = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
        self.stream = spawn_buffered(std::mem::replace(&mut self.stream, empty), 1);
    }
}

impl MergeState {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.merger.step().map_err(external)? {
                Step::Batch(batch) => return Ok(Some(batch)),
                Step::Done => return Ok(None),
                Step::NeedInput(input) => match self.fetch(input).await {
                    Some(batch) => self.merger.push(input, batch?).map_err(external)?,
                    None => self.merger.finish(input).map_err(external)?,
                },
            }
        }
    }

    /// The next batch of an input. When one wants its second, all are read ahead: files are decoded beside
    /// the merge then, and a small read starts no task.
    async fn fetch(&mut self, input: usize) -> Option<Result<RecordBatch>> {
        if !self.is_read_ahead && self.inputs[input].has_begun {
            self.inputs.iter_mut().for_each(Input::read_ahead);
            self.is_read_ahead = true;
        }
        let input = &mut self.inputs[input];
        input.has_begun = true;
        input.stream.next().await
    }
}

fn external(error: tidelog_merge::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
