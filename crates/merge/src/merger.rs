//! The state machine that callers drive.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::chunk::Chunk;
use crate::cursor::{Cursor, conform};
use crate::error::Error;
use crate::gallop::gallop;
use crate::order::{KeyOrder, Row};
use crate::output::Output;
use crate::ranks::KeyRanks;
use crate::spec::MergeSpec;
use crate::tree::LoserTree;
use crate::window::{Head, Interleaving, Window};

/// How often an input must win in a row, at equal times, before its run is searched by keys: below
/// that the search costs more comparisons than the tree.
const GALLOP_WINS: usize = 3;

/// What a merge wants or has.
#[derive(Debug, Clone)]
#[must_use]
pub enum Step {
    /// Call [`Merger::push`] or [`Merger::finish`] for this input, then step again.
    NeedInput(usize),
    /// The next rows, never none.
    Batch(RecordBatch),
    /// All inputs are finished and all rows are out.
    Done,
}

/// A merge of sorted inputs, driven by its caller.
///
/// [`step`](Self::step) says what is next; see the example of the crate. No call blocks, reads or
/// waits, so that a caller may fetch batches in whatever way, also ahead of time.
pub struct Merger {
    spec: MergeSpec,
    lanes: Lanes,
    tree: LoserTree,
    stale: Stale,
    output: Output,
    /// How many inputs wait for a batch.
    waiting: usize,
    /// The last winner, and how often it has won in a row.
    streak: (usize, usize),
    interleaving: Interleaving,
    /// Rows that come before those of the tree.
    window: Option<Window>,
    chunks_made: u64,
    stopped: bool,
}

/// What the tree does not know yet.
enum Stale {
    Everything,
    Winner,
    Nothing,
}

impl Merger {
    /// A merge of `inputs` inputs, all waiting for their first batch.
    ///
    /// # Errors
    ///
    /// Those of the spec: [`Error::MissingColumn`], [`Error::RepeatedColumn`],
    /// [`Error::TimeType`], [`Error::VersionType`], [`Error::FloatKey`], [`Error::KeyType`],
    /// [`Error::ZeroBatchRows`].
    pub fn try_new(spec: MergeSpec, inputs: usize) -> Result<Self, Error> {
        spec.validate()?;
        Ok(Self {
            lanes: Lanes::new(inputs),
            tree: LoserTree::new(inputs),
            stale: Stale::Everything,
            output: Output::new(spec.clone(), inputs),
            spec,
            waiting: inputs,
            streak: (0, 0),
            interleaving: Interleaving::default(),
            window: None,
            chunks_made: 0,
            stopped: false,
        })
    }

    /// Gives a waiting input its next batch. An empty batch leaves the input waiting.
    ///
    /// The batch has the names and types of the spec's schema; nullability and metadata may differ
    /// and come out as in the spec. On an error nothing has changed.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownInput`], [`Error::NotWaiting`], [`Error::Stopped`]: a mistake of the caller.
    /// - [`Error::ColumnCount`], [`Error::ColumnName`], [`Error::ColumnType`], [`Error::NullValue`]:
    ///   the batch does not fit the spec.
    /// - [`Error::TimeGoesBack`], [`Error::KeysGoBack`]: the input is not sorted.
    pub fn push(&mut self, input: usize, batch: RecordBatch) -> Result<(), Error> {
        let cursor = self.waiting_cursor(input)?;
        let batch = conform(input, cursor, batch, &self.spec)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let chunk = Arc::new(Chunk::new(self.chunks_made, batch, &self.spec));
        self.chunks_made += 1;
        self.lanes.admit(input, chunk, &self.spec)?;
        self.waiting -= 1;
        Ok(())
    }

    /// Says that a waiting input has no more batches.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInput`], [`Error::NotWaiting`], [`Error::Stopped`]: a mistake of the caller.
    pub fn finish(&mut self, input: usize) -> Result<(), Error> {
        self.waiting_cursor(input)?;
        self.lanes.cursors[input].finished = true;
        self.lanes.heads[input] = i64::MAX;
        self.waiting -= 1;
        Ok(())
    }

