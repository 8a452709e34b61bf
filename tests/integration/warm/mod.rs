//! The warm tier of the engine: what is warm is what is in files, whatever moves, fails or is let go.
//!
//! | module | asks |
//! |---|---|
//! | `moves` | is every row seen once while rows move between memory, segments and files? |
//! | `filling` | is what is made warm on purpose, or kept so, what its files say? |
//! | `device` | does all that hold with a device, emulated, and when it fails? |
//! | `failures` | does a backend that fails leave appends, flushes and answers as they were? |
//! | `room` | is memory counted, and given to others? |
//! | `seen` | helpers: the rows of a view, from memory, segments and files |

mod device;
mod failures;
mod filling;
mod moves;
mod room;
mod seen;
