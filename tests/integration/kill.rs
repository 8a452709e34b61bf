//! An acked append is kept when the process is killed.
//!
//! A child process, this binary again, appends without a pause and prints a line after each ack; the
//! parent kills it and judges what is on the disk by the lines that it got. What an append holds
//! follows from its number alone, so that nothing but the store and the lines is needed to judge,
//! here or in `tests/judges/judge.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidelog::arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use tidelog::{
    AppendReceipt, ExpireRule, Mode, SeriesAppend, SeriesExt, Store, TransactionId, VacuumOptions,
    WalDurability,
};
use tidelog_storage::FileSystem;
use tidelog_testkit::crash::CRASH_AT;
use tidelog_testkit::{
    Cell, CrashFileSystem, CrashPlan, Fault, FaultError, FaultFileSystem, FaultStore, FileFault,
    ForgetfulFileSystem, crash_point,
};

use crate::reworked::rework;
use crate::support::{Context, Fallible, same, sql};

pub(crate) const DIRECTORY: &str = "TIDELOG_KILL_STORE";
const FIRST: &str = "TIDELOG_KILL_FIRST";
pub(crate) const STEPS: &str = "TIDELOG_KILL_STEPS";
const ABORT_AT: &str = "TIDELOG_KILL_ABORT_AT";
/// Set for a writer that has the store alone, with small generations.
pub(crate) const ALONE: &str = "TIDELOG_KILL_ALONE";
/// At which change of the files of its write-ahead log it dies.
const ABORT_WAL_AT: &str = "TIDELOG_KILL_ABORT_WAL_AT";
/// At which named change of any file it dies; if empty, it only counts them. Segments are small then.
pub(crate) const PLAN: &str = "TIDELOG_KILL_PLAN";
/// How many tasks append at once.
pub(crate) const TASKS: &str = "TIDELOG_KILL_TASKS";
/// What an append survives that a writer has acknowledged which has the store alone.
const DURABILITY: &str = "TIDELOG_KILL_DURABILITY";
/// Set for a writer whose syncs do nothing.
const FORGET: &str = "TIDELOG_KILL_FORGET";
/// A file with what was acknowledged, a line each as the writer says it.
const LEDGER: &str = "TIDELOG_KILL_LEDGER";
const ROUNDS: &str = "TIDELOG_KILL_ROUNDS";
const LEAVE_IN: &str = "TIDELOG_KILL_DIR";

/// Series that appends with an even number go to; every fifth number goes to both at once.
pub(crate) const SERIES: [&str; 2] = ["/k/even.series", "/k/deep/er/odd.series"];
/// Where a third series gets several versions at a time.
pub(crate) const MANY: &str = "/k/many.series";

/// Rows of a generation of a writer that has the store alone.
const HOT_ROWS_MAX: u64 = 20;
/// Bytes of a segment of a writer that dies at a named change.
const SEGMENT_BYTES: u64 = 8_000;
/// How the stores that are killed are written, in turn: alone, and with which durability.
const KINDS: [(bool, &str); 4] =
    [(false, ""), (true, "sync"), (true, "interval"), (true, "memory")];

/// One row of append `number`, as the columns say: event time, number, index, text.
type Values = (i64, i64, i64, String);

/// The rows of append `number`: one to four, in no order of time.
pub(crate) fn rows_of(number: i64) -> Vec<Values> {
    (0..=number % 4)
        .map(|i| {
            let time = 1_700_000_000_000_000 + (number * 7_919 + i * 104_729) % 1_000_003 * 1_000;
            (time, number, i, format!("{number}/{i}"))
        })
        .collect()
}

fn append_of(path: &str, number: i64) -> SeriesAppend {
    let rows = rows_of(number);
    let times: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.0)).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("number", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)))),
        ("index", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
        ("text", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.3)))),
    ];
    let id = TransactionId::from_uuid(uuid::Uuid::from_u128(u128::try_from(number).unwrap() + 1));
    SeriesAppend::new(path, RecordBatch::try_from_iter(columns).unwrap()).with_transaction(id)
}

/// Whether append `number` goes to both series or to none.
fn is_atomic(number: i64) -> bool {
    number % 5 == 0
}

