//! The versions that a workload appends, the same for everybody: in memory for Tidelog, in a file for the peers.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::writer::FileWriter;

use crate::generate::sensors::{self, Sensors};

#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) batches: Vec<RecordBatch>,
    /// An Arrow IPC file of these batches.
    pub(crate) file: PathBuf,
}

impl Staged {
    pub(crate) fn sensors(seed: u64, versions: usize, rows: usize, file: &Path) -> Result<Self> {
        let mut sensors = Sensors::new(seed);
        let batches = (0..versions).map(|_| sensors.batch(rows)).collect::<Result<Vec<_>>>()?;
        let mut writer = FileWriter::try_new(File::create(file)?, &sensors::schema())?;
        for batch in &batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        Ok(Self { batches, file: file.to_owned() })
    }
}

/// The sum of the compared column over some batches.
pub(crate) fn sum(batches: &[RecordBatch]) -> f64 {
    let columns = batches.iter().filter_map(|batch| batch.column_by_name(sensors::SUM_COLUMN));
    let sums = columns.map(|column| arrow::compute::sum(column.as_primitive::<Int64Type>()));
    sums.map(|sum| sum.unwrap_or_default() as f64).sum()
}

pub(crate) fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}
