//! Events in a length of time: are there more, or fewer, than a known rate?
//!
//! The gamma-Poisson mixture: the likelihood of `k` events in the time `t`, averaged over a gamma distribution of
//! possible rates, over its likelihood at the rate in question (Howard et al. 2021, proposition 5; Lindon & Malek 2022
//! for rates that change). Computed, as in [`bernoulli`](crate::bernoulli), as a ratio of densities.
//!
//! Assumed: events come one by one, none making the next more likely, at the rate in question (for [`GammaMixture::above`]:
//! at most at it; for [`GammaMixture::below`]: at least). For crashes, alarms, failovers; where requests are counted as
//! well, [`bernoulli`](crate::bernoulli) knows more.

use crate::bernoulli::{count, sharpest_rho};
use crate::error::{Error, check, positive};
use crate::evidence::{Alpha, Evidence};
use crate::gamma::{ln_gamma_kernel, ln_inc_gamma_lower, ln_inc_gamma_upper};
use crate::interval::Interval;

/// The rates that the evidence is looked for at: a gamma distribution, chosen before the first event.
///
/// ```
/// use toprope_stats::{Alpha, poisson::GammaMixture};
/// # fn main() -> Result<(), toprope_stats::Error> {
/// // As a rule 2 restarts per hour; the test is the sharpest after about 4 hours.
/// let alpha = Alpha::new(0.01)?;
/// let test = GammaMixture::sharpest_at(2.0, 4.0, alpha)?;
/// assert!(!test.above(11, 4.0, 2.0)?.rejects(alpha));
/// assert!(test.above(21, 4.0, 2.0)?.rejects(alpha));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GammaMixture {
    shape: f64,
    time: f64,
}

impl GammaMixture {
    /// As if `shape` events had been seen in `time` beforehand; `time` in the unit that rates are in.
    ///
    /// # Errors
    /// Unless both are finite and above 0.
    pub fn new(shape: f64, time: f64) -> Result<Self, Error> {
        Ok(Self { shape: positive(shape, "the shape")?, time: positive(time, "the time beforehand")? })
    }

    /// Around `rate`, such that the test of `rate` is about the sharpest after `time` (as the authors' `confseq`).
    ///
    /// # Errors
    /// Unless both are finite and above 0, and `rate * time` too.
    pub fn sharpest_at(rate: f64, time: f64, alpha: Alpha) -> Result<Self, Error> {
        let expected =
            positive(positive(rate, "the rate")? * positive(time, "the time")?, "the expected number of events")?;
        let rho = sharpest_rho(expected, alpha);
        Self::new(rho, rho / rate)
    }

    /// Evidence that the rate is not `rate`, after `events` in `time`.
    ///
    /// # Errors
    /// Unless `rate` is finite and above 0, and `time` finite and not below 0.
    pub fn differs(self, events: u64, time: f64, rate: f64) -> Result<Evidence, Error> {
        self.checked(time, rate)?;
        Ok(Evidence::from_ln(self.ln(events, time, rate)))
    }

    /// Evidence that the rate is above `rate`, after `events` in `time`.
    ///
    /// # Errors
    /// As [`GammaMixture::differs`].
    pub fn above(self, events: u64, time: f64, rate: f64) -> Result<Evidence, Error> {
        self.one_sided(events, time, rate, ln_inc_gamma_upper)
    }

    /// Evidence that the rate is below `rate`, after `events` in `time`.
    ///
    /// # Errors
    /// As [`GammaMixture::differs`].
    pub fn below(self, events: u64, time: f64, rate: f64) -> Result<Evidence, Error> {
        self.one_sided(events, time, rate, ln_inc_gamma_lower)
    }

    /// The confidence sequence for the rate, after `events` in `time`: from 0 to infinity if nothing was watched yet.
    ///
    /// # Errors
    /// Unless `time` is finite and not below 0.
    pub fn interval(self, events: u64, time: f64, alpha: Alpha) -> Result<Interval, Error> {
        self.checked(time, 1.0)?;
        if time == 0.0 {
            return Ok(Interval { low: 0.0, high: f64::INFINITY });
        }
        let rejected = |ln_rate: f64| self.ln(events, time, ln_rate.exp()) >= alpha.enough();
        // The evidence is least at the rate seen, and grows to both sides.
        let seen = (count(events).max(1e-300) / time).ln();
        let end = |direction: f64| {
            let (mut inside, mut outside, mut step) = (seen, seen + direction, 2.0);
            while !rejected(outside) && outside.abs() < 1500.0 {
                inside = outside;
                outside += direction * step;
                step *= 2.0;
            }
            for _ in 0..60 {
                let middle = f64::midpoint(inside, outside);
                if rejected(middle) { outside = middle } else { inside = middle }
            }
            outside.exp()
        };
        Ok(Interval { low: if events == 0 { 0.0 } else { end(-1.0) }, high: end(1.0) })
    }

    fn checked(self, time: f64, rate: f64) -> Result<(), Error> {
        positive(rate, "the rate")?;
        check(time, "the time", "finite and not below 0", |v| v >= 0.0 && v.is_finite()).map(drop)
    }

