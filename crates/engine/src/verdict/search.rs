//! The breaking point: trials at several values, put together.

use toprope_model::experiment::Experiment;
use toprope_model::search::Quantity;
use toprope_model::verdict::{BreakingPoint, Judgement, Outcome, ProbeJudgement};
use toprope_stats::proportion::Count;

use super::run::Against;
use super::words::{behind_colon, count, cut, share};

/// One trial that ended.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) value: String,
    pub(super) outcome: Outcome,
    pub(super) reason: String,
    pub(super) judgement: Judgement,
}

impl Trial {
    /// The first that told nothing.
    pub(super) fn unclear(trials: &[Self]) -> Option<&Self> {
        trials.iter().find(|t| t.outcome == Outcome::Inconclusive)
    }
}

/// The trials at one value.
#[derive(Debug, Clone, PartialEq)]
struct At {
    value: String,
    held: u32,
    refuted: u32,
    inconclusive: u32,
}

/// How sure the statement about repeated trials is.
const LEVEL: f64 = 0.95;

/// The trials by value, the smallest first.
fn by_value(trials: &[Trial]) -> Vec<At> {
    let mut values: Vec<At> = Vec::new();
    for trial in trials {
        let at = match values.iter_mut().find(|a| a.value == trial.value) {
            Some(at) => at,
            None => {
                values.push(At { value: trial.value.clone(), held: 0, refuted: 0, inconclusive: 0 });
                values.last_mut().expect("it was pushed just now")
            }
        };
        match trial.outcome {
            Outcome::Held => at.held += 1,
            Outcome::Refuted => at.refuted += 1,
            Outcome::Inconclusive => at.inconclusive += 1,
        }
    }
    let number = |at: &At| Quantity::read(&at.value).map_or(f64::NAN, |q| q.number);
    values.sort_by(|a, b| number(a).total_cmp(&number(b)));
    values
}

/// The fault and the parameter that were searched, as `network-latency.delay`.
pub(super) fn parameter(experiment: &Experiment) -> String {
    let Some(search) = &experiment.spec.search else { return String::new() };
    if search.parameter.contains('.') {
        return search.parameter.clone();
    }
    let faults = experiment.faults();
    let fault = faults.iter().find(|f| f.params.get(&search.parameter).is_some()).or(faults.first());
    fault.map_or_else(|| search.parameter.clone(), |f| format!("{}.{}", f.name(), search.parameter))
}

