//! Checkpoints: the parts that are live after a commit, in one object, and the pointer to it.
//!
//! They are Delta checkpoints that every Delta reader understands. Nothing depends on them: all they
//! say follows from the commits before, as long as those exist, and expiry (`upkeep::expire`) keeps
//! the commit whose number a checkpoint bears for as long as the checkpoint.
//!
//! Removed parts (Delta's tombstones) are left out: they would make every checkpoint as long as the
//! history, and expiry finds what is no longer live by comparing checkpoints.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::writer::LineDelimited;
use arrow::json::{ReaderBuilder, WriterBuilder};
use bytes::Bytes;
use deltalake::kernel::Action;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use tidelog_core::{CommitVersion, WalId};

use crate::commit::{self, Table};
use crate::error::Error;
use crate::part::Part;

/// The object in the log directory that names the newest checkpoint.
pub(crate) const POINTER: &str = "_last_checkpoint";

/// What the pointer says, by Delta's protocol.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pointer {
    pub(crate) version: i64,
    /// Actions in the checkpoint.
    size: i64,
    /// Where a checkpoint lies in several objects, their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<i64>,
}

impl Pointer {
    /// The checkpoint, if it is one that lies in one object under the name that we give it.
    pub(crate) fn single(&self) -> Option<CommitVersion> {
        self.parts.is_none().then_some(CommitVersion::new(self.version))
    }

    /// Whether this is the size of a checkpoint with so many actions.
    pub(crate) fn names(&self, actions: usize) -> bool {
        i64::try_from(actions) == Ok(self.size)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// A checkpoint as read back.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) table: Table,
    pub(crate) parts: Vec<Arc<Part>>,
    pub(crate) covered: Vec<(WalId, u64)>,
}

impl Checkpoint {
    /// How many actions it consists of: protocol, metadata, one for each part, and one for
    /// each write-ahead log.
    pub(crate) fn action_count(&self) -> usize {
        2 + self.parts.len() + self.covered.len()
    }
}

/// The bytes of a checkpoint, and of the pointer to it.
pub(crate) fn encode<'a>(
    version: CommitVersion,
    table: &Table,
    parts: impl Iterator<Item = &'a Arc<Part>>,
    covered: impl Iterator<Item = (WalId, u64)>,
) -> Result<(Bytes, Bytes), Error> {
    let mut lines = Vec::new();
    let head = [Action::Protocol(table.protocol.clone()), Action::Metadata(table.metadata.clone())];
    let adds = parts.map(|part| Action::Add(part.add().clone()));
    let covered = covered.map(|(wal, seq)| commit::covering(wal, seq, 0));
    let covered = covered.collect::<Result<Vec<_>, _>>()?;
    let mut size = 0;
    for action in head.into_iter().chain(covered).chain(adds) {
        serde_json::to_writer(&mut lines, &action).map_err(Error::encode)?;
        lines.push(b'\n');
        size += 1;
    }
    let pointer = Pointer { version: version.number(), size, parts: None };
    let pointer = serde_json::to_vec(&pointer).map_err(Error::encode)?;
    Ok((to_parquet(&lines)?, pointer.into()))
}

fn to_parquet(lines: &[u8]) -> Result<Bytes, Error> {
    let reader = ReaderBuilder::new(Arc::clone(&SCHEMA)).build(lines).map_err(Error::encode)?;
    // Nobody searches a checkpoint. Without statistics and page index it has no byte that its readers
    // do not read, so that damage shows.
    let properties = WriterProperties::builder()
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).map_err(Error::encode)?))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(&SCHEMA), Some(properties))
        .map_err(Error::encode)?;
    for batch in reader {
        writer.write(&batch.map_err(Error::encode)?).map_err(Error::encode)?;
    }
    writer.close().map_err(Error::encode)?;
    Ok(bytes.into())
}

/// Reads a checkpoint; `Err` tells what is wrong with it.
pub(crate) fn decode(bytes: Bytes) -> Result<Checkpoint, Error> {
    let damaged = |reason: String| Error::DamagedCheckpoint { reason };
    let fail = |error: &dyn std::fmt::Display| damaged(error.to_string());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| fail(&e))?;
    let mut lines = Vec::new();
    let mut writer = WriterBuilder::new().build::<_, LineDelimited>(&mut lines);
    for batch in reader.build().map_err(|e| fail(&e))? {
        writer.write(&batch.map_err(|e| fail(&e))?).map_err(|e| fail(&e))?;
    }
    writer.finish().map_err(|e| fail(&e))?;
    let (mut protocol, mut metadata) = (None, None);
    let (mut parts, mut covered) = (Vec::new(), Vec::new());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line).map_err(|e| fail(&e))? {
            Action::Protocol(found) => protocol = Some(found),
            Action::Metadata(found) => metadata = Some(found),
            Action::Add(add) => parts.push(Arc::new(Part::from_add(add).map_err(damaged)?)),
            Action::Txn(transaction) => covered.extend(commit::covered(&transaction)),
            _ => {}
        }
    }
    let actions = protocol.zip(metadata);
    let (protocol, metadata) =
        actions.ok_or_else(|| damaged("it has no protocol or metadata".to_owned()))?;
    let table = Table::try_new(protocol, metadata)?;
    Ok(Checkpoint { table, parts, covered })
}

/// The schema of a checkpoint, by Delta's protocol.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let object = |name: &str, fields: Vec<Field>| {
        Field::new(name, DataType::Struct(Fields::from(fields)), true)
    };
    Arc::new(Schema::new(vec![
        object("protocol", vec![int("minReaderVersion"), int("minWriterVersion")]),
        object(
            "metaData",
            vec![
                text("id"),
                text("name"),
                text("description"),
                object("format", vec![text("provider"), map("options")]),
                text("schemaString"),
                Field::new_list(
                    "partitionColumns",
                    Field::new("element", DataType::Utf8, true),
                    true,
                ),
                map("configuration"),
                long("createdTime"),
            ],
        ),
        object(
            "add",
            vec![
                text("path"),
                map("partitionValues"),
                long("size"),
                long("modificationTime"),
                Field::new("dataChange", DataType::Boolean, true),
                text("stats"),
                map("tags"),
            ],
        ),
        object(
            "remove",
            vec![
                text("path"),
                long("deletionTimestamp"),
                Field::new("dataChange", DataType::Boolean, true),
            ],
        ),
        object("txn", vec![text("appId"), long("version")]),
    ]))
});

fn map(name: &str) -> Field {
    Field::new_map(
        name,
        "key_value",
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
        false,
        true,
    )
}
