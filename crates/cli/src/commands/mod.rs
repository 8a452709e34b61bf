//! What each command does.

mod append;
mod compact;
mod config;
mod fsck;
mod history;
mod layout;
mod log;
mod query;
mod revise;
mod store;
mod tiers;
mod tree;
mod vacuum;
mod wal;

use std::io::Write;

use tidelog::{
    ErrorKind, Layout, Partition, SeriesExt, SeriesOptions, Store, StoreBuilder, TimeRange,
};

use crate::args::{
    Cli, Command, ConfigCommand, CreateArgs, DemoArgs, Globals, SeriesCommand, SetArgs, WalCommand,
};
use crate::demo;
use crate::error::{Error, Result};
use crate::output;
use crate::progress;
use crate::settings::layers;

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    check_mode(&cli)?;
    let globals = &cli.globals;
    match cli.command {
        Command::Init => store::init(globals).await,
        Command::Stats => store::stats(globals).await,
        Command::Maintain { full } => store::maintain(globals, full).await,
        Command::Snapshot(command) => history::snapshot(globals, &command).await,
        Command::Expire(args) => history::expire(globals, &args).await,
        Command::Vacuum(args) => vacuum::vacuum(globals, &args).await,
        Command::Layout(args) => layout::layout(globals, &args).await,
        Command::Ls { long, glob } => tree::ls(globals, &glob, long).await,
        Command::Describe { path } => tree::describe(globals, &path).await,
        Command::Mkdir { path } => tree::mkdir(globals, &path).await,
        Command::Mv { from, to } => tree::mv(globals, &from, &to).await,
        Command::Rm { recursive, path } => tree::rm(globals, &path, recursive).await,
        Command::Log(args) => log::log(globals, &args).await,
        Command::Compact { pattern, dry_run } => compact::compact(globals, &pattern, dry_run).await,
        Command::Fsck { deep } => fsck::fsck(globals, deep).await,
        Command::Wal(WalCommand::Inspect) => wal::inspect(globals).await,
        Command::Wal(WalCommand::Repair) => wal::repair(globals).await,
        Command::Wal(WalCommand::Recover(args)) => wal::recover(globals, &args).await,
        Command::Config(ConfigCommand::Show) => config::show(globals).await,
        Command::Config(ConfigCommand::Check { file }) => {
            config::check(globals, file.as_deref()).await
        }
        Command::Tiers { watch } => tiers::tiers(globals, watch).await,
        Command::Series(SeriesCommand::Create(args)) => create(globals, args).await,
        Command::Series(SeriesCommand::Set(args)) => set(globals, args).await,
        Command::Series(SeriesCommand::Append(args)) => append::append(globals, &args).await,
        Command::Series(SeriesCommand::Query(args)) => query::query(globals, &args).await,
        Command::Series(SeriesCommand::Latest(args)) => query::latest(globals, &args).await,
        Command::Series(SeriesCommand::Delete(args)) => revise::delete(globals, &args).await,
        Command::Series(SeriesCommand::Replace(args)) => revise::replace(globals, &args).await,
        Command::Series(SeriesCommand::Restore(args)) => revise::restore(globals, &args).await,
        Command::Sql { statement, output } => query::sql(globals, statement, &output).await,
        Command::Demo(args) => demo(globals, &args).await,
    }
}

async fn demo(globals: &Globals, args: &DemoArgs) -> Result<()> {
    let builder_of = |dir: &str| Store::builder(dir).with_layers(layers(globals));
    match args.rows {
        Some(rows) => {
            let shape = globals.settings.demo_shape();
            demo::load::run(builder_of, args, rows, shape, globals.json).await
        }
        None => {
            let dir = args.dir.as_deref().unwrap_or("./tidelog-demo");
            demo::run(builder_of(dir), dir, globals.json).await
        }
    }
}

/// Refuses a shape of the demo's rows anywhere else.
fn check_mode(cli: &Cli) -> Result<()> {
    let makes_rows = matches!(&cli.command, Command::Demo(args) if args.rows.is_some());
    if cli.globals.settings.demo_shape().is_some() && !makes_rows {
        return Err(Error::usage("--mode simple and --mode trading are for `demo --rows`"));
    }
    Ok(())
}

/// Where the store is.
async fn location(globals: &Globals) -> Result<String> {
    layers(globals).load().await?.settings.store.ok_or_else(|| {
        Error::usage("which store? name it by --store DIR or in the environment as TIDELOG_STORE")
    })
}

/// How to open or make the store.
async fn builder(globals: &Globals) -> Result<StoreBuilder> {
    let mut builder = Store::builder(location(globals).await?).with_layers(layers(globals));
    for option in &globals.storage_options {
        // The option is not repeated: its value may be a secret.
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| Error::usage("--storage-option takes NAME=VALUE, such as region=eu"))?;
        builder = builder.with_storage_option(name, value);
    }
    Ok(builder.with_take_over(globals.take_over))
}

/// Whether the store is named by a bucket's URL: there more can be missing than the store.
fn is_remote(location: &str) -> bool {
    location.contains("://") && !location.starts_with("file://")
}

