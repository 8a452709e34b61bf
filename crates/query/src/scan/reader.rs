//! Checked readers of data files, as DataFusion's Parquet source wants them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use tidelog_oplog::FileRow;
use tidelog_store::{FileReader, FileReaders};

/// Makes readers that check every byte against the log.
#[derive(Debug)]
pub(crate) struct CheckedReaders {
    files: FileReaders,
    columns: Arc<[String]>,
}

impl CheckedReaders {
    pub(crate) fn new(files: FileReaders) -> Self {
        Self { files, columns: Arc::default() }
    }

    /// Readers for a scan that wants these columns of whatever rows it reads one of.
    pub(crate) fn with_columns(self, columns: Arc<[String]>) -> Self {
        Self { columns, ..self }
    }
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let row = file.extension::<Arc<FileRow>>().ok_or_else(|| {
            DataFusionError::Internal(format!("{} is not of the log", file.object_meta.location))
        })?;
        let location = file.object_meta.location.as_ref();
        let metrics = ParquetFileMetrics::new(partition, location, metrics);
        let reader = self.files.reader(Arc::clone(row)).with_columns(Arc::clone(&self.columns));
        Ok(Box::new(MeteredReader { reader, metrics }))
    }
}

/// Hands over a reader that is there already, then makes others.
pub(crate) struct HandedOver {
    first: Mutex<Option<Box<dyn AsyncFileReader + Send>>>,
    others: Arc<dyn ParquetFileReaderFactory>,
}

impl HandedOver {
    pub(crate) fn new(
        first: Box<dyn AsyncFileReader + Send>,
        others: Arc<dyn ParquetFileReaderFactory>,
    ) -> Self {
        Self { first: Mutex::new(Some(first)), others }
    }
}

impl std::fmt::Debug for HandedOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandedOver").field("others", &self.others).finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for HandedOver {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        match self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(reader) => Ok(reader),
            None => self.others.create_reader(partition, file, metadata_size_hint, metrics),
        }
    }
}

/// Counts what is fetched in the scan's `bytes_scanned`.
struct MeteredReader {
    reader: FileReader,
    metrics: ParquetFileMetrics,
}

impl AsyncFileReader for MeteredReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.metrics.bytes_scanned.add(length(&range));
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.metrics.bytes_scanned.add(ranges.iter().map(length).sum());
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.reader.get_metadata(options)
    }
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}
