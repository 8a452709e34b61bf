//! What all workloads share: where they work, where the peers are, where results go.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::peer::{Peer, PeerKind};

/// Flags of every workload.
#[derive(Args, Clone, Debug)]
pub(crate) struct CommonArgs {
    /// Folder for stores and data; stores built here with the same sizes are used again
    #[arg(long, default_value = "target/bench", global = true)]
    work: PathBuf,
    /// Python environment of the peers, made by crates/bench/peers/setup.sh
    #[arg(long, default_value = ".venv/bench", global = true)]
    venv: PathBuf,
    /// Folder of the result documents
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"), hide_default_value = true, global = true)]
    results: PathBuf,
    /// Leave the Python peers out: a smoke test, with fewer figures
    #[arg(long, global = true)]
    no_peers: bool,
    /// Seed of the generated data
    #[arg(long, default_value_t = 123, global = true)]
    seed: u64,
}

/// The flags, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) work: PathBuf,
    pub(crate) results: PathBuf,
    pub(crate) seed: u64,
    /// How to run this again, without the paths of this machine.
    pub(crate) command: String,
    python: Option<PathBuf>,
}

impl CommonArgs {
    pub(crate) fn resolve(&self) -> Result<Common> {
        fs::create_dir_all(&self.work)
            .with_context(|| format!("creating {}", self.work.display()))?;
        Ok(Common {
            // The peers run elsewhere: they need it absolute.
            work: self.work.canonicalize()?,
            results: self.results.clone(),
            seed: self.seed,
            command: command_line(std::env::args().skip(1)),
            python: (!self.no_peers).then(|| self.venv.join("bin/python")),
        })
    }

    pub(crate) fn results(&self) -> &Path {
        &self.results
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

impl Common {
    #[cfg(test)]
    pub(crate) fn for_test(folder: &Path) -> Self {
        let (work, results) = (folder.join("work"), folder.join("results"));
        Self { work, results, seed: 1, command: "test".to_owned(), python: None }
    }

    /// Starts a peer, or none where peers are left out.
    pub(crate) fn peer(&self, kind: PeerKind) -> Result<Option<Peer>> {
        self.python.as_deref().map(|python| Peer::start(python, kind)).transpose()
    }

    pub(crate) fn python(&self) -> Option<&Path> {
        self.python.as_deref()
    }

    /// An empty folder below the work folder.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let folder = self.work.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("clearing {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// A folder that is built once and marked when complete, so that a later run with the same parameters reuses it
/// and a build cut short is done again.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) folder: PathBuf,
    marker: PathBuf,
    parameters: Value,
}

impl Built {
    /// The folder `name`, with what its build had noted if it is complete for these parameters.
    pub(crate) fn find(
        common: &Common,
        name: &str,
        parameters: Value,
    ) -> Result<(Self, Option<Value>)> {
        let marker = common.work.join(format!("{name}.built.json"));
        let noted = fs::read_to_string(&marker).ok();
        let noted: Option<Value> = noted.and_then(|text| serde_json::from_str(&text).ok());
        let notes = noted.filter(|found| found.get("parameters") == Some(&parameters));
        let notes = notes.and_then(|found| found.get("notes").cloned());
        let folder = if notes.is_some() {
            common.work.join(name)
        } else {
            Self::clear(common, name, &marker)?
        };
        Ok((Self { folder, marker, parameters }, notes))
    }

    fn clear(common: &Common, name: &str, marker: &Path) -> Result<PathBuf> {
        if marker.exists() {
            fs::remove_file(marker)?;
        }
        common.fresh(name)
    }

    /// Marks the folder as complete.
    pub(crate) fn complete(&self, notes: &Value) -> Result<()> {
        let text = serde_json::json!({ "parameters": self.parameters, "notes": notes });
        Ok(fs::write(&self.marker, serde_json::to_string_pretty(&text)?)?)
    }
}

/// The bytes of all files below a folder; a file that goes while they are counted counts nothing.
pub(crate) fn stored_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(facts) = entry.metadata() else { continue };
        total += if facts.is_dir() { stored_bytes(&entry.path())? } else { facts.len() };
    }
    Ok(total)
}

/// The command that repeats this run; flags that name places of this machine are dropped.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    const PLACES: [&str; 3] = ["--work", "--venv", "--results"];
    let mut line = vec!["cargo run --release -p tidelog-bench --".to_owned()];
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let flag = argument.split('=').next().unwrap_or_default();
        if !PLACES.contains(&flag) {
            line.push(argument);
        } else if flag == argument {
            arguments.next();
        }
    }
    line.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_command_names_no_place_of_this_machine() {
        let arguments = ["range", "--work", "/x", "--rounds", "9", "--venv=/y"];
        let line = command_line(arguments.iter().map(ToString::to_string));
        assert_eq!(line, "cargo run --release -p tidelog-bench -- range --rounds 9");
    }

    #[test]
    fn a_build_is_reused_only_when_complete_and_alike() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let common = Common::for_test(folder.path());
        let parameters = |n: u64| serde_json::json!({ "n": n });
        let (built, notes) = Built::find(&common, "a", parameters(1))?;
        assert_eq!(notes, None);
        assert_eq!(Built::find(&common, "a", parameters(1))?.1, None, "not complete yet");
        built.complete(&serde_json::json!({ "bytes": 3 }))?;
        assert!(Built::find(&common, "a", parameters(1))?.1.is_some());
        assert_eq!(Built::find(&common, "a", parameters(2))?.1, None, "other parameters");
        Ok(())
    }
}
