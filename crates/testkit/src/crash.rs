//! Named places at which a process dies, to be chosen from outside.
//!
//! A test starts a child process with `TIDELOG_CRASH_AT=name` (the first pass) or `name:3` (the
//! third), and the process aborts there as if it had been killed: no destructor runs, nothing is
//! flushed.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The environment variable that names the place.
pub const CRASH_AT: &str = "TIDELOG_CRASH_AT";

static CHOSEN: LazyLock<Option<(String, u64)>> =
    LazyLock::new(|| std::env::var(CRASH_AT).ok().map(|text| parse(&text)));
static PASSES: LazyLock<Mutex<HashMap<String, u64>>> = LazyLock::new(Mutex::default);

fn parse(text: &str) -> (String, u64) {
    match text.rsplit_once(':') {
        Some((name, nth)) => match nth.parse() {
            Ok(nth) => (name.to_owned(), nth),
            Err(_) => (text.to_owned(), 1),
        },
        None => (text.to_owned(), 1),
    }
}

/// Aborts the process if `TIDELOG_CRASH_AT` names this place and pass.
pub fn crash_point(name: &str) {
    let Some((chosen, nth)) = CHOSEN.as_ref() else { return };
    if chosen != name {
        return;
    }
    let mut passes = PASSES.lock().unwrap_or_else(PoisonError::into_inner);
    let pass = passes.entry(name.to_owned()).or_default();
    *pass += 1;
    if *pass == *nth {
        std::process::abort();
    }
}

/// Marks a place at which the process aborts if `TIDELOG_CRASH_AT` names it.
///
/// ```
/// tidelog_testkit::crash_point!("after the append, before its ack");
/// ```
#[macro_export]
macro_rules! crash_point {
    ($name:expr) => {
        $crate::crash::crash_point($name)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_carry_the_number_of_the_pass() {
        assert_eq!(parse("here"), ("here".to_owned(), 1));
        assert_eq!(parse("here:3"), ("here".to_owned(), 3));
        assert_eq!(parse("a:b"), ("a:b".to_owned(), 1));
    }
}
