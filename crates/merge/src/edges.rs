//! Borders of the merge: empty and single inputs, slices, bad input, limits of types, memory.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::types::{Int8Type, Int32Type, Int64Type};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, DictionaryArray, FixedSizeBinaryArray,
    Int64Array, ListArray, RecordBatch, StringArray, StringViewArray, new_empty_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::{Error, MergeSpec, Merger, Step};

type TestResult = Result<(), Box<dyn StdError>>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Int64, false),
        Field::new("key", DataType::Utf8, true),
        Field::new("version", DataType::Int64, false),
    ]))
}

/// Rows of (time, key, version).
fn batch(rows: &[(i64, Option<&str>, i64)]) -> RecordBatch {
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ],
    )
    .unwrap()
}

fn times(times: impl IntoIterator<Item = i64>) -> RecordBatch {
    batch(&times.into_iter().map(|time| (time, None, 0)).collect::<Vec<_>>())
}

fn spec() -> MergeSpec {
    MergeSpec::new(schema(), 0)
}

fn dedup() -> MergeSpec {
    spec().with_keys([1]).with_version(2).with_dedup(true)
}

struct Merged {
    batches: Vec<RecordBatch>,
    bytes_max: usize,
}

fn merge(spec: MergeSpec, inputs: Vec<Vec<RecordBatch>>) -> Result<Merged, Error> {
    let mut inputs: Vec<VecDeque<RecordBatch>> = inputs.into_iter().map(Into::into).collect();
    let mut merger = Merger::try_new(spec, inputs.len())?;
    let mut merged = Merged { batches: Vec::new(), bytes_max: 0 };
    loop {
        match merger.step()? {
            Step::NeedInput(input) => match inputs[input].pop_front() {
                Some(batch) => merger.push(input, batch)?,
                None => merger.finish(input)?,
            },
            Step::Batch(batch) => merged.batches.push(batch),
            Step::Done => break,
        }
        merged.bytes_max = merged.bytes_max.max(merger.buffered_bytes());
    }
    assert_eq!(merger.buffered_bytes(), 0);
    assert!(matches!(merger.step()?, Step::Done));
    Ok(merged)
}

fn column(batches: &[RecordBatch], column: usize) -> Vec<i64> {
    let values =
        |batch: &RecordBatch| batch.column(column).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(values).collect()
}

fn rows(merged: &Merged) -> Vec<usize> {
    merged.batches.iter().map(RecordBatch::num_rows).collect()
}

fn same_buffers(left: &RecordBatch, right: &RecordBatch) -> bool {
    let buffer = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].data_ptr();
    buffer(left) == buffer(right)
}

#[test]
fn a_merger_can_be_sent_and_shared() {
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<Merger>();
    check::<MergeSpec>();
    check::<Error>();
}

#[test]
fn no_inputs_give_nothing() -> TestResult {
    assert!(merge(dedup(), Vec::new())?.batches.is_empty());
    Ok(())
}

#[test]
fn inputs_without_rows_give_nothing() -> TestResult {
    let inputs = vec![vec![], vec![times([]), times([])], vec![times([])]];
    assert!(merge(dedup(), inputs)?.batches.is_empty());
    Ok(())
}

#[test]
fn a_single_input_passes_through_as_it_is() -> TestResult {
    let input = vec![times(0..3), times([]), times(3..20), times([20])];
    let merged = merge(spec().with_batch_rows(4), vec![input.clone()])?;
    assert_eq!(rows(&merged), [3, 17, 1]);
    for (out, given) in merged.batches.iter().zip([&input[0], &input[2], &input[3]]) {
        assert_eq!(out, given);
        assert!(same_buffers(out, given));
    }
    Ok(())
}

#[test]
fn batches_that_do_not_overlap_pass_through_whole() -> TestResult {
    for spec in [spec(), dedup()] {
        let inputs = [vec![times(0..100), times(300..400)], vec![times(100..300)]];
        let merged = merge(spec.with_batch_rows(64), inputs.to_vec())?;
        assert_eq!(rows(&merged), [100, 200, 100]);
        for (out, given) in merged.batches.iter().zip([&inputs[0][0], &inputs[1][0], &inputs[0][1]])
        {
            assert!(same_buffers(out, given));
        }
    }
    Ok(())
}

