//! Memory: how much there is, how much we may use, and who goes first when there is none left.

use std::path::{Path, PathBuf};

use crate::{
    Error, Result,
    cgroup::{Mount, mounts},
    error::Context,
    process::{CgroupMembership, ProcessInfo},
};

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// All that the kernel manages.
    pub total: u64,
    /// What could be had without swapping, by the kernel's own estimate: caches count as far as they can be dropped.
    pub available: u64,
    /// All of swap.
    pub swap_total: u64,
    /// What of swap is unused.
    pub swap_free: u64,
}

/// Reads the machine's memory.
pub fn machine_memory() -> Result<MachineMemory> {
    const FILE: &str = "/proc/meminfo";
    let text = std::fs::read_to_string(FILE).cannot(|| format!("read {FILE}"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib: Option<u64> = line.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Error::malformed(FILE, format!("no line {name} in kB")))
    };
    Ok(MachineMemory {
        total: field("MemTotal")?,
        available: field("MemAvailable")?,
        swap_total: field("SwapTotal")?,
        swap_free: field("SwapFree")?,
    })
}

/// What the control groups that this process is in allow, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryLimit {
    /// The most that the group and all below it may use.
    pub limit: u64,
    /// What they use now, their caches included.
    pub used: u64,
    /// The group's directory.
    pub group: PathBuf,
}

/// The limit, of those of this process's control groups (v1 and v2) and the groups above them, that leaves the least.
/// `None` without any limit.
pub fn own_limit() -> Result<Option<MemoryLimit>> {
    let groups = ProcessInfo::of(std::process::id())?.cgroups;
    let mut tightest: Option<MemoryLimit> = None;
    for mount in mounts()? {
        for (file_limit, file_used) in files(&mount) {
            let Some(group) = groups.iter().find(|g| belongs(&mount, g)) else { continue };
            for directory in directories(&mount, &group.path) {
                let (Some(limit), Some(used)) = (read(&directory, file_limit), read(&directory, file_used)) else {
                    continue;
                };
                let left = limit.saturating_sub(used);
                if tightest.as_ref().is_none_or(|t| left < t.limit.saturating_sub(t.used)) {
                    tightest = Some(MemoryLimit { limit, used, group: directory });
                }
            }
        }
    }
    Ok(tightest)
}

fn files(mount: &Mount) -> &'static [(&'static str, &'static str)] {
    match mount.kind.as_str() {
        "cgroup2" => &[("memory.max", "memory.current")],
        "cgroup" => &[("memory.limit_in_bytes", "memory.usage_in_bytes")],
        _ => &[],
    }
}

fn belongs(mount: &Mount, group: &CgroupMembership) -> bool {
    match mount.kind.as_str() {
        "cgroup2" => group.is_v2(),
        // Only that of v1's memory controller has the files.
        _ => group.controllers.iter().any(|c| c == "memory"),
    }
}

/// The group's directory and those above it, as far up as the mount goes.
fn directories(mount: &Mount, path: &str) -> Vec<PathBuf> {
    // In a container the mount may begin at the container's own group, with the path given from the host's root.
    let below = Path::new(path).strip_prefix(&mount.root).or_else(|_| Path::new(path).strip_prefix("/"));
    let below = below.unwrap_or(Path::new(""));
    below.ancestors().map(|ancestor| mount.point.join(ancestor)).collect()
}

fn read(directory: &Path, file: &str) -> Option<u64> {
    // v2 says `max` for no limit, v1 the largest number of whole pages.
    const NO_LIMIT: u64 = 1 << 62;
    let value = std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()?;
    (value < NO_LIMIT).then_some(value)
}

