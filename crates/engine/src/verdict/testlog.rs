//! Synthetic logs for the tests of verdict and report.

use toprope_model::event::{
    Event, FaultInfo, Level, Phase, PlannedFault, ProbeInfo, Record, RunStarted, Sample, Stop, VERSION,
};
use toprope_model::experiment::Experiment;
use toprope_model::kind::{Danger, FaultSpec, KindSpec, Tables, UndoKind, check};
use toprope_model::step::{Effect, Measure, Plan, Step, Undo, Undone};
use toprope_model::target::{Endpoint, Target};
use toprope_model::{Dur, Field, Node, Problems, Sources, fields};

fields! {
    /// A fault that lasts.
    struct Latency {
        /// Whose connections.
        from: Option<Target>,
        /// Where to.
        to: Option<Endpoint>,
        /// How much.
        delay: Dur,
    }
}

fields! {
    /// A fault that happens at one instant.
    struct Kill {
        /// Whom.
        target: Option<Target>,
    }
}

fields! {
    /// A probe.
    struct Http {
        /// What to get.
        get: String,
        /// The status wanted.
        status: Option<u16>,
        /// Where to look for what was written.
        find: Option<String>,
    }
}

const fn kind(kind: &'static str, fields: fn() -> Vec<Field>, check: fn(&Node, &mut Problems)) -> KindSpec {
    KindSpec { kind, summary: "", docs: "", example: "", fields, check }
}

const fn fault(spec: KindSpec, lasting: bool, recovers: bool) -> FaultSpec {
    let undo = if lasting { UndoKind::KernelOwned } else { UndoKind::Irreversible };
    FaultSpec { spec, lasting, undo, danger: Danger::Contained, needs: &[], strength: &[], recovers, ramps: &[] }
}

static LATENCY: FaultSpec = fault(kind("network-latency", Latency::fields, check::<Latency>), true, false);
static KILL: FaultSpec = fault(kind("process-kill", Kill::fields, check::<Kill>), false, true);
static HTTP: KindSpec = kind("http", Http::fields, check::<Http>);

/// Reads the spec of an experiment, given as YAML below `spec:`.
pub(crate) fn experiment(spec: &str) -> Experiment {
    let spec: String = spec.trim_end().lines().map(|l| format!("  {l}\n")).collect();
    let text = format!(
        "apiVersion: toprope.dev/v1alpha1\nkind: Experiment\nmetadata: {{name: checkout-survives}}\nspec:\n{spec}"
    );
    let mut sources = Sources::default();
    let tables = Tables { faults: vec![&LATENCY, &KILL], probes: vec![&HTTP] };
    let node = toprope_model::parse(&mut sources, "test.yaml", &text).unwrap_or_else(|p| panic!("{p}\n{text}"));
    Experiment::read(&node, &tables).unwrap_or_else(|p| panic!("{p}\n{text}"))
}

/// The ten-line experiment of the design, with whatever else is given for its probe and its fault.
pub(crate) fn checkout(probe: &str) -> Experiment {
    experiment(&format!(
        "hypothesis: checkout stays fast on a slow database\nprobes:\n- http: {{get: \"http://127.0.0.1:8080/checkout\", \
         status: 200, name: checkout{}{probe}}}\nmethod:\n- network-latency: {{from: {{process: checkout}}, to: \
         \"127.0.0.1:5432\", delay: 200ms, for: 30s}}\n",
        if probe.is_empty() { "" } else { ", " }
    ))
}

const MS: u64 = 1_000_000;

/// A log that grows in any order and is sorted by time at the end.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) started: RunStarted,
    events: Vec<(u64, Event)>,
    injections: u32,
}

