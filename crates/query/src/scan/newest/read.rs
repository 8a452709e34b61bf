//! A partition of a scan that leaves out what is not the newest of its key.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, ParquetFileReaderFactory};
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::metrics::{Count, MetricBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::scalar::ScalarValue;
use futures::StreamExt;

use super::may_be_newest::MayBeNewest;
use super::row_groups::{self, RowGroup, TimeOf};
use super::shared::{Newest, Shared};
use super::values;
use crate::scan::files::ScanFile;
use crate::scan::reader::HandedOver;
use crate::scan::source::SeriesSource;
use crate::scan::tiers::TieredSource;

impl Newest {
    pub(in crate::scan) fn open(
        &self,
        source: &SeriesSource,
        args: OpenArgs,
    ) -> Result<SendableRecordBatchStream> {
        let shared = self.join(source, &args)?;
        shared.times.account(args.context.memory_pool());
        let metrics = source.config.metrics();
        let count = |name| MetricBuilder::new(&metrics).counter(name, args.partition);
        let scan = Scan {
            columns: Columns::of(self, source)?,
            source: source.clone(),
            shared,
            context: args.context,
            partition: args.partition,
            row_groups_outdone: count("row_groups_outdone"),
            rows_outdone: count("rows_outdone"),
        };
        let reading = Reading { scan, groups: VecDeque::new(), current: None };
        let batches = futures::stream::try_unfold(reading, |mut reading| async move {
            let batch = reading.next().await?;
            Ok(batch.map(|batch| (batch, reading)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(source.projected_schema()?, batches)))
    }
}

/// Where keys and time lie.
struct Columns {
    keys: Vec<String>,
    time: String,
    /// In the output.
    key_indices: Vec<usize>,
    time_index: usize,
}

impl Columns {
    fn of(newest: &Newest, source: &SeriesSource) -> Result<Self> {
        let missing = || DataFusionError::Internal("a key or the time is not read".to_owned());
        let projection = source.projection()?;
        let place = |name: &str| {
            let is_it = |expr: &Arc<dyn PhysicalExpr>| {
                expr.downcast_ref::<Column>().is_some_and(|column| column.name() == name)
            };
            projection.as_ref().iter().position(|shown| is_it(&shown.expr)).ok_or_else(missing)
        };
        let time = source.facts.roles.time.as_ref().ok_or_else(missing)?.name.clone();
        Ok(Self {
            key_indices: newest.keys.iter().map(|key| place(key)).collect::<Result<_>>()?,
            time_index: place(&time)?,
            keys: newest.keys.clone(),
            time,
        })
    }
}

/// Where a partition stands.
struct Reading {
    scan: Scan,
    groups: VecDeque<RowGroup>,
    current: Option<SendableRecordBatchStream>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.current {
                match rows.next().await {
                    Some(batch) => {
                        let kept = self.scan.pass(&batch?)?;
                        if kept.num_rows() > 0 {
                            return Ok(Some(kept));
                        }
                    }
                    None => self.current = None,
                }
            } else if let Some(mut group) = self.groups.pop_front() {
                if self.scan.is_outdone(&mut group).await? {
                    self.scan.row_groups_outdone.add(1);
                } else {
                    self.current = Some(self.scan.open(group)?);
                }
            } else if let Some(file) = self.scan.shared.next() {
                self.groups = self.scan.row_groups(file).await?;
            } else {
                return Ok(None);
            }
        }
    }
}

/// What a partition reads, and how.
struct Scan {
    source: SeriesSource,
    columns: Columns,
    shared: Arc<Shared>,
    context: Arc<TaskContext>,
    partition: usize,
    row_groups_outdone: Count,
    rows_outdone: Count,
}

impl Scan {
    /// The rows of a batch that are to be passed on.
    fn pass(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.columns.key_indices.iter().map(|index| Arc::clone(batch.column(*index)));
        let times = row_groups::numbers(batch.column(self.columns.time_index))?;
        let keys: Vec<ArrayRef> = keys.collect();
        let kept = self.shared.times.pass(&keys, &times)?;
        if kept.false_count() == 0 {
            return Ok(batch.clone());
        }
        self.rows_outdone.add(kept.false_count());
        Ok(filter_record_batch(batch, &kept)?)
    }

    /// The row groups of a file, the newest first; none if the log tells that all are outdone.
    async fn row_groups(&self, file: ScanFile) -> Result<VecDeque<RowGroup>> {
        let table = self.source.config.file_source.table_schema();
        let time = TimeOf { table: table.file_schema(), column: &self.columns.time };
        let constant = |key: &String| values::constant(&file.file, table, key);
        let constants: Option<Vec<ScalarValue>> = self.columns.keys.iter().map(constant).collect();
        if let Some(constants) = constants {
            let keys = constants.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
            if self.shared.times.outdo_all(&keys, row_groups::bound(&file, &time)?)? {
                self.row_groups_outdone.add(usize::try_from(file.row.row_groups).unwrap_or(0));
                return Ok(VecDeque::new());
            }
        }
        if file.hot {
            return Ok(VecDeque::from([row_groups::of_piece(file, &time)?]));
        }
        let reader = self.reader(&file)?;
        Ok(row_groups::newest_first(&file, time, reader).await?.into())
    }

    /// Whether a later row is known of every key that a row group can hold.
    async fn is_outdone(&self, group: &mut RowGroup) -> Result<bool> {
        // A piece in memory has no dictionary pages, and nothing to be saved by them.
        if group.file.hot || !self.shared.asks_dictionaries() {
            return Ok(false);
        }
        let mut reader = match group.reader.take() {
            Some(reader) => reader,
            None => self.reader(&group.file)?,
        };
        let (table, times) = (self.source.config.file_source.table_schema(), &self.shared.times);
        let columns = self.columns.keys.iter().zip(times.types());
        let keys = values::keys(group, reader.as_mut(), table, columns, times.count()).await?;
        group.reader = Some(reader);
        let outdone = match keys {
            Some(keys) => times.outdo_all(&keys, group.bound)?,
            None => false,
        };
        self.shared.tally(outdone);
        Ok(outdone)
    }

    fn reader(&self, file: &ScanFile) -> Result<Box<dyn AsyncFileReader + Send>> {
        let metrics = self.source.config.metrics();
        self.readers()?.create_reader(self.partition, file.file.clone(), None, &metrics)
    }

    fn readers(&self) -> Result<Arc<dyn ParquetFileReaderFactory>> {
        Ok(Arc::clone(self.source.facts.template.readers()?))
    }

    /// The rows of a row group that pass all filters and may be the newest of their keys.
    fn open(&self, group: RowGroup) -> Result<SendableRecordBatchStream> {
        let is_cut = self.source.is_cut(&group.file.file);
        let mut file = group.file.file;
        if group.of > 1 {
            let mut only = ParquetAccessPlan::new_none(group.of);
            only.scan(group.index);
            file = file.with_extension(only);
        }
        let mut config = self.source.config_with(vec![FileGroup::new(vec![file])], is_cut)?;
        let mut source = TieredSource::of(&config)?.clone().newest_first();
        if self.shared.times.count() > 0 {
            let predicate = self.may_be_newest(&config, group.bound)?;
            // The keys come first: where they rule rows out, nothing else of those is decoded.
            let all = [predicate].into_iter().chain(config.file_source.filter());
            source = source.with_predicate(conjunction(all));
        }
        if let Some(reader) = group.reader {
            let handed = HandedOver::new(reader, self.readers()?);
            source = source.with_readers(Arc::new(handed));
        }
        config.file_source = Arc::new(source);
        config.open(0, Arc::clone(&self.context))
    }

    fn may_be_newest(&self, config: &FileScanConfig, bound: i64) -> Result<Arc<dyn PhysicalExpr>> {
        let table = config.file_source.table_schema().table_schema();
        let keys =
            self.columns.keys.iter().map(|key| {
                Ok(Arc::new(Column::new_with_schema(key, table)?) as Arc<dyn PhysicalExpr>)
            });
        let times = Arc::clone(&self.shared.times);
        Ok(Arc::new(MayBeNewest::new(keys.collect::<Result<_>>()?, times, bound)))
    }
}
