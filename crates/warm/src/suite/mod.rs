//! The suite that every backend has to pass: requests about tables that chance has filled, answered
//! by the backend and by an oracle that goes row by row and knows nothing of Arrow's kernels, of images,
//! or of how segments lie.
//!
//! ```text
//!  seed ─▶ world (schema, rows, segments) ─┬─ batches ─▶ seal ─▶ run ──▶ answer ─┐
//!          request ────────────────────────┼───────────────────────┘             ├─ the same?
//!                                          └─ rows ─▶ oracle ─▶ rows, or refusal ┘
//! ```
//!
//! Worlds have nulls, NaN, infinities, both zeros, least and greatest values, equal keys and times,
//! rows out of order, sliced batches, dictionaries that grow from batch to batch, and numbers of rows
//! around the sizes of warps and blocks. A failure is shrunk by proptest and told with its world and
//! request. The same seed gives the same cases.
//!
//! It is a plain function, so that it also runs in a program of its own, where there is no cargo:
//!
//! ```
//! use tidelog_warm::{HostBackend, suite};
//!
//! let report = suite::run(&HostBackend::new(64 << 20), 1, 2);
//! println!("{report}");
//! assert!(report.passed());
//! ```

mod answers;
mod arrays;
mod chance;
mod life;
mod oracle;
mod requests;
mod setting;
mod totals;
mod world;

use std::fmt;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::backend::WarmBackend;

use world::World;

/// Numbers of rows around the sizes of warps, blocks and words. Each check sees each of them
/// three times, once without keys and nulls, and once with equal times in two segments.
const EDGES: [usize; 16] = [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 255, 256, 257, 1023, 1024, 1025];

/// What the suite found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The backend, as it names itself, and its device.
    pub backend: String,
    /// The seed of the cases.
    pub seed: u64,
    /// One line for each thing that was checked.
    pub lines: Vec<Line>,
}

/// What the suite found about one thing.
#[derive(Debug, Clone)]
pub struct Line {
    /// What was checked.
    pub check: &'static str,
    /// In how many cases.
    pub cases: u32,
    /// Of these, how many the backend has to refuse, and did.
    pub refused: u32,
    /// Of these, how many have no row that matches.
    pub empty: u32,
    /// The first failure: what differs, in which world, for which request.
    pub failure: Option<String>,
}

impl Report {
    /// Whether there was no failure.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|line| line.failure.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "warm suite: {}, seed {}", self.backend, self.seed)?;
        writeln!(f, "{:<14} {:>7} {:>8} {:>6}  result", "check", "cases", "refused", "empty")?;
        for Line { check, cases, refused, empty, failure } in &self.lines {
            let result = if failure.is_none() { "ok" } else { "FAILED" };
            writeln!(f, "{check:<14} {cases:>7} {refused:>8} {empty:>6}  {result}")?;
        }
        for line in &self.lines {
            if let Some(failure) = &line.failure {
                writeln!(f, "\n{} failed: {failure}", line.check)?;
            }
        }
        Ok(())
    }
}

/// How a case ended that did not fail.
enum Outcome {
    Answered,
    /// Answered too, but there is no row.
    Empty,
    Refused,
}

/// What is wrong.
type Failure = String;

type Check = fn(&dyn WarmBackend, &World, u64) -> Result<Outcome, Failure>;

const CHECKS: [(&str, Check); 10] = [
    ("statistics", life::statistics),
    ("count", answers::count),
    ("fetch", answers::fetch),
    ("aggregate", answers::aggregate),
    ("top_k", answers::top_k),
    ("last_per_key", answers::last_per_key),
    ("impossible", answers::impossible),
    ("eviction", life::eviction),
    ("races", life::races),
    ("cancel", life::cancel),
];

/// Runs every check in all edge sizes, and then in so many cases of chance.
#[must_use]
pub fn run(backend: &dyn WarmBackend, seed: u64, cases: u32) -> Report {
    let stats = backend.stats();
    let lines = CHECKS.iter().map(|(name, check)| line(backend, name, *check, seed, cases));
    Report {
        backend: format!("{} ({})", stats.backend, stats.device),
        seed,
        lines: lines.collect(),
    }
}

fn line(
    backend: &dyn WarmBackend,
    name: &'static str,
    check: Check,
    seed: u64,
    cases: u32,
) -> Line {
    let mut line = Line { check: name, cases: 0, refused: 0, empty: 0, failure: None };
    for number in 0..3 * EDGES.len() {
        let seed = seed.wrapping_add(number as u64);
        let rows = EDGES[number / 3];
        let world = match number % 3 {
            0 => World::of_rows(seed, rows, true),
            1 => World::of_rows(seed, rows, false),
            _ => World::of_ties(seed, rows),
        };
        match unwound(|| check(backend, &world, seed)) {
            Ok(outcome) => line.count(&outcome),
            Err(failure) => {
                line.failure = Some(format!("{failure}\n{world:#?}"));
                return line;
            }
        }
    }
    by_chance(backend, check, seed, cases, &mut line);
    line
}

fn by_chance(backend: &dyn WarmBackend, check: Check, seed: u64, cases: u32, line: &mut Line) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let counted = std::cell::RefCell::new(line.clone());
    let case = (world::worlds(), proptest::num::u64::ANY.no_shrink());
    let result =
        runner.run(&case, |(world, request)| match unwound(|| check(backend, &world, request)) {
            Ok(outcome) => {
                counted.borrow_mut().count(&outcome);
                Ok(())
            }
            Err(failure) => Err(TestCaseError::fail(failure)),
        });
    *line = counted.into_inner();
    line.failure = result.err().map(|error| error.to_string());
}

/// The outcome of a check, or that it panicked.
fn unwound(check: impl FnOnce() -> Result<Outcome, Failure>) -> Result<Outcome, Failure> {
    // What the check has seen is dropped with it, but for the backend, which may not panic at all.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(check))
        .unwrap_or_else(|_| Err("the backend panicked".to_owned()))
}

impl Line {
    fn count(&mut self, outcome: &Outcome) {
        self.cases += 1;
        match outcome {
            Outcome::Answered => {}
            Outcome::Empty => self.empty += 1,
            Outcome::Refused => self.refused += 1,
        }
    }
}
