//! One commit of the log: the JSON object that makes rows count.
//!
//! The first line is a `commitInfo` with our own record in it: an id by which a writer recognises
//! its commit, the number of rows that it adds, the last write time given, and the time up to which
//! `as_of` is exact. A commit without that record, or whose rows do not add up, is damage.

use std::collections::HashMap;

use bytes::Bytes;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Add, CommitInfo, Metadata, Protocol, StructType};
use serde_json::{Value, json};
use tidelog_core::{CommitVersion, Env, WriteTime};
use tidelog_storage::object_store::path::Path;
use uuid::Uuid;

use crate::FORMAT_VERSION;
use crate::error::Error;
use crate::part::Part;
use crate::schema::{STATS_COLUMNS, log_schema};

const ID: &str = "tidelogCommit";
const ROWS: &str = "tidelogRows";
const FORMAT: &str = "tidelogFormat";
const LAST_WRITE: &str = "tidelogLastWriteTime";
const COMPLETE_THROUGH: &str = "tidelogCompleteThrough";
const ENGINE: &str = concat!("tidelog/", env!("CARGO_PKG_VERSION"));

/// A commit as read back.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) version: CommitVersion,
    pub(crate) id: Uuid,
    pub(crate) last_write: WriteTime,
    pub(crate) complete_through: WriteTime,
    pub(crate) parts: Vec<Part>,
}

/// The object that holds commit `version`.
pub(crate) fn object_of(prefix: &Path, version: CommitVersion) -> Path {
    prefix.clone().join("_delta_log").join(format!("{:020}.json", version.number()))
}

/// The bytes of a commit that adds one part.
pub(crate) fn encode(
    id: Uuid,
    add: Add,
    rows: usize,
    last_write: WriteTime,
) -> Result<Bytes, Error> {
    let info = record("WRITE", id, rows, last_write);
    lines(&[Action::CommitInfo(info), Action::Add(add)])
}

/// The bytes of commit 0, which makes the table.
pub(crate) fn encode_first(id: Uuid, env: &Env) -> Result<Bytes, Error> {
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
            "delta.dataSkippingStatsColumns": STATS_COLUMNS.join(","),
            "tidelog.format": FORMAT_VERSION.to_string(),
        },
    }))
    .map_err(Error::encode)?;
    lines(&[Action::CommitInfo(info), Action::Protocol(protocol), Action::Metadata(metadata)])
}

fn record(operation: &str, id: Uuid, rows: usize, last_write: WriteTime) -> CommitInfo {
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

/// Reads a commit back and checks that it is whole and ours.
pub(crate) fn decode(object: &Path, version: CommitVersion, bytes: &[u8]) -> Result<Commit, Error> {
    let damaged = |reason: String| Error::DamagedCommit {
        commit: version,
        object: object.to_string(),
        reason,
    };
    let mut info: Option<CommitInfo> = None;
    let mut parts = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let action: Action = serde_json::from_slice(line)
            .map_err(|error| damaged(format!("a line is no action: {error}")))?;
        match action {
            Action::CommitInfo(found) => info = Some(found),
            Action::Add(add) => {
                parts.push(Part::from_add(&add).map_err(damaged)?);
            }
            Action::Protocol(protocol) => check_protocol(&protocol)?,
            Action::Metadata(metadata) => check_metadata(&metadata)?,
            Action::Txn(_) => {}
            Action::Remove(_) | Action::Cdc(_) | Action::DomainMetadata(_) => {
                return Err(Error::NewerFormat { what: "merged log parts".to_owned() });
            }
        }
    }
    let info = info.ok_or_else(|| damaged("it has no commit record".to_owned()))?;
    let commit = read_record(&info, version, parts).map_err(damaged)?;
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
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    let expected = number(ROWS)?;
    if i64::try_from(rows) != Ok(expected) {
        return Err(format!("it should add {expected} rows and adds {rows}"));
    }
    Ok(Commit {
        version,
        id,
        last_write: WriteTime::from_micros(number(LAST_WRITE)?),
        complete_through: WriteTime::from_micros(number(COMPLETE_THROUGH)?),
        parts,
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

fn check_metadata(metadata: &Metadata) -> Result<(), Error> {
    let value = serde_json::to_value(metadata).map_err(Error::encode)?;
    let format = value["configuration"]["tidelog.format"].as_str();
    match format.map(str::parse::<u32>) {
        Some(Ok(format)) if format <= FORMAT_VERSION => Ok(()),
        Some(Ok(format)) => Err(Error::NewerFormat { what: format!("format {format}") }),
        _ => Err(Error::NotAStore),
    }
}
