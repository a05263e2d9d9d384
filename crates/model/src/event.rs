//! What happens in a run, as it stands in the run's log. Everything that is shown later is a fold over these.

use serde::{Deserialize, Serialize};

use crate::step::{Effect, Plan, Undone};
use crate::verdict::{Judgement, Outcome};

/// The version of the log's format that this crate writes.
pub const VERSION: u32 = 1;

/// One line of a run's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 0 without a gap.
    pub seq: u64,
    /// Nanoseconds since the run began, by the monotonic clock.
    pub at: u64,
    /// SHA-256 of the raw bytes of the line before, without its newline, in hexadecimal; empty in the first line.
    pub prev: String,
    /// What happened.
    pub event: Event,
}

/// The parts of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The steady state is watched; nothing is injected.
    SteadyState,
    /// The method runs: faults are injected and observed.
    Inject,
    /// What is still in force is undone.
    Undo,
    /// The system is watched after everything was undone.
    Recovery,
    /// The verdict.
    Verdict,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SteadyState => "steady state",
            Self::Inject => "inject",
            Self::Undo => "undo",
            Self::Recovery => "recovery",
            Self::Verdict => "verdict",
        })
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each variant's text speaks of its fields")]
pub enum Event {
    /// The run began. Always the first event.
    RunStarted(Box<RunStarted>),
    /// What will be injected was resolved and checked.
    Planned(Vec<PlannedFault>),
    /// A trial of a search began: its number from 1, and the value tried.
    TrialStarted { trial: u32, value: String },
    /// A trial ended.
    TrialEnded { trial: u32, outcome: Outcome, reason: String },
    /// A pass-through stands from now on, until the run has ended: clients that connect to `at` are led to `to`.
    PassThrough { at: String, to: String },
    /// It is gone before the run's end, and its connections are cut.
    PassThroughLost { at: String, why: String },
    /// A phase began.
    Phase(Phase),
    /// A probe gave a sample.
    Sample(Sample),
    /// A fault is about to be injected: `injection` counts from 0 through the run, `fault` is its place in the method.
    Injecting { injection: u32, fault: u32, plan: Box<Plan> },
    /// The fault is in force.
    Injected { injection: u32, path: String },
    /// Its effect was measured; `last` is the measurement that counts.
    Effect { injection: u32, effect: Effect, last: bool },
    /// A parameter was changed while it is in force.
    Adjusted { injection: u32, parameter: String, value: String },
    /// It ended by itself: the target died, the lease ran out, the injector was killed.
    Ended { injection: u32, why: String },
    /// Its undo began.
    Undoing { injection: u32 },
    /// It is undone; new connections go straight, the target runs free.
    Undone { injection: u32, undone: Undone },
    /// It could not be injected; nothing of it is in force.
    InjectFailed { injection: u32, fault: u32, error: String },
    /// A write that a probe saw acknowledged is looked for at the end.
    Found { probe: u32, acknowledged: u64, lost: Vec<String> },
    /// The run is being stopped before its end.
    Stopping(Stop),
    /// Something that the reader should know.
    Note { level: Level, text: String },
    /// The verdict.
    Judged(Box<Judgement>),
    /// The run ended in order. Always the last event of a run that was not killed.
    RunEnded { exit: u8 },
    /// The next start found this log without an end and sealed it; says what became of what was in force.
    Sealed { wall: String, notes: Vec<String> },
}

/// The first event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// [`VERSION`].
    pub format: u32,
    /// The run's id.
    pub run: String,
    /// Version of Toprope.
    pub toprope: String,
    /// What it was started as: `run`, `inject`, `test`, `exec`, `demo`.
    pub command: String,
    /// The wall clock at the start, RFC 3339 with zone: a label.
    pub wall: String,
    /// Name of the host.
    pub host: String,
    /// Kernel and its release.
    pub kernel: String,
    /// Who ran it.
    pub user: String,
    /// The seed of everything random in the run.
    pub seed: u64,
    /// The generator that the seed goes into.
    pub generator: String,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<String>,
    /// The manifest with includes and values resolved; secrets are references.
    pub manifest: serde_json::Value,
    /// The topology that the manifest names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<serde_json::Value>,
    /// The probes, in the order in which samples number them.
    pub probes: Vec<ProbeInfo>,
    /// The faults of the method, in order.
    pub faults: Vec<FaultInfo>,
    /// What stops the run before its end and how sure it must be, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardrails: Vec<String>,
}

/// A probe as the log knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it asks, in words: `GET http://127.0.0.1:8080/checkout`.
    pub asks: String,
    /// What is tolerated, in words: `status 200, p99 < 300ms`.
    pub tolerates: String,
    /// Unit of its values: `ms`, or empty.
    pub unit: String,
    /// From one sample to the next, in milliseconds.
    pub interval_ms: f64,
    /// Whether it is expected to recover rather than to stay unaffected.
    pub recovers: bool,
    /// Whether it has nothing to say until something was injected (an alert that is to fire): no steady state is asked
    /// of it, and what it says counts whenever it comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

/// A fault as the log knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultInfo {
    /// Its name in reports.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its parameters in words: `delay 200ms, to 127.0.0.1:5432`.
    pub parameters: String,
    /// Whether it stays in force for a time.
    pub lasting: bool,
    /// How long it stays in force by plan, in milliseconds; 0 for what happens at one instant.
    pub for_ms: f64,
}

/// One fault of the method as planned before the steady state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedFault {
    /// Its place in the method.
    pub fault: u32,
    /// What it would do.
    pub plan: Plan,
}

/// One sample of a probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The probe, by its place in the manifest.
    #[serde(rename = "p")]
    pub probe: u32,
    /// When it was asked (the event's `at` is when the answer was there): nanoseconds since the run began.
    #[serde(rename = "from")]
    pub started: u64,
    /// Whether it was within the probe's tolerance for one sample.
    pub ok: bool,
    /// The probe's value; the latency in milliseconds for probes that yield no other.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Why it was bad, or could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The probe itself failed (crashed, could not be started): no evidence, neither good nor bad.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
    /// How often it was asked again before this answer, which is the last one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// The write that it saw acknowledged, by the name under which it can be found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrote: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Who stopped a run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Who: `guardrail`, `SIGINT`, `SIGTERM`, `SIGHUP`, `person`, `error`.
    pub by: String,
    /// Why, in words.
    pub why: String,
}

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Good to know.
    Info,
    /// May change what the result means.
    Warning,
    /// Something failed.
    Error,
}
