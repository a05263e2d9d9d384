//! A child that was started: held by pidfd, and reaped once.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, waitpid},
};

use crate::{
    Error, Result,
    error::Context,
    process::{Pidfd, ProcessId},
};

/// A child process of ours. Dropping it does not end it; it is reaped then if it has ended, and by init after us
/// otherwise.
#[derive(Debug)]
pub struct Child {
    pidfd: Pidfd,
    status: Option<ExitStatus>,
}

impl Child {
    /// Takes charge of a child that was just forked and that nobody else waits for.
    pub(crate) fn adopt(pid: u32) -> Result<Self> {
        Ok(Self { pidfd: Pidfd::open(&ProcessId::of(pid)?)?, status: None })
    }

    /// Which process this is.
    pub fn id(&self) -> ProcessId {
        self.pidfd.id()
    }

    /// The process, held: for others to wait for its end.
    pub fn pidfd(&self) -> &Pidfd {
        &self.pidfd
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`Error::ProcessGone`] once it was reaped.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.pidfd.signal(signal)
    }

    /// Waits until the child ends, and says how. Safe to cancel.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        if self.status.is_none() {
            self.pidfd.exited().await?;
        }
        self.reap()
    }

    /// Blocks until the child ends, at most for `timeout`, and says how; `None` when it still runs.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        if self.status.is_none() && !self.pidfd.wait_exited(timeout)? {
            return Ok(None);
        }
        self.reap().map(Some)
    }

    /// Kills the child and waits for its end, which the kernel can delay until it has freed the child's memory.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        if self.status.is_none() {
            self.signal(Signal::KILL)?;
        }
        self.wait().await
    }

    /// Of a child that ends by itself at once.
    pub(super) fn wait_ended(mut self) -> Result<Option<ExitStatus>> {
        self.wait_timeout(Duration::from_secs(10))
    }

    /// Asks how the child ended, once it has.
    fn reap(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let id = self.id();
        let pid = id.pid().try_into().ok().and_then(Pid::from_raw).ok_or(Error::ProcessGone(id))?;
        loop {
            match waitpid(Some(pid), WaitOptions::empty()) {
                Err(Errno::INTR) => continue,
                // Somebody else reaped it: SIGCHLD is ignored, or a wait for any child.
                Err(Errno::CHILD) | Ok(None) => return Err(Error::ProcessGone(id)),
                Ok(Some((_, status))) => {
                    let status = ExitStatus::from_raw(status.as_raw());
                    self.status = Some(status);
                    return Ok(status);
                }
                Err(e) => return Err(e).cannot(|| format!("wait for process {id}")),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() && self.pidfd.has_exited().unwrap_or(false) {
            drop(self.reap());
        }
    }
}
