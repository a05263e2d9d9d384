//! The normal distribution.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `ln Φ(z)`, the logarithm of the probability that a standard normal variable is at most `z`.
pub fn ln_cdf(z: f64) -> f64 {
    if z > -10.0 {
        // ln(1 - q) where q is the small part.
        return if z > 1.0 { (-0.5 * libm::erfc(z * FRAC_1_SQRT_2)).ln_1p() } else { cdf(z).ln() };
    }
    // The asymptotic series of Mills' ratio (DLMF 7.12.1): from -10 on its eighth term is below 1e-10.
    let w = 1.0 / (z * z);
    let series = 1.0 - w * (1.0 - 3.0 * w * (1.0 - 5.0 * w * (1.0 - 7.0 * w * (1.0 - 9.0 * w * (1.0 - 11.0 * w)))));
    -0.5 * z * z - (-z).ln() - 0.5 * (2.0 * PI).ln() + series.ln()
}

/// `Φ(z)`, the probability that a standard normal variable is at most `z`.
pub fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// The `p`-quantile: the `z` that a standard normal variable does not exceed with probability `p`. Infinite at 0 and 1.
///
/// Abramowitz & Stegun 26.2.23 is good to 4.5e-4; three steps of Newton's method on `ln Φ` make that exact.
pub fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let t = (-2.0 * p.ln()).sqrt();
    let mut z =
        (2.515_517 + t * (0.802_853 + t * 0.010_328)) / (1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308))) - t;
    for _ in 0..3 {
        let ln = ln_cdf(z);
        let ln_density = -0.5 * z * z - 0.5 * (2.0 * PI).ln();
        z -= (ln - p.ln()) * (ln - ln_density).exp();
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    #[test]
    fn golden_values() {
        golden("normal ln_cdf", 1e-10, |x| ln_cdf(x[0]));
        golden("normal quantile", 1e-12, |x| quantile(x[0]));
    }

    #[test]
    fn the_ends() {
        assert_eq!(quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(quantile(1.0), f64::INFINITY);
        assert!(quantile(0.5).abs() < 1e-15);
        assert!(quantile(f64::NAN).is_nan());
    }
}