impl Log {
    /// A run of an experiment. Probes recover where the first fault's kind says so, or they do themselves.
    pub(crate) fn new(experiment: &Experiment) -> Self {
        let default = experiment.faults().iter().any(|f| f.kind == "process-kill");
        let probes = experiment.spec.probes.iter().zip(experiment.spec.probe_names()).map(|(p, name)| ProbeInfo {
            name,
            kind: p.kind.clone(),
            asks: format!("GET {}", p.params.get("get").and_then(Node::text).unwrap_or_default()),
            tolerates: p
                .common
                .tolerances()
                .iter()
                .map(|t| format!(", {} {}", t.0, t.3))
                .fold("status 200".into(), |a, b| a + &b),
            unit: "ms".into(),
            interval_ms: experiment.interval(p).as_secs_f64() * 1e3,
            waits: false,
            recovers: p.common.recovers.is_some() || (default && p.common.unaffected != Some(true)),
        });
        let faults = experiment.faults().into_iter().map(|f| FaultInfo {
            name: f.name().into(),
            kind: f.kind.clone(),
            parameters: f
                .params
                .entries()
                .unwrap_or_default()
                .iter()
                .map(|e| format!("{} {}", e.key, e.node.text().unwrap_or("…")))
                .collect::<Vec<_>>()
                .join(", "),
            lasting: f.kind == "network-latency",
            for_ms: f.common.for_.map_or(0.0, |d| d.0.as_secs_f64() * 1e3),
        });
        let started = RunStarted {
            format: VERSION,
            run: "20260301-120000-7f3a".into(),
            toprope: "0.1.0".into(),
            command: "run".into(),
            wall: "2026-03-01T12:00:00+01:00".into(),
            host: "anna".into(),
            kernel: "Linux 6.18.0".into(),
            user: "kim".into(),
            seed: 8_123_456_789,
            generator: "ChaCha12".into(),
            again: None,
            manifest: experiment.node.to_json(),
            topology: None,
            probes: probes.collect(),
            faults: faults.collect(),
            guardrails: Vec::new(),
        };
        Self { started, events: Vec::new(), injections: 0 }
    }

    pub(crate) fn at(&mut self, ms: u64, event: Event) -> &mut Self {
        self.events.push((ms * MS, event));
        self
    }

    pub(crate) fn phase(&mut self, ms: u64, phase: Phase) -> &mut Self {
        self.at(ms, Event::Phase(phase))
    }

    pub(crate) fn note(&mut self, ms: u64, level: Level, text: &str) -> &mut Self {
        self.at(ms, Event::Note { level, text: text.into() })
    }

    /// A sample asked at `ms` and answered `value` milliseconds later; bad with a reason.
    pub(crate) fn sample(&mut self, probe: u32, ms: u64, value: f64, bad: Option<&str>) -> &mut Self {
        let at = ms * MS + (value * 1e6) as u64;
        let sample = Sample {
            probe,
            started: ms * MS,
            ok: bad.is_none(),
            value: Some(value),
            why: bad.map(str::to_owned),
            broken: false,
            retries: 0,
            wrote: None,
        };
        self.events.push((at, Event::Sample(sample)));
        self
    }

    pub(crate) fn broken(&mut self, probe: u32, ms: u64) -> &mut Self {
        let why = Some("curl: not found".to_owned());
        self.at(
            ms,
            Event::Sample(Sample {
                probe,
                started: ms * MS,
                ok: false,
                value: None,
                why,
                broken: true,
                retries: 0,
                wrote: None,
            }),
        )
    }

    /// Good samples of one value, from one time to before another.
    pub(crate) fn good(&mut self, probe: u32, times: std::ops::Range<u64>, every: u64, value: f64) -> &mut Self {
        for ms in times.step_by(every as usize) {
            self.sample(probe, ms, value, None);
        }
        self
    }

    /// Bad samples, from one time to before another.
    pub(crate) fn bad(&mut self, probe: u32, times: std::ops::Range<u64>, every: u64, why: &str) -> &mut Self {
        for ms in times.step_by(every as usize) {
            self.sample(probe, ms, 5.0, Some(why));
        }
        self
    }

    /// A fault from its injection to its undo, with its effect measured. Returns its number.
    pub(crate) fn inject(&mut self, fault: u32, from: u64, to: u64) -> u32 {
        let number = self.begin(fault, from);
        let measures = if self.started.faults[fault as usize].lasting { vec![delay(201.4)] } else { vec![] };
        let effect = Effect { took: Some(true), reached: Some(1.0), measures, note: None };
        self.at(to - 1, Event::Effect { injection: number, effect, last: true });
        self.undo(number, to);
        number
    }

