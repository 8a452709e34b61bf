//! What a user may choose of the warm tier.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidelog_warm::WarmBackend;

/// Bytes of a device's memory that are taken, if nothing else is said.
const DEVICE_BYTES: u64 = 2 << 30;

/// Where segments lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarmPlace {
    /// Nowhere: there is no warm tier.
    Off,
    /// On a device if this program can use one, otherwise in the host's memory.
    #[default]
    Auto,
    /// In the host's memory.
    Host,
    /// On an NVIDIA GPU. Where there is none that will do, in the host's memory, with a warning.
    Cuda,
}

/// What is kept warm without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WarmKeep {
    /// Nothing.
    Off,
    /// What one writer alone flushes.
    #[default]
    Flushed,
    /// This too, and of every series what is not older than its newest row by more than this, by event
    /// time.
    Recent(Duration),
}

/// Opens devices for the warm tier: the seam through which a program brings them in.
pub trait WarmDevices: fmt::Debug + Send + Sync {
    /// Opens the device of this number, and takes so many bytes of its memory.
    ///
    /// Blocks, for up to a second.
    ///
    /// # Errors
    /// Why there is no such device, or why it will not do, as a text for people.
    fn open(&self, device: usize, bytes: u64) -> Result<Arc<dyn WarmBackend>, String>;
}

/// Settings of the warm tier.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WarmOptions {
    /// Where segments lie. Default: [`WarmPlace::Auto`].
    pub place: WarmPlace,
    /// Number of the device, as `CUDA_VISIBLE_DEVICES` counts them. Default: 0.
    pub device: usize,
    /// Bytes that segments may take. `None` is a quarter of the memory budget, or 2 GiB of a device. In the
    /// host's memory it is at most half of the budget.
    pub bytes_max: Option<u64>,
    /// What is kept warm without being asked for. Default: [`WarmKeep::Flushed`].
    pub keep: WarmKeep,
    /// What opens devices. Default: nothing does.
    pub devices: Option<Arc<dyn WarmDevices>>,
}

impl WarmOptions {
    /// Whether there is no warm tier.
    pub(crate) fn is_off(&self) -> bool {
        self.place == WarmPlace::Off
    }

    /// Bytes that segments may take in the host's memory, of a memory budget of `limit` bytes.
    pub(crate) fn host_bytes_max(&self, limit: u64) -> u64 {
        self.bytes_max.map_or(limit / 4, |bytes| bytes.min(limit / 2))
    }

    /// Bytes of a device's memory that are taken.
    pub(crate) fn device_bytes(&self) -> u64 {
        self.bytes_max.unwrap_or(DEVICE_BYTES)
    }
}
