//! A process held by file descriptor: whoever gets its number later is never signalled or waited for by mistake.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process},
};

use super::ProcessId;
use crate::{Error, Result, error::Context, readiness::readable};

/// A process, held. The process may end; the number cannot be given to another one in our eyes.
#[derive(Debug)]
pub struct Pidfd {
    id: ProcessId,
    fd: OwnedFd,
}

impl Pidfd {
    /// Holds the named process. A zombie can still be held: it has exited.
    ///
    /// # Errors
    /// [`Error::ProcessGone`] when it is gone, also when its number names another process by now.
    pub fn open(id: &ProcessId) -> Result<Self> {
        let gone = || Error::ProcessGone(*id);
        let pid = i32::try_from(id.pid()).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Err(gone()),
            other => other.cannot(|| format!("open a pidfd of process {id}"))?,
        };
        // Only now: the descriptor holds whoever had the number, and while it matches the name it is the one named.
        id.stat()?;
        Ok(Self { id: *id, fd })
    }

    /// Which process this is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`Error::ProcessGone`] when the process has ended and was reaped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Err(Errno::SRCH) => Err(Error::ProcessGone(self.id)),
            other => other
                .cannot_without("CAP_KILL or the process's user", || format!("send {signal:?} to process {}", self.id)),
        }
    }

    /// Asks whether a signal would be let through, without sending one.
    ///
    /// # Errors
    /// [`Error::ProcessGone`] when the process has ended and was reaped, and the refusal of permission.
    pub fn may_signal(&self) -> Result<()> {
        let gone = || Error::ProcessGone(self.id);
        let pid = i32::try_from(self.id.pid()).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        // By number: rustix has no signal 0 for pidfds. An answer about a later process of this number changes nothing.
        match test_kill_process(pid) {
            Err(Errno::SRCH) => Err(gone()),
            other => other
                .cannot_without("CAP_KILL or the process's user", || format!("send signals to process {}", self.id)),
        }
    }

    /// Returns when the process has exited, reaped or not.
    ///
    /// # Errors
    /// Outside a tokio runtime with I/O enabled, or when no descriptor is left.
    pub async fn exited(&self) -> Result<()> {
        let failed = || format!("wait for the end of process {}", self.id);
        readable(self.fd.try_clone().cannot(failed)?).await.cannot(failed)
    }

    /// Blocks until the process has exited, reaped or not, at most for `timeout`; tells whether it has.
    pub fn wait_exited(&self, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left =
                left.try_into().map_err(|_| Error::invalid("a timeout", "is longer than the kernel can count"))?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => continue,
                other => return Ok(other.cannot(|| format!("wait for the end of process {}", self.id))? > 0),
            }
        }
    }

    /// Whether the process has exited, reaped or not.
    pub fn has_exited(&self) -> Result<bool> {
        self.wait_exited(Duration::ZERO)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PATIENCE, Sleeper};

    #[test]
    fn a_killed_process_is_seen_to_exit() {
        let mut child = Sleeper::start();
        let pidfd = Pidfd::open(&child.id()).expect("it runs");
        assert!(!pidfd.wait_exited(Duration::from_millis(10)).expect("poll works"));
        pidfd.may_signal().expect("our own child");
        assert!(!pidfd.has_exited().expect("poll works"), "asking sends nothing");
        pidfd.signal(Signal::KILL).expect("our own child");
        assert!(pidfd.wait_exited(PATIENCE).expect("poll works"));
        child.reap();
        assert!(matches!(pidfd.signal(Signal::TERM), Err(Error::ProcessGone(_))));
        assert!(matches!(pidfd.may_signal(), Err(Error::ProcessGone(_))));
    }

    #[test]
    fn a_reused_number_is_refused() {
        let child = Sleeper::start();
        let other = ProcessId { start_time: child.id().start_time() - 1, ..child.id() };
        assert!(matches!(Pidfd::open(&other), Err(Error::ProcessGone(id)) if id == other));
    }

    #[tokio::test]
    async fn several_tasks_can_wait_for_one_process() {
        let mut child = Sleeper::start();
        let pidfd = Pidfd::open(&child.id()).expect("it runs");
        let early = tokio::time::timeout(Duration::from_millis(20), pidfd.exited()).await;
        assert!(early.is_err(), "it still runs");
        let waits = async { tokio::join!(pidfd.exited(), pidfd.exited()) };
        let kill = async { pidfd.signal(Signal::KILL) };
        let ((a, b), killed) = tokio::time::timeout(PATIENCE, async { tokio::join!(waits, kill) }).await.expect("ends");
        assert!(a.is_ok() && b.is_ok() && killed.is_ok());
        child.reap();
        pidfd.exited().await.expect("returns at once after the end");
    }
}
