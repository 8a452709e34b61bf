//! A partition of a warm scan while it runs: call after call, each answered whole before any of its
//! rows is passed on, by the backend or else by files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use tidelog_warm::{Answer, Op, Segment, WarmError};

use super::deal::{Call, narrowed, stretches};
use super::exec::Moved;
use super::request::Question;

/// About so many rows are fetched at once.
const FETCH_ROWS: u64 = 64 * 1024;

/// A partition of a warm scan while it runs.
pub(super) struct Running {
    moved: Arc<Moved>,
    context: Arc<TaskContext>,
    /// What is still to be asked.
    steps: VecDeque<Step>,
    /// Rows that are answered and not passed on yet.
    ready: VecDeque<RecordBatch>,
    /// The bytes of these.
    held: MemoryReservation,
    /// Rows from files instead.
    cold: Option<SendableRecordBatchStream>,
    /// Whether all that is left comes from files.
    gave_up: bool,
    /// How many rows are wanted at most.
    left: Option<usize>,
    cancel: Cancel,
    metrics: Metrics,
}

/// A call, or a part of one whose answer would be large.
struct Step {
    /// Which of the calls.
    call: usize,
    of: Call,
}

/// Tells the backend, once it is dropped, that nobody waits any more.
#[derive(Debug, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// What a request is to look at.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Metrics {
    baseline: BaselineMetrics,
    segments_read: Count,
    segments_skipped: Count,
    rows_read: Count,
    fallbacks: Count,
}

/// The rows of a partition.
pub(super) fn start(running: Running) -> SendableRecordBatchStream {
    let schema = Arc::clone(&running.moved.schema);
    let rows = futures::stream::try_unfold(running, |mut running| async move {
        let next = running.next().await?;
        Ok(next.map(|batch| (batch, running)))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

impl Running {
    pub(super) fn new(
        moved: Arc<Moved>,
        calls: Vec<Call>,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
        partition: usize,
    ) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        let metrics = Metrics {
            baseline: BaselineMetrics::new(metrics, partition),
            segments_read: counter("warm_segments_read"),
            segments_skipped: counter("warm_segments_skipped"),
            rows_read: counter("warm_rows_read"),
            fallbacks: counter("warm_fallbacks"),
        };
        let consumer = MemoryConsumer::new("rows of the warm tier");
        let held = consumer.register(context.memory_pool());
        let left = moved.questions.first().and_then(|question| question.limit);
        Self {
            steps: steps(&moved, calls),
            moved,
            context,
            ready: VecDeque::new(),
            held,
            cold: None,
            gave_up: false,
            left,
            cancel: Cancel::default(),
            metrics,
        }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            if let Some(batch) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    self.held.free();
                }
                return Ok(Some(self.passed_on(batch)));
            }
            if let Some(cold) = &mut self.cold {
                match cold.try_next().await? {
                    Some(batch) => return Ok(Some(self.passed_on(batch))),
                    None => self.cold = None,
                }
                continue;
            }
            let Some(step) = self.steps.pop_front() else { return Ok(None) };
            if self.gave_up {
                self.cold = Some(self.open_files(step)?);
                continue;
            }
            match self.ask(&step).await? {
                Ok(answer) => self.take(&step, answer)?,
                Err(error) => {
                    self.give_up(&error);
                    self.steps.push_front(step);
                }
            }
        }
    }

    fn passed_on(&mut self, batch: RecordBatch) -> RecordBatch {
        let batch = match &mut self.left {
            Some(left) if batch.num_rows() > *left => batch.slice(0, *left),
            _ => batch,
        };
        if let Some(left) = &mut self.left {
            *left -= batch.num_rows();
        }
        batch.record_output(&self.metrics.baseline)
    }

    /// Asks the backend, on a thread that may block.
    async fn ask(&mut self, step: &Step) -> Result<std::result::Result<Answer, WarmError>> {
        let (moved, call) = (Arc::clone(&self.moved), step.of.clone());
        let (cancel, left) = (self.cancel.flag(), self.left);
        let asked = SpawnedTask::spawn_blocking(move || {
            let question = &moved.questions[call.question];
            let mut request = question.request.clone().with_cancel(cancel);
            request.time = narrowed(request.time, call.times);
            if let Op::Fetch { limit, .. } = &mut request.op {
                *limit = question.limit_asked(left);
            }
            let segments: Vec<Arc<Segment>> = segments(question, &call);
            let warm = moved.cold.source().facts().engine.warm();
            warm.run(&question.held.table, &segments, &request)
        });
        let _timer = self.metrics.baseline.elapsed_compute().timer();
        asked.join().await.map_err(|error| DataFusionError::External(Box::new(error)))
    }

    fn take(&mut self, step: &Step, answer: Answer) -> Result<()> {
        let count = |count: &Count, more: u64| count.add(usize::try_from(more).unwrap_or(0));
        count(&self.metrics.segments_read, answer.work.segments_read);
        count(&self.metrics.segments_skipped, answer.work.segments_skipped);
        count(&self.metrics.rows_read, answer.work.rows_read);
        let question = &self.moved.questions[step.of.question];
        let batches = question.batches(answer.output, &self.moved.schema)?;
        // They are there already: who can spill is to see that.
        self.held.grow(batches.iter().map(RecordBatch::get_array_memory_size).sum());
        let batch_rows = self.context.session_config().batch_size();
        let slices = batches.iter().flat_map(|batch| slices(batch, batch_rows));
        self.ready.extend(slices.filter(|batch| batch.num_rows() > 0));
        Ok(())
    }

    /// All that is left comes from files. The tier has counted it, and warned if that was the first time.
    fn give_up(&mut self, error: &WarmError) {
        self.gave_up = true;
        self.metrics.fallbacks.add(1);
        let facts = self.moved.cold.source().facts();
        tracing::debug!(series = %facts.title, %error, "the warm tier did not answer; reading files");
    }

    /// What a step asks for, and all that is left of its call.
    fn open_files(&mut self, step: Step) -> Result<SendableRecordBatchStream> {
        let Step { call, mut of } = step;
        while let Some(next) = self.steps.pop_front_if(|next| next.call == call) {
            of = joined(of, next.of);
        }
        let question = &self.moved.questions[of.question];
        let files = of.files.iter().map(|file| question.held.files[*file].file.clone());
        self.moved.cold.open(files.collect(), of.times, Arc::clone(&self.context))
    }
}

