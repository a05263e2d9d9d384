//! The anatomy of an outage: when it began to show, and when it was over.

use super::evidence::Seen;

/// How many good samples in a row are needed to say that a probe is back.
pub(super) const BACK: usize = 3;

/// What was bad, as times in nanoseconds since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outage {
    /// The answer of the first bad sample.
    pub(super) detected: u64,
    /// The answer of the first of at least [`BACK`] good samples that no bad one follows.
    pub(super) back: Option<u64>,
}

/// Finds the outage in a probe's samples since the first injection, in the order in which they were asked.
pub(super) fn outage(samples: &[Seen], bad: impl Fn(&Seen) -> bool) -> Option<Outage> {
    // Slow bad samples answer late: what is seen first is the earliest answer.
    let detected = samples.iter().filter(|s| bad(s)).map(|s| s.at).min()?;
    let last = samples.iter().rposition(bad)?;
    let good = &samples[last + 1..];
    let back = (good.len() >= BACK).then(|| good[0].at.max(detected));
    Some(Outage { detected, back })
}

/// From an instant to a later one, in milliseconds; 0 if it is not later.
pub(super) fn between(from: u64, to: u64) -> f64 {
    super::words::ms(to.saturating_sub(from))
}
