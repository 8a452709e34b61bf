//! The suite that every backend passes.

use tidelog_gpu::CudaSettings;
use tidelog_warm::suite;

use crate::{device, small};

#[test]
fn the_emulated_device_passes_the_suite_with_much_scratch() {
    let device = device(1);
    let settings = CudaSettings::default()
        .with_memory_bytes(256 << 20)
        .with_scratch_bytes(16 << 20)
        .with_staging_bytes(1 << 20);
    let report = suite::run(&device.open(&settings), 1, 25);
    assert!(report.passed(), "{report}");
}

#[test]
fn the_emulated_device_passes_the_suite_with_little_scratch() {
    let device = device(2);
    let report = suite::run(&device.open(&small()), 2, 25);
    assert!(report.passed(), "{report}");
}
