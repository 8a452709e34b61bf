//! A data file of the log, or a piece of rows in memory, as DataFusion's file, with exact statistics.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit as ArrowUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::{DataFusionError, Result};
use datafusion::scalar::ScalarValue;
use tidelog_core::TimeRange;
use tidelog_oplog::{ColumnStats, FileOrder, FileRow, StatValue};
use tidelog_storage::object_store::ObjectMeta;
use tidelog_storage::object_store::path::Path;
use tidelog_store::{HotFile, SeriesSchema, SeriesView};

use super::tiers::HotPiece;

/// More rows of pieces in memory are merged as they are read, not sorted before.
const JOINED_ROWS_MAX: usize = 16 * 1024;

/// A file that a scan reads, or a piece in memory that is read as one.
#[derive(Debug, Clone)]
pub(crate) struct ScanFile {
    pub(crate) row: Arc<FileRow>,
    pub(crate) file: PartitionedFile,
    /// Whether no two rows of the file share key and event time.
    pub(crate) clean: bool,
    /// Whether it also holds rows of versions that are not to be seen.
    pub(crate) partly_visible: bool,
    /// Whether it lies in memory.
    pub(crate) hot: bool,
    /// Which of its rows are read, and how they are brought into the order of event time.
    pub(crate) part: Part,
}

/// What of a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All rows, in the order of the file.
    Whole,
    /// These rows, which are in order of event time.
    Run(Range<u64>),
    /// All rows, sorted by event time.
    Sorted,
}

impl ScanFile {
    pub(crate) fn range(&self) -> TimeRange {
        self.row.range
    }

    /// How many rows are read.
    pub(crate) fn rows(&self) -> u64 {
        match &self.part {
            Part::Whole | Part::Sorted => self.row.rows,
            Part::Run(rows) => rows.end - rows.start,
        }
    }

    pub(crate) fn is_in_time_order(&self) -> bool {
        self.row.order == FileOrder::Time
    }

    /// The file as parts that are in order of event time each.
    pub(crate) fn in_time_order(self) -> Vec<Self> {
        if self.is_in_time_order() {
            return vec![self];
        }
        let Some(runs) = self.row.run_rows() else {
            return vec![Self { part: Part::Sorted, ..self }];
        };
        let mut start = 0;
        let parts = runs.into_iter().map(|rows| {
            let run = start..start + rows;
            start = run.end;
            Self { part: Part::Run(run), ..self.clone() }
        });
        parts.collect()
    }
}

/// The columns of a table, as they are stored, and which of them a scan has to do with.
#[derive(Debug, Clone)]
pub(crate) struct Stored<'a> {
    pub(crate) columns: &'a Schema,
    /// Statistics are made of these only: there may be many columns, and of each scan few matter.
    pub(crate) wanted: Vec<bool>,
}

impl<'a> Stored<'a> {
    pub(crate) fn new(columns: &'a Schema, wanted: impl Fn(&str) -> bool) -> Self {
        let wanted = columns.fields().iter().map(|field| wanted(field.name())).collect();
        Self { columns, wanted }
    }
}

/// The file of `row` for a table with these columns.
pub(crate) fn scan_file(view: &SeriesView, row: &Arc<FileRow>, stored: &Stored<'_>) -> ScanFile {
    let partition_values = vec![
        ScalarValue::Int64(Some(row.version_base)),
        ScalarValue::Utf8View(Some(view.path().to_string())),
        ScalarValue::Int64(Some(view.version().number())),
    ];
    let meta = ObjectMeta {
        location: Path::from(row.location.as_ref()),
        last_modified: Default::default(),
        size: row.size,
        e_tag: None,
        version: None,
    };
    let own = match row.until {
        Some(until) if until.is_of_each() => view.schema().superseded_columns(),
        _ => view.schema().stored_columns(),
    };
    let file = PartitionedFile::new_from_meta(meta)
        .with_partition_values(partition_values)
        .with_statistics(Arc::new(statistics(view.schema(), row, stored)))
        .with_arrow_schema(own)
        .with_extension(Arc::clone(row));
    let partly_visible = view.is_partly_visible(row);
    ScanFile {
        row: Arc::clone(row),
        file,
        clean: row.unique,
        partly_visible,
        hot: false,
        part: Part::Whole,
    }
}

/// A piece of rows in memory as a file of a table with these columns.
pub(crate) fn hot_file(view: &SeriesView, rows: &Arc<HotFile>, stored: &Stored<'_>) -> ScanFile {
    let row = rows.row();
    let mut scan = scan_file(view, row, stored);
    let piece = HotPiece { rows: Arc::clone(rows), schema: view.schema().clone() };
    // Nothing lies there; it is what plans call the piece.
    let name = format!("hot{}/{}-{}", view.path(), row.min_version, row.max_version);
    scan.file.object_meta.location = Path::from(name);
    ScanFile { file: scan.file.with_extension(piece), hot: true, ..scan }
}

/// Pieces in memory that lie over one another, as one of their rows in `range` if these are few: to sort
/// them costs less than to merge each. All others are as they were. That one has no statistics.
pub(super) fn with_pieces_joined(files: Vec<ScanFile>, range: TimeRange) -> Result<Vec<ScanFile>> {
    let (mut hot, mut files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.hot);
    hot.sort_by_key(|file| file.row.min_version);
    match joined(&hot, range)? {
        Some(joined) => files.push(joined),
        None => files.append(&mut hot),
    }
    Ok(files)
}