fn segments(question: &Question, call: &Call) -> Vec<Arc<Segment>> {
    let segment = |file: &usize| Arc::clone(&question.held.files[*file].segment);
    call.files.iter().map(segment).collect()
}

/// Two steps of one call that follow one another: of one file, or of several that are whole.
fn joined(mut a: Call, b: Call) -> Call {
    if a.files == b.files {
        a.times = match (a.times, b.times) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            _ => None,
        };
    }
    a
}

/// Calls as steps: where whole rows are fetched, of one file at a time, a stretch of it after another.
fn steps(moved: &Moved, calls: Vec<Call>) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    for of in calls {
        let question = &moved.questions[of.question];
        if !matches!(question.request.op, Op::Fetch { .. }) {
            steps.push_back(Step { call: steps.len(), of });
            continue;
        }
        for file in &of.files {
            let call = steps.len();
            for times in fetched_at_once(question, *file, of.times) {
                let of = Call { question: of.question, files: vec![*file], times };
                steps.push_back(Step { call, of });
            }
        }
    }
    steps
}

fn fetched_at_once(
    question: &Question,
    file: usize,
    times: Option<(i64, i64)>,
) -> Vec<Option<(i64, i64)>> {
    let segment = &question.held.files[file].segment;
    let Some(all) = segment.stats().time else { return vec![times] };
    let rows = segment.rows() as u64;
    if rows <= FETCH_ROWS {
        return vec![times];
    }
    let parts = stretches(all, rows.div_ceil(FETCH_ROWS)).into_iter();
    match times {
        None => parts.map(Some).collect(),
        Some((first, last)) => parts
            .map(|part| (part.0.max(first), part.1.min(last)))
            .filter(|(first, last)| first <= last)
            .map(Some)
            .collect(),
    }
}

/// A batch in pieces of as many rows as plans work on at a time.
fn slices(batch: &RecordBatch, rows: usize) -> Vec<RecordBatch> {
    let starts = (0..batch.num_rows()).step_by(rows.max(1));
    starts.map(|start| batch.slice(start, rows.min(batch.num_rows() - start))).collect()
}
