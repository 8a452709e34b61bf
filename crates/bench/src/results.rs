//! The document that a run leaves behind: everything that the report says comes from these files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::machine::Machine;
use crate::options::Common;
use crate::stats::Summary;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Document {
    pub(crate) workload: String,
    pub(crate) title: String,
    /// What was done, in a paragraph.
    pub(crate) about: String,
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) optimized: bool,
    pub(crate) machine: Machine,
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) parameters: BTreeMap<String, Value>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) checks: Vec<Check>,
}

/// A number that stands for a promise, if it has a bound.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The value must not exceed it; without one the figure is only reported.
    pub(crate) at_most: Option<f64>,
}

/// The samples of one thing that one contestant did.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Measurement {
    pub(crate) what: String,
    pub(crate) contestant: String,
    pub(crate) unit: String,
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// A single number beside the measurements: a count, a size.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Fact {
    pub(crate) what: String,
    pub(crate) contestant: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
}

/// Whether an answer was what it had to be.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) passed: bool,
    pub(crate) detail: String,
}

impl Figure {
    pub(crate) fn passed(&self) -> Option<bool> {
        self.at_most.map(|bound| self.value <= bound)
    }
}

impl Document {
    pub(crate) fn new(workload: &str, title: &str, about: &str, common: &Common) -> Self {
        let tidelog = ("tidelog".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self {
            workload: workload.to_owned(),
            title: title.to_owned(),
            about: about.to_owned(),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            command: common.command.clone(),
            optimized: !cfg!(debug_assertions),
            machine: Machine::describe(&common.work),
            versions: BTreeMap::from([tidelog]),
            parameters: BTreeMap::new(),
            figures: Vec::new(),
            measurements: Vec::new(),
            facts: Vec::new(),
            checks: Vec::new(),
        }
    }

    pub(crate) fn parameter(&mut self, name: &str, value: impl Into<Value>) {
        self.parameters.insert(name.to_owned(), value.into());
    }

    /// Records the spread of `samples`; without samples nothing was measured and nothing is recorded.
    pub(crate) fn measure(&mut self, what: &str, contestant: &str, unit: &str, samples: &[f64]) {
        let Some(summary) = Summary::of(samples) else { return };
        self.measurements.push(Measurement {
            what: what.to_owned(),
            contestant: contestant.to_owned(),
            unit: unit.to_owned(),
            summary: summary.rounded(),
        });
    }

    pub(crate) fn fact(&mut self, what: &str, contestant: &str, unit: &str, value: f64) {
        self.facts.push(Fact {
            what: what.to_owned(),
            contestant: contestant.to_owned(),
            unit: unit.to_owned(),
            value: rounded(value),
        });
    }

    pub(crate) fn figure(&mut self, what: &str, unit: &str, value: f64, at_most: Option<f64>) {
        let (what, unit) = (what.to_owned(), unit.to_owned());
        self.figures.push(Figure { what, value: rounded(value), unit, at_most });
    }

    /// The ratio of two medians, if both were measured.
    pub(crate) fn ratio(
        &mut self,
        what: &str,
        over: Option<f64>,
        under: Option<f64>,
        at_most: Option<f64>,
    ) {
        if let (Some(over), Some(under)) = (over, under) {
            self.figure(what, "×", over / under, at_most);
        }
    }

    pub(crate) fn check(&mut self, what: &str, passed: bool, detail: impl Into<String>) {
        self.checks.push(Check { what: what.to_owned(), passed, detail: detail.into() });
    }

    /// Writes the document, prints its figures, and fails if an answer was wrong: a figure that misses its bound
    /// is a result, a wrong answer is not.
    pub(crate) fn finish(&self, common: &Common) -> Result<()> {
        fs::create_dir_all(&common.results)?;
        let path = common.results.join(format!("{}.json", self.workload));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        self.print();
        let wrong = self.checks.iter().filter(|check| !check.passed).count();
        anyhow::ensure!(wrong == 0, "{wrong} checks of {} failed", self.workload);
        Ok(())
    }

    fn print(&self) {
        for measurement in &self.measurements {
            let Measurement { what, contestant, unit, summary } = measurement;
            println!("{what} | {contestant}: p50 {} p99 {} {unit}", summary.p50, summary.p99);
        }
        for Fact { what, contestant, unit, value } in &self.facts {
            println!("{what} | {contestant}: {value} {unit}");
        }
        for figure in &self.figures {
            let bound = figure.at_most.map_or(String::new(), |bound| format!(" (at most {bound})"));
            let verdict = match figure.passed() {
                Some(true) => "pass",
                Some(false) => "MISS",
                None => "info",
            };
            println!("{verdict}: {} = {} {}{bound}", figure.what, figure.value, figure.unit);
        }
        for check in &self.checks {
            let verdict = if check.passed { "ok" } else { "WRONG" };
            println!("{verdict}: {} {}", check.what, check.detail);
        }
    }
}

impl Summary {
    fn rounded(self) -> Self {
        Self {
            samples: self.samples,
            min: rounded(self.min),
            p25: rounded(self.p25),
            p50: rounded(self.p50),
            p75: rounded(self.p75),
            p99: rounded(self.p99),
            max: rounded(self.max),
        }
    }
}

/// Four decimals: finer than any clock here, and readable in a diff.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Loads one document.
pub(crate) fn load(path: &Path) -> Result<Document> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}
