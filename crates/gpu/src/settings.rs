//! What a user may choose.

/// Which device, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CudaSettings {
    /// Number of the device, as `CUDA_VISIBLE_DEVICES` counts them. Default: 0.
    pub device: usize,
    /// Bytes of its memory that are taken, segments and scratch together. Default: 2 GiB.
    pub memory_bytes: u64,
    /// Bytes of these that each of the lanes has as scratch, at least [`SCRATCH_BYTES_MIN`]. Larger ones
    /// answer large requests in fewer steps. Default: 64 MiB.
    pub scratch_bytes: u64,
    /// How many requests are answered at a time; further ones wait. Default: 2.
    pub lanes: usize,
    /// Bytes of the host's memory that are pinned for each lane, and as many for sealing, for copies in
    /// either direction. At least [`STAGING_BYTES_MIN`]. Default: 16 MiB.
    pub staging_bytes: usize,
}

/// The least scratch of a lane, in bytes.
pub const SCRATCH_BYTES_MIN: u64 = 256 << 10;
/// The least pinned memory of a lane, in bytes.
pub const STAGING_BYTES_MIN: usize = 64 << 10;

impl Default for CudaSettings {
    fn default() -> Self {
        Self {
            device: 0,
            memory_bytes: 2 << 30,
            scratch_bytes: 64 << 20,
            lanes: 2,
            staging_bytes: 16 << 20,
        }
    }
}

impl CudaSettings {
    /// Number of the device, as `CUDA_VISIBLE_DEVICES` counts them. Default: 0.
    #[must_use]
    pub const fn with_device(mut self, device: usize) -> Self {
        self.device = device;
        self
    }

    /// Bytes of the device's memory that are taken. Default: 2 GiB.
    #[must_use]
    pub const fn with_memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Bytes of these that each lane has as scratch. Default: 64 MiB.
    #[must_use]
    pub const fn with_scratch_bytes(mut self, bytes: u64) -> Self {
        self.scratch_bytes = bytes;
        self
    }

    /// How many requests are answered at a time. Default: 2.
    #[must_use]
    pub const fn with_lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// Bytes of the host's memory that are pinned for each lane. Default: 16 MiB.
    #[must_use]
    pub const fn with_staging_bytes(mut self, bytes: usize) -> Self {
        self.staging_bytes = bytes;
        self
    }
}
