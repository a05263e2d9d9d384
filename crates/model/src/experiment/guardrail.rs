//! Guardrails: what stops a run before its end.

use std::time::Duration;

use super::{Claim, ProbeItem, single_key};
use crate::comparison::Comparison;
use crate::diagnostic::Problems;
use crate::field::{FromNode, Type};
use crate::node::Node;
use crate::units::{Dur, Percent};
use crate::{choice, fields};

fields! {
    /// Stop when too large a share of a probe's samples is bad: of the latest ones or, with `confidence`, of all since the
    /// injection.
    pub struct ErrorRatio {
        /// The probe; every probe if it is not given.
        pub probe: Option<String>,
        /// Stop when the share of bad samples is larger than this; below 100%.
        pub above: Percent,
        /// Over this time, in which the probe must be asked at least 5 times: fewer samples decide nothing. Not with
        /// `confidence`.
        pub over: Dur = "5s",
        /// Stop as soon as all samples since the injection show with this confidence that the system's share is larger: a
        /// share that is not stops at most so few runs as are missing to 100%, however often one looks.
        pub confidence: Option<Percent>,
    }
}

fields! {
    /// Stop when a probe burns its error budget too fast, as all samples since the injection show.
    pub struct BurnRate {
        /// The probe; every probe if it is not given.
        pub probe: Option<String>,
        /// The objective: the share of samples that are good by promise. What is missing to 100% is the error budget.
        pub objective: Percent,
        /// Stop when the share of bad samples is more than so many times the error budget.
        pub above: f64,
        /// How sure to be before stopping; an innocent run is stopped at most as often as is missing to 100%.
        pub confidence: Percent = "99%",
    }
}

choice! {
    /// A percentile of values.
    pub enum Percentile {
        /// The median.
        P50 = "p50",
        /// The 90th.
        P90 = "p90",
        /// The 95th.
        P95 = "p95",
        /// The 99th.
        P99 = "p99",
    }
}

impl Percentile {
    /// As a share: 0.9 for the 90th.
    pub fn share(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
        }
    }
}

fields! {
    /// Stop when a probe is worse than in the steady state: when a percentile of its values is larger by more than a share. A
    /// bad sample counts as slower than any.
    pub struct WorseThanBefore {
        /// The probe; every probe if it is not given.
        pub probe: Option<String>,
        /// By how much it may be larger: `20%`.
        pub by: Percent,
        /// Which percentile.
        pub percentile: Percentile = "p50",
        /// How sure to be before stopping; an innocent run is stopped at most as often as is missing to 100%.
        pub confidence: Percent = "99%",
    }
}

fields! {
    /// Stop when nothing is known of a probe any more: it fails itself, or gives no answer. Every probe that another guardrail
    /// watches is watched for this too; written out, it may say when.
    pub struct LostTelemetry {
        /// The probe; every probe if it is not given.
        pub probe: Option<String>,
        /// How many samples in a row in which the probe itself failed, at least 1.
        pub samples: u32 = "5",
        /// How long without an answer, good or bad; five intervals and the probe's timeouts if it is not given.
        pub for_: Option<Dur>,
    }
}

fields! {
    /// Stop when a probe is bad several times in a row.
    pub struct BadInARow {
        /// The probe; every probe if it is not given.
        pub probe: Option<String>,
        /// How many bad samples in a row, at least 1.
        pub samples: u32,
    }
}

fields! {
    /// Stop when a probe's value passes a bound.
    pub struct ValueBound {
        /// The probe.
        pub probe: String,
        /// What the value must keep to: a quantity, as in `< 500ms`.
        pub keeps: Comparison,
    }
}

/// What stops a run.
#[derive(Debug, Clone, PartialEq)]
pub enum GuardrailItem {
    /// Too large a share of bad samples.
    ErrorRatio(ErrorRatio),
    /// Too fast a burn of the error budget.
    BurnRate(BurnRate),
    /// Values larger than in the steady state.
    WorseThanBefore(WorseThanBefore),
    /// Nothing is known any more.
    LostTelemetry(LostTelemetry),
    /// Bad several times in a row.
    BadInARow(BadInARow),
    /// A value out of bounds.
    Value(ValueBound),
}

/// `error-ratio` over a time decides nothing on fewer samples than this in it: one bad sample of one is no trend.
pub const RATIO_SAMPLES: u32 = 5;
/// Telemetry is lost when a probe itself failed so often in a row.
pub const BROKEN_IN_A_ROW: u32 = 5;
/// Telemetry is lost after so many intervals, and the probe's timeouts, without an answer.
pub const SILENT_INTERVALS: u32 = 5;

/// The kinds of guardrails.
pub const GUARDRAIL_KINDS: &[(&str, &str)] = &[
    ("error-ratio", "Stop when too large a share of a probe's samples is bad."),
    ("burn-rate", "Stop when a probe burns its error budget too fast."),
    ("worse-than-before", "Stop when a probe is slower than in the steady state."),
    ("lost-telemetry", "Stop when nothing is known of a probe any more."),
    ("bad-in-a-row", "Stop when a probe is bad several times in a row."),
    ("value", "Stop when a probe's value passes a bound."),
];

impl GuardrailItem {
    /// The fields of each kind, in the order of [`GUARDRAIL_KINDS`].
    pub fn fields() -> [Vec<crate::Field>; 6] {
        [
            ErrorRatio::fields(),
            BurnRate::fields(),
            WorseThanBefore::fields(),
            LostTelemetry::fields(),
            BadInARow::fields(),
            ValueBound::fields(),
        ]
    }

