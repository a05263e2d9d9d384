//! Cores: which there are, which a thread may use, and how busy each is.

use std::{collections::BTreeMap, time::Duration};

use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

use crate::{Error, Result, error::Context, process::ticks};

/// The cores that the calling thread may use, which a container or `taskset` may have limited.
pub fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).cannot(|| "read which cores this thread may use")?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Has the calling thread, and threads it starts later, use these cores only.
///
/// # Errors
/// When none of them exists or is allowed to this process.
pub fn use_cores(cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        if *core >= CpuSet::MAX_CPU {
            return Err(Error::invalid(format!("core {core}"), "is beyond what the kernel can name"));
        }
        set.set(*core);
    }
    sched_setaffinity(None, &set).cannot(|| format!("use cores {cores:?} only"))
}

/// The time that the calling thread has spent on a core.
pub fn thread_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    // The time spent is never negative, and nanoseconds are below 10^9.
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// What a core has done since boot, to the precision of a clock tick, mostly 10 ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// Ran something.
    pub busy: Duration,
    /// Had nothing to run, waiting for disks included.
    pub idle: Duration,
    /// Would have run something, but the host beneath this virtual machine ran something else.
    pub stolen: Duration,
}

impl CoreTime {
    /// The share of time in which the core was busy since an earlier look, from 0 to 1; stolen time counts as neither
    /// busy nor idle. `None` when no tick has passed.
    pub fn busy_share_since(&self, earlier: &Self) -> Option<f64> {
        let busy = self.busy.saturating_sub(earlier.busy).as_secs_f64();
        let idle = self.idle.saturating_sub(earlier.idle).as_secs_f64();
        (busy + idle > 0.0).then(|| busy / (busy + idle))
    }
}

/// What every core that is on has done since boot, by its number.
pub fn core_times() -> Result<BTreeMap<usize, CoreTime>> {
    const FILE: &str = "/proc/stat";
    let text = std::fs::read_to_string(FILE).cannot(|| format!("read {FILE}"))?;
    let cores: BTreeMap<_, _> = text.lines().filter_map(core_time).collect();
    if cores.is_empty() { Err(Error::malformed(FILE, "it names no core")) } else { Ok(cores) }
}

/// `cpuN user nice system idle iowait irq softirq steal guest guest_nice`, see proc_stat(5); guests' time is in user and
/// nice as well.
fn core_time(line: &str) -> Option<(usize, CoreTime)> {
    let mut fields = line.strip_prefix("cpu")?.split(' ');
    let core = fields.next()?.parse().ok()?;
    let mut field = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system, idle, iowait) = (field()?, field()?, field()?, field()?, field()?);
    let (irq, softirq, steal) = (field()?, field()?, field()?);
    let time = CoreTime {
        busy: ticks(user + nice + system + irq + softirq),
        idle: ticks(idle + iowait),
        stolen: ticks(steal),
    };
    Some((core, time))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn spin(time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_thread_stays_where_it_was_put_and_its_time_is_counted() {
        let all = allowed_cores().expect("readable");
        std::thread::spawn(move || {
            let core = *all.last().expect("we run on one");
            use_cores(&[core]).expect("allowed");
            assert_eq!(allowed_cores().expect("readable"), [core]);
            let before = (thread_time(), core_times().expect("/proc is mounted")[&core]);
            // Others may share the core.
            while thread_time() - before.0 < Duration::from_millis(200) {
                spin(Duration::from_millis(5));
            }
            let after = core_times().expect("/proc is mounted")[&core];
            assert!(after.busy - before.1.busy >= Duration::from_millis(150), "{:?} to {after:?}", before.1);
            let share = after.busy_share_since(&before.1).expect("ticks have passed");
            assert!(share > 0.5 && share <= 1.0, "{share}");
        })
        .join()
        .expect("it passes");
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        std::thread::spawn(|| {
            assert!(use_cores(&[1000]).is_err());
            assert!(use_cores(&[]).is_err());
            assert!(matches!(use_cores(&[1 << 20]), Err(Error::Invalid { .. })));
        })
        .join()
        .expect("it passes");
    }

    #[test]
    fn lines_of_proc_stat_are_read() {
        let (core, time) = core_time("cpu3 100 50 30 400 20 5 15 7 9 9").expect("parses");
        assert_eq!((core, time.busy, time.idle, time.stolen), (3, ticks(200), ticks(420), ticks(7)));
        assert!(core_time("cpu  1 2 3 4 5 6 7 8").is_none(), "all cores together");
        assert!(core_time("intr 1 2 3").is_none());
        let half = CoreTime { busy: ticks(250), idle: ticks(470), ..time };
        assert_eq!(half.busy_share_since(&time), Some(0.5));
        assert_eq!(time.busy_share_since(&time), None);
    }
}
