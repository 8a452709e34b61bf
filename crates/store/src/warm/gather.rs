//! The rows of a data file on their way into a segment: read from it, or kept while it is written.
//!
//! All of them are in memory at once, decoded, and once more while they are brought into the order of the
//! segment. That is counted as it grows, and given up where it does not fit.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use tidelog_core::Holder;
use tidelog_core::memory::Account;
use tidelog_oplog::FileRow;
use tidelog_warm::WarmError;

use super::WarmTier;
use crate::compact::input::{Chain, Next, Wanted};
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

impl From<WarmError> for Failure {
    fn from(error: WarmError) -> Self {
        Self::Warm(error)
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

/// Rows of a file in the making, kept as they come in its order.
#[derive(Debug)]
pub(crate) struct Keeping {
    rows: Vec<RecordBatch>,
    memory: Scratch,
    /// Why no more are kept.
    given_up: Option<WarmError>,
}

impl Keeping {
    pub(super) fn new(tier: &WarmTier) -> Self {
        Self { rows: Vec::new(), memory: Scratch::new(tier), given_up: None }
    }

    /// Keeps rows that follow those before.
    pub(crate) fn add(&mut self, rows: &RecordBatch) {
        if self.given_up.is_some() {
            return;
        }
        let rows = in_own_buffers(rows);
        match self.memory.grow(memory_of(&rows) as u64) {
            Ok(()) => self.rows.push(rows),
            Err(error) => self.give_up(error),
        }
    }

    fn give_up(&mut self, error: WarmError) {
        self.given_up = Some(error);
        self.rows = Vec::new();
        self.memory.account.set(0);
    }

    /// All rows of the file.
    pub(super) fn finish(mut self) -> Result<Gathered, WarmError> {
        if let Some(error) = self.given_up {
            return Err(error);
        }
        let once_more = self.memory.account.bytes();
        self.memory.grow(once_more)?;
        Ok(Gathered { rows: self.rows, _memory: self.memory })
    }
}

/// Rows whose texts keep no pages alive that they were read from.
fn in_own_buffers(rows: &RecordBatch) -> RecordBatch {
    let own = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    let columns = rows.columns().iter().map(own).collect();
    // Columns of the same types and lengths are a batch.
    RecordBatch::try_new(rows.schema(), columns).unwrap_or_else(|_| rows.clone())
}

/// Memory that is needed to make a segment, of what the warm tier may have.
#[derive(Debug)]
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
    fn grow(&mut self, bytes: u64) -> Result<(), WarmError> {
        let wanted = self.account.bytes().saturating_add(bytes);
        while let Err(shortage) = self.account.try_set(wanted) {
            let missing = shortage.bytes.saturating_sub(shortage.free);
            if self.tier.backend().make_room(missing) == 0 {
                return Err(WarmError::OutOfMemory { wanted, free: shortage.free });
            }
        }
        Ok(())
    }
}