async fn open(globals: &Globals) -> Result<Store> {
    let location = location(globals).await?;
    let opened = Box::pin(builder(globals).await?.open()).await;
    let opened = opened.map_err(|error| no_store(error, &location))?;
    tracing::info!(location, "opened");
    Ok(opened)
}

fn no_store(error: tidelog::Error, location: &str) -> Error {
    match error.kind() {
        ErrorKind::NotFound if !is_remote(location) && error.settings().is_none() => {
            Error::NoStore { location: location.to_owned() }
        }
        _ => error.into(),
    }
}

/// What follows a write, be it acknowledged or refused: gives the store back, if this process has it
/// alone, and does one step of upkeep, if the log needs it. The write stands whatever becomes of
/// either.
pub(crate) async fn settle(store: &Store) {
    tell_taken_over(store);
    if let Err(error) = store.close().await {
        let error = Error::from(error);
        // Where stderr cannot be written, the next writer brings it in all the same.
        drop(writeln!(
            std::io::stderr(),
            "warning: the store was not given back: {}; what was acknowledged is in the write-ahead \
             log, and whoever writes next brings it in",
            error.line()
        ));
        return;
    }
    if let Err(error) = store.maintain_step().await {
        tracing::warn!(%error, "the log could not be merged; `tidelog maintain` says more");
    }
}

/// Says from whom the store was taken. It was, whether or not stderr can be written.
fn tell_taken_over(store: &Store) {
    let Some(taken) = store.taken_over() else { return };
    let left = match taken.records_left {
        Some(records) => format!("{} records", progress::grouped(records)),
        None => "what".to_owned(),
    };
    drop(writeln!(
        std::io::stderr(),
        "note: took the store from {}; {left} that it acknowledged and did not write to files are left \
         in its write-ahead log {}; `tidelog wal recover`, where that lies, brings them in",
        taken.from,
        taken.from.wal
    ));
}

/// Tells what was done, to people in words and to programs as a document.
fn tell(globals: &Globals, words: &str, document: &serde_json::Value) -> Result<()> {
    if globals.json { output::print_json(document) } else { output::print(&format!("{words}\n")) }
}

/// A path of the tree as typed: shells complete directories with a slash at the end.
fn tree_path(text: &str) -> &str {
    match text.strip_suffix('/') {
        Some("") | None => text,
        Some(path) => path,
    }
}

/// Event times from and to, or nothing.
fn range_words(range: Option<TimeRange>) -> String {
    range.map(|range| range.to_string()).unwrap_or_default()
}

fn range_json(range: Option<TimeRange>) -> serde_json::Value {
    range.map_or(serde_json::Value::Null, |range| {
        serde_json::json!([range.start().to_string(), range.end().to_string()])
    })
}

async fn create(globals: &Globals, args: CreateArgs) -> Result<()> {
    let mut options = SeriesOptions::default().with_key_columns(args.keys).with_dedup(args.dedup);
    if let Some(column) = args.time_column {
        options = options.with_time_column(column);
    }
    if let Some(unit) = args.unit {
        options = options.with_time_unit(unit);
    }
    let change = args.layout.change();
    options = options
        .clone()
        .with_layout(change.of(options.layout()))
        .map_err(|error| Error::usage(error.to_string()))?;
    let store = open(globals).await?;
    let created = store.root().create_series(&args.path, options).await;
    settle(&store).await;
    created?;
    let document = serde_json::json!({ "created": args.path });
    tell(globals, &format!("created {}", args.path), &document)
}

async fn set(globals: &Globals, args: SetArgs) -> Result<()> {
    let change = args.layout.change();
    if change.is_empty() {
        let what = "nothing to set; name --order, --partition, --codec or --row-group";
        return Err(Error::usage(what.to_owned()));
    }
    let (store, path) = (open(globals).await?, tree_path(&args.path));
    let changed = store.root().set_series_layout(path, change).await;
    settle(&store).await;
    changed?;
    let layout = store.describe(path).await?.options.layout();
    let document = serde_json::json!({ "set": path, "layout": layout_json(&layout) });
    tell(globals, &format!("{path} is laid out by {}", layout_words(&layout)), &document)
}

/// How files are laid out, in a few words.
pub(crate) fn layout_words(layout: &Layout) -> String {
    let partition = match layout.partition {
        Partition::None => "no partitions".to_owned(),
        partition => format!("partitions of a {partition}"),
    };
    let rows = progress::grouped(u64::from(layout.row_group_rows));
    format!("{}, {partition}, codec {}, row groups of {rows}", layout.order, layout.codec)
}

fn layout_json(layout: &Layout) -> serde_json::Value {
    serde_json::json!({
        "order": layout.order.name(),
        "partition": layout.partition.name(),
        "codec": layout.codec.to_string(),
        "row_group_rows": layout.row_group_rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_end_is_forgiven() {
        assert_eq!(tree_path("/a/b/"), "/a/b");
        assert_eq!(tree_path("/a"), "/a");
        assert_eq!(tree_path("/"), "/");
    }
}
