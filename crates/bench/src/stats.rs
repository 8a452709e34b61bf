//! Order statistics of a set of samples.

use serde::{Deserialize, Serialize};

/// Spread and centre of the samples of one measurement, in the measurement's unit.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) samples: usize,
    pub(crate) min: f64,
    pub(crate) p25: f64,
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` without samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |percent| percentile(&sorted, percent);
        Some(Self {
            samples: sorted.len(),
            min,
            p25: at(25),
            p50: at(50),
            p75: at(75),
            p99: at(99),
            max,
        })
    }
}

/// The percentile of sorted samples, interpolated between the two nearest.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let steps = sorted.len().saturating_sub(1) * percent;
    let (below, rest) = (steps / 100, steps % 100);
    let lower = sorted.get(below).copied().unwrap_or_default();
    let upper = sorted.get(below + 1).copied().unwrap_or(lower);
    lower + (upper - lower) * rest as f64 / 100.0
}

/// The geometric mean; `None` without samples.
pub(crate) fn geometric_mean(samples: &[f64]) -> Option<f64> {
    let logs: f64 = samples.iter().map(|sample| sample.ln()).sum();
    (!samples.is_empty()).then(|| (logs / samples.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_interpolated() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.min, summary.p50, summary.max), (1.0, 2.5, 4.0));
        assert_eq!((summary.p25, summary.p75), (1.75, 3.25));
        assert_eq!(Summary::of(&[7.0]).unwrap().p99, 7.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_geometric_mean_of_inverse_ratios_is_one() {
        let mean = geometric_mean(&[0.5, 2.0]).unwrap();
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }
}
