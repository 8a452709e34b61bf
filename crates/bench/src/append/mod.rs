//! One awaited durable append at a time: what it costs early and late in a series' life, beside the cost of
//! the bare file operations and beside the peers.

mod baseline;
mod lane;
mod syncs;

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

use self::baseline::FileSizes;
use self::lane::{Lane, TidelogLane};
use crate::generate::sensors::{self, Sensors};
use crate::options::Common;
use crate::peer::{Peer, PeerKind, script};
use crate::results::Document;
use crate::rounds::rotation;
use crate::staged::Staged;
use crate::stats::Summary;
use crate::tidelog_side::Tidelog;

const SERIES: &str = "/s.series";
const TIDELOG: &str = "tidelog";
const THREE_FILES: &str = "three synced files";

/// An append may cost this many times the bare writing and syncing of its files.
const AT_MOST_OF_THREE_FILES: f64 = 2.5;
/// An append late in a series' life may cost this many times an early one.
const LATE_AT_MOST_OF_EARLY: f64 = 1.2;

#[derive(Args, Clone, Debug)]
pub(crate) struct AppendArgs {
    /// Appends, each one version
    #[arg(long, default_value_t = 10_000)]
    pub(crate) versions: usize,
    /// Rows of each append
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
    /// Versions before the early window
    #[arg(long, default_value_t = 100)]
    pub(crate) skip: usize,
    /// Versions of the early and of the late window
    #[arg(long, default_value_t = 100)]
    pub(crate) window: usize,
    /// Appends of delta-rs, which slows down too much for all of them
    #[arg(long, default_value_t = 2_000)]
    pub(crate) delta_versions: usize,
    /// Appends that one contestant does before the next has its turn
    #[arg(long, default_value_t = 10)]
    pub(crate) block: usize,
    /// Appends whose synchronous writes are counted
    #[arg(long, default_value_t = 50)]
    pub(crate) sync_appends: usize,
}

/// The windows whose appends are reported, as positions in the order of appends.
#[derive(Clone, Debug)]
struct Windows {
    early: Range<usize>,
    late: Range<usize>,
}

impl Windows {
    fn of(args: &AppendArgs, versions: usize) -> Self {
        let late = versions.saturating_sub(args.window)..versions;
        Self { early: args.skip..args.skip + args.window, late }
    }

    fn contains(&self, version: usize) -> bool {
        self.early.contains(&version) || self.late.contains(&version)
    }
}

pub(crate) async fn run(args: &AppendArgs, common: &Common) -> Result<()> {
    ensure!(
        args.skip + args.window <= args.versions,
        "the early window lies beyond the last version"
    );
    let folder = common.fresh("append")?;
    let staged =
        Staged::sensors(common.seed, args.versions, args.rows, &folder.join("data.arrow"))?;
    let mut document = Document::new("append", "Single durable appends", ABOUT, common);
    note_parameters(&mut document, args);
    let mut lanes = open_lanes(args, common, &folder, &staged, &mut document).await?;
    append_all(&mut lanes, &staged, args.block).await?;
    report_appends(&mut document, args, &lanes);
    report_ratios(&mut document, args, &lanes);
    check_rows(&mut document, args, &folder).await?;
    drop(lanes);
    report_syncs(&mut document, args, common, &folder, &staged.file)?;
    document.finish(common)
}

const ABOUT: &str = "Versions of four columns, event time increasing, are appended one after the other to a new \
    store on the local disk, each awaited until it is durable. Contestants take turns in small blocks. In the \
    windows that are reported, each Tidelog append is followed by writing and syncing three new files of the \
    sizes that Tidelog has just written (data, log rows, commit), each with its folder. Peers append the same \
    rows; converting them is not timed. Synchronous writes are counted in separate runs under strace: \
    calls of fsync and its relatives, and writes through descriptors opened for synchronous writing.";

