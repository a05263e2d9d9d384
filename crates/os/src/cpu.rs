//! Cores, and threads that keep each of some cores busy for a given share of its time.

use std::{
    os::unix::thread::JoinHandleExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, Timespec, clock_gettime},
};

use crate::{Error, Result, error::Context, time::monotonic};

/// How often a thread that loads a core works and rests. Short against what a request takes to time out, long against
/// a scheduler's tick.
pub const PERIOD: Duration = Duration::from_millis(20);

/// The most work that a thread catches up with after it could not run: enough for a stall of the machine, too little
/// to be a burst of its own.
const MOST_DEBT: Duration = Duration::from_millis(200);

/// The numbers of the cores that this thread may run on, lowest first: those online that its affinity and its control
/// group allow.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).cannot(|| "read which cores this process may use")?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Threads, one on each of some cores, that are busy for a share of the time. Dropping it ends them within one
/// [`PERIOD`]; they end with this process in any case.
///
/// Each period has an end on the monotonic clock, at which the thread's own CPU time has to have reached its goal. So
/// neither a late wake-up nor a slow instruction adds up, and a share that other work took is caught up with
/// afterwards, up to 200 ms of it.
#[derive(Debug)]
pub struct CpuLoad {
    order: Arc<Order>,
    workers: Vec<Worker>,
}

/// What the threads are told.
#[derive(Debug)]
struct Order {
    /// From 0 to 1, as the bits of an `f64`.
    share: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Worker {
    core: usize,
    thread: JoinHandle<()>,
}

/// What a core's thread has used since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The core's number.
    pub core: usize,
    /// Time that the thread ran on the core.
    pub cpu: Duration,
    /// When that was read, on the monotonic clock.
    pub at: Duration,
}

impl CpuLoad {
    /// Starts one thread on each core. `share` is from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no core, a core that cannot exist, or a share that is none; [`Error::System`] when this
    /// process may not use a core, or have so many threads. Nothing runs then.
    pub fn start(cores: &[usize], share: f64) -> Result<Self> {
        if cores.is_empty() {
            return Err(Error::invalid("a load on cores", "needs at least one core"));
        }
        if let Some(core) = cores.iter().find(|core| **core >= CpuSet::MAX_CPU) {
            return Err(Error::invalid(format!("core {core}"), format!("is not below {}", CpuSet::MAX_CPU)));
        }
        let order = Order { share: AtomicU64::new(share_bits(share)?), stop: AtomicBool::new(false) };
        let mut load = Self { order: Arc::new(order), workers: Vec::new() };
        for &core in cores {
            let (report, bound) = mpsc::channel();
            let order = Arc::clone(&load.order);
            let work = move || {
                let binding = bind_to(core);
                let works = binding.is_ok();
                drop(report.send(binding));
                if works {
                    keep_busy(&order);
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("load-core-{core}"))
                .spawn(work)
                .cannot(|| format!("start a thread for core {core}"))?;
            load.workers.push(Worker { core, thread });
            bound.recv().expect("the thread reports before anything else")?;
        }
        Ok(load)
    }

    /// Changes the share of the time, from the next period on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that is not from 0 to 1.
    pub fn set_share(&self, share: f64) -> Result<()> {
        self.order.share.store(share_bits(share)?, Ordering::Relaxed);
        Ok(())
    }

    /// What each thread has used so far, as exact as the kernel's scheduler knows it. Within a period the work comes
    /// before the rest, so compare readings that are many periods apart.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        self.workers.iter().map(Worker::usage).collect()
    }
}

impl Drop for CpuLoad {
    fn drop(&mut self) {
        self.order.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // It does not panic, and if it did, it has ended, which is all that is wanted.
            drop(worker.thread.join());
        }
    }
}

impl Worker {
    #[expect(unsafe_code, reason = "the CPU time of another thread has no safe form")]
    fn usage(&self) -> Result<Usage> {
        let what = || format!("read the CPU time of the thread on core {}", self.core);
        let mut clock: libc::clockid_t = 0;
        // SAFETY: the thread was not joined, because `self` still has its handle; `clock` outlives the call.
        let error = unsafe { libc::pthread_getcpuclockid(self.thread.as_pthread_t(), &raw mut clock) };
        if error != 0 {
            return Err(std::io::Error::from_raw_os_error(error)).cannot(what);
        }
        let mut cpu = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `cpu` outlives the call.
        if unsafe { libc::clock_gettime(clock, &raw mut cpu) } != 0 {
            return Err(std::io::Error::last_os_error()).cannot(what);
        }
        // A CPU time is never negative, and its nanoseconds are below 10^9.
        let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
        Ok(Usage { core: self.core, cpu, at: monotonic() })
    }
}