/// `None` if they are not of one series, or too many rows.
fn joined(hot: &[ScanFile], range: TimeRange) -> Result<Option<ScanFile>> {
    let (Some(first), true) = (hot.first(), hot.len() > 1) else { return Ok(None) };
    let piece = |file: &ScanFile| file.file.extension::<HotPiece>().cloned();
    let Some(pieces) = hot.iter().map(piece).collect::<Option<Vec<HotPiece>>>() else {
        return Ok(None);
    };
    if hot.iter().any(|file| file.row.node != first.row.node) {
        return Ok(None);
    }
    let schema = pieces[0].schema.clone();
    let rows: Vec<Arc<HotFile>> = pieces.into_iter().map(|piece| piece.rows).collect();
    let joined = HotFile::within(&schema, &rows, range, JOINED_ROWS_MAX);
    let Some(rows) = joined.map_err(|error| DataFusionError::External(Box::new(error)))? else {
        return Ok(None);
    };
    let (row, rows) = (Arc::clone(rows.row()), Arc::new(rows));
    let mut file = first.file.clone();
    file.object_meta.size = row.size;
    file.partition_values[0] = ScalarValue::Int64(Some(row.version_base));
    file.statistics = None;
    let file = file.with_extension(Arc::clone(&row)).with_extension(HotPiece { rows, schema });
    let partly_visible = hot.iter().any(|file| file.partly_visible);
    Ok(Some(ScanFile { clean: row.unique, row, file, partly_visible, ..first.clone() }))
}

/// Statistics of columns of a series of `schema`, from the log row of a file alone.
pub(crate) fn statistics(schema: &SeriesSchema, row: &FileRow, stored: &Stored<'_>) -> Statistics {
    let own = schema.columns();
    let stats = ColumnStats::decode_all(&row.column_stats).unwrap_or_default();
    let columns = stored.columns.fields().iter().zip(&stored.wanted);
    let column_statistics = columns
        .map(|(field, wanted)| match own.index_of(field.name()) {
            _ if !wanted => ColumnStatistics::new_unknown(),
            Ok(index) if index == schema.time_index() => {
                time_statistics(schema, row, field.data_type())
            }
            Ok(index) => stats
                .get(index)
                .map(|stats| {
                    column_statistics(stats, own.field(index).data_type(), field.data_type())
                })
                .unwrap_or_default(),
            Err(_) => ColumnStatistics::new_unknown(),
        })
        .collect();
    Statistics {
        num_rows: Precision::Exact(usize::try_from(row.rows).unwrap_or(usize::MAX)),
        total_byte_size: Precision::Absent,
        column_statistics,
    }
}

fn time_statistics(schema: &SeriesSchema, row: &FileRow, data_type: &DataType) -> ColumnStatistics {
    let unit = schema.time_unit();
    let own = schema.columns().field(schema.time_index()).data_type();
    let value = |units: i64| scalar(&StatValue::Int(units), own).and_then(|v| widen(v, data_type));
    let bound = |units: i64| value(units).map_or(Precision::Absent, Precision::Exact);
    ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: bound(row.range.start().floor_to(unit)),
        max_value: bound(row.range.end().floor_to(unit)),
        ..ColumnStatistics::new_unknown()
    }
}

fn column_statistics(stats: &ColumnStats, own: &DataType, table: &DataType) -> ColumnStatistics {
    let bound = |value: &StatValue| {
        let value = scalar(value, own).and_then(|value| widen(value, table));
        value.map_or(Precision::Absent, Precision::Exact)
    };
    let (min_value, max_value) = match &stats.bounds {
        Some((min, max)) => (bound(min), bound(max)),
        None => (Precision::Absent, Precision::Absent),
    };
    ColumnStatistics {
        null_count: Precision::Exact(usize::try_from(stats.nulls).unwrap_or(usize::MAX)),
        min_value,
        max_value,
        ..ColumnStatistics::new_unknown()
    }
}

fn widen(value: ScalarValue, to: &DataType) -> Option<ScalarValue> {
    if value.data_type() == *to { Some(value) } else { value.cast_to(to).ok() }
}

/// A bound from the log as a value of `data_type`.
pub(super) fn scalar(value: &StatValue, data_type: &DataType) -> Option<ScalarValue> {
    match (value, data_type) {
        (StatValue::Int(v), DataType::Boolean) => Some(ScalarValue::Boolean(Some(*v != 0))),
        (StatValue::Int(v), DataType::Int64) => Some(ScalarValue::Int64(Some(*v))),
        (StatValue::Int(v), DataType::Date64) => Some(ScalarValue::Date64(Some(*v))),
        (StatValue::Int(v), DataType::Date32) => {
            i32::try_from(*v).ok().map(|v| ScalarValue::Date32(Some(v)))
        }
        (StatValue::Int(v), DataType::Timestamp(unit, zone)) => {
            let zone = zone.clone();
            Some(match unit {
                ArrowUnit::Second => ScalarValue::TimestampSecond(Some(*v), zone),
                ArrowUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(*v), zone),
                ArrowUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(*v), zone),
                ArrowUnit::Nanosecond => ScalarValue::TimestampNanosecond(Some(*v), zone),
            })
        }
        (StatValue::Int(v), data_type) if data_type.is_integer() => {
            ScalarValue::Int64(Some(*v)).cast_to(data_type).ok()
        }
        (StatValue::Float(v), DataType::Float64) => Some(ScalarValue::Float64(Some(*v))),
        (StatValue::Float(v), DataType::Float32) => {
            ScalarValue::Float64(Some(*v)).cast_to(&DataType::Float32).ok()
        }
        (StatValue::Text(v), DataType::Utf8) => Some(ScalarValue::Utf8(Some(v.to_string()))),
        (StatValue::Text(v), DataType::LargeUtf8) => {
            Some(ScalarValue::LargeUtf8(Some(v.to_string())))
        }
        (StatValue::Text(v), DataType::Utf8View) => {
            Some(ScalarValue::Utf8View(Some(v.to_string())))
        }
        _ => None,
    }
}
