//! Snapshots, and what is let go of the history.

use serde_json::{Value, json};
use tidelog::{AsOf, EventTime, ExpireRule, ExpiredSeries, SnapshotInfo, WriteTime};

use crate::args::{ExpireArgs, Globals, SnapshotCommand};
use crate::commands::{open, settle, tell, tree_path};
use crate::error::{Error, Result};
use crate::output;

pub(super) async fn snapshot(globals: &Globals, command: &SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Create { name } => create(globals, name).await,
        SnapshotCommand::Ls => list(globals).await,
        SnapshotCommand::Rm { name } => remove(globals, name).await,
    }
}

async fn create(globals: &Globals, name: &str) -> Result<()> {
    let store = open(globals).await?;
    let made = store.create_snapshot(name).await;
    settle(&store).await;
    let made = made?;
    let words = format!("snapshot {} is the store as of {}", made.name, made.time);
    tell(globals, &words, &json!({ "created": snapshot_json(&made) }))
}

async fn list(globals: &Globals) -> Result<()> {
    let snapshots = open(globals).await?.snapshots().await?;
    if globals.json {
        return output::print_json(&Value::Array(snapshots.iter().map(snapshot_json).collect()));
    }
    let row = |made: &SnapshotInfo| {
        vec![made.time.to_string(), made.commit.to_string(), made.name.clone()]
    };
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    output::print(&output::columns(Some(&["as of", "commit", "name"]), &rows, &[1]))
}

fn snapshot_json(made: &SnapshotInfo) -> Value {
    json!({
        "name": made.name,
        "timestamp": made.time.to_string(),
        "commit": made.commit.number(),
    })
}

async fn remove(globals: &Globals, name: &str) -> Result<()> {
    let store = open(globals).await?;
    let done = store.drop_snapshot(name).await;
    settle(&store).await;
    done?;
    tell(globals, &format!("removed snapshot {name}"), &json!({ "removed": name }))
}

pub(super) async fn expire(globals: &Globals, args: &ExpireArgs) -> Result<()> {
    let rule = rule(args)?;
    let store = open(globals).await?;
    let expired = store.expire(tree_path(&args.path), rule).await;
    settle(&store).await;
    let expired = expired?;
    if globals.json {
        return output::print_json(&Value::Array(expired.iter().map(expired_json).collect()));
    }
    if expired.is_empty() {
        return output::print("nothing to let go\n");
    }
    let lines: String = expired.iter().map(|one| format!("{}\n", expired_words(one))).collect();
    output::print(&lines)
}

fn rule(args: &ExpireArgs) -> Result<ExpireRule> {
    match (args.keep_versions, &args.before) {
        (Some(count), _) => Ok(ExpireRule::KeepVersions(count)),
        (None, Some(text)) => before(text),
        (None, None) => Err(Error::usage("expire takes --keep-versions or --before")),
    }
}

/// A version, or a time as people write it.
fn before(text: &str) -> Result<ExpireRule> {
    if let Ok(AsOf::Version(version)) = text.parse::<AsOf>() {
        return Ok(ExpireRule::BeforeVersion(version));
    }
    let now = tidelog::Env::default().clock.now();
    let time = EventTime::parse_start(text, now).map_err(|error| {
        Error::usage(format!("--before takes a version such as v5 or a time: {error}"))
    })?;
    Ok(ExpireRule::BeforeTime(WriteTime::from_micros(time.nanos().div_euclid(1000))))
}

fn expired_words(one: &ExpiredSeries) -> String {
    let removed = if one.removed { ", which was removed" } else { "" };
    let newest = one.newest;
    match one.first > newest {
        true => format!("{}{removed}: nothing of its history is readable any more", one.path),
        false if one.first == newest => format!("{}{removed}: readable from {newest} on", one.path),
        false => format!("{}{removed}: readable from {} to {newest}", one.path, one.first),
    }
}

fn expired_json(one: &ExpiredSeries) -> Value {
    json!({
        "path": one.path.as_str(),
        "node": one.node.to_string(),
        "removed": one.removed,
        "first_readable_before": one.first_before.number(),
        "first_readable": one.first.number(),
        "version": one.newest.number(),
    })
}
