//! The rows of a data file on their way into a segment.
//!
//! All of them are in memory at once, decoded, and once more while they are brought into the order of the
//! segment. That is counted as it grows, and given up where it does not fit.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use tidelog_core::Holder;
use tidelog_core::memory::Account;
use tidelog_oplog::FileRow;
use tidelog_warm::WarmError;

use super::WarmTier;
use crate::compact::input::{Chain, Next, Wanted};
use crate::encode::EncodedFile;
use crate::error::Error;
use crate::file_reader::FileReader;
use crate::hot::memory_of;
use crate::series_schema::SeriesSchema;

const BATCH_ROWS: usize = 8192;

/// Why the rows of a file are not in memory.
#[derive(Debug)]
pub(super) enum Failure {
    /// They cannot be read.
    Read(Error),
    /// There is no room for them.
    Warm(WarmError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

/// Rows that are being read.
pub(super) struct Gathering {
    chain: Chain,
    rows: Vec<RecordBatch>,
    memory: Scratch,
}

/// Rows that were read, and the memory that they take.
pub(super) struct Gathered {
    pub(super) rows: Vec<RecordBatch>,
    _memory: Scratch,
}

impl Gathering {
    fn new(tier: &WarmTier, schema: &SeriesSchema, file: &Arc<FileRow>) -> Self {
        let wanted = Wanted {
            columns: schema.stored_columns(),
            version: schema.columns().fields().len(),
            places: None,
            batch_rows: BATCH_ROWS,
        };
        let chain = Chain::new(VecDeque::from([Arc::clone(file)]), wanted);
        Self { chain, rows: Vec::new(), memory: Scratch::new(tier) }
    }

    /// Takes rows until something else is wanted.
    fn step(&mut self) -> Result<Next, Failure> {
        loop {
            match self.chain.next()? {
                Next::Rows(rows) => {
                    self.memory.grow(memory_of(&rows) as u64)?;
                    self.rows.push(rows);
                }
                next => return Ok(next),
            }
        }
    }

    fn finish(mut self) -> Result<Gathered, Failure> {
        let once_more = self.memory.account.bytes();
        self.memory.grow(once_more)?;
        Ok(Gathered { rows: self.rows, _memory: self.memory })
    }
}

/// The rows of a file of the store. The runtime is not blocked.
pub(super) async fn of_file(
    tier: &WarmTier,
    schema: &SeriesSchema,
    mut reader: FileReader,
    file: &Arc<FileRow>,
) -> Result<Gathered, Failure> {
    let mut gathering = Gathering::new(tier, schema, file);
    loop {
        let step = tokio::task::spawn_blocking(move || {
            let next = gathering.step();
            (gathering, next)
        });
        let (back, next) = step.await.map_err(|_| Error::Closed)?;
        gathering = back;
        match next? {
            Next::Open(_) => gathering.chain.opened(reader.footer().await?.metadata)?,
            Next::Fetch(ranges) => {
                let bytes = reader.ranges(ranges.clone()).await?;
                gathering.chain.fetched(ranges, bytes)?;
            }
            Next::Rows(_) => {}
            Next::End => return gathering.finish(),
        }
    }
}

/// The rows of a file that was just written. Blocks.
pub(super) fn of_encoded(
    tier: &WarmTier,
    schema: &SeriesSchema,
    file: &Arc<FileRow>,
    encoded: &EncodedFile,
) -> Result<Gathered, Failure> {
    let mut gathering = Gathering::new(tier, schema, file);
    loop {
        match gathering.step()? {
            Next::Open(_) => gathering.chain.opened(Arc::clone(&encoded.metadata))?,
            Next::Fetch(ranges) => {
                let cut = |range: &std::ops::Range<u64>| {
                    let at = |at: u64| {
                        usize::try_from(at).unwrap_or(usize::MAX).min(encoded.bytes.len())
                    };
                    encoded.bytes.slice(at(range.start)..at(range.end))
                };
                let bytes: Vec<Bytes> = ranges.iter().map(cut).collect();
                gathering.chain.fetched(ranges, bytes)?;
            }
            Next::Rows(_) => {}
            Next::End => return gathering.finish(),
        }
    }
}

/// Memory that is needed to make a segment, of what the warm tier may have.
struct Scratch {
    tier: WarmTier,
    account: Account,
}

impl Scratch {
    fn new(tier: &WarmTier) -> Self {
        let account = tier.inner.memory.account(Holder::Warm);
        Self { tier: tier.clone(), account }
    }

    /// Takes so many bytes more, of other segments if nothing else is free.
    fn grow(&mut self, bytes: u64) -> Result<(), Failure> {
        let wanted = self.account.bytes().saturating_add(bytes);
        while let Err(shortage) = self.account.try_set(wanted) {
            let missing = shortage.bytes.saturating_sub(shortage.free);
            if self.tier.backend().make_room(missing) == 0 {
                let error = WarmError::OutOfMemory { wanted, free: shortage.free };
                return Err(Failure::Warm(error));
            }
        }
        Ok(())
    }
}
