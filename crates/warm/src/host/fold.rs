//! Many values to one: sums, least and greatest values.

use std::array;

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

/// Sums side by side. Each part lies by itself, so that adding to all of them becomes vector code.
#[derive(Debug, Default)]
struct Sums {
    high: [f64; LANES],
    low: [f64; LANES],
}

impl Sums {
    /// Adds a value to each.
    #[inline]
    fn add(&mut self, values: [f64; LANES]) {
        let high = self.high;
        let sum: [f64; LANES] = array::from_fn(|lane| high[lane] + values[lane]);
        let of_value: [f64; LANES] = array::from_fn(|lane| sum[lane] - high[lane]);
        let lost: [f64; LANES] = array::from_fn(|lane| {
            (high[lane] - (sum[lane] - of_value[lane])) + (values[lane] - of_value[lane])
        });
        self.low = array::from_fn(|lane| self.low[lane] + lost[lane]);
        self.high = sum;
    }

    /// Adds values to the first ones.
    fn add_few(&mut self, values: impl Iterator<Item = f64>) {
        for (lane, value) in (0..LANES).zip(values) {
            let mut sum = Sum { high: self.high[lane], low: self.low[lane] };
            sum.add(value);
            (self.high[lane], self.low[lane]) = (sum.high, sum.low);
        }
    }

    /// The sum of the first ones, of one at least.
    fn total(&self, lanes: usize) -> Sum {
        let mut total = Sum { high: self.high[0], low: self.low[0] };
        for lane in 1..lanes.min(LANES) {
            total.merge(Sum { high: self.high[lane], low: self.low[lane] });
        }
        total
    }
}

/// The values that count: all of these, or those at some places.
#[derive(Clone, Copy)]
pub(super) struct Counting<'a, T> {
    pub(super) values: &'a [T],
    /// Ascending, within the values.
    pub(super) picks: Option<&'a [u16]>,
}

impl<T: Number> Counting<'_, T> {
    /// The sum of integers, wrapping around.
    pub(super) fn sum(self) -> u64 {
        let mut lanes = [0_u64; LANES];
        self.over(&mut lanes, |lane, value| *lane = lane.wrapping_add(value.wide()));
        lanes.into_iter().fold(0, u64::wrapping_add)
    }

    /// The sum of values as floats.
    pub(super) fn sum_floats(self) -> Sum {
        let mut sums = Sums::default();
        match self.picks {
            None => {
                let (chunks, rest) = self.values.as_chunks::<LANES>();
                sums.add_few(rest.iter().map(|value| value.float()));
                for chunk in chunks {
                    sums.add(chunk.map(Number::float));
                }
            }
            Some(picks) => {
                let (chunks, rest) = picks.as_chunks::<LANES>();
                let value = |place: u16| self.values[usize::from(place)].float();
                for chunk in chunks {
                    sums.add(chunk.map(value));
                }
                sums.add_few(rest.iter().map(|place| value(*place)));
            }
        }
        // Values that are fewer than lanes leave the others empty.
        sums.total(self.picks.map_or(self.values.len(), <[u16]>::len))
    }

    /// The image of the least value, or of the greatest. At least one value counts, and none is NaN.
    pub(super) fn end(self, greatest: bool) -> i64 {
        let mut lanes = [if greatest { T::LEAST } else { T::GREATEST }; LANES];
        let greater = |end: T, value: T| if value > end { value } else { end };
        let less = |end: T, value: T| if value < end { value } else { end };
        let [first, lanes @ ..] = if greatest {
            self.over(&mut lanes, |lane, value| *lane = greater(*lane, value));
            lanes
        } else {
            self.over(&mut lanes, |lane, value| *lane = less(*lane, value));
            lanes
        };
        let end = lanes.into_iter().fold(first, if greatest { greater } else { less });
        if !T::IS_FLOAT || end != T::default() {
            return end.image();
        }
        // Comparing floats takes the zeros for equal, of which -0.0 is less. Its image is -1.
        let sign = if greatest { 0 } else { -1 };
        let is_it = |value: &T| value.image() == sign;
        let found = match self.picks {
            None => self.values.iter().any(is_it),
            Some(picks) => picks.iter().any(|place| is_it(&self.values[usize::from(*place)])),
        };
        if found { sign } else { -1 - sign }
    }

    /// Adds each value to one of the lanes.
    #[inline]
    fn over<A>(self, lanes: &mut [A; LANES], mut add: impl FnMut(&mut A, T)) {
        match self.picks {
            None => {
                let chunks = self.values.chunks_exact(LANES);
                for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
                    add(lane, *value);
                }
                for chunk in chunks {
                    for (lane, value) in lanes.iter_mut().zip(chunk) {
                        add(lane, *value);
                    }
                }
            }
            Some(picks) => {
                for chunk in picks.chunks(LANES) {
                    for (lane, place) in lanes.iter_mut().zip(chunk) {
                        add(lane, self.values[usize::from(*place)]);
                    }
                }
            }
        }
    }
}
