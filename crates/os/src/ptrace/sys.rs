//! The bare calls. libc's are used because they take any number for a signal, real-time ones too.
#![expect(unsafe_code, reason = "ptrace and waitid have no safe form for all signals")]

use std::{mem::MaybeUninit, ptr};

use rustix::io::Errno;

/// Becomes the tracer of a thread, without stopping it.
pub(super) fn seize(tid: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SEIZE, tid, 0)
}

/// Stops a traced thread soon.
pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT, tid, 0)
}

/// Lets a stopped thread run untraced, with a signal delivered to it unless 0; one that was killed needs no letting go.
pub(super) fn detach(tid: i32, signal: i32) {
    let _killed = request(libc::PTRACE_DETACH, tid, signal);
}

fn request(request: libc::c_uint, tid: i32, data: i32) -> Result<(), Errno> {
    let data = ptr::without_provenance_mut::<libc::c_void>(data.cast_unsigned() as usize);
    // SAFETY: these requests take a number as data and follow no pointer.
    let result = unsafe { libc::ptrace(request, tid, ptr::null_mut::<libc::c_void>(), data) };
    if result == -1 { Err(errno()) } else { Ok(()) }
}

/// What has become of a traced thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It stands still, on its way to be delivered this signal, or 0.
    Stopped(i32),
    /// It has ended.
    Ended,
}

/// Whether a thread has stopped; takes the news.
pub(super) fn stopped(tid: i32) -> Result<Option<Change>, Errno> {
    Ok(wait(libc::P_PID, tid.cast_unsigned(), libc::WSTOPPED)?.map(|(_, change)| change))
}

/// Takes the news that a thread has ended, which is what lets the kernel forget it. Without news there is nothing to.
pub(super) fn reap(tid: i32) {
    let _news = wait(libc::P_PID, tid.cast_unsigned(), libc::WEXITED);
}

/// A thread traced by this thread that has ended, without taking the news.
pub(super) fn any_ended() -> Result<Option<i32>, Errno> {
    Ok(wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT | libc::__WNOTHREAD)?.map(|(tid, _)| tid))
}

fn wait(which: libc::idtype_t, id: u32, options: i32) -> Result<Option<(i32, Change)>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the kernel writes a siginfo_t, or leaves the zeroes when there is no news.
    let result = unsafe { libc::waitid(which, id, info.as_mut_ptr(), options | libc::WNOHANG | libc::__WALL) };
    if result == -1 {
        return Err(errno());
    }
    // SAFETY: initialised by zeroes or by the kernel, as a siginfo_t of SIGCHLD.
    let (tid, code, status) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_code, info.si_status())
    };
    if tid == 0 {
        return Ok(None);
    }
    let change = match code {
        libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED => Change::Ended,
        // The signal, or a stop that is an event: then its number is above the signal's, which is not to be delivered.
        _ if status >> 8 == 0 => Change::Stopped(status),
        _ => Change::Stopped(0),
    };
    Ok(Some((tid, change)))
}

fn errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
