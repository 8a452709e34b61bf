//! One writer alone dies at each kind of change of its files, under a load of several tasks and series,
//! which delete, replace and restore rows, and now and then merge files, let history go and delete what
//! nobody needs any more.
//!
//! A plain run counts the changes by name. Then writers are killed at each name in turn, before and after
//! the change, at an occurrence that differs from kill to kill, and go on with what the last one left, so
//! that recovery is cut short as well. The parent keeps what was acknowledged, and judges what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidelog::{Store, VacuumOptions};
use tidelog_testkit::CrashPlan;
use tidelog_testkit::crash_fs::DYING;

use crate::kill::{ALONE, Ack, PLAN, Running, STEPS, TASKS, change_of, collect, judged, runtime};
use crate::reworked;
use crate::support::{Context, Fallible, same};

/// How many kills; 300 by default.
const KILLS: &str = "TIDELOG_CRASH_POINTS";
/// Kills of one store, each of which the next one has to recover from.
const KILLS_PER_STORE: u64 = 12;
/// Appends of one run.
const APPENDS: u64 = 40;
/// Stores that are killed side by side.
const LANES: u64 = 2;

/// Where syncs cost nothing, as no power is cut here.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir().then(|| tempfile::tempdir_in(memory)) {
        Some(Ok(directory)) => directory,
        _ => tempfile::tempdir().unwrap(),
    }
}

fn run(store: &Path, first: u64, plan: &str) -> Fallible<(Vec<String>, std::process::ExitStatus)> {
    let settings = [
        (ALONE, "1".to_owned()),
        (TASKS, "3".to_owned()),
        (STEPS, APPENDS.to_string()),
        (PLAN, plan.to_owned()),
    ];
    Running::start(store, first, &settings).lines_to_end()
}

