//! The judgement on a run: the method first, then the probes.

use toprope_model::event::{Event, FaultInfo, Phase, ProbeInfo, Record, RunStarted};
use toprope_model::experiment::Experiment;
use toprope_model::verdict::{Ending, Judgement, Outcome, ProbeJudgement};

use super::anatomy::between;
use super::evidence::{Evidence, Injection, Period};
use super::next;
use super::probe::{Judged, Subject, worst};
use super::search::{self, Trial};
use super::words::{behind_colon, cut, millis, ms, sentence, share};

/// A judgement that grows with the log: push each record, and ask when wanted.
#[derive(Debug, Clone)]
pub struct Fold<'e> {
    experiment: &'e Experiment,
    run: String,
    probes: Vec<ProbeInfo>,
    faults: Vec<FaultInfo>,
    started: bool,
    ended: bool,
    sealed: bool,
    /// Whether this is one trial of a search, whose steady state was seen before.
    trial: bool,
    /// When it began: what a trial asked before that belongs to the trial before it.
    since: Option<u64>,
    /// Whether it watches a steady state of its own.
    watched: bool,
    evidence: Evidence,
    /// The trials of a search, and the one that goes on: its number, its value, and what was seen in it.
    trials: Vec<Trial>,
    open_trial: Option<(u32, String, Box<Fold<'e>>)>,
}

/// What stands against a verdict.
#[derive(Debug, Clone, Default)]
pub(super) struct Against {
    /// The method did not happen as written: nothing is shown.
    pub(super) any: Vec<String>,
    /// Less happened than was written: nothing is shown to hold.
    pub(super) held: Vec<String>,
}

impl<'e> Fold<'e> {
    /// A fold that has seen nothing.
    pub fn new(experiment: &'e Experiment) -> Self {
        Self {
            experiment,
            run: String::new(),
            probes: Vec::new(),
            faults: Vec::new(),
            started: false,
            ended: false,
            sealed: false,
            trial: false,
            since: None,
            watched: false,
            evidence: Evidence::default(),
            trials: Vec::new(),
            open_trial: None,
        }
    }

    pub(super) fn of_trial(experiment: &'e Experiment, started: &RunStarted) -> Self {
        let mut fold = Self { trial: true, ..Self::new(experiment) };
        fold.begin(started);
        fold
    }

    fn begin(&mut self, started: &RunStarted) {
        self.started = true;
        self.run.clone_from(&started.run);
        self.probes.clone_from(&started.probes);
        self.faults.clone_from(&started.faults);
        self.evidence = Evidence::new(started);
    }

    /// Takes the next record of the log.
    pub fn push(&mut self, record: &Record) {
        if self.trial {
            let since = *self.since.get_or_insert(record.at);
            self.watched |= matches!(record.event, Event::Phase(Phase::SteadyState));
            let before = matches!(&record.event, Event::Sample(sample) if sample.started < since);
            if !before {
                self.evidence.push(record);
            }
            return;
        }
        match &record.event {
            Event::RunStarted(started) if !self.started => self.begin(started),
            Event::TrialStarted { trial, value } => {
                let fold = Fold {
                    trial: true,
                    since: Some(record.at),
                    started: true,
                    run: self.run.clone(),
                    probes: self.probes.clone(),
                    faults: self.faults.clone(),
                    evidence: self.evidence.empty(),
                    ..Fold::new(self.experiment)
                };
                self.open_trial = Some((*trial, value.clone(), Box::new(fold)));
                return;
            }
            Event::TrialEnded { outcome, reason, .. } => {
                if let Some((_, value, fold)) = self.open_trial.take() {
                    let judgement = fold.judgement(true);
                    let reason = reason.clone();
                    self.trials.push(Trial { value, outcome: *outcome, reason, judgement });
                }
                return;
            }
            Event::Phase(Phase::Verdict) | Event::RunEnded { .. } => self.ended = true,
            Event::Sealed { .. } => self.sealed = true,
            _ => {}
        }
        match &mut self.open_trial {
            Some((_, _, fold)) => {
                fold.push(record);
                // The run is stopped, not only the trial.
                if matches!(record.event, Event::Stopping(_) | Event::PassThroughLost { .. }) {
                    self.evidence.push(record);
                }
            }
            // Between the trials of a search a probe sees what the last one left, and that is no steady state.
            None if matches!(record.event, Event::Sample(_)) && !self.trials.is_empty() => {}
            None => self.evidence.push(record),
        }
    }

