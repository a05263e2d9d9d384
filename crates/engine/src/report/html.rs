//! The HTML report: values for the template beside this file.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use toprope_model::event::Level;
use toprope_model::experiment::ProbeCommon;
use toprope_model::step::Effect;
use toprope_model::verdict::{Ending, Outcome};

use super::summary::{Stats, Summary};
use super::text::{NAME, TEXT, at, clean, name, prose, wall};
use super::{chart, outage};
use crate::verdict::evidence::{Injection, Watch};
use crate::verdict::words::{self, millis, ms, number};

const TEMPLATE: &str = include_str!("page.html.j2");
const STYLE: &str = include_str!("page.css");
/// Most rows of one table: the log and the JSON have them all.
const ROWS: usize = 100;
/// Longest headline; the manifest further down has the rest.
const HEADLINE: usize = 500;

/// Renders the page.
pub(super) fn render(summary: &Summary<'_>) -> String {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    // Automatic escaping goes by the name's ending.
    environment.add_template("page.html", TEMPLATE).expect("the template is part of the program and tested");
    let template = environment.get_template("page.html").expect("it was added just now");
    template.render(page(summary)).expect("every value that the template asks for is given")
}

fn safe(html: String) -> Value {
    Value::from_safe_string(html)
}

fn sentences(all: &[String]) -> Vec<Value> {
    all.iter().map(|s| safe(prose(s))).collect()
}

fn page(summary: &Summary<'_>) -> Value {
    let judgement = &summary.judgement;
    let started = &summary.started;
    let time = chart::time(summary);
    let probes: Vec<Value> = (0..started.probes.len()).map(|i| probe(summary, i, &time)).collect();
    let injections = &summary.evidence.injections;
    let anatomy = outage::anatomy(summary);
    let shown = judgement.probes.iter().filter(|p| p.detect_ms.is_some()).count();
    context! {
        style => safe(STYLE.to_owned()),
        icons => context! { held => icon(Outcome::Held), refuted => icon(Outcome::Refuted), inconclusive => icon(Outcome::Inconclusive) },
        name => summary.name(),
        hypothesis => clean(&summary.hypothesis(), HEADLINE),
        long => summary.hypothesis().chars().count() > 110,
        about => about(summary),
        wall => wall(&started.wall),
        outcome => judgement.outcome.to_string(),
        verdict => verdict_word(judgement.outcome),
        verdict_icon => icon(judgement.outcome),
        meaning => meaning(summary),
        ending => summary.ending(),
        ending_bad => judgement.ending != Ending::Complete || summary.sealed.is_some() || !summary.closed,
        reasons => sentences(&judgement.reasons),
        figures => figures(summary),
        overview => safe(chart::overview(summary, &time)),
        probes => probes,
        anatomy => anatomy.map(safe),
        anatomy_more => shown.saturating_sub(24),
        breaking_point => judgement.breaking_point.as_ref().and_then(outage::breaking_point).map(safe),
        trials => trials(summary),
        effects => injections.iter().take(ROWS).map(|i| effect(summary, i)).collect::<Vec<_>>(),
        // A card for each of a few, a row for each of many.
        compact => injections.len() > 3,
        undos => injections.iter().filter(|i| i.failed.is_none()).take(ROWS).map(|i| undo(summary, i)).collect::<Vec<_>>(),
        more => injections.len().saturating_sub(ROWS),
        notes => notes(summary),
        next => judgement.next.iter().map(|n| context! { text => safe(prose(&n.text)), command => n.command.as_deref().map(|c| clean(c, TEXT)) }).collect::<Vec<_>>(),
        run => clean(&started.run, NAME),
        again => started.again.as_deref().map(name),
        seed => started.seed.to_string(),
        generator => name(&started.generator),
        manifest => clean(&summary.manifest(), 200_000),
        facts => facts(summary),
    }
}

fn verdict_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "Held",
        Outcome::Refuted => "Refuted",
        Outcome::Inconclusive => "Inconclusive",
    }
}

