//! Statistics for verdicts that may be looked at whenever one likes.
//!
//! # The problem
//!
//! A run is watched while it goes on, and is stopped when it looks bad. The tests of textbooks do not allow that: they
//! promise "wrong in 1 of 100 cases" for *one* look at a number of samples that was fixed beforehand. Whoever looks after
//! every sample, and stops at the first alarm, is wrong in 15 of 100 cases and more. The tests here keep their promise
//! however often one looks and whenever one stops. They pay with some more samples, and have nothing to configure.
//!
//! # Which one?
//!
//! | You want to know | Use | You need |
//! | --- | --- | --- |
//! | Does the experiment have more errors than the control? How many times as many? | [`arms`] | errors of both, and how the traffic is split |
//! | Is the traffic split as it should be? (Ask this first.) | [`mismatch`] | requests of every arm |
//! | Are at least 99 % of the samples good? | [`proportion`] | good and bad samples |
//! | What is the error rate, from when to when? | [`bernoulli`] | good and bad samples |
//! | Is the 99th percentile below 300 ms? | [`proportion`], with a sample of 300 ms or more as bad | how many are |
//! | Between which values is the 99th percentile? | [`one_quantile`] | the samples, or a [`Histogram`] |
//! | Is the experiment's 99th percentile another one? | [`two_quantiles`] | the samples of both |
//! | Median, 99th and 99.9th percentile of the same samples | [`all_quantiles`] | the samples |
//! | Is the experiment slower anywhere, from the fastest to the slowest request? | [`cdf`] | the samples of both |
//! | What is the mean, of values that have a smallest and a largest one? | [`betting`] | the values and those bounds |
//! | What is the mean, of values whose spread is known? | [`mean`] | the values and their standard deviation |
//! | Are there more restarts (alarms, failovers) than 2 per hour? | [`poisson`] | how many there were, in which time |
//! | How long does recovery take, if some runs ended before it? | [`survival`] | times, and which ended early |
//! | Is it good enough to stop now? | [`Interval::fit`] | an interval of any of those, and a tolerance |
//! | Which of these 50 metrics changed? | [`combine`] | the [`Evidence`] of each |
//! | How many samples will it take? | [`needed`] | what is claimed, and how sure one wants to be |
//! | What did a fixed number of samples show? (For reports, never to decide.) | [`wilson`] | good and bad samples |
//!
//! # What the answers mean
//!
//! [`Evidence`] is what a gambler would have made of one coin by betting that the hypothesis is wrong, at odds that are
//! fair if it is right. Nobody makes 100 coins of one in fair games but once in 100 evenings. So, with an [`Alpha`] of 1 %,
//! evidence of 100 suffices ([`Evidence::rejects`]): a true hypothesis is *ever* rejected in at most 1 of 100 runs. What was
//! once shown stays shown, even if the evidence falls again ([`Highest`]).
//!
//! An [`Interval`] of an [`Alpha`] of 1 % holds the truth, at all times of a run at once, in 99 of 100 runs.
//!
//! Too little evidence is no evidence for the contrary. "No harm shown" after 20 requests says nothing; ask how many
//! samples it takes ([`needed`]), or whether the interval is within the tolerance ([`Interval::fit`]).
//!
//! # A guardrail
//!
//! ```
//! use toprope_stats::arms::{Errors, TwoArms};
//! use toprope_stats::{Alpha, Fit, Interval};
//!
//! # fn main() -> Result<(), toprope_stats::Error> {
//! let alpha = Alpha::new(0.01)?; // A false alarm in at most 1 of 100 runs.
//! let arms = TwoArms::new(50.0, 50.0)?; // Half of the traffic each.
//! let mut errors = Errors::default();
//! // The experiment fails ten times as often as the control.
//! for n in 1.. {
//!     if n % 11 == 0 { errors.control += 1 } else { errors.experiment += 1 }
//!     if arms.shows_worse(errors, alpha) {
//!         break; // Stop the run.
//!     }
//! }
//! assert!(errors.control + errors.experiment <= 14);
//!
//! // Good enough: at most 1.5 times as many errors as the control.
//! let tolerance = Interval { low: 0.0, high: 1.5 };
//! let ratio = |control, experiment| arms.rate_ratio(Errors { control, experiment }, alpha);
//! assert_eq!(ratio(30, 31).fit(tolerance), Fit::Undecided);
//! assert_eq!(ratio(300, 310).fit(tolerance), Fit::Within);
//! # Ok(())
//! # }
//! ```
//!
//! # How it is known to be right
//!
//! Each module names its source and what it assumes. Its functions are held against values of independent
//! implementations (`golden/golden.py`: the authors' `confseq`, `ville`, `scipy`, `mpmath`, `lifelines`, `statsmodels`), and
//! in 10,000 simulated runs in which there is nothing to find, with a look after every sample, no test raises an alarm in
//! more than the share `alpha`. Nothing panics: what a function is not defined for is an [`Error`]. Evidence is O(1) for
//! each sample, from counts alone, without a state that could drift.

pub mod all_quantiles;
pub mod arms;
pub mod bernoulli;
pub mod betting;
pub mod cdf;
pub mod combine;
mod error;
mod evidence;
pub mod gamma;
#[cfg(test)]
mod golden;
mod histogram;
mod interval;
pub mod mean;
pub mod mismatch;
pub mod needed;
pub mod normal;
pub mod one_quantile;
pub mod poisson;
pub mod proportion;
mod quadrature;
mod quantile;
mod samples;
#[cfg(test)]
mod simulation;
pub mod survival;
pub mod two_quantiles;
pub mod wilson;

pub use error::Error;
pub use evidence::{Alpha, Evidence, Highest, Share};
pub use histogram::Histogram;
pub use interval::{Fit, Interval};
pub use quantile::quantile;
pub use samples::{Ranks, Samples};
