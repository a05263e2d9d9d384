//! Processes, and whether they run. None of Toprope's may be left, and none of others' may stand still.

use toprope_os::process::{State, thread_states};

use super::super::members::members;
use super::{Class, Facts, Place};

/// The class.
pub(super) struct Processes;

impl Class for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn look(&self, place: &Place) -> Result<Facts, String> {
        let counted = members().into_iter().filter(|p| !place.own.contains(&p.id.pid()) && !p.kernel_thread);
        let fact = |process: toprope_os::process::ProcessInfo| {
            let states = thread_states(&process.id).unwrap_or_default();
            let state = match process.state {
                State::Zombie => "has ended and was not reaped",
                _ if states.contains(&State::Stopped) => "is stopped",
                _ if states.contains(&State::Traced) => "is held by a tracer",
                _ => "runs",
            };
            (format!("process {} ({})", process.id.pid(), process.cmdline.join(" ")), state.to_owned())
        };
        Ok(counted.map(fact).collect())
    }
}
