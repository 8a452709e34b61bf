//! Appends two batches to a series and reads a range of event time back.
//!
//! ```text
//! cargo run -p tidelog-examples --example quickstart
//! ```

use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use tidelog::arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMillisecondArray};
use tidelog::{SeriesExt, Store};

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("tidelog-quickstart-{}", std::process::id()));
    let store = Store::create(directory.display().to_string()).await?;
    let sensors = store.working_directory("/sensors")?;

    // Each append is a version, durable when the call returns. Order of event time is free.
    let late = sensors.append_series_data("temperature.series", &batch(&[3, 4])?, None).await?;
    let early = sensors.append_series_data("temperature.series", &batch(&[1, 2])?, None).await?;
    println!("stored {:?} and {:?}", late.version, early.version);

    // Ranges include both ends; a bare integer counts nanoseconds.
    let (start, end) = (2_000_000_000_i64, 3_000_000_000_i64);
    let rows = sensors.read_series_time_range("temperature.series", start, end).await?;
    println!("{} versions touch {:?}", rows.total_versions(), rows.time_range());
    let rows: Vec<RecordBatch> = rows.try_collect().await?;
    println!("{}", tidelog::arrow::util::pretty::pretty_format_batches(&rows)?);
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);

    // All into files; from here on others may write.
    store.close().await?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn batch(seconds: &[i64]) -> Result<RecordBatch> {
    let times = TimestampMillisecondArray::from_iter_values(seconds.iter().map(|s| s * 1000));
    let celsius = Float64Array::from_iter_values(seconds.iter().map(|s| 20.0 + *s as f64 / 10.0));
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(times) as ArrayRef),
        ("celsius", Arc::new(celsius)),
    ])?)
}
