//! A range of the same rows out of series of very many small versions, which the background merges meanwhile.

use std::time::Instant;

use anyhow::Result;
use async_trait::async_trait;
use clap::Args;
use serde_json::{Value, json};

use crate::generate::sensors::{self, time_us};
use crate::options::{Built, Common};
use crate::peer::{Peer, PeerKind};
use crate::results::Document;
use crate::rounds::{Contestant, Outcome, Sample, interleave, median_of};
use crate::staged::{self, Staged};
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
/// Versions asked of a peer at once: few enough that it does not hold them all.
const STRIDE: usize = 500;
const AT_MOST_OF_ARCTICDB: f64 = 1.0;
const AT_MOST_OF_DUCKDB: f64 = 1.0;
const MANY_AT_MOST_OF_FEW: f64 = 1.3;
const AS_OF_AT_MOST_OF_HEAD: f64 = 1.2;

#[derive(Args, Clone, Debug)]
pub(crate) struct CompactedArgs {
    /// Versions of the small series
    #[arg(long, default_value_t = 1_000)]
    pub(crate) few: usize,
    /// Versions of the middle series
    #[arg(long, default_value_t = 10_000)]
    pub(crate) versions: usize,
    /// Versions of the large series
    #[arg(long, default_value_t = 100_000)]
    pub(crate) many: usize,
    /// Rows of each version
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// Rows to read, from the middle of a series on
    #[arg(long, default_value_t = 5_000)]
    pub(crate) read: usize,
    /// Measured rounds
    #[arg(long, default_value_t = 51)]
    pub(crate) rounds: usize,
    /// Rounds before them
    #[arg(long, default_value_t = 5)]
    pub(crate) warmups: usize,
}

const ABOUT: &str = "Versions are appended one by one with default settings, each awaited: by a writer alone, behind its \
    write-ahead log, and by one that commits each version by itself. Files are merged in the background meanwhile; \
    nobody asks for it. The peers get the same versions, one by one. Then as many rows from the middle of each \
    series are read to the last one, warm, through handles that stay open; the writers rest. Of the first writer's \
    series the same rows are also read as of the version that three quarters of the way had.";

pub(crate) async fn run(args: &CompactedArgs, common: &Common) -> Result<()> {
    let file = common.work.join("compacted-data.arrow");
    let staged = Staged::sensors(common.seed, args.many.max(args.versions), args.rows, &file)?;
    let title = "A small range out of versions that were merged";
    let mut document = Document::new("compacted-range", title, ABOUT, common);
    document.parameter("versions", json!([args.few, args.versions, args.many]));
    document.parameter("rows per version", args.rows);
    document.parameter("rows read", args.read);
    document.parameter("rounds", args.rounds);
    let mut contestants = Vec::new();
    for versions in [args.few, args.versions, args.many] {
        add_owner(args, common, &staged, versions, &mut document, &mut contestants).await?;
    }
    add_alone(args, common, &staged, &mut document, &mut contestants).await?;
    add_peers(args, common, &staged, &mut document, &mut contestants)?;
    let outcomes = interleave(&mut contestants, args.warmups, args.rounds).await?;
    for outcome in &outcomes {
        let what = format!("reading {} rows", args.read);
        document.measure(&what, &outcome.name, "ms", &outcome.times_ms());
    }
    report_ratios(args, &mut document, &outcomes);
    check_answers(args, &staged, &mut document, &outcomes)?;
    document.finish(common)
}

fn owner_name(versions: usize) -> String {
    format!("tidelog, {versions} versions")
}

fn as_of_name(versions: usize) -> String {
    format!("tidelog, {versions} versions, as of an old one")
}

fn alone_name(versions: usize) -> String {
    format!("tidelog, {versions} versions, each committed by itself")
}

fn peer_name(kind: PeerKind, versions: usize) -> String {
    format!("{}, {versions} versions", kind.name())
}

