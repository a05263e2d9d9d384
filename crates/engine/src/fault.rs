//! The fault contract: the extension point of Toprope.
//!
//! A fault is one file under `crates/faults` and one line in its table. The engine knows faults only through this
//! trait, and the contract tests walk the table.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use toprope_model::kind::FaultSpec;
use toprope_model::step::{Effect, Plan, Step};
use toprope_model::{FromNode, Node, Problems};

use crate::host::Host;
use crate::pass_through::{PassThrough, Passage};

/// A kind of fault. Holds no state of its own: all that [`Fault::undo`] may use is in the step.
pub trait Fault: Send + Sync + 'static {
    /// Kind, parameters, docs, example, what it needs, how dangerous it is.
    fn spec(&self) -> &'static FaultSpec;

    /// What it would do on this host now. Changes nothing.
    ///
    /// # Errors
    /// Why it cannot be done here: nothing matches, the kernel lacks the mechanism, privileges are missing, something
    /// foreign is in the way. The message says what to do.
    fn plan<'a>(&'a self, params: &'a Params, host: &'a Host) -> BoxFuture<'a, Result<Plan, FaultError>>;

    /// Puts one step in force. Its undo is durable, or the kernel's, by now.
    ///
    /// # Errors
    /// Why it did not work. The engine then undoes this step and all before it.
    fn apply<'a>(
        &'a self,
        step: &'a Step,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Box<dyn Injection>, FaultError>>;

    /// Takes one step back, in a new process, from whatever state it is in: never applied, half applied, in force,
    /// undone already. Restores what was found, and leaves alone what somebody else has changed since.
    ///
    /// Called for every step, also those that the kernel owns: then it waits until the kernel has done it, and says
    /// so. Returns what was restored or stays, one line each.
    ///
    /// # Errors
    /// What could not be restored, and what to do by hand. The record stays in the journal.
    fn undo<'a>(&'a self, step: &'a Step, host: &'a Host) -> BoxFuture<'a, Result<Vec<String>, FaultError>>;

    /// The pass-through in which the parameters want the fault to come and go, if they do. Then its one step is applied
    /// in the process that holds the pass-through, with [`Host::pass_through`] set. The default wants none.
    ///
    /// # Errors
    /// That the parameters are not valid.
    fn passage(&self, params: &Params) -> Result<Option<Passage>, FaultError> {
        let _ = params;
        Ok(None)
    }

    /// Opens that pass-through: it listens when this returns, and forwards everything unchanged.
    ///
    /// # Errors
    /// Why it cannot listen there, or that the fault never wants one (the default).
    fn pass_through<'a>(
        &'a self,
        params: &'a Params,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Arc<dyn PassThrough>, FaultError>> {
        let _ = (params, host);
        Box::pin(async { Err(FaultError::new("this fault wants no pass-through")) })
    }
}

/// A step in force. Dropping it without [`Injection::release`] is what happens when the injector is killed: only what
/// the kernel owns is undone by that.
pub trait Injection: Send {
    /// Measures the effect so far. Called about twice a second while in force, and once just before the release.
    fn observe(&mut self) -> BoxFuture<'_, Result<Effect, FaultError>>;

    /// Takes new parameters while in force, for ramps.
    ///
    /// # Errors
    /// That this fault cannot change while in force (the default), or why it did not work.
    fn adjust<'a>(&'a mut self, params: &'a Params) -> BoxFuture<'a, Result<(), FaultError>> {
        let _ = params;
        Box::pin(async { Err(FaultError::new("this fault cannot change while it is in force")) })
    }

    /// Resolves when the injection ends by itself, with the reason: the target died, a hog was killed. The default
    /// never does.
    fn ended(&mut self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    /// Ends it. When this returns, the host is clean: new connections go straight, the target runs free. Connections
    /// in flight go on for at most `drain`, as the returned [`Draining`].
    ///
    /// # Errors
    /// What could not be undone; the engine then calls [`Fault::undo`] and reports.
    fn release(self: Box<Self>, drain: Duration) -> BoxFuture<'static, Result<Option<Draining>, FaultError>>;
}

/// Connections in flight that are carried on after the release; yields how many ended by themselves and how many were
/// cut at the end of the drain.
pub type Draining = BoxFuture<'static, (u64, u64)>;

/// Why a fault could not do something, in words for the user: what happened, to what, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FaultError {
    /// What happened, to what, and why.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether it is refused because something of an earlier run is still to be undone.
    pub dirty: bool,
}

impl FaultError {
    /// An error that says what happened.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, dirty: false }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// An error from another one: `what` could not be done, because.
    pub fn because(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self::new(format!("{what}: {error}"))
    }
}

/// A fault's parameters: a checked map, and what the run gives to every fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// The parameters as written (checked before; the common ones are not in it).
    pub node: Node,
    /// The seed of this injection's randomness: which targets are picked, which packets are dropped.
    pub seed: u64,
    /// How long it is to stay in force; zero for what happens at one instant.
    pub duration: Duration,
}

impl Params {
    /// Reads them as the struct that the fault declared with [`toprope_model::fields!`].
    ///
    /// # Errors
    /// What is wrong with them. They were checked when the manifest was read; an injector checks them again.
    pub fn read<P: FromNode>(&self) -> Result<P, FaultError> {
        let mut problems = Problems::default();
        let read = P::from_node(&self.node, &mut problems);
        read.ok_or_else(|| FaultError::because("the parameters are not valid", problems))
    }
}

/// The table of faults.
#[derive(Clone, Copy)]
pub struct FaultTable(pub &'static [&'static dyn Fault]);

impl FaultTable {
    /// The fault of a kind.
    pub fn get(&self, kind: &str) -> Option<&'static dyn Fault> {
        self.0.iter().copied().find(|f| f.spec().spec.kind == kind)
    }

    /// What all faults say about themselves.
    pub fn specs(&self) -> Vec<&'static FaultSpec> {
        self.0.iter().map(|f| f.spec()).collect()
    }
}
