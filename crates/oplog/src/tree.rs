//! The tree of paths at one point of the log.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use tidelog_core::{CommitVersion, NodeId, PathPattern, TreePath, WriteTime};

use crate::options::SeriesOptions;
use crate::row::{EntryType, TreeOp, TreeRow};

/// A node of the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id, which survives renames.
    pub id: NodeId,
    /// The directory it is in.
    pub parent: NodeId,
    /// Its name there; empty for the root.
    pub name: Arc<str>,
    /// What it is.
    pub entry: EntryType,
    /// The schema of a series, once fixed.
    pub schema: Option<SchemaRef>,
    /// The options of a series.
    pub options: Arc<SeriesOptions>,
    /// When it was created.
    pub created: WriteTime,
    /// The commit that created it.
    pub created_commit: CommitVersion,
}

type Children = RedBlackTreeMapSync<Arc<str>, NodeId>;

/// Different schemas, and options, that are kept for those series to share that come next.
const SHARED_MAX: usize = 16;

/// The tree of paths. Clones share structure.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: HashTrieMapSync<NodeId, Arc<Node>>,
    children: HashTrieMapSync<NodeId, Children>,
    /// Those of the newest series. Many series are alike.
    schemas: Arc<Vec<SchemaRef>>,
    options: Arc<Vec<Arc<SeriesOptions>>>,
}

impl Default for Tree {
    /// A tree with nothing but the root.
    fn default() -> Self {
        let root = Node {
            id: NodeId::ROOT,
            parent: NodeId::ROOT,
            name: "".into(),
            entry: EntryType::Directory,
            schema: None,
            options: Arc::default(),
            created: WriteTime::MIN,
            created_commit: CommitVersion::default(),
        };
        Self {
            nodes: HashTrieMapSync::new_sync().insert(NodeId::ROOT, Arc::new(root)),
            children: HashTrieMapSync::new_sync(),
            schemas: Arc::default(),
            options: Arc::default(),
        }
    }
}

impl Tree {
    /// The node at `path`.
    #[must_use]
    pub fn resolve(&self, path: &TreePath) -> Option<&Arc<Node>> {
        let mut id = NodeId::ROOT;
        for name in path.names() {
            id = *self.children.get(&id)?.get(name)?;
        }
        self.nodes.get(&id)
    }

    /// The deepest existing node on the way to `path`, and its path.
    #[must_use]
    pub fn deepest(&self, path: &TreePath) -> (TreePath, Arc<Node>) {
        let mut at = path.clone();
        loop {
            if let Some(node) = self.resolve(&at) {
                return (at, Arc::clone(node));
            }
            at = at.parent().unwrap_or_else(TreePath::root);
        }
    }

