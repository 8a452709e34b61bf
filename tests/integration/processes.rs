//! Eight processes append to one series at the same time.
//!
//! Each child process is this binary again. It makes 25 appends and prints a line for each ack; this
//! process reads meanwhile and judges at the end: versions are dense, each acked append is there
//! once and whole, and no reader ever saw part of one.
//!
//! The store is a local directory, and a bucket: of the server that `TIDELOG_TEST_STORE` names (a
//! URL; credentials in the environment), as `tests/servers` starts them, else of a server of our own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidelog::arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use tidelog::{ErrorKind, SeriesAppend, SeriesExt, Store, TransactionId};
use tidelog_testkit::{Cell, TestS3};
use tokio::process::Command;

use crate::support::{Context, Fallible, rows, runtime, same};

const STORE: &str = "TIDELOG_PROCESSES_STORE";
const WRITER: &str = "TIDELOG_PROCESSES_WRITER";
const NAMED: &str = "TIDELOG_TEST_STORE";

const WRITERS: i64 = 8;
const APPENDS: i64 = 25;
const PATH: &str = "/p/shared.series";
/// Far more than any of them takes; a process that hangs must not hang the tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// Rows of append `number`: one to four.
fn row_count(number: i64) -> i64 {
    number % 4 + 1
}

fn append_of(number: i64) -> SeriesAppend {
    let rows = || 0..row_count(number);
    // Event times of all writers lie among each other.
    let time = |i: i64| (number * 7_919 + i * 104_729) % 1_000_003;
    let times = TimestampMicrosecondArray::from_iter_values(rows().map(time));
    let numbers = Int64Array::from_iter_values(rows().map(|_| number));
    let columns: [(&str, ArrayRef); 2] =
        [("time", Arc::new(times.with_timezone("UTC"))), ("number", Arc::new(numbers))];
    let id = TransactionId::from_uuid(uuid::Uuid::from_u128(u128::try_from(number).unwrap() + 1));
    SeriesAppend::new(PATH, RecordBatch::try_from_iter(columns).unwrap()).with_transaction(id)
}

/// The process that appends. It does nothing unless a parent asked for it.
#[test]
#[ignore = "the process that the other tests of this module start"]
fn writer() {
    let Ok(store) = std::env::var(STORE) else { return };
    let writer: i64 = std::env::var(WRITER).unwrap().parse().unwrap();
    runtime().block_on(async {
        let store = Store::builder(store).with_partitions(1).open().await.unwrap();
        for i in 0..APPENDS {
            let number = writer * 1_000 + i;
            let version = append_until_acked(&store, number).await;
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {version} {number}").unwrap();
            out.flush().unwrap();
        }
    });
}

/// Others are faster now and then, and an answer may be lost: then it is called again, with the
/// same transaction id.
async fn append_until_acked(store: &Store, number: i64) -> i64 {
    let began = Instant::now();
    loop {
        match store.root().append_series_data_with_options(append_of(number)).await {
            Ok(receipt) => return receipt.version.unwrap().number(),
            Err(error) => {
                let again = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::OutcomeUnknown);
                assert!(again && began.elapsed() < PATIENCE, "{number}: {error:?}");
            }
        }
    }
}

/// A place for the store, and what a process must have in its environment to get there.
struct Place {
    url: String,
    environment: Vec<(String, String)>,
}

impl Place {
    async fn open_or_create(&self) -> Fallible<Store> {
        let mut builder = Store::builder(&self.url).with_partitions(1);
        for (name, value) in &self.environment {
            builder = builder.with_storage_option(name, value);
        }
        builder.open_or_create().await.at("opening")
    }

    /// Starts a writer and waits for its acks, as version and number.
    async fn run_writer(&self, writer: i64) -> Fallible<Vec<(i64, i64)>> {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["processes::writer", "--exact", "--ignored", "--nocapture"])
            .env(STORE, &self.url)
            .env(WRITER, writer.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name.to_uppercase(), value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .at("starting a writer")?;
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.at("a writer hangs")?.at("waiting for a writer")?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("writer {writer}: {}: {told}", output.status));
        }
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(lines.lines().filter_map(parse_ack).collect())
    }
}

