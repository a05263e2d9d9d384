//! How much memory there is, and memory that is taken and kept.

mod cgroup;
mod hog;

use std::path::PathBuf;

pub use hog::{Hog, STEP};

use crate::{Error, Result, error::Context, process::ProcessInfo};

/// Memory and its use, in bytes, where this process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What there is in all: the machine's, or the limit of the control group where that is lower.
    pub total: u64,
    /// What is taken of it and cannot be had back without pain: the kernel's caches do not count.
    pub used: u64,
    /// What this process could take now before the machine or any control group that it is in has nothing left.
    pub available: u64,
    /// The control group whose limit is the total; `None` where the total is the machine's.
    pub cgroup: Option<PathBuf>,
}

impl Memory {
    /// The share of the total that is used, from 0 to 1.
    pub fn used_share(&self) -> f64 {
        self.used as f64 / self.total as f64
    }
}

/// What memory there is now, from `/proc/meminfo` and the limits of this process's control groups (v2 and v1).
///
/// # Errors
/// Where `/proc` is not mounted, or a limit cannot be read.
pub fn now() -> Result<Memory> {
    let meminfo = read("/proc/meminfo")?;
    let total = meminfo_field(&meminfo, "MemTotal")?;
    let available = meminfo_field(&meminfo, "MemAvailable")?;
    let machine = Memory { total, used: total.saturating_sub(available), available, cgroup: None };
    let me = ProcessInfo::of(std::process::id())?;
    let groups = cgroup::limits(&crate::cgroup::mounts()?, &me.cgroups)?;
    Ok(groups.into_iter().fold(machine, |memory, group| {
        let left = group.limit.saturating_sub(group.used);
        let available = memory.available.min(left);
        match group.limit < memory.total {
            true => Memory { total: group.limit, used: group.used, available, cgroup: Some(group.path) },
            false => Memory { available, ..memory },
        }
    }))
}

/// This process's resident memory in bytes, as exact as the kernel's fast count.
pub fn resident() -> Result<u64> {
    ProcessInfo::of(std::process::id()).map(|me| me.rss)
}

/// Makes this process the one that the kernel's OOM killer ends first, until it is dropped (oom_score_adj of
/// proc_pid_oom_score_adj(5)). To rise needs no privileges.
#[derive(Debug)]
pub struct OomOffer {
    found: String,
}

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
const HIGHEST_SCORE: &str = "1000";

impl OomOffer {
    /// Offers this process.
    ///
    /// # Errors
    /// Where `/proc` is not mounted or not writable.
    pub fn make() -> Result<Self> {
        let found = read(OOM_SCORE_ADJ)?.trim().to_owned();
        std::fs::write(OOM_SCORE_ADJ, HIGHEST_SCORE).cannot(|| "offer this process to the OOM killer")?;
        Ok(Self { found })
    }
}

impl Drop for OomOffer {
    fn drop(&mut self) {
        // Only a privileged writer's score cannot be lowered again by others; then the offer stays until we end.
        drop(std::fs::write(OOM_SCORE_ADJ, &self.found));
    }
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).cannot(|| format!("read {file}"))
}

/// A field of `/proc/meminfo` in bytes; the file gives it in KiB, which it calls kB.
fn meminfo_field(meminfo: &str, name: &str) -> Result<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::malformed("/proc/meminfo", format!("{name} is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sleeper;

    #[test]
    fn the_machines_memory_is_read() {
        let memory = now().expect("readable");
        assert!(memory.available <= memory.total && memory.used <= memory.total, "{memory:?}");
        assert!((0.0..=1.0).contains(&memory.used_share()));
        let info = rustix::system::sysinfo();
        let all = info.totalram as u64 * u64::from(info.mem_unit);
        assert!(memory.total <= all, "{memory:?}, the kernel says {all}");
    }

    #[test]
    fn a_field_that_is_missing_is_told() {
        assert_eq!(meminfo_field("MemTotal:  16 kB\nMemFree: 1 kB\n", "MemTotal").expect("there"), 16 << 10);
        assert!(meminfo_field("MemTotal:  16 kB\n", "Mem").is_err());
        assert!(
            meminfo_field("MemTotal:  16 kB\n", "MemAvailable")
                .expect_err("missing")
                .to_string()
                .contains("MemAvailable")
        );
    }

    #[test]
    fn the_offer_is_the_highest_and_ends() {
        let score = || read(OOM_SCORE_ADJ).expect("readable").trim().to_owned();
        let found = score();
        let offer = OomOffer::make().expect("no privileges needed");
        assert_eq!(score(), "1000");
        let badness = |pid: String| {
            read(&format!("/proc/{pid}/oom_score")).expect("there").trim().parse::<u64>().expect("a number")
        };
        let other = Sleeper::start();
        // A child would have inherited it: another one has to be asked, whose own is what was found.
        std::fs::write(format!("/proc/{}/oom_score_adj", other.id().pid()), &found).expect("our own child");
        assert!(badness("self".into()) > badness(other.id().pid().to_string()));
        drop(offer);
        assert_eq!(score(), found);
    }
}
