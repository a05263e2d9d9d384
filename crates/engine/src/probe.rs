//! The probe contract, and one file for each kind of probe.
//!
//! What kinds share: `expect` (what one sample tolerates), `template` and `secret` (texts with placeholders, and
//! texts that are not shown), `web`, `tls` and `kept` (connections), `instrument` (what is asked about the system
//! without being it), `blame` (whether an error is evidence), `params` (fields that depend on each other).

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use toprope_model::event::Phase;
use toprope_model::{KindSpec, Node};

use crate::host::ServiceFacts;

mod alert;
mod blame;
mod command;
mod dns;
mod expect;
mod file;
mod http;
mod instrument;
mod kept;
mod log;
mod params;
mod process;
mod prometheus;
mod redis;
mod secret;
mod sql;
mod tcp;
mod template;
mod tls;
mod web;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod testing;

/// A kind of probe.
pub trait ProbeKind: Send + Sync + 'static {
    /// Kind, parameters, docs, example.
    fn spec(&self) -> &'static KindSpec;

    /// Makes a probe from checked parameters. Connects to nothing yet.
    ///
    /// # Errors
    /// Why these parameters cannot be used here: a secret's variable is not set, a file cannot be read.
    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError>;
}

/// What the run gives to each probe.
#[derive(Debug, Clone)]
pub struct Context {
    /// The run's id: `{run}` in texts that a probe writes.
    pub run: String,
    /// The longest that one sample may take.
    pub timeout: Duration,
    /// The directory where the run was started.
    pub directory: std::path::PathBuf,
    /// The user whom commands run as, where that is not the one this process runs as.
    pub invoking_user: Option<u32>,
    /// The services of the experiment's topology, for processes that are named by service.
    pub services: Vec<ServiceFacts>,
}

/// A probe, asked again and again. Samples of one probe may overlap when they are slow.
pub trait Probe: Send + Sync {
    /// What it asks, in words: `GET http://127.0.0.1:8080/checkout`. Without secrets.
    fn asks(&self) -> String;

    /// What it tolerates in one sample, in words: `status 200, body matches /ok/`; empty if anything that answers.
    fn tolerates(&self) -> String;

    /// The unit of its values: `ms` (the default, for latencies) or what the probe reads.
    fn unit(&self) -> &'static str {
        "ms"
    }

    /// How long after the first injection this probe must still be asked, where that is longer than the method: an
    /// alert that has two minutes to fire.
    fn needs_after_injection(&self) -> Option<Duration> {
        None
    }

    /// Called once before the first sample, when the run begins: opens a listener, notes where a log file ends.
    ///
    /// # Errors
    /// Why the probe cannot work.
    fn begin(&self) -> BoxFuture<'_, Result<(), ProbeError>> {
        Box::pin(async { Ok(()) })
    }

    /// Takes one sample. The caller ends it when its timeout has passed, and takes the time.
    fn sample(self: Arc<Self>, moment: Moment) -> BoxFuture<'static, Answer>;

    /// Looks for a write that [`Answer::wrote`] named. Asked after the recovery, if the manifest says `loses`.
    fn find(self: Arc<Self>, written: String) -> BoxFuture<'static, Result<bool, ProbeError>> {
        let _ = written;
        Box::pin(async { Err(ProbeError::new("this probe writes nothing that could be found again")) })
    }

    /// Whether [`Probe::find`] works with these parameters.
    fn can_find(&self) -> bool {
        false
    }
}

/// When a sample is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Counts a probe's samples from 0: `{n}` in texts that a probe writes.
    pub number: u64,
    /// The run's phase.
    pub phase: Phase,
    /// Since the first injection was in force; `None` before it.
    pub since_injection: Option<Duration>,
}

/// What a sample said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// Why it is bad; `None` is good.
    pub bad: Option<String>,
    /// The probe's value, where it is not the latency.
    pub value: Option<f64>,
    /// The write that was acknowledged, by the name under which it can be found again.
    pub wrote: Option<String>,
    /// Whether nothing came back: who was asked could not be reached, or broke off. Bad, and yet no word about what was
    /// asked for.
    pub unanswered: bool,
    /// The probe itself failed (its program could not be started): no evidence about the system.
    pub broken: bool,
    /// Whether this counts as a sample at all: an alert that may still fire has nothing to say yet.
    pub silent: bool,
}

impl Answer {
    /// A good sample.
    pub fn good() -> Self {
        Self::default()
    }

    /// A bad sample.
    pub fn bad(why: impl Into<String>) -> Self {
        Self { bad: Some(why.into()), ..Self::default() }
    }

    /// No evidence: the probe itself failed.
    pub fn broken(why: impl Into<String>) -> Self {
        Self { bad: Some(why.into()), broken: true, ..Self::default() }
    }
}

/// Why a probe cannot work, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub String);

impl ProbeError {
    /// An error that says what happened, why, and what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Every kind of probe.
pub static PROBES: &[&dyn ProbeKind] = &[
    &http::Kind,
    &tcp::Kind,
    &dns::Kind,
    &command::Kind,
    &prometheus::Kind,
    &alert::Kind,
    &sql::Kind,
    &redis::Kind,
    &process::Kind,
    &file::Kind,
    &log::Kind,
];
