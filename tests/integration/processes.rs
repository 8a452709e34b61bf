//! Eight processes append to one series at the same time.
//!
//! Each child process is this binary again. It makes 25 appends, or as many as
//! `TIDELOG_PROCESSES_APPENDS` says, and prints a line for each ack; this process reads meanwhile and
//! judges at the end: versions are dense, each acked append is there once and whole, no reader ever
//! saw part of one, and an append that had ended before another began has the lower version.
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
use tidelog::{ErrorKind, Mode, SeriesAppend, SeriesExt, Store, TransactionId};
use tidelog_testkit::{Cell, TestS3};
use tokio::process::Command;

use crate::support::{Context, Fallible, runtime, same, sql};

const STORE: &str = "TIDELOG_PROCESSES_STORE";
const WRITER: &str = "TIDELOG_PROCESSES_WRITER";
const APPENDS: &str = "TIDELOG_PROCESSES_APPENDS";
const NAMED: &str = "TIDELOG_TEST_STORE";

const WRITERS: i64 = 8;
const PATH: &str = "/p/shared.series";
/// Far more than any of them takes; a process that hangs must not hang the tests.
const PATIENCE: Duration = Duration::from_secs(300);

/// Appends of each process; at most 1,000, for numbers to be unique.
fn appends() -> i64 {
    std::env::var(APPENDS).ok().map_or(25, |text| text.parse().unwrap())
}

/// An append that was acked: its version, its number, when it began and ended.
#[derive(Debug, Clone, Copy)]
struct Ack {
    version: i64,
    number: i64,
    began: u128,
    ended: u128,
}

/// All processes run on this machine, so its clock can be compared between them.
fn now() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
}

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
        let store = Store::builder(store).with_mode(Mode::Shared).with_partitions(1);
        let store = store.open().await.unwrap();
        for i in 0..appends() {
            let number = writer * 1_000 + i;
            let began = now();
            let version = append_until_acked(&store, number).await;
            let ended = now();
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {version} {number} {began} {ended}").unwrap();
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
        let mut builder = Store::builder(&self.url).with_mode(Mode::Shared).with_partitions(1);
        for (name, value) in &self.environment {
            builder = builder.with_storage_option(name, value);
        }
        builder.open_or_create().await.at("opening")
    }

    /// Starts a writer and waits for its acks, as version and number.
    async fn run_writer(&self, writer: i64) -> Fallible<Vec<Ack>> {
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

fn parse_ack(line: &str) -> Option<Ack> {
    // The harness writes the test's name before its first line.
    let (_, words) = line.split_once("ack ")?;
    let mut words = words.split(' ');
    let (version, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (began, ended) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Ack { version, number, began, ended })
}

/// An append that had ended before another began has the lower version: what somebody was told to be
/// there comes before what was done about it.
fn check_real_time(acks: &[Ack]) -> Fallible {
    let mut acks = acks.to_vec();
    acks.sort_by_key(|ack| std::cmp::Reverse(ack.version));
    let mut first_end: Option<Ack> = None;
    for ack in acks {
        if let Some(later) = first_end.filter(|later| later.ended < ack.began) {
            return Err(format!("{later:?} had ended before {ack:?} began"));
        }
        first_end = Some(first_end.filter(|later| later.ended <= ack.ended).unwrap_or(ack));
    }
    Ok(())
}

/// The numbers of the appends that a reader sees, each of which must be whole.
async fn whole_appends(store: &Store) -> Fallible<BTreeSet<i64>> {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    // Event times of all appends lie among each other: in order, few hundred files can be read.
    for row in sql(store, &format!("SELECT number FROM \"{PATH}\"")).await? {
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
    let acks: Vec<Ack> = acks?.into_iter().flatten().collect();
    println!("{} appends by {WRITERS} processes in {took:.1?}, {reads} reads", acks.len());
    if reads == 0 {
        return Err("no reader read anything meanwhile".to_owned());
    }
    judge(&store, &acks).await
}

/// Versions are dense, and each is the append that was told.
async fn judge(store: &Store, acks: &[Ack]) -> Fallible {
    check_real_time(acks)?;
    let numbers: BTreeSet<i64> = acks.iter().map(|ack| ack.number).collect();
    same("acked appends", &(WRITERS * appends()), &i64::try_from(numbers.len()).unwrap())?;
    let versions: BTreeMap<i64, i64> = acks.iter().map(|ack| (ack.version, ack.number)).collect();
    let dense: Vec<i64> = (1..=WRITERS * appends()).collect();
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
fn an_order_that_time_contradicts_is_noticed() {
    let ack = |version, began, ended| Ack { version, number: version, began, ended };
    check_real_time(&[ack(1, 0, 5), ack(2, 1, 3), ack(3, 6, 9)]).unwrap();
    check_real_time(&[ack(1, 5, 9), ack(2, 2, 3), ack(3, 4, 6)]).unwrap_err();
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
