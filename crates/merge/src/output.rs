//! Runs of rows become output batches.
//!
//! Invariants:
//!
//! 1. Runs under construction hold at most `batch_rows` rows, or are one long run alone.
//! 2. With deduplication the newest row stays here until the next one is known, since that one may
//!    replace it.
//! 3. Consumed chunks are kept only while runs under construction lie in them, and hold at most
//!    [`GARBAGE_BATCHES`] times `batch_rows` more rows than those runs.
//!
//! Not here: which row replaces which.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use crate::chunk::Chunk;
use crate::gather;
use crate::order::Row;
use crate::repeated;
use crate::spec::MergeSpec;
use crate::window::Pick;

/// Average length of runs from which on slices are concatenated instead of rows interleaved.
/// Concatenating costs an array slice per run and column, interleaving an index pair per row.
const CONCAT_RUN_ROWS: usize = 32;

/// How many output batches' worth of rows consumed chunks may hold beyond what is drawn from them.
/// Copying the runs out then costs at most one copied row for this many consumed ones.
const GARBAGE_BATCHES: usize = 8;

/// Stands for an input that no source belongs to.
const NO_SLOT: usize = usize::MAX;

/// A chunk that runs under construction lie in.
struct Source {
    input: usize,
    chunk: Arc<Chunk>,
    /// Whether its input has rows of it left.
    live: bool,
}

/// Consecutive rows of a source.
#[derive(Clone, Copy)]
struct Run {
    source: usize,
    start: usize,
    len: usize,
}

/// The batch under construction, and those that are ready.
pub(crate) struct Output {
    spec: MergeSpec,
    /// From this length on a run is passed on as a slice.
    long_run_rows: usize,
    sources: Vec<Source>,
    /// By input: its source, if the newest chunk drawn from is one.
    slots: Vec<usize>,
    runs: Vec<Run>,
    rows: usize,
    /// The one run is long and takes no company.
    sealed: bool,
    /// Rows in consumed chunks among the sources.
    consumed_rows: usize,
    ready: VecDeque<RecordBatch>,
}

impl Output {
    pub(crate) fn new(spec: MergeSpec, inputs: usize) -> Self {
        // A single input that need not be looked into passes through as it is.
        let pure = inputs == 1 && !spec.dedup;
        Self {
            long_run_rows: if pure { 1 } else { spec.batch_rows.div_ceil(2) },
            spec,
            sources: Vec::new(),
            slots: vec![NO_SLOT; inputs],
            runs: Vec::new(),
            rows: 0,
            sealed: false,
            consumed_rows: 0,
            ready: VecDeque::new(),
        }
    }

    /// The oldest batch that is ready.
    pub(crate) fn pop(&mut self) -> Option<RecordBatch> {
        self.ready.pop_front()
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The newest row under construction, and whether its chunk is still current in its input.
    pub(crate) fn tail(&self) -> Option<(Row<'_>, bool)> {
        let run = self.runs.last()?;
        let Source { input, chunk, live } = &self.sources[run.source];
        Some((Row { input: *input, chunk, row: run.start + run.len - 1 }, *live))
    }

    /// Takes the newest row back.
    pub(crate) fn drop_tail(&mut self) {
        if let Some(run) = self.runs.last_mut() {
            run.len -= 1;
            self.rows -= 1;
            if run.len == 0 {
                self.runs.pop();
                self.sealed = false;
            }
        }
    }

    /// Appends `len > 0` rows of the current chunk of an input.
    pub(crate) fn append(
        &mut self,
        input: usize,
        chunk: &Arc<Chunk>,
        mut start: usize,
        mut len: usize,
    ) {
        if self.sealed {
            self.flush();
        }
        if len >= self.long_run_rows {
            self.flush();
            self.add(input, chunk, start, len);
            self.sealed = true;
            len = 0;
        }
        while len > 0 {
            if self.rows == self.spec.batch_rows {
                self.flush();
            }
            let fitting = len.min(self.spec.batch_rows - self.rows);
            self.add(input, chunk, start, fitting);
            start += fitting;
            len -= fitting;
        }
        if !self.spec.dedup && (self.sealed || self.rows == self.spec.batch_rows) {
            self.flush();
        }
    }

    /// Appends rows of the current chunks of several inputs until a batch is full, or nearly; how many rows. A pick
    /// names an input by its place in `inputs`.
    pub(crate) fn append_picks<'a>(
        &mut self,
        picks: &[Pick],
        inputs: &[usize],
        chunk: impl Fn(usize) -> Option<&'a Arc<Chunk>>,
    ) -> usize {
        if self.sealed || self.rows == self.spec.batch_rows {
            self.flush();
        }
        let taken = picks.len().min(self.spec.batch_rows - self.rows);
        // Half a batch is not worth the way through runs.
        let is_full = self.rows + taken >= self.spec.batch_rows.div_ceil(2);
        let picks = &picks[..taken];
        let chunks: Vec<Option<&Arc<Chunk>>> = inputs.iter().map(|input| chunk(*input)).collect();
        if is_full && let Ok(batch) = self.gather_picks(picks, &chunks) {
            self.ready.push_back(batch);
            self.clear();
            return taken;
        }
        for &(place, row) in picks {
            if let Some(chunk) = chunks[place] {
                self.add(inputs[place], chunk, row, 1);
            }
        }
        if is_full {
            self.flush();
        }
        taken
    }

