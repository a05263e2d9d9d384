//! Two arms: does the experiment have more errors than the control?
//!
//! Only errors are counted, and which arm each was in. If the arms are alike, the next error is in the experiment with
//! the probability of the experiment's share of the traffic, whatever the rate of errors is at the moment: so the
//! number of requests need not be known, and a rate that goes up and down with the time of day does no harm. Lindon &
//! Malek (2022), "Anytime-valid inference for multinomial count data", NeurIPS. Given the errors it is the test of one
//! share of [`bernoulli`](crate::bernoulli).
//!
//! Assumed: requests are spread over the arms at random, in the shares given, and whether one fails does not depend on
//! others having failed (an outage that fails 50 requests at once is one piece of evidence, not 50).

use crate::bernoulli::BetaMixture;
use crate::error::{Error, positive};
use crate::evidence::{Alpha, Evidence, Share};
use crate::interval::Interval;

/// Errors of both arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Errors {
    /// Of the control.
    pub control: u64,
    /// Of the experiment.
    pub experiment: u64,
}

/// The test of two arms whose shares of the traffic are known.
///
/// ```
/// use toprope_stats::{Alpha, arms::{Errors, TwoArms}};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// // 95 % of the traffic go to the control, 5 % to the experiment.
/// let arms = TwoArms::new(95.0, 5.0)?;
/// let alpha = Alpha::new(0.01)?;
/// assert!(!arms.shows_worse(Errors { control: 40, experiment: 3 }, alpha));
/// let errors = Errors { control: 40, experiment: 15 };
/// assert!(arms.shows_worse(errors, alpha));
/// // At least 1.8 times as many errors per request.
/// let ratio = arms.rate_ratio(errors, alpha);
/// assert!(ratio.low > 1.8 && ratio.contains(15.0 / 40.0 * 95.0 / 5.0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoArms {
    /// The experiment's share of the traffic.
    share: Share,
    either: BetaMixture,
    worse: BetaMixture,
    better: BetaMixture,
}

impl TwoArms {
    /// Arms with traffic in this proportion: percent, weights, or requests where they are known beforehand.
    ///
    /// # Errors
    /// Unless both are finite and above 0, and neither is nothing beside the other.
    pub fn new(control: f64, experiment: f64) -> Result<Self, Error> {
        let (control, experiment) = (
            positive(control, "the control's share of the traffic")?,
            positive(experiment, "the experiment's share of the traffic")?,
        );
        let share = Share::new(experiment / (control + experiment))?;
        // Around the hypothesis, with the weight of two errors: uniform for equal arms. For one side, one error more on
        // that side, which finds 2 times as many errors after 86 rather than 89 (median, exactly), and 50 times as many
        // as early.
        let (a, b) = (2.0 * share.get(), 2.0 * share.rest());
        Ok(Self {
            share,
            either: BetaMixture::new(a, b)?,
            worse: BetaMixture::new(a + 1.0, b)?,
            better: BetaMixture::new(a, b + 1.0)?,
        })
    }

    /// Evidence that the arms differ.
    pub fn differs(self, errors: Errors) -> Evidence {
        self.either.differs(errors.experiment, errors.control, self.share)
    }

    /// Evidence that the experiment has more errors per request than the control.
    pub fn worse(self, errors: Errors) -> Evidence {
        self.worse.above(errors.experiment, errors.control, self.share)
    }

    /// Evidence that the experiment has fewer errors per request than the control.
    pub fn better(self, errors: Errors) -> Evidence {
        self.better.below(errors.experiment, errors.control, self.share)
    }

    /// As `worse(…).rejects(alpha)`, but in a few nanoseconds as long as the evidence is far from enough: for
    /// guardrails, which look after every sample.
    pub fn shows_worse(self, errors: Errors, alpha: Alpha) -> bool {
        self.worse.shows_above(errors.experiment, errors.control, self.share, alpha)
    }

    /// As `better(…).rejects(alpha)`, but in a few nanoseconds as long as the evidence is far from enough.
    pub fn shows_better(self, errors: Errors, alpha: Alpha) -> bool {
        self.better.shows_below(errors.experiment, errors.control, self.share, alpha)
    }

