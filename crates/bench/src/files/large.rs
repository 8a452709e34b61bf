//! Compaction of a series that is much larger than memory: within what memory, and what appends beside it wait for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::apart::apart;
use crate::generate::rng::Rng;
use crate::generate::sensors::{self, Sensors, time_us};
use crate::machine::peak_resident_bytes;
use crate::options::Common;
use crate::results::Document;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const LARGE: &str = "/large.series";
const SMALL: &str = "/small.series";
const TIDELOG: &str = "tidelog";
const BARE: &str = "one write and fdatasync, beside a copy";
const MIB_AT_MOST: f64 = 256.0;
const P99_AT_MOST_OF_BARE: f64 = 2.0;
/// Of the bytes that the background may read and write, those of files that it has put are at least this part,
/// or it was hardly at work.
const RATE_PART_AT_LEAST: f64 = 0.1;

#[derive(Args, Clone, Debug)]
pub(crate) struct LargeArgs {
    /// MiB of files to compact
    #[arg(long, default_value_t = 10_240)]
    pub(crate) mib: u64,
    /// MiB of files to compact while appends go on
    #[arg(long, default_value_t = 2_048)]
    pub(crate) beside_mib: u64,
    /// Rows of each file
    #[arg(long, default_value_t = 500_000)]
    pub(crate) batch_rows: usize,
    /// MB that the background reads and writes in a second
    #[arg(long, default_value_t = 40)]
    pub(crate) rate_mb: u64,
    /// Rows of each append beside it
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// Seconds of appends beside it
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u64,
}

const ABOUT: &str = "Files of which each overlaps the next by half are compacted in a process of their own with default \
    settings; its peak is the resident high-water mark, everything included. Then a writer alone appends, one append \
    after the other, while the background compacts such a series at a limited rate. Before and after that, as many \
    bytes as an append takes in the write-ahead log are written and synced again and again, while the same files \
    are copied at the same rate.";

/// What a compacting process reports.
#[derive(Debug, Deserialize, Serialize)]
struct Compacted {
    seconds: f64,
    bytes_written: u64,
    files: usize,
    peak_bytes: u64,
}

pub(crate) async fn run(args: &LargeArgs, common: &Common) -> Result<()> {
    let mut document =
        Document::new("compact-large", "Compacting much more than memory", ABOUT, common);
    document.parameter("MiB", args.mib);
    document.parameter("rows per file", args.batch_rows);
    document.parameter("MiB compacted beside appends", args.beside_mib);
    document.parameter("MB per second beside appends", args.rate_mb);
    document.parameter("rows per append", args.rows);
    in_one_go(args, common, &mut document).await?;
    beside_appends(args, common, &mut document).await?;
    document.finish(common)
}

async fn in_one_go(args: &LargeArgs, common: &Common, document: &mut Document) -> Result<()> {
    let folder = common.fresh("compact-large")?;
    let built = build(args, common, &folder, args.mib).await?;
    let before = fingerprint(&folder).await?;
    let (done, _) = apart::<Compacted>("compact-one", &folder, &[])?;
    document.fact("compaction", TIDELOG, "s", done.seconds);
    document.fact("files before", TIDELOG, "files", built as f64);
    document.fact("files after", TIDELOG, "files", done.files as f64);
    document.fact("bytes written", TIDELOG, "MB", done.bytes_written as f64 / 1e6);
    let mib = done.peak_bytes as f64 / 1_048_576.0;
    document.figure("peak resident memory of a compaction", "MiB", mib, Some(MIB_AT_MOST));
    let after = fingerprint(&folder).await?;
    document.check("rows and sums", before == after, after);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Appends until the files have so many MiB; how many files they are.
async fn build(args: &LargeArgs, common: &Common, folder: &Path, mib: u64) -> Result<usize> {
    let tidelog = Tidelog::open_uncompacted(folder).await?;
    let mut rng = Rng::new(common.seed);
    let mut files = 0;
    while tidelog.statistics().await?.bytes < mib << 20 {
        let first = files * args.batch_rows / 2;
        let batch = noise(&mut rng, first, args.batch_rows)?;
        tidelog.append(LARGE, &batch, sensors::TIME_COLUMN).await?;
        files += 1;
    }
    Ok(files)
}

/// Rows whose values hardly shrink.
fn noise(rng: &mut Rng, first: usize, rows: usize) -> Result<RecordBatch> {
    let times = (first..first + rows).map(time_us).collect::<Result<Vec<_>>>()?;
    let mut values = || Float64Array::from_iter_values((0..rows).map(|_| rng.uniform()));
    let (temperature, humidity) = (values(), values());
    let sensor = Int64Array::from_iter_values((0..rows).map(|_| i64::from(rng.below(u32::MAX))));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(temperature),
        Arc::new(humidity),
        Arc::new(sensor),
    ];
    Ok(RecordBatch::try_new(sensors::schema(), columns)?)
}

