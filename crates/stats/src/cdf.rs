//! The whole distribution at once: a band that holds the true share of samples up to each value, for all values and at
//! all times. With two bands: is the experiment slower anywhere?
//!
//! The time-uniform Dvoretzky-Kiefer-Wolfowitz inequality with an iterated logarithm of Howard & Ramdas (2022), theorem 2
//! (as in the authors' `confseq`), with their `A = 0.85`. Assumed: independent samples of one distribution, any one.

use crate::bernoulli::count;
use crate::evidence::{Alpha, Share};
use crate::interval::Interval;
use crate::samples::{Ranks, Samples};

const A: f64 = 0.85;

/// The half width of the band.
///
/// ```
/// use toprope_stats::{Alpha, Samples, cdf::{Band, Gap}};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// // Two bands share the error between them.
/// let band = Band::new(Alpha::new(0.01)?.split(2), 100);
/// let control = Samples::new((0..2000).map(f64::from).collect())?;
/// let slower = Samples::new((0..2000).map(|n| 1.4 * f64::from(n)).collect())?;
/// let gap = Gap::between(&control, &slower);
/// assert!(gap.experiment_larger > band.radius(2000) + band.radius(2000));
/// assert_eq!(gap.experiment_smaller, 0.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    c: f64,
    from: u64,
}

impl Band {
    /// A band that is 1 wide, and so says nothing, before there are `from` samples (at least 1), and is about the
    /// sharpest soon after.
    pub fn new(alpha: Alpha, from: u64) -> Self {
        let (mut low, mut high) = (1.0, 8.0);
        while least_error(high) > alpha.get() && high < 1e6 {
            (low, high) = (high, 2.0 * high);
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if least_error(middle) > alpha.get() { low = middle } else { high = middle }
        }
        Self { c: high, from: from.max(1) }
    }

    /// How far the true share of samples up to any value is off that of the samples seen, at most.
    pub fn radius(self, samples: u64) -> f64 {
        if samples < self.from {
            return 1.0;
        }
        let (t, m) = (count(samples), count(self.from));
        (A * (((t / m).ln().ln_1p() + self.c) / t).sqrt()).min(1.0)
    }

    /// What the `p`-quantile is between, for all `p` at once.
    pub fn quantile(self, samples: &Samples, p: Share) -> Interval {
        let (n, radius) = (count(samples.len()), self.radius(samples.len()));
        samples.between(Ranks::around(samples.len(), n * (p.get() - radius), n * (p.get() + radius)))
    }
}

/// The probability that the band is ever left, as a bound, for the best choice of the epochs of the proof.
fn least_error(c: f64) -> f64 {
    // `error` is finite up to where sqrt(eta/2) + sqrt(2 (eta-1) / c) = A.
    let (mut low, mut high) = (1.0, 2.0 * A * A);
    for _ in 0..60 {
        let eta = f64::midpoint(low, high);
        if (eta / 2.0).sqrt() + (2.0 * (eta - 1.0) / c).sqrt() > A { high = eta } else { low = eta }
    }
    let error = |eta: f64| {
        let root = A - (2.0 * (eta - 1.0) / c).sqrt();
        let gamma = 2.0 / eta * root * root;
        if gamma <= 1.0 || eta <= 1.0 {
            return f64::INFINITY;
        }
        4.0 * (-gamma * c).exp() * (1.0 + 1.0 / ((gamma - 1.0) * eta.ln()))
    };
    let golden = 0.5 * (3.0 - 5f64.sqrt());
    let (mut low, mut high) = (1.0, high);
    for _ in 0..60 {
        let (left, right) = (low + golden * (high - low), high - golden * (high - low));
        if error(left) < error(right) { high = right } else { low = left }
    }
    error(f64::midpoint(low, high))
}

/// How far two arms are apart, as shares of their samples: larger than the sum of the two radii, and they differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// The most by which more of the control's samples than of the experiment's are up to some value: the experiment has
    /// larger values there (is slower).
    pub experiment_larger: f64,
    /// The most by which more of the experiment's samples are up to some value.
    pub experiment_smaller: f64,
}

