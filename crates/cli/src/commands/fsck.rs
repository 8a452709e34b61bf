//! Checking a store.

use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::{Value, json};
use tidelog::{Finding, FsckOptions, FsckProgress, FsckReport, Orphan};

use crate::args::Globals;
use crate::commands::{builder, location, no_store};
use crate::error::{Error, Result};
use crate::output;
use crate::progress::{self, grouped, size};

pub(super) async fn fsck(globals: &Globals, deep: bool) -> Result<()> {
    let location = location(globals).await?;
    let bar = progress::parts(0);
    let shown = bar.clone();
    let options =
        FsckOptions::default().with_deep(deep).with_progress(move |done| show(&shown, done));
    let report = builder(globals).await?.fsck_with_options(&options).await;
    bar.finish_and_clear();
    let report = report.map_err(|error| no_store(error, &location))?;
    if globals.json {
        output::print_json(&document(&report))?;
    } else {
        output::print(&words(&report))?;
    }
    match report.damage.len() {
        0 => Ok(()),
        count => Err(Error::Damaged { count }),
    }
}

fn show(bar: &ProgressBar, done: &FsckProgress) {
    bar.set_length(done.parts);
    bar.set_position(done.parts_done);
    bar.set_message(format!("{} files, {}", grouped(done.files_done), size(done.bytes_done)));
}

fn words(report: &FsckReport) -> String {
    let mut lines: Vec<String> =
        report.damage.iter().map(|finding| format!("damage: {finding}")).collect();
    lines.extend(report.notes.iter().map(|finding| format!("note: {finding}")));
    lines.extend(report.orphans.iter().map(|orphan| orphan_words(report, orphan)));
    let unnamed = report.orphan_count - report.orphans.len() as u64;
    if unnamed > 0 {
        lines.push(format!("note: and {} objects more that nothing names", grouped(unnamed)));
    }
    if report.replaced_parts > 0 {
        lines.push(format!(
            "note: {} log parts ({}) have been merged into others and not expired yet",
            grouped(report.replaced_parts),
            size(report.replaced_bytes)
        ));
    }
    if report.replaced_files > 0 {
        lines.push(format!(
            "note: {} data files ({}) are no part of their series any more; `vacuum` deletes them",
            grouped(report.replaced_files),
            size(report.replaced_file_bytes)
        ));
    }
    lines.push(format!(
        "checked {} commits, {} checkpoints, {} log parts with {} rows, {} series with {} \
         versions, {} data files ({}, {})",
        grouped(report.commits),
        grouped(report.checkpoints),
        grouped(report.parts),
        grouped(report.log_rows),
        grouped(report.series),
        grouped(report.versions),
        grouped(report.files),
        size(report.bytes),
        if report.deep { "every byte" } else { "sizes only" },
    ));
    if report.wal_records > 0 {
        lines.push(format!(
            "checked a write-ahead log with {} records, {} of which are not committed",
            grouped(report.wal_records),
            grouped(report.wal_uncovered),
        ));
    }
    lines.push(match report.damage.len() {
        0 => "nothing is damaged".to_owned(),
        count => format!("damaged: {}", grouped(count as u64)),
    });
    lines.join("\n") + "\n"
}

fn orphan_words(report: &FsckReport, orphan: &Orphan) -> String {
    let meaning = if report.is_intact() {
        "it belongs to a write that is under way, or that failed (`vacuum` deletes it then)"
    } else {
        "keep it until the damage is mended, for lost rows may name it"
    };
    let age = indicatif::HumanDuration(Duration::from_secs(orphan.age.as_secs()));
    format!("note: nothing names {} ({}, {age} old); {meaning}", orphan.object, size(orphan.bytes))
}

fn document(report: &FsckReport) -> Value {
    let findings = |all: &[Finding]| all.iter().map(finding_json).collect::<Vec<_>>();
    let orphans = report.orphans.iter().map(|orphan| {
        json!({
            "object": orphan.object,
            "bytes": orphan.bytes,
            "age_seconds": orphan.age.as_secs(),
        })
    });
    json!({
        "intact": report.is_intact(),
        "damage": findings(&report.damage),
        "notes": findings(&report.notes),
        "orphans": orphans.collect::<Vec<_>>(),
        "orphan_count": report.orphan_count,
        "orphan_bytes": report.orphan_bytes,
        "replaced_parts": report.replaced_parts,
        "replaced_bytes": report.replaced_bytes,
        "replaced_files": report.replaced_files,
        "replaced_file_bytes": report.replaced_file_bytes,
        "deep": report.deep,
        "commits": report.commits,
        "checkpoints": report.checkpoints,
        "parts": report.parts,
        "log_rows": report.log_rows,
        "series": report.series,
        "versions": report.versions,
        "snapshots": report.snapshots,
        "files": report.files,
        "bytes": report.bytes,
        "wal_records": report.wal_records,
        "wal_uncovered": report.wal_uncovered,
    })
}

fn finding_json(finding: &Finding) -> Value {
    let versions = finding.versions.map(|(first, last)| [first.number(), last.number()]);
    json!({
        "object": finding.object,
        "path": finding.path,
        "versions": versions,
        "rows": finding.rows,
        "problem": finding.problem,
        "remedy": finding.remedy,
    })
}
