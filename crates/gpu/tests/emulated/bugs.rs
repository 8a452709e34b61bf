//! Bugs planted in kernels are caught by the tests of this program, each in a process of its own, since a
//! kernel with a bug may write anywhere.

use std::process::Command;

use tidelog_gpu_emulator::BUGS;

use crate::BUG;

/// Runs a test of segments of many tiles, with a planted bug or none; tells whether it passes.
fn passes(bug: Option<usize>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "large::a_few_requests_agree_with_host_memory"]);
    if let Some(bug) = bug {
        command.env(BUG, bug.to_string());
    }
    command.output().unwrap().status.success()
}

#[test]
fn every_planted_bug_is_caught() {
    if std::env::var_os(BUG).is_some() {
        return;
    }
    assert!(passes(None), "the tests fail without a bug");
    let missed: Vec<_> =
        (0..BUGS.len()).filter(|bug| passes(Some(*bug))).map(|bug| BUGS[bug]).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
