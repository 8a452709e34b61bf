//! A stand-in for NVIDIA's driver library, over an emulated device. For tests only.
//!
//! [`Emulator::load`] loads it before anybody looks for the real one; from then on the process has one
//! device, which is a C program: the kernels' own sources, each thread a fiber (`c/machine.c`), behind the
//! driver's entry points (`c/driver.c`). There is one per process; tests that change it take turns.
//!
//! What it does not show: races between two instructions, weak memory order, speed.

use std::error::Error;
use std::ffi::{CStr, c_char};
use std::fmt;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

/// The calls that can be made to fail, and are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Device memory is allocated.
    Allocate,
    /// Memory of the host is pinned.
    Pin,
    /// A copy or a fill is put on a stream.
    Copy,
    /// A kernel is put on a stream.
    Launch,
    /// Somebody waits for a stream or an event.
    Wait,
}

/// Bugs in kernels, to see them caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Threads read what others of the block may not have written yet.
    MissingBarrier = 1,
    /// The same, where the strips of a tile are put together.
    MissingBarrierLeads,
    /// The same, where ranks are given in a sort.
    MissingBarrierSort,
    /// Of the tiles before this one only the nearest is counted, where it does not know the sum yet.
    LostPrefix,
    /// A run that goes on over many tiles is put together of two only.
    ShortChain,
    /// The end of a range is left out.
    Bound,
    /// A null compares as false, so that its negation is true.
    NullIsFalse,
}

/// All bugs.
pub const BUGS: [Bug; 7] = [
    Bug::MissingBarrier,
    Bug::MissingBarrierLeads,
    Bug::MissingBarrierSort,
    Bug::LostPrefix,
    Bug::ShortChain,
    Bug::Bound,
    Bug::NullIsFalse,
];

/// What the driver holds for the process, and the calls since the last reset.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Allocations on the device.
    pub device_blocks: u64,
    /// Their bytes.
    pub device_bytes: u64,
    /// Allocations of pinned memory.
    pub pinned_blocks: u64,
    /// Their bytes.
    pub pinned_bytes: u64,
    /// Streams.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// Modules.
    pub modules: u64,
    /// Times that the context is retained.
    pub contexts: u64,
    /// Calls, by [`Call`].
    pub calls: [u64; 5],
}

impl Held {
    /// How many calls of this kind there were.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.calls[call as usize]
    }

    /// The same without the calls, to compare what is held.
    #[must_use]
    pub fn objects(self) -> Self {
        Self { calls: [0; 5], ..self }
    }
}

/// The loaded library.
#[derive(Debug)]
pub struct Emulator {
    library: Library,
}

/// The library cannot be loaded, or is not the emulator's.
#[derive(Debug)]
pub struct LoadError(libloading::Error);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the emulated driver does not load")
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl Emulator {
    /// Loads the library under the name of the real one, so that whoever looks for that gets this.
    ///
    /// # Errors
    ///
    /// If the library cannot be loaded.
    pub fn load() -> Result<Self, LoadError> {
        let path = env!("TIDELOG_EMULATED_DRIVER");
        // SAFETY: the library has no initializers.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let emulator = Self { library: library.map_err(LoadError)? };
        emulator.reset(1);
        Ok(emulator)
    }

    /// Ends all failures and planted bugs, and shuffles threads by this seed from now on.
    pub fn reset(&self, seed: u64) {
        // SAFETY: the signature is that of `emu_reset` in driver.c.
        unsafe { self.symbol::<unsafe extern "C" fn(u64)>("emu_reset")(seed) };
    }

    /// How much memory the device has, in bytes.
    pub fn set_memory(&self, bytes: u64) {
        // SAFETY: the signature is that of `emu_set_memory` in driver.c.
        unsafe { self.symbol::<unsafe extern "C" fn(u64)>("emu_set_memory")(bytes) };
    }

    /// How many devices there are, the version of the driver, and their compute capability.
    pub fn set_device(&self, count: i32, driver: i32, capability: (i32, i32)) {
        type SetDevice = unsafe extern "C" fn(i32, i32, i32, i32);
        let (major, minor) = capability;
        // SAFETY: the signature is that of `emu_set_device` in driver.c.
        unsafe { self.symbol::<SetDevice>("emu_set_device")(count, driver, major, minor) };
    }

    /// Plants a bug in the kernels.
    pub fn plant(&self, bug: Bug) {
        // SAFETY: the signature is that of `emu_plant` in driver.c.
        unsafe { self.symbol::<unsafe extern "C" fn(i32) -> i32>("emu_plant")(bug as i32) };
    }

    /// Makes the n-th call of a kind from now on, counted from 1, fail with an error code of the driver;
    /// if `for_good`, all calls after it too. 0 takes that back.
    pub fn fail(&self, call: Call, nth: u64, code: i32, for_good: bool) {
        type Fail = unsafe extern "C" fn(i32, u64, i32, i32);
        // SAFETY: the signature is that of `emu_fail` in driver.c.
        unsafe { self.symbol::<Fail>("emu_fail")(call as i32, nth, code, i32::from(for_good)) };
    }

    /// Makes all calls fail with an error code from now on.
    pub fn lose_device(&self, code: i32) {
        // SAFETY: the signature is that of `emu_lose_device` in driver.c.
        unsafe { self.symbol::<unsafe extern "C" fn(i32)>("emu_lose_device")(code) };
    }

    /// The bytes of a kernel's arguments, as the kernels' compiler sees them; 0 if there is no such kernel.
    #[must_use]
    pub fn args_bytes(&self, kernel: &CStr) -> u64 {
        type ArgsBytes = unsafe extern "C" fn(*const c_char) -> u64;
        // SAFETY: the signature is that of `emu_args_bytes` in driver.c, and the text ends with a zero.
        unsafe { self.symbol::<ArgsBytes>("emu_args_bytes")(kernel.as_ptr()) }
    }

    /// What the driver holds.
    #[must_use]
    pub fn held(&self) -> Held {
        let mut held = Held::default();
        // SAFETY: the signature is that of `emu_stats` in driver.c, the struct that of `EmulatedStats`.
        unsafe { self.symbol::<unsafe extern "C" fn(*mut Held)>("emu_stats")(&raw mut held) };
        held
    }

    fn symbol<T>(&self, name: &str) -> Symbol<T> {
        // SAFETY: callers name the type that the symbol has.
        match unsafe { self.library.get(name.as_bytes()) } {
            Ok(symbol) => symbol,
            Err(error) => panic!("the emulated driver has no {name}: {error}"),
        }
    }
}
