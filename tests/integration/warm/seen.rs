//! Engines with a warm tier, and the rows of a view as a reader would gather them.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use tempfile::TempDir;
use tidelog::arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use tidelog::arrow::datatypes::Int64Type;
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog_core::{AsOf, Env, TimeRange, TreePath};
use tidelog_oplog::FileRow;
use tidelog_store::{
    Append, AppendReceipt, Engine, EngineOptions, Head, Mode, SeriesView, UpkeepMode, WarmFile,
};
use tidelog_warm::{FetchOrder, Op, Output, Request, WarmError};

pub(super) const PATH: &str = "/s.series";

pub(super) fn path() -> TreePath {
    TreePath::parse(PATH).unwrap()
}

/// Options of one writer alone, whose files are merged only when asked for.
pub(super) fn alone(directory: &Path) -> EngineOptions {
    let mut options = shared();
    options.mode = Mode::Exclusive;
    options.tier.wal_directory = Some(directory.join("wal"));
    options
}

/// Options of any number of writers.
pub(super) fn shared() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.memory_bytes_max = Some(256 << 20);
    options.upkeep = UpkeepMode::OnRequest;
    options.compaction.in_background = false;
    options
}

pub(super) async fn create(options: &EngineOptions) -> Engine {
    create_on(Arc::new(InMemory::new()), options).await
}

pub(super) async fn create_on(place: Arc<dyn ObjectStore>, options: &EngineOptions) -> Engine {
    Engine::create(place, Env::default(), options).await.unwrap()
}

/// An engine of one writer alone, in a directory that has to be kept.
pub(super) async fn engine_alone() -> (Engine, TempDir) {
    let directory = TempDir::new().unwrap();
    (create(&alone(directory.path())).await, directory)
}

/// Rows with numbers from `first` on, of three keys and none in turn, at times from `start` on.
pub(super) fn batch(first: i64, count: i64, start: i64) -> RecordBatch {
    let numbers = || first..first + count;
    let times = TimestampMicrosecondArray::from_iter_values((0..count).map(|i| start + i / 2));
    let keys: StringArray =
        numbers().map(|i| (i % 4 != 3).then(|| format!("k{}", i % 4))).collect();
    let values: Float64Array = numbers().map(|i| (i % 5 != 4).then_some(i as f64 / 3.0)).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("time", Arc::new(times)),
        ("key", Arc::new(keys)),
        ("number", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("value", Arc::new(values)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, c)| (name, c, true))).unwrap()
}

pub(super) async fn append(engine: &Engine, rows: RecordBatch) -> AppendReceipt {
    engine.append(Append::new(path(), rows)).await.unwrap()
}

/// Where rows were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) hot: usize,
    pub(super) warm: usize,
    pub(super) cold: usize,
}

impl Found {
    pub(super) fn rows(self) -> usize {
        self.hot + self.warm + self.cold
    }
}

/// The numbers of all rows of the series at head, in order, and where they were.
pub(super) async fn numbers(engine: &Engine) -> (Vec<i64>, Found) {
    let head = engine.head().await.unwrap();
    let view = engine.series_in(&head, &path(), &AsOf::Head).await.unwrap();
    numbers_of(engine, &head, &view).await
}

/// The same, of a view.
pub(super) async fn numbers_of(
    engine: &Engine,
    _head: &Head,
    view: &SeriesView,
) -> (Vec<i64>, Found) {
    let column = view.schema().columns().index_of("number").unwrap();
    let mut found = Found::default();
    let mut numbers = Vec::new();
    for piece in view.hot_files(TimeRange::ALL) {
        found.hot += piece.batch().num_rows();
        numbers.extend(values(piece.batch(), column));
    }
    for file in view.files(TimeRange::ALL) {
        assert!(!view.is_partly_visible(file), "at head all of a file is seen");
        match engine.warm().find(file.file).and_then(|warm| fetch(engine, &warm).ok()) {
            Some(rows) => {
                found.warm += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                numbers.extend(rows.iter().flat_map(|rows| values(rows, column)));
            }
            None => {
                let rows = cold(engine, view, file).await;
                found.cold += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                numbers.extend(rows.iter().flat_map(|rows| values(rows, column)));
            }
        }
    }
    numbers.sort_unstable();
    (numbers, found)
}

fn values(rows: &RecordBatch, column: usize) -> Vec<i64> {
    rows.column(column).as_primitive::<Int64Type>().values().to_vec()
}

/// All rows of a segment, of which all columns are held.
pub(super) fn fetch(engine: &Engine, warm: &WarmFile) -> Result<Vec<RecordBatch>, WarmError> {
    let columns = warm.columns.iter().flatten().copied().collect();
    let op = Op::Fetch { columns, order: FetchOrder::Time, limit: None };
    let segments = std::slice::from_ref(&warm.segment);
    let answer = engine.warm().run(&warm.table, segments, &Request::new(op))?;
    match answer.output {
        Output::Rows(rows) => Ok(rows),
        other => panic!("{other:?}"),
    }
}

/// All rows of a file, of the series' columns.
pub(super) async fn cold(
    engine: &Engine,
    view: &SeriesView,
    file: &Arc<FileRow>,
) -> Vec<RecordBatch> {
    let reader = engine.files().pinned_to(view.commit()).reader(Arc::clone(file));
    let stream = ParquetRecordBatchStreamBuilder::new(reader).await.unwrap().build().unwrap();
    let columns: Vec<usize> = (0..view.schema().columns().fields().len()).collect();
    let rows: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    rows.iter().map(|rows| rows.project(&columns).unwrap()).collect()
}
