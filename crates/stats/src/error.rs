//! What makes a call meaningless: numbers outside of what a function is defined for.

/// Why there is no answer. Nothing here panics; data is never half taken in.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter or a sample is outside of the range that its function is defined for; NaN always is.
    #[error("{what} is {value}, but must be {range}")]
    OutOfRange {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
    /// There is nothing to judge.
    #[error("{what} has no samples: take some first")]
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// Two histograms do not have the same buckets.
    #[error(
        "a histogram with a unit of {theirs} cannot be added to one with a unit of {ours}: make both with the same unit and digits"
    )]
    Incompatible {
        /// The unit of the one that is added to.
        ours: f64,
        /// The unit of the one that is added.
        theirs: f64,
    },
}

/// `value` if it fulfils `holds`; NaN must not.
pub(crate) fn check(
    value: f64,
    what: &'static str,
    range: &'static str,
    holds: impl FnOnce(f64) -> bool,
) -> Result<f64, Error> {
    if holds(value) { Ok(value) } else { Err(Error::OutOfRange { what, value, range }) }
}

/// A finite number.
pub(crate) fn finite(value: f64, what: &'static str) -> Result<f64, Error> {
    check(value, what, "a finite number", f64::is_finite)
}

/// A finite number above 0.
pub(crate) fn positive(value: f64, what: &'static str) -> Result<f64, Error> {
    check(value, what, "finite and above 0", |v| v > 0.0 && v.is_finite())
}

/// Every number of `values` is one; infinities may be (a time-out is a latency without end).
pub(crate) fn no_nan(values: &[f64], what: &'static str) -> Result<(), Error> {
    values.iter().try_for_each(|v| check(*v, what, "a number", |v| !v.is_nan()).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_was_wrong_and_what_would_be_right() {
        let error = positive(f64::NAN, "the exposure").unwrap_err();
        assert_eq!(error.to_string(), "the exposure is NaN, but must be finite and above 0");
        assert!(positive(0.0, "x").is_err() && positive(f64::INFINITY, "x").is_err());
        assert!(finite(f64::NEG_INFINITY, "x").is_err() && finite(-1e300, "x").is_ok());
        assert!(no_nan(&[1.0, f64::INFINITY], "x").is_ok() && no_nan(&[1.0, f64::NAN], "x").is_err());
    }
}
