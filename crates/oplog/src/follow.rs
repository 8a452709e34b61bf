//! Following the log: the rows of each commit, in order, as it lands.
//!
//! A follower keeps no state of the log but a number. It asks for the next commit, one request each
//! time, and reads the rows that are new with it, from inside a small commit or from its part; parts
//! that upkeep has merged hold rows that were told before.
//!
//! Invariants:
//! 1. Every commit after the first is told once, in order; after an error the same one is tried
//!    again.
//! 2. That the next commit is absent is believed only while it cannot have been deleted: the log was
//!    seen whole less than half its retention ago, or the commit before is still there. Commits are
//!    deleted oldest first, so one that is there proves that none after it has been.

use std::sync::Arc;
use std::time::Duration;

use tidelog_core::CommitVersion;

use crate::commit;
use crate::error::Error;
use crate::log::{Log, Moment};
use crate::row::Row;

/// Reads commits one after the other as they land.
#[derive(Debug)]
pub struct Follower {
    log: Log,
    last: CommitVersion,
    retention: Duration,
    /// When `last` was last known to be the newest commit; `None` before it was for the first time.
    confirmed: Option<Moment>,
}

/// The rows that one commit brought.
#[derive(Debug)]
#[non_exhaustive]
pub struct Followed {
    /// Its number.
    pub commit: CommitVersion,
    /// Its rows, in the order in which they were recorded.
    pub rows: Vec<Row>,
}

impl Log {
    /// Begins to follow the log, after the commit `since` or else after the newest.
    ///
    /// # Errors
    /// [`Error::NoCommit`] if there is no such commit yet; damage, or the store's failure.
    pub async fn follow(&self, since: Option<CommitVersion>) -> Result<Follower, Error> {
        let asked = Moment::now(self.env());
        let snapshot = self.refresh().await?;
        let head = snapshot.head();
        let retention = snapshot.retention();
        let last = since.unwrap_or(head);
        if last > head {
            return Err(Error::NoCommit { commit: last, head });
        }
        let confirmed = (last == head).then_some(asked);
        Ok(Follower { log: self.clone(), last, retention, confirmed })
    }
}

impl Follower {
    /// The newest commit that has been told.
    #[must_use]
    pub fn last(&self) -> CommitVersion {
        self.last
    }

    /// The next commit, if it has landed.
    ///
    /// # Errors
    /// [`Error::SnapshotExpired`] if what is to come next has been let go; damage, or the store's
    /// failure. Nothing is skipped.
    pub async fn next(&mut self) -> Result<Option<Followed>, Error> {
        let wanted = self.last.next();
        let asked = Moment::now(self.log.env());
        let objects = self.log.objects();
        let Some(commit) = objects.commit(wanted).await? else {
            if self.may_be_expired(asked) && !objects.has_commit(self.last).await? {
                let object = commit::object_of(&objects.prefix, wanted).to_string();
                return Err(Error::SnapshotExpired { object });
            }
            self.confirmed = Some(asked);
            return Ok(None);
        };
        let rows = match objects.new_rows(&commit, |_| true).await {
            Ok(rows) => rows,
            Err(error) => {
                let parts: Vec<_> = commit.parts.into_iter().map(Arc::new).collect();
                return Err(self.log.explain_loss(error, &parts).await);
            }
        };
        self.last = wanted;
        Ok(Some(Followed { commit: wanted, rows }))
    }

    /// Whether the commit after the last may have been deleted already. Reading a commit does not
    /// confirm that it was the newest: a follower that is catching up may be among those that go.
    fn may_be_expired(&self, now: Moment) -> bool {
        self.confirmed.is_none_or(|then| then.until(now) > self.retention / 2)
    }
}
