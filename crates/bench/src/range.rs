//! A small range of event time out of a series of very many small versions.

use std::time::Instant;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use clap::Args;
use serde_json::{Value, json};

use crate::generate::sensors::{self, time_us};
use crate::options::{Built, Common};
use crate::peer::{Peer, PeerKind};
use crate::results::Document;
use crate::rounds::{Contestant, Outcome, Sample, interleave, median_of};
use crate::staged::{self, Staged};
use crate::tidelog_side::{Tidelog, version_of};

const SERIES: &str = "/s.series";
const SINGLE: &str = "tidelog, single appends";
const GROUPED: &str = "tidelog, grouped appends";
/// A read over versions that each have a file may cost this many times ArcticDB's.
const SINGLE_AT_MOST_OF_ARCTICDB: f64 = 4.0;
/// A read over versions that were appended in groups may cost this many times ArcticDB's.
const GROUPED_AT_MOST_OF_ARCTICDB: f64 = 1.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct RangeArgs {
    /// Versions of the series
    #[arg(long, default_value_t = 10_000)]
    pub(crate) versions: usize,
    /// Rows of each version
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// Versions of one call of append_many
    #[arg(long, default_value_t = 1_000)]
    pub(crate) group: usize,
    /// Versions of delta-rs, which appends too slowly for all of them
    #[arg(long, default_value_t = 2_000)]
    pub(crate) delta_versions: usize,
    /// How many of a thousand rows are read, from the middle of the series on
    #[arg(long, default_value_t = 5)]
    pub(crate) per_mille: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 9)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 2)]
    pub(crate) warmups: usize,
}

const ABOUT: &str = "The same versions are appended one by one to one Tidelog series (each version a file) and in \
    groups to another, and to the peers. Then a small range of event time from the middle is read \
    to its last row, warm, through handles that stay open. All stores are local; they are built once and only \
    reading is timed. The range is the same part of each series, so delta-rs, with fewer versions, reads fewer rows.";

pub(crate) async fn run(args: &RangeArgs, common: &Common) -> Result<()> {
    let staged_file = common.work.join("range-data.arrow");
    let staged = Staged::sensors(common.seed, args.versions, args.rows, &staged_file)?;
    let mut document = Document::new("range", "A small range out of many versions", ABOUT, common);
    note_parameters(&mut document, args);
    let mut contestants = open_contestants(args, common, &staged, &mut document).await?;
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    let what = format!("reading {} % of the rows", args.per_mille as f64 / 10.0);
    for outcome in &outcomes {
        document.measure(&what, &outcome.name, "ms", &outcome.times_ms());
    }
    report_ratios(&mut document, &outcomes);
    check_answers(&mut document, args, &staged, &outcomes)?;
    document.finish(common)
}

fn note_parameters(document: &mut Document, args: &RangeArgs) {
    document.parameter("versions", args.versions);
    document.parameter("rows per version", args.rows);
    document.parameter("versions per group", args.group);
    document.parameter("versions of delta-rs", args.delta_versions.min(args.versions));
    document.parameter("rows read", args.rows_read(args.versions));
    document.parameter("rounds", args.rounds);
}

impl RangeArgs {
    /// The rows to read of a series of so many versions.
    fn rows_read(&self, versions: usize) -> usize {
        (versions * self.rows * self.per_mille / 1_000).max(1)
    }

    /// The first and the last row to read of a series of so many versions.
    fn bounds(&self, versions: usize) -> (usize, usize) {
        let first = versions * self.rows / 2;
        (first, first + self.rows_read(versions) - 1)
    }

    fn versions_of(&self, kind: PeerKind) -> usize {
        if kind == PeerKind::DeltaRs {
            self.delta_versions.min(self.versions)
        } else {
            self.versions
        }
    }
}

async fn open_contestants(
    args: &RangeArgs,
    common: &Common,
    staged: &Staged,
    document: &mut Document,
) -> Result<Vec<Box<dyn Contestant>>> {
    let window = Window::of(args, args.versions)?;
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for (name, group) in [(SINGLE, 1), (GROUPED, args.group)] {
        let tidelog = build_tidelog(args, common, staged, group).await?;
        contestants.push(Box::new(TidelogRange { tidelog, name, window }));
    }
    for kind in [PeerKind::ArcticDb, PeerKind::DeltaRs, PeerKind::DuckDb] {
        let Some(mut peer) = common.peer(kind)? else { continue };
        document.versions.insert(kind.name().to_owned(), peer.version()?);
        let versions = args.versions_of(kind);
        build_peer(&mut peer, common, staged, versions, args.rows)?;
        contestants.push(Box::new(PeerRange { peer, window: Window::of(args, versions)? }));
    }
    Ok(contestants)
}

