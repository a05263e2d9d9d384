//! What a log says that a verdict needs: one pass over its events.

use toprope_model::event::{Event, Record, RunStarted, Sample, Stop};
use toprope_model::step::{Effect, Undone};

/// When a sample was taken, in relation to the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    /// Before the first injection.
    Steady,
    /// Asked while a fault was in force; or bad, and answered while one was or after.
    InForce,
    /// Good, but asked before a fault was in force and answered after that began: no evidence for either time.
    Astride,
    /// After the first injection and while no fault was in force.
    After,
}

/// What a sample was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worth {
    Good,
    Bad,
    /// The probe itself failed: no evidence.
    Broken,
}

/// One sample, without its texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    /// When it was asked and when the answer was there, in nanoseconds since the run began.
    pub(crate) started: u64,
    pub(crate) at: u64,
    /// Finite, where there is one.
    pub(crate) value: Option<f64>,
    pub(crate) worth: Worth,
    pub(crate) period: Period,
}

/// Why samples were bad: the first such text of each kind, which is the one a reader wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whys {
    pub(crate) steady: Option<String>,
    pub(crate) in_force: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) broken: Option<String>,
    /// The latest, for a probe that does not recover.
    pub(crate) last: Option<String>,
}

/// What one probe saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    pub(crate) samples: Vec<Seen>,
    pub(crate) whys: Whys,
    /// Samples since the injection that were asked more than once.
    pub(crate) retried: u64,
    /// Writes that it saw acknowledged, and how many of them were missing at the end.
    pub(crate) found: Option<(u64, u64, Vec<String>)>,
}

impl Watch {
    /// The samples of a period, in the order in which they were asked.
    pub(crate) fn of(&self, period: Period) -> Vec<Seen> {
        let mut samples: Vec<Seen> = self.samples.iter().filter(|s| s.period == period).copied().collect();
        samples.sort_by_key(|s| (s.started, s.at));
        samples
    }

    /// The samples since the first injection, in the order in which they were asked.
    pub(crate) fn since_injection(&self) -> Vec<Seen> {
        let since = |s: &&Seen| matches!(s.period, Period::InForce | Period::After);
        let mut samples: Vec<Seen> = self.samples.iter().filter(since).copied().collect();
        samples.sort_by_key(|s| (s.started, s.at));
        samples
    }
}

/// One injection.
#[derive(Debug, Clone)]
pub(crate) struct Injection {
    pub(crate) injection: u32,
    pub(crate) fault: u32,
    pub(crate) lasting: bool,
    pub(crate) injecting: u64,
    pub(crate) injected: Option<u64>,
    pub(crate) failed: Option<String>,
    pub(crate) effect: Option<(Effect, bool)>,
    pub(crate) ended: Option<(u64, String)>,
    pub(crate) undone: Option<(u64, Undone)>,
}

impl Injection {
    /// When its effect is over by right: `None` while it is not.
    pub(crate) fn end(&self) -> Option<u64> {
        if self.lasting { self.undone.as_ref().map(|u| u.0) } else { self.injected }
    }

    /// Whether it was in force until it was ended, and its effect was seen.
    pub(crate) fn took(&self) -> bool {
        let seen = self.effect.as_ref().is_some_and(|(effect, _)| effect.took == Some(true));
        self.failed.is_none() && self.injected.is_some() && self.ended.is_none() && seen
    }

    /// Whether it was in force at an instant. What happens at one instant is in force from its beginning to that.
    fn covers(&self, instant: u64) -> bool {
        let from = if self.lasting { self.injected.unwrap_or(u64::MAX) } else { self.injecting };
        from <= instant && self.end().is_none_or(|end| instant <= end)
    }

    /// Whether a sample says something about it: asked while it was in force, or bad in that time.
    fn meets(&self, sample: &Seen) -> bool {
        let touched = self.injecting <= sample.at && self.end().is_none_or(|end| sample.started <= end);
        self.covers(sample.started) || (sample.worth == Worth::Bad && touched)
    }
}

/// What was seen of a run, or of one trial of a search.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) probes: Vec<Watch>,
    pub(crate) injections: Vec<Injection>,
    pub(crate) stop: Option<(u64, Stop)>,
    /// A pass-through that was lost: when, where it listened, and why.
    pub(crate) lost: Option<(u64, String, String)>,
    /// The last event's time.
    pub(crate) end: u64,
    /// Injections that hold a window open, and the last end of those that do not any more.
    open: u32,
    last_end: Option<u64>,
    lasting: Vec<bool>,
}

impl Evidence {
    pub(crate) fn new(started: &RunStarted) -> Self {
        Self {
            probes: vec![Watch::default(); started.probes.len()],
            lasting: started.faults.iter().map(|f| f.lasting).collect(),
            ..Self::default()
        }
    }

    /// The same run with nothing seen yet.
    pub(crate) fn empty(&self) -> Self {
        Self { probes: vec![Watch::default(); self.probes.len()], lasting: self.lasting.clone(), ..Self::default() }
    }

    /// Whether a lasting fault was in force at all: if not, what counts is the time after.
    pub(crate) fn lasted(&self) -> bool {
        self.injections.iter().any(|i| i.lasting && i.failed.is_none())
    }

    /// When the first fault was in force.
    pub(crate) fn first_injected(&self) -> Option<u64> {
        self.injections.iter().filter_map(|i| i.injected).min()
    }