/// Puts the trials together: the breaking point, what it means for the run, and why.
pub(super) fn assemble(
    experiment: &Experiment,
    trials: &[Trial],
    against: &Against,
) -> (BreakingPoint, Outcome, Vec<String>) {
    let values = by_value(trials);
    let parameter = parameter(experiment);
    let refuted = values.iter().find(|a| a.refuted > 0);
    let below = values.iter().take_while(|a| a.refuted == 0);
    // A value at which a trial told nothing is not one at which all held.
    let held = below.filter(|a| a.held > 0 && a.inconclusive == 0).last();
    let point = BreakingPoint {
        parameter: parameter.clone(),
        held: held.map(|a| a.value.clone()),
        refuted: refuted.map(|a| a.value.clone()),
        trials: values.iter().map(|a| (a.value.clone(), a.held, a.refuted, a.inconclusive)).collect(),
    };
    let n = count(trials.len() as u64, "trial");
    let over = count(values.len() as u64, "value");
    let top = experiment.spec.search.as_ref().map(|s| s.range.high.as_str());
    let bottom = experiment.spec.search.as_ref().map(|s| s.range.low.as_str());
    let same = |a: Option<&str>, b: &str| a.and_then(Quantity::read).is_some_and(|q| Quantity::read(b) == Some(q));
    let mut reasons = Vec::new();
    let mut outcome = match (held, refuted) {
        (Some(h), Some(r)) => {
            reasons.push(format!(
                "The hypothesis holds at {parameter} {} and is refuted at {}: the breaking point lies between them, by \
                 {n} at {over}.",
                h.value, r.value
            ));
            Outcome::Held
        }
        (Some(h), None) if same(top, &h.value) => {
            reasons.push(format!(
                "The hypothesis held throughout, up to {parameter} {}, the largest value that was asked for, by {n} at \
                 {over}: the breaking point lies above, if there is one.",
                h.value
            ));
            Outcome::Held
        }
        (None, Some(r)) if same(bottom, &r.value) => {
            reasons.push(format!(
                "The hypothesis was refuted at {parameter} {} already, the smallest value that was asked for, by {n} at {over}.",
                r.value
            ));
            Outcome::Refuted
        }
        _ => {
            reasons.push(format!("The breaking point of {parameter} was not found: {n} at {over} do not enclose it."));
            Outcome::Inconclusive
        }
    };
    if let Some(h) = held {
        let seen = Count { bad: 0, all: u64::from(h.held) };
        let all = match h.held {
            1 => "the only trial".into(),
            2 => "both trials".into(),
            n => format!("all {}", count(u64::from(n), "trial")),
        };
        reasons.push(format!(
            "At {} {all} held; a share of up to {} of such trials may still be refuted ({}% confidence).",
            h.value,
            share(seen.upper_bound(1.0 - LEVEL)),
            LEVEL * 100.0
        ));
    }
    if let Some(r) = refuted {
        let all = r.held + r.refuted + r.inconclusive;
        let why = trials.iter().find(|t| t.value == r.value && t.outcome == Outcome::Refuted).map(|t| cut(&t.reason));
        let why = why.filter(|w| !w.is_empty()).map(|w| format!(": {w}")).unwrap_or_default();
        reasons.push(format!("At {} {} of {} refuted it{why}", r.value, r.refuted, count(u64::from(all), "trial")));
        let reason = reasons.last_mut().expect("it was pushed just now");
        if !reason.ends_with(['.', '…']) {
            reason.push('.');
        }
        if let Some(above) = values.iter().skip_while(|a| *a != r).skip(1).find(|a| a.held > 0 && a.refuted == 0) {
            reasons.push(format!(
                "It held again at {}, above that: it does not depend on the value alone, and there may be more than one \
                 breaking point.",
                above.value
            ));
            outcome = Outcome::Inconclusive;
        }
    }
    let told_nothing: u32 = values.iter().map(|a| a.inconclusive).sum();
    if told_nothing > 0 {
        let why = Trial::unclear(trials).map(|t| behind_colon(&cut(&t.reason))).unwrap_or_default();
        reasons.push(format!("{} told nothing; the first: {why}", count(u64::from(told_nothing), "trial")));
    }
    let blockers: Vec<String> = against.any.iter().chain(&against.held).cloned().collect();
    if !blockers.is_empty() {
        outcome = Outcome::Inconclusive;
        reasons.splice(0..0, blockers);
    }
    (point, outcome, reasons)
}

/// Each probe over all trials: how many samples, and where it was refuted.
pub(super) fn of_probes(probes: &mut [ProbeJudgement], trials: &[Trial], outcome: Outcome) {
    for (i, probe) in probes.iter_mut().enumerate() {
        let own: Vec<(&Trial, &ProbeJudgement)> =
            trials.iter().filter_map(|t| Some((t, t.judgement.probes.get(i)?))).collect();
        let refuted: Vec<_> = own.iter().filter(|(_, p)| p.outcome == Outcome::Refuted).collect();
        probe.samples = own.iter().fold((0, 0), |(good, all), (_, p)| (good + p.samples.0, all + p.samples.1));
        probe.detect_ms = None;
        probe.recover_ms = None;
        probe.outcome = outcome;
        probe.reasons = vec![format!("Refuted in {} of {}.", refuted.len(), count(own.len() as u64, "trial"))];
        if let Some((trial, first)) = refuted.first() {
            let why = first.reasons.first().map(|r| format!("The first at {}: {}", trial.value, behind_colon(r)));
            probe.reasons.extend(why);
        }
    }
}
