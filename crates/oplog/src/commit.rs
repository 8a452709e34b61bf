//! One commit of the log: the JSON object that makes rows count.
//!
//! The first line is a `commitInfo` with our own record in it: an id by which a writer recognises
//! its commit, the number of rows that it adds, the last write time given, and the time up to which
//! `as_of` is exact. A commit without that record, or whose rows do not add up, is damage.
//!
//! A commit may also replace parts by others with the same rows (`remove` and `add` actions without
//! a change of data): that is how upkeep merges the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{
    Action, Add, CommitInfo, Metadata, Protocol, Remove, StructType, Transaction,
};
use serde_json::{Value, json};
use tidelog_core::{CommitVersion, Env, WalId, WriteTime};
use tidelog_storage::object_store::path::Path;
use uuid::Uuid;

use crate::FORMAT_VERSION;
use crate::epoch;
use crate::error::Error;
use crate::inline::Inline;
use crate::part::Part;
use crate::schema::{STATS_COLUMNS, log_schema};

const ID: &str = "tidelogCommit";
const ROWS: &str = "tidelogRows";
const FORMAT: &str = "tidelogFormat";
const LAST_WRITE: &str = "tidelogLastWriteTime";
const WRITER: &str = "tidelogWriter";
const INLINE: &str = "tidelogRowsInline";
const INLINE_HASH: &str = "tidelogRowsInlineHash";
const COMPLETE_THROUGH: &str = "tidelogCompleteThrough";
/// The store's own setting of how long objects are kept that are no part of the log any more.
const RETENTION: &str = "tidelog.logRetentionSeconds";
/// Longer than any writer or reader is expected to pause.
pub(crate) const RETENTION_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
const ENGINE: &str = concat!("tidelog/", env!("CARGO_PKG_VERSION"));

/// A commit as read back.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) version: CommitVersion,
    pub(crate) id: Uuid,
    /// The handle that wrote it.
    pub(crate) writer: Option<Uuid>,
    pub(crate) last_write: WriteTime,
    pub(crate) complete_through: WriteTime,
    /// Parts that it adds: with rows of its own, or in place of those that it removes.
    pub(crate) parts: Vec<Part>,
    /// Objects of parts whose rows lie elsewhere from now on.
    pub(crate) removed: Vec<String>,
    /// Write-ahead logs whose records up to a number have their rows in the log from now on.
    pub(crate) covers: Vec<(WalId, u64)>,
    /// What the table is, in commit 0.
    pub(crate) table: Option<Table>,
    /// The rows that the log did not have, if they are few.
    pub(crate) inline: Option<Inline>,
    /// Its object, without what that carries of others.
    pub(crate) text: Bytes,
}

/// The actions that make the log a Delta table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) protocol: Protocol,
    pub(crate) metadata: Metadata,
    /// How long objects of the log are kept after they have ceased to be part of it.
    pub(crate) retention: Duration,
}

impl Table {
    /// Reads the actions and checks that this build can read the table.
    pub(crate) fn try_new(protocol: Protocol, metadata: Metadata) -> Result<Self, Error> {
        check_protocol(&protocol)?;
        let value = serde_json::to_value(&metadata).map_err(Error::encode)?;
        let configuration = &value["configuration"];
        check_format(configuration)?;
        let seconds = configuration[RETENTION].as_str().and_then(|text| text.parse().ok());
        let retention = seconds.map_or(RETENTION_DEFAULT, Duration::from_secs);
        Ok(Self { protocol, metadata, retention })
    }
}

/// What one commit changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) adds: Vec<Add>,
    /// Parts that adds without a change of data replace.
    pub(crate) removes: Vec<Arc<Part>>,
    pub(crate) covers: Vec<(WalId, u64)>,
    /// Rows that the log did not have.
    pub(crate) new_rows: u64,
    /// The same, if they are few.
    pub(crate) inline: Option<Inline>,
}

/// The object that holds commit `version`.
pub(crate) fn object_of(prefix: &Path, version: CommitVersion) -> Path {
    prefix.clone().join("_delta_log").join(format!("{:020}.json", version.number()))
}

/// The object in the log directory that holds checkpoint `version`.
pub(crate) fn checkpoint_of(prefix: &Path, version: CommitVersion) -> Path {
    let name = format!("{:020}.checkpoint.parquet", version.number());
    prefix.clone().join("_delta_log").join(name)
}

