//! How much of a store is in memory and in the write-ahead log, as the SQL table `tidelog.tiers`: a row for
//! each tier above the files.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use tidelog_core::WriteTime;
use tidelog_store::{Engine, TierOwner, TierStatistics, Tiers, WarmStatistics};

use crate::error::Error;

/// The name of the table.
pub(crate) const NAME: &str = "tiers";

/// The table as it stands now: a row for each tier above the files of which something is known.
pub(crate) async fn table(engine: &Engine) -> Result<Arc<dyn TableProvider>> {
    let tiers = engine.tiers_seen().await.map_err(Error::Store)?;
    let schema = schema();
    let has_hot = tiers.owner != TierOwner::Nobody;
    let mut rows = Vec::new();
    if has_hot {
        rows.push(Tier::Hot(tiers.statistics));
    }
    rows.extend(tiers.warm.clone().map(Tier::Warm));
    let rows = batch(&tiers, &rows, &schema)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![rows]])?))
}

/// What is known of a tier.
enum Tier {
    Hot(Option<TierStatistics>),
    Warm(WarmStatistics),
}

fn schema() -> SchemaRef {
    let count = |name: &str| Field::new(name, DataType::UInt64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
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
        text("backend"),
        text("device"),
        count("bytes_max"),
        count("segments"),
        count("seals"),
        count("hits"),
        count("evictions"),
        count("dropped"),
        text("fallbacks"),
        text("out_of_use"),
        Field::new("owner", DataType::Utf8, false),
        Field::new("as_of", moment, true),
    ]))
}

/// What is not known, or not of a tier, is null.
fn batch(tiers: &Tiers, rows: &[Tier], schema: &SchemaRef) -> Result<RecordBatch> {
    let hot = |row: &Tier| match row {
        Tier::Hot(known) => *known,
        Tier::Warm(_) => None,
    };
    let warm = |row: &Tier| match row {
        Tier::Hot(_) => None,
        Tier::Warm(known) => Some(known.clone()),
    };
    let of_hot = |of: fn(&TierStatistics) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter(rows.iter().map(|row| hot(row).as_ref().map(of))))
    };
    let of_warm = |of: fn(&WarmStatistics) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter(rows.iter().map(|row| warm(row).as_ref().map(of))))
    };
    let of_both = |a: fn(&TierStatistics) -> u64, b: fn(&WarmStatistics) -> u64| -> ArrayRef {
        let value = |row: &Tier| hot(row).as_ref().map(a).or_else(|| warm(row).as_ref().map(b));
        Arc::new(UInt64Array::from_iter(rows.iter().map(value)))
    };
    let text = |of: fn(WarmStatistics) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(rows.iter().map(|row| warm(row).and_then(of))))
    };
    let shown = |text: String| Some(text).filter(|text| !text.is_empty());
    let name = |row: &Tier| Some(if matches!(row, Tier::Hot(_)) { "hot" } else { "warm" });
    let per_sync = rows.iter().map(|row| hot(row).and_then(|known| known.appends_per_sync()));
    let as_of = rows.iter().map(|_| tiers.as_of.map(WriteTime::micros));
    let as_of = TimestampMicrosecondArray::from_iter(as_of).with_timezone("UTC");
    let fallbacks = rows.iter().map(|row| warm(row).map(|known| known.fallbacks_shown()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(rows.iter().map(name))),
        of_both(|hot| hot.hot_rows, |warm| warm.rows),
        of_hot(|known| known.hot_versions),
        of_both(|hot| hot.hot_bytes, |warm| warm.used_bytes),
        of_hot(|known| known.wal_bytes),
        of_hot(|known| known.appends),
        of_hot(|known| known.syncs),
        Arc::new(Float64Array::from_iter(per_sync)),
        of_hot(|known| known.flushes),
        of_hot(|known| known.waits),
        of_hot(|known| known.memory_bytes),
        of_hot(|known| known.memory_bytes_max),
        text(|known| Some(known.backend)),
        text(|known| Some(known.device).filter(|device| !device.is_empty())),
        of_warm(|known| known.budget_bytes),
        of_warm(|known| known.segments),
        of_warm(|known| known.seals),
        of_warm(|known| known.hits),
        of_warm(|known| known.evictions),
        of_warm(|known| known.dropped),
        Arc::new(StringArray::from_iter(fallbacks.map(|text| text.and_then(shown)))),
        text(|known| known.dead.or(known.no_device)),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| tiers.owner.to_string()))),
        Arc::new(as_of),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
