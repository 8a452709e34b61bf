//! The hot tier: rows in memory that are acknowledged and not yet in a file.
//!
//! | module | holds |
//! |---|---|
//! | `by_hand` | hot rows without a writer, for tests |
//! | `file` | [`HotFile`]: sorted rows that are planned and read as a file is |
//! | `in_order` | the rows of several pieces in the order of one file, a part at a time |
//! | `series` | [`HotSeries`]: the versions of one series, and their rows in few pieces |
//! | `state` | [`HotState`]: all that is hot, as immutable data that clones cheaply |

mod by_hand;
mod file;
mod in_order;
mod series;
mod state;

pub use file::HotFile;
pub(crate) use file::memory_of;
pub(crate) use in_order::InOrder;
pub use series::HotSeries;
pub(crate) use state::Generation;
pub use state::HotState;
