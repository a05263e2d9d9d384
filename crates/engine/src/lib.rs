//! Runs an experiment. Names no fault and no system: the table of faults is handed to it.
//!
//! - [`fault`]: what a fault is (the extension point), [`host`]: what it may use of the machine;
//! - [`probe`]: what a probe is, and one file for each;
//! - [`mod@target`]: selectors resolved to processes;
//! - [`journal`]: undos, durable before anything is applied;
//! - [`injector`], [`guard`]: the processes that hold a fault, and the second ones who can undo it;
//! - [`halt`]: the files that stop runs; [`residue`]: what chaos left on a host;
//! - [`mod@pass_through`]: listeners that stand for a whole run;
//! - [`log`]: the append-only event log;
//! - [`run`]: dispatcher and executor;
//! - [`verdict`], [`report`]: folds over events.

pub mod fault;
pub mod guard;
pub mod halt;
pub mod host;
pub mod injector;
pub mod journal;
mod line;
pub mod log;
pub mod pass_through;
pub mod probe;
pub mod report;
pub mod residue;
pub mod run;
pub mod signature;
pub mod state;
pub mod target;
pub mod undo;
pub mod verdict;

/// What a process list shows for the processes that a run starts from this program's file, whatever that is called.
pub(crate) const PROGRAM: &str = "toprope";
