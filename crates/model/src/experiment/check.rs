//! What a manifest must keep to beyond the form of each field.

use std::collections::HashSet;
use std::time::Duration;

use super::{FaultItem, MethodItem, Spec, When};
use crate::comparison::Op;
use crate::diagnostic::Problems;
use crate::kind::{KindSpec, Tables};
use crate::node::{Node, Span, Value};
use crate::search;
use crate::units::Dur;

mod guardrail;

/// A method takes no longer by plan: beyond it is a typing mistake, or a service, and neither is an experiment.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A `repeat` has no more rounds.
const ROUNDS: u32 = 100_000;

/// Where a key of the spec was written.
fn place(node: &Node, key: &str) -> Span {
    let spec = node.get("spec");
    let entry = spec.and_then(Node::entries).and_then(|entries| entries.iter().find(|e| e.key == key));
    entry.map(|e| e.key_span).or(spec.map(|s| s.span)).unwrap_or(node.span)
}

/// Where something below a kind was written, by the kind's own place; the kind's place if it was not written.
fn below(node: &Node, kind: Span, path: &[&str]) -> Span {
    fn params(node: &Node, kind: Span) -> Option<&Node> {
        match &node.value {
            Value::Map(entries) => {
                entries.iter().find_map(|e| if e.key_span == kind { Some(&e.node) } else { params(&e.node, kind) })
            }
            Value::List(items) => items.iter().find_map(|item| params(item, kind)),
            _ => None,
        }
    }
    match params(node, kind).and_then(|params| path.iter().try_fold(params, |node, key| node.get(key))) {
        Some(node) if kind != Span::default() => node.span,
        _ => kind,
    }
}

/// Where something of the spec was written.
fn in_spec(node: &Node, path: &[&str]) -> Span {
    let found = node.get("spec").and_then(|spec| path.iter().try_fold(spec, |node, key| node.get(key)));
    found.map_or_else(|| place(node, path[0]), |node| node.span)
}

pub(super) fn check(spec: &Spec, node: &Node, tables: &Tables, watched: bool, problems: &mut Problems) {
    if spec.hypothesis.trim().is_empty() {
        problems.add(place(node, "hypothesis"), "the hypothesis says nothing", "a sentence is wanted");
    }
    if watched && spec.probes.is_empty() {
        let help = "for instance - http: {get: \"http://127.0.0.1:8080/\", status: 200}";
        problems.add(place(node, "probes"), "nothing is watched", "no probe").help(help);
    }
    probes(spec, node, tables, problems);
    if spec.method.is_empty() {
        let help = "for instance - process-kill: {target: {process: redis-server}}";
        problems.add(place(node, "method"), "the method does nothing", "no steps").help(help);
    }
    for item in &spec.method {
        step(item, node, tables, problems);
    }
    if spec.method_duration() > LONGEST {
        let longest = Dur(LONGEST);
        problems
            .add(place(node, "method"), format!("the method takes longer than {longest}"), "too long")
            .help("are `times`, `every` and each `for` as meant?");
    }
    if let Some(radius) = &spec.blast_radius {
        let nothing =
            [("processes", radius.processes == Some(0)), ("percent", radius.percent.is_some_and(|p| p.0 <= 0.0))];
        for (key, _) in nothing.iter().filter(|(_, nothing)| *nothing) {
            problems
                .add(
                    in_spec(node, &["blast-radius", key]),
                    "a blast radius of nothing allows no run",
                    "nothing may be hit",
                )
                .help("write how much may be hit, or leave it out");
        }
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
    guardrail::check(spec, node, problems);
    if let Some(wanted) = &spec.search {
        searched(spec, wanted, tables, problems);
    }
}

fn probes(spec: &Spec, node: &Node, tables: &Tables, problems: &mut Problems) {
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
        let at = |key| below(node, probe.kind_span, &[key]);
        if common.recovers.is_some() && common.unaffected == Some(true) {
            problems.add(probe.kind_span, "a probe recovers or is unaffected, not both", "says both");
        }
        claims(spec, probe, node, tables, problems);
        if common.recovers.is_some() && matches!(common.when, When::Before | When::At) {
            let when = if common.when == When::Before { "before" } else { "at" };
            problems
                .add(at("recovers"), "this probe is never asked after the fault", format!("with `when: {when}`"))
                .help("only a probe that is asked after the fault sees that something recovers: `when: during`");
        }
        if common.loses.is_some() && probe.params.get("find").is_none() {
            let finds = |kind: &KindSpec| (kind.fields)().iter().any(|f| f.key == "find");
            let problem =
                problems.add(at("loses"), "`loses` needs a probe that finds again what it wrote", "no `find`");
            match tables.probe(&probe.kind) {
                Some(kind) if finds(kind) => problem.help("say with `find` how a write is looked for"),
                _ => {
                    let kinds: Vec<&str> = tables.probes.iter().filter(|k| finds(k)).map(|k| k.kind).collect();
                    problem.help(format!("probes that can: {}", kinds.join(", ")))
                }
            };
        }
        if common.interval.is_some_and(|i| i.0.is_zero()) {
            problems.add(probe.kind_span, "an interval of nothing never ends", "interval: 0");
        }
        if common.samples == Some(0) {
            problems
                .add(at("samples"), "this probe is never asked", "no sample")
                .help("leave `samples` out, or take some");
        }
        if common.timeout.0.is_zero() {
            problems.add(probe.kind_span, "a timeout of nothing makes every sample bad", "timeout: 0");
        }
    }
}