/// What the verdict means, for who reads such a report for the first time.
fn meaning(summary: &Summary<'_>) -> &'static str {
    if summary.judgement.breaking_point.is_some() {
        return match summary.judgement.outcome {
            Outcome::Held => "The search found where it holds.",
            Outcome::Refuted => "It does not even hold at the smallest value.",
            Outcome::Inconclusive => "The search did not find where it breaks.",
        };
    }
    match summary.judgement.outcome {
        Outcome::Held => "The faults took, and what was seen agrees with the hypothesis.",
        Outcome::Refuted => "What was seen contradicts the hypothesis.",
        Outcome::Inconclusive => "Nothing is shown, neither for the hypothesis nor against it.",
    }
}

/// An icon of its own shape for each outcome: a tick, a cross, a question mark.
fn icon(outcome: Outcome) -> Value {
    let path = match outcome {
        Outcome::Held => "<path d=\"M5 12.5l4.5 4.5L19 7.5\"/>",
        Outcome::Refuted => "<path d=\"M6.5 6.5l11 11M17.5 6.5l-11 11\"/>",
        Outcome::Inconclusive => {
            "<path d=\"M8.2 9a3.8 3.8 0 1 1 5.6 3.3c-1.2.7-1.8 1.3-1.8 2.7\"/><path d=\"M12 18.4v.1\"/>"
        }
    };
    safe(format!("<svg class=\"icon\" viewBox=\"0 0 24 24\" aria-hidden=\"true\">{path}</svg>"))
}

fn about(summary: &Summary<'_>) -> Vec<Value> {
    let keys = [("why", "Why"), ("goal", "Goal"), ("worry", "Worry")];
    let row = |(key, label): (&str, &str)| Some(context! { label => label, text => summary.spec_text(key)? });
    keys.into_iter().filter_map(row).collect()
}

fn figure(label: &str, value: String, note: String) -> Value {
    context! { label => label, value => value, note => note }
}

fn figures(summary: &Summary<'_>) -> Vec<Value> {
    let judgement = &summary.judgement;
    let (good, all) = judgement.probes.iter().fold((0, 0), |(g, a), p| (g + p.samples.0, a + p.samples.1));
    let samples = match all {
        0 => figure("Samples judged", "none".into(), String::new()),
        _ => figure("Samples judged", number(all), format!("{} good", number(good))),
    };
    if let Some(point) = &judgement.breaking_point {
        let trials: u32 = point.trials.iter().map(|t| t.1 + t.2 + t.3).sum();
        let of = |v: &Option<String>| v.as_deref().map_or_else(|| "—".into(), name);
        let values = words::count(point.trials.len() as u64, "value");
        return vec![
            figure("Holds at", of(&point.held), name(&point.parameter)),
            figure("Breaks at", of(&point.refuted), name(&point.parameter)),
            figure("Trials", number(u64::from(trials)), format!("at {values}")),
            samples,
        ];
    }
    let detect = judgement.detect_ms.map_or_else(|| "—".into(), millis);
    let detect_note = if judgement.detect_ms.is_some() { "injection to first bad sample" } else { "nothing was bad" };
    let recover = judgement.recover_ms.map_or_else(|| "—".into(), millis);
    let recover_note = match (judgement.detect_ms, judgement.recover_ms) {
        (None, _) => "nothing was bad",
        (Some(_), None) => "not back at the end",
        (Some(_), Some(_)) => "first bad sample to all good",
    };
    let injections: Vec<_> = summary.evidence.injections.iter().filter(|i| i.injected.is_some()).collect();
    let lasting: Vec<_> = injections.iter().filter(|i| i.lasting).collect();
    let total: u64 = lasting.iter().map(|i| chart::in_force(i, summary.end)).map(|(from, to)| to - from).sum();
    let count = words::count(injections.len() as u64, "injection");
    let force = if injections.is_empty() {
        figure("Faults", "—".into(), "nothing was injected".into())
    } else if lasting.is_empty() {
        figure("Faults", number(injections.len() as u64), "each at one instant".into())
    } else {
        figure("Fault in force", at(total), count)
    };
    vec![
        figure("Time to detect", detect, detect_note.into()),
        figure("Time to recover", recover, recover_note.into()),
        force,
        samples,
    ]
}

/// The tolerances that are lines in a chart.
fn bounds(common: Option<&ProbeCommon>) -> Vec<(String, f64)> {
    let tolerances = common.map(ProbeCommon::tolerances).unwrap_or_default();
    let line = |t: (&str, Option<f64>, u64, &toprope_model::Comparison)| {
        let bound = t.3.bound().filter(|b| b.is_finite())?;
        Some((clean(&format!("{} {}", t.0, t.3), NAME), bound))
    };
    tolerances.into_iter().filter_map(line).collect()
}

fn probe(summary: &Summary<'_>, index: usize, time: &super::axis::Time) -> Value {
    let info = &summary.started.probes[index];
    let empty = Watch::default();
    let watch = summary.evidence.probes.get(index).unwrap_or(&empty);
    let common = summary.experiment.as_ref().and_then(|e| e.spec.probes.get(index)).map(|p| &p.common);
    let bounds = bounds(common);
    let judgement = summary.judgement.probes.get(index);
    let rows: Vec<Value> = summary
        .periods()
        .iter()
        .map(|(label, periods)| (*label, Stats::of(watch, periods)))
        .filter(|(_, stats)| stats.all() > 0)
        .map(|(label, stats)| row(label, &stats, &info.unit))
        .collect();
    let outcome = judgement.map_or(Outcome::Inconclusive, |j| j.outcome);
    let ends = summary.evidence.injections.iter().filter(|i| i.failed.is_none()).map(|i| i.end());
    let end = ends.collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max());
    let within = common.filter(|_| info.recovers).and_then(|c| c.recovers.as_ref());
    let deadline = end
        .zip(within.and_then(|r| u64::try_from(r.within.0.as_nanos()).ok()))
        .map(|(end, within)| end.saturating_add(within));
    context! {
        name => name(&info.name),
        kind => name(&info.kind),
        asks => clean(&info.asks, 400),
        tolerates => clean(&info.tolerates, 400),
        expects => match (info.waits, info.recovers) {
            (true, _) => "waits for something to happen",
            (false, true) => "expected to recover",
            (false, false) => "expected to stay unaffected",
        },
        outcome => outcome.to_string(),
        // Of a search, the trials have outcomes, and the probe none of its own.
        judged => summary.judgement.breaking_point.is_none(),
        icon => icon(outcome),
        reasons => judgement.map(|j| sentences(&j.reasons)).unwrap_or_default(),
        chart => (!watch.samples.is_empty()).then(|| safe(chart::probe(summary, time, info, watch, &bounds, deadline))),
        rows => rows,
        lost => judgement.and_then(|j| j.lost).map(|(all, lost)| format!("{} of {} lost", number(lost), words::count(all, "acknowledged write"))),
    }
}

