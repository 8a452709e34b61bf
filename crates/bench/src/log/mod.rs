//! The operation log at scale: opening it, reading one of very many series, appending very often, and how many
//! round trips each takes.

pub(crate) mod cold_range;
pub(crate) mod many_commits;
pub(crate) mod many_series;
pub(crate) mod many_writers;
pub(crate) mod round_trips;

pub(crate) const TIDELOG: &str = "tidelog";