#[test]
fn long_runs_are_slices_of_their_batch() -> TestResult {
    let long = times((0..2000).step_by(2));
    let merged = merge(spec().with_batch_rows(100), vec![vec![long.clone()], vec![times([999])]])?;
    assert_eq!(rows(&merged), [500, 1, 500]);
    assert!(same_buffers(&merged.batches[0], &long));
    assert!(same_buffers(&merged.batches[2], &long));
    Ok(())
}

#[test]
fn short_batches_are_joined() -> TestResult {
    let pieces = |start: i64| (0..50).map(|i| times([start + 2 * i])).collect::<Vec<_>>();
    let merged = merge(spec().with_batch_rows(40), vec![pieces(0), pieces(1)])?;
    assert_eq!(rows(&merged), [40, 40, 20]);
    assert_eq!(column(&merged.batches, 0), (0..100).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn the_highest_version_wins_and_then_the_later_input() -> TestResult {
    let inputs = vec![
        vec![batch(&[(1, Some("a"), 9), (2, Some("a"), 5)])],
        vec![batch(&[(1, Some("a"), 3), (1, Some("b"), 1), (2, Some("a"), 5)])],
    ];
    let merged = merge(dedup(), inputs.clone())?;
    assert_eq!(column(&merged.batches, 2), [9, 1, 5]);
    let without_version = merge(dedup().with_version(None), inputs)?;
    assert_eq!(column(&without_version.batches, 2), [3, 1, 5]);
    Ok(())
}

#[test]
fn one_input_is_deduplicated_within_and_between_batches() -> TestResult {
    let input = vec![
        batch(&[(1, None, 1), (1, None, 2), (1, Some("a"), 1), (2, Some("a"), 1)]),
        batch(&[(2, Some("a"), 2)]),
        times([]),
        batch(&[(2, Some("a"), 2), (2, Some("b"), 7), (3, None, 8)]),
    ];
    for batch_rows in [1, 2, 3, 100] {
        let merged = merge(dedup().with_batch_rows(batch_rows), vec![input.clone()])?;
        assert_eq!(column(&merged.batches, 0), [1, 1, 2, 2, 3]);
        assert_eq!(column(&merged.batches, 2), [2, 1, 2, 7, 8]);
    }
    Ok(())
}

#[test]
fn the_ends_of_time_are_times() -> TestResult {
    let inputs = vec![
        vec![times([i64::MIN, i64::MAX])],
        vec![],
        vec![times([i64::MIN, 0, i64::MAX, i64::MAX])],
        vec![times([0])],
    ];
    let merged = merge(spec(), inputs)?;
    let (low, high) = (i64::MIN, i64::MAX);
    assert_eq!(column(&merged.batches, 0), [low, low, 0, 0, high, high, high]);
    Ok(())
}

#[test]
fn many_inputs_with_equal_times_are_ordered_by_key() -> TestResult {
    let names: Vec<String> = (0..300).map(|i| format!("{:03}", (i * 7) % 300)).collect();
    let input = |name: &String| {
        (0..3).map(|time| batch(&[(time, Some(name.as_str()), 0)])).collect::<Vec<_>>()
    };
    let merged = merge(dedup(), names.iter().map(input).collect())?;
    let keys: Vec<String> = merged
        .batches
        .iter()
        .flat_map(|batch| batch.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>())
        .map(str::to_owned)
        .collect();
    let expected: Vec<String> = (0..3).flat_map(|_| (0..300).map(|i| format!("{i:03}"))).collect();
    assert_eq!(keys, expected);
    Ok(())
}

#[test]
fn an_input_that_goes_back_in_time_is_named() -> TestResult {
    let mut merger = Merger::try_new(spec(), 2)?;
    let error = merger.push(1, times([1, 2, 5, 4, 9])).unwrap_err();
    assert!(
        matches!(error, Error::TimeGoesBack { input: 1, row: 3, time: 4, previous: 5 }),
        "{error}"
    );
    // Nothing has changed: the input still waits.
    merger.push(1, times([1, 2, 5]))?;
    let error = merge(spec(), vec![vec![times([0])], vec![times([1, 2]), times([1])]]);
    let error = error.err().ok_or("accepted")?;
    assert!(
        matches!(error, Error::TimeGoesBack { input: 1, row: 2, time: 1, previous: 2 }),
        "{error}"
    );
    Ok(())
}

#[test]
fn keys_that_go_back_are_named_when_deduplicating() -> TestResult {
    let bad = [
        vec![batch(&[(1, Some("b"), 0), (1, Some("a"), 0)])],
        vec![batch(&[(1, Some("b"), 0), (1, None, 0)])],
        vec![batch(&[(1, Some("b"), 1), (1, Some("b"), 0)])],
        vec![batch(&[(1, Some("b"), 0)]), batch(&[(1, Some("a"), 0)])],
        vec![batch(&[(1, Some("b"), 1)]), batch(&[(1, Some("b"), 0)])],
    ];
    for input in bad {
        let merged = merge(dedup(), vec![vec![times([0])], input]);
        let error = merged.err().ok_or("accepted")?;
        assert!(matches!(error, Error::KeysGoBack { input: 1, row: 1, time: 1 }), "{error}");
    }
    Ok(())
}

#[test]
fn a_merge_stops_at_an_error_in_a_step() -> TestResult {
    let mut merger = Merger::try_new(dedup(), 1)?;
    for key in ["b", "a"] {
        assert!(matches!(merger.step()?, Step::NeedInput(0)));
        merger.push(0, batch(&[(1, Some(key), 0)]))?;
    }
    assert!(matches!(merger.step(), Err(Error::KeysGoBack { .. })));
    assert!(matches!(merger.step(), Err(Error::Stopped)));
    assert!(matches!(merger.push(0, times([2])), Err(Error::Stopped)));
    Ok(())
}

#[test]
fn only_waiting_inputs_are_fed() -> TestResult {
    let mut merger = Merger::try_new(spec(), 2)?;
    assert_eq!(merger.waiting().collect::<Vec<_>>(), [0, 1]);
    merger.push(1, times([1]))?;
    assert_eq!(merger.waiting().collect::<Vec<_>>(), [0]);
    assert!(matches!(merger.push(1, times([2])), Err(Error::NotWaiting { input: 1 })));
    assert!(matches!(merger.finish(1), Err(Error::NotWaiting { input: 1 })));
    assert!(matches!(merger.finish(2), Err(Error::UnknownInput { input: 2, inputs: 2 })));
    merger.finish(0)?;
    assert!(matches!(merger.push(0, times([2])), Err(Error::NotWaiting { input: 0 })));
    Ok(())
}

#[test]
fn batches_that_do_not_fit_the_schema_are_refused() -> TestResult {
    let mut merger = Merger::try_new(dedup(), 1)?;
    let good = times([1]);
    let narrow = good.project(&[0, 1])?;
    let error = merger.push(0, narrow).unwrap_err();
    assert!(matches!(error, Error::ColumnCount { input: 0, expected: 3, found: 2 }), "{error}");
    let error = merger.push(0, good.project(&[0, 2, 1])?).unwrap_err();
    assert!(matches!(error, Error::ColumnName { input: 0, .. }), "{error}");
    let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
    let (key, version) = (Arc::clone(good.column(1)), Arc::clone(good.column(2)));
    let other = RecordBatch::try_from_iter([("time", days), ("key", key), ("version", version)])?;
    let error = merger.push(0, other).unwrap_err();
    assert!(matches!(error, Error::ColumnType { input: 0, .. }), "{error}");
    Ok(())
}

#[test]
fn nulls_in_time_or_version_are_named() -> TestResult {
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let ones: ArrayRef = Arc::new(Int64Array::from(vec![1, 1]));
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    for (time, version, name) in [(&nulls, &ones, "time"), (&ones, &nulls, "version")] {
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("time", Arc::clone(time), true),
            ("key", Arc::clone(&keys), true),
            ("version", Arc::clone(version), true),
        ])?;
        // Declared nullable or not, nulls are refused.
        for schema in [schema(), batch.schema()] {
            let spec = MergeSpec::new(schema, 0).with_version(2);
            let error = Merger::try_new(spec, 1)?.push(0, batch.clone()).unwrap_err();
            match error {
                Error::NullValue { input: 0, row: 1, column } => assert_eq!(column, name),
                other => return Err(other.into()),
            }
        }
    }
    Ok(())
}

