//! Statistics for verdicts: tests that stay valid however often and whenever one looks. Pure functions of numbers;
//! usable alone.
//!
//! - [`proportion`]: claims about the share of samples that are bad, and, by counting those beyond a bound, about a
//!   quantile;
//! - [`quantile()`]: the quantile that samples have;
//! - [`gamma`]: the functions that these need.

pub mod gamma;
pub mod proportion;
mod quantile;

pub use quantile::quantile;
