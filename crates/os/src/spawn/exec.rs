//! What happens in the child between fork and exec. Other threads' locks may be held for ever there, so nothing in here
//! allocates, and nothing is called but system calls that signal-safety(7) allows or that are plain wrappers.
#![expect(unsafe_code, reason = "fork and the calls after it have no safe form")]

use std::{
    ffi::{CStr, CString, c_char},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
};

use rustix::process::Signal;

use crate::{
    namespace::{Kind, Namespace},
    user::Identity,
};

/// All that the child needs, allocated before the fork.
pub(super) struct Plan {
    program: CString,
    args: Strings,
    environment: Strings,
    directory: Option<CString>,
    descriptors: Vec<(OwnedFd, i32)>,
    first_free: i32,
    report: Option<OwnedFd>,
    session: bool,
    enter: Vec<Namespace>,
    identity: Option<Identity>,
    new_namespaces: libc::c_int,
    maps: Option<(String, String)>,
    death_signal: libc::c_int,
    parent: libc::pid_t,
    dry: bool,
}

/// A step that can fail; its number travels from the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Session,
    Descriptors,
    Enter,
    Identity,
    NewNamespaces,
    UserMap,
    Directory,
    DeathSignal,
    Exec,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Session,
        Self::Descriptors,
        Self::Enter,
        Self::Identity,
        Self::NewNamespaces,
        Self::UserMap,
        Self::Directory,
        Self::DeathSignal,
        Self::Exec,
    ];

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Session => "make a session",
            Self::Descriptors => "place its descriptors",
            Self::Enter => "enter the namespaces",
            Self::Identity => "become the user",
            Self::NewNamespaces => "make new namespaces",
            Self::UserMap => "map the user into its new namespace",
            Self::Directory => "enter the directory",
            Self::DeathSignal => "tie its life to ours",
            Self::Exec => "execute it",
        }
    }

    pub(super) fn needs(self) -> &'static str {
        match self {
            Self::Enter => "CAP_SYS_ADMIN there",
            Self::Identity => "CAP_SETUID and CAP_SETGID",
            Self::NewNamespaces | Self::UserMap => "CAP_SYS_ADMIN, or user namespaces to be allowed",
            Self::Session | Self::Descriptors | Self::Directory | Self::DeathSignal | Self::Exec => "access rights",
        }
    }
}

/// What the child reports when a step fails.
pub(super) struct Failure;

impl Failure {
    pub(super) const SIZE: usize = 5;

    fn encode(step: Step, errno: i32) -> [u8; Self::SIZE] {
        let [a, b, c, d] = errno.to_ne_bytes();
        [step as u8, a, b, c, d]
    }

    pub(super) fn decode([step, a, b, c, d]: [u8; Self::SIZE]) -> (Step, io::Error) {
        let step = Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Exec);
        (step, io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d])))
    }
}

/// Strings with the array of pointers that execve(2) wants.
struct Strings {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

// SAFETY: the pointers lead into the strings beside them, which own their memory and never change.
unsafe impl Send for Strings {}

impl Strings {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

impl Plan {
    pub(super) fn new(program: CString, args: Vec<CString>, environment: Vec<CString>) -> Self {
        Self {
            program,
            args: Strings::new(args),
            environment: Strings::new(environment),
            directory: None,
            descriptors: Vec::new(),
            first_free: 3,
            report: None,
            session: false,
            enter: Vec::new(),
            identity: None,
            new_namespaces: 0,
            maps: None,
            death_signal: 0,
            parent: 0,
            dry: false,
        }
    }

    pub(super) fn directory(self, directory: Option<CString>) -> Self {
        Self { directory, ..self }
    }

    /// Sources, each at or above `first_free`, with their targets, each below it.
    pub(super) fn descriptors(self, descriptors: Vec<(OwnedFd, i32)>, first_free: i32, report: OwnedFd) -> Self {
        Self { descriptors, first_free, report: Some(report), ..self }
    }

    pub(super) fn session(self, session: bool) -> Self {
        Self { session, ..self }
    }

    pub(super) fn enter(self, enter: Vec<Namespace>) -> Self {
        Self { enter, ..self }
    }

