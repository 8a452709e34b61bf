//! Bad input and damage: each a typed error that says what to do, with the store as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use tempfile::TempDir;
use tidelog::arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampSecondArray,
};
use tidelog::{
    AsOf, Error, ErrorKind, EventTime, Mode, ReadOptions, SeriesAppend, SeriesExt, SeriesOptions,
    SqlPolicy, Store, StoreBuilder, TimeUnit, Version,
};

const PATH: &str = "/a/b.series";

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(values))
}

fn good() -> RecordBatch {
    let values = Float64Array::from(vec![1.0, 2.0, 3.0]);
    batch(vec![("time", times((1..4).map(Some))), ("value", Arc::new(values))])
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = result.expect_err("an error");
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Each append is a file at once.
fn shared(directory: &Path) -> StoreBuilder {
    Store::builder(directory.display().to_string()).with_mode(Mode::Shared)
}

async fn local() -> Result<(TempDir, Store)> {
    let directory = tempfile::tempdir()?;
    let store = shared(directory.path()).create().await?;
    store.root().append_series_data(PATH, &good(), None).await?;
    Ok((directory, store))
}

async fn reopen(directory: &Path) -> Result<Store, Error> {
    shared(directory).open().await
}

async fn rows(store: &Store) -> Result<usize, Error> {
    let stream = store.root().read_series_all(PATH).await?;
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

/// Every object of the store with its bytes, to show that nothing changed.
fn image(directory: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut stack = vec![directory.to_owned()];
    while let Some(at) = stack.pop() {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            if path.is_dir() {
                stack.push(path)
            } else {
                found.push((path.clone(), fs::read(path)?))
            }
        }
    }
    found.sort();
    Ok(found)
}

fn files(directory: &Path, below: &str, suffix: &str) -> Result<Vec<PathBuf>> {
    let all = image(directory)?.into_iter().map(|(path, _)| path);
    let root = directory.join(below);
    Ok(all.filter(|p| p.starts_with(&root) && p.to_string_lossy().ends_with(suffix)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_is_not_opened_and_not_changed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    refused(reopen(directory.path()).await, ErrorKind::NotFound, &["init"]);
    refused(reopen(&directory.path().join("none")).await, ErrorKind::NotFound, &["none"]);
    assert!(image(directory.path())?.is_empty());
    refused(Store::open("ftp://host/x").await, ErrorKind::InvalidInput, &["ftp://host/x"]);
    let (taken, _) = local().await?;
    let again = Store::create(taken.path().display().to_string()).await;
    refused(again, ErrorKind::AlreadyExists, &["already"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_do_not_fit_are_refused_by_column_and_row() -> Result<()> {
    let (directory, store) = local().await?;
    let before = image(directory.path())?;
    let root = store.root();
    let value = |v: ArrayRef| batch(vec![("time", times([Some(1)])), ("value", v)]);
    let cases = [
        (value(Arc::new(StringArray::from(vec!["x"]))), ["value", "Utf8"]),
        (batch(vec![("time", times([Some(1)])), ("more", times([Some(1)]))]), ["more", "no such"]),
        (batch(vec![("value", Arc::new(Float64Array::from(vec![1.0])))]), ["time", "missing"]),
        (batch(vec![("time", times([Some(1), None]))]), ["row 1", "null"]),
        (batch(vec![("time", Arc::new(Int64Array::from(vec![1])))]), ["time", "Int64"]),
    ];
    for (bad, words) in cases {
        let words = [PATH, words[0], words[1]];
        refused(root.append_series_data(PATH, &bad, None).await, ErrorKind::InvalidInput, &words);
    }
    let other = root.append_series_data(PATH, &good(), Some("value")).await;
    refused(other, ErrorKind::InvalidInput, &["value"]);
    assert_eq!(image(directory.path())?, before);
    assert_eq!(rows(&reopen(directory.path()).await?).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_column_that_is_missing_or_ambiguous_is_an_error_that_lists_the_columns()
-> Result<()> {
    let store = Store::open_or_create("memory://").await?;
    let root = store.root();
    let none = batch(vec![("x", Arc::new(Float64Array::from(vec![1.0])))]);
    let refusal = root.append_series_data("/n", &none, None).await;
    refused(refusal, ErrorKind::InvalidInput, &["/n", "x (Float64)"]);
    let two = batch(vec![("a", times([Some(1)])), ("b", times([Some(1)]))]);
    let refusal = root.append_series_data("/n", &two, None).await;
    refused(refusal, ErrorKind::InvalidInput, &["several", "a (", "b ("]);
    let refusal = root.append_series_data("/n", &two, Some("c")).await;
    refused(refusal, ErrorKind::InvalidInput, &["\"c\""]);
    let plain = batch(vec![("at", Arc::new(Int64Array::from(vec![1])))]);
    let refusal = root.append_series_data("/n", &plain, Some("at")).await;
    refused(refusal, ErrorKind::InvalidInput, &["unit"]);
    assert!(store.list("/**").await?.is_empty());
    // What was refused above is taken once it is explicit.
    root.append_series_data("/two", &two, Some("b")).await?;
    let stated =
        SeriesAppend::new("/n", plain).with_time_column("at").with_time_unit(TimeUnit::Second);
    root.append_series_data_with_options(stated).await?;
    let stream = root.read_series_time_range("/n", 1_000_000_000, 1_000_000_000).await?;
    assert_eq!(stream.total_versions(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_nanoseconds_cannot_hold_are_refused_by_row() -> Result<()> {
    let store = Store::open_or_create("memory://").await?;
    let seconds = |v: Vec<i64>| -> ArrayRef { Arc::new(TimestampSecondArray::from(v)) };
    let bad = batch(vec![("time", seconds(vec![0, 1, 9_223_372_037]))]);
    let refusal = store.root().append_series_data("/t", &bad, None).await;
    refused(refusal, ErrorKind::InvalidInput, &["row 2", "2262"]);
    let bad = batch(vec![("time", seconds(vec![-9_223_372_037]))]);
    let refusal = store.root().append_series_data("/t", &bad, None).await;
    refused(refusal, ErrorKind::InvalidInput, &["row 0", "1677"]);
    let edge = batch(vec![("time", seconds(vec![-9_223_372_036, 9_223_372_036]))]);
    store.root().append_series_data("/t", &edge, None).await?;
    let days = batch(vec![("time", Arc::new(Date32Array::from(vec![0, 200_000])) as ArrayRef)]);
    let refusal = store.root().append_series_data("/d", &days, Some("time")).await;
    refused(refusal, ErrorKind::InvalidInput, &["row 1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_names_and_bad_keys_are_refused() -> Result<()> {
    let store = Store::open_or_create("memory://").await?;
    let root = store.root();
    for name in ["_path", "__version", "__x", ""] {
        let bad = batch(vec![("time", times([Some(1)])), (name, times([Some(1)]))]);
        let refusal = root.append_series_data("/r", &bad, Some("time")).await;
        refused(refusal, ErrorKind::InvalidInput, &["/r"]);
    }
    for keys in [vec!["value"], vec!["time"], vec!["none"]] {
        let path = format!("/k-{}", keys[0]);
        root.create_series(&path, SeriesOptions::default().with_key_columns(keys)).await?;
        let refusal = root.append_series_data(&path, &good(), None).await;
        refused(refusal, ErrorKind::InvalidInput, &[&path]);
    }
    let twice = SeriesOptions::default().with_key_columns(["a", "a"]);
    refused(root.create_series("/w", twice).await, ErrorKind::InvalidInput, &["twice"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_cannot_be_are_refused() -> Result<()> {
    let (directory, store) = local().await?;
    let before = image(directory.path())?;
    let root = store.root();
    for path in ["/a/../b", "/a//b", "/a/", "/__log", "/..", "/a\u{202E}b"] {
        let refusal = root.append_series_data(path, &good(), None).await;
        refused(refusal, ErrorKind::InvalidInput, &["path"]);
    }
    let through = root.append_series_data("/a/b.series/c", &good(), None).await;
    refused(through, ErrorKind::InvalidInput, &["/a/b.series", "not a directory"]);
    let onto = root.append_series_data("/a", &good(), None).await;
    refused(onto, ErrorKind::InvalidInput, &["/a", "series"]);
    refused(root.read_series_all("/none").await, ErrorKind::NotFound, &["/none"]);
    refused(root.read_series_all("/a").await, ErrorKind::InvalidInput, &["series"]);
    refused(root.read_series_all("/x/*").await, ErrorKind::NotFound, &["/x/*"]);
    refused(store.rename("/none", "/x").await, ErrorKind::NotFound, &["/none"]);
    refused(store.rename("/a", "/a/c").await, ErrorKind::InvalidInput, &["inside itself"]);
    refused(store.rename("/a", PATH).await, ErrorKind::InvalidInput, &["inside itself"]);
    refused(store.remove("/a", false).await, ErrorKind::InvalidInput, &["not empty"]);
    refused(store.remove("/", true).await, ErrorKind::InvalidInput, &["root"]);
    refused(store.create_directory("/a").await, ErrorKind::AlreadyExists, &["/a"]);
    // The probe of the first write leaves nothing behind, and no refusal wrote a commit.
    assert_eq!(image(directory.path())?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn points_in_history_out_of_reach_say_what_is_readable() -> Result<()> {
    let (_directory, store) = local().await?;
    let root = store.root();
    refused(root.read_series_time_range(PATH, 2, 1).await, ErrorKind::InvalidInput, &["inverted"]);
    let read = async |as_of: AsOf| {
        let options = ReadOptions::default().with_as_of(as_of);
        root.read_series_with_options(PATH, &options).await.map(|_| ())
    };
    for version in [0, 2, i64::MAX] {
        let asked = read(AsOf::Version(Version::new(version))).await;
        refused(asked, ErrorKind::NotFound, &["v1"]);
    }
    let before = "2001-01-01T00:00:00Z".parse()?;
    refused(read(before).await, ErrorKind::NotFound, &["begins"]);
    refused(read("nightly".parse()?).await, ErrorKind::NotFound, &["nightly"]);
    let options = ReadOptions::default().with_as_of(AsOf::Version(Version::new(1)));
    let glob = root.read_series_with_options("/a/*", &options).await;
    refused(glob, ErrorKind::InvalidInput, &["name a time"]);
    let column = ReadOptions::default().with_columns(["nope"]);
    let column = root.read_series_with_options(PATH, &column).await;
    refused(column, ErrorKind::InvalidInput, &["nope", "time, value"]);
    assert!(EventTime::parse_start("soon", tidelog::WriteTime::default()).is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_beyond_the_limits_or_the_policy_are_refused() -> Result<()> {
    let (directory, store) = local().await?;
    let before = image(directory.path())?;
    let nested = format!("SELECT {}1", "1+".repeat(20_000));
    refused(store.sql(&nested).await, ErrorKind::LimitExceeded, &["operators"]);
    let filter = ReadOptions::default().with_filter("1=1 and ".repeat(20_000) + "1=1");
    let filtered = store.root().read_series_with_options(PATH, &filter).await;
    refused(filtered, ErrorKind::LimitExceeded, &["operators"]);
    let target = directory.path().join("out.csv");
    for statement in [
        format!("COPY (SELECT 1) TO '{}'", target.display()),
        format!("EXPLAIN ANALYZE COPY (SELECT 1) TO '{}' STORED AS CSV", target.display()),
        "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "CREATE TABLE x AS VALUES (1)".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "PREPARE q AS SELECT 1".to_owned(),
        format!("DROP TABLE \"{PATH}\""),
        format!("DELETE FROM \"{PATH}\""),
    ] {
        let error = store.sql(&statement).await.expect_err("a refusal");
        let allowed = [ErrorKind::Unsupported, ErrorKind::InvalidInput];
        assert!(allowed.contains(&error.kind()), "{statement}: {error}");
    }
    let two = store.sql("SELECT 1; SELECT 2").await;
    refused(two, ErrorKind::Unsupported, &["single SQL statement"]);
    for statement in ["SELEKT", ""] {
        refused(store.sql(statement).await, ErrorKind::InvalidInput, &["SQL"]);
    }
    // A path is a series or nothing; it is never a file of the machine.
    let file = store.sql("SELECT * FROM '/etc/passwd'").await;
    refused(file, ErrorKind::NotFound, &["/etc/passwd"]);
    let null = format!("INSERT INTO \"{PATH}\" VALUES (NULL, 1.0)");
    let inserted = async {
        let rows: Vec<RecordBatch> = store.sql(&null).await?.try_collect().await?;
        Ok::<_, Error>(rows)
    };
    refused(inserted.await, ErrorKind::InvalidInput, &[]);
    assert!(!target.exists());
    assert_eq!(image(directory.path())?, before);
    store.sql_with_policy("SELECT 1", SqlPolicy::Unrestricted).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_commits_are_named_and_never_read_as_nothing() -> Result<()> {
    let (directory, store) = local().await?;
    store.root().append_series_data(PATH, &good(), None).await?;
    drop(store);
    let commits = files(directory.path(), "_oplog/_delta_log", ".json")?;
    for commit in &commits {
        let bytes = fs::read(commit)?;
        let name = commit.file_name().context("a name")?.to_string_lossy().into_owned();
        for damage in [0, 1, bytes.len() / 2, bytes.len() - 2] {
            fs::write(commit, &bytes[..damage])?;
            refused(reopen(directory.path()).await, ErrorKind::Corruption, &[&name]);
        }
        fs::write(commit, &bytes)?;
    }
    let middle = &commits[1];
    let bytes = fs::read(middle)?;
    fs::remove_file(middle)?;
    refused(reopen(directory.path()).await, ErrorKind::Corruption, &["missing"]);
    // A commit of somebody else has no record of ours.
    fs::write(middle, "{\"commitInfo\":{\"operation\":\"WRITE\"}}\n")?;
    refused(reopen(directory.path()).await, ErrorKind::Corruption, &["not written by Tidelog"]);
    fs::write(middle, bytes)?;
    assert_eq!(rows(&reopen(directory.path()).await?).await?, 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused() -> Result<()> {
    let (directory, store) = local().await?;
    drop(store);
    let first = files(directory.path(), "_oplog/_delta_log", ".json")?.remove(0);
    let text = fs::read_to_string(&first)?;
    for (from, to) in [
        ("\"tidelog.format\":\"1\"", "\"tidelog.format\":\"2\""),
        ("\"tidelogFormat\":1", "\"tidelogFormat\":2"),
        ("\"minReaderVersion\":1", "\"minReaderVersion\":2"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&first, text.replace(from, to))?;
        refused(reopen(directory.path()).await, ErrorKind::Unsupported, &["newer"]);
    }
    fs::write(&first, text)?;
    assert_eq!(rows(&reopen(directory.path()).await?).await?, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_of_a_log_part_or_data_file_becomes_a_row() -> Result<()> {
    let (directory, store) = local().await?;
    drop(store);
    let parts = files(directory.path(), "_oplog", ".parquet")?;
    let data = files(directory.path(), "series", ".parquet")?;
    assert!(!parts.is_empty() && !data.is_empty());
    for object in parts.iter().chain(&data) {
        let bytes = fs::read(object)?;
        for at in (0..bytes.len()).step_by(29) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(object, &flipped)?;
            expect_damage(directory.path(), &format!("{} byte {at}", object.display())).await?;
        }
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs::write(object, &bytes[..length])?;
            expect_damage(directory.path(), &format!("{} cut at {length}", object.display()))
                .await?;
        }
        fs::remove_file(object)?;
        expect_damage(directory.path(), &format!("{} removed", object.display())).await?;
        fs::write(object, bytes)?;
    }
    assert_eq!(rows(&reopen(directory.path()).await?).await?, 3);
    Ok(())
}

async fn expect_damage(directory: &Path, what: &str) -> Result<()> {
    let read = async { rows(&reopen(directory).await?).await };
    match read.await {
        Err(error) if error.kind() == ErrorKind::Corruption => Ok(()),
        Err(error) => bail!("{what}: {:?} {error}", error.kind()),
        Ok(rows) => bail!("{what}: {rows} rows were served"),
    }
}

/// A file above the size that is fetched whole: its pages are checked one by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_large_file_is_found_when_its_page_is_read() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = shared(directory.path()).create().await?;
    let noise = (0..60_000_u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) as f64);
    let large = batch(vec![
        ("time", times((0..60_000).map(Some))),
        ("value", Arc::new(Float64Array::from_iter_values(noise))),
    ]);
    store.root().append_series_data(PATH, &large, None).await?;
    drop(store);
    let file = files(directory.path(), "series", ".parquet")?.remove(0);
    let bytes = fs::read(&file)?;
    assert!(bytes.len() > 128 * 1024, "{}", bytes.len());
    for at in (4..bytes.len()).step_by(bytes.len() / 40) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(&file, &flipped)?;
        expect_damage(directory.path(), &format!("byte {at} of {}", bytes.len())).await?;
    }
    fs::write(&file, bytes)?;
    assert_eq!(rows(&reopen(directory.path()).await?).await?, 60_000);
    Ok(())
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_is_readable_and_says_why() -> Result<()> {
    let (directory, store) = local().await?;
    // Permissions do not bind root, so the place of the next commit is made unusable instead.
    drop(store);
    let series = directory.path().join("series");
    let moved = directory.path().join("moved");
    let node = fs::read_dir(&series)?.next().context("a series")??.path();
    let name = node.file_name().context("a name")?.to_owned();
    fs::rename(&node, &moved)?;
    fs::write(&node, b"in the way")?;
    let store = reopen(directory.path()).await?;
    let refusal = store.root().append_series_data(PATH, &good(), None).await;
    refused(refusal, ErrorKind::Unavailable, &["writing", &name.to_string_lossy()]);
    fs::remove_file(&node)?;
    fs::rename(&moved, &node)?;
    assert_eq!(rows(&store).await?, 3);
    store.root().append_series_data(PATH, &good(), None).await?;
    assert_eq!(rows(&store).await?, 6);
    Ok(())
}