/// The process that is killed. It does nothing unless a parent asked for it.
#[test]
#[ignore = "the process that the other tests of this module kill"]
fn writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number(FIRST).unwrap_or_default();
    let last = number(STEPS).map_or(u64::MAX, |steps| first + steps);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let planned = std::env::var(PLAN).ok();
        let files = planned.map(|text| CrashFileSystem::new(CrashPlan::parse(&text)));
        let store = open_faulty(&directory, files.as_ref()).await;
        let next = Arc::new(AtomicU64::new(first));
        // One task alone makes a sequence that can be cut at each of its operations.
        let tasks = number(TASKS).unwrap_or(if last == u64::MAX { 3 } else { 1 });
        let tasks = (0..tasks).map(|_| tokio::spawn(write(store.clone(), Arc::clone(&next), last)));
        for task in futures::future::join_all(tasks).await {
            task.unwrap();
        }
        for (name, count) in files.iter().flat_map(CrashFileSystem::passed) {
            say(&format!("passed {count} {name}"));
        }
    });
    say("done");
}

/// Opens the store in `directory`, which may be made to abort the process at its n-th operation.
async fn open_faulty(directory: &str, files: Option<&CrashFileSystem>) -> Store {
    let files: Option<Arc<dyn FileSystem>> = match files {
        Some(files) => Some(Arc::new(files.clone())),
        None if std::env::var(FORGET).is_ok() => Some(Arc::new(ForgetfulFileSystem)),
        None => None,
    };
    let mut builder = Store::builder(directory).with_mode(Mode::Shared);
    if let Some(files) = &files {
        builder = builder.with_file_system(Arc::clone(files));
    }
    if let Ok(at) = std::env::var(ABORT_AT) {
        let (when, nth) = at.split_once(':').unwrap();
        let fault = Fault::new(FaultError::Abort).nth(nth.parse().unwrap());
        let fault = if when == "after" { fault.after() } else { fault };
        builder = builder.with_layer(move |place| {
            let faulty = FaultStore::new(place);
            faulty.inject(fault.clone());
            Arc::new(faulty)
        });
    }
    if std::env::var(ALONE).is_ok() {
        builder = builder.with_mode(Mode::Exclusive).with_hot_max(HOT_ROWS_MAX, 1 << 20);
    }
    match std::env::var(DURABILITY).as_deref() {
        Ok("interval") => {
            let every = WalDurability::Interval(Duration::from_millis(20));
            builder = builder.with_wal_durability(every);
        }
        Ok("memory") => builder = builder.with_wal_durability(WalDurability::Memory),
        _ => {}
    }
    if let Some(files) = files {
        builder = builder.with_wal_file_system(files).with_wal_segment_bytes(SEGMENT_BYTES);
    }
    if let Ok(at) = std::env::var(ABORT_WAL_AT) {
        let (when, nth) = at.split_once(':').unwrap();
        let fault = FileFault::Abort { after: when == "after" };
        let files = FaultFileSystem::new(nth.parse().unwrap(), fault);
        builder = builder.with_wal_file_system(Arc::new(files));
    }
    builder.with_partitions(1).open_or_create().await.unwrap()
}

async fn write(store: Store, next: Arc<AtomicU64>, last: u64) {
    let tells = std::env::var(PLAN).is_ok();
    let root = store.root();
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        if number >= last {
            return;
        }
        let number = i64::try_from(number).unwrap();
        crash_point!("before an append");
        if tells {
            say(&format!("try {number}"));
        }
        if tells && number % 3 == 2 {
            // The others judge appends alone.
            let change = change_of(number);
            if let Some(version) = rework(&store, change).await.unwrap() {
                say(&format!("changed {} {change}", version.number()));
            }
        } else if is_atomic(number) {
            let both = SERIES.map(|path| append_of(path, number)).to_vec();
            let receipts = root.append_atomic(both).await.unwrap();
            crash_point!("between append and ack");
            receipts.iter().for_each(|receipt| ack(receipt, number));
        } else if number % 7 == 0 {
            // Versions of one call need numbers of their own.
            let numbers = [number, number + 500_000, number + 600_000];
            let many = numbers.map(|number| append_of(MANY, number)).to_vec();
            let results = root.append_many(many).await.unwrap();
            for (result, number) in results.into_iter().zip(numbers) {
                ack(&result.unwrap(), number);
            }
        } else {
            let path = SERIES[usize::from(number % 2 != 0)];
            let append = append_of(path, number);
            let receipt = root.append_series_data_with_options(append).await.unwrap();
            crash_point!("between append and ack");
            ack(&receipt, number);
        }
        if tells {
            tidy(&store, number).await;
        }
    }
}

/// The number of the change that is made instead of an append: those of one run are few.
pub(crate) fn change_of(number: i64) -> i64 {
    number / 1_000_000 * 64 + number % 1_000_000 % 64
}

