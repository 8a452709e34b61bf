//! Seeded data, the same on every machine and in every release.
//!
//! - `rng`: the generator of numbers, kept here so that no library upgrade changes the data
//! - `sensors`: four columns, event time increasing, as a small appender would write them
//! - `tsbs`: the cpu-only schema and distributions of the Time Series Benchmark Suite

pub(crate) mod rng;
pub(crate) mod sensors;
pub(crate) mod tsbs;
