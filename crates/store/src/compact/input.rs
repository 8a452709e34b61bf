//! Files that do not overlap, read one after the other as batches.
//!
//! It makes no request: it says what it wants and is given it, so that decoding can happen on a thread
//! of its own while requests are made elsewhere.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tidelog_oplog::FileRow;

use crate::error::{Error, version_words};

/// Files in order of event time, no two of which share an instant.
pub(super) struct Chain {
    files: VecDeque<Arc<FileRow>>,
    open: Option<(Arc<FileRow>, ParquetPushDecoder)>,
    /// Where `__version` stands among the columns.
    version: usize,
    batch_rows: usize,
}

/// What comes next of a chain.
pub(super) enum Next {
    Rows(RecordBatch),
    /// The metadata of this file, for `Chain::opened`.
    Open(Arc<FileRow>),
    /// These bytes of the open file, for `Chain::fetched`.
    Fetch(Vec<Range<u64>>),
    End,
}

impl Chain {
    pub(super) fn new(files: VecDeque<Arc<FileRow>>, version: usize, batch_rows: usize) -> Self {
        Self { files, open: None, version, batch_rows }
    }

    pub(super) fn next(&mut self) -> Result<Next, Error> {
        let Some((file, decoder)) = &mut self.open else {
            return Ok(self.files.front().map_or(Next::End, |file| Next::Open(Arc::clone(file))));
        };
        match decoder.try_decode().map_err(|error| damaged(file, &error))? {
            DecodeResult::NeedsData(ranges) => Ok(Next::Fetch(ranges)),
            DecodeResult::Data(rows) => Ok(Next::Rows(numbered(file, rows, self.version)?)),
            DecodeResult::Finished => {
                self.open = None;
                self.next()
            }
        }
    }

    /// The metadata that was wanted.
    pub(super) fn opened(&mut self, metadata: Arc<ParquetMetaData>) -> Result<(), Error> {
        let Some(file) = self.files.pop_front() else { return Ok(()) };
        let decoder = ParquetPushDecoderBuilder::try_new_decoder(metadata)
            .and_then(|builder| builder.with_batch_size(self.batch_rows).build())
            .map_err(|error| damaged(&file, &error))?;
        self.open = Some((file, decoder));
        Ok(())
    }

    /// The bytes that were wanted.
    pub(super) fn fetched(
        &mut self,
        ranges: Vec<Range<u64>>,
        bytes: Vec<Bytes>,
    ) -> Result<(), Error> {
        let Some((file, decoder)) = &mut self.open else { return Ok(()) };
        decoder.push_ranges(ranges, bytes).map_err(|error| damaged(file, &error))
    }
}

/// Rows with their versions, which a file counts from its own base.
fn numbered(file: &FileRow, rows: RecordBatch, version: usize) -> Result<RecordBatch, Error> {
    let base = file.version_base;
    let mut columns = rows.columns().to_vec();
    let numbers = columns.get_mut(version).and_then(|numbers| {
        let known = numbers.as_primitive_opt::<Int64Type>()?;
        *numbers = Arc::new(known.unary::<_, Int64Type>(|number| number + base));
        Some(())
    });
    if numbers.is_none() {
        let error = ArrowError::SchemaError("it has no column of versions".to_owned());
        return Err(damaged(file, &error.into()));
    }
    RecordBatch::try_new(rows.schema(), columns).map_err(|error| damaged(file, &error.into()))
}

fn damaged(file: &FileRow, error: &ParquetError) -> Error {
    Error::DamagedFile {
        object: file.location.to_string(),
        path: file.path.clone(),
        versions: version_words(file.min_version, file.max_version),
        reason: error.to_string(),
    }
}