/// The text of a commit.
pub(crate) fn encode(
    id: Uuid,
    writer: Uuid,
    changes: Changes,
    (last_write, complete_through): (WriteTime, WriteTime),
) -> Result<Bytes, Error> {
    let operation = if changes.removes.is_empty() { "WRITE" } else { "OPTIMIZE" };
    let mut info = record(operation, id, changes.new_rows, last_write);
    info.info.insert(COMPLETE_THROUGH.to_owned(), json!(complete_through.micros()));
    info.is_blind_append = Some(changes.removes.is_empty());
    info.info.insert(WRITER.to_owned(), json!(writer.to_string()));
    if let Some(inline) = &changes.inline {
        info.info.insert(INLINE.to_owned(), json!(inline.text()));
        info.info.insert(INLINE_HASH.to_owned(), json!(inline.hash()));
    }
    let now = last_write.micros().div_euclid(1000);
    let removes = changes.removes.iter().map(|part| Action::Remove(remove_action(part, now)));
    let covers = changes.covers.iter().map(|(wal, seq)| covering(*wal, *seq, now));
    let covers = covers.collect::<Result<Vec<_>, _>>()?;
    let actions: Vec<Action> = std::iter::once(Action::CommitInfo(info))
        .chain(covers)
        .chain(removes)
        .chain(changes.adds.into_iter().map(Action::Add))
        .collect();
    lines(&actions)
}

/// Delta's own record of how far an application has come.
pub(crate) fn covering(wal: WalId, seq: u64, now: i64) -> Result<Action, Error> {
    let version = i64::try_from(seq).map_err(Error::encode)?;
    Ok(Action::Txn(Transaction {
        app_id: epoch::application_of(wal),
        version,
        last_updated: Some(now),
    }))
}

/// What an application's record says of a write-ahead log, if it is about one.
pub(crate) fn covered(transaction: &Transaction) -> Option<(WalId, u64)> {
    Some((epoch::wal_of(&transaction.app_id)?, u64::try_from(transaction.version).ok()?))
}

fn remove_action(part: &Part, now: i64) -> Remove {
    let add = part.add();
    Remove {
        path: add.path.clone(),
        data_change: false,
        deletion_timestamp: Some(now),
        extended_file_metadata: Some(true),
        partition_values: Some(HashMap::new()),
        size: Some(add.size),
        ..Remove::default()
    }
}

/// The bytes of commit 0, which makes the table.
pub(crate) fn encode_first(id: Uuid, env: &Env, retention: Duration) -> Result<Bytes, Error> {
    let now = env.clock.now();
    let info = record("CREATE TABLE", id, 0, now);
    let protocol: Protocol =
        serde_json::from_value(json!({ "minReaderVersion": 1, "minWriterVersion": 2 }))
            .map_err(Error::encode)?;
    let schema: StructType = log_schema().as_ref().try_into_kernel().map_err(Error::encode)?;
    let metadata: Metadata = serde_json::from_value(json!({
        "id": id.to_string(),
        "name": "tidelog operation log",
        "format": { "provider": "parquet", "options": {} },
        "schemaString": serde_json::to_string(&schema).map_err(Error::encode)?,
        "partitionColumns": [],
        "createdTime": now.micros().div_euclid(1000),
        "configuration": {
            "delta.appendOnly": "true",
            "delta.enableExpiredLogCleanup": "false",
            "delta.logRetentionDuration": format!("interval {} seconds", retention.as_secs()),
            "delta.deletedFileRetentionDuration":
                format!("interval {} seconds", retention.as_secs()),
            RETENTION: retention.as_secs().to_string(),
            "delta.dataSkippingStatsColumns": STATS_COLUMNS.join(","),
            "tidelog.format": FORMAT_VERSION.to_string(),
        },
    }))
    .map_err(Error::encode)?;
    lines(&[Action::CommitInfo(info), Action::Protocol(protocol), Action::Metadata(metadata)])
}

fn record(operation: &str, id: Uuid, rows: u64, last_write: WriteTime) -> CommitInfo {
    let info = HashMap::from([
        (ID.to_owned(), json!(id.to_string())),
        (ROWS.to_owned(), json!(rows)),
        (FORMAT.to_owned(), json!(FORMAT_VERSION)),
        (LAST_WRITE.to_owned(), json!(last_write.micros())),
        (COMPLETE_THROUGH.to_owned(), json!(last_write.micros())),
    ]);
    CommitInfo {
        timestamp: Some(last_write.micros().div_euclid(1000)),
        operation: Some(operation.to_owned()),
        operation_parameters: Some(HashMap::from([("mode".to_owned(), json!("Append"))])),
        is_blind_append: Some(true),
        engine_info: Some(ENGINE.to_owned()),
        info,
        ..CommitInfo::default()
    }
}

