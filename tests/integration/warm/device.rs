//! A device that holds segments, emulated: the kernels and every call of the driver, under the store.

use std::sync::{Arc, OnceLock};

use tidelog_core::{EventTime, PathPattern, TimeRange};
use tidelog_gpu::{CudaBackend, CudaSettings};
use tidelog_gpu_emulator::{Call, Emulator};
use tidelog_store::{Engine, EngineOptions, WarmDevices};
use tidelog_warm::WarmBackend;
use tokio::sync::{Mutex, MutexGuard};

use super::seen::{alone, append, batch, create, numbers, path};

/// A code of the driver's, for an address that it does not know: an error for good.
const ILLEGAL_ADDRESS: i32 = 700;

/// The emulated device, as at its start. There is one in the process: who has it has it alone.
async fn device() -> (&'static Emulator, MutexGuard<'static, ()>) {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let emulator = EMULATOR.get_or_init(|| Emulator::load().unwrap());
    emulator.reset(7);
    (emulator, turn)
}

#[derive(Debug)]
struct Emulated;

impl WarmDevices for Emulated {
    fn open(&self, device: usize, bytes: u64) -> Result<Arc<dyn WarmBackend>, String> {
        let settings = CudaSettings::default()
            .with_device(device)
            .with_memory_bytes(bytes)
            .with_scratch_bytes(256 << 10)
            .with_staging_bytes(64 << 10);
        match CudaBackend::open(&settings) {
            Ok(backend) => Ok(Arc::new(backend)),
            Err(disabled) => Err(disabled.to_string()),
        }
    }
}

fn options(directory: &std::path::Path) -> EngineOptions {
    let mut options = alone(directory);
    options.warm.bytes_max = Some(64 << 20);
    options.warm.devices = Some(Arc::new(Emulated));
    options
}

/// Appends, flushes, merges and deletes; after each step all rows are there, once.
async fn write(engine: &Engine) {
    let check = async |rows: usize| {
        let (found, tiers) = numbers(engine).await;
        assert_eq!((found.len(), tiers.rows()), (rows, rows), "{tiers:?}");
    };
    for version in 0..4 {
        append(engine, batch(version * 100, 100, version * 20)).await;
        engine.flush().await.unwrap();
        check((usize::try_from(version).unwrap() + 1) * 100).await;
    }
    engine.compact(&PathPattern::parse("/**").unwrap()).await.unwrap();
    check(400).await;
    let until = EventTime::from_nanos(9_000);
    let range = TimeRange::try_new(EventTime::MIN, until).unwrap();
    // The first version has two rows at each of the times from 0 to 9.
    assert_eq!(engine.delete_rows(&path(), range, None).await.unwrap().rows_ended, 20);
    check(380).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_move_to_a_device_and_away() {
    let (emulator, _turn) = device().await;
    let directory = tempfile::TempDir::new().unwrap();
    let engine = create(&options(directory.path())).await;
    write(&engine).await;
    let (_, tiers) = numbers(&engine).await;
    assert_eq!((tiers.warm, tiers.cold), (380, 0));
    let stats = engine.warm().stats();
    assert_eq!((stats.backend.as_str(), stats.segments, stats.rows), ("cuda", 1, 380));
    assert_eq!((stats.no_device, stats.dead), (None, None));
    assert!(emulator.held().calls(Call::Launch) > 0);
    drop(engine);
    assert_eq!(emulator.held().objects().device_blocks, 0, "the device is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_fails_or_is_lost_costs_no_row() {
    let (emulator, _turn) = device().await;
    for call in [Call::Allocate, Call::Pin, Call::Copy, Call::Launch, Call::Wait] {
        for nth in [1, 2, 3, 5, 8, 13, 21, 34, 55] {
            emulator.reset(nth);
            emulator.fail(call, nth, ILLEGAL_ADDRESS, false);
            let directory = tempfile::TempDir::new().unwrap();
            let engine = create(&options(directory.path())).await;
            write(&engine).await;
            let stats = engine.warm().stats();
            let is_well = stats.no_device.is_none() && stats.dead.is_none();
            assert!(!is_well || emulator.held().calls(call) < nth, "{call:?} {nth}: {stats:?}");
        }
    }
    emulator.reset(1);
    let directory = tempfile::TempDir::new().unwrap();
    let engine = create(&options(directory.path())).await;
    append(&engine, batch(0, 100, 0)).await;
    engine.flush().await.unwrap();
    assert_eq!(numbers(&engine).await.1.warm, 100);
    emulator.lose_device(ILLEGAL_ADDRESS);
    assert_eq!(numbers(&engine).await.1.cold, 100);
    assert!(engine.warm().stats().dead.is_some() && !engine.warm().is_on());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_room_leaves_the_tier_in_host_memory() {
    let (emulator, _turn) = device().await;
    emulator.set_memory(1 << 20);
    let directory = tempfile::TempDir::new().unwrap();
    let engine = create(&options(directory.path())).await;
    write(&engine).await;
    let stats = engine.warm().stats();
    assert_eq!((stats.backend.as_str(), stats.rows), ("host", 380));
    assert!(stats.no_device.unwrap().contains("free"));
}