    /// The node with `id`.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// The path of the node with `id`, if it is in the tree.
    #[must_use]
    pub fn path_of(&self, id: NodeId) -> Option<TreePath> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(&id)?;
        while node.id != NodeId::ROOT {
            names.push(Arc::clone(&node.name));
            node = self.nodes.get(&node.parent)?;
        }
        names.iter().rev().try_fold(TreePath::root(), |path, name| path.join(name).ok())
    }

    /// The nodes in the directory `id`, by name.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = &Arc<Node>> {
        let children = self.children.get(&id);
        children.into_iter().flat_map(Children::values).filter_map(|id| self.nodes.get(id))
    }

    /// Whether the directory `id` holds anything.
    #[must_use]
    pub fn has_children(&self, id: NodeId) -> bool {
        self.children.get(&id).is_some_and(|children| !children.is_empty())
    }

    /// The nodes at or below `start` in depth-first order of names, with their paths.
    #[must_use]
    pub fn walk(&self, start: &TreePath) -> Vec<(TreePath, Arc<Node>)> {
        let mut found = Vec::new();
        let mut stack: Vec<(TreePath, Arc<Node>)> = Vec::new();
        if let Some(node) = self.resolve(start) {
            stack.push((start.clone(), Arc::clone(node)));
        }
        while let Some((path, node)) = stack.pop() {
            let below: Vec<_> = self
                .children(node.id)
                .filter_map(|child| Some((path.join(&child.name).ok()?, Arc::clone(child))))
                .collect();
            stack.extend(below.into_iter().rev());
            found.push((path, node));
        }
        found
    }

    /// The nodes whose paths match, in order of their paths; the root matches only `/`.
    #[must_use]
    pub fn matching(&self, pattern: &PathPattern) -> Vec<(TreePath, Arc<Node>)> {
        if let Some(path) = pattern.as_path() {
            return self.resolve(&path).map(|node| (path, Arc::clone(node))).into_iter().collect();
        }
        // Wildcards can only be below the directory that is spelled out before the first of them.
        let text = pattern.as_str();
        let literal = &text[..text.find(['*', '?', '[', '{', '\\']).unwrap_or(text.len())];
        let start = literal.rfind('/').map_or("/", |end| &literal[..end.max(1)]);
        let start = TreePath::parse(start).unwrap_or_else(|_| TreePath::root());
        let mut found = self.walk(&start);
        found.retain(|(path, _)| !path.is_root() && pattern.matches(path));
        found
    }

    /// How many nodes there are, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.size()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 1
    }

    /// Applies a row.
    ///
    /// # Errors
    /// Why the row cannot follow what came before, in words.
    pub fn apply(&mut self, row: &TreeRow) -> Result<(), String> {
        match row.op {
            TreeOp::Create => self.create(row),
            TreeOp::Rename => self.rename(row),
            TreeOp::Delete => self.delete(row.node),
            TreeOp::Set => self.set(row),
        }
    }

    /// The row with the schema and the options of another series, if that has the same.
    #[must_use]
    pub(crate) fn share(&mut self, mut row: TreeRow) -> TreeRow {
        row.schema = row.schema.map(|schema| shared(&mut self.schemas, schema));
        row.options = row.options.map(|options| shared(&mut self.options, options));
        row
    }

    fn place(&self, path: &TreePath) -> Result<(NodeId, Arc<str>), String> {
        let parent = path.parent().ok_or("the root cannot be made or moved")?;
        let parent = self.resolve(&parent).ok_or_else(|| format!("{path} has no parent"))?;
        if parent.entry != EntryType::Directory {
            return Err(format!("{path} lies below something that is not a directory"));
        }
        let name: Arc<str> = path.name().unwrap_or_default().into();
        if self.children.get(&parent.id).is_some_and(|c| c.contains_key(&name)) {
            return Err(format!("{path} is taken"));
        }
        Ok((parent.id, name))
    }

    fn link(&mut self, parent: NodeId, name: Arc<str>, id: NodeId) {
        let mut children = self.children.get(&parent).cloned().unwrap_or_else(Children::new_sync);
        children.insert_mut(name, id);
        self.children.insert_mut(parent, children);
    }

    fn unlink(&mut self, node: &Node) {
        if let Some(mut children) = self.children.get(&node.parent).cloned() {
            children.remove_mut(&node.name);
            self.children.insert_mut(node.parent, children);
        }
    }

    fn create(&mut self, row: &TreeRow) -> Result<(), String> {
        let (parent, name) = self.place(&row.path)?;
        let node = Node {
            id: row.node,
            parent,
            name: Arc::clone(&name),
            entry: row.entry,
            schema: row.schema.clone(),
            options: row.options.clone().unwrap_or_default(),
            created: row.timestamp,
            created_commit: row.commit,
        };
        self.nodes.insert_mut(row.node, Arc::new(node));
        self.link(parent, name, row.node);
        Ok(())
    }

    fn rename(&mut self, row: &TreeRow) -> Result<(), String> {
        let node = self.nodes.get(&row.node).cloned().ok_or("the node is unknown")?;
        let own = self.path_of(row.node).ok_or("the node is unknown")?;
        if row.path.starts_with(&own) {
            return Err(format!("{own} cannot move into itself"));
        }
        let (parent, name) = self.place(&row.path)?;
        self.unlink(&node);
        self.link(parent, Arc::clone(&name), node.id);
        self.nodes.insert_mut(node.id, Arc::new(Node { parent, name, ..(*node).clone() }));
        Ok(())
    }

    fn delete(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.nodes.get(&id).cloned().ok_or("the node is unknown")?;
        if id == NodeId::ROOT {
            return Err("the root cannot be removed".to_owned());
        }
        self.unlink(&node);
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            stack.extend(self.children(id).map(|child| child.id));
            self.children.remove_mut(&id);
            self.nodes.remove_mut(&id);
        }
        Ok(())
    }

    fn set(&mut self, row: &TreeRow) -> Result<(), String> {
        let mut node = (**self.nodes.get(&row.node).ok_or("the node is unknown")?).clone();
        node.schema = row.schema.clone().or(node.schema);
        node.options = row.options.clone().unwrap_or(node.options);
        self.nodes.insert_mut(node.id, Arc::new(node));
        Ok(())
    }
}

