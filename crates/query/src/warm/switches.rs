//! What may be moved to the warm tier, as options of a session.

use datafusion::common::extensions_options;
use datafusion::config::{ConfigExtension, ConfigOptions};

extensions_options! {
    /// What of a plan may be moved to the warm tier. Answers are the same whatever is set.
    pub struct WarmPushDowns {
        /// Rows of a scan are fetched from the warm tier. Default: true.
        pub warm_scan: bool, default = true
        /// Partial aggregates are computed in the warm tier. Default: true.
        pub warm_aggregate: bool, default = true
        /// The first rows by an order are found in the warm tier. Default: true.
        pub warm_top_k: bool, default = true
        /// The newest row of each key is found in the warm tier. Default: true.
        pub warm_last: bool, default = true
    }
}

impl ConfigExtension for WarmPushDowns {
    const PREFIX: &'static str = "tidelog";
}

impl WarmPushDowns {
    /// Nothing is moved: all rows come from files and from rows that wait for their flush.
    #[must_use]
    pub fn none() -> Self {
        Self { warm_scan: false, warm_aggregate: false, warm_top_k: false, warm_last: false }
    }

    /// Sets whether rows of a scan are fetched from the warm tier. Default: true.
    #[must_use]
    pub fn with_scan(mut self, on: bool) -> Self {
        self.warm_scan = on;
        self
    }

    /// Sets whether partial aggregates are computed in the warm tier. Default: true.
    #[must_use]
    pub fn with_aggregate(mut self, on: bool) -> Self {
        self.warm_aggregate = on;
        self
    }

    /// Sets whether the first rows by an order are found in the warm tier. Default: true.
    #[must_use]
    pub fn with_top_k(mut self, on: bool) -> Self {
        self.warm_top_k = on;
        self
    }

    /// Sets whether the newest row of each key is found in the warm tier. Default: true.
    #[must_use]
    pub fn with_last(mut self, on: bool) -> Self {
        self.warm_last = on;
        self
    }

    /// Those of a session.
    pub(crate) fn of(config: &ConfigOptions) -> Self {
        config.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    pub(super) fn is_none(&self) -> bool {
        !(self.warm_scan || self.warm_aggregate || self.warm_top_k || self.warm_last)
    }
}
