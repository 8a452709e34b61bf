//! One live part: read, checked against all that its `add` says of it, decoded.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::{Map, Value};
use tidelog_core::{CommitVersion, Version};
use tidelog_storage::object_store::path::Path;

use super::{Finding, RESTORE, unreadable};
use crate::decode;
use crate::error::Error;
use crate::fetch::LogObjects;
use crate::hash::Hash128;
use crate::part::{self, Part};
use crate::row::Row;
use crate::schema::column;

/// A live part that has been read.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckedPart {
    /// The object, relative to the store's root.
    pub object: String,
    /// Its rows in order; none if they cannot be read.
    pub rows: Option<Vec<Row>>,
    /// Whether the rows of its first series may have begun in the part before it.
    pub continues: bool,
    /// Whether it has, or had, rows that change the tree.
    pub has_tree: bool,
    /// Whether it has, or had, rows of files that have gone, apart from the versions of the same commits.
    pub is_aside: bool,
    /// What is wrong with it.
    pub damage: Vec<Finding>,
}

/// Reads a part; an error means that it cannot be known whether it is damaged, or that it has been
/// let go since the check began.
pub(super) async fn verify(
    objects: &LogObjects,
    part: Arc<Part>,
    head: CommitVersion,
) -> Result<CheckedPart, Error> {
    let path = objects.part_path(&part);
    let mut checked = CheckedPart {
        object: path.to_string(),
        rows: None,
        continues: part.place > 0,
        has_tree: part.families.shared,
        is_aside: part.is_aside(),
        damage: Vec::new(),
    };
    let bytes = match objects.object(&path).await {
        Ok(bytes) => bytes,
        Err(error) => {
            checked.damage.push(describe(&part, unreadable(&path, error)?));
            return Ok(checked);
        }
    };
    let Some(bytes) = bytes else {
        if is_replaced_since(objects, &part, head).await? {
            return Err(Error::SnapshotExpired { object: checked.object });
        }
        checked.damage.push(about(&part, &path, "it is missing"));
        return Ok(checked);
    };
    let verified = tokio::task::spawn_blocking(move || {
        let mut damage = Vec::new();
        let rows = match read_rows(&part, &path, bytes, head, &mut damage) {
            Ok(rows) => Some(rows),
            Err(error) => {
                damage.push(describe(&part, unreadable(&path, error)?));
                None
            }
        };
        Ok::<_, Error>((rows, damage))
    });
    (checked.rows, checked.damage) = verified.await.map_err(Error::encode)??;
    Ok(checked)
}

/// Whether a commit after `head` has put others in the place of the part, so that it may have been
/// let go since the commits were read.
async fn is_replaced_since(
    objects: &LogObjects,
    part: &Part,
    head: CommitVersion,
) -> Result<bool, Error> {
    let mut next = head.next();
    while let Some(commit) = objects.commit(next).await? {
        if commit.removed.contains(&part.object) {
            return Ok(true);
        }
        next = next.next();
    }
    Ok(false)
}

fn read_rows(
    part: &Part,
    path: &Path,
    bytes: Bytes,
    head: CommitVersion,
    damage: &mut Vec<Finding>,
) -> Result<Vec<Row>, Error> {
    let fail = |reason: String| Err(Error::part(path.as_ref(), reason));
    let size = bytes.len() as u64;
    if size != part.size {
        return fail(format!("it has {size} bytes where the log says {}", part.size));
    }
    if Hash128::of(&bytes) != part.hash {
        return fail("its bytes do not match the hash in its commit".to_owned());
    }
    if !has_layout(part, &bytes) {
        damage.push(about(part, path, "its row groups do not lie where its commit says"));
    }
    let batches = decode::batches(path.as_ref(), bytes)?;
    if let Some(wrong) = wrong_statistics(part, &batches) {
        damage.push(about(part, path, &format!("its commit tells another {wrong} than it has")));
    }
    let rows = decode::rows_in(path.as_ref(), batches)?;
    if let Some(row) = rows.iter().find(|row| !is_declared(part, row)) {
        let kind = part::family(row);
        damage.push(about(
            part,
            path,
            &format!("its commit does not tell that it has {kind} rows"),
        ));
    }
    if let Some(row) = rows.iter().find(|row| row.commit() > head) {
        let problem = format!("it has rows of commit {}, which is not there", row.commit());
        damage.push(about(part, path, &problem));
    }
    Ok(rows)
}

fn about(part: &Part, path: &Path, problem: &str) -> Finding {
    describe(part, Finding::new(problem, RESTORE).with_object(path.as_ref()))
}

/// Adds what the commit tells of the rows.
fn describe(part: &Part, mut finding: Finding) -> Finding {
    let stated = stated(part);
    let bounds = |name: &str| Some((&stated["minValues"][name], &stated["maxValues"][name]));
    let paths = bounds(column::PATH).and_then(|(min, max)| min.as_str().zip(max.as_str()));
    finding.path =
        paths.map(|(min, max)| if min == max { min.to_owned() } else { format!("{min} … {max}") });
    let versions = bounds(column::VERSION).and_then(|(min, max)| min.as_i64().zip(max.as_i64()));
    finding.versions = versions.map(|(min, max)| (Version::new(min), Version::new(max)));
    finding.with_rows(part.rows)
}

/// The statistics that the commit tells.
fn stated(part: &Part) -> Value {
    let stats = part.add().stats.as_deref().unwrap_or_default();
    serde_json::from_str(stats).unwrap_or_default()
}

/// What the commit tells of the rows and is not so.
fn wrong_statistics(part: &Part, batches: &[RecordBatch]) -> Option<String> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows as u64 != part.rows {
        return Some(format!("number of rows ({})", part.rows));
    }
    let (stated, found) = (stated(part), part::statistics(batches));
    let none = Map::new();
    for which in ["minValues", "maxValues", "nullCount"] {
        let told = stated[which].as_object().unwrap_or(&none);
        let had = found[which].as_object().unwrap_or(&none);
        // Statistics that it does not know of are a later build's.
        let wrong = told.iter().find(|(name, value)| had.get(*name).is_some_and(|v| v != *value));
        if let Some((name, value)) = wrong {
            return Some(format!("{which} of {name} ({value})"));
        }
        if let Some(name) = had.keys().find(|name| !told.contains_key(*name)) {
            return Some(format!("{which} of {name} (none)"));
        }
    }
    None
}

fn has_layout(part: &Part, bytes: &Bytes) -> bool {
    let Some(layout) = &part.layout else { return true };
    let extents = layout.groups.iter().map(|group| &group.extent);
    extents.chain(std::iter::once(&layout.tail)).all(|extent| {
        let range = extent.range();
        let range = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        range.is_some_and(|(start, end)| bytes.get(start..end).is_some_and(|b| extent.matches(b)))
    })
}

/// Whether a reader that goes by the kinds in the `add` finds this row.
fn is_declared(part: &Part, row: &Row) -> bool {
    let families = part.families;
    match row {
        Row::Tree(_) => families.shared,
        Row::Store(_) => families.shared || families.history,
        Row::Version(_) => families.series,
        Row::File(_) => families.series || families.history,
    }
}
