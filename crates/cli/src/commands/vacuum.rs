//! Deleting what nothing can read any more.

use serde_json::{Value, json};
use tidelog::{FileCount, VacuumFile, VacuumOptions, VacuumReason, VacuumReport};

use crate::args::{Globals, VacuumArgs};
use crate::commands::{open, settle};
use crate::error::Result;
use crate::output;
use crate::progress::{grouped, size};

pub(super) async fn vacuum(globals: &Globals, args: &VacuumArgs) -> Result<()> {
    let store = open(globals).await?;
    let options = VacuumOptions::default().with_apply(args.apply).with_older_than(args.older_than);
    let report = store.vacuum(&options).await;
    if args.apply {
        settle(&store).await;
    }
    let report = report?;
    if globals.json {
        return output::print_json(&document(&report));
    }
    output::print(&words(&report))
}

fn words(report: &VacuumReport) -> String {
    let mut text = String::new();
    if !report.files.is_empty() {
        let rows: Vec<Vec<String>> = report.files.iter().map(row).collect();
        text.push_str(&output::columns(Some(&["size", "why", "series", "file"]), &rows, &[0]));
    }
    let total = report.total();
    let unnamed = total.files - report.files.len() as u64;
    if unnamed > 0 {
        text.push_str(&format!("and {} files more\n", grouped(unnamed)));
    }
    let done = if report.applied { "deleted" } else { "would delete" };
    let mut parts = vec![format!("{done} {}", count_words(total))];
    for (count, why) in [
        (report.young, "of no use are too young (--older-than)"),
        (report.pinned, "of no use are still being read"),
    ] {
        if count.files > 0 {
            parts.push(format!("{} {why}", count_words(count)));
        }
    }
    parts.push(format!("{} are needed", count_words(report.needed)));
    text.push_str(&parts.join("; "));
    text.push('\n');
    if !report.applied && total.files > 0 {
        text.push_str("nothing was deleted; --apply deletes them\n");
    }
    text
}

fn count_words(count: FileCount) -> String {
    let files = if count.files == 1 { "file" } else { "files" };
    format!("{} {files} ({})", grouped(count.files), size(count.bytes))
}

fn row(file: &VacuumFile) -> Vec<String> {
    let path = file.path.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![size(file.bytes), reason(file.reason).to_owned(), path, file.object.clone()]
}

fn reason(reason: VacuumReason) -> &'static str {
    match reason {
        VacuumReason::Replaced => "replaced",
        VacuumReason::Expired => "expired",
        VacuumReason::Orphan => "orphan",
        _ => "of no use",
    }
}

fn document(report: &VacuumReport) -> Value {
    let count = |count: FileCount| json!({ "files": count.files, "bytes": count.bytes });
    let files = report.files.iter().map(|file| {
        json!({
            "object": file.object,
            "path": file.path.as_ref().map(ToString::to_string),
            "bytes": file.bytes,
            "reason": reason(file.reason),
        })
    });
    json!({
        "applied": report.applied,
        "total": count(report.total()),
        "replaced": count(report.replaced),
        "expired": count(report.expired),
        "orphans": count(report.orphans),
        "young": count(report.young),
        "pinned": count(report.pinned),
        "needed": count(report.needed),
        "files": files.collect::<Vec<_>>(),
    })
}
