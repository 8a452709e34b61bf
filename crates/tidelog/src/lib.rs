//! A versioned, filesystem-style store for time series.
//!
//! A store is a tree of paths such as `/sensors/temperature.series`. Each append to a series is a
//! durable version that stays addressable; queries read any of them, by Rust, SQL or the command
//! line, in order of event time. Everything written is a Delta table (the log) and Parquet files.
//!
//! ```
//! use std::sync::Arc;
//! use futures::TryStreamExt;
//! use tidelog::arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMillisecondArray};
//! use tidelog::{SeriesExt, Store};
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::open_or_create("memory://").await?;
//! let batch = RecordBatch::try_from_iter([
//!     ("time", Arc::new(TimestampMillisecondArray::from(vec![1_000, 2_000])) as ArrayRef),
//!     ("celsius", Arc::new(Float64Array::from(vec![20.5, 21.0]))),
//! ])?;
//! let root = store.root();
//! root.append_series_data("/sensors/temperature.series", &batch, None).await?;
//! let rows = root.read_series_time_range("/sensors/temperature.series", 0, 1_500_000_000).await?;
//! let batches: Vec<RecordBatch> = rows.try_collect().await?;
//! assert_eq!(batches[0].num_rows(), 1);
//! # Ok(())
//! # }
//! ```

pub mod builder;
pub mod changes;
pub mod directory;
pub mod error;
#[cfg(feature = "gpu")]
mod gpu;
pub mod history;
pub mod layout;
pub mod settings;
pub mod store;
pub mod stream;
pub mod wal;

pub use arrow;
pub use tidelog_query::datafusion;
pub use tidelog_storage::object_store;

pub use builder::StoreBuilder;
pub use changes::{Change, ChangeOptions, ChangeStream};
pub use directory::{AppendResults, DeleteOptions, SeriesAppend, SeriesExt, WorkingDirectory};
pub use error::{Error, Result};
pub use history::SnapshotInfo;
pub use layout::{LayoutFile, SeriesLayout};
pub use settings::{ConfigWatch, Layers, Preset, Reloaded, Settings};
pub use store::{Entry, SeriesDescription, Store, StoreStatistics, VersionInfo};
pub use stream::{SeriesStream, SqlStream};
pub use tidelog_core::env::{Clock, Env, Randomness};
pub use tidelog_core::{
    AsOf, CommitVersion, ErrorKind, EventTime, Holder, MemoryUsage, NodeId, PathPattern, TimeRange,
    TimeUnit, TransactionId, TreePath, Version, WriteTime,
};
pub use tidelog_oplog::{
    Codec, EntryType, FileOrder, Finding, Layout, LayoutChange, LayoutError, Partition,
    SeriesOptions,
};
pub use tidelog_query::{LatestOptions, ReadOptions, SqlPolicy, WarmPushDowns};
pub use tidelog_storage::ReadCacheStatistics;
#[doc(hidden)]
pub use tidelog_store::WarmDevices;
pub use tidelog_store::{
    AppendReceipt, CompactionReport, Durability, ExpireRule, ExpiredSeries, FileCount, FsckOptions,
    FsckProgress, FsckReport, Maintained, Merge, Mode, Orphan, Reason, RevisionReceipt,
    SeriesCompaction, TakenOver, TierOwner, TierStatistics, Tiers, UpkeepMode, VacuumFile,
    VacuumOptions, VacuumReason, VacuumReport, WalDurability, WarmFill, WarmKeep, WarmLeftOut,
    WarmPlace, WarmStatistics,
};
