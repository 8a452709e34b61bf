//! The suite on the host, and what only the host promises.

use super::HostBackend;
use crate::suite;

#[test]
fn host_memory_passes_the_suite() {
    let report = suite::run(&HostBackend::new(256 << 20), 1, 150);
    println!("{report}");
    assert!(report.passed(), "{report}");
}