/// What a probe claims must be able to be false, and to be shown.
fn claims(spec: &Spec, probe: &super::ProbeItem, node: &Node, tables: &Tables, problems: &mut Problems) {
    let (common, span) = (&probe.common, probe.kind_span);
    if common.good.is_some_and(|good| good.share() <= 0.0) {
        let help = "what is never refuted shows nothing: say how many must be good, for instance good: 95%";
        problems.add(span, "no sample has to be good", "good: 0%").help(help);
    }
    let Some(confidence) = common.confidence else { return };
    let at = below(node, span, &["confidence"]);
    if confidence.share() < 0.5 || confidence.share() >= 1.0 {
        problems
            .add(at, format!("nothing is claimed with a confidence of {confidence}"), "from 50% to below 100%")
            .help("no number of samples makes it certain; 95% and 99% are usual");
        return;
    }
    if common.claims().is_empty() {
        problems
            .add(at, "`confidence` has nothing to claim", "no share and no percentile")
            .help("give a share of good samples (`good: 99%`) or a percentile (`p95: \"< 300ms\"`); what has no bound by nature, as `max` or `mean`, has no test");
        return;
    }
    if common.when == When::Before {
        problems
            .add(at, "a claim is made of what is seen since a fault was injected", "with `when: before`")
            .help("leave `confidence` out, or ask the probe `when: during`");
        return;
    }
    let by_default = || {
        let mut faults = spec.method.iter().flat_map(MethodItem::faults);
        common.unaffected != Some(true) && faults.any(|f| tables.fault(&f.kind).is_some_and(|kind| kind.recovers))
    };
    if common.when != When::At && (common.recovers.is_some() || by_default()) {
        problems
            .add(at, "a probe that may be bad for a while claims nothing", "this probe recovers")
            .help("leave `confidence` out; or write `unaffected: true`, if it is to stay good all along");
        return;
    }
    reached(spec, probe, at, problems);
}

