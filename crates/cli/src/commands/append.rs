//! Appending files, each as one version.
//!
//! Files are read in order and committed in groups, so that many small files cost few commits and
//! many large ones bounded memory. If one is wrong, those before it stay stored and those after it
//! are not, as if they had been appended one by one.

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use tidelog::{
    AppendReceipt, ErrorKind, SeriesAppend, SeriesExt, Store, TimeUnit, WorkingDirectory,
};

use crate::args::{AppendArgs, Globals};
use crate::commands::{open, settle};
use crate::error::{Error, Result};
use crate::input::{Expected, InputFile};
use crate::output;
use crate::progress::{self, grouped};

/// Rows of a group may take this much memory before they are committed.
const GROUP_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Versions that share a commit, at most.
const GROUP_FILES_MAX: usize = 1_000;

pub(super) async fn append(globals: &Globals, args: &AppendArgs) -> Result<()> {
    let files = args
        .files
        .iter()
        .map(|path| InputFile::try_new(path, args.format))
        .collect::<Result<Vec<_>>>()?;
    if files.iter().filter(|file| file.name() == "standard input").count() > 1 {
        return Err(Error::usage("standard input can be read only once; name - once"));
    }
    let store = open(globals).await?;
    let stated = args.time_column.clone();
    let expected = expected(&store, &args.path, stated, args.unit).await?;
    let mut appender = Appender {
        directory: store.root(),
        args,
        expected,
        group: Vec::new(),
        group_bytes: 0,
        stored: Vec::new(),
    };
    let outcome = appender.append_all(&files).await;
    let told = tell(globals, &appender);
    settle(&store).await;
    outcome.map_err(|source| match files.len() {
        1 => source,
        files => Error::Append { stored: appender.stored.len(), files, source: Box::new(source) },
    })?;
    told
}

/// What is known of the series before the first file is read.
pub(super) async fn expected(
    store: &Store,
    path: &str,
    stated: Option<String>,
    unit: Option<TimeUnit>,
) -> Result<Expected> {
    match store.describe(path).await {
        Ok(series) => Ok(Expected {
            columns: series.schema,
            time_column: stated.or(series.options.time_column),
            time_unit: unit.or(series.options.time_unit),
            keys: series.options.key_columns,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(Expected { time_column: stated, time_unit: unit, ..Expected::default() })
        }
        Err(error) => Err(error.into()),
    }
}

struct Appender<'a> {
    directory: WorkingDirectory,
    args: &'a AppendArgs,
    expected: Expected,
    /// Files that are read and not committed.
    group: Vec<(String, RecordBatch)>,
    group_bytes: usize,
    stored: Vec<(String, AppendReceipt)>,
}

impl Appender<'_> {
    async fn append_all(&mut self, files: &[InputFile]) -> Result<()> {
        let bar = progress::files(files.len());
        for file in files {
            bar.set_message(file.name());
            let batch = match self.read(file).await {
                Ok(batch) => batch,
                Err(error) => {
                    self.commit().await?;
                    return Err(error);
                }
            };
            self.group_bytes += batch.get_array_memory_size();
            self.group.push((file.name(), batch));
            if self.group_bytes >= GROUP_BYTES_MAX || self.group.len() >= GROUP_FILES_MAX {
                self.commit().await?;
            }
            bar.inc(1);
        }
        self.commit().await?;
        bar.finish_and_clear();
        Ok(())
    }

    /// Reads a file off the runtime, so that Ctrl-C is heard. The first rows of a new series tell
    /// how the text of the files after it is to be read.
    async fn read(&mut self, file: &InputFile) -> Result<RecordBatch> {
        let (file, expected) = (file.clone(), self.expected.clone());
        let read = tokio::task::spawn_blocking(move || file.read(&expected)).await;
        let batch = read.map_err(|error| Error::Internal { message: error.to_string() })??;
        if self.expected.columns.is_none() && batch.num_rows() > 0 {
            self.expected.columns = Some(batch.schema());
        }
        Ok(batch)
    }

    /// Commits the group. If a file does not fit the series, the files before it are committed.
    async fn commit(&mut self) -> Result<()> {
        self.group_bytes = 0;
        // Parts still to be committed, the first on top.
        let mut parts = vec![std::mem::take(&mut self.group)];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            match self.commit_together(&part).await {
                Ok(receipts) => {
                    tracing::info!(versions = part.len(), path = self.args.path, "committed");
                    self.stored.extend(part.into_iter().map(|(file, _)| file).zip(receipts));
                }
                Err(error) if error.kind() == ErrorKind::InvalidInput && part.len() > 1 => {
                    // Which of them it was shows by halves.
                    let rest = part.split_off(part.len() / 2);
                    parts.push(rest);
                    parts.push(part);
                }
                Err(source) => {
                    let file = part.swap_remove(0).0;
                    return Err(Error::AppendFile { file, source });
                }
            }
        }
        Ok(())
    }

    async fn commit_together(
        &self,
        part: &[(String, RecordBatch)],
    ) -> tidelog::Result<Vec<AppendReceipt>> {
        let appends = part.iter().map(|(_, batch)| self.append_of(batch)).collect();
        self.directory.append_atomic(appends).await
    }

    fn append_of(&self, batch: &RecordBatch) -> SeriesAppend {
        let mut append = SeriesAppend::new(&self.args.path, batch.clone());
        if let Some(column) = &self.args.time_column {
            append = append.with_time_column(column);
        }
        if let Some(unit) = self.args.unit {
            append = append.with_time_unit(unit);
        }
        append
    }
}

/// Tells which file became which version.
fn tell(globals: &Globals, appender: &Appender<'_>) -> Result<()> {
    if globals.json {
        let versions: Vec<Value> =
            appender.stored.iter().map(|(file, receipt)| receipt_json(file, receipt)).collect();
        let path = &appender.args.path;
        return output::print_json(&json!({ "path": path, "appended": versions }));
    }
    let lines: String =
        appender.stored.iter().map(|(file, receipt)| receipt_line(file, receipt)).collect();
    output::print(&lines)
}

fn receipt_line(file: &str, receipt: &AppendReceipt) -> String {
    match receipt.version {
        Some(version) => {
            let rows = if receipt.rows == 1 { "row" } else { "rows" };
            format!("{file}: {version}, {} {rows}, {}\n", grouped(receipt.rows), receipt.durability)
        }
        None => format!("{file}: no rows, nothing stored\n"),
    }
}

fn receipt_json(file: &str, receipt: &AppendReceipt) -> Value {
    json!({
        "file": file,
        "version": receipt.version.map(tidelog::Version::number),
        "rows": receipt.rows,
        "write_time": receipt.write_time.map(|time| time.to_string()),
        "transaction_id": receipt.transaction.to_string(),
        "durability": receipt.durability.to_string(),
    })
}
