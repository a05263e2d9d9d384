//! What an injector may do: what its fault names, and no more, from before its first thread to its end.

use toprope_model::kind::Need;
use toprope_os::caps::{self, Capability};
use toprope_os::seccomp::{self, Calls};

use crate::fault::Fault;

/// Gives up for good what a fault does not name: capabilities, and the system calls behind them. What an injector starts,
/// its guard, has no more. Without a fault nothing is kept.
///
/// # Errors
/// It was not given up, and the process must not go on.
pub(super) fn drop_for(fault: Option<&dyn Fault>) -> toprope_os::Result<()> {
    let needs = fault.map_or(&[][..], |fault| fault.spec().needs);
    let kept: Vec<Capability> = needs.iter().flat_map(|need| capabilities(*need)).copied().collect();
    if needs.contains(&Need::SetUser) {
        // What runs a user's program leaves that program its own rights: as root, or by sudo, it has them all. A filter
        // could not be taken off it again.
        return caps::keep_only_until_exec(&kept);
    }
    caps::keep_only(&kept)?;
    let refused: Vec<Calls> =
        Calls::ALL.iter().copied().filter(|calls| !needs.iter().any(|n| opens(*n) == Some(*calls))).collect();
    seccomp::refuse(&refused)
}

/// The capabilities behind a need.
fn capabilities(need: Need) -> &'static [Capability] {
    match need {
        Need::NetAdmin => &[Capability::NetAdmin, Capability::NetRaw],
        Need::Bpf => &[Capability::Bpf, Capability::NetAdmin, Capability::SysAdmin],
        Need::Kill => &[Capability::Kill],
        Need::Ptrace => &[Capability::SysPtrace, Capability::DacReadSearch],
        Need::DacOverride => &[Capability::DacOverride],
        Need::SetUser => &[Capability::Setuid, Capability::Setgid],
    }
}

/// The system calls that a need leaves open.
fn opens(need: Need) -> Option<Calls> {
    match need {
        Need::Bpf => Some(Calls::Bpf),
        Need::Ptrace => Some(Calls::Trace),
        Need::NetAdmin | Need::Kill | Need::DacOverride | Need::SetUser => None,
    }
}
