//! Samples in order: what quantiles and distribution functions are read from.

use crate::error::{Error, no_nan};
use crate::quantile::rank;

/// Sorted samples; infinite ones may be (a time-out is a latency without end), NaN not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Sorts samples.
    ///
    /// # Errors
    /// If one is NaN.
    pub fn new(mut samples: Vec<f64>) -> Result<Self, Error> {
        no_nan(&samples, "a sample")?;
        samples.sort_unstable_by(f64::total_cmp);
        Ok(Self(samples))
    }

    /// How many there are.
    pub const fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The samples, the smallest first.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// How many are at most `value`.
    pub fn at_most(&self, value: f64) -> u64 {
        self.0.partition_point(|v| *v <= value) as u64
    }

    /// How many are below `value`.
    pub fn below(&self, value: f64) -> u64 {
        self.0.partition_point(|v| *v < value) as u64
    }

    /// The sample of this rank, from 1.
    pub fn at_rank(&self, rank: u64) -> Option<f64> {
        self.0.get(usize::try_from(rank.checked_sub(1)?).ok()?).copied()
    }

    /// The `q`-quantile by nearest rank; as [`quantile`](crate::quantile()).
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.at_rank(rank(self.len(), q))
    }

    /// What is between two ranks; beyond the first and the last sample nothing is known.
    pub(crate) fn between(&self, ranks: Ranks) -> crate::Interval {
        crate::Interval {
            low: self.at_rank(ranks.low).unwrap_or(f64::NEG_INFINITY),
            high: self.at_rank(ranks.high).unwrap_or(f64::INFINITY),
        }
    }
}

/// The ranks, from 1, of the samples that a quantile is between; 0, or more than there are samples, where no sample is
/// known to be beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// The quantile is at least the sample of this rank.
    pub low: u64,
    /// The quantile is at most the sample of this rank.
    pub high: u64,
}

impl Ranks {
    /// Where, of `n` samples, at least `low` are at most the quantile and at most `high` are below it.
    pub(crate) fn around(n: u64, low: f64, high: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
        let (low, high) = (low.ceil().max(0.0) as u64, high.floor().max(0.0) as u64);
        Self { low: low.min(n), high: high.min(n).saturating_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ranks_are_of_the_sorted_samples() {
        let samples = Samples::new(vec![3.0, 1.0, 2.0, 2.0, f64::INFINITY]).unwrap();
        assert_eq!((samples.at_most(2.0), samples.below(2.0), samples.len()), (3, 1, 5));
        assert_eq!((samples.at_rank(0), samples.at_rank(5), samples.at_rank(6)), (None, Some(f64::INFINITY), None));
        assert_eq!(samples.quantile(0.5), Some(2.0));
        assert!(Samples::new(vec![1.0, f64::NAN]).is_err());
        assert!(Samples::default().is_empty() && Samples::default().quantile(0.5).is_none());
    }

    #[test]
    fn ranks_stay_within_what_there_is() {
        assert_eq!(Ranks::around(10, -3.0, 99.0), Ranks { low: 0, high: 11 });
        assert_eq!(Ranks::around(10, 2.1, 4.9), Ranks { low: 3, high: 5 });
        assert_eq!(Ranks::around(u64::MAX, 0.0, f64::INFINITY), Ranks { low: 0, high: u64::MAX });
    }
}
