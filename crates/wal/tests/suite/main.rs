//! Tests of the log as its users see it.
//!
//! | module | asks |
//! |---|---|
//! | `basics` | does it work on real files? |
//! | `damage` | is every byte that is cut, zeroed, replaced or flipped found, and torn told from damaged? |
//! | `faults` | is an acknowledged record kept whatever call fails, and is nothing acknowledged after? |
//! | `crashes` | is it kept in every state that a power cut may leave, and a second one? |
//! | `repairs` | does a repaired log go on without giving a number twice? |
//! | `model` | is it all so in random runs, beside a plain list? |
//! | `script`, `support` | helpers: runs with a list beside them, simulated disks, payloads |

#[cfg(test)]
mod basics;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod model;
#[cfg(test)]
mod repairs;
#[cfg(test)]
mod script;
#[cfg(test)]
mod support;
