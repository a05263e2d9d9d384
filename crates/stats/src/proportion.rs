//! Claims about the share of events that are bad, valid at any time.
//!
//! Each sample is bad or not. To show that the true share is *below* a bound, the evidence against "it is the bound or
//! more" is gathered as an e-process: the likelihood of what was seen, averaged over all shares below the bound, over
//! its likelihood at the bound. As long as the truth is not below the bound the expectation of that ratio never rises
//! above 1, so that by Ville's inequality it ever reaches `1 / alpha` with probability `alpha` at most, however often
//! one looks and whenever one stops. It is the beta-binomial mixture of Robbins (1970) with the uniform prior cut to
//! one side; see Howard, Ramdas, McAuliffe & Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence
//! sequences", and Lindon & Malek (2022), "Anytime-valid inference for multinomial count data".
//!
//! A claim about a quantile is one about a share: the 99th percentile is below 300 ms where less than 1 % of the samples
//! are not below 300 ms.
//!
//! What is assumed: one sample's being bad does not make the next one's more or less likely than the bound says. What
//! is *not* assumed is that the share stays the same.

use crate::bernoulli::{BetaMixture, count};

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Bad samples.
    pub bad: u64,
    /// All samples; at least as many as are bad.
    pub all: u64,
}

/// Whether the true share is below or above a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// It is below the bound.
    Below,
    /// It is above the bound.
    Above,
    /// Neither is shown yet.
    Undecided,
}

impl Count {
    /// `ln` of the evidence that the true share is below `bound`; `bound` is within 0 and 1, both excluded (NaN
    /// otherwise).
    pub fn ln_evidence_below(self, bound: f64) -> f64 {
        if !(bound > 0.0 && bound < 1.0) {
            return f64::NAN;
        }
        let (bad, good) = self.parts();
        BetaMixture::UNIFORM.ln_below(bad, good, bound)
    }

    /// `ln` of the evidence that the true share is above `bound`; `bound` is within 0 and 1, both excluded (NaN
    /// otherwise).
    pub fn ln_evidence_above(self, bound: f64) -> f64 {
        self.mirrored().ln_evidence_below(1.0 - bound)
    }

    /// Whether the true share is shown to be on one side of `bound`; either is wrong with a probability of at most
    /// `alpha`. No number of samples shows that a share is below 0 or above 1, and none anything with an `alpha` that is
    /// not strictly between 0 and 1.
    pub fn decide(self, bound: f64, alpha: f64) -> Shown {
        let enough = enough(alpha);
        if bound <= 0.0 {
            return if self.bad > 0 && enough.is_finite() { Shown::Above } else { Shown::Undecided };
        }
        // Written so that NaN decides nothing.
        let within = bound < 1.0;
        let (bad, good) = self.parts();
        if within && BetaMixture::UNIFORM.shows_ln_below(bad, good, bound, enough) {
            Shown::Below
        } else if within && BetaMixture::UNIFORM.shows_ln_below(good, bad, 1.0 - bound, enough) {
            Shown::Above
        } else {
            Shown::Undecided
        }
    }

