//! The thread that holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    time::Timespec,
};

use super::{
    STOP_WITHIN,
    sys::{self, Change},
};
use crate::{
    Error, Result, Unsupported,
    error::Context,
    process::{ProcessId, State, process_of},
};

pub(super) struct Tracer {
    id: ProcessId,
    leader: i32,
    /// The threads that stand still, each with the signal it was about to be delivered.
    held: BTreeMap<i32, i32>,
    /// Threads that have ended, but may be listed for a while; the main thread of a process is until the end.
    ended: BTreeSet<i32>,
}

impl Tracer {
    /// Stops every thread. On failure those that were stopped are let go when this thread ends, at once.
    pub(super) fn attach(id: &ProcessId) -> Result<Self> {
        let leader = i32::try_from(id.pid()).map_err(|_| Error::ProcessGone(*id))?;
        let mut tracer = Self { id: *id, leader, held: BTreeMap::new(), ended: BTreeSet::new() };
        let deadline = Instant::now() + STOP_WITHIN;
        // A thread that was not stopped yet may start another one, so look until nothing new is found; twice, because
        // the kernel's list is not a snapshot.
        let mut quiet = 0;
        while quiet < 2 {
            let new = tracer.new_threads()?;
            quiet = if new.is_empty() { quiet + 1 } else { 0 };
            let mut stopping = Vec::new();
            for tid in new {
                if tracer.seize(tid)? {
                    stopping.push(tid);
                } else {
                    tracer.ended.insert(tid);
                }
            }
            // Of the process that was named? Once seized, its number cannot be given away any more.
            id.stat()?;
            for tid in stopping {
                tracer.wait_stopped(tid, deadline)?;
            }
        }
        if tracer.held.is_empty() { Err(Error::ProcessGone(*id)) } else { Ok(tracer) }
    }

    pub(super) fn threads(&self) -> usize {
        self.held.len()
    }

    /// Holds until the other end of the pipe is closed, or the process has ended: then true.
    pub(super) fn hold(&mut self, let_go: impl AsFd) -> bool {
        let often = Timespec { tv_sec: 0, tv_nsec: Duration::from_millis(20).subsec_nanos().into() };
        loop {
            if self.has_ended() {
                return true;
            }
            match poll(&mut [PollFd::new(&let_go, PollFlags::IN)], Some(&often)) {
                Ok(0) | Err(Errno::INTR) => {}
                // Told to, or unable to wait for being told.
                Ok(_) | Err(_) => return self.has_ended(),
            }
        }
    }

    pub(super) fn detach(&mut self) {
        for (tid, signal) in std::mem::take(&mut self.held) {
            sys::detach(tid, signal);
        }
    }

    fn new_threads(&self) -> Result<Vec<i32>> {
        let path = format!("/proc/{}/task", self.id.pid());
        let entries = match std::fs::read_dir(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::ProcessGone(self.id)),
            other => other.cannot(|| format!("list {path}"))?,
        };
        let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(tids.filter(|tid| !self.held.contains_key(tid) && !self.ended.contains(tid)).collect())
    }

    /// False when the thread has ended.
    fn seize(&self, tid: i32) -> Result<bool> {
        match sys::seize(tid).and_then(|()| sys::interrupt(tid)) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(e) if e == Errno::PERM => match self.thread_status(tid) {
                None => Ok(false),
                Some(status) if has_ended(&status) => Ok(false),
                Some(status) => Err(self.refused(&status, e)),
            },
            Err(e) => Err(self.refused("", e)),
        }
    }

    fn wait_stopped(&mut self, tid: i32, deadline: Instant) -> Result<()> {
        loop {
            match sys::stopped(tid) {
                Ok(Some(Change::Stopped(signal))) => {
                    self.held.insert(tid, signal);
                    return Ok(());
                }
                // No child of that number: it has ended.
                Ok(Some(Change::Ended)) | Err(Errno::CHILD) => {
                    self.ended.insert(tid);
                    return Ok(());
                }
                Ok(None) if self.thread_status(tid).is_none_or(|status| has_ended(&status)) => {
                    if tid != self.leader {
                        sys::reap(tid);
                    }
                    self.ended.insert(tid);
                    return Ok(());
                }
                Ok(None) | Err(Errno::INTR) => {}
                Err(e) => return Err(e).cannot(|| format!("wait for thread {tid} of process {} to stop", self.id)),
            }
            if Instant::now() > deadline {
                return Err(self.cannot_stop(tid));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Takes the news of threads that ended, without which the process could not end; but never of the main thread's,
    /// which are its parent's.
    fn has_ended(&mut self) -> bool {
        while let Ok(Some(tid)) = sys::any_ended() {
            if tid == self.leader {
                self.held.clear();
                return true;
            }
            sys::reap(tid);
            self.held.remove(&tid);
        }
        false
    }

    fn thread_status(&self, tid: i32) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/task/{tid}/status", self.id.pid())).ok()
    }

    fn refused(&self, status: &str, e: Errno) -> Error {
        let tracer = field(status, "TracerPid:").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0);
        match tracer {
            Some(tracer) => traced_already(&self.id, process_of(tracer)),
            None => Err::<(), _>(e)
                .cannot_without("CAP_SYS_PTRACE", || format!("trace process {}", self.id))
                .expect_err("an error went in"),
        }
    }

    fn cannot_stop(&self, tid: i32) -> Error {
        let state = crate::process::Stat::of(tid.cast_unsigned()).map_or(State::Other, |stat| stat.state);
        Unsupported {
            what: "holding a process still",
            why: format!(
                "thread {tid} of process {} did not stop within {STOP_WITHIN:?} (it is {state:?})",
                self.id.pid()
            ),
            instead: "wait until its disk or network file system answers, or choose another target".to_owned(),
        }
        .into()
    }
}

pub(super) fn traced_already(id: &ProcessId, tracer: u32) -> Error {
    Unsupported {
        what: "holding a process still",
        why: format!("process {} is traced by process {tracer} already", id.pid()),
        instead: "end that one, a debugger or strace, or choose another target".to_owned(),
    }
    .into()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn has_ended(status: &str) -> bool {
    field(status, "State:").is_none_or(|state| state.starts_with(['Z', 'X']))
}
