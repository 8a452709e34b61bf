//! Prepared rows as an immutable Parquet file, with all that the log keeps of it.
//!
//! | module | holds |
//! |---|---|
//! | `style` | encoding and codec of each column, chosen by trying them |
//! | `stats` | null counts and bounds of columns |
//! | `late` | where rows that come late end and new ones begin |
//!
//! Parquet has no checksum of its own, so the log row carries one short hash per page, one of the
//! tail (page index and footer) and one of the whole: a reader checks every byte it uses.

mod late;
mod stats;
mod style;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{Int64Type, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use tidelog_core::{
    CommitVersion, EventTime, FileId, NodeId, TimeRange, TreePath, Version, WriteTime,
};
use tidelog_oplog::{ColumnStats, FileOp, FileOrder, FileRow, Hash128, Layout, Until, encode_runs};

use self::stats::GatheredStats;
use crate::error::Error;
use crate::names::DATA_DIRECTORY;
use crate::pages::PageTable;
use crate::prepare::PreparedRows;
use crate::series_schema::SeriesSchema;

pub(crate) use self::late::border;
pub(crate) use self::stats::column_stats;
pub(crate) use self::style::{Expected, Style};

/// Files of an append are cut, at a change of event time, at about this many rows.
const FILE_ROWS_MAX: usize = 4 * 1024 * 1024;
/// A flush ends files at the borders of so many partitions; rows beyond are told apart by compaction.
const PARTITIONS_MAX: usize = 64;
/// A file with more stretches that are in order of event time is sorted, not merged, to be read so.
const RUNS_MAX: usize = 256;

/// A data file in memory and what the log will say of it. Clones share the bytes.
#[derive(Debug, Clone)]
pub(crate) struct EncodedFile {
    pub(crate) bytes: Bytes,
    pub(crate) metadata: Arc<ParquetMetaData>,
    pub(crate) pages: Arc<PageTable>,
    pub(crate) rows: u64,
    pub(crate) row_groups: u32,
    pub(crate) range: TimeRange,
    pub(crate) hash: Hash128,
    pub(crate) tail_length: u64,
    pub(crate) tail_hash: Hash128,
    pub(crate) page_hashes: Bytes,
    pub(crate) column_stats: Bytes,
    pub(crate) min_version: i64,
    pub(crate) max_version: i64,
    pub(crate) unique: bool,
    /// Of a file of replaced rows, the lowest and the highest version that replaced one.
    pub(crate) until: Option<(i64, i64)>,
    pub(crate) layout: Layout,
    /// The lengths of the stretches in order of event time, if there is more than one, and not too
    /// many.
    pub(crate) runs: Vec<u64>,
}

impl EncodedFile {
    /// The log row of the file under a name of its own, of a series whose versions are counted from
    /// 0.
    pub(crate) fn row(&self, id: FileId, path: &TreePath, node: NodeId) -> FileRow {
        FileRow {
            op: FileOp::Add,
            file: id,
            node,
            path: path.clone(),
            timestamp: WriteTime::default(),
            location: format!("{DATA_DIRECTORY}/{node}/{id}.parquet").into(),
            size: self.bytes.len() as u64,
            rows: self.rows,
            row_groups: self.row_groups,
            tail_length: self.tail_length,
            hash: self.hash,
            tail_hash: self.tail_hash,
            page_hashes: self.page_hashes.clone(),
            range: self.range,
            min_version: Version::new(self.min_version),
            max_version: Version::new(self.max_version),
            version_base: 0,
            partition: partition_of(&self.layout, self.range),
            order: self.layout.order,
            until: self.until.map(|(first, last)| Until::Each {
                first: Version::new(first),
                last: Version::new(last),
            }),
            unique: self.unique,
            column_stats: self.column_stats.clone(),
            codec: self.layout.codec,
            row_group_rows: self.layout.row_group_rows,
            runs: encode_runs(&self.runs),
            commit: CommitVersion::default(),
        }
    }
}

/// The partition that a file lies in, if it lies in one.
fn partition_of(layout: &Layout, range: TimeRange) -> Option<Arc<str>> {
    let partition = layout.partition.name_of(range.start())?;
    layout.partition.holds(range.start(), range.end()).then(|| partition.into())
}

/// Encodes prepared rows as one file, or several if there are very many.
pub(crate) fn encode(
    path: &TreePath,
    schema: &SeriesSchema,
    prepared: &PreparedRows,
) -> Result<Vec<EncodedFile>, Error> {
    let times = prepared.times.values();
    let mut files = Vec::new();
    let mut start = 0;
    while start < times.len() {
        let mut end = times.len().min(start + FILE_ROWS_MAX);
        // Rows of one event time stay together, so that ties are ordered inside one file.
        while end < times.len() && times[end] == times[end - 1] {
            end += 1;
        }
        let rows = PreparedRows {
            batch: prepared.batch.slice(start, end - start),
            times: prepared.times.slice(start, end - start),
            versions: Vec::new(),
            unique: prepared.unique,
        };
        let expected = Expected::of(std::slice::from_ref(&rows.batch));
        let style = Style::in_time_order(schema, &rows.batch, &expected);
        let mut file = FileWriter::try_new(path, schema, schema.stored_columns(), &style)?;
        file.write(&rows)?;
        files.push(file.finish()?);
        start = end;
    }
    Ok(files)
}

/// Encodes parts of one series that follow one another, no two of which share an event time, as files
/// that end at the borders of partitions, before the event time `border`, if they are given one, or if they
/// have very many rows. A part is let go of before the next is asked for.
pub(crate) fn encode_parts(
    path: &TreePath,
    schema: &SeriesSchema,
    expected: &Expected,
    border: Option<i64>,
    parts: impl Iterator<Item = Result<PreparedRows, Error>>,
) -> Result<Vec<EncodedFile>, Error> {
    let mut parting = Parting { schema: schema.clone(), border, borders: 0, end: None };
    let mut files = Vec::new();
    let mut style: Option<Style> = None;
    let mut open: Option<FileWriter> = None;
    for part in parts {
        let mut part = part?;
        let style = style.get_or_insert_with(|| Style::flushed(schema, &part.batch, expected));
        loop {
            let inside = parting.rows_inside(&part);
            if inside > 0 {
                let mut file = match open.take() {
                    Some(file) => file,
                    None => FileWriter::try_new(path, schema, schema.stored_columns(), style)?,
                };
                file.write(&slice(&part, 0, inside))?;
                if file.rows >= FILE_ROWS_MAX as u64 {
                    files.push(file.finish()?);
                } else {
                    open = Some(file);
                }
            }
            let left = part.batch.num_rows() - inside;
            if left == 0 {
                break;
            }
            parting.next();
            files.extend(open.take().map(FileWriter::finish).transpose()?);
            part = slice(&part, inside, left);
        }
    }
    files.extend(open.map(FileWriter::finish).transpose()?);
    Ok(files)
}

fn slice(part: &PreparedRows, start: usize, rows: usize) -> PreparedRows {
    PreparedRows {
        batch: part.batch.slice(start, rows),
        times: part.times.slice(start, rows),
        versions: Vec::new(),
        unique: part.unique,
    }
}

/// Where rows in order of event time cross from one partition into the next, or a border.
struct Parting {
    schema: SeriesSchema,
    /// In the series' unit.
    border: Option<i64>,
    /// Borders that were crossed.
    borders: usize,
    /// The first event time behind what rows lie in now, in the series' unit.
    end: Option<i64>,
}

impl Parting {
    /// How many rows of a part lie together with the rows before.
    fn rows_inside(&mut self, part: &PreparedRows) -> usize {
        let times = part.times.values();
        if self.borders >= PARTITIONS_MAX {
            return times.len();
        }
        if self.end.is_none() {
            self.end = times.first().and_then(|first| {
                let border = self.border.filter(|border| first < border);
                self.schema.partition_end(*first).into_iter().chain(border).min()
            });
        }
        self.end.map_or(times.len(), |end| times.partition_point(|time| *time < end))
    }

