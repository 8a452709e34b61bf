//! Opening a backend, at the first seal.

use std::sync::{Arc, Weak};

use tidelog_core::memory::Lender;
use tidelog_core::{Holder, MemoryBudget};
use tidelog_warm::{HostBackend, SharedMemory, WarmBackend};

use super::options::{WarmOptions, WarmPlace};

/// An open backend.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) backend: Arc<dyn WarmBackend>,
    /// Why it is in the host's memory though a device was asked for.
    pub(super) no_device: Option<String>,
    /// Kept for the memory budget, which asks it for memory as long as it is there.
    _lender: Option<Arc<Lending>>,
}

/// Opens what the options ask for. Blocks.
pub(super) fn open(options: &WarmOptions, memory: &MemoryBudget) -> Opened {
    let no_device = match (options.place, &options.devices) {
        (WarmPlace::Auto | WarmPlace::Cuda, Some(devices)) => {
            match devices.open(options.device, options.device_bytes()) {
                Ok(backend) => return Opened { backend, no_device: None, _lender: None },
                Err(reason) => Some(reason),
            }
        }
        (WarmPlace::Cuda, None) => {
            Some("this program is built without GPUs; build it with the feature `gpu`".to_owned())
        }
        _ => None,
    };
    if let (WarmPlace::Cuda, Some(reason)) = (options.place, &no_device) {
        tracing::warn!(reason, "the warm tier is in host memory, not on a GPU");
    }
    let budget = options.host_bytes_max(memory.limit());
    let shared = Arc::new(OfBudget { memory: memory.clone() });
    let backend = Arc::new(HostBackend::new(budget).with_shared_memory(shared));
    let lender = Arc::new(Lending { backend: Arc::clone(&backend) });
    let weak: Weak<Lending> = Arc::downgrade(&lender);
    memory.lend(Holder::Warm, weak);
    Opened { backend, no_device, _lender: Some(lender) }
}

/// The memory budget, as segments see it.
#[derive(Debug)]
struct OfBudget {
    memory: MemoryBudget,
}

impl SharedMemory for OfBudget {
    fn try_take(&self, bytes: u64) -> Result<(), u64> {
        self.memory.try_grow(Holder::Warm, bytes).map_err(|shortage| shortage.free)
    }

    fn give_back(&self, bytes: u64) {
        self.memory.shrink(Holder::Warm, bytes);
    }
}

/// Segments, as the memory budget sees them.
#[derive(Debug)]
struct Lending {
    backend: Arc<HostBackend>,
}

impl Lender for Lending {
    fn give_back(&self, bytes: u64) -> bool {
        self.backend.make_room(bytes) > 0
    }
}
