//! Hot rows without a writer: for tests of what reads them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidelog_core::{CommitVersion, NodeId, TransactionId, TreePath, Version, WriteTime};
use tidelog_oplog::{VersionOp, VersionRow};

use super::{HotFile, HotSeries};
use crate::conform::conform;
use crate::engine::{Engine, schema_of};
use crate::error::Error;
use crate::head::Head;
use crate::prepare::{VersionFacts, prepare};

impl Engine {
    /// `head`, with these batches as further versions of the series at `path`, all in one hot piece.
    ///
    /// # Errors
    /// If there is no such series, or its columns are not fixed; as an append of the batches.
    #[doc(hidden)]
    pub async fn with_hot_versions(
        &self,
        head: &Head,
        path: &TreePath,
        appends: &[(RecordBatch, WriteTime)],
    ) -> Result<Head, Error> {
        let missing = || Error::NotFound { path: path.clone(), at: None };
        let node = head.tree().resolve(path).cloned().ok_or_else(missing)?;
        let no_schema = || Error::NoSchema { path: path.clone() };
        let schema = schema_of(path, &node)?.ok_or_else(no_schema)?;
        let base = head.series(self.log(), node.id).await?.head().next();
        let batches = appends.iter().map(|(batch, _)| conform(path, &schema, batch));
        let prepared = prepare(path, &schema, &batches.collect::<Result<Vec<_>, _>>()?)?;
        let times = appends.iter().map(|(_, time)| *time);
        let versions = (base.number()..).zip(prepared.versions.iter().zip(times));
        let versions = versions.map(|(number, (facts, time))| {
            version_row(path, node.id, schema.time_column(), Version::new(number), *facts, time)
        });
        let file = HotFile::new(path, node.id, &schema, &prepared)?.numbered(base);
        let versions: Vec<VersionRow> = versions.collect();
        let mut hot = head.hot().clone();
        hot.push(node.id, || HotSeries::new(Arc::new(schema)), versions, file)?;
        Head::new(head.snapshot().clone(), hot)
    }
}

fn version_row(
    path: &TreePath,
    node: NodeId,
    time_column: &str,
    version: Version,
    facts: VersionFacts,
    timestamp: WriteTime,
) -> VersionRow {
    VersionRow {
        op: VersionOp::Append,
        node,
        path: path.clone(),
        version,
        timestamp,
        rows: facts.rows,
        range: Some(facts.range),
        time_column: time_column.into(),
        // What the caller's write was called, no read asks.
        transaction: TransactionId::from_uuid(node.as_uuid()),
        detail: None,
        commit: CommitVersion::default(),
    }
}