fn shared<T: PartialEq>(known: &mut Arc<Vec<Arc<T>>>, value: Arc<T>) -> Arc<T> {
    if let Some(same) = known.iter().rev().find(|other| **other == value) {
        return Arc::clone(same);
    }
    let known = Arc::make_mut(known);
    if known.len() == SHARED_MAX {
        known.remove(0);
    }
    known.push(Arc::clone(&value));
    value
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use tidelog_core::env::SystemRandomness;

    use super::*;

    fn row(op: TreeOp, node: NodeId, path: &str) -> TreeRow {
        TreeRow {
            op,
            node,
            entry: if path.ends_with(".s") { EntryType::FileSeries } else { EntryType::Directory },
            path: TreePath::parse(path).unwrap(),
            timestamp: WriteTime::from_micros(1),
            schema: None,
            options: None,
            commit: CommitVersion::new(1),
        }
    }

    fn paths(tree: &Tree, pattern: &str) -> Vec<String> {
        let pattern = PathPattern::parse(pattern).unwrap();
        tree.matching(&pattern).iter().map(|(path, _)| path.to_string()).collect()
    }

    #[test]
    fn a_rename_takes_along_what_is_below_and_old_clones_stay() {
        let id = || NodeId::random(&SystemRandomness);
        let (a, s) = (id(), id());
        let mut tree = Tree::default();
        tree.apply(&row(TreeOp::Create, a, "/a")).unwrap();
        tree.apply(&row(TreeOp::Create, s, "/a/x.s")).unwrap();
        let before = tree.clone();
        tree.apply(&row(TreeOp::Rename, a, "/b")).unwrap();
        assert_eq!(paths(&tree, "/**"), ["/b", "/b/x.s"]);
        assert_eq!(paths(&before, "/**"), ["/a", "/a/x.s"]);
        assert_eq!(tree.path_of(s).unwrap().as_str(), "/b/x.s");
        assert!(tree.apply(&row(TreeOp::Rename, a, "/b/c")).is_err());
        assert!(tree.apply(&row(TreeOp::Create, id(), "/b/x.s/y.s")).is_err());
        assert!(tree.apply(&row(TreeOp::Create, id(), "/no/x.s")).is_err());
        assert!(tree.apply(&row(TreeOp::Create, id(), "/b")).is_err());
        tree.apply(&row(TreeOp::Delete, a, "/b")).unwrap();
        assert!(tree.is_empty() && tree.node(s).is_none());
    }

    #[test]
    fn series_that_are_alike_share_schema_and_options() {
        let mut tree = Tree::default();
        let mut schema_of = |name: &str, column: &str| {
            let fields = vec![Field::new(column, DataType::Int64, false)];
            let mut row = row(TreeOp::Create, NodeId::random(&SystemRandomness), name);
            row.schema = Some(Arc::new(Schema::new(fields)));
            row.options = Some(Arc::default());
            let row = tree.share(row);
            tree.apply(&row).unwrap();
            tree.node(row.node).unwrap().schema.clone().unwrap()
        };
        let first = schema_of("/1.s", "a");
        assert!(!Arc::ptr_eq(&first, &schema_of("/2.s", "b")));
        assert!(Arc::ptr_eq(&first, &schema_of("/3.s", "a")));
        for other in 0..2 * SHARED_MAX {
            assert_eq!(schema_of(&format!("/4-{other}.s"), &other.to_string()).fields().len(), 1);
        }
        assert_eq!(schema_of("/5.s", "a"), first);
        assert_eq!(tree.schemas.len(), SHARED_MAX);
    }

    #[test]
    fn globs_are_walked_from_their_literal_directory_in_order() {
        let mut tree = Tree::default();
        for path in ["/b", "/a", "/a/2.s", "/a/1.s", "/a/deep", "/a/deep/3.s", "/b/4.s"] {
            tree.apply(&row(TreeOp::Create, NodeId::random(&SystemRandomness), path)).unwrap();
        }
        assert_eq!(paths(&tree, "/a/*.s"), ["/a/1.s", "/a/2.s"]);
        assert_eq!(paths(&tree, "/a/**/*.s"), ["/a/1.s", "/a/2.s", "/a/deep/3.s"]);
        assert_eq!(paths(&tree, "/*/4.s"), ["/b/4.s"]);
        assert_eq!(paths(&tree, "/none/*.s"), [] as [&str; 0]);
        assert_eq!(paths(&tree, "/"), ["/"]);
    }
}
