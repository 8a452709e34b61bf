//! Rows in memory answer as they would from files.
//!
//! Of each series the first versions lie in files and the others in pieces in memory, cut at random;
//! all that can be asked is asked, and compared with the model, which knows of neither.

use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use tidelog::arrow::array::{
    ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    LargeStringArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray,
};
use tidelog::arrow::datatypes::Int32Type;
use tidelog::{SeriesExt, SeriesOptions, Store, TimeRange, WriteTime};
use tidelog_testkit::generate::{Batch, RawRow, SeriesSpec};
use tidelog_testkit::{ModelAsOf, Row, rows_of};

use crate::model::{
    Picks, Questions, check_aggregates, check_condition, check_globs, check_options, check_reads,
    plain, question_path, questions, specs_of,
};
use crate::support::{Context, Fallible, Pair, Place, property, runtime, sorted};

/// Rows for a path and the kind of series there.
type Call<'a> = (String, usize, &'a [RawRow]);

/// The versions of one series, oldest first.
fn batches_of(questions: &Questions, index: usize, series: usize) -> Vec<&[RawRow]> {
    let of_it = |batch: &&Batch| usize::from(batch.path) % series == index;
    let batches = questions.2.iter().filter(of_it).map(|batch| batch.rows.as_slice());
    batches.filter(|rows| !rows.is_empty()).collect()
}

fn calls<'a>(path: &str, index: usize, rows: &[&'a [RawRow]]) -> Vec<Call<'a>> {
    rows.iter().map(|rows| (path.to_owned(), index, *rows)).collect()
}

/// A store as in the questions, with the later versions of each series in memory: as many as
/// `hot_of` says of how many, but never the first, which fixes the columns.
async fn half_hot(
    questions: &Questions,
    hot_of: impl Fn(&mut Picks, usize) -> usize,
) -> Fallible<(Pair, Store, Vec<SeriesSpec>)> {
    let specs = specs_of(questions);
    let mut picks = Picks::new(questions.4);
    let mut pair = Pair::create(Place::memory(), specs.clone(), questions.4).await?;
    let mut pieces = Vec::new();
    for index in 0..specs.len() {
        let path = question_path(index);
        pair.create_series_at(&path, index).await?;
        let batches = batches_of(questions, index, specs.len());
        let hot = hot_of(&mut picks, batches.len()).min(batches.len().saturating_sub(1));
        let (cold, mut left) = batches.split_at(batches.len() - hot);
        if !cold.is_empty() {
            pair.append_all(calls(&path, index, cold)).await?;
        }
        while !left.is_empty() {
            let (now, later) = left.split_at((1 + picks.below(3)).min(left.len()));
            pieces.push(calls(&path, index, now));
            left = later;
        }
    }
    let store = pair.append_hot(pieces).await?;
    Ok((pair, store, specs))
}

async fn check_one(
    questions: &Questions,
    pair: &Pair,
    store: &Store,
    spec: &SeriesSpec,
) -> Fallible {
    let path = question_path(0);
    if pair.model.versions(&path).is_empty() {
        return Ok(());
    }
    let mut picks = Picks::new(questions.4);
    check_reads(pair, store, &path, &mut picks).await?;
    check_options(pair, store, &path, &mut picks).await?;
    let all = pair.model.read(&path, ModelAsOf::Head, TimeRange::ALL).at("model")?;
    check_aggregates(store, &path, spec, "true", &plain(&all)).await?;
    for condition in &questions.3 {
        check_condition(pair, store, &path, spec, condition, &mut picks).await?;
    }
    Ok(())
}

#[test]
fn versions_in_files_and_in_memory_answer_as_the_model_does() {
    let runtime = runtime();
    property(30, questions(1..2, 10), |questions| {
        runtime.block_on(async {
            let (pair, store, specs) =
                half_hot(&questions, |picks, versions| picks.below(versions + 1)).await?;
            check_one(&questions, &pair, &store, &specs[0]).await
        })
    });
}

/// So many that small pieces are joined into larger ones.
#[test]
fn many_versions_in_memory_answer_as_the_model_does() {
    let runtime = runtime();
    property(5, questions(1..2, 80), |questions| {
        runtime.block_on(async {
            let (pair, store, specs) = half_hot(&questions, |_, versions| versions).await?;
            check_one(&questions, &pair, &store, &specs[0]).await
        })
    });
}

#[test]
fn a_glob_over_files_and_memory_is_the_union_of_its_series() {
    let runtime = runtime();
    property(20, questions(2..4, 12), |questions| {
        runtime.block_on(async {
            let (pair, store, specs) =
                half_hot(&questions, |picks, versions| picks.below(versions + 1)).await?;
            check_globs(&pair, &store, &specs, &questions).await
        })
    });
}

