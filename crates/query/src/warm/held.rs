//! The files of a scan that are warm, and where their columns lie.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::datasource::physical_plan::FileSource;
use datafusion::scalar::ScalarValue;
use tidelog_core::TimeRange;
use tidelog_store::PATH_COLUMN;
use tidelog_warm::{Segment, WarmTable};

use super::why_not::WhyNot;
use crate::scan::files::{Part, ScanFile};
use crate::scan::source::SeriesSource;

/// The files of a scan, divided.
pub(super) struct Divided {
    /// Those that are warm, by the table that has them.
    pub(super) held: Vec<Held>,
    pub(super) others: Vec<ScanFile>,
    /// How many of the others are warm, but for rows that may stand in one another's place.
    not_apart: usize,
}

/// The files of a scan that one table of the warm tier has, and so one series.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) table: Arc<WarmTable>,
    /// The path of the series.
    pub(super) path: ScalarValue,
    /// In order of event time.
    pub(super) files: Vec<WarmFile>,
}

/// A file, and the segment that stands for it.
#[derive(Debug, Clone)]
pub(super) struct WarmFile {
    pub(super) file: ScanFile,
    pub(super) segment: Arc<Segment>,
}

/// Where a column of a scan lies.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// In the table, under this number.
    Column(usize),
    /// The same in all rows.
    Constant(ScalarValue),
}

impl Divided {
    /// The files of a scan: those that are seen whole and held by the warm tier, and the others, among
    /// them all whose rows are to be deduplicated with those of others. `None` if none is warm: scans may
    /// have very many files.
    pub(super) fn of(source: &SeriesSource) -> Option<Self> {
        let files = &source.facts().by_time;
        let tier = source.facts().engine.warm();
        let find = |file: &ScanFile| tier.find(file.row.file).filter(|_| is_seen_whole(file));
        let found: Vec<_> = files.iter().map(find).collect();
        if found.iter().all(Option::is_none) {
            return None;
        }
        let apart = source.rows_apart();
        let (mut held, mut others) = (Vec::<Held>::new(), Vec::new());
        let (mut places, mut not_apart) = (HashMap::new(), 0);
        for ((file, warm), is_apart) in files.iter().zip(found).zip(apart) {
            not_apart += usize::from(warm.is_some() && !is_apart);
            let Some(warm) = warm.filter(|_| is_apart) else {
                others.push(file.clone());
                continue;
            };
            let place = *places.entry((warm.table.id(), file.row.node)).or_insert_with(|| {
                let (table, path) = (Arc::clone(&warm.table), path_of(file));
                held.push(Held { table, path, files: Vec::new() });
                held.len() - 1
            });
            held[place].files.push(WarmFile { file: file.clone(), segment: warm.segment });
        }
        Some(Self { held, others, not_apart })
    }

    /// How many files are warm.
    pub(super) fn files(&self) -> usize {
        self.held.iter().map(|held| held.files.len()).sum::<usize>() + self.not_apart
    }

    /// All files that are warm.
    pub(super) fn scan_files(&self) -> Vec<ScanFile> {
        self.held.iter().flat_map(|held| &held.files).map(|warm| warm.file.clone()).collect()
    }
}

fn is_seen_whole(file: &ScanFile) -> bool {
    let is_file = !file.hot && file.part == Part::Whole;
    is_file && !file.partly_visible && file.row.until.is_none()
}

/// The path is a constant of each file, see `scan::files`.
fn path_of(file: &ScanFile) -> ScalarValue {
    let mut values = file.file.partition_values.iter();
    let path = values.find(|value| matches!(value, ScalarValue::Utf8View(_)));
    path.cloned().unwrap_or(ScalarValue::Utf8View(None))
}

impl Held {
    /// Where a column of the scan's table lies.
    pub(super) fn place(&self, table: &Schema, name: &str) -> Result<Place, WhyNot> {
        let spec = self.table.spec();
        let wanted = match table.field_with_name(name) {
            Ok(field) => field.data_type(),
            Err(_) => return Err(WhyNot::not_held(name)),
        };
        if name == PATH_COLUMN {
            return Ok(Place::Constant(self.path.clone()));
        }
        let Ok(column) = spec.schema().index_of(name) else { return Err(WhyNot::not_held(name)) };
        spec.form(column)?;
        let found = spec.schema().field(column).data_type();
        if found == wanted || is_text(found) && is_text(wanted) {
            return Ok(Place::Column(column));
        }
        Err(WhyNot::new(format!("column {name:?} is {found} there and {wanted} here")))
    }

    /// The number of a column of the scan's table.
    pub(super) fn column(&self, table: &Schema, name: &str) -> Result<usize, WhyNot> {
        match self.place(table, name)? {
            Place::Column(column) => Ok(column),
            Place::Constant(_) => Err(WhyNot::not_held(name)),
        }
    }

    /// The segments, in the order of the files.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        self.files.iter().map(|warm| Arc::clone(&warm.segment)).collect()
    }

    /// The event times of all rows.
    pub(super) fn range(&self) -> Option<TimeRange> {
        self.files.iter().map(|warm| warm.file.range()).reduce(|a, b| a.union(&b))
    }
}

/// The schema of what a scan reads: the columns of its files, and their constants.
pub(super) fn table_schema(source: &SeriesSource) -> Arc<Schema> {
    Arc::clone(source.facts().template.table_schema().table_schema())
}

/// Whether values are texts, however they are laid out. They compare as their bytes do in all of
/// these.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