    fn subject<'a>(&'a self, index: usize) -> Option<Subject<'a>> {
        Some(Subject {
            experiment: self.experiment,
            common: &self.experiment.spec.probes.get(index)?.common,
            info: self.probes.get(index)?,
            watch: self.evidence.probes.get(index)?,
            evidence: &self.evidence,
        })
    }

    fn subjects(&self) -> Vec<Subject<'_>> {
        (0..self.probes.len()).filter_map(|i| self.subject(i)).collect()
    }

    /// Whether the steady state was seen so far; in a search, that of the trial that goes on.
    ///
    /// # Errors
    /// Why not, a sentence for each probe.
    pub fn steady_state(&self) -> Result<(), Vec<String>> {
        if let Some((_, _, trial)) = &self.open_trial {
            return trial.steady_state();
        }
        let asked_for = !self.experiment.spec.steady_state.as_ref().is_some_and(|s| s.for_.0.is_zero());
        // Watched in the trials, or before them; what there is of it must be good all the same.
        let here = if self.trial { self.watched } else { self.trials.is_empty() };
        let mut reasons = Vec::new();
        for subject in self.subjects().iter().filter(|s| s.has_steady_state()) {
            let required = asked_for && here && !subject.info.waits;
            if !required && !subject.watch.samples.iter().any(|s| s.period == Period::Steady) {
                continue;
            }
            let findings = subject.steady();
            reasons.extend(
                findings
                    .iter()
                    .filter(|f| f.outcome != Outcome::Held)
                    .map(|f| format!("`{}`: {}", cut(&subject.info.name), behind_colon(&f.text))),
            );
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    fn fault_name(&self, injection: &Injection) -> String {
        let name = self.faults.get(injection.fault as usize).map_or("fault", |f| f.name.as_str());
        let again = self.evidence.injections.iter().filter(|i| i.fault == injection.fault).count() > 1;
        let nth = self
            .evidence
            .injections
            .iter()
            .filter(|i| i.fault == injection.fault && i.injection <= injection.injection)
            .count();
        if again { format!("`{}` (injection {nth})", cut(name)) } else { format!("`{}`", cut(name)) }
    }

    /// What stands against a verdict on the method's side.
    fn against(&self) -> Against {
        let mut against = Against::default();
        if !self.started {
            against.any.push("The log does not say what was run: its first event is missing.".into());
            return against;
        }
        if !self.trial && !self.ended {
            against.any.push(if self.sealed {
                "The run was killed before its end: what it would still have seen is not known.".into()
            } else {
                "The log has no end: the run is still going on, or was killed.".into()
            });
        }
        if let Err(reasons) = self.steady_state() {
            against.any.push("The steady state was not seen, so that nothing can be said about a fault.".into());
            against.any.extend(reasons.iter().map(|r| sentence(r)));
        }
        if let Some((at, listened, why)) = &self.evidence.lost {
            let text = format!(
                "The pass-through on {listened} was lost after {}: {}. What its clients saw from then on is not the fault's doing",
                millis(ms(*at)),
                cut(why)
            );
            against.any.push(sentence(&text));
        }
        if let Some((at, stop)) = &self.evidence.stop {
            let text =
                format!("The run was stopped after {} by {}: {}", millis(ms(*at)), who(&stop.by), cut(&stop.why));
            against.held.push(sentence(&text));
        }
        if self.experiment.spec.probes.is_empty() {
            against.held.push("Nothing was asked, so nothing is shown.".into());
        }
        self.injections(&mut against);
        against
    }

    fn injections(&self, against: &mut Against) {
        let injections = &self.evidence.injections;
        // What was seen under a fault that took is seen, whatever became of another one.
        let one_took = injections.iter().any(Injection::took);
        for injection in injections {
            let name = self.fault_name(injection);
            let strict = if one_took { &mut against.held } else { &mut against.any };
            let mut strictly = |text: String| strict.push(sentence(&text));
            if let Some(error) = &injection.failed {
                strictly(format!("{name} could not be injected: {}", cut(error)));
                continue;
            }
            let Some(injected) = injection.injected else {
                strictly(format!("{name} was never seen in force"));
                continue;
            };
            if let Some((at, why)) = &injection.ended {
                strictly(format!(
                    "{name} ended by itself {} after it was injected: {}",
                    millis(between(injected, *at)),
                    cut(why)
                ));
            }
            let Some((effect, _)) = &injection.effect else {
                strictly(format!("the effect of {name} was never measured, so that it may not have taken"));
                continue;
            };
            let note = effect.note.as_deref().map(|n| format!(": {}", cut(n))).unwrap_or_default();
            match effect.took {
                Some(true) => {}
                Some(false) if note.is_empty() => {
                    strictly(format!("{name} did not take: its effect was looked for and not seen"));
                }
                Some(false) => strictly(format!("{name} did not take as it was asked to{note}")),
                None => strictly(format!("whether {name} took could not be measured{note}")),
            }
            if let Some(reached) = effect.reached
                && effect.took == Some(true)
                && reached < 0.9995
            {
                let text = format!("{name} reached only {} of its target{note}", share(reached));
                against.held.push(sentence(&text));
            }
        }
        let stopped = self.evidence.stop.is_some();
        let search = !self.trials.is_empty() || self.open_trial.is_some();
        if injections.is_empty() && !search && against.any.is_empty() {
            let text = "Nothing was injected.".to_owned();
            if stopped { against.held.push(text) } else { against.any.push(text) }
        } else if !search && against.any.is_empty() {
            for (i, fault) in self.faults.iter().enumerate() {
                if !injections.iter().any(|injection| injection.fault as usize == i) {
                    against.held.push(format!("`{}` was never injected.", cut(&fault.name)));
                }
            }
        }
    }

    /// What could not be undone.
    fn not_undone(&self) -> Vec<String> {
        let mut all: Vec<String> = self.trials.iter().flat_map(|t| t.judgement_not_undone()).collect();
        if let Some((_, _, fold)) = &self.open_trial {
            all.extend(Fold { ended: self.ended, ..(**fold).clone() }.not_undone());
        }
        for injection in self.evidence.injections.iter().filter(|i| i.failed.is_none()) {
            let name = self.fault_name(injection);
            match &injection.undone {
                Some((_, undone)) if !undone.clean => {
                    let notes: Vec<String> = undone.notes.iter().take(3).map(|n| cut(n)).collect();
                    let notes = if notes.is_empty() { String::new() } else { format!(": {}", notes.join("; ")) };
                    all.push(sentence(&format!("{name} could not be undone{notes}")));
                }
                // A trial's own log has no end; whether the next events undo it is for the run to say.
                None if self.ended || self.trial => {
                    all.push(format!(
                        "{name} was not undone: `toprope residue` says what is left, `toprope undo` removes it."
                    ));
                }
                _ => {}
            }
        }
        all
    }

    /// The judgement on what was pushed so far.
    pub fn judge(&self) -> Judgement {
        self.judgement(!self.trial)
    }

    /// The judgement, and what to do next where that is asked for.
    fn judgement(&self, hints: bool) -> Judgement {
        let against = self.against();
        let not_undone = self.not_undone();
        let stopped = self.evidence.stop.as_ref().is_some_and(|(_, stop)| stop.by != "error");
        let ending = match (not_undone.is_empty(), stopped) {
            (false, _) => Ending::NotUndone,
            (true, true) => Ending::Stopped,
            (true, false) => Ending::Complete,
        };
        let judged: Vec<Judged> = self.subjects().iter().map(Subject::judge).collect();
        let missing = judged.iter().filter_map(|j| j.missing).max();
        let (detect_ms, recover_ms) = self.anatomy(&judged);
        let mut probes: Vec<ProbeJudgement> = judged.into_iter().map(|j| j.judgement).collect();
        let search = self.experiment.spec.search.is_some() && !self.trial || !self.trials.is_empty();
        let (outcome, mut reasons, breaking_point) = if search {
            let (point, outcome, reasons) = search::assemble(self.experiment, &self.trials, &against);
            search::of_probes(&mut probes, &self.trials, outcome);
            (outcome, reasons, Some(point))
        } else {
            let (outcome, reasons) = overall(&against, &mut probes);
            (outcome, reasons, None)
        };
        if outcome == Outcome::Held {
            reasons.extend(self.took());
        }
        reasons.splice(0..0, not_undone);
        let mut judgement =
            Judgement { outcome, ending, reasons, probes, detect_ms, recover_ms, next: Vec::new(), breaking_point };
        if !hints {
            return judgement;
        }
        let seen = next::Seen {
            run: &self.run,
            faults: &self.faults,
            probes: &self.probes,
            evidence: &self.evidence,
            missing,
            unclear: Trial::unclear(&self.trials),
        };
        judgement.next = next::suggest(self.experiment, &judgement, &seen);
        judgement
    }

    /// The run's own outage: from the first bad sample of any probe until all are back.
    fn anatomy(&self, judged: &[Judged]) -> (Option<f64>, Option<f64>) {
        let outages: Vec<_> = judged.iter().filter_map(|j| j.outage).collect();
        let detected = outages.iter().map(|o| o.detected).min();
        let back = outages.iter().map(|o| o.back).collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max());
        let detect = detected.zip(self.evidence.first_injected()).map(|(at, from)| between(from, at));
        (detect, detected.zip(back).map(|(from, to)| between(from, to)))
    }

    /// That each fault took, with what was measured: a verdict rests on it.
    fn took(&self) -> Option<String> {
        let mut parts = Vec::new();
        for injection in &self.evidence.injections {
            let Some((effect, _)) = &injection.effect else { continue };
            let measures: Vec<String> = effect
                .measures
                .iter()
                .map(|m| {
                    let asked =
                        m.asked.map(|a| format!(" of {} asked", super::words::value(a, &m.unit))).unwrap_or_default();
                    format!("{} {}{asked}", cut(&m.name), super::words::value(m.measured, &m.unit))
                })
                .collect();
            let measures = if measures.is_empty() { String::new() } else { format!(" ({})", measures.join(", ")) };
            parts.push(format!("{} took{measures}", self.fault_name(injection)));
        }
        match parts.len() {
            0 => None,
            n if n > 4 => Some(format!("All {n} injections took.")),
            _ => Some(sentence(&parts.join("; "))),
        }
    }
}

