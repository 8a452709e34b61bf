//! What a device can do at best, to say how near requests come to it.

use std::time::Instant;

use tidelog_warm::WarmError;

use crate::arena::Arena;
use crate::lane::Lane;

/// Rates of copies, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Ceilings {
    /// Within the device's memory: bytes read and bytes written, added up.
    pub device: f64,
    /// From pinned memory of the host to the device.
    pub to_device: f64,
    /// From the device to pinned memory of the host.
    pub from_device: f64,
}

/// The most bytes of a copy within the device: several times what its caches hold.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// Measures copies, once to warm up and then so many times each.
pub(crate) fn measure(
    lane: &mut Lane,
    arena: &std::sync::Arc<Arena>,
    times: u32,
) -> Result<Ceilings, WarmError> {
    let mut bytes = COPY_BYTES_MAX;
    let (from, to) = loop {
        match (arena.take(bytes), arena.take(bytes)) {
            (Ok(from), Ok(to)) => break (from, to),
            (Err(error), _) | (_, Err(error)) if bytes <= 1 << 20 => return Err(error),
            _ => bytes /= 2,
        }
    };
    let mut copy = |times: u32| {
        for _ in 0..times {
            lane.stream.copy(from.start(), to.start(), bytes)?;
        }
        lane.stream.wait()?;
        Ok::<_, WarmError>(2 * bytes * u64::from(times))
    };
    copy(1)?;
    let device = rate(|| copy(times))?;
    lane.stream.copy_pinned(from.start(), true, 1)?;
    let to_device = rate(|| lane.stream.copy_pinned(from.start(), true, times))?;
    let from_device = rate(|| lane.stream.copy_pinned(from.start(), false, times))?;
    Ok(Ceilings { device, to_device, from_device })
}

fn rate(work: impl FnOnce() -> Result<u64, WarmError>) -> Result<f64, WarmError> {
    let start = Instant::now();
    let bytes = work()?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}
