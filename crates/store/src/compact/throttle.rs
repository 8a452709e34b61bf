//! Bytes read and written at no more than a rate.

use std::time::Duration;

/// A rate; without one it never waits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Throttle {
    bytes_per_second: Option<u64>,
}

impl Throttle {
    pub(crate) const fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second }
    }

    /// Waits as long as so many bytes take.
    pub(crate) async fn spend(&self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        if nanos > 0 {
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
        }
    }
}
