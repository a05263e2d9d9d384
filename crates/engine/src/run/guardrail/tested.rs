//! The share of bad samples since the injection, tested after each.

use toprope_stats::bernoulli::BetaMixture;
use toprope_stats::{Alpha, Share};

use crate::verdict::words;

/// A test of whether the share of bad samples is above a limit: the beta-binomial mixture, cut to what is above.
#[derive(Debug)]
pub(super) struct Tested {
    /// The limit; `None` where one bad sample is too many, or none is (the check refuses that).
    limit: Option<Share>,
    alpha: Option<Alpha>,
    bad: u64,
    good: u64,
}

impl Tested {
    pub(super) fn new(limit: Option<f64>, alpha: Option<f64>) -> Self {
        Self {
            limit: limit.and_then(|l| Share::new(l).ok()),
            alpha: alpha.and_then(|a| Alpha::new(a).ok()),
            bad: 0,
            good: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        (self.bad, self.good) = (0, 0);
    }

    /// The share of bad samples seen.
    #[expect(clippy::cast_precision_loss, reason = "counts of samples")]
    pub(super) fn seen(&self) -> f64 {
        self.bad as f64 / (self.bad + self.good).max(1) as f64
    }

    /// Takes a sample; says what shows that the share is above the limit, if it does. Less than a microsecond.
    pub(super) fn push(&mut self, ok: bool) -> Option<String> {
        if ok {
            self.good += 1
        } else {
            self.bad += 1
        }
        let alpha = self.alpha?;
        let shown = match self.limit {
            Some(limit) => !ok && BetaMixture::UNIFORM.shows_above(self.bad, self.good, limit, alpha),
            None => !ok,
        };
        shown.then(|| {
            let evidence = self
                .limit
                .map_or(f64::INFINITY, |limit| BetaMixture::UNIFORM.above(self.bad, self.good, limit).value());
            evidence_in_words(self.bad, self.bad + self.good, evidence, alpha)
        })
    }
}

/// `12 of 40 since the injection (evidence 340, and 100 is enough)`.
pub(super) fn evidence_in_words(hits: u64, all: u64, evidence: f64, alpha: Alpha) -> String {
    format!(
        "{hits} of {all} since the injection (evidence {}, and {} is enough)",
        words::evidence(evidence),
        words::evidence(1.0 / alpha.get())
    )
}
