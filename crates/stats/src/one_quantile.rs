//! One quantile: between which values is the 99th percentile, and is it below a limit?
//!
//! The number of samples that do not exceed the `p`-quantile is that of hits with the share `p`, so every test of a share
//! is one of a quantile: Howard & Ramdas (2022), "Sequential estimation of quantiles with applications to A/B testing and
//! best-arm identification", theorem 1. Ties and jumps do no harm: hits among the ties may be thought of as drawn by lot.
//!
//! Assumed: whatever came before, the next sample is at most the quantile with the probability `p`.

use crate::bernoulli::{BetaMixture, count};
use crate::error::Error;
use crate::evidence::{Alpha, Evidence, Share};
use crate::interval::Interval;
use crate::samples::{Ranks, Samples};

/// The test of one quantile.
///
/// ```
/// use toprope_stats::{Alpha, Samples, Share, one_quantile::Quantile};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let alpha = Alpha::new(0.05)?;
/// let p90 = Quantile::new(Share::new(0.9)?, 1000.0, alpha)?;
/// let latencies = Samples::new((1..=1000).map(f64::from).collect())?;
/// let interval = p90.interval(&latencies, alpha);
/// assert!(interval.contains(900.0) && interval.low > 860.0 && interval.high < 940.0);
/// // Shown to be below 950 ms.
/// assert!(p90.at_most(latencies.at_most(950.0), latencies.len()).rejects(alpha));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    p: Share,
    mixture: BetaMixture,
}

impl Quantile {
    /// The `p`-quantile; about the sharpest after `samples` samples.
    ///
    /// # Errors
    /// Unless `samples` is finite and above 0.
    pub fn new(p: Share, samples: f64, alpha: Alpha) -> Result<Self, Error> {
        Ok(Self { p, mixture: BetaMixture::sharpest_at(p, samples, alpha)? })
    }

    /// Evidence that the quantile is at most a value, against its being above, when `not_above` of `all` samples are at
    /// most that value.
    pub fn at_most(self, not_above: u64, all: u64) -> Evidence {
        self.mixture.above(not_above, all.saturating_sub(not_above), self.p)
    }

    /// Evidence that the quantile is above a value, when `not_above` of `all` samples are at most that value.
    pub fn above(self, not_above: u64, all: u64) -> Evidence {
        self.mixture.below(not_above, all.saturating_sub(not_above), self.p)
    }

    /// The ranks of the samples that the quantile is between, at all times at once.
    pub fn ranks(self, all: u64, alpha: Alpha) -> Ranks {
        let n = count(all);
        let ln = self.mixture.at(self.p);
        let kept = |hits: f64| ln(hits, n - hits) < alpha.enough();
        let middle = (n * self.p.get()).round();
        Ranks::around(all, last(middle, 0.0, kept), last(middle, n, kept))
    }

    /// The confidence sequence for the quantile; an end is infinite where no sample is known to be beyond.
    pub fn interval(self, samples: &Samples, alpha: Alpha) -> Interval {
        samples.between(self.ranks(samples.len(), alpha))
    }

    /// The logarithm of the evidence against a value's being the quantile, by the samples that are at most it and the
    /// others.
    pub(crate) fn ln(self) -> impl Fn(f64, f64) -> f64 {
        self.mixture.at(self.p)
    }

    /// The number of hits, of `n`, that is the least evidence.
    pub(crate) fn least(self, n: f64) -> f64 {
        let ln = self.ln();
        let ln = |hits: f64| ln(hits, n - hits);
        // Convex, with its minimum close to where a + hits - 1/2 : b + misses - 1/2 is p : 1 - p (as the digamma function
        // is close to ln (x - 1/2)); from there by the golden section.
        let near = n * self.p.get() + self.mixture.shift(self.p);
        let (mut low, mut high) = ((near - 2.0).clamp(0.0, n), (near + 2.0).clamp(0.0, n));
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
        let (mut at_left, mut at_right) = (ln(left), ln(right));
        for _ in 0..26 {
            if at_left < at_right {
                (high, right, at_right) = (right, left, at_left);
                left = high - golden * (high - low);
                at_left = ln(left);
            } else {
                (low, left, at_left) = (left, right, at_right);
                right = low + golden * (high - low);
                at_right = ln(right);
            }
        }
        f64::midpoint(low, high)
    }
}

