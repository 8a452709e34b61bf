//! Rows on their way out: batch by batch, to stdout or to a file that appears only when complete.

mod plan;
mod rows;
mod sink;
mod table;

use std::io::{self, IsTerminal, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use futures::{Stream, TryStreamExt};
use serde_json::Value;

use crate::args::{OutputArgs, OutputFormat};
use crate::error::{Error, Result};
use crate::output::rows::Form;
use crate::output::sink::Sink;
use crate::progress;

pub(crate) use crate::output::sink::{failed, open as open_file};

/// Writes the rows as the user asked for.
pub(crate) async fn write_rows(
    rows: impl Stream<Item = tidelog::Result<RecordBatch>>,
    schema: SchemaRef,
    args: &OutputArgs,
    json: bool,
) -> Result<()> {
    write_as(rows, schema, form(args, json)?, sink::open(args.output.as_deref())?).await
}

/// Writes all rows to stdout, as a table or as one JSON document.
pub(crate) async fn write_listing(
    rows: impl Stream<Item = tidelog::Result<RecordBatch>>,
    schema: SchemaRef,
    json: bool,
) -> Result<()> {
    let form = if json { Form::JsonDocument } else { Form::Table { view: None } };
    write_as(rows, schema, form, Sink::stdout()).await
}

async fn write_as(
    rows: impl Stream<Item = tidelog::Result<RecordBatch>>,
    schema: SchemaRef,
    form: Form,
    sink: Sink,
) -> Result<()> {
    // Progress and rows on one terminal would write over each other.
    let bar = sink.is_file().then(progress::rows);
    let mut writer = rows::writer(form, schema, sink)?;
    let mut rows = std::pin::pin!(rows);
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        writer.write(&batch)?;
        count += batch.num_rows();
        if let Some(bar) = &bar {
            bar.inc(batch.num_rows() as u64);
        }
        if writer.is_full() {
            break;
        }
    }
    writer.finish()?.commit()?;
    tracing::info!(rows = count, "written");
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    Ok(())
}

/// The form by the options, or by the file's name.
fn form(args: &OutputArgs, json: bool) -> Result<Form> {
    let path = args.output.as_deref().filter(|path| path.as_os_str() != "-");
    let by_name = path.and_then(|path| path.extension()).and_then(|e| e.to_str());
    let by_name = by_name.and_then(|extension| match extension.to_ascii_lowercase().as_str() {
        "csv" => Some(OutputFormat::Csv),
        "json" | "jsonl" | "ndjson" => Some(OutputFormat::Json),
        "parquet" | "pq" => Some(OutputFormat::Parquet),
        "arrow" | "feather" | "ipc" => Some(OutputFormat::Arrow),
        _ => None,
    });
    let fallback = if json { OutputFormat::Json } else { OutputFormat::Table };
    let format = args.format.or(by_name).unwrap_or(fallback);
    let on_terminal = path.is_none() && io::stdout().is_terminal();
    let binary = matches!(format, OutputFormat::Parquet | OutputFormat::Arrow);
    if binary && on_terminal {
        return Err(Error::usage(
            "Parquet and Arrow are not for a terminal; write to a file (-o FILE) or into a pipe",
        ));
    }
    Ok(match format {
        OutputFormat::Table => Form::Table { view: on_terminal.then(table::View::of_terminal) },
        OutputFormat::Csv => Form::Csv,
        OutputFormat::Json => Form::JsonLines,
        OutputFormat::Parquet => Form::Parquet,
        OutputFormat::Arrow if path.is_some() => Form::ArrowFile,
        OutputFormat::Arrow => Form::ArrowStream,
    })
}

/// Writes text to stdout.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Stdout { source })
}

/// Writes one JSON document to stdout, with indents for people.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    let text =
        if io::stdout().is_terminal() { format!("{value:#}\n") } else { format!("{value}\n") };
    print(&text)
}

/// A small table without lines, numbers to the right.
pub(crate) fn columns(header: Option<&[&str]>, rows: &[Vec<String>], right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header.iter().copied());
    }
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Rows as a table, for the narration of the demo.
pub(crate) fn table_of(batches: &[RecordBatch], schema: &SchemaRef) -> Result<String> {
    table::render(batches, schema)
}