fn row(label: &str, stats: &Stats, unit: &str) -> Value {
    let value = |v: Option<f64>| v.map_or_else(|| "—".into(), |v| words::value(v, unit));
    let values = stats.values.as_ref();
    context! {
        label => label,
        good => number(stats.good),
        bad => number(stats.bad),
        broken => number(stats.broken),
        any_bad => stats.bad > 0,
        any_broken => stats.broken > 0,
        p50 => value(values.map(|v| v.p50)),
        p90 => value(values.map(|v| v.p90)),
        p99 => value(values.map(|v| v.p99)),
        max => value(values.map(|v| v.max)),
    }
}

/// What was asked for beside what was measured, in words.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) asked: String,
    pub(super) measured: String,
    /// How far it is off, how it is spread, and how many samples it rests on.
    pub(super) basis: String,
}

pub(super) fn measures(effect: &Effect) -> Vec<Measured> {
    let row = |m: &toprope_model::step::Measure| {
        let off = m.asked.filter(|a| *a != 0.0).map(|a| (m.measured - a) / a.abs() * 100.0);
        let off = off.map(|o| format!("{}{}%", if o > 0.0 { "+" } else { "" }, toprope_model::units::short(o)));
        let samples = (m.samples > 0).then(|| words::samples(m.samples));
        let spread = m.spread.map(|s| {
            let [p99, min, max] = [s.p99, s.min, s.max].map(|v| words::value(v, &m.unit));
            format!("p99 {p99}, {min} to {max}")
        });
        Measured {
            name: name(&m.name),
            asked: m.asked.map_or_else(|| "—".into(), |a| words::value(a, &m.unit)),
            measured: words::value(m.measured, &m.unit),
            basis: off.into_iter().chain(spread).chain(samples).collect::<Vec<_>>().join(", "),
        }
    };
    effect.measures.iter().map(row).collect()
}

