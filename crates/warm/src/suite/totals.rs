//! Sums of floats without rounding.

/// A sum of finite floats as the sum of parts that do not overlap.
///
/// J. R. Shewchuk, "Adaptive precision floating-point arithmetic and fast robust geometric predicates",
/// 1997.
#[derive(Debug, Clone, Default)]
pub(super) struct Total {
    parts: Vec<f64>,
    /// The sum of the magnitudes of the finite values, rounded.
    magnitude: f64,
    nan: bool,
    infinite: [bool; 2],
    pub(super) values: u64,
}

impl Total {
    pub(super) fn add(&mut self, value: f64) {
        self.values += 1;
        self.nan |= value.is_nan();
        if value.is_infinite() {
            self.infinite[usize::from(value > 0.0)] = true;
        }
        if !value.is_finite() {
            return;
        }
        self.magnitude += value.abs();
        let mut carried = value;
        let mut parts = Vec::with_capacity(self.parts.len() + 1);
        for &part in &self.parts {
            let (large, small) =
                if carried.abs() < part.abs() { (part, carried) } else { (carried, part) };
            let sum = large + small;
            let rest = small - (sum - large);
            if rest != 0.0 {
                parts.push(rest);
            }
            carried = sum;
        }
        parts.push(carried);
        self.parts = parts;
    }

    /// Whether a sum is as near to this one as backends promise.
    pub(super) fn admits(&self, sum: f64) -> bool {
        match (self.nan, self.infinite) {
            (true, _) | (_, [true, true]) => sum.is_nan(),
            // Whoever adds in another order may pass the greatest float on the way.
            _ if self.magnitude.is_infinite() => true,
            (_, [true, false]) => sum == f64::NEG_INFINITY,
            (_, [false, true]) => sum == f64::INFINITY,
            _ => {
                let exact = self.parts.iter().sum::<f64>();
                let bound = self.magnitude * 2_f64.powi(-50);
                (sum - exact).abs() <= bound.max(f64::MIN_POSITIVE)
            }
        }
    }
}
