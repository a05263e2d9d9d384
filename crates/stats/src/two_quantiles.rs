//! Two arms: do they have the same 99th percentile?
//!
//! Howard & Ramdas (2022), section 6: if both arms have their `p`-quantile at `x`, the evidence of both against `x` may
//! be multiplied; as nobody knows `x`, what counts is the least over all values. It looks at how many samples are on
//! which side, never at how far off they are, so that no outlier decides. Linear in the samples, for each look.
//!
//! Assumed: in each arm, whatever came before, the next sample is at most the quantile with the probability `p`.

use crate::bernoulli::count;
use crate::evidence::Evidence;
use crate::one_quantile::Quantile;
use crate::samples::Samples;

/// Evidence that two arms do not have the same quantile.
///
/// ```
/// use toprope_stats::{Alpha, Samples, Share, one_quantile::Quantile, two_quantiles::differs};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// let alpha = Alpha::new(0.01)?;
/// let p90 = Quantile::new(Share::new(0.9)?, 500.0, alpha)?;
/// let control = Samples::new((0..500).map(f64::from).collect())?;
/// let slower = Samples::new((0..500).map(|n| 1.3 * f64::from(n)).collect())?;
/// assert!(differs(p90, &control, &slower).rejects(alpha));
/// assert!(!differs(p90, &control, &control).rejects(alpha));
/// # Ok(())
/// # }
/// ```
pub fn differs(quantile: Quantile, control: &Samples, experiment: &Samples) -> Evidence {
    let arms = [Arm::new(quantile, control), Arm::new(quantile, experiment)];
    let ln = |x: f64| arms[0].ln(x) + arms[1].ln(x);
    // Each arm's evidence falls until its own quantile and rises after: the least of both is between the two.
    let (low, high) = (arms[0].seen().min(arms[1].seen()), arms[0].seen().max(arms[1].seen()));
    let mut least = ln(low).min(ln(high));
    for arm in &arms {
        let samples = arm.samples.as_slice();
        let mut last = f64::NAN;
        for x in &samples[samples.partition_point(|v| *v < low)..samples.partition_point(|v| *v <= high)] {
            if *x != last {
                least = least.min(ln(*x));
                last = *x;
            }
        }
    }
    Evidence::from_ln(least)
}

struct Arm<'a, L> {
    ln: L,
    samples: &'a Samples,
    /// The number of hits that is the least evidence.
    least: f64,
}

impl<'a> Arm<'a, ()> {
    fn new(quantile: Quantile, samples: &'a Samples) -> Arm<'a, impl Fn(f64, f64) -> f64> {
        Arm { ln: quantile.ln(), samples, least: quantile.least(count(samples.len())) }
    }
}

impl<L: Fn(f64, f64) -> f64> Arm<'_, L> {
    /// The value that the evidence is least against.
    fn seen(&self) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of samples")]
        let rank = self.least.ceil().max(1.0) as u64;
        self.samples.at_rank(rank.min(self.samples.len())).unwrap_or(0.0)
    }

    /// The evidence against `x`'s being the quantile; of samples equal to `x`, as many count as hits as suit it best.
    fn ln(&self, x: f64) -> f64 {
        let (below, at_most) = (count(self.samples.below(x)), count(self.samples.at_most(x)));
        let hits = self.least.clamp(below, at_most);
        (self.ln)(hits, count(self.samples.len()) - hits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Alpha, Share};
    use crate::golden::golden;
    use crate::simulation::false_alarms;

    fn p(p: f64, samples: f64, alpha: f64) -> Quantile {
        Quantile::new(Share::new(p).unwrap(), samples, Alpha::new(alpha).unwrap()).unwrap()
    }

    #[test]
    fn golden_values() {
        // p, tuned for as many samples, at this alpha; the size of the first arm; both arms.
        golden("confseq quantile a/b p-value", 1e-9, |x| {
            let (control, experiment) = x[4..].split_at(x[3] as usize);
            let arm = |x: &[f64]| Samples::new(x.to_vec()).unwrap();
            differs(p(x[0], x[1], x[2]), &arm(control), &arm(experiment)).p_value()
        });
    }

    #[test]
    fn it_is_the_least_over_all_values() {
        let test = p(0.7, 20.0, 0.05);
        let mut random = crate::simulation::Random(5);
        for n in 0..100 {
            let mut arm = |n: u32| Samples::new((0..n).map(|_| (random.uniform() * 10.0).floor()).collect()).unwrap();
            let (control, experiment) = (arm(n), arm(n / 2));
            let (a, b) = (Arm::new(test, &control), Arm::new(test, &experiment));
            let all = (-2..24).map(|x| f64::from(x) / 2.0).map(|x| a.ln(x) + b.ln(x)).fold(f64::INFINITY, f64::min);
            assert!((differs(test, &control, &experiment).ln() - all).abs() < 1e-9);
        }
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        let (test, alpha) = (p(0.8, 50.0, 0.05), Alpha::new(0.05).unwrap());
        let alarms = false_alarms(10_000, 20, |random, (control, experiment): &mut (Samples, Samples)| {
            for arm in [&mut *control, experiment] {
                let mut samples = arm.as_slice().to_vec();
                samples.push(random.exponential());
                *arm = Samples::new(samples).unwrap();
            }
            differs(test, control, experiment).rejects(alpha)
        });
        assert!(alarms <= 0.05, "{alarms}");
    }

    #[test]
    fn equal_and_missing_samples() {
        let test = p(0.9, 100.0, 0.05);
        let same = Samples::new(vec![1.0; 1000]).unwrap();
        let alpha = Alpha::new(0.01).unwrap();
        assert!(!differs(test, &same, &same).rejects(alpha));
        assert!(differs(test, &same, &Samples::new(vec![2.0; 1000]).unwrap()).rejects(alpha));
        assert!(!differs(test, &same, &Samples::default()).rejects(alpha));
        assert!(!differs(test, &Samples::default(), &Samples::default()).rejects(alpha));
        let endless = Samples::new(vec![f64::INFINITY; 1000]).unwrap();
        assert!(differs(test, &same, &endless).rejects(alpha));
    }
}
