//! All quantiles at once, for whoever looks at the median, the 99th and the 99.9th percentile of the same samples.
//!
//! "Double stitching" of Howard & Ramdas (2022), theorem 3, with the defaults of their program `confseq` (`delta = 0.5`,
//! `s = 1.4`, `eta = 2`). The band of [`cdf`](crate::cdf) is as wide at the 99th percentile as at the median; this one
//! narrows towards the tails. Assumed: as for [`one_quantile`](crate::one_quantile), for every quantile.

use crate::bernoulli::{count, expit};
use crate::error::{Error, check};
use crate::evidence::{Alpha, Share};
use crate::interval::Interval;
use crate::samples::{Ranks, Samples};

const DELTA: f64 = 0.5;
const S: f64 = 1.4;
const ETA: f64 = 2.0;
/// Riemann's ζ(1.4).
const ZETA_S: f64 = 3.105_547_277_977_58;

/// The bound for all quantiles.
///
/// ```
/// use toprope_stats::{Alpha, Samples, Share, all_quantiles::AllQuantiles};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let bound = AllQuantiles::new(100.0, Alpha::new(0.05)?)?;
/// let latencies = Samples::new((1..=10_000).map(f64::from).collect())?;
/// let p99 = bound.quantile(&latencies, Share::new(0.99)?);
/// assert!(p99.contains(9_900.0) && p99.low > 9_800.0 && p99.high < 9_970.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AllQuantiles {
    from: f64,
    alpha: Alpha,
}

impl AllQuantiles {
    /// The sharpest from about `from` samples on.
    ///
    /// # Errors
    /// Unless `from` is finite and at least 1.
    pub fn new(from: f64, alpha: Alpha) -> Result<Self, Error> {
        let from = check(from, "the number of samples", "finite and at least 1", |v| v >= 1.0 && v.is_finite())?;
        Ok(Self { from, alpha })
    }

    /// How many more samples than the share `p` of `samples` are ever below the `p`-quantile, at most.
    pub fn excess(self, p: Share, samples: u64) -> f64 {
        let t = count(samples).max(self.from);
        let (p, logit) = (p.get(), p.get().ln() - (-p.get()).ln_1p());
        let r = if p >= 0.5 { p } else { expit(logit + 2.0 * DELTA * (self.from * ETA / t).sqrt()).min(0.5) };
        let variance = r * (1.0 - r);
        let j = (t / self.from).sqrt() * logit.abs() / (2.0 * DELTA) + 1.0;
        let constant = (2.0 * ZETA_S * (2.0 * ZETA_S + 1.0)).ln() + self.alpha.enough() - S * ETA.ln().ln();
        let l = S * (ETA * t / self.from).ln().ln() + S * j.ln() + constant;
        let k1 = (ETA.powf(0.25) + ETA.powf(-0.25)) / std::f64::consts::SQRT_2;
        let k2 = f64::midpoint(ETA.sqrt(), 1.0);
        let skew = k2 * (1.0 - 2.0 * p) / 3.0 * l;
        DELTA * (ETA * t * variance / self.from).sqrt() + (k1 * k1 * variance * t * l + skew * skew).sqrt() + skew
    }

    /// The ranks of the samples that the `p`-quantile is between, for all `p` and at all times at once.
    pub fn ranks(self, p: Share, samples: u64) -> Ranks {
        let expected = count(samples) * p.get();
        let lack = Share::new(p.rest()).map_or(f64::INFINITY, |rest| self.excess(rest, samples));
        Ranks::around(samples, expected - lack, expected + self.excess(p, samples))
    }

    /// What the `p`-quantile is between, for all `p` and at all times at once.
    pub fn quantile(self, samples: &Samples, p: Share) -> Interval {
        samples.between(self.ranks(p, samples.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::false_alarms;

    fn bound(from: f64, alpha: f64) -> AllQuantiles {
        AllQuantiles::new(from, Alpha::new(alpha).unwrap()).unwrap()
    }

    #[test]
    fn golden_values() {
        // p, samples, alpha, from
        golden("confseq double stitching", 1e-12, |x| bound(x[3], x[2]).excess(Share::new(x[0]).unwrap(), x[1] as u64));
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        let bound = bound(10.0, 0.05);
        let missed = false_alarms(10_000, 40, |random, sorted: &mut Vec<f64>| {
            let u = random.uniform().max(1e-12);
            sorted.insert(sorted.partition_point(|v| *v < u), u);
            // The quantiles of uniform samples are their shares: each is asked at, and just before, each sample.
            let t = sorted.len() as u64;
            sorted.iter().enumerate().any(|(i, u)| {
                let (p, rest) = (Share::new(*u).unwrap(), Share::new(1.0 - u).unwrap());
                let (before, at) = (i as f64, i as f64 + 1.0);
                at > t as f64 * u + bound.excess(p, t) || before < t as f64 * u - bound.excess(rest, t)
            })
        });
        assert!(missed <= 0.05, "{missed}");
    }

    #[test]
    fn odd_arguments() {
        for bad in [0.5, -1.0, f64::NAN, f64::INFINITY] {
            assert!(AllQuantiles::new(bad, Alpha::new(0.05).unwrap()).is_err());
        }
        let bound = bound(32.0, 0.01);
        for p in [f64::MIN_POSITIVE, 1e-12, 0.5, 1.0 - 1e-15] {
            let p = Share::new(p).unwrap();
            for n in [0, 1, 1_000_000_000_000, u64::MAX] {
                let ranks = bound.ranks(p, n);
                assert!(ranks.low <= ranks.high, "{p:?} of {n}: {ranks:?}");
            }
        }
        assert_eq!(bound.quantile(&Samples::default(), Share::new(0.5).unwrap()), Interval::EVERYTHING);
        let equal = Samples::new(vec![7.0; 10_000]).unwrap();
        assert_eq!(bound.quantile(&equal, Share::new(0.99).unwrap()), Interval { low: 7.0, high: 7.0 });
    }

    proptest::proptest! {
        #[test]
        fn higher_quantiles_are_not_lower(n in 0..100_000u64, p in 0.001..0.998f64, more in 0.0..0.001f64) {
            let ranks = |p| bound(32.0, 0.05).ranks(Share::new(p).unwrap(), n);
            let (here, there) = (ranks(p), ranks(p + more));
            proptest::prop_assert!(here.low <= there.low + 1 && here.high <= there.high + 1, "{here:?} {there:?}");
        }
    }
}
