//! A backend that fails leaves appends, flushes and answers as they were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidelog::object_store::ObjectStore;
use tidelog::object_store::memory::InMemory;
use tidelog_core::{PathPattern, TimeRange};
use tidelog_storage::counting::Operation;
use tidelog_store::{Engine, WarmDevices, WarmPlace};
use tidelog_testkit::{Fault, FaultError, FaultStore};
use tidelog_warm::{BackendStats, HostBackend, WarmBackend, WarmError};

use super::seen::{alone, append, batch, create, create_on, numbers, shared};
use crate::failing_backend::{FailingBackend, Failures};

/// What fails of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// There is none.
    Open,
    /// The n-th seal finds no memory.
    Seal(u64),
    /// From the n-th call on it is dead.
    Dies(u64),
}

#[derive(Debug)]
struct Devices(Failing);

impl WarmDevices for Devices {
    fn open(&self, device: usize, bytes: u64) -> Result<Arc<dyn WarmBackend>, String> {
        match self.0 {
            Failing::Open => Err(format!("there is no device {device}")),
            failing => Ok(Arc::new(FailingBackend {
                host: Arc::new(HostBackend::new(bytes)),
                failures: Device { failing, calls: AtomicU64::new(0), refused: AtomicU64::new(0) },
            })),
        }
    }
}

#[derive(Debug)]
struct Device {
    failing: Failing,
    calls: AtomicU64,
    refused: AtomicU64,
}

impl Device {
    fn call(&self, is_seal: bool) -> Result<(), WarmError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.failing {
            Failing::Seal(n) if is_seal && call == n => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(WarmError::OutOfMemory { wanted: 1, free: 0 })
            }
            Failing::Dies(n) if call >= n => {
                Err(WarmError::Dead { reason: "it fell off".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

impl Failures for Device {
    fn seal(&self) -> Result<(), WarmError> {
        self.call(true)
    }

    fn run(&self) -> Result<(), WarmError> {
        self.call(false)
    }

    fn stats(&self, host: BackendStats) -> BackendStats {
        let is_dead =
            matches!(self.failing, Failing::Dies(n) if self.calls.load(Ordering::Relaxed) > n);
        let dead = is_dead.then(|| "it fell off".to_owned());
        let refused = self.refused.load(Ordering::Relaxed);
        let fallbacks = std::collections::BTreeMap::from([("out_of_memory", refused)]);
        BackendStats { backend: "test", dead, fallbacks, ..host }
    }
}

async fn filled(failing: Failing, place: WarmPlace) -> (Engine, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    let mut options = alone(directory.path());
    options.warm.place = place;
    options.warm.devices = Some(Arc::new(Devices(failing)));
    let engine = create(&options).await;
    for version in 0..4 {
        append(&engine, batch(version * 50, 50, version * 10)).await;
        engine.flush().await.unwrap();
        let (found, _) = numbers(&engine).await;
        assert_eq!(found.len() as i64, (version + 1) * 50);
    }
    (engine, directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_device_the_tier_is_in_host_memory() {
    for place in [WarmPlace::Auto, WarmPlace::Cuda] {
        let (engine, _directory) = filled(Failing::Open, place).await;
        let stats = engine.warm().stats();
        assert_eq!((stats.backend.as_str(), stats.segments), ("host", 4));
        assert_eq!(stats.no_device.as_deref(), Some("there is no device 0"));
    }
    // Nobody asks for one.
    let (engine, _directory) = filled(Failing::Open, WarmPlace::Host).await;
    assert_eq!(engine.warm().stats().no_device, None);
    // This program has none.
    let mut options = shared();
    options.warm.place = WarmPlace::Cuda;
    let engine = create(&options).await;
    append(&engine, batch(0, 10, 0)).await;
    engine.fill_warm(&PathPattern::parse("/**").unwrap(), TimeRange::ALL).await.unwrap();
    assert!(engine.warm().stats().no_device.unwrap().contains("feature `gpu`"));
}

/// Files of a flush that does not come to its commit are named by nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_fails_leaves_no_segment() {
    let directory = tempfile::TempDir::new().unwrap();
    let place = Arc::new(FaultStore::new(Arc::new(InMemory::new())));
    let shared: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&place);
    let engine = create_on(shared, &alone(directory.path())).await;
    append(&engine, batch(0, 50, 0)).await;
    // The second file of the series, which is sealed by then.
    engine.flush().await.unwrap();
    append(&engine, batch(50, 50, 0)).await;
    place.inject(Fault::new(FaultError::Generic).on(Operation::Put).at_path("series/"));
    assert!(engine.flush().await.is_err());
    engine.flush().await.unwrap();
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len(), tiers.warm), (100, 100));
    let stats = engine.warm().stats();
    assert_eq!((stats.seals, stats.segments, stats.rows), (3, 2, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_that_fails_leaves_a_file_cold() {
    // Each round is a seal and as many requests as files are warm.
    let (engine, _directory) = filled(Failing::Seal(2), WarmPlace::Auto).await;
    let (found, tiers) = numbers(&engine).await;
    assert_eq!((found.len(), tiers.warm, tiers.cold), (200, 150, 50));
    let stats = engine.warm().stats();
    assert_eq!((stats.backend.as_str(), stats.dead), ("test", None));
    assert_eq!(stats.fallbacks["out_of_memory"], 1);
    assert!(engine.warm().is_on());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_dies_costs_no_row() {
    for dies in 0..12 {
        let (engine, _directory) = filled(Failing::Dies(dies), WarmPlace::Auto).await;
        let (found, tiers) = numbers(&engine).await;
        assert_eq!((found.len(), tiers.rows()), (200, 200));
        let (found, tiers) = numbers(&engine).await;
        assert_eq!(
            (found.len(), tiers.cold),
            (200, 200),
            "{dies}: nothing is asked of it any more"
        );
        assert!(!engine.warm().is_on());
        let stats = engine.warm().stats();
        assert_eq!(stats.dead.as_deref(), Some("it fell off"));
        let refused = engine
            .fill_warm(&PathPattern::parse("/**").unwrap(), TimeRange::ALL)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("it fell off"), "{refused}");
        append(&engine, batch(1000, 50, 0)).await;
        engine.flush().await.unwrap();
        engine.compact(&PathPattern::parse("/**").unwrap()).await.unwrap();
        assert_eq!(numbers(&engine).await.0.len(), 250);
    }
}