fn note_parameters(document: &mut Document, args: &AppendArgs) {
    document.parameter("versions", args.versions);
    document.parameter("rows per version", args.rows);
    document.parameter("versions of delta-rs", args.delta_versions.min(args.versions));
    document.parameter("appends per turn", args.block);
    document.parameter("appends traced for synchronous writes", args.sync_appends);
}

async fn open_lanes(
    args: &AppendArgs,
    common: &Common,
    folder: &Path,
    staged: &Staged,
    document: &mut Document,
) -> Result<Vec<Lane>> {
    let windows = Windows::of(args, args.versions);
    let tidelog = TidelogLane::open(folder, windows).await?;
    let mut lanes = vec![Lane::tidelog(tidelog, args.versions)];
    let limits = [
        (PeerKind::ArcticDb, args.versions),
        (PeerKind::DeltaRs, args.delta_versions.min(args.versions)),
        (PeerKind::DuckDb, args.versions),
    ];
    for (kind, versions) in limits {
        let Some(mut peer) = common.peer(kind)? else { continue };
        document.versions.insert(kind.name().to_owned(), peer.version()?);
        open_peer(&mut peer, folder, staged)?;
        lanes.push(Lane::peer(peer, versions));
    }
    Ok(lanes)
}

fn open_peer(peer: &mut Peer, folder: &Path, staged: &Staged) -> Result<()> {
    peer.open(&folder.join(peer.name()))?;
    peer.stage(&staged.file)
}

async fn append_all(lanes: &mut [Lane], staged: &Staged, block: usize) -> Result<()> {
    for (round, first) in (0..staged.batches.len()).step_by(block.max(1)).enumerate() {
        for turn in rotation(lanes.len(), round) {
            lanes[turn].append(&staged.batches, first, block.max(1)).await?;
        }
    }
    Ok(())
}

fn early_name(args: &AppendArgs) -> String {
    let (first, last) = (args.skip + 1, args.skip + args.window);
    format!("append of {} rows, versions {first} to {last}", args.rows)
}

fn late_name(args: &AppendArgs) -> String {
    format!("append of {} rows, the last {} versions", args.rows, args.window)
}

fn report_appends(document: &mut Document, args: &AppendArgs, lanes: &[Lane]) {
    for lane in lanes {
        let windows = Windows::of(args, lane.versions);
        document.measure(&early_name(args), lane.name(), "ms", lane.times(&windows.early));
        document.measure(&late_name(args), lane.name(), "ms", lane.times(&windows.late));
        let Some(tidelog) = lane.as_tidelog() else { continue };
        document.measure(&early_name(args), THREE_FILES, "ms", &tidelog.bare_early_ms);
        document.measure(&late_name(args), THREE_FILES, "ms", &tidelog.bare_late_ms);
        report_sizes(document, tidelog.sizes);
    }
}

fn report_sizes(document: &mut Document, sizes: Option<FileSizes>) {
    let Some(sizes) = sizes else { return };
    for (what, bytes) in [
        ("data file of one append", sizes.data),
        ("log file of one append", sizes.log),
        ("commit of one append", sizes.commit),
    ] {
        document.fact(what, TIDELOG, "bytes", bytes as f64);
    }
}

fn report_ratios(document: &mut Document, args: &AppendArgs, lanes: &[Lane]) {
    let Some((lane, tidelog)) = lanes.iter().find_map(|lane| Some((lane, lane.as_tidelog()?)))
    else {
        return;
    };
    let windows = Windows::of(args, lane.versions);
    let median = |times: &[f64]| Summary::of(times).map(|summary| summary.p50);
    let (early, late) = (median(lane.times(&windows.early)), median(lane.times(&windows.late)));
    let (bare_early, bare_late) = (median(&tidelog.bare_early_ms), median(&tidelog.bare_late_ms));
    let of_bare =
        |when: &str| format!("p50 of {when} append ÷ p50 of writing and syncing three files");
    let most = Some(AT_MOST_OF_THREE_FILES);
    document.ratio(&of_bare("an early"), early, bare_early, most);
    document.ratio(&of_bare("a late"), late, bare_late, most);
    let late_over_early = "p50 of a late append ÷ p50 of an early append";
    document.ratio(late_over_early, late, early, Some(LATE_AT_MOST_OF_EARLY));
    document.ratio(
        "the same of the three files: the disk's own drift",
        bare_late,
        bare_early,
        None,
    );
}

