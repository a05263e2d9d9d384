//! The threads of a process, and who traces it.

use super::{ProcessId, Stat, State, stat::read};
use crate::{Error, Result, error::Context};

/// What each thread of a process does, in the order of their numbers.
///
/// # Errors
/// [`Error::ProcessGone`] when the process has ended and was reaped, or its number names another one.
pub fn thread_states(id: &ProcessId) -> Result<Vec<State>> {
    id.stat()?;
    let directory = format!("/proc/{}/task", id.pid());
    let entries = match std::fs::read_dir(&directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::ProcessGone(*id)),
        other => other.cannot(|| format!("list {directory}"))?,
    };
    let mut threads: Vec<u32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    threads.sort_unstable();
    let mut states = Vec::new();
    for thread in threads {
        match Stat::at(thread, &format!("{directory}/{thread}/stat")) {
            Ok(stat) => states.push(stat.state),
            Err(Error::NoSuchProcess(_)) => {} // this thread has ended meanwhile
            Err(e) => return Err(e),
        }
    }
    // What was read is of this process only if it still has its number.
    id.stat()?;
    Ok(states)
}

/// The number of the process that traces another one, as a debugger does. A tracer that we cannot
/// see, in another pid namespace, is none to us.
///
/// # Errors
/// [`Error::ProcessGone`] when the process has ended and was reaped, or its number names another one.
pub fn tracer(id: &ProcessId) -> Result<Option<u32>> {
    let path = format!("/proc/{}/status", id.pid());
    let status = match read(id.pid(), &path) {
        Err(Error::NoSuchProcess(_)) => return Err(Error::ProcessGone(*id)),
        other => other?,
    };
    id.stat()?;
    let thread =
        number(&status, "TracerPid:").ok_or_else(|| Error::malformed(path, "no number in the line TracerPid"))?;
    Ok((thread != 0).then(|| process_of(thread)))
}

/// The process that a thread is of: what the kernel calls a tracer is a thread.
pub(crate) fn process_of(thread: u32) -> u32 {
    // A thread has a directory of its own that is not listed. Where it is gone meanwhile, its own number must do.
    let status = std::fs::read(format!("/proc/{thread}/status")).unwrap_or_default();
    number(&status, "Tgid:").unwrap_or(thread)
}

fn number(status: &[u8], line: &str) -> Option<u32> {
    String::from_utf8_lossy(status).lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Pidfd, Signal};
    use crate::testing::{Sleeper, eventually};

    #[test]
    fn every_thread_is_seen_to_stop_and_to_go_on() {
        let child = Sleeper::start();
        assert_eq!(tracer(&child.id()).expect("it runs"), None);
        let pidfd = Pidfd::open(&child.id()).expect("it runs");
        pidfd.signal(Signal::STOP).expect("our own child");
        eventually("it stops", || thread_states(&child.id()).expect("it lives") == [State::Stopped]);
        pidfd.signal(Signal::CONT).expect("our own child");
        eventually("it goes on", || thread_states(&child.id()).expect("it lives") == [State::Sleeping]);
    }

    #[test]
    fn all_threads_are_listed() {
        let (keep, end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || end.recv().is_err());
        let me = ProcessId::current().expect("/proc is mounted");
        assert!(thread_states(&me).expect("we live").len() >= 2);
        drop(keep);
        assert!(thread.join().expect("it only waits"));
    }

    #[test]
    fn a_process_that_is_gone_has_no_threads() {
        let mut child = Sleeper::start();
        let id = child.id();
        child.kill_without_reaping();
        child.reap();
        assert!(matches!(thread_states(&id), Err(Error::ProcessGone(_))));
        assert!(matches!(tracer(&id), Err(Error::ProcessGone(_))));
    }
}
