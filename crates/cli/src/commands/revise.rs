//! Changing data: rows deleted or replaced, an earlier version restored.

use serde_json::{Value, json};
use tidelog::{AsOf, DeleteOptions, ErrorKind, RevisionReceipt, SeriesExt, Store, TimeRange};

use crate::args::{DeleteArgs, Globals, ReplaceArgs, RestoreArgs};
use crate::commands::append::expected;
use crate::commands::query::{parse, range};
use crate::commands::{open, settle, tell, tree_path};
use crate::error::{Error, Result};
use crate::input::InputFile;
use crate::progress::grouped;

pub(super) async fn delete(globals: &Globals, args: &DeleteArgs) -> Result<()> {
    let which = &args.which;
    let mut options = DeleteOptions::default();
    options.range = range(which.from.as_deref(), which.to.as_deref())?;
    options.filter.clone_from(&which.filter);
    let (store, path) = (open(globals).await?, tree_path(&args.path));
    let done = store.root().delete_series_data_with_options(path, &options).await;
    settle(&store).await;
    let done = done?;
    let words = match done.version {
        Some(version) => format!("{path}: {version}, {} deleted", rows_words(done.rows_ended)),
        None => format!("{path}: no row is to be deleted, nothing stored"),
    };
    tell(globals, &words, &receipt_json(&done))
}

pub(super) async fn replace(globals: &Globals, args: &ReplaceArgs) -> Result<()> {
    let file = InputFile::try_new(&args.file, args.format)?;
    let whole = range(Some(&args.from), Some(&args.to))?.unwrap_or(TimeRange::ALL);
    let (store, path) = (open(globals).await?, tree_path(&args.path));
    let done = replace_with(&store, path, whole, &file).await;
    settle(&store).await;
    let done = done?;
    let words = match done.version {
        Some(version) => format!(
            "{path}: {version}, {} in the place of {}",
            rows_words(done.rows_added),
            rows_words(done.rows_ended)
        ),
        None => format!("{path}: no row is there or comes, nothing stored"),
    };
    tell(globals, &words, &receipt_json(&done))
}

async fn replace_with(
    store: &Store,
    path: &str,
    range: TimeRange,
    file: &InputFile,
) -> Result<RevisionReceipt> {
    let expected = expected(store, path, None, None).await?;
    let (name, reading) = (file.name(), file.clone());
    // Off the runtime, so that Ctrl-C is heard.
    let read = tokio::task::spawn_blocking(move || reading.read(&expected)).await;
    let batch = read.map_err(|error| Error::Internal { message: error.to_string() })??;
    let (start, end) = (range.start(), range.end());
    let done = store.root().replace_series_data(path, start, end, &batch).await;
    done.map_err(|source| match source.kind() {
        ErrorKind::InvalidInput => Error::AppendFile { file: name, source },
        _ => source.into(),
    })
}

pub(super) async fn restore(globals: &Globals, args: &RestoreArgs) -> Result<()> {
    let to: AsOf = args.to.parse().map_err(|error| Error::option("--to", parse(error)))?;
    let (store, path) = (open(globals).await?, tree_path(&args.path));
    let done = store.root().restore_series(path, &to).await;
    settle(&store).await;
    let done = done?;
    let words = match done.version {
        Some(version) => format!("{path}: {version} has the rows of {to}"),
        None => format!("{path}: nothing was done since {to}, nothing stored"),
    };
    tell(globals, &words, &receipt_json(&done))
}

fn rows_words(count: u64) -> String {
    format!("{} {}", grouped(count), if count == 1 { "row" } else { "rows" })
}

fn receipt_json(done: &RevisionReceipt) -> Value {
    json!({
        "path": done.path.as_str(),
        "version": done.version.map(tidelog::Version::number),
        "write_time": done.write_time.map(|time| time.to_string()),
        "rows_ended": done.rows_ended,
        "rows_added": done.rows_added,
        "transaction_id": done.transaction.to_string(),
    })
}
