//! The operation log at scale: opening it, reading one of very many series, appending very often, and how many
//! round trips each takes.

pub(crate) mod cold_range;
pub(crate) mod many_commits;
pub(crate) mod many_series;
pub(crate) mod many_writers;
pub(crate) mod round_trips;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

pub(crate) const TIDELOG: &str = "tidelog";

/// Runs a hidden subcommand of this program in a fresh process; what it reports as JSON, and how long it took in
/// all, in milliseconds.
fn apart<T: DeserializeOwned>(subcommand: &str, store: &Path, rest: &[String]) -> Result<(T, f64)> {
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
