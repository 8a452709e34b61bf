//! What a reader needs to know of the machine that measured: its size and software, never its name or paths.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    pub(crate) filesystem: String,
}

impl Machine {
    /// The facts of this machine, and of the file system that holds `work`.
    pub(crate) fn describe(work: &Path) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_gib(&read("/proc/meminfo")),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/mounts"), work).unwrap_or_else(unknown),
        }
    }
}

/// The high-water mark of this process' resident memory, in bytes.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    kibibytes(&read("/proc/self/status"), "VmHWM").map(|kib| kib * 1024)
}

/// This process' resident memory now, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    kibibytes(&read("/proc/self/status"), "VmRSS").map(|kib| kib * 1024)
}

/// Threads of this process.
pub(crate) fn threads() -> Option<i64> {
    field(&read("/proc/self/status"), "Threads")?.parse().ok()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.trim_end_matches("kB").trim().parse().ok()
}

fn memory_gib(meminfo: &str) -> f64 {
    let kib = kibibytes(meminfo, "MemTotal").unwrap_or(0);
    (kib as f64 / 1_048_576.0 * 10.0).round() / 10.0
}

/// The type of the innermost mount that holds `path`.
fn filesystem(mounts: &str, path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let held = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        path.starts_with(at).then_some((at.len(), kind))
    });
    // Of mounts at one place the last hides the others.
    held.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_names_the_file_system() {
        let mounts = "a / ext4 rw 0 0\nb /proc proc rw 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/proc/self")).as_deref(), Some("proc"));
        assert_eq!(filesystem(mounts, Path::new("/usr")).as_deref(), Some("ext4"));
    }

    #[test]
    fn kernel_files_are_read_by_field() {
        assert_eq!(kibibytes("VmPeak:\t 9 kB\nVmHWM:\t  1024 kB\n", "VmHWM"), Some(1024));
        assert!((memory_gib("MemTotal:       25165824 kB\n") - 24.0).abs() < 1e-9);
        assert_eq!(field("model name\t: Some CPU\n", "model name").as_deref(), Some("Some CPU"));
    }
}