    pub(crate) fn begin(&mut self, fault: u32, from: u64) -> u32 {
        let number = self.injections;
        self.injections += 1;
        let lasting = self.started.faults[fault as usize].lasting;
        let (path, describe, undo) = if lasting {
            let undo = Undo::KernelOwned("the table goes with its socket".into());
            ("nftables redirection", "redirect new connections to 127.0.0.1:5432 through the proxy", undo)
        } else {
            let leaves = vec!["process 4242 (cart) is dead; its supervisor may have started it anew".into()];
            ("SIGKILL through a pidfd", "kill cart (pid 4242)", Undo::Irreversible { leaves })
        };
        let claims = vec!["process 4242".into()];
        let step = Step { describe: describe.into(), claims, undo, data: serde_json::Value::Null };
        let targets = vec![format!("{} (pid 4242)", if lasting { "checkout" } else { "cart" })];
        let plan = Plan { steps: vec![step], path: path.into(), matched: 1, targets, warnings: vec![] };
        self.at(from.saturating_sub(30), Event::Injecting { injection: number, fault, plan: Box::new(plan) });
        self.at(from, Event::Injected { injection: number, path: path.into() });
        number
    }

    pub(crate) fn undo(&mut self, injection: u32, ms: u64) -> &mut Self {
        self.at(ms - 1, Event::Undoing { injection });
        let lasting = self.events.iter().any(|(_, e)| {
            matches!(e, Event::Injecting { injection: i, fault, .. } if *i == injection && self.started.faults[*fault as usize].lasting)
        });
        let notes = if lasting { vec!["the nftables table is gone".into()] } else { vec![] };
        let drained = lasting.then_some((3, 1));
        let undone = Undone { clean: true, by: "injector".into(), notes, drained };
        self.at(ms, Event::Undone { injection, undone })
    }

    pub(crate) fn stop(&mut self, ms: u64, by: &str, why: &str) -> &mut Self {
        self.at(ms, Event::Stopping(Stop { by: by.into(), why: why.into() }))
    }

    /// The phases of a run whose method takes from `from` to `to`.
    pub(crate) fn phases(&mut self, from: u64, to: u64, end: u64) -> &mut Self {
        self.phase(0, Phase::SteadyState).phase(from, Phase::Inject).phase(to, Phase::Undo);
        self.phase(to, Phase::Recovery).phase(end, Phase::Verdict)
    }

    pub(crate) fn planned(&mut self, fault: u32) -> &mut Self {
        let plan = Plan { path: "nftables redirection".into(), matched: 1, ..Plan::default() };
        self.at(0, Event::Planned(vec![PlannedFault { fault, plan }]))
    }

    /// The records, in the order of time.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut events = self.events.clone();
        events.sort_by_key(|e| e.0);
        let first = (0, Event::RunStarted(Box::new(self.started.clone())));
        let all = std::iter::once(first).chain(events);
        all.enumerate()
            .map(|(i, (at, event))| Record {
                seq: i as u64,
                at,
                prev: if i == 0 { String::new() } else { format!("{i:064x}") },
                event,
            })
            .collect()
    }

    /// The records with the judgement and the end behind them.
    pub(crate) fn judged(&self, experiment: &Experiment) -> Vec<Record> {
        let mut records = self.records();
        let judgement = super::judge(experiment, &records);
        let exit = judgement.exit_code();
        for event in [Event::Judged(Box::new(judgement)), Event::RunEnded { exit }] {
            let (seq, at) = records.last().map_or((0, 0), |r| (r.seq + 1, r.at + MS));
            records.push(Record { seq, at, prev: format!("{seq:064x}"), event });
        }
        records
    }
}

pub(crate) fn delay(measured: f64) -> Measure {
    Measure { name: "delay".into(), unit: "ms".into(), asked: Some(200.0), measured, samples: 312, spread: None }
}
