//! Synthetic runs for the tests of the views.

use toprope_model::event::{
    Event, FaultInfo, Level, Phase, PlannedFault, ProbeInfo, Record, RunStarted, Sample, Stop, VERSION,
};
use toprope_model::step::{Effect, Measure, Plan, Undone};
use toprope_model::verdict::{BreakingPoint, Ending, Judgement, Outcome, ProbeJudgement, Suggestion};

const PATH: &str = "cgroup-BPF connect redirection";

/// A run that grows event by event, at times in milliseconds.
pub struct Script {
    records: Vec<Record>,
    probes: usize,
}

impl Script {
    /// Begins a run with probes of these names and one fault.
    pub fn new(probes: &[&str]) -> Self {
        let probe = |name: &&str| ProbeInfo {
            name: (*name).into(),
            kind: "http".into(),
            asks: format!("GET http://127.0.0.1:8080/{name}"),
            tolerates: "status 200, p99 < 300ms".into(),
            unit: "ms".into(),
            interval_ms: 100.0,
            recovers: false,
            waits: false,
        };
        let fault = FaultInfo {
            name: "slow-database".into(),
            kind: "network-latency".into(),
            parameters: "from (process checkout), to 127.0.0.1:5432, delay 200ms".into(),
            lasting: true,
            for_ms: 10_000.0,
        };
        let started = RunStarted {
            format: VERSION,
            run: "20260301-101500-ab12".into(),
            toprope: "0.1.0".into(),
            command: "run".into(),
            wall: "2026-03-01T10:15:00+00:00".into(),
            host: "demo".into(),
            kernel: "Linux 6.18".into(),
            user: "ada".into(),
            seed: 42,
            generator: "ChaCha8".into(),
            guardrails: vec![],
            again: None,
            topology: None,
            manifest: serde_json::json!({
                "apiVersion": "toprope.dev/v1alpha1",
                "kind": "Experiment",
                "metadata": {"name": "checkout-survives-slow-payments"},
                "spec": {
                    "hypothesis": "checkout stays fast on a slow database",
                    "probes": [{"http": {"get": "http://127.0.0.1:8080/checkout"}}],
                    "method": [{"process-kill": {"target": {"process": "x"}}}, {"wait": {"for": "10s"}}],
                },
            }),
            probes: probes.iter().map(probe).collect(),
            faults: vec![fault],
        };
        let mut script = Self { records: Vec::new(), probes: probes.len() };
        script.add(0, Event::RunStarted(Box::new(started)));
        script
    }

    pub fn add(&mut self, at_ms: u64, event: Event) {
        let seq = self.records.len() as u64;
        self.records.push(Record { seq, at: at_ms * 1_000_000, prev: String::new(), event });
    }

    fn plan() -> Plan {
        Plan {
            steps: vec![],
            path: PATH.into(),
            matched: 1,
            targets: vec!["checkout (pid 4242)".into()],
            warnings: vec!["2 connections that are open already will not be reached".into()],
        }
    }

    pub fn planned(&mut self, at: u64) {
        self.add(at, Event::Planned(vec![PlannedFault { fault: 0, plan: Self::plan() }]));
    }

    pub fn phase(&mut self, at: u64, phase: Phase) {
        self.add(at, Event::Phase(phase));
    }

