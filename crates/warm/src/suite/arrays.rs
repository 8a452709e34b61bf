//! Rows to batches and back, value by value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, DictionaryArray, LargeStringArray,
    PrimitiveArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, ArrowPrimitiveType, DataType, Date32Type,
    DurationMicrosecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::chance::Chance;
use super::world::Row;
use crate::value::Value;

/// Runs `$primitive` with the Arrow type and a variant of [`Value`] for types of numbers, or `$other`.
macro_rules! by_type {
    ($data_type:expr, |$type:ident, $variant:ident| $primitive:expr, $other:expr) => {{
        macro_rules! case {
            ($arrow:ty, $name:ident) => {{
                type $type = $arrow;
                #[allow(
                    unused_imports,
                    clippy::allow_attributes,
                    reason = "one of two uses needs it"
                )]
                use crate::value::Value::$name as $variant;
                $primitive
            }};
        }
        match $data_type {
            DataType::Int8 => case!(Int8Type, Int),
            DataType::Int16 => case!(Int16Type, Int),
            DataType::Int32 => case!(Int32Type, Int),
            DataType::Date32 => case!(Date32Type, Int),
            DataType::Int64 => case!(Int64Type, Int),
            DataType::Duration(_) => case!(DurationMicrosecondType, Int),
            DataType::Timestamp(TimeUnit::Second, _) => case!(TimestampSecondType, Int),
            DataType::Timestamp(TimeUnit::Millisecond, _) => case!(TimestampMillisecondType, Int),
            DataType::Timestamp(TimeUnit::Microsecond, _) => case!(TimestampMicrosecondType, Int),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => case!(TimestampNanosecondType, Int),
            DataType::UInt8 => case!(UInt8Type, UInt),
            DataType::UInt16 => case!(UInt16Type, UInt),
            DataType::UInt32 => case!(UInt32Type, UInt),
            DataType::UInt64 => case!(UInt64Type, UInt),
            DataType::Float32 => case!(Float32Type, Float32),
            DataType::Float64 => case!(Float64Type, Float64),
            _ => $other,
        }
    }};
}

/// Whether a type is of text.
pub(super) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// A batch of rows.
pub(super) fn batch(schema: &SchemaRef, rows: &[&Row], chance: &mut Chance) -> RecordBatch {
    let column = |column: usize| {
        let values: Vec<&Value> = rows.iter().map(|row| &row[column]).collect();
        array(schema.field(column).data_type(), &values, chance)
    };
    let columns = (0..schema.fields().len()).map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
        .unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(schema)))
}

fn array(data_type: &DataType, values: &[&Value], chance: &mut Chance) -> ArrayRef {
    by_type!(
        data_type,
        |Type, Variant| {
            let native = |value: &&Value| match value {
                Variant(value) => <Type as ArrowPrimitiveType>::Native::try_from(*value).ok(),
                _ => None,
            };
            let array: PrimitiveArray<Type> = values.iter().map(native).collect();
            Arc::new(array.with_data_type(data_type.clone()))
        },
        match data_type {
            DataType::Boolean => {
                let boolean = |value: &&Value| match value {
                    Value::Boolean(value) => Some(*value),
                    _ => None,
                };
                Arc::new(values.iter().map(boolean).collect::<BooleanArray>())
            }
            DataType::Decimal128(_, _) => {
                let integer = |value: &&Value| match value {
                    Value::Int(value) => Some(i128::from(*value)),
                    _ => None,
                };
                let array: Decimal128Array = values.iter().map(integer).collect();
                Arc::new(array.with_data_type(data_type.clone()))
            }
            DataType::Dictionary(key, of) => match **key {
                DataType::Int8 => dictionary::<Int8Type>(of, values, chance),
                DataType::Int32 => dictionary::<Int32Type>(of, values, chance),
                _ => dictionary::<UInt16Type>(of, values, chance),
            },
            flat => texts(flat, values.iter().map(|value| text(value))),
        }
    )
}

/// A dictionary as one batch has it: in an order of its own, with a text that no row has, one that is
/// there twice, and one that is null.
fn dictionary<K: ArrowDictionaryKeyType>(
    of: &DataType,
    values: &[&Value],
    chance: &mut Chance,
) -> ArrayRef {
    let mut entries: Vec<Option<&str>> = vec![Some("no row has it"), None];
    for value in values {
        if !entries.contains(&text(value)) {
            entries.push(text(value));
        }
    }
    entries.push(entries[chance.below(entries.len())]);
    let entries: Vec<_> =
        chance.shuffled(entries.len()).into_iter().map(|place| entries[place]).collect();
    let mut key = |value: &&Value| {
        let wanted = text(value);
        if wanted.is_none() && chance.percent(50) {
            return None;
        }
        let places = (0..entries.len()).filter(|place| entries[*place] == wanted);
        let places: Vec<_> = places.collect();
        K::Native::from_usize(chance.pick(&places))
    };
    let keys: PrimitiveArray<K> = values.iter().map(&mut key).collect();
    Arc::new(DictionaryArray::new(keys, texts(of, entries.iter().copied())))
}

fn texts<'a>(data_type: &DataType, values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    match data_type {
        DataType::LargeUtf8 => Arc::new(values.collect::<LargeStringArray>()),
        DataType::Utf8View => Arc::new(values.collect::<StringViewArray>()),
        _ => Arc::new(values.collect::<StringArray>()),
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The rows of a batch.
pub(super) fn rows(batch: &RecordBatch) -> Vec<Row> {
    let row = |row: usize| batch.columns().iter().map(|column| value(column, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

fn value(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    by_type!(
        array.data_type(),
        |Type, Variant| Variant(array.as_primitive::<Type>().value(row).into()),
        match array.data_type() {
            DataType::Boolean => Value::Boolean(array.as_boolean().value(row)),
            DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).into()),
            DataType::LargeUtf8 => Value::Text(array.as_string::<i64>().value(row).into()),
            DataType::Utf8View => Value::Text(array.as_string_view().value(row).into()),
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                value(dictionary.values(), dictionary.normalized_keys()[row])
            }
            other => Value::Text(format!("a value of type {other}").into()),
        }
    )
}
