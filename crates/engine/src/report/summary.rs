//! What every report is made of: one pass over the records.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;
use toprope_model::event::{Event, FaultInfo, Level, Phase, Record, RunStarted};
use toprope_model::experiment::{Experiment, Spec};
use toprope_model::step::{Plan, Undo};
use toprope_model::verdict::{Ending, Judgement, Outcome};
use toprope_model::{FromNode, Node, Problems};
use toprope_stats::quantile;

use crate::verdict::evidence::{Evidence, Injection, Period, Watch, Worth};

/// A run, taken together.
pub(super) struct Summary<'a> {
    pub(super) started: Cow<'a, RunStarted>,
    /// The manifest as far as it can be read; `None` for a log that another version wrote.
    pub(super) experiment: Option<Experiment>,
    pub(super) judgement: Cow<'a, Judgement>,
    pub(super) evidence: Evidence,
    pub(super) phases: Vec<PhaseSpan>,
    pub(super) trials: Vec<TrialSpan<'a>>,
    pub(super) notes: Vec<(u64, Level, &'a str)>,
    pub(super) sealed: Option<(&'a str, &'a [String])>,
    /// Whether the log has its end.
    pub(super) closed: bool,
    plans: HashMap<u32, &'a Plan>,
    paths: HashMap<u32, &'a str>,
    /// Changes of parameters while in force: injection, when, parameter, value.
    pub(super) adjusted: Vec<(u32, u64, &'a str, &'a str)>,
    /// The last event's time in nanoseconds.
    pub(super) end: u64,
    pub(super) events: u64,
    pub(super) head: &'a str,
}

/// A phase and its time.
#[derive(Debug, Clone, Copy)]
pub(super) struct PhaseSpan {
    pub(super) phase: Phase,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A trial of a search and its time.
#[derive(Debug, Clone)]
pub(super) struct TrialSpan<'a> {
    pub(super) trial: u32,
    pub(super) value: &'a str,
    pub(super) outcome: Option<Outcome>,
    pub(super) reason: &'a str,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A probe's samples of one period in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Stats {
    pub(super) good: u64,
    pub(super) bad: u64,
    pub(super) broken: u64,
    /// Of the values of good samples.
    #[serde(flatten)]
    pub(super) values: Option<Values>,
}

/// Values in numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Values {
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Stats {
    pub(super) fn of(watch: &Watch, periods: &[Period]) -> Self {
        let mut stats = Self::default();
        let mut values = Vec::new();
        for sample in watch.samples.iter().filter(|s| periods.contains(&s.period)) {
            match sample.worth {
                Worth::Good => {
                    stats.good += 1;
                    values.extend(sample.value);
                }
                Worth::Bad => stats.bad += 1,
                Worth::Broken => stats.broken += 1,
            }
        }
        let mut of = |q| quantile(&mut values, q);
        stats.values =
            (|| Some(Values { min: of(0.0)?, p50: of(0.5)?, p90: of(0.9)?, p99: of(0.99)?, max: of(1.0)? }))();
        stats
    }

    pub(super) fn all(&self) -> u64 {
        self.good + self.bad + self.broken
    }
}

fn nothing_known() -> RunStarted {
    RunStarted {
        format: toprope_model::event::VERSION,
        run: String::new(),
        toprope: String::new(),
        command: String::new(),
        wall: String::new(),
        host: String::new(),
        kernel: String::new(),
        user: String::new(),
        seed: 0,
        generator: String::new(),
        again: None,
        manifest: serde_json::Value::Null,
        topology: None,
        probes: Vec::new(),
        faults: Vec::new(),
        guardrails: Vec::new(),
    }
}

/// The experiment as the log has it: checked when the run began, and not again, since that takes the tables of kinds.
fn experiment(started: &RunStarted) -> Option<Experiment> {
    let node = Node::from_json(&started.manifest);
    let spec = Spec::from_node(node.get("spec")?, &mut Problems::default())?;
    let name = node.get("metadata")?.get("name")?.text()?.to_owned();
    Some(Experiment { name, spec, node })
}

impl<'a> Summary<'a> {
    pub(super) fn of(records: &'a [Record], head: &'a str) -> Self {
        let started = match records.first().map(|r| &r.event) {
            Some(Event::RunStarted(started)) => Cow::Borrowed(&**started),
            _ => Cow::Owned(nothing_known()),
        };
        let mut recorded = None;
        let mut summary = Self {
            experiment: experiment(&started),
            judgement: Cow::Owned(unjudged()),
            evidence: Evidence::new(&started),
            phases: Vec::new(),
            trials: Vec::new(),
            notes: Vec::new(),
            sealed: None,
            closed: matches!(records.last().map(|r| &r.event), Some(Event::RunEnded { .. } | Event::Sealed { .. })),
            plans: HashMap::new(),
            paths: HashMap::new(),
            adjusted: Vec::new(),
            end: 0,
            events: records.len() as u64,
            head,
            started,
        };
        for record in records {
            summary.end = summary.end.max(record.at);
            summary.evidence.push(record);
            if let Event::Judged(judgement) = &record.event {
                recorded = Some(&**judgement);
            }
            summary.push(record);
        }
        let end = summary.end;
        if let Some(last) = summary.phases.last_mut() {
            last.to = end;
        }
        if let Some(trial) = summary.trials.last_mut().filter(|t| t.outcome.is_none()) {
            trial.to = end;
        }
        if let Some(judgement) = recorded {
            summary.judgement = Cow::Borrowed(judgement);
        } else if let Some(experiment) = &summary.experiment {
            summary.judgement = Cow::Owned(crate::verdict::judge(experiment, records));
        }
        summary
    }

