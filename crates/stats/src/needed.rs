//! How many samples a claim needs: what a plan says before a run.
//!
//! A claim is that the share of bad samples is below a bound: "99 % of the samples are good" is one, and so is "the 99th
//! percentile is below 300 ms", where a sample that is not below 300 ms is bad. It is shown by the test of
//! [`proportion`](crate::proportion), so these numbers are those at which that test decides.

use crate::bernoulli::{BetaMixture, count};
use crate::error::{Error, check};
use crate::evidence::{Alpha, Share};
use crate::gamma::ln_inc_beta;

/// More samples than that are none that anybody takes.
const LIMIT: u64 = 1_000_000_000_000;

/// A claim about the share of bad samples.
///
/// ```
/// use toprope_stats::{Alpha, Share, needed::Claim};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// // The 99th percentile is below a limit, with a confidence of 99 %.
/// let claim = Claim::quantile_below(Share::new(0.99)?, Alpha::new(0.01)?);
/// // Even if not a single sample is beyond it:
/// assert_eq!(claim.fewest(), Some(644));
/// // If in truth 0.2 % are: on the average course, and such that 9 of 10 runs decide.
/// assert_eq!(claim.at_rate(0.002)?, Some(1183));
/// assert!(claim.with_chance(0.002, 0.9)? > Some(1500));
/// // If in truth 2 % are, it is never shown.
/// assert_eq!(claim.at_rate(0.02)?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Claim {
    bad_below: Share,
    alpha: Alpha,
}

impl Claim {
    /// That the share of bad samples is below a bound.
    pub const fn bad_below(bound: Share, alpha: Alpha) -> Self {
        Self { bad_below: bound, alpha }
    }

    /// That the share of good samples is above a bound.
    pub fn good_above(bound: Share, alpha: Alpha) -> Self {
        Self { bad_below: mirrored(bound), alpha }
    }

    /// That a quantile is below a limit; a sample that is not counts as bad.
    pub fn quantile_below(p: Share, alpha: Alpha) -> Self {
        Self::good_above(p, alpha)
    }

    /// How many samples it needs at least: if none is bad. `None` if more than 10^12.
    pub fn fewest(self) -> Option<u64> {
        self.first(|all| self.shown(0.0, all))
    }

    /// How many samples it needs if just the share `rate` of them is bad, all along. `None` if more than 10^12, or if it is
    /// never shown because the rate is not below the bound.
    ///
    /// # Errors
    /// Unless `rate` is within 0 and 1.
    pub fn at_rate(self, rate: f64) -> Result<Option<u64>, Error> {
        let rate = rate_of_bad(rate)?;
        if rate >= self.bad_below.get() {
            return Ok(None);
        }
        Ok(self.first(|all| self.shown(rate * all, all)))
    }

    /// How many samples it needs such that it is shown with a probability of `chance`, if each sample is bad with the
    /// probability `rate`: by the last sample, so that most runs are decided earlier. `None` as for
    /// [`Claim::at_rate`].
    ///
    /// # Errors
    /// Unless `rate` is within 0 and 1, and `chance` strictly.
    pub fn with_chance(self, rate: f64, chance: f64) -> Result<Option<u64>, Error> {
        let (rate, chance) = (rate_of_bad(rate)?, Share::new(chance)?);
        if rate >= self.bad_below.get() {
            return Ok(None);
        }
        Ok(self.first(|all| {
            // The most bad samples with which it is shown; the number of bad ones is binomial.
            let (mut most, mut too_many) = (-1.0, (self.bad_below.get() * all).ceil() + 1.0);
            while too_many - most > 1.0 {
                let middle = f64::midpoint(most, too_many).floor();
                if middle == most {
                    break;
                }
                if self.shown(middle, all) { most = middle } else { too_many = middle }
            }
            let good = all - most;
            most >= 0.0 && (good <= 0.0 || ln_inc_beta(1.0 - rate, good, most + 1.0) >= chance.get().ln())
        }))
    }

    /// Whether `bad` of `all` samples show it.
    fn shown(self, bad: f64, all: f64) -> bool {
        BetaMixture::UNIFORM.ln_below(bad, (all - bad).max(0.0), self.bad_below.get()) >= self.alpha.enough()
    }

