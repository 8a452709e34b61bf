//! The newest rows of keys from memory alone: segments of the warm tier, and pieces that wait for
//! their flush.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use tidelog_core::TimeRange;
use tidelog_oplog::FileRow;
use tidelog_store::{HotFile, SeriesView, WarmFile, WarmTier};
use tidelog_warm::{Op, Output, Request, Segment, WarmTable};

use super::LatestOptions;
use super::newest::{Candidates, last_rows};
use crate::session::Queries;
use crate::warm::Cancel;

/// The newest rows of a series, if all rows that may be among them lie in memory, and no plan is needed
/// to tell them apart.
pub(super) async fn read(
    queries: &Queries,
    view: &SeriesView,
    by: &[String],
    options: &LatestOptions,
) -> Option<RecordBatch> {
    let tier = queries.engine().warm();
    if !queries.moves_newest() || !tier.is_on() {
        return None;
    }
    let wanted = Wanted::of(view, by, options)?;
    let sources = Sources::of(view, wanted.range, tier)?;
    let consumer = MemoryConsumer::new("newest rows of keys");
    let held = consumer.register(queries.context().memory_pool());
    let (cancel, tier) = (Cancel::default(), tier.clone());
    let cancelled = cancel.flag();
    let search = Search { wanted, sources, tier, held };
    // Dropped with its reader, a search ends at the next segment.
    SpawnedTask::spawn_blocking(move || search.newest(cancelled)).join().await.ok()?
}

/// What is read of each row.
#[derive(Debug)]
struct Wanted {
    /// The columns of the series that are needed: those to show, then others.
    columns: Vec<usize>,
    /// How many of these are to be shown.
    shown: usize,
    /// The columns by which rows are told apart, and that of time, among those that are needed.
    by: Vec<usize>,
    time: usize,
    /// These as a schema.
    schema: SchemaRef,
    range: TimeRange,
    /// The range in the unit of the time column.
    times: tidelog_warm::TimeRange,
}

impl Wanted {
    /// `None` if something that is named is not there, which a plan can say, or rows are told apart by
    /// others than key columns.
    fn of(view: &SeriesView, by: &[String], options: &LatestOptions) -> Option<Self> {
        let series = view.schema();
        let own = series.columns();
        let find = |name: &String| own.index_of(name).ok();
        let mut columns: Vec<usize> = match &options.columns {
            Some(names) => names.iter().map(find).collect::<Option<_>>()?,
            None => (0..own.fields().len()).collect(),
        };
        let shown = columns.len();
        let mut place = |column: usize| {
            let known = columns.iter().position(|known| *known == column);
            known.unwrap_or_else(|| {
                columns.push(column);
                columns.len() - 1
            })
        };
        let by = by.iter().map(|name| {
            let column = find(name).filter(|column| series.keys().contains(column))?;
            Some(place(column))
        });
        let by = by.collect::<Option<Vec<_>>>()?;
        let time = place(series.time_index());
        let fields = columns.iter().map(|column| Arc::clone(&own.fields()[*column]));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (range, unit) = (options.range.unwrap_or(TimeRange::ALL), series.time_unit());
        let (first, last) = (range.start().ceil_to(unit), range.end().floor_to(unit));
        let times = match range == TimeRange::ALL {
            true => tidelog_warm::TimeRange::ALL,
            false if first <= last => tidelog_warm::TimeRange::from_inclusive(first, last),
            false => tidelog_warm::TimeRange::new(0, 0),
        };
        Some(Self { columns, shown, by, time, schema, range, times })
    }
}

/// What holds the rows of a view.
#[derive(Debug)]
struct Sources {
    /// Segments of one table, of later versions from one to the next.
    segments: Vec<Arc<Segment>>,
    table: Option<Arc<WarmTable>>,
    /// Of each column of the series its number in the table.
    places: Arc<[Option<usize>]>,
    /// Pieces in memory, whose versions are later still.
    pieces: Vec<Arc<HotFile>>,
}

