//! Who alone may write to a store, who has taken it over, and how much of a write-ahead log its commits
//! cover.

use std::fmt;
use std::sync::Arc;

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

/// The end of a claim whose owner did not end it. What that owner has acknowledged and not committed is
/// in its write-ahead log only from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakeOver {
    /// The claim that was ended.
    pub epoch: Uuid,
    /// The write-ahead log that the claim named.
    pub wal: WalId,
    /// The name of the machine of who took the store over.
    pub host: String,
    /// The process there.
    pub pid: u32,
    /// When that was.
    pub since: WriteTime,
}

impl TakeOver {
    /// The end of `claim` by a process, to be recorded.
    #[must_use]
    pub fn new(claim: &Epoch, host: impl Into<String>, pid: u32) -> Self {
        let since = WriteTime::default();
        Self { epoch: claim.id, wal: claim.wal, host: host.into(), pid, since }
    }
}

impl fmt::Display for TakeOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, at {}", self.pid, self.host, self.since)
    }
}

/// The detail of a claim or of its end in its row.
#[derive(Serialize, Deserialize)]
struct Detail {
    epoch: String,
    wal: String,
    host: String,
    pid: u32,
}

/// The take-overs of each write-ahead log's last claim.
pub(crate) type Fenced = HashTrieMapSync<WalId, Arc<TakeOver>>;

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

pub(crate) fn encode_take_over(take_over: &TakeOver) -> serde_json::Result<String> {
    serde_json::to_string(&Detail {
        epoch: take_over.epoch.to_string(),
        wal: take_over.wal.to_string(),
        host: take_over.host.clone(),
        pid: take_over.pid,
    })
}

pub(crate) fn decode_take_over(detail: &str, since: WriteTime) -> Result<TakeOver, String> {
    let Epoch { id, wal, host, pid, since } = decode(detail, since)?;
    Ok(TakeOver { epoch: id, wal, host, pid, since })
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
