//! The rows of a small commit, inside the commit.
//!
//! Whoever follows the log reads each commit anyway. With its rows inside, that one request tells all
//! that there is to know; the part is for readers that come later, and for those of other tools. The
//! rows are JSON, a line each, nulls left out, beside a hash of the text.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::json::ReaderBuilder;
use arrow::json::writer::LineDelimitedWriter;

use crate::decode;
use crate::error::Error;
use crate::hash::Hash128;
use crate::row::Row;
use crate::schema::log_schema;

const ROWS_MAX: usize = 16;
const BYTES_MAX: usize = 8 * 1024;

/// Rows as text, and its hash.
#[derive(Debug, Clone)]
pub(crate) struct Inline {
    text: Arc<str>,
}

impl Inline {
    /// The rows of a batch, if they are few.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Option<Self>, Error> {
        if batch.num_rows() > ROWS_MAX {
            return Ok(None);
        }
        let mut text = Vec::with_capacity(2048);
        let mut writer = LineDelimitedWriter::new(&mut text);
        writer.write(batch).map_err(Error::encode)?;
        writer.finish().map_err(Error::encode)?;
        drop(writer);
        if text.len() > BYTES_MAX {
            return Ok(None);
        }
        let text = String::from_utf8(text).map_err(Error::encode)?;
        Ok(Some(Self { text: text.into() }))
    }

    /// Rows as read back, if the text is what was written.
    pub(crate) fn checked(text: &str, hash: &str) -> Option<Self> {
        (Hash128::of(text.as_bytes()).to_string() == hash).then(|| Self { text: text.into() })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn hash(&self) -> String {
        Hash128::of(self.text.as_bytes()).to_string()
    }

    /// The rows of the commit that lies in `object`.
    pub(crate) fn rows(&self, object: &str) -> Result<Vec<Row>, Error> {
        decode::rows_in(object, self.batches(object)?)
    }

    /// The rows of the commit that lies in `object`, in the log's schema.
    pub(crate) fn batches(&self, object: &str) -> Result<Vec<RecordBatch>, Error> {
        let fail = |error: &dyn std::fmt::Display| Error::part(object, error);
        // Buffers are made for whole batches, of each column: they would be most of the work.
        let reader = ReaderBuilder::new(log_schema()).with_batch_size(ROWS_MAX);
        let reader = reader.build(self.text.as_bytes());
        reader.map_err(|e| fail(&e))?.collect::<Result<_, _>>().map_err(|e| fail(&e))
    }
}
