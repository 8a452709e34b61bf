//! A change of data as rows of a commit.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use tidelog_core::{
    CommitVersion, FileId, NodeId, TimeRange, TransactionId, TreePath, Version, WriteTime,
};
use tidelog_oplog::{FileOp, FileRow, Row, SeriesState, Until, VersionOp, VersionRow};

use super::files::FileChanges;
use crate::commit::{Draft, Rejected};

/// A change of the data of a series, planned against a state of it, with files that are durable.
#[derive(Debug)]
pub(crate) struct Revision {
    pub(crate) path: TreePath,
    pub(crate) node: NodeId,
    pub(crate) op: VersionOp,
    pub(crate) time_column: Arc<str>,
    /// What was asked for.
    pub(crate) asked: Map<String, Value>,
    pub(crate) files: FileChanges,
    /// The event times that it is about, ...
    pub(crate) scope: TimeRange,
    /// ... and the files of rows that stand of which it knows.
    pub(crate) known: HashSet<FileId>,
    /// The newest version that it may follow, if not any.
    pub(crate) follows: Option<Version>,
    /// The event times that it changes, where its files do not tell.
    pub(crate) range: Option<TimeRange>,
    pub(crate) transaction: TransactionId,
    /// New identities for files all rows of which end, whose objects stay as they are.
    pub(crate) renamed: Vec<FileId>,
    /// The commit that was still to come when the first of its files was put.
    pub(crate) puts_since: CommitVersion,
}

impl Revision {
    /// Whether it knows all that it decides about.
    fn fits(&self, series: &SeriesState) -> bool {
        let in_scope = series.files_overlapping(self.scope).filter(|file| file.until.is_none());
        let mut unknown = in_scope.filter(|file| !self.known.contains(&file.file));
        let is_at = self.follows.is_none_or(|version| version == series.head());
        is_at && unknown.next().is_none() && series.are_live(self.removed().map(|file| file.file))
    }

    fn removed(&self) -> impl Iterator<Item = &Arc<FileRow>> {
        self.files.whole.iter().chain(&self.files.inputs)
    }

    fn detail(&self) -> Arc<str> {
        let mut detail = self.asked.clone();
        detail.insert("rows_ended".to_owned(), self.files.ended().0.into());
        Value::Object(detail).to_string().into()
    }

    fn version_row(&self, version: Version, timestamp: WriteTime) -> VersionRow {
        let ((_, ended), (rows, added)) = (self.files.ended(), self.files.added());
        let of_files = match (ended, added) {
            (Some(ended), Some(added)) => Some(ended.union(&added)),
            (ended, added) => ended.or(added),
        };
        VersionRow {
            op: self.op,
            node: self.node,
            path: self.path.clone(),
            version,
            timestamp,
            rows,
            range: self.range.or(of_files),
            time_column: Arc::clone(&self.time_column),
            transaction: self.transaction,
            detail: Some(self.detail()),
            commit: CommitVersion::default(),
        }
    }

    /// The rows that take files out of the series and bring others in.
    fn file_rows(&self, version: Version, timestamp: WriteTime) -> Vec<Row> {
        let until = Some(Until::All(version));
        let removed = self.removed().map(|file| FileRow {
            op: FileOp::Remove,
            page_hashes: Bytes::new(),
            column_stats: Bytes::new(),
            ..FileRow::clone(file)
        });
        let whole = self.files.whole.iter().zip(&self.renamed);
        let whole = whole.map(|(file, id)| FileRow { file: *id, until, ..FileRow::clone(file) });
        let ended = self.files.ended.iter().map(|file| FileRow { until, ..file.clone() });
        let added = self.files.added.iter().map(|file| FileRow {
            min_version: version,
            max_version: version,
            version_base: version.number(),
            ..file.clone()
        });
        let all = removed.chain(whole).chain(self.files.kept.iter().cloned());
        let all = all.chain(ended).chain(added);
        all.map(|file| Row::File(FileRow { timestamp, ..file })).collect()
    }
}

impl Draft<'_> {
    /// A change decides about all that was appended before it, so it is stale if it does not know of
    /// some of that, or files that it ends have gone.
    pub(crate) async fn add_revision(
        &mut self,
        revision: &Revision,
    ) -> Result<(Version, WriteTime), Rejected> {
        self.refuse_others()?;
        let node = revision.node;
        let is_there = |tree: &tidelog_oplog::Tree| {
            tree.resolve(&revision.path).is_some_and(|found| found.id == node)
        };
        if !is_there(self.tree.tree()) || self.base.tree().node(node).is_none() {
            return Err(Rejected::Stale);
        }
        let series = self.log.series(&self.base, node).await?;
        let removed = || revision.removed().map(|file| file.file);
        if self.has_appended(node)
            || !revision.fits(&series)
            || removed().any(|file| self.removed.contains(&file))
        {
            return Err(Rejected::Stale);
        }
        let put: Vec<FileRow> = revision.files.put().cloned().collect();
        self.refuse_deleted(revision.puts_since, &put)?;
        self.removed.extend(removed());
        let (version, timestamp) = (series.head().next(), self.tree.now());
        self.note_head(node, version);
        self.rows.push(Row::Version(revision.version_row(version, timestamp)));
        self.rows.extend(revision.file_rows(version, timestamp));
        Ok((version, timestamp))
    }
}
