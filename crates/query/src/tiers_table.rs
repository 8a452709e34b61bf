//! How much of a store is in memory and in the write-ahead log, as the SQL table `tidelog.tiers`.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use tidelog_core::WriteTime;
use tidelog_store::{Engine, TierOwner, TierStatistics, Tiers};

use crate::error::Error;

/// The name of the table.
pub(crate) const NAME: &str = "tiers";

/// The table as it stands now: a row if somebody has the store alone, else none.
pub(crate) async fn table(engine: &Engine) -> Result<Arc<dyn TableProvider>> {
    let tiers = engine.tiers_seen().await.map_err(Error::Store)?;
    let schema = schema();
    let rows = match tiers.owner {
        TierOwner::Nobody => RecordBatch::new_empty(Arc::clone(&schema)),
        _ => row(&tiers, &schema)?,
    };
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![rows]])?))
}

fn schema() -> SchemaRef {
    let count = |name: &str| Field::new(name, DataType::UInt64, true);
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("tier", DataType::Utf8, false),
        count("rows"),
        count("versions"),
        count("bytes"),
        count("wal_bytes"),
        count("appends"),
        count("syncs"),
        Field::new("appends_per_sync", DataType::Float64, true),
        count("flushes"),
        count("waits"),
        count("memory_bytes"),
        count("memory_bytes_max"),
        Field::new("owner", DataType::Utf8, false),
        Field::new("as_of", moment, true),
    ]))
}

/// What is not known is null.
fn row(tiers: &Tiers, schema: &SchemaRef) -> Result<RecordBatch> {
    let known = tiers.statistics;
    let count = |of: fn(&TierStatistics) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from(vec![known.as_ref().map(of)]))
    };
    let per_sync = known.and_then(|known| known.appends_per_sync());
    let as_of = TimestampMicrosecondArray::from(vec![tiers.as_of.map(WriteTime::micros)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["hot"])),
        count(|known| known.hot_rows),
        count(|known| known.hot_versions),
        count(|known| known.hot_bytes),
        count(|known| known.wal_bytes),
        count(|known| known.appends),
        count(|known| known.syncs),
        Arc::new(Float64Array::from(vec![per_sync])),
        count(|known| known.flushes),
        count(|known| known.waits),
        count(|known| known.memory_bytes),
        count(|known| known.memory_bytes_max),
        Arc::new(StringArray::from(vec![tiers.owner.to_string()])),
        Arc::new(as_of.with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
