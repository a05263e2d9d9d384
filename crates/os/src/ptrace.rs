//! Holding a whole process still (ptrace(2), PTRACE_SEIZE), in a way that ends with us.
//!
//! SIGSTOP would outlive its sender, is seen by the process's parent, and is undone by anybody's SIGCONT. What a tracer
//! holds, the kernel lets go when the tracer ends, `kill -9` included (measured: 3 ms), and whatever the process was
//! before, stopped for instance, it is again.

mod sys;
mod tracer;

use std::{os::fd::OwnedFd, sync::mpsc, thread::JoinHandle, time::Duration};

use rustix::io::Errno;
use tokio::sync::watch;

use self::tracer::Tracer;
use crate::{
    Error, Result,
    error::Context,
    process::{ProcessId, tracer},
};

/// A process that is held: none of its threads runs. Signals that arrive meanwhile are delivered afterwards, but
/// SIGKILL, which ends it at once. Dropping this lets it run.
#[derive(Debug)]
#[must_use = "the process runs again when this is dropped"]
pub struct Stopped {
    id: ProcessId,
    threads: usize,
    /// Closed to have the tracer let go.
    hold: Option<OwnedFd>,
    tracer: Option<JoinHandle<()>>,
    exited: watch::Receiver<bool>,
}

impl Stopped {
    /// Stops every thread of a process, and returns when all stand still. Blocks for some milliseconds, and at most
    /// 5 s, while a thread sleeps uninterruptibly in the kernel.
    ///
    /// # Errors
    /// Without CAP_SYS_PTRACE or a process of our own user; when something traces the process already; when a thread
    /// cannot be stopped in time. The process runs on then.
    pub fn seize(id: &ProcessId) -> Result<Self> {
        let action = || format!("start a thread that holds process {id}");
        let (let_go, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).cannot(action)?;
        let (tell, exited) = watch::channel(false);
        let (result, attached) = mpsc::channel();
        let target = *id;
        // A tracer is a thread, not a process: this one ends, and lets go, only when told to or with all of us.
        let tracer = std::thread::Builder::new().name("tracer".into()).spawn(move || {
            let mut tracer = match Tracer::attach(&target) {
                Ok(tracer) => tracer,
                Err(e) => return drop(result.send(Err(e))),
            };
            if result.send(Ok(tracer.threads())).is_ok() && tracer.hold(&let_go) {
                tell.send_replace(true);
            }
            tracer.detach();
        });
        let tracer = tracer.cannot(action)?;
        let threads = attached.recv().expect("the tracer tells before it ends")?;
        Ok(Self { id: *id, threads, hold: Some(hold), tracer: Some(tracer), exited })
    }

    /// Which process is held.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// How many threads were stopped.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether the process has ended while it was held; known within 50 ms.
    pub fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Returns when the process has ended while it is held.
    pub async fn exited(&self) {
        // The tracer goes without a word only when told to let go, which takes this value.
        if self.exited.clone().wait_for(|exited| *exited).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Lets the process run, and returns when it does. Tells whether it has ended meanwhile.
    pub fn release(mut self) -> bool {
        self.let_go();
        self.has_exited()
    }

    fn let_go(&mut self) {
        self.hold = None;
        if let Some(tracer) = self.tracer.take() {
            drop(tracer.join());
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Asks whether [`Stopped::seize`] would be let, without touching the process.
///
/// # Errors
/// As there, as far as it can be told before.
pub fn may_seize(id: &ProcessId) -> Result<()> {
    let action = || format!("trace process {id}");
    // Number 0 is no process's, so this finds nobody unless it is forbidden altogether, as in some containers.
    match sys::seize(0) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(e) => return Err(e).cannot_without("a container that allows ptrace", action),
    }
    if let Some(tracer) = tracer(id)? {
        return Err(tracer::traced_already(id, tracer));
    }
    // The kernel opens this file to whoever may trace (proc_pid_mem(5), PTRACE_MODE_ATTACH).
    match std::fs::File::open(format!("/proc/{}/mem", id.pid())) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::ProcessGone(*id)),
        other => other.cannot_without("CAP_SYS_PTRACE", action)?,
    };
    id.stat().map(drop)
}

/// How long a thread may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
