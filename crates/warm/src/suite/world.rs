//! Tables that chance has filled.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use proptest::collection::vec;
use proptest::prelude::{Just, any};
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::strategy::Strategy;

use super::EDGES;
use super::arrays;
use super::chance::Chance;
use crate::value::Value;

/// Number of the time column in every world.
pub(super) const TIME: usize = 4;
/// Number of a column that no segment holds.
pub(super) const DECIMAL: usize = 5;

/// Numbers of columns in which rows mostly differ.
pub(super) const VARIOUS: [usize; 2] = [6, 8];

/// The key columns that a world may have.
const KEYS: [&[usize]; 6] = [&[], &[0], &[2, 1], &[1, 0, 2], &[3], &[10, 0]];

/// What a table looks like; its rows come from the seed.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) seed: u64,
    /// Which of [`KEYS`].
    keys: usize,
    /// Rows of each segment.
    sizes: Vec<usize>,
    /// Batches of each segment, an empty one among them.
    batches: usize,
    /// Of 100 values, so many are null.
    nulls: usize,
    /// How many keys, and texts, there are about.
    variety: usize,
    /// Whether floats may be NaN.
    nan: bool,
    /// Whether floats may be infinite or near to it.
    huge: bool,
    /// Whether floats are mostly zeros, the others all of one sign: then zeros are least or greatest.
    zeros: bool,
    times: Times,
    /// Whether rows of a batch come in order of time.
    in_order: bool,
}

/// What times look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    /// Few, so that many are equal; some are negative.
    Few,
    /// As a clock gives them.
    Regular,
    /// The least and greatest of all, and between.
    Extreme,
    /// Nearly all the same, so that keys end at the same time in several segments; in some of these other keys
    /// end later.
    Same,
}

/// A row: a value for each column.
pub(super) type Row = Vec<Value>;

/// Worlds of all kinds.
pub(super) fn worlds() -> impl Strategy<Value = World> {
    let size = prop_oneof![3 => 0_usize..40, 2 => select(EDGES.to_vec()), 1 => 0_usize..3000];
    let times = prop_oneof![3 => Just(Times::Few), 3 => Just(Times::Regular), 1 => Just(Times::Extreme),
        2 => Just(Times::Same)];
    let sizes = prop_oneof![1 => Just(vec![]), 9 => vec(size, 1..4)];
    let shape = (0..KEYS.len(), sizes, 1_usize..4, select(vec![0_usize, 15, 60, 100]));
    let floats = (any::<bool>(), any::<bool>(), any::<bool>());
    let content = (1_usize..40, floats, times, any::<bool>());
    (any::<u64>(), shape, content).prop_map(
        |(seed, (keys, sizes, batches, nulls), (variety, (nan, huge, zeros), times, in_order))| {
            World {
                seed,
                keys,
                sizes,
                batches,
                nulls,
                variety,
                nan,
                huge,
                zeros: zeros && !huge,
                times,
                in_order,
            }
        },
    )
}

impl World {
    /// A world of one segment, with another of the same size if there are few rows. A plain one has neither keys
    /// nor nulls.
    pub(super) fn of_rows(seed: u64, rows: usize, plain: bool) -> Self {
        let mut chance = Chance::new(seed);
        Self {
            seed,
            keys: if plain { 0 } else { chance.below(KEYS.len()) },
            sizes: vec![rows; if rows < 100 && !plain { 2 } else { 1 }],
            batches: 1 + chance.below(3),
            nulls: if plain { 0 } else { chance.pick(&[0, 15]) },
            variety: 1 + chance.below(10),
            nan: chance.percent(30),
            huge: chance.percent(30),
            zeros: chance.percent(30),
            times: chance.pick(&[Times::Few, Times::Regular, Times::Same]),
            in_order: chance.percent(50),
        }
    }

    /// A world of two segments of so many rows, in which few keys end at the same time, though the first
    /// segment mostly ends later.
    pub(super) fn of_ties(seed: u64, rows: usize) -> Self {
        Self {
            seed: (seed & !0xf00) | 0x100,
            keys: 1,
            sizes: vec![rows; 2],
            nulls: 0,
            variety: 3,
            times: Times::Same,
            ..Self::of_rows(seed, rows, false)
        }
    }

