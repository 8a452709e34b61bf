//! The warm tier: sorted segments of a series in fast memory, that answer filters, aggregates, top-k
//! and last rows where they lie.
//!
//! This crate has the trait of its backends, what they share, the backend in host memory, and the
//! suite that all of them have to pass. It does no I/O and knows no runtime.
//!
//! ```text
//!  seal    batches ─▶ WarmTable::encode ─▶ sorted by (key, time) ─▶ Segment { stats, runs, data }
//!  run     Request ─▶ Bound (checked, in images) ─▶ Bound::plan of each segment ─▶ Answer
//!  memory  Ledger: bytes, least recently used segments, counters
//! ```
//!
//! Parts: `spec` and `table` (what segments of one series share), `segment` (what is known of one),
//! `request`, `bound` (a request in the terms of a table), `answer`, `value` and `images` (values as
//! 64-bit integers that order as they do), `ledger` (budget and counters), `backend` (the trait),
//! `host` (its implementation in host memory), `suite` (its proof).
//!
//! # Invariants
//!
//! 1. **Backends agree**, in each row and bit, but for sums of floats within the bound that
//!    [`Function::Sum`] gives, and for the order of groups. They refuse the same requests, because
//!    [`Bound::try_new`] decides that, before they look at a row.
//! 2. **Nothing is guessed.** What a backend would not do exactly as the plan it stands for is
//!    [`WarmError::Unsupported`], and served from elsewhere.
//! 3. **Segments do not change.** Eviction takes a segment away from later requests, never from one
//!    that runs.
//! 4. **Counts are exact.** Rows, nulls, least and greatest values are those of the rows sealed.
//! 5. **Bytes are counted** before they are taken, and given back when the last reader has gone.
//! 6. **A failure for good is told at once**: after the first [`WarmError::Dead`] every call says so.
//!
//! # What values mean
//!
//! - Floats compare as Arrow compares them, by IEEE 754 `totalOrder`: a NaN is greater than all
//!   numbers (one with the sign set is less), equals itself, and `-0.0 < 0.0`.
//! - Nulls meet no comparison, see [`Predicate`]. As values of keys they are equal to each other, and
//!   a group.
//! - Sums of integers wrap around at 64 bits.
//! - Buckets of times before their origin are rounded down, see [`Group::TimeBucket`].
//! - Rows with equal key and time stay in the order in which they were given to
//!   [`seal`](WarmBackend::seal); across segments, in the order in which a request names these.
//!
//! # Blocking
//!
//! [`seal`](WarmBackend::seal) and [`run`](WarmBackend::run) work until they are done, on the thread
//! that calls them: call them where blocking is allowed. Who wants more cores for a request gives
//! each of them some of the segments; partial states, counts and last rows can be merged.
//!
//! The budget of a backend is for segments. What a request needs while it runs (rows picked, groups,
//! the answer) is the caller's to bound, by asking about fewer segments at a time.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampSecondArray};
//! use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
//! use tidelog_warm::{
//!     Comparison, HostBackend, Op, Output, Predicate, Request, TableSpec, TimeRange, Value,
//!     WarmBackend, WarmTable,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schema = Arc::new(Schema::new(vec![
//!     Field::new("host", DataType::Utf8, false),
//!     Field::new("time", DataType::Timestamp(TimeUnit::Second, None), false),
//!     Field::new("load", DataType::Float64, true),
//! ]));
//! let batch = RecordBatch::try_new(
//!     Arc::clone(&schema),
//!     vec![
//!         Arc::new(StringArray::from(vec!["a", "b", "a"])),
//!         Arc::new(TimestampSecondArray::from(vec![1, 2, 3])),
//!         Arc::new(Float64Array::from(vec![Some(0.5), None, Some(0.7)])),
//!     ],
//! )?;
//!
//! let backend = HostBackend::new(64 << 20);
//! let table = WarmTable::new(TableSpec::try_new(schema, 1, vec![0])?);
//! let segment = backend.seal(&table, &[batch])?;
//!
//! let busy = Predicate::compare(2, Comparison::Greater, Value::Float64(0.4));
//! let request = Request::new(Op::Count).with_time(TimeRange::new(0, 3)).with_filter(busy);
//! let answer = backend.run(&table, &[segment], &request)?;
//! assert!(matches!(answer.output, Output::Count(1)));
//! # Ok(())
//! # }
//! ```

mod answer;
mod backend;
mod bound;
mod error;
mod host;
mod images;
mod ledger;
mod request;
mod segment;
mod spec;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod table;
mod value;

pub use answer::{Answer, Output, Work};
pub use backend::WarmBackend;
pub use bound::{Bound, Bucket, Filter, Grouping, KeyGroups, Leaf, SegmentPlan, Test};
pub use error::{Invalid, Unsupported, WarmError};
pub use host::HostBackend;
pub use images::{array_of_images, image_at, image_ends};
pub use ledger::{BackendStats, Ledger, Reservation, SharedMemory};
pub use request::{
    Aggregate, BATCH_ROWS, Comparison, FetchOrder, Function, Group, Op, PREDICATE_DEPTH_MAX,
    Predicate, Request, SortKey, TOP_K_MAX, TimeRange,
};
pub use segment::{ColumnStats, KeyRuns, SEGMENT_ROWS_MAX, Segment, SegmentData, SegmentStats};
pub use spec::{Form, Place, TableSpec};
pub use table::{Encoded, KeyDirectory, WarmTable};
pub use value::{Value, f32_image, f32_of_image, f64_image, f64_of_image, u64_image, u64_of_image};
