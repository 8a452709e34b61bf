//! Rounds: in each, every contestant does the same thing once, so that whatever else the machine does in that
//! minute weighs on all of them alike.

use std::time::Instant;

use anyhow::Result;
use async_trait::async_trait;

/// What a contestant reports of one go. The time covers the awaited operation only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) ms: f64,
    /// Rows of the answer and the sum of an agreed column, where the workload compares them.
    pub(crate) answer: Option<(usize, f64)>,
}

impl Sample {
    /// What began at `started` ends now.
    pub(crate) fn timed(started: Instant) -> Self {
        Self { ms: started.elapsed().as_secs_f64() * 1e3, answer: None }
    }
}

#[async_trait(?Send)]
pub(crate) trait Contestant {
    fn name(&self) -> String;
    async fn once(&mut self) -> Result<Sample>;
}

/// The samples of one contestant, in the order of the rounds.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
}

impl Outcome {
    pub(crate) fn times_ms(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.ms).collect()
    }

    pub(crate) fn answers(&self) -> Vec<Option<(usize, f64)>> {
        self.samples.iter().map(|sample| sample.answer).collect()
    }

    pub(crate) fn median_ms(&self) -> Option<f64> {
        crate::stats::Summary::of(&self.times_ms()).map(|summary| summary.p50)
    }
}

/// The median of the contestant with this name, if it took part.
pub(crate) fn median_of(outcomes: &[Outcome], name: &str) -> Option<f64> {
    outcomes.iter().find(|outcome| outcome.name == name).and_then(Outcome::median_ms)
}

/// Runs the rounds after `warmups` that are not counted. Each round starts one contestant further on, so that
/// nobody always follows the same neighbour's caches.
pub(crate) async fn interleave(
    contestants: &mut [Box<dyn Contestant + '_>],
    warmups: usize,
    rounds: usize,
) -> Result<Vec<Outcome>> {
    let names = contestants.iter().map(|contestant| contestant.name());
    let mut outcomes: Vec<Outcome> =
        names.map(|name| Outcome { name, samples: Vec::with_capacity(rounds) }).collect();
    for round in 0..warmups + rounds {
        for turn in rotation(contestants.len(), round) {
            let sample = contestants[turn].once().await?;
            if round >= warmups {
                outcomes[turn].samples.push(sample);
            }
        }
    }
    Ok(outcomes)
}

/// All of 0 .. `count`, starting one further on in each round.
pub(crate) fn rotation(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_starts_one_further_on_and_leaves_nobody_out() {
        assert_eq!(rotation(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(rotation(3, 4).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(rotation(0, 4).count(), 0);
    }
}
