//! The forms that rows can take, one writer each.

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::json::writer::{JsonArray, JsonFormat, LineDelimited, Writer as Json, WriterBuilder};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
use crate::output::plan::{self, PlanWriter};
use crate::output::sink::{self, Failure, Sink};
use crate::output::table::{TableWriter, View};

/// Rows of a Parquet row group: what is held in memory until it is written.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// A form for rows, fully decided.
#[derive(Debug)]
pub(crate) enum Form {
    /// A table; all of it, or what a terminal shows.
    Table {
        view: Option<View>,
    },
    Csv,
    JsonLines,
    /// One array.
    JsonDocument,
    Parquet,
    ArrowFile,
    ArrowStream,
}

/// Writes batches in some form.
pub(crate) trait RowsWriter {
    /// Writes a batch.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Whether nothing that follows would be shown or counted.
    fn is_full(&self) -> bool {
        false
    }

    /// Writes what belongs at the end.
    fn finish(self: Box<Self>) -> Result<Sink>;
}

/// The writer for a form.
pub(crate) fn writer(form: Form, schema: SchemaRef, sink: Sink) -> Result<Box<dyn RowsWriter>> {
    let place = Place { format: form.name(), path: sink.path(), failure: sink.failure() };
    Ok(match form {
        Form::Table { .. } if plan::is_plan(&schema) => Box::new(PlanWriter::new(sink)),
        Form::Table { view } => Box::new(TableWriter::new(schema, view, sink)),
        Form::Csv => Box::new(CsvRows::new(schema, place, sink)?),
        Form::JsonLines => {
            let json = json_options().build::<_, LineDelimited>(sink);
            Box::new(JsonRows { json, place, is_document: false })
        }
        Form::JsonDocument => {
            let json = json_options().build::<_, JsonArray>(sink);
            Box::new(JsonRows { json, place, is_document: true })
        }
        Form::Parquet => {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(Default::default()))
                .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                .build();
            let writer = ArrowWriter::try_new(sink, schema, Some(properties));
            Box::new(ParquetRows { writer: writer.map_err(|e| place.failed(&e))?, place })
        }
        Form::ArrowFile => {
            let writer = FileWriter::try_new(sink, &schema).map_err(|e| place.failed(&e))?;
            Box::new(ArrowFileRows { writer, place })
        }
        Form::ArrowStream => {
            let writer = StreamWriter::try_new(sink, &schema).map_err(|e| place.failed(&e))?;
            Box::new(ArrowStreamRows { writer, place })
        }
    })
}

fn json_options() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true)
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Self::Table { .. } => "table",
            Self::Csv => "csv",
            Self::JsonLines | Self::JsonDocument => "json",
            Self::Parquet => "parquet",
            Self::ArrowFile | Self::ArrowStream => "arrow",
        }
    }
}

/// What an error needs to know.
#[derive(Debug)]
struct Place {
    format: &'static str,
    path: Option<PathBuf>,
    failure: Failure,
}

impl Place {
    /// Tells a place that cannot be written from rows that cannot take the form.
    fn failed(&self, error: &dyn Display) -> Error {
        match self.failure.take() {
            Some(failure) => sink::failed(self.path.as_deref(), failure),
            None => Error::Rows { format: self.format, message: error.to_string() },
        }
    }
}

struct CsvRows {
    csv: csv::Writer<Sink>,
    place: Place,
    /// Written with the first batch; a result without one still has its names.
    header: Option<SchemaRef>,
}

impl CsvRows {
    fn new(schema: SchemaRef, place: Place, sink: Sink) -> Result<Self> {
        Ok(Self { csv: csv::WriterBuilder::new().build(sink), place, header: Some(schema) })
    }
}

impl RowsWriter for CsvRows {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.header = None;
        self.csv.write(batch).map_err(|error| self.place.failed(&error))
    }

    fn finish(mut self: Box<Self>) -> Result<Sink> {
        if let Some(schema) = self.header.take().filter(|schema| !schema.fields().is_empty()) {
            self.write(&RecordBatch::new_empty(schema))?;
        }
        Ok(self.csv.into_inner())
    }
}

struct JsonRows<F: JsonFormat> {
    json: Json<Sink, F>,
    place: Place,
    /// One document has no line end of its own.
    is_document: bool,
}

impl<F: JsonFormat> RowsWriter for JsonRows<F> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.json.write(batch).map_err(|error| self.place.failed(&error))?;
        self.json.get_mut().flush().map_err(|error| self.place.failed(&error))
    }

    fn finish(mut self: Box<Self>) -> Result<Sink> {
        self.json.finish().map_err(|error| self.place.failed(&error))?;
        let mut sink = self.json.into_inner();
        if self.is_document {
            sink.write_all(b"\n").map_err(|error| self.place.failed(&error))?;
        }
        Ok(sink)
    }
}

struct ParquetRows {
    writer: ArrowWriter<Sink>,
    place: Place,
}

impl RowsWriter for ParquetRows {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| self.place.failed(&error))
    }

    fn finish(self: Box<Self>) -> Result<Sink> {
        let Self { writer, place } = *self;
        writer.into_inner().map_err(|error| place.failed(&error))
    }
}

struct ArrowFileRows {
    writer: FileWriter<Sink>,
    place: Place,
}

impl RowsWriter for ArrowFileRows {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| self.place.failed(&error))
    }

    fn finish(self: Box<Self>) -> Result<Sink> {
        let Self { writer, place } = *self;
        writer.into_inner().map_err(|error| place.failed(&error))
    }
}

struct ArrowStreamRows {
    writer: StreamWriter<Sink>,
    place: Place,
}

impl RowsWriter for ArrowStreamRows {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| self.place.failed(&error))?;
        self.writer.get_mut().flush().map_err(|error| self.place.failed(&error))
    }

    fn finish(self: Box<Self>) -> Result<Sink> {
        let Self { writer, place } = *self;
        writer.into_inner().map_err(|error| place.failed(&error))
    }
}