fn share_bits(share: f64) -> Result<u64> {
    match (0.0..=1.0).contains(&share) {
        true => Ok(share.to_bits()),
        false => Err(Error::invalid(format!("a share of {share}"), "is not from 0 to 1")),
    }
}

fn bind_to(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).cannot(|| format!("bind a thread to core {core}"))
}

/// Works for the ordered share of each period until told to stop.
fn keep_busy(order: &Order) {
    let share = || f64::from_bits(order.share.load(Ordering::Relaxed));
    let stop = || order.stop.load(Ordering::Relaxed);
    let mut line = Line { share: share(), wall: monotonic(), cpu: cpu_time() };
    let mut end = line.wall;
    while !stop() {
        let now = monotonic();
        // Periods that this thread slept through are past; what they owe is in the line.
        end = if end + PERIOD > now { end + PERIOD } else { now + PERIOD };
        let goal = line.goal(share(), cpu_time(), now, end);
        while cpu_time() < goal && monotonic() < end && !stop() {
            spin();
        }
        sleep_until(end);
    }
}

/// The CPU time that a thread should have had at each moment: a straight line, so that no error adds up.
#[derive(Debug, Clone, Copy)]
struct Line {
    share: f64,
    wall: Duration,
    cpu: Duration,
}

impl Line {
    fn at(&self, wall: Duration) -> Duration {
        self.cpu + wall.saturating_sub(self.wall).mul_f64(self.share)
    }

    /// What the CPU time has to be at the end of a period that begins now. A new share begins a new line, and so does
    /// a debt that is too large to be caught up with.
    fn goal(&mut self, share: f64, used: Duration, now: Duration, end: Duration) -> Duration {
        if share != self.share {
            *self = Self { share, wall: now, cpu: used };
        } else if self.at(now) > used + MOST_DEBT {
            *self = Self { share, wall: now, cpu: used + MOST_DEBT };
        }
        self.at(end)
    }
}