    /// The confidence sequence for the experiment's errors per request over the control's; from 0 to infinity.
    pub fn rate_ratio(self, errors: Errors, alpha: Alpha) -> Interval {
        let shares = self.either.interval(errors.experiment, errors.control, alpha);
        let ratio = |share: f64| share / (1.0 - share) * (self.share.rest() / self.share.get());
        Interval { low: ratio(shares.low), high: ratio(shares.high) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::{exact_median, false_alarms, table};

    fn arms(control: f64, experiment: f64) -> TwoArms {
        TwoArms::new(control, experiment).unwrap()
    }

    fn alpha() -> Alpha {
        Alpha::new(0.01).unwrap()
    }

    #[test]
    fn golden_values() {
        let at = |x: &[f64]| (arms(x[0], x[1]), Errors { control: x[2] as u64, experiment: x[3] as u64 });
        golden("arms differs", 1e-9, |x| at(x).0.differs(at(x).1).ln());
        golden("arms worse", 1e-9, |x| at(x).0.worse(at(x).1).ln());
        golden("arms better", 1e-9, |x| at(x).0.better(at(x).1).ln());
        golden("arms ratio low", 1e-8, |x| at(x).0.rate_ratio(at(x).1, Alpha::new(x[4]).unwrap()).low);
        golden("arms ratio high", 1e-8, |x| at(x).0.rate_ratio(at(x).1, Alpha::new(x[4]).unwrap()).high);
    }

    #[test]
    fn looking_after_every_error_does_not_lie() {
        for (control, experiment) in [(1.0, 1.0), (95.0, 5.0)] {
            let arms = arms(control, experiment);
            let alarms = |test: &dyn Fn(Errors) -> bool| {
                let alarm = table(1_000, |experiment, control| test(Errors { control, experiment }));
                false_alarms(10_000, 1_000, |random, (ours, theirs): &mut (usize, usize)| {
                    if random.uniform() < experiment / (control + experiment) {
                        *ours += 1
                    } else {
                        *theirs += 1
                    }
                    alarm[*ours][*theirs]
                })
            };
            assert!(alarms(&|errors| arms.shows_worse(errors, alpha())) <= 0.01);
            assert!(alarms(&|errors| arms.differs(errors).rejects(alpha())) <= 0.01);
            assert!(alarms(&|errors| arms.shows_better(errors, alpha())) <= 0.01);
        }
    }

    #[test]
    fn what_is_worse_is_seen_after_few_errors() {
        let arms = arms(1.0, 1.0);
        let alarm = table(200, |experiment, control| arms.shows_worse(Errors { control, experiment }, alpha()));
        for (times, most) in [(50.0, 9), (10.0, 14), (5.0, 21), (2.0, 86)] {
            let median = exact_median(times / (times + 1.0), &alarm).unwrap();
            assert!(median <= most, "{times} times as many errors are seen after {median}");
        }
    }

    #[test]
    fn the_ratio_is_one_where_the_arms_are_alike() {
        let ratio = arms(90.0, 10.0).rate_ratio(Errors { control: 90_000, experiment: 10_000 }, alpha());
        assert!(ratio.contains(1.0) && ratio.low > 0.9 && ratio.high < 1.1, "{ratio:?}");
        let nothing = arms(1.0, 1.0).rate_ratio(Errors::default(), alpha());
        assert_eq!(nothing, Interval { low: 0.0, high: f64::INFINITY });
        let huge = Errors { control: 1_000_000_000_000, experiment: 1_010_000_000_000 };
        assert!(arms(1.0, 1.0).shows_worse(huge, alpha()));
    }

    #[test]
    fn shares_must_be_some() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(TwoArms::new(bad, 1.0).is_err() && TwoArms::new(1.0, bad).is_err(), "{bad}");
        }
        assert!(TwoArms::new(1e300, 1e-300).is_err());
        assert!(TwoArms::new(1e308, 1e308).is_err());
    }

    proptest::proptest! {
        #[test]
        fn sides_are_mirrored(control in 0..10_000u64, experiment in 0..10_000u64, share in 0.01..0.99f64) {
            let here = arms(1.0 - share, share).worse(Errors { control, experiment }).ln();
            let there = arms(share, 1.0 - share).better(Errors { control: experiment, experiment: control }).ln();
            proptest::prop_assert!((here - there).abs() < 1e-7 * here.abs().max(1.0), "{here} and {there}");
        }
    }
}