/// The last whole number, going from one towards another, for which something is still true that begins as true.
fn last(from: f64, to: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(to) {
        return to;
    }
    let (mut inside, mut outside) = (from, to);
    while (outside - inside).abs() > 1.0 {
        let middle = f64::midpoint(inside, outside).round();
        if middle == inside || middle == outside {
            break;
        }
        if holds(middle) { inside = middle } else { outside = middle }
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::{Random, false_alarms};

    fn alpha(alpha: f64) -> Alpha {
        Alpha::new(alpha).unwrap()
    }

    fn quantile(p: f64, samples: f64, tuned: f64) -> Quantile {
        Quantile::new(Share::new(p).unwrap(), samples, alpha(tuned)).unwrap()
    }

    #[test]
    fn golden_values() {
        // p, tuned for as many samples, at this alpha; samples, alpha.
        golden("quantile rank low", 0.0, |x| quantile(x[0], x[1], x[2]).ranks(x[3] as u64, alpha(x[4])).low as f64);
        golden("quantile rank high", 0.0, |x| quantile(x[0], x[1], x[2]).ranks(x[3] as u64, alpha(x[4])).high as f64);
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        // With ties: the 0.8-quantile of this is 1 exactly, as is every one from 0.5 to 0.9.
        let ranks = |p| -> Vec<Ranks> {
            let test = quantile(p, 200.0, 0.05);
            (0..=500).map(|all| test.ranks(all, alpha(0.05))).collect()
        };
        let high = ranks(0.8);
        let missed = false_alarms(10_000, 500, |random: &mut Random, counts: &mut [u64; 3]| {
            let u = random.uniform();
            counts[usize::from(u > 0.5) + usize::from(u > 0.9)] += 1;
            let ranks = high[counts.iter().sum::<u64>() as usize];
            // The quantile, 1, is below the sample of the lower rank or above that of the upper one.
            ranks.low > counts[0] + counts[1] || ranks.high <= counts[0]
        });
        assert!(missed <= 0.05, "{missed}");
        // At its edge: the 0.5-quantile of uniform samples.
        let middle = ranks(0.5);
        let missed = false_alarms(10_000, 500, |random: &mut Random, (hits, all): &mut (u64, usize)| {
            *all += 1;
            *hits += u64::from(random.uniform() < 0.5);
            let ranks = middle[*all];
            ranks.low > *hits || ranks.high <= *hits
        });
        assert!(missed <= 0.05 && missed > 0.001, "{missed}");
    }

    #[test]
    fn few_samples_say_nothing_and_equal_ones_all() {
        let test = quantile(0.99, 1000.0, 0.05);
        assert_eq!(test.interval(&Samples::default(), alpha(0.05)), Interval::EVERYTHING);
        let few = Samples::new(vec![1.0; 10]).unwrap();
        assert_eq!(test.interval(&few, alpha(0.05)).high, f64::INFINITY);
        let many = Samples::new(vec![1.0; 10_000]).unwrap();
        assert_eq!(test.interval(&many, alpha(0.05)), Interval { low: 1.0, high: 1.0 });
        let ranks = test.ranks(1_000_000_000_000, alpha(0.05));
        assert!(ranks.low < 990_000_000_000 && ranks.low > 989_999_000_000, "{ranks:?}");
        assert!(ranks.high > 990_000_000_000 && ranks.high < 990_001_000_000, "{ranks:?}");
        let _ = (test.ranks(u64::MAX, alpha(0.05)), test.ranks(1, alpha(0.999_999)), test.at_most(5, 3));
    }

    proptest::proptest! {
        #[test]
        fn ranks_are_around_the_quantile(n in 0..100_000u64, p in 0.001..0.999f64, level in 0.0001..0.5f64) {
            let ranks = quantile(p, 1000.0, 0.05).ranks(n, alpha(level));
            let rank = crate::quantile::rank(n, p);
            proptest::prop_assert!(ranks.low <= rank && rank <= ranks.high, "{ranks:?} and {rank}");
        }
    }
}
