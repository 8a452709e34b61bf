//! The warm tier in plans: what a scan would read of files, answered from segments in fast memory.
//!
//! A segment stands for exactly one file, which never changes; so whether rows come from the one or
//! the other can be decided for each file of a scan by itself, and while a query runs. A rule
//! ([`rule`]) divides a scan into the files that are warm and the others, and moves what stands above
//! it (a partial aggregate, a top-k, the newest rows of keys, or nothing but the scan) to the warm
//! ones, where it means the same there. What is left is planned as it was.
//!
//! ```text
//!   AggregateExec: mode=Partial             UnionExec
//!     DataSourceExec: 10 files       ──▶      WarmScanExec: 7 files, aggregate
//!                                             AggregateExec: mode=Partial
//!                                               DataSourceExec: 3 files
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`rule`] | which parts of a plan are moved, and why others are not |
//! | [`held`] | the files of a scan that are warm, and where their columns lie |
//! | [`predicate`] | filters of a scan as predicates of the backend |
//! | [`bucket`] | group expressions as buckets of time |
//! | [`request`] | what the backend is asked, and how its answer becomes columns of the plan |
//! | [`deal`] | who asks about which rows: segments dealt out to partitions |
//! | [`exec`] | [`exec::WarmScanExec`]: the node |
//! | [`stream`] | a partition of it while it runs |
//! | [`cold`] | the same rows from files, where the backend does not answer |
//! | [`switches`] | what may be moved |
//! | [`why_not`] | why something was not |
//!
//! Invariants:
//!
//! 1. Nothing is moved whose meaning differs. What the backend refuses is known when the plan is
//!    made, by the very check that it makes itself.
//! 2. A call that fails while the query runs is asked of the files instead, before any row of its
//!    answer was passed on. So each row of a file comes once, from one of the two.
//! 3. Files that are not seen whole, rows that have to be deduplicated, versions of rows: never
//!    warm.

mod bucket;
mod cold;
mod deal;
mod exec;
mod held;
mod predicate;
mod request;
mod rule;
mod stream;
mod switches;
mod why_not;

pub(crate) use rule::WarmPushDown;
pub(crate) use stream::Cancel;
pub use switches::WarmPushDowns;