    /// One batch of the rows under construction and of picked ones.
    fn gather_picks(
        &self,
        picks: &[Pick],
        chunks: &[Option<&Arc<Chunk>>],
    ) -> Result<RecordBatch, ArrowError> {
        let rows = self.rows + picks.len();
        let (used, mut indices) = self.indices(&self.runs, rows);
        // A place without a chunk is never picked; any other's stands in for it.
        let Some(any) = chunks.iter().flatten().next() else {
            return Ok(RecordBatch::new_empty(Arc::clone(&self.spec.output)));
        };
        let sources = used.iter().map(|&source| &self.sources[source].chunk);
        let sources: Vec<&Arc<Chunk>> =
            sources.chain(chunks.iter().map(|chunk| chunk.unwrap_or(any))).collect();
        let before = used.len();
        indices.extend(picks.iter().map(|&(place, row)| (before + place, row)));
        let places = Places::new(sources, &indices);
        let columns = (0..self.spec.output.fields().len()).map(|column| places.take(column));
        batch_of(&self.spec.output, columns.collect::<Result<_, _>>()?, rows)
    }

    /// Makes what is under construction ready.
    pub(crate) fn flush(&mut self) {
        let runs = std::mem::take(&mut self.runs);
        self.assemble(&runs);
        self.clear();
    }

    /// Notes that an input has consumed its current chunk.
    pub(crate) fn retire(&mut self, input: usize) {
        let slot = std::mem::replace(&mut self.slots[input], NO_SLOT);
        let Some(source) = self.sources.get_mut(slot) else { return };
        source.live = false;
        self.consumed_rows += source.chunk.len();
        let garbage_max = self.spec.batch_rows.saturating_mul(GARBAGE_BATCHES);
        if self.consumed_rows > self.rows.saturating_add(garbage_max) {
            self.copy_out();
        }
    }

    /// Memory held here and not by the current chunks of the inputs.
    pub(crate) fn bytes(&self) -> usize {
        let consumed = self.sources.iter().filter(|source| !source.live);
        consumed.map(|source| source.chunk.bytes).sum::<usize>()
            + self.ready.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
    }

    fn add(&mut self, input: usize, chunk: &Arc<Chunk>, start: usize, len: usize) {
        let mut source = self.slots[input];
        if source == NO_SLOT {
            source = self.sources.len();
            self.slots[input] = source;
            self.sources.push(Source { input, chunk: Arc::clone(chunk), live: true });
        }
        self.rows += len;
        match self.runs.last_mut() {
            Some(run) if run.source == source && run.start + run.len == start => run.len += len,
            _ => self.runs.push(Run { source, start, len }),
        }
    }

    fn clear(&mut self) {
        for source in self.sources.drain(..) {
            if let Some(slot) = self.slots.get_mut(source.input) {
                *slot = NO_SLOT;
            }
        }
        self.runs.clear();
        self.rows = 0;
        self.sealed = false;
        self.consumed_rows = 0;
    }

    /// Replaces the sources by a copy of the rows under construction, which frees consumed chunks.
    fn copy_out(&mut self) {
        let (sealed, rows) = (self.sealed, self.rows);
        let runs = std::mem::take(&mut self.runs);
        if runs.is_empty() {
            self.clear();
            return;
        }
        let whole = self.gather(&self.spec.schema, &runs, true);
        let Ok(batch) = whole.and_then(gather::compact) else {
            // Rows that do not fit into one batch stay where they are until they are emitted.
            self.runs = runs;
            self.consumed_rows = 0;
            return;
        };
        self.clear();
        let chunk = Arc::new(Chunk::new(u64::MAX, batch, &self.spec));
        // It belongs to no input, and frees nothing until the batch is emitted.
        self.sources.push(Source { input: NO_SLOT, chunk, live: false });
        self.runs.push(Run { source: 0, start: 0, len: rows });
        self.rows = rows;
        self.sealed = sealed;
    }