    /// The smallest bound that the true share is shown to be below: the upper end of a one-sided confidence sequence
    /// of level `1 - alpha`. 1 without samples.
    pub fn upper_bound(self, alpha: f64) -> f64 {
        let (bad, good) = self.parts();
        let enough = enough(alpha);
        let (mut low, mut high) = ((bad + 1.0) / (bad + good + 1.0), 1.0);
        // From `low` on the evidence rises with the bound, so that the set of bounds that are shown is an interval.
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if middle >= 1.0 || self.ln_evidence_below(middle) >= enough {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// The largest bound that the true share is shown to be above; 0 without samples.
    pub fn lower_bound(self, alpha: f64) -> f64 {
        1.0 - self.mirrored().upper_bound(alpha)
    }

    /// How many samples in all it takes to show that the true share is below `bound`, if as large a share goes on to be
    /// bad as was so far (none, if there are no samples yet). `None` if it would never be shown, or not with a thousand
    /// million samples.
    pub fn needed_below(self, bound: f64, alpha: f64) -> Option<u64> {
        const LIMIT: u64 = 1_000_000_000;
        let (bad, good) = self.parts();
        let share = if self.all == 0 { 0.0 } else { bad / (bad + good) };
        if !(bound > 0.0 && bound < 1.0 && share < bound && enough(alpha).is_finite()) {
            return None;
        }
        let shown = |all: u64| {
            #[expect(clippy::cast_precision_loss, reason = "within the limit above")]
            let bad = share * all as f64;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the limit above")]
            let bad = bad.round() as u64;
            Count { bad: bad.max(self.bad), all }.ln_evidence_below(bound) >= enough(alpha)
        };
        let mut low = self.all;
        let mut high = self.all.max(1);
        while !shown(high) {
            low = high;
            high *= 2;
            if high > LIMIT {
                return None;
            }
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if shown(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }

    const fn parts(self) -> (f64, f64) {
        (count(self.bad), count(self.all.saturating_sub(self.bad)))
    }

    fn mirrored(self) -> Self {
        Self { bad: self.all.saturating_sub(self.bad), all: self.all }
    }
}

/// `ln` of the evidence that suffices: of one that is no probability, none does.
fn enough(alpha: f64) -> f64 {
    if alpha > 0.0 && alpha < 1.0 { -alpha.ln() } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-8 * wanted.abs().max(1.0), "{found} is not {wanted}");
    }

    const fn count(bad: u64, all: u64) -> Count {
        Count { bad, all }
    }

    // Golden values: mpmath with 50 digits, the integral of the likelihood taken numerically.
    #[test]
    fn golden_values() {
        close(count(0, 100).ln_evidence_below(0.01), 0.54508298869583);
        close(count(0, 650).ln_evidence_below(0.01), 4.6579373152848);
        close(count(3, 1000).ln_evidence_below(0.01), 2.593557900369);
        close(count(20, 1000).ln_evidence_below(0.01), -2.4718294202603);
        close(count(40, 100).ln_evidence_below(0.5), 0.5788911232206);
        close(count(5, 10).ln_evidence_above(0.01), 15.158828584309);
        close(count(20, 1000).ln_evidence_above(0.01), -0.57572907849878);
        close(count(60, 100).ln_evidence_above(0.5), 0.5788911232206);
        assert_eq!(count(0, 0).needed_below(0.01, 0.01), Some(644));
        assert_eq!(count(0, 0).needed_below(0.05, 0.05), Some(88));
        assert_eq!(count(0, 0).needed_below(0.001, 0.01), Some(6471));
    }

    #[test]
    fn bounds_are_where_the_evidence_begins_to_suffice() {
        for c in [count(0, 10), count(3, 100), count(50, 100), count(97, 100), count(1, 100_000)] {
            let (low, high) = (c.lower_bound(0.01), c.upper_bound(0.01));
            let share = c.bad as f64 / c.all as f64;
            assert!(low <= share && share < high, "{c:?}: {low}..{high}");
            assert_eq!(c.decide((high + 1e-9).min(0.999_999), 0.01), Shown::Below);
            assert_eq!(c.decide(share.clamp(1e-6, 1.0 - 1e-6), 0.01), Shown::Undecided);
        }
        assert_eq!(count(0, 0).upper_bound(0.01), 1.0);
        assert_eq!(count(0, 0).lower_bound(0.01), 0.0);
        assert_eq!(count(5, 5).upper_bound(0.01), 1.0);
    }

    #[test]
    fn what_is_needed_suffices_and_one_less_does_not() {
        for (c, bound) in [(count(0, 0), 0.01), (count(0, 100), 0.01), (count(1, 50), 0.05), (count(4, 9), 0.5)] {
            let needed = c.needed_below(bound, 0.01).unwrap();
            assert!(needed > c.all, "{c:?}");
            if c.bad == 0 {
                assert_eq!(count(0, needed).decide(bound, 0.01), Shown::Below);
                assert_eq!(count(0, needed - 1).decide(bound, 0.01), Shown::Undecided);
            }
        }
        assert_eq!(count(2, 100).needed_below(0.01, 0.01), None);
        assert_eq!(count(0, 100).needed_below(0.0, 0.01), None);
    }

    #[test]
    fn perfection_is_refuted_by_one_and_shown_by_none() {
        assert_eq!(count(0, 1_000_000).decide(0.0, 0.01), Shown::Undecided);
        assert_eq!(count(1, 1_000_000).decide(0.0, 0.01), Shown::Above);
    }

    /// A generator for the simulation alone (SplitMix64, Steele, Lea & Flood 2014).
    fn uniform(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn looking_after_every_sample_does_not_lie() {
        // The truth is the bound itself, the worst case; alpha is 5 %. A fixed-size test that looks each time would
        // be wrong in far more than a quarter of the runs.
        let (runs, length, bound, alpha) = (400, 600, 0.1, 0.05);
        let mut state = 1;
        let mut wrong = 0;
        for _ in 0..runs {
            let mut c = count(0, 0);
            for _ in 0..length {
                c.all += 1;
                c.bad += u64::from(uniform(&mut state) < bound);
                if c.decide(bound, alpha) == Shown::Below {
                    wrong += 1;
                    break;
                }
            }
        }
        // 20 of 400 are expected at most; 32 is beyond three standard deviations.
        assert!(wrong <= 32, "{wrong} of {runs}");
    }

    #[test]
    fn a_real_difference_is_seen() {
        let mut state = 7;
        let mut c = count(0, 0);
        while c.decide(0.1, 0.01) == Shown::Undecided {
            c.all += 1;
            c.bad += u64::from(uniform(&mut state) < 0.5);
            assert!(c.all < 200);
        }
        assert_eq!(c.decide(0.1, 0.01), Shown::Above);
    }
}