#[test]
fn output_has_the_schema_of_the_spec() -> TestResult {
    let loose = RecordBatch::try_from_iter_with_nullable(
        ["time", "key", "version"]
            .into_iter()
            .zip(times(0..9).columns().iter().cloned())
            .map(|(name, column)| (name, column, true)),
    )?;
    let merged = merge(spec(), vec![vec![loose.clone()], vec![loose]])?;
    for batch in &merged.batches {
        assert_eq!(batch.schema(), schema());
    }
    assert_eq!(column(&merged.batches, 0).len(), 18);
    Ok(())
}

fn spec_error(fields: Vec<DataType>, spec: impl FnOnce(MergeSpec) -> MergeSpec) -> String {
    let field = |(i, data_type): (usize, DataType)| Field::new(format!("c{i}"), data_type, true);
    let fields: Vec<Field> = fields.into_iter().enumerate().map(field).collect();
    let spec = spec(MergeSpec::new(Arc::new(Schema::new(fields)), 0));
    Merger::try_new(spec, 1).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn specs_that_cannot_be_merged_are_refused() {
    use DataType::{Date32, Float32, Float64, Int32, Int64, Utf8};
    let list = DataType::new_list(Float64, true);
    let dictionary = DataType::Dictionary(Box::new(Int32), Box::new(Float32));
    assert!(spec_error(vec![], |spec| spec).contains("has 0 columns"));
    assert!(spec_error(vec![Utf8], |spec| spec).contains("time column \"c0\" has type Utf8"));
    assert!(spec_error(vec![Date32], |spec| spec.with_keys([7])).contains("key column"));
    assert!(spec_error(vec![Date32, Int32], |spec| spec.with_version(1)).contains("Int64"));
    assert!(spec_error(vec![Date32], |spec| spec.with_keys([0])).contains("twice"));
    assert!(spec_error(vec![Date32, Utf8], |spec| spec.with_keys([1, 1])).contains("twice"));
    assert!(spec_error(vec![Int64], |spec| spec.with_batch_rows(0)).contains("batch_rows"));
    for float in [Float64, list, dictionary] {
        assert!(spec_error(vec![Int64, float], |spec| spec.with_keys([1])).contains("floats"));
    }
}

#[test]
fn keys_of_many_types_are_compared() -> TestResult {
    let lists = |value: i32| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(value)])]))
    };
    let bytes = |value: &[u8]| -> Result<ArrayRef, arrow::error::ArrowError> {
        Ok(Arc::new(FixedSizeBinaryArray::try_from_iter([value].into_iter())?))
    };
    let pairs: [(ArrayRef, ArrayRef); 4] = [
        (Arc::new(BooleanArray::from(vec![false])), Arc::new(BooleanArray::from(vec![true]))),
        (lists(1), lists(2)),
        (bytes(b"ab")?, bytes(b"ac")?),
        (
            Arc::new(StringViewArray::from(vec!["a text beyond 12 bytes, 1"])),
            Arc::new(StringViewArray::from(vec!["a text beyond 12 bytes, 2"])),
        ),
    ];
    for (low, high) in pairs {
        let batch = |key: &ArrayRef| {
            let time: ArrayRef = Arc::new(Int64Array::from(vec![1]));
            RecordBatch::try_from_iter([("time", time), ("key", Arc::clone(key))])
        };
        let (low, high) = (batch(&low)?, batch(&high)?);
        let spec = MergeSpec::new(low.schema(), 0).with_keys([1]).with_dedup(true);
        let inputs = vec![vec![high.clone()], vec![low.clone()], vec![high.clone()]];
        let merged = merge(spec, inputs)?;
        let all = arrow::compute::concat_batches(&low.schema(), &merged.batches)?;
        assert_eq!(all, arrow::compute::concat_batches(&low.schema(), [&low, &high])?);
    }
    Ok(())
}

