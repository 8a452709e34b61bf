//! The series that an append is for, which its first append makes.

use std::sync::Arc;

use tidelog_core::{NodeId, TreePath};
use tidelog_oplog::{EntryType, Node, SeriesOptions, Tree};

use super::Append;
use crate::commit::{Target, TargetState};
use crate::engine::schema_of;
use crate::error::Error;
use crate::series_schema::SeriesSchema;
pub(super) fn check_time_column(append: &Append, schema: &SeriesSchema) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::Options { path: append.path.clone(), reason });
    match &append.time_column {
        Some(name) if name != schema.time_column() => refuse(format!(
            "the time column is {:?}, not {name:?}; leave it out or append to another series",
            schema.time_column()
        )),
        _ => match append.time_unit {
            Some(unit) if unit != schema.time_unit() => refuse(format!(
                "the time column counts {}, not {unit}; leave the unit out",
                schema.time_unit()
            )),
            _ => Ok(()),
        },
    }
}

/// The series that `append` is for, and its schema; the append's own if it is the first.
pub(super) fn resolve_target(
    tree: &Tree,
    append: &Append,
    new_node: NodeId,
) -> Result<(Target, SeriesSchema), Error> {
    let path = &append.path;
    let Some(node) = tree.resolve(path) else {
        refuse_through(tree, path)?;
        let (schema, options) = first_schema(append, &SeriesOptions::default())?;
        let state = TargetState::Absent(schema.clone(), options);
        return Ok((Target { node: new_node, state }, schema));
    };
    if node.entry != EntryType::FileSeries {
        return Err(Error::WrongEntry { path: path.clone(), expected: "series" });
    }
    match schema_of(path, node)? {
        Some(schema) => Ok((Target { node: node.id, state: TargetState::Existing }, schema)),
        None => first_of_created(append, node),
    }
}

fn first_of_created(append: &Append, node: &Node) -> Result<(Target, SeriesSchema), Error> {
    let (schema, options) = first_schema(append, &node.options)?;
    let state = TargetState::WithoutSchema(schema.clone(), options);
    Ok((Target { node: node.id, state }, schema))
}

/// The schema that a first append fixes, and the options with the time column that was found.
fn first_schema(
    append: &Append,
    options: &SeriesOptions,
) -> Result<(SeriesSchema, Arc<SeriesOptions>), Error> {
    let mut options = options.clone();
    if let (Some(fixed), Some(asked)) = (&options.time_column, &append.time_column)
        && fixed != asked
    {
        let reason =
            format!("the series was created with the time column {fixed:?}, not {asked:?}");
        return Err(Error::Options { path: append.path.clone(), reason });
    }
    options.time_column = options.time_column.or_else(|| append.time_column.clone());
    options.time_unit = options.time_unit.or(append.time_unit);
    let schema = SeriesSchema::resolve(&append.path, append.batch.schema_ref(), &options)?;
    options.time_column = Some(schema.time_column().to_owned());
    Ok((schema, Arc::new(options)))
}

fn refuse_through(tree: &Tree, path: &TreePath) -> Result<(), Error> {
    let (through, deepest) = tree.deepest(path);
    if deepest.entry == EntryType::Directory {
        return Ok(());
    }
    Err(Error::ThroughEntry { path: path.clone(), through })
}
