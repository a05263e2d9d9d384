//! Guardrails that never stop a run, or stop every one, are refused.

use super::place;
use crate::diagnostic::Problems;
use crate::experiment::{GuardrailItem, ProbeItem, RATIO_SAMPLES, STEADY_STATE, Spec, When};
use crate::node::{Node, Span, Value};
use crate::units::{Dur, Percent};

pub(super) fn check(spec: &Spec, node: &Node, problems: &mut Problems) {
    let names = spec.probe_names();
    for (i, guardrail) in spec.guardrails.iter().enumerate() {
        let at = |key: &str| found(node, i, key).1;
        let watched: Vec<_> = spec
            .probes
            .iter()
            .zip(&names)
            .filter(|(_, name)| guardrail.probe().is_none_or(|probe| probe == *name))
            .map(|(probe, _)| probe)
            .collect();
        if let (Some(probe), true) = (guardrail.probe(), watched.is_empty()) {
            problems.unknown_name(at("probe"), "probe", probe, names.iter().map(String::as_str));
            continue;
        }
        let asked = |probe: &&ProbeItem| matches!(probe.common.when, When::During | When::At);
        if !watched.is_empty() && !watched.iter().any(asked) {
            problems
                .add(
                    at("probe"),
                    "this guardrail never stops a run",
                    "the probe is not asked while faults are injected",
                )
                .help("guardrails look while faults are injected: let it watch a probe with `when: during` or `at`");
            continue;
        }
        match guardrail {
            GuardrailItem::ErrorRatio(g) => {
                if g.above.0 >= 100.0 {
                    problems
                        .add(at("above"), "this guardrail never stops a run", "no share is larger")
                        .help("it stops when more than this share is bad: for instance above: 50%");
                } else if g.confidence.is_none() {
                    window(spec, g.over, &watched, &at, problems);
                } else if found(node, i, "over").0 {
                    problems
                        .add(at("over"), "with `confidence` all samples since the injection count", "a time")
                        .help("leave out `over`, or `confidence`: without it the samples of that time are judged");
                }
            }
            GuardrailItem::BurnRate(g) if g.objective.0 <= 0.0 || g.objective.0 >= 100.0 => {
                problems
                    .add(at("objective"), "this objective has no error budget to burn", "above 0% and below 100%")
                    .help("for instance objective: 99.9%");
            }
            GuardrailItem::BurnRate(g) if g.above <= 0.0 => {
                problems
                    .add(at("above"), "this guardrail stops every run at once", "nothing is burned")
                    .help("1 is what the budget allows; for instance above: 10");
            }
            GuardrailItem::LostTelemetry(g) if g.samples == 0 => {
                problems
                    .add(at("samples"), "this guardrail stops every run at once", "no failed sample is needed")
                    .help("for instance samples: 5");
            }
            GuardrailItem::LostTelemetry(g) if g.for_.is_some() => {
                let slowest = watched.iter().map(|probe| spec.interval(probe) + probe.common.timeout.0).max();
                if let Some(slowest) = slowest.filter(|slowest| g.for_.is_some_and(|d| d.0 < *slowest)) {
                    problems
                        .add(at("for"), "this guardrail takes a slow answer for none", "shorter than a sample may take")
                        .help(format!("an interval and the timeout are {}: write that, or more", Dur(slowest)));
                }
            }
            GuardrailItem::BadInARow(g) if g.samples == 0 => {
                problems
                    .add(at("samples"), "this guardrail stops every run at once", "no bad sample is needed")
                    .help("for instance samples: 3");
            }
            GuardrailItem::Value(g) if g.keeps.bound().is_none() => {
                problems
                    .add(
                        at("keeps"),
                        format!("a probe's value is a number, and `{}` is text", g.keeps),
                        "not a quantity",
                    )
                    .help("for instance keeps: \"< 500ms\"");
            }
            _ => {}
        }
        if let Some(confidence) = guardrail.confidence() {
            tested(spec, guardrail, confidence, &watched, &at, problems);
        }
    }
}

