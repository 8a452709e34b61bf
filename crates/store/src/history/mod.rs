//! What is kept of the history of a store, and what is let go of.
//!
//! - `snapshots` gives the store as it is a name, by which it stays readable.
//! - `expire` moves horizons: what lies before them can only be read by such a name.
//! - `draft` is how both become rows of a commit.
//!
//! Neither changes what is read at head, nor touches a file.

mod draft;
mod expire;
mod snapshots;

pub(crate) use draft::HistoryChange;
pub use expire::{ExpireRule, ExpiredSeries};
