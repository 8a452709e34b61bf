//! The write-ahead log: numbered payloads that are durable once they are synced.
//!
//! | module | holds |
//! |---|---|
//! | `wal` | [`Wal`]: the owner, which appends, syncs and releases |
//! | `payload` | [`Payload`]: bytes with their hash, made by whoever appends |
//! | `records` | [`Records`]: reading in order, one record at a time |
//! | `read` | [`read()`], [`inspect`], [`is_locked`]: without owning the log |
//! | `repair` | [`repair()`]: cuts a damaged log and throws nothing away |
//! | `survey` | the longest valid prefix, and what lies behind it |
//! | `frames`, `window` | one segment, checked frame by frame |
//! | `format` | the bytes of headers |
//! | `directory` | names, id and lock |
//!
//! ```text
//! append ─▶ active segment ─▶ sync ─▶ durable        release ─▶ oldest segments removed
//! ```
//!
//! Invariants:
//! 1. Sequence numbers begin at 1 and go up by one. A number is given again only if its record was
//!    never durable; a repair leaves out what it cuts.
//! 2. What `sync` said is durable is there after a crash, or the log refuses to open.
//! 3. What was never synced is there after a crash or not; what is there is a prefix.
//! 4. After a failed sync nothing is acknowledged any more.
//! 5. One owner at a time; the active segment is never removed.
//!
//! The log is synchronous: a thread of the store drives it. It knows no series and no formats of
//! payloads, and reaches the disk only through [`tidelog_storage::FileSystem`].

mod directory;
mod error;
mod format;
mod frames;
mod open;
mod options;
mod payload;
mod read;
mod records;
mod repair;
mod survey;
mod wal;
mod window;

pub use directory::Holder;
pub use error::{Damage, Error};
pub use format::FORMAT_VERSION;
pub use options::WalOptions;
pub use payload::Payload;
pub use read::{Reading, Report, SegmentReport, Tail, inspect, is_locked, log_id, read};
pub use records::{Record, Records};
pub use repair::{Repaired, repair};
pub use tidelog_core::WalId;
pub use wal::{Appended, Wal, WalStatistics};
