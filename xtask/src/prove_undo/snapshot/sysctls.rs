//! The kernel's switches: `net`, `kernel`, `vm` and `fs` of `/proc/sys`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Class, Facts, Place};

/// The class.
pub(super) struct Sysctls;

const ROOT: &str = "/proc/sys";

/// What the kernel itself changes all the time, by the end of its path: counters and random numbers, no switches.
const COUNTERS: &[&str] = &[
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random/boot_id",
    "kernel/random/entropy_avail",
    "kernel/random/uuid",
    "kernel/sched_domain",
    "kernel/tainted",
    "kernel/seccomp/actions_logged",
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "net/netfilter/nf_conntrack_count",
];

/// Where others' tests make and end namespaces at the same time, these come and go with them.
const SHARED: &[&str] = &["fs/mount-nr", "kernel/threads-max"];

impl Class for Sysctls {
    fn name(&self) -> &'static str {
        "sysctls"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let mut facts = Facts::new();
        for part in ["net", "kernel", "vm", "fs"] {
            walk(&Path::new(ROOT).join(part), &mut facts);
        }
        if facts.is_empty() { Err(format!("{ROOT} is empty")) } else { Ok(facts) }
    }
}

fn walk(path: &Path, facts: &mut Facts) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let name = path.strip_prefix(ROOT).unwrap_or(path).display().to_string();
    if COUNTERS.iter().chain(SHARED).any(|counter| name.starts_with(counter)) {
        return;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), facts);
        }
    } else if metadata.mode() & 0o444 != 0
        && metadata.mode() & 0o222 != 0
        // What cannot be read (some wait for an argument) is no state.
        && let Ok(value) = fs::read_to_string(path)
    {
        facts.insert(name, value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}
