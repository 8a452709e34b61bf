//! The backend on the emulated device: the kernels' own sources, and every call of the driver.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what is not as it should be fails the test"
)]

mod bugs;
mod faults;
mod large;
mod opening;
mod suite;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tidelog_gpu::{CudaBackend, CudaSettings};
use tidelog_gpu_emulator::{BUGS, Emulator};

/// Names a planted bug, by its place in the emulator's list, in a process that is to fail.
const BUG: &str = "TIDELOG_EMULATED_BUG";

/// The emulator, as at its start. There is one in the process: who has it has it alone.
struct Device {
    emulator: &'static Emulator,
    _turn: MutexGuard<'static, ()>,
}

/// The emulated device, with threads shuffled by a seed.
fn device(seed: u64) -> Device {
    static EMULATOR: OnceLock<Emulator> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let emulator = EMULATOR.get_or_init(|| Emulator::load().unwrap());
    emulator.reset(seed);
    if let Ok(bug) = std::env::var(BUG) {
        emulator.plant(BUGS[bug.parse::<usize>().unwrap()]);
    }
    Device { emulator, _turn: turn }
}

/// Little of everything, so that spans, chunks and pinned memory are used up often.
fn small() -> CudaSettings {
    CudaSettings::default()
        .with_memory_bytes(96 << 20)
        .with_scratch_bytes(256 << 10)
        .with_staging_bytes(64 << 10)
}

impl Device {
    fn open(&self, settings: &CudaSettings) -> CudaBackend {
        CudaBackend::open(settings).unwrap()
    }
}