/// Whether a fault took, in a word, and the outcome that its colour is that of.
pub(super) fn took(injection: &Injection) -> (&'static str, Outcome) {
    if injection.failed.is_some() {
        return ("could not be injected", Outcome::Inconclusive);
    }
    match injection.effect.as_ref().map(|(e, _)| e.took) {
        Some(Some(true)) => ("took", Outcome::Held),
        Some(Some(false)) => ("did not take", Outcome::Inconclusive),
        Some(None) => ("not known whether it took", Outcome::Inconclusive),
        None => ("never measured", Outcome::Inconclusive),
    }
}

fn effect(summary: &Summary<'_>, injection: &Injection) -> Value {
    let (took, outcome) = took(injection);
    let effect = injection.effect.as_ref().map(|(e, _)| e);
    let (from, to) = chart::in_force(injection, summary.end);
    let plan = summary.plan(injection);
    let changes = summary.adjusted.iter().filter(|a| a.0 == injection.injection).count();
    let last = summary.adjusted.iter().rfind(|a| a.0 == injection.injection);
    let measured =
        |m: Measured| context! { name => m.name, asked => m.asked, measured => m.measured, basis => m.basis };
    context! {
        fault => summary.fault_name(injection),
        parameters => summary.fault(injection).map(|f| clean(&f.parameters, 400)),
        from => at(from),
        length => injection.lasting.then(|| millis(ms(to - from))),
        took => took,
        icon => icon(outcome),
        outcome => outcome.to_string(),
        reached => effect.and_then(|e| e.reached).map(words::share),
        measures => effect.map(measures).unwrap_or_default().into_iter().map(measured).collect::<Vec<_>>(),
        path => summary.path(injection),
        targets => plan.map(|p| p.targets.iter().take(8).map(|t| clean(t, 200)).collect::<Vec<_>>()).unwrap_or_default(),
        more_targets => plan.map_or(0, |p| p.targets.len().saturating_sub(8)),
        warnings => plan.map(|p| p.warnings.iter().take(8).map(|t| clean(t, 500)).collect::<Vec<_>>()).unwrap_or_default(),
        note => effect.and_then(|e| e.note.as_deref()).map(|n| clean(n, 500)),
        failed => injection.failed.as_deref().map(|f| clean(f, 500)),
        ended => injection.ended.as_ref().map(|(when, why)| format!("ended by itself at {}: {}", at(*when), clean(why, 500))),
        changed => last.map(|(_, _, parameter, value)| format!("{} changed {} times, last to {}", name(parameter), changes, name(value))),
    }
}

