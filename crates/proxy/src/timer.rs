//! One timerfd in front of an ordered queue of alarms.
//!
//! tokio's own timer rounds up to its next millisecond tick, so it is 1 to 2 ms late; a delay of 1 ms would be
//! wrong by its own size. A timerfd on the absolute monotonic clock wakes within some tens of microseconds.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::Moment;

/// Wakes tasks at the moments they ask for.
pub(crate) struct Timer {
    clock: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    alarms: BTreeMap<(Moment, u64), Waker>,
    /// When the timerfd will fire; never later than the first alarm.
    programmed: Moment,
    next_id: u64,
}

impl Timer {
    /// Must be called inside a tokio runtime; [`Timer::run`] must be spawned for the alarms to ring.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, because a type might change its descriptor; OwnedFd cannot, and this crate has no unsafe code"
    )]
    pub(crate) fn new() -> io::Result<Timer> {
        let clock = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let waiting = Waiting { alarms: BTreeMap::new(), programmed: Moment::NEVER, next_id: 0 };
        let clock = AsyncFd::with_interest(clock, Interest::READABLE)?;
        Ok(Timer { clock, waiting: Mutex::new(waiting) })
    }

    /// Rings the alarms as they fall due. Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Timer>) {
        let mut due = Vec::new();
        loop {
            let Ok(mut ready) = self.clock.readable().await else { return };
            // The count of expirations is of no interest, nor whether an alarm set meanwhile took it back, but only
            // reading it makes the descriptor wait for the next.
            let _ = rustix::io::read(self.clock.get_ref(), &mut [0u8; 8]);
            ready.clear_ready();
            {
                let mut waiting = self.lock();
                waiting.programmed = Moment::NEVER;
                let now = Moment::now();
                while let Some(first) = waiting.alarms.first_entry() {
                    if first.key().0 > now {
                        break;
                    }
                    due.push(first.remove());
                }
                if let Some(&(next, _)) = waiting.alarms.first_key_value().map(|(key, _)| key) {
                    self.program(&mut waiting, next);
                }
            }
            // Woken outside the lock: a task that runs at once sets its next alarm.
            due.drain(..).for_each(Waker::wake);
        }
    }

    /// A new alarm, not set.
    pub(crate) fn alarm(self: &Arc<Timer>) -> Alarm {
        let mut waiting = self.lock();
        waiting.next_id += 1;
        Alarm { timer: Arc::clone(self), id: waiting.next_id, set: None }
    }

    fn program(&self, waiting: &mut Waiting, at: Moment) {
        let once = Itimerspec { it_interval: Timespec::default(), it_value: at.timespec() };
        timerfd_settime(self.clock.get_ref(), TimerfdTimerFlags::ABSTIME, &once)
            .expect("an open timerfd takes any normalised, positive time");
        waiting.programmed = at;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds the alarms")
    }
}

/// Wakes one task at one moment at a time. Dropping it forgets what was set.
pub(crate) struct Alarm {
    timer: Arc<Timer>,
    id: u64,
    set: Option<(Moment, Waker)>,
}

impl Alarm {
    /// Wakes `waker` at `at` or just after, in place of what was set before; never, if that is [`Moment::NEVER`].
    pub(crate) fn set(&mut self, at: Moment, waker: &Waker) {
        match &self.set {
            None if at == Moment::NEVER => return,
            // Set before, and it has not rung or this moment would be past: nothing to do, and no lock to take.
            Some((set, to)) if *set == at && to.will_wake(waker) => return,
            _ => {}
        }
        let mut waiting = self.timer.lock();
        if let Some((set, _)) = self.set.take() {
            waiting.alarms.remove(&(set, self.id));
        }
        if at == Moment::NEVER {
            return;
        }
        waiting.alarms.insert((at, self.id), waker.clone());
        if at < waiting.programmed {
            self.timer.program(&mut waiting, at);
        }
        self.set = Some((at, waker.clone()));
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some((set, _)) = self.set.take() {
            self.timer.lock().alarms.remove(&(set, self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    async fn sleep_until(timer: &Arc<Timer>, at: Moment) {
        let mut alarm = timer.alarm();
        poll_fn(|cx| {
            if Moment::now() >= at {
                return Poll::Ready(());
            }
            alarm.set(at, cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn start() -> Arc<Timer> {
        let timer = Arc::new(Timer::new().expect("a timerfd"));
        tokio::spawn(Arc::clone(&timer).run());
        timer
    }

    #[tokio::test]
    async fn many_alarms_ring_in_order_and_never_early() {
        let timer = start();
        // Far enough ahead that all are set before the first rings, on a machine that stalls too.
        let begin = Moment::now().after(Duration::from_millis(300));
        let rung = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [30u64, 5, 20, 10, 1, 15]
            .map(|ms| {
                let (timer, rung) = (Arc::clone(&timer), Arc::clone(&rung));
                tokio::spawn(async move {
                    sleep_until(&timer, begin.after(Duration::from_millis(ms))).await;
                    assert!(Moment::now().since(begin) >= Duration::from_millis(ms));
                    rung.lock().expect("not poisoned").push(ms);
                })
            })
            .into();
        for task in tasks {
            task.await.expect("rang");
        }
        assert_eq!(*rung.lock().expect("not poisoned"), [1, 5, 10, 15, 20, 30]);
    }

    #[tokio::test]
    async fn an_alarm_can_be_moved_and_forgotten() {
        let timer = start();
        let begin = Moment::now();
        let (soon, late) = (begin.after(Duration::from_millis(20)), begin.after(Duration::from_secs(600)));
        let mut moved = timer.alarm();
        let mut dropped = timer.alarm();
        poll_fn(|cx| {
            if Moment::now() >= soon {
                return Poll::Ready(());
            }
            dropped.set(late, cx.waker());
            moved.set(late, cx.waker());
            moved.set(soon, cx.waker());
            Poll::Pending
        })
        .await;
        assert_eq!(timer.lock().alarms.len(), 1, "the moved alarm rang and the other still waits");
        drop(dropped);
        moved.set(late, Waker::noop());
        moved.set(Moment::NEVER, Waker::noop());
        assert!(timer.lock().alarms.is_empty());
    }

    #[tokio::test]
    async fn finer_than_the_runtime_timer() {
        let timer = start();
        let mut late: Vec<Duration> = Vec::new();
        for _ in 0..100 {
            let at = Moment::now().after(Duration::from_micros(1500));
            sleep_until(&timer, at).await;
            late.push(Moment::now().since(at));
        }
        late.sort();
        // tokio's timer is about 1 ms late here; the machine may stall, so only the median is judged, and widely.
        assert!(late[50] < Duration::from_micros(900), "median lateness {:?}", late[50]);
    }
}
