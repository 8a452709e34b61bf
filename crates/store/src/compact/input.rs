//! Files that do not overlap, read one after the other as batches.
//!
//! It makes no request: it says what it wants and is given it, so that decoding can happen on a thread
//! of its own while requests are made elsewhere.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tidelog_oplog::{FileRow, Until};

use crate::error::{Error, version_words};

/// Files in order of event time, no two of which share an instant.
pub(crate) struct Chain {
    files: VecDeque<Arc<FileRow>>,
    open: Option<(Arc<FileRow>, ParquetPushDecoder)>,
    wanted: Wanted,
}

/// The columns that are read of files.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// As they come out. If `__until` is among them it is the last, and a file without that column has
    /// there when all its rows ended, or the greatest number if they stand.
    pub(crate) columns: SchemaRef,
    /// Where `__version` stands among them.
    pub(crate) version: usize,
    /// Their places in the file, ascending; all columns if absent.
    pub(crate) places: Option<Vec<usize>>,
    /// Rows that are read at once.
    pub(crate) batch_rows: usize,
}

/// What comes next of a chain.
pub(crate) enum Next {
    Rows(RecordBatch),
    /// The metadata of this file, for `Chain::opened`.
    Open(Arc<FileRow>),
    /// These bytes of the open file, for `Chain::fetched`.
    Fetch(Vec<Range<u64>>),
    End,
}

impl Chain {
    pub(crate) fn new(files: VecDeque<Arc<FileRow>>, wanted: Wanted) -> Self {
        Self { files, open: None, wanted }
    }

    pub(crate) fn next(&mut self) -> Result<Next, Error> {
        let Some((file, decoder)) = &mut self.open else {
            return Ok(self.files.front().map_or(Next::End, |file| Next::Open(Arc::clone(file))));
        };
        match decoder.try_decode().map_err(|error| damaged(file, &error))? {
            DecodeResult::NeedsData(ranges) => Ok(Next::Fetch(ranges)),
            DecodeResult::Data(rows) => Ok(Next::Rows(completed(file, rows, &self.wanted)?)),
            DecodeResult::Finished => {
                self.open = None;
                self.next()
            }
        }
    }

    /// The metadata that was wanted.
    pub(crate) fn opened(&mut self, metadata: Arc<ParquetMetaData>) -> Result<(), Error> {
        let Some(file) = self.files.pop_front() else { return Ok(()) };
        let projection = match &self.wanted.places {
            Some(places) => {
                let columns = metadata.file_metadata().schema_descr();
                ProjectionMask::roots(columns, places.iter().copied())
            }
            None => ProjectionMask::all(),
        };
        let decoder = ParquetPushDecoderBuilder::try_new_decoder(metadata)
            .map(|builder| builder.with_batch_size(self.wanted.batch_rows))
            .and_then(|builder| builder.with_projection(projection).build())
            .map_err(|error| damaged(&file, &error))?;
        self.open = Some((file, decoder));
        Ok(())
    }

    /// The bytes that were wanted.
    pub(crate) fn fetched(
        &mut self,
        ranges: Vec<Range<u64>>,
        bytes: Vec<Bytes>,
    ) -> Result<(), Error> {
        let Some((file, decoder)) = &mut self.open else { return Ok(()) };
        decoder.push_ranges(ranges, bytes).map_err(|error| damaged(file, &error))
    }
}

/// Rows with their versions, which a file counts from its own base, and with when they ended if that
/// is wanted.
fn completed(file: &FileRow, rows: RecordBatch, wanted: &Wanted) -> Result<RecordBatch, Error> {
    let fail = |error: ArrowError| damaged(file, &error.into());
    let Wanted { columns: schema, version, .. } = wanted;
    let mut columns = rows.columns().to_vec();
    let numbers = columns.get_mut(*version).and_then(|numbers| {
        let base = file.version_base;
        let known = numbers.as_primitive_opt::<Int64Type>()?;
        *numbers = Arc::new(known.unary::<_, Int64Type>(|number| number + base));
        Some(())
    });
    if numbers.is_none() {
        return Err(fail(ArrowError::SchemaError("it has no column of versions".to_owned())));
    }
    if columns.len() + 1 == schema.fields().len() && !file.until.is_some_and(Until::is_of_each) {
        let until = file.until.map_or(i64::MAX, |until| until.last().number());
        columns.push(Arc::new(Int64Array::from_value(until, rows.num_rows())));
        return RecordBatch::try_new(Arc::clone(schema), columns).map_err(fail);
    }
    RecordBatch::try_new(rows.schema(), columns).map_err(fail)
}

fn damaged(file: &FileRow, error: &ParquetError) -> Error {
    Error::DamagedFile {
        object: file.location.to_string(),
        path: file.path.clone(),
        versions: version_words(file.min_version, file.max_version),
        reason: error.to_string(),
    }
}
