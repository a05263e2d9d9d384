//! Faults that take what a host has: time on its cores, memory, space on its disks.

use super::super::members::members;
use super::super::sandbox::{DISK, Inside};
use super::super::victims::{Role, ours};
use super::{Mechanism, Scenario, Stage, never, nothing};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        fault: "cpu-stress",
        variant: "",
        mechanism: Mechanism::Threads,
        stage: cpu,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "memory-stress",
        variant: "",
        mechanism: Mechanism::Memory,
        stage: memory,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
    Scenario {
        fault: "disk-fill",
        variant: "",
        mechanism: Mechanism::UnnamedFile,
        stage: disk,
        leaves: nothing,
        host_pids: false,
        missing: never,
    },
];

/// How much memory is taken, in MiB.
const MEMORY: u64 = 128;

/// The threads that compute have the CPU to themselves in no way that can be seen but by their names and their time.
fn cpu(_: &Inside) -> Result<Stage, String> {
    let computes = || {
        ours().iter().filter(|(role, _)| *role == Role::Injector).any(|(_, id)| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", id.pid())).into_iter().flatten().flatten();
            tasks
                .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
                .any(|name| name.starts_with("load-core"))
        })
    };
    Ok(Stage::new("cpu-stress: {load: 20%, cores: 1, for: {for}}", vec![], computes))
}

fn memory(_: &Inside) -> Result<Stage, String> {
    let held = || {
        let takes = |p: &toprope_os::process::ProcessInfo| p.cmdline.get(1).is_some_and(|word| word == "injector");
        members().iter().any(|p| takes(p) && p.rss > (MEMORY / 2) << 20)
    };
    let method = format!("memory-stress: {{amount: {MEMORY}MiB, reserve: 1GiB, for: {{for}}}}");
    Ok(Stage::new(method, vec![], held))
}

fn disk(_: &Inside) -> Result<Stage, String> {
    let free = || rustix::fs::statvfs(DISK).map_or(0, |space| space.f_bfree * space.f_frsize);
    let before = free();
    let method = format!("disk-fill: {{path: {DISK}, amount: 96MiB, for: {{for}}}}");
    Ok(Stage::new(method, vec![], move || before - free().min(before) > 1 << 20))
}
