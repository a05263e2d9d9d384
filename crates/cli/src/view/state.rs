//! What a reader wants to know of a run, folded event by event. All views show this and nothing else.

use std::time::Duration;

use toprope_model::Node;
use toprope_model::event::{Event, Phase, Record, RunStarted, Stop};
use toprope_model::experiment::{Experiment, STEADY_STATE};
use toprope_model::verdict::{Judgement, Outcome};

use crate::invocation::tables;

use super::fault::{Band, FaultState};
use super::probe::{Period, ProbeState};

/// How long the parts of a run take by plan; a part that is not known is zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct Schedule {
    /// The steady state.
    pub steady: Duration,
    /// The method.
    pub method: Duration,
}

impl Schedule {
    /// The schedule of the experiment that a run was started with.
    fn of(manifest: &serde_json::Value) -> Self {
        // A log of another version may hold what this one cannot read: then only the counting down is missing.
        let Ok(experiment) = Experiment::read(&Node::from_json(manifest), &tables()) else { return Self::default() };
        let steady = experiment.spec.steady_state.as_ref().map_or(STEADY_STATE, |s| s.for_.0);
        Self { steady, method: experiment.method_duration() }
    }
}

/// Something that changed for the reader, beyond the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A probe that was well is bad.
    Bad(usize),
    /// A probe itself has failed.
    Broken(usize),
    /// A probe that was bad is back, after so many nanoseconds and bad samples.
    Back { probe: usize, after: u64, bad: u64 },
    /// A fault was seen to take, or not to.
    Took { fault: usize, took: bool },
}

/// One trial of a search.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its number, from 1.
    pub number: u32,
    /// The value tried.
    pub value: String,
    /// Its outcome, once it ended.
    pub outcome: Option<Outcome>,
}

/// A run so far.
#[derive(Debug, Clone, Default)]
pub struct RunState {
    /// How long its parts take by plan.
    pub schedule: Schedule,
    /// The run's first event.
    pub started: Option<Box<RunStarted>>,
    /// The phase, and when it began.
    pub phase: Option<(Phase, u64)>,
    /// The phases that this trial has come to; a run that is stopped leaves some out.
    pub phases: Vec<Phase>,
    /// When what is shown along the time axis began: the run, or the trial.
    pub origin: u64,
    /// The probes, in the manifest's order.
    pub probes: Vec<ProbeState>,
    /// The faults, in the method's order.
    pub faults: Vec<FaultState>,
    /// When the first fault of this trial was in force.
    pub first_injection: Option<u64>,
    /// When the last fault that was in force left it.
    pub last_undone: Option<u64>,
    /// The trials of a search; the last one goes on while it has no outcome.
    pub trials: Vec<Trial>,
    /// Why the run is being stopped.
    pub stopping: Option<Stop>,
    /// The verdict.
    pub judgement: Option<Box<Judgement>>,
    /// The time of the last event.
    pub at: u64,
}