impl Gap {
    /// The two one-sided distances of Kolmogorov and Smirnov. 0 if an arm has no samples.
    pub fn between(control: &Samples, experiment: &Samples) -> Self {
        let mut gap = Self { experiment_larger: 0.0, experiment_smaller: 0.0 };
        let (ours, theirs) = (control.as_slice(), experiment.as_slice());
        if ours.is_empty() || theirs.is_empty() {
            return gap;
        }
        let (mut i, mut j) = (0, 0);
        while i < ours.len() && j < theirs.len() {
            let value = ours[i].min(theirs[j]);
            while ours.get(i).is_some_and(|v| *v <= value) {
                i += 1;
            }
            while theirs.get(j).is_some_and(|v| *v <= value) {
                j += 1;
            }
            let difference = count(i as u64) / count(ours.len() as u64) - count(j as u64) / count(theirs.len() as u64);
            gap.experiment_larger = gap.experiment_larger.max(difference);
            gap.experiment_smaller = gap.experiment_smaller.max(-difference);
        }
        gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::false_alarms;

    fn alpha(alpha: f64) -> Alpha {
        Alpha::new(alpha).unwrap()
    }

    #[test]
    fn golden_values() {
        // alpha, from, samples
        golden("confseq dkw", 1e-6, |x| Band::new(alpha(x[0]), x[1] as u64).radius(x[2] as u64));
        golden("ks larger", 1e-12, |x| {
            let (control, experiment) = x[1..].split_at(x[0] as usize);
            let arm = |x: &[f64]| Samples::new(x.to_vec()).unwrap();
            Gap::between(&arm(control), &arm(experiment)).experiment_larger
        });
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        let band = Band::new(alpha(0.05), 10);
        let missed = false_alarms(10_000, 100, |random, sorted: &mut Vec<f64>| {
            let u = random.uniform();
            sorted.insert(sorted.partition_point(|v| *v < u), u);
            let (n, radius) = (sorted.len() as f64, band.radius(sorted.len() as u64));
            sorted.iter().enumerate().any(|(i, u)| {
                let i = i as f64;
                (i + 1.0) / n - u > radius || u - i / n > radius
            })
        });
        assert!(missed <= 0.05, "{missed}");
    }

    #[test]
    fn bands_shrink_and_gaps_are_found() {
        let band = Band::new(alpha(0.005), 100);
        assert_eq!((band.radius(0), band.radius(99), Band::new(alpha(0.05), 0).radius(0)), (1.0, 1.0, 1.0));
        assert!((2.0 * band.radius(1_000) - 0.178).abs() < 1e-3);
        assert!((2.0 * band.radius(100_000) - 0.019).abs() < 1e-3);
        assert!(band.radius(1_000_000_000_000) < 1e-5);
        let all = Samples::new((1..=10_000).map(f64::from).collect()).unwrap();
        let median = band.quantile(&all, Share::new(0.5).unwrap());
        assert!(median.contains(5_000.0) && median.low > 4_600.0 && median.high < 5_400.0, "{median:?}");
        assert_eq!(band.quantile(&Samples::default(), Share::new(0.5).unwrap()), Interval::EVERYTHING);
        let gap = Gap::between(&all, &Samples::default());
        assert_eq!((gap.experiment_larger, gap.experiment_smaller), (0.0, 0.0));
        for tiny in [1e-300, 1e-9, 0.5, 0.999_999] {
            let radius = Band::new(alpha(tiny), 1).radius(1_000_000);
            assert!(radius.is_finite() && radius > 0.0, "{tiny}: {radius}");
        }
    }

    proptest::proptest! {
        #[test]
        fn gaps_are_mirrored(a in proptest::collection::vec(0..20i32, 1..50), b in proptest::collection::vec(0..20i32, 1..50)) {
            let arm = |v: &[i32]| Samples::new(v.iter().map(|v| f64::from(*v)).collect()).unwrap();
            let (here, there) = (Gap::between(&arm(&a), &arm(&b)), Gap::between(&arm(&b), &arm(&a)));
            proptest::prop_assert!((here.experiment_larger - there.experiment_smaller).abs() < 1e-15);
            let slow = (0..20).map(f64::from).map(|x| {
                arm(&a).at_most(x) as f64 / a.len() as f64 - arm(&b).at_most(x) as f64 / b.len() as f64
            }).fold(0.0, f64::max);
            proptest::prop_assert!((here.experiment_larger - slow).abs() < 1e-12);
        }
    }
}
