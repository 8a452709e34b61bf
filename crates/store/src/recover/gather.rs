//! Records of a write-ahead log, taken apart into versions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{Int64Type, SchemaRef};
use tidelog_core::{NodeId, TransactionId, TreePath, Version};
use tidelog_oplog::SeriesOptions;
use tidelog_wal::{Record, Records};

use crate::error::Error;
use crate::owner::{SeriesRecord, TierOptions, decode_record};

/// How the log was to say that a series has its columns.
pub(super) type Made = (SchemaRef, Arc<SeriesOptions>);

/// One version as it was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) node: NodeId,
    pub(super) path: TreePath,
    pub(super) version: Version,
    pub(super) transaction: TransactionId,
    /// The rows, without a column of versions.
    pub(super) batch: RecordBatch,
}

/// Whole records, as many as are committed at once.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) pieces: Vec<Piece>,
    /// Series that the records make, or give their columns.
    pub(super) made: HashMap<NodeId, Made>,
    pub(super) records: u64,
    pub(super) last_seq: u64,
    rows: u64,
    bytes: u64,
}

/// Takes the next records, within the limits of a generation; `None` if there are no more.
pub(super) async fn next(
    mut records: Records,
    options: &TierOptions,
) -> Result<(Option<Chunk>, Records), Error> {
    let (rows_max, bytes_max) = (options.rows_max, options.bytes_max);
    let gathered = tokio::task::spawn_blocking(move || {
        let mut chunk = Chunk::default();
        for record in records.by_ref() {
            chunk.add(record?)?;
            if chunk.rows >= rows_max || chunk.bytes >= bytes_max {
                break;
            }
        }
        Ok::<_, Error>(((chunk.records > 0).then_some(chunk), records))
    });
    gathered.await.map_err(|_| Error::Closed)?
}

impl Chunk {
    fn add(&mut self, record: Record) -> Result<(), Error> {
        let recovered = decode_record(record.seq, &record.payload)?;
        for row in recovered.tree {
            if let (Some(schema), Some(options)) = (row.schema, row.options) {
                self.made.insert(row.node, (schema, options));
            }
        }
        for (series, batch) in recovered.series {
            self.rows += batch.num_rows() as u64;
            self.pieces.extend(pieces_of(record.seq, series, &batch)?);
        }
        self.records += 1;
        self.last_seq = record.seq;
        self.bytes += record.payload.len() as u64;
        Ok(())
    }
}

/// The versions of one series in a record.
fn pieces_of(seq: u64, series: SeriesRecord, batch: &RecordBatch) -> Result<Vec<Piece>, Error> {
    let fail = |reason: String| Error::Record { seq, reason };
    let last = batch.num_columns().checked_sub(1);
    let last = last.ok_or_else(|| fail("its rows have no columns".to_owned()))?;
    let numbers = batch.column(last).as_primitive_opt::<Int64Type>();
    let numbers = numbers.ok_or_else(|| fail("its rows have no versions".to_owned()))?.clone();
    let user: Vec<usize> = (0..last).collect();
    let rows = batch.project(&user).map_err(|error| fail(error.to_string()))?;
    let SeriesRecord { node, path, base, versions, .. } = series;
    let alone = versions.len() == 1;
    let mut pieces = Vec::with_capacity(versions.len());
    for row in versions {
        let batch = if alone {
            rows.clone()
        } else {
            let number = arrow::array::Int64Array::new_scalar(row.version.number() - base.number());
            let its = eq(&numbers, &number).map_err(|error| fail(error.to_string()))?;
            filter_record_batch(&rows, &its).map_err(|error| fail(error.to_string()))?
        };
        if batch.num_rows() as u64 != row.rows {
            let (found, said) = (batch.num_rows(), row.rows);
            return Err(fail(format!("{} of {path} has {found} of {said} rows", row.version)));
        }
        let (path, transaction) = (path.clone(), row.transaction);
        pieces.push(Piece { node, path, version: row.version, transaction, batch });
    }
    Ok(pieces)
}
