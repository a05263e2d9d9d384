//! What a manifest must keep to beyond the form of each field.

use std::collections::HashSet;

use super::{FaultItem, MethodItem, Spec, When};
use crate::comparison::Op;
use crate::diagnostic::Problems;
use crate::kind::{KindSpec, Tables};
use crate::node::{Node, Span};
use crate::search;

/// Where a key of the spec was written.
fn place(node: &Node, key: &str) -> Span {
    let spec = node.get("spec");
    let entry = spec.and_then(Node::entries).and_then(|entries| entries.iter().find(|e| e.key == key));
    entry.map(|e| e.key_span).or(spec.map(|s| s.span)).unwrap_or(node.span)
}

pub(super) fn check(spec: &Spec, node: &Node, tables: &Tables, problems: &mut Problems) {
    if spec.hypothesis.trim().is_empty() {
        problems.add(place(node, "hypothesis"), "the hypothesis says nothing", "a sentence is wanted");
    }
    probes(spec, node, tables, problems);
    if spec.method.is_empty() {
        let help = "for instance - process-kill: {target: {process: redis-server}}";
        problems.add(place(node, "method"), "the method does nothing", "no steps").help(help);
    }
    for item in &spec.method {
        step(item, tables, problems);
    }
    let lasting =
        spec.method.iter().flat_map(MethodItem::faults).any(|f| f.common.for_.is_some_and(|d| !d.0.is_zero()));
    for probe in &spec.probes {
        if probe.common.when == When::At && !lasting {
            problems
                .add(probe.kind_span, "this probe is never asked", "no fault of the method stays in force for a time")
                .help("give a fault `for: 30s`, or the probe `when: during`");
        }
    }
    if !spec.probes.is_empty() && spec.probes.iter().all(|p| p.common.when == When::Before) {
        problems
            .add(spec.probes[0].kind_span, "nothing is asked while a fault is in force or after it", "`when: before`")
            .help("what is asked before only cannot refute the hypothesis: leave `when` out, or add a probe");
    }
    guardrails(spec, node, problems);
    if let Some(wanted) = &spec.search {
        searched(spec, wanted, tables, problems);
    }
}

fn probes(spec: &Spec, node: &Node, tables: &Tables, problems: &mut Problems) {
    if spec.probes.is_empty() {
        let help = "for instance - http: {get: \"http://127.0.0.1:8080/\", status: 200}";
        problems.add(place(node, "probes"), "nothing is watched", "no probe").help(help);
    }
    let mut names = HashSet::new();
    for (probe, name) in spec.probes.iter().zip(spec.probe_names()) {
        match tables.probe(&probe.kind) {
            Some(kind) => own_parameters(kind, &probe.params, super::ProbeCommon::keys(), problems),
            None => {
                let kinds = tables.probes.iter().map(|p| p.kind);
                problems.unknown_name(probe.kind_span, "probe", &probe.kind, kinds);
            }
        }
        let common = &probe.common;
        if !names.insert(name.clone()) {
            problems.add(probe.kind_span, format!("two probes are named `{name}`"), "the second one");
        }
        for (name, _, _, tolerance) in common.tolerances() {
            if tolerance.bound().is_none() || matches!(tolerance.op(), Op::Equal | Op::NotEqual) {
                problems
                    .add(probe.kind_span, format!("`{name}: {tolerance}` is no bound"), "a bound is wanted")
                    .help(format!("for instance {name}: \"< 300ms\""));
            }
        }
        if common.recovers.is_some() && common.unaffected == Some(true) {
            problems.add(probe.kind_span, "a probe recovers or is unaffected, not both", "says both");
        }
        claims(probe, problems);
        if common.interval.is_some_and(|i| i.0.is_zero()) {
            problems.add(probe.kind_span, "an interval of nothing never ends", "interval: 0");
        }
        if common.timeout.0.is_zero() {
            problems.add(probe.kind_span, "a timeout of nothing makes every sample bad", "timeout: 0");
        }
    }
}

