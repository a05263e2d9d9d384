//! The process that holds a fault: one per fault and host, started by the run, which talks to it over a socket.
//!
//! The socket's end is the lease: when the run dies, the injector undoes and exits. The deadline lives in the
//! injector, because a stopped run keeps its socket open. When the injector dies, the kernel undoes what it owns and
//! the [`crate::guard`] undoes the rest from the journal.

mod claims;
mod client;
mod gate;
mod hold;
mod launch;
mod message;
mod privileges;
mod serve;
mod service;

pub use client::{Injector, InjectorError};
pub use gate::{Gate, POLICY};
pub use launch::{Launch, serve_launcher};
pub(crate) use launch::{Role, Started, label};
pub(crate) use message::Failure;
pub use message::{ApplyRequest, Change, FromInjector, Limits, PlanRequest, ToInjector};
pub use serve::serve;
pub use service::{Service, serve_callers};