    fn next(&mut self) {
        self.borders += 1;
        self.end = None;
    }
}

/// A file that is being written, in memory.
pub(crate) struct FileWriter {
    path: TreePath,
    schema: SeriesSchema,
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    /// The first and last event time, and the first and last version.
    times: Option<(i64, i64)>,
    versions: Option<(i64, i64)>,
    until: Option<(i64, i64)>,
    stats: Vec<GatheredStats>,
    unique: bool,
    layout: Layout,
    runs: Runs,
}

/// The stretches of a file that are in order of event time.
#[derive(Debug, Default)]
struct Runs {
    ended: Vec<u64>,
    /// Rows of the last one, and its last event time.
    rows: u64,
    last: Option<i64>,
}

impl Runs {
    fn add(&mut self, times: &[i64]) {
        for time in times {
            if self.last.is_some_and(|last| *time < last) {
                if self.ended.len() <= RUNS_MAX {
                    self.ended.push(self.rows);
                }
                self.rows = 0;
            }
            self.rows += 1;
            self.last = Some(*time);
        }
    }

    fn finish(mut self) -> Vec<u64> {
        self.ended.push(self.rows);
        if self.ended.len() > RUNS_MAX { Vec::new() } else { self.ended }
    }
}

impl FileWriter {
    /// A file with the columns of the series as stored, or those of replaced rows.
    pub(crate) fn try_new(
        path: &TreePath,
        schema: &SeriesSchema,
        columns: SchemaRef,
        style: &Style,
    ) -> Result<Self, Error> {
        Self::try_new_in(Vec::new(), path, schema, columns, style)
    }

