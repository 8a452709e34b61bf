//! The hot tier: rows in memory that are acknowledged and not yet in a file.
//!
//! | module | holds |
//! |---|---|
//! | `by_hand` | hot rows without a writer, for tests |
//! | `file` | [`HotFile`]: sorted rows that are planned and read as a file is |
//! | `series` | [`HotSeries`]: the versions of one series, and their rows in few pieces |
//! | `state` | [`HotState`]: all that is hot, as immutable data that clones cheaply |

mod by_hand;
mod file;
mod series;
mod state;

pub use file::HotFile;
pub(crate) use file::memory_of;
pub use series::HotSeries;
pub(crate) use state::Generation;
pub use state::HotState;
