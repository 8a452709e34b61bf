//! Opening a device, and what keeps it from being opened.

use std::process::Command;
use std::sync::Arc;

use tidelog_gpu::{CudaBackend, CudaSettings, Disabled, SCRATCH_BYTES_MIN};
use tidelog_gpu_emulator::{BUGS, Bug, Call};
use tidelog_warm::WarmBackend;

use crate::{device, small};

#[test]
fn a_device_is_opened_used_and_given_back_whole() {
    let device = device(1);
    let before = device.emulator.held().objects();
    let backend = device.open(&small());
    assert_eq!(backend.stats().device, "emulated device");
    assert_eq!(device.emulator.held().device_bytes - before.device_bytes, 96 << 20);
    drop(backend);
    assert_eq!(device.emulator.held().objects(), before);
}

#[test]
fn machines_that_will_not_do_are_told_apart() {
    let device = device(1);
    let before = device.emulator.held().objects();
    let open = |settings: CudaSettings| CudaBackend::open(&settings).unwrap_err();
    device.emulator.set_device(0, 12020, (9, 0));
    assert_eq!(open(small()), Disabled::Driver { code: "CUDA_ERROR_NO_DEVICE".to_owned() });
    device.emulator.set_device(1, 11080, (9, 0));
    assert_eq!(open(small()), Disabled::OldDriver { found: 11080, needed: 12020 });
    device.emulator.set_device(1, 12020, (7, 0));
    assert!(matches!(open(small()), Disabled::Kernels { .. }));
    device.emulator.set_device(1, 13000, (13, 0));
    drop(device.open(&small()));
    device.emulator.set_memory(64 << 20);
    let memory = Disabled::Memory { wanted: 96 << 20, free: 64 << 20 };
    assert_eq!(open(small()), memory);
    let code = "CUDA_ERROR_INVALID_DEVICE".to_owned();
    assert_eq!(open(small().with_device(1)), Disabled::Driver { code });
    assert_eq!(device.emulator.held().objects(), before);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let _device = device(1);
    let name = |settings: CudaSettings| match CudaBackend::open(&settings) {
        Err(Disabled::Setting { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(small().with_lanes(0)), "lanes");
    assert_eq!(name(small().with_scratch_bytes(SCRATCH_BYTES_MIN - 1)), "scratch_bytes");
    assert_eq!(name(small().with_staging_bytes(1)), "staging_bytes");
    assert_eq!(name(small().with_memory_bytes(1 << 20)), "memory_bytes");
    assert_eq!(name(small().with_lanes(usize::MAX)), "memory_bytes");
}

#[test]
fn a_device_that_computes_wrong_results_is_not_used() {
    let device = device(1);
    assert!(BUGS.contains(&Bug::MissingBarrier));
    device.emulator.plant(Bug::MissingBarrier);
    assert_eq!(CudaBackend::open(&small()).unwrap_err(), Disabled::SelfTest);
}

/// Whichever call fails while a device is opened, it is said so, and nothing is left behind.
#[test]
fn a_call_that_fails_while_opening_leaves_nothing_behind() {
    let device = device(1);
    let before = device.emulator.held().objects();
    let mut failed = 0;
    for call in [Call::Allocate, Call::Pin, Call::Copy, Call::Launch, Call::Wait] {
        for nth in 1..100 {
            device.emulator.reset(nth);
            device.emulator.fail(call, nth, 719, false);
            match CudaBackend::open(&small()) {
                Ok(backend) => {
                    drop(backend);
                    break;
                }
                Err(_) => failed += 1,
            }
            assert_eq!(device.emulator.held().objects(), before, "{call:?} {nth}");
        }
    }
    assert!(failed >= 5, "{failed}");
}

#[test]
fn backends_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let device = device(1);
    let backend: Arc<dyn WarmBackend> = Arc::new(device.open(&small()));
    shared(&backend);
}

/// In a process that has not loaded the emulator.
#[test]
fn without_a_driver_opening_says_so_and_starts_no_thread() {
    let test = "opening::a_process_without_the_emulator_finds_no_driver";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--ignored"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn a_process_without_the_emulator_finds_no_driver() {
    let threads = || std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(0);
    let before = threads();
    match CudaBackend::open(&small()) {
        Err(Disabled::NoDriver) => assert_eq!(threads(), before),
        // This machine has a driver, which may do as it likes.
        other => drop(other),
    }
}
