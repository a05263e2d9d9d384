//! Logarithms of the gamma and beta functions and of their regularised incomplete forms.
//!
//! In logarithms throughout: the evidence of a long run is far outside of what an `f64` holds. That is why these are
//! our own: `statrs` has the incomplete functions only as plain numbers, which are 0 below 1e-308, and its `ln_beta`
//! subtracts logarithms of the size of the counts, which at 1e12 samples leaves two digits. `ln Γ` itself is `libm`'s.
//!
//! Where counts are large, `x^a (1-x)^b / B(a, b)` is computed whole, by Loader's method (2000), "Fast and accurate
//! computation of binomial probabilities", in which nothing large cancels.

use std::f64::consts::PI;

use crate::quadrature::integrate;

/// Arguments from which on the integrals are taken near their peak, where the continued fraction would need about as
/// many rounds as the square root of the larger argument.
const LARGE: f64 = 100.0;
/// The logarithm of what may be left of a density where an integral ends.
const NEGLIGIBLE: f64 = 40.0;

/// `ln Γ(x)` for `x > 0`.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// `ln B(a, b)` for `a, b > 0`; to about 1e-14 of itself, for arguments to 1e15.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    let (a, b) = (a.min(b), a.max(b));
    let sum = a + b;
    if b < 10.0 {
        return ln_gamma(a) + ln_gamma(b) - ln_gamma(sum);
    }
    // As R's lbeta (after Fullerton's SLATEC): what is large in Γ(b) and Γ(a + b) cancels on paper.
    let rest = stirling_error(b) - stirling_error(sum) + b * (-a / sum).ln_1p();
    if a < 10.0 {
        ln_gamma(a) + rest - 0.5 * (-a / sum).ln_1p() + a - a * sum.ln()
    } else {
        0.5 * (2.0 * PI / b).ln() + stirling_error(a) + (a - 0.5) * (a / sum).ln() + rest
    }
}

