//! The history of a store: named snapshots, and letting go of what is old.

use std::sync::Arc;

use tidelog_core::{CommitVersion, PathPattern, SnapshotName, WriteTime};
use tidelog_oplog::NamedSnapshot;
use tidelog_store::{ExpireRule, ExpiredSeries, VacuumOptions, VacuumReport};

use crate::error::Result;
use crate::store::Store;

/// A snapshot of a store: all that was recorded until a moment, under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// Its name, as [`AsOf::Snapshot`](crate::AsOf::Snapshot) takes it.
    pub name: String,
    /// The moment.
    pub time: WriteTime,
    /// The commit that made it.
    pub commit: CommitVersion,
}

impl From<&Arc<NamedSnapshot>> for SnapshotInfo {
    fn from(made: &Arc<NamedSnapshot>) -> Self {
        Self { name: made.name.to_string(), time: made.time, commit: made.commit }
    }
}

impl Store {
    /// Gives the store as it is now a name, by which it stays readable whatever is
    /// [expired](Self::expire) later: `as_of` in Rust, `--as-of` on the command line,
    /// `series('/path', 'name')` in SQL.
    ///
    /// A name has 1 to 255 bytes, no `/` and no control characters, does not begin with `__`, and
    /// reads neither as a version nor as a time.
    ///
    /// # Errors
    /// If the text is no name or is taken, or another writer has the store for itself.
    pub async fn create_snapshot(&self, name: &str) -> Result<SnapshotInfo> {
        let name = SnapshotName::parse(name).map_err(tidelog_store::Error::from)?;
        Ok(SnapshotInfo::from(&self.engine().create_snapshot(&name).await?))
    }

    /// Takes the name from a snapshot. What only it kept readable is so no more, and can be vacuumed.
    ///
    /// # Errors
    /// If there is none of that name, or another writer has the store for itself.
    pub async fn drop_snapshot(&self, name: &str) -> Result<()> {
        let name = SnapshotName::parse(name).map_err(tidelog_store::Error::from)?;
        Ok(self.engine().drop_snapshot(&name).await?)
    }

    /// The named snapshots, by name.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        Ok(self.engine().snapshots().await?.iter().map(SnapshotInfo::from).collect())
    }

    /// Lets go of history of the series that match `pattern`, a path or a glob: what lies before can
    /// then be read only by the name of a snapshot that was made while it could. What is read at head
    /// does not change. No file is deleted; [`vacuum`](Self::vacuum) does that.
    ///
    /// By time, series are taken too that matched when they were removed. Returns the series of which
    /// something was let go, in order of path.
    ///
    /// # Errors
    /// If nothing matches, a version is named that the series has not, or another writer has the store
    /// for itself.
    pub async fn expire(&self, pattern: &str, rule: ExpireRule) -> Result<Vec<ExpiredSeries>> {
        Ok(self.engine().expire(&PathPattern::parse(pattern)?, rule).await?)
    }

    /// Finds the data files that nothing can read any more: no read at head, from the horizons on
    /// ([`expire`](Self::expire)), or of a named snapshot. It deletes them only if the options say so
    /// ([`VacuumOptions::with_apply`]), and then only what has been of no use for a day, or as long as they
    /// say. No answer changes, and it may run beside readers, writers and other vacuums.
    ///
    /// # Errors
    /// If the log cannot be read or is damaged, or the store fails. What was deleted until then stays
    /// deleted.
    pub async fn vacuum(&self, options: &VacuumOptions) -> Result<VacuumReport> {
        Ok(self.engine().vacuum(options).await?)
    }
}
