//! The verdict: held, refuted or inconclusive, with its reasons.

use serde::{Deserialize, Serialize};

/// The three values of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The hypothesis held: the fault took, every probe has its samples, and all are within tolerance.
    Held,
    /// The hypothesis was refuted by what was seen while or after a fault that took.
    Refuted,
    /// Neither was shown.
    Inconclusive,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Held => "held",
            Self::Refuted => "refuted",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// How a run ended, for exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It ran to its end.
    Complete,
    /// A guardrail or a person stopped it.
    Stopped,
    /// Something could not be undone.
    NotUndone,
}

/// The judgement on a run: a fold over its events and nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict.
    pub outcome: Outcome,
    /// How the run ended.
    pub ending: Ending,
    /// Why, the weightiest reason first, one sentence each.
    pub reasons: Vec<String>,
    /// Each probe's own judgement, in the manifest's order.
    pub probes: Vec<ProbeJudgement>,
    /// First injection to first bad sample of any probe, in milliseconds; `None` if none was bad.
    pub detect_ms: Option<f64>,
    /// First bad sample to all probes back in tolerance, in milliseconds; `None` if none was bad or not all came back.
    pub recover_ms: Option<f64>,
    /// What to try next.
    pub next: Vec<Suggestion>,
    /// The breaking point, for a run that searched for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaking_point: Option<BreakingPoint>,
}

impl Judgement {
    /// The exit code: 0 held, 1 refuted, 3 inconclusive, 4 not everything could be undone, 5 stopped before a verdict.
    pub fn exit_code(&self) -> u8 {
        match (self.ending, self.outcome) {
            (Ending::NotUndone, _) => 4,
            (_, Outcome::Refuted) => 1,
            (Ending::Stopped, _) => 5,
            (Ending::Complete, Outcome::Held) => 0,
            (Ending::Complete, Outcome::Inconclusive) => 3,
        }
    }
}

/// The judgement on one probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeJudgement {
    /// The probe's name.
    pub name: String,
    /// Its own outcome.
    pub outcome: Outcome,
    /// Why, one sentence each, with the samples it rests on.
    pub reasons: Vec<String>,
    /// Samples judged: good, all.
    pub samples: (u64, u64),
    /// What it claimed of the system, and how far that was shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimJudgement>,
    /// First injection to its first bad sample, in milliseconds.
    pub detect_ms: Option<f64>,
    /// Its first bad sample to back in tolerance, in milliseconds.
    pub recover_ms: Option<f64>,
    /// Acknowledged writes and those not found again, for probes that write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<(u64, u64)>,
}

/// How far a claim was shown: that less than a share of the samples is bad, or out of a bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimJudgement {
    /// The tolerance: `p99 < 300ms`.
    pub claim: String,
    /// Shown, shown not to be so, or neither.
    pub outcome: Outcome,
    /// How often it may be shown wrongly, however often one looks: 0.01 for a confidence of 99%.
    pub alpha: f64,
    /// The share that may be bad, from 0 to 1.
    pub allowed: f64,
    /// Samples that were bad or out of the bound, and all.
    pub samples: (u64, u64),
    /// Between which shares the true one lies: each end is wrong with a probability of at most `alpha`.
    pub between: (f64, f64),
    /// The evidence that the claim is so: shown at `1 / alpha`.
    pub evidence: f64,
    /// How many more samples would show it, if as large a share goes on to be bad. `None` if it is decided, or if that
    /// never would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
}

/// What to try next, from what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggestion {
    /// In words: `It held at 200ms: find the delay at which it breaks.`
    pub text: String,
    /// A command that does it, where one can be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Where a hypothesis stops to hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakingPoint {
    /// The parameter that was searched, with its fault.
    pub parameter: String,
    /// The largest value at which every trial held, as written in a manifest; `None` if none held.
    pub held: Option<String>,
    /// The smallest value above it at which a trial was refuted; `None` if none was.
    pub refuted: Option<String>,
    /// Every value tried: held, refuted and inconclusive trials.
    pub trials: Vec<(String, u32, u32, u32)>,
}
