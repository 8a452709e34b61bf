//! The write-ahead log of one writer alone.

use serde_json::{Value, json};
use tidelog::TreePath;
use tidelog::wal::{
    Damage, RecoverOptions, RecoveredSeries, Renumbered, SegmentReport, Tail, WalRecovery,
    WalRepair, WalReport,
};

use crate::args::{Globals, RecoverArgs};
use crate::commands::builder;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::{grouped, size};

pub(super) async fn inspect(globals: &Globals) -> Result<()> {
    let report = builder(globals).await?.inspect_wal().await?;
    if globals.json {
        output::print_json(&report_json(&report))?;
    } else {
        output::print(&report_words(&report))?;
    }
    match report.log.tail {
        Tail::Damaged(_) => Err(Error::Damaged { count: 1 }),
        Tail::Clean | Tail::Torn(_) => Ok(()),
    }
}

pub(super) async fn repair(globals: &Globals) -> Result<()> {
    let repair = builder(globals).await?.repair_wal().await?;
    if globals.json {
        return output::print_json(&repair_json(&repair));
    }
    output::print(&repair_words(&repair))
}

pub(super) async fn recover(globals: &Globals, args: &RecoverArgs) -> Result<()> {
    let mut options = RecoverOptions::default().with_dry_run(args.dry_run);
    for pair in &args.to {
        let usage = || Error::usage("--to takes SERIES=PATH, such as /old.series=/new.series");
        let (from, to) = pair.split_once('=').ok_or_else(usage)?;
        let path = |text| TreePath::parse(text).map_err(|error| Error::option("--to", error));
        options = options.with_destination(path(from)?, path(to)?);
    }
    let recovery = builder(globals).await?.recover_wal(&options).await?;
    if globals.json {
        return output::print_json(&recovery_json(&recovery));
    }
    output::print(&recovery_words(&recovery))
}

fn recovery_words(recovery: &WalRecovery) -> String {
    let mut lines = vec![format!("log {} in {}", recovery.wal, recovery.directory.display())];
    lines
        .extend(recovery.taken_over.iter().map(|end| format!("the store was taken over by {end}")));
    lines.extend(recovery.series.iter().map(series_words));
    let (versions, rows) = (grouped(recovery.version_count()), grouped(recovery.row_count()));
    let records = grouped(recovery.records);
    lines.push(match recovery.dry_run {
        true => {
            format!("{versions} versions with {rows} rows of {records} records can be brought in")
        }
        false => {
            format!("{versions} versions with {rows} rows of {records} records were brought in")
        }
    });
    lines.join("\n") + "\n"
}

fn series_words(series: &RecoveredSeries) -> String {
    let runs = |runs: &[Renumbered]| runs.iter().map(run_words).collect::<Vec<_>>().join(", ");
    let place = match series.to == series.from {
        true => series.from.to_string(),
        false => format!("{} → {}", series.from, series.to),
    };
    let mut text = format!("{place}: {} ({} rows)", runs(&series.versions), grouped(series.rows));
    if series.versions.is_empty() {
        text = place;
    }
    if !series.known.is_empty() {
        text.push_str(&format!("; there already: {}", runs(&series.known)));
    }
    text
}

/// `v3…v7 → v9…v13`.
fn run_words(run: &Renumbered) -> String {
    let numbers = |first: tidelog::Version| {
        let last = first.number() + i64::try_from(run.count).unwrap_or(i64::MAX) - 1;
        if run.count == 1 { first.to_string() } else { format!("{first}…v{last}") }
    };
    match run.new {
        Some(new) => format!("{} → {}", numbers(run.old), numbers(new)),
        None => numbers(run.old),
    }
}

fn recovery_json(recovery: &WalRecovery) -> Value {
    let runs = |runs: &[Renumbered]| {
        let one = |run: &Renumbered| {
            json!({
                "old": run.old.number(),
                "new": run.new.map(|new| new.number()),
                "count": run.count,
            })
        };
        runs.iter().map(one).collect::<Vec<_>>()
    };
    let series = recovery.series.iter().map(|series| {
        json!({
            "from": series.from.to_string(),
            "node": series.node.to_string(),
            "to": series.to.to_string(),
            "rows": series.rows,
            "versions": runs(&series.versions),
            "known": runs(&series.known),
        })
    });
    json!({
        "id": recovery.wal.to_string(),
        "directory": recovery.directory.display().to_string(),
        "taken_over": recovery.taken_over.as_ref().map(ToString::to_string),
        "dry_run": recovery.dry_run,
        "records": recovery.records,
        "versions": recovery.version_count(),
        "rows": recovery.row_count(),
        "series": series.collect::<Vec<_>>(),
    })
}

