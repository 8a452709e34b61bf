//! The merge against a naive model: collect all rows, sort them stably, drop what is replaced.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::types::{Int8Type, Int32Type};
use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{Error, MergeSpec, Merger, Step};

/// A row: time, first key, second key, version, and a number that tells it from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    time: i32,
    text: Option<String>,
    number: Option<i32>,
    version: i64,
    id: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextKey {
    Plain,
    View,
    Dictionary,
    SmallDictionary,
}

#[derive(Debug, Clone)]
struct Case {
    time_type: DataType,
    text_key: TextKey,
    /// How many of (text, number) are keys.
    keys: usize,
    has_version: bool,
    dedup: bool,
    batch_rows: usize,
    /// Per input its batches, sorted.
    inputs: Vec<Vec<Vec<Row>>>,
}

impl Case {
    fn schema(&self) -> SchemaRef {
        let dictionary = |keys| DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8));
        let text = match self.text_key {
            TextKey::Plain => DataType::Utf8,
            TextKey::View => DataType::Utf8View,
            TextKey::Dictionary => dictionary(DataType::Int32),
            TextKey::SmallDictionary => dictionary(DataType::Int8),
        };
        Arc::new(Schema::new(vec![
            Field::new("text", text, true),
            Field::new("id", DataType::Int64, false),
            Field::new("time", self.time_type.clone(), false),
            Field::new("number", DataType::Int32, true),
            Field::new("version", DataType::Int64, false),
            Field::new("note", DataType::Utf8, true),
        ]))
    }

    fn spec(&self) -> MergeSpec {
        MergeSpec::new(self.schema(), 2)
            .with_keys([0, 3][..self.keys].to_vec())
            .with_version(self.has_version.then_some(4))
            .with_dedup(self.dedup)
            .with_batch_rows(self.batch_rows)
    }

    fn batch(&self, rows: &[Row]) -> RecordBatch {
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row.text.as_deref()).collect();
        let text: ArrayRef = match self.text_key {
            TextKey::Plain => Arc::new(StringArray::from(texts)),
            TextKey::View => Arc::new(StringViewArray::from(texts)),
            TextKey::Dictionary => {
                Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>())
            }
            TextKey::SmallDictionary => {
                Arc::new(texts.into_iter().collect::<DictionaryArray<Int8Type>>())
            }
        };
        let times: ArrayRef = match self.time_type {
            DataType::Date32 => Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.time))),
            _ => Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| i64::from(r.time)))),
        };
        let notes = rows.iter().map(|row| (row.id % 3 != 0).then(|| format!("note {}", row.id)));
        RecordBatch::try_new(
            self.schema(),
            vec![
                text,
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.id))),
                cast(&times, &self.time_type).unwrap(),
                Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.number))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.version))),
                Arc::new(notes.collect::<StringArray>()),
            ],
        )
        .unwrap()
    }

    /// The part of a row that orders it against rows of other inputs.
    fn rank<'a>(&self, row: &'a Row) -> (i32, Option<&'a str>, Option<i32>, i64) {
        let text = if self.keys > 0 { row.text.as_deref() } else { None };
        let number = if self.keys > 1 { row.number } else { None };
        (row.time, text, number, if self.has_version { row.version } else { 0 })
    }

    /// The ids that must come out.
    fn expected(&self) -> Vec<i64> {
        let mut rows: Vec<&Row> = self.inputs.iter().flatten().flatten().collect();
        rows.sort_by(|a, b| self.rank(a).cmp(&self.rank(b)));
        let group = |row: &Row| {
            let (time, text, number, _) = self.rank(row);
            (time, text.map(str::to_owned), number)
        };
        let survives = |i: usize| {
            !self.dedup || rows.get(i + 1).is_none_or(|next| group(next) != group(rows[i]))
        };
        (0..rows.len()).filter(|&i| survives(i)).map(|i| rows[i].id).collect()
    }
}

fn drive(spec: MergeSpec, inputs: Vec<Vec<RecordBatch>>) -> Result<Vec<RecordBatch>, Error> {
    let mut inputs: Vec<VecDeque<RecordBatch>> = inputs.into_iter().map(Into::into).collect();
    let mut merger = Merger::try_new(spec, inputs.len())?;
    let mut batches = Vec::new();
    loop {
        match merger.step()? {
            Step::NeedInput(input) => match inputs[input].pop_front() {
                Some(batch) => merger.push(input, batch)?,
                None => merger.finish(input)?,
            },
            Step::Batch(batch) => batches.push(batch),
            Step::Done => break,
        }
    }
    assert_eq!(merger.buffered_bytes(), 0, "all batches are freed at the end");
    Ok(batches)
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let batches: Vec<Vec<RecordBatch>> = case
        .inputs
        .iter()
        .map(|input| input.iter().map(|rows| case.batch(rows)).collect())
        .collect();
    let longest = batches.iter().flatten().map(RecordBatch::num_rows).max().unwrap_or(0);
    let merged = drive(case.spec(), batches).unwrap();

    let ids: Vec<i64> = merged
        .iter()
        .flat_map(|batch| batch.column(1).as_primitive::<arrow::array::types::Int64Type>().values())
        .copied()
        .collect();
    prop_assert_eq!(&ids, &case.expected());

    // All columns of a row stay together.
    let mut rows: Vec<&Row> = case.inputs.iter().flatten().flatten().collect();
    rows.sort_by_key(|row| row.id);
    for batch in &merged {
        prop_assert!(batch.num_rows() > 0);
        prop_assert!(batch.num_rows() <= case.batch_rows.max(longest));
        batch.column(0).to_data().validate_full().unwrap();
        let ids = batch.column(1).as_primitive::<arrow::array::types::Int64Type>().values();
        let originals: Vec<Row> = ids
            .iter()
            .map(|id| rows[rows.binary_search_by_key(id, |row| row.id).unwrap()].clone())
            .collect();
        let expected = case.batch(&originals);
        let plain = |batch: &RecordBatch| cast(batch.column(0), &DataType::Utf8).unwrap();
        prop_assert_eq!(&plain(batch), &plain(&expected));
        prop_assert_eq!(&batch.columns()[1..], &expected.columns()[1..]);
    }
    Ok(())
}

