//! Reading only what may be the newest of its key.
//!
//! Under an aggregate that wants only the newest rows of each key, a row is needless once a row of
//! the same key with a later event time was passed on. Such rows are left out, wherever they lie:
//! that is always right, whatever the order of files and however they overlap. To make it pay,
//! row groups are read newest first, and before one is opened it is asked which keys it can hold:
//!
//! - all of them outdone: it is not opened at all ([`values`]);
//! - otherwise only its key columns are decoded first, and then the rest of the rows that may be
//!   the newest of their keys ([`may_be_newest`]).
//!
//! | module | holds |
//! |---|---|
//! | [`key_times`] | the newest event time of each key that was passed on |
//! | [`may_be_newest`] | that as a predicate of a Parquet scan |
//! | [`values`] | the values that a column of a row group can have, from statistics or dictionary |
//! | [`row_groups`] | the row groups of a file and the latest event time of each |
//! | [`shared`] | what the partitions of a scan share |
//! | [`read`] | a partition of the scan as a stream |
//!
//! Invariants:
//!
//! 1. A key counts only once a row of it, which passed all filters, was passed on.
//! 2. Rows of equal event time never outdo one another, so what an aggregate makes of ties is its own.
//! 3. Where anything is not known (statistics, a dictionary, memory for a key), rows are kept.

mod key_times;
mod may_be_newest;
mod read;
mod row_groups;
mod shared;
mod values;

pub(super) use shared::Newest;