    fn injection(&mut self, number: u32) -> Option<&mut Injection> {
        // From the back: what is asked for is nearly always the latest.
        self.injections.iter_mut().rev().find(|i| i.injection == number)
    }

    fn close(&mut self, at: u64) {
        self.open = self.open.saturating_sub(1);
        self.last_end = self.last_end.max(Some(at));
    }

    pub(crate) fn push(&mut self, record: &Record) {
        let at = record.at;
        self.end = self.end.max(at);
        match &record.event {
            Event::Sample(sample) => self.sample(at, sample),
            Event::Injecting { injection, fault, .. } => {
                let lasting = self.lasting.get(*fault as usize).copied().unwrap_or(true);
                self.open += 1;
                self.injections.push(Injection {
                    injection: *injection,
                    fault: *fault,
                    lasting,
                    injecting: at,
                    injected: None,
                    failed: None,
                    effect: None,
                    ended: None,
                    undone: None,
                });
            }
            Event::Injected { injection, .. } => {
                let Some(found) = self.injection(*injection) else { return };
                let closes = !found.lasting && found.injected.is_none();
                found.injected = Some(at);
                if closes {
                    self.close(at);
                }
            }
            Event::Effect { injection, effect, last } => {
                if let Some(found) = self.injection(*injection)
                    && (*last || !found.effect.as_ref().is_some_and(|e| e.1))
                {
                    found.effect = Some((effect.clone(), *last));
                }
            }
            Event::Ended { injection, why } => {
                if let Some(found) = self.injection(*injection) {
                    found.ended.get_or_insert((at, why.clone()));
                }
            }
            Event::Undone { injection, undone } => {
                let Some(found) = self.injection(*injection) else { return };
                let closes =
                    found.undone.is_none() && found.failed.is_none() && (found.lasting || found.injected.is_none());
                // The last word counts: what the injector could not undo, the guard or the sweep may have.
                let first = found.undone.as_ref().map_or(at, |u| u.0);
                found.undone = Some((if undone.clean { first } else { at }, undone.clone()));
                if closes {
                    self.close(at);
                }
            }
            Event::InjectFailed { injection, fault, error } => {
                match self.injection(*injection) {
                    Some(found) => {
                        let closes = found.undone.is_none() && (found.lasting || found.injected.is_none());
                        found.failed = Some(error.clone());
                        if closes {
                            self.close(at);
                        }
                    }
                    // It failed before anything was tried.
                    None => self.injections.push(Injection {
                        injection: *injection,
                        fault: *fault,
                        lasting: false,
                        injecting: at,
                        injected: None,
                        failed: Some(error.clone()),
                        effect: None,
                        ended: None,
                        undone: None,
                    }),
                }
            }
            Event::Found { probe, acknowledged, lost } => {
                if let Some(watch) = self.probes.get_mut(*probe as usize) {
                    watch.found = Some((*acknowledged, lost.len() as u64, lost.iter().take(3).cloned().collect()));
                }
            }
            Event::PassThroughLost { at: listened, why } => {
                self.lost.get_or_insert((at, listened.clone(), why.clone()));
            }
            Event::Stopping(stop) => {
                self.stop.get_or_insert((at, stop.clone()));
            }
            _ => {}
        }
    }

    /// When a sample that was answered at `at` counts. What is bad was touched by whatever was in force at any time
    /// from its question to its answer; what is good shows something only of a fault that was there when it was asked.
    fn period(&self, at: u64, started: u64, worth: Worth) -> Period {
        let mut tried = self.injections.iter().filter(|i| i.failed.is_none());
        let Some(first) = tried.next().filter(|first| at >= first.injecting) else { return Period::Steady };
        let touched = self.open > 0 || self.last_end.is_some_and(|end| end >= started);
        if worth != Worth::Good {
            return if touched { Period::InForce } else { Period::After };
        }
        let mut all = std::iter::once(first).chain(tried);
        if all.any(|i| i.covers(started)) {
            Period::InForce
        } else if started < first.injected.unwrap_or(u64::MAX) || touched {
            Period::Astride
        } else {
            Period::After
        }
    }

    /// Whether a probe was asked, and answered in earnest, while an injection was in force.
    pub(crate) fn asked_during(&self, watch: &Watch, injection: &Injection) -> bool {
        watch.samples.iter().any(|s| s.worth != Worth::Broken && s.period == Period::InForce && injection.meets(s))
    }

    fn sample(&mut self, at: u64, sample: &Sample) {
        let worth = match (sample.broken, sample.ok) {
            (true, _) => Worth::Broken,
            (false, true) => Worth::Good,
            (false, false) => Worth::Bad,
        };
        let period = self.period(at, sample.started, worth);
        let Some(watch) = self.probes.get_mut(sample.probe as usize) else { return };
        watch.retried += u64::from(sample.retries > 0 && period != Period::Steady);
        if worth != Worth::Good
            && let Some(why) = &sample.why
        {
            let whys = &mut watch.whys;
            let first = match (worth, period) {
                (Worth::Broken, _) => &mut whys.broken,
                (_, Period::Steady) => &mut whys.steady,
                (_, Period::InForce | Period::Astride) => &mut whys.in_force,
                (_, Period::After) => &mut whys.after,
            };
            first.get_or_insert_with(|| why.clone());
            if worth == Worth::Bad && whys.last.as_ref() != Some(why) {
                whys.last = Some(why.clone());
            }
        }
        let value = sample.value.filter(|v| v.is_finite());
        watch.samples.push(Seen { started: sample.started, at, value, worth, period });
    }
}
