//! The engine of a store: appends become versions, versions become files, and a read gets one
//! immutable view of them.
//!
//! | module | holds |
//! |---|---|
//! | [`engine`] | [`Engine`]: an open store, changes of its tree |
//! | [`append`] | batches become versions |
//! | `commit` | the writer task: numbering, grouping, conflicts |
//! | `pace` | when a writer tries, where others write too |
//! | `recover` | what a writer has left whose store was taken over, brought in |
//! | [`series_schema`] | which column is time, which are keys |
//! | `conform`, `prepare`, `encode` | input → the series' schema → sorted rows → a Parquet file |
//! | [`pages`], [`file_reader`] | hashes of pages, and readers that check them |
//! | [`changes`] | versions as they land |
//! | [`compact`] | files kept few, large and sorted |
//! | `free` | a store that another writer has for itself, freed or taken over |
//! | [`fsck`](mod@fsck) | checks of all that is stored |
//! | [`history`] | named snapshots, and what is let go of the history |
//! | [`memory`] | how the memory budget is divided |
//! | [`names`] | which objects never change |
//! | [`revise`] | rows deleted and replaced, earlier versions restored |
//! | `right_of_way` | work in the background lets reads pass |
//! | [`tiers`] | how much is in memory and in the write-ahead log |
//! | [`upkeep`] | the log kept short: merging, checkpoints, expiry |
//! | [`vacuum`] | data files that nothing can read any more, deleted |
//! | [`wal_check`] | a write-ahead log looked at, and cut |
//! | [`warm`] | files that are in fast memory, too |
//! | [`view`] | [`SeriesView`]: one series as of one point in history |
//!
//! Invariants:
//! 1. An append is stored whole or not at all; its error says which.
//! 2. Versions of a series are dense, in the order of commits.
//! 3. A data file is durable before a commit names it.
//! 4. A view never changes, whatever is committed meanwhile.
//! 5. No byte of a data file is decoded that does not match its hash in the log.
//!
//! What is *not* here: plans, SQL and merging for reads (the query crate).

pub mod append;
pub mod changes;
pub mod compact;
pub mod engine;
pub mod error;
pub mod file_reader;
pub mod fsck;
pub mod head;
pub mod history;
pub mod hot;
pub mod memory;
pub mod names;
pub mod owner;
pub mod pages;
pub mod revise;
pub mod series_schema;
pub mod tiers;
pub mod upkeep;
pub mod vacuum;
pub mod view;
pub mod wal_check;
pub mod warm;

mod commit;
mod conform;
mod encode;
mod free;
mod pace;
mod prepare;
mod recover;
mod right_of_way;
mod tree_draft;

pub use append::{Append, AppendResults};
pub use changes::FollowOptions;
pub use compact::{CompactionOptions, CompactionReport, Merge, Reason, SeriesCompaction};
pub use engine::{AppendReceipt, Durability, Engine, EngineOptions, Mode, schema_of};
pub use error::Error;
pub use file_reader::{FileReader, FileReaders};
pub use free::TakenOver;
pub use fsck::{FsckOptions, FsckProgress, FsckReport, Orphan, fsck};
pub use head::Head;
pub use history::{ExpireRule, ExpiredSeries};
pub use hot::{HotFile, HotSeries, HotState};
pub use owner::{TierLimits, TierOptions, TierStatistics, WalDurability};
pub use recover::{RecoverOptions, RecoveredSeries, Renumbered, WalRecovery, recover_wal};
pub use revise::{RevisionReceipt, RowCondition, RowFilter};
pub use right_of_way::{Reading, RightOfWay};
pub use series_schema::{PATH_COLUMN, SeriesSchema, UNTIL_COLUMN, VERSION_COLUMN, time_values};
pub use tidelog_wal::{Damage, Holder, Report, SegmentReport, Tail};
pub use tiers::{TierOwner, Tiers};
pub use upkeep::{Maintained, UpkeepMode};
pub use vacuum::{FileCount, VacuumFile, VacuumOptions, VacuumReason, VacuumReport};
pub use view::SeriesView;
pub use wal_check::{WalRepair, WalReport, inspect_wal, repair_wal};
pub use warm::{
    WarmDevices, WarmFile, WarmFill, WarmKeep, WarmLeftOut, WarmOptions, WarmPlace, WarmStatistics,
    WarmTier,
};