    /// Numbers of the key columns.
    pub(super) fn keys(&self) -> &'static [usize] {
        KEYS[self.keys]
    }

    pub(super) fn schema(&self) -> SchemaRef {
        let unit =
            [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond]
                [(self.seed % 4) as usize];
        let zone = (self.seed & 4 != 0).then(|| Arc::from("+02:00"));
        let dictionary = |key, values| DataType::Dictionary(Box::new(key), Box::new(values));
        let types = [
            ("host", dictionary(DataType::Int32, DataType::Utf8)),
            ("rack", DataType::Int16),
            ("zone", DataType::Utf8View),
            ("up", DataType::Boolean),
            ("time", DataType::Timestamp(unit, zone)),
            ("decimal", DataType::Decimal128(20, 2)),
            ("f64", DataType::Float64),
            ("f32", DataType::Float32),
            ("i64", DataType::Int64),
            ("i8", DataType::Int8),
            ("u64", DataType::UInt64),
            ("u8", DataType::UInt8),
            ("u16", DataType::UInt16),
            ("u32", DataType::UInt32),
            ("i32", DataType::Int32),
            ("date", DataType::Date32),
            ("seen", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("took", DataType::Duration(TimeUnit::Microsecond)),
            ("text", DataType::Utf8),
            ("large", DataType::LargeUtf8),
            ("state", dictionary(DataType::Int8, DataType::LargeUtf8)),
            ("level", dictionary(DataType::UInt16, DataType::Utf8View)),
        ];
        let field =
            |(name, data_type): (&str, DataType)| Field::new(name, data_type, name != "time");
        Arc::new(Schema::new(types.map(field).to_vec()))
    }

    /// The rows of each segment, in the order of their arrival.
    pub(super) fn segments(&self) -> Vec<Vec<Row>> {
        let schema = self.schema();
        let mut chance = Chance::new(self.seed);
        let mut segments = Vec::with_capacity(self.sizes.len());
        for (number, &size) in self.sizes.iter().enumerate() {
            let mut rows = Vec::with_capacity(size);
            for row in 0..size {
                let field = |(column, field): (usize, &Arc<Field>)| {
                    if column == TIME {
                        return Value::Int(self.time(number, row, &mut chance));
                    }
                    if chance.percent(self.nulls) {
                        return Value::Null;
                    }
                    self.value(field.data_type(), number, &mut chance)
                };
                rows.push(schema.fields().iter().enumerate().map(field).collect::<Row>());
            }
            if self.in_order {
                rows.sort_by_key(|row| match row[TIME] {
                    Value::Int(time) => time,
                    _ => 0,
                });
            }
            segments.push(rows);
        }
        segments
    }

    /// The rows of a segment in batches, which are slices of larger ones.
    pub(super) fn batches(&self, rows: &[Row]) -> Vec<RecordBatch> {
        let mut chance = Chance::new(self.seed ^ 1);
        let schema = self.schema();
        let mut batches = Vec::new();
        let length = rows.len().div_ceil(self.batches).max(1);
        for rows in rows.chunks(length) {
            let padding = chance.below(3);
            let padded: Vec<&Row> = rows[..padding.min(rows.len())].iter().chain(rows).collect();
            let batch = arrays::batch(&schema, &padded, &mut chance);
            batches.push(batch.slice(padded.len() - rows.len(), rows.len()));
        }
        if self.batches > 1 {
            batches.insert(chance.below(batches.len() + 1), RecordBatch::new_empty(schema));
        }
        batches
    }

    fn time(&self, segment: usize, row: usize, chance: &mut Chance) -> i64 {
        match self.times {
            Times::Few => chance.around_zero(20),
            Times::Regular => {
                let step = i64::try_from(segment * 50 + row).unwrap_or(0) * 10;
                1_700_000_000_000 + step + chance.around_zero(100)
            }
            Times::Same => {
                let some_differ = (self.seed >> (8 + segment)) & 1 == 1;
                i64::from(some_differ && chance.percent(3))
            }
            Times::Extreme => {
                let near = chance.around_zero(5);
                chance.pick(&[i64::MIN, i64::MIN + 1, -1, 0, near, i64::MAX - 1, i64::MAX])
            }
        }
    }

    /// A value of a column of this type that is not null. Later segments have texts that earlier ones
    /// have not.
    pub(super) fn value(&self, data_type: &DataType, segment: usize, chance: &mut Chance) -> Value {
        let signed = |bits: u32, chance: &mut Chance| {
            let shift = 64 - bits;
            let near = chance.around_zero(self.variety);
            Value::Int(chance.pick(&[
                i64::MIN >> shift,
                -1,
                0,
                1,
                near,
                near,
                near,
                i64::MAX >> shift,
            ]))
        };
        let unsigned = |bits: u32, chance: &mut Chance| {
            let near = chance.below(self.variety) as u64;
            Value::UInt(chance.pick(&[0, 1, near, near, near, u64::MAX >> (64 - bits)]))
        };
        match data_type {
            DataType::Boolean => Value::Boolean(chance.percent(50)),
            DataType::Int8 => signed(8, chance),
            DataType::Int16 => Value::Int(chance.around_zero(self.variety.min(6))),
            DataType::Int32 | DataType::Date32 => signed(32, chance),
            DataType::UInt8 => unsigned(8, chance),
            DataType::UInt16 => unsigned(16, chance),
            DataType::UInt32 => unsigned(32, chance),
            DataType::UInt64 => unsigned(64, chance),
            DataType::Float64 => Value::Float64(self.float(chance)),
            #[expect(clippy::cast_possible_truncation, reason = "any float does")]
            DataType::Float32 => Value::Float32(self.float(chance) as f32),
            DataType::Decimal128(_, _) => Value::Int(chance.around_zero(1000)),
            data_type if arrays::is_text(data_type) => {
                let number = chance.below(self.variety) + segment * self.variety / 2;
                let text = ["", "a", "host_0", "ü", "a text that is longer than twelve bytes"];
                Value::Text(match text.get(number) {
                    Some(text) => (*text).into(),
                    None => format!("host_{number}").into(),
                })
            }
            _ => signed(64, chance),
        }
    }

    fn float(&self, chance: &mut Chance) -> f64 {
        let near = chance.around_zero(1000) as f64 / 10.0;
        if self.nan && chance.percent(10) {
            return chance.pick(&[f64::NAN, -f64::NAN]);
        }
        if self.zeros {
            let other = if self.seed & 8 == 0 { 1.5 } else { -1.5 };
            return chance.pick(&[0.0, -0.0, 0.0, -0.0, other]);
        }
        if self.huge && chance.percent(20) {
            return chance.pick(&[f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 1e300]);
        }
        chance.pick(&[
            0.0,
            -0.0,
            near,
            near,
            near,
            near * 1e-20,
            near * 1e16,
            f64::MIN_POSITIVE,
            5e-324,
        ])
    }
}