    /// Makes batches of runs: one, unless their values do not fit into one.
    fn assemble(&mut self, runs: &[Run]) {
        let batch = match runs {
            [] => return,
            [run] => self.slice(run),
            _ => self.gather(&self.spec.output, runs, false),
        };
        match batch {
            Ok(batch) => self.ready.push_back(batch),
            // Types were checked at the door, so this is a limit of a type: too many values for
            // the keys of a dictionary, too many bytes for 32-bit offsets. A single run always
            // fits, as the batch it lies in did.
            Err(_) => {
                let (first, second) = runs.split_at(runs.len() / 2);
                self.assemble(first);
                self.assemble(second);
            }
        }
    }

    fn slice(&self, run: &Run) -> Result<RecordBatch, ArrowError> {
        let batch = &self.sources[run.source].chunk.batch;
        let columns = self.spec.output.fields().len();
        let slice = |column: &ArrayRef| match run.len == batch.num_rows() {
            true => Arc::clone(column),
            false => column.slice(run.start, run.len),
        };
        let columns = batch.columns().iter().take(columns).map(slice).collect();
        batch_of(&self.spec.output, columns, run.len)
    }

    /// Copies runs into one batch.
    fn gather(
        &self,
        schema: &SchemaRef,
        runs: &[Run],
        interleave_all: bool,
    ) -> Result<RecordBatch, ArrowError> {
        let rows: usize = runs.iter().map(|run| run.len).sum();
        let concatenate = !interleave_all && rows / runs.len() >= CONCAT_RUN_ROWS;
        let (used, indices) = self.indices(runs, rows);
        let sources = used.iter().map(|&source| &self.sources[source].chunk);
        let places = Places::new(sources.collect(), &indices);
        let columns = schema.fields().iter().enumerate().map(|(column, field)| {
            // Concatenating looks at a dictionary once per run, interleaving once per source.
            if concatenate && !matches!(field.data_type(), DataType::Dictionary(_, _)) {
                let slice = |run: &Run| self.column(run.source, column).slice(run.start, run.len);
                gather::concat(&runs.iter().map(slice).collect::<Vec<_>>())
            } else {
                places.take(column)
            }
        });
        batch_of(schema, columns.collect::<Result<_, _>>()?, rows)
    }

    /// The sources that runs lie in, and for each row the number among these and its place.
    fn indices(&self, runs: &[Run], rows: usize) -> (Vec<usize>, Vec<(usize, usize)>) {
        let mut numbers = vec![NO_SLOT; self.sources.len()];
        let mut used = Vec::new();
        let mut indices = Vec::with_capacity(rows);
        for run in runs {
            let number = &mut numbers[run.source];
            if *number == NO_SLOT {
                *number = used.len();
                used.push(run.source);
            }
            indices.extend((run.start..run.start + run.len).map(|row| (*number, row)));
        }
        (used, indices)
    }

    fn column(&self, source: usize, column: usize) -> &ArrayRef {
        self.sources[source].chunk.batch.column(column)
    }
}

/// Rows to be taken: of each the number of its source and its place there.
struct Places<'a> {
    sources: Vec<&'a Arc<Chunk>>,
    indices: &'a [(usize, usize)],
    /// The numbers of the sources alone.
    numbers: OnceCell<UInt32Array>,
}

impl<'a> Places<'a> {
    fn new(sources: Vec<&'a Arc<Chunk>>, indices: &'a [(usize, usize)]) -> Self {
        Self { sources, indices, numbers: OnceCell::new() }
    }

    /// One column of the rows.
    fn take(&self, column: usize) -> Result<ArrayRef, ArrowError> {
        let arrays = self.sources.iter().map(|chunk| chunk.batch.column(column).as_ref());
        let arrays: Vec<&dyn Array> = arrays.collect();
        if !self.sources.iter().all(|chunk| chunk.repeats[column]) {
            return gather::interleave(&arrays, self.indices);
        }
        // There are fewer sources than rows of a batch.
        let number = |(source, _): &(usize, usize)| u32::try_from(*source).unwrap_or(u32::MAX);
        let numbers = || UInt32Array::from_iter_values(self.indices.iter().map(number));
        repeated::put_together(&arrays, self.numbers.get_or_init(numbers))
    }
}

/// A batch of so many rows, though there may be no column.
fn batch_of(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}
