//! The versions of a store as a stream, as they land.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tidelog_core::{CommitVersion, NodeId, PathPattern, TimeRange, TreePath, Version, WriteTime};
use tidelog_oplog::VersionRow;
use tidelog_store::FollowOptions;

use crate::error::{Error, Result};
use crate::store::Store;

/// A version that has landed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The path that the series had when the version was written.
    pub path: TreePath,
    /// The series, whose id survives renames.
    pub node: NodeId,
    /// The version's number.
    pub version: Version,
    /// What it did: `append`, `delete`, `replace` or `restore`.
    pub operation: &'static str,
    /// When it was recorded.
    pub write_time: WriteTime,
    /// Rows that it added.
    pub rows: u64,
    /// The event times of what it changed: of the rows that it added, and of those that it ended.
    pub range: Option<TimeRange>,
    /// What was asked for, as JSON, if it was more than to add rows: such as `from`, `to` and `where` of
    /// a delete, and how many `rows_ended`.
    pub detail: Option<String>,
    /// The commit that it landed with. Whoever has seen all changes of a commit can go on
    /// [after it](ChangeOptions::with_since) later.
    pub commit: CommitVersion,
}

impl From<VersionRow> for Change {
    fn from(row: VersionRow) -> Self {
        Self {
            path: row.path,
            node: row.node,
            version: row.version,
            operation: row.op.name(),
            write_time: row.timestamp,
            rows: row.rows,
            range: row.range,
            detail: row.detail.as_deref().map(str::to_owned),
            commit: row.commit,
        }
    }
}

/// Which changes to tell of, and how soon.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ChangeOptions {
    path: Option<String>,
    since: Option<CommitVersion>,
    poll_interval: Option<Duration>,
}

impl ChangeOptions {
    /// Tells only of the series at a path, or of those that match a glob such as `/sensors/**`. What
    /// counts is the path at the time of the write; nothing need be there yet. Default: all series.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Begins after this commit instead of now. Commit 0 stands for the beginning of the store.
    /// Default: the newest.
    #[must_use]
    pub fn with_since(mut self, commit: CommitVersion) -> Self {
        self.since = Some(commit);
        self
    }

    /// Waits so long before looking again when there was nothing new. Default: 500 ms.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = Some(interval);
        self
    }
}

/// Versions in the order of the log, each once. It waits for more without end, asks nothing while
/// it is not polled, and ends with an error or when it is dropped.
pub struct ChangeStream {
    changes: BoxStream<'static, Result<Change>>,
}

impl fmt::Debug for ChangeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeStream").finish_non_exhaustive()
    }
}

impl Stream for ChangeStream {
    type Item = Result<Change>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.poll_next_unpin(context)
    }
}

impl Store {
    /// The versions that land from this call on, or after the commit that the options name, whoever
    /// writes them. What is committed when the call returns and was not before is in the stream.
    ///
    /// An error of the kind [`SnapshotExpired`](tidelog_core::ErrorKind::SnapshotExpired) means that
    /// what would come next has been let go: the reader was away for longer than the log is kept.
    ///
    /// # Errors
    /// If there is no such commit yet, the path is none or a directory, or the log cannot be read.
    pub async fn changes(&self, options: ChangeOptions) -> Result<ChangeStream> {
        let mut follow = FollowOptions::default();
        follow.pattern = options.path.as_deref().map(PathPattern::parse).transpose()?;
        follow.since = options.since;
        follow.poll_interval = options.poll_interval.unwrap_or(follow.poll_interval);
        let rows = self.engine().follow(follow).await?;
        let changes = rows.map(|row| row.map(Change::from).map_err(Error::from));
        Ok(ChangeStream { changes: changes.boxed() })
    }
}
