//! NVIDIA GPUs for the warm tier: experimental.

use std::sync::Arc;

use tidelog_gpu::{CudaBackend, CudaSettings, SCRATCH_BYTES_MIN};
use tidelog_store::WarmDevices;
use tidelog_warm::WarmBackend;

/// Of a small budget each lane takes this part as scratch.
const SCRATCH_PART: u64 = 16;

/// Opens NVIDIA GPUs.
#[derive(Debug)]
pub(crate) struct Gpus;

impl WarmDevices for Gpus {
    fn open(&self, device: usize, bytes: u64) -> Result<Arc<dyn WarmBackend>, String> {
        let settings = CudaSettings::default().with_device(device).with_memory_bytes(bytes);
        let scratch = settings.scratch_bytes.min((bytes / SCRATCH_PART).max(SCRATCH_BYTES_MIN));
        let backend = CudaBackend::open(&settings.with_scratch_bytes(scratch));
        match backend {
            Ok(backend) => Ok(Arc::new(backend)),
            Err(disabled) => Err(disabled.to_string()),
        }
    }
}
