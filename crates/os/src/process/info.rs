//! What `/proc` says about a process, and the tree of them.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    ProcessId, Stat, State,
    stat::{gone_or, read},
};
use crate::{Error, Result, error::Context, time::boot_id};

/// A process as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its name for this boot.
    pub id: ProcessId,
    /// Its parent's number; 0 where the parent is outside this pid namespace.
    pub ppid: u32,
    /// The command's name, cut to 15 bytes by the kernel.
    pub name: String,
    /// The program's file. `None` for kernel threads, and where we may not see it.
    pub exe: Option<PathBuf>,
    /// The command line, word by word; bytes that are no UTF-8 are replaced. Empty for kernel threads and zombies.
    pub cmdline: Vec<String>,
    /// The effective user's number.
    pub uid: u32,
    /// The control groups it is in, one per hierarchy.
    pub cgroups: Vec<CgroupMembership>,
    /// What its main thread does.
    pub state: State,
    /// Whether it is a thread of the kernel, which no fault can target.
    pub kernel_thread: bool,
    /// Number of threads.
    pub threads: u64,
    /// Resident memory in bytes, as exact as the kernel's own fast count.
    pub rss: u64,
    /// Time spent on cores, in user and kernel mode, all threads together.
    pub cpu_time: Duration,
}

/// A control group that a process is in: a line of `/proc/PID/cgroup`, see cgroups(7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMembership {
    /// The hierarchy's v1 controllers; empty for the v2 hierarchy.
    pub controllers: Vec<String>,
    /// The path from the hierarchy's root, such as `/system.slice/nginx.service`.
    pub path: String,
}

impl CgroupMembership {
    /// Whether this is the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }
}

impl ProcessInfo {
    /// Describes the process that has this number now.
    ///
    /// # Errors
    /// [`Error::NoSuchProcess`] where there is none, or it ended while it was looked at.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = Stat::of(pid)?;
        let info = Self {
            id: ProcessId::from_stat(&stat, boot_id()?),
            ppid: stat.ppid,
            exe: std::fs::read_link(format!("/proc/{pid}/exe")).ok(),
            cmdline: words(&read(pid, &format!("/proc/{pid}/cmdline"))?),
            uid: effective_uid(pid)?,
            cgroups: memberships(&read(pid, &format!("/proc/{pid}/cgroup"))?),
            state: stat.state,
            kernel_thread: stat.is_kernel_thread(),
            threads: stat.threads,
            rss: stat.rss_pages * rustix::param::page_size() as u64,
            cpu_time: ticks(stat.cpu_ticks),
            name: stat.name,
        };
        // The files were read one by one: all are of one process only if it still is the same.
        match Stat::of(pid)?.start_time == info.id.start_time {
            true => Ok(info),
            false => Err(Error::NoSuchProcess(pid)),
        }
    }
}

/// How many file descriptors a process has open; `None` where we may not see them. It is no part of [`ProcessInfo`]
/// because counting them takes longer than all of that, and few want to know.
pub fn open_files(id: &ProcessId) -> Option<u64> {
    std::fs::read_dir(format!("/proc/{}/fd", id.pid())).ok().map(|entries| entries.count() as u64)
}

