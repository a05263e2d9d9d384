//! A mean of numbers whose spread is known: the normal mixture, which is the mSPRT.
//!
//! Robbins (1970); Howard et al. (2021), proposition 5; as the mixture sequential probability ratio test Johari, Koomen,
//! Pekelis & Walsh (2022), "Always valid inference". Their prior variance `tau²` for differences whose variance is `s²`
//! is a precision `rho = s⁴ / tau²` here.
//!
//! Assumed: each number deviates from the mean as a normal variable with the standard deviation `sigma` does, or less
//! (it is sub-Gaussian). That is true of numbers within `low` and `high` with `sigma = (high - low) / 2`. It is *not* true
//! of latencies with an estimated `sigma`: use [`quantiles`](crate::one_quantile) or, with a time-out as the upper end,
//! [`betting`](crate::betting).

use crate::bernoulli::{count, sharpest_rho};
use crate::error::{Error, finite, positive};
use crate::evidence::{Alpha, Evidence};
use crate::interval::Interval;
use crate::normal::ln_cdf;

/// A running sum of numbers with a known spread.
///
/// ```
/// use toprope_stats::{Alpha, mean::Mean};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let alpha = Alpha::new(0.05)?;
/// // Differences between two replicas, within -1 and 1; sharpest after about 100.
/// let mut mean = Mean::new(1.0, 100.0, alpha)?;
/// for _ in 0..60 {
///     mean.push(0.5)?;
/// }
/// assert!(mean.above(0.0)?.rejects(alpha));
/// assert!(mean.interval(alpha).contains(0.5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    sigma: f64,
    rho: f64,
    samples: u64,
    /// The mean, in units of `sigma`.
    mean: f64,
}

impl Mean {
    /// For numbers with this standard deviation; about the sharpest after `samples` of them.
    ///
    /// # Errors
    /// Unless both are finite and above 0.
    pub fn new(sigma: f64, samples: f64, alpha: Alpha) -> Result<Self, Error> {
        Self::with_precision(sigma, sharpest_rho(positive(samples, "the number of samples")?, alpha))
    }

    /// For numbers with this standard deviation, and a mixture of precision `rho`, in numbers of samples.
    ///
    /// # Errors
    /// Unless both are finite and above 0.
    pub fn with_precision(sigma: f64, rho: f64) -> Result<Self, Error> {
        Ok(Self { sigma: positive(sigma, "sigma")?, rho: positive(rho, "rho")?, samples: 0, mean: 0.0 })
    }

    /// Takes a number in.
    ///
    /// # Errors
    /// Unless it is finite, and so when divided by `sigma`; then nothing changes.
    pub fn push(&mut self, value: f64) -> Result<(), Error> {
        let value = finite(finite(value, "a sample")? / self.sigma, "a sample in units of sigma")?;
        self.samples += 1;
        self.mean += (value - self.mean) / count(self.samples);
        Ok(())
    }

