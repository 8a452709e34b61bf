//! Thousands of runs of the script in which requests fail at random, upkeep between its calls
//! included, each as its seed says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidelog::object_store::memory::InMemory;
use tidelog::object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tidelog_testkit::FaultStore;

use super::{Outcome, Told, create, paused, run_on};
use crate::support::{Context, Fallible};

/// How many runs there are, unless `TIDELOG_TEST_CASES` says otherwise, as the gate does.
const CASES: u64 = 400;
/// How many of them are left for other judges, unless `TIDELOG_TEST_CASES` says otherwise.
const JUDGED_CASES: u64 = 60;
/// Where they are left.
const DIRECTORY: &str = "TIDELOG_FAULT_DIR";
/// How likely a request fails: runs of each kind take turns.
const LIKELY: [f64; 3] = [0.05, 0.12, 0.3];

/// Upkeep at random places of a script, as its caller would do it.
pub(super) struct Upkeep(Option<StdRng>);

impl Upkeep {
    pub(super) fn never() -> Self {
        Self(None)
    }

    fn by_seed(seed: u64) -> Self {
        Self(Some(StdRng::seed_from_u64(!seed)))
    }

    /// Does some, perhaps. It may fail, but not by what is called a bug.
    pub(super) async fn perhaps(&mut self, store: &tidelog::Store, told: &mut Told) {
        let Some(rng) = &mut self.0 else { return };
        if rng.random_bool(0.4) {
            let full = rng.random_bool(0.5);
            if let Err(error) = store.maintain(full).await {
                told.kinds.push(error.kind());
            }
        }
    }
}

/// One run: the store that it leaves, and what the caller was told.
async fn run_of(seed: u64) -> Fallible<(Arc<dyn ObjectStore>, Told)> {
    let bare: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    create(&bare).await.at("creating")?;
    let faulty = FaultStore::new(Arc::clone(&bare));
    faulty.inject_randomly(seed, LIKELY[usize::try_from(seed % 3).at("seed")?]);
    let told = run_on(&bare, &faulty, Upkeep::by_seed(seed)).await?;
    Ok((bare, told))
}

fn of_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn random_faults_lose_and_double_nothing() {
    let first = of_env("TIDELOG_TEST_SEED").unwrap_or(1);
    let end = first + of_env("TIDELOG_TEST_CASES").unwrap_or(CASES);
    let next = AtomicU64::new(first);
    let (acked, unknown, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let run_some = || {
        let mine = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end);
        while let Some(seed) = mine() {
            let outcome = paused().block_on(run_of(seed));
            let (_, told) =
                outcome.unwrap_or_else(|error| panic!("TIDELOG_TEST_SEED={seed}: {error}"));
            for (_, outcome) in told.appends.values() {
                let count = match outcome {
                    Outcome::Acked(_) => &acked,
                    Outcome::Unknown => &unknown,
                    Outcome::Refused => &refused,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run_some);
        }
    });
    let counts = [&acked, &unknown, &refused].map(|count| count.load(Ordering::Relaxed));
    println!("appends: {} acked, {} unknown, {} refused", counts[0], counts[1], counts[2]);
    // Faults that struck nothing, or everything, would prove nothing.
    assert!(end - first < 50 || counts[0] > 0 && counts[2] > 0, "{counts:?}");
}

/// Leaves `fault-*/store` and `fault-*/acks.jsonl` for judges with nothing of our own code.
#[test]
#[ignore = "leaves stores for tests/judges"]
fn random_faults_leave_stores_for_other_judges() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    for seed in 1..=of_env("TIDELOG_TEST_CASES").unwrap_or(JUDGED_CASES) {
        let base = Path::new(&directory).join(format!("fault-{seed:05}"));
        let left: Fallible = paused().block_on(async {
            let (bare, told) = run_of(1_000_000 + seed).await?;
            leave(&bare, &base.join("store")).await?;
            let acks = acks_in(&told)?;
            std::fs::write(base.join("acks.jsonl"), acks).at("acks")
        });
        left.unwrap_or_else(|error| panic!("seed {}: {error}", 1_000_000 + seed));
    }
}

/// Copies all objects into a directory.
async fn leave(store: &Arc<dyn ObjectStore>, to: &Path) -> Fallible {
    let objects: Vec<ObjectMeta> = store.list(None).try_collect().await.at("listing")?;
    for object in objects {
        let path = to.join(object.location.as_ref());
        std::fs::create_dir_all(path.parent().ok_or("no parent")?).at("directory")?;
        let got = store.get(&object.location).await.at("get")?;
        std::fs::write(&path, got.bytes().await.at("bytes")?).at("write")?;
    }
    Ok(())
}

/// One line for each append that was acked. A version stays in the log when its series is removed.
fn acks_in(told: &Told) -> Fallible<String> {
    let mut lines = String::new();
    for (mark, (_, outcome)) in &told.appends {
        if let Outcome::Acked(receipt) = outcome {
            let version = receipt.version.ok_or("an ack without a version")?.number();
            let line = serde_json::json!({
                "transaction": receipt.transaction.to_string(),
                "mark": mark,
                "version": version,
                "rows": receipt.rows,
            });
            lines += &format!("{line}\n");
        }
    }
    Ok(lines)
}
