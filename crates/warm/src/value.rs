//! Single values, and their images: 64-bit integers that order as the values do.
//!
//! | values | image |
//! |---|---|
//! | signed integers, times, dates, durations | the value |
//! | unsigned integers up to 32 bits, codes | the value |
//! | `UInt64` | the value with its top bit flipped |
//! | `Float32`, `Float64` | the bits, with all but the sign flipped where the sign is set |
//! | booleans | 0 and 1 |
//!
//! The image of a float orders as IEEE 754 `totalOrder`, which is how Arrow compares: -NaN < -∞ < …
//! < -0.0 < 0.0 < … < ∞ < NaN, and two values are equal if their bits are.

use std::fmt;
use std::sync::Arc;

/// One value, or none.
///
/// Times, dates and durations are [`Value::Int`] in the unit of their column. Two values are equal
/// if variant and bits are, so that a NaN equals itself and the zeros differ.
#[derive(Debug, Clone)]
pub enum Value {
    /// SQL `NULL`.
    Null,
    /// A boolean.
    Boolean(bool),
    /// A signed integer of any width, a time, a date or a duration.
    Int(i64),
    /// An unsigned integer of any width.
    UInt(u64),
    /// A float of 32 bits.
    Float32(f32),
    /// A float of 64 bits.
    Float64(f64),
    /// A text.
    Text(Arc<str>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::UInt(a), Self::UInt(b)) => a == b,
            (Self::Float32(a), Self::Float32(b)) => a.to_bits() == b.to_bits(),
            (Self::Float64(a), Self::Float64(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::UInt(value) => write!(f, "{value}"),
            Self::Float32(value) => write!(f, "{value:?}"),
            Self::Float64(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// The image of a `UInt64`.
#[must_use]
pub const fn u64_image(value: u64) -> i64 {
    (value ^ (1 << 63)).cast_signed()
}

/// The `UInt64` of an image.
#[must_use]
pub const fn u64_of_image(image: i64) -> u64 {
    image.cast_unsigned() ^ (1 << 63)
}

/// The image of a `Float64`.
#[must_use]
pub const fn f64_image(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

/// The `Float64` of an image.
#[must_use]
pub const fn f64_of_image(image: i64) -> f64 {
    let bits = image ^ ((image >> 63).cast_unsigned() >> 1).cast_signed();
    f64::from_bits(bits.cast_unsigned())
}

/// The image of a `Float32`, which is within 32 bits.
#[must_use]
pub const fn f32_image(value: f32) -> i64 {
    let bits = value.to_bits().cast_signed();
    (bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()) as i64
}

/// The `Float32` of an image made by [`f32_image`].
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "such an image is within 32 bits")]
pub const fn f32_of_image(image: i64) -> f32 {
    let image = image as i32;
    let bits = image ^ ((image >> 31).cast_unsigned() >> 1).cast_signed();
    f32::from_bits(bits.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_floats_order_as_total_order_and_come_back() {
        let floats = [
            -f64::NAN,
            f64::NEG_INFINITY,
            f64::MIN,
            -1.0,
            -f64::MIN_POSITIVE,
            -0.0,
            0.0,
            5e-324,
            1.0,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
        ];
        for pair in floats.windows(2) {
            assert!(f64_image(pair[0]) < f64_image(pair[1]), "{pair:?}");
        }
        for value in floats {
            assert_eq!(f64_of_image(f64_image(value)).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn images_of_short_floats_order_as_total_order_and_come_back() {
        let floats = [
            -f32::NAN,
            f32::NEG_INFINITY,
            -1.0,
            -0.0,
            0.0,
            1e-45,
            f32::MAX,
            f32::INFINITY,
            f32::NAN,
        ];
        for pair in floats.windows(2) {
            assert!(f32_image(pair[0]) < f32_image(pair[1]), "{pair:?}");
        }
        for value in floats {
            assert_eq!(f32_of_image(f32_image(value)).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn images_of_unsigned_integers_order_and_come_back() {
        let values = [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX];
        for pair in values.windows(2) {
            assert!(u64_image(pair[0]) < u64_image(pair[1]), "{pair:?}");
        }
        for value in values {
            assert_eq!(u64_of_image(u64_image(value)), value);
        }
    }
}
