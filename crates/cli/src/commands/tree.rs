//! The tree of paths.

use serde_json::{Value, json};
use tidelog::{Entry, EntryType, SeriesDescription, Store};

use crate::args::Globals;
use crate::commands::{
    layout_json, layout_words, open, range_json, range_words, settle, tell, tree_path,
};
use crate::error::Result;
use crate::output;
use crate::progress::{grouped, size};

pub(super) async fn mkdir(globals: &Globals, path: &str) -> Result<()> {
    let store = open(globals).await?;
    let done = store.create_directory(tree_path(path)).await;
    settle(&store).await;
    done?;
    tell(globals, &format!("created {path}"), &json!({ "created": path }))
}

pub(super) async fn mv(globals: &Globals, from: &str, to: &str) -> Result<()> {
    let store = open(globals).await?;
    let done = store.rename(tree_path(from), tree_path(to)).await;
    settle(&store).await;
    done?;
    tell(globals, &format!("moved {from} to {to}"), &json!({ "moved": { "from": from, "to": to } }))
}

pub(super) async fn rm(globals: &Globals, path: &str, recursive: bool) -> Result<()> {
    let store = open(globals).await?;
    let done = store.remove(tree_path(path), recursive).await;
    settle(&store).await;
    done?;
    tell(globals, &format!("removed {path}"), &json!({ "removed": path }))
}

pub(super) async fn ls(globals: &Globals, glob: &str, long: bool) -> Result<()> {
    let store = open(globals).await?;
    let entries = entries(&store, tree_path(glob)).await?;
    let mut listed = Vec::with_capacity(entries.len());
    for entry in entries {
        let is_series = entry.entry == EntryType::FileSeries;
        let series = match long && is_series {
            true => Some(store.describe(entry.path.as_str()).await?),
            false => None,
        };
        listed.push((entry, series));
    }
    if globals.json {
        let documents: Vec<Value> =
            listed.iter().map(|(entry, series)| entry_json(entry, series.as_ref())).collect();
        return output::print_json(&Value::Array(documents));
    }
    if !long {
        let lines: String = listed.iter().map(|(entry, _)| format!("{}\n", shown(entry))).collect();
        return output::print(&lines);
    }
    if listed.is_empty() {
        return Ok(());
    }
    let header = ["type", "created", "versions", "rows", "size", "path", "event times", "layout"];
    let rows: Vec<Vec<String>> =
        listed.iter().map(|(entry, series)| long_row(entry, series.as_ref())).collect();
    output::print(&output::columns(Some(&header), &rows, &[2, 3, 4]))
}

/// What a glob matches; of a directory what is in it; of a series the series.
async fn entries(store: &Store, pattern: &str) -> Result<Vec<Entry>> {
    let found = store.list(pattern).await?;
    match found.as_slice() {
        [entry] if entry.path.as_str() == pattern && entry.entry == EntryType::Directory => {
            Ok(store.list(&children_of(pattern)).await?)
        }
        // A glob may match nothing, but what is named must be there: asking tells what is wrong.
        [] if !pattern.contains(['*', '?', '[', '{']) => {
            store.describe(pattern).await?;
            Ok(found)
        }
        _ => Ok(found),
    }
}

/// The glob for what is directly in a directory.
fn children_of(directory: &str) -> String {
    let mut glob = String::with_capacity(directory.len() + 2);
    for c in directory.trim_end_matches('/').chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\') {
            glob.extend(['[', c, ']']);
        } else {
            glob.push(c);
        }
    }
    glob.push_str("/*");
    glob
}

fn kind(entry: &Entry) -> &'static str {
    match entry.entry {
        EntryType::Directory => "directory",
        EntryType::FileSeries => "series",
        EntryType::FileData => "data",
    }
}

/// The path; of a directory with a slash at the end.
fn shown(entry: &Entry) -> String {
    let slash = entry.entry == EntryType::Directory && !entry.path.is_root();
    format!("{}{}", entry.path, if slash { "/" } else { "" })
}

/// When; nothing for the root, which is always there.
fn created(entry: &Entry) -> String {
    if entry.path.is_root() { String::new() } else { entry.created.to_string() }
}

fn long_row(entry: &Entry, series: Option<&SeriesDescription>) -> Vec<String> {
    let number = |value: Option<u64>| value.map(grouped).unwrap_or_default();
    let versions = series.and_then(readable_versions);
    vec![
        kind(entry).to_owned(),
        created(entry),
        number(versions),
        number(series.map(|series| series.rows)),
        series.map(|series| size(series.bytes)).unwrap_or_default(),
        shown(entry),
        range_words(series.and_then(|series| series.range)),
        series.map(|series| layout_words(&series.options.layout())).unwrap_or_default(),
    ]
}

/// How many versions a series can be read as of.
fn readable_versions(series: &SeriesDescription) -> Option<u64> {
    let expired = series.first_readable.number() - 1;
    u64::try_from(series.version.number().checked_sub(expired)?).ok()
}

