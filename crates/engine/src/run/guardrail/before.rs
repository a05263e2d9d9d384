//! Whether a probe is slower than in the steady state.
//!
//! Half of the error goes to what was before: the steady state shows a value that the percentile is not above. The other half
//! goes to what is now: the share of samples above that value (and what it may be larger by) is shown to be more than the
//! percentile leaves. Both are wrong together at most as often as is allowed (Bonferroni), whatever values look like.

use toprope_model::event::Sample;
use toprope_model::experiment::WorseThanBefore;
use toprope_stats::bernoulli::BetaMixture;
use toprope_stats::{Alpha, Samples, Share};

use super::tested::evidence_in_words;
use super::{Watched, with_unit};

/// The samples before, and what those since the injection are held against.
#[derive(Debug)]
pub(super) struct Before {
    by: f64,
    word: &'static str,
    share: Option<Share>,
    alpha: Option<Alpha>,
    before: Vec<f64>,
    /// A value that is above the percentile of the steady state by what is allowed.
    limit: Option<f64>,
    slower: u64,
    others: u64,
}

impl Before {
    pub(super) fn new(item: &WorseThanBefore, alpha: Option<f64>) -> Self {
        Self {
            by: item.by.share(),
            word: item.percentile.word(),
            share: Share::new(item.percentile.share()).ok(),
            alpha: alpha.and_then(|a| Alpha::new(a).ok()).map(|a| a.split(2)),
            before: Vec::new(),
            limit: None,
            slower: 0,
            others: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.before.clear();
        (self.limit, self.slower, self.others) = (None, 0, 0);
    }

    /// A bad sample is slower than any; a good one without a value says nothing.
    fn value(sample: &Sample) -> Option<f64> {
        if sample.ok { sample.value.filter(|v| !v.is_nan()) } else { Some(f64::INFINITY) }
    }

    pub(super) fn note(&mut self, sample: &Sample) {
        self.before.extend(Self::value(sample));
    }

    /// The steady state is over; says why to stop, if it does not show what was before.
    pub(super) fn begin(&mut self, watched: &Watched) -> Option<String> {
        let (share, alpha) = (self.share?, self.alpha?);
        let samples = Samples::new(std::mem::take(&mut self.before)).unwrap_or_default();
        self.limit = above(&samples, share, alpha).map(|value| value + self.by * value.abs());
        match self.limit {
            Some(_) => None,
            None => Some(format!(
                "the {} of {} in the steady state is not known well enough to tell whether it gets worse: {} yielded a \
                 value",
                self.word,
                watched.name,
                crate::verdict::words::samples(samples.len())
            )),
        }
    }

    pub(super) fn look(&mut self, sample: &Sample, watched: &Watched) -> Option<String> {
        let (share, alpha, limit) = (self.share?, self.alpha?, self.limit?);
        let slower = Self::value(sample)? > limit;
        if slower {
            self.slower += 1
        } else {
            self.others += 1
        }
        let all = self.slower + self.others;
        let (mixture, rest) = (BetaMixture::UNIFORM, Share::new(share.rest()).ok()?);
        if !slower || !mixture.shows_above(self.slower, self.others, rest, alpha) {
            return None;
        }
        let evidence = mixture.above(self.slower, self.others, rest).value();
        let why = evidence_in_words(self.slower, all, evidence, alpha);
        let limit = with_unit(limit, &watched.unit);
        let by = super::percent(self.by);
        Some(format!(
            "the {} of {} is more than {by} above that of the steady state: above {limit} were {why}",
            self.word, watched.name
        ))
    }
}

/// The smallest sample that the quantile is shown not to be above; `None` if there are too few.
fn above(samples: &Samples, share: Share, alpha: Alpha) -> Option<f64> {
    // Those at most the quantile are hits with that share: that they are more shows that the quantile is not above.
    let shown = |rank: u64| BetaMixture::UNIFORM.shows_above(rank, samples.len() - rank, share, alpha);
    // More samples at most a value are more evidence.
    let (mut not, mut is) = (0, samples.len());
    if is == 0 || !shown(is) {
        return None;
    }
    while is - not > 1 {
        let middle = not + (is - not) / 2;
        if shown(middle) { is = middle } else { not = middle }
    }
    samples.at_rank(is).filter(|value| value.is_finite())
}