async fn answer(store: &Store, statement: &str) -> Result<Vec<Row>> {
    let batches: Vec<RecordBatch> = store.sql(statement).await?.try_collect().await?;
    let rows = batches.iter().map(|batch| rows_of(batch).map_err(anyhow::Error::msg));
    Ok(rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Two series whose columns differ in type and number, two appends each.
fn differing() -> Result<Vec<(&'static str, RecordBatch)>> {
    let mut appends = Vec::new();
    for shift in [0_i64, 30] {
        let counts = 0..40_i32;
        let times = (0..40).map(|i| shift + i);
        let texts: Vec<String> = counts.clone().map(|i| format!("t{}", i % 7)).collect();
        let words: DictionaryArray<Int32Type> = texts.iter().map(String::as_str).collect();
        let one = RecordBatch::try_from_iter([
            (
                "time",
                Arc::new(TimestampMillisecondArray::from_iter_values(times.clone())) as ArrayRef,
            ),
            ("text", Arc::new(StringArray::from_iter_values(&texts))),
            ("word", Arc::new(words)),
            ("count", Arc::new(Int32Array::from_iter_values(counts.clone()))),
            ("value", Arc::new(Float32Array::from_iter_values(counts.clone().map(|i| i as f32)))),
        ])?;
        let two = RecordBatch::try_from_iter([
            ("only", Arc::new(Int64Array::from_iter_values(times.clone())) as ArrayRef),
            ("count", Arc::new(Int64Array::from_iter_values(times.clone().map(|i| i << 40)))),
            ("value", Arc::new(Float64Array::from_iter_values(counts.map(f64::from)))),
            ("text", Arc::new(LargeStringArray::from_iter_values(&texts))),
            ("word", Arc::new(StringArray::from_iter_values(&texts))),
            (
                "time",
                Arc::new(TimestampMicrosecondArray::from_iter_values(times.map(|t| t * 1_000 + 1))),
            ),
        ])?;
        appends.extend([("/g/one", one), ("/g/two", two)]);
    }
    Ok(appends)
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_rows_in_memory_are_united_by_name() -> Result<()> {
    let cold = Store::builder("memory://").with_partitions(3).create().await?;
    let half = Store::builder("memory://").with_partitions(3).create().await?;
    let mut pieces = Vec::new();
    for (number, (path, batch)) in (1_i64..).zip(differing()?) {
        cold.root().append_series_data(path, &batch, None).await?;
        if number <= 2 {
            half.root().append_series_data(path, &batch, None).await?;
        } else {
            let time = WriteTime::from_micros(i64::MAX / 2 + number);
            pieces.push((path.to_owned(), vec![(batch, time)]));
        }
    }
    let half = half.with_hot_versions(&pieces).await?;
    for statement in [
        "SELECT * FROM series('/g/*')",
        "SELECT text, only, _path FROM series('/g/*') WHERE text = 't3' ORDER BY time",
        "SELECT word, count(*), sum(count), min(only) FROM series('/g/*') GROUP BY word",
        "SELECT word, max(time) FROM series('/g/*') GROUP BY word",
        "SELECT * FROM series('/g/*') WHERE only IS NULL AND value > 31.5",
        "SELECT * FROM series('/g/*') WHERE only > 50 OR count = 5",
        "SELECT count(*), max(time), min(time) FROM series('/g/*') WHERE _path = '/g/two'",
        "SELECT _path, count * 2, upper(text) FROM series('/g/*') WHERE time >= '1970-01-01T00:00:00.035Z'",
        "SELECT * FROM series_versions('/g/two') WHERE __version = 2",
        "SELECT count(*) FROM series('/g/one', 'v1')",
        "SELECT a.count, b.only FROM \"/g/one\" a JOIN \"/g/two\" b ON a.text = b.text WHERE a.count = 39",
    ] {
        let (expected, found) = (answer(&cold, statement).await?, answer(&half, statement).await?);
        assert!(!expected.is_empty(), "{statement}");
        assert_eq!(sorted(expected), sorted(found), "{statement}");
    }
    Ok(())
}

/// The number of a row and the name of a file are what a plan may ask of any file.
#[tokio::test(flavor = "multi_thread")]
async fn rows_in_memory_have_numbers_and_a_name() -> Result<()> {
    let store = Store::create("memory://").await?;
    let batch = |from: i64| {
        let times = TimestampMicrosecondArray::from_iter_values(from..from + 5);
        RecordBatch::try_from_iter([("time", Arc::new(times) as ArrayRef)])
    };
    store.root().append_series_data("/s", &batch(0)?, None).await?;
    let hot = vec![(batch(9)?, WriteTime::from_micros(i64::MAX / 2))];
    let store = store.with_hot_versions(&[("/s".to_owned(), hot)]).await?;
    let statement = "SELECT DISTINCT input_file_name() FROM \"/s\"";
    assert_eq!(answer(&store, statement).await?.len(), 2);
    let statement = "SELECT sum(n) FROM (SELECT file_row_index() AS n FROM \"/s\")";
    let sum = answer(&store, statement).await?;
    assert_eq!(sum[0][0].as_int(), Some(20));
    Ok(())
}

/// What is cut out of a large piece costs an operator that counts memory no more than its own rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_piece_is_sorted_within_little_memory() -> Result<()> {
    const ROWS: i64 = 400_000;
    let store = Store::builder("memory://")
        .with_partitions(2)
        .with_memory_bytes_max(64 << 20)
        .create()
        .await?;
    let batch = |from: i64, rows: i64| {
        let times = TimestampMicrosecondArray::from_iter_values(from..from + rows);
        let texts = (0..rows).map(|i| format!("text number {}", i * 7919 % rows));
        RecordBatch::try_from_iter([
            ("time", Arc::new(times) as ArrayRef),
            ("text", Arc::new(StringArray::from_iter_values(texts))),
        ])
    };
    store.root().create_series("/s", SeriesOptions::default()).await?;
    store.root().append_series_data("/s", &batch(0, 10)?, None).await?;
    let hot = vec![(batch(100, ROWS)?, WriteTime::from_micros(i64::MAX / 2))];
    let store = store.with_hot_versions(&[("/s".to_owned(), hot)]).await?;
    let statement = "SELECT text, time FROM \"/s\" ORDER BY text, time";
    let batches: Vec<RecordBatch> = store.sql(statement).await?.try_collect().await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 400_010);
    let count = answer(&store, "SELECT count(*), count(DISTINCT time) FROM \"/s\"").await?;
    assert_eq!((count[0][0].as_int(), count[0][1].as_int()), (Some(ROWS + 10), Some(ROWS + 10)));
    Ok(())
}