async fn build_tidelog(
    args: &RangeArgs,
    common: &Common,
    staged: &Staged,
    group: usize,
) -> Result<Tidelog> {
    let parameters = json!({
        "versions": args.versions, "rows": args.rows, "group": group, "seed": common.seed,
    });
    let (built, notes) = Built::find(common, &format!("range-tidelog-{group}"), parameters)?;
    if notes.is_some() {
        return Tidelog::open(&built.folder).await;
    }
    let tidelog = Tidelog::open_or_create(&built.folder).await?;
    for batches in staged.batches.chunks(group.max(1)) {
        if let [batch] = batches {
            tidelog.append(SERIES, batch, sensors::TIME_COLUMN).await?;
        } else {
            let version = |batch| version_of(SERIES, batch, sensors::TIME_COLUMN);
            tidelog.append_many(batches.iter().map(version).collect()).await?;
        }
    }
    built.complete(&Value::Null)?;
    Ok(tidelog)
}

fn build_peer(
    peer: &mut Peer,
    common: &Common,
    staged: &Staged,
    versions: usize,
    rows: usize,
) -> Result<()> {
    /// Versions asked for at once: few enough that the peer does not hold them all.
    const STRIDE: usize = 500;
    let parameters = json!({ "versions": versions, "rows": rows, "seed": common.seed });
    let (built, notes) = Built::find(common, &format!("range-{}", peer.name()), parameters)?;
    peer.open(&built.folder)?;
    if notes.is_some() {
        return Ok(());
    }
    peer.stage(&staged.file)?;
    for first in (0..versions).step_by(STRIDE) {
        peer.append(first, STRIDE.min(versions - first))?;
    }
    // Read what lies on disk, not what the building process still holds.
    peer.close()?;
    peer.open(&built.folder)?;
    built.complete(&Value::Null)
}

/// The range to read: both bounds included.
#[derive(Clone, Copy, Debug)]
struct Window {
    start_us: i64,
    end_us: i64,
}

impl Window {
    fn of(args: &RangeArgs, versions: usize) -> Result<Self> {
        let (first, last) = args.bounds(versions);
        Ok(Self { start_us: time_us(first)?, end_us: time_us(last)? })
    }
}

struct TidelogRange {
    tidelog: Tidelog,
    name: &'static str,
    window: Window,
}

#[async_trait(?Send)]
impl Contestant for TidelogRange {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let Window { start_us, end_us } = self.window;
        let started = Instant::now();
        let batches = self.tidelog.range(SERIES, start_us, end_us).await?;
        let mut sample = Sample::timed(started);
        sample.answer = Some((staged::rows(&batches), staged::sum(&batches)));
        Ok(sample)
    }
}

struct PeerRange {
    peer: Peer,
    window: Window,
}

#[async_trait(?Send)]
impl Contestant for PeerRange {
    fn name(&self) -> String {
        self.peer.name().to_owned()
    }

    async fn once(&mut self) -> Result<Sample> {
        let Window { start_us, end_us } = self.window;
        self.peer.range(start_us, end_us, sensors::SUM_COLUMN)
    }
}

fn report_ratios(document: &mut Document, outcomes: &[Outcome]) {
    let arctic = median_of(outcomes, PeerKind::ArcticDb.name());
    for (name, bound) in
        [(SINGLE, SINGLE_AT_MOST_OF_ARCTICDB), (GROUPED, GROUPED_AT_MOST_OF_ARCTICDB)]
    {
        let what = format!("p50 of a range read, {name} ÷ ArcticDB");
        document.ratio(&what, median_of(outcomes, name), arctic, Some(bound));
    }
}

/// Every answer of every round must have the rows and the sum that the generated data have.
fn check_answers(
    document: &mut Document,
    args: &RangeArgs,
    staged: &Staged,
    outcomes: &[Outcome],
) -> Result<()> {
    for outcome in outcomes {
        let delta = outcome.name == PeerKind::DeltaRs.name();
        let kind = if delta { PeerKind::DeltaRs } else { PeerKind::ArcticDb };
        let expected = expected_answer(args, staged, args.versions_of(kind))?;
        let wrong = outcome.samples.iter().find(|sample| sample.answer != Some(expected));
        let detail = match wrong {
            None => format!("{} rows", expected.0),
            Some(sample) => format!("{:?} instead of {expected:?}", sample.answer),
        };
        let what = format!("rows and sum of {}", outcome.name);
        document.check(&what, wrong.is_none(), detail);
    }
    Ok(())
}

fn expected_answer(args: &RangeArgs, staged: &Staged, versions: usize) -> Result<(usize, f64)> {
    let (first, last) = args.bounds(versions);
    ensure!(last < versions * args.rows, "the range lies beyond the last row");
    let mut sum = 0.0;
    for version in first / args.rows..=last / args.rows {
        let start = version * args.rows;
        let (from, to) = (first.max(start) - start, last.min(start + args.rows - 1) - start);
        sum += staged::sum(&[staged.batches[version].slice(from, to - from + 1)]);
    }
    Ok((last - first + 1, sum))
}