/// What Stirling's formula leaves out: `ln Γ(x) - [(x - 1/2) ln x - x + ln(2π)/2]` for `x > 0` (DLMF 5.11.1).
fn stirling_error(x: f64) -> f64 {
    if x < 16.0 {
        return ln_gamma(x) - ((x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln());
    }
    let w = 1.0 / (x * x);
    (1.0 / 12.0 - w * (1.0 / 360.0 - w * (1.0 / 1260.0 - w * (1.0 / 1680.0 - w / 1188.0)))) / x
}

/// `x ln(x / m) + m - x`, for `x >= 0` and `m > 0`, without cancellation where they are close (Loader's `bd0`).
fn deviance(x: f64, m: f64) -> f64 {
    if x == 0.0 {
        return m;
    }
    let v = (x - m) / (x + m);
    if v.abs() >= 0.1 {
        return x * (x / m).ln() + m - x;
    }
    // 2 x artanh(v) - (x - m), as a series.
    let mut sum = (x - m) * v;
    let mut term = 2.0 * x * v;
    for k in 1..100 {
        term *= v * v;
        let next = sum + term / f64::from(2 * k + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// `ln [x^a (1-x)^b / B(a, b)]` for `a, b > 0` and `x` within 0 and 1: the density of the beta distribution at `x`,
/// times `x (1-x)`. Good to about 1e-11 of itself, for counts to 1e12.
pub fn ln_beta_kernel(x: f64, a: f64, b: f64) -> f64 {
    ln_beta_kernel_at(x, 1.0 - x, a, b)
}

/// [`ln_beta_kernel`] with `y = 1 - x`, for an `x` so close to 1 that `1 - x` has lost its digits.
pub(crate) fn ln_beta_kernel_at(x: f64, y: f64, a: f64, b: f64) -> f64 {
    let n = a + b;
    0.5 * (a * (b / n) / (2.0 * PI)).ln() + stirling_error(n)
        - stirling_error(a)
        - stirling_error(b)
        - deviance(a, n * x)
        - deviance(b, n * y)
}

/// `ln [x^a e^-x / Γ(a)]` for `a > 0` and `x >= 0`: the density of the gamma distribution at `x`, times `x`.
pub fn ln_gamma_kernel(x: f64, a: f64) -> f64 {
    0.5 * (a / (2.0 * PI)).ln() - stirling_error(a) - deviance(a, x)
}

/// `ln I_x(a, b)`, the logarithm of the regularised incomplete beta function, for `a, b > 0`; `x` is clamped to 0..=1.
///
/// By the continued fraction of DLMF 8.17.22 with Lentz' algorithm, on the side where it converges fast; for large `a`
/// and `b` near the peak by quadrature. Good to about 1e-10; to 1e-7 where one of them is a few and the other 1e12.
pub fn ln_inc_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if x >= 1.0 {
        return 0.0;
    }
    if x < (a + 1.0) / (a + b + 2.0) {
        ln_lower_beta(x, 1.0 - x, a, b)
    } else {
        // 1 - I_{1-x}(b, a), where the second is the smaller part.
        (-ln_lower_beta(1.0 - x, x, b, a).exp()).ln_1p()
    }
}

/// `ln I_x(a, b)` below the peak; `y = 1 - x`, given because either may have lost its digits next to 1.
fn ln_lower_beta(x: f64, y: f64, a: f64, b: f64) -> f64 {
    let front = ln_beta_kernel_at(x, y, a, b);
    let slope = (a - 1.0) / x - (b - 1.0) / y;
    let curvature = (a - 1.0) / (x * x) + (b - 1.0) / (y * y);
    // Beyond 30 standard deviations the fraction needs but a few rounds.
    if a.min(b) < LARGE || slope * slope > 900.0 * curvature {
        return front - a.ln() + beta_fraction(x, y, a, b).ln();
    }
    let length = x.min(reach(slope, curvature));
    let tail = integrate(length, |d| ((a - 1.0) * (-d / x).ln_1p() + (b - 1.0) * (d / y).ln_1p()).exp());
    front - (x * y).ln() + tail.ln()
}

/// How far a density that falls with this slope and curvature of its logarithm must be followed.
fn reach(slope: f64, curvature: f64) -> f64 {
    2.0 * NEGLIGIBLE / (slope + (slope * slope + 2.0 * NEGLIGIBLE * curvature).sqrt())
}

fn beta_fraction(x: f64, y: f64, a: f64, b: f64) -> f64 {
    // 1 - (a + b) x / (a + 1), without cancellation where x is next to 1.
    let first = ((a + b) * y + (1.0 - b)) / (a + 1.0);
    let mut fraction = Lentz { c: 1.0, ..Lentz::new(first) };
    for m in 1..LENTZ_ROUNDS {
        let m = f64::from(m);
        fraction.term(m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)), 1.0);
        if fraction.term(-(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)), 1.0) {
            break;
        }
    }
    fraction.value
}

/// `ln P(a, x)`, the logarithm of the regularised lower incomplete gamma function, for `a > 0`, `x >= 0`.
pub fn ln_inc_gamma_lower(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        f64::NEG_INFINITY
    } else if x < a + 1.0 {
        ln_small_gamma(a, x)
    } else {
        (-ln_large_gamma(a, x).exp()).ln_1p()
    }
}

/// `ln Q(a, x) = ln (1 - P(a, x))`, the logarithm of the regularised upper incomplete gamma function, for `a > 0`,
/// `x >= 0`.
pub fn ln_inc_gamma_upper(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        0.0
    } else if x < a + 1.0 {
        (-ln_small_gamma(a, x).exp()).ln_1p()
    } else {
        ln_large_gamma(a, x)
    }
}

/// `ln P(a, x)` for `x < a + 1`: by the series of DLMF 8.11.4, or quadrature.
fn ln_small_gamma(a: f64, x: f64) -> f64 {
    let front = ln_gamma_kernel(x, a);
    let slope = (a - 1.0) / x - 1.0;
    let curvature = (a - 1.0) / (x * x);
    if a < LARGE || slope * slope > 900.0 * curvature {
        let (mut sum, mut term) = (1.0, 1.0);
        for k in 1..LENTZ_ROUNDS {
            term *= x / (a + f64::from(k));
            sum += term;
            if term < 1e-17 * sum {
                break;
            }
        }
        return front - a.ln() + sum.ln();
    }
    let length = x.min(reach(slope, curvature));
    front - x.ln() + integrate(length, |d| ((a - 1.0) * (-d / x).ln_1p() + d).exp()).ln()
}

