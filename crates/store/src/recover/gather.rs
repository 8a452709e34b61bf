//! Records of a write-ahead log, taken apart into versions, as many at a time as a generation in memory holds.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp::eq;
use arrow::datatypes::{Int64Type, SchemaRef};
use tidelog_core::memory::Account;
use tidelog_core::{Holder, NodeId, TransactionId, TreePath, Version};
use tidelog_oplog::SeriesOptions;
use tidelog_wal::{Record, Records};

use crate::engine::Engine;
use crate::error::Error;
use crate::owner::{SeriesRecord, TierLimits, decode_record};

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
    pub(super) records: u64,
    pub(super) last_seq: u64,
    /// Series that the records make, or give their columns.
    made: HashMap<NodeId, Made>,
    rows: u64,
    bytes: u64,
}

/// All records of a log that the store's log does not cover, chunk by chunk.
pub(super) struct Chunks {
    /// `None` while they are read, and after an error.
    records: Option<Records>,
    limits: TierLimits,
    /// What the newest chunk takes of the memory budget.
    memory: Account,
    /// Series that the records so far make, or give their columns.
    pub(super) made: HashMap<NodeId, Made>,
}

impl Chunks {
    pub(super) fn new(engine: &Engine, records: Records) -> Self {
        let limits = engine.tier_limits().within(engine.memory());
        let memory = engine.memory().account(Holder::Hot);
        Self { records: Some(records), limits, memory, made: HashMap::new() }
    }

    /// The next records, within the limits of a generation; `None` if there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let Some(records) = self.records.take() else { return Ok(None) };
        let limits = self.limits;
        let gathered = tokio::task::spawn_blocking(move || gather(records, &limits));
        let (chunk, rest) = gathered.await.map_err(|_| Error::Closed)??;
        self.records = Some(rest);
        self.memory.set(chunk.bytes);
        self.made.extend(chunk.made.clone());
        Ok((chunk.records > 0).then_some(chunk))
    }
}

fn gather(mut records: Records, limits: &TierLimits) -> Result<(Chunk, Records), Error> {
    let mut chunk = Chunk::default();
    for record in records.by_ref() {
        chunk.add(record?)?;
        if chunk.rows >= limits.rows_max || chunk.bytes >= limits.bytes_max {
            break;
        }
    }
    Ok((chunk, records))
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
            self.bytes += batch.get_array_memory_size() as u64;
            self.pieces.extend(pieces_of(record.seq, series, &batch)?);
        }
        self.records += 1;
        self.last_seq = record.seq;
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
