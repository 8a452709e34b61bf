//! The store as a whole.

use serde_json::json;
use tidelog::{ErrorKind, StoreStatistics};

use crate::args::Globals;
use crate::commands::{builder, location, open, tell};
use crate::error::{Error, Result};
use crate::output;
use crate::progress::{grouped, size};

pub(super) async fn init(globals: &Globals) -> Result<()> {
    let location = location(globals).await?;
    builder(globals).await?.create().await.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::Exists { message: format!("there is a store at {location} already") }
        }
        _ => error.into(),
    })?;
    tell(globals, &format!("made an empty store at {location}"), &json!({ "created": location }))
}

pub(super) async fn maintain(globals: &Globals, full: bool) -> Result<()> {
    let store = open(globals).await?;
    let done = store.maintain(full).await?;
    if globals.json {
        return output::print_json(&json!({
            "merges": done.merges,
            "parts_before": done.parts_before,
            "parts_after": done.parts_after,
            "bytes_written": done.bytes_written,
            "checkpoints": done.checkpoints,
            "objects_deleted": done.objects_deleted,
            "bytes_deleted": done.bytes_deleted,
        }));
    }
    let merged = match done.merges {
        0 => "nothing to merge".to_owned(),
        _ => format!(
            "merged {} log parts into {} ({})",
            grouped(done.parts_before),
            grouped(done.parts_after),
            size(done.bytes_written)
        ),
    };
    let checkpoint = if done.checkpoints > 0 { "wrote a checkpoint" } else { "no checkpoint due" };
    let deleted = match done.objects_deleted {
        0 => "nothing to delete".to_owned(),
        n => format!("deleted {} log objects ({})", grouped(n), size(done.bytes_deleted)),
    };
    output::print(&format!("{merged}; {checkpoint}; {deleted}\n"))
}

pub(super) async fn stats(globals: &Globals) -> Result<()> {
    let store = open(globals).await?;
    let counts = store.statistics().await?;
    if globals.json {
        return output::print_json(&json!({
            "store": location(globals).await?,
            "commits": counts.commits,
            "directories": counts.directories,
            "series": counts.series,
            "series_by_key": counts.series_by_key,
            "series_partitioned": counts.series_partitioned,
            "versions": counts.versions,
            "readable_versions": counts.readable_versions,
            "snapshots": counts.snapshots,
            "rows": counts.rows,
            "files": counts.files,
            "bytes": counts.bytes,
            "bytes_written": counts.bytes_written,
        }));
    }
    let row = |name: &str, value: u64| vec![name.to_owned(), grouped(value), String::new()];
    let mut rows = vec![
        row("commits", counts.commits),
        row("directories", counts.directories),
        row("series", counts.series),
        row("versions", counts.versions),
        row("snapshots", counts.snapshots),
        row("rows", counts.rows),
        row("files", counts.files),
        row("bytes", counts.bytes),
    ];
    for row in &mut rows {
        row[2] = match row[0].as_str() {
            "bytes" => format!("({})", size(counts.bytes)),
            "series" => laid_out_words(&counts),
            "versions" if counts.readable_versions < counts.versions => {
                format!("({} readable)", grouped(counts.readable_versions))
            }
            _ => String::new(),
        };
    }
    if counts.bytes > 0 {
        let ratio = counts.bytes_written as f64 / counts.bytes as f64;
        let times = format!("({ratio:.1} for each byte kept)");
        rows.push(vec!["bytes written".to_owned(), grouped(counts.bytes_written), times]);
    }
    output::print(&output::columns(None, &rows, &[1]))
}

/// How many series are not laid out by time alone.
fn laid_out_words(counts: &StoreStatistics) -> String {
    let parts = [(counts.series_by_key, "by key"), (counts.series_partitioned, "partitioned")];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, how)| format!("{} {how}", grouped(*count)))
        .collect();
    if parts.is_empty() { String::new() } else { format!("({})", parts.join(", ")) }
}