#[test]
fn a_null_in_a_dictionary_is_a_null_key() -> TestResult {
    let time: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let values: ArrayRef = Arc::new(StringArray::from(vec![None, Some("a")]));
    let by_value: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::try_new(
        vec![Some(0)].into_iter().collect(),
        values,
    )?);
    let by_key: ArrayRef =
        Arc::new([None::<&str>].into_iter().collect::<DictionaryArray<Int8Type>>());
    let batch = |key: ArrayRef| {
        RecordBatch::try_from_iter_with_nullable([
            ("time", Arc::clone(&time), false),
            ("key", key, true),
        ])
    };
    let inputs = vec![vec![batch(by_value)?], vec![batch(by_key)?]];
    let spec = MergeSpec::new(inputs[0][0].schema(), 0).with_keys([1]).with_dedup(true);
    assert_eq!(rows(&merge(spec, inputs)?), [1]);
    Ok(())
}

#[test]
fn values_beyond_the_keys_of_a_dictionary_split_the_batch() -> TestResult {
    let input = |offset: i64| -> Result<RecordBatch, arrow::error::ArrowError> {
        let names: Vec<String> = (0..100).map(|i| format!("{offset} {i}")).collect();
        let names: DictionaryArray<Int8Type> = names.iter().map(String::as_str).collect();
        let time = Int64Array::from_iter_values((0..100).map(|i| 2 * i + offset));
        RecordBatch::try_from_iter([
            ("time", Arc::new(time) as ArrayRef),
            ("name", Arc::new(names) as ArrayRef),
        ])
    };
    let inputs = vec![vec![input(0)?], vec![input(1)?]];
    let merged = merge(MergeSpec::new(inputs[0][0].schema(), 0), inputs)?;
    assert!(merged.batches.len() > 1);
    assert_eq!(column(&merged.batches, 0), (0..200).collect::<Vec<_>>());
    for batch in &merged.batches {
        let names = batch.column(1).as_dictionary::<Int8Type>();
        let names = names.downcast_dict::<StringArray>().ok_or("not strings")?;
        for (name, time) in names.into_iter().zip(column(std::slice::from_ref(batch), 0)) {
            assert_eq!(name, Some(format!("{} {}", time % 2, time / 2).as_str()));
        }
    }
    Ok(())
}