    /// The same in this memory, if it is large enough.
    pub(crate) fn try_new_in(
        mut memory: Vec<u8>,
        path: &TreePath,
        schema: &SeriesSchema,
        columns: SchemaRef,
        style: &Style,
    ) -> Result<Self, Error> {
        let fail = |reason: String| Error::Encode { path: path.clone(), reason };
        if memory.capacity() < style.estimate {
            memory = Vec::with_capacity(style.estimate);
        }
        let properties = style.properties.clone().map_err(fail)?;
        let writer = ArrowWriter::try_new(memory, columns, Some(properties));
        let writer = writer.map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            path: path.clone(),
            schema: schema.clone(),
            writer,
            rows: 0,
            times: None,
            versions: None,
            until: None,
            stats: Vec::new(),
            unique: true,
            layout: style.layout,
            runs: Runs::default(),
        })
    }

    /// Bytes that the file has already, about.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends a row group that has become so large.
    pub(crate) fn end_row_group_beyond(&mut self, bytes: usize) -> Result<(), Error> {
        if self.writer.in_progress_size() < bytes {
            return Ok(());
        }
        self.writer.flush().map_err(|error| self.fail(error))
    }

    fn fail(&self, reason: impl ToString) -> Error {
        Error::Encode { path: self.path.clone(), reason: reason.to_string() }
    }

    /// Adds rows that follow those before.
    pub(crate) fn write(&mut self, part: &PreparedRows) -> Result<(), Error> {
        let batch = &part.batch;
        self.writer.write(batch).map_err(|error| self.fail(error))?;
        let times = part.times.values();
        let (Some(mut first), Some(mut last)) = (times.first(), times.last()) else {
            return Ok(());
        };
        if self.layout.order != FileOrder::Time {
            self.runs.add(times);
            first = times.iter().min().unwrap_or(first);
            last = times.iter().max().unwrap_or(last);
        }
        let columns = self.schema.columns().fields().len();
        let Some((columns, hidden)) = batch.columns().split_at_checked(columns) else {
            return Err(self.fail("columns are missing"));
        };
        self.rows += batch.num_rows() as u64;
        let (least, greatest) = self.times.unwrap_or((*first, *last));
        self.times = Some((least.min(*first), greatest.max(*last)));
        if let Some(numbers) = hidden.first() {
            stretch(&mut self.versions, numbers);
        }
        if let Some(numbers) = hidden.get(1) {
            stretch(&mut self.until, numbers);
        }
        self.stats.resize_with(columns.len(), GatheredStats::default);
        for (stats, column) in self.stats.iter_mut().zip(columns) {
            stats.add(column);
        }
        self.unique &= part.unique;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<EncodedFile, Error> {
        let Self { path, schema, writer, rows, times, versions, until, stats, unique, .. } = self;
        let runs = match self.layout.order {
            FileOrder::Time => Vec::new(),
            FileOrder::KeyTime => self.runs.finish(),
        };
        let fail = |reason: String| Error::Encode { path: path.clone(), reason };
        let bytes = writer.into_inner().map_err(|error| fail(error.to_string()))?;
        let (bytes, metadata) = parsed(bytes).map_err(|error| fail(error.to_string()))?;
        let pages = PageTable::of_file(&metadata, &bytes)
            .ok_or_else(|| fail("its page index is incomplete".to_owned()))?;
        let tail = bytes.slice(pages.data_end()..);
        let time = |value| {
            EventTime::from_unit(value, schema.time_unit())
                .ok_or_else(|| fail("an event time is out of range".to_owned()))
        };
        let (first, last) = times.unwrap_or_default();
        let (min_version, max_version) = versions.unwrap_or_default();
        let stats: Vec<ColumnStats> = stats.into_iter().map(GatheredStats::finish).collect();
        Ok(EncodedFile {
            rows,
            row_groups: u32::try_from(metadata.num_row_groups()).unwrap_or(u32::MAX),
            range: TimeRange::try_new(time(first)?, time(last)?).map_err(Error::Time)?,
            hash: Hash128::of(&bytes),
            tail_length: tail.len() as u64,
            tail_hash: Hash128::of(&tail),
            page_hashes: pages.encode_hashes(),
            column_stats: ColumnStats::encode_all(&stats).into(),
            min_version,
            max_version,
            unique,
            until,
            layout: self.layout,
            runs,
            pages: Arc::new(pages),
            metadata: Arc::new(metadata),
            bytes,
        })
    }
}

/// Makes bounds hold the numbers of a column too.
fn stretch(bounds: &mut Option<(i64, i64)>, numbers: &ArrayRef) {
    let numbers = numbers.as_primitive::<Int64Type>();
    let least = arrow::compute::min(numbers).unwrap_or_default();
    let greatest = arrow::compute::max(numbers).unwrap_or_default();
    let (low, high) = bounds.unwrap_or((least, greatest));
    *bounds = Some((low.min(least), high.max(greatest)));
}

fn parsed(bytes: Vec<u8>) -> Result<(Bytes, ParquetMetaData), parquet::errors::ParquetError> {
    let bytes = Bytes::from(bytes);
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&bytes)?;
    Ok((bytes, reader.finish()?))
}
