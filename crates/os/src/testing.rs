//! What several modules' tests share.

use std::{
    any::Any,
    io::{Read, Write, pipe},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::process::ProcessId;

/// How long a test waits for what must happen: far longer than a stall of the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Says why a test proves nothing here.
pub(crate) fn skip(test: &str, why: impl std::fmt::Display) {
    eprintln!("SKIPPED {test}: {why}");
}

/// Whether tests that need root can run; says so when not.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "it needs root");
    }
    root
}

/// Gives up root where we have it; tells whether we had.
pub(crate) fn become_nobody() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let nobody = crate::user::Identity { uid: 65534, gid: 65534, groups: Vec::new() };
    crate::privilege::become_user(&nobody).expect("root may");
    // The change gave /proc/self to root, where a user namespace's maps are written.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).expect("anybody may");
    true
}

/// Runs something in a forked child, which is killed at the end if it has not ended.
#[track_caller]
#[expect(unsafe_code, reason = "fork has no safe form")]
pub(crate) fn fork(run: impl FnOnce()) -> Ending {
    // SAFETY: glibc makes memory usable in the child, which takes no lock that another thread may hold: it prints
    // nothing and ends by _exit. SIGALRM ends it if that should prove wrong.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        std::panic::set_hook(Box::new(|_| {}));
        // SAFETY: no pointers.
        unsafe { libc::alarm(60) };
        drop(catch_unwind(AssertUnwindSafe(run)));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) }
    }
    Ending(crate::spawn::Child::adopt(pid.cast_unsigned()).expect("an unreaped child is in /proc"))
}

/// Runs the part of a test that changes the whole process in a forked child with one thread, and panics as it does.
#[track_caller]
pub(crate) fn in_fork(run: impl FnOnce()) {
    let (mut outcome, mut report) = pipe().expect("a pipe");
    let child = fork(move || {
        let failed = catch_unwind(AssertUnwindSafe(run)).err().map(|panic| message(&*panic));
        drop(report.write_all(failed.as_deref().unwrap_or("fine").as_bytes()));
    });
    let mut text = String::new();
    outcome.read_to_string(&mut text).expect("a pipe");
    drop(child);
    assert_eq!(text, "fine", "the forked part of the test failed");
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

/// Waits until something holds, at most [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A child that ends with the test, also with one that fails.
pub(crate) struct Ending(pub(crate) crate::spawn::Child);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.signal(rustix::process::Signal::KILL));
        drop(self.0.wait_timeout(PATIENCE));
    }
}

/// A child process that does nothing, killed at the end.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn start() -> Self {
        Self::run(Command::new("sleep").arg("60"))
    }

    /// A shell that waits for a sleeping child of its own.
    pub(crate) fn start_with_child() -> Self {
        let family = Self::run(Command::new("sh").args(["-c", "sleep 60 & trap 'kill $!; exit' TERM; wait"]));
        eventually("the shell has a child", || {
            let children = crate::process::descendants(family.id().pid()).expect("/proc is mounted");
            children
                .first()
                .is_some_and(|id| crate::process::ProcessInfo::of(id.pid()).is_ok_and(|p| p.name == "sleep"))
        });
        family
    }

    fn run(command: &mut Command) -> Self {
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a shell and sleep are installed");
        let started = Self(child);
        // While the kernel still executes the program, there is no command line yet.
        let command_line = format!("/proc/{}/cmdline", started.0.id());
        eventually("the command line", || std::fs::read(&command_line).is_ok_and(|text| !text.is_empty()));
        started
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
