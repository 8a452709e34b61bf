//! The appends of one call that go to one series, made ready to be put or logged.

use arrow::array::RecordBatch;
use bytes::Bytes;
use tidelog_core::{NodeId, TransactionId, TreePath};
use tidelog_oplog::Tree;

use super::Append;
use super::target::{check_time_column, resolve_target};
use crate::commit::Target;
use crate::conform::conform;
use crate::encode::{EncodedFile, encode};
use crate::error::Error;
use crate::hot::HotFile;
use crate::owner::encode_rows;
use crate::prepare::{VersionFacts, prepare};
use crate::series_schema::SeriesSchema;

pub(super) struct PreparedGroup {
    pub(super) path: TreePath,
    pub(super) target: Target,
    pub(super) schema: SeriesSchema,
    pub(super) versions: Vec<(VersionFacts, TransactionId)>,
    pub(super) given_ids: Vec<TransactionId>,
    pub(super) rows: GroupRows,
    pub(super) members: Vec<usize>,
}

pub(super) enum GroupRows {
    Files(Vec<EncodedFile>),
    /// In memory, and as the write-ahead log keeps them.
    Hot(HotFile, Bytes),
}

pub(super) type Prepared = (Option<PreparedGroup>, Vec<(usize, Error)>);

/// Everything about a group that needs no I/O: runs off the runtime.
pub(super) fn prepare_group(
    appends: &[Append],
    path: &TreePath,
    members: &[usize],
    tree: &Tree,
    new_node: NodeId,
    all_or_none: bool,
    hot: bool,
) -> Result<Prepared, Error> {
    let Some(first) = members.first() else { return Ok((None, Vec::new())) };
    let (target, schema) = resolve_target(tree, &appends[*first], new_node)?;
    let mut batches = Vec::with_capacity(members.len());
    let mut kept = Vec::with_capacity(members.len());
    let mut failed = Vec::new();
    for position in members {
        let append = &appends[*position];
        let checked =
            check_time_column(append, &schema).and_then(|()| conform(path, &schema, &append.batch));
        match checked {
            Ok(batch) if batch.num_rows() == 0 => {}
            Ok(batch) => {
                batches.push(batch);
                kept.push(*position);
            }
            Err(error) => failed.push((*position, error)),
        }
    }
    reject_bad_times(path, &schema, &mut batches, &mut kept, &mut failed);
    if batches.is_empty() || all_or_none && !failed.is_empty() {
        return Ok((None, failed));
    }
    let prepared = prepare(path, &schema, &batches)?;
    let rows = if hot {
        let file = HotFile::new(path, target.node, &schema, &prepared)?;
        GroupRows::Hot(file, encode_rows(path, &prepared.batch)?)
    } else {
        GroupRows::Files(encode(path, &schema, &prepared)?)
    };
    let ids = kept.iter().map(|position| appends[*position].transaction);
    let versions = prepared
        .versions
        .iter()
        .zip(ids)
        .map(|(facts, id)| {
            (*facts, id.unwrap_or_else(|| TransactionId::from_uuid(new_node.as_uuid())))
        })
        .collect();
    let given = kept.iter().map(|position| &appends[*position]).filter(|a| !a.generated);
    let given_ids = given.filter_map(|append| append.transaction).collect();
    let prepared = PreparedGroup {
        path: path.clone(),
        target,
        schema,
        versions,
        given_ids,
        rows,
        members: kept,
    };
    Ok((Some(prepared), failed))
}

/// Takes out the batches with event times that cannot be stored, so that the others can be.
fn reject_bad_times(
    path: &TreePath,
    schema: &SeriesSchema,
    batches: &mut Vec<RecordBatch>,
    kept: &mut Vec<usize>,
    failed: &mut Vec<(usize, Error)>,
) {
    let checks: Vec<Result<(), Error>> = batches
        .iter()
        .map(|batch| crate::prepare::check_times(path, schema, batch).map(|_| ()))
        .collect();
    let mut checks_of_batches = checks.iter();
    batches.retain(|_| checks_of_batches.next().is_none_or(Result::is_ok));
    let mut checks_of_kept = checks.into_iter();
    kept.retain(|position| match checks_of_kept.next() {
        Some(Err(error)) => {
            failed.push((*position, error));
            false
        }
        _ => true,
    });
}