#[test]
fn batches_that_lose_nearly_all_rows_are_not_kept() -> TestResult {
    let len = 1000;
    let input: Vec<RecordBatch> = (0..200).map(|time| times(vec![time; len])).collect();
    let one = input[0].get_array_memory_size();
    let merged = merge(dedup().with_batch_rows(100), vec![input])?;
    assert_eq!(column(&merged.batches, 0), (0..200).collect::<Vec<_>>());
    assert!(merged.bytes_max < 4 * one, "{} bytes held, a batch has {one}", merged.bytes_max);
    Ok(())
}

#[test]
fn memory_is_a_batch_per_input_and_little_more() -> TestResult {
    let input = |offset: i64| -> Vec<RecordBatch> {
        (0..40).map(|n| times((0..500).map(|i| 4 * (500 * n + i) + offset))).collect()
    };
    let inputs: Vec<_> = (0..4).map(input).collect();
    let one = inputs[0][0].get_array_memory_size();
    let merged = merge(spec().with_batch_rows(500), inputs)?;
    assert_eq!(column(&merged.batches, 0), (0..80_000).collect::<Vec<_>>());
    assert!(merged.bytes_max <= 10 * one, "{} bytes held, a batch has {one}", merged.bytes_max);
    Ok(())
}

#[test]
fn times_alone_make_a_schema() -> TestResult {
    let field = Field::new("time", DataType::Date32, false);
    let schema = Arc::new(Schema::new(vec![field]));
    let days = |days: Vec<i32>| {
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Date32Array::from(days))])
    };
    let inputs = vec![vec![days(vec![-2, 0, 5])?], vec![days(vec![-3, 0, 4])?]];
    let merged = merge(MergeSpec::new(Arc::clone(&schema), 0).with_dedup(true), inputs)?;
    assert_eq!(merged.batches, [days(vec![-3, -2, 0, 4, 5])?]);
    Ok(())
}

#[test]
fn an_empty_batch_is_checked_and_leaves_the_input_waiting() -> TestResult {
    let mut merger = Merger::try_new(spec(), 1)?;
    merger.push(0, times([]))?;
    assert!(matches!(merger.step()?, Step::NeedInput(0)));
    let wrong = RecordBatch::try_from_iter([("time", new_empty_array(&DataType::Utf8))])?;
    assert!(matches!(merger.push(0, wrong), Err(Error::ColumnCount { .. })));
    Ok(())
}

/// The time of a row among many.
fn instant(row: i64, first: i64, step: i64) -> i64 {
    i64::try_from(i128::from(first) + i128::from(row) * i128::from(step)).unwrap()
}

/// Inputs that take turns with each row, over batches of other lengths in each, `step` apart.
fn dealt(inputs: i64, rows: i64, first: i64, step: i64) -> Vec<Vec<RecordBatch>> {
    let input = |input: i64| {
        let all: Vec<i64> =
            (0..rows).map(|row| instant(row * inputs + input, first, step)).collect();
        let length = 700 + 611 * usize::try_from(input).unwrap();
        all.chunks(length).map(|chunk| times(chunk.iter().copied())).collect()
    };
    (0..inputs).map(input).collect()
}

