//! Renders the page of benchmarks. Every number on it comes from a document of results.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::results::{Check, Document, Figure, Measurement, load};

/// The order of the page; documents with other names follow.
const ORDER: [&str; 14] = [
    "append",
    "append-many",
    "range",
    "tsbs",
    "warm",
    "full-read",
    "cold-range",
    "many-series",
    "many-commits",
    "many-writers",
    "hot",
    "idle-series",
    "recovery",
    "round-trips",
];

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportArgs {
    /// The page to write
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/benchmarks.md"), hide_default_value = true)]
    output: PathBuf,
    /// Write nothing; fail if the page is not what the results render to
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &ReportArgs, results: &Path) -> Result<()> {
    let page = render(&documents(results)?)?;
    if args.check {
        let found = fs::read_to_string(&args.output).unwrap_or_default();
        ensure!(found == page, "{} differs from the results: run `report`", args.output.display());
        return Ok(());
    }
    if let Some(folder) = args.output.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&args.output, page).with_context(|| format!("writing {}", args.output.display()))
}

fn documents(results: &Path) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    let entries =
        fs::read_dir(results).with_context(|| format!("reading {}", results.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            documents.push(load(&path)?);
        }
    }
    let place = |document: &Document| ORDER.iter().position(|name| *name == document.workload);
    documents.sort_by_key(|document| {
        (place(document).unwrap_or(ORDER.len()), document.workload.clone())
    });
    Ok(documents)
}

const INTRODUCTION: &str = "# Benchmarks

This page is rendered from the files in `crates/bench/results` by `cargo run -p tidelog-bench -- report`; no number
on it was written by hand. In each run all contestants take turns, so that ratios hold even where the machine is not
quiet; compare ratios rather than times of different runs. To repeat a run, make the environment of the peers
(`crates/bench/peers/setup.sh .venv/bench`) and give the command of its section.

";

fn render(documents: &[Document]) -> Result<String> {
    let mut page = INTRODUCTION.to_owned();
    summary(&mut page, documents)?;
    for document in documents {
        section(&mut page, document)?;
    }
    Ok(page)
}

/// Of each workload how many bounds hold and how many answers were right.
fn summary(page: &mut String, documents: &[Document]) -> Result<()> {
    writeln!(page, "| workload | bounds held | checks passed | date |\n|---|---|---|---|")?;
    for document in documents {
        let verdicts: Vec<bool> = document.figures.iter().filter_map(Figure::passed).collect();
        let held = verdicts.iter().filter(|passed| **passed).count();
        let right = document.checks.iter().filter(|check| check.passed).count();
        writeln!(
            page,
            "| {} | {held} of {} | {right} of {} | {} |",
            document.title,
            verdicts.len(),
            document.checks.len(),
            document.date
        )?;
    }
    Ok(writeln!(page)?)
}

fn section(page: &mut String, document: &Document) -> Result<()> {
    writeln!(page, "## {}\n\n{}\n", document.title, document.about)?;
    writeln!(page, "```sh\n{}\n```\n", document.command)?;
    conditions(page, document)?;
    figures(page, &document.figures)?;
    medians(page, &document.measurements)?;
    facts(page, document)?;
    spread(page, &document.measurements)?;
    checks(page, &document.checks)
}

fn conditions(page: &mut String, document: &Document) -> Result<()> {
    let machine = &document.machine;
    writeln!(
        page,
        "Measured on {}: {} cores ({}), {} GiB of memory, Linux {}, {}.",
        document.date,
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.kernel,
        machine.filesystem
    )?;
    let list = |pairs: Vec<String>| pairs.join(", ");
    let versions = document.versions.iter().map(|(name, version)| format!("{name} {version}"));
    writeln!(page, "Versions: {}.", list(versions.collect()))?;
    let parameters = document.parameters.iter().map(|(name, value)| format!("{name} {value}"));
    writeln!(page, "Parameters: {}.\n", list(parameters.collect()))?;
    if !document.optimized {
        writeln!(page, "**Not an optimized build: these numbers stand for nothing.**\n")?;
    }
    Ok(())
}

