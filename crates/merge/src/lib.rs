//! Streaming k-way merge of sorted Arrow record batches, with last-write-wins deduplication.
//!
//! The crate does no I/O and knows no runtime. A [`Merger`] is a state machine: its caller asks for
//! the next [`Step`], feeds the input that the step names, and takes the batches that come out.
//!
//! ```text
//!  push / finish           loser tree over          runs of rows           step
//!  input 0 ──► cursor ─┐   the heads' times    ┌──► dedup of the tail ──► Batch
//!  input 1 ──► cursor ─┼──► who is next? ──────┤    slice, concat or
//!  input k ──► cursor ─┘   how far may it run? └──► interleave
//! ```
//!
//! Parts: `spec` (what is merged), `chunk` (one input batch, prepared), `cursor` (a place in one
//! input), `order` (the comparison of rows), `tree` (the tournament), `gallop` (how far a run
//! goes), `window` (rows of inputs that take turns), `output` (runs to batches), `gather` (rows to columns),
//! `repeated` (the same of texts that repeat), `merger` (the state machine), and `column_merger` (a merge by
//! other columns than time).
//!
//! # Order
//!
//! Rows come out by event time, then keys (nulls first, in the order of the key columns), then
//! version, then number of the input, then position within the input, all ascending.
//!
//! # Invariants
//!
//! 1. **Order in, order out.** Inputs are sorted in the order above. Time is verified on every row;
//!    keys and versions on every row when deduplicating, where a row out of place could hide the
//!    wrong one. A violation is an error that names input and row, never output in wrong order.
//!    Without deduplication the order of rows of one input with equal times is taken as given.
//! 2. **The last row wins.** With deduplication one row per (time, keys) comes out: the last in the
//!    order above. Null keys are equal to each other. Input and batch borders make no difference.
//! 3. **Nothing is lost.** Without deduplication every row pushed comes out exactly once.
//! 4. **Memory is bounded** by one batch per input, the batch under construction, and the consumed
//!    batches that it still draws from; these are copied out of once they hold much more than what
//!    is drawn.
//! 5. **Long runs are not copied.** Rows of one input that no other input interrupts come out as
//!    slices of the batch that was pushed.
//!
//! # Algorithm
//!
//! A loser tree (tree of losers: D. E. Knuth, *The Art of Computer Programming*, volume 3, section
//! 5.4.1, "Multiway merging and replacement selection") costs one comparison per level and step.
//! Comparisons are of `i64` times; keys and versions are looked at on equal times only. The winner
//! does not yield one row but all rows before the head of the runner-up, found by galloping:
//! exponential, then binary search, as in timsort (T. Peters, *listsort.txt*; J. L. Bentley and A.
//! C. Yao, "An almost optimal algorithm for unbounded searching", 1976).
//!
//! Where inputs take turns nearly every row, the next rows of all of them are put in order together,
//! in a window that stays in the processor's cache (`window`).
//!
//! # Not here
//!
//! Reading, prefetching, filtering, sorting unsorted input, visibility of versions.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow::array::{Int64Array, RecordBatch};
//! use arrow::datatypes::{DataType, Field, Schema};
//! use tidelog_merge::{MergeSpec, Merger, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schema = Arc::new(Schema::new(vec![Field::new("time", DataType::Int64, false)]));
//! let batch = |times: Vec<i64>| {
//!     RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(times))])
//! };
//! let mut inputs = [vec![batch(vec![1, 4])?], vec![batch(vec![2, 3])?]];
//!
//! let mut merger = Merger::try_new(MergeSpec::new(Arc::clone(&schema), 0), inputs.len())?;
//! let mut merged = Vec::new();
//! loop {
//!     match merger.step()? {
//!         Step::NeedInput(input) => match inputs[input].pop() {
//!             Some(batch) => merger.push(input, batch)?,
//!             None => merger.finish(input)?,
//!         },
//!         Step::Batch(batch) => merged.push(batch),
//!         Step::Done => break,
//!     }
//! }
//! assert_eq!(merged, vec![batch(vec![1, 2, 3, 4])?]);
//! # Ok(())
//! # }
//! ```

mod chunk;
mod column_merger;
mod cursor;
mod error;
mod gallop;
mod gather;
mod merger;
mod order;
mod output;
mod ranks;
mod repeated;
mod spec;
mod tree;
mod window;

#[cfg(test)]
mod edges;
#[cfg(test)]
mod oracle;

pub use column_merger::ColumnMerger;
pub use error::Error;
pub use merger::{Merger, Step};
pub use spec::MergeSpec;