impl RunState {
    /// Folds an event in, and says whether something turned with it.
    pub fn apply(&mut self, record: &Record) -> Option<Turn> {
        let at = record.at;
        self.at = self.at.max(at);
        match &record.event {
            Event::RunStarted(started) => self.begin(started),
            Event::TrialStarted { trial, value } => self.begin_trial(*trial, value, at),
            Event::TrialEnded { outcome, .. } => {
                if let Some(trial) = self.trials.last_mut() {
                    trial.outcome = Some(*outcome);
                }
            }
            Event::Phase(phase) => {
                self.phase = Some((*phase, at));
                self.phases.push(*phase);
            }
            Event::Sample(sample) => {
                let index = sample.probe as usize;
                let period = self.period(sample.started, at);
                let first = self.first_injection;
                return self.probes.get_mut(index)?.sample(sample, at, period, first).map(|turn| turn.of(index));
            }
            Event::Injecting { injection, fault, plan } => {
                self.faults.get_mut(*fault as usize)?.injecting(*injection, plan);
            }
            Event::Injected { injection, .. } => {
                let band = self.band(*injection)?;
                band.injected = Some(at);
                self.first_injection.get_or_insert(at);
                // What happens at one instant is never in force: samples from then on are taken after it.
                self.last_undone = self.last_undone.max(Some(at));
            }
            Event::Effect { injection, effect, last } => {
                let fault = self.faults.iter().position(|f| f.band(*injection).is_some())?;
                let band = self.faults[fault].band_mut(*injection)?;
                let before = band.effect.as_ref().and_then(|e| e.took);
                band.effect = Some(effect.clone());
                let took = effect.took?;
                // The last measurement is told by itself.
                return (!last && before != Some(took)).then_some(Turn::Took { fault, took });
            }
            Event::Adjusted { injection, parameter, value } => {
                self.band(*injection)?.adjusted = Some(format!("{parameter} {value}"));
            }
            Event::Ended { injection, why } => self.band(*injection)?.ended = Some((at, why.clone())),
            Event::Undoing { injection } => {
                self.band(*injection)?.undoing.get_or_insert(at);
            }
            Event::Undone { injection, undone } => {
                let fault = self.faults.iter_mut().find(|f| f.band(*injection).is_some())?;
                if fault.undone(*injection, undone, at) {
                    self.last_undone = Some(at);
                }
            }
            Event::InjectFailed { injection, fault, error } => {
                self.faults.get_mut(*fault as usize)?.failed(*injection, error, at);
            }
            Event::Found { probe, acknowledged, lost } => {
                self.probes.get_mut(*probe as usize)?.lost = Some((*acknowledged, lost.len() as u64));
            }
            Event::Stopping(stop) => {
                self.stopping.get_or_insert_with(|| stop.clone());
            }
            Event::Judged(judgement) => self.judgement = Some(judgement.clone()),
            Event::PassThrough { .. } | Event::PassThroughLost { .. } => {}
            Event::Planned(_) | Event::Note { .. } | Event::RunEnded { .. } | Event::Sealed { .. } => {}
        }
        None
    }

    fn begin(&mut self, started: &RunStarted) {
        self.probes = started.probes.iter().map(|info| ProbeState::new(info.clone())).collect();
        self.faults = started.faults.iter().map(|info| FaultState::new(info.clone())).collect();
        self.schedule = Schedule::of(&started.manifest);
        self.started = Some(Box::new(started.clone()));
    }

    fn begin_trial(&mut self, number: u32, value: &str, at: u64) {
        self.trials.push(Trial { number, value: value.to_owned(), outcome: None });
        self.origin = at;
        self.phases.clear();
        self.first_injection = None;
        self.last_undone = None;
        self.probes.iter_mut().for_each(|p| p.begin_trial(at));
        self.faults.iter_mut().for_each(FaultState::begin_trial);
    }

    /// When a sample was taken, in relation to the faults: some of it under a fault is under it.
    fn period(&self, started: u64, at: u64) -> Period {
        match self.first_injection {
            None => Period::Before,
            Some(first) if at < first => Period::Before,
            Some(_) if self.faults.iter().any(FaultState::is_in_force) => Period::Under,
            Some(_) if self.last_undone.is_some_and(|undone| started < undone) => Period::Under,
            Some(_) => Period::After,
        }
    }

    fn band(&mut self, injection: u32) -> Option<&mut Band> {
        self.faults.iter_mut().find_map(|f| f.band_mut(injection))
    }

    /// The experiment's name.
    pub fn name(&self) -> &str {
        self.manifest("/metadata/name")
    }

    /// The hypothesis, as a sentence.
    pub fn hypothesis(&self) -> &str {
        self.manifest("/spec/hypothesis")
    }

    fn manifest(&self, pointer: &str) -> &str {
        let found = self.started.as_ref().and_then(|s| s.manifest.pointer(pointer));
        found.and_then(serde_json::Value::as_str).unwrap_or_default()
    }

    /// First injection to first bad sample of any probe, in nanoseconds.
    pub fn detect(&self) -> Option<u64> {
        let first = self.probes.iter().filter_map(|p| p.detected).min()?;
        Some(first.saturating_sub(self.first_injection?))
    }

    /// First bad sample to all probes back, in nanoseconds; `None` while one is bad.
    pub fn recover(&self) -> Option<u64> {
        let first = self.probes.iter().filter_map(|p| p.detected).min()?;
        let hit = self.probes.iter().filter(|p| p.detected.is_some());
        let back = hit.map(|p| p.back).collect::<Option<Vec<_>>>()?;
        Some(back.into_iter().max()?.saturating_sub(first))
    }

