//! Writers, compaction, expiry, vacuum, merges of the log and readers at once, in processes and in handles of
//! one process, each of which is held up for a while at any of its requests.
//!
//! The writers append to one series, late data included, and delete, replace and restore its rows. Readers
//! read it at head and as of versions, some of them slowly, and play the versions of the log again to know
//! what they must see. Whoever tidies lets go of all history but a little and vacuums at once whatever
//! nobody needs. What a reader is reading must stay: none ever hears that something is gone.
//!
//! `TIDELOG_RACES_SEED` chooses where they are held up, and `TIDELOG_RACES_STEPS` for how long they go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidelog::arrow::array::RecordBatch;
use tidelog::{
    AsOf, ErrorKind, ExpireRule, Mode, ReadOptions, SeriesExt, Store, StoreBuilder, VacuumOptions,
    Version,
};
use tidelog_testkit::FaultStore;
use tokio::process::Command;

use crate::kill::collect;
use crate::reworked::{self, Played, REWORKED, rework};
use crate::support::{Context, Fallible, runtime, same};

const STORE: &str = "TIDELOG_RACES_STORE";
const ROLE: &str = "TIDELOG_RACES_ROLE";
const SEED: &str = "TIDELOG_RACES_SEED";
const STEPS: &str = "TIDELOG_RACES_STEPS";
/// When it is there, readers and those who tidy end.
const ENDED: &str = "ended";

/// How often a request is held up, and for how long at most.
const STALLS: (f64, Duration) = (0.05, Duration::from_millis(60));
/// Far more than any of them takes; what hangs must not hang the tests.
const PATIENCE: Duration = Duration::from_secs(300);
/// Numbers of changes of each writer.
const NUMBERS: u64 = 10_000;

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// What one of them does.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// Changes rows together with others.
    Write,
    /// Changes rows and has the store for itself; it expires history, which nobody else may.
    Own,
    /// Merges files and the log, vacuums, and expires history.
    Tidy,
    /// The same without expiring.
    TidyBesideOwner,
    Read,
    /// As `Read`, and takes its time between batches.
    ReadSlowly,
}

const ROLES: [Role; 6] =
    [Role::Write, Role::Own, Role::Tidy, Role::TidyBesideOwner, Role::Read, Role::ReadSlowly];
/// Who runs together.
const SHARED: [Role; 7] =
    [Role::Write, Role::Write, Role::Write, Role::Tidy, Role::Tidy, Role::Read, Role::ReadSlowly];
const OWNED: [Role; 5] =
    [Role::Own, Role::TidyBesideOwner, Role::TidyBesideOwner, Role::Read, Role::ReadSlowly];

/// Where a race takes place, and how it goes.
#[derive(Debug, Clone)]
struct Race {
    directory: String,
    seed: u64,
    steps: u64,
}

impl Race {
    fn is_over(&self) -> bool {
        Path::new(&self.directory).join(ENDED).exists()
    }

    fn builder(&self, place: u64, mode: Mode) -> StoreBuilder {
        let seed = self.seed.wrapping_mul(31).wrapping_add(place);
        let store = Path::new(&self.directory).join("store");
        Store::builder(store.to_str().unwrap())
            .with_mode(mode)
            .with_partitions(1)
            .with_compaction_target(4_000)
            .with_hot_max(20, 1 << 20)
            .with_layer(move |place| {
                let slow = FaultStore::new(place);
                slow.set_stalls(seed, STALLS.0, STALLS.1);
                Arc::new(slow)
            })
    }

    /// Plays one role to its end; the versions that its changes became.
    async fn play(&self, role: Role, place: u64) -> Fallible<BTreeMap<i64, i64>> {
        let mode = if matches!(role, Role::Own) { Mode::Exclusive } else { Mode::Shared };
        let store = self.builder(place, mode).open().await.at("opening")?;
        let mut rng = StdRng::seed_from_u64(self.seed ^ place);
        let outcome = match role {
            Role::Write | Role::Own => self.write(&store, role, place).await,
            Role::Tidy => self.tidy(&store, true).await.map(|()| BTreeMap::new()),
            Role::TidyBesideOwner => self.tidy(&store, false).await.map(|()| BTreeMap::new()),
            Role::Read => self.read(&store, &mut rng, false).await.map(|()| BTreeMap::new()),
            Role::ReadSlowly => self.read(&store, &mut rng, true).await.map(|()| BTreeMap::new()),
        };
        let closed = store.close().await.at("closing");
        outcome.and_then(|acked| closed.map(|()| acked)).map_err(|e| format!("{role:?}: {e}"))
    }