impl Sources {
    /// `None` if some rows are not in memory, or it is not plain which are seen.
    fn of(view: &SeriesView, range: TimeRange, tier: &WarmTier) -> Option<Self> {
        let mut files: Vec<&Arc<FileRow>> = view.files(range).collect();
        files.sort_by_key(|file| file.min_version);
        let mut pieces: Vec<Arc<HotFile>> = view.hot_files(range).cloned().collect();
        pieces.sort_by_key(|piece| piece.row().min_version);
        let rows: Vec<&FileRow> = files.iter().map(|file| file.as_ref()).collect();
        let hot = pieces.iter().map(|piece| piece.row().as_ref());
        let all: Vec<&FileRow> = rows.into_iter().chain(hot).collect();
        let is_whole = |row: &&FileRow| !view.is_partly_visible(row) && row.until.is_none();
        if !all.iter().all(is_whole) || view.schema().dedup() && !is_told_apart(&all) {
            return None;
        }
        let unique = |file: &&Arc<FileRow>| file.unique || !view.schema().dedup();
        let warm = |file: &Arc<FileRow>| Some(file).filter(unique).and_then(|f| tier.find(f.file));
        let warm: Vec<WarmFile> = files.into_iter().map(warm).collect::<Option<_>>()?;
        let table = warm.first().map(|first| Arc::clone(&first.table));
        let is_of_table =
            |file: &WarmFile| table.as_ref().is_some_and(|table| table.id() == file.table.id());
        if !warm.iter().all(is_of_table) {
            return None;
        }
        let places = warm.first().map(|first| Arc::clone(&first.columns)).unwrap_or_default();
        let segments = warm.into_iter().map(|file| file.segment).collect();
        Some(Self { segments, table, places, pieces })
    }
}

/// Whether of two rows with the same key and time it can be told which replaces the other: they are of
/// sources of which one has only later versions, or of no two sources.
fn is_told_apart(by_version: &[&FileRow]) -> bool {
    let follow = |pair: &[&FileRow]| pair[0].max_version < pair[1].min_version;
    let mut by_time = by_version.to_vec();
    by_time.sort_by_key(|row| row.range.start());
    let apart = |pair: &[&FileRow]| pair[0].range.end() < pair[1].range.start();
    by_version.windows(2).all(follow) || by_time.windows(2).all(apart)
}

/// A read that has all that it needs.
struct Search {
    wanted: Wanted,
    sources: Sources,
    tier: WarmTier,
    held: MemoryReservation,
}

impl Search {
    fn newest(self, cancelled: Arc<AtomicBool>) -> Option<RecordBatch> {
        let mut batches = self.warm(cancelled)?;
        for piece in &self.sources.pieces {
            batches.push(self.piece(piece)?);
            self.count(&batches)?;
        }
        let Wanted { by, time, schema, shown, .. } = &self.wanted;
        let candidates = Candidates { by, time: *time, batches };
        let rows = candidates.newest(schema).ok()??;
        rows.project(&(0..*shown).collect::<Vec<_>>()).ok()
    }

    /// The candidates of all segments.
    fn warm(&self, cancelled: Arc<AtomicBool>) -> Option<Vec<RecordBatch>> {
        let Some(table) = &self.sources.table else { return Some(Vec::new()) };
        let place = |column: &usize| self.sources.places.get(*column).copied().flatten();
        let columns = self.wanted.columns.iter().map(place).collect::<Option<Vec<_>>>()?;
        let op = Op::LastPerKey { columns, keys: None };
        let request = Request::new(op).with_time(self.wanted.times).with_cancel(cancelled);
        let answer = self.tier.run(table, &self.sources.segments, &request).ok()?;
        let Output::Rows(batches) = answer.output else { return None };
        let own = |batch: RecordBatch| self.own(&batch);
        let batches = batches.into_iter().map(own).collect::<Option<Vec<_>>>()?;
        self.count(&batches).map(|()| batches)
    }

    /// The candidates of a piece in memory.
    fn piece(&self, piece: &HotFile) -> Option<RecordBatch> {
        let batch = self.own(&piece.batch().project(&self.wanted.columns).ok()?)?;
        let times = tidelog_store::time_values(batch.column(self.wanted.time))?;
        let rows = match self.wanted.times.inclusive() {
            Some((first, last)) => {
                let start = times.values().partition_point(|time| *time < first);
                start..times.values().partition_point(|time| *time <= last)
            }
            None => 0..0,
        };
        last_rows(&batch, &self.wanted.by, rows).ok()
    }

    /// Rows under the schema of what is wanted; segments answer text in another type.
    fn own(&self, batch: &RecordBatch) -> Option<RecordBatch> {
        let schema = &self.wanted.schema;
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).ok());
        RecordBatch::try_new(Arc::clone(schema), columns.collect::<Option<_>>()?).ok()
    }

    fn count(&self, batches: &[RecordBatch]) -> Option<()> {
        self.held.try_resize(batches.iter().map(RecordBatch::get_array_memory_size).sum()).ok()
    }
}
