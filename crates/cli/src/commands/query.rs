//! Reading: one series or many, by options or by SQL.

use std::io::{self, Read};

use tidelog::{
    AsOf, Env, EventTime, LatestOptions, ReadOptions, SeriesExt, SqlPolicy, Store, TimeRange,
};

use crate::args::{Globals, LatestArgs, OutputArgs, QueryArgs};
use crate::commands::{open, settle};
use crate::error::{Error, Result};
use crate::output;

pub(super) async fn query(globals: &Globals, args: &QueryArgs) -> Result<()> {
    let options = options(args)?;
    let store = open(globals).await?;
    let rows = store.root().read_series_with_options(&args.path, &options).await?;
    let covered = rows.time_range().map(|range| range.to_string());
    tracing::info!(versions = rows.total_versions(), covered, "planned");
    let schema = rows.schema();
    output::write_rows(rows, schema, &args.output, globals.json).await
}

pub(super) async fn latest(globals: &Globals, args: &LatestArgs) -> Result<()> {
    let mut options = LatestOptions::default();
    if let Some(range) = range(args.from.as_deref(), args.to.as_deref())? {
        options = options.with_range(range);
    }
    if let Some(text) = &args.selection.as_of {
        options = options.with_as_of(as_of(text)?);
    }
    if let Some(by) = &args.by {
        options = options.with_by(by);
    }
    if let Some(columns) = &args.selection.columns {
        options = options.with_columns(columns);
    }
    if let Some(filter) = &args.selection.filter {
        options = options.with_filter(filter);
    }
    let store = open(globals).await?;
    let rows = store.root().read_series_latest(&args.path, &options).await?;
    let schema = rows.schema();
    let rows = futures::stream::iter([Ok(rows)]);
    output::write_rows(rows, schema, &args.output, globals.json).await
}

pub(super) async fn sql(globals: &Globals, statement: String, args: &OutputArgs) -> Result<()> {
    let statement = if statement == "-" { statement_from_stdin().await? } else { statement };
    let store = open(globals).await?;
    let outcome = run_sql(&store, &statement, globals, args).await;
    settle_if_claimed(&store).await;
    outcome
}

/// A query writes nothing, and what it has read is not worth a step of upkeep.
async fn settle_if_claimed(store: &Store) {
    if store.tiers().is_some() {
        settle(store).await;
    }
}

async fn run_sql(
    store: &Store,
    statement: &str,
    globals: &Globals,
    args: &OutputArgs,
) -> Result<()> {
    // Whoever runs the program could do with files what a statement can.
    let rows = store.sql_with_policy(statement, SqlPolicy::Unrestricted).await?;
    let schema = rows.schema();
    output::write_rows(rows, schema, args, globals.json).await
}

async fn statement_from_stdin() -> Result<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    });
    let text = read.await.map_err(|error| Error::Internal { message: error.to_string() })?;
    text.map_err(|error| Error::input("standard input", error.to_string()))
}

fn options(args: &QueryArgs) -> Result<ReadOptions> {
    let mut options = ReadOptions::default().with_descending(args.desc);
    if let Some(range) = range(args.from.as_deref(), args.to.as_deref())? {
        options = options.with_range(range);
    }
    if let Some(text) = &args.selection.as_of {
        options = options.with_as_of(as_of(text)?);
    }
    if let Some(columns) = &args.selection.columns {
        options = options.with_columns(columns);
    }
    if let Some(filter) = &args.selection.filter {
        options = options.with_filter(filter);
    }
    for order in &args.order_by {
        let (column, descending) = order_by(order);
        options = options.with_order_by(column, descending);
    }
    if let Some(rows) = args.limit {
        options = options.with_limit(rows);
    }
    Ok(options)
}

/// An error of a value that cannot be read.
pub(super) fn parse(error: impl Into<tidelog::Error>) -> tidelog::Error {
    error.into()
}

fn as_of(text: &str) -> Result<AsOf> {
    text.parse().map_err(|error| Error::option("--as-of", parse(error)))
}

/// A range of event time as typed; `None` if neither end is.
pub(super) fn range(from: Option<&str>, to: Option<&str>) -> Result<Option<TimeRange>> {
    if from.is_none() && to.is_none() {
        return Ok(None);
    }
    let now = Env::default().clock.now();
    let start = from.map_or(Ok(EventTime::MIN), |text| EventTime::parse_start(text, now));
    let end = to.map_or(Ok(EventTime::MAX), |text| EventTime::parse_end(text, now));
    let start = start.map_err(|error| Error::option("--from", error))?;
    let end = end.map_err(|error| Error::option("--to", error))?;
    let range = TimeRange::try_new(start, end).map_err(|e| Error::option("--from, --to", e))?;
    Ok(Some(range))
}

/// A column, and whether it is turned round.
fn order_by(text: &str) -> (&str, bool) {
    match text.rsplit_once(':') {
        Some((column, "desc")) => (column, true),
        Some((column, "asc")) => (column, false),
        _ => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read() {
        assert_eq!(order_by("temp"), ("temp", false));
        assert_eq!(order_by("temp:desc"), ("temp", true));
        assert_eq!(order_by("a:b:asc"), ("a:b", false));
    }

    #[test]
    fn ranges_may_be_open_and_must_not_be_inverted() {
        assert!(range(None, None).unwrap().is_none());
        let day = range(Some("2024-01-31"), Some("2024-01-31")).unwrap().unwrap();
        assert_eq!(day.end().nanos() - day.start().nanos(), 86_400_000_000_000 - 1);
        assert_eq!(range(None, Some("now")).unwrap().unwrap().start(), EventTime::MIN);
        for (from, to) in [("2024-02-01", "2024-01-31"), ("yesterday", "now"), ("now", "-7")] {
            assert_eq!(range(Some(from), Some(to)).unwrap_err().exit_code(), 3, "{from} {to}");
        }
    }
}
