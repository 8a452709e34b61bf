//! Test doubles and oracles for Tidelog. For tests only: no product crate depends on it.
//!
//! | module | holds |
//! |---|---|
//! | [`fault_fs`] | [`FaultFileSystem`]: the machine's files, whose n-th change goes wrong |
//! | [`faults`] | [`FaultStore`]: an object store that fails, delays and loses answers by script or by seed |
//! | [`forgetful_fs`] | [`ForgetfulFileSystem`]: the machine's files, whose syncs do nothing |
//! | [`s3`] | [`TestS3`]: an S3 server in this process, over real sockets, that fails by script or by seed |
//! | [`sim_fs`] | [`SimFileSystem`]: files in memory that fail on demand, and all that a power cut may leave |
//! | [`mod@env`] | [`SimClock`] and [`SeededRandomness`] behind the seams of `tidelog-core` |
//! | [`generate`] | proptest strategies for series, rows, batches, conditions and histories |
//! | [`cell`] | rows as plain values that compare and print |
//! | [`model`] | [`Model`]: the naive in-memory store that says what every read must yield |
//! | [`crash_fs`] | [`CrashFileSystem`]: the machine's files, at a chosen change of which the process dies |
//! | [`crash`] | [`crash_point!`]: named places at which a process can be made to die |
//!
//! What is *not* here: anything that knows the engine. The model shares no code with it, so that a
//! mistake has to be made twice to go unseen.

pub mod cell;
pub mod crash;
pub mod crash_fs;
pub mod env;
pub mod fault_fs;
pub mod faults;
pub mod forgetful_fs;
pub mod generate;
pub mod model;
pub mod s3;
pub mod sim_fs;

pub use cell::{Cell, CellError, Row, rows_of};
pub use crash_fs::{CrashFileSystem, CrashPlan};
pub use env::{SeededRandomness, SimClock};
pub use fault_fs::{FaultFileSystem, FileFault};
pub use faults::{Fault, FaultError, FaultStore, Hold};
pub use forgetful_fs::ForgetfulFileSystem;
pub use model::{Model, ModelAsOf, ModelError, Shape};
pub use s3::{Failure, HttpFault, S3Operation, TestS3};
pub use sim_fs::{CrashStates, SimEffect, SimFault, SimFileSystem};
