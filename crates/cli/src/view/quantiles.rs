//! Quantiles of a stream in bounded memory.

use std::collections::BTreeMap;

/// From one bucket to the next: quantiles are right to one percent.
const STEP: f64 = 1.02;
/// The index of 1.0; smaller magnitudes down to `1.02^-1200` (5e-11) stay above index 0.
const ONE: i32 = 1200;

/// Counts values in buckets that grow geometrically: a few hundred buckets however many values there are.
#[derive(Debug, Clone, Default)]
pub struct Quantiles {
    buckets: BTreeMap<i32, u64>,
    count: u64,
    max: Option<f64>,
}

impl Quantiles {
    /// Counts a value; what is not finite is none.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        *self.buckets.entry(index(value)).or_default() += 1;
        self.count += 1;
        self.max = Some(self.max.map_or(value, |m| m.max(value)));
    }

    /// The smallest value that a share `q` (0 to 1) of the values does not exceed, by nearest rank; `None` while there
    /// are fewer than `least` values.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    pub fn at(&self, q: f64, least: u64) -> Option<f64> {
        if self.count < least.max(1) {
            return None;
        }
        let rank = ((q * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, n) in &self.buckets {
            seen += n;
            if seen >= rank {
                return Some(middle(*index).min(self.max.unwrap_or(f64::INFINITY)));
            }
        }
        self.max
    }

    /// The largest value.
    pub fn max(&self) -> Option<f64> {
        self.max
    }
}

/// Buckets are ordered as their values are: negative ones mirror the positive ones around 0.
fn index(value: f64) -> i32 {
    if value == 0.0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the logarithm of any f64 is far within i32")]
    let magnitude = ((value.abs().ln() / STEP.ln()).round() as i32 + ONE).max(1);
    if value < 0.0 { -magnitude } else { magnitude }
}

fn middle(index: i32) -> f64 {
    match index {
        0 => 0.0,
        i => f64::from(i.signum()) * STEP.powi(i.abs() - ONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_one_percent() {
        let mut q = Quantiles::default();
        for i in 1..=1000 {
            q.add(f64::from(i) * 0.37);
        }
        for (share, exact) in [(0.5, 185.0), (0.99, 366.3), (1.0, 370.0)] {
            let found = q.at(share, 1).unwrap();
            assert!((found / exact - 1.0).abs() < 0.0101, "{share}: {found} is not {exact}");
        }
        assert_eq!(q.max(), Some(370.0));
        assert!(q.buckets.len() < 400);
    }

    #[test]
    fn order_holds_through_zero_and_below() {
        let mut q = Quantiles::default();
        for v in [-10.0, -1.0, 0.0, 1.0, 10.0, f64::NAN] {
            q.add(v);
        }
        let found: Vec<f64> = [0.2, 0.4, 0.6, 0.8].iter().map(|s| q.at(*s, 1).unwrap()).collect();
        assert!(found[0] < -9.8 && found[0] > -10.2 && found[1] == -1.0 && found[2] == 0.0 && found[3] == 1.0);
    }

    #[test]
    fn too_few_values_have_no_quantile() {
        let mut q = Quantiles::default();
        assert_eq!(q.at(0.5, 1), None);
        q.add(5.0);
        assert_eq!(q.at(0.99, 100), None);
    }
}
