//! Changes of the tree, checked one after the other against the tree that they lead to.

use std::sync::Arc;

use tidelog_core::{CommitVersion, Env, NodeId, TreePath, WriteTime};
use tidelog_oplog::{EntryType, LayoutChange, Node, SeriesOptions, Tree, TreeOp, TreeRow};

use crate::commit::{Rejected, Target, TargetState, TreeChange};
use crate::error::Error;

/// Options that an append fixes, with the layout that the series has by now.
fn with_layout_of(options: &Arc<SeriesOptions>, found: &Node) -> Arc<SeriesOptions> {
    let layout = found.options.layout();
    if options.layout() == layout {
        return Arc::clone(options);
    }
    let laid = options.as_ref().clone().with_layout(layout);
    laid.map_or_else(|_| Arc::clone(options), Arc::new)
}

/// The tree after some changes that are not committed, and those changes.
#[derive(Debug, Clone)]
pub(crate) struct TreeDraft {
    env: Env,
    tree: Tree,
    last_write: WriteTime,
    /// The changes since they were last taken.
    rows: Vec<TreeRow>,
}

impl TreeDraft {
    pub(crate) fn new(env: Env, tree: Tree, last_write: WriteTime) -> Self {
        Self { env, tree, last_write, rows: Vec::new() }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The last write time that was given.
    pub(crate) fn last_write(&self) -> WriteTime {
        self.last_write
    }

    /// A write time of its own: later than all before.
    pub(crate) fn now(&mut self) -> WriteTime {
        self.last_write = self.env.clock.now().max(self.last_write.next());
        self.last_write
    }

    /// A write time that was given elsewhere.
    pub(crate) fn note_write(&mut self, time: WriteTime) {
        self.last_write = self.last_write.max(time);
    }

    pub(crate) fn take_rows(&mut self) -> Vec<TreeRow> {
        std::mem::take(&mut self.rows)
    }

    /// A change that was made elsewhere.
    pub(crate) fn replay(&mut self, row: TreeRow) -> Result<(), Rejected> {
        self.note_write(row.timestamp);
        self.apply(row)
    }

    /// Checks that the path still names what the append was prepared for, and makes it so if the
    /// append creates the series or gives it its schema.
    pub(crate) fn settle_target(
        &mut self,
        path: &TreePath,
        target: &Target,
    ) -> Result<(), Rejected> {
        let found = self.tree.resolve(path).cloned();
        let node = target.node;
        match (&target.state, found) {
            (TargetState::Existing, Some(found)) if found.id == node => Ok(()),
            (TargetState::WithoutSchema(schema, options), Some(found))
                if found.id == node && found.schema.is_none() =>
            {
                let options = with_layout_of(options, &found);
                self.push(TreeOp::Set, node, EntryType::FileSeries, path, |row| {
                    row.schema = Some(Arc::clone(schema.columns()));
                    row.options = Some(options);
                })
            }
            (TargetState::Absent(schema, options), None) => {
                self.create_parents(path)?;
                self.push(TreeOp::Create, node, EntryType::FileSeries, path, |row| {
                    row.schema = Some(Arc::clone(schema.columns()));
                    row.options = Some(Arc::clone(options));
                })
            }
            _ => Err(Rejected::Stale),
        }
    }

    pub(crate) fn change(&mut self, change: &TreeChange) -> Result<(), Rejected> {
        match change {
            TreeChange::Create { path, entry, options } => {
                if self.tree.resolve(path).is_some() {
                    return Err(Error::AlreadyExists { path: path.clone() }.into());
                }
                self.create_parents(path)?;
                let node = NodeId::random(self.env.randomness.as_ref());
                self.push(TreeOp::Create, node, *entry, path, |row| {
                    row.options.clone_from(options);
                })
            }
            TreeChange::Rename { from, to } => self.rename(from, to),
            TreeChange::Remove { path, recursive } => self.remove(path, *recursive),
            TreeChange::Lay { path, change } => self.lay(path, change),
        }
    }

    fn lay(&mut self, path: &TreePath, change: &LayoutChange) -> Result<(), Rejected> {
        let node = self.tree.resolve(path).cloned();
        let node = node.ok_or_else(|| Error::NotFound { path: path.clone(), at: None })?;
        if node.entry != EntryType::FileSeries {
            return Err(Error::WrongEntry { path: path.clone(), expected: "series" }.into());
        }
        let options = node.options.as_ref().clone();
        let layout = change.of(options.layout());
        let options = options
            .with_layout(layout)
            .map_err(|error| Error::Options { path: path.clone(), reason: error.to_string() })?;
        self.push(TreeOp::Set, node.id, node.entry, path, |row| {
            row.options = Some(Arc::new(options));
        })
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Rejected> {
        let refuse = |reason| Error::Move { from: from.clone(), to: to.clone(), reason };
        let node = self.tree.resolve(from).cloned();
        let node = node.ok_or_else(|| Error::NotFound { path: from.clone(), at: None })?;
        if from.is_root() {
            return Err(refuse("the root does not move; name something below it").into());
        }
        if to.starts_with(from) {
            return Err(refuse("it would lie inside itself; choose another place").into());
        }
        if self.tree.resolve(to).is_some() {
            return Err(Error::AlreadyExists { path: to.clone() }.into());
        }
        self.create_parents(to)?;
        self.push(TreeOp::Rename, node.id, node.entry, to, |_| {})
    }

    fn remove(&mut self, path: &TreePath, recursive: bool) -> Result<(), Rejected> {
        let node = self.tree.resolve(path).cloned();
        let node = node.ok_or_else(|| Error::NotFound { path: path.clone(), at: None })?;
        if path.is_root() {
            let reason = "the root cannot be removed; name something below it".to_owned();
            return Err(Error::Options { path: path.clone(), reason }.into());
        }
        if self.tree.has_children(node.id) && !recursive {
            return Err(Error::NotEmpty { path: path.clone() }.into());
        }
        self.push(TreeOp::Delete, node.id, node.entry, path, |_| {})
    }

    /// Makes the missing directories above `path`.
    fn create_parents(&mut self, path: &TreePath) -> Result<(), Rejected> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let (through, deepest) = self.tree.deepest(&parent);
        if deepest.entry != EntryType::Directory {
            return Err(Error::ThroughEntry { path: path.clone(), through }.into());
        }
        let mut missing = Vec::new();
        let mut at = parent;
        while at != through {
            missing.push(at.clone());
            at = at.parent().unwrap_or_else(TreePath::root);
        }
        for directory in missing.into_iter().rev() {
            let node = NodeId::random(self.env.randomness.as_ref());
            self.push(TreeOp::Create, node, EntryType::Directory, &directory, |_| {})?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        op: TreeOp,
        node: NodeId,
        entry: EntryType,
        path: &TreePath,
        fill: impl FnOnce(&mut TreeRow),
    ) -> Result<(), Rejected> {
        let mut row = TreeRow {
            op,
            node,
            entry,
            path: path.clone(),
            timestamp: self.now(),
            schema: None,
            options: None,
            commit: CommitVersion::default(),
        };
        fill(&mut row);
        self.apply(row)
    }

    fn apply(&mut self, row: TreeRow) -> Result<(), Rejected> {
        let path = row.path.clone();
        self.tree.apply(&row).map_err(|reason| Error::Options { path, reason })?;
        self.rows.push(row);
        Ok(())
    }
}
