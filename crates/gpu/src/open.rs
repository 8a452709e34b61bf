//! Finding a driver and a device, or why there is none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cudarc::driver::DriverError;

use crate::abi::ProbeArgs;
use crate::device::{Device, Stream, has_driver};
use crate::lane::{Lane, Lanes};
use crate::settings::{CudaSettings, SCRATCH_BYTES_MIN, STAGING_BYTES_MIN};

/// Why there is no backend on a GPU. Other tiers serve the same rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disabled {
    /// There is no driver's library on this machine.
    #[error("there is no NVIDIA driver on this machine")]
    NoDriver,
    /// The driver refused something; its name for the error.
    #[error("the NVIDIA driver says {code}")]
    Driver {
        /// The driver's name for it.
        code: String,
    },
    /// The driver is too old. Versions are the driver's: 12020 for 12.2.
    #[error(
        "the NVIDIA driver is of CUDA version {found}, and {needed} is the oldest that will do"
    )]
    OldDriver {
        /// What it says.
        found: i32,
        /// The oldest that will do.
        needed: i32,
    },
    /// The driver lacks a function that its version should have.
    #[error("the NVIDIA driver is broken: {reason}")]
    Broken {
        /// What happened.
        reason: String,
    },
    /// There are no kernels for the device.
    #[error("the device runs none of the kernels: {reason}")]
    Kernels {
        /// Why.
        reason: String,
    },
    /// The device has not as much free memory as the settings ask for.
    #[error("{wanted} bytes of the device's memory are asked for, and {free} are free: set fewer")]
    Memory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A setting is out of its range.
    #[error("the setting {name} is {found}, and has to be at least {least}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// What it is.
        found: u64,
        /// The least that will do.
        least: u64,
    },
    /// A kernel gave a wrong result.
    #[error("the device computes wrong results")]
    SelfTest,
}

impl Disabled {
    /// What the driver has refused. The driver's text for it is not asked for: it may not be there.
    pub(crate) fn driver(error: DriverError) -> Self {
        Self::Driver { code: format!("{:?}", error.0) }
    }
}

/// An open device, divided.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) device: Arc<Device>,
    pub(crate) lanes: Lanes,
    pub(crate) sealer: Lane,
    /// Where segments go: address and bytes.
    pub(crate) segments: (u64, u64),
}

/// Opens the device that the settings name.
pub(crate) fn open(settings: &CudaSettings) -> Result<Opened, Disabled> {
    let scratch = check(settings)?;
    if !has_driver() {
        return Err(Disabled::NoDriver);
    }
    // A function that the driver lacks is a panic of the bindings.
    let opened = catch_unwind(AssertUnwindSafe(|| open_device(settings, scratch)));
    opened.unwrap_or_else(|panic| {
        let reason = panic.downcast_ref::<String>().cloned();
        let reason = reason.unwrap_or_else(|| "a call of it panicked".to_owned());
        Err(Disabled::Broken { reason })
    })
}

/// Refuses settings that do not go together; the bytes of scratch in all.
fn check(settings: &CudaSettings) -> Result<u64, Disabled> {
    let least = |name, found: u64, least: u64| {
        if found < least { Err(Disabled::Setting { name, found, least }) } else { Ok(()) }
    };
    least("lanes", settings.lanes as u64, 1)?;
    least("scratch_bytes", settings.scratch_bytes, SCRATCH_BYTES_MIN)?;
    least("staging_bytes", settings.staging_bytes as u64, STAGING_BYTES_MIN as u64)?;
    // One more than lanes: sealing sorts.
    let scratch = (settings.lanes as u64)
        .checked_add(1)
        .and_then(|lanes| settings.scratch_bytes.next_multiple_of(256).checked_mul(lanes));
    let scratch = scratch.unwrap_or(u64::MAX);
    least("memory_bytes", settings.memory_bytes, scratch.saturating_mul(2))?;
    Ok(scratch)
}

fn open_device(settings: &CudaSettings, scratch: u64) -> Result<Opened, Disabled> {
    let device = Device::open(settings.device, settings.memory_bytes)?;
    let mut at = device.base();
    let mut lane = || {
        let stream = Stream::open(&device, settings.staging_bytes)?;
        let lane = Lane::new(stream, at, settings.scratch_bytes);
        at += settings.scratch_bytes.next_multiple_of(256);
        Ok::<_, Disabled>(lane)
    };
    let mut sealer = lane()?;
    let lanes = (0..settings.lanes).map(|_| lane()).collect::<Result<Vec<_>, _>>()?;
    test_device(&mut sealer)?;
    let segments = (device.base() + scratch, device.bytes() - scratch);
    Ok(Opened { device, lanes: Lanes::new(lanes), sealer, segments })
}

/// Runs a kernel that uses what the others do: shared memory, barriers, exchanges.
fn test_device(lane: &mut Lane) -> Result<(), Disabled> {
    const COUNT: u32 = 256;
    const SEED: u32 = 0x7 << 20;
    let broken = |error: tidelog_warm::WarmError| Disabled::Broken { reason: error.to_string() };
    let out = lane.scratch(u64::from(COUNT) * 4).map_err(broken)?;
    lane.stream.launch("probe", 1, &ProbeArgs { out, seed: SEED, count: COUNT }).map_err(broken)?;
    let found: Vec<u32> = lane.stream.download(out, COUNT as usize).map_err(broken)?;
    lane.reset();
    let value = |thread: u32| SEED.wrapping_add(thread);
    let all = (0..COUNT).fold(0_u32, |sum, thread| sum.wrapping_add(value(thread)));
    let mut before = 0_u32;
    for (thread, found) in (0..COUNT).zip(found) {
        if found != before ^ all {
            return Err(Disabled::SelfTest);
        }
        before = before.wrapping_add(value(thread));
    }
    Ok(())
}