fn entry_json(entry: &Entry, series: Option<&SeriesDescription>) -> Value {
    let mut document = json!({
        "path": entry.path.as_str(),
        "type": kind(entry),
        "created": created(entry),
    });
    if let Some(series) = series {
        document["version"] = series.version.number().into();
        document["first_readable_version"] = series.first_readable.number().into();
        document["rows"] = series.rows.into();
        document["files"] = series.files.into();
        document["bytes"] = series.bytes.into();
        document["event_times"] = range_json(series.range);
        document["layout"] = layout_json(&series.options.layout());
    }
    document
}

pub(super) async fn describe(globals: &Globals, path: &str) -> Result<()> {
    let store = open(globals).await?;
    let path = tree_path(path);
    let found = if path.contains(['*', '?', '[', '{']) { vec![] } else { store.list(path).await? };
    match found.as_slice() {
        [entry] if entry.entry == EntryType::Directory => {
            describe_directory(globals, &store, entry).await
        }
        _ => describe_series(globals, &store.describe(path).await?),
    }
}

async fn describe_directory(globals: &Globals, store: &Store, entry: &Entry) -> Result<()> {
    let children = store.list(&children_of(entry.path.as_str())).await?.len();
    if globals.json {
        let mut document = entry_json(entry, None);
        document["entries"] = children.into();
        return output::print_json(&document);
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("path", entry.path.to_string()),
        row("type", kind(entry).to_owned()),
        row("created", created(entry)),
        row("entries", children.to_string()),
    ];
    output::print(&output::columns(None, &rows, &[]))
}

fn describe_series(globals: &Globals, series: &SeriesDescription) -> Result<()> {
    if globals.json {
        return output::print_json(&series_json(series));
    }
    let unknown = || "(fixed by the first version)".to_owned();
    let options = &series.options;
    let keys = options.key_columns.join(", ");
    let unit = series
        .time_unit
        .or(options.time_unit)
        .map(|unit| format!(" (in {unit})"))
        .unwrap_or_default();
    let time = options.time_column.as_ref().map(|name| format!("{name}{unit}"));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("path", series.path.to_string()),
        row("type", "series".to_owned()),
        row("id", series.node.to_string()),
        row("created", series.created.to_string()),
        row("version", version_words(series)),
        row("rows", format!("{} over all versions", grouped(series.rows))),
        row("files", format!("{} ({})", grouped(series.files), size(series.bytes))),
        row("event times", range_words(series.range)),
        row("time column", time.unwrap_or_else(unknown)),
        row("key columns", if keys.is_empty() { "none".to_owned() } else { keys }),
        row("dedup", if options.dedup { "yes" } else { "no" }.to_owned()),
        row("layout", layout_words(&options.layout())),
    ];
    let mut text = output::columns(None, &rows, &[]);
    if let Some(schema) = &series.schema {
        let columns: Vec<Vec<String>> = schema
            .fields()
            .iter()
            .map(|field| vec![format!("  {}", field.name()), field.data_type().to_string()])
            .collect();
        text.push_str("columns\n");
        text.push_str(&output::columns(None, &columns, &[]));
    }
    output::print(&text)
}

/// The newest version, and since when there is a history if not since the first.
fn version_words(series: &SeriesDescription) -> String {
    let (newest, first) = (series.version, series.first_readable);
    match first.number() {
        ..=1 => newest.to_string(),
        _ => format!("{newest} (readable from {first} on)"),
    }
}

fn series_json(series: &SeriesDescription) -> Value {
    let columns = series.schema.as_ref().map(|schema| {
        let columns = schema.fields().iter().map(|field| {
            json!({
                "name": field.name(),
                "type": field.data_type().to_string(),
                "nullable": field.is_nullable(),
            })
        });
        columns.collect::<Vec<Value>>()
    });
    json!({
        "path": series.path.as_str(),
        "type": "series",
        "id": series.node.to_string(),
        "created": series.created.to_string(),
        "version": series.version.number(),
        "first_readable_version": series.first_readable.number(),
        "rows": series.rows,
        "files": series.files,
        "bytes": series.bytes,
        "event_times": range_json(series.range),
        "time_column": series.options.time_column,
        "time_unit": series.time_unit.or(series.options.time_unit).map(|unit| unit.name()),
        "key_columns": series.options.key_columns,
        "dedup": series.options.dedup,
        "layout": layout_json(&series.options.layout()),
        "columns": columns,
    })
}

#[cfg(test)]
mod tests {
    use tidelog::PathPattern;

    use super::*;

    #[test]
    fn the_glob_for_children_takes_names_literally() {
        assert_eq!(children_of("/"), "/*");
        let glob = PathPattern::parse(&children_of("/a[1]{b}*")).unwrap();
        assert!(glob.matches(&"/a[1]{b}*/c".parse().unwrap()));
        assert!(!glob.matches(&"/a1b/c".parse().unwrap()));
        assert!(!glob.matches(&"/a[1]{b}*/c/d".parse().unwrap()));
    }
}
