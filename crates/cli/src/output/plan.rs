//! Query plans, which are trees of long lines: as they are, not squeezed into a table.

use std::io::Write;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::output::rows::RowsWriter;
use crate::output::sink::{self, Sink};

/// Whether the rows are what `EXPLAIN` gives.
pub(crate) fn is_plan(schema: &SchemaRef) -> bool {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names == ["plan_type", "plan"]
}

/// Writes each plan under its title.
#[derive(Debug)]
pub(crate) struct PlanWriter {
    sink: Sink,
}

impl PlanWriter {
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink }
    }
}

impl RowsWriter for PlanWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let column = |i: usize| batch.column(i).as_string_opt::<i32>();
        let Some((titles, plans)) = column(0).zip(column(1)) else { return Ok(()) };
        for (title, plan) in titles.iter().zip(plans) {
            let lines = plan.unwrap_or_default().lines().map(|line| format!("  {line}\n"));
            let text = format!("{}\n{}", title.unwrap_or_default(), lines.collect::<String>());
            let written = self.sink.write_all(text.as_bytes());
            written.map_err(|error| sink::failed(self.sink.path().as_deref(), error))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Sink> {
        Ok(self.sink)
    }
}
