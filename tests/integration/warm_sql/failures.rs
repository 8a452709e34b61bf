//! A backend that fails while statements run: the same rows, from files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt;
use tempfile::TempDir;
use tidelog::{Holder, WarmDevices, WarmPlace, WarmPushDowns};
use tidelog_warm::{HostBackend, WarmBackend, WarmError};

use super::{SERIES, World, lines, minutes, plan};
use crate::failing_backend::{FailingBackend, Failures};
use crate::support::{Context, Fallible, runtime, same};

/// Requests fail, from which one on.
#[derive(Debug, Clone)]
struct Requests {
    number: Arc<AtomicU64>,
    from: Arc<AtomicU64>,
    error: WarmError,
}

impl Requests {
    fn failing(from: u64, error: WarmError) -> Self {
        Self { number: Arc::default(), from: Arc::new(AtomicU64::new(from)), error }
    }

    fn asked(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Counts anew.
    fn fail_from(&self, from: u64) {
        self.number.store(0, Ordering::Relaxed);
        self.from.store(from, Ordering::Relaxed);
    }
}

impl Failures for Requests {
    fn run(&self) -> Result<(), WarmError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        match number >= self.from.load(Ordering::Relaxed) {
            true => Err(self.error.clone()),
            false => Ok(()),
        }
    }
}

impl WarmDevices for Requests {
    fn open(&self, _: usize, _: u64) -> Result<Arc<dyn WarmBackend>, String> {
        let host = Arc::new(HostBackend::new(256 << 20));
        Ok(Arc::new(FailingBackend { host, failures: self.clone() }))
    }
}

/// Enough rows that two partitions ask, and that rows are fetched in several requests.
const STATEMENTS: [&str; 6] = [
    "SELECT count(*), sum(usage), max(small) FROM \"/cpu\"",
    "SELECT host, count(*), avg(bytes) FROM \"/cpu\" WHERE up GROUP BY host",
    "SELECT date_bin(INTERVAL '10 minutes', time) AS t, max(usage) FROM \"/cpu\" GROUP BY t",
    "SELECT count(note), sum(time::bigint) FROM \"/cpu\"",
    "SELECT usage FROM \"/cpu\" ORDER BY usage DESC LIMIT 20",
    "SELECT DISTINCT ON (host, region) host, region, time FROM \"/cpu\" \
     ORDER BY host, region, time DESC",
];

async fn no_failure_changes_an_answer(error: WarmError, all_warm: bool) -> Fallible {
    let requests = Requests::failing(u64::MAX, error.clone());
    let directory = TempDir::new().map_err(|error| error.to_string())?;
    let warm = [minutes(10, 1_500, 1, 100), minutes(1_500, 2_700, 1, 200)];
    let (cold, hot) = match all_warm {
        true => (vec![], vec![]),
        false => (vec![minutes(0, 10, 1, 0)], vec![minutes(2_700, 2_702, 1, 300)]),
    };
    let how = |builder: tidelog::StoreBuilder| {
        builder.with_warm(WarmPlace::Cuda).with_warm_devices(Arc::new(requests.clone()))
    };
    let store = World::default().store_of(how, &directory, &cold, &warm, &hot).await?;
    let files = store.with_warm_push_downs(&WarmPushDowns::none());
    for statement in STATEMENTS {
        let expected = lines(&files, statement).await?;
        requests.fail_from(u64::MAX);
        same(statement, &expected, &lines(&store, statement).await?)?;
        let needed = requests.asked();
        same(format!("{statement} asks"), &true, &(needed > 0))?;
        for first in 0..needed.min(6) {
            requests.fail_from(first);
            let found = lines(&store, statement).await?;
            same(format!("{statement}: {error} from request {first} on"), &expected, &found)?;
        }
    }
    Ok(())
}

#[test]
fn failing_requests_are_answered_by_files() {
    for error in [
        WarmError::Evicted { segment: 1 },
        WarmError::OutOfMemory { wanted: 1, free: 0 },
        WarmError::Cancelled,
    ] {
        for all_warm in [false, true] {
            runtime().block_on(no_failure_changes_an_answer(error.clone(), all_warm)).unwrap();
        }
    }
}

#[test]
fn a_device_that_dies_while_a_statement_runs_changes_no_answer() {
    let outcome = runtime().block_on(async {
        let requests = Requests::failing(1, WarmError::Dead { reason: "it fell off".to_owned() });
        let directory = TempDir::new().map_err(|error| error.to_string())?;
        let warm = [minutes(0, 1_500, 1, 100), minutes(1_500, 2_700, 1, 200)];
        let how = |builder: tidelog::StoreBuilder| {
            builder.with_warm(WarmPlace::Cuda).with_warm_devices(Arc::new(requests.clone()))
        };
        let store = World::default().store_of(how, &directory, &[], &warm, &[]).await?;
        let files = store.with_warm_push_downs(&WarmPushDowns::none());
        let statement = format!("SELECT host, sum(bytes) FROM \"{SERIES}\" GROUP BY host");
        let before = plan(&store, &statement).await?;
        same(&before, &true, &before.contains("WarmScanExec"))?;
        let expected = lines(&files, &statement).await?;
        same(&statement, &expected, &lines(&store, &statement).await?)?;
        // It is not asked again.
        let after = plan(&store, &statement).await?;
        same(&after, &false, &after.contains("WarmScanExec"))?;
        same(&statement, &expected, &lines(&store, &statement).await?)
    });
    outcome.unwrap();
}

#[test]
fn a_reader_that_leaves_early_gives_back_all_that_it_held() {
    let outcome: Fallible = runtime().block_on(async {
        let directory = TempDir::new().at("a directory")?;
        let warm = [minutes(0, 1_500, 1, 100), minutes(1_500, 2_700, 1, 200)];
        let store = World::default().store(&directory, &[], &warm, &[]).await?;
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let held = || store.memory().held_by(Holder::Queries);
        let before = tasks();
        for filter in ["", "WHERE up AND usage > small"] {
            let statement = format!("SELECT * FROM \"{SERIES}\" {filter}");
            let mut rows = store.sql(&statement).await.at(&statement)?;
            let first = rows.try_next().await.at(&statement)?;
            same(format!("{statement}: a batch"), &true, &first.is_some())?;
            same(format!("{statement}: more is held"), &true, &(held() > 0))?;
            drop(rows);
            // What was asked of the backend meanwhile ends on a thread of its own.
            for _ in 0..1_000 {
                if held() == 0 && tasks() <= before {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            same(format!("{statement}: held, tasks"), &(0, true), &(held(), tasks() <= before))?;
        }
        Ok(())
    });
    outcome.unwrap();
}
