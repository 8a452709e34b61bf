//! The rows of a commit while its members are added one after the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_core::{CommitVersion, Env, FileId, NodeId, TransactionId, Version, WalId, WriteTime};
use tidelog_oplog::{
    Epoch, Expired, FileOp, FileRow, History, Log, Merged, Row, SeriesState, Snapshot, StoreOp,
    TakeOver, VersionOp, VersionRow,
};
use uuid::Uuid;

use super::own::{Own, fenced};
use super::work::{Compaction, Flush, Recovery, Rejected, SeriesAppend, TreeChange, Work};
use crate::error::Error;
use crate::tree_draft::TreeDraft;

/// The rows of a commit while its members are added one after the other.
pub(crate) struct Draft<'a> {
    pub(crate) log: &'a Log,
    /// The claim of this handle.
    own: Option<Own>,
    pub(crate) base: Snapshot,
    pub(crate) tree: TreeDraft,
    /// What is kept of the history, the changes of this draft included.
    pub(crate) history: History,
    heads: HashMap<NodeId, Version>,
    given_ids: HashSet<(NodeId, TransactionId)>,
    /// Files that are removed.
    pub(crate) removed: HashSet<FileId>,
    pub(crate) rows: Vec<Row>,
    pub(super) merged: Vec<Merged>,
    pub(super) covers: Option<(WalId, u64)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(log: &'a Log, env: &'a Env, own: Option<Own>, base: Snapshot) -> Self {
        let tree = TreeDraft::new(env.clone(), base.tree().clone(), base.last_write());
        let history = base.history().clone();
        Self {
            log,
            own,
            base,
            tree,
            history,
            heads: HashMap::new(),
            given_ids: HashSet::new(),
            removed: HashSet::new(),
            rows: Vec::new(),
            merged: Vec::new(),
            covers: None,
        }
    }

    /// Adds all rows of one member, or none.
    pub(super) async fn add(&mut self, work: &Work) -> Result<Vec<(Version, WriteTime)>, Rejected> {
        let (rows, tree, heads) = (self.rows.len(), self.tree.clone(), self.heads.clone());
        let history = self.history.clone();
        let added = match work {
            Work::Append(appends) => self.add_appends(appends).await,
            Work::Tree(change) => self.add_change(change).map(|()| Vec::new()),
            Work::Flush(flush) => self.add_flush(flush).map(|()| Vec::new()),
            Work::Recover(recovery) => self.add_recovery(recovery).await,
            Work::Claim(epoch) => self.add_claim(epoch).map(|()| Vec::new()),
            Work::Release(epoch) => self.add_release(*epoch).map(|()| Vec::new()),
            Work::TakeOver(end) => self.add_take_over(end).map(|()| Vec::new()),
            Work::Merge(merged) => self.add_merge(merged).map(|()| Vec::new()),
            Work::Vacuum(expired) => self.add_vacuum(expired).map(|()| Vec::new()),
            Work::Compact(compaction) => self.add_compaction(compaction).await.map(|()| Vec::new()),
            Work::Revise(revision) => self.add_revision(revision).await.map(|one| vec![one]),
            Work::History(change) => self.add_history(change).map(|()| Vec::new()),
            Work::VacuumFiles(doomed) => self.add_vacuum_files(doomed).await.map(|()| Vec::new()),
        };
        if added.is_err() {
            self.rows.truncate(rows);
            (self.tree, self.heads, self.history) = (tree, heads, history);
        }
        added
    }

    /// Versions are numbered and the tree is changed by nobody but who has claimed the store.
    pub(crate) fn refuse_others(&self) -> Result<(), Rejected> {
        match (self.base.epoch(), self.own) {
            (Some(epoch), Some(own)) if epoch.id == own.epoch => Ok(()),
            (_, Some(own)) => Err(fenced(&self.base, own.wal).into()),
            (Some(epoch), None) => Err(Error::Claimed { epoch: epoch.to_string() }.into()),
            (None, None) => Ok(()),
        }
    }

    fn add_change(&mut self, change: &TreeChange) -> Result<(), Rejected> {
        self.refuse_others()?;
        self.tree.change(change)?;
        self.rows.extend(self.tree.take_rows().into_iter().map(Row::Tree));
        Ok(())
    }

    /// What was acknowledged keeps the numbers and times that it was acknowledged with.
    fn add_flush(&mut self, flush: &Flush) -> Result<(), Rejected> {
        match self.base.epoch() {
            Some(epoch) if epoch.id == flush.epoch => {}
            _ => return Err(fenced(&self.base, flush.wal).into()),
        }
        if self.base.covered(flush.wal) >= flush.through {
            return Err(Rejected::Stale);
        }
        // To a flush, stale is what has landed.
        if self.refuse_deleted(flush.puts_since, &flush.files).is_err() {
            return Err(Error::FilesDeleted.into());
        }
        for row in &flush.tree {
            self.tree.replay(row.clone())?;
        }
        self.rows.extend(self.tree.take_rows().into_iter().map(Row::Tree));
        for row in &flush.versions {
            self.tree.note_write(row.timestamp);
            self.rows.push(Row::Version(VersionRow::clone(row)));
        }
        let timestamp = self.tree.last_write();
        let files = flush.files.iter().cloned();
        self.rows.extend(files.map(|file| Row::File(FileRow { timestamp, ..file })));
        self.covers = Some((flush.wal, flush.through));
        Ok(())
    }

    fn add_claim(&mut self, epoch: &Epoch) -> Result<(), Rejected> {
        if let Some(held) = self.base.epoch()
            && self.own.is_none_or(|own| own.epoch != held.id)
        {
            return Err(Error::Claimed { epoch: held.to_string() }.into());
        }
        self.push_store(StoreOp::Claim(epoch.clone()))
    }

    fn add_release(&mut self, epoch: Uuid) -> Result<(), Rejected> {
        let is_held = self.base.epoch().is_some_and(|held| held.id == epoch);
        if !is_held && self.base.all_taken_over().all(|end| end.epoch != epoch) {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::Release(epoch))
    }

    fn add_take_over(&mut self, end: &TakeOver) -> Result<(), Rejected> {
        if self.base.epoch().is_none_or(|held| held.id != end.epoch) {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::TakeOver(end.clone()))
    }

    fn add_merge(&mut self, merged: &Merged) -> Result<(), Rejected> {
        // Two tasks of this handle may have merged the same parts.
        let is_taken = self.merged.iter().any(|other| other.shares_inputs_with(merged));
        if is_taken || !merged.is_live_in(&self.base) {
            return Err(Rejected::Stale);
        }
        self.merged.push(merged.clone());
        Ok(())
    }

    /// What has become part of the log since is not deleted.
    fn add_vacuum(&mut self, expired: &Expired) -> Result<(), Rejected> {
        let objects = expired.announcement(&self.base);
        if objects.is_empty() {
            return Err(Rejected::Stale);
        }
        self.push_store(StoreOp::Vacuum { objects })
    }

    /// Anybody may, also while another has the store alone: no answer changes.
    async fn add_compaction(&mut self, compaction: &Compaction) -> Result<(), Rejected> {
        let Compaction { node, inputs, outputs, .. } = compaction;
        if self.tree.tree().node(*node).is_none() || self.base.tree().node(*node).is_none() {
            return Err(Rejected::Stale);
        }
        let series = self.log.series(&self.base, *node).await?;
        let files = || inputs.iter().map(|file| file.file);
        if !series.are_live(files()) || files().any(|file| self.removed.contains(&file)) {
            return Err(Rejected::Stale);
        }
        self.refuse_deleted(compaction.puts_since, outputs)?;
        self.removed.extend(files());
        let timestamp = self.tree.last_write();
        self.rows.extend(inputs.iter().map(|file| {
            // What it said of its pages and columns stands in the row that added it.
            Row::File(FileRow {
                op: FileOp::Remove,
                timestamp,
                page_hashes: Bytes::new(),
                column_stats: Bytes::new(),
                runs: [].into(),
                ..FileRow::clone(file)
            })
        }));
        let added = outputs.iter().cloned().map(|file| FileRow { timestamp, ..file });
        self.rows.extend(added.map(Row::File));
        Ok(())
    }

    async fn add_appends(
        &mut self,
        appends: &[SeriesAppend],
    ) -> Result<Vec<(Version, WriteTime)>, Rejected> {
        self.refuse_others()?;
        let mut versions = Vec::new();
        for append in appends {
            self.add_append(append, &mut versions).await?;
        }
        Ok(versions)
    }

    /// Rows come in once: with them the commit says how far it has come.
    async fn add_recovery(
        &mut self,
        recovery: &Recovery,
    ) -> Result<Vec<(Version, WriteTime)>, Rejected> {
        if self.base.covered(recovery.wal) != recovery.after {
            return Err(Rejected::Stale);
        }
        let versions = self.add_appends(&recovery.appends).await?;
        self.covers = Some((recovery.wal, recovery.through));
        Ok(versions)
    }

    async fn add_append(
        &mut self,
        append: &SeriesAppend,
        versions: &mut Vec<(Version, WriteTime)>,
    ) -> Result<(), Rejected> {
        self.tree.settle_target(&append.path, &append.target)?;
        self.rows.extend(self.tree.take_rows().into_iter().map(Row::Tree));
        let node = append.target.node;
        self.refuse_deleted(append.puts_since, &append.files)?;
        self.refuse_known_ids(append).await?;
        let head = self.head(append).await?;
        let base = head.next();
        let mut version = head;
        for (facts, transaction) in &append.versions {
            version = version.next();
            let timestamp = self.tree.now();
            versions.push((version, timestamp));
            self.rows.push(Row::Version(VersionRow {
                op: VersionOp::Append,
                node,
                path: append.path.clone(),
                version,
                timestamp,
                rows: facts.rows,
                range: Some(facts.range),
                time_column: Arc::clone(&append.time_column),
                transaction: *transaction,
                detail: None,
                commit: CommitVersion::default(),
            }));
        }
        self.heads.insert(node, version);
        let numbered = |relative: Version| Version::new(relative.number() + base.number());
        for file in &append.files {
            self.rows.push(Row::File(FileRow {
                op: FileOp::Add,
                timestamp: self.tree.last_write(),
                min_version: numbered(file.min_version),
                max_version: numbered(file.max_version),
                version_base: base.number(),
                ..file.clone()
            }));
        }
        Ok(())
    }

    /// A write that landed before, in this draft or in the log, is not to be written again: the
    /// caller looks it up.
    async fn refuse_known_ids(&mut self, append: &SeriesAppend) -> Result<(), Rejected> {
        let node = append.target.node;
        for id in &append.given_ids {
            if !self.given_ids.insert((node, *id)) {
                return Err(Rejected::Stale);
            }
        }
        if append.given_ids.is_empty() || self.base.tree().node(node).is_none() {
            return Ok(());
        }
        let series = self.log.series(&self.base, node).await?;
        let known = |id: &TransactionId| series.find_transaction(*id).is_some();
        if append.given_ids.iter().any(known) { Err(Rejected::Stale) } else { Ok(()) }
    }

    /// Whether the draft has versions of a series.
    pub(crate) fn has_appended(&self, node: NodeId) -> bool {
        self.heads.contains_key(&node)
    }

    pub(crate) fn note_head(&mut self, node: NodeId, version: Version) {
        self.heads.insert(node, version);
    }

    /// The newest version of the append's series, those of this draft included.
    async fn head(&self, append: &SeriesAppend) -> Result<Version, Rejected> {
        let node = append.target.node;
        if let Some(head) = self.heads.get(&node) {
            return Ok(*head);
        }
        if self.base.tree().node(node).is_none() {
            return Ok(Version::NONE);
        }
        let series: Arc<SeriesState> = self.log.series(&self.base, node).await?;
        Ok(series.head())
    }
}
