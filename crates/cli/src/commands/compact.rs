//! Merging the files of series.

use serde_json::{Value, json};
use tidelog::{CompactionReport, Merge, SeriesCompaction};

use crate::args::Globals;
use crate::commands::{open, tree_path};
use crate::error::Result;
use crate::output;
use crate::progress::{grouped, size};

pub(super) async fn compact(globals: &Globals, pattern: &str, dry_run: bool) -> Result<()> {
    let store = open(globals).await?;
    let pattern = tree_path(pattern);
    let report = match dry_run {
        true => store.compact_dry_run(pattern).await?,
        false => store.compact(pattern).await?,
    };
    if globals.json {
        return output::print_json(&document(&report, dry_run));
    }
    output::print(&words(&report, dry_run))
}

fn words(report: &CompactionReport, dry_run: bool) -> String {
    let changed = |series: &&SeriesCompaction| !series.merges.is_empty() || series.given_up > 0;
    let mut lines: Vec<String> =
        report.series.iter().filter(changed).flat_map(|series| lines_of(series, dry_run)).collect();
    if lines.is_empty() {
        lines.push("nothing to merge".to_owned());
    }
    lines.join("\n") + "\n"
}

fn lines_of(series: &SeriesCompaction, dry_run: bool) -> Vec<String> {
    let mut lines = vec![match dry_run {
        true => format!("{}: {}", series.path, files(series.files_before)),
        false => format!(
            "{}: {} became {} ({} written)",
            series.path,
            files(series.files_before),
            grouped(series.files_after),
            size(series.bytes_written)
        ),
    }];
    let verb = if dry_run { "would merge" } else { "merged" };
    lines.extend(series.merges.iter().map(|merge| {
        format!(
            "  {verb} {} ({}, {} rows): {}",
            files(merge.files),
            size(merge.bytes),
            grouped(merge.rows),
            merge.reason
        )
    }));
    if series.given_up > 0 {
        let times = grouped(series.given_up);
        lines.push(format!("  gave up {times} merges, as others had changed the files meanwhile"));
    }
    lines
}

fn files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{} files", grouped(count)) }
}

fn document(report: &CompactionReport, dry_run: bool) -> Value {
    let series = report.series.iter().map(|series| {
        json!({
            "path": series.path.as_str(),
            "files_before": series.files_before,
            "files_after": series.files_after,
            "merges": series.merges.iter().map(merge_json).collect::<Vec<_>>(),
            "bytes_written": series.bytes_written,
            "given_up": series.given_up,
        })
    });
    json!({ "dry_run": dry_run, "series": series.collect::<Vec<_>>() })
}

pub(super) fn merge_json(merge: &Merge) -> Value {
    json!({
        "files": merge.files,
        "bytes": merge.bytes,
        "rows": merge.rows,
        "superseded": merge.superseded,
        "reason": merge.reason.to_string(),
    })
}