/// Whether and how an injection was undone: the words, how good that is, when, and by whom.
pub(super) fn undone(summary: &Summary<'_>, injection: &Injection) -> (&'static str, Outcome, String, String) {
    match &injection.undone {
        Some((when, undone)) if !undone.clean => ("could not be undone", Outcome::Refuted, at(*when), name(&undone.by)),
        Some((when, undone)) if !injection.lasting && !summary.leaves(injection).is_empty() => {
            ("nothing to undo", Outcome::Held, at(*when), name(&undone.by))
        }
        Some((when, undone)) => ("undone", Outcome::Held, at(*when), name(&undone.by)),
        None => ("not undone in this log", Outcome::Refuted, "—".into(), "—".into()),
    }
}

fn undo(summary: &Summary<'_>, injection: &Injection) -> Value {
    let (word, outcome, when, by) = undone(summary, injection);
    let leaves = summary.leaves(injection);
    let undone = injection.undone.as_ref().map(|(_, u)| u);
    let drained = undone.and_then(|u| u.drained).map(|(ended, cut)| {
        format!("{} in flight ended by themselves, {} cut", words::count(ended, "connection"), number(cut))
    });
    let notes = undone.map(|u| u.notes.iter().take(20).map(|n| clean(n, 500)).collect::<Vec<_>>()).unwrap_or_default();
    let notes: Vec<_> = notes.into_iter().filter(|n| !leaves.contains(n)).collect();
    context! {
        fault => summary.fault_name(injection),
        word => word,
        icon => icon(outcome),
        outcome => outcome.to_string(),
        when => when,
        by => by,
        notes => notes,
        drained => drained,
        leaves => leaves,
    }
}

fn trials(summary: &Summary<'_>) -> Vec<Value> {
    let row = |t: &super::summary::TrialSpan<'_>| {
        let outcome = t.outcome.unwrap_or(Outcome::Inconclusive);
        context! {
            trial => t.trial, value => name(t.value), outcome => outcome.to_string(), icon => icon(outcome),
            from => at(t.from), reason => safe(prose(t.reason)),
        }
    };
    summary.trials.iter().take(ROWS).map(row).collect()
}

fn notes(summary: &Summary<'_>) -> Vec<Value> {
    let note = |when: String, level: Level, text: &str| {
        let word = match level {
            Level::Info => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        context! { when => when, level => word, text => safe(prose(text)) }
    };
    let mut all: Vec<Value> = Vec::new();
    if let Some((label, of_seal)) = summary.sealed {
        let text = format!("This log had no end: the run was killed. It was sealed at {}.", wall(label));
        all.push(note("—".into(), Level::Warning, &text));
        all.extend(of_seal.iter().take(ROWS).map(|n| note("—".into(), Level::Info, n)));
    }
    all.extend(summary.notes.iter().take(ROWS).map(|(when, level, text)| note(at(*when), *level, text)));
    let more = summary.notes.len().saturating_sub(ROWS);
    if more > 0 {
        all.push(note("—".into(), Level::Info, &format!("{more} more notes are in the log.")));
    }
    all
}

/// Where it ran, as label and text.
pub(super) fn facts(summary: &Summary<'_>) -> Vec<(&'static str, String)> {
    let started = &summary.started;
    let all = [
        ("Run", clean(&started.run, NAME)),
        ("Repeats run", started.again.as_deref().map(name).unwrap_or_default()),
        ("Started", wall(&started.wall)),
        ("Took", at(summary.end)),
        ("Started as", format!("toprope {}", name(&started.command))),
        ("Environment", summary.spec_text("environment").unwrap_or_default()),
        ("Version under test", summary.spec_text("version").unwrap_or_default()),
        ("Host", name(&started.host)),
        ("Kernel", name(&started.kernel)),
        ("User", name(&started.user)),
        ("Toprope", name(&started.toprope)),
        ("Seed", format!("{} ({})", started.seed, name(&started.generator))),
        ("Stops early if", started.guardrails.iter().map(|g| clean(g, TEXT)).collect::<Vec<_>>().join("; ")),
        ("Log", words::count(summary.events, "event")),
        ("Log's SHA-256", clean(summary.head, NAME)),
    ];
    all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}
