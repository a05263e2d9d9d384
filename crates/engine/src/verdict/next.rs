//! What to try next, from what was seen.

use toprope_model::event::{FaultInfo, ProbeInfo};
use toprope_model::experiment::{Experiment, FaultItem};
use toprope_model::search::{Quantity, Unit};
use toprope_model::verdict::{BreakingPoint, Ending, Judgement, Outcome, Suggestion};
use toprope_model::{Dur, Node, Value};

use super::evidence::Evidence;
use super::search::Trial;
use super::words::{cut, more};

/// What a suggestion is made of, beside the judgement.
pub(super) struct Seen<'a> {
    pub(super) run: &'a str,
    pub(super) faults: &'a [FaultInfo],
    pub(super) probes: &'a [ProbeInfo],
    pub(super) evidence: &'a Evidence,
    /// The most samples that some probe lacks for a decision.
    pub(super) missing: Option<u64>,
    /// The first trial of a search that told nothing.
    pub(super) unclear: Option<&'a Trial>,
}

fn suggestion(text: impl Into<String>, command: Option<String>) -> Suggestion {
    Suggestion { text: text.into(), command }
}

/// At most three suggestions, the best first.
pub(super) fn suggest(experiment: &Experiment, judgement: &Judgement, seen: &Seen<'_>) -> Vec<Suggestion> {
    let mut all = Vec::new();
    if judgement.ending == Ending::NotUndone {
        all.push(suggestion(
            "Something is left on this host: see what, and remove it.",
            Some("toprope residue && toprope undo".into()),
        ));
    }
    match (&judgement.breaking_point, judgement.outcome) {
        (Some(point), Outcome::Held) => {
            if let Some(held) = &point.held {
                all.push(suggestion(
                    format!(
                        "Is {} {held} enough? If it is, keep an experiment at that value, so that it stays so.",
                        point.parameter
                    ),
                    None,
                ));
            }
            if point.refuted.is_none() {
                all.extend(search(experiment, 10.0));
            }
        }
        (_, Outcome::Held) => all.extend(after_held(experiment)),
        (_, Outcome::Refuted) => all.extend(after_refuted(experiment, judgement, seen)),
        (Some(point), Outcome::Inconclusive) => all.extend(after_lost_search(point, seen)),
        (None, Outcome::Inconclusive) => all.extend(after_inconclusive(experiment, seen)),
    }
    all.truncate(3);
    all
}

fn again(seen: &Seen<'_>) -> Option<String> {
    (!seen.run.is_empty()).then(|| format!("toprope run --again {}", quote(seen.run)))
}

fn after_held(experiment: &Experiment) -> Vec<Suggestion> {
    let mut all: Vec<Suggestion> = search(experiment, 10.0).into_iter().collect();
    let keep = "Keep it true: run it with the tests, so that a change that breaks it is seen.";
    all.push(suggestion(keep, Some("toprope test DIR --junit FILE".into())));
    all
}

/// The first parameter of a fault that is worse the larger it is, and a range up from where it stands.
fn search(experiment: &Experiment, factor: f64) -> Option<Suggestion> {
    let faults = experiment.faults();
    let (fault, name, text, value) = faults.iter().find_map(|fault| {
        let ramped = |key: &str| fault.common.ramp.as_ref().is_some_and(|r| r.parameter == key);
        fault.params.entries()?.iter().filter(|entry| !ramped(&entry.key)).find_map(|entry| {
            let text = entry.node.text()?;
            let value =
                Quantity::read(text).filter(|q| matches!(q.unit, Unit::Time | Unit::Percent) && q.number > 0.0)?;
            Some((*fault, entry.key.as_str(), text, value))
        })
    })?;
    let top = match value.unit {
        Unit::Percent if value.number >= 100.0 => return None,
        Unit::Percent => Quantity { number: 100.0, ..value },
        _ => value.with(value.number * factor),
    };
    let several = faults.iter().filter(|f| f.params.get(name).is_some()).count() > 1;
    let parameter = if several { format!("{}.{name}", fault.name()) } else { name.to_owned() };
    let argument = quote(&format!("{parameter}={value}..{top}"));
    Some(suggestion(
        format!("It held at {} {}: find the {} at which it breaks.", name, cut(text), name),
        Some(format!("toprope run FILE --search {argument}")),
    ))
}

