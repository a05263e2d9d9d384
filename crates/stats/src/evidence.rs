//! Evidence against a hypothesis (e-values), and how much of it is enough.
//!
//! An e-value is a number that, if the hypothesis is true, is 1 or less on average. One of 100 is as surprising as
//! winning 100 times one's stake in a fair game. An *e-process* is an e-value after every sample whose stake was laid
//! once, at the beginning: by Ville's inequality (1939) it ever reaches `1 / alpha` with a probability of at most
//! `alpha`, however often one looks and whenever one stops. See Ramdas, Grünwald, Vovk & Shafer (2023), "Game-theoretic
//! statistics and safe anytime-valid inference".

use crate::error::{Error, check};

/// The probability of being wrong that is accepted, for a whole run; strictly between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Alpha(f64);

impl Alpha {
    /// 0.01 for a confidence of 99 %.
    ///
    /// # Errors
    /// Unless `0 < alpha < 1`.
    pub fn new(alpha: f64) -> Result<Self, Error> {
        check(alpha, "alpha", "above 0 and below 1", |v| v > 0.0 && v < 1.0).map(Self)
    }

    /// The probability.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// `ln (1 / alpha)`: the logarithm of the evidence that suffices. Above 0.
    pub fn enough(self) -> f64 {
        -self.0.ln()
    }

    /// An equal share of it, for each of `parts` claims of which none may be wrong (Bonferroni); all of it for 0.
    #[must_use]
    pub fn split(self, parts: u32) -> Self {
        Self((self.0 / f64::from(parts.max(1))).max(f64::MIN_POSITIVE))
    }
}

/// A share strictly between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// 0.99 for 99 %.
    ///
    /// # Errors
    /// Unless `0 < share < 1`.
    pub fn new(share: f64) -> Result<Self, Error> {
        check(share, "a share", "above 0 and below 1", |v| v > 0.0 && v < 1.0).map(Self)
    }

    /// The share.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// What is missing to 1.
    #[must_use]
    pub const fn rest(self) -> f64 {
        1.0 - self.0
    }
}

/// Evidence against a hypothesis. Kept as a logarithm: that of a long run is far outside of what an `f64` holds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Evidence {
    ln: f64,
}

impl Evidence {
    /// Nothing was seen: an e-value of 1.
    pub const NONE: Self = Self { ln: 0.0 };

    /// From the logarithm of an e-value. NaN is no evidence at all: an e-value of 0.
    pub const fn from_ln(ln: f64) -> Self {
        Self { ln: if ln.is_nan() { f64::NEG_INFINITY } else { ln } }
    }

    /// The natural logarithm of the e-value; minus infinity for 0.
    pub const fn ln(self) -> f64 {
        self.ln
    }

    /// The e-value; infinite where an `f64` does not hold it.
    pub fn value(self) -> f64 {
        self.ln.exp()
    }

    /// Whether it suffices to reject the hypothesis.
    pub fn rejects(self, alpha: Alpha) -> bool {
        self.ln >= alpha.enough()
    }

    /// The largest probability that the hypothesis leaves for as much evidence: `min(1, 1 / e)` (Markov).
    pub fn p_value(self) -> f64 {
        (-self.ln).exp().min(1.0)
    }
}

/// The most evidence that an e-process ever showed: what a decision rests on, since what was once shown stays shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Highest(Evidence);

impl Default for Highest {
    fn default() -> Self {
        Self(Evidence::NONE)
    }
}

impl Highest {
    /// Takes note of what the process shows now, and returns the most that it showed.
    pub fn see(&mut self, now: Evidence) -> Evidence {
        if now.ln > self.0.ln {
            self.0 = now;
        }
        self.0
    }

    /// The most that it showed; its `p_value` is the anytime-valid one, which never rises.
    pub const fn get(&self) -> Evidence {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probabilities_are_taken() {
        for bad in [0.0, 1.0, -0.1, 2.0, f64::NAN, f64::INFINITY] {
            assert!(Alpha::new(bad).is_err() && Share::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Alpha::new(2.0).unwrap_err().to_string(), "alpha is 2, but must be above 0 and below 1");
        let tiny = Alpha::new(f64::MIN_POSITIVE).unwrap().split(u32::MAX);
        assert!(tiny.enough().is_finite());
        assert_eq!(Alpha::new(0.05).unwrap().split(0).get(), 0.05);
    }

    #[test]
    fn evidence_suffices_from_one_over_alpha_on() {
        let alpha = Alpha::new(0.01).unwrap();
        assert!(Evidence::from_ln(100f64.ln()).rejects(alpha));
        assert!(!Evidence::from_ln(99.9f64.ln()).rejects(alpha));
        assert!(!Evidence::from_ln(f64::NAN).rejects(alpha));
        assert!(Evidence::from_ln(1e6).rejects(Alpha::new(f64::MIN_POSITIVE).unwrap()));
        assert_eq!(Evidence::NONE.p_value(), 1.0);
        assert_eq!(Evidence::from_ln(f64::NAN).p_value(), 1.0);
        assert!((Evidence::from_ln(20f64.ln()).p_value() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn what_was_shown_stays_shown() {
        let mut highest = Highest::default();
        assert_eq!(highest.see(Evidence::from_ln(-3.0)), Evidence::NONE);
        assert_eq!(highest.see(Evidence::from_ln(2.0)).ln(), 2.0);
        assert_eq!(highest.see(Evidence::from_ln(f64::NAN)).ln(), 2.0);
        assert_eq!(highest.get().ln(), 2.0);
    }
}
