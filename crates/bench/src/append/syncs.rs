//! How often a program makes the kernel write through to the disk, counted by strace.
//!
//! Not only calls named sync do that: a write through a descriptor opened with `O_SYNC` or `O_DSYNC` is one
//! too (LMDB commits with such writes), so both are counted.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Appends of the smaller of the two runs that are compared.
pub(super) const FEW: usize = 5;

const SYNCS: [&str; 5] = ["fsync", "fdatasync", "sync_file_range", "msync", "syncfs"];
const WRITES: [&str; 5] = ["write", "pwrite64", "writev", "pwritev", "pwritev2"];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Syncs {
    /// Calls of fsync and its relatives.
    pub(crate) calls: u64,
    /// Writes through synchronous descriptors.
    pub(crate) writes: u64,
}

/// Runs the command under strace; `None` where strace is missing or may not trace.
pub(crate) fn count(command: &[OsString], trace: &Path) -> Result<Option<Syncs>> {
    let calls = [&SYNCS[..], &WRITES[..], &["openat", "close"]].concat().join(",");
    let run = Command::new("strace")
        .args(["-f", "-s", "0", "-e"])
        .arg(format!("trace={calls}"))
        .arg("-o")
        .arg(trace)
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let Ok(status) = run else {
        eprintln!("strace is not installed: synchronous writes are not counted");
        return Ok(None);
    };
    let text = fs::read_to_string(trace).unwrap_or_default();
    if text.is_empty() {
        eprintln!("strace may not trace here: synchronous writes are not counted");
        return Ok(None);
    }
    ensure!(status.success(), "the traced program failed: {status}");
    Ok(Some(parse(&text)))
}

fn parse(trace: &str) -> Syncs {
    let mut counted = Syncs::default();
    let mut synchronous: HashSet<&str> = HashSet::new();
    let mut opening: HashSet<&str> = HashSet::new();
    for line in trace.lines() {
        let Some((thread, event)) = line.split_once(' ') else { continue };
        let event = event.trim_start();
        if event.starts_with("<... openat resumed>") {
            if opening.remove(thread) {
                synchronous.extend(returned(event));
            }
            continue;
        }
        let Some((call, arguments)) = event.split_once('(') else { continue };
        let descriptor = arguments.split([',', ')', ' ']).next().unwrap_or_default();
        if SYNCS.contains(&call) {
            counted.calls += 1;
        } else if WRITES.contains(&call) && synchronous.contains(descriptor) {
            counted.writes += 1;
        } else if call == "close" {
            synchronous.remove(descriptor);
        } else if call == "openat" && (event.contains("O_DSYNC") || event.contains("O_SYNC")) {
            if event.ends_with("<unfinished ...>") {
                opening.insert(thread);
            } else {
                synchronous.extend(returned(event));
            }
        }
    }
    counted
}

fn returned(event: &str) -> Option<&str> {
    event.rsplit_once("= ").map(|(_, value)| value.split(' ').next().unwrap_or(value))
}

/// Synchronous writes per append: the difference between a run of few appends and one of `appends` more, so
/// that what opening and closing a store costs cancels out.
pub(crate) fn per_append(
    appends: usize,
    trace: &Path,
    command: impl Fn(usize) -> Vec<OsString>,
) -> Result<Option<(f64, f64)>> {
    let Some(few) = count(&command(FEW), trace)? else { return Ok(None) };
    let many = count(&command(FEW + appends), trace)?.context("strace stopped tracing")?;
    let each = |many: u64, few: u64| (many as f64 - few as f64) / appends as f64;
    Ok(Some((each(many.calls, few.calls), each(many.writes, few.writes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_and_synchronous_writes_are_counted_once_each() {
        let trace = r#"7 openat(AT_FDCWD, "a"..., O_RDWR|O_CREAT, 0644) = 4
7 openat(AT_FDCWD, "a"..., O_WRONLY|O_DSYNC|O_CLOEXEC) = 5
8 openat(AT_FDCWD, "b"..., O_WRONLY|O_DSYNC <unfinished ...>
7 pwrite64(4, ""..., 4096, 0) = 4096
7 pwrite64(5, ""..., 120, 32) = 120
8 <... openat resumed>) = 9
8 write(9, ""..., 3) = 3
7 fdatasync(4 <unfinished ...>
8 fsync(9) = 0
7 <... fdatasync resumed>) = 0
7 close(5) = 0
7 pwrite64(5, ""..., 120, 32) = 120
7 +++ exited with 0 +++
"#;
        assert_eq!(parse(trace), Syncs { calls: 2, writes: 2 });
    }
}
