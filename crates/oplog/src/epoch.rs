//! Who alone may write to a store, and how much of a write-ahead log its commits cover.

use std::fmt;

use rpds::HashTrieMapSync;
use serde::{Deserialize, Serialize};
use tidelog_core::{WalId, WriteTime};
use uuid::Uuid;

/// A claim of a store by one writer, which numbers versions and changes the tree alone until the
/// claim is released or taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Epoch {
    /// The claim's own id.
    pub id: Uuid,
    /// The write-ahead log in which the writer keeps what it has not committed.
    pub wal: WalId,
    /// The name of the writer's machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// When the claim was made.
    pub since: WriteTime,
}

impl Epoch {
    /// A claim by a process, to be recorded.
    #[must_use]
    pub fn new(id: Uuid, wal: WalId, host: impl Into<String>, pid: u32) -> Self {
        Self { id, wal, host: host.into(), pid, since: WriteTime::default() }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, since {}", self.pid, self.host, self.since)
    }
}

/// The detail of a claim in its row.
#[derive(Serialize, Deserialize)]
struct Detail {
    epoch: String,
    wal: String,
    host: String,
    pid: u32,
}

pub(crate) fn encode(epoch: &Epoch) -> serde_json::Result<String> {
    serde_json::to_string(&Detail {
        epoch: epoch.id.to_string(),
        wal: epoch.wal.to_string(),
        host: epoch.host.clone(),
        pid: epoch.pid,
    })
}

pub(crate) fn decode(detail: &str, since: WriteTime) -> Result<Epoch, String> {
    let Detail { epoch, wal, host, pid } =
        serde_json::from_str(detail).map_err(|error| error.to_string())?;
    let id = Uuid::try_parse(&epoch).map_err(|error| error.to_string())?;
    let wal = WalId::parse(&wal).map_err(|error| error.to_string())?;
    Ok(Epoch { id, wal, host, pid, since })
}

/// For each write-ahead log, the last of its records whose rows are in the log.
pub(crate) type Covered = HashTrieMapSync<WalId, u64>;

const PREFIX: &str = "tidelog-wal-";

/// The name of the application under which Delta keeps how much of `wal` is covered.
pub(crate) fn application_of(wal: WalId) -> String {
    format!("{PREFIX}{wal}")
}

/// The write-ahead log that the name of an application stands for, if it is one.
pub(crate) fn wal_of(application: &str) -> Option<WalId> {
    WalId::parse(application.strip_prefix(PREFIX)?).ok()
}
