//! What a fault may use of the machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::pass_through::{Opened, PassThrough};

/// The machine as faults see it, and what was resolved for them before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// The services of the experiment's topology, for targets named by service.
    #[serde(default)]
    pub services: Vec<ServiceFacts>,
    /// Processes that are never targets: the run and everything that belongs to it.
    pub own: Vec<i32>,
    /// The user who started the run, where that is not the one this process runs as: commands run as this one.
    #[serde(default)]
    pub invoking_user: Option<u32>,
    /// The directory where the run was started: relative paths in manifests are from here.
    pub directory: PathBuf,
    /// Where a person can be asked to do something; `None` where nobody watches.
    #[serde(skip)]
    pub person: Option<Arc<dyn Person>>,
    /// The pass-throughs of the run.
    #[serde(default)]
    pub pass_throughs: Vec<Opened>,
    /// The pass-through that this process is.
    #[serde(skip)]
    pub pass_through: Option<Arc<dyn PassThrough>>,
}

/// Somebody who can be asked to do something that no program can.
pub trait Person: std::fmt::Debug + Send + Sync {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// That nobody said it was done within the deadline, or that they said they could not.
    fn ask(&self, what: &str, deadline: Duration) -> BoxFuture<'_, Result<(), String>>;
}

/// What targets need to know of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Its name.
    pub name: String,
    /// The name of its processes.
    #[serde(default)]
    pub process: Option<String>,
    /// A regular expression for their command line.
    #[serde(default)]
    pub command_line: Option<String>,
    /// Its systemd unit.
    #[serde(default)]
    pub unit: Option<String>,
    /// Where it listens, as `host:port`.
    #[serde(default)]
    pub address: Option<String>,
}
