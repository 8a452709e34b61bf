//! The fifteen queries of the benchmark suite's cpu-only set, in the words of each contestant.
//!
//! Their meaning follows the suite's code where its documentation differs: one-minute buckets, windows of
//! 1, 8 or 12 hours, the end of a window excluded, hosts a random distinct subset.

use std::ops::Range;

use anyhow::Result;

use crate::generate::rng::Rng;
use crate::generate::tsbs::{HOUR_US, START_US, STEP_US, TIME_COLUMN, VALUES};

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Tidelog,
    /// Tidelog's own words, on a table that is not a path.
    DataFusion,
    DuckDb,
    ClickHouse,
}

#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) name: &'static str,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The maximum of the first values per bucket, of some hosts.
    Maxima { bucket: Bucket, values: usize, hosts: Vec<usize>, window: Range<i64> },
    /// The average of the first values per hour and host, of all hosts.
    Averages { values: usize, window: Range<i64> },
    /// The maximum per minute of the last five minutes before a time.
    LastMinutes { end_us: i64 },
    /// Full rows above a threshold, of one host or of all.
    HighCpu { hosts: Vec<usize>, window: Range<i64> },
    /// The newest row of each host.
    LastPoint,
}

#[derive(Clone, Copy, Debug)]
enum Bucket {
    Minute,
    Hour,
}

/// The extent of the data that windows and hosts are drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) hosts: usize,
    pub(crate) hours: usize,
}

/// All fifteen, with windows and hosts drawn from the seed.
pub(crate) fn all(extent: Extent, seed: u64) -> Result<Vec<Query>> {
    let mut draw = Draw { rng: Rng::new(seed), extent };
    let mut queries = Vec::new();
    for (name, values, hosts, hours) in [
        ("single-groupby-1-1-1", 1, 1, 1),
        ("single-groupby-1-1-12", 1, 1, 12),
        ("single-groupby-1-8-1", 1, 8, 1),
        ("single-groupby-5-1-1", 5, 1, 1),
        ("single-groupby-5-1-12", 5, 1, 12),
        ("single-groupby-5-8-1", 5, 8, 1),
    ] {
        let (hosts, window) = (draw.hosts(hosts)?, draw.window(hours)?);
        let what = What::Maxima { bucket: Bucket::Minute, values, hosts, window };
        queries.push(Query { name, what });
    }
    for (name, hosts) in [("cpu-max-all-1", 1), ("cpu-max-all-8", 8)] {
        let (hosts, window) = (draw.hosts(hosts)?, draw.window(8)?);
        let what = What::Maxima { bucket: Bucket::Hour, values: VALUES.len(), hosts, window };
        queries.push(Query { name, what });
    }
    for (name, values) in
        [("double-groupby-1", 1), ("double-groupby-5", 5), ("double-groupby-all", VALUES.len())]
    {
        queries.push(Query { name, what: What::Averages { values, window: draw.window(12)? } });
    }
    let end_us = draw.window(1)?.end;
    queries.push(Query { name: "groupby-orderby-limit", what: What::LastMinutes { end_us } });
    for (name, hosts) in [("high-cpu-1", 1), ("high-cpu-all", 0)] {
        let (hosts, window) = (draw.hosts(hosts)?, draw.window(12)?);
        queries.push(Query { name, what: What::HighCpu { hosts, window } });
    }
    queries.push(Query { name: "lastpoint", what: What::LastPoint });
    Ok(queries)
}

/// The names of those about one host.
pub(crate) const OF_ONE_HOST: [&str; 6] = [
    "single-groupby-1-1-1",
    "single-groupby-1-1-12",
    "single-groupby-5-1-1",
    "single-groupby-5-1-12",
    "cpu-max-all-1",
    "high-cpu-1",
];

struct Draw {
    rng: Rng,
    extent: Extent,
}

impl Draw {
    /// A window of so many hours that begins anywhere in the data where it fits; all data if they are shorter.
    fn window(&mut self, hours: usize) -> Result<Range<i64>> {
        let room_hours = self.extent.hours.saturating_sub(hours);
        // Steps and a part of one, so that bounds fall between rows as well.
        let steps = u32::try_from(i64::try_from(room_hours)? * HOUR_US / STEP_US)?;
        let start = START_US
            + i64::from(self.rng.below(steps)) * STEP_US
            + i64::from(self.rng.below(u32::try_from(STEP_US)?));
        Ok(start..start + i64::try_from(hours)? * HOUR_US)
    }

    /// Distinct hosts, fewer if there are fewer.
    fn hosts(&mut self, count: usize) -> Result<Vec<usize>> {
        let mut left: Vec<usize> = (0..self.extent.hosts).collect();
        let mut drawn = Vec::new();
        while drawn.len() < count && !left.is_empty() {
            let choice = self.rng.below(u32::try_from(left.len())?) as usize;
            drawn.push(left.swap_remove(choice));
        }
        Ok(drawn)
    }
}