    /// How many numbers it has.
    pub const fn len(&self) -> u64 {
        self.samples
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The mean; NaN without samples.
    pub fn value(&self) -> f64 {
        if self.samples == 0 { f64::NAN } else { self.mean * self.sigma }
    }

    /// Evidence that the true mean is not `mean`.
    ///
    /// # Errors
    /// Unless `mean` is finite.
    pub fn differs(&self, mean: f64) -> Result<Evidence, Error> {
        let (z, ln_width) = self.standard(mean)?;
        Ok(Evidence::from_ln(ln_width + 0.5 * z * z))
    }

    /// Evidence that the true mean is above `mean`.
    ///
    /// # Errors
    /// Unless `mean` is finite.
    pub fn above(&self, mean: f64) -> Result<Evidence, Error> {
        let (z, ln_width) = self.standard(mean)?;
        Ok(one_sided(z, ln_width))
    }

    /// Evidence that the true mean is below `mean`.
    ///
    /// # Errors
    /// Unless `mean` is finite.
    pub fn below(&self, mean: f64) -> Result<Evidence, Error> {
        let (z, ln_width) = self.standard(mean)?;
        Ok(one_sided(-z, ln_width))
    }

    /// The confidence sequence for the true mean.
    pub fn interval(&self, alpha: Alpha) -> Interval {
        if self.samples == 0 {
            return Interval::EVERYTHING;
        }
        let v = count(self.samples);
        let radius = ((v + self.rho) * ((v / self.rho).ln_1p() + 2.0 * alpha.enough())).sqrt() / v;
        Interval { low: (self.mean - radius) * self.sigma, high: (self.mean + radius) * self.sigma }
    }

    /// The sum of deviations from `mean`, in standard deviations of the mixture, and `ln` of the width of a single one.
    fn standard(&self, mean: f64) -> Result<(f64, f64), Error> {
        let v = count(self.samples);
        let sum = (self.mean - finite(mean, "the mean")? / self.sigma) * v;
        Ok((sum / (v + self.rho).sqrt(), -0.5 * (v / self.rho).ln_1p()))
    }
}

/// The mixture cut to one side: a half-normal one.
fn one_sided(z: f64, ln_width: f64) -> Evidence {
    Evidence::from_ln(std::f64::consts::LN_2 + ln_width + 0.5 * z * z + ln_cdf(z))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::{Random, false_alarms};

    fn alpha(alpha: f64) -> Alpha {
        Alpha::new(alpha).unwrap()
    }

    fn of(sigma: f64, rho: f64, sum: f64, samples: f64) -> Mean {
        Mean { samples: samples as u64, mean: sum / samples / sigma, ..Mean::with_precision(sigma, rho).unwrap() }
    }

    #[test]
    fn golden_values() {
        golden("mean differs", 1e-9, |x| of(x[0], x[1], x[2], x[3]).differs(x[4]).unwrap().ln());
        golden("mean above", 1e-9, |x| of(x[0], x[1], x[2], x[3]).above(x[4]).unwrap().ln());
        golden("mean interval high", 1e-9, |x| of(x[0], x[1], x[2], x[3]).interval(alpha(x[4])).high);
        // sigma, tau, sum, samples
        golden("ville msprt", 1e-9, |x| of(x[0], x[0] * x[0] / (x[1] * x[1]), x[2], x[3]).differs(0.0).unwrap().ln());
        // confseq: sum, samples, samples and alpha that it is sharpest for; the one-sided one with twice the alpha.
        let tuned = |x: &[f64], alpha: f64| {
            let rho = Mean::new(1.0, x[2], self::alpha(alpha)).unwrap().rho;
            of(1.0, rho, x[0], x[1])
        };
        golden("confseq normal", 1e-9, |x| tuned(x, x[3]).differs(0.0).unwrap().ln());
        golden("confseq normal one-sided", 1e-9, |x| tuned(x, 2.0 * x[3]).above(0.0).unwrap().ln());
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        #[derive(Default)]
        struct State(Option<Mean>);
        let alarms = |test: fn(&Mean, f64) -> Result<Evidence, Error>| {
            false_alarms(10_000, 300, |random: &mut Random, State(state): &mut State| {
                let mean = state.get_or_insert_with(|| Mean::new(2.0, 100.0, alpha(0.05)).unwrap());
                mean.push(7.0 + 2.0 * random.normal()).unwrap();
                test(mean, 7.0).unwrap().rejects(alpha(0.05))
            })
        };
        assert!(alarms(Mean::differs) <= 0.05);
        assert!(alarms(Mean::above) <= 0.05);
        assert!(alarms(Mean::below) <= 0.05);
    }

    #[test]
    fn the_interval_ends_where_the_evidence_suffices() {
        let mean = of(3.0, 20.0, 500.0, 100.0);
        let found = mean.interval(alpha(0.05));
        assert!(found.contains(5.0));
        for end in [found.low, found.high] {
            assert!((mean.differs(end).unwrap().value() - 20.0).abs() < 1e-6);
        }
    }

    #[test]
    fn odd_arguments() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Mean::new(bad, 1.0, alpha(0.1)).is_err() && Mean::new(1.0, bad, alpha(0.1)).is_err());
        }
        let mut mean = Mean::new(1e-10, 10.0, alpha(0.1)).unwrap();
        assert!(mean.is_empty() && mean.value().is_nan() && mean.interval(alpha(0.1)) == Interval::EVERYTHING);
        assert_eq!(mean.differs(3.0).unwrap(), Evidence::NONE);
        for bad in [f64::NAN, f64::INFINITY, 1e305] {
            assert!(mean.push(bad).is_err());
        }
        assert_eq!(mean.len(), 0);
        mean.push(1.0).unwrap();
        mean.push(1.0).unwrap();
        assert_eq!((mean.len(), mean.value()), (2, 1.0));
        assert!(mean.above(f64::NAN).is_err());
    }
}