    fn push(&mut self, record: &'a Record) {
        let at = record.at;
        match &record.event {
            Event::Phase(phase) => {
                if let Some(last) = self.phases.last_mut() {
                    last.to = at;
                }
                self.phases.push(PhaseSpan { phase: *phase, from: at, to: at });
            }
            Event::TrialStarted { trial, value } => {
                self.trials.push(TrialSpan { trial: *trial, value, outcome: None, reason: "", from: at, to: at });
            }
            Event::TrialEnded { trial, outcome, reason } => {
                if let Some(open) = self.trials.last_mut().filter(|t| t.trial == *trial) {
                    (open.outcome, open.reason, open.to) = (Some(*outcome), reason, at);
                }
            }
            Event::Injecting { injection, plan, .. } => {
                self.plans.insert(*injection, plan);
            }
            Event::Injected { injection, path } => {
                self.paths.insert(*injection, path);
            }
            Event::Adjusted { injection, parameter, value } => self.adjusted.push((*injection, at, parameter, value)),
            Event::Note { level, text } => self.notes.push((at, *level, text)),
            Event::Sealed { wall, notes } => self.sealed = Some((wall, notes)),
            _ => {}
        }
    }

    /// The experiment's name.
    pub(super) fn name(&self) -> String {
        let of_manifest = self.started.manifest.pointer("/metadata/name").and_then(|n| n.as_str());
        super::text::name(of_manifest.unwrap_or("unknown"))
    }

    /// A text of the manifest's spec.
    pub(super) fn spec_text(&self, key: &str) -> Option<String> {
        let text = self.started.manifest.get("spec")?.get(key)?.as_str()?;
        Some(super::text::clean(text.trim(), super::text::TEXT)).filter(|t| !t.is_empty())
    }

    /// The hypothesis in words.
    pub(super) fn hypothesis(&self) -> String {
        self.spec_text("hypothesis").unwrap_or_else(|| "The log does not say what was believed".into())
    }

    /// The manifest as YAML.
    pub(super) fn manifest(&self) -> String {
        if self.started.manifest.is_null() {
            return String::new();
        }
        Node::from_json(&self.started.manifest).to_yaml()
    }

    pub(super) fn fault(&self, injection: &Injection) -> Option<&FaultInfo> {
        self.started.faults.get(injection.fault as usize)
    }

    pub(super) fn fault_name(&self, injection: &Injection) -> String {
        self.fault(injection).map_or_else(|| format!("fault {}", injection.fault), |f| super::text::name(&f.name))
    }

    /// The mechanism that was chosen for an injection.
    pub(super) fn path(&self, injection: &Injection) -> String {
        let number = injection.injection;
        let planned = self.plans.get(&number).map(|p| p.path.as_str());
        let path = self.paths.get(&number).copied().filter(|p| !p.is_empty()).or(planned).unwrap_or_default();
        super::text::clean(path, super::text::TEXT)
    }

    /// What an injection hit, and what it warned of.
    pub(super) fn plan(&self, injection: &Injection) -> Option<&Plan> {
        self.plans.get(&injection.injection).copied()
    }

    /// What stays behind of an injection by its nature.
    pub(super) fn leaves(&self, injection: &Injection) -> Vec<String> {
        let steps = self.plan(injection).map(|p| p.steps.as_slice()).unwrap_or_default();
        let leaves = steps.iter().filter_map(|s| match &s.undo {
            Undo::Irreversible { leaves } => Some(leaves.as_slice()),
            _ => None,
        });
        leaves.flatten().map(|l| super::text::clean(l, 500)).collect()
    }

    /// The times that samples are counted by: where no fault lasted, there was none in force.
    pub(super) fn periods(&self) -> &'static [(&'static str, &'static [Period])] {
        if self.evidence.lasted() {
            &[("Steady state", &[Period::Steady]), ("Fault in force", &[Period::InForce]), ("After", &[Period::After])]
        } else {
            &[("Steady state", &[Period::Steady]), ("After the fault", &[Period::InForce, Period::After])]
        }
    }

    /// How the run ended, in words.
    pub(super) fn ending(&self) -> String {
        match self.judgement.ending {
            Ending::NotUndone => "not everything could be undone".into(),
            Ending::Stopped => {
                let by = self.evidence.stop.as_ref().map_or("somebody", |(_, stop)| match stop.by.as_str() {
                    "guardrail" => "a guardrail",
                    "person" => "a person",
                    other => other,
                });
                format!("stopped by {}", super::text::name(by))
            }
            Ending::Complete if self.sealed.is_some() => "killed before its end".into(),
            Ending::Complete if !self.closed => "still going on, or its log has lost its end".into(),
            Ending::Complete => "ran to its end".into(),
        }
    }
}

fn unjudged() -> Judgement {
    Judgement {
        outcome: Outcome::Inconclusive,
        ending: Ending::Complete,
        reasons: vec!["The log holds no verdict, and its manifest cannot be read.".into()],
        probes: Vec::new(),
        detect_ms: None,
        recover_ms: None,
        next: Vec::new(),
        breaking_point: None,
    }
}
