//! How long recovery takes, when some runs ended before they had recovered.
//!
//! To leave those out would make recovery look faster than it is; to count them as recovered at their end, too. The
//! estimator of Kaplan & Meier (1958) counts each for as long as it was watched. Intervals are pointwise, by Greenwood's
//! variance (1926) on the scale of `log(-log)`, which keeps them within 0 and 1 (Kalbfleisch & Prentice); that of the
//! median inverts them (Brookmeyer & Crowley 1982). They are for a number of runs that was fixed beforehand.
//!
//! Assumed: recoveries are independent, and that watching ended says nothing of how long the recovery would have taken.
//! A run that was stopped *because* it did not recover is censored in a way that does.

use crate::bernoulli::count;
use crate::error::{Error, check};
use crate::evidence::Alpha;
use crate::interval::Interval;
use crate::normal;

/// One recovery, or the wait for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait {
    /// How long it was watched, in any unit.
    pub time: f64,
    /// Whether it had recovered by then; if not, it is censored.
    pub recovered: bool,
}

/// What is known at a time at which something recovered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The time.
    pub time: f64,
    /// How many were still waited for just before.
    pub at_risk: u64,
    /// How many recovered then.
    pub recovered: u64,
    /// The share that takes longer than this.
    pub longer: f64,
    /// Greenwood's sum: the variance of `ln longer`. Infinite when nobody is left.
    pub variance: f64,
}

/// The share that has not recovered yet, over time.
///
/// ```
/// use toprope_stats::{Alpha, survival::{KaplanMeier, Wait}};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// // Eight restarts, in seconds; two runs ended before the service was back.
/// let seconds = [3.1, 4.0, 4.4, 5.2, 6.0, 6.3, 9.8, 10.0];
/// let waits: Vec<Wait> =
///     seconds.iter().map(|time| Wait { time: *time, recovered: ![6.0, 10.0].contains(time) }).collect();
/// let recovery = KaplanMeier::new(&waits)?;
/// assert_eq!(recovery.median(), Some(5.2));
/// let interval = recovery.median_interval(Alpha::new(0.05)?);
/// assert!(interval.contains(5.2) && interval.low == 3.1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KaplanMeier {
    steps: Vec<Step>,
}

impl KaplanMeier {
    /// From waits in any order. Of those at the same time, the censored ones were watched a little longer, as usual.
    ///
    /// # Errors
    /// If there are none, or a time is not finite or below 0.
    pub fn new(waits: &[Wait]) -> Result<Self, Error> {
        if waits.is_empty() {
            return Err(Error::Empty { what: "the estimate of recovery" });
        }
        for wait in waits {
            check(wait.time, "a time to recovery", "finite and not below 0", |v| v >= 0.0 && v.is_finite())?;
        }
        let mut waits = waits.to_vec();
        waits.sort_unstable_by(|a, b| a.time.total_cmp(&b.time));
        let mut steps = Vec::new();
        let (mut longer, mut variance) = (1.0, 0.0);
        let mut at_risk = waits.len() as u64;
        for tied in waits.chunk_by(|a, b| a.time == b.time) {
            let recovered = tied.iter().filter(|wait| wait.recovered).count() as u64;
            if recovered > 0 {
                let (n, d) = (count(at_risk), count(recovered));
                longer *= (n - d) / n;
                variance += d / (n * (n - d));
                steps.push(Step { time: tied[0].time, at_risk, recovered, longer, variance });
            }
            at_risk -= tied.len() as u64;
        }
        Ok(Self { steps })
    }

    /// The times at which something recovered, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The share that takes longer than `time`.
    pub fn longer_than(&self, time: f64) -> f64 {
        self.at(time).map_or(1.0, |step| step.longer)
    }

    /// The interval for the share that takes longer than `time`: 1 to 1 before the first recovery.
    pub fn longer_than_interval(&self, time: f64, alpha: Alpha) -> Interval {
        let end = self.steps.partition_point(|step| step.time <= time);
        let mut interval = Interval { low: 1.0, high: 1.0 };
        for step in &self.steps[..end] {
            interval = step.interval(alpha, interval);
        }
        interval
    }

    /// The time by which the share `recovered` has recovered: the first at which at most the rest has not. `None` if that
    /// many were never seen to.
    pub fn quantile(&self, recovered: f64) -> Option<f64> {
        // 1 - 0.9 is above 0.1 for no reason that a user could see.
        self.steps.iter().find(|step| step.longer <= 1.0 - recovered + 1e-12).map(|step| step.time)
    }

    /// The time by which half has recovered; `None` if half was never seen to.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The interval for the median; its upper end is infinite where too few recoveries were seen to tell.
    pub fn median_interval(&self, alpha: Alpha) -> Interval {
        let mut median = Interval { low: f64::INFINITY, high: f64::INFINITY };
        let mut interval = Interval { low: 1.0, high: 1.0 };
        for step in &self.steps {
            interval = step.interval(alpha, interval);
            if interval.low <= 0.5 {
                median.low = median.low.min(step.time);
            }
            if interval.high <= 0.5 {
                median.high = median.high.min(step.time);
            }
        }
        // The median is no earlier than the first moment at which it may be: what was never reached is not known.
        if median.low.is_infinite() {
            median.low = self.steps.last().map_or(0.0, |step| step.time);
        }
        median
    }

