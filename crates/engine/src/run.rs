//! Runs an experiment: steady state, inject, observe, undo, recovery, verdict.
//!
//! One [`Recorder`] linearises all that happens into the log, and there guardrails decide. Everything else (samplers,
//! injections, the course of the method) are tasks that record and that follow the stage.

mod guardrail;
mod inject;
mod method;
mod overlap;
mod phases;
mod prepare;
mod recorder;
mod sampling;
mod search;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use toprope_model::event::{Record, Stop};
use toprope_model::step::Plan;
use toprope_model::topology::Topology;
use toprope_model::verdict::Judgement;
use toprope_model::{Experiment, Tables};

use crate::fault::FaultTable;
use crate::halt::{Order, Scope};
use crate::host::Person;
use crate::injector::{InjectorError, Launch};
use crate::journal::{Journal, JournalError};
use crate::log::LogError;
use crate::pass_through::PassThroughs;
use crate::state::{State, StateError};

pub(crate) use inject::in_flight;
pub(crate) use prepare::host;
pub use prepare::{Life, RUNNING, life, seal_dead_runs};
pub use recorder::Recorder;

/// Everything that a run needs to know.
#[derive(Clone)]
pub struct Setup {
    /// What to run.
    pub experiment: Experiment,
    /// The topology that it names.
    pub topology: Option<Topology>,
    /// All kinds.
    pub tables: Tables,
    /// All faults.
    pub faults: FaultTable,
    /// Where runs are kept.
    pub state: State,
    /// The journal of those who inject, which is root's where they are root and the run is not.
    pub journal: Journal,
    /// How injectors are started.
    pub launch: Launch,
    /// What the run was started as: `run`, `inject`, `test`, `exec`, `demo`.
    pub command: &'static str,
    /// Relative paths are from here.
    pub directory: PathBuf,
    /// Who runs it.
    pub user: String,
    /// The user whom commands run as, where it is not this process's.
    pub invoking_user: Option<u32>,
    /// The run that this one repeats.
    pub again: Option<String>,
    /// Overrides the experiment's seed.
    pub seed: Option<u64>,
    /// Who can be asked to do something by hand.
    pub person: Option<Arc<dyn Person>>,
}

/// Ends a run before its time. The first one who pulls it is the one who is named.
#[derive(Debug, Clone)]
pub struct StopSwitch(Arc<watch::Sender<Option<Stop>>>);

impl Default for StopSwitch {
    fn default() -> Self {
        Self(Arc::new(watch::channel(None).0))
    }
}

impl StopSwitch {
    /// Stops the run: everything is undone at once.
    pub fn pull(&self, by: impl Into<String>, why: impl Into<String>) {
        let stop = Stop { by: by.into(), why: why.into() };
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(stop);
            }
            first
        });
    }

    /// Why the run was stopped, if it was.
    pub fn pulled(&self) -> Option<Stop> {
        self.0.borrow().clone()
    }

    /// Resolves when the run is stopped.
    pub async fn wait(&self) -> Stop {
        let mut receiver = self.0.subscribe();
        let found = receiver.wait_for(Option::is_some).await.ok().and_then(|s| s.clone());
        match found {
            Some(stop) => stop,
            // The sender lives in `self`, so this cannot happen while anybody waits.
            None => std::future::pending().await,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its id.
    pub run: String,
    /// Its directory, with the log.
    pub directory: PathBuf,
    /// The verdict.
    pub judgement: Judgement,
}

/// Why a run was refused or broke off. Nothing is in force when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is nowhere to keep it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A fault cannot be injected here; nothing was injected.
    #[error("`{fault}` cannot be injected: {error}")]
    Plan {
        /// The fault's name.
        fault: String,
        /// Its place in the method.
        index: usize,
        /// Why.
        error: InjectorError,
    },
    /// Somebody has halted what it would be.
    #[error("{0}; no such run begins until that is lifted")]
    Halted(Box<Order>),
    /// A probe cannot work; nothing was injected.
    #[error("the probe `{probe}` cannot work: {why}")]
    Probe {
        /// The probe's name.
        probe: String,
        /// Why.
        why: String,
    },
}

impl RunError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Plan { error: InjectorError::Refused { help, .. }, .. } => help.clone(),
            Self::Halted(order) => Some(match &order.scope {
                Scope::Service(name) => format!("`toprope halt --service {name} --lift` lifts it"),
                _ => "`toprope halt --lift` lifts it".to_owned(),
            }),
            _ => None,
        }
    }

    /// Whether something of an earlier run is still to be undone: the run found that, or, where the journal is not its
    /// own, its injector did.
    pub fn is_dirty(&self) -> bool {
        matches!(
            self,
            Self::Journal(JournalError::Dirty { .. })
                | Self::Plan { error: InjectorError::Refused { dirty: true, .. }, .. }
        )
    }
}

/// Says what every fault of an experiment would do here now. Changes nothing.
///
/// # Errors
/// The first fault that cannot be injected, and why.
pub async fn plan(setup: &Setup) -> Result<Vec<Plan>, RunError> {
    crate::pass_through::check(setup)?;
    let seed = prepare::seed(setup);
    let nothing_stands = PassThroughs::default();
    let mut plans = Vec::new();
    for index in 0..setup.experiment.faults().len() {
        let (plan, _) = inject::plan_fault(setup, &nothing_stands, seed, index).await?;
        plans.push(plan);
    }
    overlap::refuse(&setup.experiment, |index| plans.get(index))?;
    Ok(plans)
}

/// Runs an experiment to its verdict. Every event is sent to `observer` after it is in the log.
///
/// # Errors
/// Why it was refused before anything was injected. Whatever goes wrong later is told in the verdict.
pub async fn run(
    setup: Setup,
    stop: StopSwitch,
    observer: mpsc::UnboundedSender<Arc<Record>>,
) -> Result<Finished, RunError> {
    phases::run(Arc::new(setup), stop, observer).await
}
