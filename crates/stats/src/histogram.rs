//! Histograms that can be added up: a million samples in a few kilobytes, from many hosts, with quantiles afterwards.
//!
//! An HDR histogram (G. Tene; the crate `hdrhistogram`): buckets whose width is a fixed part of their value, so that every
//! quantile is exact to the digits chosen, from the unit up. To record takes constant time, and adding two up loses
//! nothing.

use crate::bernoulli::count;
use crate::error::{Error, check, positive};
use crate::quantile::rank;

/// Counts of values by size.
///
/// ```
/// use toprope_stats::Histogram;
/// # fn main() -> Result<(), toprope_stats::Error> {
/// // Milliseconds, told apart from a microsecond up, to three digits.
/// let (mut here, mut there) = (Histogram::new(0.001, 3)?, Histogram::new(0.001, 3)?);
/// for n in 1..=1000 {
///     here.record(f64::from(n) / 10.0)?;
///     there.record(f64::from(n))?;
/// }
/// here.add(&there)?;
/// assert_eq!(here.len(), 2000);
/// let p99 = here.quantile(0.99).unwrap_or_default();
/// assert!((p99 / 980.0 - 1.0).abs() < 0.001);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    unit: f64,
    counts: hdrhistogram::Histogram<u64>,
    sum: f64,
}

/// The largest value, in units.
const MOST: f64 = (1u64 << 53) as f64;

impl Histogram {
    /// An empty one that tells values apart from `unit` up, to `digits` decimal digits (1 to 5). With 3 digits it grows to
    /// 400 kB at most.
    ///
    /// # Errors
    /// Unless `unit` is finite and above 0, and there are 1 to 5 digits.
    pub fn new(unit: f64, digits: u8) -> Result<Self, Error> {
        let unit = positive(unit, "the unit of the histogram")?;
        let out_of_range = Error::OutOfRange { what: "the number of digits", value: digits.into(), range: "1 to 5" };
        if digits == 0 {
            return Err(out_of_range);
        }
        let counts = hdrhistogram::Histogram::new(digits).map_err(|_| out_of_range)?;
        Ok(Self { unit, counts, sum: 0.0 })
    }

    /// Takes a value in.
    ///
    /// # Errors
    /// Unless it is finite, not below 0 and at most 2^53 units; then nothing changes.
    pub fn record(&mut self, value: f64) -> Result<(), Error> {
        self.record_n(value, 1)
    }

    /// Takes a value in `n` times.
    ///
    /// # Errors
    /// As [`Histogram::record`].
    pub fn record_n(&mut self, value: f64, n: u64) -> Result<(), Error> {
        let units = (value / self.unit).round();
        let holds = |v: f64| v.is_finite() && (0.0..=MOST).contains(&units);
        let range = "finite, not below 0 and at most 2^53 of the histogram's units";
        check(value, "a value", range, holds)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        let whole = units as u64;
        // It grows by itself up to far more than the largest value.
        self.counts.record_n(whole, n).map_err(|_| Error::OutOfRange { what: "a value", value, range })?;
        self.sum += value * count(n);
        Ok(())
    }

    /// Adds another one up.
    ///
    /// # Errors
    /// Unless both have the same unit and digits; then nothing changes.
    pub fn add(&mut self, other: &Self) -> Result<(), Error> {
        let incompatible = Error::Incompatible { ours: self.unit, theirs: other.unit };
        if self.unit != other.unit || self.counts.sigfig() != other.counts.sigfig() {
            return Err(incompatible);
        }
        self.counts.add(&other.counts).map_err(|_| incompatible)?;
        self.sum += other.sum;
        Ok(())
    }

