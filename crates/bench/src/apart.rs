//! Parts of a workload that run in a process of their own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

/// Runs a hidden subcommand of this program in a fresh process; what it reports as JSON, and how long it took in
/// all, in milliseconds.
pub(crate) fn apart<T: DeserializeOwned>(
    subcommand: &str,
    store: &Path,
    rest: &[String],
) -> Result<(T, f64)> {
    let started = Instant::now();
    let output = Command::new(std::env::current_exe()?)
        .arg(subcommand)
        .arg("--store")
        .arg(store)
        .args(rest)
        .stderr(Stdio::inherit())
        .output()?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    ensure!(output.status.success(), "{subcommand} failed: {}", output.status);
    Ok((serde_json::from_slice(&output.stdout).context("the report of a process")?, ms))
}