    fn ln(self, events: u64, time: f64, rate: f64) -> f64 {
        let after = ln_gamma_kernel((self.time + time) * rate, self.shape + count(events));
        ln_gamma_kernel(self.time * rate, self.shape) - after
    }

    fn one_sided(self, events: u64, time: f64, rate: f64, part: fn(f64, f64) -> f64) -> Result<Evidence, Error> {
        self.checked(time, rate)?;
        let after = part(self.shape + count(events), (self.time + time) * rate);
        Ok(Evidence::from_ln(self.ln(events, time, rate) + after - part(self.shape, self.time * rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::{Random, false_alarms};

    fn alpha() -> Alpha {
        Alpha::new(0.05).unwrap()
    }

    #[test]
    fn golden_values() {
        let at = |x: &[f64]| (GammaMixture::new(x[0], x[1]).unwrap(), x[2] as u64, x[3], x[4]);
        for (name, test) in [
            ("poisson differs", GammaMixture::differs as fn(_, _, _, _) -> _),
            ("poisson above", GammaMixture::above),
            ("poisson below", GammaMixture::below),
        ] {
            golden(name, 1e-9, |x| {
                let (mixture, events, time, rate) = at(x);
                test(mixture, events, time, rate).unwrap().ln()
            });
        }
        golden("poisson interval low", 1e-9, |x| {
            at(x).0.interval(at(x).1, x[3], Alpha::new(x[4]).unwrap()).unwrap().low
        });
        golden("poisson interval high", 1e-9, |x| {
            at(x).0.interval(at(x).1, x[3], Alpha::new(x[4]).unwrap()).unwrap().high
        });
        // confseq tunes its one-sided mixture with twice the alpha.
        golden("confseq gamma-poisson", 1e-8, |x| {
            let [events, expected, tuned_for, tuned] = *x else { unreachable!() };
            let mixture = GammaMixture::sharpest_at(1.0, tuned_for, Alpha::new(2.0 * tuned).unwrap()).unwrap();
            mixture.above(events as u64, expected, 1.0).unwrap().ln()
        });
    }

    #[test]
    fn looking_after_every_event_does_not_lie() {
        let mixture = GammaMixture::sharpest_at(2.0, 20.0, alpha()).unwrap();
        let alarms = |test: fn(GammaMixture, u64, f64, f64) -> Result<Evidence, Error>| {
            false_alarms(10_000, 100, |random: &mut Random, (events, time): &mut (u64, f64)| {
                // Just before an event fewest were seen, and just after it most.
                *time += random.exponential() / 2.0;
                let before = test(mixture, *events, *time, 2.0).unwrap().rejects(alpha());
                *events += 1;
                before || test(mixture, *events, *time, 2.0).unwrap().rejects(alpha())
            })
        };
        assert!(alarms(GammaMixture::above) <= 0.05);
        assert!(alarms(GammaMixture::below) <= 0.05);
        assert!(alarms(GammaMixture::differs) <= 0.05);
    }

    #[test]
    fn intervals_hold_the_rate_seen() {
        let mixture = GammaMixture::new(1.0, 1.0).unwrap();
        for (events, time) in [(0, 5.0), (1, 1e-6), (40, 10.0), (1_000_000_000_000, 1e9)] {
            let found = mixture.interval(events, time, alpha()).unwrap();
            assert!(found.contains(events as f64 / time), "{found:?}");
            let ln = mixture.differs(events, time, found.high).unwrap().ln();
            assert!((ln - 20f64.ln()).abs() < 1e-3, "{ln}");
        }
        assert_eq!(mixture.interval(0, 0.0, alpha()).unwrap(), Interval { low: 0.0, high: f64::INFINITY });
    }

    #[test]
    fn odd_arguments() {
        let mixture = GammaMixture::new(1.0, 1.0).unwrap();
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(GammaMixture::new(bad, 1.0).is_err() && GammaMixture::new(1.0, bad).is_err());
            assert!(GammaMixture::sharpest_at(bad, 1.0, alpha()).is_err());
            assert!(mixture.differs(1, bad, 1.0).is_err() && mixture.above(1, 1.0, bad).is_err());
            assert!(mixture.interval(1, bad, alpha()).is_err());
        }
        assert!(mixture.below(1, 1.0, 0.0).is_err());
        assert!(GammaMixture::sharpest_at(1e-200, 1e-200, alpha()).is_err());
        assert_eq!(mixture.above(0, 0.0, 3.0).unwrap().value(), 1.0);
        assert!(mixture.above(u64::MAX, 1.0, 1.0).unwrap().ln() > 1e18);
    }

    proptest::proptest! {
        #[test]
        fn more_events_are_more_evidence_for_more(events in 0..5_000u64, time in 0.001..1e4f64, rate in 1e-3..1e3f64) {
            let mixture = GammaMixture::new(2.0, 2.0 / rate).unwrap();
            let ln = |events| mixture.above(events, time, rate).unwrap().ln();
            proptest::prop_assert!(ln(events + 1) > ln(events));
        }
    }
}