    async fn write(&self, store: &Store, role: Role, place: u64) -> Fallible<BTreeMap<i64, i64>> {
        let mut acked = BTreeMap::new();
        for step in 0..self.steps {
            let number = i64::try_from(place * NUMBERS + step).at("a number")?;
            if let Some(version) = reworked_once(store, number).await? {
                acked.insert(version.number(), number);
            }
            if matches!(role, Role::Own) && step % 10 == 9 {
                let kept = store.expire(REWORKED, ExpireRule::KeepVersions(4)).await;
                kept.map(drop).or_else(unless_hindered).at("expiring")?;
            }
        }
        Ok(acked)
    }

    async fn tidy(&self, store: &Store, expires: bool) -> Fallible {
        let at_once = VacuumOptions::default().with_apply(true).with_older_than(Duration::ZERO);
        for round in 0_u64.. {
            if self.is_over() {
                break;
            }
            if store.describe(REWORKED).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let compacted = store.compact(REWORKED).await;
            compacted.map(drop).or_else(unless_hindered).at("compacting")?;
            if expires {
                let kept = store.expire(REWORKED, ExpireRule::KeepVersions(4)).await;
                kept.map(drop).or_else(unless_hindered).at("expiring")?;
            }
            let vacuumed = store.vacuum(&at_once).await;
            vacuumed.map(drop).or_else(unless_hindered).at("vacuuming")?;
            let maintained = store.maintain(round % 3 == 2).await;
            maintained.map(drop).or_else(unless_hindered).at("merging the log")?;
        }
        Ok(())
    }

    async fn read(&self, store: &Store, rng: &mut StdRng, slowly: bool) -> Fallible {
        let mut reads = 0;
        while !self.is_over() || reads == 0 {
            if store.describe(REWORKED).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            self.read_once(store, rng, slowly).await?;
            reads += 1;
        }
        println!("{reads} reads");
        Ok(())
    }

    /// Reads as of some version and at head.
    async fn read_once(&self, store: &Store, rng: &mut StdRng, slowly: bool) -> Fallible {
        let versions = store.versions(REWORKED).await.at("versions")?;
        let played = Played::new(&versions)?;
        let readable: Vec<Version> =
            versions.iter().filter(|version| version.readable).map(|v| v.version).collect();
        if let Some(version) = readable.get(rng.random_range(0..readable.len().max(1))) {
            match stream(store, AsOf::Version(*version), rng, slowly).await {
                Ok(found) => {
                    let expected = played.state(version.number())?;
                    same(format!("as of {version}"), expected, &reworked::values_in(&found)?)?;
                }
                // Its history was let go in between.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(format!("as of {version}: {error:?}")),
            }
        }
        let head = stream(store, AsOf::Head, rng, slowly).await.at("at head")?;
        let head = reworked::values_in(&head)?;
        let later = store.versions(REWORKED).await.at("versions")?;
        let played = Played::new(&later)?;
        let between = versions.len()..=later.len();
        let mut states = between.clone().filter_map(|v| played.state(i64::try_from(v).ok()?).ok());
        match states.any(|state| *state == head) {
            true => Ok(()),
            false => Err(format!(
                "at head there is what none of v{between:?} shows: {head:?}; {}",
                reworked::told(&later)
            )),
        }
    }
}

/// All rows as of a point, a few at a time.
async fn stream(
    store: &Store,
    as_of: AsOf,
    rng: &mut StdRng,
    slowly: bool,
) -> tidelog::Result<Vec<RecordBatch>> {
    let options = ReadOptions::default().with_as_of(as_of).with_batch_size(16);
    let mut batches = store.root().read_series_with_options(REWORKED, &options).await?;
    let mut found = Vec::new();
    while let Some(batch) = batches.next().await {
        found.push(batch?);
        if slowly {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
        }
    }
    Ok(found)
}

/// Makes a change, again if another was faster; `None` if there was nothing to change, or nobody knows.
async fn reworked_once(store: &Store, number: i64) -> Fallible<Option<Version>> {
    let began = Instant::now();
    loop {
        match rework(store, number).await {
            Ok(version) => return Ok(version),
            Err(error) if began.elapsed() < PATIENCE => match error.kind() {
                ErrorKind::Conflict => {}
                ErrorKind::OutcomeUnknown => return Ok(None),
                _ => return Err(format!("change {number}: {error:?}")),
            },
            Err(error) => return Err(format!("change {number}: {error:?}")),
        }
    }
}

/// Losing to others is no failure of who tidies.
fn unless_hindered(error: tidelog::Error) -> tidelog::Result<()> {
    match error.kind() {
        ErrorKind::Conflict | ErrorKind::OutcomeUnknown | ErrorKind::SnapshotExpired => Ok(()),
        _ => Err(error),
    }
}

/// The process that plays one role. It does nothing unless a parent asked for it.
#[test]
#[ignore = "the process that the other tests of this module start"]
fn player() {
    let Ok(directory) = std::env::var(STORE) else { return };
    let race = Race { directory, seed: number_of(SEED, 1), steps: number_of(STEPS, 40) };
    let role = std::env::var(ROLE).unwrap();
    let (role, place) = role.split_once(':').unwrap();
    let role = ROLES[role.parse::<usize>().unwrap()];
    let acked = runtime().block_on(race.play(role, place.parse().unwrap())).unwrap();
    for (version, number) in acked {
        println!("acked {version} {number}");
    }
}