fn figures(page: &mut String, figures: &[Figure]) -> Result<()> {
    if figures.is_empty() {
        return Ok(());
    }
    writeln!(page, "| figure | measured | bound | |\n|---|---:|---:|---|")?;
    for figure in figures {
        let bound =
            figure.at_most.map_or("–".to_owned(), |bound| format!("≤ {bound} {}", figure.unit));
        let verdict = match figure.passed() {
            Some(true) => "pass",
            Some(false) => "**fail**",
            None => "",
        };
        let value = number(figure.value);
        writeln!(page, "| {} | {value} {} | {bound} | {verdict} |", figure.what, figure.unit)?;
    }
    Ok(writeln!(page)?)
}

/// One row per thing measured, one column per contestant, where there is more than one contestant.
fn medians(page: &mut String, measurements: &[Measurement]) -> Result<()> {
    let contestants = unique(measurements.iter().map(|m| m.contestant.as_str()));
    if contestants.len() < 2 {
        return Ok(());
    }
    writeln!(page, "| median | {} |", contestants.join(" | "))?;
    writeln!(page, "|---|{}", "---:|".repeat(contestants.len()))?;
    for what in unique(measurements.iter().map(|m| m.what.as_str())) {
        let of = |contestant: &&str| {
            measurements.iter().find(|m| m.what == what && m.contestant == **contestant)
        };
        let cells = contestants.iter().map(|contestant| {
            of(contestant)
                .map_or("–".to_owned(), |m| format!("{} {}", number(m.summary.p50), m.unit))
        });
        writeln!(page, "| {what} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(writeln!(page)?)
}

fn facts(page: &mut String, document: &Document) -> Result<()> {
    if document.facts.is_empty() {
        return Ok(());
    }
    writeln!(page, "| beside | contestant | |\n|---|---|---:|")?;
    for fact in &document.facts {
        let value = number(fact.value);
        writeln!(page, "| {} | {} | {value} {} |", fact.what, fact.contestant, fact.unit)?;
    }
    Ok(writeln!(page)?)
}

fn spread(page: &mut String, measurements: &[Measurement]) -> Result<()> {
    writeln!(page, "<details><summary>Spread of all samples</summary>\n")?;
    writeln!(
        page,
        "| measurement | contestant | unit | samples | min | p25 | p50 | p75 | p99 | max |"
    )?;
    writeln!(page, "|---|---|---|{}", "---:|".repeat(7))?;
    for Measurement { what, contestant, unit, summary } in measurements {
        let values = [summary.min, summary.p25, summary.p50, summary.p75, summary.p99, summary.max];
        let values = values.map(number).join(" | ");
        writeln!(page, "| {what} | {contestant} | {unit} | {} | {values} |", summary.samples)?;
    }
    Ok(writeln!(page, "\n</details>\n")?)
}

fn checks(page: &mut String, checks: &[Check]) -> Result<()> {
    let passed = checks.iter().filter(|check| check.passed).count();
    writeln!(page, "Checks of answers: {passed} of {} passed.\n", checks.len())?;
    for check in checks.iter().filter(|check| !check.passed) {
        writeln!(page, "- **failed**: {}\n\n```text\n{}\n```\n", check.what, check.detail)?;
    }
    Ok(())
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

/// Three digits that count, more only where the whole part has more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Common;

    #[test]
    fn a_missed_bound_and_a_wrong_answer_stand_out() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut document =
            Document::new("x", "An example", "About it.", &Common::for_test(folder.path()));
        document.figure("fast enough", "×", 1.25, Some(1.2));
        document.figure("just told", "×", 3.0, None);
        document.measure("reading", "tidelog", "ms", &[1.0, 2.0, 3.0]);
        document.measure("reading", "peer", "ms", &[10.0]);
        document.check("the same answer", false, "1 row instead of 2");
        let page = render(&[document])?;
        assert!(page.contains("| fast enough | 1.25 × | ≤ 1.2 × | **fail** |"), "{page}");
        assert!(page.contains("| just told | 3 × | – |  |"), "{page}");
        assert!(page.contains("| reading | 2 ms | 10 ms |"), "{page}");
        assert!(page.contains("0 of 1 passed") && page.contains("1 row instead of 2"), "{page}");
        Ok(())
    }
}