/// Now and then merges files, lets history go, and deletes what nobody needs any more.
async fn tidy(store: &Store, number: i64) {
    if number % 9 == 4 {
        store.compact("/k/**").await.unwrap();
    }
    if number % 20 == 13 {
        store.expire("/k/**", ExpireRule::KeepVersions(2)).await.unwrap();
        let at_once = VacuumOptions::default().with_apply(true).with_older_than(Duration::ZERO);
        store.vacuum(&at_once).await.unwrap();
    }
    if number % 20 == 17 {
        store.maintain(false).await.unwrap();
    }
}

fn ack(receipt: &AppendReceipt, number: i64) {
    let version = receipt.version.unwrap().number();
    say(&format!("ack {} {version} {number}", receipt.path));
}

/// One line to the parent, past what the test harness captures.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// An append that was acked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ack {
    pub(crate) path: String,
    pub(crate) version: i64,
    pub(crate) number: i64,
}

impl Ack {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("ack ")?.split(' ');
        let path = words.next()?.to_owned();
        let (version, number) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { path, version, number })
    }

    fn json(&self) -> String {
        let Self { path, version, number } = self;
        let rows = rows_of(*number).len();
        serde_json::json!({ "path": path, "version": version, "number": number, "rows": rows })
            .to_string()
    }
}

/// A writer that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: std::sync::mpsc::Receiver<String>,
    reader: std::thread::JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(store: &Path, first: u64, more: &[(&str, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::writer", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, store)
            .env(FIRST, first.to_string())
            .env("RUST_BACKTRACE", "0")
            .envs(more.iter().map(|(name, value)| (*name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, reader }
    }

    /// Waits for the first ack, then for `more`, then kills.
    fn kill_after(mut self, more: Duration) -> Fallible<Vec<Ack>> {
        let mut acks = Vec::new();
        while acks.is_empty() {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) => acks.extend(Ack::parse(&line)),
                Err(error) => return Err(format!("no ack ({error}): {}", self.complaint())),
            }
        }
        std::thread::sleep(more);
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("it ended by itself ({status}): {}", self.complaint()));
        }
        self.child.kill().at("killing the writer")?;
        let (rest, _) = self.finish()?;
        acks.extend(rest);
        Ok(acks)
    }

    /// All that it says until it ends; if it fails, its complaint is the last line.
    pub(crate) fn lines_to_end(mut self) -> Fallible<(Vec<String>, ExitStatus)> {
        let mut lines: Vec<String> = self.lines.iter().collect();
        let status = self.child.wait().at("waiting for the writer")?;
        if !status.success() {
            lines.push(self.complaint());
        }
        self.reader.join().map_err(|_| "the reader of the pipe failed".to_owned())?;
        Ok((lines, status))
    }

    /// What it says until it ends.
    pub(crate) fn finish(self) -> Fallible<(Vec<Ack>, ExitStatus)> {
        let (lines, status) = self.lines_to_end()?;
        Ok((lines.iter().filter_map(|line| Ack::parse(line)).collect(), status))
    }

    fn complaint(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }
}

/// Judges the store in `directory` by the acks: each of them there, once, whole; nothing half.
async fn judge(directory: &Path, acks: &BTreeSet<Ack>) -> Fallible<usize> {
    judged(directory, acks).await.map(|found| found.len())
}

/// As `judge`; with all that is there.
pub(crate) async fn judged(directory: &Path, acks: &BTreeSet<Ack>) -> Fallible<BTreeSet<Ack>> {
    let store = Store::open(directory.to_str().unwrap()).await.at("opening after the kill")?;
    let mut found = BTreeSet::new();
    for path in SERIES.into_iter().chain([MANY]) {
        if store.list(path).await.at("listing")?.is_empty() {
            continue;
        }
        found.extend(versions_in(&store, path).await.map_err(|error| format!("{path}: {error}"))?);
    }
    let numbers_at = |path: &str| -> BTreeSet<i64> {
        let here = found.iter().filter(|ack| ack.path == path);
        here.map(|ack| ack.number).filter(|number| is_atomic(*number)).collect()
    };
    same("atomic appends", &numbers_at(SERIES[0]), &numbers_at(SERIES[1]))?;
    match acks.iter().find(|ack| !found.contains(ack)) {
        Some(lost) => Err(format!("{lost:?} was acked and is not there")),
        None => Ok(found),
    }
}

