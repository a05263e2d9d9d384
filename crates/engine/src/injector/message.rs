//! What run and injector say to each other: one JSON value per line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toprope_model::step::{Effect, Plan, Undone};

use crate::fault::FaultError;
use crate::host::Host;

/// From the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToInjector {
    /// Say what the fault would do. Always first.
    Plan(Box<PlanRequest>),
    /// Do it.
    Apply(ApplyRequest),
    /// End it now.
    Release {
        /// Whether the run is being stopped: then the undo does not wait for a last measurement.
        #[serde(default)]
        urgent: bool,
        /// Why, for the log.
        why: String,
    },
    /// What it was told last is in the log. After the second [`FromInjector::Planned`]: it may be applied; after
    /// [`FromInjector::Undone`]: the record may go.
    Logged,
    /// What a person answered to [`FromInjector::Ask`].
    Answer(Result<(), String>),
    /// Undo a record of a dead injector.
    Undo {
        /// The journal's directory.
        journal: PathBuf,
        /// The record's file.
        record: PathBuf,
        /// The host.
        host: Host,
    },
}

/// A fault and its parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The fault's kind.
    pub fault: String,
    /// Its own parameters.
    pub params: Json,
    /// Seed of this injection's randomness.
    pub seed: u64,
    /// How long it is to stay in force, in milliseconds; 0 for what happens at one instant.
    pub for_ms: u64,
    /// The host.
    pub host: Host,
    /// The most it may hit.
    pub limits: Limits,
    /// The journal's directory.
    pub journal: PathBuf,
    /// Whether the run can ask a person.
    pub attended: bool,
}

/// The most that an injection may hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The most targets.
    pub targets: Option<u32>,
    /// The largest share of what the selector matches, in percent.
    pub percent: Option<f64>,
}

/// Permission to put the planned fault in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// The run.
    pub run: String,
    /// The injection's number in the run.
    pub injection: u32,
    /// Who asked for it.
    pub user: String,
    /// How long connections in flight are carried on, in milliseconds.
    pub drain_ms: u64,
    /// Parameters that change while it is in force, in order.
    pub changes: Vec<Change>,
}

/// New parameters at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Milliseconds after the fault was in force.
    pub after_ms: u64,
    /// The parameter that changes.
    pub parameter: String,
    /// Its new value as text.
    pub value: String,
    /// All parameters with the new value.
    pub params: Json,
}

/// From the injector.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromInjector {
    /// The answer to [`ToInjector::Plan`], and again just before it is applied, when it is resolved anew.
    Planned(Box<Plan>),
    /// It cannot be done here.
    PlanFailed(Failure),
    /// It is in force.
    Applied,
    /// It could not be put in force; how the undo of what was done went.
    ApplyFailed {
        /// Why.
        failure: Failure,
        /// What was undone.
        undone: Undone,
    },
    /// Its effect so far; `last` is the one that counts.
    Effect {
        /// The effect.
        effect: Effect,
        /// Whether it was taken just before the release.
        last: bool,
    },
    /// A parameter was changed.
    Adjusted {
        /// Which.
        parameter: String,
        /// To what.
        value: String,
    },
    /// A parameter could not be changed.
    AdjustFailed(Failure),
    /// Something that a reader of the log should know.
    Noticed(String),
    /// It ended by itself.
    Ended(String),
    /// The undo begins.
    Undoing,
    /// It is undone.
    Undone(Undone),
    /// The connections in flight have ended: by themselves, and cut.
    Drained(u64, u64),
    /// A person is asked to do something.
    Ask {
        /// What.
        what: String,
        /// By when, in milliseconds from now.
        deadline_ms: u64,
    },
}

/// An error that crosses the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Whether something of an earlier run is still to be undone.
    #[serde(default)]
    pub dirty: bool,
}

impl From<FaultError> for Failure {
    fn from(e: FaultError) -> Self {
        Self { message: e.message, help: e.help, dirty: e.dirty }
    }
}

impl From<Failure> for FaultError {
    fn from(f: Failure) -> Self {
        Self { message: f.message, help: f.help, dirty: f.dirty }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}
