//! One share (a Bernoulli rate): is it this, more than this, less than this, and between which bounds is it?
//!
//! The beta-binomial mixture of Robbins (1970): the likelihood of what was seen, averaged over a beta distribution of
//! possible shares, over its likelihood at the share in question. Its logarithm is `ln B(a + h, b + m) - ln B(a, b) -
//! h ln p - m ln (1 - p)` after `h` hits and `m` misses; see Howard, Ramdas, McAuliffe & Sekhon (2021), "Time-uniform,
//! nonparametric, nonasymptotic confidence sequences". It is computed as the density at `p` before the samples over the
//! density after them (Savage and Dickey's ratio), in which nothing cancels however many samples there are.
//!
//! Assumed: whatever came before, the next sample is a hit with the share in question (for [`BetaMixture::above`]: at
//! most with it; for [`BetaMixture::below`]: at least). The share itself may drift as long as that stays true.

use crate::error::{Error, positive};
use crate::evidence::{Alpha, Evidence, Share};
use crate::gamma::{ln_beta_kernel_at, ln_inc_beta};
use crate::interval::Interval;

/// The shares that the evidence is looked for at: a beta distribution, chosen before the first sample. It decides how
/// fast a difference is found, and never how often one is found that is not there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BetaMixture {
    a: f64,
    b: f64,
}

impl BetaMixture {
    /// All shares alike.
    pub const UNIFORM: Self = Self { a: 1.0, b: 1.0 };

    /// The beta distribution with `a` hits and `b` misses beforehand.
    ///
    /// # Errors
    /// Unless both are finite and above 0.
    pub fn new(a: f64, b: f64) -> Result<Self, Error> {
        Ok(Self { a: positive(a, "a")?, b: positive(b, "b")? })
    }

    /// Around `mean`, with the weight of `weight` samples: what finds differences from `mean` that are small.
    ///
    /// # Errors
    /// Unless `weight` is finite and above 0.
    pub fn around(mean: Share, weight: f64) -> Result<Self, Error> {
        let weight = positive(weight, "the weight")?;
        // A share of 1e-300 of a small weight is still one.
        Self::new((mean.get() * weight).max(f64::MIN_POSITIVE), (mean.rest() * weight).max(f64::MIN_POSITIVE))
    }

    /// Around `mean`, such that the two-sided test of `mean` is about the sharpest after `samples` samples (Howard et
    /// al. 2021, section 3.5, and the authors' program `confseq`).
    ///
    /// # Errors
    /// Unless `samples` is finite and above 0.
    pub fn sharpest_at(mean: Share, samples: f64, alpha: Alpha) -> Result<Self, Error> {
        let variance = mean.get() * mean.rest();
        let rho = sharpest_rho(positive(samples, "the number of samples")? * variance, alpha);
        let r = (rho - variance).max(1e-3 * variance);
        Self::new(r / mean.rest(), r / mean.get())
    }

    /// Evidence that the share is not `p`.
    pub fn differs(self, hits: u64, misses: u64, p: Share) -> Evidence {
        Evidence::from_ln(self.ln(hits, misses, p.get()))
    }

    /// Evidence that the share is above `p`, by the mixture cut to what is above: valid whatever the share below is.
    pub fn above(self, hits: u64, misses: u64, p: Share) -> Evidence {
        Evidence::from_ln(self.mirrored().ln_below(count(misses), count(hits), p.rest()))
    }

    /// Evidence that the share is below `p`, by the mixture cut to what is below: valid whatever the share above is.
    pub fn below(self, hits: u64, misses: u64, p: Share) -> Evidence {
        Evidence::from_ln(self.ln_below(count(hits), count(misses), p.get()))
    }

    /// As `above(…).rejects(alpha)`, but in a few nanoseconds as long as the evidence is far from enough.
    pub fn shows_above(self, hits: u64, misses: u64, p: Share, alpha: Alpha) -> bool {
        self.mirrored().shows_ln_below(count(misses), count(hits), p.rest(), alpha.enough())
    }

