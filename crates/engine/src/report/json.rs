//! The JSON report.

use serde_json::{Value, json};

use super::summary::{Stats, Summary};
use crate::verdict::evidence::{Injection, Period, Watch};
use crate::verdict::words::ms;

/// The version of what is written.
const FORMAT: u32 = 1;

/// Renders the report, indented.
pub(super) fn render(summary: &Summary<'_>) -> String {
    let started = &summary.started;
    let verdict = {
        let mut verdict = json!(&*summary.judgement);
        verdict["exit"] = json!(summary.judgement.exit_code());
        verdict
    };
    let phases = summary.phases.iter().map(|p| json!({"phase": p.phase, "from_ms": ms(p.from), "to_ms": ms(p.to)}));
    let trials = summary.trials.iter().map(|t| {
        json!({"trial": t.trial, "value": t.value, "outcome": t.outcome, "reason": t.reason, "from_ms": ms(t.from), "to_ms": ms(t.to)})
    });
    let notes = summary.notes.iter().map(|(at, level, text)| json!({"at_ms": ms(*at), "level": level, "text": text}));
    let report = json!({
        "format": FORMAT,
        "run": started.run,
        "experiment": summary.name(),
        "hypothesis": summary.hypothesis(),
        "environment": summary.spec_text("environment"),
        "version": summary.spec_text("version"),
        "verdict": verdict,
        "duration_ms": ms(summary.end),
        "stopped": summary.evidence.stop.as_ref().map(|(at, stop)| json!({"at_ms": ms(*at), "by": stop.by, "why": stop.why})),
        "sealed": summary.sealed.map(|(wall, notes)| json!({"wall": wall, "notes": notes})),
        "phases": phases.collect::<Vec<_>>(),
        "faults": summary.evidence.injections.iter().map(|i| injection(summary, i)).collect::<Vec<_>>(),
        "probes": (0..started.probes.len()).map(|i| probe(summary, i)).collect::<Vec<_>>(),
        "trials": trials.collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
        "started": &*summary.started,
        "log": {"events": summary.events, "sha256": summary.head},
    });
    let mut text = serde_json::to_string_pretty(&report).expect("maps with text keys are always JSON");
    text.push('\n');
    text
}

fn injection(summary: &Summary<'_>, injection: &Injection) -> Value {
    json!({
        "injection": injection.injection,
        "fault": summary.fault_name(injection),
        "kind": summary.fault(injection).map(|f| f.kind.as_str()),
        "parameters": summary.fault(injection).map(|f| f.parameters.as_str()),
        "lasting": injection.lasting,
        "path": summary.path(injection),
        "injecting_ms": ms(injection.injecting),
        "injected_ms": injection.injected.map(ms),
        "failed": injection.failed,
        "effect": injection.effect.as_ref().map(|(effect, _)| effect),
        "ended": injection.ended.as_ref().map(|(at, why)| json!({"at_ms": ms(*at), "why": why})),
        "undone_ms": injection.undone.as_ref().map(|(at, _)| ms(*at)),
        "undone": injection.undone.as_ref().map(|(_, undone)| undone),
        "leaves": summary.leaves(injection),
    })
}

fn probe(summary: &Summary<'_>, index: usize) -> Value {
    let info = &summary.started.probes[index];
    let empty = Watch::default();
    let watch = summary.evidence.probes.get(index).unwrap_or(&empty);
    json!({
        "name": info.name,
        "kind": info.kind,
        "asks": info.asks,
        "tolerates": info.tolerates,
        "unit": info.unit,
        "recovers": info.recovers,
        "steady": Stats::of(watch, &[Period::Steady]),
        "in_force": Stats::of(watch, &[Period::InForce]),
        "after": Stats::of(watch, &[Period::After]),
    })
}
