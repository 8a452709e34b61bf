//! Parquet files, which may be damaged in any way.

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Result};

const BATCH_ROWS: usize = 64 * 1024;

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of the decoder, which [`read`] turns into errors, off stderr.
pub(crate) fn silence_decoder_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !DECODING.get() {
            report(panic);
        }
    }));
}

/// Reads all rows of a file.
pub(crate) fn read(name: &str, file: File) -> Result<RecordBatch> {
    DECODING.set(true);
    // Nothing that the closure leaves half done outlives it.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(file)));
    DECODING.set(false);
    let damaged = |reason: String| {
        let message = format!("it is damaged or not Parquet: {reason}; write the file again");
        Error::input(name, message)
    };
    match decoded {
        Ok(Ok(batch)) => Ok(batch),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("it cannot be decoded".to_owned())),
    }
}

fn decode(file: File) -> Result<RecordBatch, ArrowError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = without_metadata(builder.schema());
    let reader = builder.with_batch_size(BATCH_ROWS).build()?;
    let mut batches = Vec::new();
    for batch in reader {
        let (_, columns, _) = batch?.into_parts();
        batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
    }
    concat_batches(&schema, &batches)
}

/// What other programs noted about the file as a whole is no part of a series.
fn without_metadata(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().clone()))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMillisecondArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn sample() -> (RecordBatch, Vec<u8>) {
        let batch = RecordBatch::try_from_iter([
            ("time", Arc::new(TimestampMillisecondArray::from_iter_values(0..50)) as ArrayRef),
            ("value", Arc::new(Float64Array::from_iter_values((0..50).map(f64::from)))),
            (
                "who",
                Arc::new(StringArray::from_iter_values((0..50).map(|i| format!("w{}", i % 7)))),
            ),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (batch, bytes)
    }

    fn read_bytes(bytes: &[u8]) -> Result<RecordBatch> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        read("a.parquet", file)
    }

    #[test]
    fn all_rows_come_back() {
        let (batch, bytes) = sample();
        assert_eq!(read_bytes(&bytes).unwrap(), batch);
    }

    #[test]
    fn a_damaged_file_is_an_error_or_other_rows_but_never_a_panic() {
        silence_decoder_panics();
        let (_, bytes) = sample();
        for length in 0..bytes.len() {
            let error = read_bytes(&bytes[..length]).unwrap_err();
            assert_eq!(error.exit_code(), 3);
        }
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                if let Err(error) = read_bytes(&damaged) {
                    assert_eq!(error.exit_code(), 3, "byte {at}");
                }
            }
        }
    }
}
