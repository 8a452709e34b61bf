//! Where rows go whose series may have been renamed, removed or never made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidelog_core::{Env, NodeId, TreePath};
use tidelog_oplog::{EntryType, Node, Snapshot};

use super::gather::Made;
use crate::commit::{Target, TargetState};
use crate::engine::schema_of;
use crate::series_schema::SeriesSchema;

/// The series that rows go to.
pub(super) struct Destination {
    pub(super) target: Target,
    pub(super) schema: SeriesSchema,
}

/// What decides where rows go.
pub(super) struct Destinations<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Columns of series that the records themselves make.
    pub(super) made: &'a HashMap<NodeId, Made>,
    /// Where the caller wants rows to go that have lost their series.
    pub(super) to: &'a BTreeMap<TreePath, TreePath>,
    pub(super) env: &'a Env,
}

impl Destinations<'_> {
    /// Where rows go that were acknowledged for the series `node` at `path`, or why nowhere.
    pub(super) fn of(
        &self,
        node: NodeId,
        path: &TreePath,
    ) -> Result<(TreePath, Destination), String> {
        let tree = self.snapshot.tree();
        if let (Some(found), Some(at)) = (tree.node(node), tree.path_of(node)) {
            let destination = self.existing(node, &at, found)?;
            return Ok((at, destination));
        }
        let removed = self.snapshot.tree_history().any(|row| row.node == node);
        let at = match (self.to.get(path), removed) {
            (Some(to), _) => to.clone(),
            (None, false) => path.clone(),
            (None, true) => {
                return Err(format!(
                    "{path} has been removed; name another place with `--to {path}=PATH`"
                ));
            }
        };
        let destination = match tree.resolve(&at) {
            Some(found) => self.existing(node, &at, found)?,
            None => self.absent(node, &at, removed)?,
        };
        Ok((at, destination))
    }

    fn existing(
        &self,
        rows_of: NodeId,
        at: &TreePath,
        found: &Node,
    ) -> Result<Destination, String> {
        if found.entry != EntryType::FileSeries {
            return Err(format!("{at} is not a series; name another place with `--to {at}=PATH`"));
        }
        if let Some(schema) = schema_of(at, found).map_err(|error| error.to_string())? {
            let target = Target { node: found.id, state: TargetState::Existing };
            return Ok(Destination { target, schema });
        }
        let (schema, options) = self.columns(rows_of, at)?;
        let state = TargetState::WithoutSchema(schema.clone(), options);
        Ok(Destination { target: Target { node: found.id, state }, schema })
    }

    fn absent(&self, node: NodeId, at: &TreePath, removed: bool) -> Result<Destination, String> {
        let (through, deepest) = self.snapshot.tree().deepest(at);
        if deepest.entry != EntryType::Directory {
            return Err(format!("{at} lies below {through}, which is not a directory"));
        }
        let (schema, options) = self.columns(node, at)?;
        let state = TargetState::Absent(schema.clone(), options);
        // The id of a node that was removed stays that node's.
        let node = if removed { NodeId::random(self.env.randomness.as_ref()) } else { node };
        Ok(Destination { target: Target { node, state }, schema })
    }

    /// The columns of a series that rows were acknowledged for.
    fn columns(
        &self,
        node: NodeId,
        at: &TreePath,
    ) -> Result<(SeriesSchema, Arc<tidelog_oplog::SeriesOptions>), String> {
        let logged = || {
            let rows = self.snapshot.tree_history().rev().filter(|row| row.node == node);
            rows.filter_map(|row| Some((row.schema.clone()?, row.options.clone()?))).next()
        };
        let (columns, options) =
            self.made.get(&node).cloned().or_else(logged).ok_or_else(|| {
                format!("nothing tells the columns of {at}; make the series with its columns first")
            })?;
        let schema =
            SeriesSchema::resolve(at, &columns, &options).map_err(|error| error.to_string())?;
        Ok((schema, options))
    }
}