/// What a probe claims must be able to be false, and to be shown.
fn claims(probe: &super::ProbeItem, problems: &mut Problems) {
    let (common, span) = (&probe.common, probe.kind_span);
    if common.good.is_some_and(|good| good.share() <= 0.0) {
        let help = "what is never refuted shows nothing: say how many must be good, for instance good: 95%";
        problems.add(span, "no sample has to be good", "good: 0%").help(help);
    }
    let Some(confidence) = common.confidence else { return };
    if confidence.share() < 0.5 || confidence.share() >= 1.0 {
        problems
            .add(span, format!("nothing is claimed with a confidence of {confidence}"), "from 50% to below 100%")
            .help("no number of samples makes it certain; 95% and 99% are usual");
    }
    let bounded = |t: &(_, Option<f64>, _, _)| t.1.is_some_and(|q| q < 1.0);
    if common.good.is_none() && !common.tolerances().iter().any(bounded) {
        problems
            .add(span, "`confidence` has nothing to claim", "no share and no percentile")
            .help("give a share of good samples (`good: 99%`) or a percentile (`p95: \"< 300ms\"`); what has no bound by nature, as `max` or `mean`, has no test");
    }
}

/// Checks a kind's own parameters. A key that is not known may be one of the common ones, misspelt.
fn own_parameters(spec: &KindSpec, params: &Node, common: Vec<String>, problems: &mut Problems) {
    let own: Vec<String> = (spec.fields)().into_iter().map(|f| f.key).collect();
    let known: Vec<&str> = own.iter().chain(&common).map(String::as_str).collect();
    crate::field::refuse_unknown_keys(params, &known, "field", problems);
    let (params, _) = params.partition(&known);
    (spec.check)(&params, problems);
}

fn step(item: &MethodItem, tables: &Tables, problems: &mut Problems) {
    let steps = |items: &[MethodItem], span: Span, what: &str, problems: &mut Problems| {
        if items.is_empty() {
            problems.add(span, format!("`{what}` has no steps"), "empty");
        }
        for item in items {
            step(item, tables, problems);
        }
    };
    match item {
        MethodItem::Fault(item) => fault(item, tables, problems),
        MethodItem::Wait(_) => {}
        MethodItem::Serial(items, span) => steps(items, *span, "serial", problems),
        MethodItem::Parallel(items, span) => steps(items, *span, "parallel", problems),
        MethodItem::Repeat(repeat, span) => {
            if repeat.times == 0 {
                problems.add(*span, "these steps are never reached", "`times` is 0");
            }
            steps(&repeat.steps, *span, "repeat", problems);
        }
    }
}

fn fault(item: &FaultItem, tables: &Tables, problems: &mut Problems) {
    let Some(spec) = tables.fault(&item.kind) else {
        let kinds = tables.faults.iter().map(|f| f.spec.kind).chain(super::STEP_KINDS.iter().map(|k| k.0));
        problems.unknown_name(item.kind_span, "fault", &item.kind, kinds);
        return;
    };
    own_parameters(&spec.spec, &item.params, super::FaultCommon::keys(), problems);
    match item.common.for_ {
        None if spec.lasting => {
            let message = format!("`{}` needs a duration", item.kind);
            problems.add(item.kind_span, message, "`for` is missing").help("every fault ends by itself: add for: 30s");
        }
        Some(d) if spec.lasting && d.0.is_zero() => {
            problems.add(item.kind_span, "a fault that lasts no time is never seen", "`for` is 0");
        }
        _ => {}
    }
    if let Some(ramp) = &item.common.ramp {
        let ends = [&ramp.from, &ramp.to];
        let known = ends.map(|end| parameter(item, &ramp.parameter, end, item.kind_span, tables, problems));
        if known == [true; 2] && !spec.ramps.contains(&ramp.parameter.as_str()) {
            let message = format!("`{}` cannot change its `{}` while it is in force", item.kind, ramp.parameter);
            let help = match spec.ramps {
                [] => {
                    "no parameter of it can be ramped: write one step after the other, each with its own value".into()
                }
                some => {
                    format!("it can ramp {}", some.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" and "))
                }
            };
            problems.add(item.kind_span, message, "this cannot be ramped").help(help);
        }
        if ramp.steps == 0 {
            problems.add(item.kind_span, "a ramp has at least one step", "`steps` is 0");
        }
        if item.common.for_.is_some_and(|d| d.0 < ramp.over.0) {
            let message = format!("the ramp takes {} and the fault ends before", ramp.over);
            problems.add(item.kind_span, message, "part of the ramp is never reached");
        }
    }
}

