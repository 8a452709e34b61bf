//! A backend that fails while statements run: the same rows, from files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tidelog::arrow::array::RecordBatch;
use tidelog::{WarmDevices, WarmPlace, WarmPushDowns};
use tidelog_warm::{
    Answer, BackendStats, HostBackend, Request, Segment, WarmBackend, WarmError, WarmTable,
};

use super::{SERIES, World, lines, minutes, plan};
use crate::support::{Fallible, runtime, same};

/// How requests fail, from which one on.
#[derive(Debug)]
struct Device {
    host: Arc<HostBackend>,
    requests: Arc<AtomicU64>,
    from: Arc<AtomicU64>,
    error: WarmError,
}

impl WarmDevices for Device {
    fn open(&self, _: usize, _: u64) -> Result<Arc<dyn WarmBackend>, String> {
        Ok(Arc::new(Self {
            host: Arc::clone(&self.host),
            requests: Arc::clone(&self.requests),
            from: Arc::clone(&self.from),
            error: self.error.clone(),
        }))
    }
}

impl WarmBackend for Device {
    fn seal(
        &self,
        table: &Arc<WarmTable>,
        batches: &[RecordBatch],
    ) -> Result<Arc<Segment>, WarmError> {
        self.host.seal(table, batches)
    }

    fn run(
        &self,
        table: &Arc<WarmTable>,
        segments: &[Arc<Segment>],
        request: &Request,
    ) -> Result<Answer, WarmError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match number >= self.from.load(Ordering::Relaxed) {
            true => Err(self.error.clone()),
            false => self.host.run(table, segments, request),
        }
    }

    fn evict(&self, segment: &Segment) -> bool {
        self.host.evict(segment)
    }

    fn stats(&self) -> BackendStats {
        self.host.stats()
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

async fn no_failure_changes_an_answer(error: WarmError) -> Fallible {
    let (requests, from) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let device = Arc::new(Device {
        host: Arc::new(HostBackend::new(256 << 20)),
        requests: Arc::clone(&requests),
        from: Arc::clone(&from),
        error: error.clone(),
    });
    let directory = TempDir::new().map_err(|error| error.to_string())?;
    let warm = [minutes(10, 1_500, 1, 100), minutes(1_500, 2_700, 1, 200)];
    let (cold, hot) = ([minutes(0, 10, 1, 0)], [minutes(2_700, 2_702, 1, 300)]);
    let how = |builder: tidelog::StoreBuilder| {
        builder.with_warm(WarmPlace::Cuda).with_warm_devices(Arc::<Device>::clone(&device))
    };
    let store = World::default().store_of(how, &directory, &cold, &warm, &hot).await?;
    let files = store.with_warm_push_downs(&WarmPushDowns::none());
    for statement in STATEMENTS {
        let expected = lines(&files, statement).await?;
        from.store(u64::MAX, Ordering::Relaxed);
        requests.store(0, Ordering::Relaxed);
        same(statement, &expected, &lines(&store, statement).await?)?;
        let needed = requests.load(Ordering::Relaxed);
        same(format!("{statement} asks"), &true, &(needed > 0))?;
        for first in 0..needed.min(6) {
            requests.store(0, Ordering::Relaxed);
            from.store(first, Ordering::Relaxed);
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
        runtime().block_on(no_failure_changes_an_answer(error)).unwrap();
    }
}

#[test]
fn a_device_that_dies_while_a_statement_runs_changes_no_answer() {
    let outcome = runtime().block_on(async {
        let (requests, from) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
        let device = Arc::new(Device {
            host: Arc::new(HostBackend::new(256 << 20)),
            requests,
            from,
            error: WarmError::Dead { reason: "it fell off".to_owned() },
        });
        let directory = TempDir::new().map_err(|error| error.to_string())?;
        let warm = [minutes(0, 1_500, 1, 100), minutes(1_500, 2_700, 1, 200)];
        let how = |builder: tidelog::StoreBuilder| {
            builder.with_warm(WarmPlace::Cuda).with_warm_devices(Arc::<Device>::clone(&device))
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
