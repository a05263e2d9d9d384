use std::{
    fs::File,
    io::{Write, pipe},
    os::unix::fs::FileExt,
    sync::Arc,
    time::Duration,
};

use super::*;
use crate::{
    Error,
    process::{Pidfd, Signal, Stat, State},
    testing::{Ending, PATIENCE, Sleeper, eventually, fork, skip},
};

const THREADS: usize = 4;

/// A child whose threads count.
struct Counting {
    child: Ending,
    counts: Arc<File>,
}

impl Counting {
    fn start() -> Self {
        let counts = Arc::new(tempfile::tempfile().expect("a file"));
        let file = Arc::clone(&counts);
        let child = fork(move || {
            let threads = (0..THREADS).map(|thread| {
                let file = Arc::clone(&file);
                std::thread::spawn(move || {
                    for count in 1u64.. {
                        file.write_all_at(&count.to_ne_bytes(), thread as u64 * 8).expect("a file");
                        std::thread::sleep(Duration::from_micros(200));
                    }
                })
            });
            threads.collect::<Vec<_>>().into_iter().for_each(|thread| drop(thread.join()));
        });
        let counting = Self { child, counts };
        eventually("all threads count", || counting.counts().iter().all(|count| *count > 0));
        counting
    }

    fn id(&self) -> ProcessId {
        self.child.0.id()
    }

    fn counts(&self) -> [u64; THREADS] {
        let mut counts = [0; THREADS];
        for (thread, count) in counts.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            if self.counts.read_at(&mut bytes, thread as u64 * 8).expect("a file") == 8 {
                *count = u64::from_ne_bytes(bytes);
            }
        }
        counts
    }

    fn assert_still(&self) {
        let before = self.counts();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(self.counts(), before);
    }

    fn assert_counts_on(&self) {
        let before = self.counts();
        eventually("every thread counts on", || self.counts().iter().zip(before).all(|(now, before)| *now > before));
    }
}

fn state(id: &ProcessId) -> State {
    Stat::of(id.pid()).expect("not reaped").state
}

#[test]
fn every_thread_stands_still_until_released() {
    let counting = Counting::start();
    for _ in 0..3 {
        let stopped = Stopped::seize(&counting.id()).expect("our child");
        assert_eq!(stopped.threads(), THREADS + 1);
        counting.assert_still();
        assert!(!stopped.release(), "it has not ended");
        counting.assert_counts_on();
    }
    drop(Stopped::seize(&counting.id()).expect("our child"));
    counting.assert_counts_on();
}

#[test]
fn a_process_that_starts_threads_all_the_time_is_caught_whole() {
    let busy = fork(|| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    loop {
                        drop(std::thread::spawn(std::thread::yield_now).join())
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| drop(thread.join()));
    });
    let id = busy.0.id();
    for _ in 0..50 {
        let stopped = Stopped::seize(&id).expect("our child");
        for entry in std::fs::read_dir(format!("/proc/{}/task", id.pid())).expect("it is held") {
            let tid = entry.expect("listed").file_name().to_str().and_then(|tid| tid.parse().ok()).expect("a number");
            // What has ended is listed for a while.
            let stat = Stat::of(tid);
            assert!(
                stat.as_ref().is_ok_and(|s| matches!(s.state, State::Traced | State::Zombie | State::Dead)),
                "{stat:?}"
            );
        }
        assert!(!stopped.release());
    }
    assert!(id.is_alive());
}

#[test]
fn the_kernel_lets_it_run_when_the_tracer_is_killed() {
    let counting = Counting::start();
    let target = counting.id();
    let (mut ready, mut tell) = pipe().expect("a pipe");
    let tracer = fork(move || {
        let _stopped = Stopped::seize(&target).expect("root, or a child of our parent's user");
        tell.write_all(b"x").expect("a pipe");
        std::thread::sleep(PATIENCE);
    });
    if std::io::Read::read_exact(&mut ready, &mut [0]).is_err() {
        return skip("the_kernel_lets_it_run_when_the_tracer_is_killed", "this user may not trace siblings");
    }
    counting.assert_still();
    tracer.0.signal(Signal::KILL).expect("our child");
    counting.assert_counts_on();
}

