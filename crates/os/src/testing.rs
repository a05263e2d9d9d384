//! What several modules' tests share.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::process::ProcessId;

/// How long a test waits for what must happen: far longer than a stall of the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds, at most [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A child process that does nothing, killed at the end.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn start() -> Self {
        Self::run(Command::new("sleep").arg("600"))
    }

    /// A shell that waits for a sleeping child of its own.
    pub(crate) fn start_with_child() -> Self {
        let family = Self::run(Command::new("sh").args(["-c", "sleep 600 & trap 'kill $!; exit' TERM; wait"]));
        eventually("the shell has a child", || {
            let children = crate::process::descendants(family.id().pid()).expect("/proc is mounted");
            children
                .first()
                .is_some_and(|id| crate::process::ProcessInfo::of(id.pid()).is_ok_and(|p| p.name == "sleep"))
        });
        family
    }

    fn run(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a shell and sleep are installed"))
    }

    pub(crate) fn id(&self) -> ProcessId {
        ProcessId::of(self.0.id()).expect("an unreaped child is in /proc")
    }

    pub(crate) fn kill_without_reaping(&self) {
        let pidfd = crate::process::Pidfd::open(&self.id()).expect("it runs");
        pidfd.signal(rustix::process::Signal::KILL).expect("our own child");
        assert!(pidfd.wait_exited(PATIENCE).expect("poll works"));
    }

    pub(crate) fn reap(&mut self) {
        self.0.wait().expect("our own child");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        if let (Ok(None), Ok(children)) = (self.0.try_wait(), crate::process::descendants(self.0.id())) {
            for pidfd in children.iter().filter_map(|id| crate::process::Pidfd::open(id).ok()) {
                drop(pidfd.signal(rustix::process::Signal::KILL));
            }
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