    /// How many values it has.
    pub fn len(&self) -> u64 {
        self.counts.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The mean, of the values as they were recorded; `None` if it has none.
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum / count(self.len()))
    }

    /// The `q`-quantile by nearest rank, as [`quantile`](crate::quantile()): the largest value that its bucket stands for.
    /// `None` if it has none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.at_rank(rank(self.len(), q))
    }

    /// The value of this rank, from 1: the largest that its bucket stands for, but no more than was recorded.
    pub fn at_rank(&self, rank: u64) -> Option<f64> {
        if rank == 0 || rank > self.len() {
            return None;
        }
        // From the middle of the rank's share, rounding does not reach its ends until 2^50 values.
        let whole = self.counts.value_at_quantile((count(rank) - 0.5) / count(self.len()));
        Some(count(whole.min(self.counts.max())) * self.unit)
    }

    /// How many values are at most `value`, as far as buckets tell: all of the bucket that `value` is in count.
    pub fn at_most(&self, value: f64) -> u64 {
        if value.is_nan() || value < 0.0 {
            return 0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
        let whole = (value / self.unit).round() as u64;
        self.counts.count_between(0, whole.min(self.counts.high()))
    }

    /// The buckets that have values: the largest value that each stands for, and how many there are. What
    /// [`Histogram::record_n`] makes the same histogram of, on another host.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.counts
            .iter_recorded()
            .map(|bucket| (count(bucket.value_iterated_to()) * self.unit, bucket.count_at_value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Random;

    fn histogram() -> Histogram {
        Histogram::new(0.001, 3).unwrap()
    }

    #[test]
    fn quantiles_are_exact_to_the_digits() {
        let mut random = Random(1);
        let mut samples: Vec<f64> = (0..100_000).map(|_| (3.0 + 2.0 * random.normal()).exp()).collect();
        let mut all = histogram();
        samples.iter().for_each(|v| all.record(*v).unwrap());
        for q in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            let (found, exact) = (all.quantile(q).unwrap(), crate::quantile(&mut samples, q).unwrap());
            assert!((found - exact).abs() <= 0.001 * exact + 0.001, "{q}: {found} for {exact}");
        }
        let mean = samples.iter().sum::<f64>() / 1e5;
        assert!((all.mean().unwrap() / mean - 1.0).abs() < 1e-9);
        for limit in [1.0, 20.0, 500.0] {
            let exact = samples.iter().filter(|v| **v <= limit).count() as f64;
            assert!((all.at_most(limit) as f64 / exact - 1.0).abs() < 0.01, "{limit}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole_in_any_order() {
        let mut random = Random(2);
        let (mut whole, mut parts) = (histogram(), vec![histogram(); 3]);
        for n in 0..3000 {
            let value = random.exponential() * 50.0;
            whole.record(value).unwrap();
            parts[n % 3].record(value).unwrap();
        }
        for order in [[0, 1, 2], [2, 0, 1]] {
            let mut sum = histogram();
            order.iter().for_each(|part| sum.add(&parts[*part]).unwrap());
            assert_eq!(sum.counts, whole.counts);
            assert!((sum.mean().unwrap() - whole.mean().unwrap()).abs() < 1e-9);
        }
        let mut sent = histogram();
        whole.buckets().for_each(|(value, n)| sent.record_n(value, n).unwrap());
        assert_eq!(sent.counts, whole.counts);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        for unit in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Histogram::new(unit, 3).is_err());
        }
        assert!(Histogram::new(1.0, 0).is_err() && Histogram::new(1.0, 6).is_err());
        let mut all = histogram();
        for bad in [-0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert!(all.record(bad).is_err(), "{bad}");
        }
        assert!(all.add(&Histogram::new(0.1, 3).unwrap()).is_err());
        assert!(all.add(&Histogram::new(0.001, 2).unwrap()).is_err());
        assert_eq!(all, histogram());
    }

    #[test]
    fn edges() {
        let mut all = histogram();
        assert!(all.is_empty() && all.quantile(0.5).is_none() && all.mean().is_none() && all.at_rank(1).is_none());
        assert_eq!((all.at_most(1.0), all.at_most(f64::NAN)), (0, 0));
        all.record_n(0.0, 1_000_000_000_000).unwrap();
        all.record(MOST * 0.001).unwrap();
        assert_eq!((all.quantile(0.5), all.len()), (Some(0.0), 1_000_000_000_001));
        assert!((all.quantile(1.0).unwrap() / (MOST * 0.001) - 1.0).abs() < 0.001);
        assert_eq!((all.at_most(0.0), all.at_most(f64::INFINITY)), (1_000_000_000_000, 1_000_000_000_001));
        let mut equal = histogram();
        equal.record_n(12.345, 1000).unwrap();
        assert!((equal.quantile(0.01).unwrap() - 12.345).abs() < 0.0125 && equal.quantile(0.01) == equal.quantile(1.0));
    }
}
