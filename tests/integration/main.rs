//! Tests of the whole of Tidelog through its public interface.
//!
//! | module | asks |
//! |---|---|
//! | `model` | does every read yield what a naive in-memory store would? |
//! | `faults` | is an acked append kept, once, whatever fails underneath? |
//! | `kill` | is it kept when the process is killed? |
//! | `compact` | does compaction leave every answer as it was, and few files? |
//! | `crash_points` | is it kept, and nothing doubled, when it dies at any change of any file? |
//! | `object_stores` | does it all hold on S3 and Google Cloud Storage, over sockets that break? |
//! | `layouts` | does a series take on the layout that it is set to, and does no answer change? |
//! | `memory` | do rows in memory, caches and queries stay within one budget? |
//! | `processes` | do eight processes that append to one series each get their versions? |
//! | `bad_input` | is bad input a typed error, and damage never a row? |
//! | `newest` | are queries for the newest rows of each key right, whatever the scan leaves out? |
//! | `owner` | is what one writer alone acknowledges visible at once, kept, and committed in the end? |
//! | `plans` | what do plans look like, and what do they open? |
//! | `races` | do writers, readers, compaction, vacuum and merges of the log do each other no harm? |
//! | `read_cache` | what does the cache of a remote store save, and does it change no answer? |
//! | `take_over` | is a store taken from who cannot go on, and nothing lost or doubled that it left? |
//! | `requests` | what is asked of the object store? |
//! | `upkeep` | does upkeep leave every answer as it was, whatever fails? |
//! | `history` | is what is kept of the history readable, and nothing deleted that is needed? |
//! | `hot` | do rows in memory answer as they would from files? |
//! | `fsck` | does a check find and name every damage, and none where there is none? |
//! | `changes` | is every version told once, as it lands? |
//! | `reworked` | helpers: a series whose data many writers change, and what must be there by its log |
//! | `settings` | does the right layer win, is what is wrong told, and do open stores take changes? |
//! | `warm` | is what is warm what is in files, whatever moves, fails or is let go? |
//! | `warm_sql` | does what is moved to the warm tier change no answer? |
//! | `staleness` | does a handle that may be stale ask for the head only when it must? |
//! | `failing_backend` | helpers: a backend of the warm tier, calls to which fail as asked |
//! | `by_hand` | helpers: stores that compact only when asked to, and rows of their versions |
//! | `support` | helpers: a store beside its model, property runs with printed seeds |

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod compact;
#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod failing_backend;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fsck;
#[cfg(test)]
mod history;
#[cfg(test)]
mod hot;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod layouts;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod model;
#[cfg(test)]
mod newest;
#[cfg(test)]
mod object_stores;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod races;
#[cfg(test)]
mod read_cache;

mod requests;
#[cfg(test)]
mod revise;
#[cfg(test)]
mod reworked;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod staleness;
#[cfg(test)]
mod support;
#[cfg(test)]
mod take_over;
#[cfg(test)]
mod upkeep;
#[cfg(test)]
mod warm;
#[cfg(test)]
mod warm_sql;
