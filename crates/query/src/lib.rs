//! Queries over series.
//!
//! ```text
//! SQL ─ limits ─ policy ─ resolve paths ─┐
//!                                        ▼
//! read options ───────────────▶ SeriesTable: prune by the log
//!                                        ▼
//!                     SeriesSource: files in parallel, or chained and merged in order
//!                                        ▼
//!                     Parquet: row groups, pages, rows
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`session`] | [`Queries`]: SQL over a store, plans and their execution |
//! | [`table`] | [`SeriesTable`]: one or more series as a table provider |
//! | `scan` | the data source underneath: layout, order, merge, statistics |
//! | `condition` | conditions on rows for changes of data, which read files without a plan |
//! | `time_filter` | ranges of event time out of filter expressions |
//! | `round_literals` | comparisons of a time column with a finer literal |
//! | `rules` | physical rules: aggregates answered from the log, newest rows of keys, one stream |
//! | `catalog`, `functions`, `log_tables`, `tiers_table` | names in SQL |
//! | [`limits`], [`policy`] | what a statement may be and do |
//! | `effort` | how much planning a statement is worth |
//! | `pool` | the memory of queries, as part of the store's budget |
//! | `warm` | what the warm tier answers of a plan |
//! | [`read`] | reads by options, for the Rust API and the command line |
//! | [`latest`] | the newest row of each key, for the same |
//!
//! This crate owns `datafusion`.

pub mod error;
pub mod latest;
pub mod limits;
pub mod policy;
pub mod read;
pub mod session;
pub mod table;

mod catalog;
mod condition;
mod effort;
mod functions;
mod insert;
mod log_tables;
mod pool;
mod round_literals;
mod rules;
mod scan;
mod tiers_table;
mod time_filter;
mod warm;

pub use datafusion;

pub use error::Error;
pub use latest::LatestOptions;
pub use policy::SqlPolicy;
pub use read::{ReadOptions, ReadPlan};
pub use session::{Queries, QueryOptions};
pub use table::SeriesTable;
pub use warm::WarmPushDowns;
