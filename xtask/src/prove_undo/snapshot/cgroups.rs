//! Control groups of both versions: which there are, their limits, whether they are frozen, and who is in them.

use std::fs;
use std::path::Path;

use super::super::members::members;
use super::{Class, Facts, Place};

/// The class.
pub(super) struct Cgroups;

/// Where hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// Files that say what a group may use, of version 2 and of version 1. Other files count or measure.
const LIMITS: &[&str] = &[
    "cgroup.freeze",
    "cgroup.subtree_control",
    "cgroup.type",
    "cgroup.max.depth",
    "cgroup.max.descendants",
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "cpu.uclamp.min",
    "cpu.uclamp.max",
    "cpuset.cpus",
    "cpuset.mems",
    "io.max",
    "io.weight",
    "io.latency",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.oom.group",
    "memory.swap.max",
    "memory.swap.high",
    "memory.zswap.max",
    "pids.max",
    "hugetlb.2MB.max",
    "rdma.max",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.write_iops_device",
    "blkio.weight",
    "cpu.cfs_burst_us",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.shares",
    "devices.list",
    "freezer.state",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.swappiness",
    "memory.oom_control",
    "notify_on_release",
    "release_agent",
];

impl Class for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    fn look(&self, place: &Place) -> Result<Facts, String> {
        let mut facts = Facts::new();
        for entry in fs::read_dir(MOUNT).map_err(|e| format!("{MOUNT}: {e}"))?.flatten() {
            walk(&entry.path(), &mut facts);
        }
        for process in members() {
            if place.own.contains(&process.id.pid()) || process.kernel_thread {
                continue;
            }
            let name = format!("{} ({})", process.id.pid(), process.cmdline.join(" "));
            let outside_the_root = process.cgroups.iter().filter(|membership| membership.path != "/");
            facts.extend(outside_the_root.map(|membership| {
                (
                    format!("{name} in {} of [{}]", membership.path, membership.controllers.join(",")),
                    "a member".to_owned(),
                )
            }));
        }
        Ok(facts)
    }
}

fn walk(group: &Path, facts: &mut Facts) {
    if !group.is_dir() || group.is_symlink() {
        return;
    }
    facts.insert(group.display().to_string(), "a group".into());
    for limit in LIMITS {
        let file = group.join(limit);
        if let Ok(value) = fs::read_to_string(&file) {
            let value =
                value.trim().lines().filter(|line| !line.starts_with("oom_kill")).collect::<Vec<_>>().join(", ");
            facts.insert(file.display().to_string(), value);
        }
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        walk(&entry.path(), facts);
    }
}