/// `ln Q(a, x)` for `x >= a + 1`: by the continued fraction of DLMF 8.9.2, or quadrature.
fn ln_large_gamma(a: f64, x: f64) -> f64 {
    let front = ln_gamma_kernel(x, a);
    let slope = 1.0 - (a - 1.0) / x;
    let curvature = (a - 1.0) / (x * x);
    if a < LARGE || slope * slope > 900.0 * curvature {
        let mut fraction = Lentz::new(x + 1.0 - a);
        for k in 1..LENTZ_ROUNDS {
            let k = f64::from(k);
            if fraction.term(k * (a - k), x + 1.0 - a + 2.0 * k) {
                break;
            }
        }
        return front + fraction.value.ln();
    }
    // To the right the curvature fades: what is left is bounded by the slope at a distance.
    let length = 1.5 * reach(slope, curvature);
    front - x.ln() + integrate(length, |d| ((a - 1.0) * (d / x).ln_1p() - d).exp()).ln()
}

/// Rounds after which a fraction is taken as it is; none within the ranges above comes near.
const LENTZ_ROUNDS: i32 = 100_000;

/// `1 / (b0 + a1 / (b1 + a2 / (b2 + …)))` by the modified algorithm of Lentz (Thompson & Barnett 1986).
struct Lentz {
    c: f64,
    d: f64,
    value: f64,
}

impl Lentz {
    fn new(b0: f64) -> Self {
        let d = 1.0 / apart_from_zero(b0);
        Self { c: f64::INFINITY, d, value: d }
    }

    /// Takes the next term in; whether it no longer matters.
    fn term(&mut self, a: f64, b: f64) -> bool {
        self.d = 1.0 / apart_from_zero(b + a * self.d);
        self.c = apart_from_zero(b + a / self.c);
        let factor = self.c * self.d;
        self.value *= factor;
        (factor - 1.0).abs() < 1e-15
    }
}

fn apart_from_zero(v: f64) -> f64 {
    if v.abs() < 1e-300 { 1e-300 } else { v }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    #[test]
    fn golden_values() {
        golden("ln_gamma", 1e-14, |x| ln_gamma(x[0]));
        golden("ln_beta", 1e-13, |x| ln_beta(x[0], x[1]));
        golden("ln_beta_kernel", 1e-11, |x| ln_beta_kernel(x[0], x[1], x[2]));
        golden("ln_gamma_kernel", 1e-12, |x| ln_gamma_kernel(x[0], x[1]));
        golden("ln_inc_beta", 1e-10, |x| ln_inc_beta(x[0], x[1], x[2]));
        golden("ln_inc_beta lopsided", 1e-7, |x| ln_inc_beta(x[0], x[1], x[2]));
        golden("ln_inc_gamma_lower", 1e-10, |x| ln_inc_gamma_lower(x[0], x[1]));
        golden("ln_inc_gamma_upper", 1e-10, |x| ln_inc_gamma_upper(x[0], x[1]));
    }

    #[test]
    fn the_ends_are_certain() {
        assert_eq!(ln_inc_beta(0.0, 2.0, 3.0), f64::NEG_INFINITY);
        assert_eq!(ln_inc_beta(1.0, 2.0, 3.0), 0.0);
        assert_eq!(ln_inc_gamma_lower(2.0, 0.0), f64::NEG_INFINITY);
        assert_eq!(ln_inc_gamma_upper(2.0, 0.0), 0.0);
        assert_eq!(ln_beta_kernel(0.0, 2.0, 3.0), f64::NEG_INFINITY);
    }

    #[test]
    fn no_argument_panics_or_hangs() {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e-300, 1e300, 0.5];
        for x in odd {
            for a in odd {
                for b in odd {
                    let _ = (ln_inc_beta(x, a, b), ln_beta_kernel(x, a, b), ln_beta(a, b));
                    let _ = (ln_inc_gamma_lower(a, x), ln_inc_gamma_upper(a, x), ln_gamma_kernel(x, a));
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn both_tails_are_one(x in 0.001..0.999f64, a in 0.5..5000.0f64, b in 0.5..5000.0f64) {
            let sum = ln_inc_beta(x, a, b).exp() + ln_inc_beta(1.0 - x, b, a).exp();
            proptest::prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
            let sum = ln_inc_gamma_lower(a, b).exp() + ln_inc_gamma_upper(a, b).exp();
            proptest::prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }
    }
}