/// The versions of one series with the numbers of their appends. Fails if one is not whole, a number
/// comes twice or versions are not dense.
pub(crate) async fn versions_in(store: &Store, path: &str) -> Fallible<Vec<Ack>> {
    let logged = store.versions(path).await.at("versions")?;
    let statement = format!(
        "SELECT __version, number, index, arrow_cast(time, 'Int64'), text \
         FROM series_versions('{path}') ORDER BY __version, index"
    );
    let mut by_version: BTreeMap<i64, Vec<Values>> = BTreeMap::new();
    for row in sql(store, &statement).await? {
        let [
            Cell::Int(version),
            Cell::Int(number),
            Cell::Int(index),
            Cell::Int(time),
            Cell::Text(text),
        ] = row.as_slice()
        else {
            return Err(format!("{row:?}"));
        };
        by_version.entry(*version).or_default().push((*time, *number, *index, text.clone()));
    }
    let dense: Vec<i64> = (1..=i64::try_from(logged.len()).unwrap()).collect();
    let numbers: Vec<i64> = logged.iter().map(|version| version.version.number()).collect();
    same("versions in the log", &dense, &numbers)?;
    same("versions with rows", &dense, &by_version.keys().copied().collect())?;
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for ((version, values), logged) in by_version.into_iter().zip(logged) {
        let number = values[0].1;
        same(format!("v{version}"), &rows_of(number), &values)?;
        same(format!("v{version} in the log"), &(values.len() as u64), &logged.rows)?;
        if !seen.insert(number) {
            return Err(format!("append {number} is there twice"));
        }
        found.push(Ack { path: path.to_owned(), version, number });
    }
    Ok(found)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Kills writers `rounds` times, each store getting `each`, and judges after each kill.
fn kill_rounds(directory: &Path, rounds: u64, each: u64) -> Fallible<(usize, usize)> {
    let runtime = runtime();
    let (mut acked, mut stored) = (0, 0);
    for place in 0..rounds.div_ceil(each) {
        let base = directory.join(format!("store-{place:03}"));
        let store = base.join("store");
        std::fs::create_dir_all(&base).at("making a directory")?;
        let mut acks = BTreeSet::new();
        let mut found = 0;
        for round in place * each..rounds.min((place + 1) * each) {
            // Spread over the time of a few hundred appends, the same in every run.
            let delay = Duration::from_micros((round * 2_654_435_761) % 250_000);
            let (alone, durability) = KINDS[usize::try_from(place).unwrap() % KINDS.len()];
            let kind = [(ALONE, "1".to_owned()), (DURABILITY, durability.to_owned())];
            let kind = if alone { kind.as_slice() } else { &[] };
            let running = Running::start(&store, round * 1_000_000, kind);
            let what = format!("round {round}, killed {delay:?} after the first ack");
            let new = running.kill_after(delay).map_err(|error| format!("{what}: {error}"))?;
            acks.extend(new);
            found = runtime.block_on(judge(&store, &acks)).map_err(|e| format!("{what}: {e}"))?;
        }
        acked += acks.len();
        stored += found;
        // The next writer brings in what a write-ahead log holds, for judges that read files only.
        runtime.block_on(async {
            let store = Store::builder(store.to_str().unwrap()).with_mode(Mode::Shared);
            let store = store.open().await.at("opening")?;
            store.create_directory("/done").await.at("writing after the kills")
        })?;
        let ledger: Vec<String> = acks.iter().map(Ack::json).collect();
        std::fs::write(base.join("acks.jsonl"), ledger.join("\n") + "\n")
            .at("writing the ledger")?;
    }
    Ok((acked, stored))
}

#[test]
fn a_killed_writer_loses_no_ack() {
    let directory = tempfile::tempdir().unwrap();
    let (acked, stored) = kill_rounds(directory.path(), 20, 5).unwrap();
    println!("{acked} acks in 20 rounds, {stored} versions found");
    assert!(acked > 20 && stored >= acked);
}

/// Leaves stores and ledgers for judges that are not ours: see `tests/judges/run.sh`.
#[test]
#[ignore = "takes minutes; run by tests/judges/run.sh"]
fn a_killed_writer_leaves_stores_for_other_judges() {
    let directory = PathBuf::from(std::env::var(LEAVE_IN).expect("TIDELOG_KILL_DIR names a place"));
    let rounds = std::env::var(ROUNDS).ok().map_or(200, |text| text.parse().unwrap());
    let (acked, stored) = kill_rounds(&directory, rounds, 10).unwrap();
    println!("{acked} acks in {rounds} rounds, {stored} versions found");
}

/// Judges a store that `tests/power/run.sh` has left.
#[test]
#[ignore = "run by tests/power/run.sh"]
fn a_store_is_judged_by_a_ledger() {
    let store = PathBuf::from(std::env::var(DIRECTORY).expect("names a store"));
    let ledger = std::fs::read_to_string(std::env::var(LEDGER).expect("names a file")).unwrap();
    let acks: BTreeSet<Ack> = ledger.lines().filter_map(Ack::parse).collect();
    assert_eq!(acks.len(), ledger.lines().count());
    let found = runtime().block_on(judge(&store, &acks)).unwrap();
    println!("{} acks, {found} versions found", acks.len());
}

/// The writer dies at each operation of its store, before and after it takes effect, and another
/// goes on where it left off.
#[test]
fn a_writer_that_dies_at_any_operation_leaves_no_half() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let alone = (ALONE, "1".to_owned());
    for (kind, abort_at, of_writer) in [
        ("shared", ABORT_AT, [].as_slice()),
        ("alone", ABORT_AT, std::slice::from_ref(&alone)),
        ("ahead", ABORT_WAL_AT, std::slice::from_ref(&alone)),
    ] {
        dies_at_any_operation(&runtime, &directory.path().join(kind), abort_at, of_writer);
    }
}

