//! The tiers below a scan: Parquet files, and pieces of rows in memory that are read as files are.
//!
//! To plans a piece in memory is a file like any other, with the same statistics and partition
//! values; only the source that opens files knows the difference. What it hands to DataFusion's
//! Parquet source it hands over unchanged.
//!
//! | module | holds |
//! |---|---|
//! | [`source`] | [`TieredSource`]: DataFusion's Parquet source, with a door of its own for pieces |
//! | [`open`] | a piece fitted to the scan: expressions over its own columns, the rows to look at |
//! | [`rows`] | its rows, slice by slice |
//!
//! Invariants:
//!
//! 1. A predicate of the scan is applied to every row of a piece, as the Parquet source does to
//!    every row of a file; nothing above the scan need do it again.
//! 2. Whatever byte ranges a piece is cut into, each of its rows lies in one of them.

mod open;
mod rows;
mod source;

use std::sync::Arc;

use tidelog_store::{HotFile, SeriesSchema};

pub(crate) use source::TieredSource;

/// What marks a file of a plan as a piece in memory.
#[derive(Debug, Clone)]
pub(crate) struct HotPiece {
    pub(crate) rows: Arc<HotFile>,
    pub(crate) schema: SeriesSchema,
}