/// Some microseconds of work for the core's arithmetic: what waits politely (`PAUSE`) a hypervisor may take as rest.
fn spin() {
    let mut x = std::hint::black_box(1u64);
    for _ in 0..2_000 {
        x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    // A CPU time is never negative, and its nanoseconds are below 10^9.
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn sleep_until(end: Duration) {
    let end = Timespec { tv_sec: end.as_secs() as i64, tv_nsec: end.subsec_nanos().into() };
    // A signal may wake it early: the goal of the next period is the same.
    let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;

    /// The CPU time of a thread of this process, by its name, as `/proc` tells everybody, and its last core.
    fn thread_in_proc(name: &str) -> Option<(Duration, usize)> {
        for task in std::fs::read_dir("/proc/self/task").expect("/proc is mounted") {
            let path = task.expect("a thread").path();
            let Ok(stat) = std::fs::read_to_string(path.join("stat")) else { continue };
            let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
            if !head.ends_with(&format!("({name}")) {
                continue;
            }
            let fields: Vec<&str> = tail.split(' ').collect();
            // Fields 14, 15 and 39 of proc_pid_stat(5), which counts from 1 and has two before these.
            let ticks = |n: usize| fields[n - 3].parse::<u64>().expect("a number");
            let cpu = Duration::from_secs_f64(
                (ticks(14) + ticks(15)) as f64 / rustix::param::clock_ticks_per_second() as f64,
            );
            return Some((cpu, ticks(39) as usize));
        }
        None
    }

    #[test]
    fn every_allowed_core_gets_its_share_and_none_remains_afterwards() {
        let cores = allowed().expect("readable");
        assert!(!cores.is_empty());
        let load = CpuLoad::start(&cores, 0.5).expect("our own cores");
        let before = load.usage().expect("they run");
        std::thread::sleep(Duration::from_secs(2));
        for (before, after) in before.iter().zip(load.usage().expect("they run")) {
            let share = (after.cpu - before.cpu).as_secs_f64() / (after.at - before.at).as_secs_f64();
            // Others want the same cores, so that only too much is certainly wrong: half, and the most debt of before.
            assert!(share < 0.66, "core {} had {share}", after.core);
        }
        eventually("every core has worked", || {
            load.usage().expect("they run").iter().all(|usage| usage.cpu > Duration::from_millis(200))
        });
        for usage in load.usage().expect("they run") {
            let (cpu, core) = thread_in_proc(&format!("load-core-{}", usage.core)).expect("it runs");
            assert_eq!(core, usage.core);
            assert!(cpu.abs_diff(usage.cpu) < Duration::from_millis(300), "{cpu:?} outside, {:?} inside", usage.cpu);
        }
        drop(load);
        let left = |core: &usize| thread_in_proc(&format!("load-core-{core}")).is_some();
        eventually("the threads are gone", || !cores.iter().any(left));
    }

    #[test]
    fn a_new_share_holds_at_once() {
        let core = allowed().expect("readable")[0];
        let load = CpuLoad::start(&[core], 0.0).expect("our own core");
        std::thread::sleep(Duration::from_millis(300));
        let idle = load.usage().expect("it runs")[0];
        assert!(idle.cpu < Duration::from_millis(50), "{idle:?}");
        load.set_share(1.0).expect("a share");
        eventually("it works", || load.usage().expect("it runs")[0].cpu - idle.cpu > Duration::from_millis(200));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(matches!(CpuLoad::start(&[], 0.5), Err(Error::Invalid { .. })));
        assert!(matches!(CpuLoad::start(&[0], 1.5), Err(Error::Invalid { .. })));
        assert!(matches!(CpuLoad::start(&[0], f64::NAN), Err(Error::Invalid { .. })));
        assert!(matches!(CpuLoad::start(&[usize::MAX], 0.5), Err(Error::Invalid { .. })));
        let e = CpuLoad::start(&[CpuSet::MAX_CPU - 1], 0.5).expect_err("no machine has it");
        assert!(e.to_string().contains("bind a thread to core 1023"), "{e}");
    }

    #[test]
    fn a_debt_is_caught_up_with_and_no_more_than_the_most() {
        let ms = Duration::from_millis;
        let mut line = Line { share: 0.5, wall: ms(1000), cpu: ms(100) };
        assert_eq!(line.goal(0.5, ms(100), ms(1000), ms(1020)), ms(110));
        // 40 ms late: the 20 ms that are owed come on top of the period's own 10.
        assert_eq!(line.goal(0.5, ms(110), ms(1060), ms(1080)), ms(140));
        // 2 s late: 1 s is owed, of which the most is caught up with, and the rest is forgotten.
        assert_eq!(line.goal(0.5, ms(140), ms(3080), ms(3100)), ms(350));
        assert_eq!(line.goal(0.5, ms(350), ms(3100), ms(3120)), ms(360));
        // A new share owes nothing.
        assert_eq!(line.goal(0.1, ms(350), ms(3120), ms(3140)), ms(352));
    }

    /// Run on an idle machine: `cargo test -p toprope-os -- --ignored --nocapture accuracy`.
    #[test]
    #[ignore = "needs an idle machine, and takes 40 s"]
    fn accuracy() {
        let cores = allowed().expect("readable");
        for share in [0.05, 0.2, 0.5, 0.8, 0.95, 1.0] {
            let load = CpuLoad::start(&cores, share).expect("our own cores");
            let (before, idle_before) = (load.usage().expect("they run"), idle_ticks());
            std::thread::sleep(Duration::from_secs(6));
            for (before, after) in before.iter().zip(load.usage().expect("they run")) {
                let wall = (after.at - before.at).as_secs_f64();
                let got = (after.cpu - before.cpu).as_secs_f64() / wall;
                let idle = (idle_ticks()[after.core] - idle_before[after.core]) as f64
                    / rustix::param::clock_ticks_per_second() as f64
                    / wall;
                let (asked, got, idle) = (share * 100.0, got * 100.0, idle * 100.0);
                println!("core {}: asked {asked:.1} %, had {got:.2} %, idle {idle:.1} %", after.core);
                // Where all is asked for, what others need has to come from it.
                assert!((got - asked).abs() < 2.0 || (share == 1.0 && idle < 2.0));
            }
        }
    }

    /// Each core's idle time, in clock ticks, from `/proc/stat`.
    fn idle_ticks() -> Vec<u64> {
        let stat = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
        let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
        cores.map(|line| line.split(' ').nth(4).and_then(|n| n.parse().ok()).expect("a number")).collect()
    }
}
