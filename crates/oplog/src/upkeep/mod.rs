//! Keeping the log short, off the write path and safe from any process.
//!
//! - `plan` says what to merge: the tail of single commits into a run, and runs of like size into
//!   a larger one, so that a log of n rows has few runs and each row is rewritten few times.
//! - `merge` reads the parts to be merged, one row group of each run at a time, and writes a new
//!   run sorted by node and commit.
//! - `gone` tells which files have gone, whose rows a merge sets aside.
//! - `expire` writes checkpoints, and lets go of commits, checkpoints and parts that no reader or
//!   writer can want any more.
//! - `ages` tells how old objects and commits are, by the store's own time.
//!
//! A merge is committed like any other change ([`crate::Log::stage`]): its commit replaces parts by
//! parts with the same rows. It is abandoned if one of its inputs is no longer live then, because
//! another process has merged it.

mod ages;
pub(crate) mod expire;
mod gone;
mod merge;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::Error;
use crate::log::Log;
use crate::part::Part;
use crate::state::Snapshot;

pub use ages::Ages;
pub use expire::Expired;
pub use plan::{MergePlan, MergeScope};

/// A run that has been written and waits for its commit.
#[derive(Debug, Clone)]
pub struct Merged {
    inputs: Vec<Arc<Part>>,
    outputs: Vec<Arc<Part>>,
}

impl Merged {
    pub(crate) fn inputs(&self) -> &[Arc<Part>] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[Arc<Part>] {
        &self.outputs
    }

    /// How many parts it replaces.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// How many parts it brings.
    #[must_use]
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Bytes of the parts that it brings.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.outputs.iter().map(|part| part.size).sum()
    }

    /// Whether both replace one of the same parts, so that not both can be committed.
    #[must_use]
    pub fn shares_inputs_with(&self, other: &Self) -> bool {
        let own: std::collections::HashSet<&str> =
            self.inputs.iter().map(|part| part.object.as_str()).collect();
        other.inputs.iter().any(|part| own.contains(part.object.as_str()))
    }

    /// Whether all that it replaces is still part of the log.
    #[must_use]
    pub fn is_live_in(&self, snapshot: &Snapshot) -> bool {
        let live: std::collections::HashSet<&str> =
            snapshot.parts().map(|part| part.object.as_str()).collect();
        self.inputs.iter().all(|part| live.contains(part.object.as_str()))
    }
}

impl Log {
    /// What to merge in `snapshot`, if anything.
    #[must_use]
    pub fn plan_merge(&self, snapshot: &Snapshot, scope: MergeScope) -> Option<MergePlan> {
        plan::plan(snapshot, scope)
    }

    /// Writes the run that a plan asks for. It counts once it is committed.
    ///
    /// # Errors
    /// Damage, or the store's failure; nothing has changed then.
    pub async fn merge(&self, plan: MergePlan) -> Result<Merged, Error> {
        let outputs = match merge::merge(self, &plan).await {
            Ok(outputs) => outputs,
            Err(error) => return Err(self.explain_loss(error, plan.inputs()).await),
        };
        Ok(Merged { inputs: plan.into_inputs(), outputs })
    }
}
