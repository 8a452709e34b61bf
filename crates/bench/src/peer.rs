//! A peer: another system, driven in a child process of its own over one JSON line each way.
//!
//! The child measures its own operations, so that neither the pipe nor the translation of data weighs on it.
//! Calls block: while a peer works, nothing else here should.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::rounds::Sample;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerKind {
    ArcticDb,
    DeltaRs,
    DuckDb,
    ClickHouse,
}

impl PeerKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ArcticDb => "arcticdb",
            Self::DeltaRs => "delta-rs",
            Self::DuckDb => "duckdb",
            Self::ClickHouse => "clickhouse",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    kind: PeerKind,
    child: Child,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
}

/// The script that speaks the peers' side of the protocol.
pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/peer.py")
}

impl Peer {
    pub(crate) fn start(python: &Path, kind: PeerKind) -> Result<Self> {
        let mut child = Command::new(python)
            // No compiled files beside the scripts.
            .arg("-B")
            .arg(script())
            .arg(kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!(
                    "starting {} with {}: make the environment with crates/bench/peers/setup.sh and name it with --venv",
                    kind.name(),
                    python.display()
                )
            })?;
        let requests = child.stdin.take().context("a child without stdin")?;
        let replies = BufReader::new(child.stdout.take().context("a child without stdout")?);
        Ok(Self { kind, child, requests, replies })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Sends one request and waits for its reply.
    pub(crate) fn call<T: DeserializeOwned>(&mut self, op: &str, args: Value) -> Result<T> {
        let name = self.name();
        writeln!(self.requests, "{}", json!({ "op": op, "args": args }))
            .and_then(|()| self.requests.flush())
            .with_context(|| format!("asking {name} to {op}"))?;
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{name} ended during {op}: {}", self.child.wait()?);
        }
        let reply: Value =
            serde_json::from_str(&line).with_context(|| format!("{name} replied {line:?}"))?;
        if let Some(error) = reply.get("error") {
            bail!("{name} failed to {op}: {error}");
        }
        serde_json::from_value(reply).with_context(|| format!("{name} replied {line:?} to {op}"))
    }

    pub(crate) fn version(&mut self) -> Result<String> {
        #[derive(Deserialize)]
        struct Reply {
            version: String,
        }
        Ok(self.call::<Reply>("version", json!({}))?.version)
    }

    pub(crate) fn open(&mut self, store: &Path) -> Result<()> {
        self.call::<Value>("open", json!({ "store": store })).map(drop)
    }

    pub(crate) fn open_with_threads(&mut self, store: &Path, threads: usize) -> Result<()> {
        self.call::<Value>("open", json!({ "store": store, "threads": threads })).map(drop)
    }

    /// Names the file of batches to append from.
    pub(crate) fn stage(&mut self, data: &Path) -> Result<()> {
        self.call::<Value>("stage", json!({ "data": data })).map(drop)
    }

    /// Appends `count` staged versions from `first` on, one after the other; milliseconds of each.
    pub(crate) fn append(&mut self, first: usize, count: usize) -> Result<Vec<f64>> {
        #[derive(Deserialize)]
        struct Reply {
            times_ms: Vec<f64>,
        }
        let args = json!({ "first": first, "count": count });
        Ok(self.call::<Reply>("append", args)?.times_ms)
    }

    /// Reads the rows with event times between the two, both included, and sums up a column.
    pub(crate) fn range(&mut self, start_us: i64, end_us: i64, column: &str) -> Result<Sample> {
        #[derive(Deserialize)]
        struct Reply {
            ms: f64,
            rows: usize,
            sum: f64,
        }
        let args = json!({ "start_us": start_us, "end_us": end_us, "column": column });
        let reply: Reply = self.call("range", args)?;
        Ok(Sample { ms: reply.ms, answer: Some((reply.rows, reply.sum)) })
    }

    pub(crate) fn close(&mut self) -> Result<()> {
        self.call::<Value>("close", json!({})).map(drop)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What has to reach the disk was closed by a call; a child without its parent must not stay behind.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