    /// The probe that it watches; `None` is all.
    pub fn probe(&self) -> Option<&str> {
        match self {
            Self::ErrorRatio(g) => g.probe.as_deref(),
            Self::BurnRate(g) => g.probe.as_deref(),
            Self::WorseThanBefore(g) => g.probe.as_deref(),
            Self::LostTelemetry(g) => g.probe.as_deref(),
            Self::BadInARow(g) => g.probe.as_deref(),
            Self::Value(g) => Some(&g.probe),
        }
    }

    /// How sure it is to be before it stops a run, where it tests.
    pub fn confidence(&self) -> Option<Percent> {
        match self {
            Self::ErrorRatio(g) => g.confidence,
            Self::BurnRate(g) => Some(g.confidence),
            Self::WorseThanBefore(g) => Some(g.confidence),
            Self::LostTelemetry(_) | Self::BadInARow(_) | Self::Value(_) => None,
        }
    }

    /// How often it may stop an innocent run because of one of `probes` that it watches, where it tests: they share what
    /// is missing of the confidence.
    pub fn alpha(&self, probes: usize) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a handful of probes")]
        let probes = probes.max(1) as f64;
        self.confidence().map(|c| (1.0 - c.share()) / probes)
    }

    /// The share of samples that it tests: it stops once the share of bad ones (for `worse-than-before`: of those that are
    /// slower than before) is shown to be above it.
    pub fn tested_share(&self) -> Option<f64> {
        match self {
            Self::ErrorRatio(g) => g.confidence.map(|_| g.above.share()),
            Self::BurnRate(g) => Some(g.above * (1.0 - g.objective.share())),
            Self::WorseThanBefore(g) => Some(1.0 - g.percentile.share()),
            Self::LostTelemetry(_) | Self::BadInARow(_) | Self::Value(_) => None,
        }
    }

    /// How many samples the test takes at least, if every one is bad. `None` if it never stops a run, or does not test.
    pub fn fewest(&self, probes: usize) -> Option<u64> {
        let (share, alpha) = (self.tested_share()?, self.alpha(probes)?);
        // What was before takes half of the error.
        let alpha = if matches!(self, Self::WorseThanBefore(_)) { alpha / 2.0 } else { alpha };
        Claim { text: String::new(), allowed: 1.0 - share, alpha }.fewest()
    }

    /// How many samples of the steady state it takes to know what was before.
    pub fn fewest_before(&self, probes: usize) -> Option<u64> {
        let Self::WorseThanBefore(g) = self else { return None };
        let alpha = self.alpha(probes)? / 2.0;
        Claim { text: String::new(), allowed: 1.0 - g.percentile.share(), alpha }.fewest()
    }
}

/// How long a probe may give no answer until its telemetry is lost: as said, or five intervals and its timeouts.
pub(super) fn silence(said: Option<Dur>, interval: Duration, probe: &ProbeItem) -> Duration {
    let tries = probe.common.retries.saturating_add(1);
    let waited = probe.common.timeout.0.saturating_mul(tries);
    said.map_or_else(|| interval.saturating_mul(SILENT_INTERVALS).saturating_add(waited), |d| d.0)
}

impl std::fmt::Display for GuardrailItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = self.probe().unwrap_or("any probe");
        match self {
            Self::ErrorRatio(ErrorRatio { above, confidence: Some(_), .. }) => {
                write!(f, "more than {above} of the samples of {of} bad")
            }
            Self::ErrorRatio(g) => write!(f, "more than {} of the samples of {of} bad over {}", g.above, g.over),
            Self::BurnRate(g) => {
                write!(f, "{of} burns the error budget of {} more than {} times", g.objective, g.above)
            }
            Self::WorseThanBefore(g) => {
                write!(f, "the {} of {of} more than {} above that of the steady state", g.percentile.word(), g.by)
            }
            Self::LostTelemetry(g) => {
                let long = g.for_.map_or_else(|| "too long".to_owned(), |d| d.to_string());
                write!(f, "{of} failed itself {} times in a row, or gave no answer for {long}", g.samples)
            }
            Self::BadInARow(g) => write!(f, "{} bad samples of {of} in a row", g.samples),
            Self::Value(g) => write!(f, "the value of {of} no longer {}", g.keeps),
        }
    }
}

impl FromNode for GuardrailItem {
    fn ty() -> Type {
        Type::Kind("guardrail")
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let (kind, span, params) = single_key(node, "guardrail", problems)?;
        match kind {
            "error-ratio" => ErrorRatio::from_node(params, problems).map(Self::ErrorRatio),
            "burn-rate" => BurnRate::from_node(params, problems).map(Self::BurnRate),
            "worse-than-before" => WorseThanBefore::from_node(params, problems).map(Self::WorseThanBefore),
            "lost-telemetry" => LostTelemetry::from_node(params, problems).map(Self::LostTelemetry),
            "bad-in-a-row" => BadInARow::from_node(params, problems).map(Self::BadInARow),
            "value" => ValueBound::from_node(params, problems).map(Self::Value),
            other => {
                problems.unknown_name(span, "guardrail", other, GUARDRAIL_KINDS.iter().map(|k| k.0));
                None
            }
        }
    }
}
