//! The search for the breaking point: bisection over a fault's parameter, with every trial counted.

use std::sync::Arc;

use toprope_model::Experiment;
use toprope_model::event::{Event, Level};
use toprope_model::search::{Quantity, Unit, targets, value_for};
use toprope_model::verdict::{Judgement, Outcome};

use super::Setup;
use super::phases::{PlannedFaults, Trials, plan_all};

/// A value counts as held when so many trials held and none was refuted.
const TRIALS: u32 = 2;
/// The bracket is narrow enough when its ends differ by less than this factor (or this many percentage points).
const NARROW: f64 = 1.1;
/// At most so many values are tried.
const VALUES: u32 = 12;

/// Finds the largest value at which the hypothesis still holds, or the smallest where small values are the harmful
/// ones: which way it goes is seen at the ends of the range.
pub(super) async fn search(trials: &mut Trials, planned: PlannedFaults) -> Judgement {
    drop(planned); // Every trial plans anew, with its own value.
    let Some(wanted) = trials.setup.experiment.spec.search.clone() else { return trials.judge() };
    let (Some(low), Some(high)) = (Quantity::read(&wanted.range.low), Quantity::read(&wanted.range.high)) else {
        return trials.judge(); // Refused when the manifest was read.
    };
    let mut number = 0;
    let at_low = value(trials, low, &mut number).await;
    let at_high = if at_low.is_some() { value(trials, high, &mut number).await } else { None };
    let (mut good, mut bad) = match (at_low, at_high) {
        (Some(Outcome::Held), Some(Outcome::Refuted)) => (low, high),
        (Some(Outcome::Refuted), Some(Outcome::Held)) => (high, low),
        // Held or refuted throughout, or no evidence: there is nothing to bisect, and the verdict says so.
        _ => return trials.judge(),
    };
    for _ in 0..VALUES {
        let Some(middle) = between(good, bad) else { break };
        match value(trials, middle, &mut number).await {
            Some(Outcome::Held) => good = middle,
            Some(Outcome::Refuted) => bad = middle,
            _ => break,
        }
    }
    trials.judge()
}

/// The value to try next; `None` when the bracket is narrow enough.
fn between(good: Quantity, bad: Quantity) -> Option<Quantity> {
    let (small, large) = (good.number.min(bad.number), good.number.max(bad.number));
    let middle = match good.unit {
        // Percentages and counts are compared by difference, all else by ratio.
        Unit::Percent | Unit::Plain => {
            if large - small < (NARROW - 1.0) * 20.0 {
                return None;
            }
            f64::midpoint(small, large)
        }
        _ if small > 0.0 => {
            if large / small < NARROW {
                return None;
            }
            (small * large).sqrt()
        }
        _ => f64::midpoint(small, large),
    };
    let middle = good.with(middle);
    (middle.number > small && middle.number < large).then_some(middle)
}

/// Tries a value until it held often enough, was refuted, or gave no evidence twice.
async fn value(trials: &mut Trials, value: Quantity, number: &mut u32) -> Option<Outcome> {
    let setup = with_value(&trials.setup, &value.to_string());
    let (mut held, mut unclear) = (0, 0);
    loop {
        if trials.stop.pulled().is_some() {
            return None;
        }
        *number += 1;
        trials.recorder.record(Event::TrialStarted { trial: *number, value: value.to_string() });
        let planned = match plan_all(&setup, &trials.pass_throughs, trials.seed).await {
            Ok(planned) => planned,
            Err(error) => {
                trials.recorder.note(Level::Error, error.to_string());
                let (outcome, reason) = (Outcome::Inconclusive, error.to_string());
                trials.recorder.record(Event::TrialEnded { trial: *number, outcome, reason });
                return None;
            }
        };
        trials.trial(setup.clone(), planned).await;
        let (outcome, reason) = trials.judge_trial(&setup);
        trials.recorder.record(Event::TrialEnded { trial: *number, outcome, reason });
        match outcome {
            Outcome::Refuted => return Some(Outcome::Refuted),
            Outcome::Held => held += 1,
            Outcome::Inconclusive => unclear += 1,
        }
        if held >= TRIALS {
            return Some(Outcome::Held);
        }
        if unclear >= 2 {
            return Some(Outcome::Inconclusive);
        }
    }
}

/// The same setup with another value of the searched parameter.
fn with_value(setup: &Setup, value: &str) -> Arc<Setup> {
    let mut changed = setup.clone();
    let Some(wanted) = &setup.experiment.spec.search else { return Arc::new(changed) };
    let faults = setup.experiment.faults();
    if let [(fault, parameter)] = targets(&faults, &wanted.parameter, &setup.tables).as_slice() {
        let index = faults.iter().position(|f| std::ptr::eq(*f, *fault)).unwrap_or_default();
        set_parameter(&mut changed.experiment, index, parameter, value, setup);
    }
    Arc::new(changed)
}

fn set_parameter(experiment: &mut Experiment, index: usize, parameter: &str, value: &str, setup: &Setup) {
    let mut faults = Vec::new();
    for item in &mut experiment.spec.method {
        faults.extend(item.faults_mut());
    }
    if let Some(fault) = faults.into_iter().nth(index)
        && let Some(spec) = setup.tables.fault(&fault.kind)
    {
        fault.params.set(parameter, value_for(&(spec.spec.fields)(), parameter, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bracket_closes_on_the_breaking_point() {
        let (mut good, mut bad) = (Quantity::read("50ms").unwrap(), Quantity::read("2s").unwrap());
        let mut tried = 0;
        while let Some(middle) = between(good, bad) {
            tried += 1;
            // 437 ms is where it breaks.
            if middle.number < 437e6 { good = middle } else { bad = middle }
        }
        assert!(tried <= 7, "{tried}");
        assert!(good.number < 437e6 && bad.number >= 437e6 && bad.number / good.number < NARROW);
    }
}
