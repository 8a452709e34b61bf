//! The operation log: what happened to a store, in order, as an append-only Delta table.
//!
//! ```text
//! <store>/_oplog/_delta_log/00000000000000000007.json   one commit: who, how many rows, which part
//! <store>/_oplog/part-<uuid>.parquet                    its rows
//! ```
//!
//! Rows come in four families ([`row`]): *tree* (create, rename, delete, set), *store*, *version*
//! (one per version of a series) and *file* (data files added and removed). Tree and store rows are
//! kept in memory whole ([`tree`]); version and file rows only of the series that somebody asked
//! for ([`series`]), because a store may have millions.
//!
//! Invariants:
//! 1. A commit is one object put if absent, so it is there whole or not at all.
//! 2. Every commit carries an id and its row count; one that is empty, short or foreign is refused
//!    as damage, never read as "nothing happened".
//! 3. Every part is verified against the hash in its commit before a row of it is believed.
//! 4. Write times and commit numbers are strictly increasing.
//! 5. A commit whose put had a doubtful outcome is read back and compared by id ([`log`]).
//!
//! What a row *means* for reads and writes (numbering, conflicts, files) is not here but in the
//! store crate; this one owns `deltalake` and the encoding.

mod carried;
pub mod check;
pub mod column_stats;
pub mod error;
pub mod follow;
pub mod hash;
pub mod history;
pub mod log;
pub mod options;
pub mod row;
pub mod series;
pub mod tree;
pub mod tree_rows;
pub mod upkeep;
mod wide_row;

mod checkpoint;
mod commit;
mod decode;
mod encode;
mod epoch;
mod fetch;
mod inline;
mod layout;
mod live_parts;
mod loaded;
mod open;
mod part;
mod schema;
mod state;
mod turn;

pub use check::{CheckedPart, Finding, LogCheck, PartRole};
pub use column_stats::{ColumnStats, StatValue};
pub use encode::to_batch as batch_of;
pub use epoch::{Epoch, TakeOver};
pub use error::Error;
pub use follow::{Followed, Follower};
pub use hash::{Hash128, Hasher128};
pub use history::{History, Horizon, HorizonMark, NamedSnapshot, RemovedSeries};
pub use layout::{Codec, FileOrder, Layout, LayoutChange, LayoutError, Partition};
pub use log::{CommitDraft, CommitOutcome, Log, LogOptions, StagedCommit};
pub use options::SeriesOptions;
pub use row::{
    EntryType, FileOp, FileRow, Row, StoreOp, StoreRow, TreeOp, TreeRow, Until, VersionOp,
    VersionRow, encode_runs,
};
pub use schema::log_schema;
pub use series::SeriesState;
pub use state::Snapshot;
pub use tree::{Node, Tree};
pub use turn::Turn;
pub use upkeep::{Ages, Expired, MergePlan, MergeScope, Merged};

/// The directory of the log below the store's root.
pub const LOG_DIRECTORY: &str = "_oplog";

/// The version of the format that this build writes and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
