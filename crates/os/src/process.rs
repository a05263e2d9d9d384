//! Processes: named so that a reused number is never mistaken, held by pidfd, described from `/proc`.

mod info;
mod pidfd;
mod stat;
mod threads;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use info::pids;
pub use info::{CgroupMembership, ProcessInfo, descendants, descendants_of, open_files, processes};
pub use pidfd::Pidfd;
pub use rustix::process::Signal;
pub(crate) use stat::Stat;
pub use stat::State;
pub(crate) use threads::process_of;
pub use threads::{thread_states, tracer};

use crate::{
    Error, Result,
    time::{BootId, boot_id},
};

/// A process, named for as long as the boot lasts: a number alone is given to another process once its first owner is
/// gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    pid: u32,
    start_time: u64,
    boot_id: BootId,
}

impl ProcessId {
    /// Names the process that has this number now.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`] where there is none.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self::from_stat(&Stat::of(pid)?, boot_id()?))
    }

    /// Names this very process.
    pub fn current() -> Result<Self> {
        Self::of(std::process::id())
    }

    fn from_stat(stat: &Stat, boot_id: BootId) -> Self {
        Self { pid: stat.pid, start_time: stat.start_time, boot_id }
    }

    /// The process's number in this pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When the process started, in clock ticks after boot (field 22 of proc_pid_stat(5)).
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// The boot in which the process ran.
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// Whether the process still runs: not when it has ended (a zombie has), nor when its number was given away, nor
    /// after a reboot.
    pub fn is_alive(&self) -> bool {
        self.stat().is_ok_and(|stat| !stat.has_ended())
    }

    /// The process's line of `/proc`, where that is still the one of the process that is named.
    pub(crate) fn stat(&self) -> Result<Stat> {
        match Stat::of(self.pid) {
            Ok(stat) if Self::from_stat(&stat, boot_id()?) == *self => Ok(stat),
            Ok(_) | Err(Error::NoSuchProcess(_)) => Err(Error::ProcessGone(*self)),
            Err(e) => Err(e),
        }
    }
}

/// `1234@567890`: the number and the start time.
impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sleeper;

    #[test]
    fn a_process_is_alive_until_it_ends_also_as_a_zombie() {
        let mut child = Sleeper::start();
        let id = child.id();
        assert!(id.is_alive());
        child.kill_without_reaping();
        assert!(!id.is_alive(), "a zombie does not run");
        child.reap();
        assert!(!id.is_alive());
        assert!(matches!(ProcessId::of(id.pid()), Err(Error::NoSuchProcess(_))));
    }

    #[test]
    fn a_reused_number_or_another_boot_is_another_process() {
        let me = ProcessId::current().expect("/proc is mounted");
        assert!(me.is_alive());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me }.is_alive());
        let other_boot = "00000000-0000-0000-0000-000000000001".parse().expect("a UUID");
        assert!(!ProcessId { boot_id: other_boot, ..me }.is_alive());
    }

    #[test]
    fn no_process_has_number_zero_or_a_huge_one() {
        assert!(matches!(ProcessId::of(0), Err(Error::NoSuchProcess(0))));
        assert!(matches!(ProcessId::of(u32::MAX), Err(Error::NoSuchProcess(_))));
    }
}
