//! Rows that come late, some of them very late: what it costs to keep them sorted, and to read meanwhile.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use clap::Args;

use crate::generate::rng::Rng;
use crate::generate::sensors::{self, time_us};
use crate::options::Common;
use crate::results::Document;
use crate::rounds::Sample;
use crate::staged;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
const TIDELOG: &str = "tidelog";
const WRITTEN_AT_MOST: f64 = 4.0;
const DURING_AT_MOST_OF_AFTER: f64 = 2.0;
/// The defaults of a writer alone: so many rows in memory for a target of so many MiB.
const DEFAULT_TARGET_MIB: u64 = 128;
const DEFAULT_HOT_ROWS: u64 = 1_000_000;
const DEFAULT_HOT_MIB: u64 = 256;

#[derive(Args, Clone, Debug)]
pub(crate) struct LateDataArgs {
    /// Target size of a file, in MiB; what may be in memory shrinks with it
    #[arg(long, default_value_t = 8)]
    pub(crate) target_mib: u64,
    /// Appends go on until the files have so many times the target
    #[arg(long, default_value_t = 20)]
    pub(crate) times: u64,
    /// Rows of each append, one a second
    #[arg(long, default_value_t = 5_000)]
    pub(crate) batch_rows: usize,
    /// Rows that a read spans, were all of them in time
    #[arg(long, default_value_t = 5_000)]
    pub(crate) read: usize,
    /// Appends between two reads
    #[arg(long, default_value_t = 20)]
    pub(crate) every: usize,
}

const ABOUT: &str = "One row a second is measured. A third of the rows come less than a minute late, a third less than a \
    day, and a third belong anywhere in the past. A writer alone appends them, as fast as it can, until the files \
    are many times the target size, and now and then reads a range anywhere; files are merged in the background. \
    Target and memory are smaller than the defaults by the same factor. When the background has nothing to do any \
    more the same ranges are read again.";

pub(crate) async fn run(args: &LateDataArgs, common: &Common) -> Result<()> {
    ensure!(args.target_mib > 0 && args.every > 0, "a target and some appends between reads");
    let mut document = Document::new("late-data", "Rows that come late", ABOUT, common);
    document.parameter("target", format!("{} MiB", args.target_mib));
    document.parameter("rows per append", args.batch_rows);
    let tidelog = open(args, common).await?;
    let mut late = Late::new(common.seed);
    let (mut during, mut windows) = (Vec::new(), Vec::new());
    let started = Instant::now();
    for number in 1_usize.. {
        tidelog.append(SERIES, &late.batch(args.batch_rows)?, sensors::TIME_COLUMN).await?;
        if number.is_multiple_of(args.every) {
            let window = late.window(args.read)?;
            during.push(read(&tidelog, window).await?);
            windows.push(window);
            let target = args.target_mib << 20;
            if tidelog.statistics().await?.bytes >= args.times * target {
                break;
            }
        }
    }
    tidelog.flush().await?;
    let seconds = started.elapsed().as_secs_f64();
    tidelog.settled().await?;
    document.parameter("rows", late.rows);
    document.fact("rows appended meanwhile", TIDELOG, "rows/s", late.rows as f64 / seconds);
    let found = tidelog.statistics().await?;
    document.fact("files at the end", TIDELOG, "files", found.files as f64);
    document.fact("bytes at the end", TIDELOG, "MB", found.bytes as f64 / 1e6);
    let written = found.bytes_written as f64 / found.bytes as f64;
    let what = "bytes written by flush and compaction ÷ bytes of the final files";
    document.figure(what, "×", written, Some(WRITTEN_AT_MOST));
    report_reads(&tidelog, &mut document, args, &windows, &during).await?;
    let counted = tidelog.count(SERIES).await?;
    document.check("rows", counted == late.rows, format!("{counted} of {}", late.rows));
    tidelog.close().await?;
    document.finish(common)
}

async fn open(args: &LateDataArgs, common: &Common) -> Result<Tidelog> {
    let scaled = |whole: u64| (whole * args.target_mib / DEFAULT_TARGET_MIB).max(1);
    let folder = common.fresh("late-data")?;
    Tidelog::open_alone_with(&folder, |builder| {
        builder
            .with_compaction_target(args.target_mib << 20)
            .with_hot_max(scaled(DEFAULT_HOT_ROWS), scaled(DEFAULT_HOT_MIB) << 20)
    })
    .await
}

async fn report_reads(
    tidelog: &Tidelog,
    document: &mut Document,
    args: &LateDataArgs,
    windows: &[(i64, i64)],
    during: &[Sample],
) -> Result<()> {
    let mut after = Vec::new();
    for window in windows {
        after.push(read(tidelog, *window).await?);
    }
    // Ranges of the first rows, among which there is hardly any to read, would flatter.
    let times = |samples: &[Sample]| -> Vec<f64> {
        samples.iter().skip(samples.len() / 10).map(|sample| sample.ms).collect()
    };
    let (during, after) = (times(during), times(&after));
    document.parameter("reads", after.len());
    let what = format!("a range of {} seconds", args.read);
    document.measure(&format!("{what}, during ingest"), TIDELOG, "ms", &during);
    document.measure(&format!("{what}, afterwards"), TIDELOG, "ms", &after);
    let p50 = |times: &[f64]| Summary::of(times).map(|summary| summary.p50);
    let what = "p50 of a range during ingest ÷ p50 afterwards";
    document.ratio(what, p50(&during), p50(&after), Some(DURING_AT_MOST_OF_AFTER));
    Ok(())
}

async fn read(tidelog: &Tidelog, (start_us, end_us): (i64, i64)) -> Result<Sample> {
    let started = Instant::now();
    let batches = tidelog.range(SERIES, start_us, end_us).await?;
    let mut sample = Sample::timed(started);
    sample.answer = Some((staged::rows(&batches), staged::sum(&batches)));
    Ok(sample)
}

/// Rows that come late.
struct Late {
    rng: Rng,
    rows: usize,
}

impl Late {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), rows: 0 }
    }

    /// The second in which the row was measured that comes as the `now`th.
    fn measured(&mut self, now: usize) -> Result<usize> {
        const MINUTE: u32 = 60;
        const DAY: u32 = 86_400;
        let most = match self.rng.below(3) {
            0 => MINUTE,
            1 => DAY,
            _ => u32::try_from(now)?,
        };
        Ok(now.saturating_sub(usize::try_from(self.rng.below(most))?))
    }

    fn batch(&mut self, rows: usize) -> Result<RecordBatch> {
        let numbers = self.rows..self.rows + rows;
        self.rows = numbers.end;
        let times = numbers.map(|now| time_us(self.measured(now)?)).collect::<Result<Vec<_>>>()?;
        let mut reading = |mean: f64| {
            let rng = &mut self.rng;
            let values = (0..rows).map(|_| ((mean + 5.0 * rng.normal()) * 100.0).round() / 100.0);
            Float64Array::from_iter_values(values)
        };
        let (temperature, humidity) = (reading(20.0), reading(50.0));
        let sensor = (0..rows).map(|_| i64::from(self.rng.below(50)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(temperature),
            Arc::new(humidity),
            Arc::new(Int64Array::from_iter_values(sensor)),
        ];
        Ok(RecordBatch::try_new(sensors::schema(), columns)?)
    }

    /// So many seconds anywhere in the past, both ends included.
    fn window(&mut self, seconds: usize) -> Result<(i64, i64)> {
        let first =
            usize::try_from(self.rng.below(u32::try_from(self.rows.saturating_sub(seconds))?))?;
        Ok((time_us(first)?, time_us(first + seconds - 1)?))
    }
}