async fn in_a_process(race: Race, role: Role, place: u64) -> Fallible<BTreeMap<i64, i64>> {
    let index = ROLES.iter().position(|known| format!("{known:?}") == format!("{role:?}"));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["races::player", "--exact", "--ignored", "--nocapture"])
        .env(STORE, &race.directory)
        .env(ROLE, format!("{}:{place}", index.unwrap()))
        .env(SEED, race.seed.to_string())
        .env(STEPS, race.steps.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .at("starting a process")?;
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = ended.at("it hangs")?.at("waiting for it")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{role:?} at place {place}: {told}{why}"));
    }
    let acked = told.lines().filter_map(|line| {
        let (version, number) = line.split_once("acked ")?.1.split_once(' ')?;
        Some((version.parse().ok()?, number.parse().ok()?))
    });
    Ok(acked.collect())
}

/// All roles at once; what they leave is whole, right and tidy.
async fn race(roles: &[Role], in_processes: bool) -> Fallible {
    let directory = tempfile::tempdir().at("a directory")?;
    let race = Race {
        directory: directory.path().to_str().unwrap().to_owned(),
        seed: number_of(SEED, 1),
        steps: number_of(STEPS, 40),
    };
    println!("{SEED}={} {STEPS}={}", race.seed, race.steps);
    let location = directory.path().join("store");
    let location = location.to_str().unwrap();
    Store::builder(location).with_mode(Mode::Shared).create().await.at("making a store")?;
    let ended = Arc::new(AtomicBool::new(false));
    let (mut writing, mut others) = (Vec::new(), Vec::new());
    for (place, role) in roles.iter().enumerate() {
        let (race, role, place) = (race.clone(), *role, place as u64);
        let ended = Arc::clone(&ended);
        let playing = tokio::spawn(async move {
            let outcome = match in_processes {
                true => in_a_process(race.clone(), role, place).await,
                false => race.play(role, place).await,
            };
            // Whoever fails ends it for all.
            if outcome.is_err() && !ended.swap(true, Ordering::SeqCst) {
                let _ = std::fs::write(Path::new(&race.directory).join(ENDED), "");
            }
            outcome
        });
        let is_writer = matches!(role, Role::Write | Role::Own);
        if is_writer { writing.push(playing) } else { others.push(playing) }
    }
    let mut acked = BTreeMap::new();
    let mut failures = Vec::new();
    for playing in writing {
        match playing.await.at("a writer")? {
            Ok(more) => acked.extend(more),
            Err(error) => failures.push(error),
        }
    }
    std::fs::write(directory.path().join(ENDED), "").at("ending")?;
    for playing in others {
        failures.extend(playing.await.at("another")?.err());
    }
    if !failures.is_empty() {
        return Err(failures.join("\n"));
    }
    judge(location, &acked).await
}

/// What is left once all have ended.
async fn judge(location: &str, acked: &BTreeMap<i64, i64>) -> Fallible {
    let store = Store::builder(location).with_mode(Mode::Shared).open().await.at("opening")?;
    let asked = |number: i64| number < i64::try_from(10 * NUMBERS).unwrap_or(i64::MAX);
    reworked::judge(&store, acked, asked).await?;
    let at_once = VacuumOptions::default().with_older_than(Duration::ZERO);
    store.vacuum(&at_once.clone().with_apply(true)).await.at("vacuuming")?;
    let left = store.vacuum(&at_once).await.at("vacuuming again")?;
    same("files of no use after a vacuum", &0, &left.total().files)?;
    same("files that somebody holds", &0, &(left.pinned.files + left.young.files))?;
    let mut files = Vec::new();
    collect(&Path::new(location).join("series"), &mut files);
    same("data files", &left.needed.files, &(files.len() as u64))?;
    reworked::judge(&store, acked, asked).await?;
    let report = Store::builder(location).fsck(true).await.at("fsck")?;
    let damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    println!("{} changes acked, {} files left", acked.len(), files.len());
    same("damage", &Vec::<String>::new(), &damage)
}

#[test]
fn handles_that_write_tidy_and_read_at_once_do_each_other_no_harm() {
    runtime().block_on(race(&SHARED, false)).unwrap();
}

#[test]
fn processes_that_write_tidy_and_read_at_once_do_each_other_no_harm() {
    runtime().block_on(race(&SHARED, true)).unwrap();
}

#[test]
fn processes_that_tidy_and_read_beside_one_that_writes_alone_do_it_no_harm() {
    runtime().block_on(race(&OWNED, true)).unwrap();
}