/// Checks that a fault has a parameter and that it takes a value.
fn parameter(item: &FaultItem, name: &str, value: &str, span: Span, tables: &Tables, problems: &mut Problems) -> bool {
    let Some(spec) = tables.fault(&item.kind) else { return false };
    let fields = (spec.spec.fields)();
    if !fields.iter().any(|f| f.key == name) {
        problems.unknown_name(span, "parameter", name, fields.iter().map(|f| f.key.as_str()));
        return false;
    }
    let mut changed = item.params.clone();
    changed.set(name, search::value_for(&fields, name, value));
    let mut found = Problems::default();
    (spec.spec.check)(&changed, &mut found);
    for problem in found.0 {
        problems.add(span, format!("`{name}` cannot be {value}: {}", problem.message), problem.label);
    }
    true
}

fn guardrails(spec: &Spec, node: &Node, problems: &mut Problems) {
    let names = spec.probe_names();
    for guardrail in &spec.guardrails {
        if let Some(probe) = guardrail.probe()
            && !names.iter().any(|n| n == probe)
        {
            problems.unknown_name(place(node, "guardrails"), "probe", probe, names.iter().map(String::as_str));
        }
    }
}

fn searched(spec: &Spec, wanted: &super::Search, tables: &Tables, problems: &mut Problems) {
    let faults: Vec<&FaultItem> = spec.method.iter().flat_map(MethodItem::faults).collect();
    let matches = search::targets(&faults, &wanted.parameter, tables);
    match matches.as_slice() {
        [] => {
            let names = faults.iter().filter_map(|f| tables.fault(&f.kind)).flat_map(|s| (s.spec.fields)());
            let names: Vec<String> = names.map(|f| f.key).collect();
            let known = names.iter().map(String::as_str);
            problems.unknown_name(wanted.span, "parameter of the method's faults", &wanted.parameter, known);
        }
        [(fault, name)] => {
            if fault.common.ramp.as_ref().is_some_and(|ramp| ramp.parameter == *name) {
                problems
                    .add(wanted.span, "a search tries one value after the other, and a ramp changes it", "ramped")
                    .help("remove the `ramp`");
            }
            for end in [&wanted.range.low, &wanted.range.high] {
                parameter(fault, name, end, wanted.span, tables, problems);
            }
            let low = search::Quantity::read(&wanted.range.low);
            let high = search::Quantity::read(&wanted.range.high);
            match (low, high) {
                (Some(low), Some(high)) if low.unit == high.unit && low.number < high.number => {}
                (Some(low), Some(high)) if low.unit == high.unit => {
                    problems.add(wanted.span, "the range is empty", "its first value is not the smaller one");
                }
                _ => {
                    let help = "for instance delay: 50ms..2s, load: 10%..90%";
                    problems.add(wanted.span, "only quantities can be searched", "not a quantity").help(help);
                }
            }
        }
        _ => {
            let names: Vec<String> = matches.iter().map(|(f, n)| format!("{}.{n}", f.name())).collect();
            problems
                .add(wanted.span, format!("several faults have a parameter `{}`", wanted.parameter), "which one?")
                .help(format!("write one of {}", names.join(", ")));
        }
    }
    if spec.method.iter().any(|m| matches!(m, MethodItem::Repeat(..))) {
        problems.add(wanted.span, "a search repeats the whole method by itself", "remove `repeat` from the method");
    }
}