    /// As `below(…).rejects(alpha)`, but in a few nanoseconds as long as the evidence is far from enough.
    pub fn shows_below(self, hits: u64, misses: u64, p: Share, alpha: Alpha) -> bool {
        self.shows_ln_below(count(hits), count(misses), p.get(), alpha.enough())
    }

    /// The logarithm of [`BetaMixture::differs`] at `p`, for many counts: what depends on `p` alone is computed once.
    pub(crate) fn at(self, p: Share) -> impl Fn(f64, f64) -> f64 {
        let before = ln_beta_kernel_at(p.get(), p.rest(), self.a, self.b);
        move |hits, misses| before - ln_beta_kernel_at(p.get(), p.rest(), self.a + hits, self.b + misses)
    }

    /// The confidence sequence for the share: all shares that are not rejected. It may be asked after every sample.
    pub fn interval(self, hits: u64, misses: u64, alpha: Alpha) -> Interval {
        let low = if hits == 0 { 0.0 } else { expit(self.end(hits, misses, alpha, -1.0)) };
        let high = if misses == 0 { 1.0 } else { expit(self.end(hits, misses, alpha, 1.0)) };
        Interval { low, high }
    }

    /// The logit of the end of the confidence sequence in a direction, to the outer side. The evidence is a convex
    /// function of the share with its minimum at the share seen.
    fn end(self, hits: u64, misses: u64, alpha: Alpha, direction: f64) -> f64 {
        let (h, m) = (count(hits), count(misses));
        let rejected = |l: f64| self.ln_at(h, m, expit(l), expit(-l)) >= alpha.enough();
        // At the share seen, or close to 0 or 1 where that is seen, the evidence is not above 1.
        let mut inside = (h.max(1e-3) / m.max(1e-3)).ln();
        let mut step = 1.0;
        let mut outside = inside;
        loop {
            outside += direction * step;
            step *= 2.0;
            // Beyond that no `f64` tells the share from 0 or 1.
            if outside.abs() > 700.0 {
                outside = direction * 700.0;
                break;
            }
            if rejected(outside) {
                break;
            }
            inside = outside;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(inside, outside);
            if rejected(middle) { outside = middle } else { inside = middle }
        }
        outside
    }

    pub(crate) fn ln(self, hits: u64, misses: u64, p: f64) -> f64 {
        self.ln_real(count(hits), count(misses), p)
    }

    /// For counts that need not be whole.
    pub(crate) fn ln_real(self, hits: f64, misses: f64, p: f64) -> f64 {
        self.ln_at(hits, misses, p, 1.0 - p)
    }

    fn ln_at(self, hits: f64, misses: f64, p: f64, rest: f64) -> f64 {
        let after = ln_beta_kernel_at(p, rest, self.a + hits, self.b + misses);
        ln_beta_kernel_at(p, rest, self.a, self.b) - after
    }

    /// The logarithm of [`BetaMixture::below`], for counts that need not be whole.
    pub(crate) fn ln_below(self, hits: f64, misses: f64, p: f64) -> f64 {
        let after = ln_inc_beta(p, self.a + hits, self.b + misses);
        self.ln_real(hits, misses, p) + after - ln_inc_beta(p, self.a, self.b)
    }

    /// Whether `ln_below` reaches `enough`; cheap where it is far from that.
    pub(crate) fn shows_ln_below(self, hits: f64, misses: f64, p: f64, enough: f64) -> bool {
        // The share of the mixture that is below is 1 at most: without it there is no less evidence.
        let most = self.ln_real(hits, misses, p) - ln_inc_beta(p, self.a, self.b);
        most >= enough && self.ln_below(hits, misses, p) >= enough
    }