fn dies_at_any_operation(
    runtime: &tokio::runtime::Runtime,
    directory: &Path,
    abort_at: &'static str,
    of_writer: &[(&'static str, String)],
) {
    for when in ["before", "after"] {
        for nth in 1.. {
            let store = directory.join(format!("{when}-{nth}"));
            std::fs::create_dir_all(&store).unwrap();
            let steps = (STEPS, "9".to_owned());
            let abort = (abort_at, format!("{when}:{nth}"));
            let with = |more: &[(&'static str, String)]| {
                of_writer.iter().cloned().chain(more.iter().cloned()).collect::<Vec<_>>()
            };
            let running = Running::start(&store, 0, &with(&[steps.clone(), abort]));
            let (acks, status) = running.finish().unwrap();
            let acks: BTreeSet<Ack> = acks.into_iter().collect();
            let what = format!("{} {when} operation {nth}", directory.display());
            // Before its first commit there is no store yet.
            if !acks.is_empty()
                || store.join("_oplog/_delta_log/00000000000000000000.json").exists()
            {
                let found = runtime.block_on(judge(&store, &acks));
                found.unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            if status.success() {
                assert!(nth > 20, "{what}: the writer made too few operations to be cut");
                break;
            }
            if nth % 5 == 0 {
                let again = Running::start(&store, 1_000, &with(&[steps]));
                let (more, status) = again.finish().unwrap();
                assert!(status.success(), "{what}: going on");
                let acks = acks.into_iter().chain(more).collect();
                let found = runtime.block_on(judge(&store, &acks));
                found.unwrap_or_else(|error| panic!("{what}, going on: {error}"));
            }
        }
    }
}

/// What was stored but not acked when the writer died is there, whole.
#[test]
fn a_writer_that_dies_between_append_and_ack_has_stored() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let crash = (CRASH_AT, "between append and ack:3".to_owned());
    let running = Running::start(&store, 1, &[(STEPS, "100".to_owned()), crash]);
    let (acks, status) = running.finish().unwrap();
    assert!(!status.success());
    assert_eq!(acks.len(), 2);
    let found = runtime().block_on(judge(&store, &acks.into_iter().collect())).unwrap();
    assert_eq!(found, 3);
}

/// The judge can fail: an ack of what is not there, and a file that is gone, are noticed.
#[test]
fn a_lost_ack_or_file_is_noticed() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let (acks, status) = Running::start(&store, 1, &[(STEPS, "8".to_owned())]).finish().unwrap();
    assert!(status.success());
    let acks: BTreeSet<Ack> = acks.into_iter().collect();
    runtime.block_on(judge(&store, &acks)).unwrap();

    let ghost = Ack { path: SERIES[0].to_owned(), version: 1, number: 999 };
    let too_many = acks.iter().cloned().chain([ghost]).collect();
    runtime.block_on(judge(&store, &too_many)).unwrap_err();

    let mut files = Vec::new();
    collect(&store.join("series"), &mut files);
    std::fs::remove_file(&files[0]).unwrap();
    runtime.block_on(judge(&store, &acks)).unwrap_err();
}

pub(crate) fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
