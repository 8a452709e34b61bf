//! A world in a backend, and how what it answers is compared.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;

use super::chance::Chance;
use super::oracle::Oracle;
use super::requests::Maker;
use super::world::{Row, TIME, World};
use super::{Failure, Outcome, arrays};
use crate::answer::{Answer, Output};
use crate::backend::WarmBackend;
use crate::error::WarmError;
use crate::request::{BATCH_ROWS, Request};
use crate::segment::Segment;
use crate::spec::TableSpec;
use crate::table::WarmTable;

/// A world in a backend.
pub(super) struct Setting<'a> {
    pub(super) backend: &'a dyn WarmBackend,
    pub(super) table: Arc<WarmTable>,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) oracle: Oracle,
}

impl<'a> Setting<'a> {
    pub(super) fn new(backend: &'a dyn WarmBackend, world: &World) -> Result<Self, Failure> {
        let spec = TableSpec::try_new(world.schema(), TIME, world.keys()).map_err(text)?;
        let table = WarmTable::new(spec);
        let rows = world.segments();
        let seal = |rows: &Vec<Row>| backend.seal(&table, &world.batches(rows)).map_err(text);
        let segments = rows.iter().map(seal).collect::<Result<_, _>>()?;
        Ok(Self { backend, table, segments, oracle: Oracle::new(world, &rows) })
    }

    pub(super) fn maker<'b>(&'b self, world: &'b World, seed: u64) -> Maker<'b> {
        Maker { world, oracle: &self.oracle, chance: Chance::new(seed) }
    }

    pub(super) fn run(&self, request: &Request) -> Result<Answer, WarmError> {
        self.backend.run(&self.table, &self.segments, request)
    }

    /// The answer to a request, or none if it is one to refuse, and is refused.
    pub(super) fn answer(
        &self,
        request: &Request,
        refuse: bool,
    ) -> Result<Option<Output>, Failure> {
        let filter = request.filter.as_ref();
        let refuse = refuse || filter.is_some_and(|filter| self.oracle.refuses_predicate(filter));
        match (self.run(request), refuse) {
            (Ok(answer), false) => Ok(Some(answer.output)),
            (Err(WarmError::Unsupported { .. } | WarmError::Invalid { .. }), true) => Ok(None),
            (Ok(answer), true) => {
                Err(format!("was to be refused, got {:?}\n{request:#?}", answer.output))
            }
            (Err(error), refuse) => {
                let wanted = if refuse { "a refusal" } else { "an answer" };
                Err(format!("{error}, where {wanted} was expected\n{request:#?}"))
            }
        }
    }

    /// Compares rows with those of a request that gives rows.
    pub(super) fn compare_rows(
        &self,
        request: &Request,
        columns: &[usize],
        refuse: bool,
        expected: impl FnOnce() -> Vec<Row>,
    ) -> Result<Outcome, Failure> {
        let refuse = refuse || columns.iter().any(|column| self.oracle.refuses_column(*column));
        let batches = match self.answer(request, refuse)? {
            None => return Ok(Outcome::Refused),
            Some(Output::Rows(batches)) => batches,
            Some(other) => return Err(format!("expected rows, got {other:?}\n{request:#?}")),
        };
        let types: Vec<_> = columns.iter().map(|column| self.data_type(*column)).collect();
        for batch in &batches {
            check_types(batch, &types)?;
            if batch.num_rows() == 0 || batch.num_rows() > BATCH_ROWS {
                return Err(format!("a batch of {} rows\n{request:#?}", batch.num_rows()));
            }
        }
        let found: Vec<Row> = batches.iter().flat_map(arrays::rows).collect();
        let expected = expected();
        if found == expected {
            return Ok(if found.is_empty() { Outcome::Empty } else { Outcome::Answered });
        }
        let row = (0..).find(|row| found.get(*row) != expected.get(*row)).unwrap_or(0);
        Err(format!(
            "{} rows, expected {}; row {row} is {:?}, expected {:?}\n{request:#?}",
            found.len(),
            expected.len(),
            found.get(row),
            expected.get(row)
        ))
    }

    pub(super) fn data_type(&self, column: usize) -> DataType {
        answer_type(self.oracle.schema.field(column).data_type())
    }
}

/// The type that answers have a column of this type in.
pub(super) fn answer_type(own: &DataType) -> DataType {
    match own {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        _ => own.clone(),
    }
}

/// Fails if the columns of a batch have other types.
pub(super) fn check_types(batch: &RecordBatch, expected: &[DataType]) -> Result<(), Failure> {
    let schema = batch.schema();
    let found: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    if found == expected {
        return Ok(());
    }
    Err(format!("columns of types {found:?}, expected {expected:?}"))
}

pub(super) fn text(error: WarmError) -> Failure {
    error.to_string()
}
