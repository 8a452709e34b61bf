//! The merge of inputs that are sorted by some columns, none of which need be time.
//!
//! Rows are compared in Arrow's row format. The input with the least row yields all its rows up to the
//! least of the others, found by binary search: where rows lie by key, that is mostly a whole key.
//!
//! Not here: deduplication.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};

use crate::error::Error;
use crate::gather;
use crate::merger::Step;

/// Average length of runs from which on slices are concatenated instead of rows interleaved.
const CONCAT_RUN_ROWS: usize = 32;

/// A merge of inputs sorted by the same columns, ascending with nulls first; rows that are equal there
/// come by the number of their input. It is driven as [`Merger`](crate::Merger) is.
#[derive(Debug)]
pub struct ColumnMerger {
    schema: SchemaRef,
    columns: Vec<usize>,
    batch_rows: usize,
    converter: RowConverter,
    lanes: Vec<Lane>,
    /// Rows under construction: batches, and runs of rows of them.
    sources: Vec<RecordBatch>,
    runs: Vec<Run>,
    rows: usize,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    source: usize,
    start: usize,
    len: usize,
}

/// One input.
#[derive(Debug, Default)]
struct Lane {
    batch: Option<(RecordBatch, Rows)>,
    at: usize,
    /// Its number among the sources, if rows of its batch are under construction.
    source: Option<usize>,
    /// The last row of the batch before.
    last: Option<Box<[u8]>>,
    rows_before: u64,
    is_finished: bool,
}

impl Lane {
    fn head(&self) -> Option<&[u8]> {
        let (_, rows) = self.batch.as_ref()?;
        Some(rows.row(self.at).data())
    }

    const fn is_waiting(&self) -> bool {
        self.batch.is_none() && !self.is_finished
    }