    fn at(&self, time: f64) -> Option<&Step> {
        self.steps[..self.steps.partition_point(|step| step.time <= time)].last()
    }
}

impl Step {
    /// The interval for `longer`, by `log(-log)`. When nobody is left there is no variance to tell an upper end from: that
    /// of the step `before` stays.
    fn interval(&self, alpha: Alpha, before: Interval) -> Interval {
        if self.longer <= 0.0 {
            return Interval { low: 0.0, high: before.high };
        }
        let ln = self.longer.ln();
        let z = -normal::quantile(alpha.get() / 2.0);
        let spread = (z * self.variance.sqrt() / ln.abs()).exp();
        Interval { low: (ln * spread).exp(), high: (ln / spread).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;

    /// Times, censored ones negative.
    fn estimate(times: &[f64]) -> KaplanMeier {
        let waits: Vec<Wait> = times.iter().map(|t| Wait { time: t.abs(), recovered: *t > 0.0 }).collect();
        KaplanMeier::new(&waits).unwrap()
    }

    fn alpha(alpha: f64) -> Alpha {
        Alpha::new(alpha).unwrap()
    }

    #[test]
    fn golden_values() {
        golden("lifelines survival", 1e-12, |x| estimate(&x[1..]).longer_than(x[0]));
        golden("lifelines survival low", 1e-9, |x| estimate(&x[2..]).longer_than_interval(x[0], alpha(x[1])).low);
        golden("lifelines survival high", 1e-9, |x| estimate(&x[2..]).longer_than_interval(x[0], alpha(x[1])).high);
        golden("lifelines median", 0.0, |x| estimate(x).median().unwrap());
        // No upper end is written as -1.
        let finite = |v: f64| if v.is_finite() { v } else { -1.0 };
        golden("lifelines median low", 0.0, |x| finite(estimate(&x[1..]).median_interval(alpha(x[0])).low));
        golden("lifelines median high", 0.0, |x| finite(estimate(&x[1..]).median_interval(alpha(x[0])).high));
    }

    #[test]
    fn without_censoring_it_is_what_was_counted() {
        let all = estimate(&[1.0, 2.0, 2.0, 3.0, 4.0]);
        assert!(
            (all.longer_than(2.0) - 0.4).abs() < 1e-15 && all.longer_than(0.5) == 1.0 && all.longer_than(9.0) == 0.0
        );
        assert_eq!((all.median(), all.quantile(0.2), all.quantile(1.0)), (Some(2.0), Some(1.0), Some(4.0)));
        let ten: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(estimate(&ten).quantile(0.9), Some(9.0));
    }

    #[test]
    fn what_was_never_seen_has_no_median() {
        let none = estimate(&[-5.0, -6.0]);
        assert!(none.steps().is_empty() && none.median().is_none());
        assert_eq!(none.median_interval(alpha(0.05)), Interval { low: 0.0, high: f64::INFINITY });
        let few = estimate(&[1.0, -2.0, -2.0, -2.0, -2.0]);
        assert_eq!((few.median(), few.quantile(0.2)), (None, Some(1.0)));
        let one = estimate(&[3.0]);
        assert_eq!(one.median_interval(alpha(0.05)), Interval { low: 3.0, high: f64::INFINITY });
        let equal = estimate(&[2.0; 50]);
        assert_eq!((equal.median(), equal.longer_than_interval(2.0, alpha(0.05)).low), (Some(2.0), 0.0));
    }

    #[test]
    fn odd_times() {
        assert!(matches!(KaplanMeier::new(&[]), Err(Error::Empty { .. })));
        for time in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(KaplanMeier::new(&[Wait { time, recovered: true }]).is_err());
        }
        assert_eq!(KaplanMeier::new(&[Wait { time: 0.0, recovered: true }]).unwrap().median(), Some(0.0));
    }

    proptest::proptest! {
        #[test]
        fn it_falls_and_stays_within_its_interval(times in proptest::collection::vec(-20..20i32, 1..80)) {
            let times: Vec<f64> = times.into_iter().map(|t| f64::from(t) + 0.5).collect();
            let all = estimate(&times);
            let mut before = 1.0;
            for step in all.steps() {
                let interval = all.longer_than_interval(step.time, alpha(0.05));
                proptest::prop_assert!(step.longer < before && interval.contains(step.longer), "{step:?} {interval:?}");
                before = step.longer;
            }
            let interval = all.median_interval(alpha(0.05));
            proptest::prop_assert!(all.median().is_none_or(|median| interval.contains(median)));
        }
    }
}