#[test]
fn inputs_that_take_turns_come_out_in_order_over_any_span() -> TestResult {
    let (inputs, rows) = (7, 4_000);
    let widest = (i64::MAX / (inputs * rows)) * 2;
    for (first, step) in [(0, 1), (-5, 1_000_000_000), (i64::MIN, widest)] {
        let merged = merge(spec().with_batch_rows(1_000), dealt(inputs, rows, first, step))?;
        let expected: Vec<i64> = (0..inputs * rows).map(|row| instant(row, first, step)).collect();
        assert_eq!(column(&merged.batches, 0), expected);
        let sizes: Vec<usize> = merged.batches.iter().map(RecordBatch::num_rows).collect();
        assert!(sizes.iter().all(|rows| *rows <= 1_000), "{sizes:?}");
        assert!(sizes.len() <= 2 * 28, "batches are at least half full: {sizes:?}");
    }
    Ok(())
}

#[test]
fn memory_of_inputs_that_take_turns_stays_small() -> TestResult {
    let inputs = dealt(8, 8_000, 0, 1);
    let largest = inputs.iter().flatten().map(RecordBatch::get_array_memory_size).max();
    let merged = merge(spec().with_batch_rows(1_000), inputs)?;
    let bound = 3 * 8 * largest.unwrap_or(0);
    assert!(merged.bytes_max <= bound, "{} bytes held of {bound}", merged.bytes_max);
    Ok(())
}

#[test]
fn ties_of_inputs_that_take_turns_are_ordered_by_key() -> TestResult {
    // Every fifth time is in all inputs, with keys against the order of the inputs.
    let name = |input: i64| ["d", "c", "b", "a"][usize::try_from(input).unwrap()];
    let input = |input: i64| {
        let at = |row: i64| if row % 5 == 0 { row * 8 } else { row * 8 + 1 + input };
        let rows: Vec<_> = (0..500).map(|row| (at(row), Some(name(input)), row)).collect();
        rows.chunks(97).map(batch).collect::<Vec<_>>()
    };
    let inputs: Vec<Vec<RecordBatch>> = (0..4).map(input).collect();
    let mut expected: Vec<(i64, Option<String>, i64)> = Vec::new();
    for batch in inputs.iter().flatten() {
        let keys = batch.column(1).as_string::<i32>();
        let rows = column(std::slice::from_ref(batch), 0).into_iter().zip(keys);
        let versions = column(std::slice::from_ref(batch), 2);
        let rows = rows.zip(versions).map(|((time, key), v)| (time, key.map(str::to_owned), v));
        expected.extend(rows);
    }
    expected.sort();
    let merged = merge(spec().with_keys([1]).with_version(2), inputs)?;
    assert_eq!(
        column(&merged.batches, 2),
        expected.iter().map(|(_, _, version)| *version).collect::<Vec<_>>()
    );
    assert_eq!(
        column(&merged.batches, 0),
        expected.iter().map(|(time, _, _)| *time).collect::<Vec<_>>()
    );
    Ok(())
}

#[test]
fn keys_that_go_back_within_a_time_lose_no_row() -> TestResult {
    // Without deduplication nobody asks keys to be in order.
    let names = ["b", "d", "a", "c", "b"];
    let input = |input: i64| {
        let row =
            |row: i64| (row / 5, Some(names[usize::try_from(row % 5).unwrap()]), row * 4 + input);
        let rows: Vec<_> = (0..2_000).map(row).collect();
        rows.chunks(389).map(batch).collect::<Vec<_>>()
    };
    let merged = merge(spec().with_keys([1]).with_version(2), (0..4).map(input).collect())?;
    assert!(column(&merged.batches, 0).is_sorted());
    let mut versions = column(&merged.batches, 2);
    versions.sort_unstable();
    assert_eq!(versions, (0..8_000).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn columns_behind_the_output_only_order_rows() -> TestResult {
    let inputs = || vec![vec![times(0..40)], vec![times([3, 900])], vec![times(0..40)]];
    for columns in [0, 1, 2, 3, 9] {
        for dedup in [false, true] {
            let spec = spec().with_keys([1]).with_version(2).with_dedup(dedup);
            let all = merge(spec.clone(), inputs())?;
            let some = merge(spec.with_output_columns(columns), inputs())?;
            let kept: Vec<usize> = (0..columns.min(3)).collect();
            let expected: Result<Vec<_>, _> =
                all.batches.iter().map(|batch| batch.project(&kept)).collect();
            assert_eq!(some.batches, expected?);
        }
    }
    Ok(())
}