    /// A sample of a probe; bad ones say why.
    pub fn sample(&mut self, at: u64, probe: u32, latency: f64, why: Option<&str>) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a latency in a test")]
        let started = at.saturating_sub(latency as u64) * 1_000_000;
        let why = why.map(str::to_owned);
        let ok = why.is_none();
        self.add(
            at,
            Event::Sample(Sample {
                probe,
                started,
                ok,
                value: Some(latency),
                why,
                broken: false,
                retries: 0,
                wrote: None,
            }),
        );
    }

    /// Samples every 100 ms: the first probe with latencies around this one, the others unimpressed.
    pub fn samples(&mut self, times: std::ops::Range<u64>, latency: f64) {
        for (i, at) in times.step_by(100).enumerate() {
            let wobble = [0.0, 0.11, -0.07, 0.2, -0.12, 0.05][i % 6];
            let value = latency * (1.0 + wobble);
            self.sample(at, 0, value, (value > 300.0).then(|| format!("{value:.0}ms is not < 300ms")).as_deref());
            for probe in 1..self.probes {
                let value = (4.0 + f64::from(u32::try_from(probe).unwrap())) * (1.0 - wobble);
                self.sample(at, u32::try_from(probe).unwrap(), value, None);
            }
        }
    }

    pub fn inject(&mut self, injection: u32, at: u64) {
        self.add(at, Event::Injecting { injection, fault: 0, plan: Box::new(Self::plan()) });
        self.add(at + 50, Event::Injected { injection, path: PATH.into() });
    }

    pub fn effect(&mut self, injection: u32, at: u64, took: Option<bool>, last: bool) {
        let measure = Measure {
            name: "delay".into(),
            unit: "ms".into(),
            asked: Some(200.0),
            measured: 201.3,
            samples: if last { 97 } else { 12 },
            spread: None,
        };
        let measures = if took == Some(true) { vec![measure] } else { vec![] };
        let note = (took != Some(true)).then(|| "no connection to 127.0.0.1:5432 came by".to_owned());
        self.add(at, Event::Effect { injection, effect: Effect { took, reached: None, measures, note }, last });
    }

    pub fn undo(&mut self, injection: u32, at: u64) {
        self.add(at, Event::Undoing { injection });
        let undone = Undone {
            clean: true,
            by: "injector".into(),
            notes: vec!["new connections go straight".into()],
            drained: None,
        };
        self.add(at + 40, Event::Undone { injection, undone });
    }

    pub fn judged(&mut self, at: u64, judgement: Judgement) {
        self.phase(at, Phase::Verdict);
        let exit = judgement.exit_code();
        self.add(at, Event::Judged(Box::new(judgement)));
        self.add(at, Event::RunEnded { exit });
    }

    pub fn done(self) -> Vec<Record> {
        // As in a real log: the samplers run beside all else.
        let mut records = self.records;
        records.sort_by_key(|r| r.at);
        records.iter_mut().enumerate().for_each(|(i, r)| r.seq = i as u64);
        records
    }
}

pub fn judgement(outcome: Outcome, ending: Ending, reasons: &[&str]) -> Judgement {
    let refuted = outcome == Outcome::Refuted;
    let probe = |name: &str, outcome, bad: u64, reason: &str| ProbeJudgement {
        name: name.into(),
        outcome,
        reasons: vec![reason.into()],
        samples: (98 - bad, 98),
        claims: vec![],
        detect_ms: (bad > 0).then_some(850.0),
        recover_ms: (bad > 0).then_some(10_020.0),
        lost: None,
    };
    let first = if refuted {
        probe("checkout", outcome, 92, "p99 was 532ms while the fault was in force, not < 300ms (98 samples).")
    } else {
        probe("checkout", outcome, 0, "All 98 samples were good.")
    };
    Judgement {
        outcome,
        ending,
        reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
        probes: vec![first, probe("health", Outcome::Held, 0, "All 98 samples were good.")],
        detect_ms: refuted.then_some(850.0),
        recover_ms: refuted.then_some(10_020.0),
        next: vec![Suggestion {
            text: "The smallest run that shows it at `checkout`:".into(),
            command: Some(
                "toprope inject network-latency from='{\"process\":\"checkout\"}' to=127.0.0.1:5432 delay=200ms --for 2s \
                 --probe http://127.0.0.1:8080/checkout"
                    .into(),
            ),
        }],
        breaking_point: None,
    }
}

fn steady() -> Script {
    let mut s = Script::new(&["checkout", "health"]);
    s.planned(0);
    s.phase(1, Phase::SteadyState);
    s.samples(100..3000, 22.0);
    s.phase(3001, Phase::Inject);
    s
}

/// Steady state, then 10 s of a fault under which the first probe takes so long, then recovery.
fn whole(latency: f64) -> Script {
    let mut s = steady();
    s.inject(0, 3002);
    s.samples(3100..3900, 22.0);
    s.samples(3900..13_900, latency);
    s.effect(0, 4500, None, false);
    s.effect(0, 5500, Some(true), false);
    s.effect(0, 13_055, Some(true), true);
    s.undo(0, 13_060);
    s.phase(13_110, Phase::Undo);
    s.phase(13_111, Phase::Recovery);
    s.samples(13_900..14_600, 22.0);
    s
}

