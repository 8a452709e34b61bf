//! Many values to one: sums, least and greatest values.

use crate::images::Imaged;

/// How many values are folded side by side, so that one does not wait for the one before.
const LANES: usize = 8;

/// A number that can be added up and compared.
pub(super) trait Number: Imaged + PartialOrd + Default {
    /// No value is greater. For floats, infinity: there is no NaN where this is needed.
    const GREATEST: Self;
    /// No value is less.
    const LEAST: Self;
    /// Whether zero comes with two signs.
    const IS_FLOAT: bool;

    /// An integer in 64 bits, its sign extended. 0 for floats.
    fn wide(self) -> u64;
    /// As a float of 64 bits, rounded.
    fn float(self) -> f64;
}

macro_rules! number {
    ($($native:ty: $wide:expr),*) => {$(
        impl Number for $native {
            const GREATEST: Self = Self::MAX;
            const LEAST: Self = Self::MIN;
            const IS_FLOAT: bool = false;

            fn wide(self) -> u64 {
                $wide(self)
            }

            fn float(self) -> f64 {
                self as f64
            }
        }
    )*};
}

number!(
    i8: |value| i64::from(value).cast_unsigned(),
    i16: |value| i64::from(value).cast_unsigned(),
    i32: |value| i64::from(value).cast_unsigned(),
    i64: i64::cast_unsigned,
    u8: u64::from,
    u16: u64::from,
    u32: u64::from,
    u64: std::convert::identity
);

macro_rules! float {
    ($($native:ty),*) => {$(
        impl Number for $native {
            const GREATEST: Self = Self::INFINITY;
            const LEAST: Self = Self::NEG_INFINITY;
            const IS_FLOAT: bool = true;

            fn wide(self) -> u64 {
                0
            }

            fn float(self) -> f64 {
                f64::from(self)
            }
        }
    )*};
}

float!(f32, f64);

/// A sum of floats in two parts, the second what rounding took from the first.
///
/// D. E. Knuth, *The Art of Computer Programming*, volume 2, section 4.2.2, theorem B; T. Ogita, S.
/// M. Rump and S. Oishi, "Accurate sum and dot product", 2005.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        let sum = self.high + value;
        let of_value = sum - self.high;
        self.low += (self.high - (sum - of_value)) + (value - of_value);
        self.high = sum;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.add(other.high);
        self.low += other.low;
    }

    /// Of infinities and NaN the second part says nothing.
    pub(super) fn value(self) -> f64 {
        if self.high.is_finite() { self.high + self.low } else { self.high }
    }
}

/// The sum of integers, wrapping around.
pub(super) fn sum<T: Number>(values: &[T], mask: Option<&[u8]>) -> u64 {
    match mask {
        None => values.iter().fold(0, |sum: u64, value| sum.wrapping_add(value.wide())),
        Some(mask) => values.iter().zip(mask).fold(0, |sum: u64, (value, byte)| {
            sum.wrapping_add(value.wide() & u64::from(*byte).wrapping_neg())
        }),
    }
}

/// The sum of values as floats.
pub(super) fn sum_floats<T: Number>(values: &[T], mask: Option<&[u8]>) -> Sum {
    let mut lanes = [Sum::default(); LANES];
    match mask {
        None => {
            let chunks = values.chunks_exact(LANES);
            for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
                lane.add(value.float());
            }
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    lane.add(value.float());
                }
            }
        }
        Some(mask) => {
            for (values, mask) in values.chunks(LANES).zip(mask.chunks(LANES)) {
                for ((lane, value), byte) in lanes.iter_mut().zip(values).zip(mask) {
                    lane.add(if *byte == 1 { value.float() } else { 0.0 });
                }
            }
        }
    }
    let mut sum = lanes[0];
    // Rows that are fewer than lanes leave the others empty.
    for lane in &lanes[1..LANES.min(values.len().max(1))] {
        sum.merge(*lane);
    }
    sum
}

/// The image of the least value, or of the greatest. At least one value counts, and none is NaN.
pub(super) fn end<T: Number>(values: &[T], mask: Option<&[u8]>, greatest: bool) -> i64 {
    let end = if greatest {
        fold(values, mask, T::LEAST, |end, value| if value > end { value } else { end })
    } else {
        fold(values, mask, T::GREATEST, |end, value| if value < end { value } else { end })
    };
    if !T::IS_FLOAT || end != T::default() {
        return end.image();
    }
    // Comparing floats takes the zeros for equal, of which -0.0 is less. Its image is -1.
    let sign = if greatest { 0 } else { -1 };
    let counts = |row: usize| mask.is_none_or(|mask| mask[row] == 1);
    let found = values.iter().enumerate().any(|(row, value)| value.image() == sign && counts(row));
    if found { sign } else { -1 - sign }
}

fn fold<T: Copy>(values: &[T], mask: Option<&[u8]>, neutral: T, better: impl Fn(T, T) -> T) -> T {
    let mut lanes = [neutral; LANES];
    match mask {
        None => {
            let chunks = values.chunks_exact(LANES);
            for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
                *lane = better(*lane, *value);
            }
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane = better(*lane, *value);
                }
            }
        }
        Some(mask) => {
            for (values, mask) in values.chunks(LANES).zip(mask.chunks(LANES)) {
                for ((lane, value), byte) in lanes.iter_mut().zip(values).zip(mask) {
                    *lane = better(*lane, if *byte == 1 { *value } else { neutral });
                }
            }
        }
    }
    lanes.into_iter().fold(neutral, better)
}