fn after_refuted(experiment: &Experiment, judgement: &Judgement, seen: &Seen<'_>) -> Vec<Suggestion> {
    let mut all = Vec::new();
    let worst = judgement.probes.iter().position(|p| p.outcome == Outcome::Refuted);
    if let Some(probe) = worst {
        all.extend(smallest(experiment, judgement, seen, probe));
    }
    all.push(suggestion("Fix it, and run the same again with the same seed.", again(seen)));
    if let Some(point) = &judgement.breaking_point
        && point.held.is_none()
    {
        all.push(suggestion(
            format!("Search {} below {}.", point.parameter, point.refuted.as_deref().unwrap_or("that")),
            None,
        ));
    }
    all
}

/// The smallest run that shows a refutation: the fault in force when it showed, for twice the time that it took.
fn smallest(experiment: &Experiment, judgement: &Judgement, seen: &Seen<'_>, probe: usize) -> Option<Suggestion> {
    let detect = judgement.probes[probe].detect_ms?;
    let bad_at = seen.evidence.first_injected()? + nanos(detect);
    let injection = seen.evidence.injections.iter().rev().find(|i| i.injected.is_some_and(|at| at <= bad_at))?;
    let faults = experiment.faults();
    let fault = *faults.get(injection.fault as usize)?;
    let mut command = format!("toprope inject {}", quote(&fault.kind));
    for entry in fault.params.entries()? {
        command.push(' ');
        command.push_str(&quote(&format!("{}={}", entry.key, argument(&entry.node))));
    }
    if injection.lasting {
        let interval = seen.probes.get(probe)?.interval_ms;
        command.push_str(&format!(" --for {}", duration(fault, experiment, probe, detect, interval)));
    }
    command.push_str(&format!(" --probe {}", quote(&probe_argument(experiment, probe)?)));
    let name = seen.probes.get(probe).map_or_else(String::new, |p| cut(&p.name));
    let text = if experiment.faults().len() > 1 || seen.evidence.injections.len() > 1 {
        format!(
            "The smallest run that shows it, with `{}` alone and `{name}`:",
            cut(&seen.faults.get(injection.fault as usize)?.name)
        )
    } else {
        format!("The smallest run that shows it at `{name}`:")
    };
    Some(suggestion(text, Some(command)))
}

/// A probe as an argument: its URL where that says it all, else as it stands in the manifest, as JSON, which is YAML.
fn probe_argument(experiment: &Experiment, probe: usize) -> Option<String> {
    let Value::List(probes) = &experiment.node.get("spec")?.get("probes")?.value else { return None };
    let item = probes.get(probe)?;
    let params = &item.entries()?.first()?.node;
    let says_more = |key: &str| !matches!(key, "get" | "name" | "interval" | "status");
    let status = params.get("status").is_none_or(|s| s.value == Value::Int(200));
    match params.get("get").and_then(Node::text) {
        Some(url) if status && !params.entries()?.iter().any(|e| says_more(&e.key)) => Some(url.to_owned()),
        _ => Some(item.to_json().to_string()),
    }
}

/// Twice the time that it took to show, and long enough for the samples that a percentile needs; in whole seconds, and
/// not longer than it was.
fn duration(fault: &FaultItem, experiment: &Experiment, probe: usize, detect_ms: f64, interval_ms: f64) -> Dur {
    #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
    let needed = experiment.spec.probes.get(probe).map_or(0.0, |p| p.common.samples_needed() as f64);
    let seconds = (detect_ms * 2.0).max(needed * interval_ms * 1.25) / 1e3;
    let wanted = std::time::Duration::from_secs_f64(seconds.ceil().clamp(2.0, 86_400.0));
    Dur(fault.common.for_.map_or(wanted, |d| d.0.min(wanted)))
}

fn nanos(ms: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within a run")]
    let nanos = (ms.max(0.0) * 1e6).ceil() as u64;
    nanos
}

