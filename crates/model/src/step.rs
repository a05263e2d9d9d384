//! What a fault plans, what undoes it, and what it measured: data that crosses from injector to run.

use serde::{Deserialize, Serialize};

/// What a fault would do with given parameters on this host, now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The changes, in order. Applied in this order, undone in reverse.
    pub steps: Vec<Step>,
    /// The mechanism that was chosen, and why if there was a choice: `cgroup-BPF connect redirection`.
    pub path: String,
    /// How many things (processes, connections) the selector matched, before any pick.
    pub matched: usize,
    /// What is hit, one line each: `nginx (pid 4242)`.
    pub targets: Vec<String>,
    /// What the user should know before the run: connections already open that it will not reach.
    pub warnings: Vec<String>,
}

/// One change that a fault makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What it does, in words, as `plan` prints it.
    pub describe: String,
    /// What is taken for this fault alone while it is in force: `process 4242`, `tcp 127.0.0.1:5432`. A second
    /// injection with an equal claim is refused.
    pub claims: Vec<String>,
    /// What takes it back.
    pub undo: Undo,
    /// What the fault needs to apply it, in the fault's own form.
    pub data: serde_json::Value,
}

/// What takes a step back. Data for a known fault, never text to run (but for the `command` fault's own).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// The kernel undoes it when the injector dies; says by which means.
    KernelOwned(String),
    /// What was found before, in the fault's own form, to be restored.
    Restore(serde_json::Value),
    /// Nothing can; says what is left.
    Irreversible {
        /// What stays behind, one line each: `process 4242 (redis-server) is dead`.
        leaves: Vec<String>,
    },
}

/// The effect of a fault as measured, not as assumed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Whether the fault was seen to take: `None` while that is not known yet (no connection came by so far).
    pub took: Option<bool>,
    /// The share of the target that it reached, from 0 to 1, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<f64>,
    /// What was asked for beside what was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
    /// What else a reader should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One quantity of an effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured: `delay`.
    pub name: String,
    /// Its unit: `ms`, `%`, `B/s`, or empty for a count.
    pub unit: String,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<f64>,
    /// What was measured (the median, where there are many samples).
    pub measured: f64,
    /// How many samples it rests on; 0 where that has no meaning.
    #[serde(default)]
    pub samples: u64,
    /// How they are spread, where there are many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,
}

/// How the samples of a measure are spread, in its unit: a median alone hides the one that took a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// What 99 of 100 do not exceed, by nearest rank.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of samples; `None` if there are none.
    pub fn of(samples: &mut [f64]) -> Option<Self> {
        let mut at = |q| toprope_stats::quantile(samples, q);
        Some(Self { min: at(0.0)?, p50: at(0.5)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

/// How the end of a fault went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Undone {
    /// Whether everything was restored and seen to be.
    pub clean: bool,
    /// Who did it: `injector`, `guard`, `run`, `sweep`.
    pub by: String,
    /// What was restored, what stays, what could not be: one line each.
    pub notes: Vec<String>,
    /// Connections in flight that were carried on to their own end, and those cut after the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<(u64, u64)>,
}
