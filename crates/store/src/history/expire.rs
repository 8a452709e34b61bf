//! Letting go of history.

use std::sync::Arc;

use tidelog_core::{NodeId, PathPattern, TreePath, Version, WriteTime};
use tidelog_oplog::{EntryType, Horizon};

use super::HistoryChange;
use crate::commit::{Rejected, Work};
use crate::engine::Engine;
use crate::error::Error;
use crate::head::Head;

/// What of the history of a series is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpireRule {
    /// All but so many of the newest versions; at least one.
    KeepVersions(u64),
    /// All versions before this one, of one series.
    BeforeVersion(Version),
    /// All that could be read as of times before this one: of a series, the versions before the one
    /// that was the newest then; of one that was removed until then, all.
    BeforeTime(WriteTime),
}

/// What has become of the history of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpiredSeries {
    /// Its path; the last one that it had, if it was removed.
    pub path: TreePath,
    /// Its id.
    pub node: NodeId,
    /// Whether it was removed.
    pub removed: bool,
    /// The first version that could be read before.
    pub first_before: Version,
    /// The first version that can be read now; one more than the newest if none can.
    pub first: Version,
    /// Its newest version.
    pub newest: Version,
}

impl Engine {
    /// Lets go of history of the series that match `pattern`: what lies before can be read only by the
    /// name of a snapshot that was made then. What is read at head does not change, and no file is
    /// touched. By time, series are taken too that matched when they were removed.
    ///
    /// Returns the series of which something was let go, in order of path. Letting go of what has gone
    /// already does nothing.
    ///
    /// # Errors
    /// If nothing matches, a version is named that the series has not, or another writer has the store
    /// for itself.
    pub async fn expire(
        &self,
        pattern: &PathPattern,
        rule: ExpireRule,
    ) -> Result<Vec<ExpiredSeries>, Error> {
        if rule == ExpireRule::KeepVersions(0) {
            return Err(Error::KeepNone);
        }
        let head = self.head().await?;
        let expired = self.to_expire(&head, pattern, rule).await?;
        let horizon = |one: &ExpiredSeries| Horizon {
            node: one.node,
            path: one.path.clone(),
            first: one.first,
        };
        let horizons: Arc<[Horizon]> = expired.iter().map(horizon).collect();
        if horizons.is_empty() {
            return Ok(expired);
        }
        let work = || Work::History(HistoryChange::Expire(Arc::clone(&horizons)));
        match self.try_commit_in_order(work).await {
            Ok(_) | Err(Rejected::Stale) => Ok(expired),
            Err(Rejected::Failed(error)) => Err(error),
        }
    }

    async fn to_expire(
        &self,
        head: &Head,
        pattern: &PathPattern,
        rule: ExpireRule,
    ) -> Result<Vec<ExpiredSeries>, Error> {
        let mut candidates = self.candidates(head, pattern, rule)?;
        candidates.sort_by(|a, b| (&a.path, a.node).cmp(&(&b.path, b.node)));
        let history = head.snapshot().history();
        let mut expired = Vec::new();
        for Candidate { path, node, removed } in candidates {
            let series = head.series(self.log(), node).await?;
            let newest = series.head();
            let first = match rule {
                ExpireRule::KeepVersions(count) => {
                    let count = i64::try_from(count).unwrap_or(i64::MAX);
                    Version::new(newest.number().saturating_sub(count).saturating_add(1))
                }
                ExpireRule::BeforeVersion(version) => {
                    let first = history.first_readable(node);
                    check_version(&path, version, first, newest)?;
                    version
                }
                ExpireRule::BeforeTime(time) if removed.is_some_and(|at| at <= time) => {
                    newest.next()
                }
                ExpireRule::BeforeTime(time) => series.version_at(time),
            };
            let first_before = history.first_readable(node);
            let removed = removed.is_some();
            if first > first_before {
                expired.push(ExpiredSeries { path, node, removed, first_before, first, newest });
            }
        }
        Ok(expired)
    }

    /// The series that a rule is about, with when they were removed.
    fn candidates(
        &self,
        head: &Head,
        pattern: &PathPattern,
        rule: ExpireRule,
    ) -> Result<Vec<Candidate>, Error> {
        let glob = || pattern.to_string();
        if let (ExpireRule::BeforeVersion(version), None) = (rule, pattern.as_path()) {
            return Err(Error::GlobVersion { pattern: glob(), asked: version.to_string() });
        }
        let found = head.tree().matching(pattern);
        let mut candidates: Vec<Candidate> = found
            .iter()
            .filter(|(_, node)| node.entry == EntryType::FileSeries)
            .map(|(path, node)| Candidate { path: path.clone(), node: node.id, removed: None })
            .collect();
        if let ExpireRule::BeforeTime(_) = rule {
            let removed = head.snapshot().removed_series()?.into_iter();
            let removed = removed.filter(|series| pattern.matches(&series.path));
            candidates.extend(removed.map(|series| Candidate {
                path: series.path,
                node: series.node,
                removed: Some(series.time),
            }));
        }
        match (candidates.is_empty(), pattern.as_path()) {
            (false, _) => Ok(candidates),
            (true, None) => Err(Error::NoMatch { pattern: glob() }),
            (true, Some(path)) if found.is_empty() => Err(Error::NotFound { path, at: None }),
            (true, Some(path)) => Err(Error::WrongEntry { path, expected: "series" }),
        }
    }
}

struct Candidate {
    path: TreePath,
    node: NodeId,
    removed: Option<WriteTime>,
}

fn check_version(
    path: &TreePath,
    asked: Version,
    first: Version,
    newest: Version,
) -> Result<(), Error> {
    if (Version::FIRST..=newest).contains(&asked) {
        return Ok(());
    }
    let reason = if newest < Version::FIRST {
        format!("it has no version yet, so there is nothing before {asked}")
    } else {
        format!("it has no {asked}; name one of {first} to {newest}")
    };
    Err(Error::Options { path: path.clone(), reason })
}