async fn add_owner(
    args: &CompactedArgs,
    common: &Common,
    staged: &Staged,
    versions: usize,
    document: &mut Document,
    contestants: &mut Vec<Box<dyn Contestant>>,
) -> Result<()> {
    let parameters = json!({ "versions": versions, "rows": args.rows, "seed": common.seed });
    let (built, notes) = Built::find(common, &format!("compacted-{versions}"), parameters)?;
    let tidelog = Tidelog::open_alone(&built.folder).await?;
    if notes.is_none() {
        append_all(&tidelog, &staged.batches[..versions]).await?;
        tidelog.flush().await?;
        tidelog.settled().await?;
        built.complete(&Value::Null)?;
    }
    let files = tidelog.files(SERIES).await?;
    document.fact("files", &owner_name(versions), "files", files as f64);
    let window = Window::of(args, versions)?;
    let as_of = as_of_version(versions);
    let (name, tidelog2) = (owner_name(versions), tidelog.clone());
    contestants.push(Box::new(OwnRange { tidelog, name, window, as_of: None }));
    let name = as_of_name(versions);
    contestants.push(Box::new(OwnRange { tidelog: tidelog2, name, window, as_of: Some(as_of) }));
    Ok(())
}

/// A version after all those that are read, and far from the newest.
fn as_of_version(versions: usize) -> u64 {
    (versions * 3 / 4) as u64
}

async fn add_alone(
    args: &CompactedArgs,
    common: &Common,
    staged: &Staged,
    document: &mut Document,
    contestants: &mut Vec<Box<dyn Contestant>>,
) -> Result<()> {
    let versions = args.versions;
    let parameters = json!({ "versions": versions, "rows": args.rows, "seed": common.seed });
    let (built, notes) = Built::find(common, "compacted-shared", parameters)?;
    let tidelog = Tidelog::open_or_create(&built.folder).await?;
    if notes.is_none() {
        append_all(&tidelog, &staged.batches[..versions]).await?;
        tidelog.settled().await?;
        built.complete(&Value::Null)?;
    }
    let (name, window) = (alone_name(versions), Window::of(args, versions)?);
    document.fact("files", &name, "files", tidelog.files(SERIES).await? as f64);
    contestants.push(Box::new(OwnRange { tidelog, name, window, as_of: None }));
    Ok(())
}

async fn append_all(tidelog: &Tidelog, batches: &[arrow::record_batch::RecordBatch]) -> Result<()> {
    for batch in batches {
        tidelog.append(SERIES, batch, sensors::TIME_COLUMN).await?;
    }
    Ok(())
}

fn add_peers(
    args: &CompactedArgs,
    common: &Common,
    staged: &Staged,
    document: &mut Document,
    contestants: &mut Vec<Box<dyn Contestant>>,
) -> Result<()> {
    let wanted = [
        (PeerKind::ArcticDb, args.versions),
        (PeerKind::DuckDb, args.versions),
        (PeerKind::DuckDb, args.many),
    ];
    for (kind, versions) in wanted {
        let Some(mut peer) = common.peer(kind)? else { continue };
        document.versions.insert(kind.name().to_owned(), peer.version()?);
        let parameters = json!({ "versions": versions, "rows": args.rows, "seed": common.seed });
        let folder = format!("compacted-{}-{versions}", kind.name());
        let (built, notes) = Built::find(common, &folder, parameters)?;
        peer.open(&built.folder)?;
        if notes.is_none() {
            build_peer(&mut peer, staged, versions, &built)?;
        }
        let (name, window) = (peer_name(kind, versions), Window::of(args, versions)?);
        contestants.push(Box::new(PeerRange { peer, name, window }));
    }
    Ok(())
}

fn build_peer(peer: &mut Peer, staged: &Staged, versions: usize, built: &Built) -> Result<()> {
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
    fn of(args: &CompactedArgs, versions: usize) -> Result<Self> {
        let rows = args.rows_read(versions);
        Ok(Self { start_us: time_us(rows.start)?, end_us: time_us(rows.end - 1)? })
    }
}

impl CompactedArgs {
    /// The rows to read of a series of so many versions: from its middle on, and no more than a quarter
    /// of it, so that an old version has them too.
    fn rows_read(&self, versions: usize) -> std::ops::Range<usize> {
        let first = versions * self.rows / 2;
        first..first + self.read.min(versions * self.rows / 4).max(1)
    }
}