    /// Merges until something is wanted or ready.
    ///
    /// # Errors
    ///
    /// - [`Error::KeysGoBack`]: an input is not sorted (found only with deduplication).
    /// - [`Error::Arrow`]: key columns could not be compared.
    ///
    /// After an error the merge has stopped: every later call gives [`Error::Stopped`].
    pub fn step(&mut self) -> Result<Step, Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        let step = self.drive();
        self.stopped = step.is_err();
        step
    }

    /// The inputs that wait for a batch, lowest first: those that [`push`](Self::push) and
    /// [`finish`](Self::finish) accept, so that a caller may fetch for all of them at once.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        let cursors = self.lanes.cursors.iter().enumerate();
        cursors.filter(|(_, cursor)| cursor.is_waiting()).map(|(input, _)| input)
    }

    /// The memory that the merge keeps alive, in bytes.
    ///
    /// An upper bound: buffers shared between batches count once per batch, and a slice counts as
    /// the whole of what it was cut from.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        let chunks = self.lanes.cursors.iter().filter_map(|cursor| cursor.chunk.as_ref());
        chunks.map(|chunk| chunk.bytes).sum::<usize>()
            + self.output.bytes()
            + self.lanes.order.ranks.bytes()
            + self.window.as_ref().map_or(0, Window::bytes)
    }

    fn waiting_cursor(&self, input: usize) -> Result<&Cursor, Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        let inputs = self.lanes.cursors.len();
        let cursor = self.lanes.cursors.get(input).ok_or(Error::UnknownInput { input, inputs })?;
        if cursor.is_waiting() { Ok(cursor) } else { Err(Error::NotWaiting { input }) }
    }

    fn drive(&mut self) -> Result<Step, Error> {
        loop {
            if let Some(batch) = self.output.pop() {
                return Ok(Step::Batch(batch));
            }
            if self.waiting > 0
                && let Some(input) = self.waiting().next()
            {
                return Ok(Step::NeedInput(input));
            }
            if self.window.is_some() || self.open_window()? {
                self.advance_window();
                continue;
            }
            match std::mem::replace(&mut self.stale, Stale::Nothing) {
                Stale::Everything => self.tree.build(|a, b| self.lanes.less(a, b))?,
                Stale::Winner => self.tree.replay(|a, b| self.lanes.less(a, b))?,
                Stale::Nothing => {}
            }
            let winner = self.tree.winner().and_then(|winner| {
                let chunk = self.lanes.cursors[winner].chunk.as_ref()?;
                Some((winner, Arc::clone(chunk)))
            });
            if let Some((winner, chunk)) = winner {
                self.advance(winner, &chunk)?;
                continue;
            }
            self.output.flush();
            if !self.output.is_ready() {
                self.lanes.order.ranks = KeyRanks::default();
                return Ok(Step::Done);
            }
        }
    }

    /// Takes the next rows of all inputs together, where they take turns nearly every row.
    fn open_window(&mut self) -> Result<bool, Error> {
        if self.spec.dedup || !self.interleaving.is_fine() {
            return Ok(false);
        }
        let Lanes { cursors, order, .. } = &mut self.lanes;
        let heads = cursors.iter().enumerate().filter_map(|(input, cursor)| {
            let chunk = cursor.chunk.as_ref()?;
            Some(Head { input, chunk, row: cursor.row })
        });
        let heads: Vec<_> = heads.collect();
        self.window = Window::try_new(&heads, order, self.interleaving.has_ties())?;
        self.interleaving.note_window(self.window.as_ref(), order);
        Ok(self.window.is_some())
    }

    /// Moves rows of the window to the output, as many as fill a batch.
    fn advance_window(&mut self) {
        let Some(window) = &mut self.window else { return };
        let chunk = |input: usize| self.lanes.cursors[input].chunk.as_ref();
        let taken = self.output.append_picks(window.rest(), window.inputs(), chunk);
        window.consume(taken);
        if !window.rest().is_empty() {
            return;
        }
        for (input, end) in window.ends() {
            // A window never takes the last row of a chunk.
            self.lanes.advance(input, end);
        }
        self.window = None;
        self.stale = Stale::Everything;
    }

    /// Moves the winner's run to the output, or as much of it as fills a batch.
    fn advance(&mut self, winner: usize, chunk: &Arc<Chunk>) -> Result<(), Error> {
        self.streak = match self.streak {
            (last, wins) if last == winner => (winner, wins + 1),
            _ => (winner, 1),
        };
        let end = self.run_end(winner, chunk)?;
        self.interleaving.note(end - self.lanes.cursors[winner].row);
        while !self.output.is_ready()
            && let Some(rows) = self.lanes.cursors[winner].next_survivors(end)
        {
            if self.spec.dedup {
                self.replace_tail(Row { input: winner, chunk, row: rows.start })?;
            }
            self.output.append(winner, chunk, rows.start, rows.len());
        }
        let row = self.lanes.cursors[winner].row;
        if row < chunk.len() {
            self.lanes.heads[winner] = chunk.times[row];
            return self.tree.replay(|a, b| self.lanes.less(a, b));
        }
        self.lanes.retire(winner);
        self.output.retire(winner);
        self.waiting += 1;
        self.stale = Stale::Winner;
        Ok(())
    }

    /// Where the winner's rows stop coming before those of all other inputs.
    fn run_end(&mut self, winner: usize, chunk: &Chunk) -> Result<usize, Error> {
        let (row, len, times) = (self.lanes.cursors[winner].row, chunk.len(), &chunk.times);
        let Some(bound) = self.lanes.first_time(self.tree.challengers()) else {
            return Ok(len);
        };
        if times[len - 1] < bound {
            return Ok(len);
        }
        if times[row] < bound {
            return gallop(row, len, |row| Ok(times[row] < bound));
        }
        if self.streak.1 < GALLOP_WINS {
            return Ok(row + 1);
        }
        let Some(second) = self.lanes.first_at(bound, self.tree.challengers())? else {
            return Ok(row + 1);
        };
        gallop(row, len, |row| {
            Ok(times[row] == bound
                && self.lanes.precedes(Row { input: winner, chunk, row }, second)?)
        })
    }

    /// Takes the newest output row back if this row, the next in order, has its time and keys.
    fn replace_tail(&mut self, next: Row<'_>) -> Result<(), Error> {
        let Some((tail, live)) = self.output.tail() else { return Ok(()) };
        if tail.time() != next.time() {
            return Ok(());
        }
        // A chunk that its input has consumed is met here at most once more.
        let keys = match live {
            true => self.lanes.order.cmp_keys(tail, next)?,
            false => tail.cmp_keys_once(&next)?,
        };
        match keys.then_with(|| tail.cmp_version(&next)) {
            // The merge takes heads in order, so only the rest of an input can be out of order.
            Ordering::Greater => {
                let Row { input, row, .. } = next;
                let row = self.lanes.cursors[input].row_number(row);
                Err(Error::KeysGoBack { input, row, time: next.time() })
            }
            _ => {
                if keys.is_eq() {
                    self.output.drop_tail();
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Merger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merger")
            .field("spec", &self.spec)
            .field("inputs", &self.lanes.cursors.len())
            .field("waiting", &self.waiting)
            .field("buffered_bytes", &self.buffered_bytes())
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

/// The inputs side by side, and how their heads compare.
struct Lanes {
    cursors: Vec<Cursor>,
    /// Time of each head; `i64::MAX` if the input is finished, which a time may be as well.
    heads: Vec<i64>,
    order: KeyOrder,
}

impl Lanes {
    fn new(inputs: usize) -> Self {
        Self {
            cursors: (0..inputs).map(|_| Cursor::default()).collect(),
            heads: vec![i64::MAX; inputs],
            order: KeyOrder::new(inputs),
        }
    }

    fn admit(&mut self, input: usize, chunk: Arc<Chunk>, spec: &MergeSpec) -> Result<(), Error> {
        let head = chunk.times[0];
        let admitted = self.cursors[input].admit(input, chunk, spec, &mut self.order);
        match admitted {
            Ok(()) => self.heads[input] = head,
            Err(_) => self.order.forget(input),
        }
        admitted
    }

    /// Moves an input on within its chunk.
    fn advance(&mut self, input: usize, row: usize) {
        let cursor = &mut self.cursors[input];
        cursor.row = row;
        if let Some(time) = cursor.chunk.as_ref().and_then(|chunk| chunk.times.get(row)) {
            self.heads[input] = *time;
        }
    }

    fn retire(&mut self, input: usize) {
        self.cursors[input].retire();
        self.order.forget(input);
    }

    /// Whether the head of `a` comes before that of `b`; a finished input comes last.
    fn less(&mut self, a: usize, b: usize) -> Result<bool, Error> {
        match self.heads[a].cmp(&self.heads[b]) {
            Ordering::Less => Ok(true),
            Ordering::Greater => Ok(false),
            Ordering::Equal => match (head(&self.cursors, a), head(&self.cursors, b)) {
                (Some(left), Some(right)) => Ok(self.order.cmp_tied(left, right)?.is_lt()),
                (Some(_), None) => Ok(true),
                (None, Some(_)) => Ok(false),
                (None, None) => Ok(a < b),
            },
        }
    }

    /// The lowest time among the heads of inputs that are not finished.
    fn first_time(&self, inputs: impl Iterator<Item = usize>) -> Option<i64> {
        inputs
            .filter(|&input| self.cursors[input].chunk.is_some())
            .map(|input| self.heads[input])
            .min()
    }

    /// The first input among those whose head has this time.
    fn first_at(
        &mut self,
        time: i64,
        inputs: impl Iterator<Item = usize>,
    ) -> Result<Option<usize>, Error> {
        let mut first = None;
        for input in inputs {
            if self.cursors[input].chunk.is_none() || self.heads[input] != time {
                continue;
            }
            first = match first {
                Some(best) if !self.less(input, best)? => Some(best),
                _ => Some(input),
            };
        }
        Ok(first)
    }

    /// Whether a row comes before the head of an input that has its time.
    fn precedes(&mut self, row: Row<'_>, other: usize) -> Result<bool, Error> {
        match head(&self.cursors, other) {
            Some(head) => Ok(self.order.cmp_tied(row, head)?.is_lt()),
            None => Ok(true),
        }
    }
}

fn head(cursors: &[Cursor], input: usize) -> Option<Row<'_>> {
    let cursor = &cursors[input];
    let chunk = cursor.chunk.as_deref()?;
    Some(Row { input, chunk, row: cursor.row })
}