fn time_types() -> impl Strategy<Value = DataType> {
    let timestamps = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond]
        .into_iter()
        .chain([TimeUnit::Nanosecond])
        .flat_map(|unit| [None, Some("+02:00".into())].map(|zone| DataType::Timestamp(unit, zone)));
    let others = [DataType::Date32, DataType::Date64, DataType::Int64];
    prop::sample::select(timestamps.chain(others).collect::<Vec<_>>())
}

/// How rows lie in time: crowded, so that inputs interleave row by row, or in stretches, so that
/// they take turns in longer runs.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: i32,
    width: i32,
    rows: usize,
}

fn crowded() -> impl Strategy<Value = Vec<Stretch>> {
    let place = prop_oneof![
        3 => Just((0, 4)),
        3 => Just((0, 60)),
        2 => (-200..200i32).prop_map(|start| (start, 30)),
        1 => Just((-1_000_000, 2_000_000)),
    ];
    let stretch = |((start, width), rows)| vec![Stretch { start, width, rows }];
    (place, 0..90usize).prop_map(stretch)
}

fn stretched() -> impl Strategy<Value = Vec<Stretch>> {
    let stretch = (0..60i32, 1..110i32, 1..150usize).prop_map(|(place, width, rows)| Stretch {
        start: place * 100,
        width,
        rows,
    });
    prop::collection::vec(stretch, 0..8)
}

/// Unsorted rows of one input.
fn rows(stretches: impl Strategy<Value = Vec<Stretch>>) -> impl Strategy<Value = Vec<Row>> {
    stretches.prop_flat_map(|stretches| {
        let rows = |Stretch { start, width, rows }: Stretch| {
            prop::collection::vec(row(start..start + width), rows)
        };
        let all = stretches.into_iter().map(rows).collect::<Vec<_>>();
        all.prop_map(|rows| rows.into_iter().flatten().collect())
    })
}

fn row(time: std::ops::Range<i32>) -> impl Strategy<Value = Row> {
    let text = prop::option::weighted(
        0.8,
        prop::sample::select(vec!["", "a", "b", "a long key, too long for a view"]),
    );
    let number = prop::option::weighted(0.8, -1..2i32);
    (time, text, number, 0..4i64).prop_map(|(time, text, number, version)| Row {
        time,
        text: text.map(str::to_owned),
        number,
        version,
        id: 0,
    })
}

fn split(rows: Vec<Row>, cuts: &[Index]) -> Vec<Vec<Row>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(rows.len() + 1)).collect();
    places.sort_unstable();
    places.push(rows.len());
    let mut start = 0;
    places.into_iter().map(|end| rows[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

fn cases(
    stretches: impl Strategy<Value = Vec<Stretch>>,
    batch_rows: std::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = Case> {
    let text_keys = prop::sample::select(vec![
        TextKey::Plain,
        TextKey::View,
        TextKey::Dictionary,
        TextKey::SmallDictionary,
    ]);
    let shape = (time_types(), text_keys, 0..3usize, any::<bool>(), any::<bool>(), batch_rows);
    let input = (rows(stretches), prop::collection::vec(any::<Index>(), 0..8));
    (shape, prop::collection::vec(input, 0..=6)).prop_map(|(shape, inputs)| {
        let (time_type, text_key, keys, has_version, dedup, batch_rows) = shape;
        let mut case =
            Case { time_type, text_key, keys, has_version, dedup, batch_rows, inputs: Vec::new() };
        let mut id = 0;
        for (mut rows, cuts) in inputs {
            rows.sort_by(|a, b| case.rank(a).cmp(&case.rank(b)));
            for row in &mut rows {
                row.id = id;
                id += 1;
            }
            case.inputs.push(split(rows, &cuts));
        }
        case
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn crowded_inputs_merge_as_if_sorted(case in cases(crowded(), 1..=50)) {
        check(&case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn inputs_in_stretches_merge_as_if_sorted(case in cases(stretched(), 1..=600)) {
        check(&case)?;
    }
}
