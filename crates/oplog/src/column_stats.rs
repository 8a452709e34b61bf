//! Statistics of a data file's columns, as they stand in its log row.
//!
//! Encoding, per column in schema order: one flag byte (1 = minimum and maximum follow), the null
//! count as a LEB128 number, then minimum and maximum, each a type byte and its value: `i` eight
//! bytes (integers, dates, times, booleans), `f` eight bytes (floats), `s` a LEB128 length and
//! bytes (text). Both bounds are exact; a column whose bounds are not known exactly has none.

use std::sync::Arc;

/// A bound of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum StatValue {
    /// Of an integer, date, time or boolean (0, 1) column, in the column's own unit.
    Int(i64),
    /// Of a floating point column.
    Float(f64),
    /// Of a text column.
    Text(Arc<str>),
}

/// What is known of one column of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ColumnStats {
    /// How many of its values are null.
    pub nulls: u64,
    /// The least and the greatest value that is not null, both exact.
    pub bounds: Option<(StatValue, StatValue)>,
}

impl ColumnStats {
    /// Encodes the statistics of all columns of a file.
    #[must_use]
    pub fn encode_all(columns: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(columns.len() * 20);
        for column in columns {
            out.push(u8::from(column.bounds.is_some()));
            put_number(&mut out, column.nulls);
            if let Some((min, max)) = &column.bounds {
                put_value(&mut out, min);
                put_value(&mut out, max);
            }
        }
        out
    }

    /// Decodes what [`ColumnStats::encode_all`] wrote; `None` if the bytes are cut or unknown.
    #[must_use]
    pub fn decode_all(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut columns = Vec::new();
        while let Some((&flag, rest)) = bytes.split_first() {
            bytes = rest;
            let nulls = take_number(&mut bytes)?;
            let bounds = match flag {
                0 => None,
                1 => Some((take_value(&mut bytes)?, take_value(&mut bytes)?)),
                _ => return None,
            };
            columns.push(Self { nulls, bounds });
        }
        Some(columns)
    }
}

pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

pub(crate) fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_value(out: &mut Vec<u8>, value: &StatValue) {
    match value {
        StatValue::Int(value) => {
            out.push(b'i');
            out.extend(value.to_le_bytes());
        }
        StatValue::Float(value) => {
            out.push(b'f');
            out.extend(value.to_le_bytes());
        }
        StatValue::Text(text) => {
            out.push(b's');
            put_number(out, text.len() as u64);
            out.extend(text.as_bytes());
        }
    }
}

fn take_value(bytes: &mut &[u8]) -> Option<StatValue> {
    let (&tag, rest) = bytes.split_first()?;
    *bytes = rest;
    match tag {
        b'i' => take::<8>(bytes).map(|raw| StatValue::Int(i64::from_le_bytes(raw))),
        b'f' => take::<8>(bytes).map(|raw| StatValue::Float(f64::from_le_bytes(raw))),
        b's' => {
            let length = usize::try_from(take_number(bytes)?).ok()?;
            let (text, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            std::str::from_utf8(text).ok().map(|text| StatValue::Text(text.into()))
        }
        _ => None,
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_survive_and_cut_bytes_are_refused() {
        let columns = vec![
            ColumnStats { nulls: 0, bounds: Some((StatValue::Int(-5), StatValue::Int(i64::MAX))) },
            ColumnStats { nulls: 300, bounds: None },
            ColumnStats { nulls: 1, bounds: Some((StatValue::Float(-0.0), StatValue::Float(2.5))) },
            ColumnStats {
                nulls: u64::MAX,
                bounds: Some((StatValue::Text("".into()), StatValue::Text("é".into()))),
            },
        ];
        let bytes = ColumnStats::encode_all(&columns);
        assert_eq!(ColumnStats::decode_all(&bytes), Some(columns));
        assert_eq!(ColumnStats::decode_all(&bytes[..bytes.len() - 1]), None);
        assert_eq!(ColumnStats::decode_all(&[9, 0]), None);
    }
}