pub fn held() -> Vec<Record> {
    let mut s = whole(231.0);
    s.judged(14_600, judgement(Outcome::Held, Ending::Complete, &["Every probe was within its tolerances."]));
    s.done()
}

pub fn refuted() -> Vec<Record> {
    let mut s = whole(480.0);
    let reason = "checkout: p99 was 532ms while the fault was in force, not < 300ms (98 samples).";
    s.judged(14_600, judgement(Outcome::Refuted, Ending::Complete, &[reason]));
    s.done()
}

/// The refuted run as it is 8.2 s after its start.
pub fn under_fault() -> Vec<Record> {
    refuted().into_iter().take_while(|r| r.at <= 8_200_000_000).collect()
}

pub fn stopped() -> Vec<Record> {
    let mut s = steady();
    s.inject(0, 3002);
    s.samples(3100..5400, 480.0);
    s.effect(0, 4500, Some(true), false);
    let stop = |by: &str, why: &str| Event::Stopping(Stop { by: by.into(), why: why.into() });
    s.undo(0, 5310);
    s.add(5360, stop("guardrail", "10 samples of checkout in a row were bad"));
    s.phase(5361, Phase::Undo);
    s.add(5362, stop("person", "stopped from the keyboard"));
    let reason = "The guardrail stopped it: 10 samples of checkout in a row were bad.";
    s.judged(5400, judgement(Outcome::Inconclusive, Ending::Stopped, &[reason]));
    s.done()
}

pub fn failed_to_inject() -> Vec<Record> {
    let mut s = steady();
    let error = "iptables rules of another program redirect 127.0.0.1:5432 already".to_owned();
    s.add(3010, Event::InjectFailed { injection: 0, fault: 0, error });
    s.add(3011, Event::Note { level: Level::Error, text: "slow-database could not be injected\u{1b}[31m".into() });
    s.add(3012, Event::Stopping(Stop { by: "error".into(), why: "slow-database could not be injected".into() }));
    s.phase(3013, Phase::Undo);
    let reason = "slow-database could not be injected.";
    s.judged(3014, judgement(Outcome::Inconclusive, Ending::Complete, &[reason]));
    s.done()
}

/// A search in its third trial.
pub fn search() -> Vec<Record> {
    let mut s = Script::new(&["checkout", "health"]);
    let trial = |s: &mut Script, number: u32, begin: u64, value: &str, latency: f64, outcome: Option<Outcome>| {
        s.add(begin, Event::TrialStarted { trial: number, value: value.into() });
        s.planned(begin);
        s.phase(begin + 1, Phase::SteadyState);
        s.samples(begin + 100..begin + 2000, 22.0);
        s.phase(begin + 2001, Phase::Inject);
        s.inject(number - 1, begin + 2002);
        s.samples(begin + 2100..begin + 5000, latency);
        s.effect(number - 1, begin + 3000, Some(true), outcome.is_some());
        if let Some(outcome) = outcome {
            s.undo(number - 1, begin + 5010);
            s.phase(begin + 5060, Phase::Undo);
            s.phase(begin + 5061, Phase::Recovery);
            s.samples(begin + 5100..begin + 5500, 22.0);
            let reason = if latency > 300.0 { "p99 was 532ms, not < 300ms." } else { "All samples were good." };
            s.add(begin + 5600, Event::TrialEnded { trial: number, outcome, reason: reason.into() });
        }
    };
    trial(&mut s, 1, 10, "50ms", 72.0, Some(Outcome::Held));
    trial(&mut s, 2, 5700, "2s", 2022.0, Some(Outcome::Refuted));
    trial(&mut s, 3, 11_400, "316ms", 200.0, None);
    s.done()
}

/// The verdict of a search.
pub fn breaking_point() -> Judgement {
    Judgement {
        breaking_point: Some(BreakingPoint {
            parameter: "slow-database.delay".into(),
            held: Some("237ms".into()),
            refuted: Some("257ms".into()),
            trials: vec![("50ms".into(), 2, 0, 0), ("2s".into(), 0, 1, 0), ("257ms".into(), 1, 1, 1)],
        }),
        ..judgement(Outcome::Held, Ending::Complete, &["It holds up to 237ms."])
    }
}