/// Whether the probe is asked often enough in a time for `error-ratio` to decide.
fn window(spec: &Spec, over: Dur, watched: &[&ProbeItem], at: &dyn Fn(&str) -> Span, problems: &mut Problems) {
    let fastest = watched.iter().map(|probe| spec.interval(probe)).min().unwrap_or_default();
    let wanted = fastest * RATIO_SAMPLES;
    let few = watched.iter().all(|probe| probe.common.samples.is_some_and(|n| n < RATIO_SAMPLES));
    let message = format!("this guardrail never stops a run: it decides on {RATIO_SAMPLES} samples or more");
    if over.0 < wanted {
        problems
            .add(at("over"), message, format!("the probe is asked every {}", Dur(fastest)))
            .help(format!("write over: {} or longer, or ask the probe more often", Dur(wanted)));
    } else if few && !watched.is_empty() {
        problems.add(at(""), message, "the probe takes fewer").help("`bad-in-a-row` decides on fewer");
    }
}

/// Whether a test can stop the run at all.
fn tested(
    spec: &Spec,
    guardrail: &GuardrailItem,
    confidence: Percent,
    watched: &[&ProbeItem],
    at: &dyn Fn(&str) -> Span,
    problems: &mut Problems,
) {
    if confidence.share() < 0.5 || confidence.share() >= 1.0 {
        problems
            .add(at("confidence"), format!("no guardrail is {confidence} sure"), "from 50% to below 100%")
            .help("no number of samples makes it certain; 95% and 99% are usual");
        return;
    }
    let Some(share) = guardrail.tested_share().filter(|share| *share > 0.0) else { return };
    // 10 times a budget of 10% is all, however a float has it.
    if share >= 1.0 - 1e-9 {
        if !matches!(guardrail, GuardrailItem::ErrorRatio(_)) {
            problems
                .add(at("above"), "this guardrail never stops a run", "no share of bad samples is so large")
                .help("so many times the error budget is more than all samples: write fewer");
        }
        return;
    }
    let method = spec.method_duration();
    let yields = |probe: &&ProbeItem| {
        let asked = method.as_nanos() / spec.interval(probe).as_nanos().max(1) + 1;
        let asked = u64::try_from(asked).unwrap_or(u64::MAX);
        probe.common.samples.map_or(asked, |n| asked.min(u64::from(n)))
    };
    let most = watched.iter().map(yields).max().unwrap_or(0);
    if let Some(needed) = guardrail.fewest(watched.len()).filter(|needed| *needed > most && !method.is_zero()) {
        problems
            .add(
                at(""),
                "this guardrail never stops a run",
                format!("it takes {needed} samples even if all are bad, and the method yields {most}"),
            )
            .help("ask the probe more often (`interval`), or let `bad-in-a-row` watch it, which takes fewer");
    }
    let Some(needed) = guardrail.fewest_before(watched.len()) else { return };
    let steady = spec.steady_state.as_ref().map_or(STEADY_STATE, |s| s.for_.0);
    for probe in watched.iter().filter(|probe| matches!(probe.common.when, When::During | When::At)) {
        let interval = spec.interval(probe);
        let seen = if probe.common.when == When::At { 0 } else { steady.as_nanos() / interval.as_nanos().max(1) };
        if seen >= u128::from(needed) {
            continue;
        }
        let problem = problems.add(
            at(""),
            "this guardrail would not know what was before",
            format!("it takes {needed} samples of the steady state, and there are {seen}"),
        );
        let parts = u32::try_from(needed).unwrap_or(u32::MAX);
        if probe.common.when == When::At {
            problem.help("let it watch a probe that is asked in the steady state too: `when: during`");
        } else {
            problem.help(format!(
                "write `steady-state: {{for: {}}}`, or ask the probe more often (`interval`)",
                Dur(std::time::Duration::from_secs_f64((interval.as_secs_f64() * f64::from(parts)).ceil().min(1e9)))
            ));
        }
    }
}

/// Whether a key of a guardrail was written, and where; its kind's place if it was not.
fn found(node: &Node, number: usize, key: &str) -> (bool, Span) {
    let items = node.get("spec").and_then(|spec| spec.get("guardrails"));
    let item = items.and_then(|items| if let Value::List(items) = &items.value { items.get(number) } else { None });
    let Some(entry) = item.and_then(Node::entries).and_then(|entries| entries.first()) else {
        return (false, place(node, "guardrails"));
    };
    entry.node.get(key).map_or((false, entry.key_span), |node| (true, node.span))
}