    /// The place after the last row, from the next on, that comes before `other`.
    fn end_before(&self, other: Option<&[u8]>, wins_ties: bool) -> usize {
        let Some((_, rows)) = &self.batch else { return self.at };
        let Some(other) = other else { return rows.num_rows() };
        let is_before = |place: usize| match rows.row(place).data().cmp(other) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => wins_ties,
            std::cmp::Ordering::Greater => false,
        };
        // Of the next row it is known.
        let (mut low, mut step) = (self.at + 1, 1);
        while low + step <= rows.num_rows() && is_before(low + step - 1) {
            low += step;
            step *= 2;
        }
        let mut high = (low + step - 1).min(rows.num_rows());
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_before(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

impl ColumnMerger {
    /// A merge of `inputs` inputs with this schema, sorted by `columns`; batches come out with
    /// `batch_rows` rows at most, but for whole runs.
    ///
    /// # Errors
    /// [`Error::MissingColumn`], [`Error::ZeroBatchRows`], or [`Error::Arrow`] if a column has no order.
    pub fn try_new(
        schema: SchemaRef,
        columns: Vec<usize>,
        inputs: usize,
        batch_rows: usize,
    ) -> Result<Self, Error> {
        if batch_rows == 0 {
            return Err(Error::ZeroBatchRows);
        }
        let count = schema.fields().len();
        let sort_field = |column: &usize| match schema.fields().get(*column) {
            Some(field) => Ok(SortField::new(field.data_type().clone())),
            None => Err(Error::MissingColumn { role: "key", column: *column, columns: count }),
        };
        let fields = columns.iter().map(sort_field).collect::<Result<Vec<_>, _>>()?;
        let converter = RowConverter::new(fields).map_err(Error::arrow("compare key columns"))?;
        Ok(Self {
            schema,
            columns,
            batch_rows,
            converter,
            lanes: (0..inputs).map(|_| Lane::default()).collect(),
            sources: Vec::new(),
            runs: Vec::new(),
            rows: 0,
        })
    }

    /// Gives a waiting input its next batch. An empty batch leaves the input waiting.
    ///
    /// # Errors
    /// [`Error::UnknownInput`], [`Error::NotWaiting`]: a mistake of the caller. [`Error::RowsGoBack`]: the
    /// input is not sorted. [`Error::Arrow`]: the batch is not of the schema.
    pub fn push(&mut self, input: usize, batch: RecordBatch) -> Result<(), Error> {
        self.waiting_lane(input)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let compare = Error::arrow("compare key columns");
        let keys: Vec<ArrayRef> =
            self.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
        let rows = self.converter.convert_columns(&keys).map_err(compare)?;
        let lane = &mut self.lanes[input];
        let mut before = lane.last.as_deref();
        for (row, data) in rows.iter().enumerate() {
            if before.is_some_and(|before| data.data() < before) {
                return Err(Error::RowsGoBack { input, row: lane.rows_before + row as u64 });
            }
            before = Some(rows.row(row).data());
        }
        lane.last = Some(rows.row(rows.num_rows() - 1).data().into());
        lane.rows_before += rows.num_rows() as u64;
        (lane.batch, lane.at, lane.source) = (Some((batch, rows)), 0, None);
        Ok(())
    }

    /// Says that a waiting input has no more batches.
    ///
    /// # Errors
    /// [`Error::UnknownInput`], [`Error::NotWaiting`]: a mistake of the caller.
    pub fn finish(&mut self, input: usize) -> Result<(), Error> {
        self.waiting_lane(input)?;
        self.lanes[input].is_finished = true;
        Ok(())
    }

    fn waiting_lane(&self, input: usize) -> Result<(), Error> {
        match self.lanes.get(input) {
            None => Err(Error::UnknownInput { input, inputs: self.lanes.len() }),
            Some(lane) if !lane.is_waiting() => Err(Error::NotWaiting { input }),
            Some(_) => Ok(()),
        }
    }

    /// The inputs that wait for a batch, lowest first.
    pub fn waiting(&self) -> impl Iterator<Item = usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter(|(_, lane)| lane.is_waiting()).map(|(input, _)| input)
    }

    /// Merges until something is wanted or ready.
    ///
    /// # Errors
    /// [`Error::Arrow`] if rows cannot be put together.
    pub fn step(&mut self) -> Result<Step, Error> {
        loop {
            if self.rows >= self.batch_rows {
                return self.assembled().map(Step::Batch);
            }
            if let Some(input) = self.waiting().next() {
                return Ok(Step::NeedInput(input));
            }
            let Some((winner, end)) = self.next_run() else {
                return match self.rows {
                    0 => Ok(Step::Done),
                    _ => self.assembled().map(Step::Batch),
                };
            };
            self.take(winner, end);
        }
    }

    /// The input with the least row, and the place after the last of its rows that come before those of all
    /// others.
    fn next_run(&self) -> Option<(usize, usize)> {
        let (mut winner, mut second): (Option<usize>, Option<usize>) = (None, None);
        let head = |lane: Option<usize>| lane.and_then(|lane| self.lanes[lane].head());
        for (input, lane) in self.lanes.iter().enumerate() {
            let Some(row) = lane.head() else { continue };
            if head(winner).is_none_or(|least| row < least) {
                (winner, second) = (Some(input), winner);
            } else if head(second).is_none_or(|least| row < least) {
                second = Some(input);
            }
        }
        let winner = winner?;
        let wins_ties = second.is_some_and(|second| winner < second);
        Some((winner, self.lanes[winner].end_before(head(second), wins_ties)))
    }

    fn take(&mut self, input: usize, end: usize) {
        let lane = &mut self.lanes[input];
        let Some((batch, _)) = &lane.batch else { return };
        let source = *lane.source.get_or_insert_with(|| {
            self.sources.push(batch.clone());
            self.sources.len() - 1
        });
        self.runs.push(Run { source, start: lane.at, len: end - lane.at });
        self.rows += end - lane.at;
        lane.at = end;
        if end == batch.num_rows() {
            lane.batch = None;
        }
    }

    /// The rows under construction as a batch.
    fn assembled(&mut self) -> Result<RecordBatch, Error> {
        let (runs, sources) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.sources));
        let rows = std::mem::take(&mut self.rows);
        for lane in &mut self.lanes {
            lane.source = None;
        }
        if let [run] = runs.as_slice() {
            return Ok(sources[run.source].slice(run.start, run.len));
        }
        let columns = (0..self.schema.fields().len()).map(|column| {
            if rows / runs.len().max(1) >= CONCAT_RUN_ROWS {
                let slice =
                    |run: &Run| sources[run.source].column(column).slice(run.start, run.len);
                gather::concat(&runs.iter().map(slice).collect::<Vec<_>>())
            } else {
                let arrays: Vec<_> =
                    sources.iter().map(|batch| batch.column(column).as_ref()).collect();
                let places = runs
                    .iter()
                    .flat_map(|run| (run.start..run.start + run.len).map(|row| (run.source, row)));
                gather::interleave(&arrays, &places.collect::<Vec<_>>())
            }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>();
        let batch =
            columns.and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema), columns));
        batch.map_err(Error::arrow("put rows together"))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use proptest::prelude::*;

    use super::*;

    type Facts = (Option<String>, i64);

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("time", DataType::Int64, false),
            Field::new("from", DataType::Int64, false),
        ]))
    }

    fn batch(rows: &[Facts], from: i64) -> RecordBatch {
        let keys: StringArray = rows.iter().map(|(key, _)| key.as_deref()).collect();
        let times = Int64Array::from_iter_values(rows.iter().map(|(_, time)| *time));
        let from = Int64Array::from_iter_values(rows.iter().map(|_| from));
        RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(times), Arc::new(from)])
            .unwrap()
    }

    fn merged(inputs: &[Vec<Facts>], piece: usize, batch_rows: usize) -> RecordBatch {
        let mut merger =
            ColumnMerger::try_new(schema(), vec![0, 1], inputs.len(), batch_rows).unwrap();
        let mut at = vec![0; inputs.len()];
        let mut out = Vec::new();
        loop {
            match merger.step().unwrap() {
                Step::NeedInput(input) if at[input] == inputs[input].len() => {
                    merger.finish(input).unwrap();
                }
                Step::NeedInput(input) => {
                    let end = (at[input] + piece).min(inputs[input].len());
                    let rows = batch(&inputs[input][at[input]..end], input as i64);
                    merger.push(input, rows).unwrap();
                    at[input] = end;
                }
                Step::Batch(rows) => {
                    assert!(rows.num_rows() > 0);
                    out.push(rows);
                }
                Step::Done => return concat_batches(&schema(), &out).unwrap(),
            }
        }
    }

    fn inputs() -> impl Strategy<Value = Vec<Vec<Facts>>> {
        let row = (prop::option::of("[a-c]{0,2}"), -3..3_i64);
        let input = prop::collection::vec(row, 0..40).prop_map(|mut rows| {
            rows.sort();
            rows
        });
        prop::collection::vec(input, 0..5)
    }

    proptest! {
        #[test]
        fn rows_come_as_a_stable_sort_has_them(inputs in inputs(), piece in 1..9_usize, batch_rows in 1..50_usize) {
            let mut expected: Vec<(Facts, i64)> = inputs
                .iter()
                .enumerate()
                .flat_map(|(input, rows)| rows.iter().map(move |row| (row.clone(), input as i64)))
                .collect();
            expected.sort();
            let rows = merged(&inputs, piece, batch_rows);
            let keys = rows.column(0).as_string::<i32>();
            let number = |column: usize| rows.column(column).as_primitive::<Int64Type>();
            let found: Vec<(Facts, i64)> = (0..rows.num_rows())
                .map(|row| {
                    let key = keys.iter().nth(row).flatten().map(str::to_owned);
                    ((key, number(1).value(row)), number(2).value(row))
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_input_that_goes_back_is_refused() {
        let mut merger = ColumnMerger::try_new(schema(), vec![0, 1], 1, 8).unwrap();
        let row = |key: &str, time| (Some(key.to_owned()), time);
        merger.push(0, batch(&[row("a", 1), row("b", 0)], 0)).unwrap();
        let Step::Batch(_) = (loop {
            match merger.step().unwrap() {
                Step::NeedInput(_) => {
                    let back = merger.push(0, batch(&[row("a", 2)], 0));
                    assert!(matches!(back, Err(Error::RowsGoBack { input: 0, row: 2 })));
                    merger.finish(0).unwrap();
                }
                step => break step,
            }
        }) else {
            panic!("there are rows");
        };
    }
}