/// How often each change is made in a run.
fn changes(directory: &Path) -> Fallible<BTreeMap<String, u64>> {
    let store = directory.join("counted");
    std::fs::create_dir_all(&store).at("making a directory")?;
    let (lines, status) = run(&store, 1, "")?;
    let passed = lines.iter().filter_map(|line| {
        let (count, name) = line.strip_prefix("passed ")?.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    if status.success() { Ok(passed.collect()) } else { Err(format!("{status}: {lines:?}")) }
}

/// One store that is killed again and again.
struct Victim {
    store: PathBuf,
    acks: BTreeSet<Ack>,
    tried: BTreeSet<i64>,
    /// The versions that changes of data became.
    changed: BTreeMap<i64, i64>,
}

impl Victim {
    fn new(store: PathBuf) -> Fallible<Self> {
        std::fs::create_dir_all(&store).at("making a directory")?;
        let (acks, tried, changed) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Ok(Self { store, acks, tried, changed })
    }

    /// Kills a writer as planned; whether it came so far.
    fn kill(&mut self, first: u64, plan: &CrashPlan) -> Fallible<bool> {
        let (lines, status) = run(&self.store, first, &plan.text())?;
        self.acks.extend(lines.iter().filter_map(|line| Ack::parse(line)));
        let tried = lines.iter().filter_map(|line| line.strip_prefix("try ")?.parse().ok());
        self.tried.extend(tried.collect::<Vec<i64>>());
        let changed = lines.iter().filter_map(|line| {
            let (version, number) = line.strip_prefix("changed ")?.split_once(' ')?;
            Some((version.parse().ok()?, number.parse().ok()?))
        });
        self.changed.extend(changed.collect::<Vec<(i64, i64)>>());
        let died = lines.iter().any(|line| line.strip_prefix(DYING) == Some(&plan.text()));
        match died || status.success() {
            true => Ok(died),
            false => Err(format!("it failed by itself: {status}, {:?}", lines.last())),
        }
    }

    /// All that was acknowledged is there once, and nothing that was not asked for.
    async fn judge(&self) -> Fallible<()> {
        let log = self.store.join("_oplog/_delta_log/00000000000000000000.json");
        if self.acks.is_empty() && !log.exists() {
            return Ok(());
        }
        let found = judged(&self.store, &self.acks).await?;
        // One call in seven appends three versions, under numbers of their own.
        let asked = |number: i64| match number % 1_000_000 {
            600_000.. => number - 600_000,
            500_000.. => number - 500_000,
            _ => number,
        };
        if let Some(ghost) = found.iter().find(|ack| !self.tried.contains(&asked(ack.number))) {
            return Err(format!("{ghost:?} is there and was never asked for"));
        }
        let tried: BTreeSet<i64> = self.tried.iter().map(|number| change_of(*number)).collect();
        let store = Store::open(self.store.to_str().unwrap()).await.at("opening")?;
        reworked::judge(&store, &self.changed, |number| tried.contains(&number)).await
    }

    /// What is left once the last one has died is whole, and is written as before.
    async fn finish(&self) -> Fallible<()> {
        let location = self.store.to_str().unwrap();
        // A merge in the background would leave files of no use behind the vacuum.
        let builder = Store::builder(location).with_compaction(false);
        // All of its writers may have died before there was a store; then nothing was acknowledged.
        let store = match self.acks.is_empty() {
            true => builder.open_or_create().await.at("opening or making")?,
            false => builder.open().await.at("opening")?,
        };
        store.create_directory("/done").await.at("writing after the kills")?;
        let at_once = VacuumOptions::default().with_older_than(Duration::ZERO);
        store.vacuum(&at_once.clone().with_apply(true)).await.at("vacuuming")?;
        let left = store.vacuum(&at_once).await.at("vacuuming again")?.total().files;
        same("files of no use after a vacuum", &0, &left)?;
        same("staged names after a vacuum", &Vec::new(), &staged_names(&self.store))?;
        let report = Store::builder(location).fsck(true).await.at("checking")?;
        if report.is_intact() { Ok(()) } else { Err(format!("{:?}", report.damage)) }
    }
}

/// The names under which puts that never ended have left bytes.
fn staged_names(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["series", "_oplog"] {
        collect(&store.join(directory), &mut found);
    }
    found.retain(|path| path.to_string_lossy().contains('#'));
    found
}

/// Where writers died.
#[derive(Debug, Default)]
struct Histogram {
    at: BTreeMap<(String, bool), u64>,
    kills: u64,
    acks: usize,
}

fn lane(directory: &Path, lane: u64, kills: u64) -> Fallible<Histogram> {
    let runtime = runtime();
    let mut histogram = Histogram::default();
    let mut changes = changes(&directory.join(format!("lane-{lane}")))?;
    // Only after a kill there is something to sweep.
    for kind in ["data file sweep", "log part sweep", "commit sweep"] {
        changes.entry(kind.to_owned()).or_insert(1);
    }
    let names: Vec<(&String, &u64)> = changes.iter().collect();
    let mut round = lane * 7;
    for place in 0.. {
        if histogram.kills >= kills {
            break;
        }
        let mut victim = Victim::new(directory.join(format!("store-{lane}-{place}")))?;
        for _ in 0..KILLS_PER_STORE.min(kills - histogram.kills) {
            round += 1;
            let at = usize::try_from(round).unwrap();
            let (name, count) = names[at % names.len()];
            // Each name is met early and late; of what is rare, the first is met.
            let nth = 1 + (round * 2_654_435_761 / 97) % (*count).max(1);
            let plan = CrashPlan { name: name.clone(), nth, after: (at / names.len()) % 2 == 1 };
            let what = format!("lane {lane}, store {place}, round {round}, {}", plan.text());
            let fail = |error: String| format!("{what}: {error}");
            let died = victim.kill(round * 1_000_000, &plan).map_err(fail)?;
            runtime.block_on(victim.judge()).map_err(fail)?;
            if died {
                *histogram.at.entry((name.clone(), plan.after)).or_default() += 1;
                histogram.kills += 1;
            }
        }
        runtime.block_on(victim.finish()).map_err(|error| format!("store {place}: {error}"))?;
        histogram.acks += victim.acks.len();
        std::fs::remove_dir_all(&victim.store).at("tidying")?;
    }
    Ok(histogram)
}

#[test]
fn a_writer_that_dies_at_any_change_under_load_loses_and_doubles_nothing() {
    let kills: u64 = std::env::var(KILLS).ok().map_or(300, |text| text.parse().unwrap());
    let directory = scratch();
    let lanes: Vec<_> = (0..LANES)
        .map(|number| {
            let directory = directory.path().to_owned();
            std::thread::spawn(move || lane(&directory, number, kills.div_ceil(LANES)))
        })
        .collect();
    let mut all = Histogram::default();
    for lane in lanes {
        let histogram = lane.join().unwrap().unwrap();
        all.kills += histogram.kills;
        all.acks += histogram.acks;
        for (place, count) in histogram.at {
            *all.at.entry(place).or_default() += count;
        }
    }
    println!("{} kills, {} appends acknowledged", all.kills, all.acks);
    for ((name, after), count) in &all.at {
        println!("{count:6} {} {name}", if *after { "after " } else { "before" });
    }
    assert!(all.kills >= kills && all.acks > 0);
    let places = [
        "segment append",
        "segment sync",
        "segment create",
        "segment unlink",
        "commit link",
        "data file rename",
        "data file unlink",
        "data file sweep",
    ];
    for name in places {
        let reached = all.at.keys().any(|(at, _)| at == name);
        assert!(reached || kills < 100, "nobody died at {name}");
    }
}
