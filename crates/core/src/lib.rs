//! The words that every other crate of Tidelog shares.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | [`ErrorKind`]: what a caller can do about an error |
//! | [`path`] | [`TreePath`] and [`PathPattern`]: names in the tree and globs over them |
//! | [`time`] | [`EventTime`], [`WriteTime`], [`TimeUnit`], [`TimeRange`] and how people write them |
//! | [`version`] | [`Version`], [`CommitVersion`], [`AsOf`] |
//! | [`snapshot_name`] | [`SnapshotName`] |
//! | [`memory`] | [`MemoryBudget`]: memory that several holders share |
//! | [`id`] | [`NodeId`], [`FileId`], [`TransactionId`], [`WalId`] |
//! | [`mod@env`] | [`Clock`] and [`Randomness`]: the only sources of time and chance |
//!
//! There is no I/O here and no runtime; the one exception is [`env::SystemClock`] and
//! [`env::SystemRandomness`], the real implementations behind the two seams.

pub mod env;
pub mod error;
pub mod id;
pub mod memory;
pub mod path;
pub mod snapshot_name;
pub mod time;
pub mod version;

pub use env::{Clock, Env, Randomness};
pub use error::ErrorKind;
pub use id::{FileId, NodeId, TransactionId, WalId};
pub use memory::{Holder, MemoryBudget, MemoryUsage};
pub use path::{PathError, PathPattern, TreePath};
pub use snapshot_name::{SnapshotName, SnapshotNameError};
pub use time::{EventTime, TimeError, TimeRange, TimeUnit, WriteTime};
pub use version::{AsOf, CommitVersion, Version};
