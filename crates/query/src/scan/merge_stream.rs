//! The merge of overlapping files as a stream: drives the merge crate's state machine.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tidelog_merge::{MergeSpec, Merger, Step};

/// Merges sorted streams of batches with `full_rows` rows at most; of many, these are to be few. The output
/// keeps the first `columns` of the inputs' columns.
///
/// A small read starts no task. Where the first batch of one input is full there is more to read: the first
/// ones of the others are read beside each other then. When an input that has more wants its next, all are
/// read a batch ahead, so that files are decoded beside the merge.
pub(crate) fn merged(
    spec: MergeSpec,
    inputs: Vec<SendableRecordBatchStream>,
    columns: usize,
    full_rows: usize,
) -> Result<SendableRecordBatchStream> {
    let spec = spec.with_output_columns(columns);
    let schema = Arc::clone(spec.output_schema());
    let merger = Merger::try_new(spec, inputs.len()).map_err(external)?;
    let inputs = inputs.into_iter().map(Input::Waiting).collect();
    let state = MergeState { merger, inputs, full_rows, is_read_ahead: false };
    let stream = futures::stream::try_unfold(state, |mut state| async move {
        let batch = state.next().await?;
        Ok(batch.map(|batch| (batch, state)))
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}

struct MergeState {
    merger: Merger,
    inputs: Vec<Input>,
    /// Rows of a batch, unless it is the last of its input.
    full_rows: usize,
    /// Whether inputs are read ahead.
    is_read_ahead: bool,
}

/// The next batch of a stream, and the stream behind it.
type Next = (Option<Result<RecordBatch>>, SendableRecordBatchStream);

/// An input of a merge.
enum Input {
    /// It has not been asked for rows.
    Waiting(SendableRecordBatchStream),
    /// Its first batch is read in a task.
    Beginning(SpawnedTask<Next>),
    /// It has given a batch.
    Begun { stream: SendableRecordBatchStream, has_more: bool },
    /// It has no more rows.
    Ended,
}

impl Input {
    /// Reads the first batch in a task.
    fn begin(&mut self) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Waiting(stream) => Self::Beginning(SpawnedTask::spawn(next_of(stream))),
            other => other,
        };
    }

    /// Goes on in a task of its own, one batch ahead.
    fn read_ahead(&mut self) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Begun { stream, has_more } => {
                Self::Begun { stream: spawn_buffered(stream, 1), has_more }
            }
            other => other,
        };
    }

    /// The next batch. There is likely to be more behind a full one, or a second.
    async fn next(&mut self, full_rows: usize) -> Option<Result<RecordBatch>> {
        let is_first = self.is_new();
        let (batch, stream) = match std::mem::replace(self, Self::Ended) {
            Self::Waiting(stream) | Self::Begun { stream, .. } => next_of(stream).await,
            Self::Beginning(task) => match task.join_unwind().await {
                Ok(next) => next,
                Err(error) => return Some(Err(DataFusionError::ExecutionJoin(Box::new(error)))),
            },
            Self::Ended => return None,
        };
        if let Some(Ok(rows)) = &batch {
            let has_more = !is_first || rows.num_rows() >= full_rows;
            *self = Self::Begun { stream, has_more };
        }
        batch
    }

    const fn is_new(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Beginning(_))
    }

    const fn has_more(&self) -> bool {
        matches!(self, Self::Begun { has_more: true, .. })
    }
}

async fn next_of(mut stream: SendableRecordBatchStream) -> Next {
    (stream.next().await, stream)
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

    /// The next batch of an input.
    async fn fetch(&mut self, input: usize) -> Option<Result<RecordBatch>> {
        let is_first = self.inputs[input].is_new();
        if self.inputs[input].has_more() && !self.is_read_ahead {
            self.inputs.iter_mut().for_each(Input::read_ahead);
            self.is_read_ahead = true;
        }
        let batch = self.inputs[input].next(self.full_rows).await;
        if is_first && self.inputs[input].has_more() {
            self.inputs.iter_mut().for_each(Input::begin);
        }
        batch
    }
}

fn external(error: tidelog_merge::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use futures::TryStreamExt;
    use tokio::runtime::Handle;
    use tokio::sync::Barrier;

    use super::*;

    const FULL: usize = 4;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("time", DataType::Int64, false)]))
    }

    fn batch(times: &[i64]) -> RecordBatch {
        let times = Int64Array::from(times.to_vec());
        RecordBatch::try_new(schema(), vec![Arc::new(times)]).unwrap()
    }

    fn times(batches: &[RecordBatch]) -> Vec<i64> {
        let of = |batch: &RecordBatch| {
            batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
        };
        batches.iter().flat_map(of).collect()
    }

    /// Batches, the first of which comes once so many are waited for at the barrier.
    fn stream(
        batches: Vec<RecordBatch>,
        barrier: Option<Arc<Barrier>>,
    ) -> SendableRecordBatchStream {
        let first = futures::stream::once(async move {
            if let Some(barrier) = barrier {
                barrier.wait().await;
            }
            futures::stream::iter(batches.into_iter().map(Ok))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema(), first.flatten()))
    }

    fn merge(inputs: Vec<SendableRecordBatchStream>) -> SendableRecordBatchStream {
        merged(MergeSpec::new(schema(), 0), inputs, 1, FULL).unwrap()
    }

    #[tokio::test]
    async fn once_a_batch_is_full_the_first_of_others_are_read_beside_each_other() {
        let together = Arc::new(Barrier::new(2));
        let inputs = vec![
            stream(vec![batch(&[1, 4, 7, 10]), batch(&[13])], None),
            stream(vec![batch(&[2, 5]), batch(&[11])], Some(Arc::clone(&together))),
            stream(vec![batch(&[3, 6, 9])], Some(together)),
        ];
        let rows = merge(inputs).try_collect::<Vec<_>>();
        let rows = tokio::time::timeout(Duration::from_secs(60), rows).await;
        let rows = rows.expect("one is waited for before the other is asked").unwrap();
        assert_eq!(times(&rows), [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13]);
    }

    #[tokio::test]
    async fn a_small_read_starts_no_task() {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let inputs =
            vec![stream(vec![batch(&[1, 4, 7])], None), stream(vec![batch(&[2, 5])], None)];
        let mut rows = merge(inputs);
        let mut found = Vec::new();
        while let Some(batch) = rows.try_next().await.unwrap() {
            assert_eq!(tasks(), before);
            found.push(batch);
        }
        assert_eq!(times(&found), [1, 2, 4, 5, 7]);
    }

    #[tokio::test]
    async fn what_fails_in_a_task_fails_the_merge() {
        let broken = futures::stream::iter([Err(DataFusionError::Internal("broken".to_owned()))]);
        let broken = Box::pin(RecordBatchStreamAdapter::new(schema(), broken));
        let inputs = vec![stream(vec![batch(&[1, 4, 7, 10])], None), broken];
        let error = merge(inputs).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
