//! Many rows at speed: made up, appended batch by batch to a store that this process has alone, and
//! asked for, every answer compared with what was made.

mod generate;
mod questions;
mod watch;

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidelog::{ErrorKind, Mode, SeriesExt, Store, StoreBuilder};

use self::generate::{Expected, Generator, Shape};
use self::questions::Answered;
use self::watch::Watch;
use crate::args::DemoArgs;
use crate::commands::settle;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::{grouped, size};
use crate::settings::DemoShape;

/// The series that the rows go to.
const PATH: &str = "/demo/rows.series";

/// How much is appended, and how.
#[derive(Debug, Clone, Copy)]
struct Load {
    shape: Shape,
    rows: u64,
    batch_rows: u64,
}

/// What appending took.
#[derive(Debug)]
struct Loaded {
    took: Duration,
    batches: u64,
    expected: Expected,
}

/// Makes a store, as `builder_of` says for its place, and fills and asks it. Without a place it is in
/// a temporary directory, which goes when the demo ends.
pub(crate) async fn run(
    builder_of: impl FnOnce(&str) -> StoreBuilder,
    args: &DemoArgs,
    rows: u64,
    shape: Option<DemoShape>,
    json: bool,
) -> Result<()> {
    let shape = match shape {
        Some(DemoShape::Trading) => Shape::Trading,
        Some(DemoShape::Simple) | None => Shape::Simple,
    };
    let load = Load { shape, rows, batch_rows: args.batch_size };
    // Dropped after the store.
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(temporary()?),
    };
    let dir = match (&temporary, &args.dir) {
        (Some(temporary), _) => temporary.path().join("store").to_string_lossy().into_owned(),
        (None, dir) => dir.clone().unwrap_or_default(),
    };
    let store = create(builder_of(&dir), &dir).await?;
    let told = fill_and_ask(&store, load, args.no_queries, json).await;
    if temporary.is_none() {
        settle(&store).await;
    }
    told
}

fn temporary() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("tidelog-demo-")
        .tempdir()
        .map_err(|source| Error::file("making a directory in", &std::env::temp_dir(), source))
}

async fn create(builder: StoreBuilder, dir: &str) -> Result<Store> {
    let created = builder.with_mode(Mode::Exclusive).create().await;
    created.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => super::taken(dir),
        _ => error.into(),
    })
}

async fn fill_and_ask(store: &Store, load: Load, no_queries: bool, json: bool) -> Result<()> {
    let mut watch = Watch::new(load.rows);
    let loaded = fill(store, load, &mut watch).await?;
    let mut answers = Vec::new();
    if !no_queries {
        for question in questions::all(load.shape, load.rows, &loaded.expected) {
            answers.push(question.ask(store).await?);
            watch.look();
        }
    }
    let document = document(store, load, &loaded, &answers, &watch);
    if json {
        output::print_json(&document)?;
    } else {
        output::print(&words(store, load, &loaded, &answers, &watch))?;
    }
    let wrong = answers.iter().filter(|answer| !answer.right).count();
    match wrong {
        0 => Ok(()),
        wrong => Err(Error::Internal {
            message: format!(
                "{wrong} of {} queries yielded other rows than were appended",
                answers.len()
            ),
        }),
    }
}

/// Appends all rows; the next are made while one batch is made durable.
async fn fill(store: &Store, load: Load, watch: &mut Watch) -> Result<Loaded> {
    let root = store.root();
    let (mut generator, mut batch) = next(Generator::new(load.shape, load.rows), load).await?;
    let mut batches = 0;
    while let Some(rows) = batch {
        let append = root.append_series_data(PATH, &rows, Some("time"));
        let (appended, made) = tokio::join!(append, next(generator, load));
        watch.appended(appended?.rows, store);
        batches += 1;
        (generator, batch) = made?;
    }
    Ok(Loaded { took: watch.finish(), batches, expected: generator.expected })
}

async fn next(
    mut generator: Generator,
    load: Load,
) -> Result<(Generator, Option<arrow::array::RecordBatch>)> {
    let made = tokio::task::spawn_blocking(move || {
        let batch = generator.next_batch(load.batch_rows);
        batch.map(|batch| (generator, batch))
    });
    let odd = |error: String| Error::Internal { message: format!("rows cannot be made: {error}") };
    made.await.map_err(|error| odd(error.to_string()))?.map_err(|error| odd(error.to_string()))
}

fn words(
    store: &Store,
    load: Load,
    loaded: &Loaded,
    answers: &[Answered],
    watch: &Watch,
) -> String {
    let tiers = store.tiers().unwrap_or_default();
    let memory = store.memory();
    let mut text = format!(
        "{} rows of {} data in {} batches, each durable by itself: {:.1} s, {} rows/s\n\
         {} in files by {} commits, {} hot; {} syncs, {} waits\n\
         memory: at most {} of the process, {} of {} counted\n",
        grouped(load.rows),
        load.shape.name(),
        grouped(loaded.batches),
        loaded.took.as_secs_f64(),
        grouped(per_second(load.rows, loaded.took)),
        grouped(tiers.appended_rows.saturating_sub(tiers.hot_rows)),
        grouped(tiers.flushes),
        grouped(tiers.hot_rows),
        grouped(tiers.syncs),
        grouped(tiers.waits),
        size(watch.resident_peak),
        size(memory.peak()),
        size(memory.limit()),
    );
    if !answers.is_empty() {
        text.push('\n');
        text.push_str(&table(load.shape, answers));
    }
    text
}

fn table(shape: Shape, answers: &[Answered]) -> String {
    let amount = format!("sum({})", shape.amount_column());
    let value = format!("sum({})", shape.value_column());
    let header = ["query", "rows", &amount, &value, "ms", "as appended"];
    let rows: Vec<Vec<String>> = answers
        .iter()
        .map(|answer| {
            vec![
                answer.name.to_owned(),
                grouped(answer.found.rows),
                grouped(u64::try_from(answer.found.amount).unwrap_or_default()),
                format!("{:.2}", answer.found.value),
                format!("{:.1}", answer.took.as_secs_f64() * 1_000.0),
                if answer.right { "yes" } else { "NO" }.to_owned(),
            ]
        })
        .collect();
    output::columns(Some(&header), &rows, &[1, 2, 3, 4])
}

fn document(
    store: &Store,
    load: Load,
    loaded: &Loaded,
    answers: &[Answered],
    watch: &Watch,
) -> Value {
    let tiers = store.tiers().unwrap_or_default();
    let memory = store.memory();
    let queries: Vec<Value> = answers
        .iter()
        .map(|answer| {
            json!({
                "query": answer.name,
                "rows": answer.found.rows,
                "amount": answer.found.amount,
                "value": answer.found.value,
                "ms": answer.took.as_secs_f64() * 1_000.0,
                "right": answer.right,
            })
        })
        .collect();
    json!({
        "mode": load.shape.name(),
        "series": PATH,
        "rows": load.rows,
        "batches": loaded.batches,
        "seconds": loaded.took.as_secs_f64(),
        "rows_per_second": per_second(load.rows, loaded.took),
        "hot_rows": tiers.hot_rows,
        "flushes": tiers.flushes,
        "waits": tiers.waits,
        "memory_bytes_max": memory.limit(),
        "memory_bytes_peak": memory.peak(),
        "resident_bytes_peak": watch.resident_peak,
        "queries": queries,
    })
}

fn per_second(rows: u64, took: Duration) -> u64 {
    let micros = took.as_micros().max(1);
    u64::try_from(u128::from(rows) * 1_000_000 / micros).unwrap_or(u64::MAX)
}
