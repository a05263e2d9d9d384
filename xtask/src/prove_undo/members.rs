//! Which processes are the sandbox's: those of its namespace of control groups, which none of them leaves.

use std::fs;
use std::path::PathBuf;

use toprope_os::process::ProcessInfo;

/// Every process of this sandbox that can be described.
pub(crate) fn members() -> Vec<ProcessInfo> {
    let namespace = |process: &str| -> Option<PathBuf> { fs::read_link(format!("/proc/{process}/ns/cgroup")).ok() };
    let ours = namespace("self");
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().into_string().ok()?.parse::<u32>().ok());
    // Of a process that has ended and was not reaped the namespace cannot be read: it is somebody's whom we do see.
    let is_ours = |pid: &u32| {
        let its = namespace(&pid.to_string());
        its == ours || (its.is_none() && parent(*pid).is_some_and(|parent| namespace(&parent.to_string()) == ours))
    };
    numbers.filter(is_ours).filter_map(|pid| ProcessInfo::of(pid).ok()).collect()
}

fn parent(pid: u32) -> Option<u32> {
    Some(ProcessInfo::of(pid).ok()?.ppid)
}
