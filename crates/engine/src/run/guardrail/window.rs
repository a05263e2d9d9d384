//! The share of bad samples over a time.

use std::collections::VecDeque;
use std::time::Duration;

use toprope_model::experiment::RATIO_SAMPLES;

/// The samples of the last `over`.
#[derive(Debug)]
pub(super) struct Window {
    over: u64,
    recent: VecDeque<(u64, bool)>,
    bad: usize,
}

impl Window {
    pub(super) fn new(over: Duration) -> Self {
        Self { over: u64::try_from(over.as_nanos()).unwrap_or(u64::MAX), recent: VecDeque::new(), bad: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.bad = 0;
    }

    /// Takes a sample; returns the bad ones and all, if the share of bad ones is larger than `above`.
    #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
    pub(super) fn push(&mut self, at: u64, ok: bool, above: f64) -> Option<(usize, usize)> {
        self.recent.push_back((at, ok));
        self.bad += usize::from(!ok);
        while let Some((then, ok)) = self.recent.front().copied()
            && at.saturating_sub(then) > self.over
        {
            self.recent.pop_front();
            self.bad -= usize::from(!ok);
        }
        let all = self.recent.len();
        (all >= RATIO_SAMPLES as usize && self.bad as f64 / all as f64 > above).then_some((self.bad, all))
    }
}
