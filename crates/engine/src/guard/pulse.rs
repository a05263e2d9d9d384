//! Whether the process at the other end still lives, judged by one that may have been held up itself.

use toprope_os::process::{ProcessId, ProcessInfo, State, thread_states};

use super::BEAT;

/// Ticks of ours without a heartbeat after which a process that is stopped or frozen counts as hung: 250 ms.
const STOPPED: u32 = 5;
/// The same for one in which no thread even wants to run: 500 ms. Its heartbeat is due every 50 ms, so one that is only
/// held up waits for a core.
const ASLEEP: u32 = 10;
/// The same for one that runs, waits for a core or for a disk: 3 s, because a machine under load holds up whom it wants.
const BUSY: u32 = 60;

/// The heartbeats of a process.
///
/// They are counted in ticks of this process, which come as late as it is scheduled itself: a machine that stands still
/// for a second costs one tick, not twenty.
#[derive(Debug)]
pub(super) struct Pulse {
    id: ProcessId,
    missed: u32,
}

impl Pulse {
    pub(super) fn of(id: ProcessId) -> Self {
        Self { id, missed: 0 }
    }

    /// A heartbeat came.
    pub(super) fn heard(&mut self) {
        self.missed = 0;
    }

    /// Call it once for each tick of [`ticks`]: whether the process counts as hung by now.
    pub(super) fn is_gone(&mut self) -> bool {
        self.missed += 1;
        self.missed >= STOPPED && self.missed >= patience(&self.id)
    }
}

/// Ticks at the rate of heartbeats; those that were missed do not come later.
pub(super) fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// How many ticks without a heartbeat a process may have in its present state.
fn patience(id: &ProcessId) -> u32 {
    let Ok(threads) = thread_states(id) else { return STOPPED }; // it is gone
    let all = |states: &[State]| threads.iter().all(|t| states.contains(t));
    if all(&[State::Stopped, State::Traced, State::Zombie, State::Dead]) || is_frozen(id) {
        STOPPED
    } else if all(&[State::Sleeping, State::Stopped, State::Traced]) {
        ASLEEP
    } else {
        BUSY
    }
}

/// Whether a control group keeps the process from running.
pub(super) fn is_frozen(id: &ProcessId) -> bool {
    ProcessInfo::of(id.pid()).is_ok_and(|info| info.id == *id && toprope_os::cgroup::is_frozen(&info.cgroups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    use rustix::process::Signal;
    use toprope_os::process::Pidfd;

    /// How many ticks of silence a process is given.
    fn given(pulse: &mut Pulse) -> u32 {
        pulse.heard();
        (1..=BUSY).find(|_| pulse.is_gone()).expect("at last")
    }

    #[test]
    fn who_stands_still_is_given_less_time_than_who_is_held_up() {
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        let mut pulse = Pulse::of(id);
        let busy = given(&mut pulse);
        let process = Pidfd::open(&id).unwrap();
        process.signal(Signal::STOP).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while thread_states(&id).unwrap() != [State::Stopped] && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let stopped = given(&mut pulse);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((busy, stopped, given(&mut pulse)), (BUSY, STOPPED, STOPPED));
    }

    #[test]
    fn a_heartbeat_makes_up_for_what_was_missed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut pulse = Pulse::of(ProcessId::of(child.id()).unwrap());
        for _ in 0..3 {
            for _ in 0..STOPPED - 1 {
                assert!(!pulse.is_gone());
            }
            pulse.heard();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
