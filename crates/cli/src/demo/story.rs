//! The narration: numbered steps, each with the time it took.

use std::time::Instant;

use crate::error::Result;
use crate::output;

/// Tells the story on stdout; silent where a program listens.
#[derive(Debug)]
pub(super) struct Story {
    silent: bool,
    steps: u32,
    since: Instant,
}

impl Story {
    pub(super) fn new(silent: bool) -> Self {
        Self { silent, steps: 0, since: Instant::now() }
    }

    /// Begins a step.
    pub(super) fn step(&mut self, title: &str) -> Result<()> {
        self.since = Instant::now();
        self.step_since_start(title)
    }

    /// Begins the first step when it is certain that there is a story: it is as old as the teller.
    pub(super) fn step_since_start(&mut self, title: &str) -> Result<()> {
        self.steps += 1;
        self.say(&format!("{}. {title}\n", self.steps))
    }

    /// Ends a step.
    pub(super) fn done(&mut self, what: &str) -> Result<()> {
        let millis = self.since.elapsed().as_secs_f64() * 1_000.0;
        self.say(&format!("   {what} in {millis:.0} ms\n\n"))
    }

    /// Shows how to do the step by hand.
    pub(super) fn command(&self, command: &str) -> Result<()> {
        self.say(&format!("   $ tidelog {command}\n"))
    }

    /// Says something.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        if self.silent { Ok(()) } else { output::print(text) }
    }
}