    /// The first number of samples for which `enough` is true, given that it stays true from then on.
    fn first(self, enough: impl Fn(f64) -> bool) -> Option<u64> {
        let (mut low, mut high) = (0, 1);
        while !enough(count(high)) {
            (low, high) = (high, high * 2);
            if high > LIMIT {
                return None;
            }
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if enough(count(middle)) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

fn rate_of_bad(rate: f64) -> Result<f64, Error> {
    check(rate, "the rate of bad samples", "from 0 to 1", |v| (0.0..=1.0).contains(&v))
}

/// What is missing to 1: a `Share`, but where it is too small to be told from nothing the smallest one.
fn mirrored(share: Share) -> Share {
    Share::new(share.rest()).unwrap_or(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::proportion::{Count, Shown};
    use crate::simulation::Random;

    fn claim(bad_below: f64, alpha: f64) -> Claim {
        Claim::bad_below(Share::new(bad_below).unwrap(), Alpha::new(alpha).unwrap())
    }

    #[test]
    fn golden_values() {
        golden("needed fewest", 0.0, |x| claim(x[0], x[1]).fewest().unwrap() as f64);
        golden("needed at rate", 0.0, |x| claim(x[0], x[1]).at_rate(x[2]).unwrap().unwrap() as f64);
    }

    #[test]
    fn it_is_what_the_test_needs() {
        for (bound, alpha) in [(0.01, 0.01), (0.05, 0.05), (0.5, 0.001), (0.001, 0.1)] {
            let fewest = claim(bound, alpha).fewest().unwrap();
            assert_eq!(Count { bad: 0, all: fewest }.decide(bound, alpha), Shown::Below);
            assert_eq!(Count { bad: 0, all: fewest - 1 }.decide(bound, alpha), Shown::Undecided);
            assert_eq!(Count { bad: 0, all: 0 }.needed_below(bound, alpha), Some(fewest));
            assert_eq!(claim(bound, alpha).at_rate(0.0).unwrap(), Some(fewest));
            assert_eq!(claim(bound, alpha).with_chance(0.0, 0.9).unwrap(), Some(fewest));
        }
    }

    #[test]
    fn as_many_runs_decide_as_were_promised() {
        let (bound, alpha, rate, chance) = (0.1, 0.05, 0.05, 0.8);
        let needed = claim(bound, alpha).with_chance(rate, chance).unwrap().unwrap();
        let mut random = Random(4);
        let runs = 2_000;
        let decided = |all: u64, random: &mut Random| {
            (0..runs)
                .filter(|_| {
                    let bad = (0..all).filter(|_| random.uniform() < rate).count() as u64;
                    Count { bad, all }.decide(bound, alpha) == Shown::Below
                })
                .count() as f64
                / f64::from(runs)
        };
        let (enough, too_few) = (decided(needed, &mut random), decided(needed * 4 / 5, &mut random));
        assert!(enough > 0.76 && enough < 0.87, "{enough} with {needed}");
        assert!(too_few < 0.76, "{too_few}");
    }

    #[test]
    fn odd_arguments() {
        let claim = claim(0.01, 0.01);
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(claim.at_rate(bad).is_err() && claim.with_chance(bad, 0.5).is_err());
            assert!(claim.with_chance(0.001, bad).is_err());
        }
        assert_eq!(claim.at_rate(0.01).unwrap(), None);
        assert_eq!(claim.at_rate(0.009_999_999).unwrap(), None);
        assert_eq!(super::tests::claim(1e-15, 0.01).fewest(), None);
        assert!(super::tests::claim(0.999_999, 0.01).fewest().is_some());
        let most = Claim::good_above(Share::new(f64::MIN_POSITIVE).unwrap(), Alpha::new(0.01).unwrap());
        let _ = most.fewest();
    }

    proptest::proptest! {
        #[test]
        fn what_is_harder_needs_more(bound in 0.002..0.5f64, part in 0.0..0.7f64, alpha in 0.001..0.2f64) {
            let here = claim(bound, alpha);
            let needed = here.at_rate(part * bound).unwrap();
            proptest::prop_assert!(needed >= here.fewest());
            proptest::prop_assert!(claim(bound, alpha / 2.0).at_rate(part * bound).unwrap() > needed);
            proptest::prop_assert!(here.at_rate((part + 0.1) * bound).unwrap() > needed);
        }
    }
}
