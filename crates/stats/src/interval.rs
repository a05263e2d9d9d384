//! An interval of numbers, and what it says of a tolerance.

/// From `low` to `high`, both included; an end may be infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end; at least `low`.
    pub high: f64,
}

/// What a confidence sequence says of a tolerance. It may be asked after every sample: the sequence holds the truth at
/// all times at once, with probability `1 - alpha`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The truth is within the tolerance: stop, it is a success ("no harm shown" is not enough for that).
    Within,
    /// The truth is outside of the tolerance: stop, it is a failure.
    Outside,
    /// It may be either: go on.
    Undecided,
}

impl Interval {
    /// All numbers.
    pub const EVERYTHING: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    /// Whether `value` is in it.
    pub fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Holds a confidence sequence (`self`) against a tolerance: an equivalence test by inclusion, as Schuirmann's two
    /// one-sided tests (1987) but valid at any time. NaN is undecided.
    pub fn fit(self, tolerance: Self) -> Fit {
        if self.low >= tolerance.low && self.high <= tolerance.high {
            Fit::Within
        } else if self.high < tolerance.low || self.low > tolerance.high {
            Fit::Outside
        } else {
            Fit::Undecided
        }
    }

    /// What is in both; where nothing is, the point between them. The truth of a fixed quantity is in every member of
    /// a confidence sequence, so that members may be intersected.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        if low <= high { Self { low, high } } else { Self { low: high, high: low } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn to(low: f64, high: f64) -> Interval {
        Interval { low, high }
    }

    #[test]
    fn success_needs_the_whole_interval_within() {
        let tolerance = to(0.9, 1.1);
        assert_eq!(to(0.95, 1.05).fit(tolerance), Fit::Within);
        assert_eq!(to(0.9, 1.1).fit(tolerance), Fit::Within);
        assert_eq!(to(0.95, 1.2).fit(tolerance), Fit::Undecided);
        assert_eq!(to(0.0, 9.0).fit(tolerance), Fit::Undecided);
        assert_eq!(to(1.2, 1.3).fit(tolerance), Fit::Outside);
        assert_eq!(to(0.0, 0.8).fit(tolerance), Fit::Outside);
        assert_eq!(to(f64::NAN, f64::NAN).fit(tolerance), Fit::Undecided);
        assert_eq!(Interval::EVERYTHING.fit(tolerance), Fit::Undecided);
        assert_eq!(Interval::EVERYTHING.fit(Interval::EVERYTHING), Fit::Within);
    }

    #[test]
    fn intersections() {
        assert_eq!(to(0.0, 2.0).intersect(to(1.0, 3.0)), to(1.0, 2.0));
        assert_eq!(to(0.0, 1.0).intersect(to(2.0, 3.0)), to(1.0, 2.0));
        assert!(to(0.0, 1.0).contains(1.0) && !to(0.0, 1.0).contains(1.1) && !to(0.0, 1.0).contains(f64::NAN));
    }
}
