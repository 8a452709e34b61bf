//! Stores in memory whose files are merged only when asked for, and versions that bear their number.

use std::sync::Arc;

use tidelog::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog::{Store, StoreBuilder, UpkeepMode};

pub(crate) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// A handle that does upkeep and compacts only when asked to.
pub(crate) fn builder(store: &Arc<dyn ObjectStore>) -> StoreBuilder {
    let builder = Store::builder("memory://").with_object_store(Arc::clone(store));
    builder.with_partitions(2).with_upkeep(UpkeepMode::OnRequest).with_compaction(false)
}

/// A row of a version at each of these times in microseconds, of a few keys in turn, one of which is null.
pub(crate) fn version_of_few_keys(version: i64, times: impl Iterator<Item = i64>) -> RecordBatch {
    let rows = (0..).zip(times).map(|(i, time)| {
        let value = match i % 5 {
            4 => f64::NAN,
            _ => (version * 100 + i) as f64 / 3.0,
        };
        (time, (i % 4 != 3).then(|| format!("k{}", i % 4)), value)
    });
    version_of(version, rows)
}

/// Rows of a version: event time in microseconds, key, value.
pub(crate) fn version_of(
    version: i64,
    rows: impl Iterator<Item = (i64, Option<String>, f64)>,
) -> RecordBatch {
    let rows: Vec<_> = rows.collect();
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0));
    let keys: StringArray = rows.iter().map(|row| row.1.as_deref()).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("key", Arc::new(keys)),
        ("version", Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| version)))),
        ("value", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, c)| (name, c, true))).unwrap()
}
