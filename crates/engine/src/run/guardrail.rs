//! Guardrails: what stops a run before its end, decided at each sample.
//!
//! Those with a `confidence` test all samples since the injection, by e-processes of [`toprope_stats`]: however often one
//! looks, an innocent system is stopped in at most the share of runs that is missing of the confidence. The probes that one
//! guardrail watches share that error between them.

use toprope_model::Experiment;
use toprope_model::event::{Phase, Sample};
use toprope_model::experiment::{GuardrailItem, ProbeItem, When};

use super::recorder::Stage;

mod before;
mod telemetry;
mod tested;
mod window;

use before::Before;
use telemetry::Telemetry;
use tested::Tested;
use window::Window;

/// All guardrails of a run.
#[derive(Debug)]
pub(super) struct Guardrails {
    guards: Vec<Guard>,
    telemetry: Vec<Telemetry>,
}

/// A probe as its guardrails know it.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) probe: u32,
    pub(super) name: String,
    /// The unit of its values.
    pub(super) unit: String,
    /// When it is asked.
    pub(super) when: When,
    /// Whether it has nothing to say until something happens, so that its silence is no loss.
    pub(super) waits: bool,
}

/// One guardrail with what it remembers of one probe.
#[derive(Debug)]
struct Guard {
    item: GuardrailItem,
    watched: Watched,
    memory: Memory,
}

/// What a guardrail remembers of a probe.
#[derive(Debug)]
enum Memory {
    Window(Window),
    Tested(Tested),
    Before(Box<Before>),
    BadInARow(u32),
    Nothing,
}

impl Guardrails {
    /// Those of an experiment; its probes are given in the manifest's order.
    pub(super) fn new(experiment: &Experiment, probes: &[Watched]) -> Self {
        let mut guards = Vec::new();
        let mut telemetry: Vec<Telemetry> = Vec::new();
        for item in &experiment.spec.guardrails {
            let watched: Vec<&Watched> =
                probes.iter().filter(|p| item.probe().is_none_or(|name| name == p.name)).collect();
            for probe in &watched {
                let Some(asked) = experiment.spec.probes.get(probe.probe as usize) else { continue };
                watch_telemetry(&mut telemetry, item, probe, asked, experiment);
                let memory = match item {
                    GuardrailItem::ErrorRatio(g) if g.confidence.is_none() => Memory::Window(Window::new(g.over.0)),
                    GuardrailItem::WorseThanBefore(g) => {
                        Memory::Before(Box::new(Before::new(g, item.alpha(watched.len()))))
                    }
                    GuardrailItem::ErrorRatio(_) | GuardrailItem::BurnRate(_) => {
                        Memory::Tested(Tested::new(item.tested_share(), item.alpha(watched.len())))
                    }
                    GuardrailItem::BadInARow(_) => Memory::BadInARow(0),
                    GuardrailItem::Value(_) => Memory::Nothing,
                    GuardrailItem::LostTelemetry(_) => continue,
                };
                guards.push(Guard { item: item.clone(), watched: (*probe).clone(), memory });
            }
        }
        Self { guards, telemetry }
    }

    /// What they watch for and at which confidence, in words.
    pub(super) fn in_words(&self, items: &[GuardrailItem]) -> Vec<String> {
        let mut all: Vec<String> = items.iter().map(|item| self.item_in_words(item)).collect();
        all.extend(self.telemetry.iter().map(Telemetry::in_words));
        all
    }

    fn item_in_words(&self, item: &GuardrailItem) -> String {
        let Some(confidence) = item.confidence() else { return item.to_string() };
        let probes = self.guards.iter().filter(|g| g.item == *item).count();
        let alpha = item.alpha(probes).unwrap_or_default();
        let shown = match item {
            GuardrailItem::WorseThanBefore(_) => {
                "shown by the samples of the steady state and those since the injection"
            }
            _ => "shown by all samples since the injection",
        };
        let each = if probes > 1 { format!(", {} for each of {probes} probes", percent(alpha)) } else { String::new() };
        let total = percent(1.0 - confidence.share());
        format!("{item}, {shown} with {confidence} confidence (stops at most {total} of innocent runs{each})")
    }

    /// Forgets all samples: a new trial begins.
    pub(super) fn reset(&mut self, now: u64) {
        for guard in &mut self.guards {
            match &mut guard.memory {
                Memory::Window(window) => window.clear(),
                Memory::Tested(tested) => tested.clear(),
                Memory::Before(before) => before.clear(),
                Memory::BadInARow(n) => *n = 0,
                Memory::Nothing => {}
            }
        }
        self.telemetry.iter_mut().for_each(|t| t.reset(now));
    }