impl Trial {
    /// What could not be undone is what the trial's judgement says first, if it did not end in order.
    fn judgement_not_undone(&self) -> Vec<String> {
        if self.judgement.ending == Ending::NotUndone {
            self.judgement.reasons.first().cloned().into_iter().collect()
        } else {
            Vec::new()
        }
    }
}

/// The outcome of a run that is no search, with its reasons.
fn overall(against: &Against, probes: &mut [ProbeJudgement]) -> (Outcome, Vec<String>) {
    if !against.any.is_empty() {
        // What the probes saw shows nothing, whichever way it went.
        probes.iter_mut().for_each(|p| p.outcome = Outcome::Inconclusive);
        return (Outcome::Inconclusive, against.any.iter().chain(&against.held).cloned().collect());
    }
    let undecided: Vec<usize> = (0..probes.len()).filter(|i| probes[*i].outcome == Outcome::Inconclusive).collect();
    if !against.held.is_empty() {
        // What was good so far is not what would have been good throughout.
        probes.iter_mut().filter(|p| p.outcome == Outcome::Held).for_each(|p| p.outcome = Outcome::Inconclusive);
    }
    let seen = worst(probes.iter().map(|p| p.outcome));
    let outcome = if seen == Outcome::Held && !against.held.is_empty() { Outcome::Inconclusive } else { seen };
    let of = |outcome: Outcome, all: bool| {
        probes.iter().filter(move |p| p.outcome == outcome).flat_map(move |p| {
            let take = if all { p.reasons.len() } else { 1 };
            p.reasons.iter().take(take).map(|r| format!("`{}`: {}", cut(&p.name), behind_colon(r)))
        })
    };
    let mut reasons: Vec<String> = Vec::new();
    match outcome {
        Outcome::Refuted => {
            reasons.extend(of(Outcome::Refuted, false));
            reasons.extend(against.held.iter().cloned());
            reasons.extend(of(Outcome::Inconclusive, false));
        }
        Outcome::Inconclusive => {
            reasons.extend(against.held.iter().cloned());
            // A probe that was good so far has nothing to add.
            let undecided = undecided.iter().filter_map(|i| probes.get(*i));
            reasons.extend(
                undecided.filter_map(|p| Some(format!("`{}`: {}", cut(&p.name), behind_colon(p.reasons.first()?)))),
            );
        }
        Outcome::Held => reasons.extend(of(Outcome::Held, true)),
    }
    if reasons.is_empty() {
        reasons.push("No probe was judged.".into());
    }
    (outcome, reasons)
}

fn who(by: &str) -> String {
    match by {
        "guardrail" => "a guardrail".into(),
        "person" => "a person".into(),
        "error" => "an error".into(),
        signal => cut(signal),
    }
}
