//! A pass-through: a listener that clients were told to connect to, and that leads to where they would connect without
//! Toprope.
//!
//! It stands for the whole run, from before the steady state until after the recovery, and forwards everything
//! unchanged; faults come and go in it. So the steady state and the recovery are seen on the same way as the fault. It
//! is no fault: it needs no journal and no guard, because it is a process whose socket to the run is its lease and whose
//! listener the kernel closes with it.
//!
//! A fault in it is held by an injector as every other: the run hands a socket of its own to each injector, and what the
//! injector asks for over that socket is in force for as long as the socket is open. So deadline, heartbeat and guard
//! of the injector hold for it as they are.

mod client;
mod lent;
mod message;
mod serve;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toprope_os::process::ProcessId;

use crate::fault::Draining;

pub(crate) use client::{PassThroughs, check};
pub(crate) use lent::Lent;
pub use serve::serve;

/// Where a pass-through listens, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The address that clients were told to connect to.
    pub at: SocketAddr,
    /// Where their connections go, as the manifest says it.
    pub to: String,
}

/// A pass-through that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Where.
    pub passage: Passage,
    /// The process that holds it.
    pub holder: ProcessId,
}

/// What a fault opens in the process of a pass-through. Faults of other kinds find it in
/// [`Host::pass_through`](crate::host::Host), as [`Any`]. Dropping it cuts what it carries.
pub trait PassThrough: Any + std::fmt::Debug + Send + Sync {
    /// Listens no more, and carries on what is in flight for at most `drain`. When this returns new connections are
    /// refused.
    fn close(self: Arc<Self>, drain: Duration) -> Draining;
}