/// Every process of this pid namespace, in the order of their numbers. One that ends while we look is left out.
pub fn processes() -> Result<Vec<ProcessInfo>> {
    let mut found = Vec::new();
    for pid in pids()? {
        match ProcessInfo::of(pid) {
            Ok(info) => found.push(info),
            Err(Error::NoSuchProcess(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The children of a process, their children, and so on; not the process itself. Parents come before their children. A
/// descendant whose parent has died belongs to init or a subreaper, so it is not found.
pub fn descendants(pid: u32) -> Result<Vec<ProcessId>> {
    descendants_of([pid])
}

/// The [`descendants`] of several processes, each once, for the price of one. One of the given processes is among them
/// when it descends from another.
pub fn descendants_of(pids: impl IntoIterator<Item = u32>) -> Result<Vec<ProcessId>> {
    let boot_id = boot_id()?;
    let mut children: HashMap<u32, Vec<ProcessId>> = HashMap::new();
    for pid in self::pids()? {
        match Stat::of(pid) {
            Ok(stat) => children.entry(stat.ppid).or_default().push(ProcessId::from_stat(&stat, boot_id)),
            Err(Error::NoSuchProcess(_)) => {}
            Err(e) => return Err(e),
        }
    }
    let mut found: Vec<ProcessId> = pids.into_iter().filter_map(|pid| children.remove(&pid)).flatten().collect();
    let mut seen: HashSet<ProcessId> = found.iter().copied().collect();
    let mut next = 0;
    while let Some(id) = found.get(next) {
        let more = children.remove(&id.pid()).unwrap_or_default();
        // A number reused while we read can make a ring of the tree.
        found.extend(more.into_iter().filter(|id| seen.insert(*id)));
        next += 1;
    }
    Ok(found)
}

pub(crate) fn pids() -> Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").cannot(|| "list /proc")?;
    let mut pids: Vec<u32> = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

pub(crate) fn ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_secs(ticks / per_second) + Duration::from_secs(ticks % per_second) / per_second as u32
}

fn words(cmdline: &[u8]) -> Vec<String> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// From `status`: the owner of `/proc/PID` would be root for a process that must not be dumped.
fn effective_uid(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read(&path).map_err(|e| gone_or(pid, &path, e))?;
    String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| Error::malformed(path, "no effective user in the line Uid"))
}

fn memberships(cgroup: &[u8]) -> Vec<CgroupMembership> {
    let text = String::from_utf8_lossy(cgroup);
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
            Some(CgroupMembership { controllers, path: path.to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sleeper;

    #[test]
    fn a_child_is_described_and_listed() {
        let child = Sleeper::start();
        let info = ProcessInfo::of(child.id().pid()).expect("it runs");
        assert_eq!((info.id, info.ppid), (child.id(), std::process::id()));
        assert_eq!((info.name.as_str(), info.uid), ("sleep", rustix::process::geteuid().as_raw()));
        assert_eq!(info.cmdline, ["sleep", "60"]);
        assert!(info.exe.expect("ours").ends_with("sleep"));
        // The kernel's fast count of a small process may still be on its cores; that of this one is not.
        assert!(ProcessInfo::of(std::process::id()).expect("we run").rss > 0);
        assert!(open_files(&info.id).is_some_and(|n| n >= 3) && !info.kernel_thread);
        assert!(!info.cgroups.is_empty());
        assert!(processes().expect("/proc is mounted").iter().any(|p| p.id == child.id()));
    }

    #[test]
    fn grandchildren_are_descendants_and_strangers_are_not() {
        let family = Sleeper::start_with_child();
        let found = descendants(family.id().pid()).expect("/proc is mounted");
        assert_eq!(found.len(), 1, "{found:?}");
        let mine = descendants(std::process::id()).expect("/proc is mounted");
        let place = |id| mine.iter().position(|p| *p == id);
        assert!(place(family.id()).expect("a child") < place(found[0]).expect("a grandchild"));
        assert!(!mine.iter().any(|p| p.pid() == std::process::id() || p.pid() == 1));
    }

    #[test]
    fn lines_of_both_cgroup_versions_are_read() {
        let found = memberships(b"9:name=systemd:/\n4:cpu,cpuacct:/a:b\n0::/system.slice/x.service\n");
        assert_eq!(found[0].controllers, ["name=systemd"]);
        assert_eq!((found[1].controllers.len(), found[1].path.as_str()), (2, "/a:b"));
        assert!(found[2].is_v2() && found[2].path == "/system.slice/x.service");
    }

    #[test]
    fn command_lines_keep_empty_words() {
        assert_eq!(words(b"a\0\0b\0"), ["a", "", "b"]);
        assert!(words(b"").is_empty());
    }

    #[test]
    fn ticks_become_time() {
        assert_eq!(ticks(rustix::param::clock_ticks_per_second() * 3 / 2), Duration::from_millis(1500));
    }
}