/// A search that enclosed nothing: what its first trial that told nothing would need.
fn after_lost_search(point: &BreakingPoint, seen: &Seen<'_>) -> Vec<Suggestion> {
    let parameter = &point.parameter;
    let again = suggestion("Search again with the same seed.", again(seen));
    if seen.evidence.stop.is_some() {
        return vec![again];
    }
    let Some(trial) = seen.unclear else {
        if point.refuted.is_none() || point.held.is_none() {
            return vec![again];
        }
        let text = format!(
            "What held and what was refuted are not in order of {parameter}: let each trial last longer (`for`), or ask \
             more often (`interval`), so that chance weighs less."
        );
        return vec![suggestion(text, None), again];
    };
    let first = format!(
        "A search needs trials that tell something at both ends of its range, and those at {parameter} {} told nothing. \
         See to that first:",
        cut(&trial.value)
    );
    let hints = trial.judgement.next.iter().filter(|s| !s.command.as_deref().is_some_and(|c| c.contains("--again")));
    std::iter::once(suggestion(first, None)).chain(hints.cloned()).collect()
}

fn after_inconclusive(experiment: &Experiment, seen: &Seen<'_>) -> Vec<Suggestion> {
    let mut all = Vec::new();
    let injections = &seen.evidence.injections;
    if injections.is_empty() {
        let steady = "Make the system healthy first, or ask for what it really does: nothing was injected.";
        let check = "See what the method would hit, and whether the probes answer.";
        if seen.evidence.stop.is_none() {
            all.push(suggestion(steady, None));
        }
        all.push(suggestion(check, Some("toprope plan FILE".into())));
        return all;
    }
    if experiment.spec.probes.is_empty() {
        let text = "Say what must stay true meanwhile: only what is asked can be shown.";
        all.push(suggestion(text, Some("toprope inject FAULT … --probe URL".into())));
        return all;
    }
    let taken = |i: &super::evidence::Injection| {
        i.failed.is_none() && i.effect.as_ref().is_some_and(|e| e.0.took == Some(true))
    };
    if injections.iter().any(|i| !taken(i)) {
        let text = "See what the fault would reach here, and make sure that its target is in use while it is in force.";
        all.push(suggestion(text, Some("toprope plan FILE".into())));
    } else if injections.iter().any(|i| i.effect.as_ref().and_then(|e| e.0.reached).is_some_and(|r| r < 0.9995)) {
        let connections = experiment.faults().iter().any(|f| f.kind.starts_with("network-"));
        let text = match connections {
            true => {
                "Make the fault reach all of its target: connections that were open before may have to be opened anew."
            }
            false => "Make the fault reach all that it asks for: its note says how far it came.",
        };
        all.push(suggestion(text, Some("toprope plan FILE".into())));
    }
    if let Some(missing) = seen.missing.filter(|_| seen.evidence.stop.is_none()) {
        all.push(more_samples(experiment, seen, missing));
    }
    if all.is_empty() || seen.evidence.stop.is_some() {
        all.push(suggestion("Run the same again with the same seed.", again(seen)));
    }
    all
}

/// Ask more often, or longer.
fn more_samples(experiment: &Experiment, seen: &Seen<'_>, missing: u64) -> Suggestion {
    let method = experiment.method_duration().as_secs_f64();
    let interval = seen.probes.iter().map(|p| p.interval_ms).filter(|i| *i > 0.0).fold(f64::INFINITY, f64::min);
    let text = if interval.is_finite() && method > 0.0 {
        let taken = (method * 1e3 / interval).max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
        let factor = (missing as f64 / taken + 1.0) * 1.1;
        format!(
            "{} needed: set `interval: {}` (it is {}), or let the method last {} (it lasts {}).",
            more(missing),
            whole_millis((interval / factor).floor().max(1.0)),
            whole_millis(interval),
            whole_millis((method * factor).ceil() * 1e3),
            whole_millis(method * 1e3),
        )
    } else {
        format!("{} needed: set a shorter `interval`, or watch longer.", more(missing))
    };
    suggestion(text, None)
}

fn whole_millis(ms: f64) -> Dur {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time within a run")]
    let ms = ms.max(0.0).round() as u64;
    Dur(std::time::Duration::from_millis(ms))
}

/// A parameter's value as an argument: text as it is, anything deeper as JSON, which is YAML.
fn argument(node: &Node) -> String {
    match &node.value {
        Value::Text(text) => text.clone(),
        _ => node.to_json().to_string(),
    }
}

/// A word for a POSIX shell.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_cannot_break_out() {
        assert_eq!(quote("delay=200ms..2s"), "delay=200ms..2s");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("x'; rm -rf / #"), r"'x'\''; rm -rf / #'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("$(id)"), "'$(id)'");
    }
}
