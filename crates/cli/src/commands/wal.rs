//! The write-ahead log of one writer alone.

use serde_json::{Value, json};
use tidelog::wal::{Damage, SegmentReport, Tail, WalRepair, WalReport};

use crate::args::Globals;
use crate::commands::builder;
use crate::error::{Error, Result};
use crate::output;
use crate::progress::{grouped, size};

pub(super) async fn inspect(globals: &Globals) -> Result<()> {
    let report = builder(globals)?.inspect_wal().await?;
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
    let repair = builder(globals)?.repair_wal().await?;
    if globals.json {
        return output::print_json(&repair_json(&repair));
    }
    output::print(&repair_words(&repair))
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
