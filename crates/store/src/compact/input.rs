//! Files that do not overlap, read one after the other as batches.
//!
//! It makes no request: it says what it wants and is given it, so that decoding can happen on a thread
//! of its own while requests are made elsewhere.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tidelog_core::TreePath;
use tidelog_oplog::{FileRow, Until};

use crate::error::{Error, version_words};
use crate::series_schema::{SeriesSchema, time_values};

/// Files in order of event time, no two of which share an instant.
pub(crate) struct Chain {
    files: VecDeque<Arc<FileRow>>,
    open: Option<(Arc<FileRow>, ParquetPushDecoder)>,
    wanted: Wanted,
    within: Option<Within>,
}

/// The columns that are read of files.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// As they come out. If `__until` is among them it is the last, and a file without that column has
    /// there when all its rows ended, or the greatest number if they stand.
    pub(crate) columns: SchemaRef,
    /// Where `__version` stands among them.
    pub(crate) version: usize,
    /// Their places in the file, ascending; all columns if absent.
    pub(crate) places: Option<Vec<usize>>,
    /// Rows that are read at once.
    pub(crate) batch_rows: usize,
}

/// A range of event time.
#[derive(Debug, Clone)]
pub(crate) struct Within {
    pub(crate) path: TreePath,
    pub(crate) schema: SeriesSchema,
    /// In the series' unit.
    pub(crate) times: RangeInclusive<i64>,
}

