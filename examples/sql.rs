//! Queries series, globs and the log itself with SQL, and looks at what was pruned.
//!
//! ```text
//! cargo run -p tidelog-examples --example sql
//! ```

use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::arrow::util::pretty::pretty_format_batches;
use tidelog::{SeriesAppend, SeriesExt, Store};

const DAY_MICROS: i64 = 86_400_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    let store = Store::open_or_create("memory://").await?;
    for host in ["a", "b"] {
        let path = format!("/cpu/{host}.series");
        for day in 0..10 {
            let append = SeriesAppend::new(&path, batch(day)?).with_time_column("time");
            store.root().append_series_data_with_options(append).await?;
        }
    }
    for statement in [
        "SELECT count(*), max(usage) FROM \"/cpu/a.series\" WHERE time >= '1970-01-09'",
        "SELECT _path, count(*) AS rows FROM series('/cpu/*.series') GROUP BY _path ORDER BY _path",
        "SELECT max(__version) AS newest FROM series_versions('/cpu/b.series', 'v7')",
        "INSERT INTO \"/cpu/a.series\" VALUES ('1970-02-01T00:00:00Z', 99)",
        "SELECT version, rows FROM tidelog.versions WHERE path = '/cpu/a.series' AND version > 8",
        "EXPLAIN SELECT * FROM \"/cpu/a.series\" WHERE time < '1970-01-02' ORDER BY time",
    ] {
        println!("{statement}\n{}\n", run(&store, statement).await?);
    }
    let plan = run(&store, "EXPLAIN SELECT * FROM \"/cpu/a.series\" ORDER BY time").await?;
    assert!(!plan.contains("SortExec") && !plan.contains("SortPreservingMergeExec"), "{plan}");

    // Under the policy that applications get by default, SQL cannot touch files.
    assert!(store.sql("COPY (SELECT 1) TO '/tmp/x.csv'").await.is_err());
    Ok(())
}

async fn run(store: &Store, statement: &str) -> Result<String> {
    let rows: Vec<RecordBatch> = store.sql(statement).await?.try_collect().await?;
    Ok(pretty_format_batches(&rows)?.to_string())
}

fn batch(day: i64) -> Result<RecordBatch> {
    let times = (0..24).map(|hour| day * DAY_MICROS + hour * 3_600_000_000);
    let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
    let usage = Int64Array::from_iter_values((0..24).map(|hour| (day * 24 + hour) % 100));
    Ok(RecordBatch::try_from_iter([
        ("time", Arc::new(times) as ArrayRef),
        ("usage", Arc::new(usage)),
    ])?)
}