fn lines(actions: &[Action]) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(2048);
    for action in actions {
        serde_json::to_writer(&mut out, action).map_err(Error::encode)?;
        out.push(b'\n');
    }
    Ok(out.into())
}

/// Reads a commit's text back and checks that it is whole and ours.
pub(crate) fn decode(object: &Path, version: CommitVersion, text: &Bytes) -> Result<Commit, Error> {
    let damaged = |reason: String| Error::DamagedCommit {
        commit: version,
        object: object.to_string(),
        reason,
    };
    let mut info: Option<CommitInfo> = None;
    let (mut parts, mut removed, mut covers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut found_protocol, mut found_metadata) = (None, None);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let action: Action = serde_json::from_slice(line)
            .map_err(|error| damaged(format!("a line is no action: {error}")))?;
        match action {
            Action::CommitInfo(found) => info = Some(found),
            Action::Add(add) => parts.push(Part::from_add(add).map_err(damaged)?),
            Action::Remove(remove) if !remove.data_change => removed.push(remove.path),
            Action::Protocol(protocol) => found_protocol = Some(protocol),
            Action::Metadata(metadata) => found_metadata = Some(metadata),
            Action::Txn(transaction) => covers.extend(covered(&transaction)),
            Action::Remove(_) | Action::Cdc(_) | Action::DomainMetadata(_) => {
                return Err(Error::NewerFormat { what: "rows taken out of the log".to_owned() });
            }
        }
    }
    let table = found_protocol.zip(found_metadata);
    let table = table.map(|(protocol, metadata)| Table::try_new(protocol, metadata)).transpose()?;
    let info = info.ok_or_else(|| damaged("it has no commit record".to_owned()))?;
    let mut commit = read_record(&info, version, parts).map_err(damaged)?;
    commit.removed = removed;
    commit.covers = covers;
    commit.table = table;
    commit.text = text.clone();
    if info.info.get(FORMAT).and_then(Value::as_u64) > Some(u64::from(FORMAT_VERSION)) {
        return Err(Error::NewerFormat {
            what: format!("a commit of format {}", info.info[FORMAT]),
        });
    }
    Ok(commit)
}

fn read_record(
    info: &CommitInfo,
    version: CommitVersion,
    parts: Vec<Part>,
) -> Result<Commit, String> {
    let field = |name: &str| info.info.get(name);
    let number =
        |name: &str| field(name).and_then(Value::as_i64).ok_or(format!("it has no {name}"));
    let id = field(ID).and_then(Value::as_str).and_then(|text| Uuid::try_parse(text).ok());
    let id = id.ok_or("it was not written by Tidelog")?;
    let rows: u64 = parts.iter().filter(|part| !part.is_merged()).map(|part| part.rows).sum();
    let text = |name: &str| field(name).and_then(Value::as_str);
    let inline = match (text(INLINE), text(INLINE_HASH)) {
        (Some(text), Some(hash)) => {
            Some(Inline::checked(text, hash).ok_or("its rows do not match their hash")?)
        }
        _ => None,
    };
    let expected = number(ROWS)?;
    if i64::try_from(rows) != Ok(expected) {
        return Err(format!("it should add {expected} rows and adds {rows}"));
    }
    let writer = text(WRITER).and_then(|text| Uuid::try_parse(text).ok());
    Ok(Commit {
        version,
        id,
        writer,
        last_write: WriteTime::from_micros(number(LAST_WRITE)?),
        complete_through: WriteTime::from_micros(number(COMPLETE_THROUGH)?),
        parts,
        removed: Vec::new(),
        covers: Vec::new(),
        table: None,
        inline,
        text: Bytes::new(),
    })
}

fn check_protocol(protocol: &Protocol) -> Result<(), Error> {
    let value = serde_json::to_value(protocol).map_err(Error::encode)?;
    let (reader, writer) = (&value["minReaderVersion"], &value["minWriterVersion"]);
    if reader.as_i64() > Some(1) || writer.as_i64() > Some(2) {
        return Err(Error::NewerFormat { what: format!("Delta protocol {reader}/{writer}") });
    }
    Ok(())
}

fn check_format(configuration: &Value) -> Result<(), Error> {
    let format = configuration["tidelog.format"].as_str();
    match format.map(str::parse::<u32>) {
        Some(Ok(format)) if format <= FORMAT_VERSION => Ok(()),
        Some(Ok(format)) => Err(Error::NewerFormat { what: format!("format {format}") }),
        _ => Err(Error::NotAStore),
    }
}