struct OwnRange {
    tidelog: Tidelog,
    name: String,
    window: Window,
    as_of: Option<u64>,
}

#[async_trait(?Send)]
impl Contestant for OwnRange {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn once(&mut self) -> Result<Sample> {
        let Window { start_us, end_us } = self.window;
        let started = Instant::now();
        let batches = match self.as_of {
            None => self.tidelog.range(SERIES, start_us, end_us).await?,
            Some(version) => self.tidelog.range_as_of(SERIES, start_us, end_us, version).await?,
        };
        let mut sample = Sample::timed(started);
        sample.answer = Some((staged::rows(&batches), staged::sum(&batches)));
        Ok(sample)
    }
}

struct PeerRange {
    peer: Peer,
    name: String,
    window: Window,
}

#[async_trait(?Send)]
impl Contestant for PeerRange {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn once(&mut self) -> Result<Sample> {
        let Window { start_us, end_us } = self.window;
        self.peer.range(start_us, end_us, sensors::SUM_COLUMN)
    }
}

fn report_ratios(args: &CompactedArgs, document: &mut Document, outcomes: &[Outcome]) {
    let median = |name: &str| median_of(outcomes, name);
    let own = |versions| median(&owner_name(versions));
    let arctic = median(&peer_name(PeerKind::ArcticDb, args.versions));
    let mut against = |what: String, own: Option<f64>, other: Option<f64>, bound: f64| {
        document.ratio(&what, own, other, Some(bound));
    };
    for name in [owner_name(args.versions), alone_name(args.versions)] {
        against(format!("{name} ÷ ArcticDB"), median(&name), arctic, AT_MOST_OF_ARCTICDB);
        let duckdb = median(&peer_name(PeerKind::DuckDb, args.versions));
        against(format!("{name} ÷ DuckDB"), median(&name), duckdb, AT_MOST_OF_DUCKDB);
    }
    let duckdb = median(&peer_name(PeerKind::DuckDb, args.many));
    let name = owner_name(args.many);
    against(format!("{name} ÷ DuckDB"), own(args.many), duckdb, AT_MOST_OF_DUCKDB);
    let what = format!("{name} ÷ {} versions", args.few);
    against(what, own(args.many), own(args.few), MANY_AT_MOST_OF_FEW);
    for versions in [args.versions, args.many] {
        let what = format!("{} ÷ head", as_of_name(versions));
        against(what, median(&as_of_name(versions)), own(versions), AS_OF_AT_MOST_OF_HEAD);
    }
}

/// Every answer of every round must have the rows and the sum that the generated data have.
fn check_answers(
    args: &CompactedArgs,
    staged: &Staged,
    document: &mut Document,
    outcomes: &[Outcome],
) -> Result<()> {
    for versions in [args.few, args.versions, args.many] {
        let expected = expected_answer(args, staged, versions);
        let named = format!(", {versions} versions");
        for outcome in outcomes.iter().filter(|outcome| outcome.name.contains(&named)) {
            let wrong = outcome.samples.iter().find(|sample| sample.answer != Some(expected));
            let detail = match wrong {
                None => format!("{} rows", expected.0),
                Some(sample) => format!("{:?} instead of {expected:?}", sample.answer),
            };
            let what = format!("rows and sum of {}", outcome.name);
            document.check(&what, wrong.is_none(), detail);
        }
    }
    Ok(())
}

fn expected_answer(args: &CompactedArgs, staged: &Staged, versions: usize) -> (usize, f64) {
    let rows = args.rows_read(versions);
    let mut sum = 0.0;
    for version in rows.start / args.rows..=(rows.end - 1) / args.rows {
        let start = version * args.rows;
        let from = rows.start.max(start) - start;
        let to = rows.end.min(start + args.rows) - start;
        sum += staged::sum(&[staged.batches[version].slice(from, to - from)]);
    }
    (rows.len(), sum)
}
