//! The warm tier's backend on NVIDIA GPUs. Experimental: proven against an emulated device only.
//!
//! [`CudaBackend`] keeps segments in the memory of a device and answers requests there. Only results
//! come back. It agrees with the backend in host memory, as `tidelog_warm` says backends do.
//!
//! ```text
//!  seal   encode ─ sort (on the device) ─▶ block of the arena, an event says when it is there
//!  run    plan of each segment ─▶ spans of pieces ─▶ a lane: descriptors up, kernels, results down
//! ```
//!
//! Parts: [`open`](CudaBackend::open) looks for a driver and never panics; `modules` has the kernels,
//! compiled beforehand (`kernels/build.py`), and picks those of the device; `device` is the driver, a
//! function for each thing that is done with it, and the first error that was for good; `arena` divides
//! the memory that is taken once; a `lane` is a stream with scratch memory and pinned buffers; `span`
//! says which rows of a segment are in question, `program` which of them are kept; `seal` and `run` are
//! the backend's two halves.
//!
//! # Invariants
//!
//! 1. **No driver, no cost**: opening fails within milliseconds, starts no thread and keeps no memory.
//! 2. **Memory is taken once**, when opening. Segments and scratch never take more.
//! 3. **A block is freed** when the last request that reads it has ended, never while a kernel runs.
//! 4. **An error of the driver is for good**: it may come from any call before. The backend is dead.
//!
//! # Unsafe code
//!
//! Only `device` and `abi` have any: calls of the driver with addresses. An address is of the arena or a
//! lane's scratch, and every kernel is given the lengths of what it may touch.

mod abi;
mod arena;
mod backend;
mod ceilings;
mod device;
mod lane;
mod modules;
mod open;
mod program;
mod run;
mod seal;
mod segment;
mod settings;
mod span;

pub use backend::CudaBackend;
pub use ceilings::Ceilings;
pub use open::Disabled;
pub use settings::{CudaSettings, SCRATCH_BYTES_MIN, STAGING_BYTES_MIN};