#[test]
fn a_signal_that_arrives_meanwhile_is_delivered_afterwards() {
    let mut child = Sleeper::start();
    let pidfd = Pidfd::open(&child.id()).expect("it runs");
    let stopped = Stopped::seize(&child.id()).expect("our child");
    pidfd.signal(Signal::TERM).expect("our child");
    assert!(!pidfd.wait_exited(Duration::from_millis(100)).expect("poll works"), "it is held");
    assert!(!stopped.has_exited());
    stopped.release();
    assert!(pidfd.wait_exited(PATIENCE).expect("poll works"));
    child.reap();
}

#[test]
fn what_was_stopped_before_is_stopped_after() {
    let child = Sleeper::start();
    let pidfd = Pidfd::open(&child.id()).expect("it runs");
    pidfd.signal(Signal::STOP).expect("our child");
    eventually("it is stopped", || state(&child.id()) == State::Stopped);
    let stopped = Stopped::seize(&child.id()).expect("our child");
    assert_eq!(state(&child.id()), State::Traced);
    stopped.release();
    eventually("it is stopped again", || state(&child.id()) == State::Stopped);

    let stopped = Stopped::seize(&child.id()).expect("our child");
    pidfd.signal(Signal::CONT).expect("our child");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(state(&child.id()), State::Traced, "SIGCONT does not undo it");
    stopped.release();
    eventually("it runs, as SIGCONT wanted", || state(&child.id()) == State::Sleeping);
}

#[tokio::test]
async fn the_end_of_a_held_process_is_told_to_us_and_to_its_parent() {
    let mut counting = Counting::start();
    let stopped = Stopped::seize(&counting.id()).expect("our child");
    let early = tokio::time::timeout(Duration::from_millis(50), stopped.exited()).await;
    assert!(early.is_err(), "it is alive");
    counting.child.0.signal(Signal::KILL).expect("our child");
    tokio::time::timeout(PATIENCE, stopped.exited()).await.expect("told");
    assert!(stopped.has_exited() && stopped.release());
    let status = counting.child.0.wait_timeout(PATIENCE).expect("its status is left for us").expect("it ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
}

#[test]
fn a_strangers_end_is_left_for_its_parent() {
    let family = Sleeper::start_with_child();
    let child = crate::process::descendants(family.id().pid()).expect("/proc is mounted")[0];
    let stopped = match Stopped::seize(&child) {
        Ok(stopped) => stopped,
        Err(e) => return skip("a_strangers_end_is_left_for_its_parent", e),
    };
    Pidfd::open(&child).expect("it is held").signal(Signal::KILL).expect("ours");
    eventually("the end is told", || stopped.has_exited());
    assert!(stopped.release());
    eventually("its parent reaps it", || matches!(Stat::of(child.pid()), Err(Error::NoSuchProcess(_))));
}

#[test]
fn who_is_gone_or_traced_already_is_not_held() {
    let mut child = Sleeper::start();
    may_seize(&child.id()).expect("our child");
    assert_eq!(tracer(&child.id()).expect("it runs"), None, "asking touches nothing");
    let stopped = Stopped::seize(&child.id()).expect("our child");
    assert_eq!(tracer(&child.id()).expect("it lives"), Some(std::process::id()), "the process, not its thread");
    let e = may_seize(&child.id()).expect_err("traced");
    assert!(matches!(&e, Error::Unsupported(u) if u.why.contains("traced by process")), "{e}");
    let e = Stopped::seize(&child.id()).expect_err("traced");
    assert!(matches!(&e, Error::Unsupported(u) if u.why.contains("traced by process")), "{e}");
    drop(stopped);
    let id = child.id();
    child.kill_without_reaping();
    assert!(matches!(Stopped::seize(&id), Err(Error::ProcessGone(_))), "a zombie");
    child.reap();
    assert!(matches!(Stopped::seize(&id), Err(Error::ProcessGone(_))));
    assert!(matches!(may_seize(&id), Err(Error::ProcessGone(_))));
}

#[test]
fn who_may_not_trace_is_told_so_without_trying() {
    if !crate::testing::is_root("who_may_not_trace_is_told_so_without_trying") {
        return;
    }
    let child = Sleeper::start();
    let id = child.id();
    crate::testing::in_fork(move || {
        let nobody = crate::user::Identity { uid: 65534, gid: 65534, groups: vec![] };
        crate::privilege::become_user(&nobody).expect("root may");
        let e = may_seize(&id).expect_err("root's");
        assert!(e.is_permission_denied() && e.to_string().contains("CAP_SYS_PTRACE"), "{e}");
        assert!(Stopped::seize(&id).is_err());
    });
}
