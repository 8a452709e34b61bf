//! Corrects rows of a keyed series and reads the state before and after; then lets go of history, but for
//! what a snapshot keeps.
//!
//! ```text
//! cargo run -p tidelog-examples --example time_travel
//! ```

use std::sync::Arc;

use anyhow::{Result, bail};
use futures::TryStreamExt;
use tidelog::arrow::array::{
    ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampSecondArray,
};
use tidelog::arrow::datatypes::Float64Type;
use tidelog::{AsOf, ExpireRule, ReadOptions, SeriesExt, SeriesOptions, Store, Version};

const PATH: &str = "/plant/pressure.series";

#[tokio::main]
async fn main() -> Result<()> {
    let store = Store::open_or_create("memory://").await?;
    let root = store.root();
    let options = SeriesOptions::default().with_key_columns(["pump"]).with_dedup(true);
    root.create_series(PATH, options).await?;

    root.append_series_data(PATH, &batch(&[("a", 1.0), ("b", 2.0)])?, None).await?;
    root.append_series_data(PATH, &batch(&[("b", 2.5)])?, None).await?;

    let head = ReadOptions::default();
    let before = ReadOptions::default().with_as_of(AsOf::Version(Version::new(1)));
    assert_eq!(bars(&store, &head).await?, [1.0, 2.5]);
    assert_eq!(bars(&store, &before).await?, [1.0, 2.0]);

    // A rename keeps the versions, and the old path stays readable as of an earlier time.
    let then = store.versions(PATH).await?[1].write_time;
    store.rename(PATH, "/plant/archive/pressure.series").await?;
    let history = ReadOptions::default().with_as_of(AsOf::Time(then));
    assert_eq!(bars(&store, &history).await?, [1.0, 2.5]);
    println!("v1, head and the state as of {then} read back as they were");

    // What is let go cannot be read by number or time any more, but by the name of a snapshot.
    store.rename("/plant/archive/pressure.series", PATH).await?;
    store.create_snapshot("second state").await?;
    root.append_series_data(PATH, &batch(&[("a", 1.5)])?, None).await?;
    store.expire("/plant/**", ExpireRule::KeepVersions(1)).await?;
    let second = ReadOptions::default().with_as_of(AsOf::Version(Version::new(2)));
    let Err(refused) = bars(&store, &second).await else { bail!("v2 is let go") };
    let named = ReadOptions::default().with_as_of(AsOf::Snapshot("second state".to_owned()));
    assert_eq!(bars(&store, &named).await?, [1.0, 2.5]);
    assert_eq!(bars(&store, &head).await?, [1.5, 2.5]);
    println!("{refused}");
    Ok(())
}

async fn bars(store: &Store, options: &ReadOptions) -> Result<Vec<f64>> {
    let rows = store.root().read_series_with_options(PATH, options).await?;
    let rows: Vec<RecordBatch> = rows.try_collect().await?;
    let bars =
        |batch: &RecordBatch| batch.column(2).as_primitive::<Float64Type>().values().to_vec();
    Ok(rows.iter().flat_map(bars).collect())
}

fn batch(rows: &[(&str, f64)]) -> Result<RecordBatch> {
    let times = TimestampSecondArray::from(vec![1_700_000_000; rows.len()]);
    let pumps = StringArray::from_iter_values(rows.iter().map(|(pump, _)| pump));
    let bars = Float64Array::from_iter_values(rows.iter().map(|(_, bar)| *bar));
    Ok(RecordBatch::try_from_iter([
        ("ts", Arc::new(times) as ArrayRef),
        ("pump", Arc::new(pumps)),
        ("bar", Arc::new(bars)),
    ])?)
}
