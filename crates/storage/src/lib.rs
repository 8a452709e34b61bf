//! Where bytes lie: object stores that keep the promises the operation log needs.
//!
//! | module | holds |
//! |---|---|
//! | [`location`] | [`Location`]: what a user may name as a store, and how it is opened |
//! | [`options`] | [`StorageOptions`]: settings of remote stores; secrets are never shown |
//! | `remote` | clients of S3, Google Cloud Storage and Azure |
//! | [`explained`] | why a remote store refused, in words |
//! | [`retrying`] | [`Retrying`]: repeats what is safe to repeat |
//! | `at_once` | what the kernel tells without waiting |
//! | [`durable`] | [`DurableLocal`]: a local directory whose puts survive a power cut |
//! | [`fs`] | [`FileSystem`]: the seam under it, with the real [`fs::OsFileSystem`] |
//! | [`cache`] | [`ReadCache`]: a remote store's immutable objects, kept on local disk |
//! | [`counting`] | [`CountingStore`]: counts requests and bytes, for tests and `EXPLAIN` claims |
//! | [`pins`] | [`Pins`]: which states are being read on this machine |
//! | [`staged`] | [`StagedNames`]: what local puts left that never ended |
//! | [`probe`] | proof that a store lets only the first of two puts win |
//! | [`error`] | what a caller can do about an object store's error |
//!
//! This crate owns `object_store`: others take the types from [`object_store`](mod@object_store)
//! as re-exported here. It knows nothing of series, versions or formats.

mod at_once;
pub mod cache;
pub mod counting;
pub mod durable;
pub mod error;
pub mod explained;
pub mod fs;
pub mod location;
pub mod options;
pub mod pins;
pub mod probe;
mod remote;
pub mod retrying;
pub mod staged;

pub use object_store;

pub use cache::{ReadCache, ReadCacheStatistics};
pub use counting::CountingStore;
pub use durable::DurableLocal;
pub use error::{Error, kind_of};
pub use fs::{AppendFile, FileLock, FileSystem, NoLock, OsFileSystem, ReadFile};
pub use location::Location;
pub use options::StorageOptions;
pub use pins::{Pin, Pins};
pub use retrying::{RetryPolicy, Retrying};
pub use staged::{Staged, StagedNames};