impl Query {
    /// The columns whose order the answer must have.
    pub(crate) fn ordered_by(&self) -> &'static [&'static str] {
        match self.what {
            What::Maxima { .. } | What::LastMinutes { .. } => &["bucket"],
            What::Averages { .. } => &["bucket", "hostname"],
            What::HighCpu { .. } => &[],
            What::LastPoint => &["hostname"],
        }
    }

    pub(crate) fn sql(&self, dialect: Dialect) -> String {
        self.sql_on(dialect, dialect.table())
    }

    /// The query of a table of this name.
    pub(crate) fn sql_on(&self, dialect: Dialect, table: &str) -> String {
        match &self.what {
            What::Maxima { bucket, values, hosts, window } => format!(
                "SELECT {} AS bucket, {} FROM {table} WHERE {} AND {} GROUP BY bucket ORDER BY bucket",
                dialect.bucket(*bucket),
                each("max", *values),
                among(hosts),
                within(window),
            ),
            What::Averages { values, window } => format!(
                "SELECT {} AS bucket, hostname, {} FROM {table} WHERE {} \
                 GROUP BY bucket, hostname ORDER BY bucket, hostname",
                dialect.bucket(Bucket::Hour),
                each("avg", *values),
                within(window),
            ),
            What::LastMinutes { end_us } => format!(
                "SELECT {} AS bucket, max(usage_user) AS max_usage_user FROM {table} WHERE {TIME_COLUMN} < {} \
                 GROUP BY bucket ORDER BY bucket DESC LIMIT 5",
                dialect.bucket(Bucket::Minute),
                literal(*end_us),
            ),
            What::HighCpu { hosts, window } if hosts.is_empty() => {
                format!("SELECT * FROM {table} WHERE usage_user > 90.0 AND {}", within(window))
            }
            What::HighCpu { hosts, window } => format!(
                "SELECT * FROM {table} WHERE usage_user > 90.0 AND {} AND {}",
                among(hosts),
                within(window),
            ),
            What::LastPoint => dialect.last_point(table),
        }
    }
}

impl Dialect {
    fn table(self) -> &'static str {
        match self {
            Self::Tidelog => "\"/cpu\"",
            Self::DataFusion | Self::DuckDb | Self::ClickHouse => "cpu",
        }
    }

    fn bucket(self, bucket: Bucket) -> String {
        let interval = match bucket {
            Bucket::Minute => "INTERVAL '1 minute'",
            Bucket::Hour => "INTERVAL '1 hour'",
        };
        match (self, bucket) {
            (Self::Tidelog | Self::DataFusion, _) => format!("date_bin({interval}, {TIME_COLUMN})"),
            (Self::DuckDb, _) => format!("time_bucket({interval}, {TIME_COLUMN})"),
            (Self::ClickHouse, Bucket::Minute) => format!("toStartOfMinute({TIME_COLUMN})"),
            (Self::ClickHouse, Bucket::Hour) => format!("toStartOfHour({TIME_COLUMN})"),
        }
    }

    fn last_point(self, table: &str) -> String {
        match self {
            Self::ClickHouse => format!(
                "SELECT * FROM {table} ORDER BY hostname, {TIME_COLUMN} DESC LIMIT 1 BY hostname"
            ),
            Self::Tidelog | Self::DataFusion | Self::DuckDb => format!(
                "SELECT DISTINCT ON (hostname) * FROM {table} ORDER BY hostname, {TIME_COLUMN} DESC"
            ),
        }
    }
}

fn each(function: &str, values: usize) -> String {
    let column = |value: &&str| format!("{function}({value}) AS {function}_{value}");
    VALUES.iter().take(values).map(column).collect::<Vec<_>>().join(", ")
}

fn among(hosts: &[usize]) -> String {
    let names: Vec<String> = hosts.iter().map(|host| format!("'host_{host}'")).collect();
    format!("hostname IN ({})", names.join(", "))
}

fn within(window: &Range<i64>) -> String {
    format!(
        "{TIME_COLUMN} >= {} AND {TIME_COLUMN} < {}",
        literal(window.start),
        literal(window.end)
    )
}

/// A time that every contestant reads as UTC.
fn literal(us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(us).unwrap_or_default();
    time.strftime("'%Y-%m-%d %H:%M:%S.%6f'").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fifteen_and_a_seed_fixes_them() -> Result<()> {
        let extent = Extent { hosts: 100, hours: 72 };
        let text = |seed| -> Result<Vec<String>> {
            Ok(all(extent, seed)?.iter().map(|query| query.sql(Dialect::Tidelog)).collect())
        };
        assert_eq!(text(7)?.len(), 15);
        assert_eq!(text(7)?, text(7)?);
        assert_ne!(text(7)?, text(8)?);
        Ok(())
    }

    #[test]
    fn a_query_reads_as_the_suite_defines_it() -> Result<()> {
        let queries = all(Extent { hosts: 2, hours: 12 }, 1)?;
        let averages = queries.iter().find(|query| query.name == "double-groupby-1").unwrap();
        let sql = averages.sql(Dialect::DuckDb);
        assert!(sql.starts_with(
            "SELECT time_bucket(INTERVAL '1 hour', time) AS bucket, hostname, avg(usage_user)"
        ));
        assert!(sql.contains("time >= '2016-01-01 00:00:0"), "{sql}");
        Ok(())
    }
}
