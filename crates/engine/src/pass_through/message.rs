//! What is said to the process of a pass-through: by the run, and by the injectors that hold faults in it.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toprope_model::step::{Effect, Step};
use toprope_os::process::ProcessId;

use crate::host::Host;
use crate::injector::Failure;

/// From the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ToPassThrough {
    /// Listen and forward. Always first.
    Open(Box<OpenRequest>),
    /// The descriptor that comes with this is a socket to an injector.
    Lend,
    /// Say that you are alive.
    Beat,
    /// Listen no more, and end once what is in flight has ended.
    Close,
}

/// The fault that wants a pass-through, and its parameters, which say where.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OpenRequest {
    pub(super) fault: String,
    pub(super) params: Json,
    pub(super) host: Host,
    /// How long connections in flight are carried on at the end, in milliseconds.
    pub(super) drain_ms: u64,
}

/// To the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromPassThrough {
    /// It listens.
    Opened(ProcessId),
    /// It cannot.
    Failed(Failure),
    /// The answer to [`ToPassThrough::Beat`].
    Beat,
    /// It has ended: so many connections ended by themselves since it closed, and so many were cut.
    Closed(u64, u64),
}

/// From an injector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Request {
    /// Comes back with the answer.
    pub(super) number: u64,
    pub(super) wanted: Wanted,
}

/// What an injector wants done, as [`crate::fault`] has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wanted {
    Apply { fault: String, step: Box<Step>, params: Json, seed: u64, for_ms: u64 },
    Observe,
    Adjust { params: Json },
    Release,
}

/// To an injector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) number: u64,
    /// An effect where one was asked for.
    pub(super) result: Result<Option<Effect>, Failure>,
}