fn report_words(report: &WalReport) -> String {
    let log = &report.log;
    let owner = match &report.owner {
        Some(holder) => format!("open: {holder}; what is said of its end may have changed since"),
        None => "not open".to_owned(),
    };
    let mut text = format!("log {} in {}\n{owner}\n", log.id, report.directory.display());
    if !log.segments.is_empty() {
        let header = ["segment", "bytes", "records", "numbers", "valid through"];
        let rows: Vec<Vec<String>> = log.segments.iter().map(segment_row).collect();
        text.push_str(&output::columns(Some(&header), &rows, &[1, 2, 4]));
    }
    if !log.other_segments.is_empty() {
        let numbers: Vec<String> = log.other_segments.iter().map(u64::to_string).collect();
        text.push_str(&format!("no part of the log: segments {}\n", numbers.join(", ")));
    }
    text.push_str(&tail_words(&log.tail));
    text.push_str(&match (report.uncovered_records(), report.covered) {
        (Some(records), Some(covered)) => format!(
            "{} records are not committed yet; those up to {} are\n",
            grouped(records),
            grouped(covered)
        ),
        _ => "the store cannot be opened, so it is not known which records are committed\n"
            .to_owned(),
    });
    text
}

fn segment_row(segment: &SegmentReport) -> Vec<String> {
    let file = segment.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    vec![
        file,
        grouped(segment.bytes),
        grouped(segment.records),
        numbers(segment),
        format!("byte {}", grouped(segment.valid_bytes)),
    ]
}

/// The sequence numbers of a segment's records.
fn numbers(segment: &SegmentReport) -> String {
    match segment.records {
        0 => "none".to_owned(),
        records => format!("{}…{}", segment.first_seq, segment.first_seq + (records - 1)),
    }
}

fn tail_words(tail: &Tail) -> String {
    match tail {
        Tail::Clean => "the end is clean\n".to_owned(),
        Tail::Torn(damage) => format!(
            "the end is torn: {damage}; it was never synced, and is cut off when the log is opened\n"
        ),
        Tail::Damaged(damage) => format!(
            "damaged: {damage}; {}\nrestore the file from a backup, or cut the log there with \
             `tidelog wal repair`\n",
            behind_words(damage)
        ),
    }
}

fn behind_words(damage: &Damage) -> String {
    format!(
        "records from {} on were durable there, and {} intact ones ({}) lie behind",
        damage.seq,
        grouped(damage.records_behind),
        size(damage.bytes_behind)
    )
}

fn repair_words(repair: &WalRepair) -> String {
    let Some(damage) = &repair.damage else {
        return "nothing is damaged; the log was left as it is\n".to_owned();
    };
    let mut lines = vec![format!("the log was cut at {damage}")];
    if repair.id_restored {
        lines.push("its id was written anew, from a segment".to_owned());
    }
    lines.extend(
        repair
            .cut
            .iter()
            .map(|(file, bytes)| format!("put aside: {} ({bytes} bytes)", file.display())),
    );
    lines.push(lost_words(repair));
    lines.join("\n") + "\n"
}

/// Which records are lost, and whether their rows are.
fn lost_words(repair: &WalRepair) -> String {
    let Some((first, last)) = repair.lost else {
        return "no record is known to be lost".to_owned();
    };
    let lost = format!("records {first} to {last} are lost to the log");
    match repair.covered {
        Some(covered) if covered >= last => format!("{lost}; the rows of all are committed"),
        Some(covered) if covered >= first => {
            format!("{lost}; the rows of those up to {covered} are committed")
        }
        Some(_) => format!("{lost}, and their rows to the store"),
        None => lost,
    }
}

fn damage_json(damage: &Damage) -> Value {
    json!({
        "file": damage.file.display().to_string(),
        "offset": damage.offset,
        "found": damage.found,
        "first_missing": damage.seq,
        "records_behind": damage.records_behind,
        "bytes_behind": damage.bytes_behind,
        "last_mentioned": damage.seq_behind,
    })
}

fn report_json(report: &WalReport) -> Value {
    let log = &report.log;
    let segments = log.segments.iter().map(|segment| {
        json!({
            "file": segment.file.display().to_string(),
            "number": segment.number,
            "bytes": segment.bytes,
            "valid_bytes": segment.valid_bytes,
            "first": segment.first_seq,
            "records": segment.records,
        })
    });
    let (state, damage) = match &log.tail {
        Tail::Clean => ("clean", None),
        Tail::Torn(damage) => ("torn", Some(damage_json(damage))),
        Tail::Damaged(damage) => ("damaged", Some(damage_json(damage))),
    };
    json!({
        "id": log.id.to_string(),
        "directory": report.directory.display().to_string(),
        "owner": report.owner.as_ref().map(ToString::to_string),
        "segments": segments.collect::<Vec<_>>(),
        "other_segments": log.other_segments,
        "next": log.next_seq,
        "tail": { "state": state, "damage": damage },
        "covered": report.covered,
        "uncovered_records": report.uncovered_records(),
    })
}

fn repair_json(repair: &WalRepair) -> Value {
    let cut = repair
        .cut
        .iter()
        .map(|(file, bytes)| json!({ "file": file.display().to_string(), "bytes": bytes }));
    json!({
        "directory": repair.directory.display().to_string(),
        "damage": repair.damage.as_ref().map(damage_json),
        "id_restored": repair.id_restored,
        "cut": cut.collect::<Vec<_>>(),
        "lost": repair.lost.map(|(first, last)| [first, last]),
        "covered": repair.covered,
    })
}