    /// What is left of the present phase by plan, in nanoseconds; `None` where the plan does not say.
    pub fn phase_left(&self, now: u64) -> Option<u64> {
        let (phase, since) = self.phase?;
        let planned = match phase {
            Phase::SteadyState => self.schedule.steady,
            Phase::Inject => self.schedule.method,
            _ => return None,
        };
        let planned = u64::try_from(planned.as_nanos()).ok().filter(|n| *n > 0)?;
        Some((since + planned).saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testrun;
    use super::*;

    fn folded(records: &[Record]) -> (RunState, Vec<Turn>) {
        let mut state = RunState::default();
        let turns = records.iter().filter_map(|r| state.apply(r)).collect();
        (state, turns)
    }

    #[test]
    fn a_refuted_run_is_detected_and_recovers() {
        let (state, turns) = folded(&testrun::refuted());
        assert_eq!(state.name(), "checkout-survives-slow-payments");
        assert_eq!(state.hypothesis(), "checkout stays fast on a slow database");
        // In force at 3.052 s; the first answer over the bound is there at 3.9 s; the last bad one at 13.8 s.
        assert_eq!(state.detect().map(|n| n / 1_000_000), Some(848));
        let recover = state.recover().unwrap() / 1_000_000;
        assert!((9_000..11_500).contains(&recover), "{recover}");
        let probe = |i: usize| turns.iter().filter(|t| matches!(t, Turn::Bad(p) if *p == i)).count();
        assert_eq!((probe(0), probe(1)), (1, 0), "a probe that stays bad turns once: {turns:?}");
        assert!(turns.iter().any(|t| matches!(t, Turn::Back { probe: 0, .. })));
        assert!(turns.contains(&Turn::Took { fault: 0, took: true }));
        let checkout = &state.probes[0];
        assert_eq!(checkout.tally(Period::Before).bad, 0);
        assert!(checkout.tally(Period::Under).bad > 50);
        assert!(checkout.tally(Period::Under).values.at(0.5, 1).unwrap() > 400.0);
        assert!(checkout.tally(Period::Before).values.at(0.5, 1).unwrap() < 40.0);
        assert_eq!(state.judgement.as_ref().unwrap().outcome, Outcome::Refuted);
    }

    #[test]
    fn a_held_run_turns_nowhere() {
        let (state, turns) = folded(&testrun::held());
        assert_eq!(turns, [Turn::Took { fault: 0, took: true }]);
        assert_eq!((state.detect(), state.recover()), (None, None));
        assert!(!state.faults[0].is_in_force());
        assert_eq!(state.faults[0].injected, 1);
    }

    #[test]
    fn each_trial_begins_afresh() {
        let (state, _) = folded(&testrun::search());
        let outcomes: Vec<_> = state.trials.iter().map(|t| (t.value.as_str(), t.outcome)).collect();
        assert_eq!(outcomes[0], ("50ms", Some(Outcome::Held)));
        assert_eq!(outcomes[1], ("2s", Some(Outcome::Refuted)));
        assert_eq!(outcomes[2], ("316ms", None), "the last one goes on");
        assert!(state.origin > 10_000_000_000);
        assert_eq!(state.probes[0].tally(Period::Under).bad, 0, "the bad samples were those of the trial before");
    }

    #[test]
    fn a_stopped_run_keeps_the_first_reason() {
        let (state, _) = folded(&testrun::stopped());
        assert_eq!(state.stopping.as_ref().unwrap().by, "guardrail");
    }

    #[test]
    fn the_phase_counts_down_and_never_below_zero() {
        let (mut state, _) = folded(&testrun::held());
        assert_eq!(state.schedule.method, Duration::from_secs(10));
        state.phase = Some((Phase::SteadyState, 1_000_000_000));
        assert_eq!(state.phase_left(2_000_000_000), Some(2_000_000_000));
        assert_eq!(state.phase_left(9_000_000_000), Some(0));
        state.phase = Some((Phase::Recovery, 0));
        assert_eq!(state.phase_left(5), None);
    }

    #[test]
    fn numbers_that_the_run_does_not_know_are_no_panic() {
        let mut records = testrun::held();
        for record in &mut records {
            match &mut record.event {
                Event::Sample(sample) => sample.probe += 77,
                Event::Injecting { fault, .. } => *fault += 77,
                _ => {}
            }
        }
        let (state, _) = folded(&records);
        assert!(state.probes.iter().all(|p| p.last.is_none()));
    }
}
