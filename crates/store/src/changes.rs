//! The versions of a store as they land, from any process.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use futures::stream;
use tidelog_core::{CommitVersion, PathPattern};
use tidelog_oplog::{EntryType, Followed, Follower, Row, VersionRow};

use crate::engine::Engine;
use crate::error::Error;

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A shorter interval would keep a core busy and tell nothing sooner.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Which versions to tell of, and how soon.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FollowOptions {
    /// Only versions whose series had such a path when they were written.
    pub pattern: Option<PathPattern>,
    /// Only versions of commits after this one; `None` stands for the newest.
    pub since: Option<CommitVersion>,
    /// How long to wait before looking again when there was nothing new.
    pub poll_interval: Duration,
}

impl Default for FollowOptions {
    /// All series, from now on, twice a second.
    fn default() -> Self {
        Self { pattern: None, since: None, poll_interval: POLL_INTERVAL }
    }
}

impl Engine {
    /// The versions that are committed from now on, or after the commit that the options name, in
    /// the order of the log. Each is told once. The stream waits without end for more; it makes one
    /// request each interval, and none when it is not polled. It ends after an error.
    ///
    /// # Errors
    /// If there is no such commit yet, the path is a directory, or the log cannot be read.
    pub async fn follow(
        &self,
        options: FollowOptions,
    ) -> Result<impl Stream<Item = Result<VersionRow, Error>> + Send + use<>, Error> {
        let follower = self.log().follow(options.since).await?;
        if let Some(path) = options.pattern.as_ref().and_then(PathPattern::as_path) {
            let node = self.log().snapshot().tree().resolve(&path).cloned();
            if node.is_some_and(|node| node.entry == EntryType::Directory) {
                return Err(Error::WrongEntry { path, expected: "series" });
            }
        }
        let state = Changes { follower, options, pending: VecDeque::new() };
        Ok(stream::try_unfold(state, |mut state| async move {
            let row = state.next().await?;
            Ok(Some((row, state)))
        }))
    }
}

struct Changes {
    follower: Follower,
    options: FollowOptions,
    /// Versions of the commit that was read last.
    pending: VecDeque<VersionRow>,
}

impl Changes {
    async fn next(&mut self) -> Result<VersionRow, Error> {
        loop {
            if let Some(row) = self.pending.pop_front() {
                return Ok(row);
            }
            match self.follower.next().await? {
                Some(followed) => self.take(followed),
                None => {
                    tokio::time::sleep(self.options.poll_interval.max(POLL_INTERVAL_MIN)).await;
                }
            }
        }
    }

    fn take(&mut self, followed: Followed) {
        let pattern = self.options.pattern.as_ref();
        let wanted = |row: &VersionRow| pattern.is_none_or(|pattern| pattern.matches(&row.path));
        self.pending.extend(followed.rows.into_iter().filter_map(|row| match row {
            Row::Version(row) if wanted(&row) => Some(row),
            _ => None,
        }));
    }
}