    /// Takes note of a sample of the steady state.
    pub(super) fn note_before(&mut self, sample: &Sample) {
        if sample.broken {
            return;
        }
        for guard in self.guards.iter_mut().filter(|g| g.watched.probe == sample.probe) {
            if let Memory::Before(before) = &mut guard.memory {
                before.note(sample);
            }
        }
    }

    /// Faults begin to be injected; says why to stop first, if so.
    pub(super) fn begin(&mut self, now: u64) -> Option<String> {
        self.telemetry.iter_mut().for_each(|t| t.begin(now));
        self.guards.iter_mut().find_map(|guard| match &mut guard.memory {
            Memory::Before(before) => before.begin(&guard.watched),
            _ => None,
        })
    }

    /// Looks at a sample that was answered at `at`; says why to stop, if so.
    pub(super) fn look(&mut self, sample: &Sample, at: u64) -> Option<String> {
        let lost = self.telemetry.iter_mut().find(|t| t.is_of(sample.probe)).and_then(|t| t.heard(sample, at));
        if sample.broken {
            return lost; // No evidence, neither good nor bad.
        }
        self.guards.iter_mut().filter(|g| g.watched.probe == sample.probe).find_map(|g| g.look(sample, at))
    }

    /// Says why to stop if a probe that should have given an answer by now has not. `taken` says how many samples each has.
    pub(super) fn listen(&mut self, now: u64, stage: Stage, taken: &[u32]) -> Option<String> {
        if stage.phase != Phase::Inject {
            return None;
        }
        self.telemetry.iter_mut().find_map(|t| t.listen(now, stage, taken))
    }
}

impl Guard {
    fn look(&mut self, sample: &Sample, at: u64) -> Option<String> {
        let name = &self.watched.name;
        match (&self.item, &mut self.memory) {
            (GuardrailItem::ErrorRatio(g), Memory::Window(window)) => {
                let (bad, all) = window.push(at, sample.ok, g.above.share())?;
                Some(format!(
                    "{bad} of the last {all} samples of {name} were bad, more than {} over {}",
                    g.above, g.over
                ))
            }
            (GuardrailItem::ErrorRatio(g), Memory::Tested(tested)) => {
                let why = tested.push(sample.ok)?;
                Some(format!("more than {} of the samples of {name} are bad: {why}", g.above))
            }
            (GuardrailItem::BurnRate(g), Memory::Tested(tested)) => {
                let why = tested.push(sample.ok)?;
                let times = tested.seen() / (1.0 - g.objective.share());
                let times = toprope_model::units::short(times);
                let above = g.above;
                Some(format!(
                    "{name} burns the error budget of {} more than {above} times as fast as it lasts, {times} times so \
                     far: {why}",
                    g.objective
                ))
            }
            (GuardrailItem::WorseThanBefore(_), Memory::Before(before)) => before.look(sample, &self.watched),
            (GuardrailItem::BadInARow(g), Memory::BadInARow(bad)) => {
                *bad = if sample.ok { 0 } else { *bad + 1 };
                (*bad >= g.samples).then(|| match *bad {
                    1 => format!("a sample of {name} was bad"),
                    n => format!("{n} samples of {name} in a row were bad"),
                })
            }
            (GuardrailItem::Value(g), _) => {
                let value = sample.value.filter(|value| !g.keeps.holds(*value))?;
                let value = with_unit(value, &self.watched.unit);
                Some(format!("the value of {name} is {value}, and must keep {}", g.keeps))
            }
            _ => None,
        }
    }
}

/// Adds what is to be known of a probe's telemetry, where it is asked while faults are injected.
fn watch_telemetry(
    all: &mut Vec<Telemetry>,
    item: &GuardrailItem,
    watched: &Watched,
    asked: &ProbeItem,
    experiment: &Experiment,
) {
    if watched.waits || !matches!(watched.when, When::During | When::At) {
        return;
    }
    let said = if let GuardrailItem::LostTelemetry(g) = item { Some(g) } else { None };
    let silence = experiment.spec.silence(asked, said.and_then(|g| g.for_));
    match all.iter_mut().find(|t| t.is_of(watched.probe)) {
        Some(known) if said.is_some() => *known = Telemetry::new(watched, asked, said, silence),
        Some(_) => {}
        None => all.push(Telemetry::new(watched, asked, said, silence)),
    }
}

/// A value with its unit, as a sentence shows it.
fn with_unit(value: f64, unit: &str) -> String {
    let value = toprope_model::units::short(value);
    if unit.is_empty() { value } else { format!("{value} {unit}") }
}

/// A share in percent.
fn percent(share: f64) -> String {
    format!("{}%", toprope_model::units::short(share * 100.0))
}

#[cfg(test)]
mod tests;
