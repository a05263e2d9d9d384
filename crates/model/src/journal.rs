//! What the journal holds: one record per injection, durable before anything is applied.

use serde::{Deserialize, Serialize};

use crate::step::{Step, Undone};

/// The version of the record's format that this crate writes.
pub const VERSION: u32 = 1;

/// The first line of a record: everything that a new process needs to undo the injection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// [`VERSION`] when it was written.
    pub version: u32,
    /// The run.
    pub run: String,
    /// The injection's number within the run.
    pub injection: u32,
    /// The fault's kind.
    pub fault: String,
    /// Who asked for it, as a user name or number.
    pub user: String,
    /// What will be applied, in order.
    pub steps: Vec<Step>,
    /// The injector that holds it, in the text form of a process identity (pid, start time, boot id).
    pub injector: String,
    /// When it must have ended: CLOCK_BOOTTIME in milliseconds. Holds only under the same boot id.
    pub deadline_ms: u64,
    /// Wall-clock label: seconds since 1970.
    pub written: u64,
}

/// The lines that follow: how far it went. A record without [`Mark::Undone`] is dirty when its injector is dead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// A step is about to be applied.
    Applying(usize),
    /// All steps are in force.
    Applied,
    /// The undo has begun; by whom.
    Undoing(String),
    /// It is over.
    Undone(Undone),
    /// An attempt to undo failed, and why. The record stays dirty.
    UndoFailed(String),
}