async fn check_rows(document: &mut Document, args: &AppendArgs, folder: &Path) -> Result<()> {
    let found = Tidelog::open(&folder.join(TIDELOG)).await?.count(SERIES).await?;
    let expected = args.versions * args.rows;
    let detail = format!("{found} of {expected}");
    document.check("rows after reopening Tidelog's store", found == expected, detail);
    Ok(())
}

fn report_syncs(
    document: &mut Document,
    args: &AppendArgs,
    common: &Common,
    folder: &Path,
    data: &Path,
) -> Result<()> {
    let program = std::env::current_exe()?;
    count_syncs(document, args, folder, TIDELOG, |store, count| {
        tidelog_command(&program, store, count, args.rows)
    })?;
    let Some(python) = common.python() else { return Ok(()) };
    for kind in [PeerKind::ArcticDb, PeerKind::DeltaRs, PeerKind::DuckDb] {
        count_syncs(document, args, folder, kind.name(), |store, count| {
            peer_command(python, kind, store, data, count)
        })?;
    }
    Ok(())
}

fn count_syncs(
    document: &mut Document,
    args: &AppendArgs,
    folder: &Path,
    name: &str,
    command: impl Fn(&Path, usize) -> Vec<OsString>,
) -> Result<()> {
    let appends = args.sync_appends.min(args.versions.saturating_sub(syncs::FEW));
    let store = |count: usize| folder.join(format!("syncs-{name}-{count}"));
    let trace = folder.join("trace.txt");
    let counted = syncs::per_append(appends, &trace, |count| command(&store(count), count))?;
    if let Some((calls, writes)) = counted {
        document.fact("sync calls per append", name, "calls", calls);
        document.fact("synchronous writes per append", name, "calls", writes);
    }
    Ok(())
}

fn tidelog_command(program: &Path, store: &Path, count: usize, rows: usize) -> Vec<OsString> {
    let numbers = [("--count", count), ("--rows", rows)];
    let numbers = numbers.map(|(flag, number)| [OsString::from(flag), number.to_string().into()]);
    let store = [OsString::from("--store"), store.into()];
    [program.into(), OsString::from("append-one")]
        .into_iter()
        .chain(store)
        .chain(numbers.into_iter().flatten())
        .collect()
}

fn peer_command(
    python: &Path,
    kind: PeerKind,
    store: &Path,
    data: &Path,
    count: usize,
) -> Vec<OsString> {
    vec![
        python.into(),
        "-B".into(),
        script().into(),
        kind.name().into(),
        "--append-one".into(),
        "--store".into(),
        store.into(),
        "--data".into(),
        data.into(),
        "--count".into(),
        count.to_string().into(),
    ]
}

/// A few awaited appends and nothing else: the program to trace.
#[derive(Args, Clone, Debug)]
pub(crate) struct AppendOneArgs {
    /// The store, made if it is not there
    #[arg(long)]
    pub(crate) store: PathBuf,
    /// Appends, each one version
    #[arg(long, default_value_t = 1)]
    pub(crate) count: usize,
    /// Rows of each append
    #[arg(long, default_value_t = 100)]
    pub(crate) rows: usize,
}

pub(crate) async fn run_one(args: &AppendOneArgs, seed: u64) -> Result<()> {
    let tidelog = Tidelog::open_or_create(&args.store).await?;
    let mut sensors = Sensors::new(seed);
    for _ in 0..args.count {
        tidelog.append(SERIES, &sensors.batch(args.rows)?, sensors::TIME_COLUMN).await?;
    }
    Ok(())
}