    pub(super) fn identity(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    pub(super) fn new_namespaces(self, new_namespaces: libc::c_int, maps: Option<(String, String)>) -> Self {
        Self { new_namespaces, maps, ..self }
    }

    pub(super) fn death_signal(self, signal: Option<Signal>) -> Self {
        Self { death_signal: signal.map_or(0, Signal::as_raw), parent: std::process::id().cast_signed(), ..self }
    }

    pub(super) fn dry(self, dry: bool) -> Self {
        Self { dry, ..self }
    }

    /// Forks, and in the child does everything and executes the program. Returns the child's number.
    pub(super) fn fork(self) -> io::Result<u32> {
        // No handler of ours may run in the child: it would write to descriptors that it shares with us.
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises the set before pthread_sigmask reads it and initialises the other one.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        // SAFETY: the child calls only what is safe after a fork of a process with threads (see above), and never
        // returns from here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let (step, errno) = self.execute();
            let report = Failure::encode(step, errno);
            if let Some(fd) = &self.report {
                // SAFETY: the buffer is as long as said; a report that cannot be written leaves the exit code.
                unsafe { libc::write(fd.as_raw_fd(), report.as_ptr().cast(), report.len()) };
            }
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(127) }
        }
        let result = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid.cast_unsigned()) };
        // SAFETY: `before` was initialised above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
        result
    }

    /// Returns only when a step failed.
    fn execute(&self) -> (Step, i32) {
        match self.try_execute() {
            Ok(never) => match never {},
            Err(step) => (step, errno()),
        }
    }

    fn try_execute(&self) -> Result<std::convert::Infallible, Step> {
        if self.session {
            // SAFETY: no pointers.
            ok(unsafe { libc::setsid() }, Step::Session)?;
        }
        for (source, target) in &self.descriptors {
            // SAFETY: both are numbers; the target's old descriptor belongs to nobody in this process any more.
            ok(unsafe { libc::dup2(source.as_raw_fd(), *target) }, Step::Descriptors)?;
        }
        close_at_exec_from(self.first_free)?;
        // Who enters a user namespace has rights there because they own it; elsewhere they may need root's to enter.
        let enters_user = self.enter.iter().any(|n| n.kind() == Kind::User);
        let identity = self.identity.as_ref();
        if enters_user {
            identity.map_or(Ok(()), become_user)?;
        }
        for namespace in &self.enter {
            // SAFETY: no pointers.
            ok(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), namespace.kind().clone_flag()) }, Step::Enter)?;
        }
        if !enters_user {
            identity.map_or(Ok(()), become_user)?;
        }
        if self.new_namespaces != 0 {
            // SAFETY: no pointers; this process has one thread.
            ok(unsafe { libc::unshare(self.new_namespaces) }, Step::NewNamespaces)?;
        }
        if let Some((uids, gids)) = &self.maps {
            // Groups can be mapped without rights only once setgroups is given up (user_namespaces(7)).
            write_file(c"/proc/self/setgroups", b"deny")?;
            write_file(c"/proc/self/uid_map", uids.as_bytes())?;
            write_file(c"/proc/self/gid_map", gids.as_bytes())?;
        }
        if let Some(directory) = &self.directory {
            // SAFETY: a string that ends with NUL.
            ok(unsafe { libc::chdir(directory.as_ptr()) }, Step::Directory)?;
        }
        if self.death_signal != 0 {
            // After the change of user, which clears it.
            // SAFETY: no pointers.
            ok(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, self.death_signal) }, Step::DeathSignal)?;
            // SAFETY: no pointers. A parent that died before the call sends no signal any more.
            if unsafe { libc::getppid() } != self.parent {
                // SAFETY: ends the child.
                unsafe { libc::_exit(127) }
            }
        }
        if self.dry {
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        default_signals();
        // SAFETY: both arrays end with a null pointer, and the strings with NUL.
        unsafe {
            libc::execve(self.program.as_ptr(), self.args.pointers.as_ptr(), self.environment.pointers.as_ptr());
        }
        Err(Step::Exec)
    }
}

fn ok(result: libc::c_int, step: Step) -> Result<(), Step> {
    if result < 0 { Err(step) } else { Ok(()) }
}

fn errno() -> i32 {
    // SAFETY: the location is this thread's own and always valid.
    unsafe { *libc::__errno_location() }
}

/// Marks every descriptor from `first` on to be closed at exec.
fn close_at_exec_from(first: i32) -> Result<(), Step> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: no pointers; the marks take effect only at exec.
    if unsafe { libc::close_range(first.cast_unsigned(), u32::MAX, flags) } == 0 {
        return Ok(());
    }
    // Before Linux 5.11.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes a struct of this type.
    ok(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, Step::Descriptors)?;
    for fd in first..i32::try_from(limit.rlim_cur).unwrap_or(i32::MAX).min(1 << 20) {
        // SAFETY: no pointers; a number that is not open gives EBADF, which is as good.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), Step> {
    // The bare calls, which change this thread alone: libc's own would look for other threads, and there are none.
    // SAFETY: the list is as long as said, and `u32` is the kernel's gid_t; the others have no pointers.
    unsafe {
        ok(syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr() as usize, 0), Step::Identity)?;
        let (uid, gid) = (identity.uid as usize, identity.gid as usize);
        ok(syscall(libc::SYS_setresgid, gid, gid, gid), Step::Identity)?;
        ok(syscall(libc::SYS_setresuid, uid, uid, uid), Step::Identity)?;
        // The change of user gave /proc/self to root; a new user namespace's maps are written there.
        ok(libc::prctl(libc::PR_SET_DUMPABLE, 1), Step::Identity)
    }
}

/// SAFETY: as the call that is named.
unsafe fn syscall(number: libc::c_long, a: usize, b: usize, c: usize) -> libc::c_int {
    // SAFETY: the caller's.
    if unsafe { libc::syscall(number, a, b, c) } < 0 { -1 } else { 0 }
}

fn write_file(path: &CStr, bytes: &[u8]) -> Result<(), Step> {
    // SAFETY: the path ends with NUL, the buffer is as long as said, and the descriptor is closed once.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        ok(fd, Step::UserMap)?;
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let failed = errno();
        libc::close(fd);
        if written == bytes.len().cast_signed() {
            return Ok(());
        }
        *libc::__errno_location() = failed;
        Err(Step::UserMap)
    }
}

/// Programs expect the signals' default actions; what our own parent had ignored (nohup) stays so. The Rust runtime
/// ignores SIGPIPE, which is nobody else's wish.
fn default_signals() {
    // SAFETY: the structs are initialised by zeroes (SIG_DFL, no flags) or by the kernel, and numbers that cannot be
    // handled are refused without effect.
    unsafe {
        let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
        for signal in 1..=64 {
            let mut now = MaybeUninit::<libc::sigaction>::zeroed();
            if libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) == 0 {
                let handler = now.assume_init().sa_sigaction;
                if handler != libc::SIG_DFL && (handler != libc::SIG_IGN || signal == libc::SIGPIPE) {
                    libc::sigaction(signal, &raw const default, ptr::null_mut());
                }
            }
        }
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}