/// Whether the run yields as many samples as the claims take at least.
fn reached(spec: &Spec, probe: &super::ProbeItem, at: Span, problems: &mut Problems) {
    let common = &probe.common;
    let confidence = common.confidence.map(|c| c.to_string()).unwrap_or_default();
    let (time, yields) = (spec.claimed_time(probe), spec.samples_for_claims(probe));
    for claim in common.claims() {
        let Some(needed) = claim.fewest() else {
            problems
                .add(
                    at,
                    format!("no number of samples shows `{}` with {confidence} confidence", claim.text),
                    "never shown",
                )
                .help("a claim leaves room for what was not seen: ask for good: 99.9%, or leave `confidence` out");
            continue;
        };
        if needed <= yields {
            continue;
        }
        let interval = spec.interval(probe);
        let mut ways = Vec::new();
        if common.samples.is_some_and(|n| u64::from(n) < needed) {
            ways.push(format!("`samples: {needed}`"));
        }
        let parts = u32::try_from(needed).unwrap_or(u32::MAX);
        let often = Duration::from_millis(u64::try_from((time / parts).as_millis()).unwrap_or(u64::MAX));
        if !often.is_zero() && often < interval {
            ways.push(format!("`interval: {}`", Dur(often)));
        }
        if common.samples.is_none_or(|n| u64::from(n) >= needed) && !time.is_zero() {
            let seconds = interval.as_secs_f64() * f64::from(parts);
            ways.push(format!("let the faults last {}", Dur(Duration::from_secs_f64(seconds.ceil().min(1e9)))));
        } else if time.is_zero() {
            ways.push("ask it `when: during`, while a fault is in force for a time".into());
        }
        let fewer = if yields == 1 { "1 sample".into() } else { format!("{yields} samples") };
        problems
            .add(
                at,
                format!("this run cannot show `{}` with {confidence} confidence", claim.text),
                format!("it takes {needed} samples even if all are good, and the run yields {fewer}"),
            )
            .help(format!("write {}; or claim less", ways.join(", or ")));
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

fn step(item: &MethodItem, node: &Node, tables: &Tables, problems: &mut Problems) {
    let steps = |items: &[MethodItem], span: Span, what: &str, problems: &mut Problems| {
        if items.is_empty() {
            problems.add(span, format!("`{what}` has no steps"), "empty");
        }
        for item in items {
            step(item, node, tables, problems);
        }
    };
    match item {
        MethodItem::Fault(item) => fault(item, node, tables, problems),
        MethodItem::Wait(_) => {}
        MethodItem::Serial(items, span) => steps(items, *span, "serial", problems),
        MethodItem::Parallel(items, span) => steps(items, *span, "parallel", problems),
        MethodItem::Repeat(repeat, span) => {
            if repeat.times == 0 {
                problems.add(*span, "these steps are never reached", "`times` is 0");
            }
            if repeat.times > ROUNDS {
                problems.add(
                    below(node, *span, &["times"]),
                    format!("these are more than {ROUNDS} rounds"),
                    "too many",
                );
            }
            steps(&repeat.steps, *span, "repeat", problems);
        }
    }
}

fn fault(item: &FaultItem, node: &Node, tables: &Tables, problems: &mut Problems) {
    let Some(spec) = tables.fault(&item.kind) else {
        let kinds = tables.faults.iter().map(|f| f.spec.kind).chain(super::STEP_KINDS.iter().map(|k| k.0));
        problems.unknown_name(item.kind_span, "fault", &item.kind, kinds);
        return;
    };
    own_parameters(&spec.spec, &item.params, super::FaultCommon::keys(), problems);
    let at = |path: &[&str]| below(node, item.kind_span, path);
    match item.common.for_ {
        None if spec.lasting => {
            let message = format!("`{}` needs a duration", item.kind);
            problems.add(item.kind_span, message, "`for` is missing").help("every fault ends by itself: add for: 30s");
        }
        Some(d) if spec.lasting && d.0.is_zero() => {
            problems.add(at(&["for"]), "a fault that lasts no time is never seen", "`for` is 0");
        }
        Some(_) if !spec.lasting => {
            let message = format!("`{}` happens at one instant and takes no duration", item.kind);
            problems
                .add(at(&["for"]), message, "nothing lasts")
                .help("leave `for` out; a pause before the next step is - wait: {for: 30s}");
        }
        _ => {}
    }
    let ramped = item.common.ramp.as_ref().map(|ramp| ramp.parameter.as_str());
    for name in spec.strength.iter().filter(|name| ramped != Some(**name)) {
        if let Some(value) = item.params.get(name).filter(|value| is_zero(&written(value))) {
            problems
                .add(value.span, format!("`{name}: {}` does nothing to the system", written(value)), "nothing is done")
                .help("zero is allowed only as one end of a `ramp` or of a `search`");
        }
    }
    if let Some(ramp) = &item.common.ramp {
        if !spec.lasting {
            let message = format!("`{}` happens at one instant, in which nothing can change", item.kind);
            problems.add(at(&["ramp"]), message, "nothing lasts").help("leave `ramp` out");
        }
        let known = ["from", "to"].into_iter().zip([&ramp.from, &ramp.to]).all(|(key, end)| {
            let (named, end_at) = (at(&["ramp", "parameter"]), at(&["ramp", key]));
            parameter(item, &ramp.parameter, end, [named, end_at], tables, problems)
        });
        if known && spec.lasting && !spec.ramps.contains(&ramp.parameter.as_str()) {
            let message = format!("`{}` cannot change its `{}` while it is in force", item.kind, ramp.parameter);
            let help = match spec.ramps {
                [] => {
                    "no parameter of it can be ramped: write one step after the other, each with its own value".into()
                }
                some => {
                    format!("it can ramp {}", some.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" and "))
                }
            };
            problems.add(at(&["ramp", "parameter"]), message, "this cannot be ramped").help(help);
        }
        if known && spec.strength.contains(&ramp.parameter.as_str()) && is_zero(&ramp.from) && is_zero(&ramp.to) {
            problems.add(at(&["ramp", "to"]), "this ramp does nothing to the system", "both its ends are zero");
        }
        if ramp.steps == 0 {
            problems.add(at(&["ramp", "steps"]), "a ramp has at least one step", "`steps` is 0");
        }
        if item.common.for_.is_some_and(|d| d.0 < ramp.over.0) {
            let message = format!("the ramp takes {} and the fault ends before", ramp.over);
            problems.add(at(&["ramp", "over"]), message, "part of the ramp is never reached");
        }
    }
}

/// A value as it was written.
fn written(value: &Node) -> String {
    match value.to_json() {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

fn is_zero(text: &str) -> bool {
    search::Quantity::read(text).is_some_and(|quantity| quantity.number == 0.0)
}

/// Checks that a fault has a parameter and that it takes a value; the places are those of its name and of the value.
fn parameter(
    item: &FaultItem,
    name: &str,
    value: &str,
    [named_at, value_at]: [Span; 2],
    tables: &Tables,
    problems: &mut Problems,
) -> bool {
    let Some(spec) = tables.fault(&item.kind) else { return false };
    let fields = (spec.spec.fields)();
    if !fields.iter().any(|f| f.key == name) {
        problems.unknown_name(named_at, "parameter", name, fields.iter().map(|f| f.key.as_str()));
        return false;
    }
    let mut changed = item.params.clone();
    changed.set(name, search::value_for(&fields, name, value));
    let mut found = Problems::default();
    (spec.spec.check)(&changed, &mut found);
    for problem in found.0 {
        problems.add(value_at, format!("`{name}` cannot be {value}: {}", problem.message), problem.label);
    }
    true
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
            for end in [&wanted.range.low, &wanted.range.high] {
                parameter(fault, name, end, [wanted.span; 2], tables, problems);
            }
            if fault.common.ramp.as_ref().is_some_and(|ramp| ramp.parameter == *name) {
                problems
                    .add(
                        wanted.span,
                        format!("a ramp changes `{name}`, so that no searched value is ever applied"),
                        "both",
                    )
                    .help(format!("leave the ramp of `{}` out, or search another parameter", fault.name()));
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