impl Within {
    /// The rows of a batch that lie inside.
    fn of(&self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        // The columns that are read may be a few of those of the series.
        let times = rows.column_by_name(self.schema.time_column()).and_then(time_values);
        let times = times.ok_or_else(|| Error::Compaction {
            path: self.path.clone(),
            reason: "rows of a file have no event times".to_owned(),
        })?;
        let is_inside = BooleanArray::from_unary(&times, |time| self.times.contains(&time));
        filter_record_batch(rows, &is_inside).map_err(|error| Error::Compaction {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    /// The row groups of a file that may have rows inside, and the rows of these that may.
    fn selection(&self, metadata: &ParquetMetaData) -> Option<(Vec<usize>, RowSelection)> {
        let fields = self.schema.stored_columns();
        let descriptor = metadata.file_metadata().schema_descr();
        let converter =
            StatisticsConverter::try_new(self.schema.time_column(), &fields, descriptor).ok()?;
        let all: Vec<usize> = (0..metadata.num_row_groups()).collect();
        let (columns, offsets) = (metadata.column_index()?, metadata.offset_index()?);
        let bounds = |values: ArrayRef| time_values(&values);
        let least = bounds(converter.data_page_mins(columns, offsets, &all).ok()?)?;
        let greatest = bounds(converter.data_page_maxes(columns, offsets, &all).ok()?)?;
        let rows = converter.data_page_row_counts(offsets, metadata.row_groups(), &all).ok()??;
        let may_be_inside = |page: usize| {
            let is_after = least.is_valid(page) && least.value(page) > *self.times.end();
            let is_before = greatest.is_valid(page) && greatest.value(page) < *self.times.start();
            !is_after && !is_before
        };
        let mut page = 0;
        let (mut groups, mut selectors) = (Vec::new(), Vec::new());
        for group in all {
            let mut left = u64::try_from(metadata.row_group(group).num_rows()).ok()?;
            let mut of_group = Vec::new();
            while left > 0 {
                let count = rows.value(page);
                let rows = usize::try_from(count).ok()?;
                of_group.push(match may_be_inside(page) {
                    true => RowSelector::select(rows),
                    false => RowSelector::skip(rows),
                });
                left = left.checked_sub(count)?;
                page += 1;
            }
            if of_group.iter().any(|selector| !selector.skip) {
                groups.push(group);
                selectors.extend(of_group);
            }
        }
        Some((groups, selectors.into()))
    }
}

/// What comes next of a chain.
pub(crate) enum Next {
    Rows(RecordBatch),
    /// The metadata of this file, for `Chain::opened`.
    Open(Arc<FileRow>),
    /// These bytes of the open file, for `Chain::fetched`.
    Fetch(Vec<Range<u64>>),
    End,
}

impl Chain {
    pub(crate) fn new(files: VecDeque<Arc<FileRow>>, wanted: Wanted) -> Self {
        Self { files, open: None, wanted, within: None }
    }

    /// Leaves out rows that lie elsewhere.
    pub(crate) fn within(self, within: Within) -> Self {
        Self { within: Some(within), ..self }
    }

    pub(crate) fn next(&mut self) -> Result<Next, Error> {
        let Some((file, decoder)) = &mut self.open else {
            return Ok(self.files.front().map_or(Next::End, |file| Next::Open(Arc::clone(file))));
        };
        match decoder.try_decode().map_err(|error| damaged(file, &error))? {
            DecodeResult::NeedsData(ranges) => Ok(Next::Fetch(ranges)),
            DecodeResult::Data(rows) => {
                let rows = completed(file, rows, &self.wanted)?;
                let rows = self.within.as_ref().map_or(Ok(rows.clone()), |within| within.of(&rows));
                Ok(Next::Rows(rows?))
            }
            DecodeResult::Finished => {
                self.open = None;
                self.next()
            }
        }
    }

    /// The metadata that was wanted.
    pub(crate) fn opened(&mut self, metadata: Arc<ParquetMetaData>) -> Result<(), Error> {
        let Some(file) = self.files.pop_front() else { return Ok(()) };
        let projection = match &self.wanted.places {
            Some(places) => {
                let columns = metadata.file_metadata().schema_descr();
                ProjectionMask::roots(columns, places.iter().copied())
            }
            None => ProjectionMask::all(),
        };
        let selection = self.within.as_ref().and_then(|within| within.selection(&metadata));
        let decoder = ParquetPushDecoderBuilder::try_new_decoder(metadata)
            .and_then(|builder| {
                let builder = builder.with_batch_size(self.wanted.batch_rows);
                let builder = builder.with_projection(projection);
                match selection {
                    None => builder,
                    Some((groups, rows)) => {
                        builder.with_row_groups(groups).with_row_selection(rows)
                    }
                }
                .build()
            })
            .map_err(|error| damaged(&file, &error))?;
        self.open = Some((file, decoder));
        Ok(())
    }

    /// The bytes that were wanted.
    pub(crate) fn fetched(
        &mut self,
        ranges: Vec<Range<u64>>,
        bytes: Vec<Bytes>,
    ) -> Result<(), Error> {
        let Some((file, decoder)) = &mut self.open else { return Ok(()) };
        decoder.push_ranges(ranges, bytes).map_err(|error| damaged(file, &error))
    }
}

/// Rows with their versions, which a file counts from its own base, and with when they ended if that
/// is wanted.
fn completed(file: &FileRow, rows: RecordBatch, wanted: &Wanted) -> Result<RecordBatch, Error> {
    let fail = |error: ArrowError| damaged(file, &error.into());
    let Wanted { columns: schema, version, .. } = wanted;
    let mut columns = rows.columns().to_vec();
    let numbers = columns.get_mut(*version).and_then(|numbers| {
        let base = file.version_base;
        let known = numbers.as_primitive_opt::<Int64Type>()?;
        *numbers = Arc::new(known.unary::<_, Int64Type>(|number| number + base));
        Some(())
    });
    if numbers.is_none() {
        return Err(fail(ArrowError::SchemaError("it has no column of versions".to_owned())));
    }
    if columns.len() + 1 == schema.fields().len() && !file.until.is_some_and(Until::is_of_each) {
        let until = file.until.map_or(i64::MAX, |until| until.last().number());
        columns.push(Arc::new(Int64Array::from_value(until, rows.num_rows())));
        return RecordBatch::try_new(Arc::clone(schema), columns).map_err(fail);
    }
    RecordBatch::try_new(rows.schema(), columns).map_err(fail)
}

fn damaged(file: &FileRow, error: &ParquetError) -> Error {
    Error::DamagedFile {
        object: file.location.to_string(),
        path: file.path.clone(),
        versions: version_words(file.min_version, file.max_version),
        reason: error.to_string(),
    }
}