    /// By how many hits beyond the share `p` the evidence against `p` is about the least.
    pub(crate) fn shift(self, p: Share) -> f64 {
        (self.a + self.b - 1.0) * p.get() - self.a + 0.5
    }

    const fn mirrored(self) -> Self {
        Self { a: self.b, b: self.a }
    }
}

/// The precision of a normal mixture that is about the sharpest after a variance of `v` (Howard et al. 2021, eq. 26,
/// in the closed form of their program).
pub(crate) fn sharpest_rho(v: f64, alpha: Alpha) -> f64 {
    let twice = 2.0 * alpha.enough();
    v / (twice + (1.0 + twice).ln())
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 samples one more does not count")]
pub(crate) const fn count(n: u64) -> f64 {
    n as f64
}

pub(crate) fn expit(l: f64) -> f64 {
    1.0 / (1.0 + (-l).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::simulation::{Random, false_alarms, table};

    fn alpha(alpha: f64) -> Alpha {
        Alpha::new(alpha).unwrap()
    }

    #[test]
    fn golden_values() {
        let at =
            |x: &[f64]| (BetaMixture::new(x[0], x[1]).unwrap(), x[2] as u64, x[3] as u64, Share::new(x[4]).unwrap());
        golden("bernoulli differs", 1e-9, |x| {
            let (mixture, hits, misses, p) = at(x);
            mixture.differs(hits, misses, p).ln()
        });
        golden("bernoulli above", 1e-9, |x| {
            let (mixture, hits, misses, p) = at(x);
            mixture.above(hits, misses, p).ln()
        });
        golden("bernoulli below", 1e-9, |x| {
            let (mixture, hits, misses, p) = at(x);
            mixture.below(hits, misses, p).ln()
        });
        for (name, low) in [("bernoulli interval low", true), ("bernoulli interval high", false)] {
            golden(name, 1e-9, |x| {
                let found = BetaMixture::new(x[0], x[1]).unwrap().interval(x[2] as u64, x[3] as u64, alpha(x[4]));
                if low { found.low } else { found.high }
            });
        }
        // confseq tunes for `alpha_opt` and is given `v_opt = samples * p (1 - p)`.
        golden("confseq beta-binomial", 1e-8, |x| {
            let [hits, misses, p, samples, tuned] = *x else { unreachable!() };
            let p = Share::new(p).unwrap();
            let mixture = BetaMixture::sharpest_at(p, samples, alpha(tuned)).unwrap();
            mixture.differs(hits as u64, misses as u64, p).ln()
        });
    }

    #[test]
    fn the_short_cut_decides_alike() {
        let (p, alpha) = (Share::new(0.1).unwrap(), alpha(0.01));
        for mixture in [BetaMixture::UNIFORM, BetaMixture::around(p, 2.0).unwrap()] {
            for hits in 0..60 {
                for misses in 0..60 {
                    let above = mixture.above(hits, misses, p).rejects(alpha);
                    assert_eq!(mixture.shows_above(hits, misses, p, alpha), above);
                    let below = mixture.below(hits, misses, p).rejects(alpha);
                    assert_eq!(mixture.shows_below(hits, misses, p, alpha), below);
                    assert!(!(above && below));
                }
            }
        }
    }

    /// What an e-process must be: whatever was seen, its expectation after the next sample is what it is now (two
    /// sides), or no more (one side, all shares of the hypothesis).
    #[test]
    fn on_average_no_evidence_is_gained_when_there_is_nothing_to_find() {
        let mixture = BetaMixture::new(0.7, 2.5).unwrap();
        for p in [0.01, 0.3, 0.9] {
            let p = Share::new(p).unwrap();
            for (hits, misses) in (0..40).flat_map(|h| (0..40).map(move |m| (h, m))) {
                let expected = |test: &dyn Fn(u64, u64) -> Evidence, truth: f64| {
                    let now = test(hits, misses).value();
                    (truth * test(hits + 1, misses).value() + (1.0 - truth) * test(hits, misses + 1).value()) / now
                };
                let both = expected(&|h, m| mixture.differs(h, m, p), p.get());
                assert!((both - 1.0).abs() < 1e-9, "{both}");
                for part in [0.0, 0.5, 1.0] {
                    let above = expected(&|h, m| mixture.above(h, m, p), p.get() * part);
                    assert!(above <= 1.0 + 1e-9, "{above} with {hits}, {misses} at {part} of {p:?}");
                    let below = expected(&|h, m| mixture.below(h, m, p), p.get() + part * p.rest());
                    assert!(below <= 1.0 + 1e-9, "{below} with {hits}, {misses}");
                }
            }
        }
    }

    #[test]
    fn intervals_hold_what_was_seen_and_end_where_the_evidence_suffices() {
        for (hits, misses) in [(0, 0), (0, 5), (5, 0), (3, 400), (1, 1_000_000_000_000), (500_000_000_000, 3)] {
            let found = BetaMixture::UNIFORM.interval(hits, misses, alpha(0.05));
            assert!(0.0 <= found.low && found.low < found.high && found.high <= 1.0, "{found:?}");
            if hits > 0 && misses > 0 {
                assert!(found.contains(hits as f64 / (hits + misses) as f64), "{found:?}");
                for end in [found.low, found.high].into_iter().filter(|end| 1.0 - end > 1e-6) {
                    let ln = BetaMixture::UNIFORM.differs(hits, misses, Share::new(end).unwrap()).ln();
                    assert!((ln - 20f64.ln()).abs() < 1e-2, "{ln} at {end}");
                }
            }
        }
        assert_eq!(BetaMixture::UNIFORM.interval(0, 0, alpha(0.05)), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        let (p, alpha) = (Share::new(0.05).unwrap(), alpha(0.05));
        let mixture = BetaMixture::UNIFORM;
        let alarms = |test: &dyn Fn(u64, u64) -> bool| {
            let alarm = table(1_000, test);
            false_alarms(10_000, 1_000, |random: &mut Random, (hits, misses): &mut (usize, usize)| {
                if random.uniform() < p.get() {
                    *hits += 1
                } else {
                    *misses += 1
                }
                alarm[*hits][*misses]
            })
        };
        assert!(alarms(&|h, m| mixture.differs(h, m, p).rejects(alpha)) <= 0.05);
        assert!(alarms(&|h, m| mixture.shows_above(h, m, p, alpha)) <= 0.05);
        assert!(alarms(&|h, m| mixture.shows_below(h, m, p, alpha)) <= 0.05);
    }

    #[test]
    fn odd_arguments() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(BetaMixture::new(bad, 1.0).is_err() && BetaMixture::new(1.0, bad).is_err());
            assert!(BetaMixture::around(Share::new(0.5).unwrap(), bad).is_err());
            assert!(BetaMixture::sharpest_at(Share::new(0.5).unwrap(), bad, alpha(0.05)).is_err());
        }
        let tiny = Share::new(f64::MIN_POSITIVE).unwrap();
        assert!(BetaMixture::around(tiny, 1e-9).is_ok());
        let most = BetaMixture::UNIFORM.differs(u64::MAX, u64::MAX, Share::new(0.5).unwrap());
        assert!(most.ln() < 0.0 && most.ln() > -50.0, "{most:?}");
    }

    proptest::proptest! {
        #[test]
        fn more_hits_are_more_evidence_for_more(hits in 0..5_000u64, misses in 0..5_000u64, p in 0.001..0.999f64) {
            let p = Share::new(p).unwrap();
            let ln = |h, m| BetaMixture::UNIFORM.above(h, m, p).ln();
            proptest::prop_assert!(ln(hits + 1, misses) > ln(hits, misses));
            proptest::prop_assert!(ln(hits, misses + 1) < ln(hits, misses));
        }
    }
}
