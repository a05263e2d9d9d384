//! One probe as a reader sees it.

use toprope_model::event::{ProbeInfo, Sample};

use super::quantiles::Quantiles;
use super::state::Turn;
use super::timeline::{Bucket, Timeline};
use super::words::clean;

/// So many good samples in a row say that a probe is back, as in the verdict.
const BACK: u32 = 3;

/// When a sample was taken, in relation to the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// Before the first one.
    Before,
    /// While one was in force.
    Under,
    /// While none was in force any more.
    After,
}

/// What the samples of one period come to.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Samples that were good.
    pub good: u64,
    /// Samples that were bad.
    pub bad: u64,
    /// Samples that gave no evidence.
    pub broken: u64,
    /// Their values.
    pub values: Quantiles,
}

impl Tally {
    /// Samples that are evidence.
    pub fn judged(&self) -> u64 {
        self.good + self.bad
    }
}

/// How the last sample was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Good,
    Bad,
    /// The probe itself failed.
    Broken,
}

/// The last sample.
#[derive(Debug, Clone)]
pub struct Last {
    pub health: Health,
    pub value: Option<f64>,
    /// Why it was not good, fit to be shown.
    pub why: Option<String>,
}

/// From the first bad sample until the probe is back.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: u64,
    bad: u64,
    /// Good samples in a row, and when the first of them was answered.
    good: u32,
    good_since: u64,
}

/// What a sample turned, before the probe's number is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeTurn {
    Bad,
    Broken,
    Back { after: u64, bad: u64 },
}

impl ProbeTurn {
    /// The turn of the probe with this number.
    pub fn of(self, probe: usize) -> Turn {
        match self {
            Self::Bad => Turn::Bad(probe),
            Self::Broken => Turn::Broken(probe),
            Self::Back { after, bad } => Turn::Back { probe, after, bad },
        }
    }
}

/// One probe so far.
#[derive(Debug, Clone)]
pub struct ProbeState {
    /// The probe.
    pub info: ProbeInfo,
    /// Its last sample.
    pub last: Option<Last>,
    /// Its samples along the time axis.
    pub timeline: Timeline,
    /// The answer of its first bad sample since the first injection.
    pub detected: Option<u64>,
    /// When it was back after that; `None` while it is not.
    pub back: Option<u64>,
    /// Acknowledged writes, and those that were lost.
    pub lost: Option<(u64, u64)>,
    tallies: [Tally; 3],
    trouble: Option<Trouble>,
    is_broken: bool,
}

impl ProbeState {
    /// A probe that was not asked yet.
    pub fn new(info: ProbeInfo) -> Self {
        Self {
            info,
            last: None,
            timeline: Timeline::new(0),
            detected: None,
            back: None,
            lost: None,
            tallies: Default::default(),
            trouble: None,
            is_broken: false,
        }
    }

    pub(super) fn begin_trial(&mut self, origin: u64) {
        *self = Self { timeline: Timeline::new(origin), ..Self::new(self.info.clone()) };
    }

    /// The samples of a period.
    pub fn tally(&self, period: Period) -> &Tally {
        &self.tallies[period as usize]
    }

    /// The samples that matter most by now: under a fault, else after it, else before.
    pub fn telling(&self) -> (Period, &Tally) {
        let order = [Period::Under, Period::After, Period::Before];
        let found = order.into_iter().find(|p| self.tally(*p).judged() + self.tally(*p).broken > 0);
        let period = found.unwrap_or(Period::Before);
        (period, self.tally(period))
    }

    /// The value that it usually has: the median of the steady state, or of what there is.
    pub fn usual(&self) -> Option<f64> {
        let medians =
            [Period::Before, Period::After, Period::Under].into_iter().map(|p| self.tally(p).values.at(0.5, 1));
        medians.flatten().next()
    }

    /// Whether it is bad, or was and is not back for sure.
    pub fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    pub(super) fn sample(
        &mut self,
        sample: &Sample,
        at: u64,
        period: Period,
        first_injection: Option<u64>,
    ) -> Option<ProbeTurn> {
        let health = match sample {
            Sample { broken: true, .. } => Health::Broken,
            Sample { ok: true, .. } => Health::Good,
            _ => Health::Bad,
        };
        self.last = Some(Last { health, value: sample.value, why: sample.why.as_deref().map(clean) });
        let is = |wanted| u32::from(health == wanted);
        let seen =
            Bucket { max: sample.value, good: is(Health::Good), bad: is(Health::Bad), broken: is(Health::Broken) };
        self.timeline.add(at, seen);
        let tally = &mut self.tallies[period as usize];
        match health {
            Health::Good => tally.good += 1,
            Health::Bad => tally.bad += 1,
            Health::Broken => tally.broken += 1,
        }
        if let Some(value) = sample.value {
            tally.values.add(value);
        }
        match health {
            Health::Broken => return (!std::mem::replace(&mut self.is_broken, true)).then_some(ProbeTurn::Broken),
            Health::Bad => {
                self.is_broken = false;
                if first_injection.is_some() {
                    self.detected.get_or_insert(at);
                    self.back = None;
                }
                if let Some(trouble) = &mut self.trouble {
                    trouble.bad += 1;
                    trouble.good = 0;
                    return None;
                }
                self.trouble = Some(Trouble { since: at, bad: 1, good: 0, good_since: 0 });
                return Some(ProbeTurn::Bad);
            }
            Health::Good => self.is_broken = false,
        }
        let trouble = self.trouble.as_mut()?;
        if trouble.good == 0 {
            trouble.good_since = at;
        }
        trouble.good += 1;
        if trouble.good < BACK {
            return None;
        }
        let turn = ProbeTurn::Back { after: trouble.good_since.saturating_sub(trouble.since), bad: trouble.bad };
        self.back = self.detected.map(|_| trouble.good_since);
        self.trouble = None;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> ProbeState {
        ProbeState::new(ProbeInfo {
            name: "checkout".into(),
            kind: "http".into(),
            asks: "GET /".into(),
            tolerates: "status 200".into(),
            unit: "ms".into(),
            interval_ms: 100.0,
            recovers: false,
            waits: false,
        })
    }

    fn feed(probe: &mut ProbeState, healths: &str) -> Vec<(usize, ProbeTurn)> {
        let sample = |c| Sample {
            probe: 0,
            started: 0,
            ok: c == 'g',
            value: Some(1.0),
            why: None,
            broken: c == '!',
            retries: 0,
            wrote: None,
        };
        let turn = |(i, c): (usize, char)| {
            let at = (i as u64 + 1) * 100;
            probe.sample(&sample(c), at, Period::Under, Some(0)).map(|t| (i, t))
        };
        healths.chars().enumerate().filter_map(turn).collect()
    }

    #[test]
    fn a_probe_that_flaps_turns_once_until_it_is_back_for_good() {
        let mut p = probe();
        let turns = feed(&mut p, "ggbgbggbgggg");
        assert_eq!(turns, [(2, ProbeTurn::Bad), (10, ProbeTurn::Back { after: 600, bad: 3 })]);
        assert_eq!((p.detected, p.back), (Some(300), Some(900)));
        assert!(!p.is_in_trouble());
    }

    #[test]
    fn a_probe_that_itself_fails_is_neither_good_nor_bad() {
        let mut p = probe();
        assert_eq!(feed(&mut p, "g!!g!"), [(1, ProbeTurn::Broken), (4, ProbeTurn::Broken)]);
        assert_eq!((p.tally(Period::Under).judged(), p.tally(Period::Under).broken), (2, 3));
        assert_eq!(p.detected, None);
    }
}