fn parse_ack(line: &str) -> Option<(i64, i64)> {
    // The harness writes the test's name before its first line.
    let (_, words) = line.split_once("ack ")?;
    let (version, number) = words.split_once(' ')?;
    Some((version.parse().ok()?, number.parse().ok()?))
}

/// The numbers of the appends that a reader sees, each of which must be whole.
async fn whole_appends(store: &Store) -> Fallible<BTreeSet<i64>> {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for row in rows(store.root().read_series_all(PATH).await).await? {
        match row.last() {
            Some(Cell::Int(number)) => *counts.entry(*number).or_default() += 1,
            other => return Err(format!("not a number: {other:?}")),
        }
    }
    for (number, count) in &counts {
        same(format!("rows of append {number}"), &row_count(*number), count)?;
    }
    Ok(counts.into_keys().collect())
}

/// Reads until the writers have ended; what was seen once stays.
async fn read_meanwhile(store: Store, ended: Arc<AtomicBool>) -> Fallible<u64> {
    let mut before = BTreeSet::new();
    let mut reads = 0;
    while !ended.load(Ordering::SeqCst) {
        if store.describe(PATH).await.is_ok() {
            let now = whole_appends(&store).await?;
            if !now.is_superset(&before) {
                return Err("appends that were seen are gone".to_owned());
            }
            before = now;
            reads += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(reads)
}

async fn race(place: &Place) -> Fallible {
    let store = place.open_or_create().await?;
    let ended = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let reader = place.open_or_create().await?;
        readers.push(tokio::spawn(read_meanwhile(reader, Arc::clone(&ended))));
    }
    let began = Instant::now();
    let writers = (0..WRITERS).map(|writer| place.run_writer(writer));
    let acks = futures::future::try_join_all(writers).await;
    ended.store(true, Ordering::SeqCst);
    let took = began.elapsed();
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.at("a reader")??;
    }
    let acks: Vec<(i64, i64)> = acks?.into_iter().flatten().collect();
    println!("{} appends by {WRITERS} processes in {took:.1?}, {reads} reads", acks.len());
    if reads == 0 {
        return Err("no reader read anything meanwhile".to_owned());
    }
    judge(&store, &acks).await
}

/// Versions are dense, and each is the append that was told.
async fn judge(store: &Store, acks: &[(i64, i64)]) -> Fallible {
    let numbers: BTreeSet<i64> = acks.iter().map(|ack| ack.1).collect();
    same("acked appends", &(WRITERS * APPENDS), &i64::try_from(numbers.len()).unwrap())?;
    let versions: BTreeMap<i64, i64> = acks.iter().copied().collect();
    let dense: Vec<i64> = (1..=WRITERS * APPENDS).collect();
    same("acked versions", &dense, &versions.keys().copied().collect::<Vec<_>>())?;
    let listed = store.versions(PATH).await.at("versions")?;
    same("versions", &dense, &listed.iter().map(|v| v.version.number()).collect::<Vec<_>>())?;
    for version in &listed {
        let number = versions[&version.version.number()];
        let id = version.transaction.as_uuid().as_u128();
        same("the append of a version", &(u128::try_from(number).unwrap() + 1), &id)?;
    }
    same("appends that are there", &numbers, &whole_appends(store).await?)
}

#[test]
fn eight_processes_append_to_a_series_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().to_str().unwrap().to_owned();
    let place = Place { url, environment: Vec::new() };
    runtime().block_on(race(&place)).unwrap();
}

#[test]
fn eight_processes_append_to_a_series_in_a_bucket() {
    if let Ok(named) = std::env::var(NAMED) {
        // A store of its own for each run, below what is named.
        let (base, query) = named.split_once('?').unwrap_or((&named, ""));
        let unique = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let url = format!("{}/run-{unique}?{query}", base.trim_end_matches('/'));
        let place = Place { url, environment: Vec::new() };
        return runtime().block_on(race(&place)).unwrap();
    }
    let server = TestS3::start().unwrap();
    let place = Place { url: server.url("race"), environment: server.options() };
    runtime().block_on(race(&place)).unwrap();
    println!("{:?}", server.counts());
}
