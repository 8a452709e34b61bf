//! The cpu-only data of the Time Series Benchmark Suite: its schema, distributions and order, drawn from an
//! own generator. TSBS-compatible, not bit-identical.
//!
//! One row per host and step, epoch by epoch (all hosts at t, then all at t + 10 s). The ten values walk
//! randomly within 0..=100 and are whole numbers, stored as doubles.

use std::sync::Arc;

use anyhow::Result;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::rng::Rng;

pub(crate) const TIME_COLUMN: &str = "time";
/// 2016-01-01T00:00:00Z in microseconds.
pub(crate) const START_US: i64 = 1_451_606_400_000_000;
pub(crate) const STEP_US: i64 = 10_000_000;
pub(crate) const HOUR_US: i64 = 3_600_000_000;

pub(crate) const VALUES: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];

const TAGS: [&str; 10] = [
    "hostname",
    "region",
    "datacenter",
    "rack",
    "os",
    "arch",
    "team",
    "service",
    "service_version",
    "service_environment",
];

/// Regions, each with its number of datacenters.
const REGIONS: [(&str, u32); 9] = [
    ("us-east-1", 4),
    ("us-west-1", 2),
    ("us-west-2", 3),
    ("eu-west-1", 3),
    ("eu-central-1", 2),
    ("ap-southeast-1", 2),
    ("ap-southeast-2", 2),
    ("ap-northeast-1", 2),
    ("sa-east-1", 3),
];

pub(crate) fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let tags = TAGS.map(|name| Field::new(name, DataType::Utf8, true));
    let values = VALUES.map(|name| Field::new(name, DataType::Float64, true));
    let fields = [Field::new(TIME_COLUMN, time, false)].into_iter().chain(tags).chain(values);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// One host: its tags, and where its ten walks stand.
#[derive(Debug)]
struct Host {
    tags: [String; TAGS.len()],
    walks: [f64; VALUES.len()],
}

impl Host {
    fn draw(number: usize, rng: &mut Rng) -> Self {
        Self { tags: draw_tags(number, rng), walks: std::array::from_fn(|_| 100.0 * rng.uniform()) }
    }

    fn step(&mut self, rng: &mut Rng) {
        for walk in &mut self.walks {
            *walk = (*walk + rng.normal()).clamp(0.0, 100.0);
        }
    }
}

fn draw_tags(number: usize, rng: &mut Rng) -> [String; TAGS.len()] {
    let (region, datacenters) = REGIONS[rng.below(9) as usize % REGIONS.len()];
    let datacenter = ["a", "b", "c", "d"][rng.below(datacenters) as usize % 4];
    [
        format!("host_{number}"),
        region.to_owned(),
        format!("{region}{datacenter}"),
        rng.below(100).to_string(),
        rng.pick(&["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"]).to_owned(),
        rng.pick(&["x64", "x86"]).to_owned(),
        rng.pick(&["SF", "NYC", "LON", "CHI"]).to_owned(),
        rng.below(20).to_string(),
        rng.below(2).to_string(),
        rng.pick(&["production", "staging", "test"]).to_owned(),
    ]
}

/// The stream of batches; the first row of each host is its initial state.
#[derive(Debug)]
pub(crate) struct Cpu {
    rng: Rng,
    schema: SchemaRef,
    hosts: Vec<Host>,
    next_time_us: i64,
}

impl Cpu {
    pub(crate) fn new(seed: u64, hosts: usize) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = (0..hosts).map(|number| Host::draw(number, &mut rng)).collect();
        Self { rng, schema: schema(), hosts, next_time_us: START_US }
    }

    /// The next `steps` epochs of all hosts.
    pub(crate) fn batch(&mut self, steps: usize) -> Result<RecordBatch> {
        let rows = steps * self.hosts.len();
        let mut times = Vec::with_capacity(rows);
        let mut values: [Vec<f64>; VALUES.len()] =
            std::array::from_fn(|_| Vec::with_capacity(rows));
        for _ in 0..steps {
            for host in &mut self.hosts {
                times.push(self.next_time_us);
                for (column, walk) in values.iter_mut().zip(host.walks) {
                    column.push(walk.trunc());
                }
                host.step(&mut self.rng);
            }
            self.next_time_us += STEP_US;
        }
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))];
        columns.extend(self.tag_columns(steps));
        columns.extend(values.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn tag_columns(&self, steps: usize) -> Vec<ArrayRef> {
        let column = |tag: usize| {
            let epoch = || self.hosts.iter().map(move |host| host.tags[tag].as_str());
            let column: StringArray = (0..steps).flat_map(|_| epoch()).map(Some).collect();
            Arc::new(column) as ArrayRef
        };
        (0..TAGS.len()).map(column).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType};

    #[test]
    fn rows_come_epoch_by_epoch_with_whole_values_in_range() -> Result<()> {
        let mut cpu = Cpu::new(123, 3);
        let first = cpu.batch(2)?;
        let times = first.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        assert_eq!(times[..3], [START_US; 3]);
        assert_eq!(times[3..], [START_US + STEP_US; 3]);
        let second = cpu.batch(1)?;
        let later = second.column(0).as_primitive::<TimestampMicrosecondType>().value(0);
        assert_eq!(later, START_US + 2 * STEP_US);
        for column in &first.columns()[1 + TAGS.len()..] {
            let values = column.as_primitive::<Float64Type>().values();
            assert!(values.iter().all(|v| v.fract() == 0.0 && (0.0..=100.0).contains(v)));
        }
        Ok(())
    }
}