/// What this process has in memory, in bytes.
pub fn own_resident() -> Result<u64> {
    const FILE: &str = "/proc/self/statm";
    let text = std::fs::read_to_string(FILE).cannot(|| format!("read {FILE}"))?;
    let pages: Option<u64> = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| Error::malformed(FILE, "no second number"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Makes this process and those it starts later the first that the kernel kills when memory runs out
/// (`oom_score_adj` 1000), so that a fault that takes too much ends itself and nothing else. Anybody may.
pub fn be_first_oom_victim() -> Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    std::fs::write(FILE, "1000").cannot(|| format!("write {FILE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{eventually, in_fork, skip};

    #[test]
    fn the_machine_has_more_than_we_use() {
        let machine = machine_memory().expect("/proc is mounted");
        assert!(machine.available <= machine.total && machine.swap_free <= machine.swap_total);
        let resident = own_resident().expect("/proc is mounted");
        assert!(resident > 1 << 19 && resident < machine.total, "{resident}");
    }

    #[test]
    fn what_is_taken_is_resident() {
        in_fork(|| {
            let before = own_resident().expect("/proc is mounted");
            let taken = vec![1u8; 64 << 20];
            let grown = own_resident().expect("/proc is mounted") - before;
            assert!(grown >= 60 << 20, "{grown} of {}", taken.len());
        });
    }

    #[test]
    fn the_oom_killer_is_told() {
        in_fork(|| {
            be_first_oom_victim().expect("anybody may");
            let score = std::fs::read_to_string("/proc/self/oom_score_adj").expect("/proc is mounted");
            assert_eq!(score.trim(), "1000");
        });
    }

    #[test]
    fn a_limit_of_our_group_is_found() {
        const LIMIT: u64 = 1 << 28;
        let Some(group) = limited_group(LIMIT) else {
            return skip("a_limit_of_our_group_is_found", "no control group with a limit can be made here");
        };
        let procs = group.join("cgroup.procs");
        in_fork(|| {
            std::fs::write(procs, std::process::id().to_string()).expect("our group");
            let taken = vec![1u8; 8 << 20];
            let found = own_limit().expect("/proc is mounted").expect("there is one");
            assert_eq!((found.limit, &found.group), (LIMIT, &group));
            assert!(found.used >= taken.len() as u64 / 2, "{found:?}");
        });
        eventually("the group is empty again", || std::fs::remove_dir(&group).is_ok());
    }

    /// A new control group below ours.
    fn limited_group(limit: u64) -> Option<PathBuf> {
        let groups = ProcessInfo::of(std::process::id()).expect("it is us").cgroups;
        for mount in mounts().expect("/proc is mounted") {
            for (file, _) in files(&mount) {
                let Some(ours) = groups.iter().find(|g| belongs(&mount, g)) else { continue };
                let Some(parent) = directories(&mount, &ours.path).into_iter().find(|dir| dir.join(file).exists())
                else {
                    continue;
                };
                let group = parent.join(format!("toprope-test-{}", std::process::id()));
                if std::fs::create_dir(&group).is_err() {
                    continue;
                }
                if std::fs::write(group.join(file), limit.to_string()).is_ok() {
                    return Some(group);
                }
                drop(std::fs::remove_dir(group));
            }
        }
        None
    }

    #[test]
    fn groups_above_ours_count_up_to_the_mount() {
        let mount = |root: &str| Mount { root: root.into(), point: "/cg".into(), kind: "cgroup2".into() };
        let found = directories(&mount("/"), "/a/b");
        assert_eq!(found, [Path::new("/cg/a/b"), Path::new("/cg/a"), Path::new("/cg/")]);
        assert_eq!(directories(&mount("/docker/x"), "/docker/x/y"), [Path::new("/cg/y"), Path::new("/cg/")]);
        assert_eq!(directories(&mount("/docker/x"), "/"), [Path::new("/cg/")]);
    }

    #[test]
    fn numbers_that_mean_no_limit_are_none() {
        let dir = tempfile::tempdir().expect("a directory");
        for (text, expected) in [("max\n", None), ("9223372036854771712\n", None), ("4096\n", Some(4096)), ("", None)] {
            std::fs::write(dir.path().join("limit"), text).expect("written");
            assert_eq!(read(dir.path(), "limit"), expected);
        }
        assert_eq!(read(dir.path(), "none"), None);
    }
}