/// What the rows of the large series come to, whatever their order.
async fn fingerprint(folder: &Path) -> Result<String> {
    let tidelog = Tidelog::open_uncompacted(folder).await?;
    let time = sensors::TIME_COLUMN;
    let statement = format!(
        "SELECT count(*) AS rows, sum(sensor) AS sensor, min({time}) AS first, max({time}) AS last, \
         sum(arrow_cast(round(temperature * 1e9), 'Int64') % 1000003) AS temperature FROM \"{LARGE}\""
    );
    let answer = tidelog.sql(&statement).await?;
    let lines = arrow::util::pretty::pretty_format_batches(&answer)?.to_string();
    let row = lines.lines().nth(3).context("a fingerprint without a row")?;
    Ok(row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" · "))
}

async fn beside_appends(args: &LargeArgs, common: &Common, document: &mut Document) -> Result<()> {
    let folder = common.fresh("compact-beside")?;
    build(args, common, &folder, args.beside_mib).await?;
    let rate = args.rate_mb * 1_000_000;
    let copied = folder.join("copied");
    std::fs::create_dir(&copied)?;
    let record = record_bytes(args, common).await?;
    let half = Duration::from_secs(args.seconds.div_ceil(2));
    let mut bare = bare_beside_copy(&folder, &copied, record, rate, half)?;
    let own = append_beside(args, common, &folder, rate, document).await?;
    bare.extend(bare_beside_copy(&folder, &copied, record, rate, half)?);
    document.measure("append beside compaction", TIDELOG, "ms", &own);
    document.measure("append beside compaction", BARE, "ms", &bare);
    let p99 = |times: &[f64]| Summary::of(times).map(|summary| summary.p99);
    let what = "p99 of an append beside compaction ÷ p99 of a bare sync beside a copy";
    document.ratio(what, p99(&own), p99(&bare), Some(P99_AT_MOST_OF_BARE));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The bytes that an append takes in the write-ahead log.
async fn record_bytes(args: &LargeArgs, common: &Common) -> Result<usize> {
    const APPENDS: usize = 100;
    let tidelog = Tidelog::open_alone(&common.fresh("compact-record")?).await?;
    let mut sensors = Sensors::new(common.seed);
    for _ in 0..APPENDS {
        tidelog.append(SMALL, &sensors.batch(args.rows)?, sensors::TIME_COLUMN).await?;
    }
    let bytes = tidelog.wal_bytes()? / APPENDS;
    tidelog.close().await?;
    Ok(bytes)
}

/// The milliseconds of each append, while the background is compacting.
async fn append_beside(
    args: &LargeArgs,
    common: &Common,
    folder: &Path,
    rate: u64,
    document: &mut Document,
) -> Result<Vec<f64>> {
    let open = Tidelog::open_alone_with(folder, |builder| builder.with_compaction_rate(rate));
    let tidelog = open.await?;
    let large = only_folder(&folder.join("series"))?;
    let mut sensors = Sensors::new(common.seed);
    // The background looks at a series when somebody writes to it.
    tidelog.append(LARGE, &sensors.batch(1)?, sensors::TIME_COLUMN).await?;
    tidelog.flush().await?;
    let before = bytes_in(&large)?;
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < Duration::from_secs(args.seconds) {
        let batch = sensors.batch(args.rows)?;
        let append = Instant::now();
        tidelog.append(SMALL, &batch, sensors::TIME_COLUMN).await?;
        times.push(append.elapsed().as_secs_f64() * 1e3);
    }
    let seconds = started.elapsed().as_secs_f64();
    // Files are put long before the commit that names them.
    let written = (bytes_in(&large)? - before) as f64;
    document.fact("bytes that compaction put meanwhile", TIDELOG, "MB/s", written / 1e6 / seconds);
    let wanted = rate as f64 * seconds * RATE_PART_AT_LEAST;
    let detail = format!("{:.0} MB were put, {:.0} are enough", written / 1e6, wanted / 1e6);
    document.check("files were merged meanwhile", written >= wanted, detail);
    tidelog.close().await?;
    Ok(times)
}

/// The milliseconds of each write with its sync, while the files of a store are copied.
fn bare_beside_copy(
    store: &Path,
    to: &Path,
    bytes: usize,
    rate: u64,
    time: Duration,
) -> Result<Vec<f64>> {
    let files = data_files(&store.join("series"))?;
    ensure!(!files.is_empty(), "no files to copy");
    let (ended, copied) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let copying = {
        let (ended, copied, to) = (Arc::clone(&ended), Arc::clone(&copied), to.to_owned());
        std::thread::spawn(move || copy_at(&files, &to, rate, &ended, &copied))
    };
    let mut file = OpenOptions::new().create(true).append(true).open(to.join("synced"))?;
    let (record, started, mut times) = (vec![0x5a; bytes], Instant::now(), Vec::new());
    while started.elapsed() < time {
        let write = Instant::now();
        file.write_all(&record)?;
        file.sync_data()?;
        times.push(write.elapsed().as_secs_f64() * 1e3);
    }
    ended.store(true, Ordering::Relaxed);
    copying.join().map_err(|_| anyhow::anyhow!("the copying thread panicked"))??;
    ensure!(copied.load(Ordering::Relaxed) > 0, "nothing was copied");
    Ok(times)
}

fn data_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            files.extend(data_files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The folder of the only series that has files yet.
fn only_folder(series: &Path) -> Result<PathBuf> {
    let folders = std::fs::read_dir(series)?.map(|entry| Ok(entry?.path()));
    let folders = folders.collect::<Result<Vec<_>>>()?;
    ensure!(folders.len() == 1, "{} has {} folders", series.display(), folders.len());
    Ok(folders[0].clone())
}

fn bytes_in(folder: &Path) -> Result<u64> {
    // A file that is being put may get its name meanwhile.
    let bytes = |file: &PathBuf| Some(std::fs::metadata(file).ok()?.len());
    Ok(data_files(folder)?.iter().filter_map(bytes).sum())
}

/// Copies files, again and again, reading and writing at most so many bytes per second together; each copy is
/// synced, as a file of a store is.
fn copy_at(
    files: &[PathBuf],
    to: &Path,
    rate: u64,
    ended: &AtomicBool,
    copied: &AtomicU64,
) -> Result<()> {
    let (started, mut moved) = (Instant::now(), 0_u64);
    let mut buffer = vec![0; 1 << 20];
    for file in files.iter().cycle() {
        let mut from = File::open(file)?;
        let mut copy = File::create(to.join("copy"))?;
        loop {
            if ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let read = from.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            copy.write_all(&buffer[..read])?;
            copied.fetch_add(read as u64, Ordering::Relaxed);
            moved += 2 * read as u64;
            let due = Duration::from_secs_f64(moved as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        copy.sync_all()?;
    }
    Ok(())
}

/// Compacts a series and reports as JSON.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompactOneArgs {
    /// The store
    #[arg(long)]
    pub(crate) store: PathBuf,
}

pub(crate) async fn run_compact_one(args: &CompactOneArgs) -> Result<()> {
    let started = Instant::now();
    let tidelog = Tidelog::open(&args.store).await?;
    let bytes_written = tidelog.compact(LARGE).await?;
    let seconds = started.elapsed().as_secs_f64();
    let files = tidelog.files(LARGE).await?;
    let peak_bytes = peak_resident_bytes().context("no VmHWM in /proc/self/status")?;
    println!(
        "{}",
        serde_json::to_string(&Compacted { seconds, bytes_written, files, peak_bytes })?
    );
    Ok(())
}
